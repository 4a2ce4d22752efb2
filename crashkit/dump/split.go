package dump

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"slices"
	"sort"

	"crashlab/crashkit/addr"
)

// splitMemory is the physical memory of a dump that makedumpfile --split wrote
// to several files. Each has the bitmaps of the whole, but descriptors and data
// only of a range of page frames.
type splitMemory struct {
	parts []*kdumpMemory // by firstPFN, not overlapping
}

// part returns the part that has a page frame, or another, which says that it
// does not.
func (s *splitMemory) part(pfn uint64) *kdumpMemory {
	i := sort.Search(len(s.parts), func(i int) bool { return s.parts[i].lastPFN > pfn })
	return s.parts[min(i, len(s.parts)-1)]
}

func (s *splitMemory) read(p addr.Phys, b []byte) error {
	return s.part(uint64(p)/s.parts[0].pageSize).read(p, b)
}

func (s *splitMemory) page(pfn addr.PFN) ([]byte, error) { return s.part(uint64(pfn)).page(pfn) }

func (s *splitMemory) pageInto(pfn addr.PFN, buf []byte) ([]byte, error) {
	return s.part(uint64(pfn)).pageInto(pfn, buf)
}

func (s *splitMemory) state(pfn addr.PFN) State { return s.part(uint64(pfn)).state(pfn) }

func (s *splitMemory) stored() iter.Seq2[uint64, uint64] { return s.parts[0].stored() }

func (s *splitMemory) ranges() []addr.Range { return s.parts[0].ranges() }

// namedPart is a part and the file it is in.
type namedPart struct {
	name string
	img  *Image
	mem  *kdumpMemory
}

// joinParts makes one image of the parts of a split dump.
func joinParts(names []string, images []*Image, o Options) (*Image, error) {
	var parts []namedPart
	for i, img := range images {
		k, ok := img.mem.(*kdumpMemory)
		if !ok || !k.split {
			return nil, fmt.Errorf("%w: %s is no part of a split dump: it stands for itself", ErrFormat, names[i])
		}
		parts = append(parts, namedPart{names[i], img, k})
	}
	slices.SortStableFunc(parts, func(a, b namedPart) int {
		return cmp.Or(cmp.Compare(a.mem.firstPFN, b.mem.firstPFN), cmp.Compare(a.mem.lastPFN, b.mem.lastPFN))
	})
	first := parts[0]
	img := &Image{
		info: first.img.info, notes: first.img.notes, infoText: first.img.infoText,
	}
	img.info.FileSize, img.info.Problems = 0, nil
	missing := func(from, till uint64) {
		if from < till {
			img.info.Incomplete = true
			img.problem("a part of the split dump is missing: the one with the page frames from %#x up to %#x", from, till)
		}
	}
	s := &splitMemory{}
	var end uint64
	for i, p := range parts {
		if !sameDump(first, p) {
			return nil, fmt.Errorf("%w: %s and %s are parts of different dumps", ErrFormat, first.name, p.name)
		}
		if i > 0 && p.mem.firstPFN < end {
			last := parts[i-1]
			if p.mem.firstPFN != last.mem.firstPFN || p.mem.lastPFN != last.mem.lastPFN {
				return nil, fmt.Errorf("%w: %s and %s overlap: page frames from %#x up to %#x, and from %#x up to %#x", ErrFormat,
					last.name, p.name, last.mem.firstPFN, last.mem.lastPFN, p.mem.firstPFN, p.mem.lastPFN)
			}
			img.problem("%s is the same part of the split dump as %s, which is used: page frames from %#x up to %#x",
				p.name, last.name, p.mem.firstPFN, p.mem.lastPFN)
			continue
		}
		missing(end, p.mem.firstPFN)
		end = p.mem.lastPFN
		img.info.FileSize += p.img.info.FileSize
		img.info.Incomplete = img.info.Incomplete || p.img.info.Incomplete
		img.info.Truncated = img.info.Truncated || p.img.info.Truncated
		for _, problem := range p.img.info.Problems {
			img.problem("%s: %s", p.name, problem)
		}
		if o.ZeroExcluded {
			p.mem.zeroed = &img.zeroed
		}
		s.parts = append(s.parts, p.mem)
	}
	missing(end, first.mem.nPFN)
	for _, k := range s.parts {
		k.cache = newPageCache(int(k.pageSize), cacheBytes/len(s.parts))
	}
	img.mem = s
	img.finish = func() {
		for _, k := range s.parts {
			img.checkTail(k)
		}
	}
	img.ready()
	return img, nil
}

// sameDump reports whether two parts are of one dump. Their bitmaps are compared
// whole: they say which descriptor is whose.
func sameDump(a, b namedPart) bool {
	x, y := a.img.info, b.img.info
	return x.PageSize == y.PageSize && x.HeaderVersion == y.HeaderVersion && x.UTS == y.UTS && x.Time.Equal(y.Time) &&
		a.mem.nPFN == b.mem.nPFN && bytes.Equal(a.mem.filed.b, b.mem.filed.b) && bytes.Equal(a.mem.memory.b, b.mem.memory.b)
}
