package kernel_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/internal/fixture"
	"crashlab/crashkit/kernel"
)

// lines returns the lines of a file of crashkit/testdata: what the guest itself said.
func lines(t testing.TB, name string) []string {
	t.Helper()
	b, err := os.ReadFile(fixture.Path(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func TestTasks(t *testing.T) {
	tasks, err := kernel.Tasks(fixture.Open(t))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range tasks {
		for _, err := range k.Problems {
			t.Errorf("PID %d: %v", k.PID, err)
		}
		if k.Idle || k.Comm == "insmod" {
			continue // not in /proc; not yet there
		}
		got = append(got, fmt.Sprintf("%d %d %d %s %d %d %d %s", k.PID, k.TGID, k.PPID, k.State, k.UID, k.VMBytes>>10, k.RSSBytes>>10, k.Comm))
	}
	states := map[string]string{"R": "RU", "S": "IN", "I": "ID"}
	var want []string
	for _, l := range lines(t, "nullderef-6.1.tasks") {
		if strings.HasPrefix(l, "#") {
			continue
		}
		f := strings.Fields(l)
		f[3] = states[f[3]]
		f[7] = f[7][:min(len(f[7]), 15)] // TASK_COMM_LEN
		if strings.HasPrefix(f[7], "kworker/") {
			f[7], _, _ = strings.Cut(f[7], "-") // what it works on is added for /proc
		}
		want = append(want, strings.Join(f, " "))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("tasks: -want (the guest's own /proc) +got:\n%s", d)
	}
	if a, b := tasks[0], tasks[1]; a.Comm != "swapper/0" || b.Comm != "swapper/1" || a.CPU != 0 || b.CPU != 1 || !a.Idle || !b.Idle {
		t.Errorf("the first tasks are %+v and %+v; want the idle tasks", a, b)
	}
}

func TestCurrentTasks(t *testing.T) {
	p := fixture.Open(t)
	tasks, err := kernel.CurrentTasks(p)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, k := range tasks {
		got += fmt.Sprintf("%d:%s(%d) ", k.CPU, k.Comm, k.PID)
	}
	if want := "0:insmod(350) 1:sh(99) "; got != want {
		t.Errorf("current tasks are %q; want %q", got, want)
	}
	one, err := kernel.TaskAt(p, tasks[0].Addr)
	if d := cmp.Diff(tasks[0], one); err != nil || d != "" {
		t.Errorf("TaskAt(%v): %v, -want +got:\n%s", tasks[0].Addr, err, d)
	}
}

func TestModules(t *testing.T) {
	mods, err := kernel.Modules(fixture.Open(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(mods) == 0 || mods[0].Name != "nullderef" || mods[0].State != "coming" || mods[0].Size != 16384 || len(mods[0].Taints) != 2 {
		t.Fatalf("modules = %+v; want nullderef first, coming, of 16384 bytes, with two taints", mods)
	}
	var got []string
	for _, m := range mods[1:] {
		for _, err := range m.Problems {
			t.Errorf("%s: %v", m.Name, err)
		}
		users := "-"
		if len(m.UsedBy) > 0 {
			users = strings.Join(m.UsedBy, ",") + ","
		}
		state := strings.ToUpper(m.State[:1]) + m.State[1:]
		got = append(got, fmt.Sprintf("%s %d %d %s %s %#x", m.Name, m.Size, m.Refs, users, state, uint64(m.Base)))
	}
	if d := cmp.Diff(lines(t, "nullderef-6.1.modules"), got); d != "" {
		t.Errorf("modules: -want (the guest's /proc/modules) +got:\n%s", d)
	}
}

func TestLogOfRealDump(t *testing.T) {
	records, err := kernel.Log(fixture.Open(t))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range records {
		for line := range strings.SplitSeq(r.Text, "\n") {
			got = append(got, fmt.Sprintf("[%5d.%06d] %s", r.TimeNS/1e9, r.TimeNS/1e3%1e6, line))
		}
	}
	want := lines(t, "nullderef-6.1.console")
	for i := range want {
		want[i] = strings.TrimRight(want[i], "\r")
	}
	if d := cmp.Diff(want, got[max(0, len(got)-len(want)):]); d != "" {
		t.Errorf("the end of the log: -want (the serial console) +got:\n%s", d)
	}
	if len(records) != 431 || records[0].Seq != 0 || !strings.HasPrefix(records[0].Text, "Linux version 6.1.0-56-cloud-amd64 ") {
		t.Errorf("%d records, the first %+v; want 431 from the kernel's banner on", len(records), records[0])
	}
}

func TestSys(t *testing.T) {
	got := kernel.Sys(fixture.Open(t))
	if d := got.Uptime - 5720*time.Millisecond; d < -100*time.Millisecond || d > 100*time.Millisecond {
		t.Errorf("uptime %v; want about the 5.72 s of the last line of the log", got.Uptime)
	}
	if got.Load[0] <= 0 || got.Load[0] > 2 {
		t.Errorf("load %v; want some, for one busy shell", got.Load)
	}
	got.Uptime, got.Load = 0, [3]float64{}
	want := kernel.System{
		UTS: kernel.UTSName{
			Sysname: "Linux", Nodename: "(none)", Release: "6.1.0-56-cloud-amd64",
			Version: "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)", Machine: "x86_64", Domainname: "(none)",
		},
		CommandLine: "console=ttyS0 crashkernel=160M panic=5", KASLROffset: 0x33600000, PageSize: 4096,
		CPUsOnline: 2, CPUsPresent: 2, MemoryBytes: 316176 << 10, // MemTotal of /proc/meminfo
		CrashTime: time.Date(2026, 11, 20, 22, 8, 0, 0, time.UTC),
		Taints:    []kernel.Taint{{Bit: 12, Letter: "O", Name: "OOT_MODULE"}, {Bit: 13, Letter: "E", Name: "UNSIGNED_MODULE"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Sys: -want +got:\n%s", d)
	}
}

func TestCPUs(t *testing.T) {
	p := fixture.Open(t)
	cpus, err := kernel.CPUs(p)
	if err != nil {
		t.Fatal(err)
	}
	if len(cpus) != 2 {
		t.Fatalf("%d CPUs; want 2", len(cpus))
	}
	for i, want := range []struct {
		pid   int
		panic bool
		rip   uint64
		user  bool
	}{
		{350, true, 0xffffffffc0598016, false}, // hello_crash+0x11
		{99, false, 5419792, true},             // a shell's endless loop
	} {
		c := cpus[i]
		if c.CPU != i || c.PID != want.pid || c.Panic != want.panic || c.Regs == nil || c.Regs.RIP != want.rip || c.Regs.User() != want.user || c.Source != "crash_notes" || len(c.Problems) != 0 {
			t.Errorf("CPU %d = %+v; want %+v by crash_notes", i, c, want)
		}
	}
	if cpu, ok, err := kernel.PanicCPU(p); cpu != 0 || !ok || err != nil {
		t.Errorf("PanicCPU = %d, %v, %v; want 0", cpu, ok, err)
	}
}
