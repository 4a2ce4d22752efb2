package dumptest

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
)

// KdumpOptions are the choices of the kdump-compressed format.
type KdumpOptions struct {
	Version     int              // of the header, 1 to 6; 0 means 6
	Compression dump.Compression // of every page that it makes smaller
	Status      uint32           // bits set in the header's status besides the compression
	DumpLevel   int
	Release     string // utsname; the machine is x86_64
	PhysBase    int64
	TimeSec     int64

	// SplitStart and SplitEnd make the file one part of a split dump: it has
	// the pages from the first up to, but not including, the second.
	SplitStart, SplitEnd addr.PFN
}

// Kdump returns the memory as a kdump-compressed file. As makedumpfile does, it
// stores all zero pages in one place.
func (m Memory) Kdump(o KdumpOptions) []byte {
	if o.Version == 0 {
		o.Version = 6
	}
	le := binary.LittleEndian
	page := m.pageSize()
	runs := m.runs()
	var nPFN addr.PFN
	if len(runs) > 0 {
		last := runs[len(runs)-1]
		nPFN = last.start + addr.PFN(last.n)
	}

	sub := m.subHeader(o, nPFN)
	bitmap := func(has func(run) bool) []byte {
		b := make([]byte, (nPFN+7)/8)
		for _, r := range runs {
			for i := range r.n {
				if pfn := r.start + addr.PFN(i); has(r) {
					b[pfn/8] |= 1 << (pfn % 8)
				}
			}
		}
		return pad(b, page)
	}
	memory, stored := bitmap(func(run) bool { return true }), bitmap(func(r run) bool { return r.stored })

	h := m.header(o, nPFN, len(sub), len(memory)+len(stored))
	out := slices.Concat(h, sub, memory, stored)
	var pfns []addr.PFN
	for _, pfn := range slices.Sorted(maps.Keys(m.Pages)) {
		if o.SplitEnd == 0 || o.SplitStart <= pfn && pfn < o.SplitEnd {
			pfns = append(pfns, pfn)
		}
	}
	dataAt := len(out) + 24*len(pfns)
	var data []byte
	zeroAt := -1
	for _, pfn := range pfns {
		plain := m.page(pfn)
		packed, flags := pack(plain, o.Compression), uint32(o.Compression)
		if len(packed) >= page {
			packed, flags = plain, 0
		}
		at := len(data)
		if bytes.Count(plain, []byte{0}) == page {
			if zeroAt >= 0 {
				at = zeroAt
			}
			zeroAt = at
		}
		if at == len(data) {
			data = append(data, packed...)
		}
		out = le.AppendUint64(out, uint64(dataAt+at))
		out = le.AppendUint32(out, uint32(len(packed)))
		out = le.AppendUint32(out, flags)
		out = le.AppendUint64(out, 0)
	}
	return append(out, data...)
}

// header returns the first block of a file whose sub header and bitmaps take
// subLen and mapLen bytes.
func (m Memory) header(o KdumpOptions, nPFN addr.PFN, subLen, mapLen int) []byte {
	le, page := binary.LittleEndian, m.pageSize()
	h := append([]byte("KDUMP   "), make([]byte, 464-8)...)
	le.PutUint32(h[8:], uint32(o.Version))
	copy(h[12:], "Linux")
	copy(h[12+2*65:], o.Release)
	copy(h[12+4*65:], "x86_64")
	le.PutUint64(h[408:], uint64(o.TimeSec))
	le.PutUint32(h[424:], uint32(o.Compression)|o.Status)
	le.PutUint32(h[428:], uint32(page))
	le.PutUint32(h[432:], uint32(subLen/page))
	le.PutUint32(h[436:], uint32(mapLen/page))
	le.PutUint32(h[440:], uint32(nPFN))
	le.PutUint32(h[460:], 1)
	return pad(h, page)
}

// subHeader returns the sub header with the notes behind it, in whole blocks.
func (m Memory) subHeader(o KdumpOptions, nPFN addr.PFN) []byte {
	le, page := binary.LittleEndian, m.pageSize()
	notes, vmcoreinfo := m.noteBytes()
	sub := make([]byte, 104, 104+len(notes))
	notesAt := page + len(sub)
	le.PutUint64(sub, uint64(o.PhysBase))
	le.PutUint32(sub[8:], uint32(o.DumpLevel))
	if o.SplitEnd != 0 {
		le.PutUint32(sub[12:], 1)
		le.PutUint64(sub[16:], uint64(o.SplitStart))
		le.PutUint64(sub[24:], uint64(o.SplitEnd))
		le.PutUint64(sub[80:], uint64(o.SplitStart))
		le.PutUint64(sub[88:], uint64(o.SplitEnd))
	}
	if m.VMCoreInfo != "" {
		le.PutUint64(sub[32:], uint64(notesAt+vmcoreinfo))
		le.PutUint64(sub[40:], uint64(len(m.VMCoreInfo)))
	}
	if len(notes) > 0 {
		le.PutUint64(sub[48:], uint64(notesAt))
		le.PutUint64(sub[56:], uint64(len(notes)))
	}
	le.PutUint64(sub[96:], uint64(nPFN))
	clear(sub[[]int{8, 12, 32, 48, 64, 80, 104}[o.Version]:])
	return pad(append(sub, notes...), page)
}

// pack compresses a page.
func pack(page []byte, c dump.Compression) []byte {
	var b bytes.Buffer
	var err error
	switch c {
	case dump.Plain:
		return page
	case dump.Zlib:
		w := zlib.NewWriter(&b)
		w.Write(page) // into memory: cannot fail
		w.Close()
	case dump.LZO:
		return packLZO(page)
	case dump.Snappy:
		return snappy.Encode(nil, page)
	case dump.Zstd:
		var w *zstd.Encoder
		if w, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1)); err == nil {
			defer w.Close()
			return w.EncodeAll(page, nil)
		}
	default:
		err = fmt.Errorf("no compressor for %v", c)
	}
	if err != nil {
		panic("dumptest: " + err.Error())
	}
	return b.Bytes()
}

// packLZO returns an LZO1X stream that copies the page and packs only what it
// ends in: a run of equal bytes (Documentation/staging/lzo.rst, v6.1).
func packLZO(page []byte) []byte {
	n := len(page)
	for n > 1 && page[n-1] == page[len(page)-1] {
		n--
	}
	n++ // the literals have the first byte of the run
	if n < 5 || len(page)-n < 34 {
		n = len(page)
	}
	// length encodes a length that does not fit an instruction's own bits.
	length := func(out []byte, rest int) []byte {
		for ; rest > 255; rest -= 255 {
			out = append(out, 0)
		}
		return append(out, byte(rest))
	}
	var out []byte
	if n <= 238 {
		out = append(out, byte(n+17))
	} else {
		out = length(append(out, 0), n-18)
	}
	out = append(out, page[:n]...)
	if run := len(page) - n; run > 0 { // a match at distance 1
		out = append(length(append(out, 0x20), run-33), 0, 0)
	}
	return append(out, 0x11, 0, 0)
}
