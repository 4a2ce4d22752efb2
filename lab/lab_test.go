package lab

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crashlab/kconfig"
	"crashlab/lab/blame"
	"crashlab/qemu"
)

// TestGuestError gives each kind of a guest's end its culprit.
func TestGuestError(t *testing.T) {
	m := qemu.Machine{Binary: "qemu", Disks: []qemu.Disk{{Path: "/runs/x/capture.raw"}}}
	for kind, want := range map[qemu.Kind]blame.Party{
		qemu.Refused: blame.Infrastructure, qemu.Died: blame.Infrastructure, qemu.Killed: blame.Infrastructure, qemu.Stopped: blame.Infrastructure,
		qemu.Reset: blame.Kernel, qemu.PoweredOff: blame.Kernel, qemu.Panicked: blame.Kernel, qemu.Hung: blame.Kernel, qemu.Slow: blame.Kernel,
	} {
		err := guestError("boot", m, &qemu.Error{Kind: kind, Stderr: "qemu: because\n", Last: []qemu.Line{{Text: "last words"}}})
		e := blame.Of(err)
		if e.Party != want {
			t.Errorf("%s is the fault of %v; want %v", kind, e.Party, want)
		}
		if look := strings.Join(e.Look, "|"); look != "qemu: because|last words" || e.Replay == "" {
			t.Errorf("%s: look %q, replay %q; want what QEMU said, the last lines, and the command line", kind, look, e.Replay)
		}
	}
	e := blame.Of(guestError("copy", m, &qemu.Error{Kind: qemu.Stopped, Status: "io-error"}))
	if !strings.Contains(e.Hint, "/runs/x is full") {
		t.Errorf("hint = %q; want it to say which disk is full", e.Hint)
	}
}

// TestCaptureBootFailed tells a panic of the crashed kernel, which must happen,
// from one of the capture kernel.
func TestCaptureBootFailed(t *testing.T) {
	panicLine := qemu.Line{Text: "[    5.1] Kernel panic - not syncing: sysrq triggered crash"}
	banner := qemu.Line{Text: "[    0.000000] Linux version 6.1.0 (x) #1 SMP"}
	fatal := captureBootFailed()
	for i, tt := range []struct {
		line qemu.Line
		want bool
	}{{panicLine, false}, {banner, false}, {panicLine, true}} {
		if got := fatal(tt.line); got != tt.want {
			t.Errorf("line %d, %q: fatal = %v; want %v", i, tt.line.Text, got, tt.want)
		}
	}
	if !captureBootFailed()(qemu.Line{Text: "---[ end Kernel panic - not syncing: x ]---"}) {
		t.Error("a panic that led nowhere is not fatal")
	}
}

// TestHashFiles changes everything that a key must follow.
func TestHashFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	hash := func() string {
		t.Helper()
		h, err := hashFiles(dir)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	seen := map[string]string{}
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"one file", func() { write("a", "x") }},
		{"other text", func() { write("a", "y") }},
		{"another file", func() { write("b", "") }},
		{"text moved over", func() { write("a", ""); write("b", "y") }},
	} {
		step.do()
		h := hash()
		if before, ok := seen[h]; ok {
			t.Errorf("%s: the same hash as %s", step.name, before)
		}
		if h != hash() {
			t.Errorf("%s: two hashes of the same files", step.name)
		}
		seen[h] = step.name
	}
	if _, err := hashFiles(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("hashFiles of nothing: %v; want %v", err, os.ErrNotExist)
	}
}

// A kernel that reads the MP table keeps room for all processors when it captures.
func TestCaptureCmdline(t *testing.T) {
	for config, want := range map[string]string{"CONFIG_ACPI=y\n": " nr_cpus=1 ", "CONFIG_X86_MPPARSE=y\n": " maxcpus=1 ", "CONFIG_X86_MPPARSE=y\nCONFIG_ACPI=y\n": " maxcpus=1 "} {
		c, err := kconfig.Parse(strings.NewReader(config))
		if err != nil {
			t.Fatal(err)
		}
		got := captureCmdline(c)
		if !strings.Contains(got, want) || strings.Contains(got, "nr_cpus=") && strings.Contains(got, "maxcpus=") {
			t.Errorf("captureCmdline(%q) = %q; want%sand no other", config, got, want)
		}
	}
}
