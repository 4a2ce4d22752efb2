package kconfig

import (
	"bytes"
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// Every line of every built-in fragment says why.
func TestFragments(t *testing.T) {
	all, err := Fragments()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.Title == "" || len(f.Lines) == 0 {
			t.Errorf("fragment %s: title %q, %d lines; want both", f.Name, f.Title, len(f.Lines))
		}
		set := make(map[string]bool)
		for _, l := range f.Lines {
			if len(l.Why) < 5 {
				t.Errorf("fragment %s:%d: %s has the reason %q; want a sentence above it", f.Name, l.Number, l.Line(), l.Why)
			}
			if set[l.Name] {
				t.Errorf("fragment %s:%d: %s twice", f.Name, l.Number, l.Name)
			}
			set[l.Name] = true
		}
	}
}

// The fragments of the lab agree with each other and give all that a run needs.
func TestLabFragments(t *testing.T) {
	for _, arch := range []string{"", "arm64"} {
		names := []string{LabName, "base"}
		if arch != "" {
			names = For(arch, names)
		}
		fs, err := Load(nil, names...)
		if err != nil || len(fs) != len(Lab()) {
			t.Fatalf("Load(%q) = %d fragments, %v; want %d", names, len(fs), err, len(Lab()))
		}
		m := Merge(nil, fs...)
		for _, c := range m.Contradictions {
			t.Errorf("%s contradiction: %v", arch, c)
		}
		for _, l := range m.Config.Missing(LabNeeds()) {
			if arch != "" && l.AnyOf[0] == "UNWINDER_ORC" { // frame pointers are not to be asked for
				continue
			}
			t.Errorf("%s %v", arch, l)
		}
	}
}

func TestFor(t *testing.T) {
	got := For("arm64", []string{"lab", "xz", "mine.config", "base"})
	if diff := cmp.Diff([]string{"base-arm64", "virtio", "kdump", "debuginfo", "xz", "mine.config", "base-arm64"}, got); diff != "" {
		t.Errorf("For(arm64) (-want +got):\n%s", diff)
	}
}

func TestLoadUnknown(t *testing.T) {
	_, err := Load(nil, LabName, "framepionter")
	u, ok := errors.AsType[*UnknownError](err)
	if !ok || len(u.Near) == 0 || u.Near[0] != "framepointer" {
		t.Errorf("Load(framepionter) = %v; want an *UnknownError with framepointer", err)
	}
	user := fstest.MapFS{
		"mine.config":   {Data: []byte("# Mine\n\n# because\nCONFIG_KASAN=y\n")},
		"broken.config": {Data: []byte("# Broken\n\nCONFIG_KASAN=\ry\n")},
	}
	fs, err := Load(user, "mine.config")
	if err != nil || len(fs) != 1 || fs[0].Lines[0].Why != "because" {
		t.Errorf("Load(mine.config) = %v, %v; want the user's fragment", fs, err)
	}
	if _, err := Load(user, "broken.config"); err == nil || !strings.HasPrefix(err.Error(), "broken.config:3: ") {
		t.Errorf("Load(broken.config) = %v; want an error in line 3", err)
	}
	for _, name := range []string{"absent.config", "", "../fragments/base"} {
		if _, err := Load(user, name); err == nil {
			t.Errorf("Load(%q) = nil; want an error", name)
		}
	}
}

func TestChoices(t *testing.T) {
	for _, c := range Compressions() {
		m := Merge(parse(t, "CONFIG_KERNEL_ZSTD=y\nCONFIG_A=y\n"), c.Fragment())
		if got := CompressionOf(m.Config); got != c {
			t.Errorf("CompressionOf after %s = %s", c, got)
		}
		if n := len(Diff(parse(t, "CONFIG_KERNEL_ZSTD=y\nCONFIG_A=y\n"), m.Config)); n != 2 && c != "zstd" {
			t.Errorf("%s changes %d options; want its own and the one that was set", c, n)
		}
	}
	for _, p := range Preemptions() {
		fs, err := Load(nil, "preempt-"+string(p))
		if err != nil {
			t.Fatal(err)
		}
		if got := Merge(nil, fs...).Config.State(p.option()); got != Yes {
			t.Errorf("preempt-%s sets %s to %v; want y", p, p.option(), got)
		}
	}
	// Two members of one choice contradict each other.
	fs, err := Load(nil, "xz", "zstd")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range Merge(nil, fs...).Contradictions {
		got = append(got, c.String())
	}
	want := []string{
		"zstd sets # CONFIG_KERNEL_XZ is not set, against CONFIG_KERNEL_XZ=y of xz",
		"zstd sets CONFIG_KERNEL_ZSTD=y, against # CONFIG_KERNEL_ZSTD is not set of xz",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("contradictions of xz and zstd (-want +got):\n%s", diff)
	}
}

func fragment(t *testing.T, name, text string) *Fragment {
	t.Helper()
	f, err := ParseFragment(name, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestMerge(t *testing.T) {
	base := parse(t, "CONFIG_OLD=y\nCONFIG_SIZE=0x10\n")
	a := fragment(t, "a", "# A\n\n# it is slow\n# CONFIG_OLD is not set\n\n# large enough\nCONFIG_SIZE=16\nCONFIG_NAME=\"x\"\n")
	b := fragment(t, "b", "# B\n# if it exists: new\nCONFIG_NEW=m\nCONFIG_SIZE=0x10\nCONFIG_OLD=y\n")
	m := Merge(base, a, b)
	if diff := cmp.Diff([]Contradiction{{
		First: Asked{FragmentLine{Setting: Setting{"OLD", "n"}, Why: "it is slow", Number: 4}, "a"},
		Then:  Asked{FragmentLine{Setting: Setting{"OLD", "y"}, Number: 5}, "b"},
	}}, m.Contradictions); diff != "" {
		t.Errorf("contradictions (-want +got):\n%s", diff)
	}
	var from []string
	for _, l := range m.Lines() {
		from = append(from, l.String())
	}
	want := []string{`a:8: CONFIG_NAME="x"`, "b:3: CONFIG_NEW=m", "b:5: CONFIG_OLD=y", "b:4: CONFIG_SIZE=0x10"}
	if diff := cmp.Diff(want, from); diff != "" {
		t.Errorf("provenance (-want +got):\n%s", diff)
	}
	if !m.Asked["NEW"].IfExists || m.Asked["NEW"].Why != "new" {
		t.Errorf("NEW = %+v; want it to be there only if it exists", m.Asked["NEW"])
	}
	if over, conflicts := m.Overrides([]string{"a"}); len(over) != 1 || len(conflicts) != 0 {
		t.Errorf("Overrides(a) = %v, %v; want one and none", over, conflicts)
	}
	if got := base.Value("OLD"); got != "y" {
		t.Errorf("the base has OLD=%s after a merge; want it untouched", got)
	}
}

func TestWriteTo(t *testing.T) {
	c := parse(t, sample)
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "# CONFIG_TWICE is not set\n") || !strings.Contains(b.String(), `CONFIG_QUOTED="a \"b\" \\ c"`+"\n") {
		t.Errorf("WriteTo = %s; want the lines as they were", b.String())
	}
	if diff := cmp.Diff(c.values, parse(t, b.String()).values); diff != "" {
		t.Errorf("what was written (-want +got):\n%s", diff)
	}
}

func TestDiff(t *testing.T) {
	a := parse(t, "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_N=0x10\nCONFIG_S=\"16\"\nCONFIG_GONE=m\n")
	b := parse(t, "CONFIG_A=m\nCONFIG_N=16\nCONFIG_S=\"0x10\"\nCONFIG_NEW=-1\n# CONFIG_NEVER is not set\n")
	want := []Change{{"A", "y", "m"}, {"GONE", "m", "n"}, {"NEW", "n", "-1"}, {"S", `"16"`, `"0x10"`}}
	if diff := cmp.Diff(want, Diff(a, b)); diff != "" {
		t.Errorf("Diff (-want +got):\n%s", diff)
	}
	if d := Diff(a, a); len(d) != 0 {
		t.Errorf("Diff of a configuration with itself = %v; want nothing", d)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"KEXEC", "KEXEC_FILE", "KEXEC_SIG", "PROC_VMCORE", "CRASH_DUMP"}
	for in, want := range map[string]string{"KEXEC_FIEL": "KEXEC_FILE", "PROC_VMCOR": "PROC_VMCORE", "VMCORE": "PROC_VMCORE", "kexec_file": "KEXEC_FILE"} {
		if got := Nearest(in, names); len(got) == 0 || got[0] != want {
			t.Errorf("Nearest(%q) = %q; want %s first", in, got, want)
		}
	}
	if got := Nearest("ZSWAP", names); len(got) != 0 {
		t.Errorf("Nearest(ZSWAP) = %q; want none", got)
	}
}

// What is a fragment is a .config, and the other way; and what was read can be
// written and read again.
func FuzzFragment(f *testing.F) {
	f.Add("# Title\n\n# why\nCONFIG_A=y\n# CONFIG_B is not set\n")
	f.Add("CONFIG_A=\"\r\"\n")
	f.Add("CONFIG_A=y\r\n\r\r\n# if it exists: x\nCONFIG_A=0x1f\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, cerr := Parse(strings.NewReader(text))
		fr, ferr := ParseFragment("f", strings.NewReader(text))
		if ferr != nil && cerr == nil && text != "" || ferr == nil && cerr != nil {
			t.Fatalf("Parse: %v, ParseFragment: %v; want both or none", cerr, ferr)
		}
		if ferr != nil {
			return
		}
		m := Merge(nil, fr)
		if !maps.Equal(c.values, m.Config.values) {
			t.Errorf("merged: %v; want %v", m.Config.values, c.values)
		}
		var b bytes.Buffer
		if _, err := m.Config.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		again, err := Parse(&b)
		if err != nil {
			t.Fatalf("Parse of what was written: %v", err)
		}
		if d := Diff(c, again); len(d) != 0 {
			t.Errorf("what was written differs: %v", d)
		}
	})
}
