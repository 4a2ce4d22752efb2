package lab

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"crashlab/kconfig"
	"crashlab/lab/blame"
	"crashlab/lab/wire"
	"crashlab/qemu"
	"crashlab/scenarios"
)

// kexecCmdline is the capture kernel's command line. What is not obvious:
// nr_cpus=1 needs the least memory; reset_devices and irqpoll are the advice of
// Documentation/admin-guide/kdump/kdump.rst; without KASLR the kernel cannot
// fail to find a place in the small reservation. One disk needs no ACPI, whose
// interpreter takes most of a second under emulation (and without ACPI there
// are no MSIs), and one CPU no patching of locks.
const kexecCmdline = "console=ttyS0 irqpoll nr_cpus=1 reset_devices nokaslr cgroup_disable=memory mce=off numa=off " +
	"transparent_hugepage=never random.trust_cpu=on panic=-1 cryptomgr.notests acpi=off pci=nomsi noreplace-smp"

// captureCmdline returns the capture kernel's command line for a kernel with the
// given configuration. Without ACPI one that can takes the processors from the MP
// table, which calls the first one the boot processor. If the crash was on another
// one and there is room for one only, that is not listed, and the kernel gives up
// in setup_local_APIC: so all are listed, and one is used.
func captureCmdline(c *kconfig.Config) string {
	if c.State("X86_MPPARSE") == kconfig.Yes {
		return strings.Replace(kexecCmdline, "nr_cpus=1", "maxcpus=1", 1)
	}
	return kexecCmdline
}

// minCrashSize is the least reservation, in bytes, with which the capture kernel
// is let loose: it uses some 30 MiB, but with 64 MiB reserved it hung while booting.
const minCrashSize = 80 << 20

// firstCmdline is the command line of the kernel that is to crash, without
// crashkernel= and what the scenario adds. An oops must not leave the machine
// running: oops=panic. A panic that does not reach the capture kernel ends QEMU
// (panic=-1 and Machine.NoReboot). The self-tests of the crypto code take a tenth of an
// emulated boot.
const firstCmdline = "console=ttyS0 oops=panic panic=-1 random.trust_cpu=on cryptomgr.notests"

// crash is the part of a run that happens inside one QEMU.
type crash struct {
	machine     qemu.Machine
	captureDisk string
	truthDisk   string // empty if the guest records no truth
	guest       *guest
	nmi         bool
	timeouts    scenarios.Timeouts
}

// crashSpec is what a crash needs to know.
type crashSpec struct {
	dir         string // the run's folder
	binary      string
	accel       qemu.Accel
	cpus        int
	memoryMiB   int
	kernel      string // bzImage
	initrd      string
	crashkernel string // value of crashkernel=
	cmdline     string // added to the first kernel's
	truth       bool
	nmi         bool // the crash is by an NMI that the host sends
	timeouts    scenarios.Timeouts
}

// newCrash lays out the machine and its disks. The disks are sparse files as
// large as what may be written to them.
func newCrash(s crashSpec) (*crash, error) {
	c := &crash{captureDisk: filepath.Join(s.dir, "capture.raw"), nmi: s.nmi, timeouts: s.timeouts}
	disks := []qemu.Disk{{Path: c.captureDisk, Serial: wire.CaptureDisk}}
	// Every page, a header for each run of pages at worst.
	sizes := []int64{int64(s.memoryMiB)<<20 + 64<<20}
	if s.truth {
		c.truthDisk = filepath.Join(s.dir, "truth.raw")
		disks = append(disks, qemu.Disk{Path: c.truthDisk, Serial: wire.TruthDisk})
		sizes = append(sizes, 256<<20)
	}
	for i, d := range disks {
		if err := sparseFile(d.Path, sizes[i]); err != nil {
			return nil, blame.New(blame.Infrastructure, "make the guest's disk", err)
		}
	}
	cmdline := firstCmdline
	if s.crashkernel != "" {
		cmdline += " crashkernel=" + s.crashkernel
	}
	if s.cmdline != "" {
		cmdline += " " + s.cmdline
	}
	c.machine = qemu.Machine{
		Binary: s.binary, Accel: s.accel, CPUs: s.cpus, MemoryMiB: s.memoryMiB,
		Kernel: s.kernel, Initrd: s.initrd, Cmdline: cmdline, Disks: disks, NoReboot: true,
	}
	return c, nil
}

func sparseFile(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// boot starts the guest and waits for its agent.
func (c *crash) boot(ctx context.Context, log *slog.Logger, consoleLog string, live io.Writer) (string, error) {
	var err error
	c.guest, err = startGuest(ctx, c.machine, qemu.Options{Log: log, ConsoleLog: consoleLog, ConsoleTo: live})
	if err != nil {
		return "", err
	}
	e, err := c.guest.await(ctx, wire.StageFirst, wire.EventHello,
		qemu.Phase{Name: "boot the kernel", Deadline: cmp.Or(c.timeouts.Boot, bootDeadline), Silence: silence})
	return fmt.Sprintf("agent running after %.1f s of uptime", e.Uptime), err
}

// arm waits until a crash would start the capture kernel.
func (c *crash) arm(ctx context.Context) (string, error) {
	e, err := c.guest.await(ctx, wire.StageFirst, wire.EventArmed,
		qemu.Phase{Name: "load the capture kernel", Deadline: cmp.Or(c.timeouts.Arm, armDeadline)})
	return fmt.Sprintf("capture kernel loaded, %d MiB reserved for it", e.CrashSize>>20), err
}

// trigger waits for the crash: until the capture kernel's agent reports.
func (c *crash) trigger(ctx context.Context) (string, error) {
	if _, err := c.guest.await(ctx, wire.StageFirst, wire.EventTrigger,
		qemu.Phase{Name: "record the guest's own view", Deadline: cmp.Or(c.timeouts.Trigger, armDeadline)}); err != nil {
		return "", err
	}
	if c.nmi {
		if err := c.injectNMI(ctx); err != nil {
			return "", err
		}
	}
	e, err := c.guest.await(ctx, wire.StageCapture, wire.EventHello,
		qemu.Phase{Name: "crash, and boot the capture kernel", Deadline: cmp.Or(c.timeouts.Capture, captureDeadline), Silence: silence, Fatal: captureBootFailed()})
	return fmt.Sprintf("capture kernel up after %.1f s of uptime", e.Uptime), err
}

// nmiDelay is how long the guest's agent has to go to sleep before an NMI.
const nmiDelay = 500 * time.Millisecond

// injectNMI presses the guest's NMI button.
func (c *crash) injectNMI(ctx context.Context) error {
	select {
	case <-time.After(nmiDelay):
	case <-ctx.Done():
		return guestError("send an NMI", c.machine, context.Cause(ctx))
	}
	if err := c.guest.QMP().Do(ctx, "inject-nmi", nil, nil); err != nil {
		return guestError("send an NMI", c.machine, err)
	}
	return nil
}

// capture waits until the memory has been written and the guest has ended.
func (c *crash) capture(ctx context.Context) (string, error) {
	e, err := c.copied(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d MiB of %d MiB not zero; capture kernel's peak %d of %d MiB",
		e.Data>>20, e.Total>>20, e.MemPeak>>20, e.MemTotal>>20), nil
}

// copied is capture, and returns what the capture kernel's agent said of it.
func (c *crash) copied(ctx context.Context) (wire.Event, error) {
	e, err := c.guest.await(ctx, wire.StageCapture, wire.EventDone,
		qemu.Phase{Name: "copy the memory", Deadline: cmp.Or(c.timeouts.Copy, copyDeadline)})
	if err != nil {
		return e, err
	}
	return e, c.end(ctx)
}

// end waits until QEMU has ended by itself.
func (c *crash) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.machine.Accel.Scale(endDeadline), fmt.Errorf("the guest did not end"))
	defer cancel()
	select {
	case <-c.guest.Done():
	case <-ctx.Done():
		c.guest.Kill()
		return guestError("end the guest", c.machine, context.Cause(ctx))
	}
	if err := c.guest.Wait(); err != nil {
		return guestError("end the guest", c.machine, err)
	}
	return nil
}

// close ends the guest if it still runs.
func (c *crash) close() {
	if c.guest != nil {
		c.guest.Kill()
	}
}
