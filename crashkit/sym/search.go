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
// offsets, relative base, number, names, markers, token table and token index,
// and since commit 60443c88f3a8 ("kallsyms: Improve the performance of
// kallsyms_lookup_name()") (in v6.2, and in v6.1.y) the order of names before the token table;
// since Linux commit 404bad70fcf7 ("scripts/kallsyms: change the output order")
// (in v6.4) offsets and base stand after the token index. The token table is what
// can be recognized: the characters of names stand for themselves, so that ten
// of its strings are the digits, and the index beside it must fit.
func FindKallsyms(m Memory, start addr.Virt, size uint64, anchorName string, anchor addr.Virt) ([]Symbol, KallsymsTables, error) {
	const piece = 1 << 20
	var last error
	tries := 0
	buf := make([]byte, min(piece, size)+uint64(len(digits)))
	for off := uint64(0); off < size; off += piece {
		readAvailable(m, start+addr.Virt(off), buf)
		for from := 0; ; {
			i := bytes.Index(buf[from:], digits)
			if i < 0 || from+i >= piece {
				break
			}
			from += i + 1
			if tries++; tries > maxTries {
				return nil, KallsymsTables{}, fmt.Errorf("%w: more than %d places look like it", ErrNoKallsyms, maxTries)
			}
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

// maxTries bounds the places that are looked at: a kernel has one or two.
const maxTries = 256

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

// seqBytes is what each symbol takes in the order of names.
const seqBytes = 3

// maxSeqs bounds the symbols whose order is looked past.
const maxSeqs = 1 << 20

// lastBlock is what the last block of names can take at most, in bytes.
const lastBlock = markerEvery * (2 + 512)

// namesBefore sets the places of the number of symbols and of their names, by
// the markers that end where the token table begins, or before the order of names.
func namesBefore(m Memory, t *KallsymsTables) error {
	area := make([]byte, lastBlock+4*(maxSyms/markerEvery)+seqBytes*maxSeqs)
	top := t.TokenTable &^ 3
	base := top - addr.Virt(len(area))
	readAvailable(m, base, area)
	if first, n, ok := markersBefore(area); ok && namesOf(m, t, area, base, first, n) {
		return nil
	}
	for gap := 8; gap < seqBytes*maxSeqs; gap += 8 {
		// What is between holds as many symbols as the markers say.
		first, n, ok := markersBefore(area[:len(area)-gap])
		if ok && gap > seqBytes*markerEvery*(n-1) && gap < seqBytes*markerEvery*n+8 && namesOf(m, t, area, base, first, n) {
			return nil
		}
	}
	return errors.New("no markers and names stand before the token table")
}

// markersBefore returns where in area the first of the markers is that end with
// it, but for padding, and how many they are.
func markersBefore(area []byte) (first, n int, ok bool) {
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(area[i:]) }
	i := len(area) - 4
	if i < lastBlock {
		return 0, 0, false
	}
	if word(i) == 0 && word(i-4) != 0 { // padding; else the only marker
		i -= 4
	}
	for n = 1; word(i) != 0; n++ {
		if i < lastBlock || word(i-4) >= word(i) {
			return 0, 0, false
		}
		i -= 4
	}
	return i, n, true
}

// namesOf sets the places of the names and their number by n markers, the first
// of which is at area[first]. Area begins at base.
func namesOf(m Memory, t *KallsymsTables, area []byte, base addr.Virt, first, n int) bool {
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(area[i:]) }
	// The last block of names ends before the markers.
	high := base + addr.Virt(first) - addr.Virt(word(first+4*(n-1)))
	for names := high &^ 3; names+lastBlock > high; names -= 4 {
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
			if n > 1 && !blockEnds(m, names, word(first+4)) {
				continue
			}
			t.NumSyms, t.Names = names-align, names
			return true
		}
	}
	return false
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
