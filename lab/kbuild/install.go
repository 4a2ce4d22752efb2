package kbuild

import (
	"context"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"crashlab/lab/blame"
)

// install puts into dest, laid out as the packages of a distribution:
//
//	boot/{vmlinuz,config,System.map}-RELEASE
//	usr/lib/debug/boot/vmlinux-RELEASE       with debug information, if any
//	lib/modules/RELEASE/                     without modules.dep
//	usr/src/linux-headers-RELEASE/           to build modules in
//	log/                                     what make said
func (o *object) install(ctx context.Context, dest string, r *Result) error {
	doing := "install " + o.src.Version + o.want.Suffix
	o.say(doing)
	release, err := os.ReadFile(filepath.Join(o.dir, "include/config/kernel.release"))
	if err != nil {
		return blame.New(blame.Kernel, doing, err)
	}
	r.Release = strings.TrimSpace(string(release))
	for from, to := range map[string]string{
		o.want.Built().boot(): "boot/vmlinuz-" + r.Release,
		".config":             "boot/config-" + r.Release,
		"System.map":          "boot/System.map-" + r.Release,
		"vmlinux":             "usr/lib/debug/boot/vmlinux-" + r.Release,
		configLog:             "log/config.log",
		buildLog:              "log/build.log",
		imageLog:              "log/image.log",
	} {
		err := copyFile(filepath.Join(o.dir, from), filepath.Join(dest, to))
		if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(to, "log/") {
			continue // not built by us
		}
		if err != nil {
			return blame.New(blame.Infrastructure, doing, err)
		}
	}
	fi, err := os.Stat(filepath.Join(dest, "boot/vmlinuz-"+r.Release))
	if err != nil {
		return blame.New(blame.Infrastructure, doing, err)
	}
	r.ImageBytes = fi.Size()
	if r.BuildID, err = buildID(filepath.Join(o.dir, "vmlinux")); err != nil {
		return blame.New(blame.Kernel, doing, err)
	}
	if err := o.installModules(ctx, dest, r.Release); err != nil {
		return err
	}
	if err := installHeaders(o.want.Built().Dir, o.src.Dir, o.dir, filepath.Join(dest, "usr/src/linux-headers-"+r.Release)); err != nil {
		return blame.New(blame.Infrastructure, doing, err)
	}
	return nil
}

func (o *object) installModules(ctx context.Context, dest, release string) error {
	doing := "install the modules of " + release
	log, err := os.Create(filepath.Join(o.dir, installLog))
	if err != nil {
		return blame.New(blame.Infrastructure, doing, err)
	}
	defer log.Close()
	// modules.dep is not needed here, and depmod may not be there.
	if err := o.run(ctx, doing, log, "INSTALL_MOD_PATH="+dest, "DEPMOD=true", "modules_install"); err != nil {
		return err
	}
	dir := filepath.Join(dest, "lib/modules", release)
	for _, link := range []string{"build", "source"} {
		if err := os.Remove(filepath.Join(dir, link)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return blame.New(blame.Infrastructure, doing, err)
		}
	}
	// There is none if everything is built in.
	if err := os.MkdirAll(filepath.Join(dir, "kernel"), 0o755); err != nil {
		return blame.New(blame.Infrastructure, doing, err)
	}
	return nil
}

// installHeaders puts together what external modules are built in: the sources
// and objects that scripts/package/builddeb (deploy_kernel_headers) packs, in
// one tree that is source and object tree at once.
func installHeaders(arch, src, obj, dest string) error {
	arch = "arch/" + arch
	fromSource := func(name string) bool {
		switch dir, base, _ := strings.Cut(name, "/"); {
		case base == "":
			return strings.HasPrefix(dir, "Makefile")
		case dir == "include" || dir == "scripts":
			return true
		}
		rest, ok := strings.CutPrefix(name, arch+"/")
		if !ok {
			return false
		}
		if !strings.Contains(rest, "/") {
			return strings.HasPrefix(rest, "Makefile") || rest == "Kbuild.platforms"
		}
		return strings.HasPrefix(rest, "include/") || strings.Contains(rest, "/include/") || strings.HasPrefix(rest, "scripts/")
	}
	fromObjects := func(name string) bool {
		if strings.HasSuffix(name, ".o") || strings.HasSuffix(name, ".cmd") && strings.HasPrefix(filepath.Base(name), ".") {
			return false
		}
		switch name {
		case "Module.symvers", ".config", "tools/objtool/objtool", "tools/bpf/resolve_btfids/resolve_btfids":
			return true
		}
		return strings.HasPrefix(name, "include/") || strings.HasPrefix(name, arch+"/include/") || strings.HasPrefix(name, "scripts/")
	}
	if err := copyTree(src, dest, []string{".", "include", "scripts", arch}, fromSource); err != nil {
		return err
	}
	return copyTree(obj, dest, []string{".", "include", "scripts", arch + "/include", "tools"}, fromObjects)
}

// copyTree copies the files below the given directories of src that pick wants,
// of "." only those directly in it. Links are copied as what they point to.
func copyTree(src, dest string, dirs []string, pick func(name string) bool) error {
	for _, top := range dirs {
		err := filepath.WalkDir(filepath.Join(src, top), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) && d == nil {
				return nil // not every configuration has it
			}
			if err != nil {
				return err
			}
			name, err := filepath.Rel(src, path)
			if err != nil {
				return err
			}
			if d.IsDir() {
				if top == "." && name != "." {
					return fs.SkipDir
				}
				return nil
			}
			if !pick(filepath.ToSlash(name)) {
				return nil
			}
			fi, err := os.Stat(path)
			if err != nil || !fi.Mode().IsRegular() {
				return nil //nolint:nilerr // a link to what is not there, or to a directory
			}
			return copyFile(path, filepath.Join(dest, name))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// copyFile copies a file with its permissions and its time, by which make goes.
func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, fi.Mode().Perm()|0o200)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return os.Chtimes(to, fi.ModTime(), fi.ModTime())
}

// buildID returns the GNU build ID of an ELF file, in hexadecimal: the note of
// that name in section .notes of vmlinux, or in one of its own.
func buildID(file string) (id string, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, s := range f.Sections {
		if s.Type != elf.SHT_NOTE {
			continue
		}
		b, err := s.Data()
		if err != nil {
			return "", fmt.Errorf("%s: %w", file, err)
		}
		for len(b) >= 12 {
			name, desc, kind := f.ByteOrder.Uint32(b), f.ByteOrder.Uint32(b[4:]), f.ByteOrder.Uint32(b[8:])
			b = b[12:]
			pad := func(n uint32) uint64 { return (uint64(n) + 3) &^ 3 }
			if pad(name)+uint64(desc) > uint64(len(b)) {
				break
			}
			const gnuBuildID = 3 // NT_GNU_BUILD_ID
			if kind == gnuBuildID && string(b[:name]) == "GNU\x00" {
				d := b[pad(name):]
				return hex.EncodeToString(d[:desc]), nil
			}
			b = b[min(pad(name)+pad(desc), uint64(len(b))):]
		}
	}
	return "", fmt.Errorf("%s has no build ID", file)
}
