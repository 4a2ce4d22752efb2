package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"crashlab/internal/pgp"
	"crashlab/internal/rpm"
	"crashlab/lab/blame"
	"crashlab/lab/doctor"
	"crashlab/lab/kbuild"
)

// KernelPackage builds the kernel of spec, packs it by a target of the kernel's own
// into dir, and writes to w the names of the packages.
func (l *Lab) KernelPackage(ctx context.Context, w io.Writer, spec string, kind kbuild.PackageKind, dir string) error {
	spec = l.builtSpec(spec)
	stage := l.UI.Begin(string(kind))
	var made []string
	err := doctor.New().Ensure(ctx, doctor.Options{Kernel: spec, Pack: []string{string(kind)}, Cache: l.Settings.Cache}, func(line string) { l.UI.Say("%s", line) })
	if err == nil {
		builder, src, want, perr := l.prepare(ctx, spec, stage, false)
		if err = perr; err == nil {
			made, err = builder.Package(ctx, src, want, kind, dir)
		}
	}
	stage.End(fmt.Sprintf("%d packages in %s", len(made), dir), false, err)
	for _, m := range made {
		fmt.Fprintln(w, m)
	}
	if err == nil && kind == kbuild.RPM {
		fmt.Fprintf(w, "crash it: CRASHLAB_KERNEL=rpm:%s go tool mage scenario:sysrq\n", filepath.Dir(made[0]))
	}
	return err
}

// KernelRPMInfo writes to w what rpm -qip and rpm -qlp print of the package in the file
// called name, with times as the user's clock has them, and then which digests it meets.
// A package that is damaged is the fault of the infrastructure.
func KernelRPMInfo(ctx context.Context, w io.Writer, name string) error {
	doing := "read " + name
	f, err := os.Open(name)
	if err != nil {
		return blame.New(blame.Usage, doing, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return blame.New(blame.Usage, doing, err)
	}
	p, err := rpm.Open(f, fi.Size())
	if err != nil {
		return blame.New(blame.Usage, doing, err)
	}
	if err := p.WriteInfo(w, time.Local, pgp.Describe); err != nil {
		return blame.New(blame.Infrastructure, doing, err)
	}
	if err := p.WriteFiles(w); err != nil {
		return blame.New(blame.Infrastructure, doing, err)
	}
	digests, err := p.Verify(ctx)
	if err != nil {
		return blame.New(blame.Infrastructure, doing, err)
	}
	for _, d := range digests {
		fmt.Fprintf(w, "%s: ok\n", d)
	}
	return nil
}
