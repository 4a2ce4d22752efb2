package coretest

import (
	"encoding/binary"
	"math/bits"
)

// ID is the number of a type in a BTF; 0 is void.
type ID uint32

// BTF writes type information in the format of Documentation/bpf/btf.rst. The
// zero value is empty and ready for use.
type BTF struct {
	types   [][]byte
	strs    []byte
	offsets map[string]uint32
	// The first ID and the first string offset, of a module's BTF above its
	// kernel's.
	FirstID  ID
	FirstStr uint32
}

// Field is a member of a struct.
type Field struct {
	Name string
	Type ID
	Bit  int // offset in bits
	Bits int // width of a bit field, else 0
}

// Enumerator is a name and a value.
type Enumerator struct {
	Name  string
	Value uint64
}

// Kinds that the writer has no method for, for [BTF.Raw].
const (
	KindFunc    = 12
	KindVar     = 14
	KindDeclTag = 17
	KindTypeTag = 18
)

func (b *BTF) str(s string) uint32 {
	if b.offsets == nil {
		b.offsets = map[string]uint32{}
		if b.FirstStr == 0 {
			b.offsets[""], b.strs = 0, []byte{0}
		}
	}
	if s == "" {
		return 0
	}
	off, ok := b.offsets[s]
	if !ok {
		off = b.FirstStr + uint32(len(b.strs))
		b.offsets[s] = off
		b.strs = append(append(b.strs, s...), 0)
	}
	return off
}

// Declare reserves an ID, to be defined later: for types that refer to each other.
func (b *BTF) Declare() ID {
	b.types = append(b.types, nil)
	return max(b.FirstID, 1) + ID(len(b.types)) - 1
}

func (b *BTF) define(id ID, name string, kind, vlen int, flag bool, sizeOrType uint32, rest ...uint32) ID {
	info := uint32(vlen) | uint32(kind)<<24
	if flag {
		info |= 1 << 31
	}
	var t []byte
	for _, v := range append([]uint32{b.str(name), info, sizeOrType}, rest...) {
		t = binary.LittleEndian.AppendUint32(t, v)
	}
	b.types[id-max(b.FirstID, 1)] = t
	return id
}

// Raw adds a type of any kind: the struct btf_type and what follows it.
func (b *BTF) Raw(name string, kind, vlen int, flag bool, sizeOrType uint32, rest ...uint32) ID {
	return b.define(b.Declare(), name, kind, vlen, flag, sizeOrType, rest...)
}

// Int adds an integer of size bytes.
func (b *BTF) Int(name string, size int, signed bool) ID {
	enc := uint32(size * 8)
	if signed {
		enc |= 1 << 24
	}
	return b.Raw(name, 1, 0, false, uint32(size), enc)
}

// Ptr adds a pointer.
func (b *BTF) Ptr(to ID) ID { return b.Raw("", 2, 0, false, uint32(to)) }

// SetPtr defines a declared ID as a pointer.
func (b *BTF) SetPtr(id, to ID) ID { return b.define(id, "", 2, 0, false, uint32(to)) }

// Array adds an array of n elements.
func (b *BTF) Array(elem ID, n int) ID {
	return b.Raw("", 3, 0, false, 0, uint32(elem), uint32(elem), uint32(n))
}

// Struct adds a struct of size bytes.
func (b *BTF) Struct(name string, size int, fields ...Field) ID {
	return b.SetStruct(b.Declare(), name, size, fields...)
}

// SetStruct defines a declared ID as a struct.
func (b *BTF) SetStruct(id ID, name string, size int, fields ...Field) ID {
	return b.composite(id, 4, name, size, fields)
}

// Union adds a union of size bytes.
func (b *BTF) Union(name string, size int, fields ...Field) ID {
	return b.SetUnion(b.Declare(), name, size, fields...)
}

// SetUnion defines a declared ID as a union.
func (b *BTF) SetUnion(id ID, name string, size int, fields ...Field) ID {
	return b.composite(id, 5, name, size, fields)
}

func (b *BTF) composite(id ID, kind int, name string, size int, fields []Field) ID {
	flag := false
	for _, f := range fields {
		flag = flag || f.Bits != 0
	}
	var rest []uint32
	for _, f := range fields {
		off := uint32(f.Bit)
		if flag {
			off |= uint32(f.Bits) << 24
		}
		rest = append(rest, b.str(f.Name), uint32(f.Type), off)
	}
	return b.define(id, name, kind, len(fields), flag, uint32(size), rest...)
}

// Enum adds an enumeration of size bytes; of 8 bytes, as an ENUM64.
func (b *BTF) Enum(name string, size int, signed bool, values ...Enumerator) ID {
	kind := 6
	var rest []uint32
	for _, v := range values {
		rest = append(rest, b.str(v.Name), uint32(v.Value))
		if size == 8 {
			kind = 19
			rest = append(rest, uint32(v.Value>>32))
		}
	}
	return b.Raw(name, kind, len(values), signed, uint32(size), rest...)
}

// Fwd adds a struct, or a union, without definition.
func (b *BTF) Fwd(name string, union bool) ID { return b.Raw(name, 7, 0, union, 0) }

// Typedef adds another name for a type.
func (b *BTF) Typedef(name string, t ID) ID { return b.Raw(name, 8, 0, false, uint32(t)) }

// Volatile, Const and Restrict add a qualified type.
func (b *BTF) Volatile(t ID) ID { return b.Raw("", 9, 0, false, uint32(t)) }

// Const adds a qualified type.
func (b *BTF) Const(t ID) ID { return b.Raw("", 10, 0, false, uint32(t)) }

// Restrict adds a qualified type.
func (b *BTF) Restrict(t ID) ID { return b.Raw("", 11, 0, false, uint32(t)) }

// FuncProto adds a function's type with parameters of the types; a last 0 means "...".
func (b *BTF) FuncProto(result ID, params ...ID) ID {
	var rest []uint32
	for _, p := range params {
		rest = append(rest, 0, uint32(p))
	}
	return b.Raw("", 13, len(params), false, uint32(result), rest...)
}

// Float adds a floating-point type of size bytes.
func (b *BTF) Float(name string, size int) ID { return b.Raw(name, 16, 0, false, uint32(size)) }

// NextID returns the ID after the last, the FirstID of a module above.
func (b *BTF) NextID() ID { return max(b.FirstID, 1) + ID(len(b.types)) }

// StrLen returns the size of the strings in bytes, the FirstStr of a module above.
func (b *BTF) StrLen() uint32 { return uint32(len(b.strs)) }

// Bytes returns the finished BTF.
func (b *BTF) Bytes() []byte {
	b.str("")
	var types []byte
	for _, t := range b.types {
		types = append(types, t...)
	}
	le := binary.LittleEndian
	out := le.AppendUint16(nil, 0xeb9f)
	out = append(out, 1, 0) // version, flags
	for _, v := range []int{24, 0, len(types), len(types), len(b.strs)} {
		out = le.AppendUint32(out, uint32(v))
	}
	return append(append(out, types...), b.strs...)
}

// Layout adds a struct whose fields follow each other, each aligned to its
// size, which must be a power of two up to 8 or a multiple of 8. Fields' Bit is
// the size in bytes instead.
func (b *BTF) Layout(name string, fields ...Field) ID {
	off := 0
	for i := range fields {
		size := fields[i].Bit
		align := 8
		if bits.OnesCount(uint(size)) == 1 && size < 8 {
			align = size
		}
		off = (off + align - 1) &^ (align - 1)
		fields[i].Bit = off * 8
		off += size
	}
	return b.Struct(name, (off+7)&^7, fields...)
}
