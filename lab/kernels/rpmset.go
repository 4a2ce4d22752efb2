package kernels

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	rpmlib "github.com/cavaliergopher/rpm"

	"crashlab/internal/rpm"
)

// rpmFile is what the header of a package says.
type rpmFile struct {
	path      string
	id        string
	name      string
	arch      string
	version   evr
	size      int64 // of the file, in bytes
	installed int64 // of the files in it, in bytes
	source    bool
	images    []string // releases of the kernels whose image it has
	releases  []string // of the kernels of which it has a part
	common    []string // beginnings of releases: sources that are common to flavours
	named     bool     // and not only found in a folder
}

// evr is the epoch, version and release of a package, which rpm orders.
type evr struct {
	epoch            int
	version, release string
}

func (v evr) Epoch() int      { return v.epoch }
func (v evr) Version() string { return v.version }
func (v evr) Release() string { return v.release }

func (v evr) String() string { return v.version + "-" + v.release }

// Where packages have the parts of a kernel, in a group its release, which begins
// with a digit: Fedora, CentOS
// and RHEL, openSUSE, and the kernel's own targets.
var (
	imagePaths   = regexp.MustCompile(`^/(?:boot/vmlinuz-([0-9][^/\s]*)|(?:usr/)?lib/modules/([0-9][^/\s]*)/vmlinuz)$`)
	releasePaths = regexp.MustCompile(`^/(?:boot/(?:vmlinuz|config|System\.map)-([0-9][^/\s]*)` +
		`|(?:usr/lib/debug/)?(?:usr/)?lib/modules/([0-9][^/\s]*)(?:/.*)?|usr/src/kernels/([0-9][^/\s]*)(?:/.*)?` +
		`|usr/lib/debug/boot/vmlinux-([0-9][^/\s]*?)(?:\.debug)?)$`)
	commonPaths = regexp.MustCompile(`^/usr/src/linux-([0-9][^/]*?)(?:-obj)?(?:/.*)?$`)
)

// readRPM reads the header of the package in the file called name. Its content is not
// verified.
func readRPM(ctx context.Context, name string) (*rpmFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	p, err := rpm.Open(f, fi.Size())
	if err != nil {
		return nil, err
	}
	r := &rpmFile{
		path: name, name: p.Name(), arch: p.Architecture(), size: fi.Size(), source: p.IsSource(),
		version: evr{p.Epoch(), p.Version(), p.Release()},
	}
	if r.path, err = filepath.Abs(name); err != nil {
		return nil, err
	}
	if r.installed = p.InstalledSize(); r.installed < 0 {
		return nil, fmt.Errorf("%w: its files have %d bytes", rpm.ErrDamaged, r.installed)
	}
	if r.id, err = p.ID(ctx); err != nil {
		return nil, err
	}
	files, err := p.Files()
	if err != nil {
		return nil, err
	}
	add := func(to *[]string, form *regexp.Regexp, file string) {
		if m := form.FindStringSubmatch(file); m != nil {
			if found := cmp.Or(m[1:]...); !slices.Contains(*to, found) {
				*to = append(*to, found)
			}
		}
	}
	for _, file := range files {
		add(&r.images, imagePaths, file)
		add(&r.releases, releasePaths, file)
		add(&r.common, commonPaths, file)
	}
	return r, nil
}

// rpmSet is the packages of one kernel.
type rpmSet struct {
	release string
	files   []*rpmFile // sorted by name
	others  []string   // releases of which there also is an image
}

const rpmArch = "x86_64"

// chooseRPMs picks the packages of one kernel: the newest that has an image and,
// of several flavours of one version, the one with the shortest name.
func chooseRPMs(files []*rpmFile) (*rpmSet, error) {
	var usable []*rpmFile
	var errs []error
	for _, f := range files {
		switch {
		case f.source:
			errs = append(errs, fmt.Errorf("%s is a source package", f.path))
		case f.arch != rpmArch && f.arch != "noarch":
			errs = append(errs, fmt.Errorf("%s is for %s, and not for %s", f.path, f.arch, rpmArch))
		default:
			usable = append(usable, f)
			continue
		}
		if f.named {
			return nil, errs[len(errs)-1]
		}
	}
	type candidate struct {
		release string
		version evr
	}
	var all []candidate
	for _, f := range usable {
		for _, release := range f.images {
			all = append(all, candidate{release, f.version})
		}
	}
	if len(all) == 0 {
		names := ""
		for _, f := range usable {
			names += " " + f.name
		}
		if names != "" {
			errs = append(errs, fmt.Errorf("none of these packages has the image of a kernel:%s", names))
		}
		return nil, errors.Join(errs...)
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		return cmp.Or(rpmlib.Compare(b.version, a.version), cmp.Compare(len(a.release), len(b.release)), cmp.Compare(a.release, b.release))
	})
	set := &rpmSet{release: all[0].release}
	for _, c := range all[1:] {
		if c.release != set.release && !slices.Contains(set.others, c.release) {
			set.others = append(set.others, c.release)
		}
	}
	byName := make(map[string]*rpmFile)
	for _, f := range usable {
		if !f.partOf(set.release) {
			continue
		}
		// The same package may have been built several times.
		if old := byName[f.name]; old == nil || rpmlib.Compare(f.version, old.version) > 0 {
			byName[f.name] = f
		}
	}
	for _, f := range byName {
		set.files = append(set.files, f)
	}
	slices.SortFunc(set.files, func(a, b *rpmFile) int { return cmp.Compare(a.name, b.name) })
	return set, nil
}

// partOf reports whether the package has a part of the kernel called release.
func (f *rpmFile) partOf(release string) bool {
	return slices.Contains(f.releases, release) ||
		len(f.releases) == 0 && slices.ContainsFunc(f.common, func(c string) bool { return strings.HasPrefix(release, c+"-") })
}

// plan returns the plan that spec stands for.
func (s *rpmSet) plan(spec string) *Plan {
	p := &Plan{Spec: spec, Release: s.release, Compiler: "gcc", Inputs: []string{"rpm", rpmVersion}}
	for _, f := range s.files {
		p.Packages = append(p.Packages, Package{Name: f.name, Version: f.version.String(), Size: f.size})
		p.Inputs = append(p.Inputs, f.id)
		if slices.Contains(f.images, s.release) {
			p.Version = f.version.String()
		}
	}
	return p
}
