package die

import "encoding/binary"

// Cursor reads numbers, little-endian as on the machines whose kernels we know. Past the
// end it reads zeroes and is bad.
type Cursor struct {
	b   []byte
	at  int
	bad bool
}

// NewCursor returns a cursor at the start of b.
func NewCursor(b []byte) *Cursor { return &Cursor{b: b} }

// Bad reports whether more was read than there is.
func (c *Cursor) Bad() bool { return c.bad }

// At returns how many bytes were read.
func (c *Cursor) At() int { return c.at }

// Left returns how many bytes are left.
func (c *Cursor) Left() int { return len(c.b) - c.at }

// Seek goes to byte at, if there is one or all were read before it.
func (c *Cursor) Seek(at int) {
	if at < 0 || at > len(c.b) {
		c.bad, at = true, len(c.b)
	}
	c.at = at
}

// Take returns the next n bytes.
func (c *Cursor) Take(n uint64) []byte {
	if n > uint64(len(c.b)-c.at) {
		c.bad, c.at = true, len(c.b)
		return nil
	}
	b := c.b[c.at : c.at+int(n)]
	c.at += int(n)
	return b
}

// U8 reads a byte.
func (c *Cursor) U8() uint8 {
	if c.at < len(c.b) {
		c.at++
		return c.b[c.at-1]
	}
	c.bad = true
	return 0
}

// U16 reads two bytes.
func (c *Cursor) U16() uint64 {
	if b := c.Take(2); b != nil {
		return uint64(binary.LittleEndian.Uint16(b))
	}
	return 0
}

func (c *Cursor) u24() uint64 { return c.U16() | uint64(c.U8())<<16 }

// U32 reads four bytes.
func (c *Cursor) U32() uint64 {
	if b := c.Take(4); b != nil {
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return 0
}

// U64 reads eight bytes.
func (c *Cursor) U64() uint64 {
	if b := c.Take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (c *Cursor) offset(wide bool) uint64 {
	if wide {
		return c.U64()
	}
	return c.U32()
}

// Uleb reads an unsigned LEB128; bits above 64 are lost.
func (c *Cursor) Uleb() uint64 {
	var v uint64
	for shift := uint(0); ; shift += 7 {
		b := c.U8()
		if shift < 64 {
			v |= uint64(b&0x7f) << shift
		}
		if b < 0x80 {
			return v
		}
	}
}

// Sleb reads a signed LEB128.
func (c *Cursor) Sleb() int64 {
	var v int64
	for shift := uint(0); ; {
		b := c.U8()
		if shift < 64 {
			v |= int64(b&0x7f) << shift
		}
		shift += 7
		if b < 0x80 {
			if b&0x40 != 0 && shift < 64 {
				v |= -1 << shift
			}
			return v
		}
	}
}
