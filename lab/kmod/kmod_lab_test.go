//go:build lab

package kmod

import (
	"bytes"
	"debug/dwarf"
	"debug/elf"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"crashlab/lab/blame"
	"crashlab/lab/kernels"
	"crashlab/lab/store"
	"crashlab/modules"
)

// fetch returns the default kernel, from the user's cache if it is there.
func fetch(t *testing.T) *kernels.Kernel {
	t.Helper()
	s, err := store.Open("", nil)
	if err != nil {
		t.Fatal(err)
	}
	k, err := kernels.New(s, nil, nil, kernels.Options{}).Fetch(t.Context(), kernels.Default)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func builder(t *testing.T) *Builder {
	t.Helper()
	s, err := store.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return &Builder{Store: s}
}

func TestBuild(t *testing.T) {
	k := fetch(t)
	b := builder(t)
	m, err := b.Build(t.Context(), k, modules.FS, "nullderef")
	if err != nil {
		t.Fatalf("Build = %v\n%s", err, m.Log)
	}
	f, err := elf.Open(m.KO)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	sizes := make(map[string]uint64)
	for _, s := range syms {
		sizes[s.Name] = s.Size
	}
	for _, name := range []string{"hello_crash", "nullderef_init"} {
		if sizes[name] == 0 {
			t.Errorf("%s has no function %s: it was inlined", m.KO, name)
		}
	}
	if f.Section(".orc_unwind") == nil {
		t.Error("the module has no .orc_unwind section")
	}
	modinfo, err := f.Section(".modinfo").Data()
	if err != nil {
		t.Fatal(err)
	}
	if want := "vermagic=" + k.Release + " "; !bytes.Contains(modinfo, []byte(want)) {
		t.Errorf(".modinfo = %q; want it to have %q", modinfo, want)
	}
	d, err := f.DWARF()
	if err != nil {
		t.Fatal(err)
	}
	cu, err := d.Reader().Next()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := cu.Val(dwarf.AttrName), "modules/nullderef/nullderef.c"; got != want {
		t.Errorf("source file in the debug info = %q; want %q", got, want)
	}
	if got := string(m.Log); !strings.Contains(got, "CC [M]") {
		t.Errorf("log = %q; want make's output", got)
	}

	again, err := b.Build(t.Context(), k, modules.FS, "nullderef")
	if err != nil || !again.Cached || again.KO != m.KO || !bytes.Equal(again.Log, m.Log) {
		t.Errorf("second Build = %+v, %v; want the first one's, cached", again, err)
	}

	// The same bytes in another place.
	other, err := builder(t).Build(t.Context(), k, modules.FS, "nullderef")
	if err != nil {
		t.Fatal(err)
	}
	a, err1 := os.ReadFile(m.KO)
	c, err2 := os.ReadFile(other.KO)
	if err := errors.Join(err1, err2); err != nil || !bytes.Equal(a, c) {
		t.Errorf("the module of another store differs (%v)", err)
	}
}

// A module that does not compile shows the compiler's lines.
func TestBuildError(t *testing.T) {
	k := fetch(t)
	tests := []struct{ name, c, look string }{
		{"syntax", "#include <linux/module.h>\nint x = ;\n", "modules/bad/bad.c:2:9: error: expected expression before ';' token"},
		{"symbol", "#include <linux/module.h>\nint no_such_function(void);\nint init_module(void) { return no_such_function(); }\nMODULE_LICENSE(\"GPL\");\n",
			`ERROR: modpost: "no_such_function" [modules/bad/bad.ko] undefined!`},
		{"include", "#include <no/such.h>\n", "modules/bad/bad.c:1:10: fatal error: no/such.h: No such file or directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := builder(t).Build(t.Context(), k, fstest.MapFS{
				"bad/Kbuild": {Data: []byte("obj-m := bad.o\n")},
				"bad/bad.c":  {Data: []byte(tt.c)},
			}, "bad")
			e := blame.Of(err)
			if err == nil || e.Party != blame.Kernel {
				t.Fatalf("Build = %v (%v); want an error, the kernel build's fault", err, e.Party)
			}
			if len(e.Look) == 0 || e.Look[0] != tt.look {
				t.Errorf("Look = %q; want %q first\nlog:\n%s", e.Look, tt.look, m.Log)
			}
			if !strings.Contains(e.Replay, "&& make -C ") {
				t.Errorf("Replay = %q; want a make command", e.Replay)
			}
		})
	}
}
