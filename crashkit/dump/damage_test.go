package dump_test

import (
	"bytes"
	"errors"
	"runtime/metrics"
	"testing"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/dump/dumptest"
)

// damaged is a memory small enough to be damaged everywhere.
func damaged() dumptest.Memory {
	return dumptest.Memory{
		Pages:      map[addr.PFN][]byte{3: []byte("three"), 4: nil, 6: noise(40, 6)},
		Excluded:   []addr.PFN{5},
		VMCoreInfo: "OSRELEASE=6.1.0-test\n",
		Notes:      []dump.Note{dumptest.PRStatus(42, regs)},
	}
}

// smallDumps is one of each format.
func smallDumps() map[string][]byte {
	m := damaged()
	files := map[string][]byte{"elf": m.ELF()}
	for _, c := range []dump.Compression{dump.Plain, dump.Zlib, dump.LZO, dump.Snappy, dump.Zstd} {
		files[c.String()] = m.Kdump(dumptest.KdumpOptions{Compression: c})
	}
	files["flattened"] = dumptest.Flatten(files["zlib"], 700)
	return files
}

// allocated returns the bytes allocated on the heap so far.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// explore opens b and asks for everything in it. It fails the test if an answer
// is neither right in form nor a fault, and returns the pages that were read.
func explore(t testing.TB, b []byte) map[addr.PFN][]byte {
	img, err := dump.NewImage(bytes.NewReader(b), int64(len(b)))
	if (err == nil) == (img == nil) {
		t.Fatalf("NewImage = %v, %v", img, err)
	}
	if err != nil {
		return nil
	}
	return exploreImage(t, img)
}

// exploreImage asks for everything in an image, as explore does.
func exploreImage(t testing.TB, img *dump.Image) map[addr.PFN][]byte {
	img.Info()
	img.Notes()
	img.PRStatus()
	img.VMCoreInfo()
	img.Segments()
	var end addr.Phys
	for i, r := range img.Ranges() {
		if r.Size == 0 || i > 0 && r.Start <= end || r.End() < r.Start {
			t.Fatalf("Ranges = %v: wrong at %d", img.Ranges(), i)
		}
		end = r.End()
	}
	pages := make(map[addr.PFN][]byte)
	look := func(pfn addr.PFN) {
		state := img.PageState(pfn)
		page, err := img.Page(pfn)
		var f *addr.Fault
		switch {
		case err != nil && !errors.As(err, &f):
			t.Fatalf("Page(%#x): %v is not a fault", pfn, err)
		case err == nil && len(page) != img.PageSize():
			t.Fatalf("Page(%#x) has %d bytes; want %d", pfn, len(page), img.PageSize())
		case err == nil && state != dump.Present:
			t.Fatalf("Page(%#x) can be read, but is %v", pfn, state)
		}
		buf := make([]byte, 64)
		p := addr.Phys(uint64(pfn)*uint64(img.PageSize()) + 32)
		if rerr := img.ReadPhys(p, buf); rerr == nil && err == nil && !bytes.Equal(buf, page[32:96]) {
			t.Fatalf("ReadPhys(%v) = %x; Page has %x", p, buf, page[32:96])
		} else if err == nil && rerr != nil || rerr != nil && !errors.As(rerr, &f) {
			t.Fatalf("ReadPhys(%v): %v, but Page: %v", p, rerr, err)
		}
		if err == nil {
			pages[pfn] = page
		}
	}
	for pfn := range addr.PFN(16) {
		look(pfn)
	}
	for _, r := range img.Ranges()[:min(4, len(img.Ranges()))] {
		look(addr.PFN(uint64(r.Start) / uint64(img.PageSize())))
		look(addr.PFN((uint64(r.End()) - 1) / uint64(img.PageSize())))
	}
	look(1 << 40)
	look(^addr.PFN(0))
	return pages
}

// allocCap bounds what opening and exploring a small file may allocate: decoders
// with their windows and tables, the empty cache, and a page per read.
const allocCap = 4 << 20

// padding reports whether byte i is one of many that mean nothing: it and its
// neighbours are all zero, or the nonsense that Flatten begins with.
func padding(b []byte, i int) bool {
	if i < 16 || i+16 > len(b) {
		return false
	}
	for _, c := range b[i-16 : i+16] {
		if c != b[i] || c != 0 && c != 0xaa {
			return false
		}
	}
	return true
}

// TestTruncated cuts a dump of each format off at every offset, in padding at
// some. What can still be read must be what it was.
func TestTruncated(t *testing.T) {
	for name, b := range smallDumps() {
		t.Run(name, func(t *testing.T) {
			whole := explore(t, b)
			if len(whole) != 3 {
				t.Fatalf("the whole file has %d pages; want 3", len(whole))
			}
			for n := range b {
				if padding(b, n) && n%61 != 0 {
					continue
				}
				before := allocated()
				for pfn, page := range explore(t, b[:n]) {
					if !bytes.Equal(page, whole[pfn]) {
						t.Fatalf("cut to %d bytes: page %#x reads as %.16x...; was %.16x...", n, pfn, page, whole[pfn])
					}
				}
				if a := allocated() - before; a > allocCap {
					t.Fatalf("cut to %d bytes: %d bytes allocated", n, a)
				}
			}
		})
	}
}

// TestFlipped damages every byte of a dump of each format, in padding some; those
// of headers and notes in three ways.
func TestFlipped(t *testing.T) {
	for name, b := range smallDumps() {
		t.Run(name, func(t *testing.T) {
			for i := range b {
				if padding(b, i) && i%61 != 0 {
					continue
				}
				flips := []byte{0x01, 0x80, 0xff}
				if i > 4096+1024 {
					flips = flips[i%3:][:1]
				}
				for _, x := range flips {
					c := bytes.Clone(b)
					c[i] ^= x
					before := allocated()
					explore(t, c)
					if a := allocated() - before; a > allocCap {
						t.Fatalf("byte %d is %#x, not %#x: %d bytes allocated", i, c[i], b[i], a)
					}
				}
			}
		})
	}
}

// squeeze shortens a file for the fuzzer, which does badly on long input: a zero
// byte stands for as many as the two bytes after it say. expand undoes it.
func squeeze(b []byte) []byte {
	var out []byte
	for len(b) > 0 {
		n := 0
		for n < len(b) && n < 0xffff && b[n] == 0 {
			n++
		}
		if n == 0 {
			out, b = append(out, b[0]), b[1:]
			continue
		}
		out, b = append(out, 0, byte(n), byte(n>>8)), b[n:]
	}
	return out
}

func expand(b []byte) []byte {
	var out []byte
	for len(b) > 0 && len(out) < 1<<20 {
		if b[0] == 0 && len(b) >= 3 {
			out, b = append(out, make([]byte, int(b[1])|int(b[2])<<8)...), b[3:]
			continue
		}
		out, b = append(out, b[0]), b[1:]
	}
	return out
}

func fuzzDump(f *testing.F, formats ...string) {
	for _, format := range formats {
		b := smallDumps()[format]
		if !bytes.Equal(expand(squeeze(b)), b) {
			f.Fatal("expand does not undo squeeze")
		}
		f.Add(squeeze(b))
	}
	f.Fuzz(func(t *testing.T, squeezed []byte) {
		b := expand(squeezed)
		before := allocated()
		explore(t, b)
		if a := allocated() - before; a > allocCap+64*uint64(len(b)) {
			t.Errorf("%d bytes allocated for a file of %d", a, len(b))
		}
	})
}

func FuzzELF(f *testing.F)       { fuzzDump(f, "elf") }
func FuzzKdump(f *testing.F)     { fuzzDump(f, "none", "zlib", "lzo", "snappy", "zstd") }
func FuzzFlattened(f *testing.F) { fuzzDump(f, "flattened") }

func FuzzNotes(f *testing.F) {
	f.Add(dump.AppendNote(dump.AppendNote(nil, dumptest.PRStatus(1, regs)), dump.Note{Name: "VMCOREINFO", Desc: []byte("A=1\n")}))
	f.Add([]byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		notes, _ := dump.ParseNotes(b)
		var again []byte
		for _, n := range notes {
			again = dump.AppendNote(again, n)
		}
		got, err := dump.ParseNotes(again)
		if len(got) != len(notes) || err != nil {
			t.Fatalf("%d notes, written and read again: %d, %v", len(notes), len(got), err)
		}
		for i, n := range notes {
			if got[i].Name != n.Name || got[i].Type != n.Type || !bytes.Equal(got[i].Desc, n.Desc) {
				t.Errorf("note %d is %+v; was %+v", i, got[i], n)
			}
		}
	})
}

func FuzzVMCoreInfo(f *testing.F) {
	f.Add([]byte(testMemory().VMCoreInfo))
	f.Add([]byte("NUMBER(a)=-0x1\nNUMBER(b)=0x\nSYMBOL(c)=0x0x1\n=\n\n=="))
	f.Fuzz(func(t *testing.T, b []byte) {
		v := dump.ParseVMCoreInfo(b)
		if bytes.IndexByte([]byte(v.Text), 0) >= 0 || !bytes.HasPrefix(b, []byte(v.Text)) {
			t.Errorf("text %q of %q", v.Text, b)
		}
		for _, name := range []string{"a", "b", "c", "_stext", ""} {
			v.Symbol(name)
			v.Number(name)
			v.Size(name)
		}
	})
}
