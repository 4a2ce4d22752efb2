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

// State says what a capture knows about a page.
type State uint8

// The states of a page.
const (
	Absent State = iota // the machine has no such memory, as far as its kernel said
	Zero                // all zero
	Data                // as returned
)

// Capture is the memory of a crashed kernel as received from the capture
// kernel. Every checksum has been verified. Its methods are safe for
// concurrent use until Close, after which no slice it returned may be used.
type Capture struct {
	disk   *mapping
	head   []byte
	core   *core
	runs   []placed
	totals Totals
	zero   [PageSize]byte
}

// placed is a run and its data.
type placed struct {
	run
	data []byte // nil for runZero
}

// OpenCapture opens the capture on the raw disk image at path. A damaged or
// incomplete one is an error: ErrNoStream, ErrIncomplete or what differs.
func OpenCapture(path string) (*Capture, error) {
	disk, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("open capture: %w", err)
	}
	c, err := readCapture(disk.b)
	if err != nil {
		disk.close()
		return nil, fmt.Errorf("open capture %s: %w", path, err)
	}
	c.disk = disk
	return c, nil
}

// Close releases the file.
func (c *Capture) Close() error { return c.disk.close() }

func readCapture(b []byte) (*Capture, error) {
	blocks, end, err := readBlocks(b)
	if err != nil {
		return nil, err
	}
	c := &Capture{}
	for i, k := range blocks {
		switch {
		case k.kind == blockHead && c.runs == nil:
			c.head = append(c.head, k.body...)
		case k.kind == blockPages:
			if err := c.addRuns(k); err != nil {
				return nil, fmt.Errorf("block %d: %w", i, err)
			}
		default:
			return nil, fmt.Errorf("block %d is of kind %d, not of a capture", i, k.kind)
		}
	}
	if c.core, err = parseCore(c.head); err != nil {
		return nil, err
	}
	if len(c.head) != c.core.headLen {
		return nil, fmt.Errorf("head of %d bytes, want %d", len(c.head), c.core.headLen)
	}
	for _, s := range c.core.segments {
		if s.kind == elf.PT_NOTE && (s.off > uint64(len(c.head)) || s.size > uint64(len(c.head))-s.off) {
			return nil, fmt.Errorf("notes of %d bytes at offset %#x, the head has %d", s.size, s.off, len(c.head))
		}
	}
	if err := c.checkCoverage(); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if len(end) != 16 || le.Uint64(end) != c.totals.Data || le.Uint64(end[8:]) != c.totals.Zero {
		return nil, fmt.Errorf("capture has %d pages of data and %d of zeros, its end says % x", c.totals.Data, c.totals.Zero, end)
	}
	return c, nil
}

// addRuns appends the runs of a blockPages block.
func (c *Capture) addRuns(k block) error {
	if len(k.meta)%runSize != 0 {
		return fmt.Errorf("runs of %d bytes", len(k.meta))
	}
	le := binary.LittleEndian
	data := k.body
	for m := k.meta; len(m) > 0; m = m[runSize:] {
		r := run{pfn: addr.PFN(le.Uint64(m)), pages: uint64(le.Uint32(m[8:])), kind: runKind(le.Uint32(m[12:]))}
		p := placed{run: r}
		switch r.kind {
		case runZero:
			c.totals.Zero += r.pages
		case runData:
			if r.pages*PageSize > uint64(len(data)) {
				return fmt.Errorf("run of %d pages, the block has %d more bytes", r.pages, len(data))
			}
			p.data, data = data[:r.pages*PageSize], data[r.pages*PageSize:]
			c.totals.Data += r.pages
		default:
			return fmt.Errorf("run of kind %d", r.kind)
		}
		c.runs = append(c.runs, p)
	}
	if len(data) > 0 {
		return fmt.Errorf("%d bytes belong to no run", len(data))
	}
	return nil
}

// checkCoverage verifies that the runs are exactly the pages of the core, once.
func (c *Capture) checkCoverage() error {
	spans := c.core.spans()
	for _, r := range c.runs {
		for at, left := r.pfn, r.pages; left > 0; {
			if len(spans) == 0 || at < spans[0].PFN {
				return fmt.Errorf("page %#x is in no memory range or was sent twice", uint64(at))
			}
			if at > spans[0].PFN {
				return fmt.Errorf("page %#x is missing", uint64(spans[0].PFN))
			}
			n := min(left, spans[0].Pages)
			at, left = at+addr.PFN(n), left-n
			spans[0].PFN, spans[0].Pages = at, spans[0].Pages-n
			if spans[0].Pages == 0 {
				spans = spans[1:]
			}
		}
	}
	if len(spans) > 0 {
		return fmt.Errorf("page %#x is missing", uint64(spans[0].PFN))
	}
	return nil
}

// Totals returns how many pages the capture has.
func (c *Capture) Totals() Totals { return c.totals }

// Head returns the start of the guest's /proc/vmcore: ELF header, program
// headers and notes, in its own byte order and layout.
func (c *Capture) Head() []byte { return c.head }

// Ranges returns the machine's memory, ascending and without overlaps, as the
// program headers give it: a bound need not be a multiple of the page size.
func (c *Capture) Ranges() []addr.Range {
	var all []addr.Range
	for _, s := range c.core.segments {
		if s.kind == elf.PT_LOAD && s.size > 0 {
			all = append(all, addr.Range{Start: s.phys, Size: s.size})
		}
	}
	slices.SortFunc(all, func(a, b addr.Range) int { return cmp.Compare(a.Start, b.Start) })
	var out []addr.Range
	for _, r := range all {
		if n := len(out); n > 0 && r.Start <= out[n-1].End() {
			out[n-1].Size = max(out[n-1].Size, uint64(r.End()-out[n-1].Start))
		} else {
			out = append(out, r)
		}
	}
	return out
}

// Notes returns the contents of PT_NOTE: per-CPU registers and VMCOREINFO.
func (c *Capture) Notes() []byte {
	for _, s := range c.core.segments {
		if s.kind == elf.PT_NOTE {
			return c.head[s.off:][:s.size]
		}
	}
	return nil
}

// VMCoreInfo returns the text of the VMCOREINFO note. It is an error if there
// is none: the dump would be of no use.
func (c *Capture) VMCoreInfo() ([]byte, error) {
	le := binary.LittleEndian
	align := func(n uint64) uint64 { return (n + 3) &^ 3 }
	for b := c.Notes(); len(b) >= 12; {
		name, desc := align(uint64(le.Uint32(b))), align(uint64(le.Uint32(b[4:])))
		if name+desc > uint64(len(b)-12) {
			return nil, errors.New("read VMCOREINFO: a note passes the end of the notes")
		}
		if string(b[12:12+le.Uint32(b)]) == "VMCOREINFO\x00" {
			return b[12+name:][:le.Uint32(b[4:])], nil
		}
		b = b[12+name+desc:]
	}
	return nil, errors.New("read VMCOREINFO: no such note")
}

// Page returns the page with frame number pfn. The slice is nil unless the
// state is Data; it belongs to the Capture and must not be changed.
func (c *Capture) Page(pfn addr.PFN) ([]byte, State) {
	i, found := slices.BinarySearchFunc(c.runs, pfn, func(p placed, pfn addr.PFN) int { return cmp.Compare(p.pfn, pfn) })
	if !found {
		i--
	}
	if i < 0 || uint64(pfn-c.runs[i].pfn) >= c.runs[i].pages {
		return nil, Absent
	}
	r := c.runs[i]
	if r.kind == runZero {
		return nil, Zero
	}
	return r.data[(pfn-r.pfn)*PageSize:][:PageSize:PageSize], Data
}
