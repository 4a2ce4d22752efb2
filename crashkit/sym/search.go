package sym

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"crashlab/crashkit/addr"
)

// ErrNoKallsyms is wrapped by the error of FindKallsyms when nothing in memory
// is, or leads to, the tables.
var ErrNoKallsyms = errors.New("kallsyms was not found")

// FindKallsyms searches size bytes of memory from start, the kernel's image, for
// the tables of kallsyms and decodes them: VMCOREINFO has their places only
// since v6.0. The anchor is a symbol whose address is known. It also returns
// where the tables are.
//
// scripts/kallsyms.c writes the tables in one go. Until v6.3 their order is
// offsets, relative base, number, names, markers, token table and token index;
// since Linux commit 404bad70fcf7 ("scripts/kallsyms: change the output order")
// (in v6.4) offsets and base stand after the token index. The token table is what
// can be recognized: the characters of names stand for themselves, so that ten
// of its strings are the digits, and the index beside it must fit.
func FindKallsyms(m Memory, start addr.Virt, size uint64, anchorName string, anchor addr.Virt) ([]Symbol, KallsymsTables, error) {
	const piece = 1 << 20
	var last error
	buf := make([]byte, min(piece, size)+uint64(len(digits)))
	for off := uint64(0); off < size; off += piece {
		readAvailable(m, start+addr.Virt(off), buf)
		for from := 0; ; {
			i := bytes.Index(buf[from:], digits)
			if i < 0 || from+i >= piece {
				break
			}
			from += i + 1
			t, err := tablesAround(m, start+addr.Virt(off)+addr.Virt(from-1))
			if err != nil {
				last = err
				continue
			}
			t.AnchorName, t.AnchorAddr = anchorName, anchor
			syms, err := decodeFound(m, &t)
			if err == nil {
				return syms, t, nil
			}
			last = err
		}
	}
	if last != nil {
		return nil, KallsymsTables{}, fmt.Errorf("%w: what looked like it is not: %w", ErrNoKallsyms, last)
	}
	return nil, KallsymsTables{}, fmt.Errorf("%w in %d MiB from %v", ErrNoKallsyms, size>>20, start)
}

// digits are the tokens of the digits. "0" follows a NUL, the end of "/".
var digits = []byte("\x000\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00")

// readAvailable fills b from v, with zeroes for pages that cannot be read: it is
// for searching, and what is found is read again.
func readAvailable(m Memory, v addr.Virt, b []byte) {
	const page = 4096
	for len(b) > 0 {
		n := min(len(b), page-int(v%page))
		if m.Read(v, b[:n]) != nil {
			clear(b[:n])
		}
		b, v = b[n:], v+addr.Virt(n)
	}
}

// maxTokens bounds the token table in bytes: its strings are parts of names.
const maxTokens = 64 << 10

// tablesAround returns the tables whose token table has the digits at v, without
// the addresses of symbols.
func tablesAround(m Memory, v addr.Virt) (KallsymsTables, error) {
	var t KallsymsTables
	// From "0" on, to find the table's end and with it the index.
	rest := make([]byte, maxTokens)
	readAvailable(m, v+1, rest)
	ends := make([]int, 0, 256-'0') // of tokens '0'…255, behind their NUL
	for i, c := range rest {
		if c == 0 {
			if ends = append(ends, i+1); len(ends) == cap(ends) {
				break
			}
		}
	}
	if len(ends) < cap(ends) {
		return t, errors.New("the token table has no end")
	}
	end := v + 1 + addr.Virt(ends[len(ends)-1])
	for _, align := range []addr.Virt{4, 8} {
		t.TokenIndex = (end + align - 1) &^ (align - 1)
		var index [512]byte
		if err := m.Read(t.TokenIndex, index[:]); err != nil {
			continue
		}
		at := func(i int) int { return int(binary.LittleEndian.Uint16(index[2*i:])) }
		fits := at(0) == 0
		for i := range ends[:len(ends)-1] {
			fits = fits && at('0'+i+1)-at('0') == ends[i]
		}
		if fits {
			t.TokenTable = v + 1 - addr.Virt(at('0'))
			return t, namesBefore(m, &t)
		}
	}
	return t, errors.New("no token index follows the token table")
}

// The markers are a u32 for every 256th symbol: where its name stands in the
// names.
const markerEvery = 256

// namesBefore sets the places of the number of symbols and of their names, by
// the markers that end where the token table begins.
func namesBefore(m Memory, t *KallsymsTables) error {
	// All markers, and before them what the names' last block can be at most.
	const tail = markerEvery * (2 + 512)
	area := make([]byte, 4*(maxSyms/markerEvery)+tail)
	top := t.TokenTable &^ 3
	base := top - addr.Virt(len(area))
	readAvailable(m, base, area)
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(area[i:]) }

	i := len(area) - 4
	if word(i) == 0 { // padding, or the only marker
		if word(i-4) != 0 {
			i -= 4
		}
	}
	n := 1
	lastMarker := word(i)
	for ; word(i) != 0; n++ {
		if i < tail || word(i-4) >= word(i) {
			return errors.New("no markers stand before the token table")
		}
		i -= 4
	}
	// area[i] is the first marker; the last block of names ends before it.
	high := base + addr.Virt(i) - addr.Virt(lastMarker)
	for names := high &^ 3; names+tail > high; names -= 4 {
		for _, align := range []addr.Virt{4, 8} {
			if names%align != 0 {
				continue
			}
			var number [4]byte
			if m.Read(names-align, number[:]) != nil {
				continue
			}
			count := binary.LittleEndian.Uint32(number[:])
			if count == 0 || (uint64(count)+markerEvery-1)/markerEvery != uint64(n) {
				continue
			}
			if n > 1 && !blockEnds(m, names, binary.LittleEndian.Uint32(area[i+4:])) {
				continue
			}
			t.NumSyms, t.Names = names-align, names
			return nil
		}
	}
	return errors.New("no names stand before the markers")
}

// blockEnds reports whether the first names from at take so many bytes.
func blockEnds(m Memory, at addr.Virt, size uint32) bool {
	if size > markerEvery*(2+512) {
		return false
	}
	b := make([]byte, size)
	if m.Read(at, b) != nil {
		return false
	}
	for range markerEvery {
		if len(b) < 2 {
			return false
		}
		n := 1 + int(b[0])
		if b[0]&0x80 != 0 {
			n = 2 + int(b[0]&0x7f) + int(b[1])<<7
		}
		if n > len(b) {
			return false
		}
		b = b[n:]
	}
	return len(b) == 0
}

// decodeFound tries the places where the addresses of symbols may stand, and sets them.
func decodeFound(m Memory, t *KallsymsTables) ([]Symbol, error) {
	syms, err := readSymbols(m, *t)
	if err != nil {
		return nil, err
	}
	size := addr.Virt(4 * len(syms))
	up := func(v addr.Virt) addr.Virt { return (v + 7) &^ 7 }
	number := t.NumSyms &^ 7
	after := t.TokenIndex + 512
	for _, place := range []struct{ offsets, base, addresses addr.Virt }{
		{offsets: number - 8 - up(size), base: number - 8},
		{offsets: after, base: up(after + size)},
		{offsets: up(after), base: up(up(after) + size)},
		{addresses: number - 2*size},
		{addresses: up(after)},
	} {
		t.Offsets, t.RelativeBase, t.Addresses = place.offsets, place.base, place.addresses
		if err = readAddresses(m, *t, syms); err == nil {
			return syms, nil
		}
	}
	return nil, err
}
