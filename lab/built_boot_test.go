//go:build lab && built

package lab

import (
	"bytes"
	"debug/elf"
	"strings"
	"testing"
)

// Kernels of both architectures boot and end as they are told: that of the PC,
// which has no ACPI, by a reset, that of arm64, and the distribution's, by
// switching the machine off. What the guest says of itself on its console is the
// truth.
func TestBuiltBoot(t *testing.T) {
	for spec, want := range map[string]struct {
		machine elf.Machine
		reason  string
		banner  string // of the kernel's own log
	}{
		"source:6.1":       {elf.EM_X86_64, "guest-reset", "Linux version 6.1."},
		"source:6.1+arm64": {elf.EM_AARCH64, "guest-shutdown", "Machine model: linux,dummy-virt"},
		"debian":           {elf.EM_X86_64, "guest-shutdown", "Linux version 6."},
	} {
		t.Run(spec, func(t *testing.T) {
			l := testLab(t)
			b, err := l.bootsOf(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			got, err := b.boot(t.Context(), 2)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("uptime %v, up after %v, off after %v", got.uptime, got.up, got.off)
			if got.reason != want.reason || got.uptime <= 0 || got.up < got.off {
				t.Errorf("boot = %+v; want the end %s", got, want.reason)
			}
			if !strings.Contains(got.console, want.banner) || !strings.Contains(got.console, "Run /init as init process") {
				t.Errorf("the console says\n%s\nwant %q in it", got.console, want.banner)
			}
			if b.kernel.VMLinux == "" {
				return
			}
			f, err := elf.Open(b.kernel.VMLinux)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if f.Machine != want.machine {
				t.Errorf("vmlinux is for %v; want %v", f.Machine, want.machine)
			}
		})
	}
}

// A kernel for arm64 is booted and not crashed, and that is said before anything
// is done.
func TestBuiltBootOnly(t *testing.T) {
	l := testLab(t)
	l.Settings.Kernel = "source:6.1+arm64"
	if _, _, err := l.Run(t.Context(), scenario(t, "nullderef")); err == nil || !strings.Contains(err.Error(), "arm64") {
		t.Errorf("Run on arm64 = %v; want that the analyzer does not know it", err)
	}
	l.Settings.Kernel, l.Settings.Arch = "", "arm64"
	var said bytes.Buffer
	if err := l.KernelBoot(t.Context(), &said, ""); err != nil || !strings.Contains(said.String(), "-lab-arm64: process 1 ran") {
		t.Errorf("KernelBoot with arch arm64 = %v, %q", err, said.String())
	}
}
