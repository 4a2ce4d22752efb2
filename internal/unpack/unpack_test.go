package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crashlab/internal/archivetest"
)

// testText is data that compresses, as source code does; it needs several blocks.
func testText(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "static int %x(struct task_struct *p) { return %d; }\n", r.Uint32(), r.IntN(1000))
	}
	return b.Bytes()[:n]
}

// pack compresses with a program of the host.
func pack(t testing.TB, data []byte, argv ...string) []byte {
	t.Helper()
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdin = bytes.NewReader(data)
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%q: %v", argv, err)
	}
	return out
}

func readAll(t testing.TB, packed []byte) ([]byte, *Reader, error) {
	t.Helper()
	r, err := Open(t.Context(), bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	return got, r, err
}

// What the programs of the formats pack reads as it was.
func TestOpen(t *testing.T) {
	data := testText(3 << 20)
	twoStreams := slices.Concat(pack(t, data[:1<<20], "xz", "-2"), make([]byte, 8), pack(t, data[1<<20:], "xz", "-2", "--check=crc32"), make([]byte, 4))
	tests := []struct {
		name   string
		packed []byte
		format Format
		size   int64
		blocks int
	}{
		{"xz", pack(t, data, "xz", "-6"), XZ, 3 << 20, 1},
		{"xz in blocks", pack(t, data, "xz", "-2", "--block-size=300000"), XZ, 3 << 20, 11},
		{"xz by threads", pack(t, data, "xz", "-2", "-T2", "--block-size=300000"), XZ, 3 << 20, 11},
		{"xz with CRC32", pack(t, data, "xz", "-2", "--check=crc32"), XZ, 3 << 20, 1},
		{"xz with SHA-256", pack(t, data, "xz", "-2", "--check=sha256", "--block-size=1000000"), XZ, 3 << 20, 4},
		{"xz without a check", pack(t, data, "xz", "-2", "--check=none"), XZ, 3 << 20, 1},
		{"xz with the filter for x86", pack(t, data, "xz", "--x86", "--lzma2=preset=2"), XZ, 3 << 20, 1},
		{"xz of two streams", twoStreams, XZ, 3 << 20, 2},
		{"lzma", pack(t, data, "xz", "--format=lzma", "-2"), LZMA, -1, 1},
		{"zstd", pack(t, data, "zstd", "-3"), Zstd, -1, 1},
		{"gzip", pack(t, data, "gzip"), Gzip, -1, 1},
		{"bzip2", pack(t, data, "bzip2"), Bzip2, -1, 1},
		{"none", data, None, 3 << 20, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, r, err := readAll(t, tt.packed)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("read %d bytes, %v; want the %d that were packed", len(got), err, len(data))
			}
			if r.Format != tt.format || r.Size != tt.size || r.Blocks != tt.blocks {
				t.Errorf("Open = %s, %d bytes, %d blocks; want %s, %d, %d", r.Format, r.Size, r.Blocks, tt.format, tt.size, tt.blocks)
			}
		})
	}
}

// A byte changed anywhere, and an end anywhere, is an error.
func TestOpenDamaged(t *testing.T) {
	data := testText(40_000)
	for _, tt := range []struct {
		name string
		argv []string
	}{
		{"crc32", []string{"xz", "--check=crc32", "--block-size=15000"}},
		{"crc64", []string{"xz", "--check=crc64", "--block-size=15000"}},
		{"sha256", []string{"xz", "--check=sha256", "--block-size=15000"}},
		{"zstd", []string{"zstd", "--check"}},
		{"gzip", []string{"gzip", "-n"}},
		{"bzip2", []string{"bzip2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			packed := pack(t, data, tt.argv...)
			for i := 0; i < len(packed); i += 61 {
				bad := slices.Clone(packed)
				bad[i] ^= 0x10
				// Some bytes, such as the time in gzip's header, say nothing about the content.
				if got, _, err := readAll(t, bad); err == nil && !bytes.Equal(got, data) && Sniff(bad) != None {
					t.Errorf("byte %d of %d changed: no error, and other data", i, len(packed))
				}
				if i > 6 && Sniff(packed[:i]) != None {
					if _, _, err := readAll(t, packed[:i]); err == nil {
						t.Errorf("the first %d of %d bytes read without an error", i, len(packed))
					}
				}
			}
		})
	}
}

func TestOpenSaysWhy(t *testing.T) {
	packed := pack(t, testText(40_000), "xz", "--block-size=15000")
	flipped := slices.Clone(packed)
	flipped[len(packed)/2] ^= 1
	index := slices.Clone(packed)
	index[len(packed)-16] ^= 1
	tests := []struct {
		name   string
		packed []byte
		want   string
	}{
		{"truncated", packed[:len(packed)-len(packed)%4-400], "xz: cut short"},
		{"truncated to an odd size", packed[:len(packed)-401], "xz: cut short"},
		{"only the header", packed[:12], "xz: cut short"},
		{"content changed", flipped, "xz: "},
		{"index changed", index, "xz: the index is damaged"},
		{"gzip cut", pack(t, testText(40_000), "gzip")[:1000], "gzip: cut short"},
		{"zstd cut", pack(t, testText(40_000), "zstd")[:1000], "zstd: cut short"},
		{"bytes behind gzip", append(pack(t, testText(1000), "gzip"), "more"...), "gzip: "},
	}
	for _, tt := range tests {
		if _, _, err := readAll(t, tt.packed); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
}

func TestOpenCancelled(t *testing.T) {
	for _, argv := range [][]string{{"xz", "-1", "--block-size=100000"}, {"gzip", "-1"}} {
		packed := pack(t, testText(2<<20), argv...)
		ctx, cancel := context.WithCancel(t.Context())
		r, err := Open(ctx, bytes.NewReader(packed), int64(len(packed)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		cancel()
		if n, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: after cancelling: %d bytes, %v; want context.Canceled", argv[0], n, err)
		}
		r.Close()
	}
}

// listing describes the files below root: mode, time and content.
func listing(t *testing.T, root *os.Root) map[string]string {
	t.Helper()
	got := make(map[string]string)
	err := fs.WalkDir(root.FS(), ".", func(p string, de fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		fi, err := root.Lstat(p)
		if err != nil {
			return err
		}
		switch fi.Mode().Type() {
		case fs.ModeDir:
			got[p] = "dir " + fi.ModTime().UTC().Format(time.DateOnly)
		case fs.ModeSymlink:
			target, err := root.Readlink(p)
			got[p] = "-> " + target
			return err
		default:
			b, err := root.ReadFile(p)
			got[p] = fmt.Sprintf("%v %s %.6x", fi.Mode()&^0o022, fi.ModTime().UTC().Format(time.DateOnly), sha256.Sum256(b))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// An archive by tar unpacks to what tar makes of it, with times, modes, hard links and directories.
func TestTreeAsTar(t *testing.T) {
	src := t.TempDir()
	script := `mkdir -p linux-1/scripts linux-1/empty/sub linux-1/include
echo all: > linux-1/Makefile; echo exec > linux-1/scripts/run; chmod 755 linux-1/scripts/run; chmod 4711 linux-1/Makefile
ln linux-1/Makefile linux-1/scripts/same; ln -s ../Makefile linux-1/scripts/link
echo h > linux-1/include/` + strings.Repeat("long", 50) + `.h
touch -d 2020-02-03 linux-1/Makefile linux-1/scripts/run; touch -d 2021-02-03 linux-1/scripts
tar --owner=0 -cf all.tar linux-1
mkdir want; tar -xf all.tar -C want --strip-components=1; chmod u-s want/Makefile; touch -d 2020-02-03 want/Makefile`
	c := exec.Command("bash", "-ec", script)
	c.Dir = src
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(src + "/all.tar")
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	tree := &Tree{Root: root, Strip: 1}
	if err := errors.Join(Tar(bytes.NewReader(data), tree.Add), tree.Close()); err != nil {
		t.Fatal(err)
	}
	want, err := os.OpenRoot(src + "/want")
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	w := listing(t, want)
	// A directory is made when a file needs it.
	delete(w, "empty")
	delete(w, "empty/sub")
	if diff := cmp.Diff(w, listing(t, root)); diff != "" {
		t.Errorf("unpacked (-tar +Tree):\n%s", diff)
	}
	a, _ := root.Stat("Makefile")
	b, _ := root.Stat("scripts/same")
	if !os.SameFile(a, b) {
		t.Error("the hard link is a file of its own")
	}
}

// Nothing can be created or linked to outside of the root.
func TestTreeRefuses(t *testing.T) {
	tests := []struct {
		name    string
		entries []tar.Header
		want    string
	}{
		{"parent", []tar.Header{{Name: "../evil"}}, "outside of the archive"},
		{"absolute", []tar.Header{{Name: "/evil"}}, "outside of the archive"},
		{"through a link", []tar.Header{{Name: "d", Typeflag: tar.TypeSymlink, Linkname: "."}, {Name: "d/evil"}}, "is a link"},
		{"link out through a link", []tar.Header{
			{Name: "a/b/c", Typeflag: tar.TypeSymlink, Linkname: "../.."},
			{Name: "a/b/c/l", Typeflag: tar.TypeSymlink, Linkname: "../../x"}}, "is a link"},
		{"link out", []tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../x"}}, "outside of the archive"},
		{"hard link out", []tar.Header{{Name: "l", Typeflag: tar.TypeLink, Linkname: "../x"}}, "outside of the archive"},
		{"hard link to nothing", []tar.Header{{Name: "l", Typeflag: tar.TypeLink, Linkname: "x"}}, "no such file"},
		{"device", []tar.Header{{Name: "d", Typeflag: tar.TypeBlock}}, "neither a file nor a link"},
		{"pipe", []tar.Header{{Name: "d", Typeflag: tar.TypeFifo}}, "neither a file nor a link"},
		{"twice", []tar.Header{{Name: "f"}, {Name: "f"}}, "exists"},
		{"over a link", []tar.Header{{Name: "f", Typeflag: tar.TypeSymlink, Linkname: "g"}, {Name: "f"}}, "exists"},
		{"line break", []tar.Header{{Name: "a\nb"}}, "outside of the archive"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root, err := os.OpenRoot(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			tree := &Tree{Root: root}
			err = Tar(bytes.NewReader(archivetest.Tar(t, tt.entries...)), tree.Add)
			tree.Close()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("unpacking: %v; want %q", err, tt.want)
			}
		})
	}
}

func FuzzOpen(f *testing.F) {
	data := testText(3000)
	for _, argv := range [][]string{
		{"xz", "--block-size=1000"}, {"xz", "--check=sha256"}, {"xz", "--check=crc32", "--x86", "--lzma2"},
		{"gzip"}, {"bzip2"}, {"zstd"}, {"xz", "--format=lzma"},
	} {
		f.Add(pack(f, data, argv...))
	}
	f.Fuzz(func(t *testing.T, packed []byte) {
		r, err := Open(t.Context(), bytes.NewReader(packed), int64(len(packed)))
		if err != nil {
			return
		}
		defer r.Close()
		n, err := io.Copy(io.Discard, io.LimitReader(r, 4<<20))
		if err == nil && n < 4<<20 && r.Size >= 0 && n != r.Size {
			t.Errorf("read %d bytes of what should be %d", n, r.Size)
		}
	})
}

func FuzzTree(f *testing.F) {
	f.Add(archivetest.Tar(f, tar.Header{Name: "a/b"}, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "a"}, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "a/b"}))
	f.Add(archivetest.Tar(f, tar.Header{Name: "../b"}, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.Mkdir(dir+"/root", 0o777); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir + "/root")
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		tree := &Tree{Root: root, Max: 1 << 20}
		_ = Tar(bytes.NewReader(data), tree.Add)
		_ = tree.Close()
		if des, err := os.ReadDir(dir); err != nil || len(des) != 1 {
			t.Errorf("beside the root: %v, %v", des, err)
		}
	})
}
