package filter

import (
	"errors"
	"fmt"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
	"crashlab/crashkit/dump"
)

// layout is what has to be known of a kernel to tell its pages apart
// (include/linux/mm_types.h, page-flags.h).
type layout struct {
	memmap addr.Virt // of page frame 0's struct page, which need not be mapped
	size   uint64    // of a struct page, in bytes

	// Offsets in struct page, in bytes.
	flags, link, mapping, private, pageType, refcount uint64

	lru, privateFlag, head, reserved uint64 // masks of flags
	// slab is a mask of flags, 0 since slab pages have a page type, with Linux
	// commit 46df8e73a4a3 ("mm: free up PG_slab") (in v6.10).
	slab uint64

	buddy uint32 // the page type of a free block's first page

	// How a hugetlb page is told is one of three. Since v6.10 it is a page type.
	hugetlbType uint32
	// Since Linux commit 9c5ccf2db04b ("mm: remove HUGETLB_PAGE_DTOR") (in v6.6)
	// it is a flag of the second struct page.
	hugetlbFlag uint64
	// Before, it is a number in the second struct page. (From v6.3 to v6.5 only
	// struct folio names its place: such pages are kept.)
	hugetlbDtor, dtor uint64
}

// typed reports whether a page has a type instead of a count of mappings: one
// that has is neither cache nor anonymous. Types are far below zero, and counts
// of mappings at least -1 (PAGE_MAPCOUNT_RESERVE and page_type_has_type in
// include/linux/page-flags.h).
func typed(pageType uint32) bool { return int32(pageType) < -128 }

// source has members and enumerators of a kernel, by its types if it has any,
// else by what VMCOREINFO has of them.
type source struct {
	page  *ctype.Struct // nil without types
	types *ctype.Set
	info  *dump.VMCoreInfo
	err   error // the first thing that was missing
}

// offset returns the offset in bytes of the first of the members that struct
// page has.
func (s *source) offset(members ...string) uint64 {
	for _, m := range members {
		if off, ok := s.find(m); ok {
			return off
		}
	}
	if s.err == nil {
		s.err = fmt.Errorf("neither the types nor VMCOREINFO have page.%s", members[0])
	}
	return 0
}

// has reports whether struct page has the member.
func (s *source) has(member string) bool {
	_, ok := s.find(member)
	return ok
}

func (s *source) find(member string) (uint64, bool) {
	if s.page == nil {
		return s.info.Offset("page." + member)
	}
	_, off, ok := s.page.Find(member)
	return off / 8, ok
}

// number returns an enumerator of the named enum, or the NUMBER that VMCOREINFO
// has under one of the names.
func (s *source) number(enum string, names ...string) (uint64, bool) {
	if t, err := s.types.Lookup(enum); err == nil {
		if e, ok := ctype.Resolve(t).(*ctype.Enum); ok {
			for _, v := range e.Values {
				if v.Name == names[0] {
					return v.Value, true
				}
			}
		}
	}
	for _, n := range names {
		if v, ok := s.info.Number(n); ok {
			return uint64(v), true
		}
	}
	return 0, false
}

// flag returns the mask of a page flag, 0 if there is none.
func (s *source) flag(name string) uint64 {
	if n, ok := s.number("enum pageflags", name); ok && n < 64 {
		return 1 << n
	}
	return 0
}

// must is flag, for one that all kernels have.
func (s *source) must(name string) uint64 {
	m := s.flag(name)
	if m == 0 && s.err == nil {
		s.err = fmt.Errorf("neither the types nor VMCOREINFO have %s", name)
	}
	return m
}

// pageType returns the word that pages of a type have, 0 if there is no such type.
func (s *source) pageType(enumerator, number string) uint32 {
	// enum pagetype is there since Linux commit 4ffca5a96678 ("mm: support only
	// one page_type per page") (in v6.12), with the type in the upper byte.
	if n, ok := s.number("enum pagetype", enumerator); ok && n < 256 {
		return uint32(n << 24)
	}
	if n, ok := s.info.Number(number); ok {
		return uint32(n)
	}
	return 0
}

// maxPageStruct bounds the size of a struct page, in bytes: it has at most 96
// with all that can be configured.
const maxPageStruct = 512

func findLayout(p *crashkit.Program) (*layout, error) {
	s := &source{types: p.Types, info: p.Info}
	if t, err := p.Types.Struct("page"); err == nil {
		s.page = t
	}
	l := &layout{
		flags:    s.offset("flags"),
		link:     s.offset("compound_info", "compound_head", "lru"),
		mapping:  s.offset("mapping"),
		private:  s.offset("private"),
		pageType: s.offset("page_type", "_mapcount"),
		refcount: s.offset("_refcount"),

		lru:         s.must("PG_lru"),
		privateFlag: s.must("PG_private"),
		slab:        s.flag("PG_slab"),
		reserved:    s.flag("PG_reserved"),
		head:        s.flag("PG_head"),

		buddy:       s.pageType("PGTY_buddy", "PAGE_BUDDY_MAPCOUNT_VALUE"),
		hugetlbType: s.pageType("PGTY_hugetlb", "PAGE_HUGETLB_MAPCOUNT_VALUE"),
		hugetlbFlag: s.flag("PG_hugetlb"),
	}
	if mask, ok := p.Info.Number("PG_head_mask"); ok && l.head == 0 {
		l.head = uint64(mask)
	}
	if n, ok := s.number("enum compound_dtor_id", "HUGETLB_PAGE_DTOR"); ok && s.has("compound_dtor") {
		l.hugetlbDtor, l.dtor = n, s.offset("compound_dtor")
	}
	if s.page != nil {
		l.size = s.page.Size()
	} else {
		l.size, _ = p.Info.Size("page")
	}
	switch {
	case s.err != nil:
		return nil, s.err
	case l.head == 0:
		return nil, errors.New("neither the types nor VMCOREINFO have PG_head")
	case l.slab == 0 && !slabHasType(s):
		return nil, errors.New("how slab pages are marked is unknown")
	case l.size < 32 || l.size > maxPageStruct || l.size%8 != 0:
		return nil, fmt.Errorf("a struct page of %d bytes", l.size)
	}
	for _, off := range []uint64{l.flags, l.link, l.mapping, l.private, l.pageType + 4, l.refcount + 4, l.dtor} {
		if off+8 > l.size+4 {
			return nil, fmt.Errorf("a member of struct page at %d of %d bytes", off, l.size)
		}
	}
	var err error
	l.memmap, err = memoryMap(p)
	return l, err
}

// slabHasType reports whether slab pages are known by a page type. If they were
// known by neither, they could be taken for something else.
func slabHasType(s *source) bool { return s.pageType("PGTY_slab", "PAGE_SLAB_MAPCOUNT_VALUE") != 0 }

// memoryMap returns where the memory map would have page frame 0
// (arch/x86/include/asm/pgtable_64.h).
func memoryMap(p *crashkit.Program) (addr.Virt, error) {
	if s, ok := p.Syms.Lookup("vmemmap_base"); ok {
		v, err := p.Uint64(s.Addr)
		if err != nil {
			return 0, fmt.Errorf("vmemmap_base: %w", err)
		}
		return addr.Virt(v), nil
	}
	return fromSections(p)
}

// maxSections bounds the pointers to memory sections that are looked at.
const maxSections = 1 << 16

// fromSections finds the memory map by the sections of memory
// (include/linux/mmzone.h): each holds the address of its part less what the
// pages before it take, with flags in the low bits. On x86-64 that is the same
// for all.
func fromSections(p *crashkit.Program) (addr.Virt, error) {
	at, ok := p.Info.Symbol("mem_section")
	n, ok2 := p.Info.Length("mem_section")
	off, ok3 := p.Info.Offset("mem_section.section_mem_map")
	size, ok4 := p.Info.Size("mem_section")
	if !ok || !ok2 || !ok3 || !ok4 || size == 0 {
		return 0, errors.New("the memory map cannot be found: neither vmemmap_base nor mem_section is known")
	}
	// With CONFIG_SPARSEMEM_EXTREME, which x86-64 has, that is an array of
	// pointers to arrays that take a page each.
	for i := range min(n, maxSections) {
		root, err := p.Uint64(addr.Virt(at + 8*i))
		if err != nil {
			return 0, fmt.Errorf("mem_section[%d]: %w", i, err)
		}
		if root == 0 {
			continue
		}
		for j := range 4096 / size {
			v, err := p.Uint64(addr.Virt(root + j*size + off))
			if err != nil {
				return 0, fmt.Errorf("mem_section[%d][%d]: %w", i, j, err)
			}
			if v&1 != 0 { // SECTION_MARKED_PRESENT
				return addr.Virt(v &^ 4095), nil
			}
		}
	}
	return 0, errors.New("the memory map cannot be found: no section of memory is present")
}
