//go:build lab

package lab

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/rpmpack"

	"crashlab/internal/archivetest"
	"crashlab/lab/blame"
	"crashlab/lab/kernels"
	"crashlab/lab/ledger"
	"crashlab/lab/store"
)

// A real kernel in packages as Fedora has them, unpacked by rpm:, boots, is crashed
// and captured.
func TestRPMBoots(t *testing.T) {
	l := testLab(t)
	s, err := store.Open(l.Settings.Cache, nil)
	if err != nil {
		t.Fatal(err)
	}
	k, err := kernels.New(s, nil, nil, kernels.Options{}).Fetch(t.Context(), kernels.Default)
	if err != nil {
		t.Fatal(err)
	}
	packages := t.TempDir()
	pack := func(name string, files map[string]string) {
		t.Helper()
		var all []rpmpack.RPMFile
		for to, from := range files {
			b, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, rpmpack.RPMFile{Name: to, Body: b})
		}
		m := rpmpack.RPMMetaData{Name: name, Version: "6.1", Release: "1", Compressor: "zstd:fastest", Epoch: rpmpack.NoEpoch}
		if err := os.WriteFile(filepath.Join(packages, name+".rpm"), archivetest.RPM(t, m, nil, all...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dir := "/lib/modules/" + k.Release
	pack("kernel-core", map[string]string{dir + "/vmlinuz": k.Image, dir + "/config": k.Config})
	modules := make(map[string]string)
	err = filepath.WalkDir(k.Modules, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			modules[dir+strings.TrimPrefix(path, k.Modules)] = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	pack("kernel-modules", modules)

	l.Settings.Kernel = "rpm:" + packages
	run, _, err := l.Run(t.Context(), scenario(t, "sysrq"))
	if err != nil || run.Verdict != ledger.Passed || run.Kernel.Release != k.Release {
		t.Errorf("Run(rpm:) = %s of %s, %v; want passed of %s\n%s", run.Verdict, run.Kernel.Release, err, k.Release, strings.Join(blame.Of(err).Look, "\n"))
	}
}
