// Package filtertest has what tests of package filter hold its results against:
// the kernel's own free lists, and the answers of all commands.
package filtertest

import (
	"errors"
	"fmt"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
)

// maxNodes bounds node_data; CONFIG_NODES_SHIFT is at most 10.
const maxNodes = 1024

// FreeLists returns the pages that the buddy allocator has on its free lists
// (struct free_area in include/linux/mmzone.h): another way than that of package
// filter, which goes by the struct pages.
func FreeLists(p *crashkit.Program) (map[addr.PFN]bool, error) {
	page, err := p.Types.Struct("page")
	if err != nil {
		return nil, err
	}
	f := &finder{p: p, page: page, set: make(map[addr.PFN]bool)}
	// The order of page tables and KASLR is settled in vmemmap_base
	// (arch/x86/include/asm/pgtable_64.h).
	if f.vmemmap, err = p.ObjectAs("vmemmap_base", "unsigned long").Ptr(); err != nil {
		return nil, err
	}
	if f.link, err = firstMember(page, "buddy_list", "lru"); err != nil {
		return nil, err
	}
	if _, ok := p.Syms.Lookup("node_data"); !ok { // built without CONFIG_NUMA
		f.node(p.ObjectAs("contig_page_data", "struct pglist_data"))
		return f.set, errors.Join(f.errs...)
	}
	first := p.ObjectAs("node_data", "unsigned long")
	if err := first.Err(); err != nil {
		return nil, err
	}
	n := uint64(maxNodes)
	if l, ok := p.Info.Length("node_data"); ok {
		n = min(n, l)
	}
	for i := range n {
		v, err := p.Uint64(first.Addr() + addr.Virt(8*i))
		if err != nil {
			return f.set, errors.Join(append(f.errs, fmt.Errorf("node_data[%d]: %w", i, err))...)
		}
		if v != 0 {
			f.node(p.ObjectAt(addr.Virt(v), "struct pglist_data"))
		}
	}
	return f.set, errors.Join(f.errs...)
}

type finder struct {
	p       *crashkit.Program
	page    *ctype.Struct
	link    string // the member of struct page that is the link of a free list
	vmemmap addr.Virt
	set     map[addr.PFN]bool
	errs    []error
}

func (f *finder) node(pgdat ctype.Object) {
	zones := pgdat.Member("node_zones")
	for z := range zones.Len() {
		areas := zones.Index(z).Member("free_area")
		for order := range areas.Len() {
			if err := f.area(areas.Index(order), order); err != nil {
				f.errs = append(f.errs, err)
			}
		}
	}
	if err := zones.Err(); err != nil {
		f.errs = append(f.errs, err)
	}
}

// area adds the free blocks of one order in one zone.
func (f *finder) area(area ctype.Object, order int) error {
	want, err := area.Member("nr_free").Uint()
	if err != nil {
		return err
	}
	if want == 0 {
		return nil
	}
	var blocks []addr.PFN
	lists := area.Member("free_list")
	for i := range lists.Len() {
		head := lists.Index(i)
		if v, err := head.Member("next").Ptr(); err == nil && v == 0 {
			continue // the list of a zone without memory was never set up
		}
		err := f.p.List(head, f.page, f.link, func(o ctype.Object) bool {
			blocks = append(blocks, addr.PFN(o.Addr()-f.vmemmap)/addr.PFN(f.page.Size()))
			return uint64(len(blocks)) <= want
		})
		if err != nil {
			return err
		}
	}
	if uint64(len(blocks)) != want {
		return fmt.Errorf("%s: %d blocks on its lists, but the kernel counted %d", area.Path(), len(blocks), want)
	}
	for _, pfn := range blocks {
		for i := range addr.PFN(1) << order {
			f.set[pfn+i] = true
		}
	}
	return nil
}

func firstMember(s *ctype.Struct, names ...string) (string, error) {
	for _, n := range names {
		if _, _, ok := s.Find(n); ok {
			return n, nil
		}
	}
	return "", fmt.Errorf("%w: %v in %v", ctype.ErrNoMember, names, s)
}
