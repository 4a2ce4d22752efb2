package dump

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"sync/atomic"

	"crashlab/crashkit/addr"
)

// The layout of a 64-bit ELF file (include/uapi/linux/elf.h), in bytes.
const (
	elfHeaderLen = 64
	elfPhdrLen   = 56
	elfShdrLen   = 64
	elfClass64   = 2
	elfLittle    = 1
	elfCore      = 4
	elfPNXNum    = 0xffff // the number of program headers is in the first section header's sh_info
	elfPTLoad    = 1
	elfPTNote    = 4
	defaultPage  = 4096
)

func isELF(head []byte) bool { return bytes.HasPrefix(head, []byte("\x7fELF")) }

// openELF opens an ELF core. e_ehsize is not looked at: QEMU writes nonsense there.
func openELF(src source, o Options) (*Image, error) {
	h, err := src.view(0, elfHeaderLen)
	if err != nil {
		return nil, fmt.Errorf("read ELF header: %w", err)
	}
	le := binary.LittleEndian
	switch {
	case h[4] != elfClass64:
		return nil, fmt.Errorf("%w: an ELF file of a machine that is not 64-bit", ErrFormat)
	case h[5] != elfLittle:
		return nil, fmt.Errorf("%w: an ELF file of a big-endian machine", ErrFormat)
	case le.Uint16(h[16:]) != elfCore:
		return nil, fmt.Errorf("%w: an ELF file of type %d, not a core (%d)", ErrFormat, le.Uint16(h[16:]), elfCore)
	}
	phoff, phentsize, phnum := le.Uint64(h[32:]), le.Uint16(h[54:]), uint64(le.Uint16(h[56:]))
	if phentsize != elfPhdrLen {
		return nil, fmt.Errorf("%w: ELF program headers of %d bytes, want %d", ErrFormat, phentsize, elfPhdrLen)
	}
	if phnum == elfPNXNum {
		shoff := le.Uint64(h[40:])
		if shoff > math.MaxInt64 {
			return nil, fmt.Errorf("read ELF section header at %#x: %w", shoff, io.ErrUnexpectedEOF)
		}
		sh, err := src.view(int64(shoff), elfShdrLen)
		if err != nil {
			return nil, fmt.Errorf("read ELF section header at %#x, which has the number of program headers: %w", shoff, err)
		}
		phnum = uint64(le.Uint32(sh[44:]))
	}
	img := &Image{info: Info{
		Format:    "ELF vmcore",
		Machine:   elfMachine(le.Uint16(h[18:])),
		PageSize:  defaultPage,
		DumpLevel: -1,
	}}
	if phnum*elfPhdrLen > uint64(src.size()) || phoff > math.MaxInt64 {
		return nil, fmt.Errorf("read %d ELF program headers at %#x: %w", phnum, phoff, io.ErrUnexpectedEOF)
	}
	ph, err := src.view(int64(phoff), int(phnum*elfPhdrLen))
	if err != nil {
		return nil, fmt.Errorf("read %d ELF program headers at %#x: %w", phnum, phoff, err)
	}
	m := &elfMemory{src: src}
	var noteBytes uint64 // of all PT_NOTEs, which might all be the same place
	for ; len(ph) > 0; ph = ph[elfPhdrLen:] {
		typ := le.Uint32(ph)
		off, virt, phys := le.Uint64(ph[8:]), le.Uint64(ph[16:]), le.Uint64(ph[24:])
		filesz, memsz := le.Uint64(ph[32:]), le.Uint64(ph[40:])
		switch typ {
		case elfPTNote:
			if noteBytes += min(filesz, maxNotes); noteBytes > min(maxNotes, uint64(src.size())) {
				img.problem("notes at file offset %#x: more notes than the file can hold", off)
				continue
			}
			img.addELFNotes(src, off, filesz)
		case elfPTLoad:
			if off > math.MaxInt64 || filesz > math.MaxInt64-off {
				img.problem("a program header refers to file offset %#x+%#x", off, filesz)
				img.info.Truncated = true
				continue
			}
			s := Segment{
				Phys: addr.Phys(phys), Virt: addr.Virt(virt), Offset: int64(off),
				FileSize: filesz, MemSize: max(memsz, filesz),
			}
			img.segments = append(img.segments, s)
			if missing := s.Offset + int64(s.FileSize) - src.size(); missing > 0 {
				img.info.Truncated = true
				img.problem("the file ends %d bytes before the end of the memory at %v", missing, s.Phys)
			}
		}
	}
	if isProcessCore(img.segments) {
		return nil, fmt.Errorf("%w: the core of a process: its memory has no physical addresses", ErrFormat)
	}
	m.extents = elfExtents(img.segments, src.size())
	if v, err := img.findVMCoreInfo(); err == nil {
		if n, ok := v.Uint("PAGESIZE", 10); ok && validPageSize(n) {
			img.info.PageSize = int(n)
		}
	}
	m.pageSize = uint64(img.info.PageSize)
	if o.ZeroExcluded {
		m.zeroed = &img.zeroed
	}
	img.mem = m
	return img, nil
}

// isProcessCore reports whether the segments are those that the kernel writes
// for a crashed process: all have p_paddr 0.
func isProcessCore(segments []Segment) bool {
	for _, s := range segments {
		if s.Phys != 0 || s.Virt == 0 {
			return false
		}
	}
	return len(segments) > 1
}

// validPageSize reports whether n is a page size Linux has on 64-bit machines.
func validPageSize(n uint64) bool { return n >= 4096 && n <= 65536 && n&(n-1) == 0 }

func (i *Image) addELFNotes(src source, off, size uint64) {
	if size == 0 {
		return
	}
	var b []byte
	err := io.ErrUnexpectedEOF
	if off <= math.MaxInt64 && size <= maxNotes {
		b, err = src.view(int64(off), int(size))
	}
	if err == nil {
		var notes []Note
		notes, err = ParseNotes(b)
		i.notes = append(i.notes, notes...)
	}
	if err != nil {
		i.info.Truncated = i.info.Truncated || errors.Is(err, io.ErrUnexpectedEOF)
		i.problem("notes at file offset %#x: %v", off, err)
	}
}

// elfMachine names e_machine as uname -m does.
func elfMachine(m uint16) string {
	switch m {
	case 62:
		return "x86_64"
	case 183:
		return "aarch64"
	case 243:
		return "riscv64"
	case 258:
		return "loongarch64"
	case 21:
		return "ppc64le"
	}
	return ""
}

// elfExtents says where each byte of physical memory is in the file.
//
// Segments without a physical address (p_paddr is all ones) or outside what any
// machine has are passed over.
//
// Segments may overlap: /proc/vmcore has the kernel's text twice, once at each
// of its virtual addresses, and QEMU with paging=true has a segment for each
// mapping. Bytes inside the file win over those it was cut off from, these over
// bytes that were never stored, and then the earlier segment wins.
//
// Memory past p_filesz counts as excluded. For a program that would be zeroes
// (.bss), but in a dump it is what makedumpfile -E left out, whatever it held.
func elfExtents(segments []Segment, fileSize int64) []extent {
	var stored, cut, excluded []extent
	for _, s := range segments {
		start := uint64(s.Phys)
		if start > maxPhys || s.MemSize > maxPhys-start {
			continue
		}
		n := s.MemSize
		filed := min(n, s.FileSize)
		avail := min(filed, uint64(max(fileSize-s.Offset, 0)))
		add := func(to *[]extent, from, till uint64, st State) {
			if from < till {
				*to = append(*to, extent{start + from, start + till, s.Offset + int64(from), st})
			}
		}
		add(&stored, 0, avail, Present)
		add(&cut, avail, filed, Truncated)
		add(&excluded, filed, n, Excluded)
	}
	var all []extent
	for _, part := range [][]extent{excluded, cut, stored} {
		for i := len(part) - 1; i >= 0; i-- { // overlay shows the last
			all = append(all, part[i])
		}
	}
	if len(excluded) == 0 && len(cut) == 0 && disjoint(stored) {
		return stored
	}
	return overlay(all)
}

// elfMemory is the physical memory of an ELF core.
type elfMemory struct {
	src      source
	pageSize uint64
	extents  []extent // by physical address, sorted and disjoint

	zeroed *atomic.Uint64 // counts the reads of excluded memory as zeroes; nil if they fail
}

func (m *elfMemory) read(p addr.Phys, b []byte) error {
	for len(b) > 0 {
		i := findExtent(m.extents, uint64(p))
		if i == len(m.extents) || m.extents[i].start > uint64(p) {
			return fault(p, addr.NotInDump, nil)
		}
		e := m.extents[i]
		n := min(uint64(len(b)), e.end-uint64(p))
		if e.state == Excluded && m.zeroed != nil {
			m.zeroed.Add(1)
			clear(b[:n])
			b, p = b[n:], p+addr.Phys(n)
			continue
		}
		if e.state != Present {
			return fault(p, e.state.reason(), nil)
		}
		if err := m.src.readAt(e.off+int64(uint64(p)-e.start), b[:n]); err != nil {
			return fault(p, ioReason(err), err)
		}
		b, p = b[n:], p+addr.Phys(n)
	}
	return nil
}

// reason is the fault of a page in state s.
func (s State) reason() addr.Reason {
	switch s {
	case Excluded:
		return addr.Excluded
	case Truncated:
		return addr.Truncated
	}
	return addr.NotInDump
}

// ioReason is the fault of stored bytes that could not be read.
func ioReason(err error) addr.Reason {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return addr.Truncated
	}
	return addr.Corrupt
}

func (m *elfMemory) page(pfn addr.PFN) ([]byte, error) { return m.pageInto(pfn, nil) }

func (m *elfMemory) pageInto(pfn addr.PFN, buf []byte) ([]byte, error) {
	p := uint64(pfn) * m.pageSize
	if i := findExtent(m.extents, p); i < len(m.extents) {
		e := m.extents[i]
		if e.state == Present && e.start <= p && e.end-p >= m.pageSize {
			b, err := m.src.view(e.off+int64(p-e.start), int(m.pageSize))
			if err != nil {
				return nil, fault(addr.Phys(p), ioReason(err), err)
			}
			return b, nil
		}
	}
	if buf == nil {
		buf = make([]byte, m.pageSize)
	}
	if err := m.read(addr.Phys(p), buf); err != nil {
		return nil, err
	}
	return buf, nil
}

func (m *elfMemory) stored() iter.Seq2[uint64, uint64] {
	return func(yield func(start, end uint64) bool) {
		next := uint64(0) // the first page frame not yet seen
		for _, e := range m.extents {
			start, end := max(next, e.start/m.pageSize), (e.end-1)/m.pageSize+1
			if e.state != Present || start >= end {
				continue
			}
			if !yield(start, end) {
				return
			}
			next = end
		}
	}
}

// state returns the worst state of the page's bytes: of a page that is only
// partly RAM, those that are RAM count.
func (m *elfMemory) state(pfn addr.PFN) State {
	p := uint64(pfn) * m.pageSize
	st := Absent
	for i := findExtent(m.extents, p); i < len(m.extents) && m.extents[i].start < p+m.pageSize; i++ {
		st = max(st, m.extents[i].state)
	}
	return st
}

func (m *elfMemory) ranges() []addr.Range {
	var r []addr.Range
	for _, e := range m.extents {
		r = appendRange(r, e.start, e.end)
	}
	return r
}

// appendRange appends [start, end), joining it to the last range if they touch.
func appendRange(r []addr.Range, start, end uint64) []addr.Range {
	if n := len(r); n > 0 && uint64(r[n-1].End()) == start {
		r[n-1].Size += end - start
		return r
	}
	return append(r, addr.Range{Start: addr.Phys(start), Size: end - start})
}
