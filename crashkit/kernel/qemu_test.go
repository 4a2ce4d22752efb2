package kernel_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"crashlab/crashkit"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/internal/fixture"
	"crashlab/crashkit/kernel"
)

func openFixture(t *testing.T, path string) *crashkit.Program {
	t.Helper()
	p, err := crashkit.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// TestRunningGuest reads a dump that QEMU made of a guest that did not crash.
// The notes are written in both orders: they have the CPU's number in them.
func TestRunningGuest(t *testing.T) {
	img, err := dump.Open(fixture.Path(t, fixture.QEMU))
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	cfg := dump.ConfigOf(img)
	cfg.Notes = slices.Clone(cfg.Notes)
	slices.Reverse(cfg.Notes)
	turned := filepath.Join(t.TempDir(), "vmcore")
	f, err := os.Create(turned)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dump.Write(t.Context(), f, cfg, img); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	// The registers as the notes have them, by pid, at their places in struct
	// elf_prstatus: RIP is the 17th from 112, RSP the 20th.
	rip, rsp := make(map[int]uint64), make(map[int]uint64)
	for _, n := range img.Notes() {
		if n.Name == "CORE" {
			pid := int(binary.LittleEndian.Uint32(n.Desc[32:]))
			rip[pid], rsp[pid] = binary.LittleEndian.Uint64(n.Desc[112+16*8:]), binary.LittleEndian.Uint64(n.Desc[112+19*8:])
		}
	}
	if len(rip) != 2 || rip[1] == 0 || rsp[1] == rsp[2] {
		t.Fatalf("RIP %x, RSP %x: want two CPUs, different", rip, rsp)
	}
	for _, path := range []string{fixture.Path(t, fixture.QEMU), turned} {
		p := openFixture(t, path)
		if cpu, ok, err := kernel.PanicCPU(p); ok || err != nil {
			t.Errorf("PanicCPU = %d, %v, %v; want none", cpu, ok, err)
		}
		cpus, err := kernel.CPUs(p)
		if err != nil || len(cpus) != 2 {
			t.Fatalf("CPUs = %+v, %v; want two", cpus, err)
		}
		for i, c := range cpus {
			if c.CPU != i || c.Source != "QEMU" || c.PID != -1 || c.Panic || len(c.Problems) > 0 ||
				c.Regs == nil || c.Regs.RIP != rip[i+1] || c.Regs.RSP != rsp[i+1] {
				t.Errorf("CPU %d = %+v, registers %+v; want RIP %x, RSP %x of QEMU", i, c, c.Regs, rip[i+1], rsp[i+1])
			}
		}
	}
}

// TestCaptureKernelRan reads a dump that QEMU made while the capture kernel ran:
// the registers in its notes are that one's.
func TestCaptureKernelRan(t *testing.T) {
	p := openFixture(t, fixture.Path(t, fixture.Capture))
	// The console has "Kernel panic - not syncing: sysrq triggered crash" and
	// "CPU: 0 PID: 1 Comm: init".
	if cpu, ok, err := kernel.PanicCPU(p); cpu != 0 || !ok || err != nil {
		t.Errorf("PanicCPU = %d, %v, %v; want 0", cpu, ok, err)
	}
	cpus, err := kernel.CPUs(p)
	if err != nil || len(cpus) != 2 {
		t.Fatalf("CPUs = %+v, %v; want two", cpus, err)
	}
	noted := make(map[uint64]bool)
	for _, n := range p.Image.Notes() {
		if n.Name == "CORE" {
			noted[binary.LittleEndian.Uint64(n.Desc[112+16*8:])] = true
		}
	}
	for i, pid := range []int{1, 0} {
		if c := cpus[i]; c.Source != "crash_notes" || c.PID != pid || c.Regs == nil || noted[c.Regs.RIP] || c.Panic != (i == 0) {
			t.Errorf("CPU %d = %+v; want PID %d by crash_notes, not QEMU's registers", i, c, pid)
		}
	}
	records, err := kernel.Log(p)
	if err != nil || !bytes.Contains([]byte(kernel.LogText(records)), []byte("Kernel panic - not syncing: sysrq triggered crash")) {
		t.Errorf("Log: %v; want the panic in it", err)
	}
}
