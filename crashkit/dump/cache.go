package dump

import (
	"math/bits"
	"sync/atomic"
)

// cacheBytes bounds the decompressed pages that an image keeps.
const cacheBytes = 32 << 20

// pageCache keeps decompressed pages by descriptor, so that the zero pages,
// which share one, take one place. It is two-way set associative without locks:
// two goroutines that miss the same page both decompress it, and that is all.
// Pages are never reused, so that one handed out outlives its eviction.
type pageCache struct {
	sets []cacheSet // a power of two
}

type cacheSet [2]atomic.Pointer[cachedPage]

type cachedPage struct {
	desc desc
	b    []byte
}

func newPageCache(pageSize, bytes int) *pageCache {
	return &pageCache{sets: make([]cacheSet, 1<<(bits.Len(uint(max(bytes/pageSize/2, 1)))-1))}
}

// set spreads the offsets of descriptors, which have little in common.
func (c *pageCache) set(d desc) *cacheSet {
	h := uint64(d.off) * 0x9e3779b97f4a7c15 >> 32
	return &c.sets[h&uint64(len(c.sets)-1)]
}

func (c *pageCache) get(d desc) []byte {
	s := c.set(d)
	for way := range s {
		if p := s[way].Load(); p != nil && p.desc == d {
			return p.b
		}
	}
	return nil
}

// put adds a page; of the two in its set the older gives way.
func (c *pageCache) put(d desc, b []byte) {
	s := c.set(d)
	s[1].Store(s[0].Swap(&cachedPage{d, b}))
}
