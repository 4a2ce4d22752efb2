// Package facts holds what is known about one crash as plain structs. Package
// kernel and triage fill them in; expectations are evaluated on them, reports
// and --json render them. The package imports nothing and formats nothing.
//
// Conventions: every address is a whole 64-bit number; sizes are in bytes;
// times of the log are nanoseconds since the crashed kernel's boot. The empty
// string, nil and the empty list mean "the dump does not say" unless the
// field's comment gives them another meaning.
//
// The JSON names are the names that expectations use (panic.task.comm), so a
// rename breaks scenario files.
package facts

// Facts is everything known about one crash.
type Facts struct {
	Kernel  Kernel      `json:"kernel"`
	Dump    Dump        `json:"dump"`
	Panic   Panic       `json:"panic"`
	Verdict Verdict     `json:"verdict"`
	Tasks   []Task      `json:"tasks"`   // every thread, in order of PID; the idle tasks (PID 0) first
	Modules []Module    `json:"modules"` // in the order of the kernel's list: newest first
	Log     string      `json:"log"`     // the text of Records, one per line, without time or level
	Records []LogRecord `json:"records"` // the kernel log, oldest first
}

// Kernel is the crashed kernel and the machine it ran on.
type Kernel struct {
	Release     string `json:"release"`      // as of uname -r
	Version     string `json:"version"`      // as of uname -v
	Machine     string `json:"machine"`      // as of uname -m
	Hostname    string `json:"hostname"`     // as of uname -n
	CPUs        int    `json:"cpus"`         // online at the crash
	MemoryBytes uint64 `json:"memory_bytes"` // usable RAM the kernel managed
	CommandLine string `json:"command_line"`
	KASLROffset uint64 `json:"kaslr_offset"` // distance from where the kernel was linked to where it ran
	CrashTime   int64  `json:"crash_time"`   // seconds since 1970, UTC; 0 if the dump does not say
	UptimeNS    uint64 `json:"uptime_ns"`    // time of the last log record before the crash
}

// Dump is the file the facts were read from.
type Dump struct {
	Path      string `json:"path"`
	Format    string `json:"format"` // "elf", "kdump-lzo", …
	SizeBytes uint64 `json:"size_bytes"`

	// Partial says that the dump is incomplete or damaged. Facts that depend on
	// the missing memory are absent, never guessed.
	Partial bool `json:"partial"`

	// Problems are the facts that could not be read, with the reason: one
	// sentence each.
	Problems []string `json:"problems"`
}

// Panic is the event that brought the kernel down.
type Panic struct {
	// Kind is one of the kinds of package oops, such as "null-deref",
	// "page-fault", "gpf", "bug", "panic", "sysrq", "div0", "stack-guard" and
	// "hung-task", or "" (nothing in the dump says why the kernel went down).
	Kind string `json:"kind"`

	Title   string `json:"title"`   // the kernel's own first line about it
	Message string `json:"message"` // the text given to panic(); "" if panic was not reached

	Address   *uint64 `json:"address"`    // the address whose access faulted; nil for other kinds
	Access    string  `json:"access"`     // "read", "write" or "exec"
	Mode      string  `json:"mode"`       // "kernel" or "user": who made the access
	ErrorCode *uint64 `json:"error_code"` // as the processor pushed it

	// Where the processor was: the exception's instruction pointer, or for a
	// deliberate panic the call to panic.
	Symbol string `json:"symbol"`
	Offset uint64 `json:"offset"` // from the symbol's start
	Module string `json:"module"` // "" for the kernel itself
	IP     uint64 `json:"ip"`
	Source string `json:"source"` // "file:line", if debug info is present

	Instruction Instruction `json:"instruction"` // the one at IP

	CPU  int  `json:"cpu"`
	Task Task `json:"task"` // the task that ran there

	// Frames is the stack of that task as unwound from the dump, innermost
	// first, from the frame at IP on: the exception frame, or for a deliberate
	// panic the function that called panic.
	Frames []Frame `json:"frames"`

	// CrashPath are the frames above Frames: how the kernel went on from there
	// to its end, innermost first (crash_kexec, …, asm_exc_page_fault).
	CrashPath []Frame `json:"crash_path"`

	// KernelTrace is the call trace that the crashed kernel printed itself,
	// innermost first, with its unreliable ("?") lines. The function at IP is
	// not in the trace of an exception; for a deliberate panic the trace begins
	// above it, with panic. If Blamed is another task, the trace is that one's.
	KernelTrace []TraceLine `json:"kernel_trace"`

	// PanicTrace is the trace that panic() printed after KernelTrace; empty if it
	// printed none, as when an oops ends in a panic.
	PanicTrace []TraceLine `json:"panic_trace"`

	// Blamed is the task that the kernel complained of, with its stack, where that
	// is not Task: one that hung, and another one noticed it. PID 0 for none.
	Blamed TaskStack `json:"blamed"`

	// Registers at the exception. Names are lower case: rip, rsp, rax, …,
	// rflags, cs, ss, cr2.
	Registers map[string]uint64 `json:"registers"`

	Taints       []string `json:"taints"`        // enumerators without TAINT_: "OOT_MODULE"
	TaintLetters string   `json:"taint_letters"` // one letter for each of Taints, in order: "OE"
}

// Instruction is one machine instruction.
type Instruction struct {
	Bytes []byte `json:"bytes"`
	Text  string `json:"text"` // disassembled, AT&T syntax
}

// Verdict is the automatic reading of the crash, one sentence each, for people.
type Verdict struct {
	What  string `json:"what"`  // "a write through a NULL pointer"
	Where string `json:"where"` // "hello_crash+0x11 in module nullderef"
	Why   string `json:"why"`   // "RDX, the base of the store's address, is 0"
	Whose string `json:"whose"` // "module nullderef (out of tree, unsigned)"
}

// Frame is one level of a stack that was unwound from the dump.
type Frame struct {
	Symbol    string `json:"symbol"`
	Offset    uint64 `json:"offset"` // of IP from the symbol's start
	Size      uint64 `json:"size"`   // of the symbol
	Module    string `json:"module"` // "" for the kernel itself
	IP        uint64 `json:"ip"`
	SP        uint64 `json:"sp"`        // stack pointer of this frame
	How       string `json:"how"`       // how the frame was found: "regs", "orc", "prologue", "frame-pointer", "scan"
	Source    string `json:"source"`    // "file:line", if debug info is present
	Stack     string `json:"stack"`     // that it is on, tagged as in TraceLine; "" if unknown
	Exception bool   `json:"exception"` // the frame the processor was in when the exception hit
	Reliable  bool   `json:"reliable"`  // false for a guess
}

// TraceLine is one line of a call trace that the kernel printed.
type TraceLine struct {
	Symbol   string `json:"symbol"`
	Offset   uint64 `json:"offset"`
	Size     uint64 `json:"size"`
	Module   string `json:"module"`
	Stack    string `json:"stack"`    // "TASK", "IRQ", "NMI", …: the tag it was printed under
	Reliable bool   `json:"reliable"` // false for a line marked "?"

	// Exception says that the line is no call but where an exception or interrupt
	// hit the kernel, with its registers.
	Exception bool `json:"exception"`
}

// TaskStack is a task and its stack.
type TaskStack struct {
	Task   Task    `json:"task"`
	Frames []Frame `json:"frames"` // innermost first
}

// Task is one thread.
type Task struct {
	PID      int    `json:"pid"`
	TGID     int    `json:"tgid"`
	PPID     int    `json:"ppid"`
	Comm     string `json:"comm"`
	State    string `json:"state"` // two letters as crash prints them: "RU", "IN", "UN", "ID", …
	CPU      int    `json:"cpu"`
	Running  bool   `json:"running"` // on its CPU at the crash
	Kthread  bool   `json:"kthread"`
	UID      int    `json:"uid"`
	Address  uint64 `json:"address"` // of the task_struct
	RSSBytes uint64 `json:"rss_bytes"`
	VMBytes  uint64 `json:"vm_bytes"`
}

// Module is one loaded kernel module.
type Module struct {
	Name   string   `json:"name"`
	Base   uint64   `json:"base"`   // of its text
	Size   uint64   `json:"size"`   // as /proc/modules counts it
	State  string   `json:"state"`  // "live", "coming", "going", "unformed"
	Taints []string `json:"taints"` // as in Panic
	UsedBy []string `json:"used_by"`
}

// LogRecord is one record of the kernel log.
type LogRecord struct {
	TimeNS   uint64 `json:"time_ns"`
	Level    int    `json:"level"` // 0 (emergency) to 7 (debug)
	Facility int    `json:"facility"`
	Caller   string `json:"caller"` // "T350" or "C0", if the kernel records it
	Text     string `json:"text"`   // may hold several lines
}
