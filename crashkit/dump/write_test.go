package dump_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/dump/dumptest"
)

// memFile is a file in memory that can run full.
type memFile struct {
	mu    sync.Mutex
	b     []byte
	limit int // 0 means none
}

var errFull = errors.New("no space left on device")

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	end := int(off) + len(b)
	if f.limit > 0 && end > f.limit {
		return 0, errFull
	}
	if end > len(f.b) {
		f.b = append(f.b, make([]byte, end-len(f.b))...)
	}
	copy(f.b[off:], b)
	return len(b), nil
}

// bigMemory is several batches of pages, a third of them zero.
func bigMemory() dumptest.Memory {
	m := testMemory()
	for i := range addr.PFN(1000) {
		switch i % 3 {
		case 0:
			m.Pages[0x1000+i] = nil
		case 1:
			m.Pages[0x1000+i] = noise(4096, uint32(i))
		case 2:
			m.Pages[0x1000+i] = bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 2048)
		}
	}
	return m
}

func TestWrite(t *testing.T) {
	src := open(t, bigMemory().ELF())
	for _, c := range []dump.Compression{dump.Plain, dump.Zlib, dump.LZO, dump.Snappy, dump.Zstd} {
		t.Run(c.String(), func(t *testing.T) {
			cfg := dump.ConfigOf(src)
			cfg.Compression = c
			cfg.DumpLevel = 16
			cfg.UTS = dump.UTS{
				Sysname: "Linux", Nodename: "n", Release: "r", Version: strings.Repeat("long", 20),
				Machine: "x86_64", Domainname: "d",
			}
			cfg.Time = time.Unix(1e9, 5000).UTC()
			cfg.PhysBase = -4096
			var f, one memFile
			stats, err := dump.Write(t.Context(), &f, cfg, src)
			if err != nil {
				t.Fatal(err)
			}
			cfg.Workers = 1
			if _, err := dump.Write(t.Context(), &one, cfg, src); err != nil || !bytes.Equal(f.b, one.b) {
				t.Errorf("one worker writes something else, error %v", err)
			}
			if want := (dump.WriteStats{Pages: 1009, Stored: 1008, Zero: 336, Bytes: int64(len(f.b))}); stats != want {
				t.Errorf("stats %+v; want %+v", stats, want)
			}
			img := open(t, f.b)
			want := dump.Info{
				Format: "kdump compressed", Compression: c.String(), HeaderVersion: 6, Machine: "x86_64",
				UTS: cfg.UTS, PageSize: 4096, DumpLevel: 16, Time: cfg.Time, NCPUs: 2, PhysBase: -4096, FileSize: int64(len(f.b)),
			}
			want.UTS.Version = want.UTS.Version[:64]
			if diff := cmp.Diff(want, img.Info()); diff != "" {
				t.Errorf("Info (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(src.Ranges(), img.Ranges()); diff != "" {
				t.Errorf("Ranges (-want +got):\n%s", diff)
			}
			checkNotes(t, img)
			checkVMCoreInfo(t, img)
			same(t, src, img)

			// And a copy of the copy is the same file.
			cfg = dump.ConfigOf(img)
			cfg.Compression = c
			var again memFile
			if _, err := dump.Write(t.Context(), &again, cfg, img); err != nil || !bytes.Equal(f.b, again.b) {
				t.Errorf("the copy of a copy differs, error %v", err)
			}
		})
	}
}

// same compares every page of the memory that a describes, and some around.
func same(t *testing.T, a, b *dump.Image) {
	t.Helper()
	for pfn := range addr.PFN(0x1500) {
		x, err1 := a.Page(pfn)
		y, err2 := b.Page(pfn)
		if a.PageState(pfn) != b.PageState(pfn) || !bytes.Equal(x, y) || addr.ReasonOf(err1) != addr.ReasonOf(err2) {
			t.Fatalf("page %#x is %v, %v and %v, %v", pfn, a.PageState(pfn), err1, b.PageState(pfn), err2)
		}
	}
}

// TestWriteLayout checks a file byte by byte against one made independently.
func TestWriteLayout(t *testing.T) {
	m := dumptest.Memory{
		Pages:      map[addr.PFN][]byte{3: noise(4096, 3), 7: noise(4096, 7)},
		Excluded:   []addr.PFN{5},
		VMCoreInfo: "OSRELEASE=6.1.0-test\n",
		Notes:      []dump.Note{dumptest.PRStatus(42, regs)},
	}
	want := m.Kdump(dumptest.KdumpOptions{DumpLevel: 31, Release: "6.1.0-test", PhysBase: 4096, TimeSec: 1e9})
	cfg := dump.ConfigOf(open(t, want))
	var f memFile
	if _, err := dump.Write(t.Context(), &f, cfg, open(t, want)); err != nil {
		t.Fatal(err)
	}
	// Ours has a zero page between descriptors and data, used or not.
	got := f.b
	off := descOff(got)
	if diff := cmp.Diff(want[:off], got[:off]); diff != "" {
		t.Errorf("header, notes and bitmaps (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want[off+48:], got[off+48+4096:]); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
}

func TestWriteRangesAndKeep(t *testing.T) {
	var asked []addr.PFN
	cfg := dump.WriterConfig{
		// The first and the last page are only partly memory.
		Ranges: []addr.Range{{Start: 0x29000, Size: 0xfff}, {Start: 0xf800, Size: 0x4800}, {Start: 0x20000, Size: 0x4000}},
		Keep: func(pfn addr.PFN) bool {
			asked = append(asked, pfn)
			return pfn != 0x11 && pfn != 0x22
		},
	}
	var f memFile
	stats, err := dump.Write(t.Context(), &f, cfg, open(t, testMemory().ELF()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]addr.PFN{0x10, 0x11, 0x12, 0x13, 0x20, 0x21, 0x22, 0x23}, asked); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
	if stats.Pages != 8 || stats.Stored != 6 {
		t.Errorf("stats %+v; want 8 pages, 6 stored", stats)
	}
	img := open(t, f.b)
	for pfn, want := range map[addr.PFN]dump.State{
		0xf: dump.Absent, 0x10: dump.Present, 0x11: dump.Excluded, 0x14: dump.Absent, 0x22: dump.Excluded, 0x29: dump.Absent,
	} {
		if got := img.PageState(pfn); got != want {
			t.Errorf("PageState(%#x) = %v; want %v", pfn, got, want)
		}
	}
	if _, err := img.VMCoreInfo(); err != dump.ErrNoVMCoreInfo {
		t.Errorf("VMCoreInfo: %v; want ErrNoVMCoreInfo", err)
	}

	f = memFile{}
	if stats, err = dump.Write(t.Context(), &f, dump.WriterConfig{}, open(t, testMemory().ELF())); err != nil || stats.Pages != 0 {
		t.Errorf("Write of nothing = %+v, %v", stats, err)
	} else if r := open(t, f.b).Ranges(); len(r) != 0 {
		t.Errorf("Ranges of nothing = %v", r)
	}
}

// TestConfigOf takes the kernel's name from the memory that VMCOREINFO points to.
func TestConfigOf(t *testing.T) {
	uts := make([]byte, 6*65)
	for i, s := range []string{"Linux", "node", "6.1.0-test", "#1 SMP", "x86_64", "domain"} {
		copy(uts[65*i:], s)
	}
	m := dumptest.Memory{
		Pages: map[addr.PFN][]byte{0x10: append(make([]byte, 104), uts...)},
		Virt:  func(p addr.Phys) addr.Virt { return 0xffffffff81000000 + addr.Virt(p) },
		Notes: []dump.Note{dumptest.PRStatus(1, regs), dumptest.PRStatus(2, regs)},
	}
	for _, test := range []struct {
		name, info string
		want       dump.WriterConfig
	}{
		{
			"all", "OSRELEASE=6.1.0-test\nSYMBOL(init_uts_ns)=ffffffff81010060\nOFFSET(uts_namespace.name)=8\n" +
				"NUMBER(phys_base)=-16\nCRASHTIME=1000000000\n",
			dump.WriterConfig{
				UTS:  dump.UTS{Sysname: "Linux", Nodename: "node", Release: "6.1.0-test", Version: "#1 SMP", Machine: "x86_64", Domainname: "domain"},
				Time: time.Unix(1e9, 0).UTC(), PhysBase: -16, NCPUs: 2,
			},
		},
		{
			"another kernel's memory", "OSRELEASE=6.2.0-test\nSYMBOL(init_uts_ns)=ffffffff81010060\nOFFSET(uts_namespace.name)=8\n",
			dump.WriterConfig{UTS: dump.UTS{Sysname: "Linux", Release: "6.2.0-test", Machine: "x86_64"}, NCPUs: 2},
		},
		{
			"not in a segment", "OSRELEASE=6.1.0-test\nSYMBOL(init_uts_ns)=ffffffff81020060\nOFFSET(uts_namespace.name)=8\n",
			dump.WriterConfig{UTS: dump.UTS{Sysname: "Linux", Release: "6.1.0-test", Machine: "x86_64"}, NCPUs: 2},
		},
		{"no VMCOREINFO", "", dump.WriterConfig{UTS: dump.UTS{Machine: "x86_64"}, NCPUs: 2}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m.VMCoreInfo = test.info
			img := open(t, m.ELF())
			got := dump.ConfigOf(img)
			if !got.Keep(0x10) || got.Keep(0x11) {
				t.Errorf("Keep(0x10) = %v, Keep(0x11) = %v; want true, false", got.Keep(0x10), got.Keep(0x11))
			}
			if got.Virt == nil || got.Virt(0x11000) != got.Virt(0x10000)+0x1000 {
				t.Error("Virt does not say where memory was mapped")
			}
			got.Keep, got.Virt = nil, nil
			test.want.PageSize, test.want.Ranges, test.want.Notes = 4096, img.Ranges(), img.Notes()
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("ConfigOf (-want +got):\n%s", diff)
			}
		})
	}
}

// pageFunc is a PageReader.
type pageFunc func(addr.PFN) ([]byte, error)

func (f pageFunc) Page(pfn addr.PFN) ([]byte, error) { return f(pfn) }

func TestWriteErrors(t *testing.T) {
	src := open(t, bigMemory().ELF())
	cfg := dump.ConfigOf(src)
	whole := bigMemory().ELF()
	cut := open(t, whole[:len(whole)-100])
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	during, stop := context.WithCancel(t.Context())
	defer stop()
	for _, test := range []struct {
		name  string
		ctx   context.Context
		edit  func(*dump.WriterConfig)
		limit int
		src   dump.PageReader
		want  error
		text  string
	}{
		{name: "two compressions", edit: func(c *dump.WriterConfig) { c.Compression = dump.LZO | dump.Zlib }, text: "cannot be compressed with"},
		{name: "page size", edit: func(c *dump.WriterConfig) { c.PageSize = 1000 }, text: "1000 bytes"},
		{name: "range", edit: func(c *dump.WriterConfig) { c.Ranges = []addr.Range{{Start: 1 << 60, Size: 4096}} }, text: "beyond"},
		{name: "range wraps", edit: func(c *dump.WriterConfig) { c.Ranges = []addr.Range{{Start: 4096, Size: 1<<64 - 1}} }, text: "beyond"},
		{name: "full at once", limit: 1, want: errFull},
		{name: "full in the data", limit: 500_000, want: errFull},
		{name: "cancelled before", ctx: cancelled, want: context.Canceled},
		{name: "cancelled during", ctx: during, want: context.Canceled, src: pageFunc(func(pfn addr.PFN) ([]byte, error) {
			if pfn == 0x1200 {
				stop()
			}
			return src.Page(pfn)
		})},
		{name: "missing page", want: errFull, text: "page frame 0x1200", src: pageFunc(func(pfn addr.PFN) ([]byte, error) {
			if pfn == 0x1200 {
				return nil, errFull
			}
			return src.Page(pfn)
		})},
		{name: "short page", text: "has 5 bytes, want 4096", src: pageFunc(func(addr.PFN) ([]byte, error) { return make([]byte, 5), nil })},
		{name: "truncated source", text: "truncated", src: cut, edit: func(c *dump.WriterConfig) { *c = dump.ConfigOf(cut) }},
		{name: "excluded page", edit: func(c *dump.WriterConfig) { c.Keep = nil }, text: "excluded"},
	} {
		for _, workers := range []int{1, 4} {
			t.Run(fmt.Sprintf("%s/%d", test.name, workers), func(t *testing.T) {
				cfg := cfg
				cfg.Workers = workers
				if test.edit != nil {
					test.edit(&cfg)
				}
				f := &memFile{limit: test.limit}
				ctx, from := test.ctx, test.src
				if ctx == nil {
					ctx = t.Context()
				}
				if from == nil {
					from = src
				}
				stats, err := dump.Write(ctx, f, cfg, from)
				if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
					t.Errorf("Write: %v; want %v saying %q", err, test.want, test.text)
				}
				if stats != (dump.WriteStats{}) {
					t.Errorf("stats %+v with an error", stats)
				}
				if img, err := dump.NewImage(bytes.NewReader(f.b), int64(len(f.b))); err == nil {
					t.Errorf("what was written opens as a dump: %+v", img.Info())
				}
			})
		}
	}
}
