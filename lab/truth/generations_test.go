package truth

import (
	"archive/zip"
	"os"
	"path/filepath"
	"testing"

	"crashlab/crashkit"
	"crashlab/crashkit/dump"
)

// TestGenerations compares what is read from a dump of each generation of
// kernels with what its guest knew.
func TestGenerations(t *testing.T) {
	for _, name := range []string{"5.10", "6.12", "7.2", "7.3"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join("..", "..", "crashkit", "testdata", name)
			console, err := os.ReadFile(path + ".console")
			if err != nil {
				t.Fatal(err)
			}
			proc, err := zip.OpenReader(path + ".proc.zip")
			if err != nil {
				t.Fatal(err)
			}
			defer proc.Close()
			p, err := crashkit.OpenFiles([]string{path + ".vmcore.zst"}, dump.Options{CacheDir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			checked, differences := Compare(proc, string(console), p)
			for _, d := range differences {
				t.Error(d)
			}
			if checked.Symbols < 1000 || checked.Modules == 0 || checked.Threads < 50 || checked.Frames < 6 || checked.Stacks < 20 {
				t.Errorf("Compare = %+v; want more to have been compared", checked)
			}
		})
	}
}
