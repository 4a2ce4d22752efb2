package die

import (
	"bytes"
	"debug/dwarf"
	"encoding/binary"
)

// form says how the value of an attribute is written (DWARF 5, section 7.5.6).
type form uint16

const (
	formAddr          form = 0x01
	formBlock2        form = 0x03
	formBlock4        form = 0x04
	formData2         form = 0x05
	formData4         form = 0x06
	formData8         form = 0x07
	formString        form = 0x08
	formBlock         form = 0x09
	formBlock1        form = 0x0a
	formData1         form = 0x0b
	formFlag          form = 0x0c
	formSdata         form = 0x0d
	formStrp          form = 0x0e
	formUdata         form = 0x0f
	formRefAddr       form = 0x10
	formRef1          form = 0x11
	formRef2          form = 0x12
	formRef4          form = 0x13
	formRef8          form = 0x14
	formRefUdata      form = 0x15
	formIndirect      form = 0x16
	formSecOffset     form = 0x17
	formExprloc       form = 0x18
	formFlagPresent   form = 0x19
	formStrx          form = 0x1a
	formAddrx         form = 0x1b
	formRefSup4       form = 0x1c
	formStrpSup       form = 0x1d
	formData16        form = 0x1e
	formLineStrp      form = 0x1f
	formRefSig8       form = 0x20
	formImplicitConst form = 0x21
	formLoclistx      form = 0x22
	formRnglistx      form = 0x23
	formRefSup8       form = 0x24
	formStrx1         form = 0x25
	formStrx2         form = 0x26
	formStrx3         form = 0x27
	formStrx4         form = 0x28
	formAddrx1        form = 0x29
	formAddrx2        form = 0x2a
	formAddrx3        form = 0x2b
	formAddrx4        form = 0x2c
	formGNURefAlt     form = 0x1f20
	formGNUStrpAlt    form = 0x1f21
)

// Class is what a Value means.
type Class uint8

// The classes of values.
const (
	None     Class = iota // a form that cannot be followed, such as into another file
	Address               // U
	Constant              // U, sign-extended if the form is signed; Signed tells
	Block                 // B: bytes, or an expression if Expr
	Flag                  // U is 0 or 1
	Ref                   // U: an offset in .debug_info
	Offset                // U: an offset in another section
	Loclist               // U: an index in the unit's part of .debug_loclists
	String                // see Entry.Str
)

// Value is an attribute of an entry.
type Value struct {
	Attr   dwarf.Attr
	Class  Class
	Signed bool // a Constant of a form with a sign
	Expr   bool // a Block that can only be an expression
	form   form
	U      uint64
	B      []byte
}

// cursor reads b. Past the end it reads zeroes and is bad.
type cursor struct {
	b   []byte
	at  int
	bad bool
}

func (c *cursor) take(n uint64) []byte {
	if n > uint64(len(c.b)-c.at) {
		c.bad, c.at = true, len(c.b)
		return nil
	}
	b := c.b[c.at : c.at+int(n)]
	c.at += int(n)
	return b
}

func (c *cursor) u8() uint8 {
	if c.at < len(c.b) {
		c.at++
		return c.b[c.at-1]
	}
	c.bad = true
	return 0
}

func (c *cursor) u16() uint64 {
	if b := c.take(2); b != nil {
		return uint64(binary.LittleEndian.Uint16(b))
	}
	return 0
}

func (c *cursor) u24() uint64 { return c.u16() | uint64(c.u8())<<16 }

func (c *cursor) u32() uint64 {
	if b := c.take(4); b != nil {
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if b := c.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (c *cursor) offset(wide bool) uint64 {
	if wide {
		return c.u64()
	}
	return c.u32()
}

// uleb reads an unsigned LEB128; bits above 64 are lost.
func (c *cursor) uleb() uint64 {
	var v uint64
	for shift := uint(0); ; shift += 7 {
		b := c.u8()
		if shift < 64 {
			v |= uint64(b&0x7f) << shift
		}
		if b < 0x80 {
			return v
		}
	}
}

// sleb reads a signed LEB128.
func (c *cursor) sleb() int64 {
	var v int64
	for shift := uint(0); ; {
		b := c.u8()
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

// value reads a value of unit u.
func (c *cursor) value(u *Unit, s *spec) Value {
	v := Value{Attr: s.attr, form: s.form}
	if v.form == formIndirect {
		v.form = form(min(c.uleb(), uint64(^form(0))))
	}
	switch v.form {
	case formData1:
		v.Class, v.U = Constant, uint64(c.u8())
	case formData2:
		v.Class, v.U = Constant, c.u16()
	case formData4:
		v.Class, v.U = Constant, c.u32()
	case formData8:
		v.Class, v.U = Constant, c.u64()
	case formData16:
		v.Class, v.B = Block, c.take(16)
	case formUdata:
		v.Class, v.U = Constant, c.uleb()
	case formSdata:
		v.Class, v.Signed, v.U = Constant, true, uint64(c.sleb())
	case formImplicitConst:
		v.Class, v.Signed, v.U = Constant, true, uint64(s.implicit)
	case formStrp, formLineStrp:
		v.Class, v.U = String, c.offset(u.wide)
	case formString:
		v.Class = String
		n := bytes.IndexByte(c.b[c.at:], 0)
		if n < 0 {
			c.bad, c.at = true, len(c.b)
			break
		}
		v.B = c.take(uint64(n))
		c.at++
	case formStrx:
		v.Class, v.U = String, c.uleb()
	case formStrx1:
		v.Class, v.U = String, uint64(c.u8())
	case formStrx2:
		v.Class, v.U = String, c.u16()
	case formStrx3:
		v.Class, v.U = String, c.u24()
	case formStrx4:
		v.Class, v.U = String, c.u32()
	case formRef1:
		v.Class, v.U = Ref, u.Off+uint64(c.u8())
	case formRef2:
		v.Class, v.U = Ref, u.Off+c.u16()
	case formRef4:
		v.Class, v.U = Ref, u.Off+c.u32()
	case formRef8:
		v.Class, v.U = Ref, u.Off+c.u64()
	case formRefUdata:
		v.Class, v.U = Ref, u.Off+c.uleb()
	case formRefAddr:
		v.Class = Ref
		if u.version == 2 && u.addrSize == 8 {
			v.U = c.u64()
		} else {
			v.U = c.offset(u.wide)
		}
	case formFlag:
		v.Class, v.U = Flag, uint64(c.u8())
	case formFlagPresent:
		v.Class, v.U = Flag, 1
	case formSecOffset:
		v.Class, v.U = Offset, c.offset(u.wide)
	case formAddr:
		v.Class = Address
		switch u.addrSize {
		case 8:
			v.U = c.u64()
		case 4:
			v.U = c.u32()
		default:
			c.bad = true
		}
	case formAddrx:
		v.Class, v.U = Address, c.uleb()
	case formAddrx1:
		v.Class, v.U = Address, uint64(c.u8())
	case formAddrx2:
		v.Class, v.U = Address, c.u16()
	case formAddrx3:
		v.Class, v.U = Address, c.u24()
	case formAddrx4:
		v.Class, v.U = Address, c.u32()
	case formExprloc:
		v.Class, v.Expr, v.B = Block, true, c.take(c.uleb())
	case formBlock:
		v.Class, v.B = Block, c.take(c.uleb())
	case formBlock1:
		v.Class, v.B = Block, c.take(uint64(c.u8()))
	case formBlock2:
		v.Class, v.B = Block, c.take(c.u16())
	case formBlock4:
		v.Class, v.B = Block, c.take(c.u32())
	case formLoclistx:
		v.Class, v.U = Loclist, c.uleb()
	case formRnglistx:
		v.U = c.uleb()
	case formRefSig8, formRefSup8:
		v.U = c.u64()
	case formRefSup4:
		v.U = c.u32()
	case formStrpSup, formGNURefAlt, formGNUStrpAlt:
		v.U = c.offset(u.wide)
	default:
		c.bad = true // what follows cannot be found
	}
	return v
}

// Uleb decodes the unsigned LEB128 that b begins with, 0 if it is cut off.
func Uleb(b []byte) uint64 {
	c := cursor{b: b}
	v := c.uleb()
	if c.bad {
		return 0
	}
	return v
}
