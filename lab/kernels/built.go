package kernels

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"crashlab/kconfig"
	"crashlab/kconfig/ikconfig"
	"crashlab/lab/blame"
	"crashlab/lab/kbuild"
	"crashlab/lab/store"
)

// built provides kernels that are built here.
//
// A spec is TREE+NAME+NAME…: the names are fragments (package kconfig, or the
// path of a file that ends in .config), a compression, a preemption model, or
// a configuration to start from: "defconfig", or the path of a .config,
// /proc/config.gz, a bzImage or a vmlinux. Unless a start or one of the lab's
// fragments is named, "lab" comes first.
type built struct {
	store    *store.Store
	log      *slog.Logger
	progress Progress
	trees    treeSource
}

func (b *built) forms() []Form { return b.trees.forms() }

// builtSpec is a spec taken apart.
type builtSpec struct {
	tree  string   // what the source of trees understands
	names []string // after it
}

// defconfig names the architecture's own default configuration.
const defconfig = "defconfig"

// parseBuilt takes the part of a spec apart that follows the provider's name.
// A + in the path of something that exists belongs to the path.
func parseBuilt(want string) builtSpec {
	tree := want
	for {
		if _, err := os.Stat(tree); err == nil {
			break
		}
		i := strings.LastIndexByte(tree, '+')
		if i < 0 {
			tree, _, _ = strings.Cut(want, "+")
			break
		}
		tree = tree[:i]
	}
	s := builtSpec{tree: tree}
	if rest := strings.TrimPrefix(want[len(tree):], "+"); rest != "" {
		s.names = strings.Split(rest, "+")
	}
	return s
}

// want loads what the spec's names stand for.
func (s builtSpec) want() (*kbuild.Want, error) {
	w := &kbuild.Want{Overridable: kconfig.Lab()}
	names := slices.Clone(s.names)
	started := slices.ContainsFunc(names, func(n string) bool {
		return n == kconfig.LabName || n == defconfig || slices.Contains(kconfig.Lab(), n) || isBase(n)
	})
	if !started {
		names = append([]string{kconfig.LabName}, names...)
	}
	var suffix, list []string
	var err error
	for _, n := range names {
		switch {
		case slices.ContainsFunc(kbuild.Archs(), func(a kbuild.Arch) bool { return a.Name == n }):
			if w.Arch, err = kbuild.ArchNamed(n); err != nil {
				return nil, err
			}
			suffix = append(suffix, n)
		case n == defconfig:
			w.Defconfig = true
			suffix = append(suffix, n)
		case isBase(n):
			c, err := ikconfig.ReadFile(n)
			if err != nil {
				return nil, err
			}
			w.Base = c
			suffix = append(suffix, "from", strings.TrimSuffix(filepath.Base(n), ".gz"))
		default:
			list = append(list, n)
			if !slices.Contains(kconfig.Compressions(), kconfig.Compression(n)) {
				suffix = append(suffix, strings.TrimSuffix(filepath.Base(n), ".config"))
			}
		}
	}
	if w.Arch.Name != "" {
		list = kconfig.For(w.Arch.Name, list)
		w.Overridable = kconfig.For(w.Arch.Name, w.Overridable)
	}
	if w.Fragments, err = kconfig.Load(osFS{}, list...); err != nil {
		return nil, err
	}
	w.Suffix = "-" + strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f && !strings.ContainsRune(`"'\/:%`, r) {
			return r
		}
		return '-'
	}, strings.Join(suffix, "-"))
	return w, nil
}

// isBase reports whether name is the path of a configuration to start from.
func isBase(name string) bool {
	return strings.Contains(name, "/") && !strings.HasSuffix(name, ".config")
}

// osFS opens files by any path, also absolute ones.
type osFS struct{}

func (osFS) Open(name string) (fs.File, error) { return os.Open(name) }

func (b *built) usage(spec string, err error) error {
	if _, ok := errors.AsType[*blame.Error](err); ok {
		return err
	}
	return blame.New(blame.Usage, fmt.Sprintf("kernel %q", spec), err).WithHint("go tool mage kernel:fragments lists what can follow a +")
}

func (b *built) resolve(ctx context.Context, spec, want string, fresh bool) (*Plan, error) {
	s := parseBuilt(want)
	if built, err := b.adopted(s); err != nil || built != nil {
		if built != nil {
			built.Spec = spec
		}
		return built, err
	}
	w, err := s.want()
	if err != nil {
		return nil, b.usage(spec, err)
	}
	t, err := b.trees.plan(ctx, s.tree, fresh)
	if err != nil {
		return nil, err
	}
	key, err := w.Key()
	if err != nil {
		return nil, b.usage(spec, err)
	}
	tools, err := kbuild.FindToolchain(ctx, w.Built())
	if err != nil {
		return nil, err
	}
	return &Plan{
		Spec: spec, Release: t.version + w.Suffix, Version: t.version, Packages: t.packages, Compiler: w.Built().Prefix() + "gcc",
		Inputs: []string{"built", buildVersion, t.id, key, tools.ID()},
	}, nil
}

// buildVersion is part of the key of built kernels; it changes when building
// does something else than before.
const buildVersion = "3"

// adopted returns the plan for a tree in which a kernel is built already, and
// for which the spec asks nothing else; nil if it is not so.
func (b *built) adopted(s builtSpec) (*Plan, error) {
	if _, own := b.trees.(ownTrees); !own || len(s.names) > 0 {
		return nil, nil
	}
	t, ok, err := kbuild.FindBuilt(s.tree)
	if err != nil || !ok {
		return nil, err
	}
	return &Plan{
		Release: t.Release, Version: t.BuildID, Compiler: t.Arch.Prefix() + "gcc",
		Inputs: []string{"adopted", buildVersion, t.Dir, t.ID},
	}, nil
}

func (b *built) unpack(ctx context.Context, p *Plan, dir string) error {
	_, want, _ := strings.Cut(p.Spec, ":")
	s := parseBuilt(want)
	if plan, err := b.adopted(s); err != nil || plan != nil {
		if err != nil {
			return err
		}
		t, _, err := kbuild.FindBuilt(s.tree)
		if err != nil {
			return err
		}
		b.progress("copy "+t.Release, 0, 0)
		return t.Install(ctx, dir)
	}
	builder, src, w, err := b.prepare(ctx, p.Spec)
	if err != nil {
		return err
	}
	r, err := builder.Build(ctx, src, w, dir)
	if err != nil {
		return err
	}
	for _, told := range slices.Concat(r.Refusals, r.Overrides) {
		b.log.Debug(told)
	}
	if r.Release != p.Release {
		return blame.New(blame.Kernel, "build "+p.Release, fmt.Errorf("it calls itself %s", r.Release))
	}
	return nil
}

// prepare fetches the source tree of spec and says how to build it.
func (b *built) prepare(ctx context.Context, spec string) (*kbuild.Builder, kbuild.Source, *kbuild.Want, error) {
	fail := func(err error) (*kbuild.Builder, kbuild.Source, *kbuild.Want, error) {
		return nil, kbuild.Source{}, nil, err
	}
	_, want, _ := strings.Cut(spec, ":")
	s := parseBuilt(want)
	w, err := s.want()
	if err != nil {
		return fail(b.usage(spec, err))
	}
	t, err := b.trees.plan(ctx, s.tree, false)
	if err != nil {
		return fail(err)
	}
	src, err := b.trees.tree(ctx, t)
	if err != nil {
		return fail(err)
	}
	tools, err := kbuild.FindToolchain(ctx, w.Built())
	if err != nil {
		return fail(err)
	}
	builder := &kbuild.Builder{
		Work: b.store.Area("kbuild"), Toolchain: tools, Log: b.log,
		Progress: func(doing string) { b.progress(doing, 0, 0) },
	}
	return builder, src, w, nil
}

// Prepare returns what builds the kernel of a spec such as "source:6.1+xz", from
// which tree, and how it is to be configured. The source tree is fetched. Specs of
// kernels that are not built here are the user's fault.
func (s *Sources) Prepare(ctx context.Context, spec string) (*kbuild.Builder, kbuild.Source, *kbuild.Want, error) {
	p, _, err := s.provider(spec)
	if err != nil {
		return nil, kbuild.Source{}, nil, err
	}
	b, ok := p.(*built)
	if !ok {
		return nil, kbuild.Source{}, nil, blame.New(blame.Usage, fmt.Sprintf("kernel %q", spec), errors.New("it comes built")).
			WithHint("source:6.1, dir:PATH and git:PATH@REF are built here")
	}
	return b.prepare(ctx, spec)
}

// ArchOf returns the name of the architecture that a spec asks for, such as
// "arm64"; "" if it names none, which means the lab's own.
func ArchOf(spec string) string {
	_, want, _ := strings.Cut(spec, ":")
	for _, n := range parseBuilt(want).names {
		if slices.ContainsFunc(kbuild.Archs(), func(a kbuild.Arch) bool { return a.Name == n }) {
			return n
		}
	}
	return ""
}

// Tools says what a spec needs on this machine: whether a kernel is built for
// it, and which programs pack its image.
func Tools(spec string) (build bool, programs []string) {
	name, want, _ := strings.Cut(spec, ":")
	if base, _, _ := strings.Cut(name, "@"); base != "source" && base != "dir" && base != "git" {
		return false, nil
	}
	if ArchOf(spec) == "arm64" {
		return true, nil // its image is not packed
	}
	programs = []string{kconfig.Compression("zstd").Program()}
	for _, n := range parseBuilt(want).names {
		if p := kconfig.Compression(n).Program(); p != "" {
			programs = []string{p}
		}
	}
	return true, programs
}
