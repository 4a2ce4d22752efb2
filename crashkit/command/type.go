package command

import (
	"fmt"
	"strings"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
)

// typeResult is the definition of a type.
type typeResult struct {
	Name    string         `json:"name"` // with its keyword, such as "struct list_head"
	Size    uint64         `json:"size"` // in bytes
	Address *uint64        `json:"address,omitempty"`
	Members []memberResult `json:"members"` // of a struct or union; those asked for
	Values  []enumerator   `json:"values,omitempty"`

	typ     ctype.Type
	offsets bool
	some    bool // only the members asked for
}

type memberResult struct {
	Name   string `json:"name"` // "" for an anonymous one
	Type   string `json:"type"`
	Offset uint64 `json:"offset"` // in bytes
	Bit    uint64 `json:"bit"`    // of a bit field: its first bit, from Offset
	Bits   uint64 `json:"bits"`   // of a bit field: its width; else 0
	Size   uint64 `json:"size"`   // in bytes

	Members []memberResult `json:"members,omitempty"` // of a struct or union without a name

	typ ctype.Type
}

// spelled returns a declaration with the integer types as people write them:
// compilers name them "long unsigned int" and so on.
func spelled(decl string) string {
	return strings.NewReplacer(
		"long long unsigned int", "unsigned long long", "long long int", "long long",
		"long unsigned int", "unsigned long", "long int", "long",
		"short unsigned int", "unsigned short", "short int", "short",
	).Replace(decl)
}

type enumerator struct {
	Name  string `json:"name"`
	Value int64  `json:"value"`
}

// newTypeResult describes t or, if there are any, those members of it.
func newTypeResult(t ctype.Type, members []string, at *addr.Virt, offsets bool) *typeResult {
	r := &typeResult{Name: spelled(t.String()), Size: t.Size(), Members: []memberResult{}, typ: t, offsets: offsets}
	if at != nil {
		v := uint64(*at)
		r.Address = &v
	}
	switch u := ctype.Resolve(t).(type) {
	case *ctype.Enum:
		for _, e := range u.Values {
			r.Values = append(r.Values, enumerator{e.Name, int64(e.Value)})
		}
	case *ctype.Struct:
		for _, m := range members {
			r.some, r.offsets = true, true
			if res, ok := namedMember(u, m); ok {
				r.Members = append(r.Members, res)
			}
		}
		if !r.some {
			r.Members = describe(u, 0, 0)
		}
	}
	return r
}

// describe lists the members of a struct that begins base bytes into the one
// asked for.
func describe(s *ctype.Struct, base uint64, depth int) []memberResult {
	all := make([]memberResult, 0, len(s.Members))
	for _, m := range s.Members {
		all = append(all, memberOf(m, base, depth))
	}
	return all
}

func memberOf(m ctype.Member, base uint64, depth int) memberResult {
	typ := m.Type()
	r := memberResult{
		Name: m.Name, Type: spelled(typ.String()), Size: typ.Size(),
		Offset: base + m.Offset/8, Bit: m.Offset % 8, Bits: m.Bits, typ: typ,
	}
	if s := unnamed(typ); s != nil && depth < maxDepth {
		r.Members = describe(s, r.Offset, depth+1)
	}
	return r
}

// namedMember finds a member by its path.
func namedMember(s *ctype.Struct, path string) (memberResult, bool) {
	base := uint64(0)
	for names := strings.Split(path, "."); ; names = names[1:] {
		m, off, ok := s.Find(names[0])
		if !ok {
			return memberResult{}, false
		}
		if len(names) == 1 {
			m.Offset = off
			r := memberOf(m, base, 0)
			r.Name = path
			return r, true
		}
		if s, ok = ctype.Resolve(m.Type()).(*ctype.Struct); !ok {
			return memberResult{}, false
		}
		base += off / 8
	}
}

// unnamed returns the struct without a name that t, or what t is an array of or
// points to, is defined as in place; nil if there is none.
func unnamed(t ctype.Type) *ctype.Struct {
	for range maxDepth {
		switch u := t.(type) {
		case *ctype.Struct:
			if u.Name == "" {
				return u
			}
			return nil
		case *ctype.Qualified:
			t = u.Type()
		case *ctype.Array:
			t = u.Elem()
		case *ctype.Pointer:
			t = u.Target()
		default:
			return nil
		}
	}
	return nil
}

// WriteText implements Result.
func (r *typeResult) WriteText(t *Text) {
	resolved := ctype.Resolve(r.typ)
	if e, ok := resolved.(*ctype.Enum); ok {
		t.Printf("enum %s {\n", e.Name)
		for _, v := range r.Values {
			t.Printf("  %s = %d\n", v.Name, v.Value)
		}
		t.Printf("};\nSIZE: %d\n", r.Size)
		return
	}
	s, ok := resolved.(*ctype.Struct)
	typedef, isTypedef := r.typ.(*ctype.Typedef)
	if !ok {
		if isTypedef {
			t.Printf("typedef %s;\n", spelled(ctype.Declare(typedef.Type(), typedef.Name)))
		} else {
			t.String(r.Name + "\n")
		}
		t.Printf("SIZE: %d\n", r.Size)
		return
	}
	head := s.Keyword()
	if s.Name != "" {
		head += " " + s.Name
	}
	if isTypedef {
		head = "typedef " + head
	}
	t.String(head + " {\n")
	w := &typeWriter{Text: t, typeResult: r}
	for _, m := range r.Members {
		w.member(m, 1, r.offsets)
	}
	if isTypedef {
		t.Printf("} %s;\n", typedef.Name)
	} else {
		t.String("}\n")
	}
	if !r.some {
		t.Printf("SIZE: %d\n", r.Size)
	}
}

type typeWriter struct {
	*Text
	*typeResult
}

// column returns the column of offsets, blank if there is none to show.
func (w *typeWriter) column(m memberResult, show bool) string {
	if !w.offsets {
		return ""
	}
	text := ""
	width := len(fmt.Sprintf("  [%d] ", w.Size))
	switch {
	case w.Address != nil:
		width = len("  [ffffffffffffffff] ")
		text = fmt.Sprintf("[%x] ", *w.Address+m.Offset)
	case w.some:
		width = 0
		text = fmt.Sprintf("  [%d] ", m.Offset)
	default:
		text = fmt.Sprintf("[%d] ", m.Offset)
	}
	if !show {
		text = ""
	}
	return fmt.Sprintf("%*s", width, text)
}

// member writes the definition of one member. Inside of a member that has a
// name offsets are not shown: they would be those in the outer struct.
func (w *typeWriter) member(m memberResult, depth int, offsets bool) {
	indent := strings.Repeat(" ", 4*depth)
	if w.offsets {
		indent = indent[4:]
	}
	bits := ""
	if m.Bits != 0 {
		bits = fmt.Sprintf(" : %d", m.Bits)
	}
	decl := spelled(ctype.Declare(m.typ, m.Name))
	if unnamed(m.typ) == nil {
		t := m.typ
		if e, ok := t.(*ctype.Enum); ok && e.Name == "" {
			decl = strings.Replace(decl, "{...}", enumBody(e), 1)
		}
		w.Printf("%s%s%s%s;\n", w.column(m, offsets), indent, decl, bits)
		return
	}
	before, after, _ := strings.Cut(decl, "{...}")
	w.Printf("%s%s%s{\n", w.column(m, false), indent, before)
	for _, inner := range m.Members {
		w.member(inner, depth+1, offsets && m.Name == "")
	}
	if len(m.Members) == 0 {
		w.Printf("%s%s    <no data fields>\n", w.column(m, false), indent)
	}
	w.Printf("%s%s}%s%s;\n", w.column(m, offsets && m.Name != ""), indent, after, bits)
}

func enumBody(e *ctype.Enum) string {
	var names []string
	for _, v := range e.Values {
		names = append(names, v.Name)
	}
	return "{" + strings.Join(names, ", ") + "}"
}
