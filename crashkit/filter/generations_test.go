package filter_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/filter"
	"crashlab/crashkit/filter/filtertest"
	"crashlab/crashkit/internal/fixture"
)

// memInfo returns a line of the guest's /proc/meminfo in pages.
func memInfo(t *testing.T, proc fs.FS, name string) uint64 {
	t.Helper()
	b, err := fs.ReadFile(proc, "meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		var kb uint64
		if n, _ := fmt.Sscanf(string(line), name+": %d kB", &kb); n == 1 {
			return kb / 4
		}
	}
	t.Fatalf("meminfo has no %s", name)
	return 0
}

// TestGenerations classifies the memory of a real guest of each generation of
// kernels, which had no disk, and so no cache but what its processes had loaded.
func TestGenerations(t *testing.T) {
	for _, name := range fixture.Generations() {
		t.Run(name, func(t *testing.T) {
			p := fixture.OpenGeneration(t, name)
			cfg := dump.ConfigOf(p.Image)
			cfg.Keep = nil
			kinds, err := filter.Classify(reopen(t, cfg, filled{p.Image}))
			if err != nil {
				t.Fatal(err)
			}
			if n, err := kinds.Unread(); n > 0 {
				t.Errorf("%d pages of unknown use: %v", n, err)
			}
			free, err := filtertest.FreeLists(p)
			if err != nil || len(free) == 0 {
				t.Fatalf("FreeLists = %d pages, %v", len(free), err)
			}
			got := make(map[filter.Kind]uint64)
			for _, r := range p.Image.Ranges() {
				for pfn := addr.PFN(r.Start / 4096); pfn < addr.PFN(r.End()/4096); pfn++ {
					k := kinds.Kind(pfn)
					got[k]++
					if (k == filter.Free) != free[pfn] {
						t.Fatalf("Kind(%#x) = %v; on a free list: %v", uint64(pfn), k, free[pfn])
					}
				}
			}
			proc := fixture.Proc(t, name)
			if n, want := got[filter.Cache]+got[filter.CachePrivate], memInfo(t, proc, "Cached"); n != want {
				t.Errorf("%d pages of cache; the guest counted %d", n, want)
			}
			// The guest counted before a last process was started.
			const more = 256
			if n, want := got[filter.User], memInfo(t, proc, "AnonPages"); n < want || n > want+more {
				t.Errorf("%d pages of processes; the guest counted %d", n, want)
			}
		})
	}
}

// TestGenerationsAnswers leaves out of a dump all that can be, which changes no
// answer: the dumps have what commands read, and none of that can be.
func TestGenerationsAnswers(t *testing.T) {
	for _, name := range fixture.Generations() {
		t.Run(name, func(t *testing.T) {
			p := fixture.OpenGeneration(t, name)
			kinds, err := filter.Classify(p)
			if err != nil {
				t.Fatal(err)
			}
			cfg := dump.ConfigOf(p.Image)
			there := cfg.Keep
			cfg.Keep = func(pfn addr.PFN) bool { return !filter.MaxLevel.Excludes(kinds.Kind(pfn)) && there(pfn) }
			want, got := filtertest.Answers(t, p), filtertest.Answers(t, reopen(t, cfg, p.Image))
			if len(want) < 150 {
				t.Errorf("%d answers; want those of every command and task", len(want))
			}
			for line, a := range want {
				if got[line] != a {
					t.Errorf("%s: %.500s\nwant %.500s", line, got[line], a)
				}
			}
		})
	}
}

// TestMakedumpfile compares, page by page, with what makedumpfile left out of a
// dump of a kernel that it knows.
func TestMakedumpfile(t *testing.T) {
	p := fixture.OpenGeneration(t, "5.10")
	cfg := dump.ConfigOf(p.Image)
	cfg.Keep = nil
	kinds, err := filter.Classify(reopen(t, cfg, filled{p.Image}))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(fixture.Path(t, "5.10.excluded"))
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[filter.Level]map[addr.PFN]bool)
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		var level filter.Level
		var first, n addr.PFN
		if _, err := fmt.Sscanf(line, "%d %x %x", &level, &first, &n); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if want[level] == nil {
			want[level] = make(map[addr.PFN]bool)
		}
		for pfn := first; pfn < first+n; pfn++ {
			want[level][pfn] = true
		}
	}
	for _, level := range []filter.Level{filter.ExcludeCache, filter.ExcludeUser, filter.ExcludeFree} {
		if len(want[level]) < 1000 {
			t.Errorf("makedumpfile -d %d left out %d pages; want more to compare", level, len(want[level]))
		}
		for _, r := range p.Image.Ranges() {
			for pfn := addr.PFN(r.Start / 4096); pfn < addr.PFN(r.End()/4096); pfn++ {
				if got := level.Excludes(kinds.Kind(pfn)); got != want[level][pfn] {
					t.Fatalf("level %d: page %#x is left out: %v; makedumpfile: %v", level, uint64(pfn), got, want[level][pfn])
				}
			}
		}
	}
}

// filled is a dump that has all pages: those left out are zeroes. Only pages that
// are stored are classified.
type filled struct{ *dump.Image }

func (f filled) Page(pfn addr.PFN) ([]byte, error) {
	page, err := f.Image.Page(pfn)
	if fault, ok := errors.AsType[*addr.Fault](err); ok && fault.Reason == addr.Excluded {
		return make([]byte, f.PageSize()), nil
	}
	return page, err
}

// reopen writes a dump and opens it until the end of the test.
func reopen(t *testing.T, cfg dump.WriterConfig, src dump.PageReader) *crashkit.Program {
	t.Helper()
	cfg.Compression = dump.LZO
	f, err := os.Create(filepath.Join(t.TempDir(), "written"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dump.Write(t.Context(), f, cfg, src); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	p, err := crashkit.Open(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}
