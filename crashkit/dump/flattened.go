package dump

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// makedumpfile's flattened format (makedumpfile 1.7.2, makedumpfile.h; QEMU
// 7.2, include/sysemu/dump.h) carries a dump through a pipe: a header block,
// then records saying "these bytes belong at this offset". A later record
// overwrites an earlier one. All numbers are big-endian.
const (
	flatMagic     = "makedumpfile"
	flatHeaderLen = 4096
	flatType      = 16 // offset of the type in the header: 1
	flatVersion   = 24 // offset of the version in the header: 1
	flatRecordLen = 16 // offset, size: both signed; -1 in the last record

	flatMaxSize = 1 << 50 // bytes: nothing reaches that far
)

func isFlattened(head []byte) bool { return bytes.HasPrefix(head, []byte(flatMagic+"\x00")) }

// flattenedSource is the dump inside a flattened stream, read where it is.
type flattenedSource struct {
	src     source
	extents []extent // by offset in the dump, sorted and disjoint, all Present
	n       int64
}

// openFlattened indexes the records of a flattened stream. If the stream ends
// too early it is opened as far as it goes and the problem says so.
func openFlattened(src source) (s source, problem string, err error) {
	h, err := src.view(0, flatVersion+8)
	if err != nil {
		return nil, "", fmt.Errorf("read flattened header: %w", err)
	}
	typ, version := binary.BigEndian.Uint64(h[flatType:]), binary.BigEndian.Uint64(h[flatVersion:])
	if typ != 1 || version != 1 {
		return nil, "", fmt.Errorf("%w: flattened stream of type %d, version %d; known is type 1, version 1", ErrFormat, typ, version)
	}
	var extents []extent
	var size int64
	pos := int64(flatHeaderLen)
	for {
		var rec [flatRecordLen]byte
		if err := src.readAt(pos, rec[:]); err != nil {
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, "", fmt.Errorf("read flattened record at %#x: %w", pos, err)
			}
			problem = "the flattened stream has no end mark: its end is missing"
			break
		}
		off, n := int64(binary.BigEndian.Uint64(rec[:])), int64(binary.BigEndian.Uint64(rec[8:]))
		if off == -1 && n == -1 {
			break
		}
		if off < 0 || n < 0 || off > flatMaxSize || n > flatMaxSize {
			problem = fmt.Sprintf("the flattened stream has a record for %#x bytes at %#x; what follows is lost", n, off)
			break
		}
		pos += flatRecordLen
		have := min(n, src.size()-pos)
		if have > 0 {
			extents = appendExtent(extents, extent{uint64(off), uint64(off + have), pos, Present})
		}
		size = max(size, off+n)
		if have < n {
			problem = "the flattened stream ends within a record"
			break
		}
		pos += n
	}
	return &flattenedSource{src: src, extents: overlay(extents), n: size}, problem, nil
}

func (f *flattenedSource) size() int64 { return f.n }

func (f *flattenedSource) view(off int64, n int) ([]byte, error) {
	if !inside(off, int64(n), f.n) {
		return nil, io.ErrUnexpectedEOF
	}
	if i := findExtent(f.extents, uint64(off)); i < len(f.extents) {
		if e := f.extents[i]; e.start <= uint64(off) && e.end-uint64(off) >= uint64(n) {
			return f.src.view(e.off+off-int64(e.start), n)
		}
	}
	if uint64(n) > f.stored(off, n) {
		return nil, io.ErrUnexpectedEOF
	}
	b := make([]byte, n)
	return b, f.readAt(off, b)
}

// stored returns how many of the n bytes at off there are.
func (f *flattenedSource) stored(off int64, n int) uint64 {
	from, till := uint64(off), uint64(off)+uint64(n)
	var sum uint64
	for i := findExtent(f.extents, from); i < len(f.extents) && f.extents[i].start < till; i++ {
		sum += min(f.extents[i].end, till) - max(f.extents[i].start, from)
	}
	return sum
}

func (f *flattenedSource) readAt(off int64, b []byte) error {
	if !inside(off, int64(len(b)), f.n) {
		return io.ErrUnexpectedEOF
	}
	for len(b) > 0 {
		i := findExtent(f.extents, uint64(off))
		if i == len(f.extents) || f.extents[i].start > uint64(off) {
			return fmt.Errorf("offset %#x is in no record of the flattened stream: %w", off, io.ErrUnexpectedEOF)
		}
		e := f.extents[i]
		n := min(uint64(len(b)), e.end-uint64(off), math.MaxInt32)
		if err := f.src.readAt(e.off+off-int64(e.start), b[:n]); err != nil {
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

func (f *flattenedSource) prefetch(int64, int64) {}
