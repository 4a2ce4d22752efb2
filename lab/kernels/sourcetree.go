package kernels

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"crashlab/internal/execx"
	"crashlab/internal/unpack"
	"crashlab/lab/blame"
	"crashlab/lab/kbuild"
	"crashlab/lab/store"
)

// treeSource is where source trees come from.
type treeSource interface {
	forms() []Form
	// plan says which release want names, what is to be downloaded for it, and
	// what identifies its content, before any of it is fetched.
	plan(ctx context.Context, want string, fresh bool) (treePlan, error)
	// tree fetches and unpacks what p names, unless that is done.
	tree(ctx context.Context, p treePlan) (kbuild.Source, error)
}

// treePlan names a source tree.
type treePlan struct {
	want     string
	version  string // "6.1.192"; empty while unknown
	id       string
	packages []Package
	from     treeSource // which of several has it
}

// debianTrees provides the source trees of Debian's packages linux-source-X.Y:
// Debian's patches are in them.
type debianTrees struct{ *debian }

func (d debianTrees) forms() []Form {
	return []Form{
		{"source@debian:6.1", "built here from Debian's linux-source-6.1"},
	}
}

var sourcePackage = regexp.MustCompile(`^linux-source-([0-9]+\.[0-9]+)$`)

// plan asks apt, unless the store has its answer: see debian.ask.
func (d debianTrees) plan(ctx context.Context, want string, fresh bool) (treePlan, error) {
	a, err := d.apt(ctx, "debian", fresh)
	if err != nil {
		return treePlan{}, err
	}
	state, err := a.fingerprint()
	if err != nil {
		return treePlan{}, err
	}
	key := store.Key{Kind: "plan", Name: "sources-" + want, Inputs: []string{want, state, "1"}}
	dir, _, err := d.store.Get(ctx, key, func(ctx context.Context, dir string) error {
		p, err := d.newest(ctx, a, want)
		if err != nil {
			return err
		}
		return writePlan(filepath.Join(dir, "plan.json"), &Plan{Version: p.version, Packages: p.packages})
	})
	if err != nil {
		return treePlan{}, err
	}
	p, err := readPlan(filepath.Join(dir, "plan.json"))
	if err != nil || len(p.Packages) != 1 {
		return treePlan{}, blame.New(blame.Infrastructure, "read what apt answered before", errors.Join(err, errors.New("it is not one package")))
	}
	return treePlan{want: want, version: p.Version, id: p.Packages[0].SHA256, packages: p.Packages}, nil
}

// newest returns the newest package that has the release want, or any if it is empty.
func (d debianTrees) newest(ctx context.Context, a *apt, want string) (treePlan, error) {
	out, err := a.cache(ctx, "pkgnames", "linux-source-")
	if err != nil {
		return treePlan{}, err
	}
	var names, series []string
	for n := range strings.FieldsSeq(string(out)) {
		m := sourcePackage.FindStringSubmatch(n)
		if m == nil {
			continue
		}
		series = append(series, m[1])
		if want == "" || want == m[1] || strings.HasPrefix(want, m[1]+".") {
			names = append(names, n)
		}
	}
	var all []stanza
	if len(names) > 0 {
		if out, err = a.cache(ctx, append([]string{"show"}, names...)...); err != nil {
			return treePlan{}, err
		}
		if all, err = parseStanzas(string(out)); err != nil {
			return treePlan{}, err
		}
	}
	all = slices.DeleteFunc(all, func(s stanza) bool {
		up, _ := revision(s.Version)
		return want != "" && up != want && !strings.HasPrefix(up, want+".")
	})
	if len(all) == 0 {
		e := blame.New(blame.Usage, fmt.Sprintf("kernel \"source:%s\"", want), errors.New("there is no such source package"))
		slices.Sort(series)
		for _, s := range slices.Compact(series) {
			e.Look = append(e.Look, "source:"+s)
		}
		return treePlan{}, e.WithHint("apt knows those above; dir:PATH builds a tree of your own")
	}
	s := slices.MaxFunc(all, func(a, b stanza) int { return compareVersions(a.Version, b.Version) })
	p := Package{Name: s.Package, Version: s.Version, Size: s.Size, SHA256: s.SHA256}
	return treePlan{want: want, version: versionOf(s.Version), id: s.SHA256, packages: []Package{p}}, nil
}

// versionOf returns the kernel's release of a package version: "6.1.192" of
// "6.1.192-2~bpo11+1".
func versionOf(version string) string {
	_, v := epoch(version)
	up, _ := revision(v)
	up, _, _ = strings.Cut(up, "~")
	return up
}

func (d debianTrees) tree(ctx context.Context, p treePlan) (kbuild.Source, error) {
	pkg := p.packages[0]
	key := store.Key{Kind: "source", Name: pkg.Name + "-" + pkg.Version, Inputs: []string{"1", pkg.SHA256}}
	dir, _, err := d.store.Get(ctx, key, func(ctx context.Context, dir string) error {
		return d.unpackSource(ctx, pkg, dir)
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

// unpackSource downloads the package and unpacks the archive in it to dir/linux.
func (d debianTrees) unpackSource(ctx context.Context, pkg Package, dir string) error {
	scratch := filepath.Join(dir, "scratch")
	if err := os.Mkdir(scratch, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	if err := checkSpace(dir, treeExpands*pkg.Size); err != nil {
		return blame.New(blame.Infrastructure, "unpack "+pkg.Name, err)
	}
	archive, done, err := d.archive(ctx, pkg, scratch)
	if err != nil {
		return err
	}
	linux := filepath.Join(dir, "linux")
	if err := os.Mkdir(linux, 0o755); err != nil {
		return err
	}
	doing := "unpack " + pkg.Name
	if err := d.unpackTree(ctx, archive, linux, doing); err != nil && ctx.Err() == nil {
		return blame.New(blame.Infrastructure, doing, err)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return done()
}

// archive downloads the package and takes the archive of the sources out of it to
// scratch. The download is kept until done is called.
func (d debianTrees) archive(ctx context.Context, pkg Package, scratch string) (file string, done func() error, err error) {
	a, err := d.apt(ctx, "debian", false)
	if err != nil {
		return "", nil, err
	}
	debs, done, err := a.download(ctx, &Plan{Release: pkg.Name, Packages: []Package{pkg}})
	if err != nil {
		return "", nil, err
	}
	root, err := os.OpenRoot(scratch)
	if err != nil {
		return "", nil, err
	}
	defer root.Close()
	doing := "unpack " + pkg.Name
	d.progress(doing, 0, 0)
	if err := unpackPackage(ctx, pkg, debs, root, func(int) {}); err != nil {
		return "", nil, blame.New(blame.Infrastructure, doing, err)
	}
	found, err := filepath.Glob(filepath.Join(scratch, "usr/src/linux-source-*.tar.xz"))
	if err != nil || len(found) != 1 {
		return "", nil, blame.New(blame.Infrastructure, doing, errors.Join(err, fmt.Errorf("the package has %d archives", len(found))))
	}
	return found[0], done, nil
}

// unpackTree unpacks an archive of the sources, without its first directory.
func (d debianTrees) unpackTree(ctx context.Context, archive, dir, doing string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	var done atomic.Int64
	r, err := unpack.Open(ctx, &counted{f, func(n int) { d.progress(doing, done.Add(int64(n)), fi.Size()) }}, fi.Size())
	if err != nil {
		return err
	}
	defer r.Close()
	tree := &unpack.Tree{Root: root, Strip: 1}
	return errors.Join(unpack.Tar(r, tree.Add), tree.Close())
}

// ownTrees provides trees of the user's own.
type ownTrees struct{}

func (ownTrees) forms() []Form {
	return []Form{
		{"dir:PATH", "a tree of your own: one that is built as it is, another built here as source: is"},
		{"dir:PATH+lab+xz", "a tree of your own, built here with these fragments"},
	}
}

func (ownTrees) plan(ctx context.Context, want string, _ bool) (treePlan, error) {
	dir, err := filepath.Abs(want)
	if err != nil {
		return treePlan{}, err
	}
	src, err := kbuild.OpenSource(dir, "")
	if err != nil {
		return treePlan{}, blame.New(blame.Usage, "kernel \"dir:"+want+"\"", err)
	}
	id, err := treeID(ctx, dir)
	if err != nil {
		return treePlan{}, blame.New(blame.Infrastructure, "list the files of "+dir, err)
	}
	return treePlan{want: dir, version: src.Version, id: id}, nil
}

// tree identifies the tree by its place, so that a changed file does not make
// an object tree of its own.
func (ownTrees) tree(_ context.Context, p treePlan) (kbuild.Source, error) {
	return kbuild.OpenSource(p.want, p.want)
}

// treeID changes whenever a source file of the tree does: it is a hash of names,
// sizes and times. What a build in the tree makes does not count.
func treeID(ctx context.Context, dir string) (string, error) {
	h := sha256.New()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" {
				return fs.SkipDir
			}
			return ctx.Err()
		}
		switch filepath.Ext(p) {
		case ".o", ".a", ".cmd", ".ko", ".mod", ".order", ".symvers":
			return nil
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		fmt.Fprintln(h, rel, fi.Size(), fi.ModTime().UnixNano())
		return nil
	})
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

// gitTrees provides commits of a git repository of the user's, as worktrees.
type gitTrees struct{ store *store.Store }

func (gitTrees) forms() []Form {
	return []Form{{"git:PATH@REF", "a commit of a repository of your own, built here as source: is"}}
}

func (g gitTrees) plan(ctx context.Context, want string, _ bool) (treePlan, error) {
	usage := func(err error) (treePlan, error) {
		return treePlan{}, blame.New(blame.Usage, "kernel \"git:"+want+"\"", err).WithHint("git:PATH@REF, where REF is a branch, a tag or a commit")
	}
	repo, ref, ok := cutLast(want, "@")
	if !ok || ref == "" || strings.HasPrefix(ref, "-") {
		return usage(errors.New("it names no commit"))
	}
	repo, err := filepath.Abs(repo)
	if err != nil {
		return treePlan{}, err
	}
	out, err := execx.Run(ctx, execx.Cmd{Argv: []string{"git", "-C", repo, "rev-parse", "--verify", "--end-of-options", ref + "^{commit}"}})
	if err != nil {
		return usage(err)
	}
	commit := strings.TrimSpace(string(out))
	text, err := execx.Run(ctx, execx.Cmd{Argv: []string{"git", "-C", repo, "show", commit + ":Makefile"}})
	if err != nil {
		return usage(err)
	}
	version, err := kbuild.Version(string(text))
	if err != nil {
		return usage(err)
	}
	return treePlan{want: repo, version: version, id: commit}, nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// tree makes a worktree of the commit in the cache. The repository remembers
// it; "git worktree prune" forgets it when the cache is gone.
func (g gitTrees) tree(ctx context.Context, p treePlan) (kbuild.Source, error) {
	key := store.Key{Kind: "source", Name: "git-" + p.version, Inputs: []string{"git", p.want, p.id}}
	dir := filepath.Join(g.store.Area("worktree"), key.ID())
	head, err := execx.Run(ctx, execx.Cmd{Argv: []string{"git", "-C", dir, "rev-parse", "HEAD"}})
	if err != nil || strings.TrimSpace(string(head)) != p.id {
		if err := os.RemoveAll(dir); err != nil {
			return kbuild.Source{}, err
		}
		_, err := execx.Run(ctx, execx.Cmd{Argv: []string{"git", "-C", p.want, "worktree", "add", "--force", "--detach", dir, p.id}})
		if err != nil {
			return kbuild.Source{}, blame.New(blame.Infrastructure, "make a worktree of "+p.want, err)
		}
	}
	return kbuild.OpenSource(dir, p.id)
}
