package dump

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/anchore/go-lzo"
)

// lzoInputs are pages of all sorts: kernel-like, of one byte, of noise, with
// matches of all distances and lengths.
func lzoInputs() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, lzoMaxInput)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	text := bytes.Repeat([]byte("struct task_struct *next; "), 2000)
	far := append(append(bytes.Clone(noise[:100]), bytes.Repeat([]byte{0}, 40000)...), noise[:100]...)
	in := map[string][]byte{
		"empty": nil, "zeroes": make([]byte, 4096), "noise": noise, "text": text[:4096], "long text": text, "far": far,
	}
	var mixed []byte
	for len(mixed) < lzoMaxInput-600 {
		n := 1 + r.IntN(300)
		if from := r.IntN(len(mixed) + 1); r.IntN(2) == 0 && from+n <= len(mixed) {
			mixed = append(mixed, mixed[from:from+n]...)
			continue
		}
		mixed = append(mixed, noise[n:2*n]...)
	}
	in["mixed"] = mixed
	return in
}

// unpackLZOElsewhere decompresses with a decompressor that is not ours.
func unpackLZOElsewhere(t testing.TB, packed []byte, size int) []byte {
	t.Helper()
	out := make([]byte, size)
	n, err := lzo.Decompress(packed, out)
	if err != nil {
		t.Fatalf("decompress %d bytes to %d: %v", len(packed), size, err)
	}
	return out[:n]
}

func TestLZO(t *testing.T) {
	table := new(lzoTable)
	for name, in := range lzoInputs() {
		for _, size := range []int{len(in), len(in) / 2, 4096, 257, 256, 239, 238, 237, 22, 21, 20, 9, 8, 7, 4, 3, 2, 1} {
			if size > len(in) {
				continue
			}
			packed := appendLZO([]byte("before"), in[:size], table)
			if !bytes.HasPrefix(packed, []byte("before")) {
				t.Fatalf("%s[:%d]: what was before is gone", name, size)
			}
			if size > 0 && !bytes.Equal(unpackLZOElsewhere(t, packed[6:], size), in[:size]) {
				t.Errorf("%s[:%d] comes back as something else", name, size)
			}
		}
	}
	if n := len(appendLZO(nil, make([]byte, 4096), table)); n > 40 {
		t.Errorf("a page of zeroes takes %d bytes", n)
	}
}

func FuzzAppendLZO(f *testing.F) {
	for _, in := range lzoInputs() {
		f.Add(in[:min(len(in), 4096)])
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		in = in[:min(len(in), lzoMaxInput)]
		packed := appendLZO(nil, in, new(lzoTable))
		if len(in) > 0 && !bytes.Equal(unpackLZOElsewhere(t, packed, len(in)), in) {
			t.Errorf("%d bytes come back as something else", len(in))
		}
	})
}

func BenchmarkLZO(b *testing.B) {
	for name, in := range lzoInputs() {
		if len(in) < 4096 {
			continue
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(4096)
			table := new(lzoTable)
			var dst []byte
			for b.Loop() {
				dst = appendLZO(dst[:0], in[:4096], table)
			}
		})
	}
}
