package wire

import (
	"encoding/binary"
	"fmt"

	"crashlab/crashkit/addr"
)

// A capture is blocks of kind blockHead, whose bodies joined are the start of
// /proc/vmcore up to the first PT_LOAD's data, then blocks of kind blockPages,
// then the end. The meta of a blockPages block is its runs of pages, 16 bytes
// each, little-endian: 8 bytes frame number, 4 bytes number of pages, 4 bytes
// runKind. The pages of runs of kind runData are the body, in the same order.
// Runs ascend and cover every page of every PT_LOAD once.
//
// The meta of the end is Totals: three times 8 bytes.
const (
	runSize = 16
	maxRuns = maxMeta / runSize
)

type runKind uint32

const (
	runData runKind = 1 // the pages are in the body
	runZero runKind = 2 // the pages are all zero
)

type run struct {
	pfn   addr.PFN
	pages uint64
	kind  runKind
}

// Totals counts the pages of a capture.
type Totals struct {
	Data uint64 // pages that were sent
	Zero uint64 // pages that were all zero
}

// CaptureWriter writes the memory in a /proc/vmcore to a raw disk.
type CaptureWriter struct {
	s      *stream
	spans  []Span
	runs   []run // of the block being filled
	totals Totals
}

// NewCaptureWriter returns a writer for the /proc/vmcore that begins with head,
// as long as CoreHeadLen says. It fills buf, a number of pages, and then the
// buffers that put returns.
func NewCaptureWriter(head, buf []byte, put Put) (*CaptureWriter, error) {
	c, err := parseCore(head)
	if err != nil {
		return nil, err
	}
	if len(head) != c.headLen {
		return nil, fmt.Errorf("head of %d bytes, want %d", len(head), c.headLen)
	}
	s, err := newStream(buf, put)
	if err != nil {
		return nil, err
	}
	if err := s.write(blockHead, head); err != nil {
		return nil, err
	}
	if s.body > 0 {
		if err := s.flush(blockHead, nil); err != nil {
			return nil, err
		}
	}
	return &CaptureWriter{s: s, spans: c.spans()}, nil
}

// Spans returns the pages to give to Write, in that order.
func (w *CaptureWriter) Spans() []Span { return w.spans }

// Totals returns what has been written so far.
func (w *CaptureWriter) Totals() Totals { return w.totals }

// Write sends the whole pages mem, the first of which has frame number pfn.
func (w *CaptureWriter) Write(pfn addr.PFN, mem []byte) error {
	for ; len(mem) >= PageSize; mem, pfn = mem[PageSize:], pfn+1 {
		page := mem[:PageSize]
		kind := runData
		if isZero(page) {
			kind = runZero
		}
		if len(w.s.free()) == 0 && kind == runData || len(w.runs) == maxRuns {
			if err := w.flush(); err != nil {
				return err
			}
		}
		if kind == runData {
			w.s.body += copy(w.s.free(), page)
			w.totals.Data++
		} else {
			w.totals.Zero++
		}
		if n := len(w.runs); n > 0 && w.runs[n-1].kind == kind && w.runs[n-1].pfn+addr.PFN(w.runs[n-1].pages) == pfn {
			w.runs[n-1].pages++
		} else {
			w.runs = append(w.runs, run{pfn, 1, kind})
		}
	}
	return nil
}

func (w *CaptureWriter) flush() error {
	le := binary.LittleEndian
	var meta []byte
	for _, r := range w.runs {
		meta = le.AppendUint64(meta, uint64(r.pfn))
		meta = le.AppendUint32(meta, uint32(r.pages))
		meta = le.AppendUint32(meta, uint32(r.kind))
	}
	w.runs = w.runs[:0]
	return w.s.flush(blockPages, meta)
}

// Close writes the end. It does not wait for the disk.
func (w *CaptureWriter) Close() error {
	if len(w.runs) > 0 {
		if err := w.flush(); err != nil {
			return err
		}
	}
	meta := binary.LittleEndian.AppendUint64(nil, w.totals.Data)
	return w.s.flush(blockEnd, binary.LittleEndian.AppendUint64(meta, w.totals.Zero))
}
