package dump_test

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/dump/dumptest"
)

// formats returns memory as a file of each format.
func formats(m dumptest.Memory) map[string][]byte {
	files := map[string][]byte{"elf": m.ELF()}
	for _, c := range []dump.Compression{dump.Plain, dump.Zlib, dump.LZO, dump.Snappy, dump.Zstd} {
		files[c.String()] = m.Kdump(dumptest.KdumpOptions{Compression: c})
	}
	return files
}

func TestReadAll(t *testing.T) {
	want := testMemory().Pages
	for name, b := range formats(testMemory()) {
		var mu sync.Mutex
		got := make(map[addr.PFN]bool)
		err := open(t, b).ReadAll(func(pfn addr.PFN, page []byte, err error) error {
			mu.Lock()
			defer mu.Unlock()
			content, ok := want[pfn]
			if full := append(bytes.Clone(content), make([]byte, 4096)...)[:4096]; !ok || got[pfn] || err != nil || !bytes.Equal(page, full) {
				t.Errorf("%s: page %#x = %.16x, %v; want %.16x, once", name, pfn, page, err, content)
			}
			got[pfn] = true
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
			t.Errorf("%s: pages (-want +got):\n%s", name, diff)
		}
	}
}

func TestReadAllErrors(t *testing.T) {
	b := testMemory().Kdump(dumptest.KdumpOptions{Compression: dump.Zstd})
	clear(b[descOff(b)+3*24:][:24]) // of page frame 0x13
	var lost, read atomic.Int32
	if err := open(t, b).ReadAll(func(pfn addr.PFN, page []byte, err error) error {
		if addr.ReasonOf(err) == addr.NotWritten && pfn == 0x13 && page == nil {
			lost.Add(1)
		} else if err == nil {
			read.Add(1)
		}
		return nil
	}); err != nil || lost.Load() != 1 || int(read.Load()) != len(testMemory().Pages)-1 {
		t.Errorf("ReadAll: %v, %d pages lost, %d read; want 1 and %d", err, lost.Load(), read.Load(), len(testMemory().Pages)-1)
	}
	stop := errors.New("stop")
	if err := open(t, b).ReadAll(func(addr.PFN, []byte, error) error { return stop }); err != stop {
		t.Errorf("ReadAll: %v; want the error of the function", err)
	}
}

// BenchmarkReadAll reads all pages of a file, on all processors.
func BenchmarkReadAll(b *testing.B) {
	for name, path := range benchFiles(b) {
		b.Run(name, func(b *testing.B) {
			img, err := dump.Open(path)
			if err != nil {
				b.Fatal(err)
			}
			defer img.Close()
			b.ReportAllocs()
			b.SetBytes(benchPages * 4096)
			for b.Loop() {
				var sum atomic.Uint64
				if err := img.ReadAll(func(_ addr.PFN, page []byte, err error) error {
					sum.Add(uint64(page[0]))
					return err
				}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
