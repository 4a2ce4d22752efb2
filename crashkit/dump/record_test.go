package dump_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/dump/dumptest"
)

func TestRecord(t *testing.T) {
	m := testMemory()
	for name, b := range map[string][]byte{"ELF": m.ELF(), "kdump": m.Kdump(dumptest.KdumpOptions{Compression: dump.Zstd})} {
		t.Run(name, func(t *testing.T) {
			img := open(t, b)
			got := make(map[addr.PFN]bool)
			pfns := slices.Sorted(maps.Keys(m.Pages))
			first, last := pfns[0], pfns[len(pfns)-1]
			if _, err := img.Page(first); err != nil {
				t.Fatal(err)
			}
			img.Record(func(pfn addr.PFN) { got[pfn] = true })
			if err := img.ReadPhys(addr.Phys(last*4096+100), make([]byte, 8)); err != nil {
				t.Fatal(err)
			}
			_, _ = img.Page(0x7000)
			if diff := cmp.Diff(map[addr.PFN]bool{last: true, 0x7000: true}, got); diff != "" {
				t.Errorf("pages recorded (-want +got):\n%s", diff)
			}
		})
	}
}
