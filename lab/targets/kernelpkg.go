package targets

import (
	"context"
	"os"

	"crashlab/lab"
	"crashlab/lab/kbuild"
)

// Rpm packs a kernel as RPM packages, by the kernel's own target: kernel:rpm source:6.1.
//
// dir: where the packages go; without it packages
func (Kernel) Rpm(ctx context.Context, spec string, dir *string) error {
	return pack(ctx, spec, kbuild.RPM, dir)
}

// Deb packs a kernel as Debian packages, by the kernel's own target: kernel:deb source:6.1.
//
// dir: where the packages go; without it packages
func (Kernel) Deb(ctx context.Context, spec string, dir *string) error {
	return pack(ctx, spec, kbuild.Deb, dir)
}

func pack(ctx context.Context, spec string, kind kbuild.PackageKind, dir *string) error {
	to := "packages"
	if dir != nil {
		to = *dir
	}
	return withLab(func(l *lab.Lab) error { return l.KernelPackage(ctx, os.Stdout, spec, kind, to) })
}

// Rpminfo prints what rpm -qip and rpm -qlp would of a package, and verifies its digests.
func (Kernel) Rpminfo(ctx context.Context, file string) error {
	return exit(lab.KernelRPMInfo(ctx, os.Stdout, file))
}
