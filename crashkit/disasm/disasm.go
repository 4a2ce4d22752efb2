// Package disasm disassembles x86-64 kernel code into AT&T syntax, spelled as
// GNU binutils 2.40 spells it and laid out as gdb and crash lay it out.
//
// The decoder is golang.org/x/arch/x86/x86asm. It does not know every
// instruction a kernel executes (extra.go holds the rest) and its text differs
// from that of binutils in many small ways (att.go rewrites it).
package disasm

import (
	"errors"
	"fmt"

	"golang.org/x/arch/x86/x86asm"

	"crashlab/crashkit/addr"
)

// MaxLen is the length in bytes of the longest x86 instruction.
const MaxLen = 15

// ErrTruncated says that the code ends before its instruction does.
var ErrTruncated = errors.New("code ends inside an instruction")

// Symbolizer names the function or object that covers v. Off is the distance in
// bytes of v from its start.
type Symbolizer func(v addr.Virt) (name string, off uint64, ok bool)

// Inst is one decoded instruction.
type Inst struct {
	Addr  addr.Virt
	Len   int    // in bytes, 1 where Bad
	Bytes []byte // the instruction's own bytes; shares memory with the code given
	Text  string // without address, such as "mov    %rax,0x10(%rbx)"

	// Target is the address a direct branch goes to, or the one that a
	// %rip-relative operand names; nil if the instruction has neither.
	Target *addr.Virt

	Bad bool // the bytes are no instruction known here; Text is "(bad)"
}

// Decode decodes the instruction at the start of code, which lies at address
// pc. Sym names the addresses in the text and may be nil. Bytes that are no
// instruction give a one byte Inst with Bad set; the only error is
// ErrTruncated.
func Decode(code []byte, pc addr.Virt, sym Symbolizer) (Inst, error) {
	padded := code
	if len(code) < MaxLen {
		// X86asm does not tell an instruction cut off from none at all.
		padded = append(make([]byte, 0, MaxLen), code...)[:MaxLen]
	}
	in, name, ok := decode(padded)
	if len(code) == 0 || in.Len > len(code) {
		return Inst{}, fmt.Errorf("disassemble %v: %w", pc, ErrTruncated)
	}
	if !ok {
		return bad(code, pc), nil
	}
	out := Inst{Addr: pc, Len: in.Len, Bytes: code[:in.Len:in.Len]}
	out.Target = target(&in, pc)
	out.Text = text(&in, name, out.Bytes)
	if out.Target != nil {
		if ripRelative(&in) {
			out.Text += "        # "
		}
		out.Text += Location(*out.Target, sym)
	}
	return out, nil
}

func bad(code []byte, pc addr.Virt) Inst {
	return Inst{Addr: pc, Len: 1, Bytes: code[:1:1], Text: "(bad)", Bad: true}
}

// Func decodes all of code, which lies at address pc. An instruction cut off by
// the end of code is given as its single bytes, each Bad.
func Func(code []byte, pc addr.Virt, sym Symbolizer) []Inst {
	insts := make([]Inst, 0, len(code)/4)
	for len(code) > 0 {
		in, err := Decode(code, pc, sym)
		if err != nil {
			break
		}
		insts = append(insts, in)
		code, pc = code[in.Len:], pc.Add(int64(in.Len))
	}
	for ; len(code) > 0; code, pc = code[1:], pc+1 {
		insts = append(insts, bad(code, pc))
	}
	return insts
}

// Location returns v as a branch target is printed, such as
// "0xffffffff81012340 <do_foo+16>". Without a name it is the bare address.
func Location(v addr.Virt, sym Symbolizer) string {
	if sym != nil {
		if name, off, ok := sym(v); ok && off == 0 {
			return fmt.Sprintf("%v <%s>", v, name)
		} else if ok {
			return fmt.Sprintf("%v <%s+%d>", v, name, off)
		}
	}
	return v.String()
}

// IsFtraceNop reports whether in is the five byte no-op that ftrace puts in
// place of a call, which crash marks "[FTRACE NOP]" at the start of a function.
func (in Inst) IsFtraceNop() bool {
	return string(in.Bytes) == "\x0f\x1f\x44\x00\x00"
}

// target returns the address that in refers to relative to its own, if any.
func target(in *x86asm.Inst, pc addr.Virt) *addr.Virt {
	next := pc.Add(int64(in.Len))
	for _, a := range in.Args {
		switch a := a.(type) {
		case x86asm.Rel:
			v := next.Add(int64(a))
			return &v
		case x86asm.Mem:
			if a.Base == x86asm.RIP {
				v := next.Add(a.Disp)
				return &v
			}
		}
	}
	return nil
}

func ripRelative(in *x86asm.Inst) bool {
	for _, a := range in.Args {
		if m, ok := a.(x86asm.Mem); ok && m.Base == x86asm.RIP {
			return true
		}
	}
	return false
}
