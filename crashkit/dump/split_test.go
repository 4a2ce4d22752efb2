package dump_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/dump/dumptest"
)

// writeFiles writes files of a test and returns their paths.
func writeFiles(t testing.TB, files ...[]byte) []string {
	t.Helper()
	var paths []string
	dir := t.TempDir()
	for i, b := range files {
		path := filepath.Join(dir, fmt.Sprintf("file%d", i))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// splitDump returns testMemory in three parts, as makedumpfile --split leaves it.
func splitDump() [][]byte {
	var parts [][]byte
	for i, c := range []dump.Compression{dump.Zlib, dump.LZO, dump.Zstd} {
		bounds := []addr.PFN{0, 0x13, 0x21, 0x2a}
		parts = append(parts, testMemory().Kdump(dumptest.KdumpOptions{
			Compression: c, SplitStart: bounds[i], SplitEnd: bounds[i+1],
		}))
	}
	return parts
}

func TestSplitFiles(t *testing.T) {
	parts := splitDump()
	for _, order := range [][]int{{0, 1, 2}, {2, 0, 1}, {1, 2, 0}} {
		paths := writeFiles(t, parts[order[0]], dumptest.Flatten(parts[order[1]], 4096), parts[order[2]])
		img, err := dump.OpenFiles(paths, dump.Options{})
		if err != nil {
			t.Fatal(err)
		}
		checkMemory(t, img)
		checkNotes(t, img)
		checkVMCoreInfo(t, img)
		if info := img.Info(); info.Incomplete || info.Truncated || len(info.Problems) > 0 || info.FileSize != int64(len(parts[0])+len(parts[1])+len(parts[2])) {
			t.Errorf("order %v: Info = %+v", order, info)
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSplitMissing(t *testing.T) {
	parts := splitDump()
	for _, test := range []struct {
		name    string
		parts   [][]byte
		missing func(addr.PFN) bool
		problem string
	}{
		{"first", [][]byte{parts[2], parts[1]}, func(p addr.PFN) bool { return p < 0x13 }, "from 0x0 up to 0x13"},
		{"middle", [][]byte{parts[2], parts[0]}, func(p addr.PFN) bool { return p >= 0x13 && p < 0x21 }, "from 0x13 up to 0x21"},
		{"last", [][]byte{parts[0], parts[1]}, func(p addr.PFN) bool { return p >= 0x21 }, "from 0x21 up to 0x2a"},
		{"none, but one twice", [][]byte{parts[1], parts[2], parts[0], parts[1]}, func(addr.PFN) bool { return false },
			"file3 is the same part of the split dump as "},
	} {
		t.Run(test.name, func(t *testing.T) {
			img, err := dump.OpenFiles(writeFiles(t, test.parts...), dump.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer img.Close()
			info := img.Info()
			if len(info.Problems) != 1 || !strings.Contains(info.Problems[0], test.problem) || info.Incomplete != (test.name[:4] != "none") {
				t.Errorf("incomplete %v, problems %q; want %q", info.Incomplete, info.Problems, test.problem)
			}
			for pfn, want := range testMemory().Pages {
				b, err := img.Page(pfn)
				switch {
				case test.missing(pfn) && (addr.ReasonOf(err) != addr.MissingPart || img.PageState(pfn) != dump.Truncated):
					t.Errorf("Page(%#x): %v, state %v; want it in a missing part", pfn, err, img.PageState(pfn))
				case !test.missing(pfn) && (err != nil || !bytes.HasPrefix(b, want)):
					t.Errorf("Page(%#x) = %.8x, %v; want %.8x", pfn, b, err, want)
				}
			}
		})
	}
}

func TestSplitErrors(t *testing.T) {
	parts := splitDump()
	other := testMemory()
	other.Pages[0x24] = []byte("more")
	for _, test := range []struct {
		name  string
		files [][]byte
		want  string
	}{
		{"whole dump", [][]byte{parts[0], testMemory().Kdump(dumptest.KdumpOptions{})}, "file1 is no part of a split dump"},
		{"ELF", [][]byte{testMemory().ELF(), parts[0]}, "file0 is no part of a split dump"},
		{"other dump", [][]byte{parts[0], other.Kdump(dumptest.KdumpOptions{SplitStart: 0x13, SplitEnd: 0x21})}, "parts of different dumps"},
		{"overlap", [][]byte{parts[0], testMemory().Kdump(dumptest.KdumpOptions{SplitStart: 0x12, SplitEnd: 0x21})}, "overlap"},
		{"no dump", [][]byte{parts[0], []byte("hello")}, "file1: not a supported crash dump"},
	} {
		img, err := dump.OpenFiles(writeFiles(t, test.files...), dump.Options{})
		if !errors.Is(err, dump.ErrFormat) || img != nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, %v; want an error that says %q", test.name, img, err, test.want)
		}
	}
	if _, err := dump.OpenFiles(nil, dump.Options{}); err == nil {
		t.Error("OpenFiles of no file: no error")
	}
}

func TestZeroExcluded(t *testing.T) {
	for _, files := range [][][]byte{
		{testMemory().ELF()},
		{testMemory().Kdump(dumptest.KdumpOptions{Compression: dump.Zlib})},
		splitDump(),
	} {
		img, err := dump.OpenFiles(writeFiles(t, files...), dump.Options{ZeroExcluded: true})
		if err != nil {
			t.Fatal(err)
		}
		defer img.Close()
		b := bytes.Repeat([]byte{1}, 16)
		if err := img.ReadPhys(0x22ff8, b); err != nil || !bytes.Equal(b[:8], make([]byte, 8)) || !bytes.Equal(b[8:], noise(8, 3)) {
			t.Errorf("ReadPhys(0x22ff8) = %x, %v; want 8 zeroes and %x", b, err, noise(8, 3))
		}
		if n := img.ZeroedReads(); n != 1 {
			t.Errorf("ZeroedReads() = %d; want 1", n)
		}
		page, err := img.Page(0x22)
		if err != nil || !bytes.Equal(page, make([]byte, 4096)) || img.ZeroedReads() != 2 {
			t.Errorf("Page(0x22) = %.8x, %v, %d reads of zeroes; want zeroes", page, err, img.ZeroedReads())
		}
		if st := img.PageState(0x22); st != dump.Excluded {
			t.Errorf("PageState(0x22) = %v; want excluded", st)
		}
		if _, err := img.Page(0x24); addr.ReasonOf(err) != addr.NotInDump {
			t.Errorf("Page(0x24): %v; want not in the dump", err)
		}
	}
}
