package kbuild

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/kconfig"
	"crashlab/lab/blame"
)

func TestVersion(t *testing.T) {
	for in, want := range map[string]string{
		"# SPDX-License-Identifier: GPL-2.0\nVERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 192\nEXTRAVERSION =\nNAME = Curry Ramen\n": "6.1.192",
		"VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 0\nEXTRAVERSION = -rc4\n":                                                      "7.3.0-rc4",
		"VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL =\nEXTRAVERSION = -rc4\n":                                                        "7.3-rc4",
	} {
		if got, err := Version(in); got != want || err != nil {
			t.Errorf("Version(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "all:\n\tcc\n", "VERSION = x\nPATCHLEVEL = 1\n"} {
		if got, err := Version(in); err == nil {
			t.Errorf("Version(%q) = %q; want an error", in, got)
		}
	}
	if _, err := OpenSource(t.TempDir(), ""); err == nil || !strings.Contains(err.Error(), "no source tree") {
		t.Errorf("OpenSource of an empty directory = %v; want that it is none", err)
	}
}

func load(t *testing.T, names ...string) *Want {
	t.Helper()
	fs, err := kconfig.Load(nil, names...)
	if err != nil {
		t.Fatal(err)
	}
	return &Want{Fragments: fs, Overridable: kconfig.Lab(), Suffix: "-" + names[0]}
}

// What only concerns the packing of the image shares an object tree; nothing
// else does.
func TestObjectDir(t *testing.T) {
	b := &Builder{Work: "/w", Toolchain: Toolchain{Compiler: "gcc 1"}}
	src := Source{Dir: "/s", ID: "1", Version: "6.1.192"}
	dir := func(b *Builder, src Source, w *Want) string {
		t.Helper()
		d, err := b.ObjectDir(src, w)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	lab, xz := load(t, "lab"), load(t, "lab", "xz")
	base := dir(b, src, lab)
	if !strings.HasPrefix(base, "/w/6.1.192-lab-") {
		t.Errorf("ObjectDir = %s; want the release in it", base)
	}
	if got := dir(b, src, xz); got != base {
		t.Errorf("ObjectDir with xz = %s; want %s as without", got, base)
	}
	k1, err1 := lab.Key()
	k2, err2 := xz.Key()
	if k1 == k2 || err1 != nil || err2 != nil {
		t.Errorf("Key = %s, %s (%v, %v); want different kernels", k1, k2, err1, err2)
	}
	for what, other := range map[string]string{
		"another tree":     dir(b, Source{Dir: "/s", ID: "2", Version: "6.1.192"}, lab),
		"another compiler": dir(&Builder{Work: "/w", Toolchain: Toolchain{Compiler: "gcc 2"}}, src, lab),
		"a fragment more":  dir(b, src, load(t, "lab", "framepointer")),
		"a base":           dir(b, src, &Want{Base: new(kconfig.Config), Fragments: lab.Fragments, Overridable: lab.Overridable, Suffix: "-lab"}),
	} {
		if other == base {
			t.Errorf("ObjectDir with %s = %s; want another one", what, other)
		}
	}
}

func TestMergeConflicts(t *testing.T) {
	if _, err := load(t, "lab", "framepointer", "up").merge(); err != nil {
		t.Errorf("merge of what overrides the lab's fragments = %v; want nil", err)
	}
	_, err := load(t, "lab", "la57", "no-la57").merge()
	e := blame.Of(err)
	if err == nil || e.Party != blame.Usage || len(e.Look) != 1 || !strings.Contains(e.Look[0], "X86_5LEVEL") {
		t.Errorf("merge of la57 and no-la57 = %v, %q; want the user's fault, and the option", err, e.Look)
	}
}

// The output of a build of Linux 6.1 with make -j2, shortened: other files
// follow the one with the error.
const failed = `  CC      kernel/panic.o
  CC      kernel/cpu.o
../kernel/panic.c: In function 'panic':
../kernel/panic.c:280:9: error: implicit declaration of function 'paniced' [-Werror=implicit-function-declaration]
  280 |         paniced();
      |         ^~~~~~~
cc1: some warnings being treated as errors
make[3]: *** [../scripts/Makefile.build:250: kernel/panic.o] Error 1
  CC      mm/filemap.o
  CC      mm/mempool.o
  CC      mm/oom_kill.o
  CC      mm/fadvise.o
  CC      mm/maccess.o
make[2]: *** [../scripts/Makefile.build:500: kernel] Error 2
make[2]: *** Waiting for unfinished jobs....
make: *** [Makefile:238: __sub-make] Error 2
`

func TestFirstError(t *testing.T) {
	around, first := firstError(failed)
	if want := "../kernel/panic.c:280:9: error: implicit declaration of function 'paniced' [-Werror=implicit-function-declaration]"; first != want {
		t.Errorf("first error = %q; want %q", first, want)
	}
	if text := strings.Join(around, "\n"); !strings.Contains(text, "In function 'panic'") || !strings.Contains(text, "280 |") || strings.Contains(text, "Waiting") {
		t.Errorf("context:\n%s\nwant the lines about the error and not those of other files", text)
	}
	for line, want := range map[string]bool{
		"ld: drivers/x.o: undefined reference to `y'": true, "BTF: .tmp_vmlinux.btf: pahole (pahole) is not available": false,
		"FAILED: load BTF from vmlinux: Invalid argument": true, "  CC      lib/error.o": false, "/bin/sh: 1: bc: not found": true,
		"make[1]: *** No rule to make target 'x', needed by 'y'.  Stop.": true, "  CC      fs/nfs/failed.o": false,
	} {
		if got := isError(line); got != want {
			t.Errorf("isError(%q) = %t; want %t", line, got, want)
		}
	}
	if around, first := firstError("one\ntwo\n"); first != "" || len(around) != 2 {
		t.Errorf("firstError without one = %q, %q; want the last lines", around, first)
	}
}

func TestCounter(t *testing.T) {
	var out bytes.Buffer
	said := ""
	c := &counter{next: &out, say: func(_ int, file string) { said = file }}
	for _, part := range []string{"  CC      kernel/pan", "ic.o\n  LD  vmlinux\n  HOSTCC  scripts/x\n  AS [M]  a.o\n", "  CC [M]  drivers/b.o"} {
		if _, err := c.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if c.n != 3 || said != "kernel/panic.o" || !strings.HasSuffix(out.String(), "drivers/b.o") {
		t.Errorf("counted %d, said %q, passed on %q; want 3, kernel/panic.o and all", c.n, said, out.String())
	}
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

// Headers come from both trees; what is only in the way of a module does not.
func TestInstallHeaders(t *testing.T) {
	src, obj, dest := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "headers")
	write(t, src, map[string]string{
		"Makefile": "source", "Kconfig": "no", "kernel/panic.c": "no", "include/linux/module.h": "yes", "scripts/mod/modpost.c": "yes",
		"arch/x86/Makefile": "yes", "arch/x86/include/asm/page.h": "yes", "arch/x86/kernel/setup.c": "no", "arch/arm/Makefile": "no",
	})
	write(t, obj, map[string]string{
		"Makefile": "object", ".config": "yes", "Module.symvers": "yes", "vmlinux": "no", "scripts/mod/modpost": "yes", "scripts/mod/modpost.o": "no",
		"scripts/mod/.modpost.cmd": "no", "include/generated/autoconf.h": "yes", "tools/objtool/objtool": "yes", "tools/objtool/check.o": "no",
		"arch/x86/include/generated/asm/x.h": "yes", "kernel/panic.o": "no",
	})
	if err := os.Symlink("../../absent", filepath.Join(src, "include/dangling.h")); err != nil {
		t.Fatal(err)
	}
	if err := installHeaders("x86", src, obj, dest); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := filepath.WalkDir(dest, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, rerr := filepath.Rel(dest, p)
			got, err = append(got, rel), rerr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		".config", "Makefile", "Module.symvers", "arch/x86/Makefile", "arch/x86/include/asm/page.h", "arch/x86/include/generated/asm/x.h",
		"include/generated/autoconf.h", "include/linux/module.h", "scripts/mod/modpost", "scripts/mod/modpost.c", "tools/objtool/objtool",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if b, err := os.ReadFile(filepath.Join(dest, "Makefile")); string(b) != "source" {
		t.Errorf("Makefile = %q, %v; want the source tree's", b, err)
	}
}

// note returns an ELF file with one section of notes.
func note(notes []byte) []byte {
	le := binary.LittleEndian
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2)  // ET_EXEC
	le.PutUint16(b[18:], 62) // EM_X86_64
	le.PutUint32(b[20:], 1)
	names := "\x00.notes\x00.shstrtab\x00"
	at := uint64(len(b))
	b = append(append(b, notes...), names...)
	le.PutUint64(b[40:], uint64(len(b))) // e_shoff
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[58:], 64)
	le.PutUint16(b[60:], 3)
	le.PutUint16(b[62:], 2)
	section := func(name, kind uint32, off, size uint64) {
		s := make([]byte, 64)
		le.PutUint32(s, name)
		le.PutUint32(s[4:], kind)
		le.PutUint64(s[24:], off)
		le.PutUint64(s[32:], size)
		b = append(b, s...)
	}
	section(0, 0, 0, 0)
	section(1, 7, at, uint64(len(notes)))
	section(8, 3, at+uint64(len(notes)), uint64(len(names)))
	return b
}

func TestBuildID(t *testing.T) {
	name := filepath.Join(t.TempDir(), "vmlinux")
	other := "\x04\x00\x00\x00\x01\x00\x00\x00\x00\x01\x00\x00Xen\x00x\x00\x00\x00"
	id := "\x04\x00\x00\x00\x04\x00\x00\x00\x03\x00\x00\x00GNU\x00\xde\xad\xbe\xef"
	for notes, want := range map[string]string{other + id: "deadbeef", other: "", id[:16]: "", "\xff\xff\xff\xff" + id[4:]: ""} {
		if err := os.WriteFile(name, note([]byte(notes)), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := buildID(name); got != want || (err == nil) != (want != "") {
			t.Errorf("buildID(%q) = %q, %v; want %q", notes, got, err, want)
		}
	}
}

func TestFindBuilt(t *testing.T) {
	dir := t.TempDir()
	if _, ok, err := FindBuilt(dir); ok || err != nil {
		t.Errorf("FindBuilt of an empty directory = %t, %v; want nothing", ok, err)
	}
	id := "\x04\x00\x00\x00\x04\x00\x00\x00\x03\x00\x00\x00GNU\x00\xde\xad\xbe\xef"
	write(t, dir, map[string]string{
		"arch/x86/boot/bzImage": "image", "vmlinux": string(note([]byte(id))), ".config": "", "Module.symvers": "",
		"include/config/kernel.release": "6.1.0-mine\n",
	})
	b, ok, err := FindBuilt(dir)
	if !ok || err != nil || b.Release != "6.1.0-mine" || b.BuildID != "deadbeef" {
		t.Errorf("FindBuilt = %+v, %t, %v; want 6.1.0-mine with build ID deadbeef", b, ok, err)
	}
	write(t, dir, map[string]string{"arch/x86/boot/bzImage": "another image"})
	if again, _, err := FindBuilt(dir); err != nil || again.ID == b.ID {
		t.Errorf("ID after another build = %q, %v; want another one", again.ID, err)
	}
}

// A disk that is too small is found out before anything is built.
func TestSpace(t *testing.T) {
	o := &object{Builder: new(Builder), dir: t.TempDir(), want: new(Want)}
	if err := o.checkSpace("/proc"); err == nil || blame.Of(err).Party != blame.Infrastructure {
		t.Errorf("checkSpace(/proc) = %v; want that it is full", err)
	}
}

// What make -n prints of Linux 6.1, shortened.
func TestDistinctObjects(t *testing.T) {
	out := `set -e;  echo '  gcc -Wp,-MMD,init/.main.o.d -O2 -c -o init/main.o /src/init/main.c  ';  gcc -Wp,-MMD,init/.main.o.d -O2 -c -o init/main.o /src/init/main.c
set -e;  echo '  gcc -Wp,-MMD,arch/x86/entry/.entry.o.d -c -o arch/x86/entry/entry.o /src/arch/x86/entry/entry.S ';
set -e;  printf '%s\n' 'savedcmd_init/main.o := gcc -c -o init/main.o /src/init/main.c' > init/.main.o.cmd
set -e;  rm -f init/built-in.a;  printf "init/%s " main.o | xargs ar cDPrST init/built-in.a
`
	if got := distinctObjects([]byte(out)); got != 2 {
		t.Errorf("distinctObjects = %d; want 2", got)
	}
}
