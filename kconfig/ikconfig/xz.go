package ikconfig

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ulikunitz/xz/lzma"
)

// unxz unpacks the first block of an xz stream as the kernel's build makes it:
// LZMA2 behind the filter for x86 code, which the library does not know. The
// format is that of xz-file-format.txt; the check at the end is not made.
func unxz(p []byte) ([]byte, error) {
	const streamHeader = 12
	if len(p) < streamHeader+8 {
		return nil, errors.New("xz: cut short")
	}
	b := p[streamHeader:]
	head := (int(b[0]) + 1) * 4
	if head > len(b) || b[0] == 0 {
		return nil, errors.New("xz: no block")
	}
	flags, f := b[1], b[2:head]
	number := func() uint64 {
		n, k := binary.Uvarint(f)
		if k <= 0 {
			f = nil
			return 0
		}
		f = f[k:]
		return n
	}
	if flags&0x40 != 0 {
		number() // packed size
	}
	if flags&0x80 != 0 {
		number() // unpacked size
	}
	x86 := false
	dict := 0
	for range int(flags&3) + 1 {
		id, n := number(), number()
		if n > uint64(len(f)) {
			return nil, errors.New("xz: the block's header is damaged")
		}
		props := f[:n]
		f = f[n:]
		switch id {
		case 0x04:
			x86 = true
		case 0x21:
			if len(props) != 1 || props[0] > 37 {
				return nil, errors.New("xz: the block's header is damaged")
			}
			dict = 2 | int(props[0]&1)
			dict <<= props[0]/2 + 11
		default:
			return nil, fmt.Errorf("xz: filter %#x is not known here", id)
		}
	}
	// No more than the data can use: the header is not to be trusted.
	dict = min(dict, int(max(size(p), lzma.MinDictCap)))
	r, err := lzma.Reader2Config{DictCap: dict}.NewReader2(bytes.NewReader(b[head:]))
	if err != nil {
		return nil, err
	}
	out, err := readSized(r, p)
	if err == nil && x86 {
		unfilterX86(out)
	}
	return out, err
}

// unfilterX86 turns the absolute targets of calls and jumps (E8, E9) back into
// relative ones, in place: the x86 filter of the xz format, as of
// lib/xz/xz_dec_bcj.c. An operand counts only if its highest byte is 00 or FF and
// what looked like opcodes in the bytes just before does not forbid it.
func unfilterX86(b []byte) {
	isHigh := func(c byte) bool { return c == 0 || c == 0xff }
	allowed := [8]bool{true, true, true, false, true, false, false, false}
	bitNumber := [8]uint{0, 1, 2, 2, 3, 3, 3, 3}
	mask, last := uint32(0), -1 // last: of the opcode seen before
	for i := 0; i+4 < len(b); i++ {
		if b[i]&0xfe != 0xe8 {
			continue
		}
		if d := i - last; last < 0 || d > 3 {
			mask = 0
		} else {
			mask = mask << uint(d-1) & 7
			if mask != 0 {
				c := b[i+4-int(bitNumber[mask])]
				if !allowed[mask] || isHigh(c) {
					last, mask = i, mask<<1|1
					continue
				}
			}
		}
		last = i
		if !isHigh(b[i+4]) {
			mask = mask<<1 | 1
			continue
		}
		src := binary.LittleEndian.Uint32(b[i+1:])
		var dest uint32
		for {
			dest = src - uint32(i+5)
			if mask == 0 {
				break
			}
			shift := bitNumber[mask] * 8
			if !isHigh(byte(dest >> (24 - shift))) {
				break
			}
			src = dest ^ (1<<(32-shift) - 1)
		}
		dest &= 0x01ffffff
		dest |= -(dest & 0x01000000)
		binary.LittleEndian.PutUint32(b[i+1:], dest)
		i += 4 // operands are no opcodes; last stays behind
	}
}
