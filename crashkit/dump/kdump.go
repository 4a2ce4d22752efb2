package dump

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"
	"sync/atomic"
	"time"

	"crashlab/crashkit/addr"
)

// The kdump-compressed format (makedumpfile's IMPLEMENTATION and diskdump_mod.h,
// 1.7.2; QEMU's include/sysemu/dump.h, 7.2), as 64-bit little-endian machines
// write it:
//
//	block 0                      header
//	block 1                      sub header, notes, VMCOREINFO: sub_hdr_size blocks
//	block 1+sub_hdr_size         bitmap 1: a bit per page frame that is memory
//	                             bitmap 2: a bit per page frame that is stored
//	...+bitmap_blocks            a page descriptor for each bit set in bitmap 2
//	                             page data
//
// A block is a page.
const (
	kdumpMagic     = "KDUMP   "
	kdumpHeaderLen = 464 // up to nr_cpus; the tasks after it are of no use

	// Offsets in the header.
	kdVersion      = 8
	kdUTS          = 12 // six strings of 65 bytes
	kdTime         = 408
	kdStatus       = 424
	kdBlockSize    = 428
	kdSubSize      = 432 // in blocks
	kdBitmapBlocks = 436
	kdMaxMapnr     = 440
	kdNCPUs        = 460
	kdBlockSize32  = 416 // the block size as 32-bit machines write the header
	utsFieldLen    = 65

	// Offsets in the sub header, and the header version since which each is there.
	ksPhysBase      = 0  // 0
	ksDumpLevel     = 8  // 1
	ksSplit         = 12 // 2
	ksStartPFN      = 16 // 2
	ksEndPFN        = 24 // 2
	ksVMCoreInfo    = 32 // 3: offset, size
	ksNote          = 48 // 4: offset, size
	ksStartPFN64    = 80 // 6
	ksEndPFN64      = 88 // 6
	ksMaxMapnr64    = 96 // 6
	kdumpSubLen     = 104
	kdumpVersionMax = 6

	// Bits of the header's status; the first four compressions are also flags
	// of a page descriptor.
	flagZlib       = 0x01
	flagLZO        = 0x02
	flagSnappy     = 0x04
	flagIncomplete = 0x08
	flagZstd       = 0x20

	pageDescLen = 24 // offset u64, size u32, flags u32, page flags u64

	kdumpMaxRanges = 1 << 20
)

func isKdump(head []byte) bool { return bytes.HasPrefix(head, []byte(kdumpMagic)) }

// openKdump opens a kdump-compressed file.
func openKdump(src source, o Options) (*Image, error) {
	h, err := src.view(0, kdumpHeaderLen)
	if err != nil {
		return nil, fmt.Errorf("read kdump header: %w", err)
	}
	le := binary.LittleEndian
	version := le.Uint32(h[kdVersion:])
	if v := bits.ReverseBytes32(version); version > 0xffff && v <= 0xffff {
		return nil, fmt.Errorf("%w: a kdump-compressed file of a big-endian machine", ErrFormat)
	}
	block := uint64(le.Uint32(h[kdBlockSize:]))
	if !validPageSize(block) {
		if validPageSize(uint64(le.Uint32(h[kdBlockSize32:]))) {
			return nil, fmt.Errorf("%w: a kdump-compressed file of a 32-bit machine", ErrFormat)
		}
		return nil, fmt.Errorf("%w: kdump header with blocks of %d bytes, which no 64-bit machine has as a page", ErrFormat, block)
	}
	subBlocks := uint64(le.Uint32(h[kdSubSize:]))
	bitmapBlocks := uint64(le.Uint32(h[kdBitmapBlocks:]))
	status := le.Uint32(h[kdStatus:])
	img := &Image{info: Info{
		Format:        "kdump compressed",
		HeaderVersion: int(version),
		Compression:   compressionOf(status).String(),
		UTS:           parseUTS(h[kdUTS:]),
		PageSize:      int(block),
		DumpLevel:     -1,
		NCPUs:         int(le.Uint32(h[kdNCPUs:])),
	}}
	img.info.Machine = img.info.UTS.Machine
	if sec, usec := le.Uint64(h[kdTime:]), le.Uint64(h[kdTime+8:]); sec > 0 && sec < 1<<40 && usec < 1e6 {
		img.info.Time = time.Unix(int64(sec), int64(usec)*1000).UTC()
	}
	if version > kdumpVersionMax {
		img.problem("the header's version %d is newer than the known ones (%d); read as %[2]d", version, kdumpVersionMax)
	}
	if status&flagIncomplete != 0 {
		img.info.Incomplete = true
		img.problem("the program that wrote the dump marked it incomplete")
	}

	sub := make([]byte, kdumpSubLen) // zeroes where the file's version has no such field
	if n := kdumpSubSize(version); n > 0 && subBlocks > 0 {
		if err := src.readAt(int64(block), sub[:n]); err != nil {
			return nil, fmt.Errorf("read kdump sub header: %w", err)
		}
	}
	img.info.PhysBase = int64(le.Uint64(sub[ksPhysBase:]))
	if version >= 1 {
		img.info.DumpLevel = int(int32(le.Uint32(sub[ksDumpLevel:])))
	}
	maxPFN := uint64(le.Uint32(h[kdMaxMapnr:]))
	if n := le.Uint64(sub[ksMaxMapnr64:]); n != 0 {
		maxPFN = n
	}
	if maxPFN > maxPhys/block {
		return nil, fmt.Errorf("%w: kdump header with %#x page frames, more than any machine has", ErrFormat, maxPFN)
	}
	img.addKdumpNotes(src, sub)

	k := &kdumpMemory{
		src:      src,
		pageSize: block,
		nPFN:     maxPFN,
		descOff:  int64((1 + subBlocks + bitmapBlocks) * block),
		decoder:  newDecoder(int(block)),
		cache:    newPageCache(int(block), cacheBytes),
		firstPFN: 0,
		lastPFN:  maxPFN,
	}
	if o.ZeroExcluded {
		k.zeroed = &img.zeroed
	}
	if le.Uint32(sub[ksSplit:]) != 0 {
		k.split = true
		k.firstPFN, k.lastPFN = le.Uint64(sub[ksStartPFN:]), le.Uint64(sub[ksEndPFN:])
		if version >= 6 {
			k.firstPFN, k.lastPFN = le.Uint64(sub[ksStartPFN64:]), le.Uint64(sub[ksEndPFN64:])
		}
		k.lastPFN = min(k.lastPFN, maxPFN)
		k.firstPFN = min(k.firstPFN, k.lastPFN)
	}
	if err := k.readBitmaps(int64((1+subBlocks)*block), bitmapBlocks*block); err != nil {
		return nil, err
	}
	img.mem = k
	img.finish = func() {
		if k.split && (k.firstPFN > 0 || k.lastPFN < k.nPFN) {
			img.info.Incomplete = true
			img.problem("one part of a split dump: it stores only the page frames from %#x up to %#x; give all parts to read the others",
				k.firstPFN, k.lastPFN)
		}
		img.checkTail(k)
	}
	return img, nil
}

// kdumpSubSize returns how many bytes of the sub header a version has.
func kdumpSubSize(version uint32) int {
	return [...]int{8, 12, 32, 48, 64, 80, kdumpSubLen}[min(version, kdumpVersionMax)]
}

func parseUTS(b []byte) UTS {
	field := func(i int) string { return cstring(b[i*utsFieldLen : (i+1)*utsFieldLen]) }
	return UTS{
		Sysname: field(0), Nodename: field(1), Release: field(2),
		Version: field(3), Machine: field(4), Domainname: field(5),
	}
}

func (i *Image) addKdumpNotes(src source, sub []byte) {
	get := func(what string, field int, limit uint64) []byte {
		off, size := binary.LittleEndian.Uint64(sub[field:]), binary.LittleEndian.Uint64(sub[field+8:])
		if off == 0 || size == 0 {
			return nil
		}
		err := fmt.Errorf("%d bytes are too many", size)
		if size <= limit {
			var b []byte
			if b, err = src.view(int64(off), int(size)); err == nil {
				return b
			}
		}
		i.info.Truncated = i.info.Truncated || errors.Is(err, io.ErrUnexpectedEOF)
		i.problem("%s at file offset %#x: %v", what, off, err)
		return nil
	}
	i.infoText = get("VMCOREINFO", ksVMCoreInfo, maxVMCoreInfo)
	notes, err := ParseNotes(get("notes", ksNote, maxNotes))
	if err != nil {
		i.problem("notes: %v", err)
	}
	i.notes = notes
}

// kdumpMemory is the physical memory of a kdump-compressed file.
type kdumpMemory struct {
	src               source
	pageSize          uint64
	nPFN              uint64 // page frames that the bitmaps are about
	firstPFN, lastPFN uint64 // those whose descriptors are here, half-open; fewer than nPFN in a split dump
	descOff           int64  // place of the first descriptor in the file

	memory bitmap // a bit per page frame that is memory; may be cut short
	filed  bitmap // a bit per page frame that has a descriptor; may be cut short
	split  bool   // the file is one part of a split dump

	decoder *decoder
	cache   *pageCache
	zeroed  *atomic.Uint64 // counts the reads of excluded pages as zeroes; nil if they fail
}

// descs returns the number of descriptors of the page frames below pfn, not
// counting those in other parts of a split dump.
func (k *kdumpMemory) descs(pfn uint64) uint64 {
	n := k.filed.rank(pfn)
	if k.firstPFN > 0 {
		n -= k.filed.rank(k.firstPFN)
	}
	return n
}

// readBitmaps reads the two bitmaps, size bytes at off together, as far as the
// file has them.
func (k *kdumpMemory) readBitmaps(off int64, size uint64) error {
	need := (k.nPFN + 7) / 8
	half := size / 2
	get := func(at int64, n uint64) (bitmap, error) {
		n = min(n, uint64(max(k.src.size()-at, 0)))
		b, err := k.src.view(min(at, k.src.size()), int(n))
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return newBitmap(nil), nil // a hole where the bitmap should be: an unfinished flattened stream
		}
		if err != nil {
			return bitmap{}, fmt.Errorf("read page bitmap at %#x: %w", at, err)
		}
		m := newBitmap(b)
		m.r.before = func() { k.src.prefetch(at, int64(n)) }
		return m, nil
	}
	var err error
	switch {
	case need <= half:
		if k.memory, err = get(off, need); err != nil {
			return err
		}
		k.filed, err = get(off+int64(half), need)
	case need <= size: // one bitmap only, as old writers did
		k.filed, err = get(off, need)
		k.memory = k.filed
	default:
		return fmt.Errorf("%w: kdump header with %#x page frames but only %d bytes of bitmaps", ErrFormat, k.nPFN, size)
	}
	return err
}

// desc is a page descriptor.
type desc struct {
	off   int64
	size  uint32
	flags uint32
}

// find returns the descriptor of a page frame, or the reason why its page
// cannot be had, in detail where there is more to say.
func (k *kdumpMemory) find(pfn uint64) (desc, addr.Reason, error) {
	switch {
	case pfn >= k.nPFN:
		return desc{}, addr.NotInDump, nil
	case pfn >= k.filed.len():
		return desc{}, addr.Truncated, errors.New("the file ends before the bitmap of stored pages does")
	case !k.filed.has(pfn) && k.memory.has(pfn):
		return desc{}, addr.Excluded, nil
	case !k.filed.has(pfn):
		return desc{}, addr.NotInDump, nil
	case pfn < k.firstPFN || pfn >= k.lastPFN:
		return desc{}, addr.MissingPart, nil
	}
	return k.descAt(k.descs(pfn))
}

// descAt returns the descriptor of the given number, or why there is no page.
func (k *kdumpMemory) descAt(n uint64) (desc, addr.Reason, error) {
	b, err := k.src.view(k.descOff+int64(n*pageDescLen), pageDescLen)
	if err != nil {
		return desc{}, addr.Truncated, fmt.Errorf("page descriptor %d: %w", n, err)
	}
	d := desc{
		off:   int64(binary.LittleEndian.Uint64(b)),
		size:  binary.LittleEndian.Uint32(b[8:]),
		flags: binary.LittleEndian.Uint32(b[12:]),
	}
	switch {
	case d.off == 0:
		return d, addr.NotWritten, errors.New("its descriptor is empty: the writer ran out of space or time")
	case !inside(d.off, int64(d.size), k.src.size()):
		return d, addr.Truncated, nil
	}
	return d, 0, nil
}

func (k *kdumpMemory) state(pfn addr.PFN) State {
	_, why, _ := k.find(uint64(pfn))
	switch why {
	case 0:
		return Present
	case addr.Excluded:
		return Excluded
	case addr.NotInDump:
		return Absent
	}
	return Truncated
}

func (k *kdumpMemory) page(pfn addr.PFN) ([]byte, error) { return k.pageInto(pfn, nil) }

// pageInto returns a page. It unpacks it into buf, past the cache, if buf is not nil.
func (k *kdumpMemory) pageInto(pfn addr.PFN, buf []byte) ([]byte, error) {
	d, why, err := k.find(uint64(pfn))
	p := addr.Phys(uint64(pfn) * k.pageSize)
	if why == addr.Excluded && k.zeroed != nil {
		k.zeroed.Add(1)
		return make([]byte, k.pageSize), nil
	}
	if why != 0 {
		return nil, fault(p, why, err)
	}
	if b := k.cache.get(d); b != nil {
		return b, nil
	}
	if uint64(d.size) > 2*k.pageSize {
		return nil, fault(p, addr.Corrupt, fmt.Errorf("%d bytes for one page", d.size))
	}
	packed, err := k.src.view(d.off, int(d.size))
	if err != nil {
		return nil, fault(p, ioReason(err), err)
	}
	b, err := k.decoder.decode(packed, d.flags, buf)
	if err != nil {
		return nil, fault(p, addr.Corrupt, err)
	}
	if buf == nil {
		k.cache.put(d, b)
	} else if d.size <= tinyPage {
		k.cache.put(d, bytes.Clone(b))
	}
	return b, nil
}

// tinyPage is the size in bytes of stored pages that are worth keeping even when
// all are read: those of zeroes, which many page frames share.
const tinyPage = 64

func (k *kdumpMemory) read(p addr.Phys, b []byte) error {
	page, err := k.page(addr.PFN(uint64(p) / k.pageSize))
	if err != nil {
		if f, ok := errors.AsType[*addr.Fault](err); ok {
			f.Phys = p
		}
		return err
	}
	copy(b, page[uint64(p)%k.pageSize:])
	return nil
}

func (k *kdumpMemory) stored() iter.Seq2[uint64, uint64] {
	return func(yield func(start, end uint64) bool) {
		for start, end := range k.filed.all() {
			if start >= k.nPFN || !yield(start, min(end, k.nPFN)) {
				return
			}
		}
	}
}

func (k *kdumpMemory) ranges() []addr.Range {
	r := make([]addr.Range, 0, min(k.memory.runs(), kdumpMaxRanges))
	for start, end := range k.memory.all() {
		if start >= k.nPFN || len(r) == kdumpMaxRanges {
			break
		}
		r = appendRange(r, start*k.pageSize, min(end, k.nPFN)*k.pageSize)
	}
	return r
}

// tailDescs is how many of the last descriptors are looked at when a file is
// opened, to tell whether it is whole. makedumpfile stores pages in order, so
// that only zero pages, which share one place, hide the end.
const tailDescs = 1024

// checkTail finds out whether the end of the file is missing.
func (i *Image) checkTail(k *kdumpMemory) {
	if k.filed.len() < k.nPFN {
		i.info.Truncated = true
		i.problem("the file ends within the page bitmaps: no page can be read")
		return
	}
	n := k.descs(k.lastPFN)
	var cut, empty int
	for j := n - min(n, tailDescs); j < n; j++ {
		switch _, why, _ := k.descAt(j); why {
		case addr.NotWritten:
			empty++
		case addr.Truncated:
			cut++
		}
	}
	if empty > 0 {
		i.info.Incomplete = true
		i.problem("%d of the last page descriptors are empty: the writer did not finish", empty)
	}
	if cut > 0 {
		i.info.Truncated = true
		i.problem("the file ends before the data of its last pages (%d of the last %d)", cut, min(n, tailDescs))
	}
}
