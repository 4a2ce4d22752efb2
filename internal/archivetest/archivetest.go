// Package archivetest makes archives for tests.
package archivetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"testing"

	"github.com/google/rpmpack"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Tar returns an archive of entries: regular files unless they say
// otherwise, with their name as content.
func Tar(t testing.TB, entries ...tar.Header) []byte {
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

// Compress returns data in the format of the file name extension ext: ".xz", ".zst" or ".gz"; or
// as it is.
func Compress(t testing.TB, ext string, data []byte) []byte {
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

// RPM returns an RPM package of files; m.Compressor is "gzip", "xz", "lzma" or "zstd". It is
// signed by sign unless that is nil.
func RPM(t testing.TB, m rpmpack.RPMMetaData, sign func([]byte) ([]byte, error), files ...rpmpack.RPMFile) []byte {
	t.Helper()
	if m.OS == "" {
		m.OS = "linux"
	}
	if m.Arch == "" {
		m.Arch = "x86_64"
	}
	p, err := rpmpack.NewRPM(m)
	if err != nil {
		t.Fatal(err)
	}
	if sign != nil {
		p.SetPGPSigner(sign)
	}
	for _, f := range files {
		if f.Mode == 0 {
			f.Mode = 0o644
		}
		p.AddFile(f)
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Deb returns a Debian package whose data is the compressed archive.
func Deb(name string, data []byte) []byte {
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
