package ctype_test

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/ctype"
	"crashlab/crashkit/internal/die"
)

// dwarfSections reads the debug information of a program in testdata.
func dwarfSections(t testing.TB, name string) die.Sections {
	t.Helper()
	f, err := elf.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	section := func(name string) []byte {
		s := f.Section(".debug_" + name)
		if s == nil {
			return nil
		}
		b, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	return die.Sections{Info: section("info"), Abbrev: section("abbrev"), Str: section("str"), LineStr: section("line_str")}
}

func fromDWARF(t testing.TB, s die.Sections) *ctype.Set {
	t.Helper()
	set, err := ctype.FromDWARF(die.New(s))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// sources are the types of testdata/types.c from all that has them.
func sources(t *testing.T) map[string]*ctype.Set {
	t.Helper()
	b, err := os.ReadFile("testdata/types.btf")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]*ctype.Set)
	if all["BTF"], err = ctype.ParseBTF(b, nil); err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"2", "4", "5"} {
		all["DWARF "+v] = fromDWARF(t, dwarfSections(t, "types-dwarf"+v))
	}
	return all
}

// members describes a struct: for each member its offset in bits, the width of a bit
// field, its declaration and its size in bytes.
func members(t ctype.Type) []string {
	s, ok := ctype.Resolve(t).(*ctype.Struct)
	if !ok {
		return nil
	}
	var all []string
	for _, m := range s.Members {
		width := ""
		if m.Bits > 0 {
			width = fmt.Sprintf(":%d", m.Bits)
		}
		all = append(all, fmt.Sprintf("%d%s %s = %d", m.Offset, width, ctype.Declare(m.Type(), m.Name), m.Type().Size()))
	}
	return all
}

// What the text of types.c says, as the x86-64 ABI lays it out.
func TestSourcesOfTypes(t *testing.T) {
	for name, s := range sources(t) {
		dwarf := name != "BTF"
		for _, c := range []struct {
			typ  string
			size uint64
			want []string
		}{
			{"struct node", 24, []string{"0 struct node *next = 8", "64 union {...} = 8", "128 char name[8] = 8"}},
			{"node_t", 24, []string{"0 struct node *next = 8", "64 union {...} = 8", "128 char name[8] = 8"}},
			{"struct grid", 72, []string{
				// BTF has arrays of one dimension; pahole multiplies the lengths.
				map[bool]string{true: "0 int matrix[2][3] = 24", false: "0 int matrix[6] = 24"}[dwarf],
				map[bool]string{true: "192 short int deep[2][3][4] = 48", false: "192 short int deep[24] = 48"}[dwarf],
				"576 int empty[] = 0", "576 char open[] = 0",
			}},
			{"struct flags", 16, []string{
				"0:3 int a = 4", "3:7 long unsigned int b = 8", "32 int plain = 4",
				"64:1 unsigned char c = 1", "65:2 unsigned char d = 1", "67:40 long int wide = 8",
			}},
			{"struct ops", 32, []string{
				"0 int (*open)(const char *, ...) = 8", "64 int (*grid)[4] = 8", "128 void (*nothing)(void) = 8", "192 void *any = 8",
			}},
			{"struct name_clash", 4, []string{"0 int x = 4"}},
			{"struct missing_user", 16, []string{"0 struct missing *p = 8", "64 struct later *q = 8"}},
			{"struct missing", 8, []string{"0 long int found = 8"}},
			{"struct later", 64, []string{
				"0 _Bool yes = 1", "8 signed char small = 1", "16 unsigned char byte = 1", "32 short int s = 2",
				"48 short unsigned int us = 2", "64 unsigned int u = 4", "128 long long int ll = 8", "192 long long unsigned int ull = 8",
				"256 __int128 huge = 16", "384 double d = 8",
			}},
			{"struct qualified", 16, nil},
			{"union either", 8, []string{"0 int i = 4", "0 char c[6] = 6"}},
			{"struct holder", 24, []string{"0 enum {...} where = 4", "32 enum state state = 4", "64 union either either[2] = 16"}},
			{"enum wide", 8, nil},
			{"enum tiny", 1, nil},
			{"unsigned long", 8, nil},
		} {
			typ, err := s.Lookup(c.typ)
			if err != nil {
				t.Errorf("%s: Lookup(%q): %v", name, c.typ, err)
				continue
			}
			if typ.Size() != c.size {
				t.Errorf("%s: %s has size %d; want %d", name, c.typ, typ.Size(), c.size)
			}
			if d := cmp.Diff(c.want, members(typ)); d != "" && c.want != nil {
				t.Errorf("%s: %s: -want +got:\n%s", name, c.typ, d)
			}
		}
		for _, absent := range []string{"", "struct absent", "union node", "enum node", "struct name", "LIVE", "_start", "ode"} {
			if typ, err := s.Lookup(absent); !errors.Is(err, ctype.ErrNotFound) {
				t.Errorf("%s: Lookup(%q) = %v, %v; want ErrNotFound", name, absent, typ, err)
			}
		}
		if typ, err := s.Lookup("name_clash"); err != nil || typ.Size() != 8 {
			t.Errorf("%s: Lookup(name_clash) = %v, %v; want the typedef", name, typ, err)
		}
		for _, want := range []string{"node", "node_t", "state", "either", "missing", "long unsigned int"} {
			if !slices.Contains(s.Names(), want) {
				t.Errorf("%s: Names has no %s", name, want)
			}
		}
	}
}

func TestSourcesOfEnums(t *testing.T) {
	for name, s := range sources(t) {
		for _, c := range []struct {
			enumerator string
			want       uint64
			ok         bool
		}{
			{"LIVE", 0, true},
			{"GOING", 2, true},
			{"MINUS", ^uint64(0), true},
			{"NONE", 0, true},
			{"TOP", 1 << 63, true},
			{"LAST", 255, true},
			{"NAMELESS", 7, true},
			{"BIG", 0xffffffff, true},
			{"OUTSIDE", 4, true},
			{"GOIN", 0, false},
			{"state", 0, false},
			{"", 0, false},
		} {
			if v, ok := s.Enumerator(c.enumerator); v != c.want || ok != c.ok {
				t.Errorf("%s: Enumerator(%q) = %#x, %v; want %#x, %v", name, c.enumerator, v, ok, c.want, c.ok)
			}
		}
		e, err := s.Lookup("enum err")
		if err != nil || !e.(*ctype.Enum).Signed {
			t.Errorf("%s: enum err = %+v, %v; want a signed one", name, e, err)
		}
	}
}

func TestSourcesOfBaseTypes(t *testing.T) {
	for name, s := range sources(t) {
		for typ, want := range map[string]ctype.Int{
			"char":          {Name: "char", Bytes: 1, Signed: true, Char: true},
			"unsigned char": {Name: "unsigned char", Bytes: 1, Char: true},
			"_Bool":         {Name: "_Bool", Bytes: 1, Bool: true},
			"int":           {Name: "int", Bytes: 4, Signed: true},
			"unsigned int":  {Name: "unsigned int", Bytes: 4},
			"__int128":      {Name: "__int128", Bytes: 16, Signed: true},
		} {
			got, err := s.Lookup(typ)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if i, ok := got.(*ctype.Int); !ok || *i != want {
				t.Errorf("%s: %s = %+v; want %+v", name, typ, got, want)
			}
		}
	}
}

// A struct that one unit only declares is what another one defines; one that two units
// define is what the first does.
func TestDWARFAcrossUnits(t *testing.T) {
	s := fromDWARF(t, dwarfSections(t, "types-dwarf5"))
	user := mustLookup(t, s, "struct missing_user").(*ctype.Struct)
	target := user.Members[0].Type().(*ctype.Pointer).Target()
	if target != mustLookup(t, s, "struct missing") || target.Size() != 8 {
		t.Errorf("struct missing_user points to %v of %d bytes; want the struct missing of the other unit", target, target.Size())
	}
	if a, b := mustLookup(t, s, "struct node"), ctype.Resolve(mustLookup(t, s, "node_t")); a != b {
		t.Error("struct node was made twice")
	}
}

// Nothing is read that is not asked for: damage behind what is needed does not matter.
func TestDWARFDamaged(t *testing.T) {
	good := dwarfSections(t, "types-dwarf5")
	for name, cut := range map[string]func(s *die.Sections){
		"info cut":      func(s *die.Sections) { s.Info = s.Info[:len(s.Info)-1] },
		"no abbrev":     func(s *die.Sections) { s.Abbrev = nil },
		"abbrev cut":    func(s *die.Sections) { s.Abbrev = s.Abbrev[:len(s.Abbrev)-1] },
		"no str":        func(s *die.Sections) { s.Str = nil },
		"empty":         func(s *die.Sections) { *s = die.Sections{} },
		"other version": func(s *die.Sections) { s.Info = slices.Clone(s.Info); s.Info[4] = 9 },
	} {
		s := good
		cut(&s)
		set := fromDWARF(t, s)
		_, err := set.Lookup("struct node")
		if whole := strings.HasSuffix(name, "cut"); (err == nil) != whole {
			t.Errorf("%s: Lookup(struct node): %v", name, err)
		}
		if _, err := set.Lookup("struct absent"); !errors.Is(err, ctype.ErrNotFound) {
			t.Errorf("%s: Lookup(struct absent) = %v; want ErrNotFound", name, err)
		}
	}
}

// FuzzDWARF makes all types that damaged sections have.
func FuzzDWARF(f *testing.F) {
	for _, name := range []string{"types-dwarf2", "types-dwarf4", "types-dwarf5"} {
		s := dwarfSections(f, name)
		f.Add(s.Info, s.Abbrev, s.Str, s.LineStr)
	}
	f.Fuzz(func(t *testing.T, info, abbrev, str, lineStr []byte) {
		s, err := ctype.FromDWARF(die.New(die.Sections{Info: info, Abbrev: abbrev, Str: str, LineStr: lineStr, StrOffsets: str, Addr: str}))
		if err != nil {
			t.Fatal(err)
		}
		s.Enumerator("GOING")
		names := s.Names()
		for _, name := range names[:min(len(names), 100)] {
			typ, err := s.Lookup(name)
			if err != nil {
				continue
			}
			_ = ctype.Declare(typ, "x")
			_ = typ.Size()
			_, _ = ctype.OffsetOf(typ, "next.next")
			_, _ = ctype.NewObject(memory{}, typ, 0x1000, "x").Member("next").Index(0).Deref().Uint()
		}
		for off := range min(len(info), 200) {
			_ = s.TypeAt(uint64(off)).String()
		}
	})
}
