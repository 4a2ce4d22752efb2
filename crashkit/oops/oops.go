// Package oops turns the text that a dying Linux kernel prints into structured
// reports. It needs no dump: the records of the printk ring and a bare console
// log, with or without time stamps, serve alike.
//
// The shapes are those of arch/x86/kernel/dumpstack.c, arch/x86/mm/fault.c,
// arch/arm64/kernel/{traps,process}.c, kernel/panic.c, kernel/hung_task.c,
// kernel/watchdog.c, lib/dump_stack.c and mm/kasan/report.c, from Linux 5.4
// to 7.x. A line of an unknown shape is passed over, so lines of other
// processors in between do no harm.
package oops

import "strings"

// The kinds of a Report.
const (
	NullDeref    = "null-deref"    // an access through a null pointer
	PageFault    = "page-fault"    // an access to any other address that is not mapped or not allowed
	GPF          = "gpf"           // a general protection fault
	Bug          = "bug"           // BUG()
	Warn         = "warn"          // WARN(), lockdep
	Panic        = "panic"         // panic() for none of the reasons named here
	SysRq        = "sysrq"         // sysrq-c
	Div0         = "div0"          // a division by zero or an overflow of the quotient
	InvalidOp    = "invalid-op"    // an instruction that does not exist and is no BUG()
	DoubleFault  = "double-fault"  // a fault while delivering another one
	StackGuard   = "stack-guard"   // a kernel stack overflowed into its guard page
	StackCorrupt = "stack-corrupt" // a stack protector's canary or the stack's end marker was overwritten
	HungTask     = "hung-task"     // a task in state D for too long
	SoftLockup   = "soft-lockup"   // a processor did not schedule for too long
	HardLockup   = "hard-lockup"   // a processor took no interrupts for too long
	RCUStall     = "rcu-stall"     // a processor did not pass a quiescent state for too long
	KASAN        = "kasan"         // KASAN, KFENCE or KMSAN
	UBSAN        = "ubsan"         //
	CFI          = "cfi"           // an indirect call to a function of another type
	ListCorrupt  = "list-corrupt"  // CONFIG_DEBUG_LIST
	OutOfMemory  = "oom"           // panic_on_oom, or nothing left to kill
	Oops         = "oops"          // die() for none of the reasons named here
	Other        = "other"         // any other line that begins with "BUG: "
)

// Report is one complaint of the kernel, from its title to the end of its
// trace. A field that the text does not give has its zero value, or nil.
type Report struct {
	Kind  string `json:"kind"`  // one of the constants
	Title string `json:"title"` // the kernel's own first line about it

	Number int `json:"number"` // of "[#1]": the how-manieth oops since boot; 0 if the kernel did not die() here

	Address   *uint64 `json:"address"`    // whose access faulted; for GPF, the kernel's guess
	Access    string  `json:"access"`     // "read", "write" or "exec"
	Mode      string  `json:"mode"`       // "kernel" or "user": who made the access
	ErrorCode *uint64 `json:"error_code"` // as the processor pushed it; on arm64, ESR_EL1

	CPU     *int   `json:"cpu"`
	PID     *int   `json:"pid"`
	UID     *int   `json:"uid"` // since Linux 6.12
	Comm    string `json:"comm"`
	Tainted string `json:"tainted"` // letters, such as "OE"; "G", which says only that no proprietary module is loaded, is left out
	Release string `json:"release"` // as of uname -r

	PC        *Location         `json:"pc"`        // where the processor was: RIP, or on arm64 pc
	Registers map[string]uint64 `json:"registers"` // at PC: rax, …, r8, …, rsp, rflags, cs, ss, cr2, fs_base; on arm64: sp, pstate, x0, …
	Code      string            `json:"code"`      // the bytes around PC, the first of the instruction in <>

	CallTrace []TraceLine `json:"call_trace"` // innermost first; on x86, PC is not in it

	PanicMessage string      `json:"panic_message"` // the text given to panic(), if the complaint led there
	PanicTrace   []TraceLine `json:"panic_trace"`   // the trace printed by panic(), if it is another one than CallTrace

	Modules []string `json:"modules"` // linked in, without their flags

	// [Start, End) are the text's lines from the title to the last line
	// understood, counted from 0.
	Start int `json:"start"`
	End   int `json:"end"`
}

// Location is a place in the kernel's code as the kernel prints it.
type Location struct {
	Symbol string `json:"symbol"` // "" if the kernel found none
	Offset uint64 `json:"offset"` // from the symbol's start
	Size   uint64 `json:"size"`   // of the symbol
	Module string `json:"module"` // "" for the kernel itself
	Addr   uint64 `json:"addr"`   // given instead of the symbol
}

// TraceLine is one line of a call trace.
type TraceLine struct {
	Location
	Reliable bool   `json:"reliable"` // false for a line marked "?": an address found on the stack, perhaps a stale one
	Stack    string `json:"stack"`    // "TASK", "IRQ", "NMI", "#DF", …: the tag that it stands under; "" if there is none

	// Exception says that the line is no call but where an exception or interrupt
	// hit the kernel's code: the RIP line of the registers saved there.
	Exception bool `json:"exception"`
}

// Parse returns the reports of a log, in order of their titles. Lines end in LF or
// CRLF and may carry, in this order: a host's time stamp ("[  3.214s] ", "3.214 "), a
// syslog header or "<level>", printk's "[    5.720276]" and printk's caller "[  T350]".
func Parse(text string) []Report {
	var p parser
	i := 0
	for raw := range strings.Lines(text) {
		line, caller := strip(raw)
		p.line(i, line, caller)
		i++
	}
	reports := make([]Report, len(p.all))
	for i, b := range p.all {
		reports[i] = b.finish()
	}
	return reports
}

// Cause returns the report that brought the kernel down: the gravest, and of
// several equally grave ones the last. Its second result is false if there
// are no reports.
func Cause(reports []Report) (Report, bool) {
	best := -1
	for i := range reports {
		if best < 0 || reports[i].severity() >= reports[best].severity() {
			best = i
		}
	}
	if best < 0 {
		return Report{}, false
	}
	return reports[best], true
}

// Last returns the report of text that brought the kernel down. Its second
// result is false if the text holds no report.
func Last(text string) (Report, bool) { return Cause(Parse(text)) }

// severity ranks: a panic ends the kernel, an oops ends it if so configured, the rest
// are complaints.
func (r *Report) severity() int {
	switch {
	case r.PanicMessage != "":
		return 4
	case r.Number > 0:
		return 3
	}
	switch r.Kind {
	case HungTask, SoftLockup, RCUStall, Warn, UBSAN, Other:
		return 1
	}
	return 2
}
