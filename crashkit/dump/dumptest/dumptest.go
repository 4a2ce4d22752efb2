// Package dumptest makes small crash dumps for tests: a few pages of memory as
// an ELF core or a kdump-compressed file, flattened or not. It writes the formats
// on its own, without package dump's writer, so that a test of one is not fooled
// by the other. The files are exact and complete; a test that wants damage does
// it to the bytes.
package dumptest

import (
	"encoding/binary"
	"maps"
	"slices"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
)

// Memory is the memory of a made-up crashed machine.
type Memory struct {
	PageSize int // in bytes; 0 means 4096

	// Pages has the stored pages. Shorter ones are filled up with zeroes.
	Pages map[addr.PFN][]byte

	// Excluded are pages that exist but are not stored.
	Excluded []addr.PFN

	VMCoreInfo string      // text; no such note if empty
	Notes      []dump.Note // further notes; they come first

	// Virt is the p_vaddr of an ELF dump's segments; nil means phys plus
	// 0xffff888000000000, x86-64's direct mapping without KASLR.
	Virt func(addr.Phys) addr.Virt
}

// directMap is where x86-64 maps physical memory with 4-level page tables.
const directMap = 0xffff888000000000

func (m Memory) pageSize() int {
	if m.PageSize == 0 {
		return 4096
	}
	return m.PageSize
}

// page returns a stored page at its full size.
func (m Memory) page(pfn addr.PFN) []byte {
	b := make([]byte, m.pageSize())
	if copy(b, m.Pages[pfn]) < len(m.Pages[pfn]) {
		panic("dumptest: a page is longer than PageSize")
	}
	return b
}

// noteBytes returns the content of a PT_NOTE and where in it the VMCOREINFO text begins.
func (m Memory) noteBytes() (b []byte, vmcoreinfo int) {
	for _, n := range m.Notes {
		b = appendNote(b, n)
	}
	if m.VMCoreInfo == "" {
		return b, 0
	}
	vmcoreinfo = len(b) + 12 + 12
	return appendNote(b, dump.Note{Name: "VMCOREINFO", Desc: []byte(m.VMCoreInfo)}), vmcoreinfo
}

func appendNote(b []byte, n dump.Note) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, uint32(len(n.Name)+1))
	b = le.AppendUint32(b, uint32(len(n.Desc)))
	b = le.AppendUint32(b, n.Type)
	b = pad(append(b, n.Name+"\x00"...), 4)
	return pad(append(b, n.Desc...), 4)
}

// pad adds zeroes up to a multiple of n.
func pad(b []byte, n int) []byte {
	return append(b, make([]byte, (n-len(b)%n)%n)...)
}

// PRStatus returns an NT_PRSTATUS note. The registers are in the order of
// [dump.PRStatus].
func PRStatus(pid int, regs [27]uint64) dump.Note {
	b := make([]byte, 336)
	binary.LittleEndian.PutUint32(b[32:], uint32(pid))
	for i, r := range regs {
		binary.LittleEndian.PutUint64(b[112+8*i:], r)
	}
	return dump.Note{Name: "CORE", Type: 1, Desc: b}
}

// run is a stretch of pages that are all stored or all excluded.
type run struct {
	start  addr.PFN
	n      int
	stored bool
}

// runs returns the memory in ascending order.
func (m Memory) runs() []run {
	pfns := append(slices.Collect(maps.Keys(m.Pages)), m.Excluded...)
	slices.Sort(pfns)
	var all []run
	for _, pfn := range slices.Compact(pfns) {
		_, stored := m.Pages[pfn]
		if n := len(all); n > 0 && all[n-1].start+addr.PFN(all[n-1].n) == pfn && all[n-1].stored == stored {
			all[n-1].n++
			continue
		}
		all = append(all, run{pfn, 1, stored})
	}
	return all
}

// ELF returns the memory as an x86-64 ELF core, as /proc/vmcore has it: a
// PT_NOTE and a PT_LOAD for each run of pages. A run of excluded pages is a
// PT_LOAD with a p_filesz of 0, as makedumpfile -E writes them.
func (m Memory) ELF() []byte {
	const ehdr, phdr = 64, 56
	le := binary.LittleEndian
	runs := m.runs()
	notes, _ := m.noteBytes()
	noteOff := ehdr + phdr*(1+len(runs))
	pages := pad(append(make([]byte, noteOff), notes...), m.pageSize())

	h := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 15: 0}
	h = le.AppendUint16(h, 4)  // ET_CORE
	h = le.AppendUint16(h, 62) // EM_X86_64
	h = le.AppendUint32(h, 1)
	h = le.AppendUint64(h, 0)    // e_entry
	h = le.AppendUint64(h, ehdr) // e_phoff
	h = le.AppendUint64(h, 0)    // e_shoff
	h = le.AppendUint32(h, 0)    // e_flags
	for _, v := range []int{ehdr, phdr, 1 + len(runs), 0, 0, 0} {
		h = le.AppendUint16(h, uint16(v))
	}
	program := func(typ, flags uint32, off, virt, phys, filesz, memsz uint64) {
		h = le.AppendUint32(h, typ)
		h = le.AppendUint32(h, flags)
		for _, v := range []uint64{off, virt, phys, filesz, memsz, 0} {
			h = le.AppendUint64(h, v)
		}
	}
	program(4, 0, uint64(noteOff), 0, 0, uint64(len(notes)), uint64(len(notes)))
	for _, r := range runs {
		phys := uint64(r.start) * uint64(m.pageSize())
		virt := phys + directMap
		if m.Virt != nil {
			virt = uint64(m.Virt(addr.Phys(phys)))
		}
		size := uint64(r.n * m.pageSize())
		if !r.stored {
			program(1, 7, uint64(len(pages)), virt, phys, 0, size)
			continue
		}
		program(1, 7, uint64(len(pages)), virt, phys, size, size)
		for i := range r.n {
			pages = append(pages, m.page(r.start+addr.PFN(i))...)
		}
	}
	copy(pages, h)
	return pages
}

// Flatten returns a dump as a flattened makedumpfile stream in records of at
// most n bytes. The first record is written twice, first with nonsense, as
// makedumpfile goes back to the header when it is done.
func Flatten(b []byte, n int) []byte {
	be := binary.BigEndian
	out := pad(be.AppendUint64(be.AppendUint64([]byte("makedumpfile\x00\x00\x00\x00"), 1), 1), 4096)
	record := func(off int, data []byte) {
		out = be.AppendUint64(out, uint64(off))
		out = be.AppendUint64(out, uint64(len(data)))
		out = append(out, data...)
	}
	record(0, slices.Repeat([]byte{0xaa}, min(n, len(b))))
	for off := n; off < len(b); off += n {
		record(off, b[off:min(off+n, len(b))])
	}
	record(0, b[:min(n, len(b))])
	out = be.AppendUint64(out, ^uint64(0))
	return be.AppendUint64(out, ^uint64(0))
}
