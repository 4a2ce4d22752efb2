package kbuild

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"crashlab/internal/execx"
	"crashlab/lab/blame"
)

// PackageKind is the format of a package.
type PackageKind string

// The formats that the kernel's Makefile has targets for.
const (
	RPM PackageKind = "rpm" // binrpm-pkg
	Deb PackageKind = "deb" // bindeb-pkg
)

// packageLog is the name of the log of packing in an object tree.
const packageLog = "crashlab-package.log"

// Package builds src as w asks, packs it by a target of the kernel's own Makefile,
// and moves the packages to the directory dest. It returns their names, absolute.
//
// Where the kernel's target leaves out of its RPMs what is needed to build
// modules, and the debug information, packages kernel-devel and kernel-debuginfo
// are made of them, laid out as Fedora's.
func (b *Builder) Package(ctx context.Context, src Source, w *Want, kind PackageKind, dest string) ([]string, error) {
	if a := w.Built(); a != Archs()[0] {
		return nil, blame.New(blame.Usage, "pack "+src.Version+w.Suffix, errors.New("packages are made for "+Archs()[0].Name+", not for "+a.Name))
	}
	o, err := b.open(ctx, src, w)
	if err != nil {
		return nil, err
	}
	defer o.unlock()
	doing := "pack " + src.Version + w.Suffix
	fail := func(err error) ([]string, error) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, stageError(doing, err)
	}
	if dest, err = filepath.Abs(dest); err != nil {
		return fail(err)
	}
	if err := os.MkdirAll(dest, 0o755); err != nil {
		return fail(err)
	}
	if err := o.checkSpace(dest); err != nil {
		return fail(err)
	}
	if _, err := o.configure(ctx); err != nil {
		return nil, err
	}
	if _, err := o.compile(ctx, buildLog, "build", "vmlinux", "modules", "bzImage"); err != nil {
		return nil, err
	}
	release, err := os.ReadFile(filepath.Join(o.dir, "include/config/kernel.release"))
	if err != nil {
		return fail(err)
	}
	o.say(doing)
	var made []string
	switch kind {
	case RPM:
		made, err = o.rpms(ctx, doing, strings.TrimSpace(string(release)))
	case Deb:
		made, err = o.debs(ctx, strings.TrimSpace(string(release)))
	default:
		err = blame.New(blame.Usage, doing, fmt.Errorf("there are no packages of the kind %q", kind))
	}
	if err != nil {
		return fail(err)
	}
	if len(made) == 0 {
		return fail(errors.New("the kernel's target made no packages"))
	}
	for i, from := range made {
		to := filepath.Join(dest, filepath.Base(from))
		if err := move(from, to); err != nil {
			return fail(err)
		}
		made[i] = to
	}
	return made, nil
}

// rpms makes RPM packages below the object tree.
func (o *object) rpms(ctx context.Context, doing, release string) ([]string, error) {
	top := filepath.Join(o.dir, "crashlab-rpm")
	if err := os.RemoveAll(top); err != nil { // what another call left
		return nil, err
	}
	if _, err := o.compile(ctx, packageLog, "pack", "binrpm-pkg", fmt.Sprintf("RPMOPTS=--define \"_topdir %s\"", top)); err != nil {
		return nil, err
	}
	made, err := builtRPMs(top)
	if err != nil || len(made) == 0 {
		return nil, err
	}
	more, err := o.moreRPMs(ctx, doing, release, filepath.Join(top, "more"))
	if err != nil {
		return nil, err
	}
	for _, f := range more {
		part, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(f), "kernel-"), "-") // devel, debuginfo
		has := func(m string) bool { return strings.HasPrefix(filepath.Base(m), "kernel-"+part+"-") }
		if !slices.ContainsFunc(made, has) { // kernel-devel is made since v6.5
			made = append(made, f)
		}
	}
	return made, nil
}

func builtRPMs(top string) ([]string, error) {
	return filepath.Glob(filepath.Join(top, "RPMS", "*", "*.rpm"))
}

// moreRPMs makes the packages of more.spec.
func (o *object) moreRPMs(ctx context.Context, doing, release, top string) ([]string, error) {
	root := filepath.Join(top, "root")
	if err := installHeaders(o.want.Built().Dir, o.src.Dir, o.dir, filepath.Join(root, "usr/src/kernels", release)); err != nil {
		return nil, err
	}
	debug := filepath.Join(root, "usr/lib/debug/lib/modules", release, "vmlinux")
	if err := copyFile(filepath.Join(o.dir, "vmlinux"), debug); err != nil {
		return nil, err
	}
	spec := filepath.Join(top, "more.spec")
	if err := os.WriteFile(spec, moreSpec, 0o644); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(o.dir, packageLog), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	argv := []string{"rpmbuild", "-bb", "--target", "x86_64-linux", "--define", "_topdir " + top, "--define", "krelease " + release,
		"--define", "kversion " + strings.ReplaceAll(release, "-", "_"), "--define", "kroot " + root, spec}
	if _, err := execx.Run(ctx, execx.Cmd{Argv: argv, Env: o.environment(), Log: log}); err != nil {
		return nil, o.explain(doing, err, argv, log)
	}
	return builtRPMs(top)
}

//go:embed more.spec
var moreSpec []byte

// debs makes Debian packages beside the object tree, where the kernel's target puts them.
func (o *object) debs(ctx context.Context, release string) ([]string, error) {
	// The revision of the package becomes the version of the build, which is 1. Packing
	// the debug information by xz would take longer than all else.
	args := []string{"bindeb-pkg", "DPKG_FLAGS=-d", "KDEB_PKGVERSION=" + release + "-1", "KDEB_COMPRESS=gzip"}
	_, err := o.compile(ctx, packageLog, "pack", args...)
	listed, lerr := o.listedDebs()
	var made []string
	for _, f := range listed {
		if name, ok := strings.CutSuffix(f, ".buildinfo"); ok {
			os.Remove(name + ".changes") // for an archive of packages, which needs both
		} else if err == nil {
			made = append(made, f)
			continue
		}
		os.Remove(f)
	}
	if err := errors.Join(err, lerr); err != nil {
		return nil, err
	}
	return made, os.RemoveAll(filepath.Join(o.dir, "debian"))
}

// listedDebs returns the packages that are made or begun, and what describes them.
func (o *object) listedDebs() ([]string, error) {
	list := filepath.Join(o.dir, "debian/files")
	text, err := os.ReadFile(list)
	if err != nil {
		return nil, err
	}
	var made []string
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line) // FILE SECTION PRIORITY
		if len(f) < 3 || filepath.Base(f[0]) != f[0] {
			return nil, fmt.Errorf("%s: the line %q names no package", list, line)
		}
		made = append(made, filepath.Join(filepath.Dir(o.dir), f[0]))
	}
	return made, nil
}

// move moves a file, to another file system too.
func move(from, to string) error {
	if err := os.Rename(from, to); err == nil {
		return nil
	}
	if err := copyFile(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}
