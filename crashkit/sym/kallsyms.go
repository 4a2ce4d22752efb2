package sym

import (
	"encoding/binary"
	"fmt"
	"slices"

	"crashlab/crashkit/addr"
)

// Memory reads the crashed kernel's virtual memory: all of b or an error.
type Memory interface {
	Read(v addr.Virt, b []byte) error
}

// KallsymsTables are the addresses of the tables that scripts/kallsyms.c makes
// at build time. Since Linux commit 5fd8fea935a1 ("vmcoreinfo: include kallsyms
// symbols") (in v6.0), VMCOREINFO has them.
type KallsymsTables struct {
	Names        addr.Virt // kallsyms_names: length-prefixed token strings
	NumSyms      addr.Virt // kallsyms_num_syms: u32
	TokenTable   addr.Virt // kallsyms_token_table: NUL-terminated strings
	TokenIndex   addr.Virt // kallsyms_token_index: u16[256] into the former
	Offsets      addr.Virt // kallsyms_offsets: s32[num_syms]
	RelativeBase addr.Virt // kallsyms_relative_base: unsigned long; 0 where the kernel has none
	// Addresses is kallsyms_addresses: unsigned long[num_syms], of kernels built
	// without CONFIG_KALLSYMS_BASE_RELATIVE (gone in v6.11), which have no
	// offsets and no base. 0 for all others.
	Addresses addr.Virt
	// Anchor is a symbol with a known address. The kernel does not say how its
	// offsets are encoded; the encoding that reproduces the anchor is the one.
	AnchorName string
	AnchorAddr addr.Virt
}

// maxSyms bounds what a damaged kallsyms_num_syms can make us allocate. A
// kernel with everything built in has some 500,000.
const maxSyms = 4 << 20

// offsetEncodings are the ways in which kallsyms_offsets has held addresses,
// most recent last.
var offsetEncodings = []struct {
	name string
	addr func(table, base addr.Virt, i int, off int32) addr.Virt
}{
	// CONFIG_KALLSYMS_ABSOLUTE_PERCPU: per-cpu symbols stand as they are, others
	// are negative and count from the base. Removed in v6.15.
	{"absolute per-cpu", func(_, base addr.Virt, _ int, off int32) addr.Virt {
		if off >= 0 {
			return addr.Virt(off)
		}
		return base - 1 + addr.Virt(-int64(off))
	}},
	{"base relative", func(_, base addr.Virt, _ int, off int32) addr.Virt {
		return base + addr.Virt(uint32(off))
	}},
	// Since v7.0: relative to the entry's own place.
	{"place relative", func(table, _ addr.Virt, i int, off int32) addr.Virt {
		return table + addr.Virt(4*i) + addr.Virt(int64(off))
	}},
}

// Kallsyms decodes the kernel's own symbol table from its memory.
func Kallsyms(m Memory, t KallsymsTables) ([]Symbol, error) {
	syms, err := readSymbols(m, t)
	if err != nil {
		return nil, err
	}
	if err := readAddresses(m, t, syms); err != nil {
		return nil, err
	}
	return syms, nil
}

// readSymbols returns the symbols without their addresses.
func readSymbols(m Memory, t KallsymsTables) ([]Symbol, error) {
	var b [4]byte
	if err := m.Read(t.NumSyms, b[:]); err != nil {
		return nil, fmt.Errorf("kallsyms_num_syms: %w", err)
	}
	n := int(binary.LittleEndian.Uint32(b[:]))
	if n == 0 || n > maxSyms {
		return nil, fmt.Errorf("kallsyms_num_syms is %d: not a kernel's", n)
	}
	tokens, err := readTokens(m, t)
	if err != nil {
		return nil, err
	}
	return readNames(m, t.Names, n, tokens)
}

// readAddresses sets the addresses of syms, in the way that puts the anchor
// where it is known to be.
func readAddresses(m Memory, t KallsymsTables, syms []Symbol) error {
	anchor := slices.IndexFunc(syms, func(s Symbol) bool { return s.Name == t.AnchorName })
	if anchor < 0 {
		return fmt.Errorf("kallsyms has no %s", t.AnchorName)
	}
	if t.Addresses != 0 {
		table := make([]byte, 8*len(syms))
		if err := m.Read(t.Addresses, table); err != nil {
			return fmt.Errorf("kallsyms_addresses: %w", err)
		}
		at := func(i int) addr.Virt { return addr.Virt(binary.LittleEndian.Uint64(table[8*i:])) }
		if at(anchor) != t.AnchorAddr {
			return fmt.Errorf("kallsyms_addresses puts %s at %v, but it is at %v", t.AnchorName, at(anchor), t.AnchorAddr)
		}
		for i := range syms {
			syms[i].Addr = at(i)
		}
		return nil
	}
	var base addr.Virt
	if t.RelativeBase != 0 {
		var b [8]byte
		if err := m.Read(t.RelativeBase, b[:]); err != nil {
			return fmt.Errorf("kallsyms_relative_base: %w", err)
		}
		base = addr.Virt(binary.LittleEndian.Uint64(b[:]))
	}
	offsets := make([]byte, 4*len(syms))
	if err := m.Read(t.Offsets, offsets); err != nil {
		return fmt.Errorf("kallsyms_offsets: %w", err)
	}
	at := func(i int) int32 { return int32(binary.LittleEndian.Uint32(offsets[4*i:])) }
	for _, e := range offsetEncodings {
		if e.addr(t.Offsets, base, anchor, at(anchor)) != t.AnchorAddr {
			continue
		}
		for i := range syms {
			syms[i].Addr = e.addr(t.Offsets, base, i, at(i))
		}
		return nil
	}
	return fmt.Errorf("kallsyms_offsets: no known encoding puts %s at %v", t.AnchorName, t.AnchorAddr)
}

// readTokens returns the 256 strings that the bytes of a compressed name stand for.
func readTokens(m Memory, t KallsymsTables) (tokens [256]string, err error) {
	var index [512]byte
	if err := m.Read(t.TokenIndex, index[:]); err != nil {
		return tokens, fmt.Errorf("kallsyms_token_index: %w", err)
	}
	// The index's last entry says where the last string begins; a token is
	// shorter than a symbol (KSYM_NAME_LEN, 512).
	last := int(binary.LittleEndian.Uint16(index[510:]))
	table := make([]byte, last+512)
	if err := m.Read(t.TokenTable, table); err != nil {
		return tokens, fmt.Errorf("kallsyms_token_table: %w", err)
	}
	for i := range tokens {
		o := int(binary.LittleEndian.Uint16(index[2*i:]))
		if o > last {
			return tokens, fmt.Errorf("kallsyms_token_index: token %d at %d is past the last at %d", i, o, last)
		}
		end := o
		for end < len(table) && table[end] != 0 {
			end++
		}
		tokens[i] = string(table[o:end])
	}
	return tokens, nil
}

// readNames expands n names. The tables do not say where the names end, so they
// are read in pieces, as far as needed.
func readNames(m Memory, at addr.Virt, n int, tokens [256]string) ([]Symbol, error) {
	const piece = 4 << 10
	var buf []byte // read but not yet decoded
	fill := func(need int) error {
		for len(buf) < need {
			// Never past the piece's boundary (a page), so that a table that ends just
			// before a hole in memory can be read to its end.
			next := make([]byte, piece-at%piece)
			if err := m.Read(at, next); err != nil {
				return err
			}
			buf = append(buf, next...)
			at += addr.Virt(len(next))
		}
		return nil
	}
	type span struct{ start, end int }
	spans := make([]span, n)
	arena := make([]byte, 0, n*24)
	for i := range spans {
		if err := fill(2); err != nil {
			return nil, fmt.Errorf("kallsyms_names, symbol %d of %d: %w", i, n, err)
		}
		// Since Linux commit 73bbb94466fd ("kallsyms: support "big" kernel
		// symbols") (in v6.1), a length may take two bytes. Before, none had
		// its top bit set, so there is nothing to tell apart.
		size, skip := int(buf[0]), 1
		if size&0x80 != 0 {
			size, skip = size&0x7f|int(buf[1])<<7, 2
		}
		if err := fill(skip + size); err != nil {
			return nil, fmt.Errorf("kallsyms_names, symbol %d of %d: %w", i, n, err)
		}
		start := len(arena)
		for _, c := range buf[skip : skip+size] {
			arena = append(arena, tokens[c]...)
		}
		buf = buf[skip+size:]
		if len(arena)-start < 2 {
			return nil, fmt.Errorf("kallsyms_names, symbol %d of %d: no name", i, n)
		}
		if len(arena) > n*512 {
			return nil, fmt.Errorf("kallsyms_names: longer than %d names can be", n)
		}
		spans[i] = span{start, len(arena)}
	}
	text := string(arena)
	syms := make([]Symbol, n)
	for i, s := range spans {
		syms[i] = Symbol{Type: text[s.start], Name: text[s.start+1 : s.end]}
	}
	return syms, nil
}
