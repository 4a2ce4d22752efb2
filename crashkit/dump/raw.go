package dump

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"crashlab/crashkit/addr"
)

// RAMRange is a range of physical memory in a raw image, and where its first
// byte is in the file: -1 if the list of ranges does not say.
type RAMRange struct {
	addr.Range
	Offset int64
}

// maxRAMRanges bounds the list for a raw image. Real machines have dozens.
const maxRAMRanges = 4096

// ParseRAM parses the list of ranges of a raw RAM image. It may be
//
//   - written by hand, "0x0-0x9fc00,0x100000-0x7ffe0000": half-open, in hex or
//     decimal, each with "@OFFSET" behind it to say where in the file it begins;
//   - the guest's /proc/iomem, of which the lines that say "System RAM" count, or
//   - the lines of the kernel's log with the firmware's map,
//     "BIOS-e820: [mem 0x0000000000100000-0x000000007ffdffff] usable"
//     (arch/x86/kernel/e820.c). Both of these are inclusive.
//
// The ranges must be ascending and must not overlap.
func ParseRAM(text string) ([]RAMRange, error) {
	var all []RAMRange
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		span, name, listed := strings.Cut(line, " : ")
		_, mem, e820 := strings.Cut(line, "[mem ")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case e820:
			span, name, _ := strings.Cut(mem, "] ")
			if name != "usable" {
				continue
			}
			r, err := parseInclusive(span, 0)
			if err != nil {
				return nil, fmt.Errorf("line %q: %w", line, err)
			}
			all = append(all, r)
		case listed:
			if name != "System RAM" {
				continue
			}
			r, err := parseInclusive(span, 16)
			if err != nil {
				return nil, fmt.Errorf("line %q: %w", line, err)
			}
			all = append(all, r)
		default:
			for item := range strings.SplitSeq(line, ",") {
				r, err := parseRange(strings.TrimSpace(item))
				if err != nil {
					return nil, fmt.Errorf("memory range %q: %w", item, err)
				}
				all = append(all, r)
			}
		}
		if len(all) > maxRAMRanges {
			return nil, fmt.Errorf("more than %d memory ranges", maxRAMRanges)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no memory ranges: want START-END,… or lines of /proc/iomem (read as root) or of e820")
	}
	for i := 1; i < len(all); i++ {
		if all[i].Start < all[i-1].End() {
			return nil, fmt.Errorf("memory range %v does not lie behind %v", all[i].Range, all[i-1].Range)
		}
	}
	return all, nil
}

// parseInclusive parses START-LAST in the given base.
func parseInclusive(s string, base int) (RAMRange, error) {
	from, last, _ := strings.Cut(s, "-")
	a, err1 := strconv.ParseUint(from, base, 64)
	b, err2 := strconv.ParseUint(last, base, 64)
	switch {
	case err1 != nil || err2 != nil:
		return RAMRange{}, errors.Join(err1, err2)
	case a == 0 && b == 0:
		return RAMRange{}, errors.New("all addresses are 0: only root sees them")
	}
	return ramRange(a, b+1, -1)
}

// parseRange parses START-END or START-END@OFFSET.
func parseRange(s string) (RAMRange, error) {
	span, at, placed := strings.Cut(s, "@")
	off := int64(-1)
	if placed {
		n, err := strconv.ParseUint(at, 0, 63)
		if err != nil {
			return RAMRange{}, err
		}
		off = int64(n)
	}
	from, till, ok := strings.Cut(span, "-")
	if !ok {
		return RAMRange{}, errors.New("want START-END")
	}
	a, err1 := strconv.ParseUint(from, 0, 64)
	b, err2 := strconv.ParseUint(till, 0, 64)
	if err := errors.Join(err1, err2); err != nil {
		return RAMRange{}, err
	}
	return ramRange(a, b, off)
}

func ramRange(start, end uint64, off int64) (RAMRange, error) {
	if start >= end || end > maxPhys {
		return RAMRange{}, fmt.Errorf("from %#x to %#x: empty, or beyond what any machine has", start, end)
	}
	return RAMRange{addr.Range{Start: addr.Phys(start), Size: end - start}, off}, nil
}

// fourG is where memory goes on that would be in the way of devices below it.
const fourG = 4 << 30

// placeRAM says where the ranges are in an image of the given size, and how that
// was concluded.
func placeRAM(ranges []RAMRange, size int64) ([]RAMRange, string, error) {
	var sum uint64
	placed := 0
	for _, r := range ranges {
		sum += r.Size
		if r.Offset >= 0 {
			placed++
		}
	}
	last := ranges[len(ranges)-1]
	out := append([]RAMRange(nil), ranges...)
	at := func(place func(RAMRange) int64, how string) ([]RAMRange, string, error) {
		for i := range out {
			out[i].Offset = place(out[i])
		}
		return out, how, nil
	}
	shift, low := highMemory(ranges, size)
	switch {
	case placed == len(ranges):
		return out, "the memory ranges are where they were said to be", nil
	case placed > 0:
		return nil, "", fmt.Errorf("%d of %d memory ranges have an @OFFSET: want all or none", placed, len(ranges))
	case sum == uint64(size):
		next := int64(0)
		return at(func(r RAMRange) int64 { next += int64(r.Size); return next - int64(r.Size) },
			"the file has the size of all memory ranges together: they are taken for stored one after the other")
	case uint64(size) >= uint64(last.End()):
		return at(func(r RAMRange) int64 { return int64(r.Start) },
			"the file is as large as the last address of memory: its offsets are taken for addresses")
	case low > 0:
		return at(func(r RAMRange) int64 {
			if r.Start >= fourG {
				return int64(r.Start) - shift
			}
			return int64(r.Start)
		}, fmt.Sprintf("the memory from 4 GiB up is taken to begin at offset %#x of the file, where that below ends", low))
	}
	return nil, "", fmt.Errorf("the file has %#x bytes, which are neither the %#x of all memory ranges together nor enough for the last, %v: "+
		"give the place of each in the file as START-END@OFFSET", size, sum, last.Range)
}

// highMemory tells whether an image of that size can be one in which the memory
// from 4 GiB up follows that below at once, as QEMU keeps it: low bytes are below.
func highMemory(ranges []RAMRange, size int64) (shift, low int64) {
	last := ranges[len(ranges)-1]
	if last.Start < fourG {
		return 0, 0
	}
	low = size - int64(last.End()-fourG)
	for _, r := range ranges {
		if r.Start < fourG && (r.End() > fourG || int64(r.End()) > low) {
			return 0, 0
		}
	}
	if low <= 0 || low > fourG {
		return 0, 0
	}
	return fourG - low, low
}

// openRaw opens an image of memory without any header. Machines are taken for
// x86-64, as nothing says what they are.
func openRaw(src source, ranges []RAMRange, o Options) (*Image, error) {
	placed, how, err := placeRAM(ranges, src.size())
	if err != nil {
		return nil, fmt.Errorf("%w: raw memory: %w", ErrFormat, err)
	}
	img := &Image{info: Info{Format: "raw memory", Machine: "x86_64", PageSize: defaultPage, DumpLevel: -1}}
	if len(placed) > 1 {
		img.problem("%s", how)
	}
	var segments []Segment
	for _, r := range placed {
		if r.Offset > src.size()-int64(r.Size) {
			img.info.Truncated = true
			img.problem("the file ends before the end of memory range %v", r.Range)
		}
		segments = append(segments, Segment{Phys: r.Start, Offset: r.Offset, FileSize: r.Size, MemSize: r.Size})
	}
	m := &elfMemory{src: src, pageSize: defaultPage, extents: elfExtents(segments, src.size())}
	if o.ZeroExcluded {
		m.zeroed = &img.zeroed
	}
	img.mem = m
	return img, nil
}

// detectRaw opens a file of unknown kind as an image of a QEMU guest's memory
// (memory-backend-file) if it has the firmware's memory map where boot loaders
// leave it, or a kernel's VMCOREINFO and no more than can lie in one piece.
func detectRaw(src source, o Options) (*Image, bool) {
	const wholeBelow = 2 << 30 // QEMU leaves no hole in less
	size := src.size()
	if size < 1<<20 || size%defaultPage != 0 {
		return nil, false
	}
	usable := findE820(src)
	var ranges []RAMRange
	how := "the file is taken for the memory of a virtual machine"
	switch {
	case usable != nil && uint64(usable[len(usable)-1].End()) > fourG:
		_, low := highMemory(usable, size)
		if low == 0 {
			return nil, false
		}
		ranges = []RAMRange{
			{addr.Range{Size: uint64(low)}, 0},
			{addr.Range{Start: fourG, Size: uint64(size - low)}, low},
		}
		how += fmt.Sprintf("; by the firmware's memory map in it, %#x bytes are below 4 GiB", low)
	case usable != nil && uint64(usable[len(usable)-1].End()) <= uint64(size), size <= wholeBelow:
		ranges = []RAMRange{{addr.Range{Size: uint64(size)}, 0}}
	default:
		return nil, false
	}
	img, err := openRaw(src, ranges, o)
	if err != nil {
		return nil, false
	}
	if usable == nil && len(img.ScanVMCoreInfo()) == 0 {
		return nil, false
	}
	img.info.Problems = []string{how}
	return img, true
}

// The place of the memory map in what the boot loader hands to the kernel,
// struct boot_params (arch/x86/include/uapi/asm/bootparam.h, v6.1), in bytes.
const (
	bpE820Count = 0x1e8
	bpMagic     = 0x202 // "HdrS"
	bpE820      = 0x2d0 // entries of 20 bytes: address u64, size u64, type u32
	bpE820Max   = 128
	e820Len     = 20
	e820Usable  = 1
)

// findE820 looks for a struct boot_params in the first megabyte, which Linux
// leaves alone, and returns the usable memory that it lists, ascending; nil if
// there is none.
func findE820(src source) []RAMRange {
	low, err := src.view(0, 1<<20)
	if err != nil {
		return nil
	}
	for at := 0; ; at++ {
		i := bytes.Index(low[at:], []byte("HdrS"))
		if i < 0 {
			return nil
		}
		at += i
		start := at - bpMagic
		if start < 0 || start+bpE820+bpE820Max*e820Len > len(low) {
			continue
		}
		n := min(int(low[start+bpE820Count]), bpE820Max)
		if ranges := parseE820(low[start+bpE820:][:n*e820Len]); ranges != nil {
			return ranges
		}
	}
}

// parseE820 returns the usable ranges of a table; nil if it is none that a
// firmware would make.
func parseE820(b []byte) []RAMRange {
	var usable []RAMRange
	end := uint64(0)
	for ; len(b) > 0; b = b[e820Len:] {
		start, size := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		if start < end || start > maxPhys || size == 0 || size > maxPhys-start {
			return nil
		}
		end = start + size
		if binary.LittleEndian.Uint32(b[16:]) == e820Usable {
			usable = append(usable, RAMRange{addr.Range{Start: addr.Phys(start), Size: size}, -1})
		}
	}
	return usable
}
