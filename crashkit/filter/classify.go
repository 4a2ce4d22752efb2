package filter

import (
	"encoding/binary"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
)

// classifier tells the kinds of pages. It is not safe for concurrent use.
type classifier struct {
	p      *crashkit.Program
	l      *layout
	pages  []byte // struct pages of the section
	have   []bool // by 4 KiB of pages: whether it could be read
	lead   uint64 // bytes of the first 4 KiB that are before pages
	counts [kinds]uint64
	err    error // the first struct pages that could not be read

	far     addr.PFN // a head in another section that was looked at last
	farKind Kind
	farOK   bool
}

func newClassifier(p *crashkit.Program, l *layout) *classifier {
	return &classifier{p: p, l: l, pages: make([]byte, sectionPages*l.size)}
}

// The low bits of mapping (include/linux/page-flags.h): PAGE_MAPPING_ANON, and
// PAGE_MAPPING_MOVABLE until v6.17, both together KSM.
const (
	mappingAnon = 1
	mappingBits = 3
)

// maxOrder bounds the order of a free block: the next larger would cross the
// boundary of a section.
const maxOrder = 15

// vmPage is the size of the pages that the memory map is made of.
const vmPage = 4096

// section sets the kinds of the pages from first, a multiple of sectionPages.
func (c *classifier) section(first addr.PFN, kinds []Kind) {
	c.read(first)
	for i := 0; i < len(kinds); {
		kinds[i] = Unknown
		b, ok := c.at(i)
		if !ok {
			i++
			continue
		}
		if n := c.free(b, i); n > 0 {
			for j := range n {
				kinds[i+j] = Free
			}
			i += n
			continue
		}
		kinds[i] = c.kind(b, first, i, kinds)
		i++
	}
}

// read reads the struct pages of a section.
func (c *classifier) read(first addr.PFN) {
	v := c.l.memmap + addr.Virt(uint64(first)*c.l.size)
	c.lead = uint64(v % vmPage)
	c.have = c.have[:0]
	for b := c.pages; len(b) > 0; {
		n := min(len(b), vmPage-int(v%vmPage))
		err := c.p.Read(v, b[:n])
		if err != nil && c.err == nil {
			c.err = err
		}
		c.have = append(c.have, err == nil)
		b, v = b[n:], v+addr.Virt(n)
	}
}

// at returns the struct page of page i of the section, and whether it was read.
func (c *classifier) at(i int) ([]byte, bool) {
	from := uint64(i) * c.l.size
	till := from + c.l.size
	ok := c.have[(from+c.lead)/vmPage] && c.have[(till-1+c.lead)/vmPage]
	return c.pages[from:till:till], ok
}

// word returns the 64-bit member at off.
func word(b []byte, off uint64) uint64 { return binary.LittleEndian.Uint64(b[off:]) }

// free returns how many pages the free block has that begins with page i; 0 if
// none does. The struct pages inside of a block say nothing.
func (c *classifier) free(b []byte, i int) int {
	if c.l.buddy == 0 || binary.LittleEndian.Uint32(b[c.l.pageType:]) != c.l.buddy {
		return 0
	}
	order := word(b, c.l.private)
	if order > maxOrder || i&(1<<order-1) != 0 || binary.LittleEndian.Uint32(b[c.l.refcount:]) != 0 {
		return 0 // the type says free, the rest does not
	}
	return 1 << order
}

// kind returns the kind of page i, which is in no free block. Those before it are
// known.
func (c *classifier) kind(b []byte, first addr.PFN, i int, kinds []Kind) Kind {
	if word(b, c.l.flags) == ^uint64(0) {
		return Kernel // never set up (PagePoisoned)
	}
	head, tail := c.headOf(b, first, i)
	if !tail {
		return c.headKind(b, first, i)
	}
	switch {
	case head >= first+addr.PFN(i): // as in a damaged map
		return Kernel
	case head >= first:
		if h, ok := c.at(int(head - first)); !ok || word(h, c.l.flags)&c.l.head == 0 {
			return Kernel
		}
		return tailKind(kinds[head-first])
	}
	return tailKind(c.farHead(head))
}

// tailKind is the kind of the tail pages of a head of kind k.
func tailKind(k Kind) Kind {
	switch k {
	case User, Cache, CachePrivate:
		return k
	}
	return Kernel
}

// headOf returns the first page of the compound page of which page i is a
// later one, if it is one.
func (c *classifier) headOf(b []byte, first addr.PFN, i int) (addr.PFN, bool) {
	at := uint64(c.l.memmap) + uint64(first+addr.PFN(i))*c.l.size
	link := word(b, c.l.link)
	switch {
	case link&1 == 0:
		// Of a hugetlb page whose memory map was given back the tails share
		// one page of memory with the head, until v6.18 or so: where the head
		// would be stands a copy of it, known by the tail behind it
		// (page_fixed_fake_head in include/linux/page-flags.h).
		if at%vmPage != 0 || word(b, c.l.flags)&c.l.head == 0 || i+1 >= sectionPages {
			return 0, false
		}
		next, ok := c.at(i + 1)
		if link = word(next, c.l.link); !ok || link&1 == 0 || link-1 == at {
			return 0, false
		}
		if link >= maskFrom {
			return 0, false
		}
		at = link - 1
	case link >= maskFrom:
		// A mask that makes the tail's address the head's, since Linux commit
		// d50569612c29 (in v7.1).
		at &= link &^ 1
	default:
		at = link - 1
	}
	off := at - uint64(c.l.memmap)
	if at < uint64(c.l.memmap) || off%c.l.size != 0 {
		return first + addr.PFN(i), true // a tail of nothing
	}
	return addr.PFN(off / c.l.size), true
}

// maskFrom is the least link that is a mask instead of an address: no memory
// map reaches that far up, and no page is as large.
const maskFrom = 0xffffffff_00000000

// farHead returns the kind of a page of an earlier section, as that of a head.
func (c *classifier) farHead(head addr.PFN) Kind {
	if c.farOK && c.far == head {
		return c.farKind
	}
	c.far, c.farKind, c.farOK = head, Kernel, true
	b := make([]byte, 2*c.l.size) // hugetlb is told by the second
	if c.p.Read(c.l.memmap+addr.Virt(uint64(head)*c.l.size), b) != nil {
		return Kernel
	}
	if link := word(b, c.l.link); link&1 == 0 && word(b, c.l.flags)&c.l.head != 0 {
		c.farKind = c.classify(b[:c.l.size], b[c.l.size:])
	}
	return c.farKind
}

// headKind returns the kind of page i, which is no tail.
func (c *classifier) headKind(b []byte, first addr.PFN, i int) Kind {
	var second []byte
	if i+1 < sectionPages {
		if n, ok := c.at(i + 1); ok {
			second = n
		}
	}
	return c.classify(b, second)
}

// classify returns the kind of a page that is neither free nor a tail. The
// second struct page is that of the page behind it, nil if unknown.
func (c *classifier) classify(b, second []byte) Kind {
	l := c.l
	flags, mapping := word(b, l.flags), word(b, l.mapping)
	pageType := binary.LittleEndian.Uint32(b[l.pageType:])
	switch {
	case flags&(l.slab|l.reserved) != 0:
		return Kernel
	case c.hugetlb(flags, pageType, second):
		return User
	case typed(pageType) || int32(binary.LittleEndian.Uint32(b[l.refcount:])) <= 0:
		return Kernel
	case mapping&mappingAnon != 0:
		// Of a process: mapping is an anon_vma, or what KSM knows of the page.
		if int64(mapping) < 0 {
			return User
		}
		return Kernel
	case flags&l.lru == 0 || mapping&mappingBits != 0:
		return Kernel
	case flags&l.privateFlag != 0:
		return CachePrivate
	}
	return Cache
}

// hugetlb reports whether a page is the head of a hugetlb page.
func (c *classifier) hugetlb(flags uint64, pageType uint32, second []byte) bool {
	l := c.l
	switch {
	case flags&l.head == 0:
		return false
	case l.hugetlbType != 0:
		return pageType == l.hugetlbType
	case second == nil:
		return false
	case l.hugetlbFlag != 0:
		return word(second, l.flags)&l.hugetlbFlag != 0
	case l.hugetlbDtor != 0:
		return uint64(second[l.dtor]) == l.hugetlbDtor
	}
	return false
}
