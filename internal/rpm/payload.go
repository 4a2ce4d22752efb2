package rpm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/cavaliergopher/cpio"

	"crashlab/internal/unpack"
)

// ErrNotFound is returned for what a package does not have.
var ErrNotFound = errors.New("not in the package")

// ErrNoPayload is returned for the files of a package that ends with its headers.
var ErrNoPayload = errors.New("the package has no payload")

// Walk calls fn for each file, directory and link of the package, in the
// archive's order, with a reader of the file's content that is valid until fn returns. Paths begin
// with "./". Of files with several names, the last has the content and comes first.
// When fn returns unpack.ErrStop, so does Walk without an error, and what follows is
// not even decompressed.
func (p *Package) Walk(ctx context.Context, fn func(unpack.Entry, io.Reader) error) error {
	if f := p.PayloadFormat(); f != "" && f != "cpio" {
		return fmt.Errorf("the payload is of the unknown format %q", f)
	}
	if p.size == p.header2 {
		return ErrNoPayload
	}
	data, err := unpack.Open(ctx, io.NewSectionReader(p.r, p.header2, p.size-p.header2), p.size-p.header2)
	if err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	defer data.Close()
	err = walkCPIO(data, fn)
	if err != nil && !errors.Is(err, unpack.ErrStop) {
		return fmt.Errorf("payload: %w", err)
	}
	return nil
}

// Unpack adds the files of the package to t.
func (p *Package) Unpack(ctx context.Context, t *unpack.Tree) error { return p.Walk(ctx, t.Add) }

// Find calls fn with the first regular file of the package for whose path match
// returns true, and reads no further than fn does. Paths are like
// "usr/lib/debug/lib/modules/6.1.0/vmlinux".
func (p *Package) Find(ctx context.Context, match func(path string) bool, fn func(unpack.Entry, io.Reader) error) error {
	found := false
	err := p.Walk(ctx, func(e unpack.Entry, content io.Reader) error {
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

// Find is Package.Find of the package that fills the size bytes of r.
func Find(ctx context.Context, r io.ReaderAt, size int64, match func(path string) bool, fn func(unpack.Entry, io.Reader) error) error {
	p, err := Open(r, size)
	if err != nil {
		return err
	}
	return p.Find(ctx, match, fn)
}

// strippedMagic begins entries of the form of cpio that rpm writes for packages
// with a file of 4 GiB or more: names and sizes are in the header alone.
const strippedMagic = "07070X"

// maxLinks bounds the names that wait for their content.
const maxLinks = 1 << 20

// walkCPIO calls fn for each entry of the archive, and reads r to its end.
func walkCPIO(r io.Reader, fn func(unpack.Entry, io.Reader) error) error {
	in := bufio.NewReaderSize(r, 256<<10)
	if magic, _ := in.Peek(len(strippedMagic)); string(magic) == strippedMagic {
		return errors.New("it has a file of 4 GiB or more, for which rpm uses an archive of its own that is not read here")
	}
	end := &tail{r: in}
	cr := cpio.NewReader(end)
	links := make(map[int64][]unpack.Entry) // by inode: entries without content so far
	waiting := 0
	for {
		h, err := cr.Next()
		if errors.Is(err, io.EOF) {
			if string(end.last) != trailer { // the library does not tell these apart
				return io.ErrUnexpectedEOF
			}
			break
		}
		if err != nil {
			return err
		}
		if h.Size < 0 {
			return fmt.Errorf("%q: %w", h.Name, cpio.ErrHeader)
		}
		if strings.HasPrefix(h.Name, "/") { // of other programs than rpm
			h.Name = "." + h.Name
		}
		e := unpack.Entry{Path: h.Name, Mode: fileMode(h.Mode), ModTime: h.ModTime, Size: h.Size, Link: h.Linkname}
		if e.Mode.Type() != 0 {
			e.Size = 0
		}
		if e.Mode.IsRegular() && h.Links > 1 && h.Size == 0 {
			if waiting++; waiting > maxLinks {
				return errors.New("too many hard links")
			}
			links[h.Inode] = append(links[h.Inode], e)
			continue
		}
		if err := fn(e, &exactly{cr, e.Size}); err != nil {
			return err
		}
		if e.Mode.IsRegular() && h.Links > 1 {
			if err := link(fn, links[h.Inode], e.Path); err != nil {
				return err
			}
			delete(links, h.Inode)
		}
	}
	for _, names := range links { // of empty files
		if err := fn(names[0], strings.NewReader("")); err != nil {
			return err
		}
		if err := link(fn, names[1:], names[0].Path); err != nil {
			return err
		}
	}
	_, err := io.Copy(io.Discard, in)
	return err
}

// trailer is the name of the entry that ends an archive.
const trailer = "TRAILER!!!\x00"

// tail remembers the last bytes read.
type tail struct {
	r    io.Reader
	last []byte // at most as many as trailer has
}

func (t *tail) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.last = append(t.last, p[max(0, n-len(trailer)):n]...)
	t.last = append(t.last[:0], t.last[max(0, len(t.last)-len(trailer)):]...)
	return n, err
}

func link(fn func(unpack.Entry, io.Reader) error, names []unpack.Entry, to string) error {
	for _, e := range names {
		e.Link, e.Size = to, 0
		if err := fn(e, strings.NewReader("")); err != nil {
			return err
		}
	}
	return nil
}

// fileMode translates the mode of stat(2).
func fileMode(m cpio.FileMode) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m &^ 0o7777 {
	case cpio.TypeReg:
	case cpio.TypeDir:
		mode |= fs.ModeDir
	case cpio.TypeSymlink:
		mode |= fs.ModeSymlink
	case cpio.TypeFifo:
		mode |= fs.ModeNamedPipe
	case cpio.TypeChar:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case cpio.TypeBlock:
		mode |= fs.ModeDevice
	case cpio.TypeSocket:
		mode |= fs.ModeSocket
	default:
		mode |= fs.ModeIrregular
	}
	return mode
}

// exactly reads left bytes; fewer are an error.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	if e.left -= int64(n); e.left > 0 {
		err = noEOF(err)
	} else if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}
