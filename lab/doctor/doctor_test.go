package doctor

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/internal/execx"
	"crashlab/lab/blame"
)

// machine is a pretended host.
type machine struct {
	programs []string          // in its PATH
	files    []string          // that exist
	free     int64             // bytes
	env      map[string]string // of this process
	root     bool
	fails    map[string]error // commands, by their first words, that fail; "sudo -n true" for instance

	brings map[string][]string // programs and files (with a slash) that installing a package brings
	ran    []string            // commands, in order
}

func (m *machine) doctor() *Doctor {
	return &Doctor{
		root:   m.root,
		getenv: func(k string) string { return m.env[k] },
		free:   func(string) (int64, error) { return m.free, nil },
		lookPath: func(name string) (string, error) {
			if slices.Contains(m.programs, name) {
				return "/usr/bin/" + name, nil
			}
			return "", exec.ErrNotFound
		},
		glob: func(pattern string) ([]string, error) {
			var found []string
			for _, f := range m.files {
				if ok, err := path.Match(pattern, f); err != nil {
					return nil, err
				} else if ok {
					found = append(found, f)
				}
			}
			return found, nil
		},
		run: func(_ context.Context, c execx.Cmd) ([]byte, error) {
			line := c.String()
			m.ran = append(m.ran, line)
			for prefix, err := range m.fails {
				if strings.HasPrefix(line, prefix) {
					return nil, &execx.Error{Argv: c.Argv, Code: 1, Tail: "E: no network\n", Err: err}
				}
			}
			if strings.Contains(line, "install") {
				for p, brings := range m.brings {
					if slices.Contains(c.Argv, p) {
						for _, b := range brings {
							if strings.Contains(b, "/") {
								m.files = append(m.files, b)
							} else {
								m.programs = append(m.programs, b)
							}
						}
					}
				}
			}
			return nil, nil
		},
	}
}

var all = Options{Kernel: "debian", Tests: true, Cache: "/home/u/.cache/crashlab", Space: 1 << 30}

// complete is a Debian machine that lacks nothing.
func complete() *machine {
	return &machine{
		programs: []string{"apt-get", "qemu-system-x86_64", "gcc", "make"},
		files: []string{"/usr/lib/x86_64-linux-gnu/libelf.so.1", "/usr/include/stdlib.h",
			"/var/lib/apt/lists/mirror.example_debian_dists_bookworm_main_binary-amd64_Packages.lz4"},
		free: 10 << 30,
		brings: map[string][]string{
			"qemu-system-x86": {"qemu-system-x86_64"}, "gcc": {"gcc"}, "make": {"make"},
			"libelf1": {"/usr/lib/x86_64-linux-gnu/libelf.so.1"}, "libc6-dev": {"/usr/include/stdlib.h"},
		},
	}
}

func (m *machine) without(names ...string) *machine {
	gone := func(s string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return s == n || strings.HasSuffix(s, "/"+n) || strings.HasSuffix(s, n+".lz4") })
	}
	m.programs = slices.DeleteFunc(m.programs, gone)
	m.files = slices.DeleteFunc(m.files, gone)
	return m
}

const (
	aptUpdate  = "apt-get update"
	aptInstall = "apt-get install -y --no-install-recommends "
	aptOptions = " -q -o DPkg::Lock::Timeout=120 -o APT::Update::Error-Mode=any"
	sudoEnv    = "sudo -n env DEBIAN_FRONTEND=noninteractive "
)

func TestEnsure(t *testing.T) {
	boom := errors.New("exit status 100")
	user := func(m *machine) *machine { m.programs = append(m.programs, "sudo"); return m }
	root := func(m *machine) *machine { m.root = true; return m }
	tests := []struct {
		name    string
		m       *machine
		ran     []string
		said    []string
		err     string // part of the error
		look    string // part of Look
		hint    string // the whole hint
		options *Options
	}{
		{name: "nothing is missing", m: root(complete())},
		{
			name: "root, one package", m: root(complete().without("make")),
			ran:  []string{aptInstall + "make" + aptOptions},
			said: []string{"install make: builds the crash module"},
		},
		{
			name: "root, bare machine", m: root(complete().without("qemu-system-x86_64", "gcc", "make", "libelf.so.1", "stdlib.h", "_Packages")),
			ran: []string{aptUpdate + aptOptions, aptInstall + "qemu-system-x86 gcc make libelf1 libc6-dev" + aptOptions},
			said: []string{
				"install qemu-system-x86: runs the virtual machine that crashes",
				"install gcc: builds the crash module",
				"install make: builds the crash module",
				"install libelf1: objtool, which checks the built module, is linked with it",
				"install gcc: links the race detector",
				"install libc6-dev: the race detector needs cgo",
			},
		},
		{
			name: "sudo without a password", m: user(complete().without("make")),
			ran:  []string{"sudo -n true", sudoEnv + aptInstall + "make" + aptOptions},
			said: []string{"install make: builds the crash module"},
		},
		{
			name: "sudo with a password",
			m: func() *machine {
				m := user(complete().without("make"))
				m.fails = map[string]error{"sudo -n true": boom}
				return m
			}(),
			ran:  []string{"sudo -n true"},
			err:  "missing: make",
			look: "make: builds the crash module (package make)",
			hint: "sudo apt-get update && sudo " + aptInstall + "make",
		},
		{
			name: "no sudo", m: complete().without("qemu-system-x86_64", "make"),
			err:  "missing: qemu, make",
			look: "qemu-system-x86_64: runs the virtual machine that crashes (package qemu-system-x86)",
			hint: "sudo apt-get update && sudo " + aptInstall + "qemu-system-x86 make",
		},
		{
			name: "never",
			m: func() *machine {
				m := root(complete().without("make"))
				m.env = map[string]string{EnvInstall: "never"}
				return m
			}(),
			err:  "missing: make",
			hint: "apt-get update && " + aptInstall + "make",
		},
		{
			name: "stale lists, then no network",
			m: func() *machine {
				m := root(complete().without("make"))
				m.fails = map[string]error{aptInstall: boom}
				return m
			}(),
			ran:  []string{aptInstall + "make" + aptOptions, aptUpdate + aptOptions, aptInstall + "make" + aptOptions},
			said: []string{"install make: builds the crash module"},
			err:  "install make",
			look: "E: no network",
			hint: "apt-get update && " + aptInstall + "make",
		},
		{
			name: "bare machine without network",
			m: func() *machine {
				m := root(complete().without("make", "_Packages"))
				m.fails = map[string]error{aptUpdate: errors.New("exit status 99"), aptInstall: boom}
				return m
			}(),
			ran:  []string{aptUpdate + aptOptions, aptInstall + "make" + aptOptions},
			said: []string{"install make: builds the crash module"},
			err:  "exit status 99", // the update's, not that it cannot locate make
			hint: "apt-get update && " + aptInstall + "make",
		},
		{
			name: "one source of several is broken",
			m: func() *machine {
				m := root(complete().without("make", "_Packages"))
				m.fails = map[string]error{aptUpdate: boom}
				return m
			}(),
			ran:  []string{aptUpdate + aptOptions, aptInstall + "make" + aptOptions},
			said: []string{"install make: builds the crash module"},
		},
		{
			name: "installed in vain",
			m: func() *machine {
				m := root(complete().without("make"))
				m.brings = nil
				return m
			}(),
			ran:  []string{aptInstall + "make" + aptOptions},
			said: []string{"install make: builds the crash module"},
			err:  "missing: make",
			hint: "they were installed, but are not there",
		},
		{
			name: "disk full",
			m:    func() *machine { m := root(complete().without("make")); m.free = 5 << 20; return m }(),
			err:  "missing: make, disk space (5 MiB instead of 1.0 GiB)",
		},
		{
			name: "no known package manager", m: root(complete().without("apt-get", "make")),
			err:  "missing: make, apt",
			hint: "install what is missing: no package manager is known here",
		},
		{
			name: "dnf", m: root(func() *machine {
				m := complete().without("apt-get", "libelf.so.1")
				m.programs = append(m.programs, "dnf")
				m.brings = map[string][]string{"elfutils-libelf": {"/usr/lib64/libelf.so.1"}}
				return m
			}()),
			options: &Options{Kernel: "rpm:x"},
			ran:     []string{"dnf install -y --setopt=install_weak_deps=False elfutils-libelf"},
			said:    []string{"install elfutils-libelf: objtool, which checks the built module, is linked with it"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := all
			if tt.options != nil {
				o = *tt.options
			}
			var said []string
			err := tt.m.doctor().Ensure(t.Context(), o, func(line string) { said = append(said, line) })
			if diff := cmp.Diff(tt.ran, tt.m.ran); diff != "" {
				t.Errorf("commands (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.said, said); diff != "" {
				t.Errorf("said (-want +got):\n%s", diff)
			}
			if tt.err == "" {
				if err != nil {
					t.Errorf("Ensure = %v; want nil", err)
				}
				return
			}
			e := blame.Of(err)
			if err == nil || e.Party != blame.Infrastructure || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Ensure = %v (%v); want %q, infrastructure", err, e.Party, tt.err)
			}
			if !strings.Contains(strings.Join(e.Look, "\n"), tt.look) {
				t.Errorf("Look = %q; want %q among them", e.Look, tt.look)
			}
			if e.Hint != tt.hint {
				t.Errorf("Hint = %q; want %q", e.Hint, tt.hint)
			}
		})
	}
}

// The compiler that the kernel asks for is preferred; any gcc will do.
func TestCompiler(t *testing.T) {
	m := complete()
	o := Options{Compiler: "gcc-12"}
	find := func() string {
		for _, c := range m.doctor().Examine(t.Context(), o) {
			if c.Name == "compiler" {
				return c.Found
			}
		}
		return ""
	}
	if got, want := find(), "/usr/bin/gcc"; got != want {
		t.Errorf("compiler = %q; want %q", got, want)
	}
	m.programs = append(m.programs, "gcc-12")
	if got, want := find(), "/usr/bin/gcc-12"; got != want {
		t.Errorf("compiler = %q; want %q", got, want)
	}
}

func TestExamineChangesNothing(t *testing.T) {
	m := &machine{root: true, programs: []string{"apt-get"}}
	o := all
	o.Accelerator = func(context.Context) (string, error) { return "tcg: no /dev/kvm", nil }
	checks := m.doctor().Examine(t.Context(), o)
	if m.ran != nil {
		t.Errorf("Examine ran %q", m.ran)
	}
	var table bytes.Buffer
	if err := WriteTable(&table, checks); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"qemu ", "qemu-system-x86_64 (package qemu-system-x86)", "0 MiB instead of 1.0 GiB", "tcg: no /dev/kvm"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, table.String())
		}
	}
}

func TestFree(t *testing.T) {
	dir := t.TempDir()
	want, err := free(dir)
	if err != nil || want <= 0 {
		t.Fatalf("free(%q) = %d, %v; want some", dir, want, err)
	}
	if got, err := free(dir + "/not/yet/there"); err != nil || got <= 0 {
		t.Errorf("free of a directory to be made = %d, %v; want that of its parent", got, err)
	}
}

func BenchmarkEnsureComplete(b *testing.B) {
	d := New()
	for b.Loop() {
		_ = missing(d.required(all))
	}
}

// What a build of a kernel lacks is known by name, and by package.
func TestBuildNeeds(t *testing.T) {
	m := complete()
	o := Options{Kernel: "source:6.1", Build: true, Menu: true, Packers: []string{"lzop", "xz"}}
	got := make(map[string]string)
	for _, c := range missing(m.doctor().required(o)) {
		got[c.Name] = c.Package
	}
	want := map[string]string{
		"flex": "flex", "bison": "bison", "bc": "bc", "rsync": "rsync", "cpio": "cpio", "pahole": "dwarves", "xz": "xz-utils", "lzop": "lzop",
		"libelf headers": "libelf-dev", "libssl headers": "libssl-dev", "ncurses headers": "libncurses-dev",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("missing for a build (-want +got):\n%s", diff)
	}
	for pack, want := range map[string]string{"rpm": "rpm", "deb": "dpkg-dev fakeroot"} {
		var got []string
		for _, c := range missing(m.doctor().required(Options{Kernel: "debian", Pack: []string{pack}})) {
			got = append(got, c.Package)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("missing for %s: %q; want %q", pack, got, want)
		}
	}
	if lacking := missing(m.doctor().required(Options{Kernel: "debian"})); len(lacking) > 0 {
		t.Errorf("missing without a build: %v; want nothing", lacking)
	}
}

// A kernel for arm64 needs another QEMU, and a compiler that makes code for it.
func TestARM64(t *testing.T) {
	m := complete()
	m.root = true
	m.brings["qemu-system-arm"] = []string{"qemu-system-aarch64"}
	m.brings["gcc-aarch64-linux-gnu"] = []string{"aarch64-linux-gnu-gcc"}
	err := m.doctor().Ensure(t.Context(), Options{Kernel: "source:6.1+arm64", ARM64: true}, func(string) {})
	want := []string{aptInstall + "qemu-system-arm gcc-aarch64-linux-gnu" + aptOptions}
	if diff := cmp.Diff(want, m.ran); diff != "" || err != nil {
		t.Errorf("Ensure for arm64 = %v, ran (-want +got):\n%s", err, diff)
	}
}
