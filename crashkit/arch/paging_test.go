package arch_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/arch"
)

// memory is physical memory as 64-bit words.
type memory map[addr.Phys]uint64

func (m memory) ReadPhys(p addr.Phys, b []byte) error {
	v, ok := m[p]
	if !ok {
		return &addr.Fault{Phys: p, HasPhys: true, Reason: addr.Excluded}
	}
	binary.LittleEndian.PutUint64(b, v)
	return nil
}

const (
	present = 0x1
	huge    = 0x80
	global  = 0x100
	noExec  = 1 << 63
	cbit    = 1 << 47
)

// tables maps, below the entry 0x111 of the top level:
//
//	entry 0 of levels 3, 2, 1: 4 KiB pages
//	entry 1 of level 2: a 2 MiB page
//	entry 1 of level 3: a 1 GiB page
func tables(root addr.Phys) memory {
	const l3, l2, l1 = 0x2000, 0x3000, 0x4000
	m := memory{
		root + 0x111*8: l3 | present | noExec,
		l3 + 0*8:       l2 | present,
		l3 + 1*8:       0x80000000 | present | huge | 1<<12, // bit 12 is the PAT of a huge page
		l3 + 2*8:       0x7000 | present,                    // a table that the dump does not have
		l3 + 3*8:       0,
		l2 + 0*8:       l1 | present,
		l2 + 1*8:       0x40200000 | present | huge,
		l1 + 0*8:       0x5000 | present | noExec,
		l1 + 1*8:       0,
		l1 + 2*8:       0x000ffffffffff000&^0x6000 | global, // PROT_NONE: address inverted
		l1 + 3*8:       0x8000 | present | cbit,
		l2 + 2*8:       0x9000 | global, // not present, and no leaf
	}
	return m
}

func TestTranslate4Level(t *testing.T) {
	p := arch.Pager{Mem: tables(0x1000), Root: 0x1000, Levels: 4, CMask: cbit}
	const base = 0xffff888000000000 // entry 0x111
	for _, c := range []struct {
		v    addr.Virt
		want arch.Mapping
		why  addr.Reason
	}{
		{base + 0x123, arch.Mapping{Phys: 0x5123, Size: 4 << 10}, 0},
		{base + 0x2fff, arch.Mapping{Phys: 0x6fff, Size: 4 << 10}, 0},
		{base + 0x3000, arch.Mapping{Phys: 0x8000, Size: 4 << 10}, 0},
		{base + 0x200000 + 0x12345, arch.Mapping{Phys: 0x40212345, Size: 2 << 20}, 0},
		{base + 1<<30 + 0x1234567, arch.Mapping{Phys: 0x81234567, Size: 1 << 30}, 0},
		{base + 0x1000, arch.Mapping{}, addr.NotMapped},
		{base + 0x400000, arch.Mapping{}, addr.NotMapped},
		{base + 3<<30, arch.Mapping{}, addr.NotMapped},
		{base + 2<<30, arch.Mapping{}, addr.Excluded},
		{0, arch.Mapping{}, addr.Excluded}, // the test's root has no such entry
		{0xff11000000000000, arch.Mapping{}, addr.NotCanonical},
		{0x0000800000000000, arch.Mapping{}, addr.NotCanonical},
	} {
		got, err := p.Translate(c.v)
		if got != c.want || addr.ReasonOf(err) != c.why || (err == nil) != (c.why == 0) {
			t.Errorf("Translate(%v) = %+v, %v; want %+v, %v", c.v, got, err, c.want, c.why)
		}
		var f *addr.Fault
		if err != nil && (!errors.As(err, &f) || f.Virt != c.v) {
			t.Errorf("Translate(%v): the error %v does not name the address", c.v, err)
		}
	}
}

func TestTranslate5Level(t *testing.T) {
	m := tables(0x1000)
	m[0x10000+0x111*8] = 0x1000 | present
	p := arch.Pager{Mem: m, Root: 0x10000, Levels: 5}
	const v = 0xff11000000000000 | 0x111<<39 | 0x123
	if got, err := p.Translate(v); err != nil || got.Phys != 0x5123 {
		t.Errorf("Translate(%#x) = %+v, %v; want 0x5123", uint64(v), got, err)
	}
	if _, err := p.Translate(0xfe00000000000000); addr.ReasonOf(err) != addr.NotCanonical {
		t.Errorf("Translate of an address with wrong upper bits = %v; want NotCanonical", err)
	}
}

func TestDecodeRegs(t *testing.T) {
	b := make([]byte, arch.RegsSize)
	for i := range arch.RegsSize / 8 {
		binary.LittleEndian.PutUint64(b[8*i:], uint64(100+i))
	}
	r, err := arch.DecodeRegs(b)
	if err != nil {
		t.Fatal(err)
	}
	// Offsets of struct pt_regs as arch/x86/entry/calling.h has them.
	for _, c := range []struct {
		name string
		got  uint64
		off  uint64
	}{
		{"r15", r.R15, 0}, {"rbp", r.RBP, 4 * 8}, {"rbx", r.RBX, 5 * 8}, {"r11", r.R11, 6 * 8}, {"rax", r.RAX, 10 * 8},
		{"rcx", r.RCX, 11 * 8}, {"rdx", r.RDX, 12 * 8}, {"rsi", r.RSI, 13 * 8}, {"rdi", r.RDI, 14 * 8},
		{"orig_rax", r.OrigAX, 15 * 8}, {"rip", r.RIP, 16 * 8}, {"cs", r.CS, 17 * 8}, {"eflags", r.EFlags, 18 * 8},
		{"rsp", r.RSP, 19 * 8}, {"ss", r.SS, 20 * 8},
	} {
		if c.got != 100+c.off/8 {
			t.Errorf("%s = %d; want %d, from offset %d", c.name, c.got, 100+c.off/8, c.off)
		}
	}
	if _, err := arch.DecodeRegs(b[1:]); err == nil {
		t.Error("DecodeRegs of too few bytes gave no error")
	}
	r.CS = 0x10
	if r.User() {
		t.Error("User() with the kernel's code segment")
	}
	if r.CS = 0x33; !r.User() {
		t.Error("not User() with a user's code segment")
	}
}
