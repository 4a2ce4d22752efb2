package crashkit_test

import (
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/dump/dumptest"
	"crashlab/crashkit/internal/fixture"
)

// hugeFile writes the shared dump as that of a machine with size bytes of memory.
func hugeFile(t testing.TB, size uint64) string {
	t.Helper()
	img, err := dump.Open(fixture.Path(t, fixture.NullDeref))
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	info, err := img.VMCoreInfo()
	if err != nil {
		t.Fatal(err)
	}
	m := dumptest.Memory{Pages: make(map[addr.PFN][]byte), VMCoreInfo: info.Text}
	for _, r := range img.Ranges() {
		for pfn := addr.PFN(r.Start >> 12); pfn < addr.PFN(r.End()>>12); pfn++ {
			if page, err := img.Page(pfn); err == nil && uint64(pfn) < size>>12 {
				m.Pages[pfn] = page
			}
		}
	}
	path := filepath.Join(t.TempDir(), "vmcore")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := m.Huge(f, size, dumptest.KdumpOptions{DumpLevel: 31, Release: info.OSRelease()}); err != nil {
		t.Fatal(err)
	}
	return path
}

// openAll opens a dump, symbols and types included, and looks at the end of the
// file, as the program does.
func openAll(t testing.TB, path string) {
	t.Helper()
	p, err := crashkit.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range p.Limits {
		t.Error(err)
	}
	if problems := p.Image.Info().Problems; len(problems) > 0 {
		t.Error(problems)
	}
	p.Close()
}

// raceDetector is set in builds with -race, which slow down single reads of
// memory many times and so say nothing of how long work takes.
var raceDetector bool

// processorTime returns how long this process has run so far, whoever else has the
// processors in between.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// TestHuge sees that a terabyte of memory, of which a page in a thousand is
// stored, costs little more than 512 MiB.
func TestHuge(t *testing.T) {
	small, huge := hugeFile(t, 512<<20), hugeFile(t, 1<<40)
	took := func(path string) time.Duration {
		least := time.Hour
		for range 7 {
			runtime.GC()
			start := processorTime(t)
			openAll(t, path)
			least = min(least, processorTime(t)-start)
		}
		return least
	}
	a, b := took(small), took(huge)
	t.Logf("512 MiB: %v, 1 TiB: %v", a, b)
	if b > 2*a && !raceDetector {
		t.Errorf("opening takes %v with 1 TiB of memory, %v with 512 MiB; want at most twice as long", b, a)
	}

	debug.FreeOSMemory()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	openAll(t, huge)
	runtime.ReadMemStats(&after)
	// The file's mapping can have its 64 MiB of bitmaps in memory on top of this.
	if n := after.TotalAlloc - before.TotalAlloc; n > 200<<20 {
		t.Errorf("opening allocates %d MiB; want at most 200", n>>20)
	}
}

func BenchmarkOpenHuge(b *testing.B) {
	for name, size := range map[string]uint64{"512MiB": 512 << 20, "1TiB": 1 << 40} {
		b.Run(name, func(b *testing.B) {
			path := hugeFile(b, size)
			b.ReportAllocs()
			for b.Loop() {
				openAll(b, path)
			}
		})
	}
}
