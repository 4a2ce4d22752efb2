package oops

import "strings"

// titles are the first lines of reports. The first match wins.
var titles = []struct {
	prefix, contains string
	kind             string
}{
	{"BUG: kernel NULL pointer dereference", "", NullDeref},                  // x86 since v5.2
	{"BUG: unable to handle kernel NULL pointer dereference", "", NullDeref}, // x86 before
	{"Unable to handle kernel NULL pointer dereference", "", NullDeref},      // arm64, riscv
	{"BUG: unable to handle page fault", "", PageFault},                      // x86 since v5.2
	{"BUG: unable to handle kernel paging request", "", PageFault},           // x86 before
	{"Unable to handle kernel", " at virtual address", PageFault},            // arm64, riscv
	{"BUG: stack guard page was hit", "", StackGuard},                        // x86 before v5.17
	{"BUG: ", " stack guard page was hit", StackGuard},                       // since v5.17 with the stack's name
	{"Insufficient stack space to handle exception", "", StackGuard},         // arm64
	{"BUG: KASAN:", "", KASAN},
	{"BUG: KFENCE:", "", KASAN},
	{"BUG: KMSAN:", "", KASAN},
	{"UBSAN: ", "", UBSAN},
	{"list_add corruption", "", ListCorrupt},
	{"list_add double add", "", ListCorrupt},
	{"list_del corruption", "", ListCorrupt},
	{"CFI failure at ", "", CFI},
	{"kernel BUG at ", "", Bug},
	{"WARNING: CPU: ", " at ", Warn}, // before v6.19
	{"WARNING: ", ", CPU#", Warn},    // since: "WARNING: file:line at function, CPU#0: comm/pid"
	{"WARNING: possible ", "", Warn}, // lockdep
	{"WARNING: suspicious RCU usage", "", Warn},
	{"WARNING: inconsistent lock state", "", Warn},
	{"WARNING: bad unlock balance", "", Warn},
	{"watchdog: BUG: soft lockup", "", SoftLockup},
	{"BUG: soft lockup", "", SoftLockup},
	{"watchdog: ", "hard LOCKUP on cpu", HardLockup},
	{"NMI watchdog: ", "hard LOCKUP on cpu", HardLockup},
	{"INFO: task ", " for more than ", HungTask},
	{"rcu: INFO: ", " stall", RCUStall},
	{"INFO: rcu_", " stall", RCUStall},
	{"traps: PANIC: double fault", "", DoubleFault},
	{"PANIC: double fault", "", DoubleFault},
	{"BUG: ", "", Other},
}

// deaths are the first words of the line that die() prints; since Linux
// v6.11 "Oops: " stands before them.
var deaths = []struct{ prefix, kind string }{
	{"general protection fault", GPF},
	{"divide error", Div0},
	{"invalid opcode", InvalidOp},
	{"double fault", DoubleFault},
	{"stack guard page", StackGuard},
	{"kernel stack overflow", StackGuard},
	{"stack segment", GPF},
}

// titleKind returns the kind of report that line begins, and "" if it begins none.
func titleKind(line string) string {
	for _, t := range titles {
		if strings.HasPrefix(line, t.prefix) && strings.Contains(line[len(t.prefix):], t.contains) {
			return t.kind
		}
	}
	return ""
}

// deathKind returns the kind for the words before the error code of die()'s line.
func deathKind(words string) string {
	for _, d := range deaths {
		if strings.HasPrefix(words, d.prefix) {
			return d.kind
		}
	}
	return Oops
}

// panicKinds says what a message given to panic() is about, and which earlier
// reports it is the consequence of. The first match wins.
var panicKinds = []struct {
	contains string
	kind     string   // of a report that begins with this panic
	after    []string // kinds of a report that this panic ends; "#" stands for any oops
}{
	{"sysrq triggered crash", SysRq, nil},
	{"Fatal exception", Panic, []string{"#"}},
	{"Oops: ", Panic, []string{"#"}},
	{"hung_task: blocked tasks", HungTask, []string{HungTask}},
	{"softlockup: hung tasks", SoftLockup, []string{SoftLockup}},
	{"hard LOCKUP", HardLockup, []string{HardLockup}},
	{"Hard LOCKUP", HardLockup, []string{HardLockup}},
	{"RCU Stall", RCUStall, []string{RCUStall}},
	{"panic_on_warn set", Warn, []string{Warn, KASAN, UBSAN}},
	{"kasan.fault=panic set", KASAN, []string{KASAN}},
	{"kernel stack overflow", StackGuard, []string{StackGuard}},
	{"stack-protector: ", StackCorrupt, nil},
	{"corrupted stack end", StackCorrupt, nil},
	{"Machine halted.", DoubleFault, []string{DoubleFault}},
	{"Out of memory", OutOfMemory, nil},
	{"out of memory", OutOfMemory, nil},
	{"System is deadlocked on memory", OutOfMemory, nil},
	{"", Panic, nil},
}
