// Package doctor finds out what a machine lacks to run the lab, and installs
// it where that is possible without asking anybody.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"crashlab/internal/execx"
	"crashlab/lab/blame"
)

// EnvInstall names the environment variable that, set to "never", keeps Ensure
// from installing anything.
const EnvInstall = "CRASHLAB_INSTALL"

// Check is the answer to one question about the host.
type Check struct {
	Name    string // "make"
	OK      bool
	Info    bool   // says something, but nothing depends on it
	Found   string // what is there: a path, an amount; empty if nothing
	Need    string // what was looked for, if it is not OK
	Why     string // what the lab needs it for
	Package string // what to install, by the name of this distribution; may be empty
}

// Options say what the lab is about to do.
type Options struct {
	Kernel   string   // the kernel's spec; only Debian's need apt
	Compiler string   // that the kernel asks for, such as "gcc-12"; empty means any gcc
	Tests    bool     // go test -race will run
	Build    bool     // a kernel will be built
	ARM64    bool     // it is one for arm64, and so is the machine that runs it
	Menu     bool     // it will be configured by menus
	Pack     []string // it will be packed as "rpm" or "deb"
	Packers  []string // programs that pack its image, such as "zstd"
	Cache    string   // directory of the cache; it need not exist
	Space    int64    // bytes that are needed there

	// Accelerator says which accelerator QEMU will use, and why. It is only
	// called by Examine, and only if not nil.
	Accelerator func(ctx context.Context) (string, error)
}

// Doctor looks at a machine. Its functions are those of this machine unless a
// test replaces them.
type Doctor struct {
	lookPath func(string) (string, error)
	glob     func(string) ([]string, error)
	free     func(dir string) (int64, error)
	getenv   func(string) string
	run      func(context.Context, execx.Cmd) ([]byte, error)
	root     bool
}

// New returns a Doctor for this machine.
func New() *Doctor {
	return &Doctor{
		lookPath: exec.LookPath, glob: filepath.Glob, free: free, getenv: os.Getenv,
		run: execx.Run, root: os.Geteuid() == 0,
	}
}

// need is something that can be missing: a program or a file.
type need struct {
	name     string
	programs []string // one of them is needed, the best first
	files    []string // glob patterns; one of them must match
	why      string
	packages map[string]string // by package manager
}

// needs lists what o depends on. libelf and zlib are not for us: objtool in
// the kernel's headers is linked with them.
func needs(o Options) []need {
	compilers := []string{"gcc"}
	if o.Compiler != "" && o.Compiler != "gcc" {
		compilers = []string{o.Compiler, "gcc"}
	}
	all := func(name string) map[string]string {
		return map[string]string{"apt-get": name, "dnf": name, "zypper": name, "pacman": name}
	}
	ns := []need{
		{name: "qemu", programs: []string{"qemu-system-x86_64"}, why: "runs the virtual machine that crashes",
			packages: map[string]string{"apt-get": "qemu-system-x86", "dnf": "qemu-system-x86-core", "zypper": "qemu-x86", "pacman": "qemu-system-x86"}},
		{name: "compiler", programs: compilers, why: "builds the crash module", packages: all("gcc")},
		{name: "make", programs: []string{"make"}, why: "builds the crash module", packages: all("make")},
		{name: "libelf", files: libraries("libelf.so.1"), why: "objtool, which checks the built module, is linked with it",
			packages: map[string]string{"apt-get": "libelf1", "dnf": "elfutils-libelf", "zypper": "libelf1", "pacman": "libelf"}},
	}
	if strings.HasPrefix(o.Kernel, "debian") || strings.HasPrefix(o.Kernel, "source@debian") {
		ns = append(ns, need{name: "apt", programs: []string{"apt-get"}, why: "downloads Debian's kernels"})
	}
	if o.ARM64 {
		ns[0] = need{name: "qemu", programs: []string{"qemu-system-aarch64"}, why: "runs the virtual machine of arm64",
			packages: map[string]string{"apt-get": "qemu-system-arm", "dnf": "qemu-system-aarch64-core", "zypper": "qemu-arm", "pacman": "qemu-system-aarch64"}}
	}
	if o.ARM64 && runtime.GOARCH != "arm64" {
		ns = append(ns, need{name: "cross compiler", programs: []string{"aarch64-linux-gnu-gcc"}, why: "builds kernels for arm64",
			packages: map[string]string{"apt-get": "gcc-aarch64-linux-gnu", "dnf": "gcc-aarch64-linux-gnu", "zypper": "cross-aarch64-gcc13", "pacman": "aarch64-linux-gnu-gcc"}})
	}
	if o.Build {
		ns = append(ns, buildNeeds(o)...)
	}
	if slices.Contains(o.Pack, "rpm") {
		ns = append(ns, need{name: "rpmbuild", programs: []string{"rpmbuild"}, why: "makes the packages",
			packages: map[string]string{"apt-get": "rpm", "dnf": "rpm-build", "zypper": "rpm-build", "pacman": "rpm-tools"}})
	}
	if slices.Contains(o.Pack, "deb") {
		ns = append(ns,
			need{name: "dpkg-buildpackage", programs: []string{"dpkg-buildpackage"}, why: "makes the packages",
				packages: map[string]string{"apt-get": "dpkg-dev", "dnf": "dpkg-dev", "zypper": "dpkg", "pacman": "dpkg"}},
			need{name: "fakeroot", programs: []string{"fakeroot"}, why: "makes the packages", packages: all("fakeroot")})
	}
	if o.Tests {
		ns = append(ns,
			need{name: "cgo", programs: []string{"gcc"}, why: "links the race detector", packages: all("gcc")},
			need{name: "libc headers", files: []string{"/usr/include/stdlib.h"}, why: "the race detector needs cgo",
				packages: map[string]string{"apt-get": "libc6-dev", "dnf": "glibc-devel", "zypper": "glibc-devel", "pacman": "glibc"}})
	}
	return ns
}

// buildNeeds lists what the kernel's own build asks for
// (Documentation/process/changes.rst).
func buildNeeds(o Options) []need {
	same := func(why, name string) need {
		return need{name: name, programs: []string{name}, why: why,
			packages: map[string]string{"apt-get": name, "dnf": name, "zypper": name, "pacman": name}}
	}
	ns := []need{
		same("makes the parsers of the kernel's configuration", "flex"),
		same("makes the parsers of the kernel's configuration", "bison"),
		same("computes a header of the kernel", "bc"),
		same("copies the kernel's headers", "rsync"),
		same("packs the kernel's own initramfs", "cpio"),
		{name: "pahole", programs: []string{"pahole"}, why: "makes BTF, the types in the kernel",
			packages: map[string]string{"apt-get": "dwarves", "dnf": "dwarves", "zypper": "dwarves", "pacman": "pahole"}},
		{name: "libelf headers", files: []string{"/usr/include/gelf.h"}, why: "objtool is built with them",
			packages: map[string]string{"apt-get": "libelf-dev", "dnf": "elfutils-libelf-devel", "zypper": "libelf-devel", "pacman": "libelf"}},
		{name: "libssl headers", files: []string{"/usr/include/openssl/ssl.h"}, why: "what signs modules is built with them",
			packages: map[string]string{"apt-get": "libssl-dev", "dnf": "openssl-devel", "zypper": "libopenssl-devel", "pacman": "openssl"}},
		{name: "libc headers", files: []string{"/usr/include/stdlib.h"}, why: "the kernel's build compiles programs for itself",
			packages: map[string]string{"apt-get": "libc6-dev", "dnf": "glibc-devel", "zypper": "glibc-devel", "pacman": "glibc"}},
	}
	for _, p := range o.Packers {
		n := same("packs the kernel's image", p)
		if p == "xz" {
			n.packages["apt-get"] = "xz-utils"
		}
		ns = append(ns, n)
	}
	if o.Menu {
		ns = append(ns, need{name: "ncurses headers", files: []string{"/usr/include/ncurses.h"}, why: "draws the menus",
			packages: map[string]string{"apt-get": "libncurses-dev", "dnf": "ncurses-devel", "zypper": "ncurses-devel", "pacman": "ncurses"}})
	}
	return ns
}

func libraries(name string) []string {
	var p []string
	for _, dir := range []string{"/usr/lib/*", "/lib/*", "/usr/lib64", "/usr/lib", "/lib64", "/lib"} {
		p = append(p, dir+"/"+name)
	}
	return p
}

// Examine answers every question about the machine. It changes nothing.
func (d *Doctor) Examine(ctx context.Context, o Options) []Check {
	checks := d.required(o)
	kvm := Check{Name: "kvm", Info: true, OK: true, Found: "no /dev/kvm", Why: "makes the virtual machine fast"}
	if found, _ := d.glob("/dev/kvm"); len(found) > 0 {
		kvm.Found = "/dev/kvm (which proves nothing: see accelerator)"
	}
	checks = append(checks, kvm)
	if o.Accelerator != nil {
		c := Check{Name: "accelerator", Info: true, OK: true, Why: "executes the guest's instructions"}
		found, err := o.Accelerator(ctx)
		if c.Found = found; err != nil {
			c.OK, c.Need = false, err.Error()
		}
		checks = append(checks, c)
	}
	return append(checks, Check{Name: "go", Info: true, OK: true, Found: runtime.Version(), Why: "builds the lab and its agent"})
}

// required checks what a run cannot do without.
func (d *Doctor) required(o Options) []Check {
	m := d.manager()
	var checks []Check
	for _, n := range needs(o) {
		c := Check{Name: n.name, Why: n.why, Found: d.find(n)}
		if c.OK = c.Found != ""; !c.OK {
			c.Need = strings.Join(n.programs, " or ")
			if n.programs == nil {
				c.Need = filepath.Base(n.files[0])
			}
			if m != nil {
				c.Package = n.packages[m.name]
			}
		}
		checks = append(checks, c)
	}
	if o.Cache != "" {
		checks = append(checks, d.space(o))
	}
	return checks
}

func (d *Doctor) find(n need) string {
	for _, p := range n.programs {
		if path, err := d.lookPath(p); err == nil {
			return path
		}
	}
	for _, f := range n.files {
		if found, err := d.glob(f); err == nil && len(found) > 0 {
			return found[0]
		}
	}
	return ""
}

func (d *Doctor) space(o Options) Check {
	c := Check{Name: "disk space", Why: "kernels, modules and dumps in " + o.Cache}
	n, err := d.free(o.Cache)
	switch {
	case err != nil:
		c.Need = err.Error()
	case n < o.Space:
		c.Found, c.Need = size(n), size(o.Space)
	default:
		c.OK, c.Found = true, size(n)
	}
	return c
}

// free returns the bytes that can be written to the file system of dir or,
// where that does not exist yet, of what it will be made in.
func free(dir string) (int64, error) {
	for {
		var st syscall.Statfs_t
		err := syscall.Statfs(dir, &st)
		if err == nil {
			return int64(st.Bavail) * st.Bsize, nil
		}
		parent := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || parent == dir {
			return 0, fmt.Errorf("%s: %w", dir, err)
		}
		dir = parent
	}
}

func size(n int64) string {
	const gib = 1 << 30
	if n < gib {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/gib)
}

// missing returns the checks that stand in the way.
func missing(checks []Check) []Check {
	var m []Check
	for _, c := range checks {
		if !c.OK && !c.Info {
			m = append(m, c)
		}
	}
	return m
}

// Ensure sees to it that the machine has all that o needs. What is missing is
// installed if we are root, or sudo needs no password, and CRASHLAB_INSTALL is
// not "never"; say is told before, one line each. Otherwise the error has the
// one command to type. If nothing is missing, nothing is touched.
func (d *Doctor) Ensure(ctx context.Context, o Options, say func(line string)) error {
	lacking := missing(d.required(o))
	if len(lacking) == 0 {
		return nil
	}
	if err := d.install(ctx, lacking, say); err != nil {
		return err
	}
	if lacking = missing(d.required(o)); len(lacking) > 0 {
		return complain(lacking).WithHint("they were installed, but are not there")
	}
	return nil
}

// complain returns the error that names what is lacking.
func complain(lacking []Check) *blame.Error {
	var names []string
	e := blame.New(blame.Infrastructure, "check this machine", nil)
	for _, c := range lacking {
		what := c.Name
		if c.Found != "" {
			what = fmt.Sprintf("%s (%s instead of %s)", c.Name, c.Found, c.Need)
		}
		names = append(names, what)
		line := fmt.Sprintf("%s: %s", c.Need, c.Why)
		if c.Package != "" {
			line += " (package " + c.Package + ")"
		}
		e.Look = append(e.Look, line)
	}
	e.Err = fmt.Errorf("missing: %s", strings.Join(names, ", "))
	return e
}
