package die

import (
	"debug/dwarf"
	"errors"
	"fmt"
	"sync/atomic"
)

// abbrev is the form of an entry (DWARF 5, section 7.5.3).
type abbrev struct {
	code     uint64
	tag      dwarf.Tag
	children bool
	attrs    []spec // of the table's

	// Where the forms alone tell them: how many bytes the attributes have, and at
	// which of them DW_AT_sibling begins, as a ref4; else -1.
	size, sibling int
}

// measure sets size and sibling.
func (a *abbrev) measure(wide bool, addrSize int) {
	a.size, a.sibling = 0, -1
	for _, s := range a.attrs {
		if s.attr == dwarf.AttrSibling && s.form == formRef4 {
			a.sibling = a.size
		}
		n := s.form.size(wide, addrSize)
		if n < 0 {
			a.size = -1
			return
		}
		a.size += n
	}
}

// size returns how many bytes a value has, -1 if that stands in the value.
func (f form) size(wide bool, addrSize int) int {
	offset := 4
	if wide {
		offset = 8
	}
	switch f {
	case formFlagPresent, formImplicitConst:
		return 0
	case formData1, formFlag, formRef1, formStrx1, formAddrx1:
		return 1
	case formData2, formRef2, formStrx2, formAddrx2:
		return 2
	case formData4, formRef4, formStrx4, formAddrx4, formRefSup4:
		return 4
	case formData8, formRef8, formRefSig8, formRefSup8:
		return 8
	case formData16:
		return 16
	case formStrp, formLineStrp, formSecOffset, formStrpSup:
		return offset
	case formAddr:
		if addrSize == 8 || addrSize == 4 {
			return addrSize
		}
	}
	return -1
}

// spec is the form of an attribute.
type spec struct {
	attr     dwarf.Attr
	form     form
	implicit int64
}

// table is the abbreviations of a unit.
type table struct {
	at       uint64 // in .debug_abbrev
	wide     bool   // the units' offsets have 8 bytes
	addrSize int    // in the units
	abbrevs  []abbrev
	specs    []spec
	byCode   map[uint64]int // nil if they are numbered from 1
}

func (t *table) find(code uint64) *abbrev {
	if t.byCode == nil {
		if code-1 < uint64(len(t.abbrevs)) {
			return &t.abbrevs[code-1]
		}
		return nil
	}
	if i, ok := t.byCode[code]; ok {
		return &t.abbrevs[i]
	}
	return nil
}

// parse decodes the table of a unit, reusing t's memory. It returns how many bytes
// the table has.
func (t *table) parse(u *Unit) (int, error) {
	section, at := u.d.Abbrev, u.abbrev
	*t = table{at: at, wide: u.wide, addrSize: u.addrSize, abbrevs: t.abbrevs[:0], specs: t.specs[:0]}
	if at >= uint64(len(section)) {
		return 0, fmt.Errorf("abbreviations at %#x: %w", at, ErrCut)
	}
	c := Cursor{b: section[at:]}
	inOrder := true
	for {
		code := c.Uleb()
		if code == 0 || c.bad {
			break
		}
		a := abbrev{code: code, tag: dwarf.Tag(c.Uleb()), children: c.U8() != 0}
		first := len(t.specs)
		for {
			s := spec{attr: dwarf.Attr(c.Uleb()), form: form(min(c.Uleb(), uint64(^form(0))))}
			if s.form == formImplicitConst {
				s.implicit = c.Sleb()
			}
			if c.bad || s.attr == 0 && s.form == 0 {
				break
			}
			t.specs = append(t.specs, s)
		}
		// The array may move while it grows: these are set below.
		a.attrs = t.specs[first:]
		inOrder = inOrder && code == uint64(len(t.abbrevs)+1)
		t.abbrevs = append(t.abbrevs, a)
	}
	if c.bad {
		return len(c.b), fmt.Errorf("abbreviations at %#x: %w", at, ErrCut)
	}
	first := 0
	for i := range t.abbrevs {
		n := len(t.abbrevs[i].attrs)
		t.abbrevs[i].attrs = t.specs[first : first+n : first+n]
		t.abbrevs[i].measure(u.wide, u.addrSize)
		first += n
	}
	if !inOrder {
		t.byCode = make(map[uint64]int, len(t.abbrevs))
		for i, a := range t.abbrevs {
			if _, ok := t.byCode[a.code]; !ok {
				t.byCode[a.code] = i
			}
		}
	}
	return c.at, nil
}

// of reports whether t is what the unit's entries are read with.
func (t *table) of(u *Unit) bool {
	return t.at == u.abbrev && t.wide == u.wide && t.addrSize == u.addrSize
}

// Scratch is memory for reading units one after the other that are not read again.
type Scratch struct {
	t     table
	valid bool
}

// errTables says that a file was made to be slow: units have tables of their own, one
// behind the other, or share one.
var errTables = errors.New("the units have more abbreviations than .debug_abbrev")

// parse decodes the table of a unit and counts its bytes.
func (u *Unit) parse(total *atomic.Int64, t *table) error {
	if total.Load() > 2*int64(len(u.d.Abbrev)) {
		return errTables
	}
	n, err := t.parse(u)
	total.Add(int64(n))
	return err
}

// table returns the unit's abbreviations, which are decoded once.
func (u *Unit) table() (*table, error) {
	u.d.mu.Lock()
	defer u.d.mu.Unlock()
	if t, ok := u.d.tables[u.abbrev]; ok && t.of(u) {
		return t, nil
	}
	t := &table{}
	if err := u.parse(&u.d.kept, t); err != nil {
		return nil, err
	}
	u.d.tables[u.abbrev] = t
	return t, nil
}

// ReaderIn is Reader with the memory of s, which serves one reader at a time.
func (u *Unit) ReaderIn(off uint64, s *Scratch) (*Reader, error) {
	if !s.valid || !s.t.of(u) {
		s.valid = false
		if err := u.parse(&u.d.passed, &s.t); err != nil {
			return nil, err
		}
		s.valid = true
	}
	return u.reader(off, &s.t), nil
}
