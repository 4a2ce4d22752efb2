package kernels

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func suite(t *testing.T, name string) *available {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	all, err := parseStanzas(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if name == "resolute.txt" {
		return newAvailable(ubuntuDist, all)
	}
	return newAvailable(debianDist, all)
}

func TestChoose(t *testing.T) {
	common61 := []string{"linux-headers-6.1.0-56-cloud-amd64=6.1.192-2", "linux-headers-6.1.0-56-common=6.1.192-2",
		"linux-image-6.1.0-56-cloud-amd64=6.1.192-2", "linux-kbuild-6.1=6.1.192-2"}
	trixie := []string{"linux-headers-6.12.107+deb13-cloud-amd64=6.12.107-1", "linux-headers-6.12.107+deb13-common=6.12.107-1",
		"linux-image-6.12.107+deb13-cloud-amd64=6.12.107-1", "linux-kbuild-6.12.107+deb13=6.12.107-1"}
	sid := []string{"linux-base-7.2.13+deb14-cloud-amd64=7.2.13-1", "linux-binary-7.2.13+deb14-cloud-amd64=7.2.13-1",
		"linux-headers-7.2.13+deb14-cloud-amd64=7.2.13-1", "linux-headers-7.2.13+deb14-common=7.2.13-1",
		"linux-image-7.2.13+deb14-cloud-amd64=7.2.13-1", "linux-kbuild-7.2.13+deb14=7.2.13-1", "linux-modules-7.2.13+deb14-cloud-amd64=7.2.13-1"}
	resolute := []string{"linux-headers-7.0.0-14=7.0.0-14.14", "linux-headers-7.0.0-14-generic=7.0.0-14.14",
		"linux-image-7.0.0-14-generic=7.0.0-14.14", "linux-modules-7.0.0-14-generic=7.0.0-14.14"}
	tests := []struct {
		suite, want       string
		release, compiler string
		packages          []string
	}{
		{"bookworm.txt", "", "6.1.0-56-cloud-amd64", "gcc-12", common61},
		{"bookworm.txt", "6.1", "6.1.0-56-cloud-amd64", "gcc-12", common61},
		{"bookworm.txt", "6", "6.12.117+deb12-cloud-amd64", "gcc-12", nil},
		{"bookworm.txt", "6.1.0-56", "6.1.0-56-cloud-amd64", "gcc-12", common61},
		{"bookworm.txt", "6.1.0-56-cloud-amd64", "6.1.0-56-cloud-amd64", "gcc-12", common61},
		{"bookworm.txt", "6.1.0-47", "6.1.0-47-cloud-amd64", "gcc-12", []string{
			"linux-headers-6.1.0-47-cloud-amd64=6.1.170-3", "linux-headers-6.1.0-47-common=6.1.170-3",
			"linux-image-6.1.0-47-cloud-amd64=6.1.170-3", "linux-kbuild-6.1=6.1.192-2"}},
		{"bookworm.txt", "6.12", "6.12.117+deb12-cloud-amd64", "gcc-12", nil},
		{"bookworm.txt", "6.12.113", "6.12.113+deb12-cloud-amd64", "gcc-12", nil},
		{"bookworm.txt", "6.1-amd64", "6.1.0-56-amd64", "gcc-12", nil},
		{"sid.txt", "", "7.2.13+deb14-cloud-amd64", "gcc-16", sid},
		{"sid.txt", "6.12", "6.12.107+deb13-cloud-amd64", "gcc-14", trixie},
		{"resolute.txt", "", "7.0.0-14-generic", "", resolute},
		{"resolute.txt", "7.0", "7.0.0-14-generic", "", resolute},
		{"resolute.txt", "7.0.0-14-generic", "7.0.0-14-generic", "", resolute},
	}
	for _, tt := range tests {
		t.Run(tt.suite+":"+tt.want, func(t *testing.T) {
			p, err := suite(t, tt.suite).choose(tt.want)
			if err != nil {
				t.Fatalf("choose(%q) = %v", tt.want, err)
			}
			if p.Release != tt.release || p.Compiler != tt.compiler {
				t.Errorf("choose(%q) = %s, compiler %q; want %s, %q", tt.want, p.Release, p.Compiler, tt.release, tt.compiler)
			}
			var got []string
			for _, q := range p.Packages {
				got = append(got, q.Name+"="+q.Version)
				if len(q.SHA256) != 64 || q.Size == 0 {
					t.Errorf("%s has hash %q and size %d; want both", q.Name, q.SHA256, q.Size)
				}
			}
			if diff := cmp.Diff(tt.packages, got); tt.packages != nil && diff != "" {
				t.Errorf("packages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestChooseNone(t *testing.T) {
	av := suite(t, "bookworm.txt")
	for want, say := range map[string]string{
		"6.5":      "no such Debian kernel",
		"6.1.0-5":  "no such Debian kernel", // not the beginning of 6.1.0-56
		"7":        "no such Debian kernel",
		"6.1.0-48": "there is no package linux-headers-6.1.0-48-cloud-amd64 for 6.1.0-48-cloud-amd64", // the archive dropped it
	} {
		if p, err := av.choose(want); err == nil || err.Error() != say {
			t.Errorf("choose(%q) = %v, %v; want %q", want, p, err, say)
		}
	}
	if p, err := suite(t, "resolute.txt").choose("6.17"); err == nil || err.Error() != "no such Ubuntu kernel" {
		t.Errorf("choose(6.17) = %v, %v; want none", p, err)
	}
	if p, err := newAvailable(debianDist, nil).choose(""); err == nil {
		t.Errorf("choose from nothing = %v; want an error", p)
	}
}

// The meta-package says which kernel is the default, even if there are newer.
// Where it is absent, the newest is.
func TestChooseDefault(t *testing.T) {
	text := func(meta string) string {
		return meta + `
Package: linux-image-6.1.0-1-cloud-amd64
Version: 6.1.1-1

Package: linux-headers-6.1.0-1-cloud-amd64
Version: 6.1.1-1

Package: linux-image-6.5.0-1-cloud-amd64-unsigned
Version: 6.5.1-1

Package: linux-headers-6.5.0-1-cloud-amd64
Version: 6.5.1-1
`
	}
	for meta, want := range map[string]string{
		"": "6.5.0-1-cloud-amd64",
		"Package: linux-image-cloud-amd64\nVersion: 6.1.1-1\nDepends: linux-image-6.1.0-1-cloud-amd64 (= 6.1.1-1)\n": "6.1.0-1-cloud-amd64",
	} {
		all, err := parseStanzas(text(meta))
		if err != nil {
			t.Fatal(err)
		}
		if p, err := newAvailable(debianDist, all).choose(""); err != nil || p.Release != want {
			t.Errorf("with meta-package %q: choose = %v, %v; want %s", meta, p, err, want)
		}
	}
}

func TestNearest(t *testing.T) {
	all := []string{"6.12.117+deb12", "6.12.113+deb12", "6.1.0-56", "6.1.0-50", "5.10.0-30"}
	for want, nearestFirst := range map[string]string{
		"6.1.0-51": "6.1.0-50 6.1.0-56 6.12.117+deb12 6.12.113+deb12 5.10.0-30",
		"6.11":     "6.12.117+deb12 6.12.113+deb12 6.1.0-56 6.1.0-50 5.10.0-30",
		"6.12.114": "6.12.113+deb12 6.12.117+deb12 6.1.0-56 6.1.0-50 5.10.0-30",
		"5.15":     "5.10.0-30 6.12.117+deb12 6.12.113+deb12 6.1.0-56 6.1.0-50",
	} {
		if got := strings.Join(nearest(all, want), " "); got != nearestFirst {
			t.Errorf("nearest(%q) = %s; want %s", want, got, nearestFirst)
		}
	}
}

func TestParseStanzas(t *testing.T) {
	got, err := parseStanzas("Package: a\nVersion: 1:2-3\nDescription: text\n Package: not this\nSize: 7\n\n\nPackage: b\nDepends: c (= 1), d | e\n")
	want := []stanza{{Package: "a", Version: "1:2-3", Size: 7}, {Package: "b", Depends: "c (= 1), d | e"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("parseStanzas: %v (-want +got):\n%s", err, diff)
	}
	if got, err := parseStanzas("Package: a\nSize: big\n"); err == nil {
		t.Errorf("parseStanzas of a bad size = %v, nil; want an error", got)
	}
}

func TestDependencies(t *testing.T) {
	got := dependencies("gcc-12, linux-kbuild-6.1 (>= 6.1.192-2), a:any (= 1~2) | b")
	want := [][]dependency{{{name: "gcc-12"}}, {{name: "linux-kbuild-6.1"}}, {{name: "a", equals: "1~2"}, {name: "b"}}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(dependency{})); diff != "" {
		t.Errorf("dependencies (-want +got):\n%s", diff)
	}
}

// The order is that of dpkg --compare-versions.
func TestCompareVersions(t *testing.T) {
	tests := []struct {
		a, b string
		want int
	}{
		{"6.1.0-56", "6.1.0-56", 0},
		{"6.1.0-9", "6.1.0-56", -1},
		{"6.12.117+deb12", "6.1.0-56", 1},
		{"6.12.117+deb12", "6.12.117+deb13", -1},
		{"6.12.117-1~deb12u1", "6.12.117-1", -1},
		{"6.12.9", "6.12.10", -1},
		{"1:1.0-1", "2.0-1", 1},
		{"1.0", "1.0-1", -1},
		{"1.0~rc1", "1.0", -1},
		{"1.0a", "1.0+", -1},
		{"1.0a", "1.0", 1},
		{"007", "7", 0},
		{"7.0~rc4+unreleased", "7.0~rc4", 1},
		{"", "0", 0},
		{"99999999999999999999999", "100000000000000000000000", -1},
	}
	for _, tt := range tests {
		if got := compareVersions(tt.a, tt.b); got != tt.want {
			t.Errorf("compareVersions(%q, %q) = %d; want %d", tt.a, tt.b, got, tt.want)
		}
		if got := compareVersions(tt.b, tt.a); got != -tt.want {
			t.Errorf("compareVersions(%q, %q) = %d; want %d", tt.b, tt.a, got, -tt.want)
		}
	}
}

func TestPickArchive(t *testing.T) {
	const security, main = "http://mirror.example/debian-security/", "http://mirror.example/debian/"
	const ubuntu = "http://mirror.example/ubuntu/"
	lines := "Debian|Debian|" + main + "\nUbuntu|Ubuntu|" + ubuntu + "\n"
	if got := ubuntuDist.pickArchive(lines); got != ubuntu {
		t.Errorf("pickArchive(%q) = %q; want %q", lines, got, ubuntu)
	}
	for _, tt := range []struct{ name, lines, want string }{
		{"known", "Debian|Debian-Security|" + security + "\nOther||http://other.example/debian/\nDebian|Debian|" + main + "\n", main},
		{"before the first update", "||" + security + "\n||" + main + "\n", main},
		{"none", "Other|Other|http://other.example/\n", ""},
		{"nothing", "", ""},
	} {
		if got := debianDist.pickArchive(tt.lines); got != tt.want {
			t.Errorf("%s: pickArchive(%q) = %q; want %q", tt.name, tt.lines, got, tt.want)
		}
	}
}
