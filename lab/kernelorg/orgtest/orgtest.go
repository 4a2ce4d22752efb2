// Package orgtest serves releases of Linux for tests, as kernel.org does, signed
// with keys of its own.
package orgtest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"

	"crashlab/internal/archivetest"
	"crashlab/internal/pgp"
)

// Mirror is a server of releases.
type Mirror struct {
	*httptest.Server
	Files map[string][]byte // by path

	Sums, Release Signer

	mu    sync.Mutex
	asked []string
	drop  string
}

// New returns a Mirror without files, which is closed at the end of the test.
func New(t testing.TB) *Mirror {
	t.Helper()
	m := &Mirror{Files: make(map[string][]byte), Sums: signers()["sums"], Release: signers()["release"]}
	m.Server = httptest.NewServer(m)
	t.Cleanup(m.Close)
	return m
}

// Asked returns the requests so far: "PATH", or "PATH RANGE".
func (m *Mirror) Asked() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.asked)
}

// Drop makes the next answer for path break off in the middle.
func (m *Mirror) Drop(path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop = path
}

// ServeHTTP answers a request for one of Files.
func (m *Mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	m.asked = append(m.asked, strings.TrimSpace(r.URL.Path+" "+r.Header.Get("Range")))
	drop := m.drop == r.URL.Path
	if drop {
		m.drop = ""
	}
	m.mu.Unlock()
	b, ok := m.Files[r.URL.Path]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(b)))
	if drop {
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		_, _ = w.Write(b[:len(b)/2])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}

// Put makes tar the archive of a release, rightly signed, and the only one in the
// list of its major version besides the lines of others. It returns the compressed archive.
func (m *Mirror) Put(t testing.TB, version string, tar []byte, others ...string) []byte {
	t.Helper()
	packed := archivetest.Compress(t, ".xz", tar)
	major, _, _ := strings.Cut(version, ".")
	dir := "/v" + major + ".x/"
	m.Files[dir+"linux-"+version+".tar.xz"] = packed
	m.Files[dir+"linux-"+version+".tar.sign"] = m.Release.Detached(t, tar)
	lines := append([]string{fmt.Sprintf("%x  linux-%s.tar.xz\n", sha256.Sum256(packed), version)}, others...)
	m.Files[dir+"sha256sums.asc"] = m.Sums.Clear(t, strings.Join(lines, ""))
	return packed
}

// Signer signs.
type Signer struct {
	key    *openpgp.Entity
	Ring   *pgp.Keyring // its public key
	Public []byte       // the same, armored
}

// signers are made once: keys take a second.
var signers = sync.OnceValue(func() map[string]Signer {
	return map[string]Signer{"sums": newSigner("sums"), "release": newSigner("release")}
})

func newSigner(name string) Signer {
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
	return Signer{e, ring, b.Bytes()}
}

// Detached returns an armored signature of data.
func (s Signer) Detached(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&b, s.key, bytes.NewReader(data), nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Clear returns text clear-signed.
func (s Signer) Clear(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, s.key.PrivateKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write([]byte(text))
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Binary returns a signature of data that is not armored.
func (s Signer) Binary(data []byte) ([]byte, error) {
	var b bytes.Buffer
	err := openpgp.DetachSign(&b, s.key, bytes.NewReader(data), nil)
	return b.Bytes(), err
}
