// Package ctype models the C types of a kernel and objects of those types in a
// crashed kernel's memory. The types come from the kernel's own BTF, or from DWARF.
package ctype

import (
	"fmt"
	"strings"
	"sync"
)

// Type is one of *Void, *Int, *Float, *Pointer, *Array, *Struct, *Enum,
// *Fwd, *Typedef, *Qualified, *Func.
//
// Types of one Set are made once: the same pointer means the same type.
type Type interface {
	// Size is the size of an object of the type in bytes: 0 for void, functions
	// and incomplete types.
	Size() uint64
	// String is the type as C writes it, such as "struct list_head *".
	String() string
	sealed()
}

var (
	_ Type = (*Void)(nil)
	_ Type = (*Int)(nil)
	_ Type = (*Float)(nil)
	_ Type = (*Pointer)(nil)
	_ Type = (*Array)(nil)
	_ Type = (*Struct)(nil)
	_ Type = (*Enum)(nil)
	_ Type = (*Fwd)(nil)
	_ Type = (*Typedef)(nil)
	_ Type = (*Qualified)(nil)
	_ Type = (*Func)(nil)
)

// ref is a type not yet decoded.
type ref struct {
	set *Set
	id  uint32
}

func (r ref) get() Type { return r.set.byID(r.id, 0) }

// Void is C's void.
type Void struct{}

// Int is an integer, a character or a bool.
type Int struct {
	Name   string
	Bytes  uint64
	Signed bool
	Char   bool // one byte of text, by encoding or by name
	Bool   bool
}

// Float is a floating-point number.
type Float struct {
	Name  string
	Bytes uint64
}

// Pointer is a pointer; Bytes is its own size.
type Pointer struct {
	Bytes  uint64
	target ref
}

// Array is an array. Len is 0 for a flexible array member.
type Array struct {
	Len  uint64
	elem ref
}

// Struct is a struct or a union.
type Struct struct {
	Name    string // empty for an anonymous one
	Union   bool
	Bytes   uint64
	Members []Member

	once  sync.Once
	index map[string]found // members by name, those of anonymous members included
}

// found is a member and its offset in bits from the start of the outer struct.
type found struct {
	m   Member
	off uint64
}

// Member is a member of a Struct.
type Member struct {
	Name   string // empty for an anonymous struct or union
	Offset uint64 // in bits from the start of the struct
	Bits   uint64 // width of a bit field, else 0
	typ    ref
}

// Enum is an enumeration.
type Enum struct {
	Name   string
	Bytes  uint64
	Signed bool
	Values []EnumValue
}

// EnumValue is one enumerator. Value holds the bits of an int64 if the Enum is Signed.
type EnumValue struct {
	Name  string
	Value uint64
}

// Fwd is a struct or union that is declared but not defined.
type Fwd struct {
	Name  string
	Union bool
}

// Typedef is another name for a type.
type Typedef struct {
	Name string
	typ  ref
}

// Qualified is a const, volatile or restrict type, or one with a tag.
type Qualified struct {
	Qualifier string // "const", "volatile", "restrict", or "" for a tag, which C does not show
	typ       ref
}

// Func is a function's type.
type Func struct {
	Params   []Param
	Variadic bool
	result   ref
}

// Param is a parameter of a Func; its name may be unknown.
type Param struct {
	Name string
	typ  ref
}

func (*Void) sealed()      {}
func (*Int) sealed()       {}
func (*Float) sealed()     {}
func (*Pointer) sealed()   {}
func (*Array) sealed()     {}
func (*Struct) sealed()    {}
func (*Enum) sealed()      {}
func (*Fwd) sealed()       {}
func (*Typedef) sealed()   {}
func (*Qualified) sealed() {}
func (*Func) sealed()      {}

// Target is the type pointed to.
func (t *Pointer) Target() Type { return t.target.get() }

// Elem is the type of the elements.
func (t *Array) Elem() Type { return t.elem.get() }

// Type is the member's type.
func (m Member) Type() Type { return m.typ.get() }

// Type is what the name stands for.
func (t *Typedef) Type() Type { return t.typ.get() }

// Type is the type without this qualifier.
func (t *Qualified) Type() Type { return t.typ.get() }

// Type is the parameter's type.
func (p Param) Type() Type { return p.typ.get() }

// Result is the type of what the function returns.
func (t *Func) Result() Type { return t.result.get() }

// maxDepth bounds chains of typedefs, qualifiers and arrays, which damaged
// type data could make endless.
const maxDepth = 32

// Resolve removes typedefs and qualifiers.
func Resolve(t Type) Type {
	for range maxDepth {
		switch u := t.(type) {
		case *Typedef:
			t = u.Type()
		case *Qualified:
			t = u.Type()
		default:
			return t
		}
	}
	return &Void{}
}

// Size implements Type.
func (*Void) Size() uint64 { return 0 }

// Size implements Type.
func (t *Int) Size() uint64 { return t.Bytes }

// Size implements Type.
func (t *Float) Size() uint64 { return t.Bytes }

// Size implements Type.
func (t *Pointer) Size() uint64 { return t.Bytes }

// Size implements Type.
func (t *Array) Size() uint64 {
	n := t.Len
	var elem Type = t
	for range maxDepth {
		a, ok := elem.(*Array)
		if !ok {
			return n * elem.Size()
		}
		elem = Resolve(a.Elem())
		if b, ok := elem.(*Array); ok {
			n *= b.Len
		}
	}
	return 0
}

// Size implements Type.
func (t *Struct) Size() uint64 { return t.Bytes }

// Size implements Type.
func (t *Enum) Size() uint64 { return t.Bytes }

// Size implements Type.
func (*Fwd) Size() uint64 { return 0 }

// Size implements Type.
func (t *Typedef) Size() uint64 {
	if u := Resolve(t); u != Type(t) {
		return u.Size()
	}
	return 0
}

// Size implements Type.
func (t *Qualified) Size() uint64 {
	if u := Resolve(t); u != Type(t) {
		return u.Size()
	}
	return 0
}

// Size implements Type.
func (*Func) Size() uint64 { return 0 }

func (t *Void) String() string      { return Declare(t, "") }
func (t *Int) String() string       { return Declare(t, "") }
func (t *Float) String() string     { return Declare(t, "") }
func (t *Pointer) String() string   { return Declare(t, "") }
func (t *Array) String() string     { return Declare(t, "") }
func (t *Struct) String() string    { return Declare(t, "") }
func (t *Enum) String() string      { return Declare(t, "") }
func (t *Fwd) String() string       { return Declare(t, "") }
func (t *Typedef) String() string   { return Declare(t, "") }
func (t *Qualified) String() string { return Declare(t, "") }
func (t *Func) String() string      { return Declare(t, "") }

// Keyword is "struct" or "union".
func (t *Struct) Keyword() string { return keyword(t.Union) }

func keyword(union bool) string {
	if union {
		return "union"
	}
	return "struct"
}

// Declare writes a C declaration of name with type t, such as
// "int (*fn)(void *)". Structs and enums are named, not spelled out; an
// anonymous one is "struct {...}".
func Declare(t Type, name string) string {
	d := declarer{left: maxDeclared}
	return d.declare(t, name)
}

// maxDeclared bounds the types in a declaration, which damaged type data could
// make endless.
const maxDeclared = 256

type declarer struct{ left int }

func (d *declarer) declare(t Type, name string) string {
	if d.left--; d.left < 0 {
		return "..."
	}
	spaced := func(base string) string {
		if name == "" {
			return base
		}
		return base + " " + name
	}
	tagged := func(keyword, tag string) string {
		if tag == "" {
			tag = "{...}"
		}
		return spaced(keyword + " " + tag)
	}
	switch t := t.(type) {
	case *Void:
		return spaced("void")
	case *Int:
		return spaced(t.Name)
	case *Float:
		return spaced(t.Name)
	case *Struct:
		return tagged(t.Keyword(), t.Name)
	case *Fwd:
		return tagged(keyword(t.Union), t.Name)
	case *Enum:
		return tagged("enum", t.Name)
	case *Typedef:
		return spaced(t.Name)
	case *Qualified:
		inner := t.Type()
		if _, ok := inner.(*Pointer); ok && t.Qualifier != "" {
			return d.declare(inner, strings.TrimRight(t.Qualifier+" "+name, " "))
		}
		s := d.declare(inner, name)
		if t.Qualifier == "" || qualifiedElems(inner, t.Qualifier) {
			return s
		}
		return t.Qualifier + " " + s
	case *Pointer:
		target := t.Target()
		switch target.(type) {
		case *Func, *Array:
			return d.declare(target, "(*"+name+")")
		}
		return d.declare(target, "*"+name)
	case *Array:
		n := ""
		if t.Len > 0 {
			n = fmt.Sprint(t.Len)
		}
		return d.declare(t.Elem(), name+"["+n+"]")
	case *Func:
		var ps []string
		for _, p := range t.Params {
			ps = append(ps, d.declare(p.Type(), p.Name))
		}
		if t.Variadic {
			ps = append(ps, "...")
		}
		if len(ps) == 0 {
			ps = []string{"void"}
		}
		return d.declare(t.Result(), name+"("+strings.Join(ps, ", ")+")")
	}
	return spaced("void")
}

// qualifiedElems reports whether t is an array whose elements have that qualifier, as
// compilers write a qualified array: once for it and once for them.
func qualifiedElems(t Type, qualifier string) bool {
	a, ok := t.(*Array)
	if !ok {
		return false
	}
	q, ok := a.Elem().(*Qualified)
	return ok && q.Qualifier == qualifier
}

// Find returns the member of that name and its offset in bits from the start of
// t, looking into anonymous structs and unions as C does.
func (t *Struct) Find(name string) (Member, uint64, bool) {
	t.once.Do(func() {
		t.index = make(map[string]found, len(t.Members))
		left := maxAnonymous
		t.collect(t.index, 0, &left)
	})
	f, ok := t.index[name]
	return f.m, f.off, ok
}

// maxAnonymous bounds the anonymous members within one struct, which damaged
// type data could make endless.
const maxAnonymous = 512

func (t *Struct) collect(index map[string]found, base uint64, left *int) {
	for _, m := range t.Members {
		if _, ok := index[m.Name]; !ok && m.Name != "" {
			index[m.Name] = found{m, base + m.Offset}
		}
	}
	for _, m := range t.Members {
		if m.Name != "" {
			continue
		}
		if *left--; *left < 0 {
			return
		}
		if s, ok := Resolve(m.Type()).(*Struct); ok {
			s.collect(index, base+m.Offset, left)
		}
	}
}
