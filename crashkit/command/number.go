package command

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/sym"
)

// errNoSymbol is wrapped by the errors of names that are no symbol.
var errNoSymbol = errors.New("no such symbol")

// address evaluates an operand that stands for a virtual address: a symbol, a
// hexadecimal number with or without 0x, or either of them plus or minus an
// offset, perhaps in parentheses. "module:symbol" is that module's symbol.
func (e *Env) address(s string) (addr.Virt, error) {
	expr := s
	if strings.HasPrefix(expr, "(") && strings.HasSuffix(expr, ")") {
		expr = expr[1 : len(expr)-1]
	}
	name, sign, offset := strings.TrimSpace(expr), uint64(0), ""
	if i := strings.IndexAny(expr, "+-"); i > 0 {
		name, offset = strings.TrimSpace(expr[:i]), strings.TrimSpace(expr[i+1:])
		if sign = 1; expr[i] == '-' {
			sign = ^uint64(0)
		}
	}
	base, err := e.base(name)
	if err != nil || sign == 0 {
		return base, err
	}
	off, err := number(offset)
	if err != nil {
		return 0, fmt.Errorf("offset in %q: %w", s, err)
	}
	return base + addr.Virt(sign*off), nil
}

func (e *Env) base(name string) (addr.Virt, error) {
	syms := e.symbols(name)
	if len(syms) == 1 {
		return syms[0].Addr, nil
	}
	if len(syms) > 1 {
		var where []string
		for _, s := range syms {
			where = append(where, fmt.Sprintf("%x", uint64(s.Addr)))
		}
		return 0, fmt.Errorf("%d symbols are called %s: give one's address (%s)", len(syms), name, strings.Join(where, ", "))
	}
	if v, err := strconv.ParseUint(strings.TrimPrefix(name, "0x"), 16, 64); err == nil {
		return addr.Virt(v), nil
	}
	return 0, e.noSymbol(name)
}

// noSymbol is the error for a name that is no symbol.
func (e *Env) noSymbol(name string) error {
	var names []string
	for _, s := range e.Program.Syms.All() {
		names = append(names, s.Name)
	}
	if near := nearest(name, names, 5); len(near) > 0 {
		return fmt.Errorf("%w: %s; similar: %s", errNoSymbol, name, strings.Join(near, ", "))
	}
	return fmt.Errorf("%w: %s", errNoSymbol, name)
}

// symbols returns all symbols of that name, in the kernel and in modules, each
// address once. "module:name" asks for that module's only.
func (e *Env) symbols(name string) []sym.Symbol {
	var all []sym.Symbol
	module, bare, qualified := strings.Cut(name, ":")
	if !qualified {
		bare = name
		all = e.Program.Syms.LookupAll(name)
	}
	mods, _ := e.Program.Modules() // one that cannot be read has no symbols
	for _, m := range mods {
		if !qualified || m.Name == module {
			all = append(all, m.Syms.LookupAll(bare)...)
		}
	}
	for i := 1; i < len(all); {
		if all[i].Addr == all[i-1].Addr {
			all = append(all[:i], all[i+1:]...)
		} else {
			i++
		}
	}
	return all
}

// number evaluates a count or an offset: decimal, or hexadecimal if it begins
// with 0x or has a hexadecimal digit.
func number(s string) (uint64, error) {
	if v, err := strconv.ParseUint(s, 10, 64); err == nil {
		return v, nil
	}
	v, err := strconv.ParseUint(strings.TrimPrefix(s, "0x"), 16, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return v, nil
}

// symbolic returns how crash names an address: "symbol+offset", the offset in
// decimal, or in hex if so asked; "" if no symbol covers it.
func (e *Env) symbolic(v addr.Virt, hex bool) string {
	s, off, ok := e.Program.FindSymbol(v)
	switch {
	case !ok:
		return ""
	case off == 0:
		return s.Name
	case hex:
		return fmt.Sprintf("%s+%#x", s.Name, off)
	}
	return fmt.Sprintf("%s+%d", s.Name, off)
}
