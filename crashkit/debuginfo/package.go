package debuginfo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"crashlab/internal/deb"
	"crashlab/internal/rpm"
	"crashlab/internal/unpack"
)

// Debug information comes in packages of the distribution, of which a file is unpacked
// to the user's cache, under its build ID, once.

// packing is how a file packs others.
type packing int

const (
	notPacked packing = iota
	packedDeb
	packedRPM
	packedAlone // a file that is compressed by itself
)

// packingOf looks at the first bytes of a file.
func packingOf(f *os.File) packing {
	head := make([]byte, 8)
	n, _ := f.ReadAt(head, 0) // a shorter file is not packed
	switch head = head[:n]; {
	case bytes.HasPrefix(head, []byte("!<arch>\n")):
		return packedDeb
	case bytes.HasPrefix(head, []byte("\xed\xab\xee\xdb")):
		return packedRPM
	}
	switch unpack.Sniff(head) {
	case unpack.Gzip, unpack.XZ, unpack.Zstd:
		return packedAlone
	}
	return notPacked
}

// isPackage reports whether the file at path is one that walkPackage reads.
func isPackage(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return packingOf(f) != notPacked
}

// walkPackage calls fn for each regular file in the package at path, with its name without
// "./" in front: of Debian or an RPM. A file that is compressed by itself is a package of
// one file without a name.
func walkPackage(path string, fn func(unpack.Entry, io.Reader) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	regular := func(e unpack.Entry, r io.Reader) error {
		e.Path = strings.TrimPrefix(e.Path, "./")
		if !e.Mode.IsRegular() || e.Link != "" {
			return nil
		}
		return fn(e, r)
	}
	switch packingOf(f) {
	case packedDeb:
		return deb.Walk(context.Background(), f, st.Size(), regular)
	case packedRPM:
		p, err := rpm.Open(f, st.Size())
		if err != nil {
			return err
		}
		return p.Walk(context.Background(), regular)
	case packedAlone:
		r, err := unpack.Open(context.Background(), f, st.Size())
		if err != nil {
			return err
		}
		defer r.Close()
		if err := fn(unpack.Entry{}, r); !errors.Is(err, unpack.ErrStop) {
			return err
		}
		return nil
	}
	return errors.New("not a package")
}

// keepFree is what unpacking leaves free on the disk, in bytes.
const keepFree = 256 << 20

// cached returns where the file with that build ID is in the cache, or would be.
func (s *Source) cached(id string) (string, error) {
	if len(id) < 3 || strings.Trim(id, "0123456789abcdef") != "" {
		return "", fmt.Errorf("the build ID is %q", id)
	}
	dir := s.cacheDir
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(user, "crashkit", "debuginfo")
	}
	return filepath.Join(dir, id+".debug"), nil
}

// unpackFiles unpacks those files of a package that are wanted, each to its place in
// the cache. Wanted returns the build ID that a file of that name must have, "" if the
// file is not wanted. A file with another one is an error that names both. Ids is how
// many files there can be; the package is not read further than the last.
func (s *Source) unpackFiles(path string, ids int, wanted func(name string) string) error {
	var errs []error
	err := walkPackage(path, func(e unpack.Entry, r io.Reader) error {
		id := wanted(e.Path)
		if id == "" {
			return nil
		}
		to, err := s.cached(id)
		if err != nil {
			return err
		}
		if s.notify != nil {
			s.notify(fmt.Sprintf("unpacking %s to %s, once", strings.TrimSpace(path+" "+e.Path), filepath.Dir(to)))
		}
		if err := unpackFile(to, id, r); err != nil {
			errs = append(errs, fmt.Errorf("%s in %s: %w", e.Path, path, err))
			return nil // there may be another one of that name
		}
		if ids--; ids == 0 {
			return unpack.ErrStop
		}
		return nil
	})
	if err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", path, err))
	}
	if ids == 0 {
		return nil
	}
	return errors.Join(errs...)
}

// unpackFile writes what r has to a file, which is there whole and with that build ID, or
// not at all.
func unpackFile(path, id string, r io.Reader) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("free space of %s: %w", dir, err)
	}
	room := int64(min(st.Bavail*uint64(st.Bsize), 1<<62)) - keepFree
	out, err := os.CreateTemp(dir, "part-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			out.Close()
			os.Remove(out.Name())
		}
	}()
	n, err := io.Copy(out, io.LimitReader(r, max(room, 0)))
	if err != nil {
		return err
	}
	if n >= room {
		return fmt.Errorf("no room for more than %d MiB on the disk of %s, of which %d MiB stay free", n>>20, dir, keepFree>>20)
	}
	if err := out.Close(); err != nil {
		return err
	}
	// Not to be relocated: only its build ID matters here.
	f, err := OpenModule(out.Name(), func(string) (uint64, bool) { return 0, false })
	if err != nil {
		return err
	}
	got := f.BuildID
	if err := f.Close(); err != nil {
		return err
	}
	if got != id {
		return errBuildID{got, id}
	}
	return os.Rename(out.Name(), path)
}

// errBuildID is the reason that a file is not that of the dump.
type errBuildID struct{ got, want string }

func (e errBuildID) Error() string {
	got := e.got
	if got == "" {
		got = "none"
	}
	return fmt.Sprintf("its build ID is %s, the dump's is %s", got, e.want)
}

// packages returns the packages to look in: the one that was given, and those beside the
// dump whose names say that they have the kernel's debug information.
func (s *Source) packages() []string {
	var all []string
	if s.pack != "" {
		all = append(all, s.pack)
	}
	release, err := s.release()
	if err != nil {
		return all
	}
	entries, err := os.ReadDir(s.beside)
	if err != nil {
		return all // what cannot be read is not found
	}
	for _, e := range entries {
		name := e.Name()
		kind := filepath.Ext(name)
		isOne := kind == ".deb" || kind == ".ddeb" || kind == ".rpm"
		if isOne && strings.Contains(name, release) && (strings.Contains(name, "dbg") || strings.Contains(name, "debug")) {
			if path := filepath.Join(s.beside, name); path != s.pack {
				all = append(all, path)
			}
		}
	}
	return all
}

// isKernelFile reports whether a file of a package, by its name, is the kernel's debug
// information. A release of "" is any.
func isKernelFile(name, release string) bool {
	dir, base := filepath.Split(name)
	base = strings.TrimSuffix(base, ".debug")
	if release == "" {
		return base == "" || base == "vmlinux" || strings.HasPrefix(base, "vmlinux-")
	}
	// The only file without a name is compressed by itself.
	return name == "" || base == "vmlinux-"+release || base == "vmlinux" && strings.Contains("/"+dir, "/"+release+"/")
}

// kernelFrom returns the kernel's file from a package, unpacked.
func (s *Source) kernelFrom(pack string) (string, error) {
	id, err := s.p.BuildID()
	if err != nil {
		return "", err
	}
	to, err := s.cached(id)
	if err != nil {
		return "", err
	}
	if f, err := Open(to); err == nil {
		whole := f.BuildID == id
		if err := f.Close(); err == nil && whole {
			return to, nil
		}
	}
	release, _ := s.p.Info.Get("OSRELEASE") // only to be compared
	err = s.unpackFiles(pack, 1, func(name string) string {
		if isKernelFile(name, release) || s.isByBuildID(name, id) {
			return id
		}
		return ""
	})
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(to); err != nil {
		return "", fmt.Errorf("%w of kernel %s (build ID %s) in %s", ErrNone, release, id, pack)
	}
	return to, nil
}

// isByBuildID reports whether a file of a package is named by that build ID.
func (s *Source) isByBuildID(name, id string) bool {
	return len(id) > 2 && strings.HasSuffix(name, ".build-id/"+id[:2]+"/"+id[2:]+".debug")
}

// moduleFrom returns a module's file from a package, unpacked. All loaded modules are
// unpacked in one go: packages can only be read from their start on.
func (s *Source) moduleFrom(pack, id string) (string, bool, error) {
	to, err := s.cached(id)
	if err != nil {
		return "", false, err
	}
	var errs error
	if _, err := os.Stat(to); err != nil && !s.unpacked[pack] {
		s.unpacked[pack] = true
		release, err := s.release()
		if err != nil {
			return "", false, err
		}
		ids := s.moduleIDs()
		errs = s.unpackFiles(pack, len(ids), func(name string) string {
			dir, base := filepath.Split(name)
			base, ok := strings.CutSuffix(strings.TrimSuffix(base, ".debug"), ".ko")
			if !ok || !strings.Contains("/"+dir, "/"+release+"/") {
				return ""
			}
			return ids[strings.ReplaceAll(base, "-", "_")]
		})
	}
	_, err = os.Stat(to)
	return to, err == nil, errs
}

// moduleIDs returns the build IDs of the loaded modules that are not in the cache, by
// the modules' names.
func (s *Source) moduleIDs() map[string]string {
	ids := make(map[string]string)
	mods, _ := s.p.Modules() // those that could be read
	for _, m := range mods {
		id, err := s.p.ModuleBuildID(m)
		if err != nil {
			continue
		}
		if to, err := s.cached(id); err == nil {
			if _, err := os.Stat(to); err != nil {
				ids[m.Name] = id
			}
		}
	}
	return ids
}
