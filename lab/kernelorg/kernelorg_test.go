package kernelorg

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/google/go-cmp/cmp"

	"crashlab/internal/archivetest"
	"crashlab/internal/pgp"
	"crashlab/lab/blame"
	"crashlab/lab/fetch"
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

// mirror is a mirror with releases that a key of the test signed.
type mirror struct {
	*httptest.Server
	files map[string][]byte // by path
	asked []string
	drop  string // the path whose first answer breaks off in the middle
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.asked = append(m.asked, r.URL.Path)
	b, ok := m.files[r.URL.Path]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(b)))
	if m.drop == r.URL.Path {
		m.drop = ""
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		_, _ = w.Write(b[:len(b)/2])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}

type signer struct {
	key  *openpgp.Entity
	ring *pgp.Keyring
}

// signers are made once: keys take a second.
var signers = sync.OnceValue(func() map[string]signer {
	return map[string]signer{"sums": newSigner("sums"), "release": newSigner("release")}
})

func newSigner(name string) signer {
	e, err := openpgp.NewEntity(name, "", name+"@example.org", nil)
	if err != nil {
		panic(err)
	}
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err != nil {
		panic(err)
	}
	if err := errors.Join(e.Serialize(w), w.Close()); err != nil {
		panic(err)
	}
	ring, err := pgp.ReadKeyring(b.Bytes())
	if err != nil {
		panic(err)
	}
	return signer{e, ring}
}

func (s signer) detached(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&b, s.key, bytes.NewReader(data), nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (s signer) clear(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, s.key.PrivateKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// fixture is a mirror with Linux 6.1.5, 6.1.10 and 7.0, and the keys of the test.
type fixture struct {
	*mirror
	sums, release signer
	site          *Site
	tar, packed   []byte // of 6.1.10
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	m := &mirror{files: make(map[string][]byte)}
	m.Server = httptest.NewServer(m)
	t.Cleanup(m.Close)
	f := &fixture{mirror: m, sums: signers()["sums"], release: signers()["release"]}
	f.tar = archivetest.Tar(t,
		tar.Header{Name: "linux-6.1.10/", Typeflag: tar.TypeDir},
		tar.Header{Name: "linux-6.1.10/Makefile"},
		tar.Header{Name: "linux-6.1.10/scripts/run", Mode: 0o755},
		tar.Header{Name: "linux-6.1.10/link", Typeflag: tar.TypeSymlink, Linkname: "scripts/run"})
	f.put(t, f.tar)
	f.site = &Site{
		Mirrors: []string{m.URL}, Keys: Keys{f.sums.ring, f.release.ring}, Dir: t.TempDir(),
		Client: &fetch.Client{Stall: time.Second},
	}
	return f
}

// put makes data Linux 6.1.10, rightly signed.
func (f *fixture) put(t *testing.T, data []byte) {
	t.Helper()
	f.packed = archivetest.Compress(t, ".xz", data)
	f.files["/v6.x/linux-6.1.10.tar.xz"] = f.packed
	f.files["/v6.x/linux-6.1.10.tar.sign"] = f.release.detached(t, data)
	f.files["/v6.x/sha256sums.asc"] = f.sums.clear(t, fmt.Sprintf("%x  linux-6.1.10.tar.xz\n%064x  linux-6.1.5.tar.xz\n%064x  patch-6.1.5.xz\n%064x  ChangeLog-6.1\n",
		sha256.Sum256(f.packed), 1, 2, 3))
	f.files["/v7.x/sha256sums.asc"] = f.sums.clear(t, fmt.Sprintf("%064x  linux-7.0.tar.xz\n", 7))
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
	n := len(f.asked)
	if _, err := f.site.Find(t.Context(), "6.1"); err != nil || len(f.asked) != n {
		t.Errorf("Find again asks for %v, %v; want nothing within the hour", f.asked[n:], err)
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
	f.drop = "/v6.x/linux-6.1.10.tar.xz"
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
	n := len(f.asked)
	if _, err := f.get(t); err != nil || slices.Contains(f.asked[n:], "/v6.x/linux-6.1.10.tar.xz") {
		t.Errorf("unpacking again: %v, asked for %v; want not the archive", err, f.asked[n:])
	}
}

func TestUnpackRefuses(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, f *fixture)
		want  error
		text  string
	}{
		{"sums signed by another", func(t *testing.T, f *fixture) { f.site.Keys.Sums = f.release.ring }, pgp.ErrUnknownKey, ""},
		{"sums changed", func(t *testing.T, f *fixture) {
			b := f.files["/v6.x/sha256sums.asc"]
			f.files["/v6.x/sha256sums.asc"] = bytes.Replace(b, []byte("linux-6.1.5"), []byte("linux-6.1.6"), 1)
		}, pgp.ErrBad, ""},
		{"sums unsigned", func(t *testing.T, f *fixture) {
			f.files["/v6.x/sha256sums.asc"] = fmt.Appendf(nil, "%064x  linux-6.1.10.tar.xz\n", 1)
		}, pgp.ErrUnsigned, ""},
		{"other archive", func(t *testing.T, f *fixture) {
			f.files["/v6.x/linux-6.1.10.tar.xz"] = archivetest.Compress(t, ".xz", f.tar[:512])
		}, nil, "and should have"},
		{"archive cut", func(t *testing.T, f *fixture) {
			f.files["/v6.x/linux-6.1.10.tar.xz"] = f.packed[:len(f.packed)/2]
		}, nil, "and should have"},
		{"archive signed by another", func(t *testing.T, f *fixture) { f.site.Keys.Releases = f.sums.ring }, pgp.ErrUnknownKey, ""},
		{"signature of another archive", func(t *testing.T, f *fixture) {
			f.files["/v6.x/linux-6.1.10.tar.sign"] = f.release.detached(t, f.tar[:512])
		}, pgp.ErrBad, ""},
		{"signature is no signature", func(t *testing.T, f *fixture) {
			f.files["/v6.x/linux-6.1.10.tar.sign"] = []byte("<html>")
		}, pgp.ErrBad, ""},
		{"signature is missing", func(t *testing.T, f *fixture) { delete(f.files, "/v6.x/linux-6.1.10.tar.sign") }, fetch.ErrNotFound, ""},
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
	bad.files = map[string][]byte{
		"/v6.x/sha256sums.asc":      bad.files["/v6.x/sha256sums.asc"],
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
