package command

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/kernel"
)

// TestForeach compares the tasks that foreach takes with those that the guest's
// own /proc has: 3 is its parent, 4 its state, 7 its name.
func TestForeach(t *testing.T) {
	const crashed = 350 // loaded the module after the recording
	kthread := func(f []string) bool { return f[2] == "2" || f[0] == "2" }
	for _, c := range []struct {
		line string
		want func(f []string) bool
		more []int // PIDs that are not in the guest's recording
	}{
		{"foreach ps", func([]string) bool { return true }, []int{0, 0, crashed}},
		{"foreach user ps", func(f []string) bool { return !kthread(f) }, []int{crashed}},
		{"foreach kernel ps", kthread, []int{0, 0}},
		{"foreach kernel ID ps", func(f []string) bool { return f[3] == "I" }, nil},
		{"foreach ID IN gleader ps", func(f []string) bool { return f[3] == "I" || f[3] == "S" }, nil},
		{"foreach active ps", func(f []string) bool { return f[3] == "R" }, []int{crashed}}, // the shell that waited for it
		{"foreach init ps", func(f []string) bool { return f[7] == "init" }, nil},
		{"foreach IN 1 3 kthreadd ps", func(f []string) bool { return f[0] == "1" || f[0] == "2" }, nil},
		{"foreach user kernel ps", func([]string) bool { return false }, nil},
		{`foreach \insmod ps`, func([]string) bool { return false }, []int{crashed}},
	} {
		a := Run(t.Context(), fixtureEnv(t), c.line)
		if a.Err != nil {
			t.Errorf("%s: %v", c.line, a.Err)
			continue
		}
		got := map[int]int{}
		for _, x := range a.Result.(*tasks).Tasks {
			got[x.PID]++
		}
		want := map[int]int{}
		for _, pid := range c.more {
			want[pid]++
		}
		for _, l := range lines(t, "nullderef-6.1.tasks") {
			if f := strings.Fields(l); c.want(f) {
				pid, err := strconv.Atoi(f[0])
				if err != nil {
					t.Fatal(err)
				}
				want[pid]++
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: tasks by PID (-/proc +ours):\n%s", c.line, diff)
		}
	}
}

// TestForeachBt says that foreach bt is what bt answers for each task, and that
// every stack ends where stacks begin.
func TestForeachBt(t *testing.T) {
	env := fixtureEnv(t)
	a := Run(t.Context(), env, "foreach bt")
	if a.Err != nil {
		t.Fatal(a.Err)
	}
	all := a.Result.(*traces).Traces
	if len(all) < 60 {
		t.Errorf("foreach bt has %d traces; want those of all tasks", len(all))
	}
	for _, tr := range all {
		one := Run(t.Context(), env, "bt "+strconv.FormatUint(uint64(tr.Task.Addr), 16))
		if one.Err != nil {
			t.Errorf("PID %d: %v", tr.Task.PID, one.Err)
			continue
		}
		if diff := cmp.Diff(one.Result.(*traces).Traces[0], tr, cmp.AllowUnexported(trace{})); diff != "" {
			t.Errorf("PID %d (-bt +foreach bt):\n%s", tr.Task.PID, diff)
		}
		if len(tr.Frames) == 0 && tr.User != nil {
			continue // it ran in user mode
		}
		last := tr.Frames[len(tr.Frames)-1].Symbol
		switch {
		case strings.HasPrefix(last, "entry_"), strings.HasPrefix(last, "secondary_startup_64"), last == "ret_from_fork":
		default:
			t.Errorf("PID %d: the stack ends at %s", tr.Task.PID, last)
		}
	}
}

func TestForeachUsage(t *testing.T) {
	for line, want := range map[string]string{
		"foreach":            "missing operand",
		"foreach user":       "no command that runs on tasks",
		"foreach user sys":   "no command that runs on tasks",
		"foreach bt 1":       `"1" stands behind bt`,
		"foreach bt -q":      `unknown flag "-q"`,
		"foreach nosuch bt":  "no task has the PID, the address or the name nosuch",
		`foreach \user bt`:   "no task has the PID, the address or the name user",
		"foreach bt --how=1": "--how takes no value",
	} {
		a := Run(t.Context(), fixtureEnv(t), line)
		if a.Err == nil || !strings.Contains(a.Error, want) {
			t.Errorf("%s: error %q; want %q", line, a.Error, want)
		}
	}
}

func TestBtDead(t *testing.T) {
	var b strings.Builder
	r := &traces{Traces: []trace{{Task: kernel.Task{PID: 7, Comm: "sh"}, NoStack: true}}}
	text := NewText(&b)
	r.WriteText(text)
	if err := text.Flush(); err != nil {
		t.Fatal(err)
	}
	if want := "PID: 7        TASK: 0                 CPU: 0    COMMAND: \"sh\"\n(no stack: the task is dead and has given it back)\n"; b.String() != want {
		t.Errorf("bt of a zombie prints %q; want %q", b.String(), want)
	}
}
