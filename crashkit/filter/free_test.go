package filter_test

import (
	"strings"
	"testing"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/filter"
	"crashlab/crashkit/internal/coretest"
)

// zoneTypes are the types of a kernel with 3 orders and 2 migration types. link
// is what struct page calls the link of a free list.
func zoneTypes(link string) []byte {
	b := &coretest.BTF{}
	long, ptr := b.Int("long unsigned int", 8, false), b.Ptr(0)
	list := b.Layout("list_head", coretest.Field{Name: "next", Type: ptr, Bit: 8}, coretest.Field{Name: "prev", Type: ptr, Bit: 8})
	b.Layout("page", coretest.Field{Name: "flags", Type: long, Bit: 8}, coretest.Field{Name: link, Type: list, Bit: 16},
		coretest.Field{Name: "rest", Type: b.Array(long, 5), Bit: 40})
	area := b.Layout("free_area", coretest.Field{Name: "free_list", Type: b.Array(list, 2), Bit: 32}, coretest.Field{Name: "nr_free", Type: long, Bit: 8})
	zone := b.Layout("zone", coretest.Field{Name: "free_area", Type: b.Array(area, 3), Bit: 3 * 40})
	b.Layout("pglist_data", coretest.Field{Name: "node_zones", Type: b.Array(zone, 2), Bit: 240})
	return b.Bytes()
}

// machine is a made-up machine with one node and a memory map.
type machine struct {
	*coretest.Core
	t       *testing.T
	link    string
	vmemmap addr.Virt
	node    addr.Virt
}

const mapPages = 256

func newMachine(t *testing.T, link string, numa bool) *machine {
	c := coretest.New(t, zoneTypes(link))
	m := &machine{Core: c, t: t, link: link, vmemmap: c.Alloc(mapPages * 64)}
	c.Uint64(c.Global(t, "vmemmap_base", "long unsigned int"), uint64(m.vmemmap))
	if numa {
		m.node = c.New(t, "struct pglist_data")
		c.Info = append(c.Info, "LENGTH(node_data)=2")
		nodes := c.Data(16)
		c.Symbol("node_data", 'D', nodes)
		c.Uint64(nodes+8, uint64(m.node)) // node 0 is not there
	} else {
		m.node = c.Global(t, "contig_page_data", "struct pglist_data")
	}
	return m
}

// free puts the blocks that begin at these frames on a free list.
func (m *machine) free(zone, order, migrate, count int, pfns ...addr.PFN) {
	area := m.node + addr.Virt(120*zone+40*order)
	var links []addr.Virt
	for _, pfn := range pfns {
		links = append(links, m.vmemmap+addr.Virt(64*pfn)+m.Offset(m.t, "struct page", m.link))
	}
	m.List(area+addr.Virt(16*migrate), links...)
	m.List(area + addr.Virt(16*(1-migrate)))
	m.Uint64(area+32, uint64(count))
}

func TestFree(t *testing.T) {
	for _, tt := range []struct {
		name string
		link string
		numa bool
	}{
		{"one node, lru", "lru", false},
		{"nodes, buddy_list", "buddy_list", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, tt.link, tt.numa)
			m.free(0, 0, 0, 2, 3, 5)
			m.free(0, 2, 1, 1, 16)
			m.free(1, 1, 0, 2, 64, 70)
			got, err := filter.Free(m.Open(t))
			if err != nil {
				t.Fatal(err)
			}
			want := map[addr.PFN]bool{3: true, 5: true, 16: true, 17: true, 18: true, 19: true, 64: true, 65: true, 70: true, 71: true}
			for pfn := range addr.PFN(mapPages) {
				if got.Has(pfn) != want[pfn] {
					t.Errorf("Has(%d) = %v; want %v", pfn, got.Has(pfn), want[pfn])
				}
			}
			if got.Len() != len(want) {
				t.Errorf("Len() = %d; want %d", got.Len(), len(want))
			}
		})
	}
}

// TestFreeDamaged breaks one list: its pages are kept, those of the others are not.
func TestFreeDamaged(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(m *machine)
		text   string
	}{
		{"the kernel counted more", func(m *machine) { m.free(0, 0, 0, 3, 3, 5) }, "2 blocks on its lists, but the kernel counted 3"},
		{"the kernel counted fewer", func(m *machine) { m.free(0, 0, 0, 1, 3, 5, 7) }, "2 blocks on its lists, but the kernel counted 1"},
		{"a link to nowhere", func(m *machine) {
			m.free(0, 0, 0, 2, 3, 5)
			m.Uint64(m.vmemmap+3*64+8, 0x123)
		}, "not mapped"},
		{"a loop", func(m *machine) {
			m.free(0, 0, 0, 100, 3, 5)
			m.Uint64(m.vmemmap+5*64+8, uint64(m.vmemmap+3*64+8))
		}, "loops"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, "lru", false)
			m.free(1, 0, 0, 1, 99)
			tt.damage(m)
			got, err := filter.Free(m.Open(t))
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error = %v; want one with %q", err, tt.text)
			}
			if got == nil || got.Len() != 1 || !got.Has(99) {
				t.Errorf("set = %+v; want only the page of the sound list", got)
			}
		})
	}
}

// TestFreeWithoutTypes asks a kernel that has no types.
func TestFreeWithoutTypes(t *testing.T) {
	if got, err := filter.Free(coretest.New(t, nil).Open(t)); err == nil {
		t.Errorf("Free() = %v; want an error", got)
	}
}
