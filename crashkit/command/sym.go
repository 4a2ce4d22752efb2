package command

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/debuginfo"
	"crashlab/crashkit/sym"
)

func symCommand() *Command {
	return &Command{
		Name:     "sym",
		Summary:  "translate symbols to addresses and back",
		Operands: "[SYMBOL|ADDRESS]…",
		Max:      -1,
		Flags: []Flag{
			{"l", "", "list all symbols of the kernel and of its modules"},
			{"M", "", "list the symbols of all modules"},
			{"m", "MODULE", "list the symbols of one module"},
			{"q", "TEXT", "list the symbols with TEXT in their name"},
			{"n", "", "show the next symbol after each operand too"},
			{"p", "", "show the symbol before each operand too"},
		},
		Help: "Shows address, type letter as of nm(1), name and module. A name that several symbols have shows all of them; an " +
			"address shows the symbol that covers it and the offset in it. MODULE:SYMBOL asks for that module's. With a VMLINUX named, an address in code shows file and line too. The symbols are those that the crashed kernel kept for its own use.",
		Examples: []string{"sym panic", "sym -q hello_crash", "sym -n do_one_initcall"},
		run:      symbol,
	}
}

// symbolList is what sym found.
type symbolList struct {
	Symbols []symbolRow `json:"symbols"`
}

type symbolRow struct {
	Address uint64 `json:"address"` // the symbol's, or the address asked for
	Type    string `json:"type"`
	Name    string `json:"name"`
	Offset  uint64 `json:"offset"` // of Address in the symbol
	Size    uint64 `json:"size"`   // of the symbol, in bytes
	Module  string `json:"module"` // "" for the kernel itself
	Mark    string `json:"mark,omitempty"`
	// Places is where the code at an address asked for comes from, innermost first.
	Places []debuginfo.Place `json:"places,omitempty"`
}

func row(s sym.Symbol, off uint64) symbolRow {
	return symbolRow{uint64(s.Addr) + off, string(rune(s.Type)), s.Name, off, s.Size, s.Module, "", nil}
}

func symbol(_ context.Context, env *Env, args *Args) (Result, error) {
	list := &symbolList{Symbols: []symbolRow{}}
	mods, err := env.Program.Modules()
	pattern, search := args.Value("q")
	module, one := args.Value("m")
	switch {
	case search:
		list.match(env.Program.Syms, pattern)
		for _, m := range mods {
			list.match(m.Syms, pattern)
		}
		return list, err
	case args.Has("l"), args.Has("M"):
		if args.Has("l") {
			list.match(env.Program.Syms, "")
		}
		for _, m := range mods {
			list.module(m)
			err = errors.Join(append(m.Limits, err)...)
		}
		return list, err
	case one:
		for _, m := range mods {
			if m.Name == module {
				list.module(m)
				return list, errors.Join(m.Limits...)
			}
		}
		return nil, errors.Join(fmt.Errorf("no module is called %s", module), err)
	case len(args.Operands) == 0:
		return nil, args.usage("missing operand")
	}
	var errs []error
	for _, o := range args.Operands {
		errs = append(errs, list.find(env, o, args.Has("p"), args.Has("n")))
	}
	if len(list.Symbols) == 0 {
		return nil, errors.Join(errs...)
	}
	return list, errors.Join(errs...)
}

// match adds the symbols of a table with text in their name.
func (l *symbolList) match(t *sym.Table, text string) {
	for _, s := range t.All() {
		if strings.Contains(s.Name, text) {
			l.Symbols = append(l.Symbols, row(s, 0))
		}
	}
}

// module adds the symbols of a module between marks of where its memory begins
// and ends.
func (l *symbolList) module(m *crashkit.Module) {
	syms := m.Syms.All()
	for _, mem := range m.Memory {
		kind := map[string]string{"core": "MODULE", "init": "MODULE INIT"}[mem.Kind]
		if kind == "" {
			kind = "MODULE " + strings.ToUpper(strings.ReplaceAll(mem.Kind, "_", " "))
		}
		mark := func(v addr.Virt, which string) {
			l.Symbols = append(l.Symbols, symbolRow{Address: uint64(v), Module: m.Name, Mark: kind + " " + which})
		}
		mark(mem.Base, "START")
		for _, s := range syms {
			if mem.Contains(s.Addr) {
				l.Symbols = append(l.Symbols, row(s, 0))
			}
		}
		mark(mem.Base+addr.Virt(mem.Size), "END")
	}
}

// find adds what an operand names.
func (l *symbolList) find(env *Env, operand string, before, after bool) error {
	add := func(s sym.Symbol, off uint64) {
		table := env.Program.Syms
		if m := env.Program.ModuleAt(s.Addr); m != nil {
			table = m.Syms
		}
		if prev, _, ok := table.Find(s.Addr - 1); ok && before {
			l.Symbols = append(l.Symbols, row(prev, 0))
		}
		l.Symbols = append(l.Symbols, row(s, off))
		if next, ok := table.Next(s.Addr); ok && after {
			l.Symbols = append(l.Symbols, row(next, 0))
		}
	}
	if syms := env.symbols(operand); len(syms) > 0 {
		for _, s := range syms {
			add(s, 0)
		}
		return nil
	}
	v, err := env.address(operand)
	if err != nil {
		return err
	}
	s, off, ok := env.Program.FindSymbol(v)
	if !ok {
		return fmt.Errorf("no symbol covers %v", v)
	}
	add(s, off)
	if env.Debug != nil && env.Debug.Named() && s.Text() {
		var err error
		last := &l.Symbols[len(l.Symbols)-1]
		if after {
			last = &l.Symbols[len(l.Symbols)-2]
		}
		if last.Places, err = env.places(v); err != nil {
			return err
		}
	}
	return nil
}

// WriteText implements Result.
func (l *symbolList) WriteText(t *Text) {
	for _, s := range l.Symbols {
		if s.Mark != "" {
			t.Printf("%x %s: %s\n", s.Address, s.Mark, s.Module)
			continue
		}
		t.Printf("%x (%s) %s", s.Address, s.Type, s.Name)
		if s.Offset != 0 {
			t.String("+" + strconv.FormatUint(s.Offset, 10))
		}
		if s.Module != "" {
			t.String(" [" + s.Module + "]")
		}
		for _, p := range s.Places {
			t.String(" " + placeText(p))
		}
		t.String("\n")
	}
}
