package debuginfo

import (
	"encoding/binary"
	"errors"
	"fmt"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
	"crashlab/crashkit/internal/die"
)

// The reasons that a variable has no value.
var (
	// ErrOptimizedOut is that the compiler did not keep it, or not up to there.
	ErrOptimizedOut = errors.New("optimized out")
	// ErrEntryValue is that it could only be told from what a register had when
	// the function was called, and the caller does not know any more.
	ErrEntryValue = errors.New("known only when the function was called")
)

// errRegister is that a value depends on a register that was not saved.
type errRegister struct{ n uint64 }

func (e errRegister) Error() string { return registerName(e.n) + " is not known" }

// place is where a value is: in memory, in a register, or nowhere but known.
type place struct {
	kind  placeKind
	addr  uint64 // inMemory
	reg   uint64 // inRegister
	bytes []byte // isKnown, with a register's too
}

type placeKind uint8

const (
	inMemory placeKind = iota + 1
	inRegister
	isKnown
)

// evaluator evaluates the expressions that say where values are (DWARF 5, 2.5 and 2.6).
type evaluator struct {
	regs   *registerSet
	cfa    func() (uint64, error)
	base   func() (uint64, error)                                 // DW_AT_frame_base
	static func(uint64) uint64                                    // an address in the file, moved to where the kernel was loaded
	addr   func(index uint64) (uint64, bool)                      // in .debug_addr, not moved
	number func(typ uint64) (size uint64, signed bool, err error) // of a base type, by its offset in the unit
	entry  func(expr []byte) (uint64, error)                      // what it was when the function was called
	mem    ctype.Memory
}

const (
	maxOps   = 10000 // of one expression, with those that are done again
	maxDepth = 256   // of the stack
)

// number is a value on the stack. It is kept in 64 bits, sign-extended if its type has a
// sign.
type number struct {
	v        uint64
	unsigned bool // of a type without a sign, which plain numbers are not
}

// locate evaluates an expression.
func (e *evaluator) locate(expr []byte) (place, error) {
	m := &exprMachine{evaluator: e, c: die.NewCursor(expr)}
	return m.run()
}

// value evaluates an expression whose result is a number, such as a frame base.
func (e *evaluator) value(expr []byte) (uint64, error) {
	p, err := e.locate(expr)
	switch {
	case err != nil:
		return 0, err
	case p.kind == inMemory:
		return p.addr, nil
	case len(p.bytes) == 8:
		return binary.LittleEndian.Uint64(p.bytes), nil
	}
	return 0, errors.New("an expression has no number as its result")
}

type exprMachine struct {
	*evaluator
	c      *die.Cursor
	stack  []number
	result place  // of what is not in memory
	pieces []byte // of a value in pieces
	split  bool   // it is
}

func (m *exprMachine) push(v uint64) { m.stack = append(m.stack, number{v: v}) }

var errStack = errors.New("an expression has too little on its stack")

// pop removes n numbers, the deepest first.
func (m *exprMachine) pop(n int) ([]number, error) {
	if len(m.stack) < n {
		return nil, errStack
	}
	top := m.stack[len(m.stack)-n:]
	m.stack = m.stack[:len(m.stack)-n]
	return top, nil
}

// at returns the number i below the top.
func (m *exprMachine) at(i int) (number, error) {
	if i >= len(m.stack) {
		return number{}, errStack
	}
	return m.stack[len(m.stack)-1-i], nil
}

func (m *exprMachine) register(n uint64) (uint64, error) {
	if n >= registers || !m.regs.known[n] {
		return 0, errRegister{n}
	}
	return m.regs.value[n], nil
}

func word64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

// run evaluates the expression to its end.
func (m *exprMachine) run() (place, error) {
	if m.c.Left() == 0 {
		return place{}, ErrOptimizedOut
	}
	for range maxOps {
		if m.c.Left() == 0 {
			return m.end()
		}
		if err := m.step(m.c.U8()); err != nil {
			return place{}, err
		}
		if m.c.Bad() {
			return place{}, fmt.Errorf("an expression: %w", die.ErrCut)
		}
		if len(m.stack) > maxDepth {
			return place{}, errors.New("an expression has too much on its stack")
		}
	}
	return place{}, errors.New("an expression has no end")
}

func (m *exprMachine) end() (place, error) {
	if m.split {
		return place{kind: isKnown, bytes: m.pieces}, nil
	}
	if m.result.kind != 0 {
		return m.result, nil
	}
	top, err := m.at(0)
	if err != nil {
		return place{}, err
	}
	return place{kind: inMemory, addr: top.v}, nil
}

// maxPieces bounds a value in pieces, in bytes.
const maxPieces = 4096

// piece adds what was evaluated so far to a value in pieces.
func (m *exprMachine) piece(size uint64) error {
	if size > maxPieces || len(m.pieces)+int(size) > maxPieces {
		return errors.New("a value in pieces is too large")
	}
	if m.result.kind == 0 && len(m.stack) == 0 {
		return fmt.Errorf("%w in part", ErrOptimizedOut)
	}
	p := m.result
	if p.kind == 0 {
		p = place{kind: inMemory, addr: m.stack[len(m.stack)-1].v}
	}
	b := p.bytes
	if p.kind == inMemory {
		b = make([]byte, size)
		if err := m.mem.Read(addr.Virt(p.addr), b); err != nil {
			return err
		}
	}
	if uint64(len(b)) < size {
		return errors.New("a piece is larger than what it is of")
	}
	m.pieces, m.split = append(m.pieces, b[:size]...), true
	m.result, m.stack = place{}, m.stack[:0]
	return nil
}

// convert makes v a number of a base type, 0 for a plain one.
func (m *exprMachine) convert(v, typ uint64) (number, error) {
	if typ == 0 {
		return number{v: v}, nil
	}
	size, signed, err := m.number(typ)
	if err != nil {
		return number{}, err
	}
	shift := 64 - 8*size
	if signed {
		return number{v: uint64(int64(v<<shift) >> shift)}, nil
	}
	return number{v: v << shift >> shift, unsigned: true}, nil
}

func (m *exprMachine) load(size, typ uint64) error {
	top, err := m.pop(1)
	if err != nil {
		return err
	}
	if size > 8 {
		return fmt.Errorf("an expression reads %d bytes", size)
	}
	var b [8]byte
	if err := m.mem.Read(addr.Virt(top[0].v), b[:size]); err != nil {
		return err
	}
	n, err := m.convert(binary.LittleEndian.Uint64(b[:]), typ)
	m.stack = append(m.stack, n)
	return err
}

// jump goes on n bytes from here.
func (m *exprMachine) jump(n uint64) { m.c.Seek(m.c.At() + int(int16(n))) }

// step executes one operation (DWARF 5, table 7.9).
func (m *exprMachine) step(op uint8) error {
	if m.result.kind != 0 && op != 0x93 {
		return errors.New("an expression goes on behind its result")
	}
	c := m.c
	switch {
	case op >= 0x30 && op <= 0x4f: // lit
		m.push(uint64(op - 0x30))
		return nil
	case op >= 0x50 && op <= 0x6f: // reg
		return m.inRegister(uint64(op - 0x50))
	case op >= 0x70 && op <= 0x8f: // breg
		return m.offset(uint64(op-0x70), c.Sleb())
	case op >= 0x19 && op <= 0x2e && op != 0x23 && op != 0x28:
		return m.arithmetic(op)
	}
	switch op {
	case 0x03: // addr
		m.push(m.static(c.U64()))
	case 0x06: // deref
		return m.load(8, 0)
	case 0x08: // const1u and so on
		m.push(uint64(c.U8()))
	case 0x09:
		m.push(uint64(int8(c.U8())))
	case 0x0a:
		m.push(c.U16())
	case 0x0b:
		m.push(uint64(int16(c.U16())))
	case 0x0c:
		m.push(c.U32())
	case 0x0d:
		m.push(uint64(int32(c.U32())))
	case 0x0e, 0x0f:
		m.push(c.U64())
	case 0x10: // constu
		m.push(c.Uleb())
	case 0x11: // consts
		m.push(uint64(c.Sleb()))
	case 0x12: // dup
		return m.pick(0)
	case 0x13: // drop
		_, err := m.pop(1)
		return err
	case 0x14: // over
		return m.pick(1)
	case 0x15: // pick
		return m.pick(int(c.U8()))
	case 0x16: // swap
		n, err := m.pop(2)
		if err == nil {
			m.stack = append(m.stack, n[1], n[0])
		}
		return err
	case 0x17: // rot
		n, err := m.pop(3)
		if err == nil {
			m.stack = append(m.stack, n[2], n[0], n[1])
		}
		return err
	case 0x23: // plus_uconst
		n, err := m.pop(1)
		if err == nil {
			m.push(n[0].v + c.Uleb())
		}
		return err
	case 0x28: // bra
		to := c.U16()
		n, err := m.pop(1)
		if err == nil && n[0].v != 0 {
			m.jump(to)
		}
		return err
	case 0x2f: // skip
		m.jump(c.U16())
	case 0x90: // regx
		return m.inRegister(c.Uleb())
	case 0x91: // fbreg
		off := c.Sleb()
		base, err := m.base()
		m.push(base + uint64(off))
		return err
	case 0x92: // bregx
		n := c.Uleb()
		return m.offset(n, c.Sleb())
	case 0x93: // piece
		return m.piece(c.Uleb())
	case 0x94: // deref_size
		return m.load(uint64(c.U8()), 0)
	case 0x96: // nop
	case 0x9c: // call_frame_cfa
		v, err := m.cfa()
		m.push(v)
		return err
	case 0x9e: // implicit_value
		m.result = place{kind: isKnown, bytes: c.Take(c.Uleb())}
	case 0x9f: // stack_value
		n, err := m.pop(1)
		if err == nil {
			m.result = place{kind: isKnown, bytes: word64(n[0].v)}
		}
		return err
	case 0xa0, 0xf2: // implicit_pointer
		return fmt.Errorf("%w: what it points to is in no memory", ErrOptimizedOut)
	case 0xa1: // addrx
		v, ok := m.addr(c.Uleb())
		if !ok {
			return errors.New("an expression has an address that is not there")
		}
		m.push(m.static(v))
	case 0xa2: // constx
		v, ok := m.addr(c.Uleb())
		if !ok {
			return errors.New("an expression has a number that is not there")
		}
		m.push(v)
	case 0xa3, 0xf3: // entry_value
		v, err := m.entry(c.Take(c.Uleb()))
		m.push(v)
		return err
	case 0xa4, 0xf4: // const_type
		typ := c.Uleb()
		b := c.Take(uint64(c.U8()))
		if len(b) > 8 {
			return fmt.Errorf("an expression has a number of %d bytes", len(b))
		}
		var v [8]byte
		copy(v[:], b)
		return m.typed(binary.LittleEndian.Uint64(v[:]), typ)
	case 0xa5, 0xf5: // regval_type
		n := c.Uleb()
		typ := c.Uleb()
		v, err := m.register(n)
		if err != nil {
			return err
		}
		return m.typed(v, typ)
	case 0xa6, 0xf6: // deref_type
		size := uint64(c.U8())
		return m.load(size, c.Uleb())
	case 0xa8, 0xf7, 0xa9, 0xf9: // convert, reinterpret
		typ := c.Uleb()
		n, err := m.pop(1)
		if err != nil {
			return err
		}
		return m.typed(n[0].v, typ)
	case 0xfa, 0xfd: // GNU_parameter_ref, GNU_variable_value
		return ErrOptimizedOut
	default:
		return fmt.Errorf("an expression has the operation %#x, which is not known", op)
	}
	return nil
}

func (m *exprMachine) typed(v, typ uint64) error {
	n, err := m.convert(v, typ)
	m.stack = append(m.stack, n)
	return err
}

func (m *exprMachine) pick(i int) error {
	n, err := m.at(i)
	m.stack = append(m.stack, n)
	return err
}

func (m *exprMachine) inRegister(n uint64) error {
	v, err := m.register(n)
	m.result = place{kind: inRegister, reg: n, bytes: word64(v)}
	return err
}

func (m *exprMachine) offset(n uint64, off int64) error {
	v, err := m.register(n)
	m.push(v + uint64(off))
	return err
}

// arithmetic executes an operation on one or two numbers. Plain numbers have a sign
// where it matters, but for what is left of a division.
func (m *exprMachine) arithmetic(op uint8) error {
	if op == 0x19 || op == 0x1f || op == 0x20 { // abs, neg, not
		n, err := m.pop(1)
		if err != nil {
			return err
		}
		v := n[0].v
		switch {
		case op == 0x20:
			v = ^v
		case op == 0x1f || int64(v) < 0:
			v = -v
		}
		m.stack = append(m.stack, number{v, n[0].unsigned})
		return nil
	}
	n, err := m.pop(2)
	if err != nil {
		return err
	}
	a, b, unsigned := n[0].v, n[1].v, n[0].unsigned && n[1].unsigned
	less := int64(a) < int64(b)
	if unsigned {
		less = a < b
	}
	truth := func(is bool) uint64 {
		if is {
			return 1
		}
		return 0
	}
	var v uint64
	switch op {
	case 0x1a:
		v = a & b
	case 0x1b, 0x1d: // div, mod
		switch {
		case b == 0:
			return errors.New("an expression divides by zero")
		case op == 0x1d:
			v = a % b
		case unsigned:
			v = a / b
		default:
			v = uint64(int64(a) / int64(b))
		}
	case 0x1c:
		v = a - b
	case 0x1e:
		v = a * b
	case 0x21:
		v = a | b
	case 0x22:
		v = a + b
	case 0x24:
		v = a << b
	case 0x25:
		v = a >> b
	case 0x26:
		v = uint64(int64(a) >> b)
	case 0x27:
		v = a ^ b
	case 0x29:
		v = truth(a == b)
	case 0x2a:
		v = truth(!less)
	case 0x2b:
		v = truth(!less && a != b)
	case 0x2c:
		v = truth(less || a == b)
	case 0x2d:
		v = truth(less)
	case 0x2e:
		v = truth(a != b)
	}
	m.stack = append(m.stack, number{v, unsigned})
	return nil
}
