package debuginfo

import (
	"bytes"
	"debug/dwarf"
	"fmt"
)

// What a register had when a function was called may still be known to the caller: it
// describes its calls, and what it passed (DWARF 5, 3.4).

// Tags and attributes that GNU had before DWARF 5 took them over.
const (
	tagGNUCallSite      dwarf.Tag  = 0x4109
	tagGNUCallParameter dwarf.Tag  = 0x410a
	attrGNUCallValue    dwarf.Attr = 0x2111
)

// maxEntries bounds the values looked for at the entry of functions, to find the
// variables of one frame: callers may depend on their callers.
const maxEntries = 256

// isRegister reports whether an expression is one register and nothing else.
func isRegister(expr []byte) bool {
	return len(expr) == 1 && expr[0] >= 0x50 && expr[0] <= 0x6f || len(expr) > 1 && expr[0] == 0x90
}

// entryValue returns what a register had when the function was called.
func (l *locator) entryValue(expr []byte) (uint64, error) {
	m := l.m.caller
	if *l.budget--; *l.budget < 0 || m == nil || m.back == 0 || !isRegister(expr) {
		return 0, ErrEntryValue
	}
	caller, err := m.locator(l.budget)
	if caller == nil || err != nil {
		return 0, ErrEntryValue
	}
	site, err := caller.callSite(l.u.name(l.chain[len(l.chain)-1]))
	if site == nil || err != nil {
		return 0, ErrEntryValue
	}
	value, err := caller.passed(site, expr)
	if value == nil || err != nil {
		return 0, ErrEntryValue
	}
	v, err := caller.evaluator.value(value)
	if err != nil {
		return 0, fmt.Errorf("%w: in its caller, %w", ErrEntryValue, err)
	}
	return v, nil
}

// callSite returns the entry of the call that the function is in, which must be one of
// the function of that name and no jump to it from elsewhere; nil if there is none.
func (l *locator) callSite(callee string) (*dwarf.Entry, error) {
	fn := l.chain[len(l.chain)-1]
	if !fn.Children || callee == "" {
		return nil, nil
	}
	r := l.u.data.Reader()
	r.Seek(fn.Offset)
	if _, err := r.Next(); err != nil {
		return nil, err
	}
	for depth := 1; depth > 0; {
		e, err := r.Next()
		if e == nil || err != nil {
			return nil, err
		}
		var back, origin dwarf.Attr
		switch e.Tag {
		case 0:
			depth--
			continue
		case dwarf.TagCallSite:
			back, origin = dwarf.AttrCallReturnPC, dwarf.AttrCallOrigin
		case tagGNUCallSite:
			back, origin = dwarf.AttrLowpc, dwarf.AttrAbstractOrigin
		case dwarf.TagInlinedSubroutine, dwarf.TagLexDwarfBlock:
			if e.Children {
				depth++
			}
			continue
		default:
			r.SkipChildren()
			continue
		}
		if pc, ok := e.Val(back).(uint64); ok && pc == l.m.back {
			off, ok := e.Val(origin).(dwarf.Offset)
			if !ok || l.u.nameAt(off) != callee {
				return nil, nil
			}
			return e, nil
		}
		r.SkipChildren()
	}
	return nil, nil
}

// nameAt returns the name of the function whose entry is at off.
func (u *unit) nameAt(off dwarf.Offset) string {
	r := u.data.Reader()
	r.Seek(off)
	e, err := r.Next()
	if e == nil || err != nil {
		return ""
	}
	return u.name(e)
}

// passed returns the expression, in the caller, of what was passed in a register; nil if
// the call does not say.
func (l *locator) passed(site *dwarf.Entry, register []byte) ([]byte, error) {
	if !site.Children {
		return nil, nil
	}
	r := l.u.data.Reader()
	r.Seek(site.Offset)
	if _, err := r.Next(); err != nil {
		return nil, err
	}
	for {
		e, err := r.Next()
		if e == nil || err != nil || e.Tag == 0 {
			return nil, err
		}
		value := dwarf.AttrCallValue
		switch e.Tag {
		case tagGNUCallParameter:
			value = attrGNUCallValue
		case dwarf.TagCallSiteParameter:
		default:
			r.SkipChildren()
			continue
		}
		where, _ := e.Val(dwarf.AttrLocation).([]byte)
		if bytes.Equal(where, register) {
			expr, _ := e.Val(value).([]byte)
			return expr, nil
		}
		r.SkipChildren()
	}
}
