package kernelorg

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crashlab/internal/archivetest"
	"crashlab/internal/pgp"
	"crashlab/lab/blame"
	"crashlab/lab/fetch"
	"crashlab/lab/kernelorg/orgtest"
)

func TestPinnedKeys(t *testing.T) {
	k, err := PinnedKeys()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{autosigner}, k.Sums.Fingerprints()); diff != "" {
		t.Errorf("keys of the sums (-want +got):\n%s", diff)
	}
	want := []string{gregKH, torvalds, sashaLevin, benHutchings}
	got := k.Releases.Fingerprints()
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys of the releases (-want +got):\n%s", diff)
	}
}

// fixture is a mirror with Linux 6.1.5, 6.1.10 and 7.0, and the keys of the test.
type fixture struct {
	*orgtest.Mirror
	site        *Site
	tar, packed []byte // of 6.1.10
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{Mirror: orgtest.New(t)}
	f.tar = archivetest.Tar(t,
		tar.Header{Name: "linux-6.1.10/", Typeflag: tar.TypeDir},
		tar.Header{Name: "linux-6.1.10/Makefile"},
		tar.Header{Name: "linux-6.1.10/scripts/run", Mode: 0o755},
		tar.Header{Name: "linux-6.1.10/link", Typeflag: tar.TypeSymlink, Linkname: "scripts/run"})
	f.put(t, f.tar)
	f.site = &Site{
		Mirrors: []string{f.URL}, Keys: Keys{f.Sums.Ring, f.Release.Ring}, Dir: t.TempDir(),
		Client: &fetch.Client{Stall: time.Second},
	}
	return f
}

// put makes data Linux 6.1.10, rightly signed.
func (f *fixture) put(t *testing.T, data []byte) {
	t.Helper()
	f.packed = f.Put(t, "6.1.10", data, fmt.Sprintf("%064x  linux-6.1.5.tar.xz\n%064x  patch-6.1.5.xz\n%064x  ChangeLog-6.1\n", 1, 2, 3))
	f.Files["/v7.x/sha256sums.asc"] = f.Sums.Clear(t, fmt.Sprintf("%064x  linux-7.0.tar.xz\n", 7))
}

// get finds and unpacks 6.1.
func (f *fixture) get(t *testing.T) (dir string, err error) {
	t.Helper()
	rel, err := f.site.Find(t.Context(), "6.1")
	if err != nil {
		return "", err
	}
	dir = t.TempDir()
	return dir, f.site.Unpack(t.Context(), rel, dir)
}

func TestFind(t *testing.T) {
	f := newFixture(t)
	for want, got := range map[string]Version{"6.1": "6.1.10", "6.1.5": "6.1.5", "7.0": "7.0", "": "7.0"} {
		if rel, err := f.site.Find(t.Context(), want); err != nil || rel.Version != got {
			t.Errorf("Find(%q) = %v, %v; want %s", want, rel, err, got)
		}
	}
	n := len(f.Asked())
	if _, err := f.site.Find(t.Context(), "6.1"); err != nil || len(f.Asked()) != n {
		t.Errorf("Find again asks for %v, %v; want nothing within the hour", f.Asked()[n:], err)
	}
	for want, party := range map[string]blame.Party{"6.99": blame.Usage, "6.1.11": blame.Usage, "../6": blame.Usage, "9.1": blame.Infrastructure} {
		if rel, err := f.site.Find(t.Context(), want); err == nil || blame.Of(err).Party != party {
			t.Errorf("Find(%q) = %v, %v; want the fault of %v", want, rel, err, party)
		}
	}
}

func TestUnpack(t *testing.T) {
	f := newFixture(t)
	var logged []string
	f.site.Log = func(format string, a ...any) { logged = append(logged, fmt.Sprintf(format, a...)) }
	f.Drop("/v6.x/linux-6.1.10.tar.xz")
	dir, err := f.get(t)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "Makefile")); err != nil || string(got) != "content of linux-6.1.10/Makefile" {
		t.Errorf("Makefile = %q, %v", got, err)
	}
	if fi, err := os.Stat(filepath.Join(dir, "link")); err != nil || fi.Mode()&0o100 == 0 {
		t.Errorf("the program behind the link: %v, %v", fi, err)
	}
	if len(logged) != 2 || !strings.Contains(logged[1], "release") {
		t.Errorf("logged %q; want who signed both", logged)
	}
	n := len(f.Asked())
	if _, err := f.get(t); err != nil || slices.Contains(f.Asked()[n:], "/v6.x/linux-6.1.10.tar.xz") {
		t.Errorf("unpacking again: %v, asked for %v; want not the archive", err, f.Asked()[n:])
	}
}

func TestUnpackRefuses(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, f *fixture)
		want  error
		text  string
	}{
		{"sums signed by another", func(t *testing.T, f *fixture) { f.site.Keys.Sums = f.Release.Ring }, pgp.ErrUnknownKey, ""},
		{"sums changed", func(t *testing.T, f *fixture) {
			b := f.Files["/v6.x/sha256sums.asc"]
			f.Files["/v6.x/sha256sums.asc"] = bytes.Replace(b, []byte("linux-6.1.5"), []byte("linux-6.1.6"), 1)
		}, pgp.ErrBad, ""},
		{"sums of one mirror signed by another, the next is down", func(t *testing.T, f *fixture) {
			f.site.Keys.Sums = f.Release.Ring
			f.site.Mirrors = append(f.site.Mirrors, "http://127.0.0.1:1")
		}, pgp.ErrUnknownKey, ""},
		{"sums unsigned", func(t *testing.T, f *fixture) {
			f.Files["/v6.x/sha256sums.asc"] = fmt.Appendf(nil, "%064x  linux-6.1.10.tar.xz\n", 1)
		}, pgp.ErrUnsigned, ""},
		{"other archive", func(t *testing.T, f *fixture) {
			f.Files["/v6.x/linux-6.1.10.tar.xz"] = archivetest.Compress(t, ".xz", f.tar[:512])
		}, nil, "and should have"},
		{"archive cut", func(t *testing.T, f *fixture) {
			f.Files["/v6.x/linux-6.1.10.tar.xz"] = f.packed[:len(f.packed)/2]
		}, nil, "and should have"},
		{"archive signed by another", func(t *testing.T, f *fixture) { f.site.Keys.Releases = f.Sums.Ring }, pgp.ErrUnknownKey, ""},
		{"signature of another archive", func(t *testing.T, f *fixture) {
			f.Files["/v6.x/linux-6.1.10.tar.sign"] = f.Release.Detached(t, f.tar[:512])
		}, pgp.ErrBad, ""},
		{"signature is no signature", func(t *testing.T, f *fixture) {
			f.Files["/v6.x/linux-6.1.10.tar.sign"] = []byte("<html>")
		}, pgp.ErrBad, ""},
		{"signature is missing", func(t *testing.T, f *fixture) { delete(f.Files, "/v6.x/linux-6.1.10.tar.sign") }, fetch.ErrNotFound, ""},
		{"signed archive leads out", func(t *testing.T, f *fixture) {
			f.put(t, archivetest.Tar(t, tar.Header{Name: "linux/../../evil"}))
		}, nil, "outside of the archive"},
		{"signed archive is damaged", func(t *testing.T, f *fixture) { f.put(t, f.tar[:len(f.tar)-1100]) }, nil, "EOF"},
		{"no mirror answers", func(t *testing.T, f *fixture) { f.Close() }, ErrUnreachable, ""},
		{"no mirror is set", func(t *testing.T, f *fixture) { f.site.Mirrors = nil }, ErrUnreachable, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			tt.spoil(t, f)
			_, err := f.get(t)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("get = %v; want %v %s", err, tt.want, tt.text)
			}
			if unreachable := strings.HasPrefix(tt.name, "no mirror") || tt.want == pgp.ErrUnsigned; errors.Is(err, ErrUnreachable) != unreachable {
				t.Errorf("get = %v; want ErrUnreachable %t", err, unreachable)
			}
			if got := blame.Of(err).Party; got != blame.Infrastructure {
				t.Errorf("get blames %v; want infrastructure", got)
			}
		})
	}
}

// A mirror that has something else than it should is passed over.
func TestMirrors(t *testing.T) {
	f := newFixture(t)
	bad := newFixture(t)
	bad.Files = map[string][]byte{
		"/v6.x/sha256sums.asc":      bad.Files["/v6.x/sha256sums.asc"],
		"/v6.x/linux-6.1.10.tar.xz": bad.packed[:100],
	}
	f.site.Mirrors = []string{bad.URL, f.URL}
	dir, err := f.get(t)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "Makefile")); err != nil {
		t.Error(err)
	}
}

// Once it was there, a release is unpacked without the network.
func TestOffline(t *testing.T) {
	f := newFixture(t)
	if _, err := f.get(t); err != nil {
		t.Fatal(err)
	}
	f.Close()
	yesterday := time.Now().Add(-24 * time.Hour)
	if err := os.Chtimes(filepath.Join(f.site.Dir, "v6.x-sha256sums.asc"), yesterday, yesterday); err != nil {
		t.Fatal(err)
	}
	if dir, err := f.get(t); err != nil {
		t.Error(err)
	} else if _, err := os.Stat(filepath.Join(dir, "Makefile")); err != nil {
		t.Error(err)
	}
}

func TestUnpackCancelled(t *testing.T) {
	f := newFixture(t)
	rel, err := f.site.Find(t.Context(), "6.1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f.site.Progress = func(string, int64, int64) { cancel() }
	if err := f.site.Unpack(ctx, rel, t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("Unpack = %v; want context.Canceled", err)
	}
	f.site.Progress = nil
	if err := f.site.Unpack(t.Context(), rel, t.TempDir()); err != nil {
		t.Errorf("Unpack after that: %v", err)
	}
}

func FuzzParseSums(f *testing.F) {
	f.Add(fmt.Appendf(nil, "%064x  linux-6.1.10.tar.xz\n%064x *linux-6.1.tar.xz\n", 1, 2))
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		sums, err := parseSums(text)
		if err != nil {
			return
		}
		for v, sum := range sums {
			if !versionForm.MatchString(string(v)) || len(sum) != 64 || v.major() == 0 {
				t.Errorf("parseSums has %q: %q", v, sum)
			}
		}
	})
}
