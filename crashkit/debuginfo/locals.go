package debuginfo

import (
	"debug/dwarf"
	"encoding/binary"
	"errors"
	"fmt"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
)

// Variable is a parameter or a local variable of a function.
type Variable struct {
	Name  string
	Param bool
	Type  ctype.Type
	// Value is the variable, in memory or as it was in a register. Its Err is why there
	// is none: ErrOptimizedOut, ErrEntryValue or something more particular.
	Value ctype.Object
	// Where is a register's name, Memory, or "" for what has no place of its own.
	Where string
}

// Memory is where a variable is that has an address.
const Memory = "memory"

// Scope is the variables of one function that the code lies in, which may have been
// inlined; as Place says.
type Scope struct {
	Place
	Variables []Variable
}

// moment is the state of one frame.
type moment struct {
	f      *File
	pc     uint64 // as in the file
	back   uint64 // where the function returned to in this frame, as in the file; 0 if it did not
	moved  uint64 // from the addresses in the file to those in memory
	regs   registerSet
	cfa    uint64
	hasCFA bool
	mem    ctype.Memory
	caller *moment // nil if it is not known
}

// scopes returns the variables at a moment, of the innermost function first, as Places
// does. It is empty where no function covers the code.
func (m *moment) scopes() (all []Scope, err error) {
	defer guard(m.f.Path, &err)
	places, err := m.f.Places(m.pc)
	if err != nil {
		return nil, err
	}
	budget := maxEntries
	l, err := m.locator(&budget)
	if l == nil || err != nil {
		return nil, err
	}
	for i, e := range l.chain {
		s := Scope{Variables: []Variable{}}
		if i < len(places) {
			s.Place = places[i]
		}
		if s.Variables, err = l.variables(e, s.Variables); err != nil {
			return all, err
		}
		all = append(all, s)
	}
	return all, nil
}

// locator returns what finds the variables of the functions that the code is in; nil if
// no function covers it.
func (m *moment) locator(budget *int) (*locator, error) {
	f := m.f
	u, err := f.unitAt(m.pc)
	if u == nil || err != nil {
		return nil, err
	}
	off, ok, err := u.functionAt(m.pc)
	if !ok || err != nil {
		return nil, err
	}
	chain, err := u.inlined(off, m.pc)
	if err != nil {
		return nil, err
	}
	types, err := f.Types()
	if err != nil {
		return nil, err
	}
	l := &locator{f: f, u: u, m: m, chain: chain, types: types, version: u.version(f), budget: budget}
	l.evaluator = evaluator{
		regs: &m.regs, mem: m.mem, addr: l.addrx, number: l.baseType, entry: l.entryValue,
		static: func(v uint64) uint64 { return v + m.moved },
		cfa: func() (uint64, error) {
			if !m.hasCFA {
				return 0, errors.New("where the function's frame begins is not known")
			}
			return m.cfa, nil
		},
		base: func() (uint64, error) { return l.frameBase(chain[len(chain)-1]) },
	}
	return l, nil
}

// version returns the version of DWARF that the unit is written in.
func (u *unit) version(f *File) int {
	b := f.section("info")[u.off:]
	if len(b) < 14 {
		return 0
	}
	if binary.LittleEndian.Uint32(b) == 0xffffffff {
		b = b[8:]
	}
	return int(binary.LittleEndian.Uint16(b[4:]))
}

// locator finds the variables of one unit.
type locator struct {
	evaluator
	f       *File
	u       *unit
	m       *moment
	chain   []*dwarf.Entry // the functions, innermost first; the last is not inlined
	types   *ctype.Set
	version int
	budget  *int // values at the entry of a function that may still be looked for
}

// addrx returns an address of the unit's part of .debug_addr.
func (l *locator) addrx(i uint64) (uint64, bool) {
	base, _ := l.u.entry.Val(dwarf.AttrAddrBase).(int64)
	return tableWord(l.f.section("addr"), uint64(base), i)
}

// baseType returns the size in bytes, up to 8, and the signedness of a type of numbers.
func (l *locator) baseType(off uint64) (uint64, bool, error) {
	t, ok := l.typeAt(dwarf.Offset(off)).(*ctype.Int)
	if !ok || t.Bytes == 0 || t.Bytes > 8 {
		return 0, false, errors.New("an expression has a number that is no integer")
	}
	return t.Bytes, t.Signed, nil
}

func (l *locator) typeAt(off dwarf.Offset) ctype.Type {
	return l.types.TypeAt(uint64(l.u.off) + uint64(off))
}

// frameBase evaluates the DW_AT_frame_base of a function.
func (l *locator) frameBase(fn *dwarf.Entry) (uint64, error) {
	expr, err := l.expression(fn, dwarf.AttrFrameBase)
	if err != nil {
		return 0, err
	}
	e := l.evaluator
	e.base = func() (uint64, error) { return 0, errors.New("a frame base that depends on itself") }
	return e.value(expr)
}

// expression returns the expression of an attribute that holds at the moment. It is nil
// if there is none.
func (l *locator) expression(e *dwarf.Entry, a dwarf.Attr) ([]byte, error) {
	f := e.AttrField(a)
	if f == nil {
		return nil, nil
	}
	off := uint64(0)
	switch v := f.Val.(type) {
	case []byte:
		return v, nil
	case int64:
		off = uint64(v)
	case uint64:
		off = v
	default:
		return nil, fmt.Errorf("a location of type %T", v)
	}
	if f.Class == dwarf.ClassLocList {
		base, ok := l.u.entry.Val(dwarf.AttrLoclistsBase).(int64)
		b := l.f.section("loclists")
		if !ok || base < 0 || uint64(base) > uint64(len(b)) || off >= uint64(len(b)-int(base))/4 {
			return nil, errors.New("a list of locations that is not there")
		}
		off = uint64(base) + uint64(binary.LittleEndian.Uint32(b[uint64(base)+4*off:]))
	}
	low, _ := l.u.entry.Val(dwarf.AttrLowpc).(uint64)
	return l.f.locationAt(l.version, off, l.m.pc, low, l.addrx)
}

// maxVariables bounds the variables of a function; the largest have some hundred.
const maxVariables = 4096

// variables adds the variables of a function, as far as the blocks they are in have
// been entered.
func (l *locator) variables(fn *dwarf.Entry, all []Variable) ([]Variable, error) {
	if !fn.Children {
		return all, nil
	}
	r := l.u.data.Reader()
	r.Seek(fn.Offset)
	if _, err := r.Next(); err != nil {
		return all, err
	}
	for depth := 1; depth > 0; {
		e, err := r.Next()
		if e == nil || err != nil {
			return all, err
		}
		switch e.Tag {
		case 0:
			depth--
			continue
		case dwarf.TagFormalParameter, dwarf.TagVariable:
			v, ok, err := l.variable(e)
			if err != nil {
				return all, err
			}
			if ok {
				all = append(all, v)
			}
			if len(all) > maxVariables {
				return all, errors.New("more variables than a function has")
			}
		case dwarf.TagLexDwarfBlock:
			inside, err := l.u.covers(e, l.m.pc)
			if err != nil {
				return all, err
			}
			if inside && e.Children {
				depth++
				continue
			}
		}
		r.SkipChildren()
	}
	return all, nil
}

// covers reports whether the entry's code includes pc.
func (u *unit) covers(e *dwarf.Entry, pc uint64) (bool, error) {
	ranges, err := u.data.Ranges(e)
	for _, p := range ranges {
		if p[0] <= pc && pc < p[1] {
			return true, err
		}
	}
	return false, err
}

// variable reads one variable. It has none for a declaration of what is elsewhere.
func (l *locator) variable(e *dwarf.Entry) (Variable, bool, error) {
	abstract := e
	if off, ok := e.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset); ok {
		r := l.u.data.Reader()
		r.Seek(off)
		var err error
		if abstract, err = r.Next(); err != nil || abstract == nil {
			return Variable{}, false, err
		}
	}
	either := func(a dwarf.Attr) any {
		if v := e.Val(a); v != nil {
			return v
		}
		return abstract.Val(a)
	}
	if declared, _ := either(dwarf.AttrDeclaration).(bool); declared {
		return Variable{}, false, nil
	}
	v := Variable{Param: e.Tag == dwarf.TagFormalParameter, Type: &ctype.Void{}}
	v.Name, _ = either(dwarf.AttrName).(string)
	if off, ok := either(dwarf.AttrType).(dwarf.Offset); ok {
		v.Type = l.typeAt(off)
	}
	var err error
	if v.Value, v.Where, err = l.value(e, abstract, v); err != nil {
		v.Value = ctype.Failed(v.Name, err)
	}
	return v, true, nil
}

// value finds a variable's value.
func (l *locator) value(e, abstract *dwarf.Entry, v Variable) (ctype.Object, string, error) {
	none := ctype.Object{}
	for _, e := range []*dwarf.Entry{e, abstract} {
		switch c := e.Val(dwarf.AttrConstValue).(type) {
		case int64:
			return l.known(v, word64(uint64(c)), "")
		case uint64:
			return l.known(v, word64(c), "")
		case []byte:
			return l.known(v, c, "")
		}
	}
	expr, err := l.expression(e, dwarf.AttrLocation)
	if err != nil {
		return none, "", err
	}
	if expr == nil {
		return none, "", ErrOptimizedOut
	}
	p, err := l.locate(expr)
	switch {
	case err != nil:
		return none, "", err
	case p.kind == inMemory:
		return ctype.NewObject(l.m.mem, v.Type, addr.Virt(p.addr), v.Name), Memory, nil
	case p.kind == inRegister:
		return l.known(v, p.bytes, registerName(p.reg))
	}
	return l.known(v, p.bytes, "")
}

// known returns a variable whose bytes are known without a place in memory.
func (l *locator) known(v Variable, b []byte, where string) (ctype.Object, string, error) {
	size := v.Type.Size()
	if uint64(len(b)) < size || size == 0 {
		return ctype.Object{}, "", fmt.Errorf("%d bytes are known of a %v", len(b), v.Type)
	}
	return ctype.NewObject(overlay{l.m.mem, b[:size]}, v.Type, overlayBase, v.Name), where, nil
}

// overlayBase is an address that no processor takes, and so no pointer has.
const overlayBase addr.Virt = 1 << 63

// overlay is memory in which the bytes of a value lie at overlayBase.
type overlay struct {
	mem   ctype.Memory
	bytes []byte
}

// Read implements ctype.Memory.
func (o overlay) Read(v addr.Virt, b []byte) error {
	if v >= overlayBase && uint64(v-overlayBase) < 1<<32 {
		off := int(v - overlayBase)
		if off > len(o.bytes) || len(b) > len(o.bytes)-off {
			return errors.New("past the end of a value")
		}
		copy(b, o.bytes[off:])
		return nil
	}
	return o.mem.Read(v, b)
}
