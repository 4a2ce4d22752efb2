package kernels

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"crashlab/lab/blame"
	"crashlab/lab/fetch"
	"crashlab/lab/kbuild"
	"crashlab/lab/kernelorg"
	"crashlab/lab/store"
)

// orgTrees provides the source trees that kernel.org and its mirrors have.
type orgTrees struct {
	store *store.Store
	site  *kernelorg.Site
}

// NoMirrors, as the only mirror of kernel.org, means that none is to be asked.
const NoMirrors = "none"

// newOrgTrees returns kernel.org as mirrors have it; without any they are those
// that kernel.org names.
func newOrgTrees(s *store.Store, log *slog.Logger, progress Progress, mirrors []string) orgTrees {
	switch {
	case len(mirrors) == 0:
		mirrors = kernelorg.DefaultMirrors()
	case len(mirrors) == 1 && mirrors[0] == NoMirrors:
		mirrors = nil
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: 4 * time.Second}).DialContext // there is another way
	t.ResponseHeaderTimeout = 20 * time.Second
	return orgTrees{s, &kernelorg.Site{
		Mirrors: mirrors, Dir: s.Area("kernel.org"), Progress: progress,
		Client: &fetch.Client{HTTP: &http.Client{Transport: t}},
		Log:    func(format string, a ...any) { log.Debug(fmt.Sprintf(format, a...)) },
	}}
}

func (o orgTrees) forms() []Form {
	return []Form{{"source@kernel.org:6.1", "built here from kernel.org's newest release of 6.1, or a mirror's; signatures are verified"}}
}

func (o orgTrees) plan(ctx context.Context, want string, _ bool) (treePlan, error) {
	if o.site.Keys.Sums == nil {
		var err error
		if o.site.Keys, err = kernelorg.PinnedKeys(); err != nil {
			return treePlan{}, err
		}
	}
	rel, err := o.site.Find(ctx, want)
	if err != nil {
		return treePlan{}, err
	}
	v := string(rel.Version)
	pkg := Package{Name: "linux-" + v + ".tar.xz", Version: v, SHA256: rel.SHA256}
	if strings.Count(v, ".") == 1 {
		v += ".0" // as the Makefile says
	}
	return treePlan{want: string(rel.Version), version: v, id: rel.SHA256, packages: []Package{pkg}, from: o}, nil
}

func (o orgTrees) tree(ctx context.Context, p treePlan) (kbuild.Source, error) {
	rel := kernelorg.Release{Version: kernelorg.Version(p.want), SHA256: p.id}
	key := store.Key{Kind: "source", Name: "linux-" + p.want, Inputs: []string{"kernel.org 1", p.id}}
	dir, _, err := o.store.Get(ctx, key, func(ctx context.Context, dir string) error {
		linux := filepath.Join(dir, "linux")
		if err := os.Mkdir(linux, 0o755); err != nil {
			return err
		}
		return o.site.Unpack(ctx, rel, linux)
	})
	if err != nil {
		return kbuild.Source{}, err
	}
	src, err := kbuild.OpenSource(filepath.Join(dir, "linux"), p.id)
	if err != nil {
		return src, blame.New(blame.Infrastructure, "open the source tree", err)
	}
	return src, nil
}

// releasedTrees provides the source trees of kernel.org where it or a mirror can
// be reached, and otherwise those of the distribution.
type releasedTrees struct {
	org    orgTrees
	debian treeSource
	log    *slog.Logger
}

func (r releasedTrees) forms() []Form {
	return []Form{
		{"source:6.1", "built here from kernel.org's sources or, if it cannot be reached, Debian's, configured as the lab needs it"},
		{"source:6.1+framepointer", "the same with a fragment more, or several; see kernel:fragments"},
	}
}

// askAgain is how long kernel.org is left alone after it could not be reached.
const askAgain = 10 * time.Minute

func (r releasedTrees) plan(ctx context.Context, want string, fresh bool) (treePlan, error) {
	mark := filepath.Join(r.org.site.Dir, "unreachable")
	if fi, err := os.Stat(mark); err == nil && time.Since(fi.ModTime()) < askAgain && !fresh {
		why, err := os.ReadFile(mark)
		r.log.Debug("kernel.org is not asked", "why", string(why), "err", err)
		return r.fallback(ctx, want, fresh, errors.New(string(why)))
	}
	p, err := r.org.plan(ctx, want, fresh)
	if err == nil {
		return p, errors.Join(os.RemoveAll(mark))
	}
	if !errors.Is(err, kernelorg.ErrUnreachable) {
		return treePlan{}, err
	}
	if len(r.org.site.Mirrors) > 0 {
		// Not a reason to fail: the next call asks again.
		if werr := errors.Join(os.MkdirAll(r.org.site.Dir, 0o755), os.WriteFile(mark, []byte(err.Error()), 0o644)); werr != nil {
			r.log.Debug("cannot remember that kernel.org was unreachable", "err", werr)
		}
		r.log.Info("taking the distribution's sources", "why", err)
	}
	return r.fallback(ctx, want, fresh, err)
}

// fallback plans the distribution's tree. If there is none for that the host
// is to blame, the error also has the reason why kernel.org does not serve.
func (r releasedTrees) fallback(ctx context.Context, want string, fresh bool, why error) (treePlan, error) {
	p, err := r.debian.plan(ctx, want, fresh)
	if err == nil {
		p.from = r.debian
		return p, nil
	}
	if e, ok := errors.AsType[*blame.Error](err); ok {
		e.Look = append(e.Look, why.Error())
	}
	return treePlan{}, err
}

func (r releasedTrees) tree(ctx context.Context, p treePlan) (kbuild.Source, error) {
	return p.from.tree(ctx, p)
}
