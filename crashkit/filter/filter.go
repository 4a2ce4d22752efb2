// Package filter says which pages of a crashed machine a dump can do without.
//
// It reads the kernel's memory map, an array with a struct page for each page
// frame. Where the members are and which bit means what comes from the kernel's
// own types, or from VMCOREINFO where it has none, so that no table for each
// kernel release is needed. A page is left out only if its struct page says in
// all respects that it is one of those that may be; in doubt it is kept.
package filter

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
)

// Kind is what the kernel uses a page for.
type Kind uint8

// The kinds of pages.
const (
	Unknown      Kind = iota // its struct page cannot be read
	Kernel                   // the kernel's own, or in doubt
	Cache                    // of a file, and nothing else hangs on it
	CachePrivate             // of a file, with buffers or the like (PG_private)
	User                     // anonymous memory of processes, or hugetlb
	Free                     // on a free list of the buddy allocator
	kinds
)

func (k Kind) String() string {
	switch k {
	case Unknown:
		return "unknown"
	case Kernel:
		return "kernel"
	case Cache:
		return "cache"
	case CachePrivate:
		return "private cache"
	case User:
		return "user"
	case Free:
		return "free"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Level is which pages to leave out, in the bits of makedumpfile's -d.
type Level uint8

// The bits of a Level.
const (
	ExcludeZero         Level = 1 << iota // pages full of zeroes
	ExcludeCache                          // Cache
	ExcludeCachePrivate                   // CachePrivate, and Cache as well
	ExcludeUser
	ExcludeFree

	MaxLevel Level = 1<<iota - 1
)

// Excludes reports whether pages of kind k are left out at level l. Zeroes are
// not a kind: whoever reads the page finds out.
func (l Level) Excludes(k Kind) bool {
	switch k {
	case Cache:
		return l&(ExcludeCache|ExcludeCachePrivate) != 0
	case CachePrivate:
		return l&ExcludeCachePrivate != 0
	case User:
		return l&ExcludeUser != 0
	case Free:
		return l&ExcludeFree != 0
	}
	return false
}

// sectionPages is how many pages are looked at in one go, and the alignment of
// that. No block of the buddy allocator crosses such a boundary.
const sectionPages = 1 << 15

// Map is what each page of a dump is used for. It takes a byte for each page in
// sections of 128 MiB; sections of which the dump stores nothing take none.
type Map struct {
	sections map[addr.PFN][]Kind // by first page / sectionPages
	counts   [kinds]uint64
	unread   atomic.Uint64 // pages whose struct page could not be read
	firstErr atomic.Pointer[error]
}

// Kind returns what the page is used for: Unknown if the dump does not store it.
func (m *Map) Kind(pfn addr.PFN) Kind {
	if s := m.sections[pfn/sectionPages]; s != nil {
		return s[pfn%sectionPages]
	}
	return Unknown
}

// Count returns how many of the pages that the dump stores are of kind k.
func (m *Map) Count(k Kind) uint64 { return m.counts[k] }

// Unread returns how many pages of the dump are kept for want of their struct
// page, and the first error that led to that.
func (m *Map) Unread() (uint64, error) {
	if e := m.firstErr.Load(); e != nil {
		return m.unread.Load(), *e
	}
	return m.unread.Load(), nil
}

// Classify looks at all pages that the dump stores, with as many goroutines as
// there are CPUs. Its error means that nothing is known about any page.
func Classify(p *crashkit.Program) (*Map, error) {
	l, err := findLayout(p)
	if err != nil {
		return nil, fmt.Errorf("what pages are used for cannot be told: %w", err)
	}
	m := &Map{sections: make(map[addr.PFN][]Kind)}
	var todo []addr.PFN
	for _, r := range p.Image.Ranges() {
		size := uint64(p.Image.PageSize())
		for s := uint64(r.Start) / size / sectionPages; s*sectionPages*size < uint64(r.End()); s++ {
			if n := len(todo); n > 0 && todo[n-1] == addr.PFN(s) {
				continue
			}
			if storesAny(p.Image, addr.PFN(s)*sectionPages) {
				todo = append(todo, addr.PFN(s))
			}
		}
	}
	todo = slices.Compact(todo)
	for _, s := range todo {
		m.sections[s] = make([]Kind, sectionPages)
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	var mu sync.Mutex
	for range min(runtime.GOMAXPROCS(0), len(todo)) {
		workers.Go(func() {
			c := newClassifier(p, l)
			for {
				i := int(next.Add(1)) - 1
				if i >= len(todo) {
					break
				}
				first := todo[i] * sectionPages
				c.section(first, m.sections[todo[i]])
				m.count(c, p.Image, first, m.sections[todo[i]])
			}
			mu.Lock()
			for k, n := range c.counts {
				m.counts[k] += n
			}
			mu.Unlock()
		})
	}
	workers.Wait()
	return m, nil
}

// count counts those pages of a section that the dump stores.
func (m *Map) count(c *classifier, img *dump.Image, first addr.PFN, kinds []Kind) {
	for i, k := range kinds {
		if img.PageState(first+addr.PFN(i)) != dump.Present {
			continue
		}
		c.counts[k]++
		if k == Unknown {
			m.unread.Add(1)
		}
	}
	if c.err != nil {
		m.firstErr.CompareAndSwap(nil, &c.err)
	}
}

// storesAny reports whether the dump stores a page of the section that begins
// at first.
func storesAny(img *dump.Image, first addr.PFN) bool {
	for i := range addr.PFN(sectionPages) {
		if img.PageState(first+i) == dump.Present {
			return true
		}
	}
	return false
}
