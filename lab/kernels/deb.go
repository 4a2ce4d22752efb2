package kernels

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxUnpacked bounds what one package may unpack to, in bytes.
const maxUnpacked = 4 << 30

var errTooLarge = errors.New("unpacks to more than any kernel has")

// unpackDeb unpacks the files of a Debian package into root: those for whose
// path, relative and clean, keep returns true. Absolute links are made
// relative, as root is to be the root of the file system; nothing is created
// outside of it.
func unpackDeb(ctx context.Context, r io.Reader, root *os.Root, keep func(string) bool) error {
	name, member, err := findMember(r, "data.tar")
	if err != nil {
		return err
	}
	data, err := decompress(name, member)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer data.Close()
	bounded := &limited{ctx: ctx, r: data, left: maxUnpacked}
	err = untar(tar.NewReader(bounded), root, keep)
	if err == nil {
		// The checksum of the compressed data comes after the archive's end.
		_, err = io.Copy(io.Discard, bounded)
	}
	if err == nil && member.left > 0 {
		err = io.ErrUnexpectedEOF // a decompressor took the cut for the end
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// findMember reads an ar archive, which is what a .deb is (deb(5)), up to the
// first member whose name begins with prefix.
func findMember(r io.Reader, prefix string) (string, *exactly, error) {
	const magic = "!<arch>\n"
	head := make([]byte, 60)
	if _, err := io.ReadFull(r, head[:len(magic)]); err != nil || string(head[:len(magic)]) != magic {
		return "", nil, errors.New("not a Debian package")
	}
	for {
		// name[16] mtime[12] uid[6] gid[6] mode[8] size[10] "`\n"
		if _, err := io.ReadFull(r, head); err != nil {
			if err == io.EOF {
				return "", nil, fmt.Errorf("the package has no %s", prefix)
			}
			return "", nil, fmt.Errorf("archive header: %w", err)
		}
		name := strings.TrimRight(string(head[:16]), " /")
		size, err := strconv.ParseInt(strings.TrimRight(string(head[48:58]), " "), 10, 64)
		if err != nil || size < 0 || string(head[58:]) != "`\n" {
			return "", nil, fmt.Errorf("archive header %q is damaged", head)
		}
		if strings.HasPrefix(name, prefix) {
			return name, &exactly{r: r, left: size}, nil
		}
		if _, err := io.CopyN(io.Discard, r, size+size&1); err != nil {
			return "", nil, fmt.Errorf("%s: %w", name, noEOF(err))
		}
	}
}

// decompress returns the tar archive in the member called name.
func decompress(name string, r io.Reader) (io.ReadCloser, error) {
	// Of the decoders ulikunitz/xz reads single bytes: three times slower
	// without a buffer.
	br := bufio.NewReaderSize(r, 1<<20)
	switch path.Ext(name) {
	case ".xz":
		x, err := xz.NewReader(br)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(x), nil
	case ".zst":
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case ".gz":
		return gzip.NewReader(br)
	case ".tar":
		return io.NopCloser(br), nil
	}
	return nil, errors.New("unknown compression")
}

func untar(tr *tar.Reader, root *os.Root, keep func(string) bool) error {
	var made lastDir
	buf := make([]byte, 256<<10)
	var total int64
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		if name == "." || h.Typeflag == tar.TypeDir {
			continue // made when needed
		}
		if !filepath.IsLocal(name) {
			return fmt.Errorf("%q is outside of the package", h.Name)
		}
		if !keep(name) {
			continue
		}
		// A sparse file may be far larger than its archive.
		if h.Size > maxUnpacked-total {
			return fmt.Errorf("%s: %w", name, errTooLarge)
		}
		total += h.Size
		if err := made.mkdir(root, path.Dir(name)); err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeReg:
			err = writeFile(root, name, h, tr, buf)
		case tar.TypeSymlink:
			var target string
			if target, err = localLink(name, h.Linkname); err == nil {
				err = root.Symlink(target, name)
			}
		case tar.TypeLink:
			old := path.Clean(h.Linkname)
			if !keep(old) {
				err = fmt.Errorf("hard link %s to %s, which is left out", name, old)
			} else {
				err = root.Link(old, name)
			}
		default:
			err = fmt.Errorf("%s has the unexpected type %q", name, h.Typeflag)
		}
		if err != nil {
			return err
		}
	}
}

func writeFile(root *os.Root, name string, h *tar.Header, r io.Reader, buf []byte) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, h.FileInfo().Mode().Perm()|0o600)
	if err != nil {
		return err
	}
	// Without the wrapper, CopyBuffer prefers File.ReadFrom to buf.
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, r, buf); err != nil {
		f.Close()
		return fmt.Errorf("%s: %w", name, err)
	}
	return f.Close()
}

// localLink returns the relative target that the symbolic link at name needs
// if the package's root is not the root of the file system.
func localLink(name, target string) (string, error) {
	dir := path.Dir(name)
	abs := path.Join(dir, target)
	if path.IsAbs(target) {
		abs = path.Clean(target)[1:]
		rel, err := filepath.Rel(dir, abs)
		if err != nil {
			return "", err
		}
		target = rel
	}
	if !filepath.IsLocal(abs) {
		return "", fmt.Errorf("link %s leads to %s, outside of the package", name, target)
	}
	return target, nil
}

// lastDir makes directories and remembers the last one: archives come sorted.
type lastDir struct{ path string }

func (l *lastDir) mkdir(root *os.Root, dir string) error {
	if dir == l.path || dir == "." {
		return nil
	}
	if err := root.MkdirAll(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	l.path = dir
	return nil
}

// exactly reads left bytes; fewer are an error.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	if e.left > 0 {
		err = noEOF(err)
	}
	return n, err
}

// limited stops when the context ends or more than left bytes come.
type limited struct {
	ctx  context.Context //nolint:containedctx // a Reader has no other way to stop
	r    io.Reader
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
