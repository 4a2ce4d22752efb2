package dump

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// Compression is how the pages of a kdump-compressed file are stored.
type Compression uint8

// The compressions, by the flag that the format has for each.
const (
	Plain  Compression = 0
	Zlib   Compression = flagZlib
	LZO    Compression = flagLZO
	Snappy Compression = flagSnappy
	Zstd   Compression = flagZstd
)

func (c Compression) String() string {
	switch c {
	case Plain:
		return "none"
	case Zlib:
		return "zlib"
	case LZO:
		return "lzo"
	case Snappy:
		return "snappy"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("Compression(%#x)", uint8(c))
}

// compressionOf picks the compression out of a header's status or a
// descriptor's flags. With more than one bit set it is none of the known ones.
func compressionOf(flags uint32) Compression {
	return Compression(flags & (flagZlib | flagLZO | flagSnappy | flagZstd))
}

// maxZstdWindow bounds the window that a frame may ask for, in bytes: what
// libzstd's ordinary levels use for input of unknown length.
const maxZstdWindow = 8 << 20

// decoder unpacks stored pages. It is safe for concurrent use.
type decoder struct {
	pageSize int
	zlib     sync.Pool // of io.ReadCloser and zlib.Resetter
	zstd     func() (*zstd.Decoder, error)
}

func newDecoder(pageSize int) *decoder {
	return &decoder{
		pageSize: pageSize,
		zstd: sync.OnceValues(func() (*zstd.Decoder, error) {
			return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true),
				zstd.WithDecoderMaxMemory(maxZstdWindow), zstd.WithDecodeAllCapLimit(true))
		}),
	}
}

var errPageSize = errors.New("it does not unpack to exactly one page")

// decode returns the page that packed holds: packed itself if the page is stored
// plain, else in page, which has the size of one, or if that is nil in memory of
// its own.
func (d *decoder) decode(packed []byte, flags uint32, page []byte) ([]byte, error) {
	c := compressionOf(flags)
	if c == Plain {
		if len(packed) != d.pageSize {
			return nil, fmt.Errorf("a plain page of %d bytes", len(packed))
		}
		return packed, nil
	}
	if bits.OnesCount8(uint8(c)) != 1 {
		return nil, fmt.Errorf("unknown page flags %#x", flags)
	}
	if page == nil {
		page = make([]byte, d.pageSize)
	}
	var n int
	var err error
	switch c {
	case Zlib:
		n, err = d.inflate(page, packed)
	case LZO:
		n, err = unpackLZO(page, packed)
	case Snappy:
		if n, err = snappy.DecodedLen(packed); err == nil && n == d.pageSize {
			_, err = snappy.Decode(page, packed)
		}
	case Zstd:
		var z *zstd.Decoder
		if z, err = d.zstd(); err == nil {
			var out []byte
			out, err = z.DecodeAll(packed, page[:0])
			n = len(out)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%v: %w", c, err)
	}
	if n != d.pageSize {
		return nil, fmt.Errorf("%v: %w", c, errPageSize)
	}
	return page, nil
}

// inflate unpacks a zlib stream and checks its checksum.
func (d *decoder) inflate(page, packed []byte) (int, error) {
	src := bytes.NewReader(packed)
	z, ok := d.zlib.Get().(io.ReadCloser)
	var err error
	if ok {
		err = z.(zlib.Resetter).Reset(src, nil)
	} else {
		z, err = zlib.NewReader(src)
	}
	if err != nil {
		return 0, err
	}
	defer d.zlib.Put(z)
	n, err := io.ReadFull(z, page)
	if err != nil {
		return n, err
	}
	var more [1]byte
	switch m, err := z.Read(more[:]); {
	case m > 0:
		return n, errPageSize
	case err != io.EOF:
		return n, err
	}
	return n, nil
}

// encoder packs pages. It is not safe for concurrent use.
type encoder struct {
	c    Compression
	page int
	zlib *zlib.Writer
	zstd *zstd.Encoder
	lzo  *lzoTable
	buf  bytes.Buffer // zlib's output
	b    []byte       // the others' output
}

// newEncoder returns an encoder for pages of the given size. Dumps are written
// once and read a few times, mostly sparsely: the fastest level is right.
func newEncoder(c Compression, pageSize int) (*encoder, error) {
	e := &encoder{c: c, page: pageSize}
	var err error
	switch c {
	case Plain, Snappy:
	case LZO:
		e.lzo = new(lzoTable)
	case Zlib:
		e.zlib, err = zlib.NewWriterLevel(&e.buf, zlib.BestSpeed)
	case Zstd:
		e.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithWindowSize(max(pageSize, zstd.MinWindowSize)))
	default:
		err = fmt.Errorf("pages cannot be compressed with %v", c)
	}
	return e, err
}

// encode appends the packed page to b and returns its descriptor's flags: those
// of a plain page if packing does not make it smaller.
func (e *encoder) encode(b, page []byte) ([]byte, uint32, error) {
	var packed []byte
	switch e.c {
	case Zlib:
		e.buf.Reset()
		e.zlib.Reset(&e.buf)
		if _, err := e.zlib.Write(page); err != nil {
			return b, 0, err
		}
		if err := e.zlib.Close(); err != nil {
			return b, 0, err
		}
		packed = e.buf.Bytes()
	case Snappy:
		if e.b == nil {
			e.b = make([]byte, snappy.MaxEncodedLen(e.page))
		}
		packed = snappy.Encode(e.b, page)
	case LZO:
		e.b = appendLZO(e.b[:0], page, e.lzo)
		packed = e.b
	case Zstd:
		e.b = e.zstd.EncodeAll(page, e.b[:0])
		packed = e.b
	}
	if e.c == Plain || len(packed) >= len(page) {
		return append(b, page...), 0, nil
	}
	return append(b, packed...), uint32(e.c), nil
}
