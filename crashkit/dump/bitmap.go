package dump

import (
	"encoding/binary"
	"iter"
	"math/bits"
	"sync"
	"sync/atomic"
)

// bitmap is a set of page frame numbers as the kdump-compressed format stores
// it: the lowest bit of a byte comes first. Nothing is counted before it is asked
// for, as the bitmaps of a machine with a terabyte of memory have 32 MiB each.
// Counting the members below a number takes constant time from then on.
type bitmap struct {
	b []byte
	r *ranks
}

// ranks counts members, in blocks of blockBytes and within each in lines of
// lineBytes. It takes a 32nd of the space of the blocks that were looked into.
type ranks struct {
	count  sync.Once
	before func()                       // called before all is counted
	blocks []uint64                     // members before each block
	lines  []atomic.Pointer[lineCounts] // nil in those never asked for
}

const (
	blockBytes = 4096
	lineBytes  = 64 // what rank counts at most: a cache line
)

// lineCounts has the number of members of a block before each of its lines.
type lineCounts [blockBytes / lineBytes]uint16

func newBitmap(b []byte) bitmap { return bitmap{b, &ranks{before: func() {}}} }

// countBlocks fills in blocks.
func (m bitmap) countBlocks() {
	m.r.before()
	n := len(m.b)/blockBytes + 1
	m.r.lines = make([]atomic.Pointer[lineCounts], n)
	m.r.blocks = make([]uint64, 0, n)
	var sum uint64
	for b := m.b; ; b = b[blockBytes:] {
		m.r.blocks = append(m.r.blocks, sum)
		if len(b) < blockBytes {
			return
		}
		sum += popcount(b[:blockBytes])
	}
}

// lines returns the counts within a block.
func (m bitmap) lines(block uint64) *lineCounts {
	if l := m.r.lines[block].Load(); l != nil {
		return l
	}
	l := new(lineCounts)
	b := m.b[block*blockBytes:]
	var sum uint64
	for i := range l {
		l[i] = uint16(sum)
		n := min(len(b), lineBytes)
		sum += popcount(b[:n])
		b = b[n:]
	}
	m.r.lines[block].Store(l)
	return l
}

func popcount(b []byte) uint64 {
	n := 0
	for ; len(b) >= 8; b = b[8:] {
		n += bits.OnesCount64(binary.LittleEndian.Uint64(b))
	}
	for _, c := range b {
		n += bits.OnesCount8(c)
	}
	return uint64(n)
}

// len returns the number of bits.
func (m bitmap) len() uint64 { return 8 * uint64(len(m.b)) }

// has reports whether n is a member; numbers past the end are not.
func (m bitmap) has(n uint64) bool { return n < m.len() && m.b[n/8]&(1<<(n%8)) != 0 }

// rank returns how many members are less than n.
func (m bitmap) rank(n uint64) uint64 {
	m.r.count.Do(m.countBlocks)
	n = min(n, m.len())
	at := n / 8
	block, line := at/blockBytes, at%blockBytes/lineBytes
	r := m.r.blocks[block] + uint64(m.lines(block)[line]) + popcount(m.b[at-at%lineBytes:at])
	if n%8 != 0 {
		r += uint64(bits.OnesCount8(m.b[at] & (1<<(n%8) - 1)))
	}
	return r
}

// runs returns the number of runs of members.
func (m bitmap) runs() int {
	n, last := 0, uint64(0)
	b := m.b
	for ; len(b) >= 8; b = b[8:] {
		w := binary.LittleEndian.Uint64(b)
		n += bits.OnesCount64(w &^ (w<<1 | last))
		last = w >> 63
	}
	for _, c := range b {
		n += bits.OnesCount8(c &^ (c<<1 | byte(last)))
		last = uint64(c >> 7)
	}
	return n
}

// all yields the runs of members as half-open pairs, ascending.
func (m bitmap) all() iter.Seq2[uint64, uint64] {
	return func(yield func(start, end uint64) bool) {
		for n := uint64(0); ; {
			start := m.next(n, 0)
			if start >= m.len() {
				return
			}
			n = m.next(start, 0xff)
			if !yield(start, n) {
				return
			}
		}
	}
}

// next returns the first number not below n whose bit differs from those of
// skip, which is 0 or 0xff; len if there is none.
func (m bitmap) next(n uint64, skip byte) uint64 {
	if n >= m.len() {
		return m.len()
	}
	if c := (m.b[n/8] ^ skip) >> (n % 8); c != 0 {
		return n + uint64(bits.TrailingZeros8(c))
	}
	i := n/8 + 1
	for word := uint64(skip) * 0x0101010101010101; i+8 <= uint64(len(m.b)) && binary.LittleEndian.Uint64(m.b[i:]) == word; {
		i += 8
	}
	for ; i < uint64(len(m.b)); i++ {
		if c := m.b[i] ^ skip; c != 0 {
			return 8*i + uint64(bits.TrailingZeros8(c))
		}
	}
	return m.len()
}
