package unpack

import (
	"errors"
	"io"
	"os"
	"testing"
)

// BenchmarkUnpack unpacks the archive that UNPACK_FILE names; beside it, time tar -xJf does the same.
func BenchmarkUnpack(b *testing.B) {
	name := os.Getenv("UNPACK_FILE")
	if name == "" {
		b.Skip("UNPACK_FILE names no archive")
	}
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		b.Fatal(err)
	}
	for _, write := range []bool{false, true} {
		b.Run(map[bool]string{false: "decode", true: "files"}[write], func(b *testing.B) {
			for b.Loop() {
				r, err := Open(b.Context(), f, fi.Size())
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(r.Size)
				if write {
					b.StopTimer()
					root, err := os.OpenRoot(b.TempDir())
					if err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
					tree := &Tree{Root: root}
					err = errors.Join(Tar(r, tree.Add), tree.Close())
					root.Close()
					if err != nil {
						b.Fatal(err)
					}
				} else if _, err := io.Copy(io.Discard, r); err != nil {
					b.Fatal(err)
				}
				r.Close()
			}
		})
	}
}
