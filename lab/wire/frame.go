package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A frame is, little-endian:
//
//	offset 0   4  magic
//	       4   2  n, the length of the payload
//	       6   2  the complement of n, so that a damaged length is not waited for
//	       8   4  CRC-32 (IEEE) of the payload
//	      12   n  payload: an Event as JSON
const (
	frameMagic  = "\xc1\xabW\x1e"
	frameHeader = 12
	maxPayload  = 1<<16 - 1
)

func appendFrame(dst, payload []byte) ([]byte, error) {
	if len(payload) > maxPayload {
		return dst, fmt.Errorf("frame of %d bytes: the limit is %d", len(payload), maxPayload)
	}
	n := uint16(len(payload))
	dst = append(dst, frameMagic...)
	dst = binary.LittleEndian.AppendUint16(dst, n)
	dst = binary.LittleEndian.AppendUint16(dst, ^n)
	dst = binary.LittleEndian.AppendUint32(dst, crc32.ChecksumIEEE(payload))
	return append(dst, payload...), nil
}

// Decoder reads events from a line that may lose, damage and invent bytes. It
// is not safe for concurrent use.
type Decoder struct {
	r       *bufio.Reader
	skipped int64
}

// NewDecoder returns a Decoder that reads from r.
func NewDecoder(r io.Reader) *Decoder {
	return &Decoder{r: bufio.NewReaderSize(r, frameHeader+maxPayload)}
}

// Skipped returns how many bytes so far belonged to no good frame.
func (d *Decoder) Skipped() int64 { return d.skipped }

// Next returns the next event. Bytes that are not part of a good frame are
// skipped. The error is the reader's, io.EOF at its end.
func (d *Decoder) Next() (Event, error) {
	for {
		head, err := d.r.Peek(frameHeader)
		if err != nil {
			return Event{}, d.drain(err)
		}
		if string(head[:4]) != frameMagic {
			d.skip(1 + max(0, bytes.IndexByte(head[1:], frameMagic[0])))
			continue
		}
		n := binary.LittleEndian.Uint16(head[4:])
		sum := binary.LittleEndian.Uint32(head[8:])
		if binary.LittleEndian.Uint16(head[6:]) != ^n {
			d.skip(1)
			continue
		}
		frame, err := d.r.Peek(frameHeader + int(n))
		if err != nil && !errors.Is(err, io.EOF) {
			return Event{}, err
		}
		var e Event
		if err != nil || crc32.ChecksumIEEE(frame[frameHeader:]) != sum || json.Unmarshal(frame[frameHeader:], &e) != nil {
			d.skip(1) // a later frame may begin inside the damaged one
			continue
		}
		if _, err := d.r.Discard(len(frame)); err != nil {
			return Event{}, err
		}
		return e, nil
	}
}

func (d *Decoder) skip(n int) {
	n, _ = d.r.Discard(n) // n bytes were peeked
	d.skipped += int64(n)
}

// drain accounts for the rest of a reader that ended and returns err.
func (d *Decoder) drain(err error) error {
	if errors.Is(err, io.EOF) {
		d.skip(d.r.Buffered())
	}
	return err
}
