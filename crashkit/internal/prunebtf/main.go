// Prunebtf makes a test fixture of a kernel's types: BTF with only those that
// package kernel says the analyzer needs.
//
//	go run ./crashkit/internal/prunebtf -o OUT BTF
//
// BTF is the kernel's /sys/kernel/btf/vmlinux, or the .BTF section of its
// vmlinux: objcopy -O binary --only-section=.BTF vmlinux BTF.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"crashlab/crashkit/ctype"
	"crashlab/crashkit/internal/coretest"
	"crashlab/crashkit/kernel"
)

func main() {
	out := flag.String("o", "", "file to write")
	flag.Parse()
	if flag.NArg() != 1 || *out == "" {
		fmt.Fprintln(os.Stderr, "usage: prunebtf -o OUT BTF")
		os.Exit(2)
	}
	if err := prune(flag.Arg(0), *out); err != nil {
		fmt.Fprintln(os.Stderr, "prunebtf:", err)
		os.Exit(1)
	}
}

func prune(in, out string) error {
	b, err := os.ReadFile(in)
	if err != nil {
		return err
	}
	types, err := ctype.ParseBTF(b, nil)
	if err != nil {
		return err
	}
	p := pruner{types: types, keep: map[*ctype.Struct]map[string]bool{}, ids: map[ctype.Type]coretest.ID{}}
	var roots []ctype.Type
	for _, n := range kernel.Layout() {
		if n.Type == "enumerator" {
			for _, name := range n.Any {
				if v, ok := types.Enumerator(name); ok {
					p.btf.Enum("", 4, false, coretest.Enumerator{Name: name, Value: v})
				}
			}
			continue
		}
		t, err := types.Lookup(n.Type)
		if err != nil {
			continue // another kernel's
		}
		roots = append(roots, t)
		for _, path := range n.Any {
			p.mark(t, path)
		}
	}
	for _, t := range roots {
		p.add(t)
	}
	return os.WriteFile(out, p.btf.Bytes(), 0o666)
}

type pruner struct {
	types *ctype.Set
	keep  map[*ctype.Struct]map[string]bool // needed structs with their needed members
	ids   map[ctype.Type]coretest.ID
	btf   coretest.BTF
}

// mark keeps the members along a path.
func (p *pruner) mark(t ctype.Type, path string) {
	s, ok := ctype.Resolve(t).(*ctype.Struct)
	if !ok {
		return
	}
	if p.keep[s] == nil {
		p.keep[s] = map[string]bool{}
	}
	name, rest, _ := strings.Cut(path, ".")
	m, _, ok := s.Find(name)
	if !ok {
		return
	}
	p.keep[s][name] = true
	if rest != "" {
		p.mark(m.Type(), rest)
	}
}

// add writes a type and returns its ID.
func (p *pruner) add(t ctype.Type) coretest.ID {
	if id, ok := p.ids[t]; ok {
		return id
	}
	var id coretest.ID
	switch t := t.(type) {
	case *ctype.Int:
		id = p.btf.Int(t.Name, int(t.Bytes), t.Signed)
	case *ctype.Float:
		id = p.btf.Float(t.Name, int(t.Bytes))
	case *ctype.Typedef:
		id = p.btf.Typedef(t.Name, p.add(t.Type()))
	case *ctype.Qualified:
		id = p.add(t.Type())
	case *ctype.Array:
		id = p.btf.Array(p.add(t.Elem()), int(t.Len))
	case *ctype.Enum:
		var values []coretest.Enumerator
		for _, v := range t.Values {
			values = append(values, coretest.Enumerator(v))
		}
		id = p.btf.Enum(t.Name, int(t.Bytes), t.Signed, values...)
	case *ctype.Pointer:
		// What is pointed to is only needed by name.
		target := coretest.ID(0)
		switch u := ctype.Resolve(t.Target()).(type) {
		case *ctype.Int:
			target = p.add(u)
		case *ctype.Struct:
			if _, ok := p.keep[u]; ok {
				p.ids[t] = p.btf.Declare()
				p.btf.SetPtr(p.ids[t], p.add(u))
				return p.ids[t]
			}
		}
		id = p.btf.Ptr(target)
	case *ctype.Struct:
		id = p.btf.Declare()
		p.ids[t] = id
		fields := p.fields(t)
		if t.Union {
			p.btf.SetUnion(id, t.Name, int(t.Bytes), fields...)
		} else {
			p.btf.SetStruct(id, t.Name, int(t.Bytes), fields...)
		}
	}
	p.ids[t] = id
	return id
}

// fields returns the members of a struct to keep, all under their own names or
// in the anonymous member that has them.
func (p *pruner) fields(t *ctype.Struct) []coretest.Field {
	var fields []coretest.Field
	for _, m := range t.Members {
		if m.Name == "" {
			inner, ok := ctype.Resolve(m.Type()).(*ctype.Struct)
			if !ok {
				continue
			}
			for name := range p.keep[t] {
				if _, _, ok := inner.Find(name); ok {
					if p.keep[inner] == nil {
						p.keep[inner] = map[string]bool{}
					}
					p.keep[inner][name] = true
				}
			}
			if p.keep[inner] == nil {
				continue
			}
		} else if !p.keep[t][m.Name] {
			continue
		}
		fields = append(fields, coretest.Field{Name: m.Name, Type: p.add(m.Type()), Bit: int(m.Offset), Bits: int(m.Bits)})
	}
	return fields
}
