package lab

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"crashlab/kconfig"
	"crashlab/kconfig/ikconfig"
	"crashlab/lab/blame"
	"crashlab/lab/doctor"
	"crashlab/lab/kbuild"
	"crashlab/lab/kernels"
	"crashlab/lab/store"
	"crashlab/lab/ui"
)

// DefaultBuilt is the spec of the kernel that is built if none is named.
const DefaultBuilt = "source:6.1"

// builtSpec returns spec, or the one of the settings, or the default, for the
// architecture of the settings.
func (l *Lab) builtSpec(spec string) string {
	spec = cmp.Or(spec, l.Settings.Kernel, DefaultBuilt)
	if build, _ := kernels.Tools(spec); build && l.Settings.Arch == "arm64" && kernels.ArchOf(spec) == "" {
		spec += "+" + l.Settings.Arch
	}
	return spec
}

// sources returns the providers of kernels, which show what they do as a stage.
func (l *Lab) sources(ctx context.Context, spec string, stage *ui.Stage, menu bool) (*kernels.Sources, error) {
	o := doctor.Options{Kernel: spec, Cache: l.Settings.Cache, Menu: menu}
	o.Build, o.Packers = kernels.Tools(spec)
	o.ARM64 = kernels.ArchOf(spec) == "arm64"
	if err := doctor.New().Ensure(ctx, o, func(line string) { l.UI.Say("%s", line) }); err != nil {
		return nil, err
	}
	s, err := store.Open(l.Settings.Cache, l.Log)
	if err != nil {
		return nil, stageError(blame.Infrastructure, "open the cache", err)
	}
	return kernels.New(s, l.Log, func(doing string, done, total int64) {
		if total > 0 {
			stage.Note("%s: %d of %d MB", doing, done>>20, total>>20)
		} else {
			stage.Note("%s", doing)
		}
	}, l.kernelOptions()), nil
}

// kernelOptions returns what the settings say about where kernels come from.
func (l *Lab) kernelOptions() kernels.Options {
	return kernels.Options{Mirrors: l.Settings.Mirrors, Ubuntu: l.Settings.Ubuntu, Keys: l.Settings.Keys}
}

// prepare says how the kernel of spec is built.
func (l *Lab) prepare(ctx context.Context, spec string, stage *ui.Stage, menu bool) (*kbuild.Builder, kbuild.Source, *kbuild.Want, error) {
	src, err := l.sources(ctx, spec, stage, menu)
	if err != nil {
		return nil, kbuild.Source{}, nil, err
	}
	return src.Prepare(ctx, spec)
}

// KernelConfig configures the kernel of spec and writes to w where the .config
// is, what each fragment asked for, and what did not come of it.
func (l *Lab) KernelConfig(ctx context.Context, w io.Writer, spec string) error {
	spec = l.builtSpec(spec)
	stage := l.UI.Begin("config")
	var c *kbuild.Configured
	builder, src, want, err := l.prepare(ctx, spec, stage, false)
	if err == nil {
		c, err = builder.Configure(ctx, src, want)
	}
	note := ""
	if c != nil {
		note = fmt.Sprintf("%s: %d options set", src.Version+want.Suffix, len(kconfig.Diff(new(kconfig.Config), c.Config)))
	}
	stage.End(note, false, err)
	if c == nil || c.Merged == nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, a := range c.Merged.Lines() {
		fmt.Fprintf(t, "%s\t%s\t%s\n", a.Fragment, a.Line(), a.Why)
	}
	if ferr := t.Flush(); ferr != nil {
		return ferr
	}
	for _, o := range c.Overrides {
		fmt.Fprintf(w, "override: %s\n", o)
	}
	for _, r := range c.Refusals {
		fmt.Fprintf(w, "not as asked: %s\n", r)
	}
	fmt.Fprintf(w, "%s\n", c.Path)
	return err
}

// KernelBuild builds the kernel of spec, or gets it if it comes built, and
// writes to w what it is.
func (l *Lab) KernelBuild(ctx context.Context, w io.Writer, spec string) error {
	k, err := l.kernelOf(ctx, spec, "build")
	if err != nil {
		return err
	}
	return describe(w, k)
}

// KernelInfo says what the kernel of spec is, and fetches or builds it if need be.
func (l *Lab) KernelInfo(ctx context.Context, w io.Writer, spec string) error {
	return l.KernelBuild(ctx, w, spec)
}

func (l *Lab) kernelOf(ctx context.Context, spec, name string) (*kernels.Kernel, error) {
	spec = l.builtSpec(spec)
	stage := l.UI.Begin(name)
	began := time.Now()
	var k *kernels.Kernel
	src, err := l.sources(ctx, spec, stage, false)
	if err == nil {
		k, err = src.Fetch(ctx, spec)
	}
	note := ""
	if k != nil {
		note = k.Release
	}
	stage.End(note, err == nil && time.Since(began) < time.Second, err)
	return k, err
}

// describe writes what is known about k.
func describe(w io.Writer, k *kernels.Kernel) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, a ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, a...)) }
	row("release", "%s", k.Release)
	row("architecture", "%s", cmp.Or(k.Arch, kbuild.Archs()[0].Name))
	row("version", "%s", k.Version)
	fi, err := os.Stat(k.Image)
	if err != nil {
		return blame.New(blame.Infrastructure, "read the kernel", err)
	}
	row("image", "%s (%.1f MB)", k.Image, float64(fi.Size())/1e6)
	for _, f := range [][2]string{{"vmlinux", k.VMLinux}, {"System.map", k.SystemMap}, {"headers", k.Headers}} {
		if f[1] != "" {
			row(f[0], "%s", f[1])
		}
	}
	row("config", "%s", k.Config)
	row("modules", "%s", k.Modules)
	row("compiler", "%s", k.Compiler)
	r, err := buildResult(k)
	if err != nil {
		return err
	}
	if r != nil {
		row("build ID", "%s", r.BuildID)
		row("fragments", "%s", strings.Join(r.Fragments, " "))
		if r.Compression != "" {
			row("compression", "%s", r.Compression)
		}
		row("built in", "%v, %v of processor time, %d files compiled", r.Wall.Round(time.Second), r.CPU.Round(time.Second), r.Compiled)
		for _, o := range r.Overrides {
			row("override", "%s", o)
		}
		for _, f := range r.Refusals {
			row("not as asked", "%s", f)
		}
	}
	c, err := kconfig.ReadFile(k.Config)
	if err != nil {
		return blame.New(blame.Kernel, "read the kernel's configuration", err)
	}
	for _, loss := range c.Missing(kconfig.LabNeeds()) {
		row("lacks", "%s", loss)
	}
	return t.Flush()
}

// buildResult returns what the build said of itself, nil for a kernel that came built.
func buildResult(k *kernels.Kernel) (*kbuild.Result, error) {
	name := filepath.Join(filepath.Dir(filepath.Dir(k.Image)), kbuild.ResultFile)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	r := new(kbuild.Result)
	if err == nil {
		err = json.Unmarshal(b, r)
	}
	if err != nil {
		return nil, blame.New(blame.Infrastructure, "read "+name, err)
	}
	return r, nil
}

// KernelInstall copies the kernel of spec below dir: boot/ and lib/modules/, as
// make install and make modules_install do.
func (l *Lab) KernelInstall(ctx context.Context, w io.Writer, spec, dir string) error {
	k, err := l.kernelOf(ctx, spec, "kernel")
	if err != nil {
		return err
	}
	const doing = "install the kernel"
	if err := os.MkdirAll(filepath.Join(dir, "boot"), 0o755); err != nil {
		return blame.New(blame.Infrastructure, doing, err)
	}
	for _, f := range [][2]string{{k.Image, "vmlinuz-"}, {k.Config, "config-"}, {k.SystemMap, "System.map-"}} {
		if f[0] == "" {
			continue
		}
		to := filepath.Join(dir, "boot", f[1]+k.Release)
		b, err := os.ReadFile(f[0])
		if err == nil {
			err = os.WriteFile(to, b, 0o644)
		}
		if err != nil {
			return blame.New(blame.Infrastructure, doing, err)
		}
		fmt.Fprintln(w, to)
	}
	to := filepath.Join(dir, "lib/modules", k.Release)
	if err := os.RemoveAll(to); err != nil {
		return blame.New(blame.Infrastructure, doing, err)
	}
	if err := os.CopyFS(to, os.DirFS(k.Modules)); err != nil {
		return blame.New(blame.Infrastructure, doing, err)
	}
	fmt.Fprintln(w, to)
	return nil
}

// KernelMenu lets the user change the configuration of spec by menus, and writes
// the difference to the file called name, which ends in .config.
func (l *Lab) KernelMenu(ctx context.Context, w io.Writer, spec, target, name string) error {
	spec = l.builtSpec(spec)
	if filepath.Ext(name) != ".config" {
		return blame.New(blame.Usage, target, fmt.Errorf("%q does not end in .config", name)).WithHint("go tool mage kernel:%s mine.config", target)
	}
	stage := l.UI.Begin(target)
	var f *kconfig.Fragment
	builder, src, want, err := l.prepare(ctx, spec, stage, target == "menuconfig" || target == "nconfig")
	if err == nil {
		l.UI.Close() // the terminal is the menu's
		f, err = builder.Menu(ctx, src, want, target, strings.TrimSuffix(filepath.Base(name), ".config"))
	}
	if f == nil {
		stage.End("nothing was changed", false, err)
		return err
	}
	stage.End(fmt.Sprintf("%d options changed", len(f.Lines)), false, err)
	var b bytes.Buffer
	if err := errors.Join(err, f.Write(&b)); err != nil {
		return err
	}
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		return blame.New(blame.Infrastructure, target, err)
	}
	fmt.Fprintf(w, "saved; use it as %s+%s\n", spec, name)
	return nil
}

// KernelMake runs make with targets of the kernel's own on the kernel of spec.
func (l *Lab) KernelMake(ctx context.Context, spec, targets string) error {
	spec = l.builtSpec(spec)
	stage := l.UI.Begin("make")
	builder, src, want, err := l.prepare(ctx, spec, stage, false)
	stage.End(targets, false, err)
	if err != nil {
		return err
	}
	l.UI.Close()
	return builder.Make(ctx, src, want, targets)
}

// KernelSearch lists the options of the kernel of spec that have all words in
// their name, prompt or help, with what they depend on.
func (l *Lab) KernelSearch(ctx context.Context, w io.Writer, spec, words string) error {
	spec = l.builtSpec(spec)
	stage := l.UI.Begin("search")
	var tree *kconfig.Tree
	_, src, want, err := l.prepare(ctx, spec, stage, false)
	if err == nil {
		if tree, err = kbuild.ParseKconfig(src, want.Built()); err != nil {
			err = blame.New(blame.Kernel, "read the Kconfig files", err)
		}
	}
	var found []kconfig.Match
	if tree != nil {
		found = tree.Search(strings.Fields(words)...)
	}
	stage.End(fmt.Sprintf("%d options", len(found)), false, err)
	for _, m := range found {
		fmt.Fprintf(w, "CONFIG_%s (%s): %s\n", m.Name, m.Type, m.Title())
		for _, d := range m.Defs {
			fmt.Fprintf(w, "    %s:%d", d.File, d.Line)
			if d.DependsOn != nil {
				fmt.Fprintf(w, ", depends on %s", d.DependsOn)
			}
			fmt.Fprintln(w)
		}
	}
	return err
}

// KernelDiff writes to w what must be changed to get from one configuration to
// the other. Both are files: a .config, config.gz, bzImage or vmlinux.
func KernelDiff(w io.Writer, from, to string) error {
	var c [2]*kconfig.Config
	for i, name := range []string{from, to} {
		var err error
		if c[i], err = ikconfig.ReadFile(name); err != nil {
			return blame.New(blame.Usage, "compare configurations", err)
		}
	}
	for _, d := range kconfig.Diff(c[0], c[1]) {
		fmt.Fprintln(w, d)
	}
	return nil
}

// KernelFragments lists what can follow a + in the spec of a kernel.
func KernelFragments(w io.Writer) error {
	all, err := kconfig.Fragments()
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s\t%s\n", "arm64", "For another architecture, to boot it: kernel:boot.")
	fmt.Fprintf(t, "%s\t%s\n", kconfig.LabName, strings.Join(kconfig.Lab(), " + ")+"; the default")
	for _, f := range all {
		fmt.Fprintf(t, "%s\t%s\n", f.Name, f.Title)
	}
	for _, c := range kconfig.Compressions() {
		fmt.Fprintf(t, "%s\t%s\n", c, c.Fragment().Title)
	}
	for _, p := range kconfig.Preemptions() {
		fmt.Fprintf(t, "%s\t%s\n", p.Fragment().Name, p.Fragment().Title)
	}
	fmt.Fprintf(t, "%s\t%s\n", "defconfig", "The architecture's own default, to start from.")
	fmt.Fprintf(t, "%s\t%s\n", "DIR/FILE", "A .config, config.gz, bzImage or vmlinux to start from.")
	fmt.Fprintf(t, "%s\t%s\n", "FILE.config", "A fragment of your own.")
	return t.Flush()
}
