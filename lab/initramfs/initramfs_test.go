package initramfs

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crashlab/lab/wire"
	"github.com/cavaliergopher/cpio"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// entry is what a cpio archive says about one name.
type entry struct {
	Name    string
	Mode    int64
	Inode   int64
	Content string
}

func entries(t *testing.T, archive []byte) []entry {
	t.Helper()
	var out []entry
	r := cpio.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, entry{h.Name, int64(h.Mode), h.Inode, string(content)})
	}
}

func archive(t *testing.T, files []File) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, files); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWrite(t *testing.T) {
	source := filepath.Join(t.TempDir(), "vmlinuz")
	if err := os.WriteFile(source, []byte("kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := []File{
		{Name: "init", Mode: 0o755, Data: []byte("agent")},
		{Name: "a/b/c", Data: []byte("deep")},
		{Name: "a/vmlinuz", Source: source},
		{Name: "empty"},
	}
	got := archive(t, files)
	want := []entry{
		{"a", 0o40755, 1, ""},
		{"a/b", 0o40755, 2, ""},
		{"a/b/c", 0o100644, 3, "deep"},
		{"a/vmlinuz", 0o100644, 4, "kernel"},
		{"empty", 0o100644, 5, ""},
		{"init", 0o100755, 6, "agent"},
	}
	if diff := cmp.Diff(want, entries(t, got)); diff != "" {
		t.Errorf("archive (-want +got):\n%s", diff)
	}

	// The same bytes in any order, at any time, from any file's time.
	slices.Reverse(files)
	long := time.Unix(1, 0)
	if err := os.Chtimes(source, long, long); err != nil {
		t.Fatal(err)
	}
	if again := archive(t, files); !bytes.Equal(got, again) {
		t.Error("the same files in another order give other bytes")
	}
	if i := bytes.Index(got, []byte("070701")); i != 0 {
		t.Errorf("archive begins with %q", got[:6])
	}
	if mtime := string(got[6+5*8 : 6+6*8]); mtime != "00000000" {
		t.Errorf("time of the first entry = %s; want 00000000", mtime)
	}
}

func TestWriteBad(t *testing.T) {
	for name, files := range map[string][]File{
		"absolute":          {{Name: "/init"}},
		"above":             {{Name: "../init"}},
		"no name":           {{Name: ""}},
		"twice":             {{Name: "init"}, {Name: "init"}},
		"file then folder":  {{Name: "a"}, {Name: "a/b"}},
		"folder then file":  {{Name: "a/b"}, {Name: "a"}},
		"source is missing": {{Name: "a", Source: filepath.Join(t.TempDir(), "none")}},
	} {
		if err := Write(io.Discard, files); err == nil {
			t.Errorf("%s: Write() = nil error", name)
		}
	}
}

// ko makes a relocatable ELF file with a .modinfo section.
func ko(modinfo string) []byte {
	le := binary.LittleEndian
	const names = "\x00.modinfo\x00.shstrtab\x00"
	info := len(names) + 64
	table := (info + len(modinfo) + 7) &^ 7
	b := make([]byte, table+3*64)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 1)  // ET_REL
	le.PutUint16(b[18:], 62) // EM_X86_64
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[40:], uint64(table))
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[58:], 64)
	le.PutUint16(b[60:], 3)
	le.PutUint16(b[62:], 2) // .shstrtab
	copy(b[64:], names)
	copy(b[info:], modinfo)
	section := func(i int, name, kind uint32, off, size int) {
		h := b[table+64*i:]
		le.PutUint32(h, name)
		le.PutUint32(h[4:], kind)
		le.PutUint64(h[24:], uint64(off))
		le.PutUint64(h[32:], uint64(size))
	}
	section(1, 1, 1, info, len(modinfo))
	section(2, 10, 3, 64, len(names))
	return b
}

func pack(t *testing.T, ext string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch ext {
	case ".xz":
		w, err = xz.NewWriter(&b)
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

// tree makes a module tree from file names and what those modules need.
func tree(t *testing.T, depends map[string]string, builtin ...string) *Tree {
	t.Helper()
	dir := t.TempDir()
	for name, need := range depends {
		file := filepath.Join(dir, "kernel", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			t.Fatal(err)
		}
		data := ko("license=GPL\x00depends=" + need + "\x00retpoline=Y\x00")
		if err := os.WriteFile(file, pack(t, filepath.Ext(name), data), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	var list strings.Builder
	for _, b := range builtin {
		list.WriteString("kernel/" + b + "\n")
	}
	if err := os.WriteFile(filepath.Join(dir, "modules.builtin"), []byte(list.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	tr, err := OpenTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func names(modules []Module) []string {
	var out []string
	for _, m := range modules {
		out = append(out, m.Name)
	}
	return out
}

// virtio is what Debian's 6.1 has: virtio needs virtio_ring, not the reverse.
var virtio = map[string]string{
	"drivers/virtio/virtio.ko":                "virtio_ring",
	"drivers/virtio/virtio_ring.ko":           "",
	"drivers/virtio/virtio_pci.ko":            "virtio_ring,virtio_pci_modern_dev,virtio_pci_legacy_dev,virtio",
	"drivers/virtio/virtio_pci_modern_dev.ko": "",
	"drivers/virtio/virtio_pci_legacy_dev.ko": "",
	"drivers/block/virtio_blk.ko":             "virtio,virtio_ring",
}

func TestResolve(t *testing.T) {
	packed := map[string]string{}
	for name, need := range virtio {
		packed[name+map[int]string{0: ".xz", 1: ".zst", 2: ".gz"}[len(name)%3]] = need
	}
	for name, c := range map[string]struct {
		tree *Tree
		ask  []string
		want []string
	}{
		"virtio": {tree(t, virtio), []string{"virtio_blk", "virtio_pci"},
			[]string{"virtio_ring", "virtio", "virtio_blk", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci"}},
		"compressed": {tree(t, packed), []string{"virtio_blk"}, []string{"virtio_ring", "virtio", "virtio_blk"}},
		"dashes": {tree(t, map[string]string{"misc/pvpanic-pci.ko": "pvpanic", "misc/pvpanic.ko": ""}),
			[]string{"pvpanic-pci"}, []string{"pvpanic", "pvpanic_pci"}},
		"asked with underscores": {tree(t, map[string]string{"misc/pvpanic-pci.ko": ""}), []string{"pvpanic_pci"}, []string{"pvpanic_pci"}},
		"built in":               {tree(t, nil, "drivers/virtio/virtio-pci.ko"), []string{"virtio_pci"}, nil},
		"needs a built-in one":   {tree(t, map[string]string{"a.ko": "b,c", "c.ko": "b"}, "b.ko"), []string{"a"}, []string{"c", "a"}},
		"asked twice":            {tree(t, virtio), []string{"virtio", "virtio_ring", "virtio"}, []string{"virtio_ring", "virtio"}},
		"diamond": {tree(t, map[string]string{"a.ko": "b,c", "b.ko": "d", "c.ko": "d", "d.ko": ""}),
			[]string{"a"}, []string{"d", "b", "c", "a"}},
	} {
		got, err := c.tree.Resolve(c.ask...)
		if err != nil {
			t.Errorf("%s: Resolve(%q) = %v", name, c.ask, err)
			continue
		}
		if diff := cmp.Diff(c.want, names(got)); diff != "" {
			t.Errorf("%s: Resolve(%q) (-want +got):\n%s", name, c.ask, diff)
		}
		for _, m := range got {
			if !bytes.HasPrefix(m.Data, []byte("\x7fELF")) {
				t.Errorf("%s: module %s begins with %q", name, m.Name, m.Data[:4])
			}
		}
	}
}

func TestResolveBad(t *testing.T) {
	tr := tree(t, map[string]string{"virtio_blk.ko": "virtio", "virtio_pci.ko": "", "x.ko": "y", "y.ko": "z", "z.ko": "x"})
	if err := os.WriteFile(filepath.Join(tr.dir, "kernel", "text.ko"), []byte("text"), 0o666); err != nil {
		t.Fatal(err)
	}
	tr, err := OpenTree(tr.dir)
	if err != nil {
		t.Fatal(err)
	}
	for ask, want := range map[string]string{
		"virtio_bkl":      "near names: virtio_blk",
		"virtio_blk":      "module virtio, which virtio_blk needs, is not in",
		"nothing_like_it": "is not in",
		"x":               "needs itself",
		"text":            "read module text",
	} {
		if got, err := tr.Resolve(ask); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Resolve(%q) = %q, %v; want %q", ask, names(got), err, want)
		}
	}
}

func TestResolveFor(t *testing.T) {
	tr := tree(t, virtio)
	got, err := tr.ResolveFor(
		Module{"witness", ko("depends=virtio\x00")},
		Module{"crasher", ko("depends=witness,virtio_blk\x00")},
	)
	if diff := cmp.Diff([]string{"virtio_ring", "virtio", "virtio_blk"}, names(got)); diff != "" || err != nil {
		t.Errorf("ResolveFor() error %v (-want +got):\n%s", err, diff)
	}
}

func TestOpenTreeBad(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Join(dir, "none")} {
		if _, err := OpenTree(d); err == nil {
			t.Errorf("OpenTree(%s) = nil error", d)
		}
	}
}

func TestUnsignedKernel(t *testing.T) {
	le := binary.LittleEndian
	const entry = 0x40 + 24 + 112 + 8*4
	image := func(start, size, tail int) []byte {
		b := make([]byte, 512+tail)
		copy(b, "MZ")
		b[0x3c] = 0x40
		copy(b[0x40:], "PE\x00\x00")
		le.PutUint16(b[0x40+24:], 0x20b)
		le.PutUint32(b[0x40+24+108:], 6)
		le.PutUint32(b[entry:], uint32(start))
		le.PutUint32(b[entry+4:], uint32(size))
		return b
	}
	plain := image(0, 0, 0)
	for name, c := range map[string]struct {
		in   []byte
		want []byte
		ok   bool
	}{
		"signed":             {image(512, 64, 64), plain, true},
		"unsigned":           {plain, plain, true},
		"not PE":             {[]byte("\x7fELF"), []byte("\x7fELF"), true},
		"short":              {plain[:0x60], plain[:0x60], true},
		"elsewhere":          {image(100, 64, 64), nil, false},
		"past the end":       {image(512, 65, 64), nil, false},
		"before the end":     {image(512, 63, 64), nil, false},
		"header out of file": {append([]byte("MZ"), bytes.Repeat([]byte{0xff}, 100)...), append([]byte("MZ"), bytes.Repeat([]byte{0xff}, 100)...), true},
	} {
		got, err := UnsignedKernel(c.in)
		if (err == nil) != c.ok || c.ok && !bytes.Equal(got, c.want) {
			t.Errorf("%s: UnsignedKernel() = %d bytes, %v; want %d, ok %t", name, len(got), err, len(c.want), c.ok)
		}
	}
}

func TestImage(t *testing.T) {
	agent := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(agent, []byte("agent"), 0o600); err != nil {
		t.Fatal(err)
	}
	im := Image{
		Agent:   agent,
		Modules: []Module{{"b", []byte("B")}, {"a", []byte("A")}},
		Job:     wire.Job{Capture: &wire.CaptureJob{Disk: wire.CaptureDisk}},
		Files:   []File{{Name: "extra", Data: []byte("x")}},
	}
	var b bytes.Buffer
	if err := im.Write(&b); err != nil {
		t.Fatal(err)
	}
	got := map[string]entry{}
	for _, e := range entries(t, b.Bytes()) {
		got[e.Name] = e
	}
	if e := got["init"]; e.Content != "agent" || e.Mode != 0o100755 {
		t.Errorf("init = %+v; want the agent, executable", e)
	}
	job, err := wire.ParseJob([]byte(got["job.json"].Content))
	if err != nil {
		t.Fatal(err)
	}
	want := &wire.Job{
		Modules: []wire.Module{{Path: "/modules/b.ko"}, {Path: "/modules/a.ko"}},
		Capture: &wire.CaptureJob{Disk: "capture"},
	}
	if diff := cmp.Diff(want, job); diff != "" {
		t.Errorf("job (-want +got):\n%s", diff)
	}
	for _, m := range job.Modules {
		if _, ok := got[m.Path[1:]]; !ok {
			t.Errorf("the image has no %s", m.Path)
		}
	}

	im.Job = wire.Job{}
	if err := im.Write(io.Discard); err == nil {
		t.Error("Write of an image with an empty job = nil error")
	}
}

// The agent must be small, for it is loaded, copied and summed up twice by an
// emulated processor, and the same each time, for it is part of cached images.
func TestBuildAgent(t *testing.T) {
	dir := t.TempDir()
	build := func(name string) []byte {
		out := filepath.Join(dir, name)
		if err := BuildAgent(context.Background(), "go", ".", "amd64", out); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	one := build("one")
	if !bytes.Equal(one, build("two")) {
		t.Error("two builds of the agent differ")
	}
	if limit := 2_500_000; len(one) > limit {
		t.Errorf("the agent has %d bytes; want at most %d", len(one), limit)
	}
	if err := BuildAgent(context.Background(), "go", filepath.Join(dir, "none"), "amd64", filepath.Join(dir, "three")); err == nil {
		t.Error("BuildAgent in a missing folder = nil error")
	}
}
