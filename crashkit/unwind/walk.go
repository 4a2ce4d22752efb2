package unwind

import (
	"encoding/binary"
	"errors"
	"fmt"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/arch"
)

// maxFrames bounds a trace. A stack of 32 KiB full of return addresses has 4096.
const maxFrames = 8192

// iretOffset is the offset in struct pt_regs of the five words that the
// processor itself pushes: rip, cs, eflags, rsp, ss.
const iretOffset = arch.RegsSize - 5*8

// errEnd says that the outermost frame was reached.
var errEnd = errors.New("end of stack")

// machine is what a walk asks of the kernel that it walks in.
type machine interface {
	Memory
	// orc returns the unwind data of the instruction at ip. An error that wraps
	// errNoORC says that there is none.
	orc(ip addr.Virt) (orcEntry, error)
	// hasORC reports whether the kernel has unwind data at all.
	hasORC() bool
	// keepsFP reports whether the kernel was built to keep frame pointers.
	keepsFP() bool
	// isText reports whether v lies in the code of the kernel or of a module.
	isText(v addr.Virt) bool
	// isReturn reports whether v is in code and follows a call instruction.
	isReturn(v addr.Virt) bool
	// function returns the start of the function that v lies in.
	function(v addr.Virt) (addr.Virt, bool)
	// calls reports whether a direct call of the function at fn ends at v.
	calls(v, fn addr.Virt) bool
	// original returns where the function whose return address lies at slot
	// really returns to, if v is a trampoline that a tracer put there.
	original(task, v, slot addr.Virt) addr.Virt
	// stackAt returns the stack that v is on, other than that of a task.
	stackAt(v addr.Virt) (Stack, bool)
}

// state is a point of a walk: the registers as far as they are known.
type state struct {
	ip, sp, bp addr.Virt
	at         addr.Virt // where ip was found, 0 for registers
	bpKnown    bool
	signal     bool       // ip is of an interrupted instruction, not behind a call
	regs       *arch.Regs // all or the last five of the registers at ip, or nil
	partial    bool       // regs has the last five only
	prev       *arch.Regs // full registers of the frame before one with partial ones
	how        How
	guessed    bool // a step so far was a guess
}

// walker follows one stack.
type walker struct {
	m       machine
	task    addr.Virt
	stack   Stack // that was read last
	own     Stack // the task's
	visited map[Stack]bool
}

func newWalker(m machine, task addr.Virt, own Stack) *walker {
	return &walker{m: m, task: task, own: own, visited: make(map[Stack]bool)}
}

// walk follows the stack from s on. Emit gets each frame; the return value is
// the registers of user mode, if that is where the stack ends. The error says
// why the end was not reached, or only by a guess.
func (w *walker) walk(s state, emit func(state)) (*arch.Regs, error) {
	user, last, err := w.exact(s, maxFrames, emit)
	if err == nil {
		return user, nil
	}
	return w.scan(last, emit), err
}

// exact follows the stack from s on for at most n frames. Last is the state that it
// got to.
func (w *walker) exact(s state, n int, emit func(state)) (user *arch.Regs, last state, err error) {
	for range n {
		if s.regs != nil && s.regs.User() {
			return s.regs, s, nil
		}
		emit(s)
		next, err := w.step(s)
		if errors.Is(err, errEnd) {
			return nil, s, nil
		}
		if err != nil {
			return nil, s, fmt.Errorf("unwind from %v: %w", s.ip, err)
		}
		s = next
	}
	return nil, s, fmt.Errorf("unwind: more than %d frames", n)
}

// step returns the state of s's caller, or errEnd if it has none. It follows
// unwind_next_frame in arch/x86/kernel/unwind_orc.c.
func (w *walker) step(s state) (state, error) {
	stack := w.stack
	next, err := w.caller(s)
	if err != nil {
		return next, err
	}
	if w.stack == stack && stack.Contains(next.sp, 8) && next.sp <= s.sp {
		return next, fmt.Errorf("the stack goes from %v back to %v", s.sp, next.sp)
	}
	return next, nil
}

func (w *walker) caller(s state) (state, error) {
	if !w.m.hasORC() {
		return w.framePointer(s)
	}
	at := s.ip
	if !s.signal {
		// Behind a call that does not return may be other code.
		at--
	}
	e, err := w.m.orc(at)
	switch {
	case errors.Is(err, errNoORC) && s.signal && !w.m.isText(s.ip):
		if next, err := w.badCall(s); err == nil {
			return next, nil
		}
		return w.guess(s)
	case errors.Is(err, errNoORC):
		return w.guess(s)
	case err != nil:
		return s, err
	}
	return w.follow(s, e)
}

// badCall returns the caller of code that is none: of a function pointer that
// is NULL or garbage. Nothing has been pushed since the call.
func (w *walker) badCall(s state) (state, error) {
	next, err := w.follow(s, orcEntry{spReg: regSP, spOff: 8, typ: orcCall})
	if err == nil && !w.m.isReturn(next.ip) {
		err = fmt.Errorf("%v is no return address", next.ip)
	}
	return next, err
}

// guess returns the caller of code without unwind data, such as that generated
// for BPF: it may use a frame pointer.
func (w *walker) guess(s state) (state, error) {
	next, err := w.follow(s, orcEntry{spReg: regBP, spOff: 16, bpReg: regPrevSP, bpOff: -16, typ: orcCall})
	if err == nil && !w.m.isText(next.ip) {
		err = fmt.Errorf("%w, and the word at %v is no return address: %v", errNoORC, next.at, next.ip)
	}
	next.guessed, next.how = true, FP
	return next, err
}

// follow returns the caller of s according to e.
func (w *walker) follow(s state, e orcEntry) (state, error) {
	switch e.typ {
	case orcUndefined:
		return w.nonStandard(s)
	case orcEnd:
		return s, errEnd
	}
	next := s
	next.signal, next.how = e.signal, ORC
	cfa, err := w.base(s, e)
	if err != nil {
		return s, err
	}
	switch e.typ {
	case orcCall:
		next.at = cfa - 8
		if next.ip, err = w.word(next.at); err != nil {
			return s, err
		}
		next.ip = w.m.original(w.task, next.ip, next.at)
		next.sp = cfa
		next.regs, next.prev, next.partial = nil, nil, false
	case orcRegsFull:
		if err := w.loadRegs(&next, cfa, 0); err != nil {
			return s, err
		}
		next.prev, next.partial = nil, false
	case orcRegsPartial:
		if err := w.loadRegs(&next, cfa-iretOffset, iretOffset); err != nil {
			return s, err
		}
		// If the entry code was interrupted itself, these are its registers still.
		if s.regs != nil && !s.partial {
			next.prev = s.regs
		}
		next.partial = true
	default:
		return s, errors.New("invalid ORC type")
	}
	return next, w.callerBP(&next, s, e, cfa)
}

// base returns the address that an entry computes: the caller's stack pointer
// or the place of saved registers.
func (w *walker) base(s state, e orcEntry) (addr.Virt, error) {
	bp := func() (addr.Virt, error) {
		if !s.bpKnown {
			return 0, errors.New("RBP is not known")
		}
		return s.bp.Add(int64(e.spOff)), nil
	}
	reg := func(name string, pick func(*arch.Regs) uint64) (addr.Virt, error) {
		r := s.full()
		if r == nil {
			return 0, fmt.Errorf("%s is not known", name)
		}
		return addr.Virt(pick(r)), nil
	}
	switch e.spReg {
	case regSP:
		return s.sp.Add(int64(e.spOff)), nil
	case regBP:
		return bp()
	case regSPIndirect:
		// Until Linux commit aa3d60e05010 ("x86/unwind/orc: Change
		// REG_SP_INDIRECT") (in v5.12) the offset was added first, but it was
		// always 0.
		v, err := w.word(s.sp)
		return v.Add(int64(e.spOff)), err
	case regBPIndirect:
		v, err := bp()
		if err != nil {
			return 0, err
		}
		return w.word(v)
	case regAX:
		return reg("RAX", func(r *arch.Regs) uint64 { return r.RAX })
	case regDX:
		return reg("RDX", func(r *arch.Regs) uint64 { return r.RDX })
	case regDI:
		return reg("RDI", func(r *arch.Regs) uint64 { return r.RDI })
	case regR10:
		return reg("R10", func(r *arch.Regs) uint64 { return r.R10 })
	case regR13:
		return reg("R13", func(r *arch.Regs) uint64 { return r.R13 })
	}
	return 0, fmt.Errorf("invalid ORC register %d for RSP", e.spReg)
}

// full returns the full registers that are still valid at s, or nil.
func (s *state) full() *arch.Regs {
	if s.regs != nil && s.partial {
		return s.prev
	}
	return s.regs
}

// callerBP sets next.bp, the RBP of s's caller.
func (w *walker) callerBP(next *state, s state, e orcEntry, cfa addr.Virt) error {
	var err error
	switch e.bpReg {
	case regUndefined:
		if r := next.full(); r != nil {
			next.bp, next.bpKnown = addr.Virt(r.RBP), true
		}
		return nil
	case regPrevSP:
		next.bp, err = w.word(cfa.Add(int64(e.bpOff)))
	case regBP:
		if !s.bpKnown {
			return errors.New("RBP is not known")
		}
		next.bp, err = w.word(s.bp.Add(int64(e.bpOff)))
	default:
		return fmt.Errorf("invalid ORC register %d for RBP", e.bpReg)
	}
	next.bpKnown = err == nil
	return err
}

// loadRegs sets next to the state in the struct pt_regs at v, of which only what
// lies from offset from on is read.
func (w *walker) loadRegs(next *state, v addr.Virt, from int) error {
	var b [arch.RegsSize]byte
	if err := w.read(v.Add(int64(from)), b[from:]); err != nil {
		return err
	}
	r, err := arch.DecodeRegs(b[:])
	if err != nil {
		return err
	}
	next.regs, next.at = &r, v
	next.ip, next.sp = addr.Virt(r.RIP), addr.Virt(r.RSP)
	return nil
}

// word reads a word of a stack.
func (w *walker) word(v addr.Virt) (addr.Virt, error) {
	var b [8]byte
	err := w.read(v, b[:])
	return addr.Virt(binary.LittleEndian.Uint64(b[:])), err
}

// read reads from the current stack, or from one that was not visited before
// and becomes the current one.
func (w *walker) read(v addr.Virt, b []byte) error {
	if !w.stack.Contains(v, uint64(len(b))) {
		if err := w.enter(v, uint64(len(b))); err != nil {
			return err
		}
	}
	return w.m.Read(v, b)
}

func (w *walker) enter(v addr.Virt, n uint64) error {
	stack, ok := w.own, w.own.Contains(v, n)
	if !ok {
		stack, ok = w.m.stackAt(v)
	}
	switch {
	case !ok || !stack.Contains(v, n):
		return fmt.Errorf("%v is on no stack", v)
	case w.visited[stack]:
		return fmt.Errorf("%v is on the %s stack, which was left before", v, stack.Name)
	}
	w.stack, w.visited[stack] = stack, true
	return nil
}

// stackName returns the name of the stack that sp points into, or to the end of.
func (w *walker) stackName(sp addr.Virt) string {
	for _, v := range []addr.Virt{sp, sp - 8} {
		if w.own.Contains(v, 1) {
			return w.own.Name
		}
		if s, ok := w.m.stackAt(v); ok {
			return s.Name
		}
	}
	return ""
}
