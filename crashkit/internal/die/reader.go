package die

import (
	"bytes"
	"debug/dwarf"
	"encoding/binary"
	"fmt"
	"iter"
)

// Entry is an entry of .debug_info. The zero Tag is the end of a list of children.
type Entry struct {
	Off      uint64
	Tag      dwarf.Tag
	Children bool    // the entries up to the matching end are inside this one
	Values   []Value // valid until the next entry is read into this one

	u    *Unit
	next uint64
}

// Reader reads the entries of a unit one after the other.
type Reader struct {
	u   *Unit
	t   *table
	c   Cursor
	err error
}

// Reader returns a reader of the entries from an offset of .debug_info on, where
// one must begin.
func (u *Unit) Reader(off uint64) (*Reader, error) {
	t, err := u.table()
	if err != nil {
		return nil, err
	}
	return u.reader(off, t), nil
}

func (u *Unit) reader(off uint64, t *table) *Reader {
	r := &Reader{u: u, t: t, c: Cursor{b: u.d.Info[u.Off:u.End]}}
	r.seek(off)
	return r
}

func (r *Reader) seek(off uint64) {
	if off < r.u.Root || off > r.u.End {
		r.err = fmt.Errorf("%#x is not in the unit at %#x", off, r.u.Off)
		return
	}
	r.c.at = int(off - r.u.Off)
}

// Err returns why Next returned false; nil at the end of the unit.
func (r *Reader) Err() error { return r.err }

// Next reads an entry into e, and reports whether there was one.
func (r *Reader) Next(e *Entry) bool {
	if r.err != nil || r.c.at >= len(r.c.b) {
		return false
	}
	e.Off, e.u, e.Values = r.u.Off+uint64(r.c.at), r.u, e.Values[:0]
	code := r.c.Uleb()
	if code == 0 {
		e.Tag, e.Children = 0, false
		return true
	}
	a := r.t.find(code)
	if a == nil {
		r.err = fmt.Errorf("the entry at %#x has an unknown form", e.Off)
		return false
	}
	e.Tag, e.Children = a.tag, a.children
	for i := range a.attrs {
		e.Values = append(e.Values, r.c.value(r.u, &a.attrs[i]))
	}
	if r.c.bad {
		r.err = fmt.Errorf("the entry at %#x is %w", e.Off, ErrCut)
		return false
	}
	e.next = r.u.Off + uint64(r.c.at)
	return true
}

// Skip goes to what follows e and its children.
func (r *Reader) Skip(e *Entry) {
	if !e.Children || r.err != nil {
		return
	}
	r.c.at = int(e.next - r.u.Off)
	if v, ok := e.Value(dwarf.AttrSibling); ok && v.Class == Ref && v.U >= e.next && v.U <= r.u.End {
		r.c.at = int(v.U - r.u.Off)
		return
	}
	var inner Entry
	for depth := 1; depth > 0 && r.Next(&inner); {
		switch {
		case inner.Tag == 0:
			depth--
		case inner.Children:
			depth++
		}
	}
}

// Value returns the attribute of that name.
func (e *Entry) Value(a dwarf.Attr) (Value, bool) {
	for i := range e.Values {
		if e.Values[i].Attr == a {
			return e.Values[i], true
		}
	}
	return Value{}, false
}

// Uint returns a constant or flag.
func (e *Entry) Uint(a dwarf.Attr) (uint64, bool) {
	v, ok := e.Value(a)
	return v.U, ok && (v.Class == Constant || v.Class == Flag)
}

// Ref returns the offset in .debug_info of the entry that the attribute names.
func (e *Entry) Ref(a dwarf.Attr) (uint64, bool) {
	v, ok := e.Value(a)
	return v.U, ok && v.Class == Ref
}

// Name returns the attribute DW_AT_name, "" if there is none.
func (e *Entry) Name() string {
	v, ok := e.Value(dwarf.AttrName)
	if !ok {
		return ""
	}
	return string(e.Str(v))
}

// Str returns the text of a value of class String; nil if there is none.
func (e *Entry) Str(v Value) []byte {
	if v.Class != String {
		return nil
	}
	d := e.u.d
	switch v.form {
	case formString:
		return v.B
	case formStrp:
		return cString(d.Str, v.U)
	case formLineStrp:
		return cString(d.LineStr, v.U)
	}
	size := uint64(4)
	if e.u.wide {
		size = 8
	}
	b := element(d.StrOffsets, e.u.bases().strOffsets, v.U, size)
	switch len(b) {
	case 4:
		return cString(d.Str, uint64(binary.LittleEndian.Uint32(b)))
	case 8:
		return cString(d.Str, binary.LittleEndian.Uint64(b))
	}
	return nil
}

// StrOffset returns where in .debug_str the text of a value is, if the value
// says that itself: there is one string of each text there.
func (v Value) StrOffset() (uint64, bool) { return v.U, v.form == formStrp }

// Addr returns the address in a value of class Address.
func (e *Entry) Addr(v Value) (uint64, bool) {
	if v.Class != Address {
		return 0, false
	}
	if v.form == formAddr {
		return v.U, true
	}
	return e.u.Addr(v.U)
}

// Addr returns element i of the unit's part of .debug_addr.
func (u *Unit) Addr(i uint64) (uint64, bool) {
	if b := element(u.d.Addr, u.bases().addr, i, 8); len(b) == 8 {
		return binary.LittleEndian.Uint64(b), true
	}
	return 0, false
}

// element returns element i of a table that begins at base in b.
func element(b []byte, base, i, size uint64) []byte {
	n := uint64(len(b))
	if base > n || i >= (n-base)/size {
		return nil
	}
	return b[base+i*size : base+(i+1)*size]
}

func cString(b []byte, at uint64) []byte {
	if at >= uint64(len(b)) {
		return nil
	}
	b = b[at:]
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return nil
}

// Inside returns the entries right inside of e, an entry of r. Each is valid until the
// next one; r may be moved meanwhile.
func (r *Reader) Inside(e *Entry) iter.Seq[*Entry] { return r.Find(e, 0) }

// Tags is a set of tags below 64.
type Tags uint64

// TagSet returns the set of these tags.
func TagSet(tags ...dwarf.Tag) Tags {
	var s Tags
	for _, t := range tags {
		s |= 1 << t
	}
	return s
}

func (s Tags) has(t dwarf.Tag) bool { return t < 64 && s>>t&1 != 0 }

// Find is Inside for entries with tags that are wanted: it may pass over others, and
// does where that is quick. All are wanted if none is.
func (r *Reader) Find(e *Entry, wanted Tags) iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		if !e.Children || r.err != nil {
			return
		}
		r.c.at = int(e.next - r.u.Off)
		var c Entry
		for {
			for wanted != 0 && r.pass(wanted) {
			}
			if !r.Next(&c) || c.Tag == 0 || !yield(&c) {
				return
			}
			r.Skip(&c)
		}
	}
}

// pass passes over the entry at the reader's place and its children, if it is not
// wanted and its form tells where it ends. Otherwise nothing happens.
func (r *Reader) pass(wanted Tags) bool {
	at := r.c.at
	a := r.t.find(r.c.Uleb()) // nil for the 0 that ends a list
	if a != nil && !r.c.bad && !wanted.has(a.tag) {
		rest := len(r.c.b) - r.c.at
		switch {
		case !a.children && a.size >= 0 && a.size <= rest:
			r.c.at += a.size
			return true
		case a.children && a.sibling >= 0 && a.sibling+4 <= rest:
			to := int(binary.LittleEndian.Uint32(r.c.b[r.c.at+a.sibling:]))
			if to >= r.c.at+a.sibling+4 && to <= len(r.c.b) {
				r.c.at = to
				return true
			}
		}
	}
	r.c.at, r.c.bad = at, false
	return false
}
