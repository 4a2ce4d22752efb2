package sym_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/internal/coretest"
	"crashlab/crashkit/sym"
)

// memory is pieces of virtual memory.
type memory map[addr.Virt][]byte

func (m memory) Read(v addr.Virt, b []byte) error {
	for at, piece := range m {
		if v >= at && uint64(v-at)+uint64(len(b)) <= uint64(len(piece)) {
			copy(b, piece[v-at:])
			return nil
		}
	}
	return &addr.Fault{Virt: v, HasVirt: true, Reason: addr.NotMapped}
}

const (
	namesAt   = 0xffffffff82000000
	tokensAt  = 0xffffffff82100000
	indexAt   = 0xffffffff82200000
	offsetsAt = 0xffffffff82300000
	numberAt  = 0xffffffff82400000
	baseAt    = 0xffffffff82400008
	relBase   = 0xffffffff81000000
)

var tables = sym.KallsymsTables{
	Names: namesAt, NumSyms: numberAt, TokenTable: tokensAt, TokenIndex: indexAt, Offsets: offsetsAt,
	RelativeBase: baseAt, AnchorName: "_stext", AnchorAddr: 0xffffffff81000000,
}

func encoded(syms []sym.Symbol, e coretest.Encoding) memory {
	k := coretest.EncodeKallsyms(slices.Clone(syms), e, relBase, offsetsAt)
	number := binary.LittleEndian.AppendUint64(nil, uint64(k.NumSyms))
	return memory{
		namesAt: append(k.Names, make([]byte, 4096-len(k.Names)%4096)...), tokensAt: append(k.TokenTable, make([]byte, 512)...), indexAt: k.TokenIndex,
		offsetsAt: k.Offsets, numberAt: binary.LittleEndian.AppendUint64(number, relBase),
	}
}

func TestKallsyms(t *testing.T) {
	percpu := []sym.Symbol{
		{Name: "fixed_percpu_data", Addr: 0, Type: 'A'},
		{Name: "runqueues", Addr: 0x31980, Type: 'A'},
	}
	text := []sym.Symbol{
		{Name: "_stext", Addr: 0xffffffff81000000, Type: 'T'},
		{Name: "startup_64", Addr: 0xffffffff81000000, Type: 'T'},
		{Name: "__x64_sys_sys_read", Addr: 0xffffffff81000040, Type: 't'},
		// 0x80 and 0x3fff are the ends of what one and two bytes of length hold.
		{Name: strings.Repeat("n", 0x7e), Addr: 0xffffffff81000050, Type: 't'},
		{Name: strings.Repeat("o", 0x7f), Addr: 0xffffffff81000060, Type: 't'},
		{Name: strings.Repeat("p", 500), Addr: 0xffffffff81000070, Type: 'W'},
		{Name: "last", Addr: 0xffffffffb0000000, Type: 'b'},
	}
	for _, c := range []struct {
		name string
		e    coretest.Encoding
		syms []sym.Symbol
	}{
		{"absolute per-cpu", coretest.AbsolutePerCPU, slices.Concat(percpu, text)},
		{"base relative", coretest.BaseRelative, text},
		{"place relative", coretest.PlaceRelative, text},
		{"absolute", coretest.Absolute, slices.Concat(percpu, text)},
	} {
		t.Run(c.name, func(t *testing.T) {
			tab := tables
			if c.e == coretest.Absolute {
				tab.Addresses, tab.Offsets, tab.RelativeBase = tab.Offsets, 0, 0
			}
			if c.e == coretest.PlaceRelative {
				tab.RelativeBase = 0
			}
			got, err := sym.Kallsyms(encoded(c.syms, c.e), tab)
			if err != nil {
				t.Fatalf("Kallsyms: %v", err)
			}
			if d := cmp.Diff(c.syms, got); d != "" {
				t.Errorf("Kallsyms: -want +got:\n%s", d)
			}
		})
	}
}

// The names may end just before memory that the dump does not have.
func TestKallsymsNamesAtTheEndOfMemory(t *testing.T) {
	const skew = 0x590 // the table starts anywhere in a page
	syms := []sym.Symbol{{Name: "_stext", Addr: relBase, Type: 'T'}}
	size := skew + 1 + len("T_stext")
	for i := 0; size < 4096; i++ {
		name := fmt.Sprintf("f%06d", i)
		if left := 4096 - size; left < 20 {
			name = strings.Repeat("x", left-2)
		}
		syms = append(syms, sym.Symbol{Name: name, Addr: relBase + addr.Virt(i), Type: 't'})
		size += 2 + len(name)
	}
	m := encoded(syms, coretest.BaseRelative)
	m[namesAt+skew] = m[namesAt][:4096-skew]
	delete(m, namesAt)
	tab := tables
	tab.Names += skew
	got, err := sym.Kallsyms(m, tab)
	if err != nil {
		t.Fatalf("Kallsyms: %v", err)
	}
	if len(got) != len(syms) || got[len(got)-1].Name != syms[len(syms)-1].Name {
		t.Errorf("Kallsyms = %d symbols, the last %q; want %d and %q", len(got), got[len(got)-1].Name, len(syms), syms[len(syms)-1].Name)
	}
}

func TestKallsymsDamaged(t *testing.T) {
	syms := []sym.Symbol{{Name: "_stext", Addr: relBase, Type: 'T'}, {Name: "f", Addr: relBase + 16, Type: 't'}}
	for _, c := range []struct {
		name   string
		damage func(m memory)
		want   string
	}{
		{"no symbols", func(m memory) { m[numberAt][0] = 0 }, "kallsyms_num_syms is 0"},
		{"too many", func(m memory) { m[numberAt][3] = 0xff }, "not a kernel's"},
		{"more than stored", func(m memory) { m[numberAt][0] = 3 }, "symbol 2 of 3"},
		{"no names", func(m memory) { delete(m, namesAt) }, "symbol 0 of 2"},
		{"empty name", func(m memory) { m[namesAt][0] = 1 }, "no name"},
		{"no tokens", func(m memory) { delete(m, tokensAt) }, "kallsyms_token_table"},
		{"index out of order", func(m memory) { m[indexAt][0], m[indexAt][1] = 0xff, 0xff }, "past the last"},
		{"no anchor", func(m memory) { m[namesAt][2] = 'X' }, "kallsyms has no _stext"},
		{"no base", func(m memory) { m[numberAt] = m[numberAt][:8] }, "kallsyms_relative_base"},
		{"other offsets", func(m memory) { m[offsetsAt][1] = 7 }, "no known encoding"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := encoded(syms, coretest.BaseRelative)
			c.damage(m)
			if _, err := sym.Kallsyms(m, tables); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Kallsyms = %v; want an error with %q", err, c.want)
			}
		})
	}
}

func FuzzKallsyms(f *testing.F) {
	syms := []sym.Symbol{{Name: "_stext", Addr: relBase, Type: 'T'}, {Name: "sys_read", Addr: relBase + 16, Type: 't'}}
	for _, e := range []coretest.Encoding{coretest.AbsolutePerCPU, coretest.BaseRelative, coretest.PlaceRelative} {
		m := encoded(syms, e)
		f.Add(m[namesAt][:64], m[tokensAt], m[indexAt], m[offsetsAt], m[numberAt])
	}
	f.Fuzz(func(t *testing.T, names, tokens, index, offsets, number []byte) {
		m := memory{namesAt: names, tokensAt: tokens, indexAt: index, offsetsAt: offsets, numberAt: number}
		got, err := sym.Kallsyms(m, tables)
		if (err == nil) != (got != nil) {
			t.Errorf("Kallsyms = %d symbols, %v; want either", len(got), err)
		}
		if err == nil {
			sym.NewTable(got).Find(relBase + 8)
		}
	})
}
