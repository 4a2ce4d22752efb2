package command

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit"
	"crashlab/crashkit/ctype"
	"crashlab/crashkit/internal/fixture"
	"crashlab/crashkit/unwind"
)

// answer runs a command line on the fixture and returns its text.
func answer(t *testing.T, env *Env, line string) string {
	t.Helper()
	a := Run(t.Context(), env, line)
	if a.Err != nil {
		t.Fatalf("%s: %v", line, a.Err)
	}
	return text(t, a.Result)
}

func text(t *testing.T, r Result) string {
	t.Helper()
	var b strings.Builder
	w := NewText(&b)
	r.WriteText(w)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func fixtureEnv(t *testing.T) *Env {
	t.Helper()
	return NewEnv(fixture.Open(t), "vmcore")
}

// lines returns the lines of a file of crashkit/testdata that are no comments.
func lines(t *testing.T, name string) []string {
	t.Helper()
	b, err := os.ReadFile(fixture.Path(t, name))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for l := range strings.Lines(string(b)) {
		if !strings.HasPrefix(l, "# ") {
			all = append(all, strings.TrimRight(l, "\n"))
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s is empty", name)
	}
	return all
}

// TestCrash compares with what crash 8.0.2 answered.
func TestCrash(t *testing.T) {
	env := fixtureEnv(t)
	want := map[string]string{}
	var order []string
	for _, l := range lines(t, "nullderef-6.1.crash") {
		if name, ok := strings.CutPrefix(l, "## "); ok {
			order = append(order, name)
			continue
		}
		want[order[len(order)-1]] += l + "\n"
	}
	for _, name := range order {
		t.Run(name, func(t *testing.T) {
			var got strings.Builder
			for l := range strings.Lines(answer(t, env, name)) {
				got.WriteString(strings.TrimRight(l, " \n") + "\n")
			}
			if diff := cmp.Diff(want[name], got.String()); diff != "" {
				t.Errorf("%s differs from crash's answer (-crash +ours):\n%s", name, diff)
			}
		})
	}
}

// kernelTrace returns the lines of the kernel's own call trace without those of
// which it was not sure.
func kernelTrace(t *testing.T) []string {
	t.Helper()
	var trace []string
	in := false
	frame := regexp.MustCompile(`^\[ *[0-9.]+\]  (\S+\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[\w+\])?)$`)
	for _, l := range lines(t, "nullderef-6.1.console") {
		switch {
		case strings.HasSuffix(l, "<TASK>"):
			in = true
		case strings.HasSuffix(l, "</TASK>"):
			in = false
		case in:
			if m := frame.FindStringSubmatch(l); m != nil {
				trace = append(trace, m[1])
			}
		}
	}
	if len(trace) < 5 {
		t.Fatalf("the console's call trace has %d lines", len(trace))
	}
	return trace
}

// TestBtKernelTrace compares the frames below the exception with the call trace
// that the kernel printed.
func TestBtKernelTrace(t *testing.T) {
	a := Run(t.Context(), fixtureEnv(t), "bt")
	if a.Err != nil {
		t.Fatal(a.Err)
	}
	frames := a.Result.(*traces).Traces[0].Frames
	i := slices.IndexFunc(frames, func(f unwind.Frame) bool { return f.Exception() })
	if i < 0 {
		t.Fatal("bt shows no exception")
	}
	if got, want := fmt.Sprintf("%s+%#x/%#x [%s]", frames[i].Symbol, frames[i].Offset, frames[i].Size, frames[i].Module), "hello_crash+0x11/0xffb [nullderef]"; got != want {
		t.Errorf("exception at %s; want %s, as the kernel's RIP line", got, want)
	}
	var got []string
	for _, f := range frames[i+1:] {
		s := fmt.Sprintf("%s+%#x/%#x", f.Symbol, f.Offset, f.Size)
		if f.Module != "" {
			s += " [" + f.Module + "]"
		}
		got = append(got, s)
	}
	if diff := cmp.Diff(kernelTrace(t), got); diff != "" {
		t.Errorf("bt (-kernel's trace +ours):\n%s", diff)
	}
}

// TestBtWithoutTypes says that the stacks of CPUs are found in a kernel without types too,
// but for what only the list of modules could tell.
func TestBtWithoutTypes(t *testing.T) {
	env := fixtureEnv(t)
	env.Program.SetTypes(ctype.Empty())
	a := Run(t.Context(), env, "bt")
	all := a.Result.(*traces).Traces
	if len(all) != 1 || all[0].Task.PID != 350 {
		t.Fatalf("bt has %+v; want the stack of PID 350", all)
	}
	frames := all[0].Frames
	i := slices.IndexFunc(frames, func(f unwind.Frame) bool { return f.Exception() })
	if i < 0 || frames[i].IP != 0xffffffffc0598016 {
		t.Fatalf("bt's exception is frame %d of %+v; want one at ffffffffc0598016", i, frames)
	}
	var got, want []string
	for _, f := range frames[i+1:] {
		got = append(got, fmt.Sprintf("%s+%#x/%#x", f.Symbol, f.Offset, f.Size))
	}
	for _, l := range kernelTrace(t) {
		if !strings.HasSuffix(l, "]") {
			want = append(want, l)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("bt (-kernel's trace +ours):\n%s", diff)
	}
	if frames[0].Symbol != "machine_kexec" || !frames[i].Reliable || frames[i+1].Reliable || a.Err == nil {
		t.Errorf("bt = %+v, %v; want frames from machine_kexec to the exception, and behind the module's a guess", frames, a.Err)
	}
	if a = Run(t.Context(), env, "bt -a"); len(a.Result.(*traces).Traces) != 2 {
		t.Errorf("bt -a has %d stacks; want one for each CPU", len(a.Result.(*traces).Traces))
	}
	if a = Run(t.Context(), env, "bt 1"); a.Err == nil || !strings.Contains(a.Error, "without types no task") {
		t.Errorf("bt 1: %v; want an error that tells of types", a.Err)
	}
}

// TestBtRegisters compares the registers of the exception with those that the
// kernel printed.
func TestBtRegisters(t *testing.T) {
	got := answer(t, fixtureEnv(t), "bt")
	_, got, _ = strings.Cut(got, "[exception RIP:")
	got, _, _ = strings.Cut(got, " #7")
	register := regexp.MustCompile(`\b(R[A-DSI1][XIP0-5]|RBP|R8|R9|R10|R11|R12|R13|R14|R15): ([0-9a-f]{16})`)
	want := map[string]string{}
	for _, l := range lines(t, "nullderef-6.1.console") {
		if strings.HasSuffix(l, "Call Trace:") {
			break // what follows are those of user mode
		}
		for _, m := range register.FindAllStringSubmatch(strings.NewReplacer("R08", "R8", "R09", "R9").Replace(l), -1) {
			want[m[1]] = m[2]
		}
	}
	have := map[string]string{}
	for _, m := range register.FindAllStringSubmatch(got, -1) {
		if m[1] != "RIP" && m[1] != "RSP" {
			have[m[1]] = m[2]
		}
	}
	delete(want, "RIP")
	delete(want, "RSP")
	if len(want) < 14 {
		t.Fatalf("the console has %d registers", len(want))
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("registers (-kernel +ours):\n%s", diff)
	}
}

// TestProcModules compares mod with the guest's /proc/modules.
func TestProcModules(t *testing.T) {
	a := Run(t.Context(), fixtureEnv(t), "mod")
	if a.Err != nil {
		t.Fatal(a.Err)
	}
	got := map[string]string{}
	for _, m := range a.Result.(*modules).Modules {
		got[m.Name] = fmt.Sprintf("%d %#x", m.Size, uint64(m.Base))
	}
	want := map[string]string{"nullderef": "16384 0xffffffffc0598000"} // loaded later; as crash has it
	for _, l := range lines(t, "nullderef-6.1.modules") {
		f := strings.Fields(l)
		want[f[0]] = f[1] + " " + f[5]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mod (-/proc/modules +ours):\n%s", diff)
	}
}

// TestProcTasks compares ps with the guest's /proc/PID/status.
func TestProcTasks(t *testing.T) {
	a := Run(t.Context(), fixtureEnv(t), "ps")
	if a.Err != nil {
		t.Fatal(a.Err)
	}
	got := map[string]string{}
	states := map[string]string{"IN": "S", "ID": "I", "RU": "R", "UN": "D"}
	for _, x := range a.Result.(*tasks).Tasks {
		if x.Idle {
			continue
		}
		got[strconv.Itoa(x.PID)] = fmt.Sprintf("%d %d %s %d %d %d %s", x.TGID, x.PPID, states[x.State], x.UID, x.VMBytes>>10, x.RSSBytes>>10, x.Comm)
	}
	// The one that was started between the recording and the crash; the kernel's
	// last words name it.
	want := map[string]string{"350": "350 1 R 0 2260 88 insmod"}
	for _, l := range lines(t, "nullderef-6.1.tasks") {
		f := strings.Fields(l)
		// In /proc a worker has what it last did behind its name, and a thread's
		// name is whole.
		name := f[7]
		if strings.HasPrefix(name, "kworker/") {
			name, _, _ = strings.Cut(name, "-")
		}
		f[7] = name[:min(len(name), 15)]
		want[f[0]] = strings.Join(f[1:], " ")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ps (-/proc +ours):\n%s", diff)
	}
}

// TestProcKallsyms compares sym with a sample of the guest's /proc/kallsyms.
func TestProcKallsyms(t *testing.T) {
	a := Run(t.Context(), fixtureEnv(t), "sym -l")
	if a.Err != nil {
		t.Fatal(a.Err)
	}
	have := map[string]bool{}
	for _, s := range a.Result.(*symbolList).Symbols {
		have[fmt.Sprintf("%016x %s [%s]", s.Address, s.Name, s.Module)] = true
	}
	for _, l := range lines(t, "nullderef-6.1.kallsyms") {
		f := strings.Fields(l)
		want := f[0] + " " + f[2] + " []"
		if len(f) > 3 {
			want = f[0] + " " + f[2] + " " + f[3]
		}
		if !have[want] {
			t.Errorf("sym -l has no %s, which /proc/kallsyms has", want)
		}
	}
}

// TestConsole looks for each line of the console in the log.
func TestConsole(t *testing.T) {
	got := answer(t, fixtureEnv(t), "log")
	sc := bufio.NewScanner(strings.NewReader(got))
	have := map[string]bool{}
	for sc.Scan() {
		have[sc.Text()] = true
	}
	for _, l := range lines(t, "nullderef-6.1.console") {
		if !have[l] {
			t.Errorf("log has no line %q, which the console has", l)
		}
	}
}

// BenchmarkSys measures what "crashkit -c sys" does: to open a dump, symbols
// and types included, and to answer.
func BenchmarkSys(b *testing.B) {
	path := fixture.Path(b, fixture.NullDeref)
	b.ReportAllocs()
	for b.Loop() {
		p, err := crashkit.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		if a := Run(b.Context(), NewEnv(p, path), "sys"); a.Err != nil {
			b.Fatal(a.Err)
		}
		p.Close()
	}
}
