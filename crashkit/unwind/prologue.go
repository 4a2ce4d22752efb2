package unwind

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/disasm"
)

// maxCode bounds how much of a function is looked at, in bytes.
const maxCode = 64 << 10

// maxFrameSize bounds the search for a return address, in bytes. The kernel
// warns of frames larger than 2 KiB when it is compiled.
const maxFrameSize = 4096

// layout is what a function has on the stack at one of its instructions.
type layout struct {
	size  int64 // in bytes, from the stack pointer to the return address
	bp    int64 // offset from the return address at which RBP was saved, 0 if it was not
	frame bool  // RBP points to where it was saved
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
	p, _ := layoutAt(w.m, fn, s.ip) // if it is not known, there is no call there
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

// beforeFrame returns the caller of an instruction that an exception hit in code
// which, although the kernel keeps frame pointers, has not set one up: at the start
// of a function, in one written in assembly, or where there is no code at all and only
// a call of a bad pointer led. RBP is the caller's there.
func (w *walker) beforeFrame(s state) (state, bool) {
	var l layout
	if w.m.isText(s.ip) {
		fn, ok := w.m.function(s.ip)
		if !ok {
			return s, false
		}
		if l, ok = layoutAt(w.m, fn, s.ip); !ok || l.frame {
			return s, false
		}
	}
	next := s
	next.regs, next.prev, next.partial = nil, nil, false
	next.signal, next.how = false, Prologue
	next.at = s.sp.Add(l.size)
	next.sp = next.at + 8
	ip, err := w.word(next.at)
	if err != nil || !w.m.isReturn(ip) {
		return s, false
	}
	next.ip = ip
	if l.bp != 0 {
		if next.bp, err = w.word(next.at.Add(l.bp)); err != nil {
			return s, false
		}
		next.bpKnown = true
	}
	return next, true
}

// layoutAt returns the layout at the instruction at an address of the function that
// starts at fn. It follows the code in order, and takes from each branch to what
// lies behind it the layout there; it is not known where only branches back lead.
func layoutAt(m Memory, fn, at addr.Virt) (l layout, ok bool) {
	if at < fn || at-fn > maxCode {
		return l, false
	}
	code := make([]byte, at-fn)
	if err := m.Read(fn, code); err != nil {
		return l, false
	}
	ok = true
	ahead := make(map[addr.Virt]layout)
	for _, in := range disasm.Func(code, fn, nil) {
		if known, found := ahead[in.Addr]; found {
			l, ok = known, true
		}
		if !ok {
			continue
		}
		op, operands, _ := strings.Cut(in.Text, " ")
		operands = strings.TrimSpace(operands)
		if strings.HasPrefix(op, "j") && in.Target != nil {
			ahead[*in.Target] = l
		}
		switch {
		case in.Bad, op == "jmp", op == "ret", op == "ud2":
			ok = false
		default:
			ok = l.execute(op, operands)
		}
	}
	if known, found := ahead[at]; found {
		return known, true
	}
	return l, ok
}

// execute changes the layout as an instruction does; the result is false if it is
// not known how.
func (l *layout) execute(op, operands string) bool {
	switch {
	case strings.HasPrefix(op, "push"):
		l.size += 8
		if operands == "%rbp" {
			l.bp = -l.size
		}
	case strings.HasPrefix(op, "pop") && op != "popcnt":
		if operands == "%rbp" {
			l.bp, l.frame = 0, false
		}
		l.size -= 8
	case op == "mov" && operands == "%rsp,%rbp":
		l.frame = l.bp == -l.size && l.bp != 0
	case op == "leave":
		return false
	case strings.HasSuffix(operands, ",%rsp"):
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(operands, "$"), ",%rsp"), 0, 32)
		switch {
		case err == nil && op == "sub":
			l.size += n
		case err == nil && op == "add":
			l.size -= n
		default:
			return false
		}
	}
	return l.size >= 0
}

// isCallOf reports whether before, the five bytes before ip, is a direct call of
// fn.
func isCallOf(before [5]byte, ip, fn addr.Virt) bool {
	rel := int32(uint32(before[1]) | uint32(before[2])<<8 | uint32(before[3])<<16 | uint32(before[4])<<24)
	return before[0] == 0xe8 && ip.Add(int64(rel)) == fn
}
