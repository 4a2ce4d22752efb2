package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"crashlab/lab/blame"
	"crashlab/lab/kernels"
	"crashlab/lab/store"
	"crashlab/lab/ui"
	"crashlab/lab/wire"
	"crashlab/qemu"
)

// defaultKernel is the kernel that is studied unless the user says otherwise.
const defaultKernel = "debian"

// boots is what booting one kernel again and again needs.
type boots struct {
	ui      *ui.UI
	log     *slog.Logger
	root    string
	store   *store.Store
	kernel  *kernels.Kernel
	probe   qemu.Probe
	machine qemu.Arch // default a PC
	binary  string
}

// newBoots is bootsOf the kernel of the settings.
func (l *Lab) newBoots(ctx context.Context) (*boots, error) {
	if l.Settings.Kernel != "" {
		return l.bootsOf(ctx, l.Settings.Kernel)
	}
	return l.bootsOf(ctx, defaultKernel)
}

// bootsOf fetches a kernel and looks at the host.
func (l *Lab) bootsOf(ctx context.Context, spec string) (*boots, error) {
	b := &boots{ui: l.UI, log: l.Log, root: l.Root}
	var err error
	if b.store, err = store.Open(l.Settings.Cache, l.Log); err != nil {
		return nil, err
	}
	if b.kernel, err = kernels.New(b.store, l.Log, nil, l.kernelOptions()).Fetch(ctx, spec); err != nil {
		return nil, err
	}
	name := l.Settings.QEMU
	if b.kernel.Arch == "arm64" {
		return b, b.forARM64(ctx, strings.Replace(name, qemu.Binary, qemu.BinaryFor(qemu.ARM64), 1), l.Settings.Accel)
	}
	if b.probe, err = Accelerator(ctx, b.store, name, l.Settings.Accel); err != nil {
		return nil, err
	}
	b.binary, err = findQEMU(name)
	return b, err
}

// forARM64 has the kernel run on a machine of arm64, which is always emulated.
func (b *boots) forARM64(ctx context.Context, name, accel string) error {
	if accel == string(qemu.KVM) {
		return blame.New(blame.Usage, "use KVM", errors.New("kernels of arm64 are emulated"))
	}
	b.machine, b.probe = qemu.ARM64, qemu.Probe{Accel: qemu.TCG, Reason: "another architecture"}
	var err error
	if b.binary, err = findQEMU(name); err != nil {
		return err
	}
	if b.probe.Version, err = qemu.Version(ctx, b.binary); err != nil {
		return blame.New(blame.Infrastructure, "ask QEMU for its version", err)
	}
	return nil
}

// images builds the images for a job.
func (b *boots) images(ctx context.Context, job wire.FirstJob) (images, error) {
	return buildImages(ctx, b.store, b.root, b.kernel, job, "")
}

// host says what was measured on.
func (b *boots) host() string {
	return fmt.Sprintf("Host with %d processors, QEMU %s, %s.", runtime.NumCPU(), b.probe.Version, strings.ToUpper(string(b.probe.Accel)))
}

// measure boots the kernel once with cmdline added, and returns what its agent
// measured, which takes the given time, and what stood on its console.
func (b *boots) measure(ctx context.Context, cmdline string, takes time.Duration, trigger wire.Trigger) (m *wire.Measured, console string, err error) {
	im, err := b.images(ctx, wire.FirstJob{Trigger: trigger})
	if err != nil {
		return nil, "", err
	}
	dir, err := os.MkdirTemp("", "crashlab-study-")
	if err != nil {
		return nil, "", blame.New(blame.Infrastructure, "make a folder for the guest", err)
	}
	defer os.RemoveAll(dir)
	log := filepath.Join(dir, consoleFile)
	machine := qemu.Machine{
		Binary: b.binary, Accel: b.probe.Accel, CPUs: 1, MemoryMiB: 512,
		Kernel: b.kernel.Image, Initrd: im.first, Cmdline: strings.TrimSpace(firstCmdline + " " + cmdline), NoReboot: true,
	}
	g, err := startGuest(ctx, machine, qemu.Options{Log: b.log, ConsoleLog: log})
	if err != nil {
		return nil, "", err
	}
	defer g.Kill()
	e, err := g.await(ctx, wire.StageFirst, wire.EventMeasured, qemu.Phase{Name: "boot and measure", Deadline: bootDeadline + takes})
	if err != nil {
		if ctx.Err() != nil {
			return nil, "", interrupted(ctx, err)
		}
		return nil, "", err
	}
	if err := g.Wait(); err != nil {
		return nil, "", guestError("boot and measure", machine, err)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		return nil, "", blame.New(blame.Infrastructure, "read the guest's console", err)
	}
	return e.Measured, string(text), nil
}
