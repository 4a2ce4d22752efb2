package crashkit_test

import (
	"slices"
	"testing"

	"crashlab/crashkit"
	"crashlab/crashkit/internal/fixture"
	"crashlab/crashkit/sym"
)

// Where VMCOREINFO says where the tables of kallsyms are, a search must find the
// same ones; 5.10, whose VMCOREINFO does not, has but the search.
func TestSearchKallsyms(t *testing.T) {
	programs := map[string]*crashkit.Program{"6.1": fixture.Open(t)}
	for _, g := range fixture.Generations() {
		programs[g] = fixture.OpenGeneration(t, g)
	}
	for name, p := range programs {
		t.Run(name, func(t *testing.T) {
			known := p.Kallsyms
			got, found, err := sym.FindKallsyms(p, known.AnchorAddr, 96<<20, known.AnchorName, known.AnchorAddr)
			if err != nil {
				t.Fatalf("FindKallsyms: %v", err)
			}
			if found.Names != known.Names || found.NumSyms != known.NumSyms || found.TokenTable != known.TokenTable || found.Offsets != known.Offsets {
				t.Errorf("FindKallsyms found %+v; want %+v", found, known)
			}
			if want := p.Syms.All(); !slices.EqualFunc(sym.NewTable(got).All(), want, func(a, b sym.Symbol) bool { return a.Name == b.Name && a.Addr == b.Addr }) {
				t.Errorf("FindKallsyms = %d symbols; want the %d of VMCOREINFO's tables", len(got), len(want))
			}
		})
	}
}
