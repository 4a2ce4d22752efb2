package dump

import (
	"bytes"
	"testing"

	"github.com/anchore/go-lzo"
)

// lzoSeeds are streams with each kind of instruction.
var lzoSeeds = [][]byte{
	{0x11, 0, 0},
	{18, 'a', 0x11, 0, 0},
	{21, 'a', 'b', 'c', 'd', 0x11, 0, 0},
	{2, 'a', 'b', 'c', 'd', 'e', 0x11, 0, 0}, // literals
	{0, 1, 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r', 's', 0x11, 0, 0}, // many
	{19, 'a', 'b', 0x20, 100, 0, 0, 0x11, 0, 0},            // a long match from 1 before
	{19, 'a', 'b', 0x20, 100, 4, 0, 0x11, 0, 0},            // and from 2 before
	{20, 'a', 'b', 'c', 0x04, 0, 0x11, 0, 0},               // two bytes
	{20, 'a', 'b', 'c', 0x64, 0, 0xe9, 0, 'x', 0x11, 0, 0}, // three to eight, and a literal
	{20, 'a', 'b', 'c', 0x22, 2<<2 | 1, 0, 'x', 0x05, 0, 'y', 0x11, 0, 0},
}

func TestUnpackLZO(t *testing.T) {
	for _, src := range lzoSeeds {
		compareLZO(t, src, 4096)
	}
	// By hand: "ab", then 33 plus 100 bytes from 2 before.
	dst := make([]byte, 4096)
	n, err := unpackLZO(dst, lzoSeeds[6])
	if want := bytes.Repeat([]byte("ab"), 68)[:2+2+31+100]; err != nil || !bytes.Equal(dst[:n], want) {
		t.Errorf("unpackLZO = %q, %v; want %q", dst[:n], err, want)
	}
}

// compareLZO holds the decoder against another one, which is not ours.
func compareLZO(t *testing.T, src []byte, size int) {
	t.Helper()
	got, want := make([]byte, size), make([]byte, size)
	n, err := unpackLZO(got, src)
	m, werr := lzo.Decompress(src, want)
	if err == nil && werr == nil && (n != m || !bytes.Equal(got[:n], want[:m])) {
		t.Errorf("%x: unpackLZO = %d, %x; want %d, %x", src, n, got[:n], m, want[:m])
	}
	if werr == nil && err != nil {
		t.Errorf("%x: unpackLZO: %v; want %d bytes", src, err, m)
	}
}

// FuzzLZO sees that what both decoders take they understand alike.
func FuzzLZO(f *testing.F) {
	for _, src := range lzoSeeds {
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		got, want := make([]byte, 4096), make([]byte, 4096)
		n, err := unpackLZO(got, src)
		if m, werr := lzo.Decompress(src, want); err == nil && werr == nil && (n != m || !bytes.Equal(got[:n], want[:m])) {
			t.Errorf("unpackLZO = %d, %x; want %d, %x", n, got[:n], m, want[:m])
		}
	})
}
