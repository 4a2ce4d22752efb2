package die

import (
	"bytes"
	"debug/dwarf"
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

// value reads a value of unit u.
func (c *Cursor) value(u *Unit, s *spec) Value {
	v := Value{Attr: s.attr, form: s.form}
	if v.form == formIndirect {
		v.form = form(min(c.Uleb(), uint64(^form(0))))
	}
	switch v.form {
	case formData1:
		v.Class, v.U = Constant, uint64(c.U8())
	case formData2:
		v.Class, v.U = Constant, c.U16()
	case formData4:
		v.Class, v.U = Constant, c.U32()
	case formData8:
		v.Class, v.U = Constant, c.U64()
	case formData16:
		v.Class, v.B = Block, c.Take(16)
	case formUdata:
		v.Class, v.U = Constant, c.Uleb()
	case formSdata:
		v.Class, v.Signed, v.U = Constant, true, uint64(c.Sleb())
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
		v.B = c.Take(uint64(n))
		c.at++
	case formStrx:
		v.Class, v.U = String, c.Uleb()
	case formStrx1:
		v.Class, v.U = String, uint64(c.U8())
	case formStrx2:
		v.Class, v.U = String, c.U16()
	case formStrx3:
		v.Class, v.U = String, c.u24()
	case formStrx4:
		v.Class, v.U = String, c.U32()
	case formRef1:
		v.Class, v.U = Ref, u.Off+uint64(c.U8())
	case formRef2:
		v.Class, v.U = Ref, u.Off+c.U16()
	case formRef4:
		v.Class, v.U = Ref, u.Off+c.U32()
	case formRef8:
		v.Class, v.U = Ref, u.Off+c.U64()
	case formRefUdata:
		v.Class, v.U = Ref, u.Off+c.Uleb()
	case formRefAddr:
		v.Class = Ref
		if u.version == 2 && u.addrSize == 8 {
			v.U = c.U64()
		} else {
			v.U = c.offset(u.wide)
		}
	case formFlag:
		v.Class, v.U = Flag, uint64(c.U8())
	case formFlagPresent:
		v.Class, v.U = Flag, 1
	case formSecOffset:
		v.Class, v.U = Offset, c.offset(u.wide)
	case formAddr:
		v.Class = Address
		switch u.addrSize {
		case 8:
			v.U = c.U64()
		case 4:
			v.U = c.U32()
		default:
			c.bad = true
		}
	case formAddrx:
		v.Class, v.U = Address, c.Uleb()
	case formAddrx1:
		v.Class, v.U = Address, uint64(c.U8())
	case formAddrx2:
		v.Class, v.U = Address, c.U16()
	case formAddrx3:
		v.Class, v.U = Address, c.u24()
	case formAddrx4:
		v.Class, v.U = Address, c.U32()
	case formExprloc:
		v.Class, v.Expr, v.B = Block, true, c.Take(c.Uleb())
	case formBlock:
		v.Class, v.B = Block, c.Take(c.Uleb())
	case formBlock1:
		v.Class, v.B = Block, c.Take(uint64(c.U8()))
	case formBlock2:
		v.Class, v.B = Block, c.Take(c.U16())
	case formBlock4:
		v.Class, v.B = Block, c.Take(c.U32())
	case formLoclistx:
		v.Class, v.U = Loclist, c.Uleb()
	case formRnglistx:
		v.U = c.Uleb()
	case formRefSig8, formRefSup8:
		v.U = c.U64()
	case formRefSup4:
		v.U = c.U32()
	case formStrpSup, formGNURefAlt, formGNUStrpAlt:
		v.U = c.offset(u.wide)
	default:
		c.bad = true // what follows cannot be found
	}
	return v
}
