// Package deb reads Debian packages (deb(5)): ar archives, in which a member
// called data.tar and something holds the files.
package deb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"crashlab/internal/unpack"
)

// ErrNotFound is wrapped by the error for what a package does not have.
var ErrNotFound = errors.New("not in the package")

// Member is a part of an ar archive.
type Member struct {
	Name      string
	Off, Size int64 // of its content in the archive, in bytes
}

// FindMember returns the first member whose name begins with prefix of the ar
// archive that fills the size bytes of r. A member that the archive is too short
// for is an error that wraps io.ErrUnexpectedEOF.
func FindMember(r io.ReaderAt, size int64, prefix string) (Member, error) {
	const magic = "!<arch>\n"
	head := make([]byte, 60)
	if n, err := r.ReadAt(head[:len(magic)], 0); n < len(magic) || string(head[:len(magic)]) != magic {
		if err != nil && !errors.Is(err, io.EOF) {
			return Member{}, err
		}
		return Member{}, errors.New("not a Debian package")
	}
	for at := int64(len(magic)); at < size; {
		// name[16] mtime[12] uid[6] gid[6] mode[8] size[10] "`\n"
		if n, err := r.ReadAt(head, at); n < len(head) {
			return Member{}, fmt.Errorf("archive header: %w", noEOF(err))
		}
		m := Member{Name: strings.TrimRight(string(head[:16]), " /"), Off: at + int64(len(head))}
		var err error
		m.Size, err = strconv.ParseInt(strings.TrimRight(string(head[48:58]), " "), 10, 64)
		if err != nil || m.Size < 0 || string(head[58:]) != "`\n" {
			return Member{}, fmt.Errorf("archive header %q is damaged", head)
		}
		if m.Size > size-m.Off {
			return Member{}, fmt.Errorf("%s: %w", m.Name, io.ErrUnexpectedEOF)
		}
		if strings.HasPrefix(m.Name, prefix) {
			return m, nil
		}
		at = m.Off + m.Size + m.Size&1
	}
	return Member{}, fmt.Errorf("%s: %w", prefix, ErrNotFound)
}

// Walk calls fn for each file, directory and link of the package that fills the
// size bytes of r, in the archive's order, with a reader of the file's content that
// is valid until fn returns. Paths begin with "./". When fn returns unpack.ErrStop, so
// does Walk without an error, and what follows is not even decompressed.
// The archive is verified as far as it is read.
func Walk(ctx context.Context, r io.ReaderAt, size int64, fn func(unpack.Entry, io.Reader) error) error {
	m, err := FindMember(r, size, "data.tar")
	if err != nil {
		return err
	}
	data, err := unpack.Open(ctx, io.NewSectionReader(r, m.Off, m.Size), m.Size)
	if err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	defer data.Close()
	if data.Format == unpack.None && m.Name != "data.tar" {
		return fmt.Errorf("%s: unknown compression", m.Name)
	}
	err = unpack.Tar(data, fn)
	if err != nil && !errors.Is(err, unpack.ErrStop) {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	return nil
}

// Unpack adds the files of the package to t.
func Unpack(ctx context.Context, r io.ReaderAt, size int64, t *unpack.Tree) error {
	return Walk(ctx, r, size, t.Add)
}

// Find calls fn with the first regular file of the package for whose path match
// returns true, and reads no further than fn does. Paths are like "usr/lib/debug/boot/vmlinux-6.1".
func Find(ctx context.Context, r io.ReaderAt, size int64, match func(path string) bool, fn func(unpack.Entry, io.Reader) error) error {
	found := false
	err := Walk(ctx, r, size, func(e unpack.Entry, content io.Reader) error {
		e.Path = strings.TrimPrefix(e.Path, "./")
		if !e.Mode.IsRegular() || e.Link != "" || !match(e.Path) {
			return nil
		}
		found = true
		if err := fn(e, content); err != nil {
			return err
		}
		return unpack.ErrStop
	})
	if err == nil && !found {
		err = ErrNotFound
	}
	return err
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
