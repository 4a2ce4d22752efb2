package targets

import (
	"context"
	"fmt"
	"os"

	"github.com/magefile/mage/mg"

	"crashlab/lab"
	"crashlab/lab/doctor"
)

// Kernel is the namespace of the targets about kernels. The kernel is that of
// the settings (CRASHLAB_KERNEL) or source:6.1.
type Kernel mg.Namespace

// Config configures a kernel and says what each fragment asked for and what did not come of it.
func (Kernel) Config(ctx context.Context) error {
	return withLab(func(l *lab.Lab) error { return l.KernelConfig(ctx, os.Stdout, "") })
}

// Build builds a kernel.
func (Kernel) Build(ctx context.Context) error {
	return withLab(func(l *lab.Lab) error { return l.KernelBuild(ctx, os.Stdout, "") })
}

// Info says what a kernel is and where its parts lie.
func (Kernel) Info(ctx context.Context) error {
	return withLab(func(l *lab.Lab) error { return l.KernelInfo(ctx, os.Stdout, "") })
}

// Install copies a kernel and its modules below a directory.
func (Kernel) Install(ctx context.Context, dir string) error {
	return withLab(func(l *lab.Lab) error { return l.KernelInstall(ctx, os.Stdout, "", dir) })
}

// Menuconfig changes a kernel's configuration by menus and saves the difference as a fragment.
func (Kernel) Menuconfig(ctx context.Context, file string) error {
	return withLab(func(l *lab.Lab) error { return l.KernelMenu(ctx, os.Stdout, "", "menuconfig", file) })
}

// Nconfig is menuconfig with other menus.
func (Kernel) Nconfig(ctx context.Context, file string) error {
	return withLab(func(l *lab.Lab) error { return l.KernelMenu(ctx, os.Stdout, "", "nconfig", file) })
}

// Make runs targets of the kernel's own Makefile: kernel:make help.
func (Kernel) Make(ctx context.Context, targets string) error {
	return withLab(func(l *lab.Lab) error { return l.KernelMake(ctx, "", targets) })
}

// Search finds configuration options by words in their names, prompts and help.
func (Kernel) Search(ctx context.Context, words string) error {
	return withLab(func(l *lab.Lab) error { return l.KernelSearch(ctx, os.Stdout, "", words) })
}

// Diff compares two configurations by meaning: of .config, config.gz, bzImage or vmlinux.
func (Kernel) Diff(from, to string) error { return exit(lab.KernelDiff(os.Stdout, from, to)) }

// Fragments lists what can follow a + in the name of a kernel.
func (Kernel) Fragments() error { return exit(lab.KernelFragments(os.Stdout)) }

// withLab runs f with the user's settings.
func withLab(f func(*lab.Lab) error) error {
	l, err := open()
	if err != nil {
		return exit(err)
	}
	err = f(l)
	l.UI.Close()
	return exit(err)
}

// Built builds kernels for real, and crashes them: an hour the first time.
func Built(ctx context.Context) error {
	o, err := doctorOptions()
	if err != nil {
		return exit(err)
	}
	o.Build, o.Pack, o.Packers = true, []string{"rpm", "deb"}, []string{"gzip", "bzip2", "xz", "lzop", "lz4", "zstd"}
	if err := doctor.New().Ensure(ctx, o, func(line string) { fmt.Println(line) }); err != nil {
		return exit(err)
	}
	return tool(ctx, "go", "test", "-tags", "lab,built", "-count=1", "-timeout=3h", "-v", "-run", "^TestBuilt", "./lab")
}
