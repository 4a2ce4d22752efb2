//go:build lab && built

package lab

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crashlab/crashkit"
	"crashlab/crashkit/debuginfo"
	"crashlab/internal/deb"
	"crashlab/internal/rpm"
	"crashlab/internal/unpack"
	"crashlab/kconfig"
	"crashlab/kconfig/ikconfig"
	"crashlab/lab/blame"
	"crashlab/lab/kbuild"
	"crashlab/lab/kernels"
	"crashlab/lab/ledger"
	"crashlab/lab/store"
	"crashlab/lab/truth"
)

// These tests build kernels: the first time, some ten minutes of processor time
// for each. What is built stays in the cache.

// fetchBuilt builds spec, or takes it from the user's cache.
func fetchBuilt(t *testing.T, spec string) (*kernels.Kernel, *kbuild.Result) {
	t.Helper()
	k, err := kernels.New(userStore(t), nil, nil, kernels.Options{}).Fetch(t.Context(), spec)
	if err != nil {
		t.Fatalf("Fetch(%s): %v\n%s", spec, err, strings.Join(blame.Of(err).Look, "\n"))
	}
	r, err := buildResult(k)
	if err != nil || r == nil {
		t.Fatalf("buildResult(%s) = %v, %v; want what the build said", spec, r, err)
	}
	return k, r
}

func userStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open("", nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The kernel of the lab, and what others are made of it, crash as the scenario
// says, and the analyzer agrees with what the guest knew about itself.
func TestBuiltScenario(t *testing.T) {
	for _, spec := range []string{"source:6.1", "source:6.1+framepointer", "source:6.1+up", "source:6.1+nobtf"} {
		t.Run(spec, func(t *testing.T) {
			l := testLab(t)
			l.Settings.Kernel = spec
			run, dir, err := l.Run(t.Context(), scenario(t, "nullderef"))
			if err != nil || run.Verdict != ledger.Passed {
				t.Fatalf("Run(%s) = %s, %v\n%s", spec, run.Verdict, err, strings.Join(blame.Of(err).Look, "\n"))
			}
			p, err := crashkit.Open(filepath.Join(dir, vmcoreFile))
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			vmlinux, err := l.vmlinux(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			debug := debuginfo.New(p, filepath.Join(dir, vmcoreFile), vmlinux, nil)
			defer debug.Close()
			if err := debug.SupplyTypes(); err != nil {
				t.Error(err)
			}
			console, err := os.ReadFile(filepath.Join(dir, consoleFile))
			if err != nil {
				t.Fatal(err)
			}
			checked, differences := truth.Compare(os.DirFS(filepath.Join(dir, truthDir, "proc")), string(console), p)
			for _, d := range differences {
				t.Error(d)
			}
			t.Logf("compared with the guest's own view: %+v", checked)
		})
	}
}

// Packages that the kernel's own targets make hold the kernel that was built, and
// those of RPM, read back by rpm:, crash as it does.
func TestBuiltPackages(t *testing.T) {
	k, _ := fetchBuilt(t, "source:6.1")
	want := fileSum(t, k.Image)
	b, src, w, err := kernels.New(userStore(t), nil, nil, kernels.Options{}).Prepare(t.Context(), "source:6.1")
	if err != nil {
		t.Fatal(err)
	}
	images := 0
	for kind, find := range map[kbuild.PackageKind]func(context.Context, io.ReaderAt, int64, func(string) bool, func(unpack.Entry, io.Reader) error) error{
		kbuild.RPM: rpm.Find, kbuild.Deb: deb.Find,
	} {
		dir := mkdir(t, string(kind))
		made, err := b.Package(t.Context(), src, w, kind, dir)
		if err != nil {
			t.Fatalf("Package(%s): %v\n%s", kind, err, strings.Join(blame.Of(err).Look, "\n"))
		}
		for _, name := range made {
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			fi, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %d bytes", filepath.Base(name), fi.Size())
			err = find(t.Context(), f, fi.Size(), func(p string) bool { return p == "boot/vmlinuz-"+k.Release }, func(_ unpack.Entry, r io.Reader) error {
				h := sha256.New()
				_, err := io.Copy(h, r)
				if got := [32]byte(h.Sum(nil)); got != want {
					t.Errorf("%s has another image than was built", name)
				}
				images++
				return err
			})
			if err != nil && !errors.Is(err, rpm.ErrNotFound) && !errors.Is(err, deb.ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if kind != kbuild.RPM {
			continue
		}
		for _, s := range []string{"sysrq", "nullderef"} {
			l := testLab(t)
			l.Settings.Kernel = "rpm:" + dir
			run, _, err := l.Run(t.Context(), scenario(t, s))
			if err != nil || run.Verdict != ledger.Passed || run.Kernel.Release != k.Release {
				t.Errorf("Run(%s, %s) = %s of %s, %v\n%s", s, l.Settings.Kernel, run.Verdict, run.Kernel.Release, err, strings.Join(blame.Of(err).Look, "\n"))
			}
		}
	}
	if images != 2 {
		t.Errorf("%d packages have an image; want one of each kind", images)
	}
}

// What is promised of the lab's kernel.
func TestBuiltLab(t *testing.T) {
	k, r := fetchBuilt(t, "source:6.1")
	t.Logf("%+v", *r)
	if r.ImageBytes > 8<<20 {
		t.Errorf("the image has %d bytes; want at most 8 MiB", r.ImageBytes)
	}
	if r.CPU > 10*time.Minute && r.Toolchain.CCache == "" {
		t.Errorf("the build took %v of processor time; want at most 10 minutes", r.CPU)
	}
	c, err := kconfig.ReadFile(k.Config)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range c.Missing(kconfig.LabNeeds()) {
		t.Error(l)
	}
	began := time.Now()
	fetchBuilt(t, "source:6.1")
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("with nothing changed it took %v; want at most 3 s", d)
	}
}

// Another compression repeats only the last step, and packs the same kernel.
func TestBuiltCompression(t *testing.T) {
	lab, first := fetchBuilt(t, "source:6.1")
	want := unpacked(t, lab.Image)
	for _, c := range kconfig.Compressions() {
		if c == "none" {
			continue // x86 does not offer it
		}
		k, r := fetchBuilt(t, "source:6.1+"+string(c))
		t.Logf("%-5s %8d bytes, image step %v, %d files compiled", c, r.ImageBytes, r.ImageWall, r.Compiled)
		if r.Compression != c || r.Release != first.Release || r.BuildID != first.BuildID {
			t.Errorf("%s: compression %s, release %s, build ID %s; want the same kernel (%s, %s)", c, r.Compression, r.Release, r.BuildID, first.Release, first.BuildID)
		}
		if c != first.Compression && (r.Compiled > 60 || r.Wall > 80*time.Second || r.ImageWall > 40*time.Second) {
			t.Errorf("%s: %d files compiled in %v, image step %v; want only the image step, in 40 s", c, r.Compiled, r.Wall, r.ImageWall)
		}
		if unpacked(t, k.Image) != want {
			t.Errorf("%s: the image holds another kernel", c)
		}
	}
}

// unpacked returns a hash of the kernel in an image.
func unpacked(t *testing.T, image string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := ikconfig.Unpack(b)
	if err != nil {
		t.Fatalf("%s: %v", image, err)
	}
	return sha256.Sum256(kernel)
}

// A build that is interrupted goes on; built elsewhere, and without ccache, the
// kernel is the same to the last byte.
func TestBuiltAgain(t *testing.T) {
	lab, first := fetchBuilt(t, "source:6.1")
	b, src, want, err := kernels.New(userStore(t), nil, nil, kernels.Options{}).Prepare(t.Context(), "source:6.1")
	if err != nil {
		t.Fatal(err)
	}
	b.Work = filepath.Join(t.TempDir(), "a", "longer", "path")
	b.Toolchain.CCache = ""
	ctx, stop := contextAfter(t, b, 100)
	_, err = b.Build(ctx, src, want, t.TempDir())
	stop()
	if err == nil || ctx.Err() == nil {
		t.Fatalf("Build = %v; want that it was interrupted", err)
	}
	b.Progress = nil
	dest := mkdir(t, "dest")
	r, err := b.Build(t.Context(), src, want, dest)
	if err != nil {
		t.Fatal(err)
	}
	if r.Compiled > first.Compiled-50 && first.Compiled > 500 {
		t.Errorf("the second build compiled %d files, a whole one %d; want that it went on", r.Compiled, first.Compiled)
	}
	if r.BuildID != first.BuildID {
		t.Errorf("build ID %s; want %s as before", r.BuildID, first.BuildID)
	}
	if a, c := fileSum(t, lab.Image), fileSum(t, filepath.Join(dest, "boot/vmlinuz-"+r.Release)); a != c {
		t.Errorf("the image differs")
	}
}

// Every fragment is what this release can do, but for those that need another one.
func TestBuiltFragments(t *testing.T) {
	all, err := kconfig.Fragments()
	if err != nil {
		t.Fatal(err)
	}
	later := []string{"rt", "preempt-rt", "preempt-lazy", "none"} // need v6.12, v6.12, v6.13 and another architecture
	var names []string
	for _, f := range all {
		names = append(names, f.Name)
	}
	for _, p := range kconfig.Preemptions() {
		names = append(names, p.Fragment().Name)
	}
	names = append(names, "none")
	src := kernels.New(userStore(t), nil, nil, kernels.Options{})
	for _, n := range names {
		if slices.Contains(kconfig.Lab(), n) {
			continue
		}
		b, tree, want, err := src.Prepare(t.Context(), "source:6.1+"+n)
		if err != nil {
			t.Fatal(err)
		}
		b.Work = t.TempDir()
		c, err := b.Configure(t.Context(), tree, want)
		if slices.Contains(later, n) {
			if err == nil || len(blame.Of(err).Look) == 0 {
				t.Errorf("%s: %v, %q; want an explained refusal", n, err, blame.Of(err).Look)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v %q", n, err, blame.Of(err).Look)
			continue
		}
		for _, r := range c.Refusals {
			t.Errorf("%s: %v", n, r)
		}
	}
}

// What a menu changes becomes a fragment that gives the same configuration: here
// by a target of the kernel's that asks nobody.
func TestBuiltMenu(t *testing.T) {
	b, src, want, err := kernels.New(userStore(t), nil, nil, kernels.Options{}).Prepare(t.Context(), "source:6.1")
	if err != nil {
		t.Fatal(err)
	}
	b.Work = t.TempDir()
	f, err := b.Menu(t.Context(), src, want, "kvm_guest.config", "mine")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range f.Lines {
		names = append(names, l.Name)
	}
	for _, n := range []string{"KVM_GUEST", "NET", "VIRTIO_NET"} {
		if !slices.Contains(names, n) {
			t.Errorf("the fragment has %q; want %s in it, which kernel/configs/kvm_guest.config sets", names, n)
		}
	}
	if f, err := b.Menu(t.Context(), src, want, "olddefconfig", "mine"); f != nil || err != nil {
		t.Errorf("Menu that changes nothing = %v, %v; want nothing", f, err)
	}
}
