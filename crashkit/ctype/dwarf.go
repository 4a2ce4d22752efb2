package ctype

import (
	"debug/dwarf"
	"fmt"
	"math"

	"crashlab/crashkit/internal/die"
)

// dwarfTypes is the source of types that debug information is. An id is the
// offset of a type's entry in .debug_info.
type dwarfTypes struct {
	d     *die.Data
	index *dwarfIndex
}

// FromDWARF returns the types of debug information. Nothing is read before it is asked for.
func FromDWARF(d *die.Data) (*Set, error) {
	if len(d.Info) > math.MaxUint32 {
		return nil, fmt.Errorf("types of debug information: .debug_info has %d bytes", len(d.Info))
	}
	return newSet(&dwarfTypes{d: d, index: newDWARFIndex(d)}, nil), nil
}

// TypeAt returns the type whose entry is at an offset of the .debug_info that the set was
// made of; void if there is none.
func (s *Set) TypeAt(off uint64) Type {
	if _, ok := s.src.(*dwarfTypes); !ok || off > math.MaxUint32 {
		return &Void{}
	}
	return s.byID(uint32(off), 0)
}

func (s *dwarfTypes) find(keyword, tag string) (id uint32, exact, ok bool) {
	if id, ok = s.index.find(keyword, tag); ok || keyword != "" {
		return id, true, ok
	}
	for _, k := range []string{"struct", "union", "enum"} {
		if id, ok = s.index.find(k, tag); ok {
			break
		}
	}
	return id, false, ok
}

func (s *dwarfTypes) enumerator(name string) (id uint32, index int, ok bool) {
	id, ok = s.index.find(enumerators, name)
	if !ok {
		return 0, 0, false
	}
	e, ok := s.decode(nil, id, 0).(*Enum) // which names no other type
	if !ok {
		return 0, 0, false
	}
	for i, v := range e.Values {
		if v.Name == name {
			return id, i, true
		}
	}
	return 0, 0, false
}

func (s *dwarfTypes) names() []string { return s.index.names() }

func (s *dwarfTypes) first() uint32 { return 0 }

// elsewhere is the name of a type that is not in the file's units.
const elsewhere = "unknown"

// The encodings of base types (DWARF 5, table 7.11).
const (
	encBoolean      = 0x02
	encComplexFloat = 0x03
	encFloat        = 0x04
	encSigned       = 0x05
	encSignedChar   = 0x06
	encUnsigned     = 0x07
	encUnsignedChar = 0x08
	encUTF          = 0x10
)

func (s *dwarfTypes) decode(set *Set, id uint32, depth int) Type {
	u, ok := s.d.UnitOf(uint64(id))
	if !ok {
		return nil
	}
	r, err := u.Reader(uint64(id))
	if err != nil {
		return nil
	}
	var e die.Entry
	if !r.Next(&e) {
		return nil
	}
	link := func(e *die.Entry) ref {
		v, ok := e.Value(dwarf.AttrType)
		switch {
		case !ok:
			return ref{set, 0} // void
		case v.Class == die.Ref && v.U <= math.MaxUint32:
			return ref{set, uint32(v.U)}
		}
		return refTo(&Fwd{Name: elsewhere}) // in another file, or a unit of its own
	}
	size, _ := e.Uint(dwarf.AttrByteSize)
	switch e.Tag {
	case dwarf.TagBaseType:
		enc, _ := e.Uint(dwarf.AttrEncoding)
		switch enc {
		case encFloat, encComplexFloat:
			return &Float{Name: e.Name(), Bytes: size}
		}
		return &Int{
			Name: e.Name(), Bytes: size, Signed: enc == encSigned || enc == encSignedChar, Bool: enc == encBoolean,
			Char: enc == encSignedChar || enc == encUnsignedChar || enc == encUTF && size == 1,
		}
	case dwarf.TagPointerType, dwarf.TagReferenceType, dwarf.TagRvalueReferenceType:
		return &Pointer{Bytes: 8, target: link(&e)}
	case dwarf.TagTypedef:
		return &Typedef{Name: e.Name(), typ: link(&e)}
	case dwarf.TagConstType:
		return &Qualified{"const", link(&e)}
	case dwarf.TagVolatileType:
		return &Qualified{"volatile", link(&e)}
	case dwarf.TagRestrictType:
		return &Qualified{"restrict", link(&e)}
	case dwarf.TagAtomicType:
		return &Qualified{"_Atomic", link(&e)}
	case dwarf.TagArrayType:
		return arrayOf(link(&e), dimensions(r, &e))
	case dwarf.TagStructType, dwarf.TagClassType, dwarf.TagUnionType:
		t := &Struct{Name: e.Name(), Union: e.Tag == dwarf.TagUnionType, Bytes: size}
		if _, ok := e.Uint(dwarf.AttrDeclaration); ok {
			return s.defined(set, t, depth)
		}
		for c := range r.Inside(&e) {
			if c.Tag == dwarf.TagMember {
				t.Members = append(t.Members, member(c, link(c)))
			}
		}
		return t
	case dwarf.TagEnumerationType:
		return s.enum(r, &e, size)
	case dwarf.TagSubroutineType, dwarf.TagSubprogram:
		f := &Func{result: link(&e)}
		for c := range r.Inside(&e) {
			switch c.Tag {
			case dwarf.TagFormalParameter:
				f.Params = append(f.Params, Param{c.Name(), link(c)})
			case dwarf.TagUnspecifiedParameters:
				f.Variadic = true
			}
		}
		return f
	}
	return nil
}

// defined returns the definition of a struct that a unit only declares, or says
// that there is none.
func (s *dwarfTypes) defined(set *Set, t *Struct, depth int) Type {
	if id, ok := s.index.find(t.Keyword(), t.Name); ok && set != nil {
		return set.byID(id, depth+1)
	}
	return &Fwd{Name: t.Name, Union: t.Union}
}

// dimensions returns the lengths of an array, outermost first.
func dimensions(r *die.Reader, e *die.Entry) []uint64 {
	var all []uint64
	for c := range r.Inside(e) {
		if c.Tag != dwarf.TagSubrangeType || len(all) == maxDepth {
			continue
		}
		n, ok := c.Uint(dwarf.AttrCount)
		if !ok {
			if n, ok = c.Uint(dwarf.AttrUpperBound); ok {
				n++ // of a[0], the bound is -1
			}
		}
		all = append(all, n)
	}
	return all
}

// arrayOf returns the array of elem with these lengths.
func arrayOf(elem ref, lengths []uint64) Type {
	if len(lengths) == 0 {
		return &Array{elem: elem}
	}
	for i := len(lengths) - 1; i > 0; i-- {
		elem = refTo(&Array{Len: lengths[i], elem: elem})
	}
	return &Array{Len: lengths[0], elem: elem}
}

// opPlusUconst is the only operation that a place of a member is written with,
// where it is not a number.
const opPlusUconst = 0x23

// member decodes a member of a struct.
func member(e *die.Entry, typ ref) Member {
	m := Member{Name: e.Name(), typ: typ}
	bytes := uint64(0)
	if v, ok := e.Value(dwarf.AttrDataMemberLoc); ok {
		switch {
		case v.Class == die.Constant || v.Class == die.Offset: // of version 3
			bytes = v.U
		case len(v.B) > 1 && v.B[0] == opPlusUconst:
			bytes = die.NewCursor(v.B[1:]).Uleb()
		}
	}
	m.Offset = 8 * bytes
	var isField bool
	if m.Bits, isField = e.Uint(dwarf.AttrBitSize); !isField {
		return m
	}
	if off, ok := e.Uint(dwarf.AttrDataBitOffset); ok {
		m.Offset += off
		return m
	}
	// Until DWARF 4 the bits were counted from the most significant one of the
	// unit that holds them.
	off, ok := e.Uint(dwarf.AttrBitOffset)
	unit, _ := e.Uint(dwarf.AttrByteSize)
	if !ok {
		return m
	}
	if unit == 0 {
		unit = Resolve(typ.get()).Size()
	}
	m.Offset += 8*unit - off - m.Bits
	return m
}

// enum decodes an enumeration. C has no say in its signedness: compilers make
// it signed where a value is negative.
func (s *dwarfTypes) enum(r *die.Reader, e *die.Entry, size uint64) Type {
	t := &Enum{Name: e.Name(), Bytes: size}
	if off, ok := e.Ref(dwarf.AttrType); ok {
		if base, err := s.d.Entry(off); err == nil {
			enc, _ := base.Uint(dwarf.AttrEncoding)
			t.Signed = enc == encSigned || enc == encSignedChar
		}
	}
	for c := range r.Inside(e) {
		if c.Tag != dwarf.TagEnumerator {
			continue
		}
		v, ok := c.Value(dwarf.AttrConstValue)
		if !ok || v.Class != die.Constant {
			continue
		}
		t.Signed = t.Signed || v.Signed && int64(v.U) < 0
		t.Values = append(t.Values, EnumValue{c.Name(), v.U})
	}
	if !t.Signed && size > 0 && size < 8 {
		for i := range t.Values {
			t.Values[i].Value &= 1<<(8*size) - 1
		}
	}
	return t
}
