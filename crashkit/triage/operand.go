package triage

import (
	"strings"

	"golang.org/x/arch/x86/x86asm"
)

// operand is an instruction's access to memory.
type operand struct {
	size    int // of the access in bytes; 0 if unknown
	store   bool
	jump    bool // the value read is where to go
	base    string
	index   string
	address uint64 // computed from the registers
	regs    []string
}

// operands returns the accesses to memory of the instruction in code, at ip,
// with the addresses that they had by the registers; nil if it is none known or a
// register is missing.
func operands(code []byte, ip uint64, regs map[string]uint64) []operand {
	in, err := x86asm.Decode(code, 64)
	if err != nil {
		return nil
	}
	var all []operand
	for i, arg := range in.Args {
		m, ok := arg.(x86asm.Mem)
		if !ok || in.Op == x86asm.LEA || in.Op == x86asm.NOP {
			continue
		}
		if m.Segment == x86asm.FS || m.Segment == x86asm.GS {
			continue // the base of the segment is in no register we have
		}
		o := operand{size: in.MemBytes, store: i == 0 && stores(in.Op)}
		if o.size == 0 {
			o.size = stringSize(in.Op)
		}
		o.jump = in.Op == x86asm.CALL || in.Op == x86asm.JMP
		o.address = uint64(m.Disp)
		if m.Base == x86asm.RIP {
			o.address = uint64(int64(int32(m.Disp))) // the decoder leaves it without a sign
		}
		for _, r := range []struct {
			reg   x86asm.Reg
			scale uint64
			name  *string
		}{{m.Base, 1, &o.base}, {m.Index, uint64(m.Scale), &o.index}} {
			if r.reg == 0 {
				continue
			}
			name := strings.ToLower(r.reg.String())
			v, ok := regs[name]
			if r.reg == x86asm.RIP {
				name, v, ok = "rip", ip+uint64(in.Len), true
			}
			if !ok {
				return nil
			}
			*r.name = name
			o.regs = append(o.regs, name)
			o.address += v * r.scale
		}
		all = append(all, o)
	}
	return all
}

// stores reports whether an instruction writes to its first operand.
func stores(op x86asm.Op) bool {
	switch op {
	case x86asm.CMP, x86asm.TEST, x86asm.BT, x86asm.PUSH, x86asm.CALL, x86asm.JMP, x86asm.MUL, x86asm.DIV, x86asm.IDIV,
		x86asm.CMPSB, x86asm.CMPSW, x86asm.CMPSD, x86asm.CMPSQ, x86asm.SCASB, x86asm.SCASW, x86asm.SCASD, x86asm.SCASQ:
		return false
	}
	return true
}

// stringSize returns the width in bytes of one step of a string instruction, 0
// for any other.
func stringSize(op x86asm.Op) int {
	switch op {
	case x86asm.MOVSB, x86asm.STOSB, x86asm.LODSB, x86asm.CMPSB, x86asm.SCASB:
		return 1
	case x86asm.MOVSW, x86asm.STOSW, x86asm.LODSW, x86asm.CMPSW, x86asm.SCASW:
		return 2
	case x86asm.MOVSD, x86asm.STOSD, x86asm.LODSD, x86asm.CMPSD, x86asm.SCASD:
		return 4
	case x86asm.MOVSQ, x86asm.STOSQ, x86asm.LODSQ, x86asm.CMPSQ, x86asm.SCASQ:
		return 8
	}
	return 0
}
