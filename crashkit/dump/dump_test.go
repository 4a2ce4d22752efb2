package dump_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/dump/dumptest"
)

// noise returns n bytes that do not compress.
func noise(n int, seed uint32) []byte {
	b := make([]byte, n)
	for i := range b {
		seed = seed*1664525 + 1013904223
		b[i] = byte(seed >> 24)
	}
	return b
}

var regs = func() (r [27]uint64) {
	for i := range r {
		r[i] = 0x1000 + uint64(i)
	}
	return r
}()

// testMemory is 9 pages of memory in three ranges, one page of them excluded.
func testMemory() dumptest.Memory {
	return dumptest.Memory{
		Pages: map[addr.PFN][]byte{
			0x10: []byte("the first page"),
			0x11: noise(4096, 1), // does not compress
			0x12: nil,            // zeroes
			0x13: bytes.Repeat([]byte("ab"), 2048),
			0x20: nil, // zeroes again
			0x21: noise(1000, 2),
			0x23: noise(2000, 3),
			0x29: []byte("the last page"),
		},
		Excluded:   []addr.PFN{0x22},
		VMCoreInfo: "OSRELEASE=6.1.0-test\nPAGESIZE=4096\nSYMBOL(_stext)=ffffffff81000000\n",
		Notes: []dump.Note{
			dumptest.PRStatus(42, regs),
			{Name: "QEMU", Type: 0, Desc: []byte{1, 2, 3}},
			dumptest.PRStatus(0, [27]uint64{}),
		},
	}
}

// checkMemory reads all there is in an image of testMemory, and around it.
func checkMemory(t *testing.T, img *dump.Image) {
	t.Helper()
	want := testMemory()
	for pfn := range addr.PFN(0x40) {
		content, stored := want.Pages[pfn]
		b, err := img.Page(pfn)
		state := img.PageState(pfn)
		switch {
		case stored:
			full := make([]byte, 4096)
			copy(full, content)
			if err != nil || !bytes.Equal(b, full) {
				t.Errorf("Page(%#x) = %.16x..., %v; want %.16x...", pfn, b, err, full)
			}
			if state != dump.Present {
				t.Errorf("PageState(%#x) = %v; want present", pfn, state)
			}
		case pfn == 0x22:
			if addr.ReasonOf(err) != addr.Excluded || state != dump.Excluded {
				t.Errorf("Page(%#x): %v, state %v; want excluded", pfn, err, state)
			}
		default:
			if addr.ReasonOf(err) != addr.NotInDump || state != dump.Absent {
				t.Errorf("Page(%#x): %v, state %v; want absent", pfn, err, state)
			}
		}
	}

	// Over the boundary of two pages, and over that of two ranges.
	b := make([]byte, 8192)
	if err := img.ReadPhys(0x10ffc, b[:8]); err != nil {
		t.Error(err)
	} else if want := append(make([]byte, 4), noise(4, 1)...); !bytes.Equal(b[:8], want) {
		t.Errorf("ReadPhys(0x10ffc) = %x; want %x", b[:8], want)
	}
	var f *addr.Fault
	if err := img.ReadPhys(0x13800, b); !errors.As(err, &f) || f.Phys != 0x14000 || f.Reason != addr.NotInDump {
		t.Errorf("ReadPhys(0x13800, 8192 bytes) = %v; want a fault at 0x14000", err)
	}
	if err := img.ReadPhys(0x21f00, b); !errors.As(err, &f) || f.Phys != 0x22000 || f.Reason != addr.Excluded {
		t.Errorf("ReadPhys(0x21f00, 8192 bytes) = %v; want excluded at 0x22000", err)
	}
	if err := img.ReadPhys(^addr.Phys(0)-3, b[:8]); addr.ReasonOf(err) != addr.NotInDump {
		t.Errorf("ReadPhys at the end of the address space: %v; want not in the dump", err)
	}
	if err := img.ReadPhys(0x10000, nil); err != nil {
		t.Errorf("ReadPhys of nothing: %v", err)
	}
	if _, err := img.Page(^addr.PFN(0)); addr.ReasonOf(err) != addr.NotInDump {
		t.Errorf("Page(2^64-1): %v; want not in the dump", err)
	}

	ranges := []addr.Range{{Start: 0x10000, Size: 0x4000}, {Start: 0x20000, Size: 0x4000}, {Start: 0x29000, Size: 0x1000}}
	if diff := cmp.Diff(ranges, img.Ranges()); diff != "" {
		t.Errorf("Ranges (-want +got):\n%s", diff)
	}
}

func checkNotes(t *testing.T, img *dump.Image) {
	t.Helper()
	want := testMemory()
	notes := append(want.Notes, dump.Note{Name: "VMCOREINFO", Desc: []byte(want.VMCoreInfo)})
	if diff := cmp.Diff(notes, img.Notes()); diff != "" {
		t.Errorf("Notes (-want +got):\n%s", diff)
	}
	status := []dump.PRStatus{{PID: 42, Regs: regs, Raw: want.Notes[0].Desc}, {Raw: want.Notes[2].Desc}}
	if diff := cmp.Diff(status, img.PRStatus()); diff != "" {
		t.Errorf("PRStatus (-want +got):\n%s", diff)
	}
}

func checkVMCoreInfo(t *testing.T, img *dump.Image) {
	t.Helper()
	v, err := img.VMCoreInfo()
	if err != nil {
		t.Errorf("VMCoreInfo: %v", err)
	} else if v.Text != testMemory().VMCoreInfo {
		t.Errorf("VMCoreInfo text = %q; want %q", v.Text, testMemory().VMCoreInfo)
	}
}

func open(t testing.TB, b []byte) *dump.Image {
	t.Helper()
	img, err := dump.NewImage(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// TestImage reads the same memory out of every format, from a reader and from a
// file, as it is and flattened.
func TestImage(t *testing.T) {
	type file struct {
		b    []byte
		info dump.Info
	}
	files := map[string]file{
		"elf": {testMemory().ELF(), dump.Info{Format: "ELF vmcore", Machine: "x86_64", PageSize: 4096, DumpLevel: -1}},
	}
	for _, c := range []dump.Compression{dump.Plain, dump.Zlib, dump.LZO, dump.Snappy, dump.Zstd} {
		for version := 1; version <= 6; version++ {
			b := testMemory().Kdump(dumptest.KdumpOptions{
				Version: version, Compression: c, DumpLevel: 31, Release: "6.1.0-test", PhysBase: -0x1000, TimeSec: 1e9,
			})
			files[fmt.Sprintf("kdump-%v-%d", c, version)] = file{b, dump.Info{
				Format: "kdump compressed", Compression: c.String(), HeaderVersion: version, Machine: "x86_64",
				UTS:      dump.UTS{Sysname: "Linux", Release: "6.1.0-test", Machine: "x86_64"},
				PageSize: 4096, DumpLevel: 31, Time: time.Unix(1e9, 0).UTC(), NCPUs: 1, PhysBase: -0x1000,
			}}
		}
	}
	for name, f := range files {
		check := func(t *testing.T, img *dump.Image, want dump.Info) {
			t.Helper()
			checkMemory(t, img)
			if v := want.HeaderVersion; v == 0 || v >= 4 { // the header has notes since 4
				checkNotes(t, img)
			} else if n := img.Notes(); n != nil {
				t.Errorf("Notes = %v; want none", n)
			}
			if v := want.HeaderVersion; v == 0 || v >= 3 {
				checkVMCoreInfo(t, img)
			} else if _, err := img.VMCoreInfo(); err != dump.ErrNoVMCoreInfo {
				t.Errorf("VMCoreInfo: %v; want ErrNoVMCoreInfo", err)
			}
			want.FileSize = int64(len(f.b))
			if diff := cmp.Diff(want, img.Info()); diff != "" {
				t.Errorf("Info (-want +got):\n%s", diff)
			}
		}
		t.Run(name, func(t *testing.T) { check(t, open(t, f.b), f.info) })
		for _, n := range []int{100, 4096, 1 << 20} {
			t.Run(fmt.Sprintf("%s/flattened-%d", name, n), func(t *testing.T) {
				info := f.info
				info.Flattened = true
				check(t, open(t, dumptest.Flatten(f.b, n)), info)
			})
		}
		t.Run(name+"/file", func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "vmcore")
			if err := os.WriteFile(path, f.b, 0o600); err != nil {
				t.Fatal(err)
			}
			img, err := dump.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			check(t, img, f.info)
			if err := img.Close(); err != nil {
				t.Error(err)
			}
			if err := img.Close(); err != nil {
				t.Errorf("second Close: %v", err)
			}
		})
	}
}

// TestMakedumpfile compares with what makedumpfile itself wrote.
func TestMakedumpfile(t *testing.T) {
	want, err := dump.Open("testdata/makedumpfile/memory.elf")
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	for _, test := range []struct {
		file        string
		compression string
		flattened   bool
		more        []string
	}{
		{"zlib.kdump", "zlib", false, nil},
		{"lzo.flattened", "lzo", true, nil},
		{"split2.kdump", "zlib", false, []string{"split3.kdump", "split1.kdump"}},
	} {
		t.Run(test.file, func(t *testing.T) {
			var paths []string
			for _, name := range append([]string{test.file}, test.more...) {
				paths = append(paths, "testdata/makedumpfile/"+name)
			}
			img, err := dump.OpenFiles(paths, dump.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer img.Close()
			n := 0
			for _, r := range want.Ranges() {
				for pfn := addr.PFN(r.Start >> 12); pfn < addr.PFN(r.End()>>12); pfn++ {
					n++
					a, err := want.Page(pfn)
					if err != nil {
						t.Fatal(err)
					}
					if b, err := img.Page(pfn); err != nil || !bytes.Equal(a, b) {
						t.Errorf("Page(%#x) differs, error %v", pfn, err)
					}
				}
			}
			if n != 15 {
				t.Errorf("compared %d pages; want 15", n)
			}
			if diff := cmp.Diff(want.Ranges(), img.Ranges()); diff != "" {
				t.Errorf("Ranges (-elf +%s):\n%s", test.file, diff)
			}
			if diff := cmp.Diff(want.Notes(), img.Notes()); diff != "" {
				t.Errorf("Notes (-elf +%s):\n%s", test.file, diff)
			}
			info := img.Info()
			if info.UTS.Release != "6.1.0-56-cloud-amd64" || info.Compression != test.compression ||
				info.Flattened != test.flattened || info.DumpLevel != 1 || info.Truncated || info.Incomplete || info.NCPUs != 2 {
				t.Errorf("Info = %+v", info)
			}
			v, err := img.VMCoreInfo()
			if err != nil {
				t.Fatal(err)
			}
			if base, ok := v.Number("phys_base"); !ok || base != info.PhysBase || base != -589299712 {
				t.Errorf("phys_base = %d in VMCOREINFO, %d in the header; want -589299712", base, info.PhysBase)
			}
		})
	}
}

func TestConcurrentReads(t *testing.T) {
	for name, b := range map[string][]byte{
		"elf":  testMemory().ELF(),
		"zlib": testMemory().Kdump(dumptest.KdumpOptions{Compression: dump.Zlib}),
		"zstd": testMemory().Kdump(dumptest.KdumpOptions{Compression: dump.Zstd}),
	} {
		t.Run(name, func(t *testing.T) {
			img := open(t, b)
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for range 4 {
						checkMemory(t, img)
						checkVMCoreInfo(t, img)
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestOpenErrors(t *testing.T) {
	elf, kdump := testMemory().ELF(), testMemory().Kdump(dumptest.KdumpOptions{})
	edit := func(b []byte, at int, with ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[at:], with)
		return b
	}
	for _, test := range []struct {
		name   string
		b      []byte
		want   string
		format bool
	}{
		{"empty", nil, "empty", true},
		{"zeroes", make([]byte, 10000), "begins with zeroes", true},
		{"text", []byte("#!/bin/sh\n"), "neither an ELF core nor", true},
		{"gzip", []byte("\x1f\x8b\x08\x00"), "compressed with gzip as a whole; unpack it first", true},
		{"xz", []byte("\xfd7zXZ\x00\x00"), "xz", true},
		{"zstd", []byte("\x28\xb5\x2f\xfd\x04"), "zstd", true},
		{"diskdump", append([]byte("DISKDUMP"), kdump[8:]...), "diskdump", true},
		{"short ELF", elf[:63], "ELF header", false},
		{"32-bit ELF", edit(elf, 4, 1), "not 64-bit", true},
		{"big-endian ELF", edit(elf, 5, 2), "big-endian", true},
		{"executable", edit(elf, 16, 2), "type 2, not a core", true},
		{"program header size", edit(elf, 54, 57), "57 bytes", true},
		{"program headers cut", elf[:200], "program headers", false},
		{"program headers far", edit(elf, 39, 0xff), "program headers", false},
		{"process core", processCore(), "core of a process", true},
		{"short kdump", kdump[:463], "kdump header", false},
		{"big-endian kdump", edit(kdump, 8, 0, 0, 0, 6), "big-endian", true},
		{"32-bit kdump", edit(edit(kdump, 428, 9, 9), 416, 0, 0x10), "32-bit", true},
		{"page size", edit(kdump, 428, 1), "4097 bytes", true},
		{"too many page frames", edit(kdump, 4096+96, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), "more than any machine", true},
		{"bitmaps too small", edit(kdump, 4096+96, 0xff, 0xff, 0xff), "bytes of bitmaps", true},
		{"sub header cut", kdump[:4100], "sub header", false},
		{"flattened type", edit(dumptest.Flatten(kdump, 4096), 23, 2), "type 2", true},
		{"flattened nothing", dumptest.Flatten(nil, 4096), "empty", true},
		{"flattened without a start", edit(dumptest.Flatten(kdump, 1<<20), 4096+7, 1)[:8192], "start of a dump", true},
		{"flattened text", dumptest.Flatten([]byte("#!/bin/sh\n"), 4096), "neither", true},
		{"flattened header cut", dumptest.Flatten(kdump, 4096)[:30], "flattened header", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			img, err := dump.NewImage(bytes.NewReader(test.b), int64(len(test.b)))
			if err == nil || img != nil {
				t.Fatalf("NewImage = %v, %v; want an error", img, err)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q; want it to say %q", err, test.want)
			}
			if got := errors.Is(err, dump.ErrFormat); got != test.format {
				t.Errorf("errors.Is(%q, ErrFormat) = %v; want %v", err, got, test.format)
			}
		})
	}
	if _, err := dump.Open(t.TempDir()); !errors.Is(err, dump.ErrFormat) {
		t.Errorf("Open(directory): %v; want ErrFormat", err)
	}
	if _, err := dump.Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open(no such file): %v; want ErrNotExist", err)
	}
}

// processCore is a core whose segments all have p_paddr 0.
func processCore() []byte {
	b := testMemory().ELF()
	for i := range int(binary.LittleEndian.Uint16(b[56:])) {
		clear(b[64+56*i+24:][:8])
	}
	return b
}
