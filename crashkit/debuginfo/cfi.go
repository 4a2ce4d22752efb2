package debuginfo

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"crashlab/crashkit/internal/die"
)

// fde says that the rules at an offset of .debug_frame are those for the code in
// [low, high); cie is where the rules are that they begin with.
type fde struct {
	low, high uint64
	cie, at   uint32
}

// readFDEs lists what is in .debug_frame (DWARF 5, 6.4.1), by address.
func (f *File) readFDEs() ([]fde, error) {
	b := f.section("frame")
	if len(b) > 1<<31 {
		return nil, fmt.Errorf("%s: .debug_frame has %d bytes", f.Path, len(b))
	}
	le := binary.LittleEndian
	var all []fde
	for at := 0; at+12 <= len(b); {
		n := int64(le.Uint32(b[at:]))
		if n == 0xffffffff || n < 8 || n > int64(len(b)-at-4) {
			return all, fmt.Errorf("%s: .debug_frame at %#x: %w", f.Path, at, die.ErrCut)
		}
		if cie := le.Uint32(b[at+4:]); cie != 0xffffffff && n >= 20 {
			low, size := le.Uint64(b[at+8:]), le.Uint64(b[at+16:])
			if low+size > low {
				all = append(all, fde{low, low + size, cie, uint32(at)})
			}
		}
		at += 4 + int(n)
	}
	slices.SortFunc(all, func(a, b fde) int { return cmp.Compare(a.low, b.low) })
	return all, f.damaged("frame")
}

// ruleKind is how a register of the caller is found.
type ruleKind uint8

const (
	ruleUnset   ruleKind = iota
	ruleSame             // it has not changed
	ruleSaved            // in memory, at an offset from the CFA
	ruleIs               // it is at an offset from the CFA itself
	ruleOther            // by an expression, in another register
	ruleUnknown          // it is lost
)

type rule struct {
	kind ruleKind
	off  int64
}

// registers is how many registers have a number of their own in DWARF: sixteen, and
// the return address (System V ABI for AMD64, figure 3.36).
const registers = 17

// rules are those for one instruction.
type rules struct {
	cfaReg uint64 // the CFA is that register and cfaOff
	cfaOff int64
	byExpr bool // the CFA is something else
	regs   [registers]rule
}

// maxRemembered bounds the rules that are put aside at a time.
const maxRemembered = 64

// rulesAt returns the rules for the instruction at pc. The error wraps ErrNone where
// there are none, as for functions in assembler.
func (f *File) rulesAt(pc uint64) (*rules, error) {
	all, err := f.fdes()
	i, found := slices.BinarySearchFunc(all, pc, func(e fde, pc uint64) int {
		switch {
		case pc < e.low:
			return 1
		case pc >= e.high:
			return -1
		}
		return 0
	})
	if !found {
		return nil, cmp.Or(err, fmt.Errorf("%w for unwinding at %#x", ErrNone, pc))
	}
	e := all[i]
	entry := func(at uint32) *die.Cursor {
		b := f.section("frame")
		if int64(at)+8 > int64(len(b)) {
			return die.NewCursor(nil)
		}
		n := int64(binary.LittleEndian.Uint32(b[at:]))
		return die.NewCursor(b[at+8 : min(int64(at)+4+max(n, 4), int64(len(b)))])
	}
	m := &rulesMachine{loc: e.low, pc: pc}
	c := entry(e.cie)
	version := c.U8()
	if c.U8() != 0 {
		return nil, errors.New(".debug_frame is of a kind that Linux kernels do not have")
	}
	if version >= 4 {
		c.U16() // size of addresses, and of segments
	}
	m.codeAlign, m.dataAlign = c.Uleb(), c.Sleb()
	if version == 1 {
		c.U8() // the column of the return address
	} else {
		c.Uleb()
	}
	if err := m.run(c); err != nil {
		return nil, err
	}
	m.initial = m.rules
	c = entry(e.at)
	c.Take(16) // the range
	if err := m.run(c); err != nil {
		return nil, err
	}
	return &m.rules, nil
}

// rulesMachine runs the instructions that make the rules (DWARF 5, 6.4.2).
type rulesMachine struct {
	rules
	codeAlign  uint64
	dataAlign  int64
	initial    rules
	remembered []rules
	loc, pc    uint64
}

func (m *rulesMachine) set(reg uint64, r rule) {
	if reg < registers {
		m.regs[reg] = r
	}
}

// run runs instructions up to those for code behind pc.
func (m *rulesMachine) run(c *die.Cursor) error {
	advance := func(n uint64) bool {
		next := m.loc + n*m.codeAlign
		if next < m.loc || next > m.pc {
			return false
		}
		m.loc = next
		return true
	}
	restore := func(reg uint64) {
		if reg < registers {
			m.regs[reg] = m.initial.regs[reg]
		}
	}
	for c.Left() > 0 {
		op := c.U8()
		low := uint64(op & 0x3f)
		more := true
		switch op & 0xc0 {
		case 0x40: // advance_loc
			more = advance(low)
		case 0x80: // offset
			m.set(low, rule{ruleSaved, int64(c.Uleb()) * m.dataAlign})
		case 0xc0: // restore
			restore(low)
		default:
			switch op {
			case 0x00: // nop
			case 0x01: // set_loc
				if at := c.U64(); at > m.pc {
					more = false
				} else {
					m.loc = at
				}
			case 0x02: // advance_loc1
				more = advance(uint64(c.U8()))
			case 0x03: // advance_loc2
				more = advance(c.U16())
			case 0x04: // advance_loc4
				more = advance(c.U32())
			case 0x05: // offset_extended
				reg := c.Uleb()
				m.set(reg, rule{ruleSaved, int64(c.Uleb()) * m.dataAlign})
			case 0x06: // restore_extended
				restore(c.Uleb())
			case 0x07: // undefined
				m.set(c.Uleb(), rule{kind: ruleUnknown})
			case 0x08: // same_value
				m.set(c.Uleb(), rule{kind: ruleSame})
			case 0x09: // register
				m.set(c.Uleb(), rule{kind: ruleOther})
				c.Uleb()
			case 0x0a: // remember_state
				if len(m.remembered) == maxRemembered {
					return errors.New("too many rules put aside")
				}
				m.remembered = append(m.remembered, m.rules)
			case 0x0b: // restore_state
				n := len(m.remembered) - 1
				if n < 0 {
					return errors.New("no rules were put aside")
				}
				m.rules, m.remembered = m.remembered[n], m.remembered[:n]
			case 0x0c: // def_cfa
				m.cfaReg, m.byExpr = c.Uleb(), false
				m.cfaOff = int64(c.Uleb())
			case 0x0d: // def_cfa_register
				m.cfaReg, m.byExpr = c.Uleb(), false
			case 0x0e: // def_cfa_offset
				m.cfaOff = int64(c.Uleb())
			case 0x0f: // def_cfa_expression
				m.byExpr = true
				c.Take(c.Uleb())
			case 0x10, 0x16: // expression, val_expression
				m.set(c.Uleb(), rule{kind: ruleOther})
				c.Take(c.Uleb())
			case 0x11: // offset_extended_sf
				reg := c.Uleb()
				m.set(reg, rule{ruleSaved, c.Sleb() * m.dataAlign})
			case 0x12: // def_cfa_sf
				m.cfaReg, m.byExpr = c.Uleb(), false
				m.cfaOff = c.Sleb() * m.dataAlign
			case 0x13: // def_cfa_offset_sf
				m.cfaOff = c.Sleb() * m.dataAlign
			case 0x14: // val_offset
				reg := c.Uleb()
				m.set(reg, rule{ruleIs, int64(c.Uleb()) * m.dataAlign})
			case 0x15: // val_offset_sf
				reg := c.Uleb()
				m.set(reg, rule{ruleIs, c.Sleb() * m.dataAlign})
			case 0x2e: // GNU_args_size
				c.Uleb()
			default:
				return fmt.Errorf("unknown instruction %#x in .debug_frame", op)
			}
		}
		if !more {
			return nil
		}
		if c.Bad() {
			return fmt.Errorf(".debug_frame: %w", die.ErrCut)
		}
	}
	return nil
}
