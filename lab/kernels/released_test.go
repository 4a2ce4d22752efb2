package kernels

import (
	"archive/tar"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"crashlab/internal/archivetest"
	"crashlab/internal/pgp"
	"crashlab/lab/blame"
	"crashlab/lab/kbuild"
	"crashlab/lab/kernelorg"
	"crashlab/lab/kernelorg/orgtest"
	"crashlab/lab/store"
)

// sourceTar is the archive of a release, as far as it matters here.
func sourceTar(t *testing.T, version string) []byte {
	t.Helper()
	v := strings.Split(version+".0", ".")
	text := "# SPDX-License-Identifier: GPL-2.0\nVERSION = " + v[0] + "\nPATCHLEVEL = " + v[1] + "\nSUBLEVEL = " + v[2] + "\nEXTRAVERSION =\n"
	return archivetest.Tar(t,
		tar.Header{Name: "linux-" + version + "/Makefile", PAXRecords: map[string]string{"test.content": text}},
		tar.Header{Name: "linux-" + version + "/scripts/run", Mode: 0o755},
		tar.Header{Name: "linux-" + version + "/padding", PAXRecords: map[string]string{"test.content": strings.Repeat(version, 1<<17)}})
}

// released returns providers that know m and other mirrors before it, and no others.
func released(t *testing.T, m *orgtest.Mirror, before ...string) *Sources {
	t.Helper()
	s, err := store.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	src := New(s, nil, nil, Options{Mirrors: append(before, m.URL)})
	keys := kernelorg.Keys{Sums: m.Sums.Ring, Releases: m.Release.Ring}
	r := src.providers["source"].(*built).trees.(releasedTrees)
	r.org.site.Keys = keys
	r.debian = fakeTrees{}
	src.providers["source"].(*built).trees = r
	return src
}

// fakeTrees is the distribution's: it has 6.1.1.
type fakeTrees struct{}

var errFake = errors.New("from the distribution")

func (fakeTrees) forms() []Form { return nil }
func (fakeTrees) plan(_ context.Context, want string, _ bool) (treePlan, error) {
	if !strings.HasPrefix("6.1.1", want) {
		return treePlan{}, blame.New(blame.Usage, "kernel", errFake)
	}
	return treePlan{want: want, version: "6.1.1", id: "distribution"}, nil
}
func (fakeTrees) tree(context.Context, treePlan) (kbuild.Source, error) {
	return kbuild.Source{}, errFake
}

// source: is kernel.org's newest release, downloaded and unpacked once; a
// download that broke off goes on.
func TestReleased(t *testing.T) {
	m := orgtest.New(t)
	m.Put(t, "6.1.10", sourceTar(t, "6.1.10"))
	archive := "/v6.x/linux-6.1.10.tar.xz"
	m.Drop(archive)
	src := released(t, m)
	plan, err := src.Resolve(t.Context(), "source:6.1")
	if err != nil || plan.Release != "6.1.10-lab" || len(plan.Packages) != 1 {
		t.Fatalf("Resolve = %+v, %v; want 6.1.10-lab", plan, err)
	}
	for range 2 {
		_, tree, _, err := src.Prepare(t.Context(), "source:6.1+xz")
		if err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(filepath.Join(tree.Dir, "scripts/run"))
		if err != nil || fi.Mode()&0o100 == 0 || tree.Version != "6.1.10" {
			t.Errorf("%+v: %v, %v; want 6.1.10 with its programs", tree, fi, err)
		}
	}
	var got []string
	for _, a := range m.Asked() {
		if strings.HasPrefix(a, archive) {
			got = append(got, a)
		}
	}
	if len(got) != 2 || got[0] != archive || !strings.HasPrefix(got[1], archive+" bytes=") || strings.HasSuffix(got[1], "=0-") {
		t.Errorf("asked for %q; want the archive once, and its rest", got)
	}
}

// The first release of a series has two numbers, its kernel three.
func TestReleasedFirst(t *testing.T) {
	m := orgtest.New(t)
	m.Put(t, "7.0", sourceTar(t, "7.0"))
	src := released(t, m)
	plan, err := src.Resolve(t.Context(), "source:7.0")
	if err != nil || plan.Release != "7.0.0-lab" {
		t.Fatalf("Resolve = %+v, %v; want 7.0.0-lab", plan, err)
	}
	if _, tree, _, err := src.Prepare(t.Context(), "source:7.0"); err != nil || tree.Version != plan.Version {
		t.Errorf("Prepare = %+v, %v; want version %s", tree, err, plan.Version)
	}
}

// Mirrors that are down, have nothing, or an archive that is cut are passed over.
func TestReleasedMirrors(t *testing.T) {
	empty, cut, m := orgtest.New(t), orgtest.New(t), orgtest.New(t)
	packed := m.Put(t, "6.1.10", sourceTar(t, "6.1.10"))
	cut.Files["/v6.x/linux-6.1.10.tar.xz"] = packed[:len(packed)/2]
	src := released(t, m, "http://127.0.0.1:1", empty.URL, cut.URL)
	if _, tree, _, err := src.Prepare(t.Context(), "source:6.1"); err != nil || tree.Version != "6.1.10" {
		t.Errorf("Prepare = %+v, %v; want 6.1.10 from the last mirror", tree, err)
	}
	if !slices.Contains(cut.Asked(), "/v6.x/linux-6.1.10.tar.xz") {
		t.Errorf("the mirror with the cut archive was asked for %q", cut.Asked())
	}
}

// What is not rightly signed is an error, and nothing of it stays in the cache.
func TestReleasedRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(m *orgtest.Mirror)
		want  error
		text  string
	}{
		"list signed by another": {func(m *orgtest.Mirror) {
			m.Files["/v6.x/sha256sums.asc"] = m.Release.Clear(t, "")
		}, pgp.ErrUnknownKey, ""},
		"archive signed by another": {func(m *orgtest.Mirror) {
			m.Files["/v6.x/linux-6.1.10.tar.sign"] = m.Sums.Detached(t, sourceTar(t, "6.1.10"))
		}, pgp.ErrUnknownKey, ""},
		"signature of another archive": {func(m *orgtest.Mirror) {
			m.Files["/v6.x/linux-6.1.10.tar.sign"] = m.Release.Detached(t, sourceTar(t, "6.1.9"))
		}, pgp.ErrBad, ""},
		"archive cut": {func(m *orgtest.Mirror) {
			name := "/v6.x/linux-6.1.10.tar.xz"
			m.Files[name] = m.Files[name][:1000]
		}, nil, "SHA-256"},
	} {
		t.Run(name, func(t *testing.T) {
			m := orgtest.New(t)
			m.Put(t, "6.1.10", sourceTar(t, "6.1.10"))
			tt.spoil(m)
			src := released(t, m)
			_, _, _, err := src.Prepare(t.Context(), "source:6.1")
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) || blame.Of(err).Party != blame.Infrastructure {
				t.Errorf("Prepare = %v; want %v %s, the fault of the infrastructure", err, tt.want, tt.text)
			}
			if left, err := filepath.Glob(filepath.Join(src.store.Dir(), "entry/source/*")); len(left) > 0 || err != nil {
				t.Errorf("in the cache: %v, %v; want nothing", left, err)
			}
		})
	}
}

// Where kernel.org cannot be reached, source: is the distribution's; kernel.org is
// left alone for a while after that.
func TestReleasedUnreachable(t *testing.T) {
	m := orgtest.New(t)
	m.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.ServeHTTP(httpDenied{w}, r)
	})
	src := released(t, m)
	for range 2 {
		plan, err := src.Resolve(t.Context(), "source:6.1")
		if err != nil || plan.Release != "6.1.1-lab" {
			t.Fatalf("Resolve = %+v, %v; want the distribution's 6.1.1", plan, err)
		}
	}
	if n := len(m.Asked()); n != 1 {
		t.Errorf("%d requests; want one", n)
	}
	if _, _, _, err := src.Prepare(t.Context(), "source:6.1"); !errors.Is(err, errFake) {
		t.Errorf("Prepare = %v; want the distribution's tree", err)
	}
	_, err := src.Resolve(t.Context(), "source:6.19")
	if !errors.Is(err, errFake) || !strings.Contains(strings.Join(blame.Of(err).Look, "\n"), "403") {
		t.Errorf("Resolve(6.19) = %v, %q; want both reasons", err, blame.Of(err).Look)
	}
}

// httpDenied answers as the proxy of a closed network.
type httpDenied struct{ http.ResponseWriter }

func (d httpDenied) WriteHeader(int) { d.ResponseWriter.WriteHeader(http.StatusForbidden) }
