package dump_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/dump/dumptest"
)

// hugeFile writes testMemory as part of a machine with size bytes of memory.
func hugeFile(t testing.TB, size uint64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vmcore")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := testMemory().Huge(f, size, dumptest.KdumpOptions{DumpLevel: 31}); err != nil {
		t.Fatal(err)
	}
	return path
}

// BenchmarkOpenHuge opens and reads the last page.
func BenchmarkOpenHuge(b *testing.B) {
	for _, m := range []struct {
		name string
		size uint64
	}{{"512MiB", 512 << 20}, {"1TiB", 1 << 40}} {
		b.Run(m.name, func(b *testing.B) {
			path := hugeFile(b, m.size)
			b.ReportAllocs()
			for b.Loop() {
				img, err := dump.Open(path)
				if err != nil {
					b.Fatal(err)
				}
				img.Close()
			}
		})
	}
}

// TestHuge opens the dump of a machine with a terabyte of memory.
func TestHuge(t *testing.T) {
	path := hugeFile(t, 1<<40)
	before := allocated()
	img, err := dump.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	for pfn, want := range map[addr.PFN]string{0x10: "the first page", 0x29: "the last page", 268435000: ""} {
		page, err := img.Page(pfn)
		if full := append([]byte(want), make([]byte, 4096)...)[:4096]; err != nil || !bytes.Equal(page, full) {
			t.Errorf("Page(%#x) = %.16x, %v; want %q and zeroes", pfn, page, err, want)
		}
	}
	if _, err := img.Page(268435001); addr.ReasonOf(err) != addr.Excluded {
		t.Errorf("Page(268435001): %v; want excluded", err)
	}
	if info := img.Info(); len(info.Problems) > 0 {
		t.Errorf("problems: %q", info.Problems)
	}
	if diff := cmp.Diff([]addr.Range{{Size: 1 << 40}}, img.Ranges()); diff != "" {
		t.Errorf("Ranges (-want +got):\n%s", diff)
	}
	if n := allocated() - before; n > 1<<20 {
		t.Errorf("%d bytes allocated; want at most 1 MiB", n)
	}
}
