package triage_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit"
	"crashlab/crashkit/ctype"
	"crashlab/crashkit/facts"
	"crashlab/crashkit/internal/coretest"
	"crashlab/crashkit/internal/fixture"
	"crashlab/crashkit/triage"
)

// read returns a file of crashkit/testdata: what the guest said itself.
func read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(fixture.Path(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// trace is a line of a call trace on the console.
var trace = regexp.MustCompile(`(?m)^\[[^]]*\]  (\? )?(\w+)\+0x([0-9a-f]+)/0x([0-9a-f]+)(?: \[(\w+)\])?\s*$`)

// register is a register as an oops prints it.
var register = regexp.MustCompile(`\b(R[A-Z0-9]{2}): (?:0018:)?([0-9a-f]{16})\b`)

func TestFacts(t *testing.T) {
	p := fixture.Open(t)
	f, err := triage.Facts(context.Background(), p, "vmcore", nil)
	if err != nil {
		t.Fatal(err)
	}
	if f.Dump.Partial || len(f.Dump.Problems) != 0 {
		t.Errorf("problems of a whole dump: %q", f.Dump.Problems)
	}
	null, write := uint64(0), uint64(2)
	got := f.Panic
	if len(got.PanicTrace) > 0 || got.Blamed.Task.PID != 0 {
		t.Errorf("panic's trace %v, blamed task %+v; want none", got.PanicTrace, got.Blamed)
	}
	got.Frames, got.CrashPath, got.KernelTrace, got.PanicTrace, got.Registers, got.Task = nil, nil, nil, nil, nil, facts.Task{}
	got.Blamed = facts.TaskStack{}
	want := facts.Panic{
		Kind: "null-deref", Title: "BUG: kernel NULL pointer dereference, address: 0000000000000000",
		Address: &null, Access: "write", Mode: "kernel", ErrorCode: &write,
		Symbol: "hello_crash", Offset: 0x11, Module: "nullderef", IP: 0xffffffffc0598016,
		Instruction: facts.Instruction{Bytes: []byte{0xc7, 0x04, 0x25, 0, 0, 0, 0, 0x2a, 0, 0, 0}, Text: "movl   $0x2a,0x0"},
		Taints:      []string{"OOT_MODULE", "UNSIGNED_MODULE"}, TaintLetters: "OE",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("panic: -want +got:\n%s", d)
	}
	if k := f.Panic.Task; k.PID != 350 || k.Comm != "insmod" || k.PPID != 1 || !k.Running || k.CPU != 0 {
		t.Errorf("task = %+v; want insmod, PID 350, child of 1, running on CPU 0", k)
	}
	if d := cmp.Diff(facts.Verdict{
		What:  "a write of 4 bytes through a NULL pointer",
		Where: "hello_crash+0x11 in module nullderef",
		Why:   "the address 0 is a constant in the store `movl $0x2a,0x0`: the compiler knew that the pointer is always NULL",
		Whose: "module nullderef (out of tree, unsigned)",
	}, f.Verdict); d != "" {
		t.Errorf("verdict: -want +got:\n%s", d)
	}

	console := read(t, "nullderef-6.1.console")
	var lines []facts.TraceLine
	var reliable []string
	for _, m := range trace.FindAllStringSubmatch(console, -1) {
		off, _ := strconv.ParseUint(m[3], 16, 64)
		size, _ := strconv.ParseUint(m[4], 16, 64)
		lines = append(lines, facts.TraceLine{Symbol: m[2], Offset: off, Size: size, Module: m[5], Stack: "TASK", Reliable: m[1] == ""})
		if m[1] == "" {
			reliable = append(reliable, fmt.Sprintf("%s+%#x/%#x", m[2], off, size))
		}
	}
	if d := cmp.Diff(lines, f.Panic.KernelTrace); d != "" || len(lines) < 10 {
		t.Errorf("kernel trace: -want +got:\n%s", d)
	}
	var frames []string
	for _, fr := range f.Panic.Frames[1:] {
		frames = append(frames, fmt.Sprintf("%s+%#x/%#x", fr.Symbol, fr.Offset, fr.Size))
	}
	if d := cmp.Diff(reliable, frames); d != "" || !f.Panic.Frames[0].Exception {
		t.Errorf("frames: -want (the kernel's own) +got:\n%s", d)
	}
	if n := len(f.Panic.CrashPath); n == 0 || f.Panic.CrashPath[n-1].Symbol != "asm_exc_page_fault" {
		t.Errorf("crash path = %+v; want it to end with asm_exc_page_fault", f.Panic.CrashPath)
	}
	regs := map[string]uint64{"cr2": 0, "rip": 0xffffffffc0598016, "cs": 0x10, "ss": 0x18, "rflags": 0x246}
	kernelPart, _, _ := strings.Cut(console, "Call Trace:")
	for _, m := range register.FindAllStringSubmatch(kernelPart, -1) {
		name := strings.ToLower(m[1])
		if name == "r08" || name == "r09" {
			name = "r" + name[2:]
		}
		regs[name], _ = strconv.ParseUint(m[2], 16, 64)
	}
	if d := cmp.Diff(regs, f.Panic.Registers); d != "" || len(regs) < 20 {
		t.Errorf("registers: -want (those of the console) +got:\n%s", d)
	}
	if !strings.Contains(f.Log, "nullderef: about to write through a NULL pointer\nBUG: kernel NULL") {
		t.Error("the log lacks the module's last words")
	}
	if len(f.Tasks) != 61 || f.Tasks[0].Comm != "swapper/0" || f.Tasks[60].Comm != "insmod" {
		t.Errorf("%d tasks; want 61, from swapper/0 to insmod", len(f.Tasks))
	}
	wantKernel := facts.Kernel{
		Release: "6.1.0-56-cloud-amd64", Version: "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)", Machine: "x86_64",
		Hostname: "(none)", CPUs: 2, MemoryBytes: 316176 << 10, CommandLine: "console=ttyS0 crashkernel=160M panic=5",
		KASLROffset: 0x33600000, CrashTime: 1795212480, UptimeNS: 5723316165,
	}
	if d := cmp.Diff(wantKernel, f.Kernel); d != "" {
		t.Errorf("kernel: -want +got:\n%s", d)
	}
}

// TestFactsWithoutTypes says that a kernel whose types are not known is read as far as that goes.
func TestFactsWithoutTypes(t *testing.T) {
	whole, err := triage.Facts(context.Background(), fixture.Open(t), "vmcore", nil)
	if err != nil {
		t.Fatal(err)
	}
	p := fixture.Open(t)
	p.SetTypes(ctype.Empty())
	f, err := triage.Facts(context.Background(), p, "vmcore", nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(whole.Verdict.Where+whole.Verdict.What, f.Verdict.Where+f.Verdict.What); d != "" || !f.Dump.Partial {
		t.Errorf("partial: %t, verdict -with types +without:\n%s", f.Dump.Partial, d)
	}
	if d := cmp.Diff(whole.Panic.Registers, f.Panic.Registers); d != "" {
		t.Errorf("registers -with types +without:\n%s", d)
	}
	if d := cmp.Diff(whole.Panic.CrashPath, f.Panic.CrashPath); d != "" {
		t.Errorf("the way to the end -with types +without:\n%s", d)
	}
}

func TestFactsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if f, err := triage.Facts(ctx, fixture.Open(t), "vmcore", nil); !errors.Is(err, context.Canceled) || f != nil {
		t.Errorf("Facts = %v, %v; want nil and that it was cancelled", f, err)
	}
}

// A dump of which nearly nothing can be read has facts, too: that it can not.
func TestFactsOfNothing(t *testing.T) {
	f, err := triage.Facts(context.Background(), coretest.New(t, nil).Open(t), "vmcore", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !f.Dump.Partial || len(f.Dump.Problems) == 0 {
		t.Errorf("dump = %+v; want problems", f.Dump)
	}
	if f.Panic.Kind != "" || f.Verdict != (facts.Verdict{}) {
		t.Errorf("panic %q, verdict %+v; want none", f.Panic.Kind, f.Verdict)
	}
}

// A damaged dump is an error when it is opened, or gives facts that are marked;
// and where the verdict says what it says of the whole dump, it is right.
func TestFactsOfDamagedDumps(t *testing.T) {
	whole, err := os.ReadFile(fixture.Path(t, fixture.NullDeref))
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	check := func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "vmcore")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := crashkit.Open(path)
		if err != nil {
			return
		}
		defer p.Close()
		f, err := triage.Facts(context.Background(), p, path, nil)
		if err != nil {
			t.Errorf("Facts: %v", err)
			return
		}
		if len(b) < len(whole) && !f.Dump.Partial {
			t.Error("a dump that was cut short is not marked as partial")
		}
	}
	for i := range 12 {
		n := len(whole) * (i + 1) / 13
		t.Run(fmt.Sprintf("first %d bytes", n), func(t *testing.T) { check(t, whole[:n]) })
	}
	for i := range 12 {
		t.Run(fmt.Sprintf("flipped bits %d", i), func(t *testing.T) {
			b := append([]byte(nil), whole...)
			for range 1 << i {
				b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
			}
			check(t, b)
		})
	}
}

func BenchmarkFacts(b *testing.B) {
	path := fixture.Path(b, fixture.NullDeref)
	b.ReportAllocs()
	for b.Loop() {
		p, err := crashkit.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := triage.Facts(b.Context(), p, path, nil); err != nil {
			b.Fatal(err)
		}
		if err := p.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
