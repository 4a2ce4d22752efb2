package command

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
)

// value is a C value read from memory: a scalar, or the members of a struct or
// union, or the elements of an array.
type value struct {
	name  string // of the member; "" for an element and for an anonymous member
	kind  valueKind
	items []value
	text  string // of a scalar, as C writes it
	json  any    // of a scalar
}

type valueKind uint8

const (
	scalar valueKind = iota
	record
	array
)

// maxShown is how many elements of an array, or characters of a string, are
// shown as text. JSON has them all.
const maxShown = 200

// maxDepth bounds how deep structs nest. Types that are read from a damaged
// dump could nest without end.
const maxDepth = 32

// valueReader makes values of objects.
type valueReader struct {
	env *Env
	hex bool // numbers in hex

	budget int   // values that may still be made
	err    error // the first fault
	faults int
}

// maxValues bounds the values that one command makes.
const maxValues = 1 << 20

// read returns the value of an object. What of it cannot be read says so.
func (r *valueReader) read(o ctype.Object, depth int) value {
	if r.budget--; r.budget < 0 || depth > maxDepth {
		return r.failed(fmt.Errorf("%s: too large to show", o.Path()))
	}
	if err := o.Err(); err != nil {
		return r.failed(err)
	}
	switch t := ctype.Resolve(o.Type()).(type) {
	case *ctype.Struct:
		return r.record(o, t, depth)
	case *ctype.Array:
		return r.array(o, t, depth)
	case *ctype.Float:
		return r.float(o)
	case *ctype.Void, *ctype.Func, *ctype.Fwd:
		return r.failed(fmt.Errorf("%s: a %v has no value", o.Path(), t))
	default:
		return r.number(o, t)
	}
}

func (r *valueReader) failed(err error) value {
	r.faults++
	if r.err == nil {
		r.err = err
	}
	why := "?"
	if reason := addr.ReasonOf(err); reason != 0 {
		why = reason.String()
	}
	return value{text: "<" + why + ">"}
}

// failure returns the error that sums up what could not be read, or nil.
func (r *valueReader) failure() error {
	if r.faults > 1 {
		return fmt.Errorf("%w (and %d more values could not be read)", r.err, r.faults-1)
	}
	return r.err
}

func (r *valueReader) record(o ctype.Object, t *ctype.Struct, depth int) value {
	v := value{kind: record, items: make([]value, 0, len(t.Members))}
	whole := o.Cast(t)
	for _, m := range t.Members {
		var item value
		if m.Name == "" {
			if m.Bits != 0 {
				continue // padding
			}
			item = r.read(o.At(m.Type(), m.Offset/8), depth+1)
		} else {
			item = r.read(whole.Member(m.Name), depth+1)
		}
		item.name = m.Name
		v.items = append(v.items, item)
	}
	return v
}

func (r *valueReader) array(o ctype.Object, t *ctype.Array, depth int) value {
	if t.Len == 0 {
		return value{text: r.pointer(o.Addr()), json: uint64(o.Addr())}
	}
	elem, isInt := ctype.Resolve(t.Elem()).(*ctype.Int)
	if isInt && elem.Char {
		b, err := o.Bytes()
		if err != nil {
			return r.failed(err)
		}
		v := value{text: quoteArray(b)}
		if elem.Name == "char" {
			text, _, _ := strings.Cut(string(b), "\x00")
			v.json = text
		} else {
			v.json = wide(b)
		}
		return v
	}
	v := value{kind: array, items: make([]value, 0, min(t.Len, 4096))}
	for i := range t.Len {
		if r.budget <= 0 {
			break
		}
		v.items = append(v.items, r.read(o.Index(int(i)), depth+1))
	}
	return v
}

// wide keeps encoding/json from writing bytes as base64.
func wide(b []byte) []uint64 {
	all := make([]uint64, len(b))
	for i, c := range b {
		all[i] = uint64(c)
	}
	return all
}

func (r *valueReader) float(o ctype.Object) value {
	b, err := o.Bytes()
	if err != nil {
		return r.failed(err)
	}
	switch len(b) {
	case 4:
		f := float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
		return value{text: strconv.FormatFloat(f, 'g', -1, 32), json: number64(f)}
	case 8:
		f := math.Float64frombits(binary.LittleEndian.Uint64(b))
		return value{text: strconv.FormatFloat(f, 'g', -1, 64), json: number64(f)}
	}
	return value{text: fmt.Sprintf("%#x", b), json: fmt.Sprintf("%x", b)}
}

// number64 returns what JSON has for f, which may be no number.
func number64(f float64) any {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	return f
}

// number returns the value of what is read as one: an integer, an enum, a pointer.
func (r *valueReader) number(o ctype.Object, t ctype.Type) value {
	n, err := o.Uint()
	if err != nil {
		return r.failed(err)
	}
	switch t := t.(type) {
	case *ctype.Pointer:
		return value{text: r.pointer(addr.Virt(n)) + r.pointedText(t, addr.Virt(n)), json: n}
	case *ctype.Enum:
		for _, e := range t.Values {
			if e.Value == n {
				return value{text: e.Name, json: e.Name}
			}
		}
		if t.Signed {
			return value{text: strconv.FormatInt(int64(n), 10), json: int64(n)}
		}
		return value{text: strconv.FormatUint(n, 10), json: n}
	case *ctype.Int:
		return r.integer(o, t, n)
	}
	return value{text: strconv.FormatUint(n, 10), json: n}
}

func (r *valueReader) integer(o ctype.Object, t *ctype.Int, n uint64) value {
	var v value
	switch {
	case t.Bool:
		v.json = n != 0
	case t.Signed:
		v.json = int64(n)
	default:
		v.json = n
	}
	switch {
	case r.hex:
		bits := 8 * t.Bytes
		if o.Bits() != 0 {
			bits = o.Bits()
		}
		v.text = fmt.Sprintf("%#x", n<<(64-bits)>>(64-bits))
	case t.Bool:
		v.text = strconv.FormatBool(n != 0)
	case t.Char && o.Bits() == 0:
		v.text = fmt.Sprintf("%v '%s'", v.json, escape([]byte{byte(n)}, '\''))
	default:
		v.text = fmt.Sprint(v.json)
	}
	return v
}

// pointer returns an address with the symbol that covers it.
func (r *valueReader) pointer(v addr.Virt) string {
	if name := r.env.symbolic(v, false); name != "" {
		return fmt.Sprintf("%v <%s>", v, name)
	}
	return v.String()
}

// pointedText returns the text that a pointer to characters points to.
func (r *valueReader) pointedText(t *ctype.Pointer, v addr.Virt) string {
	if c, ok := ctype.Resolve(t.Target()).(*ctype.Int); !ok || !c.Char || v == 0 {
		return ""
	}
	b := make([]byte, 0, maxShown)
	for len(b) < maxShown {
		next := make([]byte, min(64-int(v%64), maxShown-len(b)))
		if err := r.env.Program.Read(v, next); err != nil {
			if len(b) > 0 {
				break
			}
			return " <" + addr.ReasonOf(err).String() + ">"
		}
		if i := bytes.IndexByte(next, 0); i >= 0 {
			return ` "` + escape(append(b, next[:i]...), '"') + `"`
		}
		b = append(b, next...)
		v += addr.Virt(len(next))
	}
	return ` "` + escape(b, '"') + `"...`
}

// quoteArray returns an array of characters as a string. Its last byte is left
// out if it is the terminating NUL.
func quoteArray(b []byte) string {
	if n := len(b); n > 0 && b[n-1] == 0 {
		b = b[:n-1]
	}
	if len(b) > maxShown {
		return `"` + escape(b[:maxShown], '"') + `"...`
	}
	return `"` + escape(b, '"') + `"`
}

// escape writes bytes as they stand in a C literal.
func escape(b []byte, quote byte) string {
	var s strings.Builder
	for _, c := range b {
		switch {
		case c == quote || c == '\\':
			s.WriteString(`\` + string(rune(c)))
		case printable(c):
			s.WriteByte(c)
		case c >= '\a' && c <= '\r':
			s.WriteString(`\` + string("abtnvfr"[c-'\a']))
		default:
			fmt.Fprintf(&s, `\%03o`, c)
		}
	}
	return s.String()
}

// value writes v as C initialises one; indent is that of the line it begins on.
func (t *Text) value(v value, indent int) {
	pad := strings.Repeat(" ", indent)
	switch v.kind {
	case scalar:
		t.String(v.text)
	case record:
		t.String("{")
		for i, m := range v.items {
			if i > 0 {
				t.String(",")
			}
			t.String("\n" + pad + "  ")
			if m.name != "" {
				t.String(m.name + " = ")
			}
			t.value(m, indent+2)
		}
		t.String("\n" + pad + "}")
	case array:
		t.String("{")
		for i, e := range v.items {
			if i > 0 {
				t.String(", ")
			}
			if i == maxShown {
				t.String("...")
				break
			}
			t.value(e, indent+2)
		}
		t.String("}")
	}
}

// MarshalJSON implements json.Marshaler: an object in the order of the members,
// those of anonymous ones among them; an array; a number, a string or a bool.
// What could not be read is null.
func (v value) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	err := v.marshal(&b)
	return b.Bytes(), err
}

func (v value) marshal(b *bytes.Buffer) error {
	switch v.kind {
	case record:
		b.WriteByte('{')
		if err := v.marshalMembers(b); err != nil {
			return err
		}
		b.WriteByte('}')
	case array:
		b.WriteByte('[')
		for i, e := range v.items {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := e.marshal(b); err != nil {
				return err
			}
		}
		b.WriteByte(']')
	default:
		return marshalScalar(b, v.json)
	}
	return nil
}

func (v value) marshalMembers(b *bytes.Buffer) error {
	for _, m := range v.items {
		if m.name == "" && m.kind == record {
			if err := m.marshalMembers(b); err != nil {
				return err
			}
			continue
		}
		if c := b.Bytes(); c[len(c)-1] != '{' {
			b.WriteByte(',')
		}
		if err := marshalScalar(b, m.name); err != nil {
			return err
		}
		b.WriteByte(':')
		if err := m.marshal(b); err != nil {
			return err
		}
	}
	return nil
}

func marshalScalar(b *bytes.Buffer, v any) error {
	j, err := json.Marshal(v)
	b.Write(j)
	return err
}
