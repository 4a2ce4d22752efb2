package unwind

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/disasm"
)

// maxPrologue bounds how much of a function's start is looked at, in bytes.
const maxPrologue = 128

// maxFrameSize bounds the search for a return address, in bytes. The kernel
// warns of frames larger than 2 KiB when it is compiled.
const maxFrameSize = 4096

// prologue is what the first instructions of a function do to the stack.
type prologue struct {
	size int64 // in bytes, from the stack pointer behind them to the return address
	bp   int64 // offset from the return address at which RBP was saved, 0 if it was not
}

// nonStandard returns the caller of a function that the kernel has exempted from
// unwind data (STACK_FRAME_NON_STANDARD), as it has __crash_kexec.
//
// Only a return address behind a direct call of that very function counts. It is
// where the function's prologue says, or else the nearest one up the stack.
func (w *walker) nonStandard(s state) (state, error) {
	fn, ok := w.m.function(s.ip - 1)
	if !ok || s.signal {
		return s, errors.New("the stack's layout is not defined here")
	}
	next := s
	next.regs, next.prev, next.partial = nil, nil, false
	next.signal, next.how = false, Prologue
	found := func(at addr.Virt) bool {
		ip, err := w.word(at)
		if err != nil || !w.m.calls(ip, fn) {
			return false
		}
		next.ip, next.at, next.sp = ip, at, at+8
		return true
	}
	p := readPrologue(w.m, fn, s.ip)
	if at := s.sp.Add(p.size); found(at) {
		if p.bp != 0 {
			bp, err := w.word(at.Add(p.bp))
			next.bp, next.bpKnown = bp, err == nil
		}
		return next, nil
	}
	// It may be left over from an earlier call.
	next.bpKnown, next.guessed = false, true
	for at := s.sp; at < s.sp+maxFrameSize; at += 8 {
		if found(at) {
			return next, nil
		}
	}
	return s, fmt.Errorf("the stack's layout is not defined here, and no call of %v is found", fn)
}

// readPrologue decodes the function that starts at fn up to its first branch, or
// to the address end.
func readPrologue(m Memory, fn, end addr.Virt) prologue {
	var p prologue
	if end <= fn {
		return p
	}
	code := make([]byte, min(maxPrologue, uint64(end-fn)))
	if err := m.Read(fn, code); err != nil {
		return p
	}
	for _, in := range disasm.Func(code, fn, nil) {
		op, operands, _ := strings.Cut(in.Text, " ")
		operands = strings.TrimSpace(operands)
		switch {
		case in.Bad || strings.HasPrefix(op, "j") || op == "ret":
			return p
		case op == "push":
			p.size += 8
			if operands == "%rbp" {
				p.bp = -p.size
			}
		case op == "sub" && strings.HasSuffix(operands, ",%rsp"):
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(operands, "$"), ",%rsp"), 0, 32)
			if err != nil {
				return p
			}
			p.size += n
		}
	}
	return p
}

// isCallOf reports whether before, the five bytes before ip, is a direct call of
// fn.
func isCallOf(before [5]byte, ip, fn addr.Virt) bool {
	rel := int32(uint32(before[1]) | uint32(before[2])<<8 | uint32(before[3])<<16 | uint32(before[4])<<24)
	return before[0] == 0xe8 && ip.Add(int64(rel)) == fn
}
