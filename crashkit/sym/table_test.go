package sym_test

import (
	"fmt"
	"testing"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/sym"
)

func TestTableFind(t *testing.T) {
	table := sym.NewTable([]sym.Symbol{
		{Name: "end", Addr: 0x400, Type: 'D', Size: 8},
		{Name: "local_alias", Addr: 0x100, Type: 't'},
		{Name: "global", Addr: 0x100, Type: 'T'},
		{Name: "data_alias", Addr: 0x100, Type: 'r'},
		{Name: "data", Addr: 0x200, Type: 'd'},
		{Name: "sized", Addr: 0x300, Type: 't', Size: 0x10},
	})
	for _, c := range []struct {
		at   addr.Virt
		want string // name+offset/size
	}{
		{0xff, ""},
		{0x100, "global+0x0/0x100"},
		{0x1ff, "global+0xff/0x100"},
		{0x200, "data+0x0/0x100"},
		{0x30f, "sized+0xf/0x10"},
		{0x310, ""}, // after its end
		{0x407, "end+0x7/0x8"},
		{0x408, ""},
		{0xffffffffffffffff, ""},
	} {
		got := ""
		if s, off, ok := table.Find(c.at); ok {
			got = fmt.Sprintf("%s+%#x/%#x", s.Name, off, s.Size)
		}
		if got != c.want {
			t.Errorf("Find(%v) = %q; want %q", c.at, got, c.want)
		}
	}
}

func TestTableLookup(t *testing.T) {
	table := sym.NewTable([]sym.Symbol{
		{Name: "twice", Addr: 0x200, Type: 't'},
		{Name: "twice", Addr: 0x100, Type: 't'},
		{Name: "once", Addr: 0x150, Type: 'd'},
	})
	if s, ok := table.Lookup("once"); !ok || s.Addr != 0x150 || s.Size != 0xb0 {
		t.Errorf("Lookup(once) = %+v, %v; want 0x150 of size 0xb0", s, ok)
	}
	if s, ok := table.Lookup("twice"); !ok || s.Addr != 0x100 {
		t.Errorf("Lookup(twice) = %+v, %v; want the lower one, 0x100", s, ok)
	}
	if _, ok := table.Lookup("never"); ok {
		t.Error("Lookup(never) found something")
	}
	if all := table.LookupAll("twice"); len(all) != 2 || all[0].Addr != 0x100 || all[1].Addr != 0x200 {
		t.Errorf("LookupAll(twice) = %+v; want those at 0x100 and 0x200", all)
	}
	if s, ok := table.Next(0x100); !ok || s.Name != "once" {
		t.Errorf("Next(0x100) = %+v, %v; want once", s, ok)
	}
	if _, ok := table.Next(0x200); ok {
		t.Error("Next of the last found something")
	}
}

func TestEmptyTable(t *testing.T) {
	table := sym.NewTable(nil)
	if _, ok := table.Lookup("x"); ok {
		t.Error("Lookup found something in an empty table")
	}
	if _, _, ok := table.Find(0); ok {
		t.Error("Find found something in an empty table")
	}
}

// Many names share places of the hash table.
func TestTableLookupOfMany(t *testing.T) {
	var syms []sym.Symbol
	for i := range 5000 {
		syms = append(syms, sym.Symbol{Name: fmt.Sprintf("f%d", i), Addr: addr.Virt(i * 16), Type: 't'})
	}
	table := sym.NewTable(syms)
	for i := range 5000 {
		name := fmt.Sprintf("f%d", i)
		if s, ok := table.Lookup(name); !ok || s.Addr != addr.Virt(i*16) {
			t.Fatalf("Lookup(%s) = %+v, %v; want address %#x", name, s, ok, i*16)
		}
	}
}
