package unwind

import (
	"errors"
	"fmt"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/arch"
)

// framePointer returns the caller of s in a kernel built with frame pointers
// (CONFIG_UNWINDER_FRAME_POINTER, arch/x86/kernel/unwind_frame.c): RBP points at
// the caller's RBP, above which is the return address. Entry code sets the
// lowest bit of RBP where it points at a struct pt_regs instead
// (ENCODE_FRAME_POINTER).
func (w *walker) framePointer(s state) (state, error) {
	if s.signal {
		if next, ok := w.beforeFrame(s); ok {
			return next, nil
		}
	}
	next := s
	next.how, next.signal = FP, false
	next.guessed = s.guessed || !w.m.keepsFP()
	switch {
	case !s.bpKnown:
		return s, errors.New("RBP is not known")
	case s.bp == 0:
		return s, errEnd
	case s.bp&1 != 0:
		if err := w.loadRegs(&next, s.bp-1, 0); err != nil {
			return s, err
		}
		if next.regs.CS == 0 {
			// The registers that a kernel thread would have in user mode: all zero
			// (copy_thread in arch/x86/kernel/process.c).
			return s, errEnd
		}
		next.signal, next.partial, next.bp = true, false, addr.Virt(next.regs.RBP)
		return next, nil
	}
	next.regs, next.partial, next.prev = nil, false, nil
	next.at, next.sp = s.bp+8, s.bp+16
	var err error
	if next.ip, err = w.word(next.at); err != nil {
		return s, err
	}
	if next.bp, err = w.word(s.bp); err != nil {
		return s, err
	}
	next.ip = w.m.original(w.task, next.ip, next.at)
	if !w.m.isText(next.ip) {
		return s, fmt.Errorf("the word at %v is no return address: %v", next.at, next.ip)
	}
	return next, nil
}

// maxSteps bounds how many frames are looked at to find the one where a stack goes on.
const maxSteps = 4096

// scan looks for the caller of s among the words on the rest of the stack that s is on:
// the first return address from which the stack can be followed to its end, which is
// what it returns. If there is none it emits all of them. Calls that have returned leave such words
// behind, so these frames are not reliable; they are the last resort.
func (w *walker) scan(s state, emit func(state)) *arch.Regs {
	stack := w.stack
	if !stack.Contains(s.sp, 8) {
		stack = w.own
		if !stack.Contains(s.sp, 8) {
			var ok bool
			if stack, ok = w.m.stackAt(s.sp); !ok {
				return nil
			}
		}
	}
	w.stack = stack
	var all []state
	steps := maxSteps
	for v := (s.sp + 7) &^ 7; stack.Contains(v, 8); v += 8 {
		ip, err := w.word(v)
		if err != nil {
			break
		}
		if !w.m.isReturn(ip) {
			continue
		}
		c := state{ip: ip, at: v, sp: v + 8, how: Scan, guessed: true}
		if !w.m.hasORC() {
			// What that one called has pushed RBP next.
			c.bp, err = w.word(v - 8)
			c.bpKnown = err == nil
		}
		all = append(all, c)
		var rest []state
		user, _, err := newWalker(w.m, w.task, w.own).exact(c, steps, func(s state) { rest = append(rest, s) })
		if steps -= len(rest); err == nil {
			for _, s := range rest {
				emit(s)
			}
			return user
		}
	}
	for _, s := range all {
		emit(s)
	}
	return nil
}

// followsCall reports whether the bytes before, which end at an address, end
// with a call instruction: e8 with a displacement, or ff /2 with any operand.
func followsCall(before []byte) bool {
	n := len(before)
	if n >= 5 && before[n-5] == 0xe8 {
		return true
	}
	for _, size := range []int{2, 3, 4, 6, 7} {
		if n < size || before[n-size] != 0xff {
			continue
		}
		operand := before[n-size+1:]
		if operand[0]>>3&7 == 2 && operandSize(operand) == len(operand) {
			return true
		}
	}
	return false
}

// operandSize returns the length in bytes of the operand at the start of b: a
// ModRM byte and what it asks for.
func operandSize(b []byte) int {
	mod, rm := b[0]>>6, b[0]&7
	n, base := 1, rm
	if mod != 3 && rm == 4 && len(b) > 1 {
		n, base = 2, b[1]&7 // SIB
	}
	switch {
	case mod == 1:
		n++
	case mod == 2 || mod == 0 && base == 5:
		n += 4
	}
	return n
}
