package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"crashlab/internal/execx"
	"crashlab/internal/unpack"
	"crashlab/kconfig"
	"crashlab/lab/blame"
	"crashlab/lab/doctor"
	"crashlab/lab/kbuild"
	"crashlab/lab/kernels"
	"crashlab/lab/kmod"
	"crashlab/lab/store"
	"crashlab/lab/ui"
	"crashlab/modules"
	"crashlab/scenarios"
)

// What is promised of building the lab's kernel.
const (
	coldCPU      = 10 * time.Minute
	unchanged    = 3 * time.Second
	imageStep    = 40 * time.Second
	uptimeAtPID1 = 1500 * time.Millisecond
	imageSize    = 8 << 20
	asFast       = 1.1 // a run's time against another's that is called as fast
)

// BenchKernel measures what building the lab's kernel costs, beside the kernel of
// the distribution and a plain defconfig, and whether what is promised is kept. Each
// thing is measured n times unless it says otherwise. If cold, the kernel is compiled
// anew without ccache: ten minutes of processor time.
func (l *Lab) BenchKernel(ctx context.Context, n int, cold bool) error {
	b := &kernelBench{Lab: l, n: n}
	o := doctor.Options{Kernel: DefaultBuilt, Cache: l.Settings.Cache, Space: kbuild.SpaceNeeded}
	o.Build, o.Packers = kernels.Tools(DefaultBuilt)
	o.Packers = append(o.Packers, kconfig.Compression(otherPacking).Program())
	if err := doctor.New().Ensure(ctx, o, func(line string) { l.UI.Say("%s", line) }); err != nil {
		return err
	}
	var err error
	if b.store, err = store.Open(l.Settings.Cache, l.Log); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		f    func(context.Context) error
	}{
		{"build", func(ctx context.Context) error { return b.build(ctx, cold) }},
		{"unchanged", b.unchanged},
		{"one line", b.oneLine},
		{"defconfig", b.defconfig},
		{"boot", b.boot},
		{"module", b.module},
		{"scenario", b.scenario},
		{"unpack", b.unpack},
	} {
		b.stage = l.UI.Begin(part.name)
		err := part.f(ctx)
		b.stage.End("", false, err)
		if err != nil {
			return err
		}
	}
	for line := range strings.Lines(b.text()) {
		l.UI.Say("%s", strings.TrimRight(line, " \n"))
	}
	return nil
}

// kernelBench is the measurements of building one kernel.
type kernelBench struct {
	*Lab
	n     int
	store *store.Store
	stage *ui.Stage
	rows  []kernelRow

	kernel *kernels.Kernel // the lab's
	cost   *kbuild.Result  // of building it, all of it; nil if nobody knows
}

// kernelRow is one number.
type kernelRow struct{ what, value, how, promise string }

func (b *kernelBench) add(what, value, how string) {
	b.rows = append(b.rows, kernelRow{what: what, value: value, how: how})
}

// promise says of the last row what was promised, and whether that is kept.
func (b *kernelBench) promise(kept bool, format string, a ...any) {
	r := &b.rows[len(b.rows)-1]
	if r.promise = fmt.Sprintf(format, a...); !kept {
		r.promise += " (broken)"
	}
}

// sources returns the providers of kernels.
func (b *kernelBench) sources() *kernels.Sources {
	return kernels.New(b.store, b.Log, func(doing string, _, _ int64) { b.stage.Note("%s", doing) }, b.kernelOptions())
}

// build builds the lab's kernel, or takes what its build noted if that compiled
// everything and is not to be done anew.
func (b *kernelBench) build(ctx context.Context, cold bool) error {
	var err error
	if b.kernel, err = b.sources().Fetch(ctx, DefaultBuilt); err != nil {
		return err
	}
	if b.cost, err = buildResult(b.kernel); err != nil {
		return err
	}
	how := "recorded"
	if cold {
		if b.cost, err = b.cold(ctx); err != nil {
			return err
		}
		how = "measured"
	}
	const what = "the lab's kernel from an unpacked tree"
	if b.cost.Compiled < manyFiles { // packed anew, or everything was in ccache
		b.cost = nil
		b.add(what, "?", "not recorded: -cold")
		b.promise(true, "at most %d CPU-min", int(coldCPU.Minutes()))
	} else {
		cc := "without ccache"
		if b.cost.Toolchain.CCache != "" {
			cc = "with ccache"
		}
		b.add(what, fmt.Sprintf("%.1f CPU-min, %.1f min", b.cost.CPU.Minutes(), b.cost.Wall.Minutes()),
			fmt.Sprintf("%s, once, %s: %d files", how, cc, b.cost.Compiled))
		b.promise(b.cost.CPU <= coldCPU, "at most %d CPU-min", int(coldCPU.Minutes()))
	}
	fi, err := os.Stat(b.kernel.Image)
	if err != nil {
		return blame.New(blame.Infrastructure, "read the kernel", err)
	}
	b.add("  its bzImage", fmt.Sprintf("%.1f MB", float64(fi.Size())/1e6), "measured")
	b.promise(fi.Size() <= imageSize, "at most %d MB", imageSize>>20)
	return nil
}

// cold builds the lab's kernel in an object tree of its own.
func (b *kernelBench) cold(ctx context.Context) (*kbuild.Result, error) {
	builder, src, want, err := b.sources().Prepare(ctx, DefaultBuilt)
	if err != nil {
		return nil, err
	}
	dir, done, err := b.temp()
	if err != nil {
		return nil, err
	}
	defer done()
	builder.Work, builder.Toolchain.CCache = filepath.Join(dir, "work"), ""
	return builder.Build(ctx, src, want, filepath.Join(dir, "kernel"))
}

// temp makes a folder in the cache, where there is room for kernels.
func (b *kernelBench) temp() (dir string, done func(), err error) {
	area := b.store.Area("bench")
	if err = os.MkdirAll(area, 0o777); err == nil {
		dir, err = os.MkdirTemp(area, "")
	}
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, "kernel"), 0o777)
	}
	if err != nil {
		return "", nil, blame.New(blame.Infrastructure, "make a folder to measure in", err)
	}
	return dir, func() { _ = os.RemoveAll(dir) }, nil
}

// unchanged asks for the kernel again.
func (b *kernelBench) unchanged(ctx context.Context) error {
	times, err := b.times(func() error {
		_, err := b.sources().Fetch(ctx, DefaultBuilt)
		return err
	})
	if err != nil {
		return err
	}
	b.add("  nothing changed", spread(times), "measured")
	b.promise(median(times) <= unchanged, "at most %v", unchanged)
	return nil
}

// times runs f n times and returns how long each took, sorted.
func (b *kernelBench) times(f func() error) ([]time.Duration, error) {
	var times []time.Duration
	for range b.n {
		began := time.Now()
		if err := f(); err != nil {
			return nil, err
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	return times, nil
}

// spread is the median of sorted times and their range.
func spread(t []time.Duration) string {
	if len(t) == 1 {
		return round(t[0]).String()
	}
	return fmt.Sprintf("%v (%v to %v)", median(t), round(t[0]), round(t[len(t)-1]))
}

// otherPacking is a packing that the lab's kernel does not have.
const otherPacking = "gzip"

// oneLine builds the kernel with one line changed that concerns only its image,
// and back: from the configuration to the installed kernel.
func (b *kernelBench) oneLine(ctx context.Context) error {
	var times, cpu []time.Duration
	for _, spec := range []string{DefaultBuilt + "+" + otherPacking, DefaultBuilt, DefaultBuilt + "+" + otherPacking, DefaultBuilt} {
		builder, src, want, err := b.sources().Prepare(ctx, spec)
		if err != nil {
			return err
		}
		dir, done, err := b.temp()
		if err != nil {
			return err
		}
		r, err := builder.Build(ctx, src, want, filepath.Join(dir, "kernel"))
		done()
		if err != nil {
			return err
		}
		if r.Compiled < manyFiles { // the object tree was there
			times, cpu = append(times, r.Wall), append(cpu, r.CPU)
		}
	}
	if len(times) == 0 {
		return blame.New(blame.Kernel, "pack the kernel with "+otherPacking, errors.New("everything is compiled again each time"))
	}
	slices.Sort(times)
	slices.Sort(cpu)
	b.add("  one fragment line changed in the image step", spread(times), fmt.Sprintf("measured: gzip and zstd, %v of processor time", median(cpu)))
	b.promise(median(times) <= imageStep, "at most %v", imageStep)
	return nil
}

// defconfig estimates what a plain make defconfig bzImage takes.
func (b *kernelBench) defconfig(ctx context.Context) error {
	builder, src, want, err := b.sources().Prepare(ctx, DefaultBuilt+"+defconfig")
	if err != nil {
		return err
	}
	dir, done, err := b.temp()
	if err != nil {
		return err
	}
	defer done()
	builder.Work = filepath.Join(dir, "work")
	want.Fragments = nil
	files, err := builder.Count(ctx, src, want)
	if err != nil {
		return err
	}
	b.add("make defconfig bzImage", fmt.Sprintf("%d files", files), "counted by make -n")
	if b.cost != nil {
		cpu := time.Duration(float64(b.cost.CPU) / float64(b.cost.Compiled) * float64(files))
		b.add("", fmt.Sprintf("%.0f CPU-min", cpu.Minutes()), "estimated: as long for each file as the lab's")
	}
	return nil
}

// boot boots the lab's kernel.
func (b *kernelBench) boot(ctx context.Context) error {
	k, err := b.bootsOf(ctx, DefaultBuilt)
	if err != nil {
		return err
	}
	var uptimes, offs []time.Duration
	for i := range b.n + 1 {
		t, err := k.boot(ctx, 2)
		if err != nil {
			return err
		}
		if i > 0 { // the first one fills the caches
			uptimes, offs = append(uptimes, t.uptime), append(offs, t.off)
		}
	}
	slices.Sort(uptimes)
	slices.Sort(offs)
	b.add("guest's uptime at process 1, initramfs included", spread(uptimes), "measured, "+strings.ToUpper(string(k.probe.Accel)))
	b.promise(median(uptimes) <= uptimeAtPID1, "at most %v", uptimeAtPID1)
	b.add("  from its last word to the machine's end", spread(offs), "measured")
	return nil
}

// module builds the scenario's module on the lab's kernel and on the
// distribution's.
func (b *kernelBench) module(ctx context.Context) error {
	s, err := scenarios.Load(benchScenario)
	if err != nil {
		return err
	}
	var took [2][]time.Duration
	for range b.n {
		for i, spec := range []string{s.Kernel, DefaultBuilt} {
			k, err := b.sources().Fetch(ctx, spec)
			if err != nil {
				return err
			}
			dir, done, err := b.temp()
			if err != nil {
				return err
			}
			fresh, err := store.Open(filepath.Join(dir, "store"), b.Log)
			if err == nil {
				began := time.Now()
				_, err = (&kmod.Builder{Store: fresh, Log: b.Log}).Build(ctx, k, modules.FS, s.Module)
				took[i] = append(took[i], time.Since(began))
			}
			done()
			if err != nil {
				return err
			}
		}
	}
	b.compare("building the module of scenario:"+benchScenario, took)
	return nil
}

// scenario runs a module scenario on both kernels in turn.
func (b *kernelBench) scenario(ctx context.Context) error {
	s, err := scenarios.Load(benchScenario)
	if err != nil {
		return err
	}
	var took [2][]time.Duration
	for n := range b.n + 1 { // the first one fills the caches
		for i, spec := range []string{s.Kernel, DefaultBuilt} {
			l := *b.Lab
			l.Settings.Kernel = spec
			run, dir, err := l.Run(ctx, s)
			if err != nil {
				return err
			}
			if err := os.RemoveAll(dir); err != nil {
				return blame.New(blame.Infrastructure, "remove the run", err)
			}
			if n > 0 {
				took[i] = append(took[i], run.Took)
			}
		}
	}
	b.compare("warm run of scenario:"+benchScenario, took)
	return nil
}

// compare adds a row for the distribution's kernel and one for the lab's, which
// is to be as fast.
func (b *kernelBench) compare(what string, took [2][]time.Duration) {
	slices.Sort(took[0])
	slices.Sort(took[1])
	b.add(what+", the distribution's kernel", spread(took[0]), "measured")
	b.add("  the lab's kernel", spread(took[1]), "measured")
	ratio := float64(median(took[1])) / float64(median(took[0]))
	b.promise(ratio <= asFast, "as fast: %.2f of it", ratio)
}

// unpack unpacks the archive of the sources, and has tar do the same.
func (b *kernelBench) unpack(ctx context.Context) error {
	dir, done, err := b.temp()
	if err != nil {
		return err
	}
	defer done()
	archive, err := b.sources().SourceArchive(ctx, strings.TrimPrefix(DefaultBuilt, "source:"), filepath.Join(dir, "kernel"))
	if err != nil {
		return err
	}
	fi, err := os.Stat(archive)
	if err != nil {
		return blame.New(blame.Infrastructure, "unpack the sources", err)
	}
	into := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.Mkdir(into("tar"), 0o777), os.Mkdir(into("own"), 0o777)); err != nil {
		return blame.New(blame.Infrastructure, "unpack the sources", err)
	}
	began := time.Now()
	if _, err := execx.Run(ctx, execx.Cmd{Argv: []string{"tar", "-xJf", archive, "-C", into("tar")}}); err != nil {
		return blame.New(blame.Infrastructure, "have tar unpack the sources", err)
	}
	tar := time.Since(began)
	began = time.Now()
	if err := unpackTo(ctx, archive, into("own")); err != nil {
		return blame.New(blame.Infrastructure, "unpack the sources", err)
	}
	own := time.Since(began)
	b.add(fmt.Sprintf("tar -xJ of the sources, %d MB", fi.Size()/1e6), round(tar).String(), "measured once")
	b.add("  the lab", round(own).String(), "measured once")
	b.promise(own <= tar, "as fast: %.2f of it", float64(own)/float64(tar))
	return nil
}

// unpackTo unpacks an archive into dir.
func unpackTo(ctx context.Context, archive, dir string) error {
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
	r, err := unpack.Open(ctx, f, fi.Size())
	if err != nil {
		return err
	}
	defer r.Close()
	tree := &unpack.Tree{Root: root}
	return errors.Join(unpack.Tar(r, tree.Add), tree.Close())
}

// text returns the table.
func (b *kernelBench) text() string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "what\t\tpromised\thow\t")
	for _, r := range b.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t\n", r.what, r.value, r.promise, r.how)
	}
	if err := w.Flush(); err != nil {
		return err.Error()
	}
	return out.String()
}
