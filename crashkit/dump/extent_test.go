package dump

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOverlay(t *testing.T) {
	for _, test := range []struct {
		name     string
		in, want []extent
	}{
		{"none", nil, nil},
		{"apart", []extent{{0, 2, 10, Present}, {5, 6, 20, Present}}, []extent{{0, 2, 10, Present}, {5, 6, 20, Present}}},
		{"order", []extent{{5, 6, 20, Present}, {0, 2, 10, Present}}, []extent{{0, 2, 10, Present}, {5, 6, 20, Present}}},
		{"same", []extent{{0, 2, 10, Present}, {0, 2, 20, Present}}, []extent{{0, 2, 20, Present}}},
		{"inside", []extent{{0, 9, 10, Present}, {3, 5, 40, Present}}, []extent{{0, 3, 10, Present}, {3, 5, 40, Present}, {5, 9, 15, Present}}},
		{"hidden", []extent{{3, 5, 40, Present}, {0, 9, 10, Present}}, []extent{{0, 9, 10, Present}}},
		{"tail", []extent{{0, 5, 10, Present}, {3, 9, 40, Truncated}}, []extent{{0, 3, 10, Present}, {3, 9, 40, Truncated}}},
		{"joined", []extent{{5, 9, 15, Present}, {0, 5, 10, Present}}, []extent{{0, 9, 10, Present}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := overlay(test.in)
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(extent{})); diff != "" {
				t.Errorf("overlay (-want +got):\n%s", diff)
			}
		})
	}
}

// TestOverlayPainting compares with painting a small space point by point.
func TestOverlayPainting(t *testing.T) {
	const space = 40
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		var in []extent
		var off [space]int64
		var state [space]State
		for range rng.IntN(8) {
			start := rng.Uint64N(space)
			e := extent{start, start + 1 + rng.Uint64N(space-start), rng.Int64N(1000), Present + State(rng.IntN(2))}
			in = append(in, e)
			for at := e.start; at < e.end; at++ {
				off[at], state[at] = e.off+int64(at-e.start), e.state
			}
		}
		out := overlay(append([]extent(nil), in...))
		if !disjoint(out) {
			t.Fatalf("overlay(%v) = %v: not disjoint", in, out)
		}
		for at := range uint64(space) {
			var gotOff int64
			var got State
			if i := findExtent(out, at); i < len(out) && out[i].start <= at {
				got, gotOff = out[i].state, out[i].off+int64(at-out[i].start)
			}
			if got != state[at] || got == Present && gotOff != off[at] {
				t.Fatalf("overlay(%v) = %v: at %d %v %d; want %v %d", in, out, at, got, gotOff, state[at], off[at])
			}
		}
	}
}
