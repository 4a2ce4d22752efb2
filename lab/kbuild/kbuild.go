// Package kbuild configures and builds kernels from a source tree.
//
// A build goes into an object tree of its own outside of the source tree and
// leaves nothing in that. Object trees are kept: an interrupted build goes on
// where it was, and one that differs in nothing but the compression of the image
// repeats only the last step.
//
// The same sources, configuration and tools give the same bytes, wherever the
// trees lie and whoever builds: see environment and flags.
package kbuild

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"crashlab/internal/execx"
	"crashlab/kconfig"
	"crashlab/lab/blame"
)

// Source is an unpacked source tree. Nothing in it is changed.
type Source struct {
	Dir     string // absolute
	ID      string // identifies its content
	Version string // "6.1.192", of its Makefile
}

// OpenSource returns the source tree in dir, which id identifies.
func OpenSource(dir, id string) (Source, error) {
	text, err := os.ReadFile(filepath.Join(dir, "Makefile"))
	version := ""
	if err == nil {
		version, err = Version(string(text))
	}
	if err != nil {
		return Source{}, fmt.Errorf("%s is no source tree of the kernel: %w", dir, err)
	}
	return Source{dir, id, version}, nil
}

// Version returns VERSION, PATCHLEVEL, SUBLEVEL and EXTRAVERSION of a source
// tree's Makefile: "6.1.192", "6.19-rc3" is "6.19.0-rc3".
func Version(makefile string) (string, error) {
	v := make(map[string]string)
	for line := range strings.Lines(makefile) {
		if name, value, ok := strings.Cut(line, "="); ok {
			if name = strings.TrimSpace(name); v[name] == "" {
				v[name] = strings.TrimSpace(value)
			}
		}
		if _, end := v["EXTRAVERSION"]; end {
			break
		}
	}
	for _, n := range []string{"VERSION", "PATCHLEVEL"} {
		if _, err := strconv.ParseUint(v[n], 10, 16); err != nil {
			return "", fmt.Errorf("its Makefile has no %s", n)
		}
	}
	version := v["VERSION"] + "." + v["PATCHLEVEL"]
	if v["SUBLEVEL"] != "" {
		version += "." + v["SUBLEVEL"]
	}
	return version + v["EXTRAVERSION"], nil
}

// Want says how a kernel is to be configured.
type Want struct {
	// Base is what the fragments are merged into; nil means that everything
	// is off that they do not ask for (make allnoconfig).
	Base *kconfig.Config

	// Defconfig takes the architecture's own default for a base.
	Defconfig bool

	Fragments []*kconfig.Fragment

	// Overridable names fragments that others may contradict.
	Overridable []string

	// Arch is what the kernel is built for; the zero Arch is x86-64.
	Arch Arch

	// Suffix follows the version in the release: "-lab".
	Suffix string
}

// localversion is the option behind Suffix.
const localversion = "LOCALVERSION"

// merge puts the configuration together.
func (w *Want) merge() (*kconfig.Merged, error) {
	suffix := &kconfig.Fragment{Name: "spec", Lines: []kconfig.FragmentLine{
		{Setting: kconfig.Setting{Name: localversion, Value: strconv.Quote(w.Suffix)}, Why: "the release tells the fragments", Number: 1},
		{Setting: kconfig.Setting{Name: "LOCALVERSION_AUTO", Value: "n"}, Why: "the release does not depend on git", Number: 2},
	}}
	m := kconfig.Merge(w.Base, append([]*kconfig.Fragment{suffix}, w.Fragments...)...)
	if _, conflicts := m.Overrides(append([]string{suffix.Name}, w.Overridable...)); len(conflicts) > 0 {
		e := blame.New(blame.Usage, "merge the fragments", errors.New("they contradict each other"))
		for _, c := range conflicts {
			e.Look = append(e.Look, c.String())
		}
		return nil, e.WithHint("leave out one of them")
	}
	return m, nil
}

// key identifies what w asks for. Without image, nothing that concerns only the
// packing of the image counts.
func (w *Want) key(image bool) (string, error) {
	m, err := w.merge()
	if err != nil {
		return "", err
	}
	if !image {
		for _, c := range kconfig.Compressions() {
			for _, l := range c.Fragment().Lines {
				m.Config.Set(l.Name, "n")
			}
		}
	}
	h := sha256.New()
	fmt.Fprintf(h, "defconfig %t base %t\n", w.Defconfig, w.Base != nil)
	if a := w.Built(); a != Archs()[0] {
		fmt.Fprintf(h, "arch %s\n", a.Name)
	}
	if _, err := m.Config.WriteTo(h); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// Key identifies the configuration that w asks for.
func (w *Want) Key() (string, error) { return w.key(true) }

// Toolchain is what a kernel is built with.
type Toolchain struct {
	Compiler string // first line of gcc --version
	Linker   string // of ld --version
	Pahole   string // pahole --version; empty if it is not there
	CCache   string // path of ccache; empty if it is not there
}

// ID identifies all that what is built depends on.
func (t Toolchain) ID() string { return t.Compiler + "; " + t.Linker + "; pahole " + t.Pahole }

// FindToolchain asks the tools that build for a for their versions.
func FindToolchain(ctx context.Context, a Arch) (Toolchain, error) {
	first := func(argv ...string) (string, error) {
		out, err := execx.Run(ctx, execx.Cmd{Argv: argv, Env: []string{"LC_ALL=C"}})
		line, _, _ := strings.Cut(string(out), "\n")
		return line, err
	}
	var t Toolchain
	var err1, err2 error
	t.Compiler, err1 = first(a.Prefix()+"gcc", "--version")
	t.Linker, err2 = first(a.Prefix()+"ld", "--version")
	if err := errors.Join(err1, err2); err != nil {
		return t, blame.New(blame.Infrastructure, "ask the compiler and the linker for their versions", err)
	}
	var err error
	if t.Pahole, err = first("pahole", "--version"); err != nil && !execx.NotFound(err) {
		return t, blame.New(blame.Infrastructure, "ask pahole for its version", err)
	}
	if path, err := exec.LookPath("ccache"); err == nil {
		t.CCache = path
	}
	return t, nil
}

// Builder builds kernels. It may be used by several processes at once.
type Builder struct {
	Work      string // directory of the object trees; made if it is not there
	Toolchain Toolchain
	Jobs      int          // processes at once; 0 means one for each CPU
	Log       *slog.Logger // nil discards

	// Progress is told what is going on; it may be nil.
	Progress func(doing string)
}

// object is an object tree, locked.
type object struct {
	*Builder
	src    Source
	want   *Want
	dir    string
	unlock func()
}

// The files beside the kernel's in an object tree.
const (
	askedFile  = "crashlab.asked"
	paholeFile = "crashlab-pahole"
	configLog  = "crashlab-config.log"
	buildLog   = "crashlab-build.log"
	imageLog   = "crashlab-image.log"
	installLog = "crashlab-install.log"
)

// ObjectDir returns where w is built.
func (b *Builder) ObjectDir(src Source, w *Want) (string, error) {
	id, err := w.key(false)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "3 %q %q %q", src.ID, id, b.Toolchain.ID()) // 3: changes with flags and environment
	return filepath.Join(b.Work, src.Version+w.Suffix+"-"+hex.EncodeToString(h.Sum(nil)[:6])), nil
}

// pahole runs pahole without the option -j, which the kernel gives it: several
// threads put the types in another order each time.
const pahole = `#!/bin/sh
for a; do
	shift
	[ "$a" = -j ] || set -- "$@" "$a"
done
exec pahole "$@"
`

// open locks the object tree of w and waits for whoever has it.
func (b *Builder) open(ctx context.Context, src Source, w *Want) (*object, error) {
	const doing = "open the object tree"
	for _, dir := range []string{b.Work, src.Dir} {
		if strings.ContainsAny(dir, " :%") {
			// The kernel's Makefile refuses, in words that do not help.
			return nil, blame.New(blame.Infrastructure, doing, fmt.Errorf("make cannot work in %q", dir)).
				WithHint("use a path without blanks, colons and percent signs")
		}
	}
	dir, err := b.ObjectDir(src, w)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, blame.New(blame.Infrastructure, doing, err)
	}
	l := flock.New(dir + ".lock")
	got, err := l.TryLock()
	if err == nil && !got {
		b.say("wait for another build in " + dir)
		_, err = l.TryLockContext(ctx, 50*time.Millisecond)
	}
	if err != nil {
		l.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, blame.New(blame.Infrastructure, doing, err)
	}
	if err := os.WriteFile(filepath.Join(dir, paholeFile), []byte(pahole), 0o755); err != nil {
		l.Close()
		return nil, blame.New(blame.Infrastructure, doing, err)
	}
	return &object{b, src, w, dir, func() { l.Close() }}, nil
}

func (b *Builder) say(doing string) {
	if b.Progress != nil {
		b.Progress(doing)
	}
}

func (b *Builder) jobs() int {
	if b.Jobs > 0 {
		return b.Jobs
	}
	return runtime.NumCPU()
}

// environment is what make runs in: nothing of the user's shell that changes
// what is built, and what the kernel would take from the host fixed
// (Documentation/kbuild/reproducible-builds.rst).
func (o *object) environment() []string {
	env := []string{
		"MAKEFLAGS=", "MAKELEVEL=", "KBUILD_OUTPUT=", "KBUILD_EXTMOD=", "KBUILD_VERBOSE=", "V=", "LOCALVERSION=",
		"LANG=C", "LC_CTYPE=C", "LC_MESSAGES=C", "LC_ALL=C",
		"KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 1970", "KBUILD_BUILD_USER=crashlab", "KBUILD_BUILD_HOST=crashlab",
		"KBUILD_BUILD_VERSION=1",
	}
	if o.Toolchain.CCache != "" {
		// The directory that make works in leaves no trace in the objects. With
		// CCACHE_BASEDIR, however, they would name their sources by other paths.
		env = append(env, "CCACHE_NOHASHDIR=1", "CCACHE_BASEDIR=")
	}
	return env
}

// argv returns the command line of make for targets.
func (o *object) argv(targets ...string) []string {
	// Sources are named as in the tree: "kernel/panic.c".
	flags := fmt.Sprintf("-ffile-prefix-map=%s/= -ffile-prefix-map=%s=.", o.src.Dir, o.dir)
	a, ccache := o.want.Built(), ""
	if o.Toolchain.CCache != "" {
		ccache = "ccache "
	}
	argv := []string{"make", "-C", o.src.Dir, "O=" + o.dir, "ARCH=" + a.Make, "CC=" + ccache + a.Prefix() + "gcc", "HOSTCC=" + ccache + "gcc",
		"KCFLAGS=" + flags, "KAFLAGS=" + flags, "-j" + strconv.Itoa(o.jobs())}
	if p := a.Prefix(); p != "" {
		argv = append(argv, "CROSS_COMPILE="+p)
	}
	if o.Toolchain.Pahole != "" {
		argv = append(argv, "PAHOLE="+filepath.Join(o.dir, paholeFile))
	}
	return append(argv, targets...)
}

// Configured is a configuration that kconfig has made of what was asked for.
type Configured struct {
	Path      string // the .config, in the object tree
	Config    *kconfig.Config
	Merged    *kconfig.Merged
	Refusals  []kconfig.Refusal       // what was asked for and did not come
	Overrides []kconfig.Contradiction // what a later fragment changed
}

// Configure makes the .config of w and compares it with what was asked for. A
// refusal of what an overridable fragment asks for is only told; others are the
// user's fault, and the error explains each.
func (b *Builder) Configure(ctx context.Context, src Source, w *Want) (*Configured, error) {
	o, err := b.open(ctx, src, w)
	if err != nil {
		return nil, err
	}
	defer o.unlock()
	return o.configure(ctx)
}

func (o *object) configure(ctx context.Context) (*Configured, error) {
	doing := "configure " + o.src.Version + o.want.Suffix
	o.say(doing)
	m, err := o.want.merge()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(o.dir, configLog))
	if err != nil {
		return nil, blame.New(blame.Infrastructure, doing, err)
	}
	defer log.Close()
	asked, dotConfig := filepath.Join(o.dir, askedFile), filepath.Join(o.dir, ".config")
	switch {
	case o.want.Defconfig:
		err = o.run(ctx, doing, log, "defconfig")
		if err != nil {
			return nil, err
		}
		base, rerr := kconfig.ReadFile(dotConfig)
		if rerr != nil {
			return nil, blame.New(blame.Kernel, doing, rerr)
		}
		for _, l := range m.Lines() {
			base.Set(l.Name, l.Value)
		}
		err = writeConfig(dotConfig, base)
	case o.want.Base != nil:
		err = writeConfig(dotConfig, m.Config)
	default:
		if err = writeConfig(asked, m.Config); err == nil {
			err = o.run(ctx, doing, log, "KCONFIG_ALLCONFIG="+asked, "allnoconfig")
		}
	}
	if err != nil {
		return nil, stageError(doing, err)
	}
	if err := o.run(ctx, doing, log, "olddefconfig"); err != nil {
		return nil, err
	}
	c := &Configured{Path: dotConfig, Merged: m}
	c.Overrides, _ = m.Overrides(o.want.Overridable)
	if c.Config, err = kconfig.ReadFile(dotConfig); err != nil {
		return nil, blame.New(blame.Kernel, doing, err)
	}
	return c, o.verify(c, doing)
}

// verify fills in the refusals.
func (o *object) verify(c *Configured, doing string) error {
	tree, err := ParseKconfig(o.src, o.want.Built())
	if err != nil {
		return blame.New(blame.Kernel, doing, err)
	}
	c.Refusals = tree.Verify(c.Merged, c.Config)
	e := blame.New(blame.Usage, doing, errors.New("this kernel cannot be configured as asked"))
	for _, r := range c.Refusals {
		if !slices.Contains(o.want.Overridable, r.Asked.Fragment) {
			e.Look = append(e.Look, r.String())
		}
	}
	if len(e.Look) > 0 {
		return e
	}
	return nil
}

// ParseKconfig parses the Kconfig files of src for a.
func ParseKconfig(src Source, a Arch) (*kconfig.Tree, error) {
	return kconfig.ParseTree(os.DirFS(src.Dir), map[string]string{"SRCARCH": a.Dir, "ARCH": a.Make, "srctree": "."})
}

func writeConfig(name string, c *kconfig.Config) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = c.WriteTo(f)
	return err
}

// stageError blames the host for err unless it says already whose fault it is.
func stageError(doing string, err error) error {
	if _, ok := errors.AsType[*blame.Error](err); ok {
		return err
	}
	return blame.New(blame.Infrastructure, doing, err)
}
