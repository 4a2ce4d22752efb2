package pgp

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What gpg wrote: see testdata/make.sh.
func load(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func ring(t testing.TB) *Keyring {
	t.Helper()
	k, err := ReadKeyring(load(t, "key.asc"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestVerify(t *testing.T) {
	k, message := ring(t), load(t, "message")
	for _, name := range []string{"message.sign", "message.sig"} {
		sig := load(t, name)
		who, err := k.Verify(bytes.NewReader(message), sig)
		if want := "Test key <test@example.org>, " + k.Fingerprints()[0]; err != nil || who != want {
			t.Errorf("Verify with %s = %q, %v; want %q", name, who, err, want)
		}
		if who, err := k.Verify(bytes.NewReader(message[1:]), sig); !errors.Is(err, ErrBad) {
			t.Errorf("Verify of another message = %q, %v; want ErrBad", who, err)
		}
		if who, err := new(Keyring).Verify(bytes.NewReader(message), sig); !errors.Is(err, ErrUnknownKey) {
			t.Errorf("Verify without keys = %q, %v; want ErrUnknownKey", who, err)
		}
	}
	for _, sig := range []string{"", "nonsense", "-----BEGIN PGP SIGNATURE-----\n"} {
		if who, err := k.Verify(bytes.NewReader(message), []byte(sig)); err == nil {
			t.Errorf("Verify with %q = %q; want an error", sig, who)
		}
	}
}

func TestVerifyClear(t *testing.T) {
	k, message := ring(t), load(t, "message.asc")
	text, who, err := k.VerifyClear(message)
	// What is signed has neither blanks at the ends of lines nor the last line break.
	if want := "one line\n- a dash\nFrom the end"; err != nil || strings.TrimRight(string(text), " \n") != want || !strings.HasPrefix(who, "Test key") {
		t.Errorf("VerifyClear = %q, %q, %v; want %q", text, who, err, want)
	}
	before := append([]byte("not signed\n"), message...)
	if text, _, err := k.VerifyClear(before); err != nil || bytes.Contains(text, []byte("not signed")) {
		t.Errorf("VerifyClear with a line before = %q, %v; want only what is signed", text, err)
	}
	changed := bytes.Replace(message, []byte("one line"), []byte("two line"), 1)
	if text, _, err := k.VerifyClear(changed); !errors.Is(err, ErrBad) {
		t.Errorf("VerifyClear of a changed message = %q, %v; want ErrBad", text, err)
	}
	if text, _, err := k.VerifyClear(load(t, "message")); !errors.Is(err, ErrUnsigned) {
		t.Errorf("VerifyClear of an unsigned message = %q, %v; want ErrUnsigned", text, err)
	}
}

func TestReadKeyring(t *testing.T) {
	if k, err := ReadKeyring([]byte("no key")); err == nil {
		t.Errorf("ReadKeyring of no key = %v; want an error", k.Fingerprints())
	}
	two := append(load(t, "key.asc"), load(t, "key.asc")...)
	if k, err := ReadKeyring(two); err != nil || len(k.Fingerprints()) != 2 {
		t.Errorf("ReadKeyring of two blocks: %v, %v", k, err)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(load(f, "message.asc"), load(f, "message.sig"))
	f.Add(load(f, "message"), load(f, "message.sign"))
	k := ring(f)
	f.Fuzz(func(_ *testing.T, message, sig []byte) {
		_, _, _ = k.VerifyClear(message)
		_, _ = k.Verify(bytes.NewReader(message), sig)
		_ = Describe(sig, time.UTC)
	})
}

// Signatures of version 3 are described: the packet is that of RFC 4880, 5.2.2.
func TestDescribeV3(t *testing.T) {
	sig := []byte{0x88, 0x17, 3, 5, 0, 0x4a, 0xf0, 0x4b, 0x00, 0x19, 0x9e, 0x2f, 0x91, 0xfd, 0x43, 0x1d, 0x51, 1, 8, 0xab, 0xcd, 0, 8, 0xff, 0}
	const want = "RSA/SHA256, Tue Nov  3 15:23:44 2009, Key ID 199e2f91fd431d51"
	if got := Describe(sig, time.UTC); got != want {
		t.Errorf("Describe = %q; want %q", got, want)
	}
	for n := range sig {
		Describe(sig[:n], time.UTC)
	}
}

// Those of kinds that are not known cannot be verified, which does not make them wrong.
func TestVerifyUnknownKind(t *testing.T) {
	v3 := []byte{0x88, 0x17, 3, 5, 0, 0x4a, 0xf0, 0x4b, 0x00, 0x19, 0x9e, 0x2f, 0x91, 0xfd, 0x43, 0x1d, 0x51, 1, 8, 0xab, 0xcd, 0, 8, 0xff, 0}
	if _, err := ring(t).Verify(strings.NewReader("x"), v3); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("Verify of version 3 = %v; want ErrUnknownKey", err)
	}
}
