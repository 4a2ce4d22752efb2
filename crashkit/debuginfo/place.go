package debuginfo

import (
	"debug/dwarf"
	"fmt"
	"path"
)

// Place is a place in the source.
type Place struct {
	Function string `json:"function"`
	File     string `json:"file"` // as the compiler knew it, cleaned; "" if unknown
	Line     int    `json:"line"` // from 1; 0 if unknown
	Column   int    `json:"column,omitempty"`
	// Inlined says that the function was inlined into that of the next Place.
	Inlined bool `json:"inlined,omitempty"`
}

// Places returns where the code at pc, an address as in the file, comes from:
// the innermost function first, then those that it was inlined into, each with
// the line of the call. It is empty where no unit covers pc. The error wraps
// ErrNone if the file has no DWARF.
func (f *File) Places(pc uint64) (places []Place, err error) {
	defer guard(f.Path, &err)
	if !f.Any() {
		return nil, fmt.Errorf("%w in %s", ErrNone, f.Path)
	}
	u, err := f.unitAt(pc)
	if u == nil || err != nil {
		return nil, err
	}
	lines, err := u.lines()
	if err != nil {
		return nil, fmt.Errorf("%s: .debug_line: %w", f.Path, err)
	}
	here := Place{}
	if row, ok := lines.at(pc); ok {
		here.File, here.Line, here.Column = path.Clean(row.file.Name), row.line, row.column
	}
	off, ok, err := u.functionAt(pc)
	if err != nil {
		return nil, fmt.Errorf("%s: .debug_info: %w", f.Path, err)
	}
	if !ok {
		return []Place{here}, nil
	}
	chain, err := u.inlined(off, pc)
	if err != nil {
		return nil, fmt.Errorf("%s: .debug_info: %w", f.Path, err)
	}
	for i, e := range chain {
		here.Function = u.name(e)
		here.Inlined = i < len(chain)-1
		places = append(places, here)
		number, _ := e.Val(dwarf.AttrCallFile).(int64)
		line, _ := e.Val(dwarf.AttrCallLine).(int64)
		column, _ := e.Val(dwarf.AttrCallColumn).(int64)
		here = Place{Line: int(line), Column: int(column)}
		if name := lines.file(number); name != "" {
			here.File = path.Clean(name)
		}
	}
	return places, nil
}

// maxInlined bounds the depth of inlining.
const maxInlined = 256

// inlined returns the DIEs of the functions that pc lies in, innermost first;
// the last is the one at off, which is not inlined.
func (u *unit) inlined(off dwarf.Offset, pc uint64) ([]*dwarf.Entry, error) {
	r := u.data.Reader()
	r.Seek(off)
	outer, err := r.Next()
	if err != nil {
		return nil, err
	}
	chain := []*dwarf.Entry{outer}
	if !outer.Children {
		return chain, nil
	}
	for depth := 1; depth > 0; {
		e, err := r.Next()
		if err != nil {
			return nil, err
		}
		if e == nil {
			break
		}
		if e.Tag == 0 {
			depth--
			continue
		}
		inside := false
		switch e.Tag {
		case dwarf.TagInlinedSubroutine, dwarf.TagLexDwarfBlock:
			ranges, err := u.data.Ranges(e)
			if err != nil {
				return nil, err
			}
			for _, p := range ranges {
				inside = inside || p[0] <= pc && pc < p[1]
			}
		}
		switch {
		case !inside:
			r.SkipChildren()
			continue
		case e.Tag == dwarf.TagInlinedSubroutine:
			if len(chain) == maxInlined {
				return nil, fmt.Errorf("more than %d functions inlined at %#x", maxInlined, pc)
			}
			chain = append([]*dwarf.Entry{e}, chain...)
		}
		if !e.Children {
			break
		}
		depth = 1 // its siblings do not matter any more
	}
	return chain, nil
}

// name returns the name of a function, which an inlined or out-of-line copy has
// from the abstract one.
func (u *unit) name(e *dwarf.Entry) string {
	r := u.data.Reader()
	for range 4 {
		if s, ok := e.Val(dwarf.AttrName).(string); ok {
			return s
		}
		off, ok := e.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset)
		if !ok {
			if off, ok = e.Val(dwarf.AttrSpecification).(dwarf.Offset); !ok {
				break
			}
		}
		r.Seek(off)
		next, err := r.Next()
		if err != nil || next == nil {
			break
		}
		e = next
	}
	return ""
}
