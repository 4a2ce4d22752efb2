// Package die reads the entries of a .debug_info (DWARF 5, section 7.5; versions
// 2 to 5), in place and without making anything of those that are passed over:
// a kernel has some ten million, and a hundred are asked for.
//
// Its input may be damaged. Whatever it is, a read ends in an entry or in an
// error, and makes no more than what it reads.
package die

import (
	"cmp"
	"debug/dwarf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// ErrCut is wrapped by the errors about an entry or a unit that is cut off.
var ErrCut = errors.New("cut off")

// Sections are the contents of the sections of those names, with ".debug_" in
// front. All but Info and Abbrev may be absent. They must not be changed.
type Sections struct {
	Info, Abbrev, Str, LineStr, StrOffsets, Addr []byte
}

// Data is a file's debug information. It is safe for concurrent use.
type Data struct {
	Sections
	units        func() ([]*Unit, error)
	kept, passed atomic.Int64 // bytes of .debug_abbrev that were decoded, to be kept or not

	mu     sync.Mutex
	tables map[uint64]*table // by offset
}

// New returns the debug information in s. Nothing is read yet.
func New(s Sections) *Data {
	d := &Data{Sections: s, tables: make(map[uint64]*table)}
	d.units = sync.OnceValues(d.readUnits)
	return d
}

// The kinds of units (DWARF 5, table 7.2).
const (
	unitCompile = iota + 1
	unitType
	unitPartial
	unitSkeleton
	unitSplitCompile
	unitSplitType
)

// Unit is a compilation unit. All offsets are from the start of .debug_info.
type Unit struct {
	Off  uint64 // of its header
	Root uint64 // of its first entry
	End  uint64 // behind its last one

	d        *Data
	version  int
	wide     bool // offsets have 8 bytes
	kind     int
	addrSize int
	abbrev   uint64

	bases func() bases
}

// bases are where the unit's parts of tables begin.
type bases struct{ strOffsets, addr, loclists uint64 }

// Units returns the units in the order of the file; with an error those before
// the damage.
func (d *Data) Units() ([]*Unit, error) { return d.units() }

func (d *Data) readUnits() ([]*Unit, error) {
	le := binary.LittleEndian
	var all []*Unit
	for off := uint64(0); off < uint64(len(d.Info)); {
		b := d.Info[off:]
		if len(b) < 12 {
			return all, fmt.Errorf("the unit at %#x is %w", off, ErrCut)
		}
		u := &Unit{Off: off, d: d, addrSize: 8, kind: unitCompile}
		n, head := uint64(le.Uint32(b)), uint64(4)
		if n == 0xffffffff {
			u.wide = true
			n, head = le.Uint64(b[4:]), 12
		}
		if n > uint64(len(b))-head || n < 8 || u.wide && n < 12 {
			return all, fmt.Errorf("the unit at %#x is %w", off, ErrCut)
		}
		u.End = off + head + n
		b = b[head : head+n]
		u.version = int(le.Uint16(b))
		b, head = b[2:], head+2
		word := func() uint64 {
			if u.wide {
				v := le.Uint64(b)
				b, head = b[8:], head+8
				return v
			}
			v := le.Uint32(b)
			b, head = b[4:], head+4
			return uint64(v)
		}
		switch {
		case u.version == 5:
			u.kind, u.addrSize = int(b[0]), int(b[1])
			b, head = b[2:], head+2
			u.abbrev = word()
			extra := 0
			switch u.kind {
			case unitSkeleton, unitSplitCompile:
				extra = 8
			case unitType, unitSplitType:
				extra = 12
				if u.wide {
					extra = 16
				}
			}
			if extra > len(b) {
				return all, fmt.Errorf("the unit at %#x is %w", off, ErrCut)
			}
			head += uint64(extra)
		case u.version >= 2 && u.version <= 4:
			u.abbrev = word()
			u.addrSize = int(b[0])
			head++
		default:
			return all, fmt.Errorf("the unit at %#x is of DWARF version %d", off, u.version)
		}
		u.Root = off + head
		u.bases = sync.OnceValue(u.readBases)
		all = append(all, u)
		off = u.End
	}
	return all, nil
}

// UnitOf returns the unit that the entry at an offset of .debug_info lies in.
func (d *Data) UnitOf(off uint64) (*Unit, bool) {
	all, _ := d.units() // those before the damage
	i, found := slices.BinarySearchFunc(all, off, func(u *Unit, off uint64) int { return cmp.Compare(u.Off, off) })
	if !found {
		i--
	}
	if i < 0 || off < all[i].Root || off >= all[i].End {
		return nil, false
	}
	return all[i], true
}

// Entry reads the entry at an offset of .debug_info.
func (d *Data) Entry(off uint64) (*Entry, error) {
	u, ok := d.UnitOf(off)
	if !ok {
		return nil, fmt.Errorf("no entry at %#x", off)
	}
	r, err := u.Reader(off)
	if err != nil {
		return nil, err
	}
	var e Entry
	if !r.Next(&e) {
		return nil, cmp.Or(r.Err(), fmt.Errorf("no entry at %#x", off))
	}
	return &e, nil
}

// readBases reads the unit's own entry. Its forms may need a base that stands
// behind them, so these are taken as they stand.
func (u *Unit) readBases() bases {
	var b bases
	r, err := u.Reader(u.Root)
	if err != nil {
		return b
	}
	var e Entry
	if !r.Next(&e) {
		return b
	}
	for _, v := range e.Values {
		switch v.Attr {
		case dwarf.AttrStrOffsetsBase:
			b.strOffsets = v.U
		case dwarf.AttrAddrBase:
			b.addr = v.U
		case dwarf.AttrLoclistsBase:
			b.loclists = v.U
		}
	}
	return b
}
