package ctype

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"crashlab/crashkit/addr"
)

// Memory reads the crashed kernel's virtual memory: all of b or an error.
type Memory interface {
	Read(v addr.Virt, b []byte) error
}

// Object is a typed place in the crashed kernel's memory.
//
// Navigation (Member, Index, Deref, Cast, ContainerOf) never fails at once and
// never panics: the first error sticks to the Object and comes out of the next
// read, with the path that led there. Which member a kernel has is decided by
// its types, before any memory is read, so that a fault is never mistaken for
// an absent member.
//
// Objects are small values; copy them freely.
type Object struct {
	mem  Memory
	typ  Type
	addr addr.Virt
	// A bit field has bits > 0 and starts bit bits after addr.
	bit, bits uint64
	path      string
	err       error
}

// NewObject returns the object of type t at v. The path names it in errors.
func NewObject(m Memory, t Type, v addr.Virt, path string) Object {
	return Object{mem: m, typ: t, addr: v, path: path}
}

// Failed returns an object that carries err.
func Failed(path string, err error) Object { return Object{path: path, err: err} }

// Err returns the error that navigation met, or nil.
func (o Object) Err() error { return o.err }

// Type returns the object's type as declared; nil if navigation failed.
func (o Object) Type() Type { return o.typ }

// Addr returns the object's address. It is meaningless if Err is not nil.
func (o Object) Addr() addr.Virt { return o.addr }

// Path returns how the object was reached, such as "init_task.se.on_rq".
func (o Object) Path() string { return o.path }

func (o Object) fail(format string, a ...any) Object {
	if o.err == nil {
		o.err = fmt.Errorf("%s: %w", o.path, fmt.Errorf(format, a...))
	}
	return o
}

// ErrNoMember is wrapped by the error of an object whose type has none of the
// members asked for.
var ErrNoMember = errors.New("no such member")

// Has reports whether the object's struct type has the member path, such as
// "f_path.dentry".
func (o Object) Has(path string) bool {
	_, _, err := memberOf(o.typ, path)
	return o.err == nil && err == nil
}

// Member returns the member at the first of the paths that the type has; give
// the newest kernel's first. A path may go through nested structs ("a.b.c").
// A pointer to a struct is followed first.
func (o Object) Member(paths ...string) Object {
	if o.err != nil {
		return o
	}
	if _, ok := Resolve(o.typ).(*Pointer); ok {
		o = o.Deref()
		if o.err != nil {
			return o
		}
	}
	var err error
	for _, path := range paths {
		m, off, merr := memberOf(o.typ, path)
		if merr != nil {
			err = merr
			continue
		}
		o.path += "." + path
		o.typ = m.Type()
		if m.Bits != 0 {
			o.addr += addr.Virt(off / 8)
			o.bit, o.bits = off%8, m.Bits
			return o
		}
		o.addr += addr.Virt(off / 8)
		return o
	}
	return o.fail("%w", err)
}

// memberOf resolves a member path within t; the offset is in bits.
func memberOf(t Type, path string) (Member, uint64, error) {
	var m Member
	var total uint64
	for name := range strings.SplitSeq(path, ".") {
		s, ok := Resolve(t).(*Struct)
		if !ok {
			return m, 0, fmt.Errorf("%w: %s in %v", ErrNoMember, path, t)
		}
		f, off, ok := s.Find(name)
		if !ok {
			return m, 0, fmt.Errorf("%w: %s in %v", ErrNoMember, path, t)
		}
		m, t = f, f.Type()
		total += off
	}
	return m, total, nil
}

// OffsetOf returns the offset in bytes of the first of the paths that t has.
func OffsetOf(t Type, paths ...string) (uint64, error) {
	var err error
	for _, path := range paths {
		_, off, merr := memberOf(t, path)
		if merr == nil {
			return off / 8, nil
		}
		err = merr
	}
	return 0, err
}

// Index returns element i of an array, or of what a pointer points to. An index
// outside of an array with a length is an error.
func (o Object) Index(i int) Object {
	if o.err != nil {
		return o
	}
	switch t := Resolve(o.typ).(type) {
	case *Array:
		if i < 0 || t.Len > 0 && uint64(i) >= t.Len {
			return o.fail("index %d is outside of %v", i, t)
		}
		o.typ = t.Elem()
	case *Pointer:
		o = o.Deref()
	default:
		return o.fail("index into %v", o.typ)
	}
	if o.err != nil {
		return o
	}
	o.path += fmt.Sprintf("[%d]", i)
	o.addr += addr.Virt(uint64(i) * o.typ.Size())
	return o
}

// Len returns the number of elements of an array.
func (o Object) Len() int {
	if a, ok := Resolve(o.typ).(*Array); ok && o.err == nil {
		return int(a.Len)
	}
	return 0
}

// Deref reads a pointer and returns what it points to. A NULL pointer is an error.
func (o Object) Deref() Object {
	if o.err != nil {
		return o
	}
	t, ok := Resolve(o.typ).(*Pointer)
	if !ok {
		return o.fail("dereference %v", o.typ)
	}
	v, err := o.Ptr()
	if err != nil {
		o.err = err
		return o
	}
	if v == 0 {
		return o.fail("NULL pointer")
	}
	return Object{mem: o.mem, typ: t.Target(), addr: v, path: o.path}
}

// Cast returns the same place as another type.
func (o Object) Cast(t Type) Object {
	o.typ, o.bits, o.bit = t, 0, 0
	return o
}

// At returns the object of type t that lies off bytes into o.
func (o Object) At(t Type, off uint64) Object {
	return Object{mem: o.mem, typ: t, addr: o.addr + addr.Virt(off), path: o.path, err: o.err}
}

// Bits returns the width of a bit field in bits, and 0 for any other object.
func (o Object) Bits() uint64 { return o.bits }

// ContainerOf returns the object of type t whose member, by path, o is.
func (o Object) ContainerOf(t Type, path string) Object {
	if o.err != nil {
		return o
	}
	off, err := OffsetOf(t, path)
	if err != nil {
		return o.fail("%w", err)
	}
	return Object{mem: o.mem, typ: t, addr: o.addr - addr.Virt(off), path: o.path + "→" + t.String()}
}

// Bytes reads the object's bytes.
func (o Object) Bytes() ([]byte, error) {
	if o.err != nil {
		return nil, o.err
	}
	n := o.typ.Size()
	if n > 16<<20 {
		return nil, fmt.Errorf("%s: %v is %d bytes large", o.path, o.typ, n)
	}
	b := make([]byte, n)
	return b, o.read(b)
}

func (o Object) read(b []byte) error {
	return o.named(o.mem.Read(o.addr, b))
}

// named adds the object's path to a fault.
func (o Object) named(err error) error {
	if f, ok := errors.AsType[*addr.Fault](err); ok && f.What == "" {
		g := *f
		g.What = o.path
		return &g
	}
	return err
}

// Uint reads an integer, enum, pointer or bit field; a signed one is sign-extended.
func (o Object) Uint() (uint64, error) {
	if o.err != nil {
		return 0, o.err
	}
	signed := false
	switch t := Resolve(o.typ).(type) {
	case *Int:
		signed = t.Signed
	case *Enum:
		signed = t.Signed
	case *Pointer:
	default:
		return 0, fmt.Errorf("%s: %v is not a number", o.path, o.typ)
	}
	var b [16]byte
	size := Resolve(o.typ).Size()
	bits := size * 8
	if o.bits != 0 {
		bits = o.bits
		size = (o.bit + o.bits + 7) / 8
	}
	if size > 9 || bits > 64 || size == 0 {
		return 0, fmt.Errorf("%s: %v is too large for a number", o.path, o.typ)
	}
	if err := o.read(b[:size]); err != nil {
		return 0, err
	}
	v := binary.LittleEndian.Uint64(b[:])
	if o.bit != 0 {
		v = v>>o.bit | uint64(b[8])<<(64-o.bit)
	}
	shift := 64 - bits
	if signed {
		return uint64(int64(v<<shift) >> shift), nil
	}
	return v << shift >> shift, nil
}

// Int is Uint for signed numbers.
func (o Object) Int() (int64, error) {
	v, err := o.Uint()
	return int64(v), err
}

// Ptr reads a pointer or a number that holds an address.
func (o Object) Ptr() (addr.Virt, error) {
	v, err := o.Uint()
	return addr.Virt(v), err
}

// Str reads text: an array of char up to its first NUL, or the string, of at
// most 4 KiB, that a pointer to char points to.
func (o Object) Str() (string, error) {
	if o.err != nil {
		return "", o.err
	}
	if _, ok := Resolve(o.typ).(*Pointer); ok {
		o = o.Deref()
		if o.err != nil {
			return "", o.err
		}
		text, err := CString(o.mem, o.addr)
		return text, o.named(err)
	}
	b, err := o.Bytes()
	if err != nil {
		return "", err
	}
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b), nil
}

// maxString bounds a string in memory, in bytes.
const maxString = 4096

// CString reads the NUL-terminated string at v.
func CString(m Memory, v addr.Virt) (string, error) {
	var s []byte
	for len(s) < maxString {
		// Never past a boundary that a page may end at, so that a string just
		// before a hole can be read.
		b := make([]byte, 64-v%64)
		if err := m.Read(v, b); err != nil {
			return "", err
		}
		if i := bytes.IndexByte(b, 0); i >= 0 {
			return string(append(s, b[:i]...)), nil
		}
		s = append(s, b...)
		v += addr.Virt(len(b))
	}
	return "", fmt.Errorf("string at %v: no end within %d bytes", v, maxString)
}
