package kmod

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"crashlab/internal/execx"
	"crashlab/lab/blame"
	"crashlab/lab/kernels"
	"crashlab/lab/store"
)

func TestCompilerNames(t *testing.T) {
	for text, want := range map[string][]string{
		"gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0":           {"gcc-12", "gcc"},
		"x86_64-linux-gnu-gcc-16 (Debian 16.2.0-4) 16.2.0":   {"gcc-16", "gcc"},
		"gcc (GCC) 11.5.0 20240719 (Red Hat 11.5.0-5)":       {"gcc"},
		"Debian clang version 19.1.7 (3+b1)":                 {"gcc"},
		"":                                                   {"gcc"},
		"x86_64-suse-linux-gcc-7 (SUSE Linux) 7.5.0 [x y z]": {"gcc-7", "gcc"},
	} {
		if diff := cmp.Diff(want, compilerNames(text)); diff != "" {
			t.Errorf("compilerNames(%q) (-want +got):\n%s", text, diff)
		}
	}
}

func TestMismatch(t *testing.T) {
	tests := []struct {
		kernel, module string
		want           bool
	}{
		{"gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0", "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0", false},
		{"x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0", "gcc (Debian 12.2.0-14+deb12u1) 12.2.0", false},
		{"gcc-12 (Debian 12.2.0-14) 12.2.0", "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0", true},
		{"gcc-16 (Debian 16.2.0-4) 16.2.0", "gcc (Debian 12.2.0-14) 12.2.0", true},
		{"", "gcc (Debian 12.2.0-14) 12.2.0", false},
	}
	for _, tt := range tests {
		got := mismatch(tt.kernel, tt.module)
		if (got != "") != tt.want {
			t.Errorf("mismatch(%q, %q) = %q; want a sentence: %v", tt.kernel, tt.module, got, tt.want)
		}
		if tt.want && (!strings.Contains(got, tt.kernel) || !strings.Contains(got, tt.module)) {
			t.Errorf("mismatch(%q, %q) = %q; want both named", tt.kernel, tt.module, got)
		}
	}
}

func TestSources(t *testing.T) {
	src := fstest.MapFS{
		"m/Kbuild": {Data: []byte("obj-m := m.o\n")}, "m/m.c": {Data: []byte("int x;\n")}, "m/m.h": {},
		"m/m.mod.c": {}, "m/m.o": {}, "m/m.ko": {}, "m/Module.symvers": {}, "m/sub/x.c": {}, "empty/notes.txt": {},
	}
	got, err := sources(src, "m")
	var names []string
	for _, f := range got {
		names = append(names, f.name)
	}
	if diff := cmp.Diff([]string{"Kbuild", "m.c", "m.h"}, names); diff != "" || err != nil {
		t.Errorf("sources: %v (-want +got):\n%s", err, diff)
	}
	for _, name := range []string{"empty", "absent"} {
		if got, err := sources(src, name); err == nil {
			t.Errorf("sources(%q) = %v, nil; want an error", name, got)
		}
	}
}

// kernel returns one whose headers are only named.
func kernel(t *testing.T, config string) *kernels.Kernel {
	t.Helper()
	k := &kernels.Kernel{
		ID: "k", Release: "6.1.0-56-cloud-amd64", Compiler: "gcc-12 (Debian) 12.2.0",
		Headers: "/cache/files/usr/src/linux-headers-6.1.0-56-cloud-amd64", Config: filepath.Join(t.TempDir(), "config"),
	}
	if err := os.WriteFile(k.Config, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestMakeArgs(t *testing.T) {
	got, err := makeArgs(kernel(t, "# CONFIG_DEBUG_INFO is not set\n"), compiler{name: "gcc-12"}, "/cache/tmp/build", "modules/x")
	want := []string{
		"make", "-C", "/cache/files/usr/src/linux-headers-6.1.0-56-cloud-amd64", "M=/cache/tmp/build", "CC=gcc-12",
		"KCFLAGS=-ffile-prefix-map=/cache/tmp/build=modules/x -ffile-prefix-map=/cache/files= -g",
		"CONFIG_DEBUG_INFO_BTF_MODULES=", "modules",
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("makeArgs: %v (-want +got):\n%s", err, diff)
	}
	got, err = makeArgs(kernel(t, "CONFIG_DEBUG_INFO=y\n"), compiler{name: "gcc-12"}, "/b", "modules/x")
	if err != nil || strings.HasSuffix(got[5], " -g") {
		t.Errorf("makeArgs for a kernel with debug info = %q, %v; want no -g of ours", got, err)
	}
}

func TestExplain(t *testing.T) {
	const build = "/cache/entry/module/x.tmp-1/files/build"
	tests := []struct {
		name, output string
		want         []string
	}{
		{"compiler, gcc 12, Linux 6.1", "  CC [M]  " + build + "/bad.o\n" +
			build + "/bad.c:2:9: error: expected expression before ';' token\n    2 | int x = ;\n      |         ^\n" +
			"make[1]: *** [/usr/src/x/scripts/Makefile.build:255: " + build + "/bad.o] Error 1\n",
			[]string{"modules/bad/bad.c:2:9: error: expected expression before ';' token"}},
		{"compiler, Linux 7.2: relative names", "  CC [M]  bad.o\nbad.c:1:10: fatal error: no/such.h: No such file or directory\n",
			[]string{"modules/bad/bad.c:1:10: fatal error: no/such.h: No such file or directory"}},
		{"the compiler's own", "gcc-12: error: unrecognized command-line option '-fmin-function-alignment=16'\n",
			[]string{"gcc-12: error: unrecognized command-line option '-fmin-function-alignment=16'"}},
		{"modpost", "ERROR: modpost: \"nope\" [" + build + "/bad.ko] undefined!\n",
			[]string{`ERROR: modpost: "nope" [modules/bad/bad.ko] undefined!`}},
		{"tool of a newer suite", "/x/objtool: /lib/libc.so.6: version `GLIBC_2.38' not found (required by /x/objtool)\n",
			[]string{"/x/objtool: /lib/libc.so.6: version `GLIBC_2.38' not found (required by /x/objtool)"}},
		{"tool missing", "/bin/sh: 1: pahole: not found\n", []string{"/bin/sh: 1: pahole: not found"}},
		{"something else", "one\ntwo\n", []string{"one", "two"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := &Builder{}
			err := b.explain(t.Context(), &execx.Error{Argv: []string{"make"}, Code: 2, Err: errors.New("exit status 2")},
				kernel(t, "CONFIG_DEBUG_INFO=y\n"), compiler{name: "gcc"}, "bad", build, []byte(tt.output))
			e := blame.Of(err)
			if e.Party != blame.Kernel {
				t.Errorf("blamed on %v; want the kernel build", e.Party)
			}
			if diff := cmp.Diff(tt.want, e.Look); diff != "" {
				t.Errorf("Look (-want +got):\n%s", diff)
			}
			if want := "cp -rT modules/bad /tmp/bad && make -C "; !strings.HasPrefix(e.Replay, want) {
				t.Errorf("Replay = %q; want it to begin with %q", e.Replay, want)
			}
		})
	}
}

func TestNoCompiler(t *testing.T) {
	s, err := store.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &Builder{Store: s, lookPath: func(string) (string, error) { return "", errors.New("not there") }}
	_, err = b.Build(t.Context(), kernel(t, ""), fstest.MapFS{"m/m.c": {}}, "m")
	if e := blame.Of(err); e.Party != blame.Infrastructure || !strings.Contains(e.Hint, "gcc-12, gcc") {
		t.Errorf("Build without a compiler = %v (%v, hint %q); want infrastructure and which to install", err, e.Party, e.Hint)
	}
}

func TestBlankInCachePath(t *testing.T) {
	s, err := store.Open(filepath.Join(t.TempDir(), "my cache"), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = (&Builder{Store: s}).Build(t.Context(), kernel(t, ""), fstest.MapFS{"m/m.c": {}}, "m")
	if e := blame.Of(err); err == nil || !strings.Contains(e.Hint, store.EnvDir) {
		t.Errorf("Build below %q = %v (hint %q); want a hint that names %s", s.Dir(), err, e.Hint, store.EnvDir)
	}
}
