package dump

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// headLen is how much of a file is looked at to tell its format, in bytes.
const headLen = 64

// source is the bytes of a dump file.
type source interface {
	// size returns how many bytes there are.
	size() int64
	// view returns n bytes at off, read-only: a slice of the file's mapping if
	// there is one, else a fresh copy. It returns io.ErrUnexpectedEOF, before
	// allocating anything, when they are not all there.
	view(off int64, n int) ([]byte, error)
	// readAt reads all of b from off, with the same error.
	readAt(off int64, b []byte) error
	// prefetch is a hint that n bytes at off will be viewed at once.
	prefetch(off, n int64)
}

// inside reports whether the n bytes at off are all within size bytes.
func inside(off, n, size int64) bool { return off >= 0 && n >= 0 && n <= size && off <= size-n }

// mappedSource is a file in memory.
type mappedSource []byte

func (m mappedSource) size() int64 { return int64(len(m)) }

func (m mappedSource) view(off int64, n int) ([]byte, error) {
	if !inside(off, int64(n), int64(len(m))) {
		return nil, io.ErrUnexpectedEOF
	}
	return m[off : off+int64(n) : off+int64(n)], nil
}

func (m mappedSource) readAt(off int64, b []byte) error {
	if !inside(off, int64(len(b)), int64(len(m))) {
		return io.ErrUnexpectedEOF
	}
	copy(b, m[off:])
	return nil
}

// prefetch maps the pages in one go: to fault them in one by one takes three
// times as long as what is done with them. Linux can since v5.14.
func (m mappedSource) prefetch(off, n int64) {
	from := off &^ int64(os.Getpagesize()-1)
	if inside(from, n+off-from, m.size()) && n > 0 {
		_ = unix.Madvise(m[from:off+n], unix.MADV_POPULATE_READ) // only a hint
	}
}

// readerSource is a file that cannot be mapped.
type readerSource struct {
	r io.ReaderAt
	n int64
}

func (s *readerSource) size() int64 { return s.n }

func (s *readerSource) view(off int64, n int) ([]byte, error) {
	if !inside(off, int64(n), s.n) {
		return nil, io.ErrUnexpectedEOF
	}
	b := make([]byte, n)
	return b, s.readAt(off, b)
}

func (s *readerSource) readAt(off int64, b []byte) error {
	if !inside(off, int64(len(b)), s.n) {
		return io.ErrUnexpectedEOF
	}
	n, err := s.r.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

func (s *readerSource) prefetch(int64, int64) {}

// openSource takes f over: the returned function closes it. A regular file is
// mapped; anything else that can be read at an offset, such as a block device,
// is read.
func openSource(f *os.File) (source, func() error, error) {
	st, err := f.Stat()
	if err == nil && st.IsDir() {
		err = fmt.Errorf("%w: a directory", ErrFormat)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	if st.Mode().IsRegular() && st.Size() > 0 && int64(int(st.Size())) == st.Size() {
		m, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
		if err == nil {
			f.Close()
			return mappedSource(m), func() error { return unix.Munmap(m) }, nil
		}
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("a dump must be a file or a device, not a stream: %w", err)
	}
	return &readerSource{r: f, n: size}, f.Close, nil
}

// formatError says what a file that is no dump looks like.
func formatError(head []byte) error {
	for _, w := range []struct{ magic, name, tool string }{
		{"\x1f\x8b", "gzip", "gunzip"},
		{"\xfd7zXZ\x00", "xz", "unxz"},
		{"\x28\xb5\x2f\xfd", "zstd", "unzstd"},
		{"BZh", "bzip2", "bunzip2"},
		{"\x04\x22\x4d\x18", "lz4", "unlz4"},
	} {
		if bytes.HasPrefix(head, []byte(w.magic)) {
			return fmt.Errorf("%w: the file is compressed with %s as a whole; unpack it first (%s)", ErrFormat, w.name, w.tool)
		}
	}
	switch {
	case len(head) == 0:
		return fmt.Errorf("%w: the file is empty", ErrFormat)
	case bytes.HasPrefix(head, []byte("DISKDUMP")):
		return fmt.Errorf("%w: a diskdump file; only its successor kdump-compressed is read", ErrFormat)
	case len(bytes.Trim(head, "\x00")) == 0:
		return fmt.Errorf("%w: the file begins with zeroes", ErrFormat)
	}
	return fmt.Errorf("%w: neither an ELF core nor a kdump-compressed file (it begins %q)", ErrFormat, head[:min(len(head), 8)])
}
