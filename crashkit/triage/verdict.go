package triage

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/facts"
	"crashlab/crashkit/kernel"
	"crashlab/crashkit/oops"
)

// nullPage bounds the addresses that count as NULL plus an offset, as the kernel
// does when it says "NULL pointer dereference".
const nullPage = 4096

// verdict puts what was found into words.
func (t *triage) verdict() {
	f := &t.f.Panic
	if f.Kind == "" && f.IP == 0 {
		return
	}
	t.f.Verdict = facts.Verdict{What: t.what(), Where: t.where(), Why: t.why(), Whose: t.whose()}
}

// whats are the kinds that need no more words.
var whats = map[string]string{
	oops.GPF:          "an access to memory or to the processor's state that the processor does not allow",
	oops.Warn:         "a warning on a kernel told to panic on warnings",
	oops.Div0:         "a division by zero",
	oops.InvalidOp:    "an invalid instruction",
	oops.DoubleFault:  "a fault while another one was being delivered",
	oops.StackGuard:   "a kernel stack that grew out of its bounds",
	oops.StackCorrupt: "a kernel stack whose guard value was overwritten",
	oops.HungTask:     "a task that waited too long without being woken",
	oops.SoftLockup:   "a processor that ran kernel code too long without scheduling",
	oops.HardLockup:   "a processor that took no interrupts for too long",
	oops.RCUStall:     "a processor or task that held up RCU for too long",
	oops.KASAN:        "an invalid memory access found by a sanitizer",
	oops.UBSAN:        "undefined behaviour found by a sanitizer",
	oops.CFI:          "an indirect call of a function of another type",
	oops.ListCorrupt:  "a corrupted list",
	oops.OutOfMemory:  "no memory left, and nothing to kill",
	oops.Oops:         "an exception in kernel mode",
}

func (t *triage) what() string {
	f := &t.f.Panic
	switch f.Kind {
	case oops.SysRq:
		return "a deliberate crash: sysrq-c by " + taskName(f.Task)
	case oops.Bug:
		return "a BUG(), by which the code says that it found a state that must not be"
	case oops.NullDeref:
		if o := t.faulting(); o != nil && isErrno(f.Registers[o.base]) && o.base != "" {
			return t.access() + " through a pointer that is an error code"
		}
		what := t.access() + " through a NULL pointer"
		if f.Access == "exec" {
			what = "a jump to a NULL pointer"
		}
		if f.Address != nil && *f.Address > 0 && f.Access != "exec" {
			what += fmt.Sprintf(", %#x bytes from where it points", *f.Address)
		}
		return what
	case oops.PageFault:
		if f.Address == nil {
			return t.access() + " that no page allows"
		}
		state := "which is not mapped"
		if *f.Address>>63 == 0 {
			state = "an address of user space"
		}
		if f.ErrorCode != nil && *f.ErrorCode&1 != 0 { // X86_PF_PROT
			state = "which is mapped but does not allow it"
		}
		return fmt.Sprintf("%s at %#x, %s", t.access(), *f.Address, state)
	case oops.GPF:
		if o := t.faulting(); o != nil {
			return fmt.Sprintf("%s through a pointer that is no address, %#x", t.access(), o.address)
		}
	case oops.Panic, oops.Other, "":
		if unknownNMI(f) {
			return "an NMI that nobody claimed, such as the NMI button sends, on a kernel told to panic on it"
		}
		if initExit(f.Message) {
			return "the end of process 1, without which there is no user space"
		}
		if f.Message != "" {
			return "a panic: " + f.Message
		}
		return "a panic"
	}
	what := whats[f.Kind]
	if what == "" {
		what = "a crash of kind " + f.Kind
	}
	if f.Title != "" {
		what += ": " + f.Title
	}
	return what
}

// access is the access that faulted, with its width where the instruction tells.
func (t *triage) access() string {
	access, o := t.f.Panic.Access, t.faulting()
	if access == "" && o != nil {
		access = "read"
		if o.store {
			access = "write"
		}
	}
	name := map[string]string{"read": "a read", "write": "a write", "exec": "a jump"}[access]
	switch {
	case name == "":
		name = "an access"
	case o == nil || o.size == 0 || access == "exec":
	case o.size == 1:
		name += " of 1 byte"
	default:
		name += fmt.Sprintf(" of %d bytes", o.size)
	}
	return name
}

// faulting returns the operand of the instruction that accessed the faulting
// address, and nil if none did.
func (t *triage) faulting() *operand {
	f := &t.f.Panic
	for _, o := range operands(f.Instruction.Bytes, f.IP, f.Registers) {
		switch {
		case f.Address != nil && *f.Address >= o.address && *f.Address-o.address < uint64(max(o.size, 1)):
			return &o
		case f.Kind == oops.GPF && !canonical(o.address):
			return &o
		}
	}
	return nil
}

// canonical reports whether an address has the upper bits of one of a processor
// with 5-level paging.
func canonical(v uint64) bool { return uint64(int64(v<<7)>>7) == v }

func (t *triage) where() string {
	f := &t.f.Panic
	if _, fr := t.waiting(); fr != nil {
		where := fmt.Sprintf("%s+%#x", fr.Symbol, fr.Offset)
		if fr.Module != "" {
			where += " in module " + fr.Module
		}
		return where + ", where " + taskName(f.Blamed.Task) + " waits"
	}
	where := fmt.Sprintf("%#x", f.IP)
	if f.Symbol != "" {
		where = fmt.Sprintf("%s+%#x", f.Symbol, f.Offset)
	}
	if f.Module != "" {
		where += " in module " + f.Module
	}
	if f.Source != "" {
		where += " (" + f.Source + ")"
	}
	if f.Symbol == "" && f.IP == 0 && f.Access != "exec" {
		return ""
	}
	return where
}

// waiting returns the function by which the task that hung went to sleep, and
// the frame of the one that called it; nil if there is no such task.
func (t *triage) waiting() (by string, caller *facts.Frame) {
	if t.p == nil {
		return "", nil
	}
	start, ok1 := t.p.Syms.Lookup("__sched_text_start")
	end, ok2 := t.p.Syms.Lookup("__sched_text_end")
	if !ok1 || !ok2 {
		return "", nil
	}
	for i, fr := range t.f.Panic.Blamed.Frames {
		if ip := addr.Virt(fr.IP); fr.Symbol != "" && (ip < start.Addr || ip >= end.Addr) {
			return by, &t.f.Panic.Blamed.Frames[i]
		}
		by = fr.Symbol
	}
	return "", nil
}

func (t *triage) why() string {
	f := &t.f.Panic
	if by, fr := t.waiting(); by != "" {
		return fmt.Sprintf("%s sleeps in %s, called by %s+%#x", taskName(f.Blamed.Task), by, fr.Symbol, fr.Offset)
	}
	switch f.Kind {
	case oops.SysRq:
		return "it was asked for through " + asker(f.Frames)
	case oops.NullDeref, oops.PageFault, oops.GPF:
		if f.Access == "exec" {
			return t.whyJump()
		}
		return t.whyAccess()
	case oops.Bug, oops.Warn:
		if m := sourceLine.FindStringSubmatch(f.Title); m != nil {
			return "the check at " + m[1] + " failed"
		}
	case oops.Div0, oops.InvalidOp:
		if f.Instruction.Text != "" {
			return fmt.Sprintf("the processor was at `%s`", words(f.Instruction.Text))
		}
	case oops.StackGuard:
		return recursion(f.Frames)
	}
	if initExit(f.Message) {
		return fmt.Sprintf("%s %s", taskName(f.Task), exitWords(f.Message))
	}
	if f.Message != "" && f.Symbol != "" && len(f.Registers) == 0 {
		return fmt.Sprintf("%s called panic: %q", f.Symbol, f.Message)
	}
	return ""
}

// unknownNMI reports whether panic was called because of an NMI without a known reason
// (unknown_nmi_error in arch/x86/kernel/nmi.c).
func unknownNMI(f *facts.Panic) bool {
	return f.Message == "NMI: Not continuing" && strings.HasPrefix(f.Symbol, "unknown_nmi_error")
}

// initExit reports whether panic was called because process 1 ended (do_exit in
// kernel/exit.c).
func initExit(message string) bool { return strings.HasPrefix(message, "Attempted to kill init!") }

// exitWords puts an exit code, as of wait(2), into words.
func exitWords(message string) string {
	_, digits, _ := strings.Cut(message, "exitcode=0x")
	code, err := strconv.ParseUint(digits, 16, 32)
	switch {
	case err != nil:
		return "ended"
	case code&0x7f != 0:
		return fmt.Sprintf("was killed by signal %d", code&0x7f)
	}
	return fmt.Sprintf("exited with status %d", code>>8)
}

// sourceLine finds the place of a BUG() or a WARN() in its title.
var sourceLine = regexp.MustCompile(`(\S+\.[chS]:\d+)`)

// recursion names the function that fills the stack by calling itself, if one does.
func recursion(frames []facts.Frame) string {
	const many = 5
	count := make(map[string]int)
	most := ""
	for _, fr := range frames {
		if count[fr.Symbol]++; fr.Symbol != "" && count[fr.Symbol] > count[most] {
			most = fr.Symbol
		}
	}
	if count[most] < many {
		return ""
	}
	return fmt.Sprintf("%s is on the stack %d times: it calls itself without end", most, count[most])
}

// asker is the way by which someone asked for a crash.
func asker(frames []facts.Frame) string {
	for _, fr := range frames {
		if fr.Symbol == "write_sysrq_trigger" {
			return "/proc/sysrq-trigger"
		}
	}
	return "the system request key"
}

// whyAccess explains a faulting address by the registers it was made of.
func (t *triage) whyAccess() string {
	f := &t.f.Panic
	o := t.faulting()
	if o == nil {
		return ""
	}
	verb := "load"
	switch {
	case o.jump:
		verb = "indirect jump"
	case o.store:
		verb = "store"
	}
	insn := words(f.Instruction.Text)
	culprit, role := o.base, "base of the address"
	switch {
	case len(o.regs) == 0:
		why := fmt.Sprintf("the address %s is a constant in the %s `%s`", number(o.address), verb, insn)
		if o.address < nullPage {
			why += ": the compiler knew that the pointer is always NULL"
		}
		return why
	case o.base == "rip":
		name := "a variable"
		if s, _, ok := t.symbolize(addr.Virt(o.address)); ok {
			name = s
		}
		return fmt.Sprintf("the %s `%s` is of %s itself", verb, insn, name)
	case o.base == "" || o.index != "" && pointer(f.Registers[o.base]) && !small(f.Registers[o.index]):
		culprit, role = o.index, "index into the address"
	}
	v := f.Registers[culprit]
	if v == o.address {
		role = "address"
	}
	why := fmt.Sprintf("%s, the %s of the %s `%s`, is %s", strings.ToUpper(culprit), role, verb, insn, number(v))
	if p := poison(v); p != "" {
		why += ": " + p
	}
	return why
}

// pointer reports whether v looks like a pointer into the kernel.
func pointer(v uint64) bool { return canonical(v) && v>>63 == 1 && v < ^uint64(nullPage) }

// small reports whether v looks like an index into an array, perhaps a negative one.
func small(v uint64) bool {
	const most = 1 << 20
	return v < most || -v < most
}

func number(v uint64) string {
	if v < 10 {
		return fmt.Sprint(v)
	}
	return fmt.Sprintf("%#x", v)
}

// poison says what a value that the kernel writes on purpose means
// (include/linux/poison.h).
func poison(v uint64) string {
	const delta = 0xdead000000000000 // CONFIG_ILLEGAL_POINTER_VALUE of x86-64
	switch {
	case v-delta-0x100 < 0x22:
		return "LIST_POISON1, the next pointer of an entry that was taken off its list"
	case v-delta-0x122 < 0x100:
		return "LIST_POISON2, the previous pointer of an entry that was taken off its list"
	}
	for _, c := range []struct {
		pattern uint64
		meaning string
	}{
		{0x6b6b6b6b6b6b6b6b, "the pattern of freed slab memory"},
		{0x5a5a5a5a5a5a5a5a, "the pattern of slab memory that was never written"},
		{0xaaaaaaaaaaaaaaaa, "the pattern of freed pages"},
		{0xcccccccccccccccc, "the pattern of freed init memory"},
	} {
		// An offset may have been added.
		if v-c.pattern < nullPage {
			return c.meaning
		}
	}
	if isErrno(v) {
		return fmt.Sprintf("an error code, %d, taken for a pointer", int64(v))
	}
	return ""
}

// isErrno reports whether v is an error code as ERR_PTR makes it a pointer
// (include/linux/err.h).
func isErrno(v uint64) bool {
	const maxErrno = 4095
	return -v-1 < maxErrno
}

// whyJump explains that the processor was sent to where there is no code.
func (t *triage) whyJump() string {
	for _, fr := range t.f.Panic.Frames {
		if fr.Symbol != "" && !fr.Exception {
			return fmt.Sprintf("%s+%#x called a function through a pointer that holds %s", fr.Symbol, fr.Offset, number(t.f.Panic.IP))
		}
	}
	return ""
}

// words puts the columns of a disassembled instruction into running text.
func words(insn string) string {
	insn, _, _ = strings.Cut(insn, "        #")
	return strings.Join(strings.Fields(insn), " ")
}

func (t *triage) whose() string {
	f := &t.f.Panic
	if f.Kind == oops.SysRq {
		return fmt.Sprintf("nobody's: %s asked for it", taskName(f.Task))
	}
	if unknownNMI(f) {
		return "nobody's: it was asked for from outside, or hardware complained"
	}
	if initExit(f.Message) {
		return "user space's: " + taskName(f.Task)
	}
	if f.Module != "" {
		return t.module(f.Module)
	}
	frames := f.Frames
	switch {
	case f.Blamed.Task.PID != 0:
		frames = f.Blamed.Frames
	case f.Access == "exec" && f.Symbol == "" && len(frames) > 1 && frames[1].Module != "":
		return t.module(frames[1].Module) // that called nowhere
	}
	for _, fr := range frames {
		if fr.Module != "" {
			return "the kernel's own code, called by " + t.module(fr.Module)
		}
	}
	return "the kernel's own code"
}

// module names a module and where it comes from.
func (t *triage) module(name string) string {
	i := slices.IndexFunc(t.mods, func(m kernel.Module) bool { return m.Name == name })
	if i < 0 {
		return "module " + name
	}
	origin := []string{}
	for _, taint := range t.mods[i].Taints {
		if text := origins[taint.Name]; text != "" {
			origin = append(origin, text)
		}
	}
	if len(origin) == 0 {
		origin = append(origin, "from the kernel's own tree")
	}
	return fmt.Sprintf("module %s (%s)", name, strings.Join(origin, ", "))
}

// origins are what a module's taints say of where it comes from.
var origins = map[string]string{
	"PROPRIETARY_MODULE": "proprietary",
	"OOT_MODULE":         "out of tree",
	"CRAP":               "staging",
	"UNSIGNED_MODULE":    "unsigned",
	"FORCED_MODULE":      "loaded by force",
	"LIVEPATCH":          "a live patch",
	"TEST":               "a test",
}

func taskName(k facts.Task) string {
	if k.Comm == "" {
		return "a task unknown"
	}
	return fmt.Sprintf("task %s (PID %d)", k.Comm, k.PID)
}
