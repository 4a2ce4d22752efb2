package lab

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"crashlab/lab/blame"
	"crashlab/lab/settings"
	"crashlab/lab/store"
)

// What the cache has is listed with sizes; what was not used for long is
// removed, and what is in use, or was used, is not.
func TestKernelCache(t *testing.T) {
	dir := t.TempDir()
	l := &Lab{Settings: settings.Settings{Cache: dir}}
	s, err := store.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	long := time.Now().AddDate(0, 0, -30)
	age := func(names ...string) {
		t.Helper()
		for _, n := range names {
			if err := os.Chtimes(n, long, long); err != nil {
				t.Fatal(err)
			}
		}
	}
	entry := func(kind, name string, old bool) {
		t.Helper()
		files, _, err := s.Get(t.Context(), store.Key{Kind: kind, Name: name, Inputs: []string{name}}, func(_ context.Context, dir string) error {
			return os.WriteFile(filepath.Join(dir, "file"), make([]byte, 2_000_000), 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
		if old {
			age(filepath.Join(filepath.Dir(files), "manifest"))
		}
	}
	tree := func(name string, old bool) string {
		t.Helper()
		dir := filepath.Join(s.Area("kbuild"), name)
		file := filepath.Join(dir, "vmlinux")
		for _, err := range []error{os.MkdirAll(dir, 0o755), os.WriteFile(file, make([]byte, 3_000_000), 0o644), os.WriteFile(dir+".lock", nil, 0o644)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if old {
			age(file, dir)
		}
		return dir
	}
	entry("kernel", "old", true)
	entry("kernel", "new", false)
	entry("module", "hello", false)
	tree("tree-old", true)
	tree("tree-new", false)
	busy := flock.New(tree("tree-busy", true) + ".lock")
	if err := busy.Lock(); err != nil {
		t.Fatal(err)
	}
	defer busy.Close()

	var b bytes.Buffer
	if err := l.KernelCached(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"object tree  tree-old", "3.0 MB   30 days ago", "kernel       new-", "1 others", "15.0 MB"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("KernelCached has no %q:\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "hello") || strings.Contains(b.String(), ".lock") {
		t.Errorf("KernelCached lists what is small, or locks:\n%s", b.String())
	}
	b.Reset()
	if err := l.KernelPrune(t.Context(), &b, 14); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"removed object tree tree-old", "removed kernel old-", "in use: object tree tree-busy", "5.0 MB freed"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("KernelPrune says no %q:\n%s", want, b.String())
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "*/k*/*"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, n := range left {
		if n = filepath.Base(n); filepath.Ext(n) != ".lock" {
			names = append(names, strings.SplitN(n, "-", 3)[0]+strings.TrimPrefix(n, "tree")[:4])
		}
	}
	if got := strings.Join(names, " "); got != "tree-bus tree-new newnew-" {
		t.Errorf("left: %s; want tree-busy, tree-new and the kernel new", got)
	}
	if err := l.KernelPrune(t.Context(), &b, -1); err == nil || blame.Of(err).Party != blame.Usage {
		t.Errorf("KernelPrune(-1) = %v; want a usage error", err)
	}
}
