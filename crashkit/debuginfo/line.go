package debuginfo

import (
	"cmp"
	"debug/dwarf"
	"errors"
	"io"
	"slices"
)

// lineTable is a unit's line program, run once.
type lineTable struct {
	files []*dwarf.LineFile
	rows  []lineRow // by address
}

// lineRow says that the code from addr up to the next row comes from a line.
type lineRow struct {
	addr   uint64
	file   *dwarf.LineFile
	line   int
	column int
	end    bool // nothing follows: the end of a sequence
}

// maxRows bounds the rows of one unit.
const maxRows = 8 << 20

func (u *unit) readLines() (*lineTable, error) {
	r, err := u.data.LineReader(u.entry)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return &lineTable{}, nil
	}
	t := &lineTable{}
	var e dwarf.LineEntry
	for {
		if err := r.Next(&e); err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			return nil, err
		}
		if len(t.rows) >= maxRows {
			return nil, errors.New("a line program without end")
		}
		t.rows = append(t.rows, lineRow{e.Address, e.File, e.Line, e.Column, e.EndSequence})
	}
	t.files = r.Files()
	// Of rows at one address the last counts; the end of one sequence gives way
	// to the start of the next.
	slices.SortStableFunc(t.rows, func(a, b lineRow) int {
		if c := cmp.Compare(a.addr, b.addr); c != 0 {
			return c
		}
		switch {
		case a.end == b.end:
			return 0
		case a.end:
			return -1
		}
		return 1
	})
	return t, nil
}

// at returns the row that covers pc.
func (t *lineTable) at(pc uint64) (lineRow, bool) {
	i, _ := slices.BinarySearchFunc(t.rows, pc, func(r lineRow, pc uint64) int { return cmp.Compare(r.addr, pc+1) })
	if i == 0 || t.rows[i-1].end || t.rows[i-1].file == nil {
		return lineRow{}, false
	}
	return t.rows[i-1], true
}

// file returns the name of a file by its number in the unit.
func (t *lineTable) file(n int64) string {
	if n < 0 || n >= int64(len(t.files)) || t.files[n] == nil {
		return ""
	}
	return t.files[n].Name
}
