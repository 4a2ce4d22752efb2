package kernels

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
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
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// tarball returns an archive of entries: regular files unless they say
// otherwise, with their name as content.
func tarball(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		var body []byte
		if h.Typeflag == 0 || h.Typeflag == tar.TypeReg {
			h.Typeflag = tar.TypeReg
			body = []byte("content of " + h.Name)
			if s, ok := h.PAXRecords["test.content"]; ok {
				body, h.PAXRecords = []byte(s), nil
			}
		}
		h.Size = int64(len(body))
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func compress(t testing.TB, ext string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch ext {
	case ".xz":
		w, err = xz.WriterConfig{DictCap: 1 << 16}.NewWriter(&b)
	case ".zst":
		w, err = zstd.NewWriter(&b)
	case ".gz":
		w = gzip.NewWriter(&b)
	default:
		return data
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// deb returns a Debian package whose data is the compressed archive.
func deb(name string, data []byte) []byte {
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	add := func(name string, data []byte) {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, 0, 0, 0, "100644", len(data))
		b.Write(data)
		if len(data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	add("debian-binary", []byte("2.0\n"))
	add("control.tar.gz", []byte("odd"))
	add(name, data)
	return b.Bytes()
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
	err = unpackDeb(t.Context(), bytes.NewReader(pkg), root, keep)
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

func TestUnpackDeb(t *testing.T) {
	data := tarball(t,
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
		got, err := unpacked(t, deb("data.tar"+ext, compress(t, ext, data)), keep)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("data.tar%s: %v (-want +got):\n%s", ext, err, diff)
		}
	}
}

func TestUnpackDebMode(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	data := tarball(t, tar.Header{Name: "objtool", Mode: 0o4755}, tar.Header{Name: "secret", Mode: 0})
	if err := unpackDeb(t.Context(), bytes.NewReader(deb("data.tar", data)), root, everything); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"objtool": 0o755, "secret": 0o644} {
		if fi, err := root.Stat(name); err != nil || fi.Mode()&^0o022 != want&^0o022 {
			t.Errorf("mode of %s = %v, %v; want %v", name, fi.Mode(), err, want)
		}
	}
}

func TestUnpackDebRefuses(t *testing.T) {
	one := func(h tar.Header) []byte { return deb("data.tar", tarball(t, h)) }
	whole := deb("data.tar.gz", compress(t, ".gz", tarball(t, tar.Header{Name: "file"})))
	flipped := slices.Clone(whole)
	flipped[len(flipped)-6] ^= 1 // in gzip's checksum
	tests := []struct {
		name string
		pkg  []byte
		want string
	}{
		{"path to the parent", one(tar.Header{Name: "../evil"}), "outside of the package"},
		{"path through a directory", one(tar.Header{Name: "a/../../evil"}), "outside of the package"},
		{"absolute path", one(tar.Header{Name: "/etc/evil"}), "outside of the package"},
		{"link to the parent", one(tar.Header{Name: "a/l", Typeflag: tar.TypeSymlink, Linkname: "../../x"}), "outside of the package"},
		{"file through a link", deb("data.tar", tarball(t,
			tar.Header{Name: "d", Typeflag: tar.TypeSymlink, Linkname: "e"},
			tar.Header{Name: "d/../../x", Typeflag: tar.TypeReg})), "outside of the package"},
		{"hard link to the parent", one(tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "../x"}), "escapes"},
		{"the same file twice", deb("data.tar", tarball(t, tar.Header{Name: "f"}, tar.Header{Name: "f"})), "exists"},
		{"device", one(tar.Header{Name: "null", Typeflag: tar.TypeChar}), "unexpected type"},
		{"not a package", []byte("<html>404</html>"), "not a Debian package"},
		{"empty", nil, "not a Debian package"},
		{"no data", deb("other", nil), "no data.tar"},
		{"bad size", bytes.Replace(whole, []byte("3         `"), []byte("x         `"), 1), "damaged"},
		{"size past the end", bytes.Replace(whole, []byte("3         `"), []byte("999999999 `"), 1), "unexpected EOF"},
		{"unknown compression", deb("data.tar.lz9", nil), "unknown compression"},
		{"wrong compression", deb("data.tar.xz", []byte("not xz at all")), "data.tar.xz"},
		{"checksum", flipped, "checksum"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := unpacked(t, tt.pkg, everything); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("unpackDeb = %v, %v; want %q", got, err, tt.want)
			}
		})
	}
}

// A header may claim any size; what would not fit is refused before a byte of
// it is written.
func TestUnpackDebTooLarge(t *testing.T) {
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Size: maxUnpacked + 1}); err != nil {
		t.Fatal(err)
	}
	got, err := unpacked(t, deb("data.tar", b.Bytes()), everything)
	if !errors.Is(err, errTooLarge) || len(got) > 0 {
		t.Errorf("unpackDeb = %v, %v; want nothing, and %v", got, err, errTooLarge)
	}
}

// A package that ends anywhere too early is an error.
func TestUnpackDebTruncated(t *testing.T) {
	var entries []tar.Header
	for i := range 20 {
		entries = append(entries, tar.Header{Name: fmt.Sprintf("dir/file%d", i)})
	}
	for _, ext := range []string{".xz", ".zst", ".gz"} {
		pkg := deb("data.tar"+ext, compress(t, ext, tarball(t, entries...)))
		for n := 0; n < len(pkg)-1; n += 3 { // the last byte may be padding
			root, err := os.OpenRoot(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if err := unpackDeb(t.Context(), bytes.NewReader(pkg[:n]), root, everything); err == nil {
				t.Errorf("%s: the first %d of %d bytes unpack without an error", ext, n, len(pkg))
			}
			root.Close()
		}
	}
}

func TestUnpackDebCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	pkg := deb("data.tar", tarball(t, tar.Header{Name: "file"}))
	if err := unpackDeb(ctx, bytes.NewReader(pkg), root, everything); err != context.Canceled && !strings.Contains(fmt.Sprint(err), "canceled") {
		t.Errorf("unpackDeb = %v; want context.Canceled", err)
	}
}

func TestKeep(t *testing.T) {
	for name, want := range map[string]bool{
		"boot/vmlinuz-6.1.0-56-cloud-amd64":                               true,
		"usr/src/linux-headers-6.1.0-56-common/include/linux/sched.h":     true,
		"usr/src/linux-headers-6.1.0-56-common/arch/x86/Makefile":         true,
		"usr/src/linux-headers-6.1.0-56-common/arch/arm64/Makefile":       false,
		"usr/src/linux-headers-6.1.0-56-common/include/arch/arm64/x.h":    true,
		"usr/share/doc/linux-image-6.1.0-56-cloud-amd64/copyright":        false,
		"usr/lib/modules/7.2.13+deb14-cloud-amd64/kernel/arch/x86/kvm.ko": true,
	} {
		if got := keep(name); got != want {
			t.Errorf("keep(%q) = %v; want %v", name, got, want)
		}
	}
}

func FuzzFindMember(f *testing.F) {
	f.Add(deb("data.tar.gz", []byte("odd")))
	f.Add(deb("other", nil))
	f.Fuzz(func(t *testing.T, pkg []byte) {
		name, member, err := findMember(bytes.NewReader(pkg), "data.tar")
		if (err == nil) != (member != nil) {
			t.Fatalf("findMember = %q, %v, %v; want a member or an error", name, member, err)
		}
		if err != nil {
			return
		}
		want := member.left
		got, err := io.ReadAll(member)
		if int64(len(got)) > want || err == nil && int64(len(got)) != want {
			t.Errorf("member of %d bytes reads as %d, %v", want, len(got), err)
		}
	})
}
