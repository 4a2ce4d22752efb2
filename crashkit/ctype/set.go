package ctype

import (
	"errors"
	"fmt"
	"strings"
	"sync"
)

// ErrNotFound is wrapped by the errors of lookups that found nothing.
var ErrNotFound = errors.New("not found")

// Set is the types of a kernel, or of one module on top of its kernel's.
// It is safe for concurrent use.
type Set struct {
	base *Set // the kernel's types below a module's, or nil
	src  source

	mu    sync.Mutex
	cache map[uint32]Type
}

// source is where the types of a Set come from: BTF or DWARF.
type source interface {
	// find returns the id of the first type called tag: of a struct, union or enum
	// by that keyword, and without one of a typedef or base type, or else (and
	// then exact is false) of any of the others.
	find(keyword, tag string) (id uint32, exact, ok bool)
	// enumerator returns the id of the first enum with that enumerator, and its
	// index there.
	enumerator(name string) (id uint32, index int, ok bool)
	// names returns the names that find knows, with repetitions.
	names() []string
	// first returns the least id of the source's own; those below are the base's.
	first() uint32
	// decode makes the type with that id; nil if there is none.
	decode(s *Set, id uint32, depth int) Type
}

// none is a source without types.
type none struct{}

func (none) find(string, string) (uint32, bool, bool) { return 0, false, false }
func (none) enumerator(string) (uint32, int, bool)    { return 0, 0, false }
func (none) names() []string                          { return nil }
func (none) first() uint32                            { return 1 }
func (none) decode(_ *Set, _ uint32, _ int) Type      { return nil }

func newSet(src source, base *Set) *Set {
	return &Set{base: base, src: src, cache: make(map[uint32]Type)}
}

// Empty returns a set without types.
func Empty() *Set { return newSet(none{}, nil) }

// IsEmpty reports whether the set was made by Empty.
func (s *Set) IsEmpty() bool { return s.src == source(none{}) && s.base == nil }

// spellings are names of base types as people and clang write them, with gcc's.
var spellings = map[string]string{
	"short":              "short int",
	"unsigned short":     "short unsigned int",
	"unsigned":           "unsigned int",
	"long":               "long int",
	"unsigned long":      "long unsigned int",
	"long long":          "long long int",
	"unsigned long long": "long long unsigned int",
}

// basics are the base types that every x86-64 kernel has alike, for a Set that has not
// got them.
var basics = map[string]*Int{
	"int":           {Name: "int", Bytes: 4, Signed: true},
	"unsigned int":  {Name: "unsigned int", Bytes: 4},
	"unsigned long": {Name: "long unsigned int", Bytes: 8},
	"u64":           {Name: "long long unsigned int", Bytes: 8},
}

// Lookup returns the type called name: "struct task_struct", "union x",
// "enum y", or the name of a typedef or base type. A name without a keyword
// means a typedef or base type if there is one, else a struct, union or enum.
// Where several differ it returns the first. The error wraps ErrNotFound.
func (s *Set) Lookup(name string) (Type, error) {
	keyword, tag, ok := strings.Cut(name, " ")
	if !ok || keyword != "struct" && keyword != "union" && keyword != "enum" {
		keyword, tag = "", name
	}
	t := s.lookup(keyword, tag)
	if t == nil && spellings[name] != "" {
		t = s.lookup("", spellings[name])
	}
	if t == nil {
		if basic, ok := basics[name]; ok {
			return basic, nil
		}
		return nil, fmt.Errorf("type %s: %w", name, ErrNotFound)
	}
	return t, nil
}

func (s *Set) lookup(keyword, tag string) Type {
	var tagged Type
	for set := s; set != nil; set = set.base {
		id, exact, ok := set.src.find(keyword, tag)
		switch {
		case !ok:
		case exact:
			return set.byID(id, 0)
		case tagged == nil:
			tagged = set.byID(id, 0)
		}
	}
	return tagged
}

// Struct returns the struct or union called name (without keyword). The error
// wraps ErrNotFound.
func (s *Set) Struct(name string) (*Struct, error) {
	for _, keyword := range []string{"struct ", "union "} {
		if t, err := s.Lookup(keyword + name); err == nil {
			return t.(*Struct), nil
		}
	}
	return nil, fmt.Errorf("struct %s: %w", name, ErrNotFound)
}

// Names returns the names that Lookup knows, without keywords, in no order and
// with repetitions.
func (s *Set) Names() []string {
	var names []string
	for set := s; set != nil; set = set.base {
		names = append(names, set.src.names()...)
	}
	return names
}

// Enumerator returns the value of an enumerator, searching all enums.
func (s *Set) Enumerator(name string) (uint64, bool) {
	for set := s; set != nil; set = set.base {
		if id, i, ok := set.src.enumerator(name); ok {
			if e, ok := set.byID(id, 0).(*Enum); ok && i < len(e.Values) {
				return e.Values[i].Value, true
			}
		}
	}
	return 0, false
}

// refTo returns a reference to a type that was made already.
func refTo(t Type) ref { return ref{&Set{src: none{}, cache: map[uint32]Type{1: t}}, 1} }

// PointerTo returns the type of pointers to t.
func (s *Set) PointerTo(t Type) *Pointer { return &Pointer{Bytes: 8, target: refTo(t)} }

// byID returns the type with that id, void if there is none.
func (s *Set) byID(id uint32, depth int) Type {
	for s.base != nil && id < s.src.first() {
		s = s.base
	}
	s.mu.Lock()
	t, ok := s.cache[id]
	s.mu.Unlock()
	if ok {
		return t
	}
	if depth > maxDepth {
		return &Void{}
	}
	if t = s.src.decode(s, id, depth); t == nil {
		return &Void{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if u, ok := s.cache[id]; ok {
		return u // another goroutine was first; types are made once
	}
	s.cache[id] = t
	return t
}
