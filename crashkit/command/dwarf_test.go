package command

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit"
	"crashlab/crashkit/ctype"
	"crashlab/crashkit/debuginfo"
	"crashlab/crashkit/internal/fixture"
)

// answers returns what commands say, errors included.
func answers(t *testing.T, p *crashkit.Program, lines ...string) string {
	t.Helper()
	env := NewEnv(p, "vmcore")
	var all strings.Builder
	for _, line := range lines {
		a := Run(t.Context(), env, line)
		all.WriteString("== " + line + "\n")
		out := NewText(&all)
		if a.Result != nil {
			a.Result.WriteText(out)
		}
		if err := out.Flush(); err != nil {
			t.Fatal(err)
		}
		for _, problem := range Problems(a.Err) {
			all.WriteString("! " + problem + "\n")
		}
	}
	return all.String()
}

// A kernel without BTF answers alike if its debug information is given.
func TestTypesFromDWARF(t *testing.T) {
	lines := []string{"sys", "bt -a", "bt -s --how 1", "bt 2", "ps", "log", "mod", "struct list_head modules"}
	want := answers(t, fixture.Open(t), lines...)

	p := fixture.Open(t)
	p.SetTypes(ctype.Empty()) // as if the kernel had none
	debug := debuginfo.New(p, fixture.Path(t, fixture.NullDeref), fixture.Path(t, fixture.VMLinux), nil)
	defer debug.Close()
	if err := debug.SupplyTypes(); err != nil {
		t.Fatal(err)
	}
	// But for where they say that the types come from.
	want = strings.Replace(want, "symbols and types from the dump", "symbols from the dump, types from "+fixture.Path(t, fixture.VMLinux), 1)
	if d := cmp.Diff(want, answers(t, p, lines...)); d != "" {
		t.Errorf("-by BTF +by DWARF:\n%s", d)
	}
	if strings.Count(want, "\n") < 500 {
		t.Errorf("the commands said only %d lines", strings.Count(want, "\n"))
	}
}
