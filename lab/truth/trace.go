package truth

import (
	"cmp"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/kernel"
	"crashlab/crashkit/oops"
	"crashlab/crashkit/unwind"
)

// traces compares the unwound stacks with the lines, except those marked "?", of
// the traces that the kernel printed when it died: functions, offsets, the stacks
// they are on and the places that interrupts and exceptions hit.
func (c *comparison) traces(console string) {
	report, ok := oops.Last(console)
	if !ok || len(report.CallTrace)+len(report.PanicTrace) == 0 {
		// What is printed in an NMI and the like waits in the log for a console.
		report, ok = oops.Last(c.log())
	}
	if !ok {
		c.differ("trace: neither the console nor the log has one")
		return
	}
	u, task, err := kernel.Unwinder(c.p)
	if err != nil {
		c.differ("trace: %v", err)
		return
	}
	t, err := u.Task(task)
	if err != nil {
		c.differ("trace: %v", err)
	}
	frames, atPanic := c.traceFrames(t), afterPanic(c.traceFrames(t))
	if len(report.PanicTrace) > 0 {
		c.trace("panic's trace", atPanic, afterPanic(traceLines(report.PanicTrace)))
	}
	if len(report.CallTrace) == 0 {
		return
	}
	lines := traceLines(report.CallTrace)
	switch {
	case report.Kind == oops.HungTask && report.PID != nil:
		hung, err := u.Task(c.taskAddr(*report.PID))
		if err != nil {
			c.differ("trace: %v", err)
		}
		c.trace("the trace of the task that hung", c.traceFrames(hung), lines)
	case report.PC != nil:
		// The trace begins behind the exception.
		pc := line(oops.TraceLine{Location: *report.PC, Exception: true})
		at := slices.IndexFunc(frames, func(f string) bool { _, f, _ = strings.Cut(f, " "); return f == pc })
		if at < 0 {
			c.differ("trace: the dump has %q, without an exception at %s", frames, pc)
			return
		}
		c.trace("the trace", frames[at+1:], lines)
	default:
		c.trace("the trace", atPanic, afterPanic(lines))
	}
}

func (c *comparison) trace(what string, got, want []string) {
	c.checked.Frames += len(want)
	if g, w := strings.Join(got, ", "), strings.Join(want, ", "); g != w {
		c.differ("%s: the dump has %q, the kernel printed %q", what, g, w)
	}
}

// log returns the text of the kernel's log in the dump.
func (c *comparison) log() string {
	records, err := kernel.Log(c.p)
	if err != nil {
		c.differ("log: %v", err)
	}
	return kernel.LogText(records)
}

// taskAddr returns the task_struct of a PID; 0 if it has none.
func (c *comparison) taskAddr(pid int) addr.Virt {
	tasks, err := kernel.Tasks(c.p)
	if err != nil {
		c.differ("tasks: %v", err)
	}
	for _, t := range tasks {
		if t.PID == pid && !t.Idle {
			return t.Addr
		}
	}
	return 0
}

// line is a line of a trace, without its stack.
func line(l oops.TraceLine) string {
	s := fmt.Sprintf("%s+%#x/%#x", l.Symbol, l.Offset, l.Size)
	if l.Symbol == "" {
		s = fmt.Sprintf("%#x", l.Addr)
	}
	if l.Exception {
		s = "RIP: " + s
	}
	return s
}

// traceLines returns the reliable lines, each after its stack.
func traceLines(lines []oops.TraceLine) []string {
	var out []string
	for _, l := range lines {
		if l.Reliable {
			// Until Linux v5.16 the task's own stack had no tag.
			out = append(out, cmp.Or(l.Stack, "TASK")+" "+line(l))
		}
	}
	return out
}

// traceFrames returns the frames of t as traceLines returns the kernel's. A kernel with
// frame pointers does not see the callers of functions that have not set up their own.
func (c *comparison) traceFrames(t unwind.Trace) []string {
	_, orc := c.p.Syms.Lookup("__start_orc_unwind")
	tags := map[string]string{"task": "TASK", "irq": "IRQ", "entry": "ENTRY_TRAMPOLINE", "DF": "#DF", "DB": "#DB", "MCE": "#MC", "VC": "#VC", "VC2": "#VC2"}
	var out []string
	for i := range t.Frames {
		f := &t.Frames[i]
		if !orc && f.How == unwind.Prologue && i > 0 && t.Frames[i-1].Symbol != "" { // it knows of calls of NULL
			continue
		}
		l := oops.TraceLine{Location: oops.Location{Symbol: f.Symbol, Offset: f.Offset, Size: f.Size, Addr: uint64(f.IP)}, Exception: f.Exception()}
		out = append(out, cmp.Or(tags[f.Stack], f.Stack)+" "+line(l))
	}
	return out
}

// afterPanic returns the lines behind the call of panic(). It prints its trace
// from one place and leaves for the capture kernel from another one.
func afterPanic(lines []string) []string {
	for i, l := range slices.Backward(lines) {
		if _, f, _ := strings.Cut(l, " "); strings.HasPrefix(f, "panic+") {
			return lines[i+1:]
		}
	}
	return lines
}

// stacks compares the stack of each task with its /proc/PID/task/TID/stack, if it
// has not run between the recording and the crash: then it was switched out as
// often at the one time as at the other.
func (c *comparison) stacks() {
	u, _, err := kernel.Unwinder(c.p)
	if err != nil {
		c.differ("stacks: %v", err)
		return
	}
	tasks, err := kernel.Tasks(c.p)
	if err != nil {
		c.differ("stacks: %v", err)
	}
	schedStart, _ := c.p.Syms.Lookup("__sched_text_start")
	schedEnd, _ := c.p.Syms.Lookup("__sched_text_end")
	for _, t := range tasks {
		if t.Idle || t.Running {
			continue
		}
		dir := fmt.Sprintf("%d/task/%d/", t.TGID, t.PID)
		text, err := fs.ReadFile(c.proc, dir+"status")
		if err != nil {
			continue // it is younger than the recording
		}
		s := status(string(text))
		o := c.p.ObjectAt(t.Addr, "struct task_struct")
		voluntary, err1 := o.Member("nvcsw").Uint()
		forced, err2 := o.Member("nivcsw").Uint()
		if err1 != nil || err2 != nil {
			c.differ("stacks: PID %d: %v, %v", t.PID, err1, err2)
			continue
		}
		if strconv.FormatUint(voluntary, 10) != s["voluntary_ctxt_switches"] || strconv.FormatUint(forced, 10) != s["nonvoluntary_ctxt_switches"] {
			continue
		}
		text, err = fs.ReadFile(c.proc, dir+"stack")
		if err != nil {
			continue // it ended then
		}
		var want, got []string
		for l := range strings.Lines(string(text)) {
			_, l, _ = strings.Cut(strings.TrimSpace(l), "] ") // "[<0>] kthreadd+0x2bc/0x2d0"
			l, _, _ = strings.Cut(l, " [")                    // the module
			want = append(want, l)
		}
		if len(want) == 0 {
			continue // a zombie has no stack any more
		}
		trace, err := u.Task(t.Addr)
		if err != nil {
			c.differ("stacks: PID %d (%s): %v", t.PID, t.Comm, err)
		}
		for i := range trace.Frames {
			// The file leaves out the scheduler (in_sched_functions in kernel/sched/core.c).
			if f := &trace.Frames[i]; f.IP < schedStart.Addr || f.IP >= schedEnd.Addr {
				got = append(got, line(oops.TraceLine{Location: oops.Location{Symbol: f.Symbol, Offset: f.Offset, Size: f.Size, Addr: uint64(f.IP)}}))
			}
		}
		c.checked.Stacks++
		if g, w := strings.Join(got, ", "), strings.Join(want, ", "); g != w {
			c.differ("stacks: PID %d (%s): the dump has %q, the guest %q", t.PID, t.Comm, g, w)
		}
	}
}
