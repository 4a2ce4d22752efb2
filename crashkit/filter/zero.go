package filter

import (
	"bytes"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
)

// Zero returns how many of the pages that no level leaves out are full of
// zeroes, which takes reading them all.
func (m *Map) Zero(img *dump.Image) (uint64, error) {
	var todo []addr.PFN
	for s := range m.sections {
		todo = append(todo, s)
	}
	slices.Sort(todo)
	zeroes := make([]byte, img.PageSize())
	var next atomic.Int64
	var n atomic.Uint64
	var failed atomic.Pointer[error]
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(todo)) {
		workers.Go(func() {
			for failed.Load() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(todo) {
					return
				}
				for j, k := range m.sections[todo[i]] {
					pfn := todo[i]*sectionPages + addr.PFN(j)
					if k > Kernel || img.PageState(pfn) != dump.Present {
						continue
					}
					page, err := img.Page(pfn)
					if err != nil {
						failed.CompareAndSwap(nil, &err)
						return
					}
					if bytes.Equal(page, zeroes) {
						n.Add(1)
					}
				}
			}
		})
	}
	workers.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return n.Load(), nil
}
