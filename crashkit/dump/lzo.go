package dump

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// LZO1X, as its decompressor understands it (Documentation/staging/lzo.rst of
// the Linux kernel). The compressor is our own: greedy, with one hash table of
// the places where four bytes were last seen.
//
// The stream is instructions. A run of n literals is n-3 if n <= 18, else 0 and
// n-18 in bytes of 255 written as 0; the first may be 17+n. One to three
// literals need no instruction: their number stands in the low two bits of the
// next to last byte of the match before them. A match of length n at distance d is
//
//	1nnddd00, d>>3             3 <= n <= 8, d <= 2 KiB
//	001nnnnn, d<<2 in 16 bits  d <= 16 KiB
//	0001dnnn, d<<2 in 16 bits  d < 48 KiB
//
// with n and d less their least values; of n that is too large for its bits these
// are 0 and the rest follows as with literals. The third with distance 16 KiB ends
// the stream.
const (
	lzoNear      = 2 << 10
	lzoMid       = 16 << 10
	lzoFar       = 48<<10 - 1
	lzoHashBits  = 11
	lzoSkipShift = 3 // the longer nothing matches, the more is skipped

	// lzoMaxInput is what the places in the table can count, in bytes.
	lzoMaxInput = 1 << 16
)

// lzoTable has for the hash of four bytes where they were last seen.
type lzoTable [1 << lzoHashBits]uint16

func lzoHash(x uint32) uint32 { return x * 0x9e3779b1 >> (32 - lzoHashBits) }

// appendLZO appends src, of at most lzoMaxInput bytes, compressed to dst. The
// same src gives the same bytes, whatever was in the table.
func appendLZO(dst, src []byte, table *lzoTable) []byte {
	start := len(dst)
	src = src[:len(src):len(src)]
	dst = slices.Grow(dst, lzoRoom(len(src)))
	clear(table[:])
	lit := 0 // where the literals not yet written begin
	// Position 0 is never a match's source before it has been passed, so that an
	// empty place of the table needs no mark of its own.
	for at := 1; at+8 <= len(src); {
		x := binary.LittleEndian.Uint64(src[at:])
		slot := &table[lzoHash(uint32(x))]
		from := int(*slot)
		*slot = uint16(at)
		x ^= binary.LittleEndian.Uint64(src[from:])
		if uint32(x) != 0 || at-from > lzoFar {
			at += 1 + (at-lit)>>lzoSkipShift
			continue
		}
		n := 8
		if x != 0 {
			n = bits.TrailingZeros64(x) / 8
		} else {
			n += matchLen(src[from+8:], src[at+8:])
		}
		for at > lit && from > 0 && src[at-1] == src[from-1] { // what was skipped
			at, from, n = at-1, from-1, n+1
		}
		dst = appendLZOLiterals(dst, src[lit:at], len(dst) == start)
		dst = appendLZOMatch(dst, n, at-from)
		at += n
		lit = at
	}
	dst = appendLZOLiterals(dst, src[lit:], len(dst) == start)
	return append(dst, 1<<4|1, 0, 0)
}

// matchLen returns how many bytes a and b have in common; b is the shorter.
func matchLen(a, b []byte) int {
	n := 0
	for ; len(b)-n >= 8; n += 8 {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
	}
	for n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func appendLZOLiterals(dst, lit []byte, first bool) []byte {
	n := len(lit)
	switch {
	case n == 0:
		return dst
	case first && n <= 238:
		dst = append(dst, byte(17+n))
	case n <= 3: // there is a match before them
		dst[len(dst)-2] |= byte(n)
	case n <= 18:
		dst = append(dst, byte(n-3))
	default:
		dst = appendLZOLength(append(dst, 0), n-18)
	}
	if at := len(dst); n <= 16 && cap(lit) >= 16 && cap(dst)-at >= 16 {
		// A copy of fixed size is faster than one that is right.
		*(*[16]byte)(dst[at : at+16]) = *(*[16]byte)(lit[:16])
		return dst[:at+n]
	}
	return append(dst, lit...)
}

// lzoRoom is what n bytes may take, which saves the growing.
func lzoRoom(n int) int { return n + n/16 + 64 }

// appendLZOLength appends what of a length its instruction had no room for.
func appendLZOLength(dst []byte, n int) []byte {
	for ; n > 255; n -= 255 {
		dst = append(dst, 0)
	}
	return append(dst, byte(n))
}

func appendLZOMatch(dst []byte, n, d int) []byte {
	if n <= 8 && d <= lzoNear {
		d--
		return append(dst, byte((n-1)<<5|d&7<<2), byte(d>>3))
	}
	var op byte
	var most int // length that fits into the instruction
	if d <= lzoMid {
		op, most = 1<<5, 33
		d--
	} else {
		d -= lzoMid
		op, most = 1<<4|byte(d>>11&8), 9
	}
	if n <= most {
		dst = append(dst, op|byte(n-2))
	} else {
		dst = appendLZOLength(append(dst, op), n-most)
	}
	return append(dst, byte(d<<2), byte(d>>6))
}
