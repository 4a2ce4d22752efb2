package dump

import (
	"encoding/binary"

	"github.com/klauspost/compress/s2"
)

// LZO1X, as its decompressor understands it (Documentation/staging/lzo.rst of
// the Linux kernel). What repeats is found by the encoder of Snappy, which is in
// assembly, and its copies are written as LZO's matches: the two formats differ
// in little else.
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
	lzoMinMatch = 3
	lzoNear     = 2 << 10
	lzoMid      = 16 << 10
	lzoFar      = 48<<10 - 1
)

// appendLZO appends src compressed to dst. What is in packed, if it has room for
// [s2.MaxEncodedLen] bytes of src, is lost.
func appendLZO(dst, src, packed []byte) []byte {
	start := len(dst)
	packed = s2.EncodeSnappy(packed, src)
	_, n := binary.Uvarint(packed)
	packed = packed[n:]
	// src[lit:at] are literals not yet written, and behind them the size bytes
	// from dist before are a match that may go on.
	lit, at, size, dist := 0, 0, 0, 0
	for len(packed) > 0 {
		var length, d int
		switch c := packed[0]; c & 3 {
		case 0:
			length = int(c>>2) + 1
			skip := 1
			if extra := length - 60; extra > 0 { // bytes of the length
				var b [4]byte
				copy(b[:extra], packed[1:])
				length, skip = int(binary.LittleEndian.Uint32(b[:]))+1, 1+extra
			}
			packed = packed[skip+length:]
		case 1:
			length, d = int(c>>2&7)+4, int(c>>5)<<8|int(packed[1])
			packed = packed[2:]
		case 2:
			length, d = int(c>>2)+1, int(binary.LittleEndian.Uint16(packed[1:]))
			packed = packed[3:]
		default:
			length, d = int(c>>2)+1, int(binary.LittleEndian.Uint32(packed[1:]))
			packed = packed[5:]
		}
		if d == dist && size > 0 {
			size += length // a long match is in pieces
			continue
		}
		if size > 0 {
			dst = appendLZOLiterals(dst, src[lit:at], len(dst) == start)
			dst = appendLZOMatch(dst, size, dist)
			at += size
			lit, size, dist = at, 0, 0
		}
		if d == 0 || d > lzoFar || length < lzoMinMatch {
			at += length
			continue
		}
		size, dist = length, d
	}
	dst = appendLZOLiterals(dst, src[lit:at], len(dst) == start)
	if size > 0 {
		dst = appendLZOMatch(dst, size, dist)
	}
	return append(dst, 1<<4|1, 0, 0)
}

func appendLZOLiterals(dst, lit []byte, first bool) []byte {
	switch n := len(lit); {
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
	return append(dst, lit...)
}

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
