package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"crashlab/crashkit/addr"
	"github.com/google/go-cmp/cmp"
)

// disk collects blocks the way the guest's disk does.
type disk struct {
	b   []byte
	buf []byte
}

func (d *disk) put(block []byte) ([]byte, error) {
	d.b = append(d.b, block...)
	return d.buf, nil
}

// file writes the disk, followed by zeros as on a larger disk, to a file.
func (d *disk) file(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, append(bytes.Clone(d.b), make([]byte, 3*PageSize)...), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

type load struct {
	phys, size uint64
}

// vmcore builds a /proc/vmcore: the loads' pages hold their frame number, or
// zeros where zero says so.
func vmcore(loads []load, zero func(pfn uint64) bool) []byte {
	le := binary.LittleEndian
	const notesOff = PageSize
	note := func(name, desc string) []byte {
		b := le.AppendUint32(nil, uint32(len(name)+1))
		b = le.AppendUint32(b, uint32(len(desc)))
		b = le.AppendUint32(b, 0)
		for _, s := range []string{name + "\x00", desc} {
			b = append(b, s...)
			for len(b)%4 != 0 {
				b = append(b, 0)
			}
		}
		return b
	}
	notes := append(note("CORE", "registers"), note("VMCOREINFO", "OSRELEASE=6.1.0\nPAGESIZE=4096\n")...)
	b := make([]byte, 2*PageSize)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 4)  // ET_CORE
	le.PutUint64(b[32:], 64) // e_phoff
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], uint16(len(loads)+1))
	phdr := func(i int, kind uint32, off, phys, size uint64) {
		p := b[64+56*i:]
		le.PutUint32(p, kind)
		le.PutUint64(p[8:], off)
		le.PutUint64(p[24:], phys)
		le.PutUint64(p[32:], size)
		le.PutUint64(p[40:], size)
	}
	phdr(0, 4, notesOff, 0, uint64(len(notes)))
	copy(b[notesOff:], notes)
	for i, l := range loads {
		phdr(i+1, 1, uint64(len(b))+l.phys%PageSize, l.phys, l.size)
		for pfn := l.phys / PageSize; pfn*PageSize < l.phys+l.size; pfn++ {
			page := make([]byte, PageSize)
			if !zero(pfn) {
				for i := 0; i < PageSize; i += 8 {
					le.PutUint64(page[i:], pfn*PageSize+uint64(i))
				}
			}
			b = append(b, page...)
		}
	}
	return b
}

// capture sends core through a CaptureWriter, pages at a time.
func capture(t *testing.T, core []byte, blockPages, pages int) *disk {
	t.Helper()
	n := 0
	for {
		need, err := CoreHeadLen(core[:n])
		if err != nil {
			t.Fatal(err)
		}
		if need <= n {
			break
		}
		n = need
	}
	d := &disk{buf: make([]byte, blockPages*PageSize)}
	w, err := NewCaptureWriter(core[:n], d.buf, d.put)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range w.Spans() {
		for i := uint64(0); i < s.Pages; i += uint64(pages) {
			k := min(uint64(pages), s.Pages-i)
			if err := w.Write(s.PFN+addr.PFN(i), core[s.Off+i*PageSize:][:k*PageSize]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return d
}

var kinds = map[string]struct {
	loads  []load
	zero   func(uint64) bool
	ranges []addr.Range
	totals Totals
}{
	"kernel text listed twice, as on x86-64": {
		loads:  []load{{0x30000, 0x4000}, {0x10000, 0x40000}, {0x100000, 0x2000}},
		zero:   func(pfn uint64) bool { return pfn%8 > 5 },
		ranges: []addr.Range{{Start: 0x10000, Size: 0x40000}, {Start: 0x100000, Size: 0x2000}},
		totals: Totals{Data: 50, Zero: 16},
	},
	"bounds inside pages": {
		loads:  []load{{0x1000, 0x9ec00}, {0x100400, 0x1000}},
		zero:   func(pfn uint64) bool { return pfn < 0x90 },
		ranges: []addr.Range{{Start: 0x1000, Size: 0x9ec00}, {Start: 0x100400, Size: 0x1000}},
		totals: Totals{Data: 18, Zero: 143},
	},
	"adjacent ranges": {
		loads:  []load{{0x1000, 0x3000}, {0x4000, 0x3000}},
		zero:   func(uint64) bool { return false },
		ranges: []addr.Range{{Start: 0x1000, Size: 0x6000}},
		totals: Totals{Data: 6},
	},
	"all zero": {
		loads:  []load{{0, 0x400000}},
		zero:   func(uint64) bool { return true },
		ranges: []addr.Range{{Start: 0, Size: 0x400000}},
		totals: Totals{Zero: 0x400},
	},
	"more runs than a block holds": {
		loads:  []load{{0, 0x400000}},
		zero:   func(pfn uint64) bool { return pfn%2 == 0 },
		ranges: []addr.Range{{Start: 0, Size: 0x400000}},
		totals: Totals{Data: 0x200, Zero: 0x200},
	},
}

func TestCaptureRoundTrip(t *testing.T) {
	for name, k := range kinds {
		for _, shape := range []struct{ blockPages, pages int }{{2, 1}, {9, 4}, {257, 64}, {1024, 1000}} {
			core := vmcore(k.loads, k.zero)
			c, err := OpenCapture(capture(t, core, shape.blockPages, shape.pages).file(t))
			if err != nil {
				t.Errorf("%s %v: OpenCapture() = %v", name, shape, err)
				continue
			}
			elf, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
			if err != nil || !bytes.Equal(elf, core) {
				t.Errorf("%s %v: ReadAt read %d bytes, error %v, that differ from the %d of /proc/vmcore", name, shape, len(elf), err, len(core))
			}
			if diff := cmp.Diff(k.ranges, c.Ranges()); diff != "" {
				t.Errorf("%s %v: Ranges() (-want +got):\n%s", name, shape, diff)
			}
			if got := c.Totals(); got != k.totals {
				t.Errorf("%s %v: Totals() = %+v; want %+v", name, shape, got, k.totals)
			}
			for _, l := range k.loads {
				for pfn := l.phys / PageSize; pfn*PageSize < l.phys+l.size; pfn++ {
					page, state := c.Page(addr.PFN(pfn))
					switch {
					case k.zero(pfn) && state != Zero, !k.zero(pfn) && state != Data:
						t.Errorf("%s %v: Page(%#x) has state %d", name, shape, pfn, state)
					case state == Data && binary.LittleEndian.Uint64(page[8:]) != pfn*PageSize+8:
						t.Errorf("%s %v: Page(%#x) is another page", name, shape, pfn)
					}
				}
			}
			if _, state := c.Page(1 << 40); state != Absent {
				t.Errorf("%s %v: Page(1<<40) has state %d; want Absent", name, shape, state)
			}
			info, err := c.VMCoreInfo()
			if got, want := string(info), "OSRELEASE=6.1.0\nPAGESIZE=4096\n"; err != nil || got != want {
				t.Errorf("%s %v: VMCoreInfo() = %q, %v; want %q", name, shape, got, err, want)
			}
			if err := c.Close(); err != nil {
				t.Errorf("%s %v: Close() = %v", name, shape, err)
			}
		}
	}
}

func smallCapture(t *testing.T) []byte {
	core := vmcore([]load{{0x13000, 0x1000}, {0x10000, 0x6000}}, func(pfn uint64) bool { return pfn%4 == 2 })
	return capture(t, core, 4, 2).b
}

func TestCaptureTruncated(t *testing.T) {
	b := smallCapture(t)
	for _, n := range append([]int{0, 1, 48, PageSize - 1, len(b) - 1}, multiples(len(b))...) {
		for _, tail := range []int{0, 5 * PageSize} { // the disk ends there, or was never written there
			_, err := readCapture(append(bytes.Clone(b[:n]), make([]byte, tail)...))
			if err == nil {
				t.Errorf("readCapture of the first %d of %d bytes and %d zeros = nil error", n, len(b), tail)
			}
			if n == 0 && !errors.Is(err, ErrNoStream) {
				t.Errorf("readCapture of %d zeros = %v; want ErrNoStream", tail, err)
			}
			if n >= PageSize && n%PageSize == 0 && errors.Is(err, ErrNoStream) {
				t.Errorf("readCapture of the first %d bytes = %v", n, err)
			}
		}
	}
}

// multiples returns the page bounds below n and a byte beside each.
func multiples(n int) []int {
	var out []int
	for i := PageSize; i < n; i += PageSize {
		out = append(out, i-1, i, i+1)
	}
	return out
}

func TestCaptureFlippedByte(t *testing.T) {
	b := smallCapture(t)
	for i := 0; i < len(b); i += 13 {
		b[i] ^= 0x10
		if _, err := readCapture(b); err == nil {
			t.Errorf("readCapture with byte %d of %d flipped = nil error", i, len(b))
		}
		b[i] ^= 0x10
	}
	if _, err := readCapture(b); err != nil {
		t.Errorf("readCapture of the untouched stream = %v", err)
	}
}

func TestCaptureExchangedBlocks(t *testing.T) {
	core := vmcore([]load{{0, 0x10000}}, func(uint64) bool { return false })
	b := capture(t, core, 2, 1).b // head, then blocks of two pages
	x, y := b[4*PageSize:6*PageSize], b[6*PageSize:8*PageSize]
	z := bytes.Clone(x)
	copy(x, y)
	copy(y, z)
	if _, err := readCapture(b); err == nil {
		t.Error("readCapture with two blocks exchanged = nil error")
	}
}

// A stream whose checksums are right may still not be a capture.
func TestCaptureOfWrongPages(t *testing.T) {
	core := vmcore([]load{{0x1000, 0x4000}}, func(uint64) bool { return false })
	page := make([]byte, PageSize)
	for name, pfns := range map[string][]addr.PFN{
		"missing at the start": {2, 3, 4},
		"missing in between":   {1, 2, 4},
		"missing at the end":   {1, 2, 3},
		"twice":                {1, 2, 2, 3, 4},
		"not of the machine":   {1, 2, 3, 4, 5},
		"out of order":         {2, 1, 3, 4},
		"none":                 {},
	} {
		d := &disk{buf: make([]byte, 4*PageSize)}
		w, err := NewCaptureWriter(core[:2*PageSize], d.buf, d.put)
		if err != nil {
			t.Fatal(err)
		}
		for _, pfn := range pfns {
			if err := w.Write(pfn, page); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := readCapture(d.b); err == nil {
			t.Errorf("%s: readCapture() = nil error", name)
		}
	}
}

func TestCoreHeadLenBad(t *testing.T) {
	good := vmcore([]load{{0x1000, 0x1000}}, func(uint64) bool { return true })[:2*PageSize]
	for name, change := range map[string]func([]byte){
		"not ELF":      func(b []byte) { b[0] = 'X' },
		"32 bit":       func(b []byte) { b[4] = 1 },
		"big endian":   func(b []byte) { b[5] = 2 },
		"not a core":   func(b []byte) { b[16] = 2 },
		"far headers":  func(b []byte) { b[39] = 0xff },
		"header size":  func(b []byte) { b[54] = 0 },
		"no load":      func(b []byte) { b[64+56] = 2 },
		"huge address": func(b []byte) { b[64+56+31] = 0xff },
		"huge size":    func(b []byte) { b[64+56+39] = 0xff; b[64+56+47] = 0xff },
		"sizes differ": func(b []byte) { b[64+56+40]++ },
		"misaligned":   func(b []byte) { b[64+56+8]++ },
		"huge offset":  func(b []byte) { b[64+56+13] = 1 },
	} {
		b := bytes.Clone(good)
		change(b)
		if n, err := CoreHeadLen(b); err == nil {
			t.Errorf("%s: CoreHeadLen() = %d, nil error", name, n)
		}
	}
}

func FuzzReadCapture(f *testing.F) {
	core := vmcore([]load{{0x1000, 0x3000}}, func(pfn uint64) bool { return pfn == 2 })
	d := &disk{buf: make([]byte, 4*PageSize)}
	w, err := NewCaptureWriter(core[:2*PageSize], d.buf, d.put)
	if err != nil {
		f.Fatal(err)
	}
	if err := w.Write(1, core[2*PageSize:]); err != nil {
		f.Fatal(err)
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(d.b, uint32(0), uint64(0), false)
	f.Fuzz(func(t *testing.T, b []byte, at uint32, v uint64, fix bool) {
		if len(b) >= PageSize && fix { // reach beyond the checksums
			b = bytes.Clone(b[:len(b)&^(PageSize-1)])
			binary.LittleEndian.PutUint64(b[int(at)%(len(b)-8):], v)
			for off := 0; off < len(b); off += PageSize {
				h := b[off : off+PageSize]
				if string(h[:8]) != blockMagic {
					continue
				}
				if n := binary.LittleEndian.Uint64(h[24:]); n <= uint64(len(b)-off-PageSize) {
					putSum(h[32:], checksum(b[off+PageSize:][:roundUp(int(n))]))
				}
				putSum(h[sumOffset:], checksum(h[:sumOffset]))
			}
		}
		if c, err := readCapture(b); err == nil {
			_, _ = c.VMCoreInfo()
			_, _ = c.Page(0)
			_ = c.Ranges()
			_, _ = c.ReadAt(make([]byte, 3*PageSize), 0)
			_, _ = c.ReadAt(make([]byte, 3*PageSize), c.Size()-PageSize)
		}
		_, _ = readTruth(b)
	})
}

func TestTruthRoundTrip(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	want := Files{"proc/version": []byte("Linux version 6.1.0\n"), "proc/1/maps": {}, "proc/1/fd/0": []byte("/dev/console")}
	big := make([]byte, 100_001)
	for i := range big {
		big[i] = byte(rnd.Uint32())
	}
	want["proc/kallsyms"] = big
	d := &disk{buf: make([]byte, 5*PageSize)}
	w, err := NewTruthWriter(d.buf, d.put)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range want {
		if err := w.File(name, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := ReadTruth(d.file(t))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ReadTruth() (-want +got):\n%s", diff)
	}

	dir := filepath.Join(t.TempDir(), "truth")
	if err := got.Extract(dir); err != nil {
		t.Fatal(err)
	}
	for name, content := range want {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, content) {
			t.Errorf("extracted %s: %d bytes, %v; want %d bytes", name, len(got), err, len(content))
		}
	}

	for n := 0; n < len(d.b); n += 997 {
		if _, err := readTruth(d.b[:n]); err == nil {
			t.Errorf("readTruth of the first %d of %d bytes = nil error", n, len(d.b))
		}
		d.b[n] ^= 1
		if _, err := readTruth(d.b); err == nil {
			t.Errorf("readTruth with byte %d of %d flipped = nil error", n, len(d.b))
		}
		d.b[n] ^= 1
	}
}

func TestTruthBadNames(t *testing.T) {
	for _, names := range [][]string{{"../x"}, {"/etc/passwd"}, {""}, {"a", "a"}, {"a/../b"}} {
		d := &disk{buf: make([]byte, 5*PageSize)}
		w, err := NewTruthWriter(d.buf, d.put)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if err := w.File(n, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := readTruth(d.b); err == nil {
			t.Errorf("readTruth of files named %q = %v, nil error", names, got)
		}
	}
}

func TestOpenMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	if _, err := OpenCapture(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("OpenCapture of a missing file = %v; want ErrNotExist", err)
	}
	if _, err := ReadTruth(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ReadTruth of a missing file = %v; want ErrNotExist", err)
	}
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCapture(path); !errors.Is(err, ErrNoStream) {
		t.Errorf("OpenCapture of an empty file = %v; want ErrNoStream", err)
	}
}

func BenchmarkReadCapture(b *testing.B) {
	core := vmcore([]load{{0, 16 << 20}}, func(pfn uint64) bool { return pfn%4 != 0 })
	d := &disk{buf: make([]byte, 256*PageSize)}
	w, err := NewCaptureWriter(core[:2*PageSize], d.buf, d.put)
	if err != nil {
		b.Fatal(err)
	}
	if err := w.Write(0, core[2*PageSize:]); err != nil {
		b.Fatal(err)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(d.b)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := readCapture(d.b); err != nil {
			b.Fatal(err)
		}
	}
}
