package dump_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
)

func ram(start, end addr.Phys, off int64) dump.RAMRange {
	return dump.RAMRange{Range: addr.Range{Start: start, Size: uint64(end - start)}, Offset: off}
}

func TestParseRAM(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       []dump.RAMRange
	}{
		{"list", "0x0-0x9fc00,0x100000-0x1ffe0000", []dump.RAMRange{ram(0, 0x9fc00, -1), ram(0x100000, 0x1ffe0000, -1)}},
		{"offsets", "0-4096@8192, 0x2000-0x3000@0", []dump.RAMRange{ram(0, 4096, 8192), ram(0x2000, 0x3000, 0)}},
		// As a QEMU guest with 512 MB has it.
		{"iomem", "00000000-00000fff : Reserved\n00001000-0009fbff : System RAM\n0009fc00-0009ffff : Reserved\n" +
			"00100000-1ffdffff : System RAM\n  04600000-05401ef1 : Kernel code\n1ffe0000-1fffffff : Reserved\n",
			[]dump.RAMRange{ram(0x1000, 0x9fc00, -1), ram(0x100000, 0x1ffe0000, -1)}},
		{"e820", "[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable\n" +
			"[    0.000000] BIOS-e820: [mem 0x00000000000f0000-0x00000000000fffff] reserved\n" +
			"[    0.000000] BIOS-e820: [mem 0x0000000000100000-0x000000001ffdffff] usable\n",
			[]dump.RAMRange{ram(0, 0x9fc00, -1), ram(0x100000, 0x1ffe0000, -1)}},
	} {
		got, err := dump.ParseRAM(test.text)
		if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v, (-want +got):\n%s", test.name, err, diff)
		}
	}
	for text, want := range map[string]string{
		"":                               "no memory ranges",
		"1000":                           "want START-END",
		"0x2000-0x1000":                  "empty",
		"0-0x200000000000000":            "beyond",
		"0-0x2000,0x1000-0x3000":         "does not lie behind",
		"0-x":                            "invalid syntax",
		"0-4096@-1":                      "invalid syntax",
		"00000000-00000000 : System RAM": "only root sees them",
	} {
		if got, err := dump.ParseRAM(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseRAM(%q) = %v, %v; want an error that says %q", text, got, err, want)
		}
	}
}

// numbered returns n pages, each filled with the number of its place.
func numbered(n int) []byte {
	b := make([]byte, 0, n*4096)
	for i := range n {
		b = append(b, bytes.Repeat([]byte{byte(i + 1)}, 4096)...)
	}
	return b
}

func TestRaw(t *testing.T) {
	const g4 = 4 << 30
	for _, test := range []struct {
		name, ranges string
		pages        int
		at           map[addr.PFN]byte // what the page is filled with; 0 if there is none
	}{
		{"packed", "0x1000-0x3000,0x10000-0x12000", 4, map[addr.PFN]byte{0: 0, 1: 1, 2: 2, 3: 0, 0x10: 3, 0x11: 4, 0x12: 0}},
		{"flat", "0x1000-0x3000,0x5000-0x6000", 7, map[addr.PFN]byte{0: 0, 1: 2, 2: 3, 3: 0, 5: 6, 6: 0}},
		{"hole below 4 GiB", "0x1000-0x3000,0x100000000-0x100002000", 6, map[addr.PFN]byte{0: 0, 1: 2, 2: 3, 3: 0, g4 / 4096: 5, g4/4096 + 1: 6, g4/4096 + 2: 0}},
		{"placed", "0x1000-0x3000@0x1000,0x5000-0x6000@0", 3, map[addr.PFN]byte{1: 2, 2: 3, 5: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			ranges, err := dump.ParseRAM(test.ranges)
			if err != nil {
				t.Fatal(err)
			}
			img, err := dump.OpenFiles(writeFiles(t, numbered(test.pages)), dump.Options{RAM: ranges})
			if err != nil {
				t.Fatal(err)
			}
			defer img.Close()
			for pfn, want := range test.at {
				b, err := img.Page(pfn)
				if want == 0 && addr.ReasonOf(err) != addr.NotInDump || want != 0 && (err != nil || b[0] != want || b[4095] != want) {
					t.Errorf("Page(%#x) = %.4x, %v; want %d", pfn, b, err, want)
				}
			}
			if i := img.Info(); i.Format != "raw memory" || i.Machine != "x86_64" || i.Truncated || len(i.Problems) != 1 {
				t.Errorf("Info = %+v", i)
			}
			var got []addr.Range
			for _, r := range ranges {
				got = append(got, r.Range)
			}
			if diff := cmp.Diff(got, img.Ranges()); diff != "" {
				t.Errorf("Ranges (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("cut", func(t *testing.T) {
		img, err := dump.OpenFiles(writeFiles(t, numbered(2)), dump.Options{RAM: []dump.RAMRange{ram(0x1000, 0x5000, 0)}})
		if err != nil {
			t.Fatal(err)
		}
		defer img.Close()
		if _, err := img.Page(3); addr.ReasonOf(err) != addr.Truncated || !img.Info().Truncated {
			t.Errorf("Page(3): %v, Info %+v; want truncated", err, img.Info())
		}
	})
	t.Run("no place", func(t *testing.T) {
		_, err := dump.OpenFiles(writeFiles(t, numbered(2)), dump.Options{RAM: []dump.RAMRange{ram(0x1000, 0x5000, -1)}})
		if !errors.Is(err, dump.ErrFormat) || !strings.Contains(err.Error(), "START-END@OFFSET") {
			t.Errorf("OpenFiles: %v; want that a place is asked for", err)
		}
	})
}

// guestMemory is a file of size bytes as QEMU keeps a guest's memory, with the
// firmware's map as a boot loader leaves it for Linux.
func guestMemory(size int, e820 ...dump.RAMRange) []byte {
	b := numbered(size / 4096)
	clear(b[:1<<20])
	const params = 0x14790
	copy(b[params+0x202:], "HdrS")
	b[params+0x1e8] = byte(len(e820) + 1)
	table := b[params+0x2d0 : params+0x2d0]
	entry := func(r dump.RAMRange, kind uint32) {
		table = binary.LittleEndian.AppendUint64(table, uint64(r.Start))
		table = binary.LittleEndian.AppendUint64(table, r.Size)
		table = binary.LittleEndian.AppendUint32(table, kind)
	}
	for i, r := range e820 {
		entry(r, 1)
		if i == 0 {
			entry(ram(0x9fc00, 0xa0000, 0), 2)
		}
	}
	return b
}

func TestRawDetected(t *testing.T) {
	const mib = 1 << 20
	low := []dump.RAMRange{ram(0, 0x9fc00, 0), ram(mib, 2*mib-0x20000, 0)}
	high := append(low[:2:2], ram(4<<30, 4<<30+mib, 0))

	img := open(t, guestMemory(2*mib, low...))
	if diff := cmp.Diff([]addr.Range{{Size: 2 * mib}}, img.Ranges()); diff != "" {
		t.Errorf("Ranges (-want +got):\n%s", diff)
	}
	img = open(t, guestMemory(3*mib, high...))
	if diff := cmp.Diff([]addr.Range{{Size: 2 * mib}, {Start: 4 << 30, Size: mib}}, img.Ranges()); diff != "" {
		t.Errorf("with memory above 4 GiB: Ranges (-want +got):\n%s", diff)
	}
	if b, err := img.Page(4 << 30 >> 12); err != nil || b[0] != 1 {
		t.Errorf("the page at 4 GiB = %.4x, %v; want that which is 2 MiB into the file", b, err)
	}
	if p := img.Info().Problems; len(p) != 1 || !strings.Contains(p[0], "0x200000 bytes are below 4 GiB") {
		t.Errorf("problems %q", p)
	}

	info := make([]byte, 2*mib)
	copy(info[mib+4096:], "OSRELEASE=6.1.0-test\nPAGESIZE=4096\n")
	img = open(t, info)
	if got := img.ScanVMCoreInfo(); len(got) != 1 || got[0].Phys != mib+4096 || string(got[0].Text) != "OSRELEASE=6.1.0-test\nPAGESIZE=4096\n" {
		t.Errorf("ScanVMCoreInfo() = %+v", got)
	}
	for name, b := range map[string][]byte{
		"nothing known in it": numbered(2 * mib / 4096),
		"an odd size":         info[:len(info)-1],
	} {
		if _, err := dump.NewImage(bytes.NewReader(b), int64(len(b))); !errors.Is(err, dump.ErrFormat) {
			t.Errorf("%s: %v; want ErrFormat", name, err)
		}
	}
}

// TestScanVMCoreInfo finds the texts of two kernels, one of them three times.
func TestScanVMCoreInfo(t *testing.T) {
	m := testMemory()
	m.VMCoreInfo = ""
	m.Pages[0x11] = []byte("OSRELEASE=a\nSYMBOL(x)=1\n")
	note := dump.AppendNote(nil, dump.Note{Name: "VMCOREINFO", Desc: []byte("OSRELEASE=a\nSYMBOL(x)=1\nCRASHTIME=7\n")})
	m.Pages[0x20] = note
	m.Pages[0x21] = []byte("OSRELEASE=b\nSYMBOL(x)=2\n")
	m.Pages[0x23] = []byte("OSRELEASE=a\nSYMBOL(x)=1\n")
	m.Pages[0x29] = []byte(" OSRELEASE=c\n")
	want := []dump.FoundInfo{
		{Phys: 0x20018, Text: []byte("OSRELEASE=a\nSYMBOL(x)=1\nCRASHTIME=7\n")},
		{Phys: 0x21000, Text: []byte("OSRELEASE=b\nSYMBOL(x)=2\n")},
	}
	for name, b := range formats(m) {
		img := open(t, b)
		if _, err := img.VMCoreInfo(); !errors.Is(err, dump.ErrNoVMCoreInfo) {
			t.Errorf("%s: VMCoreInfo: %v; want ErrNoVMCoreInfo", name, err)
		}
		if diff := cmp.Diff(want, img.ScanVMCoreInfo()); diff != "" {
			t.Errorf("%s: ScanVMCoreInfo (-want +got):\n%s", name, diff)
		}
		img.SetVMCoreInfo(want[0].Text)
		if v, err := img.VMCoreInfo(); err != nil || v.OSRelease() != "a" {
			t.Errorf("%s: VMCoreInfo after SetVMCoreInfo = %+v, %v", name, v, err)
		}
	}
}
