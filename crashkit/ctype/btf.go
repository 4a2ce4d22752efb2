package ctype

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
)

// The format is include/uapi/linux/btf.h (Linux v7.1) and
// Documentation/bpf/btf.rst.
const (
	btfMagic      = 0xeb9f
	btfHeaderSize = 24
)

// kinds of BTF types.
const (
	kindInt = iota + 1
	kindPtr
	kindArray
	kindStruct
	kindUnion
	kindEnum
	kindFwd
	kindTypedef
	kindVolatile
	kindConst
	kindRestrict
	kindFunc
	kindFuncProto
	kindVar
	kindDatasec
	kindFloat
	kindDeclTag
	kindTypeTag
	kindEnum64
)

// btf is the source of types that a kernel or a module carries.
type btf struct {
	base    *btf   // the kernel's below a module's, or nil
	firstID uint32 // of the types in this one
	strBase uint32 // strings below this offset are the base's
	types   []byte // the type section
	strs    []byte // the string section
	offs    []uint32
	seed    maphash.Seed
	slots   []uint32 // hash table of 1+index into offs, by name
}

// ParseBTF reads a kernel's BTF, or a module's on top of its kernel's, base.
// It keeps data. Bytes after the last section are ignored.
func ParseBTF(data []byte, base *Set) (*Set, error) {
	if len(data) < btfHeaderSize {
		return nil, fmt.Errorf("parse BTF: %d bytes is too short for a header", len(data))
	}
	le := binary.LittleEndian
	if m := le.Uint16(data); m != btfMagic {
		return nil, fmt.Errorf("parse BTF: magic is %#x, not %#x", m, btfMagic)
	}
	hdr := uint64(le.Uint32(data[4:]))
	section := func(off, size uint32) ([]byte, error) {
		start := hdr + uint64(off)
		if end := start + uint64(size); end > uint64(len(data)) {
			return nil, fmt.Errorf("parse BTF: section [%#x, %#x) is past the end at %#x", start, end, len(data))
		}
		return data[start : start+uint64(size)], nil
	}
	s := &btf{seed: maphash.MakeSeed()}
	var err error
	if s.types, err = section(le.Uint32(data[8:]), le.Uint32(data[12:])); err != nil {
		return nil, err
	}
	if s.strs, err = section(le.Uint32(data[16:]), le.Uint32(data[20:])); err != nil {
		return nil, err
	}
	s.firstID = 1 // 0 is void
	if base != nil {
		b, ok := base.src.(*btf)
		if !ok {
			return nil, errors.New("parse BTF: it stands on a kernel's, and that has none")
		}
		s.base = b
		s.firstID = b.firstID + uint32(len(b.offs))
		s.strBase = b.strBase + uint32(len(b.strs))
	}
	if err := s.index(); err != nil {
		return nil, err
	}
	return newSet(s, base), nil
}

// index finds where each type starts and makes the hash table of names.
func (s *btf) index() error {
	s.offs = make([]uint32, 0, len(s.types)/20)
	named := 0
	for off := 0; off < len(s.types); {
		if len(s.types)-off < 12 {
			return fmt.Errorf("parse BTF: type %d is cut off", int(s.firstID)+len(s.offs))
		}
		s.offs = append(s.offs, uint32(off))
		t := s.raw(off)
		if t.indexed() {
			named++
		}
		n := t.extra()
		if n < 0 || n > len(s.types)-off-12 {
			return fmt.Errorf("parse BTF: type %d (kind %d, %d parts) is unknown or cut off", int(s.firstID)+len(s.offs)-1, t.kind, t.vlen)
		}
		off += 12 + n
	}
	n := 16
	for n < 2*named {
		n *= 2
	}
	s.slots = make([]uint32, n)
	for i, off := range s.offs {
		if t := s.raw(int(off)); t.indexed() {
			h := s.hash(s.str(t.name))
			for s.slots[h] != 0 {
				h = (h + 1) & (n - 1)
			}
			s.slots[h] = uint32(i + 1)
		}
	}
	return nil
}

func (s *btf) hash(name []byte) int { return int(maphash.Bytes(s.seed, name)) & (len(s.slots) - 1) }

// rawType is a struct btf_type.
type rawType struct {
	name       uint32
	kind, vlen int
	kflag      bool
	sizeOrType uint32
	data       []byte // what follows the struct
}

func (s *btf) raw(off int) rawType {
	b := s.types[off:]
	info := binary.LittleEndian.Uint32(b[4:])
	return rawType{
		name: binary.LittleEndian.Uint32(b), kind: int(info >> 24 & 0x1f), vlen: int(info & 0xffff),
		kflag: info>>31 != 0, sizeOrType: binary.LittleEndian.Uint32(b[8:]), data: b[12:],
	}
}

// indexed reports whether the type can be looked up by name.
func (t rawType) indexed() bool {
	switch t.kind {
	case kindInt, kindStruct, kindUnion, kindEnum, kindEnum64, kindTypedef, kindFloat:
		return t.name != 0
	}
	return false
}

// extra returns the size in bytes of what follows the struct, or -1.
func (t rawType) extra() int {
	switch t.kind {
	case kindInt, kindVar, kindDeclTag:
		return 4
	case kindPtr, kindFwd, kindTypedef, kindVolatile, kindConst, kindRestrict, kindFunc, kindFloat, kindTypeTag:
		return 0
	case kindArray:
		return 12
	case kindStruct, kindUnion, kindDatasec, kindEnum64:
		return 12 * t.vlen
	case kindEnum, kindFuncProto:
		return 8 * t.vlen
	}
	return -1
}

// str returns the string at an offset; the empty one if there is none.
func (s *btf) str(off uint32) []byte {
	for ; s.base != nil && off < s.strBase; s = s.base {
	}
	off -= s.strBase
	if int64(off) >= int64(len(s.strs)) {
		return nil
	}
	b := s.strs[off:]
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return nil
}

func (s *btf) find(keyword, tag string) (id uint32, exact, ok bool) {
	for h := s.hash([]byte(tag)); s.slots[h] != 0; h = (h + 1) & (len(s.slots) - 1) {
		i := s.slots[h] - 1
		t := s.raw(int(s.offs[i]))
		if string(s.str(t.name)) != tag {
			continue
		}
		kind := ""
		switch t.kind {
		case kindStruct:
			kind = "struct"
		case kindUnion:
			kind = "union"
		case kindEnum, kindEnum64:
			kind = "enum"
		}
		if kind == keyword {
			return s.firstID + i, true, true
		}
		if keyword == "" && !ok {
			id, ok = s.firstID+i, true
		}
	}
	return id, false, ok
}

func (s *btf) names() []string {
	var names []string
	for _, off := range s.offs {
		if t := s.raw(int(off)); t.indexed() {
			names = append(names, string(s.str(t.name)))
		}
	}
	return names
}

func (s *btf) first() uint32 { return s.firstID }

func (s *btf) enumerator(name string) (id uint32, index int, ok bool) {
	for i, off := range s.offs {
		// Only the enum that has it is decoded: a kernel has thousands.
		if v := s.raw(int(off)).enumerator(s, name); v >= 0 {
			return s.firstID + uint32(i), v, true
		}
	}
	return 0, 0, false
}

// enumerator returns the index of the enumerator of that name, or -1.
func (t rawType) enumerator(s *btf, name string) int {
	size := 0
	switch t.kind {
	case kindEnum:
		size = 8
	case kindEnum64:
		size = 12
	default:
		return -1
	}
	for i := range t.vlen {
		if s.strIs(binary.LittleEndian.Uint32(t.data[size*i:]), name) {
			return i
		}
	}
	return -1
}

// strIs reports whether the string at an offset is text.
func (s *btf) strIs(off uint32, text string) bool {
	for ; s.base != nil && off < s.strBase; s = s.base {
	}
	end := uint64(off-s.strBase) + uint64(len(text))
	return end < uint64(len(s.strs)) && s.strs[end] == 0 && string(s.strs[off-s.strBase:end]) == text
}

func (s *btf) decode(set *Set, id uint32, depth int) Type {
	if id < s.firstID || id-s.firstID >= uint32(len(s.offs)) {
		return nil
	}
	t := s.raw(int(s.offs[id-s.firstID]))
	le := binary.LittleEndian
	name := string(s.str(t.name))
	link := ref{set, t.sizeOrType}
	switch t.kind {
	case kindInt:
		enc := le.Uint32(t.data) >> 24 & 0xf
		return &Int{
			Name: name, Bytes: uint64(t.sizeOrType), Signed: enc&1 != 0, Bool: enc&4 != 0,
			Char: enc&2 != 0 || t.sizeOrType == 1 && strings.HasSuffix(name, "char"),
		}
	case kindFloat:
		return &Float{Name: name, Bytes: uint64(t.sizeOrType)}
	case kindPtr:
		return &Pointer{Bytes: 8, target: link}
	case kindArray:
		return &Array{Len: uint64(le.Uint32(t.data[8:])), elem: ref{set, le.Uint32(t.data)}}
	case kindStruct, kindUnion:
		u := &Struct{Name: name, Union: t.kind == kindUnion, Bytes: uint64(t.sizeOrType), Members: make([]Member, t.vlen)}
		for i := range u.Members {
			b := t.data[12*i:]
			off := le.Uint32(b[8:])
			m := Member{Name: string(s.str(le.Uint32(b))), typ: ref{set, le.Uint32(b[4:])}, Offset: uint64(off)}
			if t.kflag { // bit-field widths are in the top byte
				m.Offset, m.Bits = uint64(off&0xffffff), uint64(off>>24)
			}
			u.Members[i] = m
		}
		return u
	case kindEnum, kindEnum64:
		u := &Enum{Name: name, Bytes: uint64(t.sizeOrType), Signed: t.kflag, Values: make([]EnumValue, t.vlen)}
		for i := range u.Values {
			if t.kind == kindEnum {
				b := t.data[8*i:]
				v := uint64(le.Uint32(b[4:]))
				// Before Linux commit 6089fb325cf7 ("bpf: Add btf enum64
				// support") (in v6.0) the signedness was not recorded.
				if u.Signed {
					v = uint64(int64(int32(v)))
				}
				u.Values[i] = EnumValue{string(s.str(le.Uint32(b))), v}
			} else {
				b := t.data[12*i:]
				u.Values[i] = EnumValue{string(s.str(le.Uint32(b))), uint64(le.Uint32(b[4:])) | uint64(le.Uint32(b[8:]))<<32}
			}
		}
		return u
	case kindFwd:
		return &Fwd{Name: name, Union: t.kflag}
	case kindTypedef:
		return &Typedef{Name: name, typ: link}
	case kindVolatile:
		return &Qualified{"volatile", link}
	case kindConst:
		return &Qualified{"const", link}
	case kindRestrict:
		return &Qualified{"restrict", link}
	case kindTypeTag, kindDeclTag:
		return &Qualified{"", link}
	case kindFuncProto:
		u := &Func{result: link}
		for i := range t.vlen {
			b := t.data[8*i:]
			p := Param{string(s.str(le.Uint32(b))), ref{set, le.Uint32(b[4:])}}
			if i == t.vlen-1 && p.Name == "" && p.typ.id == 0 {
				u.Variadic = true
				break
			}
			u.Params = append(u.Params, p)
		}
		return u
	case kindFunc, kindVar:
		return set.byID(t.sizeOrType, depth+1)
	}
	return nil
}
