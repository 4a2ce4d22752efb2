package filter_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/filter"
	"crashlab/crashkit/internal/coretest"
)

// Where a struct page of 64 bytes has its members, in all kernels of the tests.
const (
	offFlags    = 0
	offLink     = 8
	offMapping  = 24
	offPrivate  = 40
	offType     = 48
	offRefcount = 52
	pageStruct  = 64
)

// A generation is a way in which kernels mark their pages.
type generation struct {
	name  string
	enums func(*coretest.BTF) // beside struct page; nil for a kernel without types
	info  []string            // of VMCOREINFO

	lru, private, head, reserved, slab uint64 // masks of flags
	buddy, slabType, hugetlb           uint32 // page types
	hugetlbFlag                        uint64 // of the second page
	dtor                               byte   // of the second page
	mask                               bool   // tails link to their head by a mask
}

const noType = ^uint32(0) // of a page that is not mapped

var generations = []generation{
	{
		name: "as v6.1",
		enums: func(b *coretest.BTF) {
			b.Enum("pageflags", 4, false, coretest.Enumerator{Name: "PG_lru", Value: 4}, coretest.Enumerator{Name: "PG_slab", Value: 9},
				coretest.Enumerator{Name: "PG_reserved", Value: 12}, coretest.Enumerator{Name: "PG_private", Value: 13}, coretest.Enumerator{Name: "PG_head", Value: 16})
			b.Enum("compound_dtor_id", 4, false, coretest.Enumerator{Name: "HUGETLB_PAGE_DTOR", Value: 2})
		},
		info: []string{"NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-129"},
		lru:  1 << 4, private: 1 << 13, head: 1 << 16, reserved: 1 << 12, slab: 1 << 9,
		buddy: 0xffffff7f, dtor: 2,
	},
	{
		name: "as v6.1, without types",
		info: []string{
			"NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-129", "NUMBER(PG_lru)=4", "NUMBER(PG_slab)=9", "NUMBER(PG_private)=13", "NUMBER(PG_head_mask)=65536",
			"NUMBER(HUGETLB_PAGE_DTOR)=2", "SIZE(page)=64", "OFFSET(page.flags)=0", "OFFSET(page._refcount)=52", "OFFSET(page.mapping)=24",
			"OFFSET(page.lru)=8", "OFFSET(page._mapcount)=48", "OFFSET(page.private)=40", "OFFSET(page.compound_dtor)=16", "OFFSET(page.compound_head)=8",
		},
		lru: 1 << 4, private: 1 << 13, head: 1 << 16, slab: 1 << 9, buddy: 0xffffff7f, dtor: 2,
	},
	{
		name: "as v6.6",
		enums: func(b *coretest.BTF) {
			b.Enum("pageflags", 4, false, coretest.Enumerator{Name: "PG_lru", Value: 5}, coretest.Enumerator{Name: "PG_slab", Value: 10},
				coretest.Enumerator{Name: "PG_reserved", Value: 13}, coretest.Enumerator{Name: "PG_private", Value: 14}, coretest.Enumerator{Name: "PG_head", Value: 6},
				coretest.Enumerator{Name: "PG_hugetlb", Value: 8})
		},
		info: []string{"NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-129"},
		lru:  1 << 5, private: 1 << 14, head: 1 << 6, reserved: 1 << 13, slab: 1 << 10,
		buddy: 0xffffff7f, hugetlbFlag: 1 << 8,
	},
	{
		name: "as v7.2",
		enums: func(b *coretest.BTF) {
			b.Enum("pageflags", 4, false, coretest.Enumerator{Name: "PG_lru", Value: 5}, coretest.Enumerator{Name: "PG_head", Value: 6},
				coretest.Enumerator{Name: "PG_reserved", Value: 13}, coretest.Enumerator{Name: "PG_private", Value: 14})
			b.Enum("pagetype", 4, false, coretest.Enumerator{Name: "PGTY_buddy", Value: 0xf0}, coretest.Enumerator{Name: "PGTY_hugetlb", Value: 0xf4},
				coretest.Enumerator{Name: "PGTY_slab", Value: 0xf5})
		},
		lru: 1 << 5, private: 1 << 14, head: 1 << 6, reserved: 1 << 13,
		buddy: 0xf0 << 24, slabType: 0xf5 << 24, hugetlb: 0xf4 << 24, mask: true,
	},
}

// types returns a generation's BTF.
func (g *generation) types() []byte {
	b := &coretest.BTF{}
	long, word, char := b.Int("long unsigned int", 8, false), b.Int("unsigned int", 4, false), b.Int("unsigned char", 1, false)
	if g.enums == nil {
		return b.Bytes()
	}
	fields := []coretest.Field{
		{Name: "flags", Type: long}, {Name: "mapping", Type: long, Bit: 8 * offMapping}, {Name: "private", Type: long, Bit: 8 * offPrivate},
		{Name: "page_type", Type: word, Bit: 8 * offType}, {Name: "_refcount", Type: word, Bit: 8 * offRefcount},
	}
	if g.mask {
		fields = append(fields, coretest.Field{Name: "compound_info", Type: long, Bit: 8 * offLink})
	} else {
		fields = append(fields, coretest.Field{Name: "compound_head", Type: long, Bit: 8 * offLink})
	}
	if g.dtor != 0 {
		fields = append(fields, coretest.Field{Name: "compound_dtor", Type: char, Bit: 8 * 16})
	}
	b.Struct("page", pageStruct, fields...)
	g.enums(b)
	return b.Bytes()
}

// machine is a made-up machine with a memory map.
type machine struct {
	*coretest.Core
	*generation
	t       testing.TB
	memmap  addr.Virt
	mapping uint64 // a pointer to something
}

// mapped is how many page frames the memory map has; the first section has more.
const mapped = 1024

func newMachine(t testing.TB, g generation) *machine {
	c := coretest.New(t, g.types())
	m := &machine{Core: c, generation: &g, t: t, memmap: 0xffd4000000000000, mapping: 0xff11000012345600}
	c.Info = append(c.Info, g.info...)
	c.Write(m.memmap, make([]byte, mapped*pageStruct))
	for pfn := range addr.PFN(mapped) {
		m.page(pfn, 0, 0, noType, 1) // of the kernel
	}
	base := c.Data(8)
	c.Symbol("vmemmap_base", 'D', base)
	c.Uint64(base, uint64(m.memmap))
	return m
}

func (m *machine) at(pfn addr.PFN) addr.Virt { return m.memmap + addr.Virt(pfn*pageStruct) }

func (m *machine) page(pfn addr.PFN, flags, mapping uint64, typ, refcount uint32) {
	m.Uint64(m.at(pfn)+offFlags, flags)
	m.Uint64(m.at(pfn)+offMapping, mapping)
	m.Write(m.at(pfn)+offType, binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, typ), refcount))
}

// compound makes n pages one whose first has been set.
func (m *machine) compound(head, n addr.PFN) {
	b := uint64(m.at(head)) | 1
	if m.mask {
		b = -uint64(n*pageStruct) | 1
	}
	for pfn := head + 1; pfn < head+n; pfn++ {
		m.page(pfn, 0, 0x400, noType, 0) // TAIL_MAPPING
		m.Uint64(m.at(pfn)+offLink, b)
	}
}

// free makes the pages from pfn a free block.
func (m *machine) free(pfn addr.PFN, order int) {
	m.page(pfn, 0, 0, m.buddy, 0)
	m.Uint64(m.at(pfn)+offPrivate, uint64(order))
}

// hugePage makes n pages one of hugetlb.
func (m *machine) hugePage(head, n addr.PFN) {
	typ := noType
	if m.hugetlb != 0 {
		typ = m.hugetlb
	}
	m.page(head, m.head, m.mapping, typ, 1)
	m.compound(head, n)
	if m.dtor != 0 {
		m.Write(m.at(head+1)+16, []byte{m.dtor})
	}
	if m.hugetlbFlag != 0 {
		m.Uint64(m.at(head+1)+offFlags, m.hugetlbFlag)
	}
}

// slabPage makes n pages one of the slab allocator, with the word that an
// anonymous page would have as its mapping.
func (m *machine) slabPage(head, n addr.PFN) {
	typ, refcount := noType, uint32(1)
	if m.slabType != 0 {
		typ, refcount = m.slabType, 0
	}
	flags := m.slab
	if n > 1 {
		flags |= m.head
		m.compound(head, n)
	}
	m.page(head, flags, m.mapping|1, typ, refcount)
}

// check compares the kinds of all pages of the map; those not in want are the
// kernel's.
func check(t *testing.T, p *crashkit.Program, want map[addr.PFN]filter.Kind) *filter.Map {
	t.Helper()
	kinds, err := filter.Classify(p)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[addr.PFN]filter.Kind)
	for pfn := range addr.PFN(mapped) {
		if k := kinds.Kind(pfn); k != filter.Kernel {
			got[pfn] = k
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pages that are not the kernel's (-want +got):\n%s", diff)
	}
	return kinds
}

// span adds the n pages from first.
func span(want map[addr.PFN]filter.Kind, first, n addr.PFN, k filter.Kind) {
	for pfn := first; pfn < first+n; pfn++ {
		want[pfn] = k
	}
}

func TestClassify(t *testing.T) {
	for _, g := range generations {
		t.Run(g.name, func(t *testing.T) {
			m := newMachine(t, g)
			want := make(map[addr.PFN]filter.Kind)
			m.page(3, m.lru, m.mapping, noType, 2)
			want[3] = filter.Cache
			m.page(4, m.lru|m.private, m.mapping, 5, 2) // mapped six times
			want[4] = filter.CachePrivate
			m.page(5, m.lru, m.mapping|1, 0, 1)
			want[5] = filter.User
			m.page(6, m.lru, m.mapping|3, 1, 2) // KSM
			want[6] = filter.User
			m.page(7, 0, m.mapping|1, 0, 1) // not yet on a list of the LRU
			want[7] = filter.User

			m.slabPage(10, 1)
			m.slabPage(16, 8)
			m.page(24, m.lru, m.mapping, 0xfffffdff, 1) // a page table: typed
			m.page(25, 0, m.mapping, noType, 1)         // of a file, but on no list
			m.page(26, m.lru, m.mapping|2, noType, 1)   // movable, of a driver
			m.page(27, m.lru, m.mapping|1, noType, 0)   // being freed
			m.page(28, 0, 0x401, noType, 1)             // no pointer
			m.page(29, ^uint64(0), ^uint64(0), noType, ^uint32(0))
			m.Uint64(m.at(29)+offLink, ^uint64(0)) // never set up

			m.free(32, 5)
			for pfn := addr.PFN(33); pfn < 64; pfn++ {
				m.page(pfn, m.lru, m.mapping|1, noType, 1) // what they were before
			}
			span(want, 32, 32, filter.Free)
			m.free(64, 0)
			want[64] = filter.Free
			m.free(66, 2)                // not aligned
			m.free(72, 60)               // no such order
			m.page(76, 0, 0, m.buddy, 1) // in use

			m.page(80, m.lru|m.head, m.mapping|1, noType, 3)
			m.compound(80, 16)
			span(want, 80, 16, filter.User)
			m.page(96, m.lru|m.head|m.private, m.mapping, noType, 3)
			m.compound(96, 4)
			span(want, 96, 4, filter.CachePrivate)
			m.page(100, m.head, 0, noType, 1) // the kernel's own compound page
			m.compound(100, 4)
			m.page(104, m.lru, m.mapping|1, noType, 3) // tails of what is no head
			m.compound(104, 4)
			want[104] = filter.User

			m.hugePage(512, 512)
			span(want, 512, 512, filter.User)
			if m.reserved != 0 {
				m.page(110, m.lru|m.reserved, m.mapping, noType, 1)
			}
			kinds := check(t, m.Open(t), want)
			if n, err := kinds.Unread(); n != 0 {
				t.Errorf("Unread() = %d, %v; want 0", n, err)
			}
		})
	}
}

// TestClassifyFakeHeads has a hugetlb page whose memory map was given back: all
// its parts are the first part again.
func TestClassifyFakeHeads(t *testing.T) {
	for _, g := range generations {
		if g.mask {
			continue // these have none
		}
		t.Run(g.name, func(t *testing.T) {
			m := newMachine(t, g)
			m.hugePage(512, 512)
			const part = 4096 / pageStruct
			for pfn := addr.PFN(512 + part); pfn < 1024; pfn++ {
				of := 512 + (pfn-512)%part
				if of == 512 {
					m.page(pfn, m.head, m.mapping, noType, 1)
					m.Uint64(m.at(pfn)+offLink, 0)
				}
				if of == 513 && m.dtor != 0 {
					m.Write(m.at(pfn)+16, []byte{m.dtor})
				}
				if of == 513 {
					m.Uint64(m.at(pfn)+offFlags, m.hugetlbFlag)
				}
			}
			want := make(map[addr.PFN]filter.Kind)
			span(want, 512, 512, filter.User)
			check(t, m.Open(t), want)
		})
	}
}

// TestClassifyHoles drops a page of the memory map: what it was about is kept.
func TestClassifyHoles(t *testing.T) {
	m := newMachine(t, generations[0])
	for pfn := range addr.PFN(mapped) {
		m.page(pfn, m.lru, m.mapping, noType, 1)
	}
	m.Drop(m.at(0))
	kinds, err := filter.Classify(m.Open(t))
	if err != nil {
		t.Fatal(err)
	}
	for pfn, want := range map[addr.PFN]filter.Kind{0: filter.Unknown, 63: filter.Unknown, 64: filter.Cache} {
		if got := kinds.Kind(pfn); got != want {
			t.Errorf("Kind(%d) = %v; want %v", pfn, got, want)
		}
	}
	if n, err := kinds.Unread(); n == 0 || addr.ReasonOf(err) != addr.NotInDump && addr.ReasonOf(err) != addr.Excluded {
		t.Errorf("Unread() = %d, %v; want some, as they are not in the dump", n, err)
	}
}

// TestClassifyBySections finds the memory map where vmemmap_base is unknown.
func TestClassifyBySections(t *testing.T) {
	m := newMachine(t, generations[1])
	sections := coretest.New(t, m.types()) // the same without the symbol
	sections.Info = m.Info
	sections.Write(m.memmap, make([]byte, mapped*pageStruct))
	m.Core = sections
	for pfn := range addr.PFN(mapped) {
		m.page(pfn, m.lru, m.mapping|1, noType, 1)
	}
	roots, root := sections.Alloc(16), sections.Alloc(4096)
	sections.Uint64(roots+8, uint64(root)) // root 0 is not there
	sections.Uint64(root+3*32, uint64(m.memmap)|7)
	sections.Info = append(sections.Info, "LENGTH(mem_section)=2", "SIZE(mem_section)=32", "OFFSET(mem_section.section_mem_map)=0",
		fmt.Sprintf("SYMBOL(mem_section)=%x", uint64(roots)))
	want := make(map[addr.PFN]filter.Kind)
	span(want, 0, mapped, filter.User)
	check(t, sections.Open(t), want)
}

// TestClassifyWithoutTypes asks kernels that do not say enough.
func TestClassifyWithoutTypes(t *testing.T) {
	all := generations[1]
	for _, missing := range []string{"page.flags", "page.mapping", "page.lru)", "PG_lru", "PG_private", "PG_slab", "PG_head_mask", "SIZE(page)", "page._refcount"} {
		g := all
		g.info = nil
		for _, line := range all.info {
			if !strings.Contains(line, missing) && (missing != "page.lru)" || !strings.Contains(line, "compound_head")) {
				g.info = append(g.info, line)
			}
		}
		if kinds, err := filter.Classify(newMachine(t, g).Open(t)); err == nil {
			t.Errorf("without %s: Classify() = %v; want an error", missing, kinds)
		}
	}
	if kinds, err := filter.Classify(coretest.New(t, nil).Open(t)); err == nil {
		t.Errorf("without anything: Classify() = %v; want an error", kinds)
	}
}

func TestLevel(t *testing.T) {
	for _, test := range []struct {
		level filter.Level
		want  []filter.Kind
	}{
		{0, nil},
		{filter.ExcludeZero, nil},
		{filter.ExcludeCache, []filter.Kind{filter.Cache}},
		{filter.ExcludeCachePrivate, []filter.Kind{filter.Cache, filter.CachePrivate}},
		{filter.ExcludeUser, []filter.Kind{filter.User}},
		{filter.ExcludeFree, []filter.Kind{filter.Free}},
		{filter.MaxLevel, []filter.Kind{filter.Cache, filter.CachePrivate, filter.User, filter.Free}},
	} {
		var got []filter.Kind
		for k := filter.Unknown; k <= filter.Free; k++ {
			if test.level.Excludes(k) {
				got = append(got, k)
			}
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("level %d excludes (-want +got):\n%s", test.level, diff)
		}
	}
	if filter.MaxLevel != 31 {
		t.Errorf("MaxLevel = %d; want makedumpfile's 31", filter.MaxLevel)
	}
}

// FuzzClassify has any memory map. Whatever it says, every page is of some kind,
// and the counts are those of the pages that the dump stores.
func FuzzClassify(f *testing.F) {
	for i := range generations {
		m := newMachine(f, generations[i])
		f.Add(uint8(i), bytes.Repeat([]byte{0xff}, 3*pageStruct))
		f.Add(uint8(i), binary.LittleEndian.AppendUint64(make([]byte, offLink), uint64(m.at(70))|1))
		f.Add(uint8(i), append(binary.LittleEndian.AppendUint64(nil, m.head|m.lru), make([]byte, 4*pageStruct)...))
		buddy := make([]byte, pageStruct)
		binary.LittleEndian.PutUint64(buddy[offPrivate:], 9)
		binary.LittleEndian.PutUint32(buddy[offType:], m.buddy)
		f.Add(uint8(i), buddy)
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		m := newMachine(t, generations[int(which)%len(generations)])
		m.Write(m.memmap, b[:min(len(b), mapped*pageStruct)])
		p := m.Open(t)
		kinds, err := filter.Classify(p)
		if err != nil {
			t.Fatal(err) // the map is no part of what has to be known
		}
		var want, got uint64
		for _, r := range p.Image.Ranges() {
			for pfn := addr.PFN(r.Start / 4096); pfn < addr.PFN(r.End()/4096); pfn++ {
				if p.Image.PageState(pfn) == dump.Present {
					want++
				}
			}
		}
		for k := filter.Unknown; k <= filter.Free; k++ {
			got += kinds.Count(k)
		}
		if got != want {
			t.Errorf("%d pages counted; want %d", got, want)
		}
	})
}
