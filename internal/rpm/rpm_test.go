package rpm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crashlab/internal/pgp"
	"crashlab/internal/unpack"
)

// The payloads that testdata/make.sh makes packages with.
var payloads = []string{"gzip", "bzip2", "xz", "lzma", "zstd", "none"}

func load(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func open(t testing.TB, b []byte) *Package {
	t.Helper()
	p, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What rpm -qip and rpm -qlp print, byte for byte.
func TestInfoAsRPM(t *testing.T) {
	for _, name := range append([]string{"signed", "nothing"}, payloads...) {
		p := open(t, load(t, name+".rpm"))
		var info, files bytes.Buffer
		if err := errors.Join(p.WriteInfo(&info, time.UTC, pgp.Describe), p.WriteFiles(&files)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(load(t, name+".info")), info.String()); diff != "" {
			t.Errorf("%s (-rpm -qip +WriteInfo):\n%s", name, diff)
		}
		if diff := cmp.Diff(string(load(t, name+".files")), files.String()); diff != "" {
			t.Errorf("%s (-rpm -qlp +WriteFiles):\n%s", name, diff)
		}
	}
}

// The files are those that the spec in make.sh makes.
func TestUnpack(t *testing.T) {
	module := fmt.Sprintf("module %0500d\n", 7)
	want := map[string]string{
		"boot/vmlinuz-6.1.0":                  "-rw-r--r-- 2023-11-14 vmlinuz\n",
		"lib/modules/6.1.0/kernel/fs/demo.ko": "-rw-r--r-- 2023-11-14 " + module,
		"lib/modules/6.1.0/kernel/fs/same.ko": "-rw-r--r-- 2023-11-14 " + module,
		"lib/modules/6.1.0/kernel/again.ko":   "-rw-r--r-- 2023-11-14 " + module,
		"lib/modules/6.1.0/kernel/empty1":     "-rw-r--r-- 2023-11-14 ",
		"lib/modules/6.1.0/kernel/empty2":     "-rw-r--r-- 2023-11-14 ",
		"lib/modules/6.1.0/kernel/link":       "-> ../../../../boot/vmlinuz-6.1.0",
		"lib/modules/6.1.0/kernel/absolute":   "-> ../../../../boot/vmlinuz-6.1.0",
		"usr/bin/demo":                        "-rwxr-xr-x 2020-02-03 #!/bin/sh\n",
	}
	for _, name := range payloads {
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		tree := &unpack.Tree{Root: root}
		p := open(t, load(t, name+".rpm"))
		if err := errors.Join(p.Unpack(t.Context(), tree), tree.Close()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		root.Close()
		got := make(map[string]string)
		err = filepath.WalkDir(dir, func(path string, de fs.DirEntry, err error) error {
			if err != nil || de.IsDir() {
				return err
			}
			rel, _ := filepath.Rel(dir, path)
			if de.Type() == fs.ModeSymlink {
				target, err := os.Readlink(path)
				got[rel] = "-> " + target
				return err
			}
			fi, err := de.Info()
			if err != nil {
				return err
			}
			b, err := os.ReadFile(path)
			// The owner may always write.
			got[rel] = fmt.Sprintf("%v %s %s", fi.Mode()&^0o022, fi.ModTime().UTC().Format(time.DateOnly), b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		a, _ := os.Stat(filepath.Join(dir, "lib/modules/6.1.0/kernel/again.ko"))
		b, _ := os.Stat(filepath.Join(dir, "lib/modules/6.1.0/kernel/fs/demo.ko"))
		if !os.SameFile(a, b) {
			t.Errorf("%s: the hard link is a file of its own", name)
		}
	}
}

func TestFind(t *testing.T) {
	b := load(t, "xz.rpm")
	got := ""
	find := func(suffix string) error {
		return Find(t.Context(), bytes.NewReader(b), int64(len(b)), func(p string) bool { return strings.HasSuffix(p, suffix) },
			func(e unpack.Entry, r io.Reader) error {
				content, err := io.ReadAll(r)
				got = fmt.Sprintf("%s %d %s", e.Path, e.Size, content)
				return err
			})
	}
	if err := find("/vmlinuz-6.1.0"); err != nil || got != "boot/vmlinuz-6.1.0 8 vmlinuz\n" {
		t.Errorf("Find = %q, %v", got, err)
	}
	if err := find("/vmlinux"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Find of what is not there: %v; want ErrNotFound", err)
	}
	if err := find("/link"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Find of a link: %v; want ErrNotFound", err)
	}
}

func TestVerify(t *testing.T) {
	want := []string{"header SHA1", "header SHA256", "payload SHA256", "MD5"}
	for _, name := range append([]string{"signed", "nothing"}, payloads...) {
		got, err := open(t, load(t, name+".rpm")).Verify(t.Context())
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("Verify of %s: %v (-want +got):\n%s", name, err, diff)
		}
	}
}

// Whichever byte of header or payload is changed, some digest tells.
func TestVerifyDamaged(t *testing.T) {
	whole := load(t, "zstd.rpm")
	p := open(t, whole)
	for at := p.header; at < p.size; at += 7 {
		bad := slices.Clone(whole)
		bad[at] ^= 4
		q, err := Open(bytes.NewReader(bad), int64(len(bad)))
		if err != nil {
			continue
		}
		if _, err := q.Verify(t.Context()); !errors.Is(err, ErrDamaged) && !strings.Contains(fmt.Sprint(err), "unknown kind") {
			t.Errorf("byte %d changed: Verify = %v; want ErrDamaged", at, err)
		}
	}
	for _, n := range []int64{p.size - 1, p.header2 + 1, p.header2} {
		q := open(t, whole[:n])
		if _, err := q.Verify(t.Context()); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "cut short") {
			t.Errorf("Verify of the first %d of %d bytes: %v; want that it is cut short", n, p.size, err)
		}
	}
	if _, err := open(t, append(slices.Clone(whole), 0)).Verify(t.Context()); !errors.Is(err, ErrDamaged) {
		t.Errorf("Verify with a byte behind: %v; want ErrDamaged", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Verify(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Verify = %v; want context.Canceled", err)
	}
}

// A package is signed by the key that signed it, and by no other.
func TestSignatures(t *testing.T) {
	keys, err := pgp.ReadKeyring(load(t, "key.asc"))
	if err != nil {
		t.Fatal(err)
	}
	whole := load(t, "signed.rpm")
	p := open(t, whole)
	if len(p.Signatures()) == 0 {
		t.Fatal("the signed package has no signature")
	}
	for _, s := range p.Signatures() {
		if who, err := keys.Verify(p.Signed(s), s.Packet); err != nil || !strings.HasPrefix(who, "Test key <") {
			t.Errorf("signature over %s = %q, %v; want that of Test key", s.Over, who, err)
		}
		bad := slices.Clone(whole)
		bad[p.header2-1] ^= 1
		if _, err := keys.Verify(open(t, bad).Signed(s), s.Packet); !errors.Is(err, pgp.ErrBad) {
			t.Errorf("signature over a changed %s: %v; want ErrBad", s.Over, err)
		}
		if _, err := new(pgp.Keyring).Verify(p.Signed(s), s.Packet); !errors.Is(err, pgp.ErrUnknownKey) {
			t.Errorf("signature with an empty keyring: %v; want ErrUnknownKey", err)
		}
	}
	if got := open(t, load(t, "gzip.rpm")).Signatures(); len(got) != 0 {
		t.Errorf("signatures of the unsigned package: %v", got)
	}
}

func TestRefuses(t *testing.T) {
	whole := load(t, "none.rpm")
	p := open(t, whole)
	edit := func(f func(b []byte) []byte) []byte { return f(slices.Clone(whole)) }
	payload := func(data string) []byte { return append(slices.Clone(whole[:p.header2]), data...) }
	tests := []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "not an RPM"},
		{"a page of HTML", []byte(strings.Repeat("<html>404</html>", 20)), "not an RPM"},
		{"only the lead", whole[:96], "signatures: unexpected EOF"},
		{"cut in the header", whole[:p.header+100], "header: cut short"},
		{"no payload", whole[:p.header2], "no payload"},
		{"cut in the payload", whole[:p.size-200], "unexpected EOF"},
		{"count of entries", edit(func(b []byte) []byte { binary.BigEndian.PutUint32(b[p.header+8:], 1<<31); return b }), "header: damaged"},
		{"count of values", edit(func(b []byte) []byte { binary.BigEndian.PutUint32(b[p.header+16+12:], 1<<31); return b }), "header: damaged"},
		{"offset of values", edit(func(b []byte) []byte { binary.BigEndian.PutUint32(b[p.header+16+8:], 1<<31); return b }), "header: damaged"},
		{"stripped archive", payload("07070X00000000\x00\x00"), "4 GiB or more"},
		{"no archive", payload(strings.Repeat("x", 200)), "payload"},
		{"negative size", payload("07070100000001000081A4000000000000000000000001000000000000-00100000000000000000000000000000000000000000020000000000a\x00\x00\x00"), "payload"},
	}
	for _, tt := range tests {
		p, err := Open(bytes.NewReader(tt.file), int64(len(tt.file)))
		if err == nil {
			err = p.Walk(t.Context(), func(_ unpack.Entry, r io.Reader) error { _, err := io.Copy(io.Discard, r); return err })
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
}

func FuzzOpen(f *testing.F) {
	for _, name := range append([]string{"signed", "nothing"}, payloads...) {
		f.Add(load(f, name+".rpm"))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		p, err := Open(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			return
		}
		_, _ = p.Verify(t.Context())
		_ = p.WriteInfo(io.Discard, time.UTC, pgp.Describe)
		_ = p.WriteFiles(io.Discard)
		for _, s := range p.Signatures() {
			if _, err := io.Copy(io.Discard, p.Signed(s)); err != nil {
				t.Errorf("what the signature is over: %v", err)
			}
		}
		walk(t, p.Walk)
	})
}

// FuzzPayload finds what the compression hides from FuzzOpen.
func FuzzPayload(f *testing.F) {
	p := open(f, load(f, "none.rpm"))
	f.Add(load(f, "none.rpm")[p.header2:])
	f.Fuzz(func(t *testing.T, archive []byte) {
		walk(t, func(_ context.Context, fn func(unpack.Entry, io.Reader) error) error {
			return walkCPIO(bytes.NewReader(archive), fn)
		})
	})
}

// walk reads all files, which have the sizes that they are said to have.
func walk(t *testing.T, walk func(context.Context, func(unpack.Entry, io.Reader) error) error) {
	const most = 1 << 20 // a few bytes may decompress to gigabytes
	_ = walk(t.Context(), func(e unpack.Entry, r io.Reader) error {
		n, err := io.Copy(io.Discard, io.LimitReader(r, most))
		switch {
		case n == most:
			return unpack.ErrStop
		case err == nil && n != e.Size:
			t.Errorf("%s has %d bytes and says %d", e.Path, n, e.Size)
		}
		return err
	})
}
