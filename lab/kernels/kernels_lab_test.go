//go:build lab

package kernels

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crashlab/kconfig"
	"crashlab/lab/store"
)

// The default kernel, from the archive or the user's cache, is one to crash.
func TestFetchDefault(t *testing.T) {
	s, err := store.Open("", nil)
	if err != nil {
		t.Fatal(err)
	}
	src := New(s, nil, nil, Options{})
	plan, err := src.Resolve(t.Context(), Default)
	if err != nil {
		t.Fatal(err)
	}
	k, err := src.Fetch(t.Context(), Default)
	if err != nil {
		t.Fatal(err)
	}
	if k.Release != plan.Release || !strings.HasSuffix(k.Release, "-cloud-amd64") {
		t.Errorf("release = %q; want %q, of flavour %s", k.Release, plan.Release, "cloud-amd64")
	}
	if !strings.Contains(k.Compiler, plan.Compiler) || plan.Compiler == "" {
		t.Errorf("compiler = %q; want the %q that the headers ask for", k.Compiler, plan.Compiler)
	}

	// The boot protocol's magic (Documentation/arch/x86/boot.rst), and behind
	// the offset at 0x20e, plus 0x200, the release.
	image, err := os.Open(k.Image)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	head := make([]byte, 0x8000)
	if _, err := io.ReadFull(image, head); err != nil {
		t.Fatal(err)
	}
	if got := string(head[0x202:0x206]); got != "HdrS" {
		t.Errorf("magic of %s = %q; want HdrS", k.Image, got)
	}
	if at := int(head[0x20e]) + int(head[0x20f])<<8 + 0x200; at >= len(head) || !strings.HasPrefix(string(head[at:]), k.Release+" ") {
		t.Errorf("version at %#x of %s is not that of %s", at, k.Image, k.Release)
	}

	c, err := kconfig.ReadFile(k.Config)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range c.Missing(kconfig.LabNeeds()) {
		t.Error(l)
	}
	if found, err := filepath.Glob(k.Modules + "/kernel/drivers/block/virtio_blk.ko*"); len(found) != 1 || err != nil {
		t.Errorf("virtio_blk in %s: %q, %v; want one", k.Modules, found, err)
	}
	if _, err := os.Stat(k.Headers + "/include/generated/autoconf.h"); err != nil {
		t.Errorf("headers: %v", err)
	}
}
