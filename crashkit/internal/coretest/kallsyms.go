package coretest

import (
	"encoding/binary"
	"fmt"
	"slices"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/sym"
)

// An Encoding is a way in which kallsyms_offsets holds addresses.
type Encoding int

// The encodings, see package sym.
const (
	AbsolutePerCPU Encoding = iota // per-cpu symbols are below 1<<31
	BaseRelative
	PlaceRelative
	Absolute // whole addresses instead of offsets
)

// Kallsyms are the tables of scripts/kallsyms.c.
type Kallsyms struct {
	Names, Markers, TokenTable, TokenIndex []byte
	Offsets                                []byte // of Absolute: kallsyms_addresses
	NumSyms                                uint32
}

// EncodeKallsyms makes the tables for symbols, which it sorts by address. Base
// is what kallsyms_relative_base will hold, table is where Offsets will stand.
// Of the compression it uses one token, "sys_", the rest are single letters.
func EncodeKallsyms(syms []sym.Symbol, e Encoding, base, table addr.Virt) Kallsyms {
	slices.SortStableFunc(syms, func(a, b sym.Symbol) int {
		switch {
		case a.Addr < b.Addr:
			return -1
		case a.Addr > b.Addr:
			return 1
		}
		return 0
	})
	le := binary.LittleEndian
	k := Kallsyms{NumSyms: uint32(len(syms))}
	const sys = 1 // the byte that stands for sys_
	for c := range 256 {
		k.TokenIndex = le.AppendUint16(k.TokenIndex, uint16(len(k.TokenTable)))
		switch {
		case c == sys:
			k.TokenTable = append(k.TokenTable, "sys_"...)
		case c >= ' ' && c < 127:
			k.TokenTable = append(k.TokenTable, byte(c))
		}
		k.TokenTable = append(k.TokenTable, 0)
	}
	for i, s := range syms {
		if i%256 == 0 {
			k.Markers = le.AppendUint32(k.Markers, uint32(len(k.Names)))
		}
		var name []byte
		for text := string(s.Type) + s.Name; text != ""; {
			if len(text) >= 4 && text[:4] == "sys_" {
				name, text = append(name, sys), text[4:]
				continue
			}
			name, text = append(name, text[0]), text[1:]
		}
		if n := len(name); n < 128 {
			k.Names = append(k.Names, byte(n))
		} else {
			k.Names = append(k.Names, byte(n)|0x80, byte(n>>7))
		}
		k.Names = append(k.Names, name...)
		var off int64
		ok := true
		switch e {
		case AbsolutePerCPU:
			if off = int64(s.Addr); off < 0 {
				off = int64(base - 1 - s.Addr)
			}
		case BaseRelative:
			off = int64(s.Addr - base)
			ok = off >= 0 && off < 1<<32
			off = int64(int32(off))
		case Absolute:
			k.Offsets = le.AppendUint64(k.Offsets, uint64(s.Addr))
			continue
		case PlaceRelative:
			off = int64(s.Addr - table - addr.Virt(4*i))
		}
		if !ok || off != int64(int32(off)) {
			panic(fmt.Sprintf("coretest: %s at %v is too far away for kallsyms", s.Name, s.Addr))
		}
		k.Offsets = le.AppendUint32(k.Offsets, uint32(off))
	}
	return k
}
