package debuginfo

import (
	"cmp"
	"debug/dwarf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// arange says that the unit at an offset of .debug_info covers [low, high).
type arange struct {
	low, high uint64
	unit      int64
}

// errUnit is the reason when .debug_info or .debug_aranges does not parse.
var errUnit = errors.New("a unit is cut off")

// unitLength reads the length of a unit at the start of b: how long it is with
// the length itself, and whether its offsets have 8 bytes.
func unitLength(b []byte) (n uint64, wide bool, err error) {
	if len(b) < 12 {
		return 0, false, errUnit
	}
	n = uint64(binary.LittleEndian.Uint32(b))
	if n == 0xffffffff {
		wide = true
		n = binary.LittleEndian.Uint64(b[4:]) + 8
	}
	n += 4
	if n > uint64(len(b)) || n < 12 {
		return 0, false, errUnit
	}
	return n, wide, nil
}

// readAranges returns which unit covers which addresses, by address: from
// .debug_aranges or, if the compiler does not make that, from the units.
func (f *File) readAranges() ([]arange, error) {
	all, err := parseAranges(f.section("aranges"))
	if err != nil {
		return nil, fmt.Errorf("%s: .debug_aranges: %w", f.Path, err)
	}
	if len(all) == 0 {
		if all, err = f.unitRanges(); err != nil {
			return nil, fmt.Errorf("%s: .debug_info: %w", f.Path, err)
		}
	}
	slices.SortFunc(all, func(a, b arange) int { return cmp.Compare(a.low, b.low) })
	return all, nil
}

// parseAranges decodes a .debug_aranges (DWARF 5, 6.1.2).
func parseAranges(b []byte) ([]arange, error) {
	le := binary.LittleEndian
	var all []arange
	for len(b) > 0 {
		n, wide, err := unitLength(b)
		if err != nil {
			return nil, err
		}
		set := b[:n]
		b = b[n:]
		// length, version, offset, address size, segment selector size
		head, off := 12, int64(le.Uint32(set[6:]))
		if wide {
			if len(set) < 24 {
				return nil, errUnit
			}
			head, off = 24, int64(le.Uint64(set[14:]))
		}
		if set[head-2] != 8 || set[head-1] != 0 {
			return nil, fmt.Errorf("addresses of %d bytes", set[head-2])
		}
		for i := (head + 15) &^ 15; i+16 <= len(set); i += 16 {
			low, size := le.Uint64(set[i:]), le.Uint64(set[i+8:])
			if low == 0 && size == 0 {
				break
			}
			if size != 0 && low+size > low {
				all = append(all, arange{low, low + size, off})
			}
		}
	}
	return all, nil
}

// unitRanges asks every unit for the addresses that it covers.
func (f *File) unitRanges() ([]arange, error) {
	var all []arange
	info := f.section("info")
	for off := int64(0); off < int64(len(info)); {
		n, _, err := unitLength(info[off:])
		if err != nil {
			return nil, err
		}
		u, err := f.unit(off)
		if err == nil {
			for _, r := range u.ranges {
				all = append(all, arange{r[0], r[1], off})
			}
		}
		f.mu.Lock()
		delete(f.units, off) // all at once would be too many
		f.mu.Unlock()
		off += int64(n)
	}
	return all, nil
}

// unit is one compilation unit, decoded as far as it was asked for.
type unit struct {
	off    int64 // in .debug_info; entries count from here
	data   *dwarf.Data
	entry  *dwarf.Entry // DW_TAG_compile_unit
	ranges [][2]uint64

	functions func() ([]function, error)
	lines     func() (*lineTable, error)
}

// function is a range [low, high) of a function's code; off is that of its DIE.
type function struct {
	low, high uint64
	off       dwarf.Offset
}

// unitAt returns the unit that covers the address, nil if none does.
func (f *File) unitAt(pc uint64) (*unit, error) {
	all, err := f.aranges()
	if err != nil {
		return nil, err
	}
	i, found := slices.BinarySearchFunc(all, pc, func(r arange, pc uint64) int {
		switch {
		case pc < r.low:
			return 1
		case pc >= r.high:
			return -1
		}
		return 0
	})
	if !found {
		return nil, nil
	}
	return f.unit(all[i].unit)
}

// unit returns the unit at an offset of .debug_info.
func (f *File) unit(off int64) (u *unit, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if u, ok := f.units[off]; ok {
		return u, nil
	}
	defer guard(f.Path, &err)
	info := f.section("info")
	if off < 0 || off >= int64(len(info)) {
		return nil, errUnit
	}
	n, _, err := unitLength(info[off:])
	if err != nil {
		return nil, err
	}
	u = &unit{off: off}
	if u.data, err = f.data(info[off : off+int64(n)]); err != nil {
		return nil, err
	}
	if u.entry, err = u.data.Reader().Next(); err != nil {
		return nil, err
	}
	if u.entry == nil {
		return nil, errUnit
	}
	if u.ranges, err = u.data.Ranges(u.entry); err != nil {
		return nil, err
	}
	u.functions = sync.OnceValues(func() (all []function, err error) {
		defer guard(f.Path, &err)
		return u.readFunctions()
	})
	u.lines = sync.OnceValues(func() (t *lineTable, err error) {
		defer guard(f.Path, &err)
		return u.readLines()
	})
	f.units[off] = u
	return u, nil
}

// guard turns a panic into an error: package debug/dwarf is not made for hostile
// files.
func guard(path string, err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%s: damaged debug information: %v", path, r)
	}
}

// maxFunctions bounds the functions of a unit; the largest have some thousand.
const maxFunctions = 1 << 20

// readFunctions lists the unit's functions that have code, by address.
func (u *unit) readFunctions() ([]function, error) {
	var all []function
	r := u.data.Reader()
	if _, err := r.Next(); err != nil {
		return nil, err
	}
	for {
		e, err := r.Next()
		if err != nil {
			return nil, err
		}
		if e == nil || e.Tag == 0 {
			break
		}
		if e.Tag == dwarf.TagSubprogram {
			ranges, err := u.data.Ranges(e)
			if err != nil {
				return nil, err
			}
			for _, p := range ranges {
				all = append(all, function{p[0], p[1], e.Offset})
			}
		}
		if len(all) > maxFunctions {
			return nil, errors.New("more functions than a unit has")
		}
		r.SkipChildren()
	}
	slices.SortFunc(all, func(a, b function) int { return cmp.Compare(a.low, b.low) })
	return all, nil
}

// functionAt returns the DIE of the function that covers pc.
func (u *unit) functionAt(pc uint64) (dwarf.Offset, bool, error) {
	all, err := u.functions()
	if err != nil {
		return 0, false, err
	}
	i, _ := slices.BinarySearchFunc(all, pc, func(f function, pc uint64) int { return cmp.Compare(f.low, pc+1) })
	if i == 0 || pc >= all[i-1].high {
		return 0, false, nil
	}
	return all[i-1].off, true, nil
}
