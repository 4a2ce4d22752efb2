//go:build lab

package lab

import (
	"os"
	"path/filepath"
	"testing"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/filter"
	"crashlab/crashkit/filter/filtertest"
)

// checkFilter holds the vmcore at path, from which free pages were left out,
// against the kernel's own free lists, leaves out all that can be, and compares
// every answer.
func checkFilter(t *testing.T, path string) {
	t.Helper()
	p, err := crashkit.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	free, err := filtertest.FreeLists(p)
	if err != nil {
		t.Fatal(err)
	}
	if len(free) == 0 {
		t.Error("no free page at all")
	}
	wrong := 0
	for _, r := range p.Image.Ranges() {
		for pfn := addr.PFN(r.Start / 4096); pfn < addr.PFN(r.End()/4096); pfn++ {
			if left := p.Image.PageState(pfn) == dump.Excluded; left != free[pfn] {
				wrong++
				t.Logf("page %#x: left out is %v; on a free list is %v", uint64(pfn), left, free[pfn])
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d pages were left out wrongly, or kept", wrong)
	}

	kinds, err := filter.Classify(p)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := kinds.Unread(); n > 0 {
		t.Errorf("%d pages of unknown use: %v", n, err)
	}
	for _, k := range []filter.Kind{filter.Cache, filter.User, filter.Kernel} {
		if kinds.Count(k) == 0 {
			t.Errorf("no page of kind %v", k)
		}
	}
	cfg := dump.ConfigOf(p.Image)
	cfg.DumpLevel = int(filter.MaxLevel)
	there := cfg.Keep
	cfg.Keep = func(pfn addr.PFN) bool { return !filter.MaxLevel.Excludes(kinds.Kind(pfn)) && there(pfn) }
	want := filtertest.Answers(t, p)
	if len(want) < 20 {
		t.Errorf("%d answers; want those of every command and task", len(want))
	}
	for name, write := range map[string]func(*os.File) (dump.WriteStats, error){
		"lzo": func(f *os.File) (dump.WriteStats, error) {
			c := cfg
			c.Compression = dump.LZO
			return dump.Write(t.Context(), f, c, p.Image)
		},
		"elf": func(f *os.File) (dump.WriteStats, error) {
			return dump.WriteELF(t.Context(), f, cfg, p.Image)
		},
	} {
		f, err := os.Create(filepath.Join(t.TempDir(), name))
		if err != nil {
			t.Fatal(err)
		}
		st, err := write(f)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if left := kinds.Count(filter.Cache) + kinds.Count(filter.CachePrivate) + kinds.Count(filter.User); st.Stored+left+uint64(len(free)) != st.Pages {
			t.Errorf("%s: %d pages stored, %d left out, %d free, of %d", name, st.Stored, left, len(free), st.Pages)
		}
		q, err := crashkit.Open(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		got := filtertest.Answers(t, q)
		for line, a := range want {
			if got[line] != a {
				t.Errorf("%s: %s: %.500s\nwant %.500s", name, line, got[line], a)
			}
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}
}
