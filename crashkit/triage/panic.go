package triage

import (
	"slices"
	"strings"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/arch"
	"crashlab/crashkit/disasm"
	"crashlab/crashkit/facts"
	"crashlab/crashkit/kernel"
	"crashlab/crashkit/oops"
	"crashlab/crashkit/unwind"
)

// panic fills in what brought the kernel down.
func (t *triage) panic() {
	f := &t.f.Panic
	f.Registers = map[string]uint64{}
	f.Frames, f.CrashPath, f.Blamed.Frames = []facts.Frame{}, []facts.Frame{}, []facts.Frame{}
	f.KernelTrace, f.PanicTrace = []facts.TraceLine{}, []facts.TraceLine{}

	cpu, panicked, err := kernel.PanicCPU(t.p)
	t.note(err)
	report, ok := oops.Last(t.f.Log)
	if ok && !panicked && report.PanicMessage == "" && report.Number == 0 {
		ok = false // a complaint in the log of a kernel that was alive
	}
	if ok {
		t.report(&report)
	}
	switch {
	case panicked:
		f.CPU = cpu
	case ok && report.CPU != nil:
		f.CPU = *report.CPU
	case !ok:
		return // the kernel did not crash
	}
	i := slices.IndexFunc(t.f.Tasks, func(k facts.Task) bool { return k.Running && k.CPU == f.CPU })
	if i >= 0 {
		f.Task = t.f.Tasks[i]
	} else {
		t.problem("the task that crashed is unknown: none was found running on CPU %d", f.CPU)
	}
	if i >= 0 || t.p.Types.IsEmpty() {
		t.stack(&report)
	} else {
		t.fromLog(&report)
	}
	t.code()
}

// report takes over what the kernel printed.
func (t *triage) report(r *oops.Report) {
	f := &t.f.Panic
	f.Kind, f.Title, f.Message = r.Kind, r.Title, r.PanicMessage
	f.Address, f.Access, f.Mode, f.ErrorCode = r.Address, r.Access, r.Mode, r.ErrorCode
	f.KernelTrace, f.PanicTrace = traceFacts(r.CallTrace), traceFacts(r.PanicTrace)
	if len(f.KernelTrace) == 0 {
		f.KernelTrace, f.PanicTrace = f.PanicTrace, f.KernelTrace
	}
}

func traceFacts(lines []oops.TraceLine) []facts.TraceLine {
	list := []facts.TraceLine{}
	for _, l := range lines {
		list = append(list, facts.TraceLine{
			Symbol: l.Symbol, Offset: l.Offset, Size: l.Size, Module: l.Module, Stack: l.Stack, Reliable: l.Reliable, Exception: l.Exception,
		})
	}
	return list
}

// stack unwinds the stack of the task that crashed and finds on it where.
func (t *triage) stack(r *oops.Report) {
	f := &t.f.Panic
	var frames []unwind.Frame
	u, _, err := kernel.Unwinder(t.p)
	t.note(err)
	if u != nil {
		var trace unwind.Trace
		if f.Task.Address != 0 {
			trace, err = u.Task(addr.Virt(f.Task.Address))
		} else {
			trace, err = u.CPU(f.CPU)
		}
		t.note(err)
		frames = trace.Frames
		t.blamed(u, r)
	}
	at := crashFrame(frames, r)
	if at < 0 {
		// The stack cannot say where it was. The log may.
		t.fromLog(r)
		for i := range frames {
			f.Frames = append(f.Frames, frameFacts(&frames[i]))
		}
		if len(frames) > 0 && r.PC != nil {
			t.problem("the stack of the task that crashed does not lead to %s+%#x, where the kernel says it was", r.PC.Symbol, r.PC.Offset)
		}
		return
	}
	for i := range frames[:at] {
		f.CrashPath = append(f.CrashPath, frameFacts(&frames[i]))
	}
	for i := range frames[at:] {
		f.Frames = append(f.Frames, frameFacts(&frames[at+i]))
	}
	here := &frames[at]
	f.Symbol, f.Offset, f.Module, f.IP = here.Symbol, here.Offset, here.Module, uint64(here.IP)
	if here.Symbol == "" && r.PC != nil {
		// The modules are not known, but the kernel knew them.
		f.Symbol, f.Offset, f.Module = r.PC.Symbol, r.PC.Offset, r.PC.Module
	}
	if here.Regs != nil {
		f.Registers = registers(here.Regs, here.Partial)
		if f.Address != nil && (f.Kind == oops.NullDeref || f.Kind == oops.PageFault) {
			// The kernel reads CR2 first thing and prints it as this.
			f.Registers["cr2"] = *f.Address
		}
		t.compare(r)
	}
}

// blamed unwinds the stack of the task that the kernel complained of, if another
// one panicked.
func (t *triage) blamed(u *unwind.Unwinder, r *oops.Report) {
	f := &t.f.Panic
	if r.Kind != oops.HungTask || r.PID == nil || *r.PID == f.Task.PID {
		return
	}
	i := slices.IndexFunc(t.f.Tasks, func(k facts.Task) bool { return k.PID == *r.PID })
	if i < 0 {
		t.problem("the task that hung, PID %d, is not among the tasks", *r.PID)
		return
	}
	f.Blamed.Task = t.f.Tasks[i]
	trace, err := u.Task(addr.Virt(f.Blamed.Task.Address))
	t.note(err)
	for i := range trace.Frames {
		f.Blamed.Frames = append(f.Blamed.Frames, frameFacts(&trace.Frames[i]))
	}
}

// crashFrame returns the index of the frame that crashed: the exception that the
// log tells of, else the caller of panic, else the first exception; -1 if
// there is none.
func crashFrame(frames []unwind.Frame, r *oops.Report) int {
	exception := -1
	for i := range frames {
		fr := &frames[i]
		if !fr.Exception() {
			continue
		}
		if exception < 0 {
			exception = i
		}
		if r.PC != nil && (fr.Symbol == r.PC.Symbol && fr.Offset == r.PC.Offset ||
			fr.Symbol == "" && (uint64(fr.IP) == r.PC.Addr || fr.Regs.RSP == r.Registers["rsp"])) {
			return i
		}
	}
	if r.PC != nil && r.Mode != "user" {
		return -1
	}
	for i := range frames {
		// vpanic is called by panic, and panic by nmi_panic.
		if isPanic(frames[i].Symbol) && i+1 < len(frames) && !isPanic(frames[i+1].Symbol) {
			return i + 1
		}
	}
	return exception
}

// isPanic reports whether a function is one of those that end the kernel.
func isPanic(symbol string) bool {
	switch strings.TrimSuffix(symbol, ".cold") {
	case "panic", "nmi_panic", "vpanic":
		return true
	}
	return false
}

func frameFacts(u *unwind.Frame) facts.Frame {
	return facts.Frame{
		Symbol: u.Symbol, Offset: u.Offset, Size: u.Size, Module: u.Module, IP: uint64(u.IP), SP: uint64(u.SP),
		How: string(u.How), Stack: stackTag(u.Stack), Exception: u.Exception(), Reliable: u.Reliable,
	}
}

// stackTag returns the tag that the kernel prints for a stack (stack_type_name in
// arch/x86/kernel/dumpstack_64.c).
func stackTag(name string) string {
	switch name {
	case "task", "irq":
		return strings.ToUpper(name)
	case "entry":
		return "ENTRY_TRAMPOLINE"
	case "DF", "DB", "VC", "VC2":
		return "#" + name
	case "MCE":
		return "#MC"
	}
	return name
}

// registers names the registers as the facts do.
func registers(r *arch.Regs, partial bool) map[string]uint64 {
	m := map[string]uint64{"rip": r.RIP, "cs": r.CS, "rflags": r.EFlags, "rsp": r.RSP, "ss": r.SS}
	if !partial {
		for name, v := range map[string]uint64{
			"rax": r.RAX, "rbx": r.RBX, "rcx": r.RCX, "rdx": r.RDX, "rsi": r.RSI, "rdi": r.RDI, "rbp": r.RBP,
			"r8": r.R8, "r9": r.R9, "r10": r.R10, "r11": r.R11, "r12": r.R12, "r13": r.R13, "r14": r.R14, "r15": r.R15,
		} {
			m[name] = v
		}
	}
	return m
}

// compare checks the registers on the stack against those that the kernel printed.
func (t *triage) compare(r *oops.Report) {
	for _, name := range []string{"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"} {
		printed, ok1 := r.Registers[name]
		found, ok2 := t.f.Panic.Registers[name]
		if ok1 && ok2 && printed != found {
			t.problem("%s was %#x by the kernel's log and is %#x on the stack", name, printed, found)
		}
	}
}

// fromLog takes the place of the crash and the registers from the log.
func (t *triage) fromLog(r *oops.Report) {
	f := &t.f.Panic
	if r.Registers != nil {
		f.Registers = r.Registers
	}
	pc := r.PC
	if pc == nil {
		return
	}
	f.Symbol, f.Offset, f.Module, f.IP = pc.Symbol, pc.Offset, pc.Module, pc.Addr
	name := pc.Symbol
	if pc.Module != "" {
		name = pc.Module + ":" + pc.Symbol
	}
	if s, ok := t.p.Symbol(name); ok && f.IP == 0 {
		f.IP = uint64(s.Addr) + pc.Offset
	}
}

// code reads the instruction at IP; behind a call of panic, that call.
func (t *triage) code() {
	f := &t.f.Panic
	if f.IP == 0 || f.Access == "exec" {
		return
	}
	at := addr.Virt(f.IP)
	if len(f.Frames) > 0 && !f.Frames[0].Exception && f.Frames[0].IP == f.IP {
		at -= callSize
	}
	var code [disasm.MaxLen]byte
	n := t.readable(at, code[:])
	in, err := disasm.Decode(code[:n], at, t.symbolize)
	if err != nil || in.Bad {
		if n == 0 {
			t.problem("the code at %v, where it crashed, is not in the dump", at)
		}
		return
	}
	f.Instruction = facts.Instruction{Bytes: in.Bytes, Text: in.Text}
}

// callSize is the size in bytes of a call of a function by name.
const callSize = 5

// readable fills b from v as far as memory can be read and returns how far.
func (t *triage) readable(v addr.Virt, b []byte) int {
	if t.p.Read(v, b) == nil {
		return len(b)
	}
	for n := len(b) - 1; n > 0; n-- {
		if t.p.Read(v, b[:n]) == nil {
			return n
		}
	}
	return 0
}

func (t *triage) symbolize(v addr.Virt) (string, uint64, bool) {
	if t.p == nil {
		return "", 0, false
	}
	s, off, ok := t.p.FindSymbol(v)
	return s.Name, off, ok
}
