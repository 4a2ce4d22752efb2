package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"crashlab/kconfig"
	"crashlab/lab/blame"
	"crashlab/lab/wire"
	"crashlab/qemu"
)

// booted is one boot without a crash, until the machine is off.
type booted struct {
	uptime time.Duration // of the guest when its first process ran, the initramfs unpacked
	up     time.Duration // from the start of the machine until then, by the host's clock
	off    time.Duration // from the first process's last word until QEMU had ended
	reason string        // QMP's: "guest-shutdown", or "guest-reset"

	console string // what the kernel said
}

// KernelBoot boots the kernel of spec, shuts it down, and writes to w how long
// each took.
func (l *Lab) KernelBoot(ctx context.Context, w io.Writer, spec string) error {
	k, err := l.kernelOf(ctx, spec, "kernel")
	if err != nil {
		return err
	}
	stage := l.UI.Begin("boot")
	var t booted
	b, err := l.bootsOf(ctx, k.Spec)
	if err == nil {
		t, err = b.boot(ctx, 2)
	}
	stage.End(k.Release, false, err)
	if err != nil {
		return err
	}
	how := map[string]string{"guest-shutdown": "switched itself off", "guest-reset": "reset itself"}[t.reason]
	_, err = fmt.Fprintf(w, "%s: process 1 ran at an uptime of %.2f s, %.2f s after the machine started; it %s in %.2f s\n",
		k.Release, t.uptime.Seconds(), t.up.Seconds(), how, t.off.Seconds())
	return err
}

// consoleLines are more than a boot says.
const consoleLines = 2000

// boot boots the kernel on a machine with cpus processors and ends it at once: by
// switching it off where the kernel can do that, else by a reset.
func (b *boots) boot(ctx context.Context, cpus int) (t booted, err error) {
	config, err := kconfig.ReadFile(b.kernel.Config)
	if err != nil {
		return t, blame.New(blame.Kernel, "read the kernel's configuration", err)
	}
	trigger, reason := wire.TriggerExit, "guest-reset"
	// A PC without ACPI cannot; arm64's firmware does it by PSCI.
	if config.State("ACPI") == kconfig.Yes || b.machine == qemu.ARM64 {
		trigger, reason = wire.TriggerOff, "guest-shutdown"
	}
	im, err := b.images(ctx, wire.FirstJob{Trigger: wire.Trigger{Kind: trigger}})
	if err != nil {
		return t, err
	}
	m := qemu.Machine{
		Binary: b.binary, Arch: b.machine, Accel: b.probe.Accel, CPUs: cpus, MemoryMiB: 512,
		Kernel: b.kernel.Image, Initrd: im.first, Cmdline: firstCmdline, NoReboot: true,
	}
	if b.machine == qemu.ARM64 {
		m.Cmdline = strings.Replace(firstCmdline, "ttyS0", "ttyAMA0", 1)
	}
	began := time.Now()
	g, err := startGuest(ctx, m, qemu.Options{Log: b.log})
	if err != nil {
		return t, err
	}
	c := &crash{machine: m, guest: g}
	defer c.close()
	e, err := g.await(ctx, wire.StageFirst, wire.EventHello, qemu.Phase{Name: "boot the kernel", Deadline: bootDeadline, Silence: silence})
	if err != nil {
		return t, err
	}
	t.uptime, t.up = time.Duration(e.Uptime*float64(time.Second)), time.Since(began)
	if _, err = g.await(ctx, wire.StageFirst, wire.EventDone, qemu.Phase{Name: "run the first process", Deadline: armDeadline}); err != nil {
		return t, err
	}
	done := time.Now()
	if err := c.end(ctx); err != nil {
		return t, err
	}
	t.off, t.console = time.Since(done), strings.Join(texts(g.Console().Tail(consoleLines)), "\n")
	if t.reason = g.Reason(); t.reason != reason {
		return t, guestError("shut the kernel down", m, errors.New("it ended as "+t.reason+" and not as "+reason))
	}
	return t, nil
}
