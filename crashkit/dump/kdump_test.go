package dump_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/dump/dumptest"
)

// descOff finds the page descriptors of a kdump-compressed file.
func descOff(b []byte) int {
	le := binary.LittleEndian
	return int(1+le.Uint32(b[432:])+le.Uint32(b[436:])) * 4096
}

// TestKdumpDescriptors damages the descriptor of page frame 0x13, the fourth.
func TestKdumpDescriptors(t *testing.T) {
	for _, test := range []struct {
		name  string
		c     dump.Compression
		edit  func(d []byte)
		why   addr.Reason
		state dump.State
		text  string
	}{
		{"offset 0", dump.Zlib, func(d []byte) { clear(d) }, addr.NotWritten, dump.Truncated, "its descriptor is empty"},
		{"past the end", dump.Zlib, func(d []byte) { d[6] = 1 }, addr.Truncated, dump.Truncated, ""},
		{"offset negative", dump.Zlib, func(d []byte) { d[7] = 0xff }, addr.Truncated, dump.Truncated, ""},
		{"size 0", dump.Zlib, func(d []byte) { clear(d[8:12]) }, addr.Corrupt, dump.Present, "zlib"},
		{"size too small", dump.Zlib, func(d []byte) { d[8]-- }, addr.Corrupt, dump.Present, "zlib"},
		{"size too great", dump.Zlib, func(d []byte) { d[9] = 0x21 }, addr.Corrupt, dump.Present, "bytes for one page"},
		{"plain, but not a page", dump.Zlib, func(d []byte) { d[12] = 0 }, addr.Corrupt, dump.Present, "a plain page of"},
		{"two compressions", dump.Zlib, func(d []byte) { d[12] = 3 }, addr.Corrupt, dump.Present, "page flags 0x3"},
		{"zlib read as lzo", dump.Zlib, func(d []byte) { d[12] = 2 }, addr.Corrupt, dump.Present, "lzo"},
		{"zlib read as snappy", dump.Zlib, func(d []byte) { d[12] = 4 }, addr.Corrupt, dump.Present, "snappy"},
		{"zlib read as zstd", dump.Zlib, func(d []byte) { d[12] = 0x20 }, addr.Corrupt, dump.Present, "zstd"},
		{"lzo read as zlib", dump.LZO, func(d []byte) { d[12] = 1 }, addr.Corrupt, dump.Present, "zlib"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := testMemory()
			m.Pages[0x13] = []byte(strings.Repeat("ab", 1000)) // compresses with all
			b := m.Kdump(dumptest.KdumpOptions{Compression: test.c})
			pad := make([]byte, 20000) // so that a wrong size is not past the end
			b = append(b, pad...)
			test.edit(b[descOff(b)+3*24:][:24])
			img := open(t, b)
			_, err := img.Page(0x13)
			if addr.ReasonOf(err) != test.why || !strings.Contains(err.Error(), test.text) {
				t.Errorf("Page: %v; want %v saying %q", err, test.why, test.text)
			}
			if st := img.PageState(0x13); st != test.state {
				t.Errorf("PageState = %v; want %v", st, test.state)
			}
			if _, err := img.Page(0x29); err != nil {
				t.Errorf("Page(0x29), which is whole: %v", err)
			}
		})
	}
}

// TestKdumpWrongSize stores pages that unpack to less or more than a page.
func TestKdumpWrongSize(t *testing.T) {
	for _, c := range []dump.Compression{dump.Zlib, dump.LZO, dump.Snappy, dump.Zstd} {
		for _, size := range []int{4096 * 2, 4096 * 16} {
			big := dumptest.Memory{PageSize: size, Pages: map[addr.PFN][]byte{1: bytes.Repeat([]byte{7}, size)}}
			b := big.Kdump(dumptest.KdumpOptions{Compression: c})
			le := binary.LittleEndian
			off, n := le.Uint64(b[4*size:]), le.Uint32(b[4*size+8:])
			packed := b[off:][:n]

			small := dumptest.Memory{Pages: map[addr.PFN][]byte{1: noise(4096, 1)}}.Kdump(dumptest.KdumpOptions{})
			at := len(small)
			small = append(small, packed...)
			d := small[descOff(small):]
			le.PutUint64(d, uint64(at))
			le.PutUint32(d[8:], n)
			le.PutUint32(d[12:], uint32(c))
			if _, err := open(t, small).Page(1); addr.ReasonOf(err) != addr.Corrupt {
				t.Errorf("%v: Page of %d bytes in a file with pages of 4096: %v; want corrupt", c, size, err)
			}
		}
	}
}

func TestKdumpFlags(t *testing.T) {
	whole := testMemory().Kdump(dumptest.KdumpOptions{Compression: dump.Zlib})
	flat := dumptest.Flatten(whole, 4096)
	for _, test := range []struct {
		name                  string
		b                     []byte
		incomplete, truncated bool
		problem               string
	}{
		{"whole", whole, false, false, ""},
		{"marked", testMemory().Kdump(dumptest.KdumpOptions{Status: 8}), true, false, "marked it incomplete"},
		{"last byte missing", whole[:len(whole)-1], false, true, "before the data of its last pages (1 of the last 8)"},
		{"descriptors missing", whole[:descOff(whole)+50], false, true, "before the data"},
		{"bitmaps missing", whole[:descOff(whole)-4097], false, true, "within the page bitmaps"},
		{"notes missing", whole[:4096+200], false, true, "VMCOREINFO"},
		{"newer version", func() []byte { b := bytes.Clone(whole); b[8] = 9; return b }(), false, false, "version 9 is newer"},
		{"last descriptors empty", func() []byte {
			b := bytes.Clone(whole)
			clear(b[descOff(b)+6*24:][:48])
			return b
		}(), true, false, "2 of the last page descriptors are empty"},
		{"flattened without end", flat[:len(flat)-16], false, true, "no end mark"},
	} {
		t.Run(test.name, func(t *testing.T) {
			info := open(t, test.b).Info()
			problems := strings.Join(info.Problems, "\n")
			if info.Incomplete != test.incomplete || info.Truncated != test.truncated || !strings.Contains(problems, test.problem) {
				t.Errorf("incomplete %v, truncated %v, problems:\n%s\nwant %v, %v, %q",
					info.Incomplete, info.Truncated, problems, test.incomplete, test.truncated, test.problem)
			}
			if test.problem == "" && problems != "" {
				t.Errorf("problems of a whole file: %s", problems)
			}
		})
	}
}

func TestKdumpSplit(t *testing.T) {
	for version := 2; version <= 6; version += 4 {
		img := open(t, testMemory().Kdump(dumptest.KdumpOptions{Version: version, SplitStart: 0x13, SplitEnd: 0x22}))
		for pfn, want := range testMemory().Pages {
			b, err := img.Page(pfn)
			if pfn < 0x13 || pfn >= 0x22 {
				if addr.ReasonOf(err) != addr.MissingPart || img.PageState(pfn) != dump.Truncated {
					t.Errorf("version %d: Page(%#x): %v, %v; want it in another part", version, pfn, err, img.PageState(pfn))
				}
				continue
			}
			if err != nil || !bytes.HasPrefix(b, want) {
				t.Errorf("version %d: Page(%#x) = %.8x, %v; want %.8x", version, pfn, b, err, want)
			}
		}
		if p := img.Info().Problems; len(p) != 1 || !strings.Contains(p[0], "one part of a split dump") {
			t.Errorf("version %d: problems %q", version, p)
		}
	}
}

// TestKdumpZeroPages sees that zero pages share their memory.
func TestKdumpZeroPages(t *testing.T) {
	img := open(t, testMemory().Kdump(dumptest.KdumpOptions{Compression: dump.Zlib}))
	a, err1 := img.Page(0x12)
	b, err2 := img.Page(0x20)
	if err1 != nil || err2 != nil || &a[0] != &b[0] {
		t.Errorf("zero pages at %p and %p, errors %v, %v; want one page", a, b, err1, err2)
	}
}

// TestKdumpOneBitmap has a file with one bitmap, for stored pages only.
func TestKdumpOneBitmap(t *testing.T) {
	m := testMemory()
	m.Excluded = nil
	// 0x8000 page frames and more need more than one block, which leaves 1.5.
	m.Pages[0xb000] = []byte("far")
	b := m.Kdump(dumptest.KdumpOptions{})
	le := binary.LittleEndian
	n := le.Uint32(b[436:]) / 2
	bitmap := int(1+le.Uint32(b[432:])) * 4096
	one := slices.Concat(b[:bitmap], b[bitmap+int(n)*4096:])
	le.PutUint32(one[436:], n)
	// The data moved with it.
	for i := range len(m.Pages) {
		d := one[descOff(one)+24*i:]
		le.PutUint64(d, le.Uint64(d)-uint64(n)*4096)
	}
	img := open(t, one)
	page, err := img.Page(0xb000)
	if err != nil || !bytes.HasPrefix(page, []byte("far")) {
		t.Errorf("Page(0xb000) = %.8x, %v", page, err)
	}
	if st := img.PageState(0x22); st != dump.Absent {
		t.Errorf("PageState(0x22) = %v; want absent", st)
	}
}
