package dump

import (
	"encoding/binary"
	"errors"
)

var errLZO = errors.New("the compressed data is damaged")

// unpackLZO unpacks a stream of LZO1X (Documentation/staging/lzo.rst of Linux
// v6.1) into dst and returns how much it is. The stream must end where src does
// and fit dst; of dst, bytes behind the result may have changed.
//
// An instruction copies what was unpacked before, or literals. Its low two bits,
// or those of what follows it, say how many literals come behind it: that number
// is the state, which decides what the instructions below 16 mean.
func unpackLZO(dst, src []byte) (int, error) {
	const afterRun = 4 // the state after four or more literals
	in, out, state := 0, 0, 0
	if len(src) == 0 {
		return 0, errLZO
	}
	if first := int(src[0]); first > 17 {
		n := first - 17
		in = 1
		if n > len(src)-in || n > len(dst) {
			return 0, errLZO
		}
		out = copy(dst, src[in:in+n])
		in += n
		state = min(n, afterRun)
	}
	for {
		if len(src)-in < 3 { // no instruction but the last is that near the end
			return 0, errLZO
		}
		op := int(src[in])
		in++
		var length, dist int
		switch {
		case op >= 64: // 3 to 8 bytes from at most 2 KiB before
			length = op>>5 + 1
			dist = int(src[in])<<3 + op>>2&7 + 1
			in++
			state = op & 3
		case op >= 16:
			mask := 31
			if op < 32 {
				mask = 7
			}
			length = op & mask
			if length == 0 {
				var ok bool
				if length, in, ok = longLZO(src, in, len(dst)); !ok {
					return 0, errLZO
				}
				length += mask
			}
			length += 2
			if len(src)-in < 2 {
				return 0, errLZO
			}
			v := int(binary.LittleEndian.Uint16(src[in:]))
			in += 2
			dist, state = v>>2+1, v&3
			if op < 32 {
				if dist += 16383 + op&8<<11; dist == 16384 {
					if length != 3 || in != len(src) {
						return 0, errLZO
					}
					return out, nil
				}
			}
		case state == 0: // literals
			n := op
			if n == 0 {
				var ok bool
				if n, in, ok = longLZO(src, in, len(dst)); !ok {
					return 0, errLZO
				}
				n += 15
			}
			n += 3
			if n > len(src)-in || n > len(dst)-out {
				return 0, errLZO
			}
			if n <= 16 && len(src)-in >= 16 && len(dst)-out >= 16 {
				copy16(dst[out:], src[in:])
			} else {
				copy(dst[out:], src[in:in+n])
			}
			in, out, state = in+n, out+n, afterRun
			continue
		default: // 2 bytes from at most 1 KiB before, or 3 from further
			length = 2
			dist = int(src[in])<<2 + op>>2 + 1
			in++
			if state == afterRun {
				length, dist = 3, dist+2048
			}
			state = op & 3
		}
		if dist > out || length > len(dst)-out || state > len(src)-in || state > len(dst)-out-length {
			return 0, errLZO
		}
		from := out - dist
		switch {
		case dist >= 16 && length <= 16 && len(dst)-out >= 16:
			copy16(dst[out:], dst[from:])
		case dist >= length:
			copy(dst[out:out+length], dst[from:])
		case dist == 1:
			fill := dst[out : out+length]
			for i := range fill {
				fill[i] = dst[from]
			}
		default: // what is copied becomes part of what is copied from
			for n := 0; n < length; {
				n += copy(dst[out+n:out+length], dst[from:out+n])
			}
		}
		out += length
		for range state {
			dst[out] = src[in]
			out, in = out+1, in+1
		}
	}
}

// copy16 copies 16 bytes that do not overlap.
func copy16(dst, src []byte) {
	a, b := binary.LittleEndian.Uint64(src), binary.LittleEndian.Uint64(src[8:])
	binary.LittleEndian.PutUint64(dst, a)
	binary.LittleEndian.PutUint64(dst[8:], b)
}

// longLZO reads a length that did not fit its instruction: 255 for each zero
// byte, and the byte that ends them. More than limit is damage.
func longLZO(src []byte, in, limit int) (n, next int, ok bool) {
	for ; in < len(src); in++ {
		if src[in] != 0 {
			return n + int(src[in]), in + 1, true
		}
		if n += 255; n > limit {
			break
		}
	}
	return 0, 0, false
}
