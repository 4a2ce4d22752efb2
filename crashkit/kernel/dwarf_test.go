package kernel_test

import (
	"errors"
	"slices"
	"testing"

	"crashlab/crashkit/ctype"
	"crashlab/crashkit/debuginfo"
	"crashlab/crashkit/internal/fixture"
	"crashlab/crashkit/kernel"
)

// The compiler's debug information of a kernel and the BTF that it carries agree on the
// members that the analyzer reads: where they are, how large, and whether they are there.
func TestLayoutFromDWARF(t *testing.T) {
	p := fixture.Open(t)
	f, err := debuginfo.Open(fixture.Path(t, fixture.VMLinux))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if id, err := p.BuildID(); err != nil || id != f.BuildID {
		t.Fatalf("the dump is of kernel %s (%v), the debug information of %s", id, err, f.BuildID)
	}
	dwarf, err := f.Types()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, n := range kernel.Layout() {
		// Each name by itself: only one of them may be this kernel's.
		names := n.Any
		if len(names) == 0 {
			names = []string{""}
		}
		for _, name := range names {
			n.Any = slices.DeleteFunc([]string{name}, func(s string) bool { return s == "" })
			at, size, err := n.Find(dwarf)
			wantAt, wantSize, wantErr := n.Find(p.Types)
			if errors.Is(err, ctype.ErrNotFound) {
				continue // not kept; what there is must be enough, see below
			}
			if at != wantAt || size != wantSize || (err == nil) != (wantErr == nil) {
				t.Errorf("%s %s by DWARF: at %d, %d bytes, %v; by BTF: at %d, %d bytes, %v", n.Type, name, at, size, err, wantAt, wantSize, wantErr)
			}
			if err == nil {
				found++
			}
		}
	}
	if found < 110 {
		t.Errorf("only %d of what is needed was found: make %s anew", found, fixture.VMLinux)
	}
}
