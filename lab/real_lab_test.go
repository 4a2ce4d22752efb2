//go:build lab

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"crashlab/crashkit"
	"crashlab/crashkit/facts"
	"crashlab/internal/execx"
	"crashlab/lab/blame"
	"crashlab/lab/kernels"
	"crashlab/lab/kmod"
	"crashlab/lab/ledger"
	"crashlab/lab/settings"
	"crashlab/lab/store"
	"crashlab/lab/truth"
	"crashlab/lab/ui"
	"crashlab/lab/wire"
	"crashlab/modules"
	"crashlab/qemu"
	"crashlab/scenarios"
)

// testLab returns a Lab that writes its runs to a folder of the test's.
func testLab(t *testing.T) *Lab {
	t.Helper()
	root, err := FindRoot()
	if err != nil {
		t.Fatal(err)
	}
	s, err := settings.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	s.Runs = t.TempDir()
	u := ui.New(ui.Options{Out: t.Output()})
	t.Cleanup(u.Close)
	return &Lab{Settings: s, Root: root, UI: u}
}

func scenario(t *testing.T, name string) *scenarios.Scenario {
	t.Helper()
	s, err := scenarios.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestScenarios crashes a real kernel in every built-in way. Its expectations
// must hold, and the analyzer must agree with what the guest recorded about
// itself before the crash.
func TestScenarios(t *testing.T) {
	all, err := scenarios.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		t.Run(s.Name, func(t *testing.T) {
			run, dir, err := testLab(t).Run(t.Context(), s)
			if err != nil {
				t.Fatalf("Run(%s): %v\n%s", s.Name, err, strings.Join(blame.Of(err).Look, "\n"))
			}
			if run.Verdict != ledger.Passed {
				t.Errorf("verdict = %s; want passed", run.Verdict)
			}
			for _, f := range []string{"report.html", "report.json", "junit.xml", ledger.File, vmcoreFile, consoleFile} {
				if fi, err := os.Stat(filepath.Join(dir, f)); err != nil || fi.Size() == 0 {
					t.Errorf("%s: %v, empty or missing", f, err)
				}
			}
			p, err := crashkit.Open(filepath.Join(dir, vmcoreFile))
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			console, err := os.ReadFile(filepath.Join(dir, consoleFile))
			if err != nil {
				t.Fatal(err)
			}
			switch s.Name {
			case "nullderef":
				want := sourceLine(t, "nullderef", "WRITE_ONCE(*READ_ONCE")
				if got := run.Facts.Panic.Source; got != want {
					t.Errorf("source = %q; want %q", got, want)
				}
			case "irqcrash": // what cpu_relax comes to is inlined
				want := sourceLine(t, "irqcrash", "cpu_relax();")
				i := slices.IndexFunc(run.Facts.Panic.Frames, func(f facts.Frame) bool { return f.Symbol == "hello_wait" })
				if i < 0 || run.Facts.Panic.Frames[i].Source != want {
					t.Errorf("frame %d is hello_wait, of the frames %+v; want it at %q", i, run.Facts.Panic.Frames, want)
				}
			}
			checked, differences := truth.Compare(os.DirFS(filepath.Join(dir, truthDir, "proc")), string(console), p)
			for _, d := range differences {
				t.Errorf("%s", d)
			}
			t.Logf("compared with the guest's own view: %+v", checked)
			checkFilter(t, filepath.Join(dir, vmcoreFile))
		})
	}
}

// sourceLine returns which line of a module's source has text, as FILE:LINE.
func sourceLine(t *testing.T, module, text string) string {
	t.Helper()
	name := module + "/" + module + ".c"
	b, err := modules.FS.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, _, ok := strings.Cut(string(b), text)
	if !ok {
		t.Fatalf("%s has no %q", name, text)
	}
	return fmt.Sprintf("modules/%s:%d", name, 1+strings.Count(before, "\n"))
}

// TestTwoAtOnce runs one scenario twice at the same time in one checkout.
func TestTwoAtOnce(t *testing.T) {
	l := testLab(t)
	var wg sync.WaitGroup
	dirs := make([]string, 2)
	for i := range dirs {
		wg.Go(func() {
			_, dir, err := l.Run(t.Context(), scenario(t, "nullderef"))
			if err != nil {
				t.Errorf("run %d: %v", i, err)
			}
			dirs[i] = dir
		})
	}
	wg.Wait()
	if dirs[0] == dirs[1] {
		t.Errorf("both runs used %s", dirs[0])
	}
}

// TestInterrupt ends a run while each stage runs. No QEMU may be left, the
// ledger must tell the truth, and the blame is not the kernel's.
func TestInterrupt(t *testing.T) {
	for _, stage := range []string{StageHost, StageKernel, StageModule, StageImage, StageBoot, StageArm, StageTrigger, StageCapture, StageVMCore, StageAnalyze, StageAssert} {
		t.Run(stage, func(t *testing.T) {
			l := testLab(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var pid int
			l.began = func(name string, r *run) {
				if r.crash != nil && r.crash.guest != nil {
					pid = r.crash.guest.PID()
				}
				switch {
				case name != stage:
				case slices.Contains([]string{StageBoot, StageArm, StageTrigger, StageCapture, StageVMCore}, stage):
					// In the middle of the stage rather than before it.
					time.AfterFunc(20*time.Millisecond, cancel)
				default: // it may be over by then
					cancel()
				}
			}
			run, _, err := l.Run(ctx, scenario(t, "nullderef"))
			if err == nil {
				t.Fatal("Run() succeeded; want it interrupted")
			}
			if got := blame.ExitCode(err); got != int(blame.Infrastructure) {
				t.Errorf("exit code of %v = %d; want %d", err, got, blame.Infrastructure)
			}
			if run.Verdict != ledger.Broken {
				t.Errorf("verdict = %s; want %s", run.Verdict, ledger.Broken)
			}
			if pid != 0 {
				if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
					t.Errorf("QEMU, process %d, is still there: %v", pid, err)
				}
			}
		})
	}
}

// crashParts builds what a crash needs, with changes to the job.
func crashParts(t *testing.T, change func(*wire.FirstJob)) crashSpec {
	t.Helper()
	ctx := t.Context()
	l := testLab(t)
	s, err := store.Open(l.Settings.Cache, nil)
	if err != nil {
		t.Fatal(err)
	}
	sc := scenario(t, "nullderef")
	spec := sc.Kernel
	if l.Settings.Kernel != "" {
		spec = l.Settings.Kernel
	}
	k, err := kernels.New(s, nil, nil, kernels.Options{}).Fetch(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	m, err := (&kmod.Builder{Store: s}).Build(ctx, k, modules.FS, "nullderef")
	if err != nil {
		t.Fatal(err)
	}
	probe, err := Accelerator(ctx, s, l.Settings.QEMU, l.Settings.Accel)
	if err != nil {
		t.Fatal(err)
	}
	binary, err := findQEMU(l.Settings.QEMU)
	if err != nil {
		t.Fatal(err)
	}
	job := wire.FirstJob{Kexec: &wire.Kexec{Cmdline: kexecCmdline}, Trigger: wire.Trigger{Kind: wire.TriggerModule}}
	if change != nil {
		change(&job)
	}
	ko := m.KO
	if job.Trigger.Kind != wire.TriggerModule {
		ko = ""
	}
	im, err := buildImages(ctx, s, l.Root, k, job, ko)
	if err != nil {
		t.Fatal(err)
	}
	return crashSpec{
		dir: t.TempDir(), binary: binary, accel: probe.Accel, cpus: sc.Guest.CPUs, memoryMiB: sc.Guest.MemoryMiB,
		kernel: k.Image, initrd: im.first, crashkernel: sc.Guest.Crashkernel,
	}
}

// capturedDisk crashes a guest and returns the disk with its memory.
func capturedDisk(t *testing.T) string {
	t.Helper()
	spec := crashParts(t, nil)
	if err := crashUntilError(t, spec, nil); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(spec.dir, "capture.raw")
}

// crashUntilError goes through the phases and returns the first error.
func crashUntilError(t *testing.T, s crashSpec, change func(*qemu.Machine)) error {
	t.Helper()
	c, err := newCrash(s)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&c.machine)
	}
	defer c.close()
	ctx := t.Context()
	if _, err := c.boot(ctx, nil, "", nil); err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	if _, err := c.arm(ctx); err != nil {
		return fmt.Errorf("arm: %w", err)
	}
	if _, err := c.trigger(ctx); err != nil {
		return fmt.Errorf("trigger: %w", err)
	}
	if _, err := c.capture(ctx); err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	return nil
}

// TestGuestFaults breaks the guest in different ways; each must be told by name
// in seconds, with the last console lines and the command to run it by hand.
func TestGuestFaults(t *testing.T) {
	for _, tt := range []struct {
		name    string
		job     func(*wire.FirstJob)
		spec    func(*crashSpec)
		machine func(*qemu.Machine)
		party   blame.Party
		kind    qemu.Kind // of the *qemu.Error, if there is one
		phase   string
		text    string
	}{
		{name: "no init", spec: func(s *crashSpec) { s.cmdline = "rdinit=/nothing" },
			party: blame.Kernel, kind: qemu.Panicked, phase: "boot", text: "Kernel panic"},
		{name: "never boots", machine: func(m *qemu.Machine) { m.Kernel, m.Initrd, m.Cmdline = "", "", "" },
			party: blame.Kernel, kind: qemu.Hung, phase: "boot"},
		{name: "not a kernel", spec: func(s *crashSpec) { s.kernel = "/etc/hostname" },
			party: blame.Infrastructure, kind: qemu.Refused, phase: "boot"},
		{name: "no crashkernel", spec: func(s *crashSpec) { s.crashkernel = "" },
			party: blame.Kernel, phase: "arm", text: "crashkernel"},
		{name: "capture kernel dies", job: func(j *wire.FirstJob) { j.Kexec.Cmdline += " rdinit=/nothing" },
			party: blame.Kernel, kind: qemu.Panicked, phase: "trigger", text: "Kernel panic"},
		{name: "does not crash", job: func(j *wire.FirstJob) { j.Trigger.Kind = wire.TriggerExit },
			party: blame.Kernel, phase: "trigger"},
		{name: "QEMU refuses", spec: func(s *crashSpec) { s.memoryMiB = -1 },
			party: blame.Infrastructure, kind: qemu.Refused, phase: "boot"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec := crashParts(t, tt.job)
			if tt.spec != nil {
				tt.spec(&spec)
			}
			start := time.Now()
			err := crashUntilError(t, spec, tt.machine)
			if err == nil {
				t.Fatal("the run succeeded")
			}
			t.Logf("after %v: %v", time.Since(start).Round(time.Millisecond), err)
			e := blame.Of(err)
			if e.Party != tt.party {
				t.Errorf("party = %v; want %v", e.Party, tt.party)
			}
			if e.Replay == "" {
				t.Error("no command line to replay it")
			}
			if !strings.HasPrefix(err.Error(), tt.phase) {
				t.Errorf("error = %q; want it in phase %s", err, tt.phase)
			}
			q, _ := errors.AsType[*qemu.Error](err)
			if tt.kind != "" && (q == nil || q.Kind != tt.kind) {
				t.Errorf("qemu error = %+v; want kind %s", q, tt.kind)
			}
			if all := err.Error() + strings.Join(e.Look, "\n"); !strings.Contains(all, tt.text) {
				t.Errorf("%q is not in the error or what it shows", tt.text)
			}
			if took := time.Since(start); took > 90*time.Second {
				t.Errorf("told after %v; want seconds", took)
			}
		})
	}
}

// TestDiskFull gives QEMU a disk that is full long before the memory is written.
func TestDiskFull(t *testing.T) {
	spec := crashParts(t, nil)
	wrapper := filepath.Join(t.TempDir(), "qemu")
	script := "#!/bin/sh\nexec unshare -Urm sh -c 'mount -t tmpfs -o size=20m none \"$0\" && truncate -s 1G \"$0/capture.raw\" && exec \"$@\"' " +
		execx.Quote([]string{spec.dir, spec.binary}) + ` "$@"` + "\n"
	if err := os.WriteFile(wrapper, []byte(script), 0o777); err != nil {
		t.Fatal(err)
	}
	spec.binary = wrapper
	err := crashUntilError(t, spec, nil)
	if e := blame.Of(err); err == nil || e.Party != blame.Infrastructure || !strings.Contains(e.Hint, "is full") {
		t.Errorf("error = %v (%+v); want a full disk, the infrastructure's fault", err, e)
	}
}

// TestVMCoreDiskFull has no space for the vmcore.
func TestVMCoreDiskFull(t *testing.T) {
	disk := capturedDisk(t)
	full := filepath.Join(t.TempDir(), "vmcore")
	if err := os.Symlink("/dev/full", full); err != nil {
		t.Fatal(err)
	}
	_, err := writeVMCore(t.Context(), disk, full)
	if !errors.Is(err, syscall.ENOSPC) || blame.Of(err).Party != blame.Infrastructure {
		t.Errorf("writeVMCore() = %v; want no space left, the infrastructure's fault", err)
	}
	if _, err := os.Lstat(full); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was written is still there: %v", err)
	}
}

// TestNoQEMU runs without QEMU and without the right to install it.
func TestNoQEMU(t *testing.T) {
	l := testLab(t)
	l.Settings.QEMU = "qemu-that-is-not-there"
	_, _, err := l.Run(t.Context(), scenario(t, "sysrq"))
	if e := blame.Of(err); err == nil || e.Party != blame.Infrastructure || e.Hint == "" {
		t.Errorf("Run() = %v (%+v); want an infrastructure error that says what to type", err, e)
	}
}

// TestUnknownKernel asks for a kernel that nobody has.
func TestUnknownKernel(t *testing.T) {
	l := testLab(t)
	l.Settings.Kernel = "debian:1.2"
	_, _, err := l.Run(t.Context(), scenario(t, "sysrq"))
	if err == nil || !strings.Contains(err.Error()+strings.Join(blame.Of(err).Look, "\n")+blame.Of(err).Hint, "debian:6.") {
		t.Errorf("Run() = %v; want an error that names kernels there are", err)
	}
}

// TestCaptureDamage flips a byte in the middle of what the guest wrote, and cuts it short.
func TestCaptureDamage(t *testing.T) {
	disk := capturedDisk(t)
	out := filepath.Join(t.TempDir(), "vmcore")
	if _, err := writeVMCore(t.Context(), disk, out); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	end := len(bytes.TrimRight(whole, "\x00"))
	whole = whole[:end] // the rest of the disk was never written
	for _, at := range []int{0, 5000, end / 3, end / 2, end - 1} {
		b := bytes.Clone(whole)
		b[at] ^= 0x40
		damaged := filepath.Join(filepath.Dir(out), "damaged")
		if err := os.WriteFile(damaged, b, 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := writeVMCore(t.Context(), damaged, out); err == nil || blame.Of(err).Party != blame.Kernel {
			t.Errorf("a flipped bit at %d: error %v; want the transfer refused", at, err)
		}
		if err := os.WriteFile(damaged, whole[:at], 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := writeVMCore(t.Context(), damaged, out); err == nil || blame.Of(err).Party != blame.Kernel {
			t.Errorf("cut at %d: error %v; want the transfer refused", at, err)
		}
	}
}
