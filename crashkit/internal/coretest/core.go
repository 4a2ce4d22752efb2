// Package coretest makes crash dumps of kernels that never ran: an ELF core
// with page tables, VMCOREINFO, kallsyms and BTF, and whatever a test writes
// into memory. It is for tests only.
package coretest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/sym"
)

const (
	page = 4096

	// Text is where the made-up kernel's _stext is.
	Text addr.Virt = 0xffffffff81000000

	// BTFAt is where the types are.
	BTFAt addr.Virt = 0xffffffff90000000

	// heap is where Alloc takes memory from, data where Data does.
	heap addr.Virt = 0xff11000001000000
	data addr.Virt = 0xffffffff84000000

	rootPhys  = 0x1000
	kallsyms  = 0xffffffff98000000
	noteAlign = 4
)

// Core is a crash dump in the making.
type Core struct {
	// Info are lines of VMCOREINFO beyond those that the core needs to be opened.
	Info []string
	// Machine is e_machine of the ELF header; 0 means x86-64.
	Machine uint16
	// Notes are added to that of VMCOREINFO, encoded.
	Notes []byte
	// Encoding is that of kallsyms.
	Encoding Encoding

	types *ctype.Set
	btf   []byte
	syms  []sym.Symbol
	pages map[addr.Virt][]byte
	drop  map[addr.Virt]bool // pages by address
	heap  addr.Virt          // next free address
	data  addr.Virt
}

// New returns a core of a kernel with those types; btf may be nil.
func New(t testing.TB, btf []byte) *Core {
	t.Helper()
	c := &Core{btf: btf, pages: map[addr.Virt][]byte{}, drop: map[addr.Virt]bool{}, heap: heap, data: data, types: ctype.Empty()}
	c.Symbol("_stext", 'T', Text)
	if btf != nil {
		var err error
		if c.types, err = ctype.ParseBTF(btf, nil); err != nil {
			t.Fatalf("types of the core: %v", err)
		}
	}
	return c
}

// Symbol adds a symbol to kallsyms.
func (c *Core) Symbol(name string, kind byte, v addr.Virt) {
	c.syms = append(c.syms, sym.Symbol{Name: name, Type: kind, Addr: v})
}

// Alloc returns the address of n bytes of zeroed memory, aligned to 64.
func (c *Core) Alloc(n uint64) addr.Virt { return c.take(&c.heap, n) }

// Data is Alloc in the kernel's own data, where symbols can be.
func (c *Core) Data(n uint64) addr.Virt { return c.take(&c.data, n) }

func (c *Core) take(next *addr.Virt, n uint64) addr.Virt {
	v := *next
	*next += addr.Virt(n+63) &^ 63
	c.Write(v, make([]byte, n))
	return v
}

// Global allocates a variable of the named type and gives it a symbol.
func (c *Core) Global(t testing.TB, name, typ string) addr.Virt {
	t.Helper()
	v := c.Data(c.typ(t, typ).Size())
	c.Symbol(name, 'D', v)
	return v
}

// New allocates an object of the named type.
func (c *Core) New(t testing.TB, typ string) addr.Virt {
	t.Helper()
	return c.Alloc(c.typ(t, typ).Size())
}

func (c *Core) typ(t testing.TB, name string) ctype.Type {
	t.Helper()
	typ, err := c.types.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return typ
}

// Offset returns the offset in bytes of a member.
func (c *Core) Offset(t testing.TB, typ, path string) addr.Virt {
	t.Helper()
	off, err := ctype.OffsetOf(c.typ(t, typ), path)
	if err != nil {
		t.Fatal(err)
	}
	return addr.Virt(off)
}

// Size returns the size of a type in bytes.
func (c *Core) Size(t testing.TB, typ string) uint64 {
	t.Helper()
	return c.typ(t, typ).Size()
}

// Has reports whether the kernel has a type with that member.
func (c *Core) Has(typ, path string) bool {
	t, err := c.types.Lookup(typ)
	if err == nil {
		_, err = ctype.OffsetOf(t, path)
	}
	return err == nil
}

// Set writes a member of the object of the named type at v: a number of the
// member's width, or text.
func (c *Core) Set(t testing.TB, v addr.Virt, typ, path string, value any) {
	t.Helper()
	o := ctype.NewObject(nil, c.typ(t, typ), v, typ).Member(path)
	if err := o.Err(); err != nil {
		t.Fatal(err)
	}
	var b [8]byte
	switch x := value.(type) {
	case string:
		c.Write(o.Addr(), append([]byte(x), 0))
		return
	case int:
		binary.LittleEndian.PutUint64(b[:], uint64(x))
	case uint64:
		binary.LittleEndian.PutUint64(b[:], x)
	case addr.Virt:
		binary.LittleEndian.PutUint64(b[:], uint64(x))
	default:
		t.Fatalf("set %s.%s: a %T", typ, path, value)
	}
	c.Write(o.Addr(), b[:o.Type().Size()])
}

// Uint64 writes a 64-bit number.
func (c *Core) Uint64(v addr.Virt, x uint64) {
	c.Write(v, binary.LittleEndian.AppendUint64(nil, x))
}

// String allocates a NUL-terminated string.
func (c *Core) String(s string) addr.Virt {
	v := c.Alloc(uint64(len(s) + 1))
	c.Write(v, []byte(s))
	return v
}

// List links the struct list_heads at links into a ring that starts at head.
func (c *Core) List(head addr.Virt, links ...addr.Virt) {
	prev := head
	for _, l := range append(links, head) {
		c.Uint64(prev, uint64(l))
		c.Uint64(l+8, uint64(prev))
		prev = l
	}
}

// Write writes into virtual memory, mapping what was not.
func (c *Core) Write(v addr.Virt, b []byte) {
	for len(b) > 0 {
		base, off := v&^(page-1), v&(page-1)
		if c.pages[base] == nil {
			c.pages[base] = make([]byte, page)
		}
		n := copy(c.pages[base][off:], b)
		b, v = b[n:], v+addr.Virt(n)
	}
}

// Drop takes a page of virtual memory out of the dump; the page tables keep it.
func (c *Core) Drop(v addr.Virt) { c.drop[v&^(page-1)] = true }

// ELF returns the dump.
func (c *Core) ELF() []byte {
	info := c.finish()
	phys := map[addr.Phys][]byte{}
	next := addr.Phys(rootPhys + page)
	alloc := func(b []byte) addr.Phys {
		at := next
		next += page
		phys[at] = b
		return at
	}
	phys[rootPhys] = make([]byte, page)
	le := binary.LittleEndian
	for _, v := range slices.Sorted(maps.Keys(c.pages)) {
		table := addr.Phys(rootPhys)
		for level := 5; level > 1; level-- {
			entry := phys[table][v>>(12+9*(level-1))&0x1ff*8:]
			if le.Uint64(entry) == 0 {
				le.PutUint64(entry, uint64(alloc(make([]byte, page)))|3)
			}
			table = addr.Phys(le.Uint64(entry) &^ 0xfff)
		}
		content := c.pages[v]
		if c.drop[v] {
			content = nil
		}
		le.PutUint64(phys[table][v>>12&0x1ff*8:], uint64(alloc(content))|3)
	}
	return c.encode(phys, info)
}

// finish writes the tables that the kernel describes itself with, and returns
// the lines of VMCOREINFO.
func (c *Core) finish() []string {
	syms := slices.Clone(c.syms)
	if c.btf != nil {
		c.Write(BTFAt, c.btf)
		syms = append(syms, sym.Symbol{Name: "__start_BTF", Type: 'r', Addr: BTFAt},
			sym.Symbol{Name: "__stop_BTF", Type: 'r', Addr: BTFAt + addr.Virt(len(c.btf))})
	}
	const names, tokens, index, offsets, number, base = kallsyms, kallsyms + 1<<24, kallsyms + 1<<24 + 1<<16,
		kallsyms + 1<<25, kallsyms + 1<<26, kallsyms + 1<<26 + 8
	k := EncodeKallsyms(syms, c.Encoding, Text-page, offsets)
	c.Write(names, append(k.Names, 0, 0))
	c.Write(tokens, append(k.TokenTable, make([]byte, page)...))
	c.Write(index, k.TokenIndex)
	c.Write(offsets, k.Offsets)
	c.Uint64(number, uint64(k.NumSyms))
	c.Uint64(base, uint64(Text-page))
	info := slices.Clone(c.Info)
	for _, s := range []struct {
		name string
		at   addr.Virt
	}{
		{"kallsyms_names", names}, {"kallsyms_token_table", tokens}, {"kallsyms_token_index", index},
		{"kallsyms_offsets", offsets}, {"kallsyms_num_syms", number}, {"kallsyms_relative_base", base},
		{"_stext", Text}, {"swapper_pg_dir", 0xffffffff80000000 + rootPhys},
	} {
		info = append(info, fmt.Sprintf("SYMBOL(%s)=%x", s.name, uint64(s.at)))
	}
	return append(info, "NUMBER(phys_base)=0", "NUMBER(pgtable_l5_enabled)=1", "PAGESIZE=4096")
}

// Note encodes an ELF note.
func Note(name string, typ uint32, desc []byte) []byte {
	pad := func(b []byte) []byte { return append(b, make([]byte, -len(b)&(noteAlign-1))...) }
	var n []byte
	for _, v := range []uint32{uint32(len(name) + 1), uint32(len(desc)), typ} {
		n = binary.LittleEndian.AppendUint32(n, v)
	}
	n = append(n, pad(append([]byte(name), 0))...)
	return append(n, pad(slices.Clone(desc))...)
}

// encode writes the pages as an ELF core, with a segment for each run of pages.
func (c *Core) encode(phys map[addr.Phys][]byte, info []string) []byte {
	type segment struct {
		at   addr.Phys
		data []byte
	}
	var segs []segment
	for _, p := range slices.Sorted(maps.Keys(phys)) {
		if len(phys[p]) == 0 {
			continue // dropped
		}
		if n := len(segs); n > 0 && segs[n-1].at+addr.Phys(len(segs[n-1].data)) == p {
			segs[n-1].data = append(segs[n-1].data, phys[p]...)
		} else {
			segs = append(segs, segment{p, slices.Clone(phys[p])})
		}
	}
	notes := append(Note("VMCOREINFO", 0, []byte(strings.Join(info, "\n")+"\n")), c.Notes...)
	le := binary.LittleEndian
	const ehdr, phdr = 64, 56
	machine := c.Machine
	if machine == 0 {
		machine = 62 // EM_X86_64
	}
	out := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	u16 := func(v int) { out = le.AppendUint16(out, uint16(v)) }
	u32 := func(v int) { out = le.AppendUint32(out, uint32(v)) }
	u64 := func(v int) { out = le.AppendUint64(out, uint64(v)) }
	u16(4) // ET_CORE
	u16(int(machine))
	u32(1)
	u64(0)
	u64(ehdr)
	u64(0)
	u32(0)
	u16(ehdr)
	u16(phdr)
	u16(len(segs) + 1)
	u16(0)
	u16(0)
	u16(0)
	off := ehdr + phdr*(len(segs)+1)
	header := func(typ int, at addr.Phys, size int) {
		u32(typ)
		u32(7)
		u64(off)
		u64(0)
		u64(int(at))
		u64(size)
		u64(size)
		u64(0)
		off += size
	}
	header(4, 0, len(notes)) // PT_NOTE
	for _, s := range segs {
		header(1, s.at, len(s.data)) // PT_LOAD
	}
	out = append(out, notes...)
	for _, s := range segs {
		out = append(out, s.data...)
	}
	return out
}

// Open opens the dump, and closes it when the test is over.
func (c *Core) Open(t testing.TB) *crashkit.Program {
	t.Helper()
	elf := c.ELF()
	img, err := dump.NewImage(bytes.NewReader(elf), int64(len(elf)))
	if err != nil {
		t.Fatal(err)
	}
	p, err := crashkit.New(img)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}
