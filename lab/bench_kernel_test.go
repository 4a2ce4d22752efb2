package lab

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What is not kept is said.
func TestKernelBenchRows(t *testing.T) {
	b := new(kernelBench)
	b.add("image", "9.0 MB", "measured")
	b.promise(false, "at most %d MB", 8)
	const s = time.Second
	b.compare("run", [2][]time.Duration{{3 * s, s, 2 * s}, {5 * s, 2 * s, s}})
	b.compare("again", [2][]time.Duration{{2 * s}, {3 * s}})
	diff := cmp.Diff([]kernelRow{
		{"image", "9.0 MB", "measured", "at most 8 MB (broken)"},
		{"run, the distribution's kernel", "2s (1s to 3s)", "measured", ""},
		{"  the lab's kernel", "2s (1s to 5s)", "measured", "as fast: 1.00 of it"},
		{"again, the distribution's kernel", "2s", "measured", ""},
		{"  the lab's kernel", "3s", "measured", "as fast: 1.50 of it (broken)"},
	}, b.rows, cmp.AllowUnexported(kernelRow{}))
	if diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}
