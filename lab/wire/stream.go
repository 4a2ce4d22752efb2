package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
)

// A stream is a sequence of blocks on a raw disk, from offset 0, without gaps.
// A block is a header of one page and a body, padded with zeros to whole
// pages. The header, little-endian:
//
//	offset   0   8  magic
//	         8   4  kind
//	        12   4  length of meta
//	        16   8  sequence number, from 0
//	        24   8  length of the body, without padding
//	        32  16  checksum of the body, with padding
//	        48      meta, then zeros
//	      4080  16  checksum of the 4080 bytes before
//
// The last block is of kind blockEnd. What follows it on the disk is not
// looked at.
const (
	blockMagic = "CLABBLK1"
	metaOffset = 48
	sumOffset  = PageSize - 16
	maxMeta    = sumOffset - metaOffset
)

type blockKind uint32

const (
	blockHead  blockKind = iota + 1 // the start of /proc/vmcore: ELF header, program headers, notes
	blockPages                      // pages of memory; meta says which
	blockFiles                      // a piece of the archive of files
	blockEnd                        // no body; meta holds the totals
)

// checksum is a Fletcher sum over 64-bit words: any changed byte changes it,
// and so does any exchange of words. Its two additions per word run at memory
// speed under emulation, where CRC-32C takes sixty times as long. len(b) must
// be a multiple of 8.
func checksum(b []byte) (sum [2]uint64) {
	le := binary.LittleEndian
	x, y := uint64(1), uint64(0)
	for ; len(b) >= 64; b = b[64:] {
		x += le.Uint64(b[0:8])
		y += x
		x += le.Uint64(b[8:16])
		y += x
		x += le.Uint64(b[16:24])
		y += x
		x += le.Uint64(b[24:32])
		y += x
		x += le.Uint64(b[32:40])
		y += x
		x += le.Uint64(b[40:48])
		y += x
		x += le.Uint64(b[48:56])
		y += x
		x += le.Uint64(b[56:64])
		y += x
	}
	for ; len(b) >= 8; b = b[8:] {
		x += le.Uint64(b)
		y += x
	}
	return [2]uint64{x, y}
}

// Put takes a full block, to be written after those before it, and returns the
// buffer for the next one, which may be the same.
type Put func(block []byte) (next []byte, err error)

// stream cuts what is written to it into blocks.
type stream struct {
	put  Put
	buf  []byte // the block being filled: header, then body
	body int    // bytes of body in buf
	seq  uint64
}

// newStream returns a stream whose blocks are as large as the buffers.
func newStream(buf []byte, put Put) (*stream, error) {
	if len(buf) < 2*PageSize || len(buf)%PageSize != 0 {
		return nil, fmt.Errorf("stream buffer of %d bytes: want at least two pages and whole ones", len(buf))
	}
	return &stream{put: put, buf: buf}, nil
}

// free returns the unused part of the body being filled.
func (s *stream) free() []byte { return s.buf[PageSize+s.body:] }

// flush completes the block and hands it on.
func (s *stream) flush(kind blockKind, meta []byte) error {
	if len(meta) > maxMeta {
		return fmt.Errorf("block %d: meta of %d bytes: the limit is %d", s.seq, len(meta), maxMeta)
	}
	le := binary.LittleEndian
	end := PageSize + roundUp(s.body)
	clear(s.buf[PageSize+s.body : end])
	h := s.buf[:PageSize]
	clear(h)
	copy(h, blockMagic)
	le.PutUint32(h[8:], uint32(kind))
	le.PutUint32(h[12:], uint32(len(meta)))
	le.PutUint64(h[16:], s.seq)
	le.PutUint64(h[24:], uint64(s.body))
	putSum(h[32:], checksum(s.buf[PageSize:end]))
	copy(h[metaOffset:], meta)
	putSum(h[sumOffset:], checksum(h[:sumOffset]))

	next, err := s.put(s.buf[:end])
	if err != nil {
		return err
	}
	s.buf, s.body = next, 0
	s.seq++
	return nil
}

// write sends b as blocks of one kind; the last one stays open.
func (s *stream) write(kind blockKind, b []byte) error {
	for len(b) > 0 {
		n := copy(s.free(), b)
		s.body += n
		b = b[n:]
		if len(s.free()) == 0 {
			if err := s.flush(kind, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func roundUp(n int) int { return (n + PageSize - 1) &^ (PageSize - 1) }

func putSum(b []byte, sum [2]uint64) {
	binary.LittleEndian.PutUint64(b, sum[0])
	binary.LittleEndian.PutUint64(b[8:], sum[1])
}

func getSum(b []byte) [2]uint64 {
	return [2]uint64{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
}

// block is a checked block of a stream in memory. Its slices alias the stream.
type block struct {
	kind blockKind
	meta []byte
	body []byte
	off  int // of the header in the stream
}

var (
	// ErrNoStream means that nothing was ever written to the disk.
	ErrNoStream = errors.New("nothing was written")
	// ErrIncomplete means that the stream has no end: the guest died or the disk was full.
	ErrIncomplete = errors.New("the stream is incomplete")
)

// readBlocks returns the blocks of the stream that b begins with, without the
// final one, whose meta it returns. Every checksum is verified.
func readBlocks(b []byte) (blocks []block, end []byte, err error) {
	for off := 0; ; {
		k, next, err := readBlock(b, off, uint64(len(blocks)))
		if err != nil {
			if len(blocks) > 0 || !errors.Is(err, ErrNoStream) {
				err = fmt.Errorf("block %d at offset %#x: %w", len(blocks), off, err)
			}
			return nil, nil, err
		}
		if k.kind == blockEnd {
			if len(k.body) > 0 {
				return nil, nil, fmt.Errorf("block %d at offset %#x: the end has a body", len(blocks), off)
			}
			return blocks, k.meta, checkBodies(b, blocks)
		}
		blocks = append(blocks, k)
		off = next
	}
}

// readBlock decodes the header at off, which must have number seq.
func readBlock(b []byte, off int, seq uint64) (k block, next int, err error) {
	if len(b)-off < PageSize {
		if off == 0 {
			return k, 0, fmt.Errorf("%w: the disk has %d bytes", ErrNoStream, len(b))
		}
		return k, 0, fmt.Errorf("%w: it stops at the end of the disk", ErrIncomplete)
	}
	h := b[off : off+PageSize]
	if isZero(h) {
		if off == 0 {
			return k, 0, ErrNoStream
		}
		return k, 0, fmt.Errorf("%w: it stops here", ErrIncomplete)
	}
	le := binary.LittleEndian
	switch {
	case string(h[:8]) != blockMagic:
		return k, 0, fmt.Errorf("header begins with % x, want %q", h[:8], blockMagic)
	case getSum(h[sumOffset:]) != checksum(h[:sumOffset]):
		return k, 0, errors.New("header checksum differs")
	case le.Uint64(h[16:]) != seq:
		return k, 0, fmt.Errorf("sequence number %d", le.Uint64(h[16:]))
	}
	n, meta := le.Uint64(h[24:]), le.Uint32(h[12:])
	if meta > maxMeta {
		return k, 0, fmt.Errorf("meta of %d bytes", meta)
	}
	if room := len(b) - off - PageSize; n > uint64(room) || roundUp(int(n)) > room {
		return k, 0, fmt.Errorf("%w: body of %d bytes, the disk has %d more", ErrIncomplete, n, room)
	}
	k = block{
		kind: blockKind(le.Uint32(h[8:])),
		meta: h[metaOffset : metaOffset+meta],
		body: b[off+PageSize:][:n],
		off:  off,
	}
	return k, off + PageSize + roundUp(int(n)), nil
}

// checkBodies verifies the checksums of all bodies, on all CPUs.
func checkBodies(b []byte, blocks []block) error {
	errs := make([]error, len(blocks))
	work := make(chan int)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range work {
				k := blocks[i]
				body := b[k.off+PageSize:][:roundUp(len(k.body))]
				if getSum(b[k.off+32:]) != checksum(body) {
					errs[i] = fmt.Errorf("block %d at offset %#x: body checksum differs", i, k.off)
				}
			}
		})
	}
	for i := range blocks {
		work <- i
	}
	close(work)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// isZero reports whether b, whose length is a multiple of 64, is all zero.
func isZero(b []byte) bool {
	le := binary.LittleEndian
	for ; len(b) >= 64; b = b[64:] {
		if le.Uint64(b[0:8])|le.Uint64(b[8:16])|le.Uint64(b[16:24])|le.Uint64(b[24:32])|
			le.Uint64(b[32:40])|le.Uint64(b[40:48])|le.Uint64(b[48:56])|le.Uint64(b[56:64]) != 0 {
			return false
		}
	}
	return true
}
