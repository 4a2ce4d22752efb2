package truth

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"crashlab/crashkit"
)

// fixture opens the real dump of crashkit's tests and the console of its guest.
func fixture(t *testing.T) (*crashkit.Program, string) {
	t.Helper()
	const path = "../../crashkit/testdata/nullderef-6.1"
	p, err := crashkit.Open(path + ".vmcore")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	console, err := os.ReadFile(path + ".console")
	if err != nil {
		t.Fatal(err)
	}
	return p, string(console)
}

// TestTraces changes what the kernel printed: each change must be found.
func TestTraces(t *testing.T) {
	p, console := fixture(t)
	edit := func(old, new string) string {
		t.Helper()
		if !strings.Contains(console, old) {
			t.Fatalf("the console has no %q", old)
		}
		return strings.Replace(console, old, new, 1)
	}
	for _, tt := range []struct{ name, console, want string }{
		{"as printed", console, ""},
		{"nothing printed: the log has it", "", ""},
		{"an offset", edit("do_one_initcall+0x59", "do_one_initcall+0x58"), "do_one_initcall+0x58"},
		{"a line less", edit("  do_init_module+0x4a/0x1f0\n", "  ? do_init_module+0x4a/0x1f0\n"), "the trace"},
		{"another stack", edit("<TASK>", "<IRQ>"), "IRQ do_one_initcall"},
		{"another exception", edit("RIP: 0010:hello_crash+0x11", "RIP: 0010:hello_crash+0x12"), "without an exception at RIP: hello_crash+0x12"},
	} {
		c := &comparison{p: p}
		c.traces(tt.console)
		got := strings.Join(c.differences, "\n")
		if tt.want == "" && (got != "" || c.checked.Frames < 5) || !strings.Contains(got, tt.want) {
			t.Errorf("%s: differences %q of %d frames; want %q", tt.name, got, c.checked.Frames, tt.want)
		}
	}
}

// TestStacks has the stack that Linux 6.1 shows of kthreadd, recorded in another
// guest with the same kernel.
func TestStacks(t *testing.T) {
	p, _ := fixture(t)
	const stack = "[<0>] kthreadd+0x2bc/0x2d0\n[<0>] ret_from_fork+0x22/0x30\n"
	task := p.ObjectAt((&comparison{p: p}).taskAddr(2), "struct task_struct")
	voluntary, err := task.Member("nvcsw").Uint()
	if err != nil {
		t.Fatal(err)
	}
	record := func(switches uint64, stack string) fs.FS {
		return fstest.MapFS{
			"2/task/2/status": {Data: fmt.Appendf(nil, "Name:\tkthreadd\nvoluntary_ctxt_switches:\t%d\nnonvoluntary_ctxt_switches:\t0\n", switches)},
			"2/task/2/stack":  {Data: []byte(stack)},
		}
	}
	for _, tt := range []struct {
		name     string
		proc     fs.FS
		compared int
		want     string
	}{
		{"as it was", record(voluntary, stack), 1, ""},
		{"it ran since", record(voluntary-1, "[<0>] elsewhere+0x1/0x2\n"), 0, ""},
		{"another offset", record(voluntary, strings.Replace(stack, "2bc", "2bd", 1)), 1, "kthreadd+0x2bd"},
		{"a frame more", record(voluntary, stack+stack), 1, "PID 2 (kthreadd)"},
		{"not recorded", fstest.MapFS{}, 0, ""},
	} {
		c := &comparison{p: p, proc: tt.proc}
		c.stacks()
		got := strings.Join(c.differences, "\n")
		if c.checked.Stacks != tt.compared || (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %d stacks compared, differences %q; want %d, %q", tt.name, c.checked.Stacks, got, tt.compared, tt.want)
		}
	}
}
