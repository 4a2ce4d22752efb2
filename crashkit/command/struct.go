package command

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
)

func structCommand() *Command {
	return &Command{
		Name:     "struct",
		Aliases:  []string{"union"},
		Summary:  "show a type, or memory as one",
		Operands: "TYPE[.MEMBER[,MEMBER]…] [ADDRESS|SYMBOL [COUNT]]",
		Min:      1, Max: 3,
		Flags: []Flag{
			{"o", "", "show the offset of each member; with ADDRESS, its address"},
			{"x", "", "numbers in hex"},
			{"d", "", "numbers in decimal, as without a flag"},
			{"l", "OFFSET", "ADDRESS is that of what lies at OFFSET in the struct: a number or TYPE.MEMBER"},
		},
		Help: "Without ADDRESS shows the definition of a struct, union, enum or typedef. With it shows the values in memory, " +
			"all of them or those of some members, COUNT times from one to the next as in an array. MEMBER may go through nested structs: se.load.weight. The types are those in the dump.",
		Examples: []string{"struct list_head", "struct -o page_counter", "struct task_struct.pid,comm init_task", "struct list_head modules"},
		run:      structure,
	}
}

func structure(ctx context.Context, env *Env, args *Args) (Result, error) {
	name, list, hasMembers := strings.Cut(args.Operands[0], ".")
	if args.Has("x") && args.Has("d") {
		return nil, args.usage("-x and -d exclude each other")
	}
	t, err := env.typeNamed(name)
	if err != nil {
		return nil, err
	}
	var members []string
	if hasMembers {
		members = strings.Split(list, ",")
		for _, m := range members {
			if _, err := ctype.OffsetOf(t, m); err != nil {
				return nil, err
			}
		}
	}
	if len(args.Operands) == 1 {
		return newTypeResult(t, members, nil, args.Has("o")), nil
	}
	at, err := env.address(args.Operands[1])
	if err != nil {
		return nil, err
	}
	if s, ok := args.Value("l"); ok {
		off, err := env.embedded(s)
		if err != nil {
			return nil, fmt.Errorf("-l: %w", err)
		}
		at -= addr.Virt(off)
	}
	if args.Has("o") {
		return newTypeResult(t, members, &at, true), nil
	}
	count := uint64(1)
	if len(args.Operands) > 2 {
		if count, err = number(args.Operands[2]); err != nil || count == 0 {
			return nil, args.usage("COUNT %q is not a positive number", args.Operands[2])
		}
	}
	return readStructs(ctx, env, t, members, at, count, args.Has("x"))
}

// embedded returns the offset that -l asks for.
func (e *Env) embedded(s string) (uint64, error) {
	name, member, ok := strings.Cut(s, ".")
	if !ok {
		return number(s)
	}
	t, err := e.typeNamed(name)
	if err != nil {
		return 0, err
	}
	return ctype.OffsetOf(t, member)
}

// typeNamed returns the type of that name, the kernel's or else a module's:
// a tag without its keyword, or a typedef.
func (e *Env) typeNamed(name string) (ctype.Type, error) {
	lookup := func(set *ctype.Set) (ctype.Type, bool) {
		for _, keyword := range []string{"struct ", "union ", "enum ", ""} {
			if t, err := set.Lookup(keyword + name); err == nil {
				return t, true
			}
		}
		return nil, false
	}
	if t, ok := lookup(e.Program.Types); ok {
		return t, nil
	}
	mods, _ := e.Program.Modules() // one that cannot be read has no types
	for _, m := range mods {
		set, err := e.Program.ModuleTypes(m)
		if err != nil && e.Debug != nil {
			set, err = e.Debug.ModuleTypes(m)
		}
		if err != nil {
			continue
		}
		if t, ok := lookup(set); ok {
			return t, nil
		}
	}
	if near := nearest(name, e.Program.Types.Names(), 5); len(near) > 0 {
		return nil, fmt.Errorf("type %s: %w; similar: %s", name, ctype.ErrNotFound, strings.Join(near, ", "))
	}
	return nil, fmt.Errorf("type %s: %w", name, ctype.ErrNotFound)
}

// structValues are values read from memory as a type.
type structValues struct {
	Type     string        `json:"type"`
	Size     uint64        `json:"size"` // in bytes
	Elements []structValue `json:"elements"`

	whole bool // not members only
}

type structValue struct {
	Address uint64 `json:"address"`
	Value   value  `json:"value"`

	last []bool // of the members asked for: whether it is the type's last
}

func readStructs(ctx context.Context, env *Env, t ctype.Type, members []string, at addr.Virt, count uint64, hex bool) (Result, error) {
	if t.Size() == 0 {
		return nil, fmt.Errorf("a %v has no size", t)
	}
	res := &structValues{Type: t.String(), Size: t.Size(), whole: members == nil}
	r := &valueReader{env: env, hex: hex, budget: maxValues}
	good := false
	for i := range count {
		if err := ctx.Err(); err != nil {
			return res, err
		}
		v := at + addr.Virt(i*t.Size())
		o := ctype.NewObject(env.Program, t, v, fmt.Sprintf("(%v *)%v", t, v))
		e := structValue{Address: uint64(v)}
		if members == nil {
			e.Value = r.read(o, 0)
		} else {
			e.Value.kind = record
			for _, m := range members {
				item := r.read(o.Member(m), 0)
				item.name = m
				e.Value.items = append(e.Value.items, item)
				e.last = append(e.last, lastMember(t, m))
			}
		}
		res.Elements = append(res.Elements, e)
		if r.faults > 0 && !e.Value.readable() {
			// The array has left memory; what follows would be as empty.
			break
		}
		good = true
		if r.budget <= 0 {
			return res, errors.New("too much to show: give a smaller COUNT")
		}
	}
	if !good {
		return nil, r.err
	}
	return res, r.failure()
}

// readable reports whether any part of v could be read.
func (v value) readable() bool {
	if v.kind == scalar {
		return v.json != nil
	}
	for _, m := range v.items {
		if m.readable() {
			return true
		}
	}
	return len(v.items) == 0
}

// lastMember reports whether member is the last one of t: crash then ends its
// line without a comma.
func lastMember(t ctype.Type, member string) bool {
	s, ok := ctype.Resolve(t).(*ctype.Struct)
	return ok && len(s.Members) > 0 && s.Members[len(s.Members)-1].Name == member
}

// WriteText implements Result.
func (s *structValues) WriteText(t *Text) {
	for i, e := range s.Elements {
		if i > 0 && !s.whole {
			t.String("\n")
		}
		if s.whole {
			if e.Value.kind == scalar {
				t.Printf("(%s) ", s.Type)
			} else {
				t.String(s.Type + " ")
			}
			t.value(e.Value, 0)
			t.String("\n")
			continue
		}
		for j, m := range e.Value.items {
			t.String("  " + m.name + " = ")
			t.value(m, 2)
			if !e.last[j] {
				t.String(",")
			}
			t.String("\n")
		}
	}
}
