// Package initramfs builds the initial RAM file systems of the guest: the
// agent, the kernel modules it loads in an order that works, and its job.
//
// The same inputs give the same bytes, so an image can be cached by a hash of
// its inputs.
package initramfs

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"

	"github.com/cavaliergopher/cpio"
)

// File is a regular file of an image.
type File struct {
	Name   string      // slash-separated path without a leading slash; folders are made as needed
	Mode   fs.FileMode // permission bits; 0 means 0644
	Data   []byte      // its content,
	Source string      // or, if not empty, the file on the host whose content it has
}

// Write writes the files as a cpio archive in the format newc, not compressed:
// see Documentation/driver-api/early-userspace/buffer-format.rst of Linux. The
// order of files does not matter. Two files of one name are an error.
func Write(w io.Writer, files []File) error {
	entries := map[string]*File{} // nil for a folder
	for i := range files {
		f := &files[i]
		if !fs.ValidPath(f.Name) || f.Name == "." {
			return fmt.Errorf("write initramfs: file name %q", f.Name)
		}
		if _, twice := entries[f.Name]; twice {
			return fmt.Errorf("write initramfs: %s is both a file and something else", f.Name)
		}
		entries[f.Name] = f
		for dir := path.Dir(f.Name); dir != "."; dir = path.Dir(dir) {
			if entries[dir] != nil {
				return fmt.Errorf("write initramfs: %s is both a file and a folder", dir)
			}
			entries[dir] = nil
		}
	}
	buffered := bufio.NewWriterSize(w, 1<<20)
	out := cpio.NewWriter(buffered)
	// A folder's name sorts before the names in it. Inode numbers count up and
	// times are zero: neither depends on the host.
	for i, name := range slices.Sorted(maps.Keys(entries)) {
		h := &cpio.Header{Name: name, Inode: int64(i + 1), Links: 1}
		if err := writeEntry(out, h, entries[name]); err != nil {
			return fmt.Errorf("write initramfs: %s: %w", name, err)
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	return nil
}

func writeEntry(out *cpio.Writer, h *cpio.Header, f *File) error {
	if f == nil {
		h.Mode, h.Links = cpio.TypeDir|0o755, 2
		return out.WriteHeader(h)
	}
	perm := f.Mode.Perm()
	if perm == 0 {
		perm = 0o644
	}
	data := f.Data
	if f.Source != "" {
		var err error
		if data, err = os.ReadFile(f.Source); err != nil {
			return err
		}
	}
	h.Mode, h.Size = cpio.TypeReg|cpio.FileMode(perm), int64(len(data))
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	_, err := out.Write(data)
	return err
}
