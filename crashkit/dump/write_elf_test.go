package dump_test

import (
	"bytes"
	"debug/elf"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/dump/dumptest"
)

func TestWriteELF(t *testing.T) {
	m := bigMemory()
	for name, src := range map[string]*dump.Image{
		"of an ELF dump":            open(t, m.ELF()),
		"of a kdump-compressed one": open(t, m.Kdump(dumptest.KdumpOptions{Compression: dump.LZO, Release: "6.1.0-test"})),
	} {
		t.Run(name, func(t *testing.T) {
			cfg := dump.ConfigOf(src)
			cfg.Virt = func(p addr.Phys) addr.Virt { return 0xffff888000000000 + addr.Virt(p) }
			var f, one, sparse memFile
			stats, err := dump.WriteELF(t.Context(), &f, cfg, src)
			if err != nil {
				t.Fatal(err)
			}
			if want := (dump.WriteStats{Pages: 1009, Stored: 1008, Zero: 336, Bytes: int64(len(f.b))}); stats != want {
				t.Errorf("stats %+v; want %+v", stats, want)
			}
			cfg.Workers = 1
			if _, err := dump.WriteELF(t.Context(), &one, cfg, src); err != nil || !bytes.Equal(f.b, one.b) {
				t.Errorf("one worker writes something else, error %v", err)
			}
			cfg.Sparse = true
			if _, err := dump.WriteELF(t.Context(), &sparse, cfg, src); err != nil || !bytes.Equal(f.b, sparse.b) {
				t.Errorf("with holes it reads as something else, error %v", err)
			}
			img := open(t, f.b)
			if diff := cmp.Diff(src.Ranges(), img.Ranges()); diff != "" {
				t.Errorf("Ranges (-want +got):\n%s", diff)
			}
			checkNotes(t, img)
			checkVMCoreInfo(t, img)
			same(t, src, img)
		})
	}
}

// TestWriteELFHeaders has the headers read by debug/elf.
func TestWriteELFHeaders(t *testing.T) {
	src := open(t, testMemory().ELF())
	var f memFile
	if _, err := dump.WriteELF(t.Context(), &f, dump.ConfigOf(src), src); err != nil {
		t.Fatal(err)
	}
	e, err := elf.NewFile(bytes.NewReader(f.b))
	if err != nil {
		t.Fatal(err)
	}
	if e.Type != elf.ET_CORE || e.Machine != elf.EM_X86_64 {
		t.Errorf("a %v for %v", e.Type, e.Machine)
	}
	type load struct{ virt, phys, file, mem uint64 }
	var got []load
	for _, p := range e.Progs {
		if p.Type == elf.PT_LOAD {
			got = append(got, load{p.Vaddr, p.Paddr, p.Filesz, p.Memsz})
			if p.Off%4096 != 0 {
				t.Errorf("the pages at %#x stand at %#x of the file", p.Paddr, p.Off)
			}
		}
	}
	const base = 0xffff888000000000 // as dumptest writes it
	want := []load{
		{base + 0x10000, 0x10000, 0x4000, 0x4000},
		{base + 0x20000, 0x20000, 0x2000, 0x3000}, // 0x22 is excluded
		{base + 0x23000, 0x23000, 0x1000, 0x1000},
		{base + 0x29000, 0x29000, 0x1000, 0x1000},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(load{})); diff != "" {
		t.Errorf("PT_LOADs (-want +got):\n%s", diff)
	}
}

// TestWriteELFManySegments has more runs of pages than e_phnum can count.
func TestWriteELFManySegments(t *testing.T) {
	const n = 70000
	page := noise(4096, 9)
	cfg := dump.WriterConfig{
		// Most are excluded, so that the file stays small.
		Keep: func(pfn addr.PFN) bool { return pfn < 100 || pfn > 2*n-100 },
	}
	for i := range addr.Phys(n) {
		cfg.Ranges = append(cfg.Ranges, addr.Range{Start: (2*i + 1) * 4096, Size: 4096})
	}
	var f memFile
	stats, err := dump.WriteELF(t.Context(), &f, cfg, pageFunc(func(addr.PFN) ([]byte, error) { return page, nil }))
	if err != nil {
		t.Fatal(err)
	}
	if stats.Pages != n || stats.Stored != 100 {
		t.Errorf("stats %+v; want %d pages, 100 of them stored", stats, n)
	}
	img := open(t, f.b)
	if got := len(img.Segments()); got != n {
		t.Errorf("%d segments; want %d", got, n)
	}
	for pfn, want := range map[addr.PFN]dump.State{
		1: dump.Present, 2: dump.Absent, 99: dump.Present, 101: dump.Excluded, 2*n - 1: dump.Present, 2 * n: dump.Absent,
	} {
		if got := img.PageState(pfn); got != want {
			t.Errorf("PageState(%d) = %v; want %v", pfn, got, want)
		}
	}
	if b, err := img.Page(2*n - 1); err != nil || !bytes.Equal(b, page) {
		t.Errorf("the last page reads as something else, error %v", err)
	}
}

func TestWriteELFFails(t *testing.T) {
	src := open(t, testMemory().ELF())
	cfg := dump.ConfigOf(src)
	cfg.UTS.Machine = "vax"
	if _, err := dump.WriteELF(t.Context(), &memFile{}, cfg, src); err == nil {
		t.Error("a VAX is no error")
	}
	cfg = dump.ConfigOf(src)
	full := &memFile{limit: 8192}
	if _, err := dump.WriteELF(t.Context(), full, cfg, src); err == nil {
		t.Error("a full disk is no error")
	}
	if len(full.b) > 0 && full.b[0] != 0 {
		t.Error("the unfinished file has a header")
	}
}

// TestFlattener sends a dump through a pipe.
func TestFlattener(t *testing.T) {
	src := open(t, bigMemory().ELF())
	cfg := dump.ConfigOf(src)
	cfg.Compression = dump.LZO
	var stream bytes.Buffer
	flat, err := dump.NewFlattener(&stream)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dump.Write(t.Context(), flat, cfg, src); err != nil {
		t.Fatal(err)
	}
	cut := bytes.Clone(stream.Bytes())
	if err := flat.Close(); err != nil {
		t.Fatal(err)
	}
	img := open(t, stream.Bytes())
	if info := img.Info(); !info.Flattened || info.Truncated || len(info.Problems) > 0 {
		t.Errorf("Info = %+v; want a whole flattened dump", info)
	}
	same(t, src, img)
	var plain memFile
	if _, err := dump.Write(t.Context(), &plain, cfg, src); err != nil {
		t.Fatal(err)
	}
	if got, want := img.Info().FileSize, int64(len(plain.b)); got != want {
		t.Errorf("the stream holds a file of %d bytes; want %d", got, want)
	}
	if !open(t, cut).Info().Truncated {
		t.Error("without its end mark it counts as whole")
	}
}

func FuzzWrite(f *testing.F) {
	f.Add([]byte("a page"), []byte{0x00, 0x01, 0x02, 0x83, 0x04}, uint8(1))
	f.Add(noise(300, 1), []byte{0xff, 0x00, 0x10, 0x11, 0x91}, uint8(2))
	f.Add([]byte{0}, []byte{7, 7, 7, 7, 0x87, 0xc7}, uint8(0x20))
	f.Add([]byte{}, []byte{}, uint8(0))
	const asELF = 0x80 // for a compression
	f.Add(noise(300, 1), []byte{0xff, 0x00, 0x10, 0x11, 0x91}, uint8(asELF))
	f.Fuzz(func(t *testing.T, content, layout []byte, compression uint8) {
		// A byte of layout is a page: how far from the one before, whether it is
		// stored, where in content it begins.
		m := dumptest.Memory{Pages: make(map[addr.PFN][]byte), VMCoreInfo: "OSRELEASE=6.1.0-test\n"}
		pfn := addr.PFN(0)
		for _, b := range layout[:min(len(layout), 64)] {
			pfn += addr.PFN(b&7) + 1
			if b&0x80 != 0 {
				m.Excluded = append(m.Excluded, pfn)
			} else {
				from := content[min(int(b), len(content)):]
				m.Pages[pfn] = from[:min(len(from), 4096)]
			}
		}
		src := open(t, m.ELF())
		cfg := dump.ConfigOf(src)
		cfg.Compression = dump.Compression(compression)
		write := dump.Write
		if compression == asELF {
			write = dump.WriteELF
		}
		var out memFile
		if _, err := write(t.Context(), &out, cfg, src); err != nil {
			switch cfg.Compression {
			case dump.Plain, dump.Zlib, dump.LZO, dump.Snappy, dump.Zstd, asELF:
				t.Fatal(err)
			}
			return
		}
		img := open(t, out.b)
		if got, want := img.Ranges(), src.Ranges(); !slices.Equal(got, want) {
			t.Errorf("Ranges = %v; want %v", got, want)
		}
		same(t, src, img)
	})
}
