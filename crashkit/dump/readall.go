package dump

import (
	"runtime"
	"sync"
	"sync/atomic"

	"crashlab/crashkit/addr"
)

// readChunk is how many pages a worker of ReadAll takes at once.
const readChunk = 512

// ReadAll calls fn with each page that the file has something of, in no
// particular order and from as many goroutines as there are CPUs at once, until
// one returns an error, which ReadAll returns. A page that cannot be read comes
// as nil with its *addr.Fault. The slice is read-only and valid until fn returns:
// pages read this way do not displace others from the image's cache.
func (i *Image) ReadAll(fn func(pfn addr.PFN, page []byte, err error) error) error {
	type run struct{ start, end uint64 }
	todo := make(chan run)
	var failed atomic.Pointer[error]
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			buf := make([]byte, i.info.PageSize, i.info.PageSize+spareBytes)
			for r := range todo {
				for pfn := r.start; pfn < r.end && failed.Load() == nil; pfn++ {
					page, err := i.mem.pageInto(addr.PFN(pfn), buf)
					if err := fn(addr.PFN(pfn), page, err); err != nil {
						failed.CompareAndSwap(nil, &err)
					}
				}
			}
		})
	}
	for start, end := range i.mem.stored() {
		for ; start < end && failed.Load() == nil; start += readChunk {
			todo <- run{start, min(end, start+readChunk)}
		}
	}
	close(todo)
	workers.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// spareBytes is what the zstd decoder wants to have behind its output: with it,
// it copies without looking where the output ends.
const spareBytes = 32
