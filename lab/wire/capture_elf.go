package wire

import (
	"debug/elf"
	"fmt"
	"io"

	"crashlab/crashkit/addr"
)

// Size returns the size of the guest's /proc/vmcore in bytes.
func (c *Capture) Size() int64 {
	size := uint64(len(c.head))
	for _, s := range c.core.segments {
		if s.kind == elf.PT_LOAD {
			size = max(size, s.start()+s.length())
		}
	}
	return int64(size)
}

// ReadAt reads the guest's /proc/vmcore as it was, zero pages included: the
// capture is an io.ReaderAt of an ELF file that exists nowhere.
func (c *Capture) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read vmcore at %d: negative offset", off)
	}
	n := 0
	for n < len(b) {
		from := c.at(uint64(off) + uint64(n))
		if from == nil {
			return n, io.EOF
		}
		n += copy(b[n:], from)
	}
	return n, nil
}

// at returns what stands at an offset of /proc/vmcore, to the end of a page at
// most; nil past the end.
func (c *Capture) at(off uint64) []byte {
	if off < uint64(len(c.head)) {
		return c.head[off:]
	}
	for _, s := range c.core.segments {
		if s.kind != elf.PT_LOAD || off < s.start() || off-s.start() >= s.length() {
			continue
		}
		in := off - s.start()
		page, state := c.Page(s.first() + addr.PFN(in/PageSize))
		if state != Data {
			page = c.zero[:]
		}
		return page[in%PageSize:]
	}
	if off < uint64(c.Size()) {
		return c.zero[:1] // between two segments
	}
	return nil
}
