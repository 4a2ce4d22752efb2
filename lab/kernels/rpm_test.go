package kernels

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/rpmpack"

	"crashlab/internal/archivetest"
	"crashlab/internal/execx"
	"crashlab/internal/pgp"
	"crashlab/internal/rpm"
	"crashlab/lab/blame"
	"crashlab/lab/kernelorg/orgtest"
	"crashlab/lab/store"
)

// The packages of a distribution, as far as they matter here.

func rpmFiles(pairs ...string) []rpmpack.RPMFile {
	var files []rpmpack.RPMFile
	for i := 0; i < len(pairs); i += 2 {
		f := rpmpack.RPMFile{Name: pairs[i], Body: []byte(pairs[i+1])}
		if target, ok := strings.CutPrefix(pairs[i+1], "-> "); ok {
			f.Mode, f.Body = 0o120777, []byte(target)
		}
		files = append(files, f)
	}
	return files
}

func rpmMeta(name, version, release string) rpmpack.RPMMetaData {
	return rpmpack.RPMMetaData{Name: name, Version: version, Release: release, Compressor: "zstd", Epoch: rpmpack.NoEpoch}
}

const rpmConfig = "CONFIG_CC_VERSION_TEXT=\"gcc (GCC) 14.2.1 20250110 (Red Hat 14.2.1-7)\"\n"

// fedora returns the packages of a kernel as Fedora, CentOS and RHEL have them.
func fedora(t *testing.T, version, release, variant string) map[string][]byte {
	t.Helper()
	rel := version + "-" + release + ".x86_64" + strings.ReplaceAll(variant, "-", "+")
	m := "/lib/modules/" + rel
	pkg := func(name, compressor string, files ...rpmpack.RPMFile) (string, []byte) {
		meta := rpmMeta("kernel"+variant+name, version, release)
		meta.Compressor = compressor
		return fmt.Sprintf("%s-%s-%s.x86_64.rpm", meta.Name, version, release), archivetest.RPM(t, meta, nil, files...)
	}
	all := make(map[string][]byte)
	add := func(name string, b []byte) { all[name] = b }
	ghost := rpmpack.RPMFile{Name: "/boot/vmlinuz-" + rel, Type: rpmpack.GhostFile, Mode: 0o600}
	add(pkg("", "gzip"))
	add(pkg("-core", "zstd", append(rpmFiles(m+"/vmlinuz", "image of "+rel, m+"/config", rpmConfig, m+"/System.map", strings.Repeat("ffffffff81000000 T _text\n", 200),
		m+"/build", "-> /usr/src/kernels/"+rel, m+"/source", "-> build", "/usr/share/licenses/kernel-core/COPYING", "GPL"), ghost)...))
	add(pkg("-modules-core", "xz", rpmFiles(m+"/kernel/drivers/block/virtio_blk.ko.xz", "ko", m+"/modules.dep", "")...))
	add(pkg("-devel", "gzip", rpmFiles("/usr/src/kernels/"+rel+"/Makefile", "VERSION = 6\n", "/usr/src/kernels/"+rel+"/arch/arm64/Makefile", "")...))
	add(pkg("-debuginfo", "zstd", rpmFiles("/usr/lib/debug/lib/modules/"+rel+"/vmlinux", "ELF", "/usr/lib/debug/lib/modules/"+rel+"/kernel/x.ko.debug", "ELF")...))
	return all
}

func writeFiles(t *testing.T, files map[string][]byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// newRPMSources returns providers of which rpm: is r.
func newRPMSources(t *testing.T, keys string) (*Sources, *rpms) {
	t.Helper()
	s, err := store.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	src := New(s, nil, nil, Options{Keys: keys})
	r := src.providers["rpm"].(*rpms)
	r.hostKeys = nil
	r.run = func(_ context.Context, c execx.Cmd) ([]byte, error) {
		return nil, fmt.Errorf("there is no %s in this test", c.Argv[0])
	}
	return src, r
}

// Of a folder with much else, the newest kernel is taken, not the one for debugging.
func TestRPMFolder(t *testing.T) {
	files := fedora(t, "6.12.0", "55.9.el10", "")
	for _, other := range []map[string][]byte{
		fedora(t, "6.12.0", "55.10.el10", ""), fedora(t, "6.12.0", "55.10.el10", "-debug"),
		{"bash-5.2-1.x86_64.rpm": archivetest.RPM(t, rpmMeta("bash", "5.2", "1"), nil, rpmFiles("/usr/bin/bash", "sh")...)},
		{"kernel-core-7.0-1.aarch64.rpm": archivetest.RPM(t, func() rpmpack.RPMMetaData {
			m := rpmMeta("kernel-core", "7.0", "1")
			m.Arch = "aarch64"
			return m
		}(), nil, rpmFiles("/lib/modules/7.0-1.aarch64/vmlinuz", "other")...)},
		{"README": []byte("not a package")},
	} {
		for name, b := range other {
			files[name] = b
		}
	}
	dir := writeFiles(t, files)
	src, _ := newRPMSources(t, "")
	k, err := src.Fetch(t.Context(), "rpm:"+dir)
	if err != nil {
		t.Fatal(err, blame.Of(err).Look)
	}
	const release = "6.12.0-55.10.el10.x86_64"
	root := filepath.Dir(filepath.Dir(filepath.Dir(k.Modules)))
	m := root + "/lib/modules/" + release
	want := &Kernel{
		Spec: "rpm:" + dir, ID: k.ID, Release: release, Version: "6.12.0-55.10.el10", Image: m + "/vmlinuz", Config: m + "/config",
		SystemMap: m + "/System.map", Modules: m, Headers: root + "/usr/src/kernels/" + release,
		VMLinux: root + "/usr/lib/debug/lib/modules/" + release + "/vmlinux", Compiler: "gcc (GCC) 14.2.1 20250110 (Red Hat 14.2.1-7)",
	}
	if diff := cmp.Diff(want, k); diff != "" {
		t.Errorf("Fetch (-want +got):\n%s", diff)
	}
	if b, err := os.ReadFile(k.Image); err != nil || string(b) != "image of "+release {
		t.Errorf("image = %q, %v", b, err)
	}
	for name, want := range map[string]bool{
		m + "/kernel/drivers/block/virtio_blk.ko.xz": true, k.Headers + "/arch/arm64/Makefile": true, root + "/usr/share": false,
		root + "/usr/lib/debug/lib/modules/" + release + "/kernel": false, root + "/lib/modules/6.12.0-55.9.el10.x86_64": false,
	} {
		if exists(name) != want {
			t.Errorf("%s: there is one: %t; want %t", name, !want, want)
		}
	}
}

// openSUSE has everything below /usr, and headers in two packages for all flavours.
func TestRPMOpenSUSE(t *testing.T) {
	const version, release = "6.4.0", "6.4.0-150600.21-default"
	m, obj := "/usr/lib/modules/"+release, "/usr/src/linux-6.4.0-150600.21-obj/x86_64/default"
	noarch := rpmMeta("kernel-devel", version, "150600.21.1")
	noarch.Arch = "noarch"
	dir := writeFiles(t, map[string][]byte{
		"kernel-default.rpm": archivetest.RPM(t, rpmMeta("kernel-default", version, "150600.21.1"), nil, rpmFiles(
			m+"/vmlinuz", "image", m+"/config", rpmConfig, m+"/kernel/fs/btrfs.ko.zst", "ko")...),
		"kernel-default-devel.rpm": archivetest.RPM(t, rpmMeta("kernel-default-devel", version, "150600.21.1"), nil, rpmFiles(
			m+"/build", "-> "+obj, obj+"/Makefile", "include /usr/src/linux-6.4.0-150600.21/Makefile\n")...),
		"kernel-devel.rpm":  archivetest.RPM(t, noarch, nil, rpmFiles("/usr/src/linux-6.4.0-150600.21/Makefile", "all: ; @echo the common one\n")...),
		"kernel-devel2.rpm": archivetest.RPM(t, rpmMeta("kernel-source", "6.3.0", "1"), nil, rpmFiles("/usr/src/linux-6.3.0-1/Makefile", "")...),
	})
	src, _ := newRPMSources(t, "")
	k, err := src.Fetch(t.Context(), "rpm:"+dir)
	if err != nil {
		t.Fatal(err, blame.Of(err).Look)
	}
	if k.Release != release || !strings.HasSuffix(k.Headers, obj) || !strings.HasSuffix(k.Modules, m) || !strings.HasSuffix(k.Image, m+"/vmlinuz") {
		t.Errorf("Fetch = %+v; want %s with headers in %s", k, release, obj)
	}
	out, err := execx.Run(t.Context(), execx.Cmd{Argv: []string{"make", "-C", k.Headers}})
	if err != nil || !strings.Contains(string(out), "the common one") {
		t.Errorf("make in the headers: %q, %v; want the common Makefile", out, err)
	}
}

// A kernel whose modules are all built in, without headers, by files and addresses.
func TestRPMFiles(t *testing.T) {
	image := archivetest.RPM(t, rpmMeta("kernel", "6.1.192_lab", "1"), nil, rpmFiles(
		"/boot/vmlinuz-6.1.192-lab", "image", "/boot/config-6.1.192-lab", rpmConfig)...)
	debug := archivetest.RPM(t, rpmMeta("kernel-debuginfo", "6.1.192_lab", "1"), nil, rpmFiles("/usr/lib/debug/boot/vmlinux-6.1.192-lab", "ELF")...)
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		w.Header().Set("ETag", `"1"`)
		if requests == 1 {
			w.Header().Set("Content-Length", fmt.Sprint(len(debug)))
			_, _ = w.Write(debug[:300])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		if r.Header.Get("Range") != "bytes=300-" {
			t.Errorf("the second request is for %q; want what follows 300 bytes", r.Header.Get("Range"))
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(debug))
	}))
	defer server.Close()
	dir := writeFiles(t, map[string][]byte{"kernel.rpm": image})
	src, _ := newRPMSources(t, "")
	for range 2 {
		k, err := src.Fetch(t.Context(), "rpm:"+dir+"/kernel.rpm,"+server.URL+"/debug.rpm")
		if err != nil {
			t.Fatal(err)
		}
		if k.Headers != "" || k.Release != "6.1.192-lab" || !exists(k.Modules+"/kernel") || !exists(k.VMLinux) {
			t.Errorf("Fetch = %+v; want 6.1.192-lab without headers, with vmlinux", k)
		}
	}
	if requests != 2 {
		t.Errorf("%d requests; want one, and one for the rest", requests)
	}
}

func TestRPMRefuses(t *testing.T) {
	signer, stranger := orgtest.New(t).Release, orgtest.New(t).Sums
	keys := writeFiles(t, map[string][]byte{"key.asc": signer.Public})
	core := func(files ...rpmpack.RPMFile) []byte {
		return archivetest.RPM(t, rpmMeta("kernel-core", "6.1", "1"), nil, append(rpmFiles("/boot/vmlinuz-6.1", "image", "/boot/config-6.1", ""), files...)...)
	}
	signed := func(sign func([]byte) ([]byte, error)) []byte {
		return archivetest.RPM(t, rpmMeta("kernel-core", "6.1", "1"), sign, rpmFiles("/boot/vmlinuz-6.1", "image", "/boot/config-6.1", "")...)
	}
	good := core()
	damaged := bytes.Clone(good)
	damaged[len(damaged)-10] ^= 1
	arm := rpmMeta("kernel-core", "6.1", "1")
	arm.Arch = "aarch64"
	for name, tt := range map[string]struct {
		file  []byte
		keys  string
		party blame.Party // 0: nobody
		want  error
		text  string
	}{
		"good":              {good, "", 0, nil, ""},
		"signed":            {signed(signer.Binary), keys, 0, nil, ""},
		"unknown":           {signed(stranger.Binary), "", 0, nil, ""}, // told, but no error where no keys are set
		"unknown with keys": {signed(stranger.Binary), keys, blame.Infrastructure, pgp.ErrUnknownKey, ""},
		"unsigned":          {good, keys, blame.Infrastructure, pgp.ErrUnsigned, ""},
		"wrong signature": {signed(func(b []byte) ([]byte, error) {
			return signer.Binary(append([]byte("x"), b...))
		}), keys, blame.Infrastructure, pgp.ErrBad, ""},
		"no keys":             {good, t.TempDir(), blame.Usage, nil, "there are none"},
		"damaged":             {damaged, "", blame.Infrastructure, rpm.ErrDamaged, "payload SHA256"},
		"cut in the payload":  {good[:len(good)-10], "", blame.Infrastructure, rpm.ErrDamaged, "cut short"},
		"cut in the header":   {good[:400], "", blame.Infrastructure, nil, "cut short"},
		"no package":          {[]byte("<html>"), "", blame.Usage, rpm.ErrNotRPM, ""},
		"other architecture":  {archivetest.RPM(t, arm, nil, rpmFiles("/boot/vmlinuz-6.1", "image")...), "", blame.Usage, nil, "aarch64"},
		"no image":            {archivetest.RPM(t, rpmMeta("kernel-modules", "6.1", "1"), nil, rpmFiles("/lib/modules/6.1/kernel/x.ko", "ko")...), "", blame.Usage, nil, "none of these packages has the image"},
		"nothing":             {archivetest.RPM(t, rpmMeta("kernel", "6.1", "1"), nil), "", blame.Usage, nil, "none of these packages has the image"},
		"no configuration":    {archivetest.RPM(t, rpmMeta("kernel-core", "6.1", "1"), nil, rpmFiles("/boot/vmlinuz-6.1", "image")...), "", 0, nil, "no configuration"},
		"release leads out":   {archivetest.RPM(t, rpmMeta("kernel-core", "6.1", "1"), nil, rpmFiles("/lib/modules/../vmlinuz", "image")...), "", blame.Usage, nil, "none of these packages has the image"},
		"path leads out":      {core(rpmFiles("/../../evil", "x")...), "", blame.Infrastructure, nil, "outside of the archive"},
		"link leads out":      {core(rpmFiles("/boot/link", "-> ../../../evil")...), "", blame.Infrastructure, nil, "outside of the archive"},
		"file through a link": {core(rpmFiles("/boot/dir", "-> ../usr", "/boot/dir/evil", "x")...), "", blame.Infrastructure, nil, "is a link"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeFiles(t, map[string][]byte{"kernel-core.rpm": tt.file})
			src, _ := newRPMSources(t, tt.keys)
			_, err := src.Fetch(t.Context(), "rpm:"+dir+"/kernel-core.rpm")
			if tt.party == 0 && tt.text == "" {
				if err != nil {
					t.Errorf("Fetch = %v; want none", err)
				}
				return
			}
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("Fetch = %v; want %v %s", err, tt.want, tt.text)
			} else if got := blame.Of(err).Party; tt.party != 0 && got != tt.party {
				t.Errorf("Fetch blames %v for %v; want %v", got, err, tt.party)
			}
			if left, err := filepath.Glob(filepath.Join(src.store.Dir(), "entry/kernel/*")); len(left) > 0 || err != nil {
				t.Errorf("in the cache: %v, %v; want nothing", left, err)
			}
		})
	}
	src, _ := newRPMSources(t, "")
	for spec, want := range map[string]string{
		"rpm:/absent.rpm": "no such file", "rpm:" + t.TempDir(): "no packages", "rpm:" + t.TempDir() + ",": "no packages", "rpm:,": "empty name",
		"rpm:http://127.0.0.1:1/kernel.rpm": "refused", "rpm": "no dnf in this test", "rpm:6.12": "no dnf in this test",
	} {
		if _, err := src.Fetch(t.Context(), spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Fetch(%s) = %v; want %q", spec, err, want)
		}
	}
}

// Nothing is unpacked that the disk has no room for.
func TestCheckSpace(t *testing.T) {
	if err := checkSpace(t.TempDir(), 1<<62); err == nil || !strings.Contains(err.Error(), "are needed") {
		t.Errorf("checkSpace(4 EiB) = %v; want that it is too much", err)
	}
	if err := checkSpace(t.TempDir(), 1); err != nil {
		t.Errorf("checkSpace(1) = %v", err)
	}
}

// dnf is asked once in an hour, and downloads what it said.
func TestDNF(t *testing.T) {
	packages := fedora(t, "6.12.0", "55.10.el10", "")
	src, r := newRPMSources(t, "")
	lines := ""
	for _, name := range append([]string{"kernel-debug-core", "bash"}, dnfPackages[:2]...) {
		for _, rel := range []string{"55.9.el10", "55.10.el10"} {
			lines += fmt.Sprintf("%s|0|6.12.0|%s|x86_64|1000\n\n", name, rel)
		}
	}
	lines += "kernel-core|0|7.0.0|1|aarch64|1\nkernel-devel|0|6.12.0|55.10.el10|x86_64|500\n"
	var ran []string
	down := false
	r.run = func(_ context.Context, c execx.Cmd) ([]byte, error) {
		ran = append(ran, c.Argv[3])
		if down {
			return nil, errors.New("no network")
		}
		if c.Argv[3] == "repoquery" {
			return []byte(lines), nil
		}
		for _, nevra := range c.Argv[6:] {
			b, ok := packages[nevra+".rpm"]
			if !ok {
				return nil, fmt.Errorf("no package %s", nevra)
			}
			if err := os.WriteFile(filepath.Join(c.Argv[5], nevra+".rpm"), b, 0o644); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}
	for range 2 {
		k, err := src.Fetch(t.Context(), "rpm")
		if err != nil {
			t.Fatal(err, blame.Of(err).Look)
		}
		if k.Release != "6.12.0-55.10.el10.x86_64" || k.Headers == "" || k.VMLinux != "" {
			t.Errorf("Fetch(rpm) = %+v; want 55.10 with headers", k)
		}
	}
	if got := strings.Join(ran, " "); got != "repoquery download" {
		t.Errorf("dnf was asked for %q; want once for each", got)
	}
	if p, err := src.Resolve(t.Context(), "rpm:6.12.0-55.9"); err != nil || p.Release != "6.12.0-55.9.el10.x86_64" {
		t.Errorf("Resolve(55.9) = %+v, %v", p, err)
	}
	if _, err := src.Resolve(t.Context(), "rpm:6.13"); err == nil || blame.Of(err).Party != blame.Usage {
		t.Errorf("Resolve(6.13) = %v; want a usage error", err)
	}
	// What it said before serves when it has no answer.
	down = true
	names, err := filepath.Glob(filepath.Join(src.store.Area("rpm"), "plan-*"))
	if err != nil || len(names) != 2 {
		t.Fatalf("remembered: %v, %v", names, err)
	}
	for _, n := range names {
		if err := os.Chtimes(n, time.Time{}, time.Now().Add(-2*dnfAsksAgain)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := src.Fetch(t.Context(), "rpm"); err != nil {
		t.Errorf("Fetch(rpm) without network: %v", err)
	}
}

func TestAsksDNF(t *testing.T) {
	for want, dnf := range map[string]bool{
		"": true, "6.12": true, "5.14.0-503.el9": true, "6.12.0-0.rc1.20240930git.1.fc42": true, "kernel.rpm": false, "5.14.rpm": false,
		"./x": false, "/a/b": false, "https://x/y.rpm": false, ".": false,
	} {
		if got := asksDNF(want); got != dnf {
			t.Errorf("asksDNF(%q) = %t; want %t", want, got, dnf)
		}
	}
}

func FuzzChooseDNF(f *testing.F) {
	f.Add("kernel-core|0|6.12.0|55.el10|x86_64|1000\nkernel-devel|0|6.12.0|55.el10|x86_64|500\n", "6.12")
	f.Fuzz(func(_ *testing.T, lines, want string) { _, _ = chooseDNF(lines, want) })
}

// Interrupted while it unpacks, Fetch leaves nothing, and the next call begins anew.
func TestRPMInterrupted(t *testing.T) {
	dir := writeFiles(t, fedora(t, "6.12.0", "55.10.el10", ""))
	src, r := newRPMSources(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	r.progress = func(doing string, _, _ int64) {
		if strings.HasPrefix(doing, "unpack") {
			cancel()
		}
	}
	if _, err := src.Fetch(ctx, "rpm:"+dir); !errors.Is(err, context.Canceled) {
		t.Errorf("Fetch = %v; want context.Canceled", err)
	}
	if left, err := filepath.Glob(filepath.Join(src.store.Dir(), "entry/kernel/*")); len(left) > 0 || err != nil {
		t.Errorf("in the cache: %v, %v; want nothing", left, err)
	}
	if _, err := src.Fetch(t.Context(), "rpm:"+dir); err != nil {
		t.Errorf("Fetch after that: %v", err)
	}
}

// Of several runs at once that want the same kernel, one unpacks it.
func TestRPMTwice(t *testing.T) {
	dir := writeFiles(t, fedora(t, "6.12.0", "55.10.el10", ""))
	fetch := func(runs int) (reads int64) {
		t.Helper()
		src, r := newRPMSources(t, "")
		var n atomic.Int64
		r.progress = func(string, int64, int64) { n.Add(1) }
		var wg sync.WaitGroup
		got := make([]*Kernel, runs)
		for i := range got {
			wg.Go(func() {
				var err error
				if got[i], err = src.Fetch(t.Context(), "rpm:"+dir); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, k := range got[1:] {
			if diff := cmp.Diff(got[0], k); diff != "" {
				t.Errorf("two kernels (-first +other):\n%s", diff)
			}
		}
		return n.Load()
	}
	if one, four := fetch(1), fetch(4); one == 0 || four != one {
		t.Errorf("the packages are read %d times for four runs, and %d times for one; want the same", four, one)
	}
}
