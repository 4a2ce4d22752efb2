package kernels

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/internal/execx"
	"crashlab/lab/blame"
	"crashlab/lab/store"
)

func TestParseBuilt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c++")
	if err := os.MkdirAll(filepath.Join(dir, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]builtSpec{
		"6.1":                     {tree: "6.1"},
		"6.1+lab+framepointer":    {"6.1", []string{"lab", "framepointer"}},
		"":                        {},
		"+xz":                     {"", []string{"xz"}},
		dir:                       {tree: dir},
		dir + "+lab":              {dir, []string{"lab"}},
		dir + "/x+a.config+lz4":   {dir + "/x", []string{"a.config", "lz4"}},
		"/absent/tree+lab":        {"/absent/tree", []string{"lab"}},
		"6.1+/proc/config.gz+lab": {"6.1", []string{"/proc/config.gz", "lab"}},
	} {
		got := parseBuilt(in)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(builtSpec{})); diff != "" {
			t.Errorf("parseBuilt(%q) (-want +got):\n%s", in, diff)
		}
	}
}

func TestBuiltWant(t *testing.T) {
	dir := t.TempDir()
	mine, base := filepath.Join(dir, "mine.config"), filepath.Join(dir, "base")
	if err := errors.Join(os.WriteFile(mine, []byte("# Mine\n\nCONFIG_KASAN=y\n"), 0o644), os.WriteFile(base, []byte("CONFIG_A=y\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]struct {
		suffix    string
		fragments string
	}{
		"6.1":                         {"-lab", "base virtio kdump debuginfo"},
		"6.1+lab":                     {"-lab", "base virtio kdump debuginfo"},
		"6.1+xz":                      {"-lab", "base virtio kdump debuginfo xz"},
		"6.1+framepointer":            {"-lab-framepointer", "base virtio kdump debuginfo framepointer"},
		"6.1+arm64":                   {"-lab-arm64", "base-arm64 virtio kdump debuginfo"},
		"6.1+base+kdump+arm64":        {"-base-kdump-arm64", "base-arm64 kdump"},
		"6.1+base+virtio+gzip":        {"-base-virtio", "base virtio gzip"},
		"6.1+" + mine:                 {"-lab-mine", "base virtio kdump debuginfo mine"},
		"6.1+defconfig+kdump":         {"-defconfig-kdump", "kdump"},
		"6.1+" + base + "+preempt-rt": {"-from-base-preempt-rt", "preempt-rt"},
	} {
		w, err := parseBuilt(in).want()
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		var names []string
		for _, f := range w.Fragments {
			names = append(names, strings.TrimSuffix(filepath.Base(f.Name), ".config"))
		}
		if got := strings.Join(names, " "); w.Suffix != want.suffix || got != want.fragments {
			t.Errorf("%s: %q of %q; want %q of %q", in, w.Suffix, got, want.suffix, want.fragments)
		}
		if arm := strings.Contains(in, "arm64"); (w.Built().Make == "arm64") != arm {
			t.Errorf("%s is built for %s", in, w.Built().Name)
		}
		if (w.Base != nil) != strings.Contains(in, base) || w.Defconfig != strings.Contains(in, "defconfig") {
			t.Errorf("%s: base %v, defconfig %t", in, w.Base, w.Defconfig)
		}
	}
	for _, in := range []string{"6.1+kasn", "6.1+/absent/base", "6.1+absent.config", "6.1++"} {
		if w, err := parseBuilt(in).want(); err == nil {
			t.Errorf("%s = %+v; want an error", in, w)
		}
	}
}

func TestTools(t *testing.T) {
	for spec, want := range map[string]string{"debian": "", "debian:6.1": "", "source:6.1": "zstd", "source:6.1+lzo": "lzop", "dir:/x+lab+xz": "xz", "git:/x@v6.1": "zstd", "source@kernel.org:6.1": "zstd"} {
		build, programs := Tools(spec)
		if got := strings.Join(programs, " "); got != want || build != (want != "") {
			t.Errorf("Tools(%q) = %t, %q; want %q", spec, build, got, want)
		}
	}
}

// A spec that cannot be is the user's fault, and says what can.
func TestBuiltErrors(t *testing.T) {
	s, err := store.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	src := New(s, nil, nil, Options{})
	for spec, want := range map[string]string{
		"source:6.1+framepionter":  "framepointer",
		"dir:/absent":              "no source tree",
		"git:/absent":              "names no commit",
		"git:" + t.TempDir() + "@": "names no commit",
	} {
		_, err := src.Resolve(t.Context(), spec)
		if err == nil || blame.Of(err).Party != blame.Usage || !strings.Contains(err.Error(), want) {
			t.Errorf("Resolve(%q) = %v; want a usage error with %q", spec, err, want)
		}
	}
	if _, _, _, err := src.Prepare(t.Context(), "debian"); err == nil || blame.Of(err).Party != blame.Usage {
		t.Errorf("Prepare(debian) = %v; want that it comes built", err)
	}
}

// A commit of a repository is planned without a worktree, and gets one when it
// is wanted; a branch that moves on is another kernel.
func TestGitTrees(t *testing.T) {
	repo := t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		argv := append([]string{"git", "-C", repo, "-c", "user.name=x", "-c", "user.email=x@localhost", "-c", "commit.gpgsign=false"}, args...)
		out, err := execx.Run(context.Background(), execx.Cmd{Argv: argv})
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	commit := func(sublevel string) string {
		if err := os.WriteFile(filepath.Join(repo, "Makefile"), []byte("VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = "+sublevel+"\nEXTRAVERSION =\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		git("add", "Makefile")
		git("commit", "-q", "-m", sublevel)
		return git("rev-parse", "HEAD")
	}
	git("init", "-q", "-b", "main")
	first := commit("1")
	second := commit("2")
	s, err := store.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	g := gitTrees{s}
	for ref, want := range map[string]struct{ id, version string }{"main": {second, "6.1.2"}, "main~1": {first, "6.1.1"}, first: {first, "6.1.1"}} {
		p, err := g.plan(t.Context(), repo+"@"+ref, false)
		if err != nil || p.id != want.id || p.version != want.version {
			t.Errorf("plan(@%s) = %+v, %v; want %s at %s", ref, p, err, want.version, want.id)
			continue
		}
		for range 2 { // the second time it is there
			src, err := g.tree(t.Context(), p)
			if err != nil || src.Version != want.version || src.ID != want.id {
				t.Errorf("tree(@%s) = %+v, %v; want %s", ref, src, err, want.version)
			}
		}
	}
	if _, err := g.plan(t.Context(), repo+"@--help", false); err == nil {
		t.Error("plan(@--help) = nil; want an error")
	}
}

// The identity of a tree of one's own changes with its sources, not with what a
// build leaves in it.
func TestTreeID(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		id, err := treeID(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := write("panic.c", "x")
	if got := write("panic.o", "object"); got != first {
		t.Error("the identity changed with an object")
	}
	if got := write("panic.c", "xy"); got == first {
		t.Error("the identity is the same with another source")
	}
}
