package triage_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit"
	"crashlab/crashkit/internal/fixture"
	"crashlab/crashkit/kernel"
	"crashlab/crashkit/triage"
	"crashlab/crashkit/unwind"
)

// openLab opens the dump of one of the lab's own kernels.
func openLab(t *testing.T, name string) *crashkit.Program {
	t.Helper()
	p, err := crashkit.Open(fixture.Path(t, "lab-"+name+"-6.1.vmcore"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// TestLabKernels compares the stack of the task that crashed with the trace that the
// kernel printed, on kernels that are built otherwise than distributions'.
func TestLabKernels(t *testing.T) {
	for _, c := range []struct {
		name   string
		how    string // most frames were found
		module bool   // modules are known
	}{
		{"framepointer", "frame-pointer", true},
		{"up", "orc", true},
		{"nobtf", "orc", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := triage.Facts(context.Background(), openLab(t, c.name), "vmcore", nil)
			if err != nil {
				t.Fatal(err)
			}
			got, want := []string{}, []string{}
			for _, fr := range f.Panic.Frames[1:] {
				got = append(got, fmt.Sprintf("%s+%#x/%#x", fr.Symbol, fr.Offset, fr.Size))
				if fr.Reliable != c.module || fr.Reliable && fr.How != c.how {
					t.Errorf("frame %+v; want one by %s, reliable: %t", fr, c.how, c.module)
				}
			}
			for _, l := range f.Panic.KernelTrace {
				if l.Reliable && (c.module || l.Module == "") {
					want = append(want, fmt.Sprintf("%s+%#x/%#x", l.Symbol, l.Offset, l.Size))
				}
			}
			if d := cmp.Diff(want, got); d != "" || len(want) < 5 {
				t.Errorf("stack (-kernel's trace +ours):\n%s", d)
			}
			if p := f.Panic.CrashPath; len(p) < 5 || p[0].Symbol != "machine_kexec" {
				t.Errorf("the way to the end is %+v; want it from machine_kexec", p)
			}
			if f.Panic.Symbol != "hello_crash" || f.Panic.Module != "nullderef" {
				t.Errorf("crashed at %s in %q; want hello_crash in nullderef", f.Panic.Symbol, f.Panic.Module)
			}
		})
	}
}

// TestLabInterrupt reads a crash in an interrupt, on a kernel with frame pointers. The
// kernel's own trace has all but the callers of two functions that have no frame.
func TestLabInterrupt(t *testing.T) {
	f, err := triage.Facts(context.Background(), openLab(t, "irqcrash"), "vmcore", nil)
	if err != nil {
		t.Fatal(err)
	}
	var got, want, callers []string
	for _, fr := range f.Panic.Frames[1:] {
		if fr.How == "prologue" {
			callers = append(callers, fr.Symbol)
			continue
		}
		got = append(got, fmt.Sprintf("%s %s+%#x %t", fr.Stack, fr.Symbol, fr.Offset, fr.Exception))
	}
	for _, l := range f.Panic.KernelTrace {
		if l.Reliable {
			want = append(want, fmt.Sprintf("%s %s+%#x %t", l.Stack, l.Symbol, l.Offset, l.Exception))
		}
	}
	if d := cmp.Diff(want, got); d != "" || len(want) < 15 {
		t.Errorf("stack (-kernel's trace +ours):\n%s", d)
	}
	// As the module's source has it.
	if d := cmp.Diff([]string{"__hrtimer_run_queues", "irqcrash_init"}, callers); d != "" {
		t.Errorf("what called hello_interrupt and hello_wait (-want +got):\n%s", d)
	}
	if f.Panic.Symbol != "hello_interrupt" || f.Panic.Frames[0].Stack != "IRQ" {
		t.Errorf("crashed at %s on the stack %s; want hello_interrupt on IRQ", f.Panic.Symbol, f.Panic.Frames[0].Stack)
	}
}

// TestLabStacks compares the stacks of all tasks that did not run any more with the
// guest's own /proc/PID/stack, which leaves out the scheduler.
func TestLabStacks(t *testing.T) {
	for _, name := range []string{"framepointer", "up"} {
		p := openLab(t, name)
		tasks, err := kernel.Tasks(p)
		if err != nil {
			t.Error(err)
		}
		u, _, err := kernel.Unwinder(p)
		if err != nil {
			t.Fatal(err)
		}
		from, _ := p.Syms.Lookup("__sched_text_start")
		to, _ := p.Syms.Lookup("__sched_text_end")
		compared := 0
		for line := range strings.Lines(read(t, "lab-"+name+"-6.1.stacks")) {
			want := strings.Fields(line)
			for _, task := range tasks {
				o := p.ObjectAt(task.Addr, "struct task_struct")
				voluntary, err1 := o.Member("nvcsw").Uint()
				forced, err2 := o.Member("nivcsw").Uint()
				if err1 != nil || err2 != nil || task.Idle || task.Running || want[0] != strconv.Itoa(task.PID) ||
					want[1] != strconv.FormatUint(voluntary, 10) || want[2] != strconv.FormatUint(forced, 10) {
					continue
				}
				trace, err := u.Task(task.Addr)
				if len(want) == 3 {
					if !errors.Is(err, unwind.ErrNoStack) || task.State != "ZO" {
						t.Errorf("%s: stack of PID %d, %s: %v; want %v", name, task.PID, task.Comm, err, unwind.ErrNoStack)
					}
					continue
				}
				got := want[:3:3]
				for _, f := range trace.Frames {
					if f.IP < from.Addr || f.IP >= to.Addr {
						got = append(got, fmt.Sprintf("%s+%#x/%#x", f.Symbol, f.Offset, f.Size))
					}
				}
				if d := cmp.Diff(want, got); d != "" || err != nil {
					t.Errorf("%s: stack of PID %d, error %v (-/proc +ours):\n%s", name, task.PID, err, d)
				}
				compared++
			}
		}
		if compared < 15 {
			t.Errorf("%s: %d stacks were compared; want at least 15", name, compared)
		}
	}
}
