package dump

import (
	"encoding/binary"
	"io"
	"sync"
)

// Flattener is a file for [Write] that can go through a pipe: it writes what is
// written to it as a flattened stream, which makedumpfile -R, crash and this
// package read. Close ends the stream.
type Flattener struct {
	mu  sync.Mutex
	w   io.Writer
	err error // the first error of w, after which nothing is written
}

// NewFlattener begins a flattened stream.
func NewFlattener(w io.Writer) (*Flattener, error) {
	h := make([]byte, flatHeaderLen)
	copy(h, flatMagic)
	binary.BigEndian.PutUint64(h[flatType:], 1)
	binary.BigEndian.PutUint64(h[flatVersion:], 1)
	_, err := w.Write(h)
	return &Flattener{w: w}, err
}

// WriteAt writes a record. It may be called concurrently.
func (f *Flattener) WriteAt(b []byte, off int64) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.record(off, int64(len(b)))
	f.write(b)
	if f.err != nil {
		return 0, f.err
	}
	return len(b), nil
}

// Close writes the end mark. It does not close the underlying writer.
func (f *Flattener) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.record(-1, -1)
	return f.err
}

func (f *Flattener) record(off, n int64) {
	var h [flatRecordLen]byte
	binary.BigEndian.PutUint64(h[:], uint64(off))
	binary.BigEndian.PutUint64(h[8:], uint64(n))
	f.write(h[:])
}

func (f *Flattener) write(b []byte) {
	if f.err == nil {
		_, f.err = f.w.Write(b)
	}
}
