package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"crashlab/kconfig"
	"crashlab/lab/blame"
	"crashlab/lab/doctor"
	"crashlab/lab/kernels"
	"crashlab/lab/store"
	"crashlab/lab/study"
	"crashlab/lab/wire"
)

// builtKernel is the kernel that is built and studied unless the user names
// another one that is built here.
const builtKernel = "source:6.1"

// StudyCompression packs one kernel in every way that it knows and boots each n
// times. All are built in one object tree: only the packing is repeated.
func (l *Lab) StudyCompression(ctx context.Context, n int) (*study.Study, error) {
	spec := l.Settings.Kernel
	if build, _ := kernels.Tools(spec); !build {
		spec = builtKernel
	}
	err := doctor.New().Ensure(ctx, doctor.Options{Kernel: spec, Cache: l.Settings.Cache}, func(line string) { l.UI.Say("%s", line) })
	if err != nil {
		return nil, err
	}
	s, err := store.Open(l.Settings.Cache, l.Log)
	if err != nil {
		return nil, err
	}
	var choices []*packed
	for _, c := range kconfig.Compressions() {
		p := &packed{lab: l, store: s, spec: spec + "+" + string(c), name: string(c)}
		if program := c.Program(); program != "" {
			if _, err := exec.LookPath(program); err != nil {
				p.lacks = "needs the program " + program
			}
		}
		choices = append(choices, p)
	}
	var last *boots
	for _, p := range choices {
		if p.lacks != "" {
			continue
		}
		if err := p.build(ctx); err != nil {
			if blame.Of(err).Party != blame.Usage {
				return nil, err
			}
			p.lacks = "this kernel cannot be packed so"
			continue
		}
		if last, err = l.bootsOf(ctx, p.spec); err != nil {
			return nil, err
		}
		p.boots = last
	}
	if last == nil {
		return nil, blame.New(blame.Infrastructure, "pack the kernel", errors.New("no program that packs it is installed")).WithHint("apt install zstd xz-utils")
	}
	for range n { // in turn, so that a host that slows down does so for all
		for _, p := range choices {
			if p.lacks != "" {
				continue
			}
			if err := p.boot(ctx); err != nil {
				return nil, err
			}
		}
	}
	size, pack, before := study.Chart{Title: "Image", Unit: "MB"}, study.Chart{Title: "Packing", Unit: "s"}, study.Chart{Title: "Until the kernel's clock starts", Unit: "ms"}
	for _, p := range choices {
		point := func(values ...float64) study.Point {
			if p.lacks != "" {
				values = nil
			}
			return study.Point{Label: p.name, Values: values, Note: p.lacks}
		}
		size.Points = append(size.Points, point(float64(p.bytes)/1e6))
		pack.Points = append(pack.Points, point(p.took.Seconds()))
		before.Points = append(before.Points, point(p.before...))
	}
	return &study.Study{
		Name:     "compression",
		Title:    "What packing the kernel costs",
		Question: fmt.Sprintf("How small does each way to pack %s make it, and how long do packing and unpacking take?", last.kernel.Release),
		Answer:   answerCompression(size, pack, before),
		How: []string{
			fmt.Sprintf("One object tree of %s; for each choice only the image is made again, once. Packing is the time of that step of the build, relinking included.", last.kernel.Release),
			fmt.Sprintf("Each image booted %d times, in turn. The guest reads the cycles that its processor has counted since power-on and takes away what the kernel's own clock says: firmware, loading and unpacking are left, and only the latter two differ.", n),
			last.host(),
		},
		Caveats: []string{"An emulated processor unpacks some twenty times as slowly as a real one. Where images come from a slow disk or network, the smaller one wins more than here."},
		Charts:  []study.Chart{size, pack, before},
		Made:    time.Now(),
	}, nil
}

// answerCompression names the smallest and the fastest.
func answerCompression(size, pack, before study.Chart) string {
	least := func(c study.Chart) (string, float64) {
		name, best := "", 0.0
		for _, p := range c.Points {
			if v, ok := p.Median(); ok && (name == "" || v < best) {
				name, best = p.Label, v
			}
		}
		return name, best
	}
	small, mb := least(size)
	fast, ms := least(before)
	quick, s := least(pack)
	return fmt.Sprintf("%s makes the smallest image (%.1f MB), %s boots first (%.0f ms until the kernel's clock starts), and %s is packed first (%.1f s).",
		small, mb, fast, ms, quick, s)
}

// packed is a kernel packed in one way.
type packed struct {
	lab   *Lab
	store *store.Store
	spec  string
	name  string
	lacks string // why it could not be measured; "" if it was

	boots  *boots
	bytes  int64         // of the image
	took   time.Duration // to pack it
	before []float64     // ms until the kernel's clock started, one for each boot
}

// build packs the kernel. Whatever else has to be built is built before, so
// that the time is that of packing alone.
func (p *packed) build(ctx context.Context) (err error) {
	shown := p.lab.UI.Begin("pack " + p.name)
	note := ""
	defer func() { shown.End(note, false, err) }()
	src := kernels.New(p.store, p.lab.Log, func(doing string, done, total int64) { shown.Note("%s", doing) }, p.lab.kernelOptions())
	builder, tree, want, err := src.Prepare(ctx, p.spec)
	if err != nil {
		return err
	}
	for range 2 { // the first may compile everything
		dir, err := os.MkdirTemp("", "crashlab-study-")
		if err != nil {
			return blame.New(blame.Infrastructure, "make a folder for the kernel", err)
		}
		defer os.RemoveAll(dir)
		r, err := builder.Build(ctx, tree, want, dir)
		if err != nil {
			return err
		}
		if p.bytes, p.took = r.ImageBytes, r.ImageWall; r.Compiled < manyFiles {
			note = fmt.Sprintf("%.1f MB in %.1f s", float64(p.bytes)/1e6, p.took.Seconds())
			return nil
		}
		// Packed once more from the start: the image alone is made again.
		if err := p.other(ctx, src); err != nil {
			return err
		}
	}
	return blame.New(blame.Kernel, "pack the kernel with "+p.name, errors.New("everything is compiled again each time"))
}

// manyFiles are more than are compiled to pack an image.
const manyFiles = 100

// other packs the kernel in another way, so that the next build packs it anew.
func (p *packed) other(ctx context.Context, src *kernels.Sources) error {
	c := "gzip"
	if p.name == c {
		c = "zstd"
	}
	builder, tree, want, err := src.Prepare(ctx, strings.TrimSuffix(p.spec, p.name)+c)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "crashlab-study-")
	if err != nil {
		return blame.New(blame.Infrastructure, "make a folder for the kernel", err)
	}
	defer os.RemoveAll(dir)
	_, err = builder.Build(ctx, tree, want, dir)
	return err
}

func (p *packed) boot(ctx context.Context) (err error) {
	shown := p.lab.UI.Begin("boot " + p.name)
	note := ""
	defer func() { shown.End(note, false, err) }()
	m, _, err := p.boots.measure(ctx, "", time.Second, wire.Trigger{Kind: wire.TriggerClock})
	if err != nil {
		return err
	}
	ms := float64(m.BeforeKernel) / 1e6
	p.before = append(p.before, ms)
	note = fmt.Sprintf("%.0f ms until the kernel's clock started", ms)
	return nil
}
