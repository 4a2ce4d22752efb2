// Package kernels gets kernels to crash. A kernel is named by a spec such as
// "debian:6.1": a provider, and what to ask it for. Fetched kernels live in
// the store and stay there.
package kernels

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"crashlab/internal/execx"
	"crashlab/kconfig"
	"crashlab/lab/blame"
	"crashlab/lab/kbuild"
	"crashlab/lab/store"
)

// Default is the spec of the kernel that a scenario uses if it names none.
const Default = "debian"

// Kernel is a kernel on disk. Its files belong to the store and must not be
// changed; all paths are absolute.
type Kernel struct {
	Spec      string // as asked for
	ID        string // identifies the files, for the keys of what is made from them
	Arch      string // "arm64"; empty means x86-64
	Release   string // what uname -r says in the guest: "6.1.0-56-cloud-amd64"
	Version   string // of the package: "6.1.192-2"
	Image     string // the bzImage, or another architecture's Image
	Config    string // the .config
	SystemMap string // empty if the package has none
	Modules   string // lib/modules/RELEASE; no modules.dep, which depmod makes
	Headers   string // for make -C; empty if the packages have none
	VMLinux   string // with debug information; empty if the packages have none
	Compiler  string // CONFIG_CC_VERSION_TEXT: "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0"
}

// GoArch returns the kernel's architecture in Go's words.
func (k *Kernel) GoArch() string {
	a, err := kbuild.ArchNamed(k.Arch)
	if err != nil {
		panic(err) // open names only what there is
	}
	return a.Go
}

// Plan says which kernel a spec names, before any of it is fetched.
type Plan struct {
	Spec     string
	Release  string
	Version  string
	Compiler string    // command name that its headers ask for, such as "gcc-12"; may be empty
	Packages []Package // what to unpack
	Inputs   []string  // what else the kernel depends on; none for packages alone
}

// headless reports whether the kernel may be without headers: RPM packages need not
// have been named all.
func (p *Plan) headless() bool { return len(p.Inputs) > 0 && p.Inputs[0] == "rpm" }

// Package is one package of a Plan.
type Package struct {
	Name    string
	Version string
	Size    int64  // in bytes, compressed
	SHA256  string // of the package file, in hexadecimal
}

// Size returns the number of bytes to download.
func (p *Plan) Size() (n int64) {
	for _, q := range p.Packages {
		n += q.Size
	}
	return n
}

// Form is a kind of spec, for messages.
type Form struct{ Spec, Means string }

// provider is a source of kernels.
type provider interface {
	forms() []Form
	// resolve decides which kernel is meant by want, the part of spec that
	// follows the provider's name. If fresh, what is known about available
	// kernels is updated first.
	resolve(ctx context.Context, spec, want string, fresh bool) (*Plan, error)
	// unpack fetches what p names into dir.
	unpack(ctx context.Context, p *Plan, dir string) error
}

// Progress is told how far a download or unpacking is. Both numbers are in
// bytes; total is 0 while unknown. It is called from several goroutines.
type Progress func(doing string, done, total int64)

// Sources knows every provider of kernels.
type Sources struct {
	store     *store.Store
	log       *slog.Logger
	providers map[string]provider
}

// Options are what a user may choose about where kernels come from.
type Options struct {
	Mirrors []string // of kernel.org; empty: its own; NoMirrors: none
	Ubuntu  string   // where Ubuntu's packages are; empty: where the host's apt gets them
	Keys    string   // folder of the keys that RPM packages must be signed with; empty: they need not be
}

// New returns the providers with their cache in s. Both log and progress may
// be nil.
func New(s *store.Store, log *slog.Logger, progress Progress, o Options) *Sources {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if progress == nil {
		progress = func(string, int64, int64) {}
	}
	log = log.With("layer", "kernels")
	apt := func(of *distribution, mirror string) *debian {
		return &debian{
			of: of, mirror: mirror, store: s, log: log, progress: progress, run: execx.Run, etc: "/etc/apt", lists: "/var/lib/apt/lists",
		}
	}
	d := apt(debianDist, "")
	build := func(t treeSource) provider { return &built{store: s, log: log, progress: progress, trees: t} }
	org := newOrgTrees(s, log, progress, o.Mirrors)
	return &Sources{store: s, log: log, providers: map[string]provider{
		"debian": d, "ubuntu": apt(ubuntuDist, o.Ubuntu),
		"source": build(releasedTrees{org, debianTrees{d}, log}), "source@kernel.org": build(org), "source@debian": build(debianTrees{d}),
		"rpm": newRPMs(s, log, progress, o.Keys),
		"dir": build(ownTrees{}), "git": build(gitTrees{s}),
	}}
}

// Forms lists the specs that are understood.
func (s *Sources) Forms() []Form {
	var f []Form
	for _, name := range []string{"debian", "ubuntu", "source", "source@kernel.org", "source@debian", "rpm", "dir", "git"} {
		f = append(f, s.providers[name].forms()...)
	}
	return f
}

// Resolve says which kernel spec names. An unknown spec is the user's fault,
// and the error lists the known ones.
func (s *Sources) Resolve(ctx context.Context, spec string) (*Plan, error) {
	p, want, err := s.provider(spec)
	if err != nil {
		return nil, err
	}
	return p.resolve(ctx, spec, want, false)
}

// Fetch returns the kernel that spec names, from the store or, the first time,
// from its provider.
func (s *Sources) Fetch(ctx context.Context, spec string) (*Kernel, error) {
	p, want, err := s.provider(spec)
	if err != nil {
		return nil, err
	}
	plan, err := p.resolve(ctx, spec, want, false)
	if err != nil {
		return nil, err
	}
	k, err := s.get(ctx, p, plan)
	if _, gone := errors.AsType[*unavailableError](err); !gone || ctx.Err() != nil {
		return k, err
	}
	// The list of packages may be older than the archive's.
	s.log.Warn("cannot download what the package lists name; updating them")
	plan, ferr := p.resolve(ctx, spec, want, true)
	if ferr != nil {
		return nil, err // the first reason is as good, and closer to what was asked
	}
	return s.get(ctx, p, plan)
}

// unavailableError marks the reason why unpack could not get what a plan names.
type unavailableError struct{ error }

func (e *unavailableError) Unwrap() error { return e.error }

// unpackVersion is part of the key of unpacked kernels; it changes when
// unpacking does something else than before.
const unpackVersion = "1"

// planKey is where the kernel that plan names is in the store.
func planKey(plan *Plan) store.Key {
	key := store.Key{Kind: "kernel", Name: plan.Release, Inputs: []string{unpackVersion}}
	for _, q := range plan.Packages {
		key.Inputs = append(key.Inputs, q.Name+"="+q.Version, q.SHA256)
	}
	key.Inputs = append(key.Inputs, plan.Inputs...)
	return key
}

func (s *Sources) get(ctx context.Context, p provider, plan *Plan) (*Kernel, error) {
	key := planKey(plan)
	dir, hit, err := s.store.Get(ctx, key, func(ctx context.Context, dir string) error {
		if err := p.unpack(ctx, plan, dir); err != nil {
			return err
		}
		_, err := open(dir, plan.Release, plan.headless())
		return err
	})
	if err != nil {
		return nil, err
	}
	k, err := open(dir, plan.Release, plan.headless())
	if err != nil {
		return nil, err
	}
	k.Spec, k.ID, k.Version = plan.Spec, key.ID(), plan.Version
	s.log.Debug("kernel", "release", k.Release, "cached", hit, "dir", dir)
	return k, nil
}

func (s *Sources) provider(spec string) (p provider, want string, err error) {
	name, want, _ := strings.Cut(spec, ":")
	p, ok := s.providers[name]
	if base, _, _ := strings.Cut(name, "@"); !ok && (base == "debian" || base == "ubuntu") { // of a suite
		p, ok = s.providers[base]
	}
	if !ok {
		e := blame.New(blame.Usage, fmt.Sprintf("kernel %q", spec), errors.New("unknown kind of kernel"))
		for _, f := range s.Forms() {
			e.Look = append(e.Look, fmt.Sprintf("%-22s %s", f.Spec, f.Means))
		}
		return nil, "", e.WithHint("use one of the forms above; the default is %q", Default)
	}
	return p, want, nil
}

// open finds the parts of an unpacked kernel. They lie in boot/ and lib/, or
// all in usr/lib/modules/RELEASE (Debian's packages from 7.x on, openSUSE's). If
// headless, the kernel may be without headers.
func open(dir, release string, headless bool) (*Kernel, error) {
	k := &Kernel{Release: release}
	var errs []error
	find := func(what string, patterns ...string) string {
		for _, p := range patterns {
			path := filepath.Join(dir, strings.ReplaceAll(p, "@", release))
			if _, err := os.Stat(path); err == nil {
				return path
			}
		}
		errs = append(errs, fmt.Errorf("the packages of %s have no %s", release, what))
		return ""
	}
	k.Image = find("kernel image", "boot/vmlinuz-@", "usr/lib/modules/@/vmlinuz", "lib/modules/@/vmlinuz")
	k.Config = find("configuration", "boot/config-@", "usr/lib/modules/@/config", "lib/modules/@/config")
	k.Modules = filepath.Dir(find("modules", "lib/modules/@/kernel", "usr/lib/modules/@/kernel"))
	if k.Headers = headersBelow(dir, release); k.Headers == "" && !headless {
		k.Headers = filepath.Dir(find("headers", "usr/src/linux-headers-@/Makefile"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, p := range []string{"boot/System.map-" + release, "usr/lib/modules/" + release + "/System.map", "lib/modules/" + release + "/System.map",
		"usr/lib/debug/boot/System.map-" + release} {
		// Debian ships one line there, which says where to find the real one.
		if fi, err := os.Stat(filepath.Join(dir, p)); err == nil && fi.Size() > 4096 {
			k.SystemMap = filepath.Join(dir, p)
		}
	}
	for _, p := range []string{"boot/vmlinux-@", "boot/vmlinux-@.debug", "lib/modules/@/vmlinux", "usr/lib/modules/@/vmlinux", "usr/lib/modules/@/vmlinux.debug"} {
		if p = filepath.Join(dir, "usr/lib/debug", strings.ReplaceAll(p, "@", release)); k.VMLinux == "" && exists(p) {
			k.VMLinux = p
		}
	}
	c, err := kconfig.ReadFile(k.Config)
	if err != nil {
		return nil, err
	}
	if a := kbuild.ArchOf(c); a != kbuild.Archs()[0] {
		k.Arch = a.Name
	}
	k.Compiler, err = c.Str("CC_VERSION_TEXT")
	if err != nil && !errors.Is(err, kconfig.ErrNotSet) { // older than Linux 5.8
		return nil, err
	}
	return k, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
