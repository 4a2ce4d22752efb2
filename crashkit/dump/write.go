package dump

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"crashlab/crashkit/addr"
)

// WriteStats counts what [Write] wrote.
type WriteStats struct {
	Pages  uint64 // page frames that are memory
	Stored uint64 // of these, kept
	Zero   uint64 // of these, all zeroes: they share one place in the file
	Bytes  int64  // size of the file
}

// PageReader gives [Write] the pages to store, whole. Page is called by several
// goroutines at once; its result is read, not kept. *Image is one.
type PageReader interface {
	Page(addr.PFN) ([]byte, error)
}

// writeBatch is how many pages a worker takes at once.
const writeBatch = 256

// Write writes the memory of a crashed machine as a kdump-compressed file of
// header version 6, which crash, drgn and makedumpfile read. The same input
// gives the same bytes whatever the number of workers.
//
// Pages are read from src by several goroutines at once; an error of src ends
// the writing. The header is written last: a file left behind by an error or
// by the end of ctx begins with zeroes and is taken for a dump by nobody,
// provided that w was empty.
func Write(ctx context.Context, w io.WriterAt, cfg WriterConfig, src PageReader) (WriteStats, error) {
	if cfg.PageSize == 0 {
		cfg.PageSize = defaultPage
	}
	if !validPageSize(uint64(cfg.PageSize)) {
		return WriteStats{}, fmt.Errorf("write dump: a page size of %d bytes", cfg.PageSize)
	}
	if _, err := newEncoder(cfg.Compression, cfg.PageSize); err != nil {
		return WriteStats{}, fmt.Errorf("write dump: %w", err)
	}
	o, err := planPages(ctx, cfg)
	if err != nil {
		return WriteStats{}, fmt.Errorf("write dump: %w", err)
	}
	o.w, o.src = w, src
	o.planFile()
	if err := o.writePages(ctx); err != nil {
		return WriteStats{}, fmt.Errorf("write dump: %w", err)
	}
	if err := o.writeHead(); err != nil {
		return WriteStats{}, fmt.Errorf("write dump: %w", err)
	}
	o.stats.Zero = o.zeroes.Load()
	return o.stats, nil
}

// output is a file being written.
type output struct {
	w   io.WriterAt
	cfg WriterConfig
	src PageReader

	notes     []byte // as stored
	nPFN      uint64
	memory    []byte // bitmap 1
	stored    []byte // bitmap 2
	subBlocks uint64
	mapBlocks uint64 // of one bitmap
	descOff   int64
	dataOff   int64
	zeroDesc  desc
	zeroes    atomic.Uint64
	stats     WriteStats
	infoAt    int64 // of the VMCOREINFO text in the file; 0 if none
	infoLen   int
}

// planPages asks for the pages to keep.
func planPages(ctx context.Context, cfg WriterConfig) (*output, error) {
	page := uint64(cfg.PageSize)
	o := &output{cfg: cfg}
	for _, r := range cfg.Ranges {
		if uint64(r.Start) > maxPhys || r.Size > maxPhys-uint64(r.Start) {
			return nil, fmt.Errorf("memory range %v lies beyond what any machine has", r)
		}
		o.nPFN = max(o.nPFN, uint64(r.End())/page)
	}
	o.mapBlocks = (o.nPFN + 8*page - 1) / (8 * page)
	if 2*o.mapBlocks > math.MaxUint32 {
		return nil, fmt.Errorf("%#x page frames do not fit the format's header", o.nPFN)
	}
	o.memory = make([]byte, o.mapBlocks*page)
	o.stored = make([]byte, o.mapBlocks*page)
	for _, r := range cfg.Ranges {
		for pfn := (uint64(r.Start) + page - 1) / page; pfn < uint64(r.End())/page; pfn++ {
			o.memory[pfn/8] |= 1 << (pfn % 8)
		}
	}
	for start, end := range newBitmap(o.memory).all() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		o.stats.Pages += end - start
		for pfn := start; pfn < end; pfn++ {
			if cfg.Keep == nil || cfg.Keep(addr.PFN(pfn)) {
				o.stored[pfn/8] |= 1 << (pfn % 8)
				o.stats.Stored++
			}
		}
	}
	return o, nil
}

// planFile fixes the place of everything but the page data.
func (o *output) planFile() {
	cfg, page := o.cfg, uint64(o.cfg.PageSize)
	notesAt := int64(page) + kdumpSubLen
	for _, n := range cfg.Notes {
		if isVMCoreInfo(n) && o.infoAt == 0 {
			o.infoAt = notesAt + int64(len(o.notes)+noteDescOffset(n))
			o.infoLen = len(n.Desc)
		}
		o.notes = AppendNote(o.notes, n)
	}
	o.subBlocks = (kdumpSubLen + uint64(len(o.notes)) + page - 1) / page
	o.descOff = int64((1 + o.subBlocks + 2*o.mapBlocks) * page)
	o.dataOff = o.descOff + int64(o.stats.Stored*pageDescLen)
}

// batch is a run of pages that one worker stores. It learns from the batch
// before it where its data goes, and tells the next one.
type batch struct {
	pfns  []addr.PFN
	first uint64 // number of the first descriptor
	at    <-chan int64
	next  chan<- int64
}

// batches yields the stored pages in order, chained from where to last.
func (o *output) batches(start <-chan int64, last chan<- int64) iter.Seq[batch] {
	return func(yield func(batch) bool) {
		b := batch{at: start, pfns: make([]addr.PFN, 0, writeBatch)}
		for from, till := range newBitmap(o.stored).all() {
			for pfn := from; pfn < till; pfn++ {
				if len(b.pfns) == writeBatch {
					link := make(chan int64, 1)
					b.next = link
					if !yield(b) {
						return
					}
					b = batch{at: link, first: b.first + writeBatch, pfns: make([]addr.PFN, 0, writeBatch)}
				}
				b.pfns = append(b.pfns, addr.PFN(pfn))
			}
		}
		b.next = last
		yield(b)
	}
}

// writePages writes the page data and the descriptors.
func (o *output) writePages(ctx context.Context) error {
	zeroEnd, err := o.writeZeroPage()
	if err != nil {
		return err
	}
	start, last := make(chan int64, 1), make(chan int64, 1)
	start <- zeroEnd
	err = o.work(ctx, o.batches(start, last), func() (storeFunc, error) {
		enc, err := newEncoder(o.cfg.Compression, o.cfg.PageSize)
		wk := &pageWriter{output: o, enc: enc, zero: make([]byte, o.cfg.PageSize)}
		return wk.store, err
	})
	if err != nil {
		return err
	}
	o.stats.Bytes = <-last
	return nil
}

// storeFunc writes one batch. It belongs to one worker.
type storeFunc func(context.Context, batch) error

// work has the batches written by as many workers as there are to be.
func (o *output) work(ctx context.Context, batches iter.Seq[batch], newStore func() (storeFunc, error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	todo := make(chan batch)
	var workers sync.WaitGroup
	n := o.cfg.Workers
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	for range n {
		store, err := newStore()
		if err != nil {
			cancel(err)
			break
		}
		workers.Go(func() {
			for b := range todo {
				if err := store(ctx, b); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	for b := range batches {
		select {
		case todo <- b:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(todo)
	workers.Wait()
	return context.Cause(ctx)
}

// writeZeroPage writes the page that all zero pages refer to and returns where
// it ends.
func (o *output) writeZeroPage() (int64, error) {
	enc, err := newEncoder(o.cfg.Compression, o.cfg.PageSize)
	if err != nil {
		return 0, err
	}
	b, flags, err := enc.encode(nil, make([]byte, o.cfg.PageSize))
	if err != nil {
		return 0, err
	}
	o.zeroDesc = desc{off: o.dataOff, size: uint32(len(b)), flags: flags}
	_, err = o.w.WriteAt(b, o.dataOff)
	return o.dataOff + int64(len(b)), err
}

// pageWriter is the state of one worker.
type pageWriter struct {
	*output
	enc   *encoder
	zero  []byte
	data  []byte
	descs []byte
}

// sharedZero stands for the place of the zero page in a batch's descriptors.
const sharedZero = -1

// store writes one batch.
func (p *pageWriter) store(ctx context.Context, b batch) error {
	descs := make([]desc, len(b.pfns))
	p.data = p.data[:0]
	for i, pfn := range b.pfns {
		if err := ctx.Err(); err != nil {
			return err
		}
		page, err := p.page(pfn)
		if err != nil {
			return err
		}
		if bytes.Equal(page, p.zero) {
			p.zeroes.Add(1)
			descs[i].off = sharedZero
			continue
		}
		at := len(p.data)
		if p.data, descs[i].flags, err = p.enc.encode(p.data, page); err != nil {
			return fmt.Errorf("compress page frame %#x: %w", uint64(pfn), err)
		}
		descs[i].off, descs[i].size = int64(at), uint32(len(p.data)-at)
	}

	var at int64
	select {
	case at = <-b.at:
	case <-ctx.Done():
		return ctx.Err()
	}
	b.next <- at + int64(len(p.data))

	p.descs = p.descs[:0]
	for _, d := range descs {
		if d.off == sharedZero {
			d = p.zeroDesc
		} else {
			d.off += at
		}
		p.descs = appendDesc(p.descs, d)
	}
	if _, err := p.w.WriteAt(p.data, at); err != nil {
		return err
	}
	_, err := p.w.WriteAt(p.descs, p.descOff+int64(b.first*pageDescLen))
	return err
}

// page returns the content of a page.
func (o *output) page(pfn addr.PFN) ([]byte, error) {
	page, err := o.src.Page(pfn)
	if err != nil {
		return nil, fmt.Errorf("page frame %#x: %w", uint64(pfn), err)
	}
	if len(page) != o.cfg.PageSize {
		return nil, fmt.Errorf("page frame %#x has %d bytes, want %d", uint64(pfn), len(page), o.cfg.PageSize)
	}
	return page, nil
}

func appendDesc(b []byte, d desc) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(d.off))
	b = binary.LittleEndian.AppendUint32(b, d.size)
	b = binary.LittleEndian.AppendUint32(b, d.flags)
	return binary.LittleEndian.AppendUint64(b, 0) // page flags: always 0 in makedumpfile too
}

// padded fills b up to a multiple of n bytes.
func padded(b []byte, n int) []byte { return append(b, make([]byte, (n-len(b)%n)%n)...) }

// writeHead writes everything before the descriptors, the header itself last.
func (o *output) writeHead() error {
	page := int64(o.cfg.PageSize)
	le := binary.LittleEndian

	sub := make([]byte, kdumpSubLen, kdumpSubLen+len(o.notes))
	le.PutUint64(sub[ksPhysBase:], uint64(o.cfg.PhysBase))
	le.PutUint32(sub[ksDumpLevel:], uint32(o.cfg.DumpLevel))
	le.PutUint64(sub[ksVMCoreInfo:], uint64(o.infoAt))
	le.PutUint64(sub[ksVMCoreInfo+8:], uint64(o.infoLen))
	if len(o.notes) > 0 {
		le.PutUint64(sub[ksNote:], uint64(page+kdumpSubLen))
		le.PutUint64(sub[ksNote+8:], uint64(len(o.notes)))
	}
	le.PutUint64(sub[ksMaxMapnr64:], o.nPFN)

	h := make([]byte, page)
	copy(h, kdumpMagic)
	le.PutUint32(h[kdVersion:], kdumpVersionMax)
	u := o.cfg.UTS
	for i, s := range []string{u.Sysname, u.Nodename, u.Release, u.Version, u.Machine, u.Domainname} {
		copy(h[kdUTS+i*utsFieldLen:kdUTS+(i+1)*utsFieldLen-1], s)
	}
	if t := o.cfg.Time; !t.IsZero() {
		le.PutUint64(h[kdTime:], uint64(t.Unix()))
		le.PutUint64(h[kdTime+8:], uint64(t.Nanosecond()/1000))
	}
	le.PutUint32(h[kdStatus:], uint32(o.cfg.Compression))
	le.PutUint32(h[kdBlockSize:], uint32(page))
	le.PutUint32(h[kdSubSize:], uint32(o.subBlocks))
	le.PutUint32(h[kdBitmapBlocks:], uint32(2*o.mapBlocks))
	le.PutUint32(h[kdMaxMapnr:], uint32(min(o.nPFN, math.MaxUint32)))
	le.PutUint32(h[kdNCPUs:], uint32(o.cfg.NCPUs))

	mapOff := page * int64(1+o.subBlocks)
	for _, part := range []struct {
		b  []byte
		at int64
	}{
		{o.memory, mapOff},
		{o.stored, mapOff + page*int64(o.mapBlocks)},
		{padded(append(sub, o.notes...), int(page)), page},
		{h, 0},
	} {
		if _, err := o.w.WriteAt(part.b, part.at); err != nil {
			return err
		}
	}
	return nil
}
