package dump_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"crashlab/crashkit/dump"
	"crashlab/crashkit/dump/dumptest"
)

// packedWhole returns b compressed as a whole, in each way there is.
func packedWhole(t testing.TB, b []byte) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	for name, newWriter := range map[string]func(io.Writer) (io.WriteCloser, error){
		"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		"xz":   func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
		"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
	} {
		var out bytes.Buffer
		w, err := newWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		all[name] = out.Bytes()
	}
	return all
}

func TestPacked(t *testing.T) {
	for format, content := range map[string][]byte{
		"kdump":     testMemory().Kdump(dumptest.KdumpOptions{Compression: dump.Zlib}),
		"elf":       testMemory().ELF(),
		"flattened": dumptest.Flatten(testMemory().ELF(), 4096),
	} {
		for name, b := range packedWhole(t, content) {
			t.Run(format+"."+name, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "cache")
				path := writeFiles(t, b)[0]
				told := 0
				o := dump.Options{CacheDir: dir, Notify: func(string) { told++ }}
				for range 2 {
					img, err := dump.OpenFiles([]string{path}, o)
					if err != nil {
						t.Fatal(err)
					}
					checkMemory(t, img)
					checkVMCoreInfo(t, img)
					if err := img.Close(); err != nil {
						t.Error(err)
					}
				}
				// A copy under another name has the same content.
				img, err := dump.OpenFiles(writeFiles(t, b), o)
				if err != nil {
					t.Fatal(err)
				}
				img.Close()
				if told != 1 {
					t.Errorf("unpacked %d times; want once", told)
				}
				st, err := os.Stat(dir)
				if err != nil || st.Mode().Perm() != 0o700 {
					t.Errorf("the cache: %v, %v; want mode 0700", st.Mode(), err)
				}
				var dumps int
				entries, err := os.ReadDir(dir)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range entries {
					st, err := e.Info()
					if err != nil || st.Mode().Perm() != 0o600 {
						t.Errorf("%s: %v, %v; want mode 0600", e.Name(), st.Mode(), err)
					}
					if got, err := os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
						t.Error(err)
					} else if bytes.Equal(got, content) {
						dumps++
					}
				}
				if dumps != 1 || len(entries) != 3 { // and the hash of two files
					t.Errorf("%d of %d files in the cache are the dump; want 1 of 3", dumps, len(entries))
				}
			})
		}
	}
}

// TestPackedChanged replaces the file by another one.
func TestPackedChanged(t *testing.T) {
	o := dump.Options{CacheDir: t.TempDir()}
	path := filepath.Join(t.TempDir(), "vmcore.gz")
	other := testMemory()
	other.Pages[0x10] = []byte("another page")
	for want, m := range map[string]dumptest.Memory{"the first page": testMemory(), "another page": other} {
		if err := os.WriteFile(path, packedWhole(t, m.ELF())["gzip"], 0o600); err != nil {
			t.Fatal(err)
		}
		img, err := dump.OpenFiles([]string{path}, o)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := img.Page(0x10); err != nil || !bytes.HasPrefix(b, []byte(want)) {
			t.Errorf("Page(0x10) = %.16q, %v; want %q", b, err, want)
		}
		img.Close()
	}
}

func TestPackedErrors(t *testing.T) {
	for name, b := range packedWhole(t, testMemory().ELF()) {
		dir := t.TempDir()
		_, err := dump.OpenFiles(writeFiles(t, b[:len(b)-5]), dump.Options{CacheDir: dir})
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "-d") || !strings.Contains(err.Error(), "unpack it first") {
			t.Errorf("%s cut off: %v; want to be told how to unpack", name, err)
		}
		if left, err := filepath.Glob(filepath.Join(dir, "part-*")); err != nil || len(left) > 0 {
			t.Errorf("%s cut off: left behind %q, %v", name, left, err)
		}
		text := packedWhole(t, []byte("no dump"))[name]
		if _, err := dump.OpenFiles(writeFiles(t, text), dump.Options{CacheDir: dir}); err == nil || !strings.Contains(err.Error(), "neither an ELF core") {
			t.Errorf("%s of no dump: %v", name, err)
		}
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := dump.OpenFiles(writeFiles(t, b), dump.Options{CacheDir: file}); err == nil || !strings.Contains(err.Error(), "unpack it first") {
			t.Errorf("%s without a place for the cache: %v", name, err)
		}
		// A disk of which a petabyte has to stay free has no room.
		path := writeFiles(t, b)[0]
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		out := filepath.Join(dir, "out")
		if err := dump.UnpackKeeping(out, f, int64(len(b)), 1<<50); err == nil || !strings.Contains(err.Error(), "no room") {
			t.Errorf("%s without room: %v", name, err)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s without room: the file is there", name)
		}
	}
}

// TestPackedSparse has 64 MiB of zeroes in it, which take no room.
func TestPackedSparse(t *testing.T) {
	dir := t.TempDir()
	b := packedWhole(t, append(make([]byte, 64<<20), "end"...))["zstd"]
	f, err := os.Open(writeFiles(t, b)[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	path := filepath.Join(dir, "out")
	if err := dump.UnpackKeeping(path, f, int64(len(b)), 0); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || len(got) != 64<<20+3 || string(got[64<<20:]) != "end" || len(bytes.Trim(got[:64<<20], "\x00")) > 0 {
		t.Errorf("unpacked %d bytes, %v", len(got), err)
	}
}

func TestIsPart(t *testing.T) {
	kdump := testMemory().Kdump(dumptest.KdumpOptions{})
	for name, test := range map[string]struct {
		b    []byte
		want bool
	}{
		"kdump":     {kdump, true},
		"flattened": {dumptest.Flatten(kdump, 4096), true},
		"kdump.xz":  {packedWhole(t, kdump)["xz"], true},
		"elf":       {testMemory().ELF(), false},
		"elf.gz":    {packedWhole(t, testMemory().ELF())["gzip"], false},
		"empty":     {nil, false},
	} {
		if got := dump.IsPart(writeFiles(t, test.b)[0]); got != test.want {
			t.Errorf("IsPart(%s) = %v; want %v", name, got, test.want)
		}
	}
	if dump.IsPart(filepath.Join(t.TempDir(), "nothing")) {
		t.Error("IsPart of a file that is not there is true")
	}
}
