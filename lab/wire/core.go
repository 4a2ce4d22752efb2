package wire

import (
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"crashlab/crashkit/addr"
)

// The layout of /proc/vmcore is that of fs/proc/vmcore.c (v6.1): ELF header,
// program headers and notes of all CPUs merged into one PT_NOTE, then one
// PT_LOAD after the other. A PT_LOAD is stored in whole pages even where its
// address or size is not; x86-64 lists the kernel's text a second time, in a
// PT_LOAD with its virtual address. The structures are those of
// include/uapi/linux/elf.h.
const (
	ehdrSize = 64
	phdrSize = 56
	maxHead  = 64 << 20 // notes of some 100,000 CPUs
)

// segment is a program header.
type segment struct {
	kind elf.ProgType
	off  uint64 // in /proc/vmcore
	phys addr.Phys
	size uint64
}

// first and end bound the whole pages that hold the segment.
func (s segment) first() addr.PFN { return addr.PFN(s.phys / PageSize) }
func (s segment) end() addr.PFN   { return addr.PFN((uint64(s.phys) + s.size + PageSize - 1) / PageSize) }

// start and length bound those pages in /proc/vmcore.
func (s segment) start() uint64  { return s.off &^ (PageSize - 1) }
func (s segment) length() uint64 { return uint64(s.end()-s.first()) * PageSize }

// core is the shape of a /proc/vmcore.
type core struct {
	segments []segment
	headLen  int // where the first PT_LOAD's first page begins
}

// CoreHeadLen returns how many bytes at the start of a /proc/vmcore to give to
// NewCaptureWriter. It is called with growing prefixes: while need > len(prefix),
// read need bytes and call again.
func CoreHeadLen(prefix []byte) (need int, err error) {
	if len(prefix) < ehdrSize {
		return ehdrSize, nil
	}
	phoff, phnum, err := parseEhdr(prefix)
	if err != nil {
		return 0, fmt.Errorf("parse vmcore header: %w", err)
	}
	if table := phoff + phnum*phdrSize; len(prefix) < table {
		return table, nil
	}
	c, err := parseCore(prefix)
	if err != nil {
		return 0, err
	}
	return c.headLen, nil
}

func parseEhdr(b []byte) (phoff, phnum int, err error) {
	le := binary.LittleEndian
	switch {
	case len(b) < ehdrSize:
		return 0, 0, fmt.Errorf("%d bytes, too short for an ELF header", len(b))
	case string(b[:4]) != elf.ELFMAG:
		return 0, 0, fmt.Errorf("begins with % x, not an ELF file", b[:4])
	case b[elf.EI_CLASS] != byte(elf.ELFCLASS64) || b[elf.EI_DATA] != byte(elf.ELFDATA2LSB):
		return 0, 0, errors.New("not a 64-bit little-endian ELF file")
	case le.Uint16(b[16:]) != uint16(elf.ET_CORE):
		return 0, 0, fmt.Errorf("ELF type %d, not a core file", le.Uint16(b[16:]))
	case le.Uint16(b[54:]) != phdrSize:
		return 0, 0, fmt.Errorf("program headers of %d bytes", le.Uint16(b[54:]))
	}
	off, n := le.Uint64(b[32:]), int(le.Uint16(b[56:]))
	if off > maxHead {
		return 0, 0, fmt.Errorf("program headers at offset %#x", off)
	}
	return int(off), n, nil
}

// parseCore decodes the headers in b, which holds at least those.
func parseCore(b []byte) (*core, error) {
	phoff, phnum, err := parseEhdr(b)
	if err != nil {
		return nil, fmt.Errorf("parse vmcore header: %w", err)
	}
	if len(b) < phoff+phnum*phdrSize {
		return nil, fmt.Errorf("parse vmcore header: %d bytes end inside the program headers", len(b))
	}
	le := binary.LittleEndian
	c := &core{headLen: maxHead + 1}
	for i := range phnum {
		p := b[phoff+i*phdrSize:]
		s := segment{kind: elf.ProgType(le.Uint32(p)), off: le.Uint64(p[8:]), phys: addr.Phys(le.Uint64(p[24:])), size: le.Uint64(p[32:])}
		const limit = 1 << 56 // no machine has as much: keeps every sum below in 64 bits
		if s.off > limit || uint64(s.phys) > limit || s.size > limit {
			return nil, fmt.Errorf("parse vmcore header: program header %d: offset %#x, address %v, size %#x", i, s.off, s.phys, s.size)
		}
		if s.kind == elf.PT_LOAD {
			if mem := le.Uint64(p[40:]); mem != s.size {
				return nil, fmt.Errorf("parse vmcore header: program header %d: %d bytes of %d", i, s.size, mem)
			}
			if s.off%PageSize != uint64(s.phys)%PageSize {
				return nil, fmt.Errorf("parse vmcore header: program header %d: offset %#x for address %v", i, s.off, s.phys)
			}
			c.headLen = min(c.headLen, int(s.start()))
		}
		c.segments = append(c.segments, s)
	}
	if c.headLen > maxHead {
		return nil, errors.New("parse vmcore header: no PT_LOAD where one should be")
	}
	return c, nil
}

// Span is a run of pages with consecutive frame numbers at consecutive offsets.
type Span struct {
	PFN   addr.PFN
	Pages uint64
	Off   uint64 // in /proc/vmcore, a multiple of PageSize
}

// End returns the frame number after the span.
func (s Span) End() addr.PFN { return s.PFN + addr.PFN(s.Pages) }

// spans returns every page of the core once, in ascending order.
func (c *core) spans() []Span {
	var loads []segment
	for _, s := range c.segments {
		if s.kind == elf.PT_LOAD && s.size > 0 {
			loads = append(loads, s)
		}
	}
	slices.SortStableFunc(loads, func(a, b segment) int { return cmp.Compare(a.first(), b.first()) })
	var out []Span
	next := addr.PFN(0) // the pages before are covered
	for _, s := range loads {
		first := max(next, s.first())
		if first >= s.end() {
			continue
		}
		off := s.start() + uint64(first-s.first())*PageSize
		out = append(out, Span{PFN: first, Pages: uint64(s.end() - first), Off: off})
		next = s.end()
	}
	return out
}
