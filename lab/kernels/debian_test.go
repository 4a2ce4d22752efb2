package kernels

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crashlab/internal/archivetest"
	"crashlab/internal/execx"
	"crashlab/lab/blame"
	"crashlab/lab/store"
)

// host is a pretended machine with apt.
type host struct {
	dir      string            // has etc/ and lists/
	debs     map[string][]byte // what the archive has, by package name
	known    string            // what the lists say, as apt-cache show prints it
	fresh    string            // what they say after an update
	down     bool              // the network is
	tamper   bool              // the archive's files are not those of the lists
	ran      []string          // the commands, without options
	progress []string
}

const testRelease = "6.1.0-1-cloud-amd64"

// newHost returns a host whose archive has one kernel in the layout up to
// 6.12, and whose lists know it.
func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{dir: t.TempDir(), debs: make(map[string][]byte)}
	for _, d := range []string{"etc", "lists"} {
		if err := os.Mkdir(filepath.Join(h.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(h.dir, "lists", "debian_main_binary-amd64_Packages"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	file := func(name, content string) tar.Header {
		return tar.Header{Name: name, PAXRecords: map[string]string{"test.content": content}}
	}
	pkg := func(name, depends string, entries ...tar.Header) {
		h.debs[name] = archivetest.Deb("data.tar.gz", archivetest.Compress(t, ".gz", archivetest.Tar(t, entries...)))
		h.known += fmt.Sprintf("Package: %s\nVersion: 6.1.1-1\nDepends: %s\nSize: %d\nSHA256: %x\n\n",
			name, depends, len(h.debs[name]), sha256.Sum256(h.debs[name]))
	}
	src := "./usr/src/linux-headers-6.1.0-1-"
	pkg("linux-image-"+testRelease, "kmod",
		file("./boot/vmlinuz-"+testRelease, "bzImage"),
		file("./boot/config-"+testRelease, "CONFIG_CC_VERSION_TEXT=\"gcc-12 (Debian) 12.2.0\"\n"),
		file("./boot/System.map-"+testRelease, "ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n"),
		file("./lib/modules/"+testRelease+"/kernel/drivers/block/virtio_blk.ko", "ko"))
	pkg("linux-headers-"+testRelease, "linux-headers-6.1.0-1-common (= 6.1.1-1), linux-kbuild-6.1 (>= 6.1.1-1), linux-compiler-gcc-12-x86",
		file(src+"cloud-amd64/Makefile", "include /usr/src/linux-headers-6.1.0-1-common/Makefile\n"),
		file(src+"cloud-amd64/.config", "CONFIG_X=y\n"),
		tar.Header{Name: "./lib/modules/" + testRelease + "/build", Typeflag: tar.TypeSymlink, Linkname: "/usr/src/linux-headers-" + testRelease})
	pkg("linux-headers-6.1.0-1-common", "", file(src+"common/Makefile", "VERSION = 6\n"), file(src+"common/arch/sh/Makefile", ""))
	pkg("linux-image-"+testRelease+"-dbg", "", file("./usr/lib/debug/boot/vmlinux-"+testRelease, "ELF"),
		file("./usr/lib/debug/boot/System.map-"+testRelease, strings.Repeat("ffffffff81000000 T _text\n", 200)),
		tar.Header{Name: "./usr/lib/debug/vmlinux-" + testRelease, Typeflag: tar.TypeSymlink, Linkname: "boot/vmlinux-" + testRelease},
		file("./usr/lib/debug/lib/modules/"+testRelease+"/kernel/drivers/block/virtio_blk.ko", "ko"))
	pkg("linux-kbuild-6.1", "libelf1 (>= 0.142)", file("./usr/lib/linux-kbuild-6.1/scripts/basic/fixdep", "elf"))
	h.fresh = h.known
	return h
}

func (h *host) run(_ context.Context, c execx.Cmd) ([]byte, error) {
	option := make(map[string]string)
	var words []string
	for i := 1; i < len(c.Argv); i++ {
		if c.Argv[i] == "-o" {
			i++
			k, v, _ := strings.Cut(c.Argv[i], "=")
			option[k] = v
		} else if !strings.HasPrefix(c.Argv[i], "-") {
			words = append(words, c.Argv[i])
		}
	}
	h.ran = append(h.ran, strings.Join(append([]string{c.Argv[0]}, words[0]), " "))
	fail := func(text string) ([]byte, error) {
		return nil, &execx.Error{Argv: c.Argv, Code: 100, Tail: text, Err: errors.New("exit status 100")}
	}
	const noNetwork = "Err:1 http://mirror.example/debian bookworm InRelease\n" +
		"  Temporary failure resolving 'mirror.example'\nE: Failed to fetch http://mirror.example/x  Temporary failure resolving 'mirror.example'\n"
	switch words[0] {
	case "update":
		if h.down {
			return fail(noNetwork)
		}
		h.known = h.fresh
		return nil, os.WriteFile(filepath.Join(option["Dir::State::lists"], "x_Packages"), []byte("x"), 0o644)
	case "pkgnames":
		var names []string
		for _, line := range strings.Split(h.known, "\n") {
			if n, ok := strings.CutPrefix(line, "Package: "); ok {
				names = append(names, n)
			}
		}
		return []byte(strings.Join(names, "\n")), nil
	case "show":
		return []byte(h.known), nil
	case "download":
		if h.down {
			return fail(noNetwork)
		}
		for _, w := range words[1:] {
			name, version, _ := strings.Cut(w, "=")
			data, ok := h.debs[name]
			if !ok {
				return fail("E: Failed to fetch http://mirror.example/" + name + "  404  Not Found\n")
			}
			if h.tamper {
				data = append(bytes.Clone(data), 0)
			}
			if err := os.WriteFile(filepath.Join(c.Dir, name+"_"+version+"_amd64.deb"), data, 0o644); err != nil {
				return nil, err
			}
		}
		_, err := c.Log.Write([]byte("dlstatus:1:0.0000:Retrieving file 1 of 4\ndlstatus:4:50.0"))
		if err == nil {
			_, err = c.Log.Write([]byte("000:Retrieving file 4 of 4\n"))
		}
		return nil, err
	}
	return nil, fmt.Errorf("unexpected command %q", c.Argv)
}

// sources returns the providers on h with a fresh store, and the log.
func (h *host) sources(t *testing.T) (*Sources, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	l := slog.New(slog.NewTextHandler(&log, nil))
	s, err := store.Open(filepath.Join(h.dir, "cache"), l)
	if err != nil {
		t.Fatal(err)
	}
	src := New(s, l, nil, Options{})
	src.providers["debian"] = &debian{
		of: debianDist, store: s, log: l, run: h.run, etc: filepath.Join(h.dir, "etc"), lists: filepath.Join(h.dir, "lists"),
		progress: func(doing string, done, total int64) {
			if strings.HasPrefix(doing, "download") {
				h.progress = append(h.progress, fmt.Sprintf("%s %d%%", doing, 100*done/total))
			}
		},
	}
	return src, &log
}

func TestFetch(t *testing.T) {
	h := newHost(t)
	s, _ := h.sources(t)
	k, err := s.Fetch(t.Context(), "debian:6.1")
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Dir(filepath.Dir(k.Image))
	want := &Kernel{
		Spec: "debian:6.1", ID: k.ID, Release: testRelease, Version: "6.1.1-1",
		Image: root + "/boot/vmlinuz-" + testRelease, Config: root + "/boot/config-" + testRelease,
		Modules: root + "/lib/modules/" + testRelease, Headers: root + "/usr/src/linux-headers-" + testRelease,
		Compiler: "gcc-12 (Debian) 12.2.0",
	}
	if diff := cmp.Diff(want, k); diff != "" {
		t.Errorf("Fetch (-want +got):\n%s", diff)
	}
	makefile, err := os.ReadFile(k.Headers + "/Makefile")
	if want := "usr_src := $(abspath $(dir $(lastword $(MAKEFILE_LIST)))..)\ninclude $(usr_src)/linux-headers-6.1.0-1-common/Makefile\n"; string(makefile) != want || err != nil {
		t.Errorf("Makefile = %q, %v; want %q", makefile, err, want)
	}
	if got, err := filepath.EvalSymlinks(k.Modules + "/build"); got != k.Headers || err != nil {
		t.Errorf("build leads to %q, %v; want %q", got, err, k.Headers)
	}
	for _, gone := range []string{"/debs", "/usr/src/linux-headers-6.1.0-1-common/arch/sh"} {
		if _, err := os.Lstat(root + gone); err == nil {
			t.Errorf("%s is there; want it left out", gone)
		}
	}
	if diff := cmp.Diff([]string{"apt-cache pkgnames", "apt-cache show", "apt-get download"}, h.ran); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"download " + testRelease + " 0%", "download " + testRelease + " 50%"}, h.progress); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}

	// The second time, apt is not even asked; and not needed.
	h.down = true
	if again, err := s.Fetch(t.Context(), "debian:6.1"); err != nil || again.Image != k.Image || len(h.ran) != 3 {
		t.Errorf("second Fetch = %+v, %v after %q; want the same from the store", again, err, h.ran)
	}
}

// On request the kernel comes with its debug information, and the real System.map.
func TestFetchDebug(t *testing.T) {
	h := newHost(t)
	s, _ := h.sources(t)
	k, err := s.Fetch(t.Context(), "debian:6.1+debuginfo")
	if err != nil {
		t.Fatal(err)
	}
	debug := filepath.Dir(filepath.Dir(k.Image)) + "/usr/lib/debug"
	if k.VMLinux != debug+"/boot/vmlinux-"+testRelease || k.SystemMap != debug+"/boot/System.map-"+testRelease || exists(debug+"/lib") {
		t.Errorf("Fetch = %+v, debug information of modules: %t; want vmlinux and System.map in %s alone", k, exists(debug+"/lib"), debug)
	}
	delete(h.debs, "linux-image-"+testRelease+"-dbg")
	if k, err := s.Fetch(t.Context(), "debian:6.1"); err != nil || k.VMLinux != "" {
		t.Errorf("Fetch without it = %+v, %v; want no vmlinux, and the package not asked for", k, err)
	}
}

// The host's lists have changed: apt is asked again.
func TestFetchAfterUpdate(t *testing.T) {
	h := newHost(t)
	s, _ := h.sources(t)
	if _, err := s.Resolve(t.Context(), "debian"); err != nil {
		t.Fatal(err)
	}
	now := time.Now().Add(time.Minute)
	if err := os.Chtimes(filepath.Join(h.dir, "lists", "debian_main_binary-amd64_Packages"), now, now); err != nil {
		t.Fatal(err)
	}
	h.known = strings.ReplaceAll(h.known, "6.1.0-1", "6.1.0-2")
	if p, err := s.Resolve(t.Context(), "debian"); err != nil || p.Release != "6.1.0-2-cloud-amd64" {
		t.Errorf("Resolve = %v, %v; want 6.1.0-2-cloud-amd64", p, err)
	}
}

// On a machine where apt-get update never ran, lists are kept in the cache.
func TestFetchWithoutLists(t *testing.T) {
	h := newHost(t)
	if err := os.RemoveAll(filepath.Join(h.dir, "lists")); err != nil {
		t.Fatal(err)
	}
	h.known = ""
	s, _ := h.sources(t)
	if _, err := s.Fetch(t.Context(), "debian"); err != nil {
		t.Fatal(err)
	}
	want := []string{"apt-get update", "apt-cache pkgnames", "apt-cache show", "apt-get download"}
	if diff := cmp.Diff(want, h.ran); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	if left, _ := filepath.Glob(filepath.Join(s.store.Area("apt"), "*.tmp-*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// The lists name packages that the archive has replaced since.
func TestFetchWithStaleLists(t *testing.T) {
	h := newHost(t)
	h.known = strings.ReplaceAll(h.known, "6.1.0-1", "6.1.0-0")
	s, log := h.sources(t)
	k, err := s.Fetch(t.Context(), "debian")
	if err != nil || k.Release != testRelease {
		t.Fatalf("Fetch = %+v, %v; want %s", k, err, testRelease)
	}
	if got := log.String(); !strings.Contains(got, "updating them") {
		t.Errorf("log = %q; want a word about the update", got)
	}
	if k, err := s.Fetch(t.Context(), "debian"); err != nil || k.Release != testRelease {
		t.Errorf("second Fetch = %+v, %v; want %s again", k, err, testRelease)
	}
}

func TestFetchErrors(t *testing.T) {
	tests := []struct {
		name   string
		spec   string
		damage func(t *testing.T, h *host)
		party  blame.Party
		err    string
		look   string
	}{
		{"no network", "debian", func(t *testing.T, h *host) { h.down = true }, blame.Infrastructure,
			"download " + testRelease, "E: Failed to fetch http://mirror.example/x  Temporary failure resolving 'mirror.example'"},
		{"no network and no lists", "debian", func(t *testing.T, h *host) { h.down = true; _ = os.RemoveAll(filepath.Join(h.dir, "lists")) },
			blame.Infrastructure, "update the package lists", "Temporary failure resolving"},
		{"wrong hash", "debian", func(t *testing.T, h *host) { h.tamper = true }, blame.Infrastructure, "has the SHA-256", ""},
		{"no kernels", "debian", func(t *testing.T, h *host) { h.known = "Package: linux-doc\n" }, blame.Infrastructure, "knows no Debian kernels", ""},
		{"unknown version", "debian:6.5", func(*testing.T, *host) {}, blame.Usage, `kernel "debian:6.5": no such Debian kernel`, "debian:6.1.0-1"},
		{"unknown provider", "gentoo", func(*testing.T, *host) {}, blame.Usage, `kernel "gentoo": unknown kind of kernel`, "debian:6.1 "},
		{"odd suite", "debian@../x:6.1", func(*testing.T, *host) {}, blame.Usage, "is not the name of a suite", ""},
		{"package without its files", "debian", func(t *testing.T, h *host) {
			image := archivetest.Deb("data.tar", archivetest.Tar(t))
			h.known = strings.ReplaceAll(h.known, fmt.Sprintf("%x", sha256.Sum256(h.debs["linux-image-"+testRelease])), fmt.Sprintf("%x", sha256.Sum256(image)))
			h.debs["linux-image-"+testRelease] = image
		}, blame.Infrastructure, "have no kernel image", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			tt.damage(t, h)
			s, _ := h.sources(t)
			k, err := s.Fetch(t.Context(), tt.spec)
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("Fetch = %+v, %v; want %q", k, err, tt.err)
			}
			e := blame.Of(err)
			if e.Party != tt.party {
				t.Errorf("blamed on %v; want %v", e.Party, tt.party)
			}
			if got := strings.Join(e.Look, "\n"); !strings.Contains(got, tt.look) {
				t.Errorf("Look = %q; want %q among them", e.Look, tt.look)
			}
			if left, _ := filepath.Glob(filepath.Join(h.dir, "cache", "entry", "kernel", "*")); left != nil {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// What an interrupted download has got is not downloaded again.
func TestFetchResumes(t *testing.T) {
	h := newHost(t)
	s, _ := h.sources(t)
	last := h.debs["linux-kbuild-6.1"]
	delete(h.debs, "linux-kbuild-6.1")
	if _, err := s.Fetch(t.Context(), "debian"); err == nil {
		t.Fatal("Fetch of a kernel of which the archive lacks a package = nil; want an error")
	}
	delete(h.debs, "linux-image-"+testRelease)
	h.debs["linux-kbuild-6.1"] = last
	got, err := filepath.Glob(filepath.Join(s.store.Area("debs"), "*", "linux-image-*.deb"))
	if err != nil || len(got) != 1 {
		t.Fatalf("kept: %v, %v; want the image", got, err)
	}
	if _, err := s.Fetch(t.Context(), "debian"); err != nil {
		t.Errorf("Fetch when the archive has the rest: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.store.Area("debs"), "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A damaged kernel in the cache is fetched again.
func TestFetchDamaged(t *testing.T) {
	h := newHost(t)
	s, log := h.sources(t)
	k, err := s.Fetch(t.Context(), "debian")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(k.Image, 3); err != nil {
		t.Fatal(err)
	}
	if k, err = s.Fetch(t.Context(), "debian"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(k.Image); string(got) != "bzImage" {
		t.Errorf("image = %q, %v; want it whole again", got, err)
	}
	if got := log.String(); !strings.Contains(got, "has 3 bytes instead of 7") {
		t.Errorf("log = %q; want the damage", got)
	}
}

// Without lists and network, a kernel that was fetched before still does.
func TestFetchOffline(t *testing.T) {
	h := newHost(t)
	s, log := h.sources(t)
	k, err := s.Fetch(t.Context(), "debian")
	if err != nil {
		t.Fatal(err)
	}
	h.down = true
	if err := os.RemoveAll(filepath.Join(h.dir, "lists")); err != nil {
		t.Fatal(err)
	}
	again, err := s.Fetch(t.Context(), "debian")
	if diff := cmp.Diff(k, again); diff != "" || err != nil {
		t.Errorf("Fetch without network: %v (-want +got):\n%s", err, diff)
	}
	if got := log.String(); !strings.Contains(got, "taking "+testRelease+" for debian as before") {
		t.Errorf("log = %q; want it to say so", got)
	}
	if k, err := s.Fetch(t.Context(), "debian:6.1"); err == nil {
		t.Errorf("Fetch of what was never fetched = %+v; want an error", k)
	}
}

func TestFetchCancelled(t *testing.T) {
	h := newHost(t)
	s, _ := h.sources(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.providers["debian"].(*debian).progress = func(doing string, _, _ int64) {
		if strings.HasPrefix(doing, "unpack") {
			cancel()
		}
	}
	if k, err := s.Fetch(ctx, "debian"); !errors.Is(err, context.Canceled) {
		t.Errorf("Fetch = %+v, %v; want context.Canceled", k, err)
	}
	if left, _ := filepath.Glob(filepath.Join(h.dir, "cache", "entry", "kernel", "*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// The layout of Debian's packages from 7.x on.
func TestOpenNewLayout(t *testing.T) {
	const release = "7.2.13+deb14-cloud-amd64"
	dir := t.TempDir()
	for name, content := range map[string]string{
		"usr/lib/modules/" + release + "/vmlinuz":                    "bzImage",
		"usr/lib/modules/" + release + "/config":                     "CONFIG_X=y\n",
		"usr/lib/modules/" + release + "/System.map":                 strings.Repeat("ffffffff81000000 T _text\n", 1000),
		"usr/lib/modules/" + release + "/kernel/virtio/virtio.ko.xz": "ko",
		"usr/src/linux-headers-" + release + "/Makefile":             "",
	} {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	m := dir + "/usr/lib/modules/" + release
	want := &Kernel{Release: release, Image: m + "/vmlinuz", Config: m + "/config", SystemMap: m + "/System.map", Modules: m,
		Headers: dir + "/usr/src/linux-headers-" + release}
	got, err := open(dir, release, false)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("open: %v (-want +got):\n%s", err, diff)
	}
	if _, err := open(t.TempDir(), release, false); err == nil || !strings.Contains(err.Error(), "no kernel image") {
		t.Errorf("open of nothing = %v; want what is missing", err)
	}
}

func TestKeep(t *testing.T) {
	for name, want := range map[string]bool{
		"boot/vmlinuz-6.1.0-56-cloud-amd64":                               true,
		"usr/src/linux-headers-6.1.0-56-common/include/linux/sched.h":     true,
		"usr/src/linux-headers-6.1.0-56-common/arch/x86/Makefile":         true,
		"usr/src/linux-headers-6.1.0-56-common/arch/arm64/Makefile":       false,
		"usr/src/linux-headers-6.1.0-56-common/include/arch/arm64/x.h":    true,
		"usr/share/doc/linux-image-6.1.0-56-cloud-amd64/copyright":        false,
		"usr/lib/modules/7.2.13+deb14-cloud-amd64/kernel/arch/x86/kvm.ko": true,
	} {
		if got := keep(name); got != want {
			t.Errorf("keep(%q) = %v; want %v", name, got, want)
		}
	}
}

func TestList(t *testing.T) {
	h := newHost(t)
	s, _ := h.sources(t)
	for _, cached := range []bool{false, true} {
		all, err := s.List(t.Context(), "")
		if err != nil || len(all) != 1 {
			t.Fatalf("List() = %+v, %v; want one kernel", all, err)
		}
		k := all[0]
		if k.Plan.Spec != "debian:6.1.0-1" || k.Plan.Version != "6.1.1-1" || k.Flavour != "cloud-amd64" || k.Cached != cached {
			t.Errorf("List() = %+v, %+v; want cached: %v", k, k.Plan, cached)
		}
		if _, err := s.Fetch(t.Context(), k.Plan.Spec); err != nil {
			t.Errorf("Fetch(%s), which is listed: %v", k.Plan.Spec, err)
		}
	}
}
