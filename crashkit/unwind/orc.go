package unwind

import (
	"encoding/binary"
	"errors"
	"fmt"

	"crashlab/crashkit/addr"
)

// Memory reads the crashed kernel's virtual memory: all of b or an error.
type Memory interface {
	Read(v addr.Virt, b []byte) error
}

// ORC is the kernel's own unwind format (arch/x86/include/asm/orc_types.h, v4.14
// to v7.1; Documentation/arch/x86/orc-unwinder.rst). Two arrays of equal length,
// sorted by address: .orc_unwind_ip has for each entry the address from which it
// holds, as an int32 relative to its own place, .orc_unwind the entry itself.
const (
	orcEntrySize = 6
	orcIPSize    = 4
)

// orcFormat is one of the layouts that struct orc_entry has had. In all of them
// two int16 of offsets come first, then a byte with the two registers, and last
// a byte of flags.
type orcFormat uint8

const (
	// Flags are type:2, end:1.
	orcV1 orcFormat = iota + 1
	// Since Linux commit ffb1b4a41016 ("x86/unwind/orc: Add 'signal' field to
	// ORC metadata") (in v6.3) type:2, signal:1, end:1.
	orcV2
	// Since Linux commit fb799447ae29 ("x86,objtool: Split
	// UNWIND_HINT_EMPTY in two") (in v6.4) type:3, signal:1 with other types.
	orcV3
	// Since Linux commit 1735858caa4b (in v7.1) the registers have other numbers.
	orcV4
)

// orcReg is a register that an entry refers to.
type orcReg uint8

const (
	regUndefined  orcReg = iota // of bp: unchanged; of sp: there is no caller
	regPrevSP                   // the caller's stack pointer
	regSP                       // these give sp themselves…
	regBP                       //
	regAX                       //
	regDX                       //
	regDI                       //
	regR10                      //
	regR13                      //
	regSPIndirect               // …these the address of a word that does
	regBPIndirect               //
	regInvalid
)

// Numbers of registers before and since orcV4. The kernels just before it have
// 10 for AX ("objtool: Support Clang RAX DRAP sequence").
var (
	orcRegs   = [16]orcReg{regUndefined, regPrevSP, regDX, regDI, regBP, regSP, regR10, regR13, regBPIndirect, regSPIndirect, regAX}
	orcRegsV4 = [16]orcReg{regUndefined, regAX, regDX, regSP, regBP, regDI, regR10, regR13, regPrevSP, regSPIndirect, regBPIndirect}
)

// orcType says what lies at the address that an entry computes.
type orcType uint8

const (
	orcUndefined   orcType = iota // nothing: the stack cannot be unwound from here
	orcEnd                        // nothing: this is the outermost frame
	orcCall                       // it is the caller's sp, right above the return address
	orcRegsFull                   // a struct pt_regs
	orcRegsPartial                // the last five words of one, that the processor pushed
	orcInvalid
)

// orcEntry says how to get from one frame to its caller.
type orcEntry struct {
	spOff, bpOff int16
	spReg, bpReg orcReg
	typ          orcType
	// The instruction pointer that is found next points at an instruction that
	// was interrupted, not behind a call.
	signal bool
}

func (f orcFormat) decode(b [orcEntrySize]byte) orcEntry {
	regs := &orcRegs
	if f >= orcV4 {
		regs = &orcRegsV4
	}
	reg := func(n byte) orcReg {
		if r := regs[n]; r != regUndefined || n == 0 {
			return r
		}
		return regInvalid
	}
	e := orcEntry{
		spOff: int16(binary.LittleEndian.Uint16(b[0:])),
		bpOff: int16(binary.LittleEndian.Uint16(b[2:])),
		spReg: reg(b[4] & 0xf),
		bpReg: reg(b[4] >> 4),
		typ:   orcInvalid,
	}
	flags := b[5]
	if f >= orcV3 {
		e.signal = flags&8 != 0
		if t := orcType(flags & 7); t < orcInvalid {
			e.typ = t
		}
		return e
	}
	end := flags&4 != 0
	if f == orcV2 {
		e.signal, end = end, flags&8 != 0
	}
	switch t := flags & 3; {
	case e.spReg == regUndefined && end:
		e.typ = orcEnd
	case e.spReg == regUndefined:
		e.typ = orcUndefined
	case t < 3:
		e.typ = orcCall + orcType(t)
	}
	if f == orcV1 {
		e.signal = e.typ == orcRegsFull || e.typ == orcRegsPartial
	}
	return e
}

// orcTable is the ORC data of the kernel or of one module, in its memory.
type orcTable struct {
	mem    Memory
	ips    addr.Virt
	orcs   addr.Virt
	n      int
	format orcFormat
}

// find returns the entry that holds for the instruction at ip.
func (t *orcTable) find(ip addr.Virt) (orcEntry, error) {
	b, err := t.findRaw(ip)
	if err != nil {
		return orcEntry{}, fmt.Errorf("ORC entry of %v: %w", ip, err)
	}
	return t.format.decode(b), nil
}

var errNoORC = errors.New("no ORC data")

// findRaw finds the last entry that starts at or before ip.
func (t *orcTable) findRaw(ip addr.Virt) (b [orcEntrySize]byte, err error) {
	lo, hi := 0, t.n
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		at := t.ips + addr.Virt(orcIPSize*mid)
		var rel [orcIPSize]byte
		if err := t.mem.Read(at, rel[:]); err != nil {
			return b, err
		}
		if at.Add(int64(int32(binary.LittleEndian.Uint32(rel[:])))) <= ip {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return b, errNoORC
	}
	return t.raw(lo - 1)
}

func (t *orcTable) raw(i int) (b [orcEntrySize]byte, err error) {
	err = t.mem.Read(t.orcs+addr.Virt(orcEntrySize*i), b[:])
	return b, err
}

// detect finds out which format the table has from its content. Nearly all code
// is ordinary functions, whose entries are of type call and based on SP; that
// leaves open V1 or V2 only. These differ in the bit that marks the end of the
// stack, which entry, the first instruction of the system call entry, has.
//
// The kernel's own mark, the hash in .orc_header, is missing where vendors have
// taken format changes into older kernels, and has to be known beforehand.
func (t *orcTable) detect(entry addr.Virt) (orcFormat, error) {
	const sample = 512
	start := max(0, t.n/2-sample/2)
	n := min(t.n-start, sample)
	if n == 0 {
		return 0, errNoORC
	}
	count := map[[2]byte]int{}
	for i := range n {
		b, err := t.raw(start + i)
		if err != nil {
			return 0, err
		}
		count[[2]byte{b[4] & 0xf, b[5] & 7}]++
	}
	switch most := n / 2; {
	case count[[2]byte{5, 2}] > most:
		return orcV3, nil
	case count[[2]byte{3, 2}] > most:
		return orcV4, nil
	case count[[2]byte{5, 0}] <= most:
		return 0, fmt.Errorf("unknown format of ORC entries: %v", count)
	}
	b, err := t.findRaw(entry)
	if err != nil {
		return 0, fmt.Errorf("tell the formats of ORC entries apart by %v: %w", entry, err)
	}
	switch {
	case b[4]&0xf == 0 && b[5]&^3 == 4:
		return orcV1, nil
	case b[4]&0xf == 0 && b[5]&^3 == 8:
		return orcV2, nil
	}
	return 0, fmt.Errorf("unknown format of ORC entries: the system call entry's is %x", b)
}
