package kernels

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	rpmlib "github.com/cavaliergopher/rpm"

	"crashlab/internal/execx"
	"crashlab/lab/blame"
	"crashlab/lab/store"
)

// dnfVersion is the beginning of the version of a kernel: "5.14.0-503.el9".
var dnfVersion = regexp.MustCompile(`^[0-9]+(\.[0-9A-Za-z_~^+]+)*(-[0-9A-Za-z._~^+]+)?$`)

// dnfPackages are the packages that a kernel consists of; not every release of a
// distribution has all. The first has the image.
var dnfPackages = []string{"kernel-core", "kernel-modules-core", "kernel-modules", "kernel-devel"}

// dnfAsksAgain is how long what dnf has answered is taken for true: it takes seconds.
const dnfAsksAgain = time.Hour

// dnfPlan asks dnf which kernel want means: the beginning of a version, or "" for
// the newest. Where that fails, what it said before serves.
func (r *rpms) dnfPlan(ctx context.Context, spec, want string, fresh bool) (*Plan, error) {
	remembered := filepath.Join(r.store.Area("rpm"), "plan-"+store.Key{Kind: "dnf", Name: spec, Inputs: []string{rpmVersion}}.ID()+".json")
	old, oldErr := readPlan(remembered)
	if fi, err := os.Stat(remembered); err == nil && oldErr == nil && !fresh && time.Since(fi.ModTime()) < dnfAsksAgain {
		return old, nil
	}
	p, err := r.askDNF(ctx, spec, want)
	if err == nil {
		return p, writePlan(remembered, p)
	}
	if oldErr == nil && !fresh && ctx.Err() == nil && blame.Of(err).Party == blame.Infrastructure {
		r.log.Warn(fmt.Sprintf("taking %s for %s as before: %v", old.Release, spec, err))
		return old, nil
	}
	return nil, err
}

func (r *rpms) askDNF(ctx context.Context, spec, want string) (*Plan, error) {
	r.progress("ask dnf for its kernels", 0, 0)
	args := []string{"repoquery", "--queryformat", "%{name}|%{epoch}|%{version}|%{release}|%{arch}|%{downloadsize}\n"}
	for _, name := range dnfPackages {
		if want == "" {
			args = append(args, name)
		} else {
			args = append(args, name+"-"+want+"*")
		}
	}
	out, err := r.dnf(ctx, spec, execx.Cmd{}, args...)
	if err != nil {
		return nil, err
	}
	p, err := chooseDNF(string(out), want)
	if err != nil {
		return nil, blame.New(blame.Usage, fmt.Sprintf("kernel %q", spec), err).WithHint("dnf list --showduplicates kernel-core")
	}
	p.Spec = spec
	return p, nil
}

// chooseDNF picks the newest kernel in lines of NAME|EPOCH|VERSION|RELEASE|ARCH|SIZE.
func chooseDNF(lines, want string) (*Plan, error) {
	type pkg struct {
		Package
		evr
	}
	var all []pkg
	for line := range strings.Lines(lines) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) != 6 || f[4] != rpmArch || !slices.Contains(dnfPackages, f[0]) {
			continue
		}
		epoch, err1 := strconv.Atoi(f[1])
		size, err2 := strconv.ParseInt(f[5], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("dnf says %q: %w", line, err)
		}
		v := evr{epoch, f[2], f[3]}
		if want == "" || beginsWith(v.String(), want) {
			all = append(all, pkg{Package{Name: f[0], Version: v.String(), Size: size}, v})
		}
	}
	slices.SortStableFunc(all, func(a, b pkg) int { return rpmlib.Compare(b.evr, a.evr) })
	at := slices.IndexFunc(all, func(p pkg) bool { return p.Name == dnfPackages[0] })
	if at < 0 {
		return nil, errors.New("dnf has no such kernel")
	}
	newest := all[at].evr
	p := &Plan{Release: newest.String() + "." + rpmArch, Version: newest.String(), Compiler: "gcc", Inputs: []string{"rpm", rpmVersion, "dnf"}}
	for _, name := range dnfPackages {
		i := slices.IndexFunc(all, func(q pkg) bool { return q.Name == name && q.evr == newest })
		if i >= 0 {
			p.Packages = append(p.Packages, all[i].Package)
		}
	}
	return p, nil
}

// dnfDownload downloads the packages of p into dir. dnf compares them with its
// lists.
func (r *rpms) dnfDownload(ctx context.Context, p *Plan, dir string) error {
	r.progress("download "+p.Release, 0, p.Size())
	args := []string{"download", "--destdir", dir}
	for _, q := range p.Packages {
		args = append(args, q.Name+"-"+q.Version+"."+rpmArch)
	}
	if _, err := r.dnf(ctx, p.Spec, execx.Cmd{}, args...); err != nil {
		return &unavailableError{err}
	}
	return nil
}

// dnf runs dnf without questions.
func (r *rpms) dnf(ctx context.Context, spec string, c execx.Cmd, args ...string) ([]byte, error) {
	c.Argv = append([]string{"dnf", "--quiet", "--assumeyes"}, args...)
	c.Env = append(c.Env, "LC_ALL=C")
	out, err := r.run(ctx, c)
	if err == nil || ctx.Err() != nil {
		return out, err
	}
	e := blame.New(blame.Infrastructure, "kernel "+spec, err)
	if execx.NotFound(err) {
		return nil, e.WithHint("this machine has no dnf: name packages, rpm:FILE,URL or rpm:DIR")
	}
	if x, ok := errors.AsType[*execx.Error](err); ok {
		e.Look = strings.Split(strings.TrimSpace(x.Tail), "\n")
	}
	e.Replay = execx.Quote(c.Argv)
	return nil, e.WithHint("is the network up? dnf takes a proxy from /etc/dnf/dnf.conf")
}
