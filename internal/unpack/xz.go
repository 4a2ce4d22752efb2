package unpack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"

	"github.com/mikelolasagasti/xz"
)

// The .xz format is that of xz-file-format.txt (version 1.1.0): streams, each of
// a header, blocks, an index of the blocks and a footer. The index is read first,
// which makes blocks that several workers can decode at once. Only files written
// by a parallel compressor have more than one.
const (
	xzMagic       = "\xfd7zXZ\x00"
	xzFooterMagic = "YZ"
	xzHeadSize    = 12 // of a stream's header and footer
)

// xzBlock is a block of an .xz file, as the index has it.
type xzBlock struct {
	flags    [2]byte // of its stream
	off      int64   // in the file
	unpadded int64   // bytes in the file, without the padding to 4
	size     int64   // bytes that it decodes to
}

func (b xzBlock) padded() int64 { return (b.unpadded + 3) &^ 3 }

// openXZ is Open for .xz files.
func openXZ(ctx context.Context, r io.ReaderAt, size int64) (*Reader, error) {
	blocks, err := xzIndex(r, size)
	if err != nil {
		return nil, fmt.Errorf("xz: %w", err)
	}
	total := int64(0)
	for _, b := range blocks {
		if total += b.size; total < 0 {
			return nil, errors.New("xz: the index is damaged: sizes overflow")
		}
	}
	return &Reader{ReadCloser: newXZReader(ctx, r, blocks), Format: XZ, Size: total, Blocks: max(1, len(blocks))}, nil
}

// xzIndex returns the blocks of all streams in the order of the file.
func xzIndex(r io.ReaderAt, size int64) ([]xzBlock, error) {
	var streams [][]xzBlock
	n := 0
	for end := size; end > 0; {
		var last [4]byte
		if end%4 != 0 || end < 2*xzHeadSize {
			return nil, errCut
		}
		if _, err := r.ReadAt(last[:], end-4); err != nil {
			return nil, noEOF(err)
		}
		if last == [4]byte{} && len(streams) < 1<<16 { // padding between and behind streams
			end -= 4
			continue
		}
		s, start, err := xzStream(r, end)
		if err != nil {
			return nil, err
		}
		streams = append(streams, s)
		n += len(s)
		end = start
	}
	blocks := make([]xzBlock, 0, n)
	for i := len(streams) - 1; i >= 0; i-- {
		blocks = append(blocks, streams[i]...)
	}
	return blocks, nil
}

// xzStream returns the blocks of the stream that ends at end, and where it begins.
func xzStream(r io.ReaderAt, end int64) ([]xzBlock, int64, error) {
	var foot, head [xzHeadSize]byte
	if _, err := r.ReadAt(foot[:], end-xzHeadSize); err != nil {
		return nil, 0, noEOF(err)
	}
	if string(foot[10:]) != xzFooterMagic {
		return nil, 0, errCut
	}
	if crc32.ChecksumIEEE(foot[4:10]) != binary.LittleEndian.Uint32(foot[:4]) {
		return nil, 0, errors.New("the stream's footer is damaged")
	}
	indexSize := (int64(binary.LittleEndian.Uint32(foot[4:8])) + 1) * 4
	indexAt := end - xzHeadSize - indexSize
	if indexAt < xzHeadSize {
		return nil, 0, errors.New("the stream's footer is damaged")
	}
	index := make([]byte, indexSize) // at most the file's size
	if _, err := r.ReadAt(index, indexAt); err != nil {
		return nil, 0, noEOF(err)
	}
	blocks, err := parseXZIndex(index)
	if err != nil {
		return nil, 0, err
	}
	at := indexAt
	for i := len(blocks) - 1; i >= 0; i-- {
		if at -= blocks[i].padded(); at < xzHeadSize {
			return nil, 0, errors.New("the index is damaged: blocks are larger than the file")
		}
		blocks[i].off, blocks[i].flags = at, [2]byte(foot[8:10])
	}
	start := at - xzHeadSize
	if _, err := r.ReadAt(head[:], start); err != nil {
		return nil, 0, noEOF(err)
	}
	if string(head[:6]) != xzMagic || !bytes.Equal(head[6:8], foot[8:10]) ||
		crc32.ChecksumIEEE(head[6:8]) != binary.LittleEndian.Uint32(head[8:]) {
		return nil, 0, errors.New("the stream's header is damaged")
	}
	return blocks, start, nil
}

func parseXZIndex(index []byte) ([]xzBlock, error) {
	damaged := errors.New("the index is damaged")
	body := index[:len(index)-4]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(index[len(body):]) || len(body) < 2 || body[0] != 0 {
		return nil, damaged
	}
	body = body[1:]
	number := func() int64 {
		n, k := binary.Uvarint(body)
		if k <= 0 || n > 1<<62 {
			body = nil
			return -1
		}
		body = body[k:]
		return int64(n)
	}
	n := number()
	if n < 0 || n > int64(len(body)/2) {
		return nil, damaged
	}
	blocks := make([]xzBlock, n)
	for i := range blocks {
		blocks[i].unpadded, blocks[i].size = number(), number()
		if blocks[i].unpadded < 5 || blocks[i].size < 0 {
			return nil, damaged
		}
	}
	return blocks, nil
}

// xzReader reads blocks in their order, while workers decode those ahead.
type xzReader struct {
	ctx    context.Context //nolint:containedctx // a Reader has no other way to stop
	cancel context.CancelFunc
	queue  chan *decoding
	now    *decoding
	chunk  []byte // of now, not yet read
	err    error
}

// decoding is a block whose content comes in chunks. A worker that is ahead of
// the reader waits when the block's channel is full.
type decoding struct {
	chunks chan []byte
	err    error // valid once chunks is closed
}

const (
	chunkSize = 256 << 10
	// aheadSize is how much of a block is decoded before it is the reader's
	// turn, in bytes: more than what parallel compressors put into one.
	aheadSize = 64 << 20
)

func newXZReader(ctx context.Context, r io.ReaderAt, blocks []xzBlock) *xzReader {
	ctx, cancel := context.WithCancel(ctx)
	workers := min(runtime.GOMAXPROCS(0), max(1, len(blocks)))
	x := &xzReader{ctx: ctx, cancel: cancel, queue: make(chan *decoding, workers)}
	type job struct {
		block xzBlock
		to    *decoding
	}
	jobs := make(chan job)
	for range workers {
		go func() {
			for j := range jobs {
				j.to.err = j.block.decode(ctx, r, j.to.chunks)
				close(j.to.chunks)
			}
		}()
	}
	go func() {
		defer close(jobs)
		defer close(x.queue)
		for _, b := range blocks {
			d := &decoding{chunks: make(chan []byte, min(b.size, aheadSize)/chunkSize+1)}
			// In this order, or the reader would wait for a block that is not in the queue.
			select {
			case x.queue <- d:
			case <-ctx.Done():
				return
			}
			select {
			case jobs <- job{b, d}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return x
}

// decode decodes the block. To the decoder it is a file with one block.
func (b xzBlock) decode(ctx context.Context, r io.ReaderAt, to chan<- []byte) error {
	head, foot := b.frame()
	z, err := xz.NewReader(io.MultiReader(bytes.NewReader(head), io.NewSectionReader(r, b.off, b.padded()), bytes.NewReader(foot)), maxDict)
	if err != nil {
		return noEOF(err)
	}
	for left := b.size; ; {
		chunk := make([]byte, min(left+1, chunkSize))
		n, err := io.ReadFull(z, chunk)
		if left -= int64(n); left < 0 {
			return errors.New("a block is larger than the index says")
		}
		if n > 0 {
			select {
			case to <- chunk[:n]:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		switch {
		case err == nil:
		case left == 0 && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
			return nil
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return errors.New("a block is smaller than the index says")
		default:
			return err
		}
	}
}

// frame returns what makes a file of the block: a stream's header before it,
// index and footer behind it.
func (b xzBlock) frame() (head, foot []byte) {
	head = append([]byte(xzMagic), b.flags[:]...)
	head = binary.LittleEndian.AppendUint32(head, crc32.ChecksumIEEE(b.flags[:]))
	foot = []byte{0, 1}
	foot = binary.AppendUvarint(foot, uint64(b.unpadded))
	foot = binary.AppendUvarint(foot, uint64(b.size))
	for len(foot)%4 != 0 {
		foot = append(foot, 0)
	}
	foot = binary.LittleEndian.AppendUint32(foot, crc32.ChecksumIEEE(foot))
	tail := binary.LittleEndian.AppendUint32(nil, uint32(len(foot)/4-1))
	tail = append(tail, b.flags[:]...)
	foot = binary.LittleEndian.AppendUint32(foot, crc32.ChecksumIEEE(tail))
	return head, append(append(foot, tail...), xzFooterMagic...)
}

func (x *xzReader) Read(p []byte) (int, error) {
	for len(x.chunk) == 0 {
		if x.err != nil {
			return 0, x.err
		}
		x.next()
	}
	n := copy(p, x.chunk)
	x.chunk = x.chunk[n:]
	return n, nil
}

// next gets the next chunk, or sets err.
func (x *xzReader) next() {
	if x.now == nil {
		select {
		case d, ok := <-x.queue:
			if x.now = d; !ok {
				x.err = io.EOF
			}
		case <-x.ctx.Done():
		}
	}
	if x.now != nil {
		select {
		case c, ok := <-x.now.chunks:
			if x.chunk = c; ok {
				return
			}
			if x.now.err != nil {
				x.err = fmt.Errorf("xz: %w", x.now.err)
			}
			x.now = nil
		case <-x.ctx.Done():
		}
	}
	if err := x.ctx.Err(); err != nil {
		x.err = err
	}
}

// Close ends the workers. It does not close what the file is read from, which
// they may read for a moment longer.
func (x *xzReader) Close() error {
	x.cancel()
	x.err = errors.New("xz: read after Close")
	x.chunk = nil
	return nil
}
