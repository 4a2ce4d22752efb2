package kernels

import (
	"bufio"
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// stanza is what apt-cache show prints about one version of one package.
type stanza struct {
	Package, Version, Depends, SHA256 string
	Size                              int64
}

// parseStanzas parses the output of apt-cache show.
func parseStanzas(text string) ([]stanza, error) {
	var all []stanza
	var cur stanza
	sc := bufio.NewScanner(strings.NewReader(text + "\n\n"))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if sc.Text() == "" {
			if cur.Package != "" {
				all = append(all, cur)
			}
			cur = stanza{}
			continue
		}
		field, value, _ := strings.Cut(sc.Text(), ":")
		value = strings.TrimSpace(value)
		switch field {
		case "Package":
			cur.Package = value
		case "Version":
			cur.Version = value
		case "Depends":
			cur.Depends = value
		case "SHA256":
			cur.SHA256 = value
		case "Size":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("apt-cache show: size of %s: %w", cur.Package, err)
			}
			cur.Size = n
		}
	}
	return all, sc.Err()
}

// partsOf matches the packages that a kernel consists of. Meta-packages, and
// packages such as linux-base, have no version in their names. Up to 6.12 the
// files are in linux-image; from 7.x on they are in linux-binary,
// linux-modules and linux-base, and linux-image only depends on those.
var partsOf = regexp.MustCompile(`^linux-(image|headers|kbuild|binary|modules|base)-[0-9].*`)

// available is what there is to choose from.
type available struct {
	of     *distribution
	byName map[string][]stanza // newest version first
}

func newAvailable(of *distribution, all []stanza) *available {
	av := &available{of: of, byName: make(map[string][]stanza)}
	for _, s := range all {
		av.byName[s.Package] = append(av.byName[s.Package], s)
	}
	for _, vs := range av.byName {
		slices.SortStableFunc(vs, func(a, b stanza) int { return compareVersions(b.Version, a.Version) })
	}
	return av
}

// abis lists the ABIs of one flavour, whose images are there, newest first.
func (av *available) abis(fl string) []string {
	var all []string
	for name := range av.byName {
		if abi, f, ok := av.of.image(name); ok && f == fl {
			all = append(all, abi)
		}
	}
	slices.SortFunc(all, func(a, b string) int { return compareVersions(b, a) })
	return slices.Compact(all) // an image may be there signed and unsigned
}

// complete lists the ABIs of the default flavour that can be planned, newest first.
func (av *available) complete() []string {
	fl := av.of.flavours[0]
	return slices.DeleteFunc(av.abis(fl), func(abi string) bool {
		_, err := av.plan(abi, fl)
		return err != nil
	})
}

// choose decides which kernel want names: "" is the one that the suite's
// meta-package depends on; else an ABI ("6.1.0-56"), the beginning of one
// ("6.1"), of which the newest is taken, or either with a flavour
// ("6.1-rt-amd64"). Kernels without headers are passed over. With debugSuffix at
// the end, the kernel with debug information is added.
func (av *available) choose(want string) (*Plan, error) {
	want, debug := strings.CutSuffix(want, debugSuffix)
	p, err := av.chooseKernel(want)
	if err != nil || !debug {
		return p, err
	}
	dbg, ok := av.find(dependency{name: debugPackage(p.Release)})
	if !ok {
		return nil, fmt.Errorf("there is no package %s", debugPackage(p.Release))
	}
	p.Packages = append(p.Packages, Package{Name: dbg.Package, Version: dbg.Version, Size: dbg.Size, SHA256: dbg.SHA256})
	return p, nil
}

// debugSuffix, after a version or flavour, asks for the kernel with debug information.
const debugSuffix = "+debuginfo"

func debugPackage(release string) string { return "linux-image-" + release + "-dbg" }

func (av *available) chooseKernel(want string) (*Plan, error) {
	fl := av.of.flavours[0]
	for _, f := range av.of.flavours {
		if w, ok := strings.CutSuffix(want, "-"+f); ok {
			want, fl = w, f
			break
		}
	}
	err := fmt.Errorf("no such %s kernel", av.of.origin)
	if want == "" {
		for _, meta := range av.byName["linux-image-"+fl] {
			for _, d := range dependencies(meta.Depends) {
				if abi, f, ok := av.of.image(d[0].name); ok {
					if p, err := av.plan(abi, f); err == nil {
						return p, nil
					}
				}
			}
		}
	}
	for _, abi := range av.abis(fl) {
		if !beginsWith(abi, want) {
			continue
		}
		p, perr := av.plan(abi, fl)
		if perr == nil {
			return p, nil
		}
		err = perr
	}
	return nil, err
}

// beginsWith reports whether want is abi or its first components.
func beginsWith(abi, want string) bool {
	rest, ok := strings.CutPrefix(abi, want)
	return ok && (want == "" || rest == "" || strings.IndexByte(".-+~", rest[0]) >= 0)
}

// plan collects the packages of one kernel: image, headers, and the parts that
// these depend on.
func (av *available) plan(abi, fl string) (*Plan, error) {
	release := abi + "-" + fl
	p := &Plan{Release: release}
	image := "linux-image-" + release
	for _, name := range []string{image, image + "-unsigned", "linux-image-unsigned-" + release} {
		if vs := av.byName[name]; len(vs) > 0 {
			image, p.Version = name, vs[0].Version
			break
		}
	}
	todo := []dependency{{name: image}, {name: "linux-headers-" + release, equals: p.Version}}
	taken := make(map[string]bool)
	for len(todo) > 0 {
		d := todo[0]
		todo = todo[1:]
		if taken[d.name] {
			continue
		}
		taken[d.name] = true
		s, ok := av.find(d)
		if !ok {
			return nil, fmt.Errorf("there is no package %s for %s", d.name, release)
		}
		p.Packages = append(p.Packages, Package{Name: s.Package, Version: s.Version, Size: s.Size, SHA256: s.SHA256})
		for _, alternatives := range dependencies(s.Depends) {
			if m := gccName.FindString(alternatives[0].name); m != "" {
				p.Compiler = m
			}
			if slices.ContainsFunc(alternatives, func(d dependency) bool { return taken[d.name] }) {
				continue
			}
			for _, d := range alternatives {
				if _, ok := av.find(d); ok && partsOf.MatchString(d.name) {
					todo = append(todo, d)
					break
				}
			}
		}
	}
	slices.SortFunc(p.Packages, func(a, b Package) int { return cmp.Compare(a.Name, b.Name) })
	return p, nil
}

// gccName finds the compiler in linux-compiler-gcc-12-x86, gcc-12 and
// gcc-16-for-host, on one of which the headers depend.
var gccName = regexp.MustCompile(`\bgcc-[0-9]+`)

func (av *available) find(d dependency) (stanza, bool) {
	for _, s := range av.byName[d.name] {
		if d.equals == "" || s.Version == d.equals {
			return s, true
		}
	}
	return stanza{}, false
}

// dependency is one alternative of a Depends field. Of the relations only
// "=" is kept: the newest version is taken otherwise.
type dependency struct{ name, equals string }

// dependencies parses a Depends field into its clauses, each a list of at
// least one alternative.
func dependencies(field string) [][]dependency {
	var all [][]dependency
	for clause := range strings.SplitSeq(field, ",") {
		var alts []dependency
		for alt := range strings.SplitSeq(clause, "|") {
			name, rel, _ := strings.Cut(strings.TrimSpace(alt), " ")
			name, _, _ = strings.Cut(name, ":") // :any
			d := dependency{name: name}
			if v, ok := strings.CutPrefix(rel, "(= "); ok {
				d.equals = strings.TrimSuffix(v, ")")
			}
			alts = append(alts, d)
		}
		all = append(all, alts)
	}
	return all
}

// nearest returns the ABIs, those that agree with want in the most leading
// components first, then those that differ least in the next one.
func nearest(abis []string, want string) []string {
	split := func(s string) []string {
		return strings.FieldsFunc(s, func(r rune) bool { return r == '.' || r == '-' || r == '+' || r == '~' })
	}
	w := split(want)
	type rank struct{ same, off int }
	ranks := make(map[string]rank)
	for _, abi := range abis {
		var r rank
		for i, c := range split(abi) {
			if i >= len(w) {
				break
			}
			if c != w[i] {
				a, _ := strconv.Atoi(c)
				b, _ := strconv.Atoi(w[i])
				r.off = max(a-b, b-a)
				break
			}
			r.same++
		}
		ranks[abi] = r
	}
	out := slices.Clone(abis)
	slices.SortStableFunc(out, func(a, b string) int {
		ra, rb := ranks[a], ranks[b]
		return cmp.Or(cmp.Compare(rb.same, ra.same), cmp.Compare(ra.off, rb.off))
	})
	return out
}
