package dump_test

import (
	"os"
	"path/filepath"
	"testing"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/dump/dumptest"
)

// benchPages is 64 MiB: twice what the cache holds.
const benchPages = 16384

// benchMemory has pages that compress to about a third, as kernel memory does.
func benchMemory() dumptest.Memory {
	m := dumptest.Memory{Pages: make(map[addr.PFN][]byte), VMCoreInfo: testMemory().VMCoreInfo}
	for pfn := range addr.PFN(benchPages) {
		m.Pages[pfn] = noise(1300, uint32(pfn))
	}
	return m
}

func benchFiles(b *testing.B) map[string]string {
	m, dir := benchMemory(), b.TempDir()
	files := map[string][]byte{"elf": m.ELF()}
	for _, c := range []dump.Compression{dump.Plain, dump.Zlib, dump.LZO, dump.Snappy, dump.Zstd} {
		files[c.String()] = m.Kdump(dumptest.KdumpOptions{Compression: c})
	}
	files["flattened"] = dumptest.Flatten(files["lzo"], 1<<16)
	paths := make(map[string]string)
	for name, data := range files {
		paths[name] = filepath.Join(dir, name)
		if err := os.WriteFile(paths[name], data, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return paths
}

func BenchmarkOpen(b *testing.B) {
	for name, path := range benchFiles(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				img, err := dump.Open(path)
				if err != nil {
					b.Fatal(err)
				}
				img.Close()
			}
		})
	}
}

// BenchmarkPage reads pages in order (miss: twice as many as the cache holds),
// and one page again and again (hit).
func BenchmarkPage(b *testing.B) {
	for name, path := range benchFiles(b) {
		for kind, pages := range map[string]addr.PFN{"miss": benchPages, "hit": 1} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				img, err := dump.Open(path)
				if err != nil {
					b.Fatal(err)
				}
				defer img.Close()
				b.ReportAllocs()
				b.SetBytes(4096)
				pfn := addr.PFN(0)
				for b.Loop() {
					if _, err := img.Page(pfn); err != nil {
						b.Fatal(err)
					}
					pfn = (pfn + 1) % pages
				}
			})
		}
	}
}

// BenchmarkReadPhys reads eight bytes of a page that is at hand.
func BenchmarkReadPhys(b *testing.B) {
	for name, path := range benchFiles(b) {
		b.Run(name, func(b *testing.B) {
			img, err := dump.Open(path)
			if err != nil {
				b.Fatal(err)
			}
			defer img.Close()
			b.ReportAllocs()
			var buf [8]byte
			for b.Loop() {
				if err := img.ReadPhys(0x5678, buf[:]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	src := open(b, benchMemory().ELF())
	for _, c := range []dump.Compression{dump.Plain, dump.Zlib, dump.LZO, dump.Snappy, dump.Zstd} {
		b.Run(c.String(), func(b *testing.B) {
			cfg := dump.ConfigOf(src)
			cfg.Compression = c
			f, err := os.Create(filepath.Join(b.TempDir(), "vmcore"))
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			b.ReportAllocs()
			b.SetBytes(benchPages * 4096)
			for b.Loop() {
				if _, err := dump.Write(b.Context(), f, cfg, src); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
