package lab

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"

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
	ui     *ui.UI
	log    *slog.Logger
	root   string
	store  *store.Store
	kernel *kernels.Kernel
	probe  qemu.Probe
	binary string
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
	if b.kernel, err = kernels.New(b.store, l.Log, nil).Fetch(ctx, spec); err != nil {
		return nil, err
	}
	if b.probe, err = Accelerator(ctx, b.store, l.Settings.QEMU, l.Settings.Accel); err != nil {
		return nil, err
	}
	b.binary, err = findQEMU(l.Settings.QEMU)
	return b, err
}

// images builds the images for a job.
func (b *boots) images(ctx context.Context, job wire.FirstJob) (images, error) {
	return buildImages(ctx, b.store, b.root, b.kernel, job, "")
}

// host says what was measured on.
func (b *boots) host() string {
	return fmt.Sprintf("Host with %d processors, QEMU %s, %s.", runtime.NumCPU(), b.probe.Version, strings.ToUpper(string(b.probe.Accel)))
}
