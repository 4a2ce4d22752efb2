package deb

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/internal/archivetest"
	"crashlab/internal/unpack"
)

// unpackTo unpacks what r holds into root.
func unpackTo(ctx context.Context, r *bytes.Reader, root *os.Root, keep func(string) bool) error {
	tree := &unpack.Tree{Root: root, Keep: keep}
	return errors.Join(Unpack(ctx, r, r.Size(), tree), tree.Close())
}

// unpacked unpacks and returns what is there: path and content, or link target.
func unpacked(t *testing.T, pkg []byte, keep func(string) bool) (map[string]string, error) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	err = unpackTo(t.Context(), bytes.NewReader(pkg), root, keep)
	got := make(map[string]string)
	werr := filepath.WalkDir(dir, func(p string, de fs.DirEntry, err error) error {
		if err != nil || de.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		if de.Type() == fs.ModeSymlink {
			got[rel], err = os.Readlink(p)
			return err
		}
		b, err := os.ReadFile(p)
		got[rel] = string(b)
		return err
	})
	if werr != nil {
		t.Fatal(werr)
	}
	return got, err
}

func everything(string) bool { return true }

func notDocs(name string) bool { return !strings.HasPrefix(name, "usr/share/") }

func TestUnpack(t *testing.T) {
	data := archivetest.Tar(t,
		tar.Header{Name: "./", Typeflag: tar.TypeDir},
		tar.Header{Name: "./boot/", Typeflag: tar.TypeDir},
		tar.Header{Name: "./boot/vmlinuz-6.1"},
		tar.Header{Name: "./usr/share/doc/copyright"},
		tar.Header{Name: "./usr/src/h/scripts", Typeflag: tar.TypeSymlink, Linkname: "../../lib/kbuild/scripts"},
		tar.Header{Name: "./lib/modules/6.1/build", Typeflag: tar.TypeSymlink, Linkname: "/usr/src/h"},
		tar.Header{Name: "./boot/same", Typeflag: tar.TypeLink, Linkname: "./boot/vmlinuz-6.1"},
	)
	want := map[string]string{
		"boot/vmlinuz-6.1":      "content of ./boot/vmlinuz-6.1",
		"boot/same":             "content of ./boot/vmlinuz-6.1",
		"usr/src/h/scripts":     "../../lib/kbuild/scripts",
		"lib/modules/6.1/build": "../../../usr/src/h",
	}
	for _, ext := range []string{".xz", ".zst", ".gz", ""} {
		got, err := unpacked(t, archivetest.Deb("data.tar"+ext, archivetest.Compress(t, ext, data)), notDocs)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("data.tar%s: %v (-want +got):\n%s", ext, err, diff)
		}
	}
}

func TestUnpackMode(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	data := archivetest.Tar(t, tar.Header{Name: "objtool", Mode: 0o4755}, tar.Header{Name: "secret", Mode: 0})
	if err := unpackTo(t.Context(), bytes.NewReader(archivetest.Deb("data.tar", data)), root, everything); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"objtool": 0o755, "secret": 0o644} {
		if fi, err := root.Stat(name); err != nil || fi.Mode()&^0o022 != want&^0o022 {
			t.Errorf("mode of %s = %v, %v; want %v", name, fi.Mode(), err, want)
		}
	}
}

func TestUnpackRefuses(t *testing.T) {
	one := func(h tar.Header) []byte { return archivetest.Deb("data.tar", archivetest.Tar(t, h)) }
	whole := archivetest.Deb("data.tar.gz", archivetest.Compress(t, ".gz", archivetest.Tar(t, tar.Header{Name: "file"})))
	flipped := slices.Clone(whole)
	flipped[len(flipped)-6] ^= 1 // in gzip's checksum
	tests := []struct {
		name string
		pkg  []byte
		want string
	}{
		{"path to the parent", one(tar.Header{Name: "../evil"}), "outside of the archive"},
		{"path through a directory", one(tar.Header{Name: "a/../../evil"}), "outside of the archive"},
		{"absolute path", one(tar.Header{Name: "/etc/evil"}), "outside of the archive"},
		{"link to the parent", one(tar.Header{Name: "a/l", Typeflag: tar.TypeSymlink, Linkname: "../../x"}), "outside of the archive"},
		{"file through a link", archivetest.Deb("data.tar", archivetest.Tar(t,
			tar.Header{Name: "d", Typeflag: tar.TypeSymlink, Linkname: "e"},
			tar.Header{Name: "d/../../x", Typeflag: tar.TypeReg})), "outside of the archive"},
		{"hard link to the parent", one(tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "../x"}), "outside of the archive"},
		{"the same file twice", archivetest.Deb("data.tar", archivetest.Tar(t, tar.Header{Name: "f"}, tar.Header{Name: "f"})), "exists"},
		{"device", one(tar.Header{Name: "null", Typeflag: tar.TypeChar}), "neither a file nor a link"},
		{"not a package", []byte("<html>404</html>"), "not a Debian package"},
		{"empty", nil, "not a Debian package"},
		{"no data", archivetest.Deb("other", nil), "data.tar: not in the package"},
		{"bad size", bytes.Replace(whole, []byte("3         `"), []byte("x         `"), 1), "damaged"},
		{"size past the end", bytes.Replace(whole, []byte("3         `"), []byte("999999999 `"), 1), "unexpected EOF"},
		{"unknown compression", archivetest.Deb("data.tar.lz9", nil), "unknown compression"},
		{"wrong compression", archivetest.Deb("data.tar.xz", []byte("not xz at all")), "data.tar.xz"},
		{"checksum", flipped, "checksum"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := unpacked(t, tt.pkg, everything); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Unpack = %v, %v; want %q", got, err, tt.want)
			}
		})
	}
}

// A header may claim any size; what would not fit is refused before a byte of
// it is written.
func TestUnpackTooLarge(t *testing.T) {
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Size: 4<<30 + 1}); err != nil {
		t.Fatal(err)
	}
	got, err := unpacked(t, archivetest.Deb("data.tar", b.Bytes()), everything)
	if !errors.Is(err, unpack.ErrTooLarge) || len(got) > 0 {
		t.Errorf("Unpack = %v, %v; want nothing, and %v", got, err, unpack.ErrTooLarge)
	}
}

// A package that ends anywhere too early is an error.
func TestUnpackTruncated(t *testing.T) {
	var entries []tar.Header
	for i := range 20 {
		entries = append(entries, tar.Header{Name: fmt.Sprintf("dir/file%d", i)})
	}
	for _, ext := range []string{".xz", ".zst", ".gz"} {
		pkg := archivetest.Deb("data.tar"+ext, archivetest.Compress(t, ext, archivetest.Tar(t, entries...)))
		for n := 0; n < len(pkg)-1; n += 3 { // the last byte may be padding
			root, err := os.OpenRoot(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if err := unpackTo(t.Context(), bytes.NewReader(pkg[:n]), root, everything); err == nil {
				t.Errorf("%s: the first %d of %d bytes unpack without an error", ext, n, len(pkg))
			}
			root.Close()
		}
	}
}

func TestUnpackCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	pkg := archivetest.Deb("data.tar", archivetest.Tar(t, tar.Header{Name: "file"}))
	if err := unpackTo(ctx, bytes.NewReader(pkg), root, everything); err != context.Canceled && !strings.Contains(fmt.Sprint(err), "canceled") {
		t.Errorf("Unpack = %v; want context.Canceled", err)
	}
}

func FuzzWalk(f *testing.F) {
	data := archivetest.Tar(f, tar.Header{Name: "./boot/vmlinuz"}, tar.Header{Name: "./l", Typeflag: tar.TypeSymlink, Linkname: "boot"})
	for _, ext := range []string{"", ".gz", ".xz", ".zst"} {
		f.Add(archivetest.Deb("data.tar"+ext, archivetest.Compress(f, ext, data)))
	}
	f.Add(archivetest.Deb("other", nil))
	f.Fuzz(func(t *testing.T, pkg []byte) {
		const most = 1 << 20 // a few bytes may decompress to gigabytes
		_ = Walk(t.Context(), bytes.NewReader(pkg), int64(len(pkg)), func(e unpack.Entry, r io.Reader) error {
			n, err := io.Copy(io.Discard, io.LimitReader(r, most))
			if n > e.Size && e.Link == "" {
				t.Errorf("%s has %d bytes and says %d", e.Path, n, e.Size)
			}
			if n == most {
				return unpack.ErrStop
			}
			return err
		})
	})
}
