package ctype_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/ctype"
	"crashlab/crashkit/internal/coretest"
)

func parse(t testing.TB, b *coretest.BTF, base *ctype.Set) *ctype.Set {
	t.Helper()
	s, err := ctype.ParseBTF(b.Bytes(), base)
	if err != nil {
		t.Fatalf("ParseBTF: %v", err)
	}
	return s
}

// kernelBTF has every kind of type.
func kernelBTF() *coretest.BTF {
	b := &coretest.BTF{}
	char, integer, long := b.Int("char", 1, false), b.Int("int", 4, true), b.Int("long unsigned int", 8, false)
	u128 := b.Int("__int128", 16, true)
	node := b.Declare()
	b.SetStruct(node, "node", 40,
		coretest.Field{Name: "next", Type: b.Ptr(node)},
		coretest.Field{Type: b.Union("", 8,
			coretest.Field{Name: "value", Type: long},
			coretest.Field{Type: b.Struct("", 8, coretest.Field{Name: "low", Type: integer}, coretest.Field{Name: "high", Type: integer, Bit: 32})},
		), Bit: 64},
		coretest.Field{Name: "name", Type: b.Array(char, 8), Bit: 128},
		coretest.Field{Name: "matrix", Type: b.Array(b.Array(integer, 2), 2), Bit: 192},
	)
	b.Struct("flags", 8,
		coretest.Field{Name: "a", Type: integer, Bit: 0, Bits: 3},
		coretest.Field{Name: "b", Type: long, Bit: 3, Bits: 7},
		coretest.Field{Name: "plain", Type: integer, Bit: 32},
	)
	b.Struct("ops", 16,
		coretest.Field{Name: "open", Type: b.Ptr(b.FuncProto(integer, b.Ptr(b.Const(char)), 0))},
		coretest.Field{Name: "grid", Type: b.Ptr(b.Array(integer, 4)), Bit: 64},
	)
	b.Typedef("node_t", node)
	b.Typedef("name_clash", long)
	b.Struct("name_clash", 4, coretest.Field{Name: "x", Type: integer})
	b.Struct("missing_user", 8, coretest.Field{Name: "p", Type: b.Ptr(b.Fwd("missing", false))})
	b.Struct("qualified", 16,
		coretest.Field{Name: "p", Type: b.Const(b.Ptr(b.Volatile(b.Restrict(char))))},
		coretest.Field{Name: "tagged", Type: b.Ptr(b.Raw("rcu", coretest.KindTypeTag, 0, false, uint32(long))), Bit: 64},
	)
	b.Enum("state", 4, false, coretest.Enumerator{Name: "LIVE", Value: 0}, coretest.Enumerator{Name: "GOING", Value: 2})
	b.Enum("err", 4, true, coretest.Enumerator{Name: "MINUS", Value: ^uint64(0)})
	b.Enum("wide", 8, false, coretest.Enumerator{Name: "TOP", Value: 1 << 63})
	b.Float("double", 8)
	b.Raw("fn", coretest.KindFunc, 1, false, uint32(b.FuncProto(0)))
	b.Raw("var", coretest.KindVar, 0, false, uint32(integer), 1)
	b.Struct("big", 16, coretest.Field{Name: "v", Type: u128})
	return b
}

func TestDeclarations(t *testing.T) {
	s := parse(t, kernelBTF(), nil)
	for _, c := range []struct {
		typ  string
		size uint64
		want []string
	}{
		{"struct node", 40, []string{
			"0 struct node *next", "64 union {...}", "128 char name[8]", "192 int matrix[2][2]",
		}},
		{"flags", 8, []string{"0:3 int a", "3:7 long unsigned int b", "32 int plain"}},
		{"struct ops", 16, []string{"0 int (*open)(const char *, ...)", "64 int (*grid)[4]"}},
		{"node_t", 40, nil},
		{"struct missing_user", 8, []string{"0 struct missing *p"}},
		{"struct qualified", 16, []string{"0 volatile restrict char *const p", "64 long unsigned int *tagged"}},
		{"enum wide", 8, nil},
		{"double", 8, nil},
	} {
		typ, err := s.Lookup(c.typ)
		if err != nil {
			t.Errorf("Lookup(%q): %v", c.typ, err)
			continue
		}
		if typ.Size() != c.size {
			t.Errorf("%s has size %d; want %d", c.typ, typ.Size(), c.size)
		}
		var got []string
		if st, ok := typ.(*ctype.Struct); ok {
			for _, m := range st.Members {
				width := ""
				if m.Bits > 0 {
					width = fmt.Sprintf(":%d", m.Bits)
				}
				got = append(got, fmt.Sprintf("%d%s %s", m.Offset, width, ctype.Declare(m.Type(), m.Name)))
			}
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: -want +got:\n%s", c.typ, d)
		}
	}
}

func TestLookup(t *testing.T) {
	s := parse(t, kernelBTF(), nil)
	for _, c := range []struct{ name, want string }{
		{"name_clash", "name_clash"}, // the typedef goes first
		{"struct name_clash", "struct name_clash"},
		{"node", "struct node"},
		{"long unsigned int", "long unsigned int"},
		{"unsigned long", "long unsigned int"}, // as people write it
		{"state", "enum state"},
		{"struct missing", ""}, // declared only
		{"struct state", ""},
		{"enum node", ""},
		{"", ""},
		{"fn", ""},
	} {
		typ, err := s.Lookup(c.name)
		switch {
		case c.want == "" && !errors.Is(err, ctype.ErrNotFound):
			t.Errorf("Lookup(%q) = %v, %v; want ErrNotFound", c.name, typ, err)
		case c.want != "" && (err != nil || typ.String() != c.want):
			t.Errorf("Lookup(%q) = %v, %v; want %s", c.name, typ, err, c.want)
		}
	}
	if a, b := mustLookup(t, s, "struct node"), ctype.Resolve(mustLookup(t, s, "node_t")); a != b {
		t.Error("struct node was made twice")
	}
}

func mustLookup(t testing.TB, s *ctype.Set, name string) ctype.Type {
	t.Helper()
	typ, err := s.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return typ
}

func TestEnumerator(t *testing.T) {
	s := parse(t, kernelBTF(), nil)
	for _, c := range []struct {
		name string
		want uint64
		ok   bool
	}{
		{"LIVE", 0, true},
		{"GOING", 2, true},
		{"MINUS", ^uint64(0), true},
		{"TOP", 1 << 63, true},
		{"GOIN", 0, false},
		{"", 0, false},
	} {
		if v, ok := s.Enumerator(c.name); v != c.want || ok != c.ok {
			t.Errorf("Enumerator(%q) = %#x, %v; want %#x, %v", c.name, v, ok, c.want, c.ok)
		}
	}
}

// clang writes base types as people do.
func TestLookupOfClang(t *testing.T) {
	b := &coretest.BTF{}
	b.Int("unsigned long", 8, false)
	if typ, err := parse(t, b, nil).Lookup("unsigned long"); err != nil || typ.Size() != 8 {
		t.Errorf("Lookup(unsigned long) = %v, %v; want it", typ, err)
	}
}

// A module's BTF continues the numbers and the strings of its kernel's.
func TestModuleTypes(t *testing.T) {
	base := kernelBTF()
	kernel := parse(t, base, nil)
	node := uint32(5) // the fifth type that kernelBTF declares
	mod := &coretest.BTF{FirstID: base.NextID(), FirstStr: base.StrLen()}
	mod.Struct("mine", 8, coretest.Field{Name: "node", Type: mod.Ptr(coretest.ID(node))})
	mod.Enum("", 4, false, coretest.Enumerator{Name: "MINE_ONLY", Value: 9})
	s := parse(t, mod, kernel)

	mine, err := s.Struct("mine")
	if err != nil {
		t.Fatal(err)
	}
	if got := ctype.Declare(mine.Members[0].Type(), "node"); got != "struct node *node" {
		t.Errorf("member is %q; want the kernel's struct node", got)
	}
	if v, ok := s.Enumerator("MINE_ONLY"); !ok || v != 9 {
		t.Errorf("Enumerator(MINE_ONLY) = %d, %v; want 9", v, ok)
	}
	if v, ok := s.Enumerator("GOING"); !ok || v != 2 {
		t.Errorf("Enumerator(GOING) = %d, %v; want the kernel's 2", v, ok)
	}
	if _, err := kernel.Struct("mine"); !errors.Is(err, ctype.ErrNotFound) {
		t.Errorf("the kernel's Struct(mine) = %v; want ErrNotFound", err)
	}
	if a, b := mustLookup(t, s, "struct node"), mustLookup(t, kernel, "struct node"); a != b {
		t.Error("the module has its own struct node")
	}
}

func TestParseBTFDamaged(t *testing.T) {
	good := kernelBTF().Bytes()
	patch := func(at int, v byte) []byte {
		b := append([]byte(nil), good...)
		b[at] = v
		return b
	}
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "too short"},
		{"other magic", patch(0, 0), "magic"},
		{"header past the end", patch(6, 0xff), "past the end"},
		{"types past the end", patch(15, 0xff), "past the end"},
		{"strings past the end", patch(23, 0xff), "past the end"},
		{"cut type", patch(12, good[12]-4), "cut off"},
		{"unknown kind", patch(24+7, 31), "unknown"},
	} {
		if _, err := ctype.ParseBTF(c.data, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: ParseBTF = %v; want an error with %q", c.name, err, c.want)
		}
	}
}

// Types that refer to themselves by way of typedefs, arrays or anonymous
// members are no C, but damage can make them.
func TestEndlessTypes(t *testing.T) {
	b := &coretest.BTF{}
	b.Typedef("loop", 1)
	arr := b.Declare()
	b.SetStruct(arr, "self", 8, coretest.Field{Type: arr}, coretest.Field{Type: arr}, coretest.Field{Name: "x", Type: arr, Bit: 64})
	b.Raw("", 3, 0, false, 0, 3, 3, 2) // an array of itself
	b.Typedef("arrays", 3)
	b.Raw("", 2, 0, false, 5) // a pointer to itself
	b.Typedef("pointers", 5)
	b.Raw("", coretest.KindFunc, 0, false, 7)
	b.Typedef("functions", 7)
	proto := b.NextID()
	b.FuncProto(proto, proto, proto)
	b.Typedef("protos", proto)
	s := parse(t, b, nil)
	for _, name := range []string{"loop", "struct self", "arrays", "pointers", "functions", "protos"} {
		typ := mustLookup(t, s, name)
		_ = typ.Size()
		if text := ctype.Declare(ctype.Resolve(typ), "x"); len(text) > 4000 {
			t.Errorf("%s is declared in %d bytes", name, len(text))
		}
	}
	if _, _, ok := mustLookup(t, s, "struct self").(*ctype.Struct).Find("absent"); ok {
		t.Error("Find(absent) found something")
	}
}

func TestEmpty(t *testing.T) {
	s := ctype.Empty()
	if _, err := s.Lookup("struct x"); !errors.Is(err, ctype.ErrNotFound) {
		t.Errorf("Lookup in an empty set = %v; want ErrNotFound", err)
	}
	if _, ok := s.Enumerator("X"); ok {
		t.Error("Enumerator found something in an empty set")
	}
}

func FuzzParseBTF(f *testing.F) {
	f.Add(kernelBTF().Bytes(), "node", "next")
	f.Add((&coretest.BTF{}).Bytes(), "", "")
	f.Fuzz(func(t *testing.T, data []byte, name, member string) {
		s, err := ctype.ParseBTF(data, nil)
		if (err == nil) != (s != nil) {
			t.Fatalf("ParseBTF = %v, %v; want either", s, err)
		}
		if err != nil {
			return
		}
		s.Enumerator(name)
		typ, err := s.Lookup(name)
		if err != nil {
			return
		}
		_ = ctype.Declare(typ, "x")
		_ = typ.Size()
		_, _ = ctype.OffsetOf(typ, member)
		_, _ = ctype.NewObject(memory{}, typ, 0x1000, "x").Member(member).Index(0).Deref().Uint()
	})
}
