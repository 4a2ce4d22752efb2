package debuginfo

import (
	"encoding/binary"
	"errors"
	"fmt"

	"crashlab/crashkit/internal/die"
)

// maxList bounds the entries of a list of locations.
const maxList = 1 << 16

// locationAt returns the expression that a list of locations has for pc; nil if none.
// Base is the address that the unit begins at.
func (f *File) locationAt(version int, off, pc, base uint64, addr func(uint64) (uint64, bool)) ([]byte, error) {
	if version < 5 {
		return f.oldLocationAt(off, pc, base)
	}
	b := f.section("loclists")
	if off >= uint64(len(b)) {
		return nil, errors.New("a list of locations lies behind the end of .debug_loclists")
	}
	c := die.NewCursor(b[off:])
	var fallback []byte
	var missing bool
	indexed := func() uint64 {
		v, ok := addr(c.Uleb())
		missing = missing || !ok
		return v
	}
	for range maxList {
		// DWARF 5, 7.7.3.
		var low, high uint64
		switch kind := c.U8(); kind {
		case 0: // end_of_list
			if c.Bad() {
				return nil, fmt.Errorf("a list of locations is %w", die.ErrCut)
			}
			return fallback, nil
		case 1: // base_addressx
			base = indexed()
			continue
		case 2: // startx_endx
			low = indexed()
			high = indexed()
		case 3: // startx_length
			low = indexed()
			high = low + c.Uleb()
		case 4: // offset_pair
			low = base + c.Uleb()
			high = base + c.Uleb()
		case 5: // default_location
			fallback = c.Take(c.Uleb())
			continue
		case 6: // base_address
			base = c.U64()
			continue
		case 7: // start_end
			low = c.U64()
			high = c.U64()
		case 8: // start_length
			low = c.U64()
			high = low + c.Uleb()
		case 9: // view_pair, of GNU
			c.Uleb()
			c.Uleb()
			continue
		default:
			return nil, fmt.Errorf("a list of locations has an entry of kind %d", kind)
		}
		expr := c.Take(c.Uleb())
		switch {
		case c.Bad():
			return nil, fmt.Errorf("a list of locations is %w", die.ErrCut)
		case missing:
			return nil, errors.New("a list of locations has an address that is not there")
		case low <= pc && pc < high:
			return expr, nil
		}
	}
	return nil, errors.New("a list of locations has no end")
}

// oldLocationAt does it for .debug_loc, which there was up to DWARF 4 (2.6.2 there).
func (f *File) oldLocationAt(off, pc, base uint64) ([]byte, error) {
	b := f.section("loc")
	if off >= uint64(len(b)) {
		return nil, errors.New("a list of locations lies behind the end of .debug_loc")
	}
	c := die.NewCursor(b[off:])
	for range maxList {
		low, high := c.U64(), c.U64()
		switch {
		case c.Bad():
			return nil, fmt.Errorf("a list of locations is %w", die.ErrCut)
		case low == 0 && high == 0:
			return nil, nil
		case low == ^uint64(0):
			base = high
			continue
		}
		expr := c.Take(c.U16())
		if base+low <= pc && pc < base+high {
			return expr, nil
		}
	}
	return nil, errors.New("a list of locations has no end")
}

// tableWord returns word i of a table that begins at base in b.
func tableWord(b []byte, base, i uint64) (uint64, bool) {
	n := uint64(len(b))
	if base > n || i >= (n-base)/8 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(b[base+8*i:]), true
}
