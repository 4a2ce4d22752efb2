package debuginfo

import (
	"archive/tar"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"crashlab/crashkit"
	"crashlab/crashkit/ctype"
	"crashlab/crashkit/internal/fixture"
	"crashlab/internal/archivetest"
)

const (
	fixtureID      = "3b43fad5034874490492495d552c0af6a5fab235" // as file(1) prints it for the kernel's vmlinux
	fixtureRelease = "6.1.0-56-cloud-amd64"
	virtioID       = "bc8f0c86e2f2f261ea820d8c1f17de705b81d772" // as readelf -n prints it for virtio_blk.ko
)

// debPackage writes a package of Debian with these files, content by name.
func debPackage(t *testing.T, path string, files map[string]string) string {
	t.Helper()
	headers := []tar.Header{{Name: "./usr/", Typeflag: tar.TypeDir}}
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range files {
			if !yield(name) {
				return
			}
		}
	}) {
		headers = append(headers, tar.Header{Name: "./" + name, PAXRecords: map[string]string{"test.content": files[name]}})
	}
	b := archivetest.Deb("data.tar.zst", archivetest.Compress(t, ".zst", archivetest.Tar(t, headers...)))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// source returns the debug information of the fixture's kernel, with a cache and a
// system of its own.
func source(t *testing.T, p *crashkit.Program, dump, vmlinux string, said *[]string) *Source {
	t.Helper()
	s := New(p, dump, vmlinux, func(text string) { *said = append(*said, text) })
	s.root, s.cacheDir = t.TempDir(), filepath.Join(t.TempDir(), "cache")
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func readFixture(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(fixture.Path(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPackages(t *testing.T) {
	p := fixture.Open(t)
	kernel := readFixture(t, fixture.VMLinux)
	other := string(readTest(t, "inline-dwarf5"))
	dir := t.TempDir()
	packed := filepath.Join(dir, "vmlinux.xz")
	if err := os.WriteFile(packed, archivetest.Compress(t, ".xz", readTest(t, "inline-dwarf5")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, pack string
		want       []string // in the error; nil if there is none
	}{
		{"deb", debPackage(t, filepath.Join(dir, "good.deb"), map[string]string{
			"usr/lib/debug/boot/System.map-" + fixtureRelease: "nothing",
			"usr/lib/debug/boot/vmlinux-" + fixtureRelease:    kernel,
		}), nil},
		{"deb by build ID", debPackage(t, filepath.Join(dir, "id.deb"), map[string]string{
			"usr/lib/debug/.build-id/3b/" + fixtureID[2:] + ".debug": kernel,
		}), nil},
		{"rpm", "testdata/kernel-debuginfo.rpm", nil},
		{"another build", debPackage(t, filepath.Join(dir, "other.deb"), map[string]string{
			"usr/lib/debug/boot/vmlinux-" + fixtureRelease: other,
		}), []string{"0102030405060708090a0b0c0d0e0f1011121314", fixtureID}},
		{"another release", debPackage(t, filepath.Join(dir, "release.deb"), map[string]string{
			"usr/lib/debug/boot/vmlinux-6.1.0-55-cloud-amd64": other,
		}), []string{fixtureRelease, fixtureID}},
		{"compressed, another build", packed, []string{"0102030405060708090a0b0c0d0e0f1011121314", fixtureID}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var said []string
			s := source(t, p, fixture.Path(t, fixture.NullDeref), c.pack, &said)
			err := s.Check()
			cache, _ := filepath.Glob(filepath.Join(s.cacheDir, "*"))
			if c.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				if want := filepath.Join(s.cacheDir, fixtureID+".debug"); len(cache) != 1 || cache[0] != want {
					t.Errorf("the cache has %q; want %s alone", cache, want)
				}
				if len(said) != 1 || !strings.Contains(said[0], c.pack) {
					t.Errorf("said %q; want that %s is unpacked, once", said, c.pack)
				}
				again := source(t, p, fixture.Path(t, fixture.NullDeref), "", &said)
				again.cacheDir = s.cacheDir
				if err := again.Check(); err != nil || len(said) != 1 {
					t.Errorf("from the cache: %v, said %q; want the file that was unpacked", err, said)
				}
				return
			}
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("Check() = %v; want an error with %s", err, want)
				}
			}
			if len(cache) != 0 {
				t.Errorf("the cache has %q; want nothing", cache)
			}
		})
	}
}

// A package beside the dump is found by its name, but only looked into when it is asked.
func TestPackageBesideDump(t *testing.T) {
	p := fixture.Open(t)
	dir := t.TempDir()
	debPackage(t, filepath.Join(dir, "linux-image-"+fixtureRelease+"-dbg_6.1_amd64.deb"), map[string]string{
		"usr/lib/debug/boot/vmlinux-" + fixtureRelease: readFixture(t, fixture.VMLinux),
	})
	var said []string
	s := source(t, p, filepath.Join(dir, "vmcore"), "", &said)
	if err := s.Close(); err != nil || len(said) != 0 {
		t.Fatalf("Close() = %v, said %q; want nothing", err, said)
	}
	start, ok := p.Symbol("do_init_module")
	if !ok {
		t.Fatal("no symbol do_init_module")
	}
	places, err := s.Places(start.Addr)
	if err != nil || len(places) != 1 || places[0].File != "kernel/module/main.c" {
		t.Errorf("Places(do_init_module) = %+v, %v; want kernel/module/main.c", places, err)
	}
	p.SetTypes(ctype.Empty())
	if err := s.SupplyTypes(); err != nil || len(said) != 1 {
		t.Errorf("SupplyTypes() = %v, said %q; want one unpacking in all", err, said)
	}
}

// Modules are unpacked from a package in one go, by name and build ID.
func TestPackageModules(t *testing.T) {
	var said []string
	s := source(t, fixture.Open(t), fixture.Path(t, fixture.NullDeref), "", &said)
	dir := "usr/lib/debug/lib/modules/" + fixtureRelease + "/kernel/drivers/block/"
	pack := debPackage(t, filepath.Join(t.TempDir(), "modules.deb"), map[string]string{
		dir + "virtio-blk.ko.debug": string(readTest(t, "virtio_blk.ko")),
		dir + "other.ko":            string(readTest(t, "inline-dwarf5")),
	})
	ids := map[string]string{dir + "virtio-blk.ko.debug": virtioID, dir + "other.ko": "00" + virtioID[2:]}
	err := s.unpackFiles(pack, len(ids), func(name string) string { return ids[name] })
	if err == nil || !strings.Contains(err.Error(), ids[dir+"other.ko"]) {
		t.Errorf("unpackFiles() = %v; want an error about other.ko", err)
	}
	path, ok, err := s.moduleFrom(pack, virtioID)
	if err != nil || !ok {
		t.Fatalf("moduleFrom() = %s, %v, %v; want the file in the cache", path, ok, err)
	}
	f, err := OpenModule(path, func(string) (uint64, bool) { return 0xffffffffc0000000, true })
	if err != nil || !f.Any() || f.BuildID != virtioID {
		t.Errorf("OpenModule(%s) = %+v, %v; want virtio_blk", path, f, err)
	}
	if err == nil {
		f.Close()
	}
}
