package ikconfig

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crashlab/kconfig"
)

// image wraps a packed kernel in as much of a bzImage as says where it is.
func image(payload []byte) []byte {
	b := make([]byte, 4*512+0x40)
	b[0x1f1] = 3
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x206:], 0x20f)
	binary.LittleEndian.PutUint32(b[0x248:], 0x40)
	binary.LittleEndian.PutUint32(b[0x24c:], uint32(len(payload)))
	return append(b, payload...)
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What the programs of the kernel's build pack is unpacked to the same bytes.
func TestUnpack(t *testing.T) {
	want := read(t, "payload")
	for _, c := range kconfig.Compressions() {
		packed := want
		if c != "none" {
			packed = read(t, "payload."+string(c))
		}
		got, err := Unpack(image(packed))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("Unpack(%s) = %d bytes, %v; want the %d of the payload", c, len(got), err, len(want))
		}
		if c == "none" {
			continue
		}
		if got, err := Unpack(image(packed[:len(packed)/2])); err == nil && bytes.Equal(got, want) {
			t.Errorf("Unpack of half of %s = the whole payload", c)
		}
		if _, err := Unpack(image(packed)[:1000+len(packed)]); err == nil {
			t.Errorf("Unpack(%s) of an image that is cut short = nil; want an error", c)
		}
	}
}

func TestFind(t *testing.T) {
	payload := read(t, "payload")
	var text bytes.Buffer
	z := gzip.NewWriter(&text)
	if _, err := z.Write([]byte("CONFIG_LOCALVERSION=\"-lab\"\n")); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"a bzImage": image(read(t, "payload.zstd")), "a vmlinux": payload, "config.gz": text.Bytes(), "a .config": []byte("CONFIG_LOCALVERSION=\"-lab\"\n"),
	} {
		c, err := Find(b)
		if err != nil {
			t.Errorf("Find(%s): %v", name, err)
			continue
		}
		if v, err := c.Str("LOCALVERSION"); v != "-lab" {
			t.Errorf("Find(%s): LOCALVERSION is %q, %v; want -lab", name, v, err)
		}
	}
	if _, err := Find(bytes.ReplaceAll(payload, []byte("IKCFG_ST\x1f"), []byte("IKCFG_XX\x1f"))); !errors.Is(err, ErrNone) {
		t.Errorf("Find without a configuration = %v; want ErrNone", err)
	}
	damaged := bytes.Clone(payload)
	at := bytes.Index(damaged, []byte("IKCFG_ST\x1f"))
	copy(damaged[at+30:], "damaged")
	for name, b := range map[string][]byte{"damaged": damaged, "a web page": []byte("<html>\n"), "half a gzip": text.Bytes()[:20], "packed twice": pack(pack(nil))} {
		if c, err := Find(b); err == nil || errors.Is(err, ErrNone) {
			t.Errorf("Find(%s) = %v, %v; want an error of its own", name, c, err)
		}
	}
	if _, err := ReadFile("testdata/absent"); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("ReadFile(absent) = %v; want an error with its name", err)
	}
}

func pack(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(b)
	_ = z.Close()
	return out.Bytes()
}

func FuzzFind(f *testing.F) {
	files, err := filepath.Glob("testdata/payload.*")
	if err != nil || len(files) == 0 {
		f.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(image(b))
	}
	f.Add([]byte("CONFIG_A=y\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if isImage(b) && len(b) >= 4 { // a claim of a gigabyte is bounded, but slow
			if binary.LittleEndian.Uint32(b[len(b)-4:]) > 1<<22 {
				return
			}
		}
		c, err := Find(b)
		if (err == nil) != (c != nil) {
			t.Fatalf("Find = %v, %v; want one of them", c, err)
		}
	})
}
