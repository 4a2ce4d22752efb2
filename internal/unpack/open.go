// Package unpack turns compressed archives into files below a directory that
// nothing in an archive can escape from.
package unpack

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz/lzma"
)

// Format is how data is compressed.
type Format string

// The formats that are recognised, by their first bytes.
const (
	None  Format = "none"
	Gzip  Format = "gzip"
	Bzip2 Format = "bzip2"
	XZ    Format = "xz"
	LZMA  Format = "lzma"
	Zstd  Format = "zstd"
)

var magics = []struct {
	format Format
	magic  string
}{
	{Gzip, "\x1f\x8b\x08"},
	{Bzip2, "BZh"},
	{XZ, "\xfd7zXZ\x00"},
	{Zstd, "\x28\xb5\x2f\xfd"},
	{LZMA, "\x5d\x00\x00"},
}

// Sniff tells the format from the first 6 bytes of a file. What it does not
// know is None.
func Sniff(head []byte) Format {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.format
		}
	}
	return None
}

// Reader reads what was compressed. Close it: goroutines may work for it.
type Reader struct {
	io.ReadCloser
	Format Format
	Size   int64 // bytes that will be read; -1 if the file does not say beforehand
	Blocks int   // parts that can be decoded at the same time; 1 if the format has none
}

// errCut is the error for compressed data that ends too early.
var errCut = fmt.Errorf("cut short: %w", io.ErrUnexpectedEOF)

// Open returns a reader of what the size bytes of r hold in compressed form. The
// format is recognised by its first bytes; data in no known format is read as it
// is. The blocks of an .xz file are decoded on all processors. The checksums that
// the formats have are verified; an error says so before io.EOF would come. When
// ctx ends, so does reading.
func Open(ctx context.Context, r io.ReaderAt, size int64) (*Reader, error) {
	var head [6]byte
	n, err := r.ReadAt(head[:min(size, int64(len(head)))], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	format := Sniff(head[:n])
	if format == XZ {
		return openXZ(ctx, r, size)
	}
	in := bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 1<<20)
	var dec io.Reader = in
	err = nil
	closer := func() error { return nil }
	switch format {
	case Gzip:
		dec, err = gzip.NewReader(in)
	case Bzip2:
		dec = bzip2.NewReader(in)
	case LZMA:
		dec, err = lzma.NewReader(in)
	case Zstd:
		var z *zstd.Decoder
		if z, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxDict)); err == nil {
			dec, closer = z, z.IOReadCloser().Close
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", format, noEOF(err))
	}
	out := &checked{ctx: ctx, r: dec, format: format, rest: in, close: closer}
	known := int64(-1)
	if format == None {
		known = size
	}
	return &Reader{ReadCloser: out, Format: format, Size: known, Blocks: 1}, nil
}

// maxDict bounds the memory that a decoder may be told to use for its
// dictionary, in bytes: what xz -9 and zstd --long ask for.
const maxDict = 128 << 20

// checked makes errors of a decoder say their format, and reads on where the
// decoder ends: whatever follows is no part of the data.
type checked struct {
	ctx    context.Context //nolint:containedctx // a Reader has no other way to stop
	r      io.Reader
	format Format
	rest   *bufio.Reader
	close  func() error
}

func (c *checked) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	switch {
	case err == nil, c.format == None:
	case errors.Is(err, io.EOF):
		if _, perr := c.rest.Peek(1); perr == nil {
			return n, fmt.Errorf("%s: something else follows the data", c.format)
		}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return n, fmt.Errorf("%s: %w", c.format, errCut)
	default:
		return n, fmt.Errorf("%s: %w", c.format, err)
	}
	return n, err
}

func (c *checked) Close() error { return c.close() }

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
