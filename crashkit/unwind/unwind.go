// Package unwind follows the stacks of a crashed x86-64 kernel exactly, with the
// ORC tables that the kernel has in its memory for itself and its modules.
//
// It does what the kernel's own unwinder does (arch/x86/kernel/unwind_orc.c), so
// that its frames are the lines without "?" of the kernel's call traces, and
// stale words on a stack are never taken for frames. In a kernel that was built with
// frame pointers instead it follows these, and finds the callers of functions that have
// not set up their own, which the kernel misses. Where neither leads on it falls back on
// the functions' code and last on a scan; every frame says how it was found.
package unwind

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/arch"
	"crashlab/crashkit/ctype"
)

// Running is a task that was on a CPU when the kernel stopped.
type Running struct {
	Task  addr.Virt // its task_struct, 0 if unknown
	CPU   int
	Regs  arch.Regs // that the CPU stopped with, from the dump's notes
	Panic bool      // the CPU brought the kernel down
}

// Unwinder unwinds stacks of one crashed kernel. It is safe for concurrent use.
type Unwinder struct {
	p       *crashkit.Program
	running []Running
	image   []textRange        // the kernel's code
	table   *orcTable          // the kernel's; nil if it has none
	orcErr  error              // why table is nil
	tracers map[addr.Virt]bool // the trampolines of tracers
	stacks  func() ([]Stack, error)
	size    uint64 // of a task's stack in bytes
	blind   bool   // the kernel's types are not known, and so its tasks are not

	mu      sync.Mutex
	modules map[*crashkit.Module]*orcTable // nil for a module without
}

// textRange is [start, end).
type textRange struct{ start, end addr.Virt }

// New returns an Unwinder of p's stacks. Running has the tasks that were on a
// CPU; the stack that such a task has in memory says nothing of where it was.
func New(p *crashkit.Program, running ...Running) (*Unwinder, error) {
	u := &Unwinder{p: p, running: running, modules: make(map[*crashkit.Module]*orcTable)}
	for _, r := range [][2]string{{"_stext", "_etext"}, {"_sinittext", "_einittext"}} {
		start, ok1 := p.Syms.Lookup(r[0])
		end, ok2 := p.Syms.Lookup(r[1])
		if ok1 && ok2 && start.Addr < end.Addr {
			u.image = append(u.image, textRange{start.Addr, end.Addr})
		}
	}
	if len(u.image) == 0 {
		return nil, errors.New("unwind: kallsyms has no _stext and _etext: cannot tell code from data")
	}
	u.tracers = make(map[addr.Virt]bool)
	for _, name := range tracerTrampolines {
		if s, ok := p.Syms.Lookup(name); ok {
			u.tracers[s.Addr] = true
		}
	}
	u.table, u.orcErr = u.kernelTable()
	u.size = u.taskStackSize()
	_, err := p.Type("struct task_struct")
	u.blind = err != nil
	u.stacks = sync.OnceValues(u.findStacks)
	return u, nil
}

// maxORCs bounds the length of a table; distributions' kernels have 400,000.
const maxORCs = 1 << 24

func (u *Unwinder) kernelTable() (*orcTable, error) {
	ips, ok1 := u.p.Syms.Lookup("__start_orc_unwind_ip")
	end, ok2 := u.p.Syms.Lookup("__stop_orc_unwind_ip")
	orcs, ok3 := u.p.Syms.Lookup("__start_orc_unwind")
	if !ok1 || !ok2 || !ok3 {
		return nil, fmt.Errorf("kallsyms has no __start_orc_unwind: %w", errNoORC)
	}
	if end.Addr <= ips.Addr || end.Addr-ips.Addr > orcIPSize*maxORCs {
		return nil, fmt.Errorf("ORC tables from %v to %v: not a sensible size", ips.Addr, end.Addr)
	}
	t := &orcTable{mem: u.p, ips: ips.Addr, orcs: orcs.Addr, n: int(end.Addr-ips.Addr) / orcIPSize}
	entry, _ := u.p.Syms.Lookup("entry_SYSCALL_64")
	var err error
	t.format, err = t.detect(entry.Addr)
	if err != nil {
		return nil, err
	}
	return t, nil
}

// moduleTable returns a module's own table, or nil if it has none.
func (u *Unwinder) moduleTable(m *crashkit.Module) *orcTable {
	u.mu.Lock()
	defer u.mu.Unlock()
	t, ok := u.modules[m]
	if !ok {
		n, err := m.Object.Member("arch.num_orcs").Uint()
		ips, err1 := m.Object.Member("arch.orc_unwind_ip").Ptr()
		orcs, err2 := m.Object.Member("arch.orc_unwind").Ptr()
		if errors.Join(err, err1, err2) == nil && n > 0 && n <= maxORCs && u.table != nil {
			t = &orcTable{mem: u.p, ips: ips, orcs: orcs, n: int(n), format: u.table.format}
		}
		u.modules[m] = t
	}
	return t
}

// Read implements Memory.
func (u *Unwinder) Read(v addr.Virt, b []byte) error { return u.p.Read(v, b) }

func (u *Unwinder) orc(ip addr.Virt) (orcEntry, error) {
	if u.inImage(ip) {
		return u.table.find(ip)
	}
	if m := u.p.ModuleAt(ip); m != nil {
		if !u.isText(ip) {
			return orcEntry{}, errNoORC
		}
		if t := u.moduleTable(m); t != nil {
			return t.find(ip)
		}
		return orcEntry{}, errNoORC
	}
	return u.ftraceORC(ip)
}

func (u *Unwinder) hasORC() bool { return u.table != nil }

// keepsFP looks at the start of a function that every kernel has.
func (u *Unwinder) keepsFP() bool {
	s, ok := u.p.Syms.Lookup("schedule")
	var b [32]byte
	return ok && u.p.Read(s.Addr, b[:]) == nil && bytes.Contains(b[:], []byte("\x55\x48\x89\xe5")) // push %rbp; mov %rsp,%rbp
}

func (u *Unwinder) inImage(v addr.Virt) bool {
	return slices.ContainsFunc(u.image, func(r textRange) bool { return v >= r.start && v < r.end })
}

func (u *Unwinder) isText(v addr.Virt) bool {
	if u.inImage(v) {
		return true
	}
	m := u.p.ModuleAt(v)
	if m == nil {
		return false
	}
	s, _, ok := m.Syms.Find(v)
	return !ok || s.Type == 't' || s.Type == 'T' || s.Type == 'w' || s.Type == 'W'
}

func (u *Unwinder) isReturn(v addr.Virt) bool {
	if !u.isText(v) {
		return false
	}
	var b [7]byte
	return u.p.Read(v-addr.Virt(len(b)), b[:]) == nil && followsCall(b[:])
}

// ErrNoStack says that a task has no stack: it is dead, and its stack was given back
// (release_task_stack in kernel/fork.c).
var ErrNoStack = errors.New("the task is dead and has no stack any more")

// Regs unwinds from a CPU's registers, whatever task it ran. The first frame is
// where they point. The error says why the end of the stack was not reached; the
// frames before are in the Trace.
func (u *Unwinder) Regs(r arch.Regs) (Trace, error) {
	return u.trace(u.walker(0), fromRegs(r))
}

// CPU unwinds the stack of what ran on a CPU, as Task does.
func (u *Unwinder) CPU(cpu int) (Trace, error) {
	for _, r := range u.running {
		if r.CPU == cpu {
			return u.fromCPU(r)
		}
	}
	return Trace{Frames: []Frame{}}, fmt.Errorf("the dump has no registers of CPU %d", cpu)
}

// Task unwinds the stack of the task whose task_struct is at task.
//
// A task that was not running is unwound from where it was switched out, another
// one from its CPU's registers. The one that brought the kernel down starts
// further in, at the call of machine_kexec, if that is found: the registers that
// kexec leaves in a dump are those of the exception. Of a dead task without stack
// the error wraps ErrNoStack.
func (u *Unwinder) Task(task addr.Virt) (Trace, error) {
	for _, r := range u.running {
		if r.Task == task {
			return u.fromCPU(r)
		}
	}
	o := u.p.ObjectAt(task, "struct task_struct")
	if on, err := o.Member("on_cpu").Uint(); err == nil && on != 0 {
		return Trace{Task: task, Frames: []Frame{}}, fmt.Errorf("task %v was running, and the dump has no registers of its CPU", task)
	}
	if stack, err := o.Member("stack").Ptr(); err == nil && stack == 0 {
		return Trace{Task: task, Frames: []Frame{}}, fmt.Errorf("task %v: %w", task, ErrNoStack)
	}
	s, err := u.switchedOut(o)
	if err != nil {
		return Trace{Task: task, Frames: []Frame{}}, fmt.Errorf("task %v: %w", task, err)
	}
	t, err := u.trace(u.walker(task), s)
	t.Saved = u.saved(o)
	return t, err
}

// saved returns the registers that a task which was switched out will get back; nil if
// they cannot be read.
func (u *Unwinder) saved(task ctype.Object) *arch.Regs {
	sp, err := task.Member("thread.sp").Ptr()
	if err != nil {
		return nil
	}
	f := u.p.ObjectAt(sp, "struct inactive_task_frame")
	var r arch.Regs
	for _, m := range []struct {
		to   *uint64
		from ctype.Object
	}{
		{&r.RBX, f.Member("bx")}, {&r.RBP, f.Member("bp")}, {&r.R12, f.Member("r12")},
		{&r.R13, f.Member("r13")}, {&r.R14, f.Member("r14")}, {&r.R15, f.Member("r15")},
	} {
		if *m.to, err = m.from.Uint(); err != nil {
			return nil
		}
	}
	return &r
}

// fromCPU unwinds the stack of a task that was on a CPU.
func (u *Unwinder) fromCPU(r Running) (Trace, error) {
	if r.Panic {
		if s, ok := u.crashPath(r); ok {
			t, err := u.trace(u.walker(r.Task), s)
			if err == nil {
				return t, nil
			}
			if short, err := u.trace(u.walker(r.Task), fromRegs(r.Regs)); err == nil {
				return short, nil
			}
			return t, err
		}
	}
	return u.trace(u.walker(r.Task), fromRegs(r.Regs))
}

func (u *Unwinder) walker(task addr.Virt) *walker {
	var own Stack
	if task != 0 {
		start, err := u.p.ObjectAt(task, "struct task_struct").Member("stack").Ptr()
		if err == nil && start != 0 {
			own = Stack{Name: "task", CPU: -1, Start: start, End: start + addr.Virt(u.size)}
		}
	}
	return newWalker(u, task, own)
}

func fromRegs(r arch.Regs) state {
	return state{
		ip: addr.Virt(r.RIP), sp: addr.Virt(r.RSP), bp: addr.Virt(r.RBP), bpKnown: true,
		signal: true, regs: &r, how: Regs,
	}
}

// switchedOut returns where a task left the CPU: struct inactive_task_frame
// (arch/x86/include/asm/switch_to.h), which __switch_to_asm has pushed.
func (u *Unwinder) switchedOut(task ctype.Object) (state, error) {
	sp, err := task.Member("thread.sp").Ptr()
	if err != nil {
		return state{}, err
	}
	f := u.p.ObjectAt(sp, "struct inactive_task_frame")
	ret := f.Member("ret_addr")
	ip, err := ret.Ptr()
	if err != nil {
		return state{}, err
	}
	bp, err := f.Member("bp").Ptr()
	if err != nil {
		return state{}, err
	}
	s := state{ip: ip, at: ret.Addr(), sp: ret.Addr() + 8, bp: bp, bpKnown: true, how: Regs}
	// A task that never ran returns to the start of ret_from_fork, not behind a call.
	_, off, ok := u.p.FindSymbol(ip)
	s.signal = ok && off == 0
	return s, nil
}

// trace walks from s and names the frames.
func (u *Unwinder) trace(w *walker, s state) (Trace, error) {
	t := Trace{Task: w.task, Frames: []Frame{}}
	if w.own.End == 0 {
		// No task is known, but maybe the one that ran there.
		for _, r := range u.running {
			if o := u.walker(r.Task); o.own.Contains(s.sp, 1) {
				w.own = o.own
			}
		}
	}
	n := 0
	var err error
	t.User, err = w.walk(s, func(s state) {
		on := s.at
		if on == 0 {
			on = s.sp
		}
		f := Frame{
			Index: -1, IP: s.ip, SP: s.sp, At: s.at, How: s.how, Stack: w.stackName(on),
			Regs: s.regs, Partial: s.partial, Reliable: !s.guessed,
		}
		if s.regs == nil {
			f.Index = n
			n++
		}
		u.name(&f, s.signal)
		t.Frames = append(t.Frames, f)
	})
	if err != nil && u.orcErr != nil {
		err = fmt.Errorf("%w (without unwind tables: %w)", err, u.orcErr)
	}
	return t, err
}

// name sets f's symbol. A return address may lie behind the end of the function
// whose last instruction is the call.
func (u *Unwinder) name(f *Frame, signal bool) {
	v, back := f.IP, uint64(1)
	if signal || v == 0 {
		back = 0
	}
	s, off, ok := u.p.FindSymbol(v - addr.Virt(back))
	if ok && u.isText(v-addr.Virt(back)) {
		f.Symbol, f.Offset, f.Size, f.Module = s.Name, off+back, s.Size, s.Module
	}
}

// crashPath returns the state at the call of machine_kexec, which never returns,
// on the stack of the task or on one of the CPU for interrupts and exceptions.
//
// The word that a call inside of machine_kexec left there is a frame of its own
// if its caller, found by the unwind data or a frame pointer beside that word, is in
// fact a call of machine_kexec.
func (u *Unwinder) crashPath(r Running) (state, bool) {
	fn, ok := u.p.Syms.Lookup("machine_kexec")
	if !ok {
		return state{}, false
	}
	all, _ := u.stacks() // those that were found
	last, _ := u.stackAt(addr.Virt(r.Regs.RSP))
	for _, stack := range append([]Stack{u.walker(r.Task).own, last}, all...) {
		if stack.CPU >= 0 && stack.CPU != r.CPU {
			continue
		}
		b := make([]byte, stack.End-stack.Start)
		if err := u.p.Read(stack.Start, b); err != nil {
			continue
		}
		for off := 0; off+8 <= len(b); off += 8 {
			ip := word(b[off:])
			if ip <= fn.Addr || uint64(ip-fn.Addr) > fn.Size || !u.isReturn(ip) {
				continue
			}
			at := stack.Start + addr.Virt(off)
			s := state{ip: ip, at: at, sp: at + 8, how: Regs}
			// With frame pointers, that one has pushed RBP next, or after RBX.
			for _, bp := range []int{off - 8, off - 16} {
				if !u.hasORC() && bp >= 0 {
					s.bp, s.bpKnown = word(b[bp:]), true
				}
				next, err := u.walker(r.Task).step(s)
				if err == nil && u.calls(next.ip, fn.Addr) {
					return s, true
				}
			}
		}
	}
	return state{}, false
}

func (u *Unwinder) function(v addr.Virt) (addr.Virt, bool) {
	s, _, ok := u.p.FindSymbol(v)
	// What the compiler has moved away from a function begins in its middle.
	return s.Addr, ok && u.isText(v) && !strings.HasSuffix(s.Name, ".cold")
}

func (u *Unwinder) calls(v, fn addr.Virt) bool {
	var before [5]byte
	return u.isText(v) && u.p.Read(v-5, before[:]) == nil && isCallOf(before, v, fn)
}

func (u *Unwinder) stackAt(v addr.Virt) (Stack, bool) {
	stacks, _ := u.stacks() // those that were found
	i, found := slices.BinarySearchFunc(stacks, v, func(s Stack, v addr.Virt) int {
		switch {
		case v < s.Start:
			return 1
		case v >= s.End:
			return -1
		}
		return cmp.Compare(0, 0)
	})
	switch {
	case found:
		return stacks[i], true
	case u.blind:
		// That of some task: their stacks lie at multiples of their size (THREAD_ALIGN).
		start := v &^ addr.Virt(u.size-1)
		var top [8]byte
		if err := u.p.Read(start+addr.Virt(u.size)-8, top[:]); err == nil {
			return Stack{Name: "task", CPU: -1, Start: start, End: start + addr.Virt(u.size)}, true
		}
	}
	return Stack{}, false
}
