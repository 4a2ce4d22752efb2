package kbuild

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"crashlab/kconfig"
)

// Built is an object tree of the user's own in which a kernel is built.
type Built struct {
	Arch    Arch
	Dir     string // absolute
	Release string
	BuildID string
	ID      string // changes whenever the image, vmlinux or the configuration does
}

// FindBuilt looks for a kernel that is built in dir; ok says that there is one.
func FindBuilt(dir string) (b Built, ok bool, err error) {
	if b.Dir, err = filepath.Abs(dir); err != nil {
		return b, false, err
	}
	config, err := kconfig.ReadFile(filepath.Join(b.Dir, ".config"))
	if err != nil {
		return b, false, nil //nolint:nilerr // it is not configured
	}
	b.Arch = ArchOf(config)
	for _, name := range []string{b.Arch.boot(), "vmlinux", ".config", "Module.symvers"} {
		fi, err := os.Stat(filepath.Join(b.Dir, name))
		if err != nil {
			return b, false, nil //nolint:nilerr // it is not built, or not whole
		}
		b.ID += fmt.Sprintf("%s %d %d\n", name, fi.Size(), fi.ModTime().UnixNano())
	}
	release, err := os.ReadFile(filepath.Join(b.Dir, "include/config/kernel.release"))
	if err != nil {
		return b, false, nil //nolint:nilerr // as above
	}
	b.Release = strings.TrimSpace(string(release))
	b.BuildID, err = buildID(filepath.Join(b.Dir, "vmlinux"))
	return b, err == nil, err
}

// Install copies what is built in b into dest, laid out as by Builder.Build.
func (b Built) Install(ctx context.Context, dest string) error {
	// The object tree has a link to its sources, unless it is them.
	srcDir := filepath.Join(b.Dir, "source")
	if p, err := filepath.EvalSymlinks(srcDir); err == nil {
		srcDir = p
	} else {
		srcDir = b.Dir
	}
	src, err := OpenSource(srcDir, "")
	if err != nil {
		return err
	}
	config, err := kconfig.ReadFile(filepath.Join(b.Dir, ".config"))
	if err != nil {
		return err
	}
	r := &Result{Version: src.Version, Compression: kconfig.CompressionOf(config)}
	o := &object{Builder: new(Builder), src: src, want: &Want{Arch: b.Arch}, dir: b.Dir}
	return o.install(ctx, dest, r)
}
