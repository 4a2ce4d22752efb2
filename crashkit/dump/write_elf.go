package dump

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"crashlab/crashkit/addr"
)

// elfMachines are the values of e_machine by uname -m.
var elfMachines = map[string]uint16{"x86_64": 62, "aarch64": 183, "riscv64": 243, "loongarch64": 258, "ppc64le": 21}

// WriteELF writes the memory of a crashed machine as an ELF core: a PT_LOAD for
// each run of pages that are kept, whose p_memsz covers the pages behind it that
// are not. A header that has no room for the number of program headers has it in
// a section header (PN_XNUM). What is said of src, ctx and w at [Write] holds.
//
// Compression and the members from UTS to PhysBase are of no use in an ELF file.
// An empty machine counts as x86_64.
func WriteELF(ctx context.Context, w io.WriterAt, cfg WriterConfig, src PageReader) (WriteStats, error) {
	if cfg.PageSize == 0 {
		cfg.PageSize = defaultPage
	}
	if !validPageSize(uint64(cfg.PageSize)) {
		return WriteStats{}, fmt.Errorf("write ELF dump: a page size of %d bytes", cfg.PageSize)
	}
	machine, ok := elfMachines[cfg.UTS.Machine]
	if !ok && cfg.UTS.Machine != "" {
		return WriteStats{}, fmt.Errorf("write ELF dump: machine %q is unknown", cfg.UTS.Machine)
	} else if !ok {
		machine = elfMachines["x86_64"]
	}
	o, err := planPages(ctx, cfg)
	if err != nil {
		return WriteStats{}, fmt.Errorf("write ELF dump: %w", err)
	}
	o.w, o.src = w, src
	head := o.planELF(machine)
	if err := o.writeELFPages(ctx); err != nil {
		return WriteStats{}, fmt.Errorf("write ELF dump: %w", err)
	}
	if _, err := w.WriteAt(head, 0); err != nil {
		return WriteStats{}, fmt.Errorf("write ELF dump: %w", err)
	}
	o.stats.Bytes = o.dataOff + int64(o.stats.Stored)*int64(cfg.PageSize)
	o.stats.Zero = o.zeroes.Load()
	return o.stats, nil
}

// segmentsToWrite returns the PT_LOADs in order; Offset is from the first page's
// place. The pages follow each other without gaps.
func (o *output) segmentsToWrite() []Segment {
	var segs []Segment
	page := uint64(o.cfg.PageSize)
	var off int64
	stored := newBitmap(o.stored)
	for start, end := range newBitmap(o.memory).all() {
		for at := start; at < end; {
			kept := min(stored.next(at, 0xff), end)
			till := min(stored.next(kept, 0), end)
			s := Segment{
				Phys: addr.Phys(at * page), Offset: off,
				FileSize: (kept - at) * page, MemSize: (till - at) * page,
			}
			if o.cfg.Virt != nil {
				s.Virt = o.cfg.Virt(s.Phys)
			}
			segs = append(segs, s)
			off += int64(s.FileSize)
			at = till
		}
	}
	return segs
}

// planELF fixes the place of the pages and returns all that is before them.
func (o *output) planELF(machine uint16) []byte {
	for _, n := range o.cfg.Notes {
		o.notes = AppendNote(o.notes, n)
	}
	segs := o.segmentsToWrite()
	le := binary.LittleEndian
	phnum, shoff, shnum := uint64(len(segs)+1), uint64(0), uint16(0)
	notesAt := elfHeaderLen + phnum*elfPhdrLen
	if phnum >= elfPNXNum {
		shoff, shnum = notesAt, 1
		notesAt += elfShdrLen
	}
	page := uint64(o.cfg.PageSize)
	o.dataOff = int64((notesAt + uint64(len(o.notes)) + page - 1) / page * page)

	h := make([]byte, 0, o.dataOff)
	h = append(h, 0x7f, 'E', 'L', 'F', elfClass64, elfLittle, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	h = le.AppendUint16(h, elfCore)
	h = le.AppendUint16(h, machine)
	h = le.AppendUint32(h, 1)            // e_version
	h = le.AppendUint64(h, 0)            // e_entry
	h = le.AppendUint64(h, elfHeaderLen) // e_phoff
	h = le.AppendUint64(h, shoff)
	h = le.AppendUint32(h, 0) // e_flags
	h = le.AppendUint16(h, elfHeaderLen)
	h = le.AppendUint16(h, elfPhdrLen)
	h = le.AppendUint16(h, uint16(min(phnum, elfPNXNum)))
	h = le.AppendUint16(h, elfShdrLen)
	h = le.AppendUint16(h, shnum)
	h = le.AppendUint16(h, 0) // e_shstrndx
	program := func(typ, flags uint32, s Segment) {
		h = le.AppendUint32(h, typ)
		h = le.AppendUint32(h, flags)
		for _, v := range []uint64{uint64(s.Offset), uint64(s.Virt), uint64(s.Phys), s.FileSize, s.MemSize, 0} {
			h = le.AppendUint64(h, v)
		}
	}
	program(elfPTNote, 0, Segment{Offset: int64(notesAt), FileSize: uint64(len(o.notes)), MemSize: uint64(len(o.notes))})
	for _, s := range segs {
		s.Offset += o.dataOff
		program(elfPTLoad, 7, s)
	}
	if shnum > 0 {
		sh := make([]byte, elfShdrLen)
		le.PutUint32(sh[44:], uint32(phnum)) // sh_info
		h = append(h, sh...)
	}
	return padded(append(h, o.notes...), int(page))
}

// writeELFPages writes the pages that are kept, one behind the other.
func (o *output) writeELFPages(ctx context.Context) error {
	start, last := make(chan int64, 1), make(chan int64, 1)
	return o.work(ctx, o.batches(start, last), func() (storeFunc, error) {
		wk := &elfWriter{output: o, zero: make([]byte, o.cfg.PageSize), data: make([]byte, 0, writeBatch*o.cfg.PageSize)}
		return wk.store, nil
	})
}

// elfWriter is the state of one worker.
type elfWriter struct {
	*output
	zero []byte
	data []byte // pages that follow each other, not yet written
}

func (e *elfWriter) store(ctx context.Context, b batch) error {
	at := e.dataOff + int64(b.first)*int64(e.cfg.PageSize) // of data
	for i, pfn := range b.pfns {
		if err := ctx.Err(); err != nil {
			return err
		}
		page, err := e.page(pfn)
		if err != nil {
			return err
		}
		if bytes.Equal(page, e.zero) {
			e.zeroes.Add(1)
			// The last page is written, or the file would end too early.
			if e.cfg.Sparse && b.first+uint64(i)+1 < e.stats.Stored {
				if err := e.flush(at); err != nil {
					return err
				}
				at = e.dataOff + int64(b.first+uint64(i)+1)*int64(e.cfg.PageSize)
				continue
			}
		}
		e.data = append(e.data, page...)
	}
	return e.flush(at)
}

// flush writes what was collected.
func (e *elfWriter) flush(at int64) error {
	if len(e.data) == 0 {
		return nil
	}
	_, err := e.w.WriteAt(e.data, at)
	e.data = e.data[:0]
	return err
}
