package dump_test

import (
	"bytes"
	"testing"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/dump/dumptest"
)

// FuzzSplit joins two parts of a split dump.
func FuzzSplit(f *testing.F) {
	part := func(from, till addr.PFN) []byte {
		return squeeze(damaged().Kdump(dumptest.KdumpOptions{Compression: dump.Zlib, SplitStart: from, SplitEnd: till}))
	}
	f.Add(part(0, 4), part(4, 7))
	f.Add(part(4, 7), part(0, 3))
	f.Add(part(0, 4), part(0, 4))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var parts []*dump.Image
		before := allocated()
		size := 0
		for _, squeezed := range [][]byte{a, b} {
			file := expand(squeezed)
			size += len(file)
			img, err := dump.NewImage(bytes.NewReader(file), int64(len(file)))
			if err != nil {
				return
			}
			parts = append(parts, img)
		}
		img, err := dump.JoinParts([]string{"a", "b"}, parts, dump.Options{})
		if (err == nil) == (img == nil) {
			t.Fatalf("JoinParts = %v, %v", img, err)
		}
		if err != nil {
			return
		}
		exploreImage(t, img)
		if n := allocated() - before; n > 2*allocCap+64*uint64(size) {
			t.Errorf("%d bytes allocated for files of %d", n, size)
		}
	})
}

// FuzzRaw has the fuzzer's bytes where the first megabyte of an image of memory
// has what a boot loader left, and in its last page.
func FuzzRaw(f *testing.F) {
	const at, size = 0x14790, 2 << 20
	low := guestMemory(size, ram(0, 0x9fc00, 0), ram(1<<20, size-0x20000, 0))
	f.Add(squeeze(low[at:][:0x1000]), []byte("OSRELEASE=6.1.0-test\n"))
	f.Add([]byte{}, []byte("OSRELEASE=6.1.0-test\n"))
	f.Add([]byte{}, dump.AppendNote(nil, dump.Note{Name: "VMCOREINFO", Desc: []byte("OSRELEASE=a\nCRASHTIME=1\n")}))
	f.Fuzz(func(t *testing.T, boot, last []byte) {
		b := make([]byte, size)
		copy(b[at:1<<20], expand(boot))
		copy(b[size-4096:], last)
		before := allocated()
		explore(t, b)
		if img, err := dump.NewImage(bytes.NewReader(b), size); err == nil {
			for _, found := range img.ScanVMCoreInfo() {
				if len(found.Text) > 4096 || !bytes.HasPrefix(found.Text, []byte("OSRELEASE=")) {
					t.Errorf("found %q", found.Text)
				}
			}
		}
		// Nothing of a file that is not mapped can be looked at in place.
		if n := allocated() - before; n > allocCap+16*size {
			t.Errorf("%d bytes allocated for a file of %d", n, size)
		}
	})
}

func FuzzParseRAM(f *testing.F) {
	f.Add("0x0-0x9fc00,0x100000-0x1ffe0000")
	f.Add("0-4096@8192, 0x2000-0x3000@0")
	f.Add("00001000-0009fbff : System RAM\n  00001000-0009fbff : Kernel code\n")
	f.Add("BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable\n")
	f.Fuzz(func(t *testing.T, text string) {
		ranges, err := dump.ParseRAM(text)
		if (err == nil) == (len(ranges) == 0) {
			t.Fatalf("ParseRAM = %v, %v", ranges, err)
		}
		end := addr.Phys(0)
		for _, r := range ranges {
			if r.Start < end || r.Size == 0 || r.End() < r.Start {
				t.Fatalf("ParseRAM = %v", ranges)
			}
			end = r.End()
		}
		b := make([]byte, 8192)
		if img, err := dump.NewRaw(b, dump.Options{RAM: ranges}); err == nil && ranges != nil {
			exploreImage(t, img)
		}
	})
}

// FuzzPage unpacks one stored page.
func FuzzPage(f *testing.F) {
	m := damaged()
	for _, c := range []dump.Compression{dump.Zlib, dump.LZO, dump.Snappy, dump.Zstd} {
		b := m.Kdump(dumptest.KdumpOptions{Compression: c})
		f.Add(byte(c), b[len(b)-60:])
	}
	f.Fuzz(func(t *testing.T, flags byte, packed []byte) {
		if len(packed) > 8192 {
			return
		}
		before := allocated()
		page, err := dump.Decode(packed, uint32(flags), 4096)
		if (err == nil) != (len(page) == 4096) {
			t.Errorf("Decode = %d bytes, %v", len(page), err)
		}
		if n := allocated() - before; n > allocCap {
			t.Errorf("%d bytes allocated", n)
		}
	})
}
