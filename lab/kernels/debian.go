package kernels

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"

	"crashlab/internal/deb"
	"crashlab/internal/execx"
	"crashlab/internal/unpack"
	"crashlab/lab/blame"
	"crashlab/lab/store"
)

// debian provides the kernels of the package archives of Debian and of what is
// made like it. It uses the host's apt, as whoever runs us: nothing is
// installed, and no root is needed. apt checks signatures and hashes.
type debian struct {
	of       *distribution
	mirror   string // where its packages are; empty: where the host gets them
	store    *store.Store
	log      *slog.Logger
	progress Progress
	run      func(context.Context, execx.Cmd) ([]byte, error)
	etc      string // apt's configuration
	lists    string // apt's package lists
}

func (d *debian) forms() []Form {
	if d.of == ubuntuDist {
		return []Form{{"ubuntu@resolute:7.0", "of Ubuntu, from the mirror that CRASHLAB_UBUNTU names"}}
	}
	return []Form{
		{"debian", "the cloud kernel of the suite that this machine runs"},
		{"debian:6.1", "the newest 6.1 that apt knows"},
		{"debian:6.1.0-56", "exactly this one"},
		{"debian:6.1-rt-amd64", "another flavour than cloud-amd64: amd64, rt-amd64"},
		{"debian:6.1+debuginfo", "with vmlinux and its debug information, some 300 MB more"},
		{"debian@trixie:6.12", "from another suite than this machine's"},
	}
}

func (d *debian) resolve(ctx context.Context, spec, want string, fresh bool) (*Plan, error) {
	remembered := filepath.Join(d.store.Area("apt"), "plan-"+store.Key{Name: spec}.ID()+".json")
	p, err := d.ask(ctx, spec, want, fresh, remembered)
	if err == nil {
		return p, nil
	}
	// Without lists and network, what was resolved before may be in the store.
	if old, rerr := readPlan(remembered); rerr == nil && !fresh && ctx.Err() == nil && blame.Of(err).Party == blame.Infrastructure {
		d.log.Warn(fmt.Sprintf("taking %s for %s as before: %v", old.Release, spec, err))
		return old, nil
	}
	return nil, err
}

// ask asks apt, unless the store has its answer. A new answer is written to
// the file called remember, too.
func (d *debian) ask(ctx context.Context, spec, want string, fresh bool, remember string) (*Plan, error) {
	a, err := d.apt(ctx, spec, fresh)
	if err != nil {
		return nil, err
	}
	state, err := a.fingerprint()
	if err != nil {
		return nil, err
	}
	// Asking apt takes a second, even if its lists have not changed.
	key := store.Key{Kind: "plan", Name: spec, Inputs: []string{spec, state, unpackVersion}}
	dir, _, err := d.store.Get(ctx, key, func(ctx context.Context, dir string) error {
		p, err := a.plan(ctx, want)
		if err != nil {
			return err
		}
		p.Spec = spec
		if err := writePlan(remember, p); err != nil {
			return err
		}
		return writePlan(filepath.Join(dir, "plan.json"), p)
	})
	if err != nil {
		return nil, err
	}
	return readPlan(filepath.Join(dir, "plan.json"))
}

// writePlan replaces the file called name in one step.
func writePlan(name string, p *Plan) error {
	text, err := json.MarshalIndent(p, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), "plan.tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone by then, if all went well
	_, err = tmp.Write(text)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}

func readPlan(name string) (*Plan, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	p := new(Plan)
	if err := json.Unmarshal(text, p); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// available asks apt what there is.
func (a *apt) available(ctx context.Context) (*available, error) {
	out, err := a.cache(ctx, "pkgnames", "linux-")
	if err != nil {
		return nil, err
	}
	names := a.of.wanted(strings.Fields(string(out)))
	if len(names) == 0 {
		return nil, blame.New(blame.Infrastructure, "kernel "+a.spec, fmt.Errorf("apt on this machine knows no %s kernels", a.of.origin)).
			WithHint("name a suite of it: debian@trixie, ubuntu@resolute")
	}
	if out, err = a.cache(ctx, append([]string{"show"}, names...)...); err != nil {
		return nil, err
	}
	all, err := parseStanzas(string(out))
	if err != nil {
		return nil, err
	}
	return newAvailable(a.of, all), nil
}

// plan asks apt what there is, and chooses.
func (a *apt) plan(ctx context.Context, want string) (*Plan, error) {
	av, err := a.available(ctx)
	if err != nil {
		return nil, err
	}
	p, err := av.choose(want)
	if err == nil {
		return p, nil
	}
	e := blame.New(blame.Usage, fmt.Sprintf("kernel %q", a.spec), err)
	for _, abi := range nearest(av.complete(), want) {
		e.Look = append(e.Look, strings.SplitN(a.spec, ":", 2)[0]+":"+abi)
	}
	return nil, e.WithHint("apt knows those above, nearest first; another suite has others: debian@sid:%s", want)
}

func (d *debian) unpack(ctx context.Context, p *Plan, dir string) error {
	a, err := d.apt(ctx, p.Spec, false)
	if err != nil {
		return err
	}
	if err := checkSpace(dir, debExpands*p.Size()); err != nil {
		return blame.New(blame.Infrastructure, "unpack "+p.Release, err)
	}
	debs, done, err := a.download(ctx, p)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()

	doing := "unpack " + p.Release
	var count atomic.Int64
	read := func(n int) { d.progress(doing, count.Add(int64(n)), p.Size()) }
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, q := range p.Packages {
		wg.Go(func() {
			if err := unpackPackage(ctx, q, debs, root, read); err != nil {
				cancel(blame.New(blame.Infrastructure, "unpack "+q.Name, err)) // the first one counts
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := relocateHeaders(root); err != nil {
		return err
	}
	return done()
}

// debExpands is how many times larger the files in packages of kernels are at most,
// and treeExpands those of an archive of the sources.
const (
	debExpands  = 6
	treeExpands = 12
)

// unpackPackage unpacks the .deb of q in the directory debs after having
// compared its hash with the one that apt has from the signed lists.
func unpackPackage(ctx context.Context, q Package, debs string, root *os.Root, read func(int)) error {
	name, err := debFile(q, debs)
	if err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	tree := &unpack.Tree{Root: root, Keep: keep}
	return errors.Join(deb.Unpack(ctx, &counted{f, read}, fi.Size(), tree), tree.Close())
}

// foreignArch matches headers of other architectures, a third of all headers.
var foreignArch = regexp.MustCompile(`^usr/src/[^/]+/arch/([^/]+)/`)

// keep says which files of the packages are worth unpacking.
func keep(name string) bool {
	if m := foreignArch.FindStringSubmatch(name); m != nil {
		return m[1] == "x86"
	}
	if strings.HasPrefix(name, "usr/lib/debug/") {
		base := path.Base(name)
		return strings.HasPrefix(base, "vmlinux") || strings.HasPrefix(base, "System.map") // and not that of each module
	}
	return !strings.HasPrefix(name, "usr/share/")
}

// relocateHeaders makes the headers usable wherever root lies: their
// Makefile includes the common one by its absolute path below /usr/src.
func relocateHeaders(root *os.Root) error {
	// Those of Debian, and of openSUSE.
	for _, pattern := range []string{"usr/src/linux-headers-*/Makefile", "usr/src/linux-*-obj/*/*/Makefile"} {
		names, err := fs.Glob(root.FS(), pattern)
		if err != nil {
			return err
		}
		for _, name := range names {
			text, err := root.ReadFile(name)
			if err != nil {
				return err
			}
			up := strings.TrimSuffix(strings.Repeat("../", strings.Count(name, "/")-2), "/")
			here := "usr_src := $(abspath $(dir $(lastword $(MAKEFILE_LIST)))" + up + ")\n"
			// The common Makefile is the kernel's own and has no such path.
			if moved := bytes.ReplaceAll(text, []byte("/usr/src/"), []byte("$(usr_src)/")); !bytes.Equal(moved, text) {
				if err := root.WriteFile(name, append([]byte(here), moved...), 0o644); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// counted tells read how many bytes were read.
type counted struct {
	r    io.ReaderAt
	read func(int)
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.r.ReadAt(p, off)
	c.read(n)
	return n, err
}
