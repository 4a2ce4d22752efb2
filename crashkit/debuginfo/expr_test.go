package debuginfo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"crashlab/crashkit/addr"
)

// words is memory that has at each address the number of the address.
type words struct{}

func (words) Read(v addr.Virt, b []byte) error {
	if v >= 0x10000 {
		return &addr.Fault{Virt: v, HasVirt: true, Reason: addr.NotMapped}
	}
	var w [16]byte
	binary.LittleEndian.PutUint64(w[:], uint64(v))
	copy(b, w[:])
	return nil
}

func testEvaluator() *evaluator {
	var regs registerSet
	regs.set(regRBX, 0x1000)
	regs.set(regRSP, 0x8000)
	return &evaluator{
		regs: &regs, mem: words{},
		cfa:    func() (uint64, error) { return 0x8010, nil },
		base:   func() (uint64, error) { return 0x8010, nil },
		static: func(v uint64) uint64 { return v + 0x100 },
		addr:   func(i uint64) (uint64, bool) { return 0x500 + i, i < 4 },
		entry: func(expr []byte) (uint64, error) {
			if string(expr) == "\x54" {
				return 0x44, nil
			}
			return 0, ErrEntryValue
		},
		number: func(typ uint64) (uint64, bool, error) {
			switch typ {
			case 1:
				return 1, true, nil
			case 4:
				return 4, false, nil
			case 8:
				return 8, false, nil
			}
			return 0, false, errors.New("no such type")
		},
	}
}

// The operations as DWARF 5, 2.5 and 2.6 define them.
func TestExpressions(t *testing.T) {
	memory := func(v uint64) place { return place{kind: inMemory, addr: v} }
	known := func(v uint64) place { return place{kind: isKnown, bytes: word64(v)} }
	minus := func(n int64) uint64 { return uint64(n) }
	for _, c := range []struct {
		name string
		expr []byte
		want place
	}{
		{"addr", []byte{0x03, 0, 2, 0, 0, 0, 0, 0, 0}, memory(0x300)},
		{"fbreg -16", []byte{0x91, 0x70}, memory(0x8000)},
		{"call_frame_cfa", []byte{0x9c}, memory(0x8010)},
		{"breg7 8", []byte{0x77, 8}, memory(0x8008)},
		{"bregx 3 -1", []byte{0x92, 3, 0x7f}, memory(0xfff)},
		{"reg3", []byte{0x53}, place{kind: inRegister, reg: 3, bytes: word64(0x1000)}},
		{"regx 3", []byte{0x90, 3}, place{kind: inRegister, reg: 3, bytes: word64(0x1000)}},
		{"breg3 0, stack_value", []byte{0x73, 0, 0x9f}, known(0x1000)},
		{"breg3 8, deref", []byte{0x73, 8, 0x06}, memory(0x1008)},
		{"breg3 8, deref_size 1", []byte{0x73, 8, 0x94, 1}, memory(0x08)},
		{"lit31", []byte{0x4f, 0x9f}, known(31)},
		{"const1s -1", []byte{0x09, 0xff, 0x9f}, known(minus(-1))},
		{"const2u", []byte{0x0a, 0xff, 0xff, 0x9f}, known(0xffff)},
		{"const4s", []byte{0x0d, 0xfe, 0xff, 0xff, 0xff, 0x9f}, known(minus(-2))},
		{"constu 300", []byte{0x10, 0xac, 0x02, 0x9f}, known(300)},
		{"consts -129", []byte{0x11, 0xff, 0x7e, 0x9f}, known(minus(-129))},
		{"dup plus", []byte{0x35, 0x12, 0x22, 0x9f}, known(10)},
		{"over minus", []byte{0x35, 0x33, 0x14, 0x1c, 0x9f}, known(minus(-2))},
		{"swap div", []byte{0x32, 0x38, 0x16, 0x1b, 0x9f}, known(4)},
		{"rot", []byte{0x31, 0x32, 0x33, 0x17, 0x9f}, known(2)}, // 1 2 3 becomes 3 1 2
		{"pick 2", []byte{0x31, 0x32, 0x33, 0x15, 2, 0x9f}, known(1)},
		{"-7 div 2", []byte{0x09, 0xf9, 0x32, 0x1b, 0x9f}, known(minus(-3))},
		{"mod", []byte{0x37, 0x33, 0x1d, 0x9f}, known(1)},
		{"abs neg not", []byte{0x35, 0x1f, 0x19, 0x20, 0x9f}, known(minus(-6))},
		{"shl shra", []byte{0x09, 0xff, 0x34, 0x24, 0x31, 0x26, 0x9f}, known(minus(-8))},
		{"shr", []byte{0x48, 0x33, 0x25, 0x9f}, known(3)},
		{"xor and or", []byte{0x3f, 0x35, 0x27, 0x3c, 0x1a, 0x31, 0x21, 0x9f}, known(9)},
		{"-1 lt 0", []byte{0x09, 0xff, 0x30, 0x2d, 0x9f}, known(1)},
		{"ge", []byte{0x35, 0x35, 0x2a, 0x9f}, known(1)},
		{"gt", []byte{0x35, 0x35, 0x2b, 0x9f}, known(0)},
		{"le", []byte{0x35, 0x36, 0x2c, 0x9f}, known(1)},
		{"ne", []byte{0x35, 0x36, 0x2e, 0x9f}, known(1)},
		{"eq", []byte{0x35, 0x36, 0x29, 0x9f}, known(0)},
		{"plus_uconst", []byte{0x35, 0x23, 0x80, 0x01, 0x9f}, known(133)},
		{"bra", []byte{0x31, 0x28, 1, 0, 0x00, 0x37, 0x9f}, known(7)}, // over an invalid operation
		{"skip", []byte{0x2f, 1, 0, 0x00, 0x37, 0x9f}, known(7)},
		{"nop drop", []byte{0x96, 0x37, 0x31, 0x13, 0x9f}, known(7)},
		{"addrx", []byte{0xa1, 2}, memory(0x602)},
		{"constx", []byte{0xa2, 2, 0x9f}, known(0x502)},
		{"implicit_value", []byte{0x9e, 2, 0xaa, 0xbb}, place{kind: isKnown, bytes: []byte{0xaa, 0xbb}}},
		{"convert to u32", []byte{0x09, 0xff, 0xa8, 4, 0xa8, 0, 0x9f}, known(0xffffffff)},
		{"convert to s8", []byte{0x0a, 0x80, 0x01, 0xa8, 1, 0x9f}, known(minus(-128))},
		{"-1 lt 0 as u64", []byte{0x09, 0xff, 0xa8, 8, 0x30, 0xa8, 8, 0x2d, 0x9f}, known(0)},
		{"const_type", []byte{0xa4, 1, 1, 0xfe, 0x9f}, known(minus(-2))},
		{"regval_type", []byte{0xa5, 3, 4, 0x9f}, known(0x1000)},
		{"deref_type", []byte{0x73, 0x7f, 0xa6, 1, 1, 0x9f}, known(minus(-1))},
		{"entry_value", []byte{0xa3, 1, 0x54, 0x9f}, known(0x44)},
		{"pieces", []byte{0x53, 0x93, 4, 0x35, 0x9f, 0x93, 2}, place{kind: isKnown, bytes: []byte{0, 0x10, 0, 0, 5, 0}}},
		{"piece of memory", []byte{0x73, 0, 0x93, 2}, place{kind: isKnown, bytes: []byte{0, 0x10}}},
	} {
		got, err := testEvaluator().locate(c.expr)
		if err != nil || got.kind != c.want.kind || got.addr != c.want.addr || got.reg != c.want.reg || !bytes.Equal(got.bytes, c.want.bytes) {
			t.Errorf("%s: %+v, %v; want %+v", c.name, got, err, c.want)
		}
	}
}

func TestExpressionErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		expr []byte
		want string
	}{
		{"empty", nil, "optimized out"},
		{"entry_value", []byte{0xa3, 1, 0x55, 0x9f}, "known only when the function was called"},
		{"a register that is lost", []byte{0x50}, "RAX is not known"},
		{"a register beyond", []byte{0x90, 40}, "register 40 is not known"},
		{"an empty piece", []byte{0x93, 4}, "optimized out"},
		{"implicit_pointer", []byte{0xa0, 0, 0, 0, 0, 0}, "optimized out"},
		{"unknown operation", []byte{0x02}, "not known"},
		{"empty stack", []byte{0x22}, "too little"},
		{"cut off", []byte{0x03, 1}, "cut off"},
		{"no end", []byte{0x2f, 0xfd, 0xff}, "no end"},
		{"endless stack", []byte{0x31, 0x2f, 0xfc, 0xff}, "too much"},
		{"division by zero", []byte{0x31, 0x30, 0x1b}, "zero"},
		{"jump out", []byte{0x2f, 0xff, 0x7f}, "cut off"},
		{"two results", []byte{0x53, 0x53}, "behind its result"},
		{"no such address", []byte{0xa1, 9}, "not there"},
		{"no such type", []byte{0x31, 0xa8, 9}, "no such type"},
		{"unreadable", []byte{0x03, 0, 0, 0, 0, 0, 0, 0, 1, 0x06}, "not mapped"},
	} {
		if got, err := testEvaluator().locate(c.expr); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v; want an error with %q", c.name, got, err, c.want)
		}
	}
}

// FuzzExpression evaluates any expression.
func FuzzExpression(f *testing.F) {
	for _, s := range []string{"\x91\x70", "\x53\x93\x04\x35\x9f\x93\x02", "\x09\xff\xa8\x04\x9f", "\x31\x2f\xfc\xff", "\xa3\x01\x55\x9f"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, expr []byte) {
		p, err := testEvaluator().locate(expr)
		if (err == nil) != (p.kind != 0) {
			t.Errorf("locate = %+v, %v; want either", p, err)
		}
	})
}
