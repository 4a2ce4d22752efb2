package dump

import (
	"math/rand/v2"
	"testing"
)

// TestBitmap compares with counting bit by bit, at densities from none to all.
func TestBitmap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, 7, 8, 63, 64, 65, 128, 200, 1000, 4095, 4096, 4097, 9000} {
		for _, mask := range []func() byte{
			func() byte { return 0 },
			func() byte { return 0xff },
			func() byte { return byte(rng.Uint32()) },
			func() byte { return byte(rng.Uint32() & rng.Uint32() & rng.Uint32()) },
			func() byte { return byte(int8(rng.Uint32()<<7) >> 7) }, // long runs
		} {
			b := make([]byte, size)
			for i := range b {
				b[i] = mask()
			}
			m := newBitmap(b)
			if m.len() != uint64(8*size) {
				t.Fatalf("len() = %d; want %d", m.len(), 8*size)
			}
			var count, runs uint64
			last := false
			for n := range m.len() + 10 {
				if got := m.rank(n); got != count {
					t.Fatalf("%x: rank(%d) = %d; want %d", b, n, got, count)
				}
				want := n < m.len() && b[n/8]>>(n%8)&1 == 1
				if m.has(n) != want {
					t.Fatalf("%x: has(%d) = %v", b, n, !want)
				}
				if want {
					count++
					if !last {
						runs++
					}
				}
				last = want
			}
			if got := m.runs(); uint64(got) != runs {
				t.Errorf("%x: runs() = %d; want %d", b, got, runs)
			}
			var end, members, n uint64
			for from, till := range m.all() {
				if from >= till || n > 0 && from <= end || !m.has(from) || !m.has(till-1) || m.has(till) {
					t.Fatalf("%x: all() yields [%d, %d) after one that ends at %d", b, from, till, end)
				}
				n, end, members = n+1, till, members+till-from
			}
			if n != runs || members != count {
				t.Errorf("%x: all() yields %d runs with %d members; want %d, %d", b, n, members, runs, count)
			}
		}
	}
}
