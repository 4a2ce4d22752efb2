package lab

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"crashlab/kconfig"
	"crashlab/lab/blame"
	"crashlab/lab/study"
	"crashlab/lab/wire"
)

// What StudyPreemption asks of each guest.
const (
	measurePeriod   = 10 * time.Millisecond
	measureDuration = 5 * time.Second
)

// preemptModels are the values of preempt= that a kernel built with
// CONFIG_PREEMPT_DYNAMIC may know, least preemptible first.
var preemptModels = []string{"none", "voluntary", "lazy", "full"}

// rtKernel is the real-time kernel that is measured beside the default one.
const rtKernel = "debian:6.1-rt-amd64"

// StudyPreemption boots each preemption model that the kernel knows n times, in
// turn, and measures how late a real-time thread wakes up while the kernel is
// busy, and how much of the other work is done. Beside the default kernel it
// boots the distribution's real-time one.
func (l *Lab) StudyPreemption(ctx context.Context, n int) (*study.Study, error) {
	b, err := l.newBoots(ctx)
	if err != nil {
		return nil, err
	}
	config, err := kconfig.ReadFile(b.kernel.Config)
	if err != nil {
		return nil, blame.New(blame.Kernel, "read the kernel's configuration", err)
	}
	var models []*preemptModel
	if config.State("PREEMPT_DYNAMIC") == kconfig.Yes {
		for _, m := range preemptModels {
			models = append(models, &preemptModel{boots: b, name: m, cmdline: "preempt=" + m})
		}
	} else {
		models = append(models, &preemptModel{boots: b, name: "as built"})
	}
	if l.Settings.Kernel == "" {
		rt, err := l.bootsOf(ctx, rtKernel)
		if err != nil {
			return nil, err
		}
		models = append(models, &preemptModel{boots: rt, name: "rt"})
	}
	for i := range n { // in turn, so that a host that slows down does so for all
		for _, m := range models {
			if m.lacks != "" {
				continue
			}
			if err := m.measure(ctx, i); err != nil {
				return nil, err
			}
		}
	}
	median, worst, work := study.Chart{Title: "Median wake-up latency", Unit: "µs"}, study.Chart{Title: "Worst wake-up latency", Unit: "µs"}, study.Chart{Title: "Other work done", Unit: "MB/s"}
	var releases []string
	for _, m := range models {
		label := m.name
		if m.kernel != b.kernel {
			label += " (" + m.kernel.Release + ")"
		}
		point := func(value func(*wire.Measured) float64) study.Point {
			p := study.Point{Label: label, Note: m.lacks}
			for _, r := range m.results {
				p.Values = append(p.Values, value(r))
			}
			return p
		}
		micro := func(d time.Duration) float64 { return float64(d) / 1e3 }
		median.Points = append(median.Points, point(func(r *wire.Measured) float64 { return micro(r.Median) }))
		worst.Points = append(worst.Points, point(func(r *wire.Measured) float64 { return micro(r.Worst) }))
		work.Points = append(work.Points, point(func(r *wire.Measured) float64 { return float64(r.Work) / 1e6 / r.Duration.Seconds() }))
		releases = append(releases, m.kernel.Release)
	}
	return &study.Study{
		Name:     "preemption",
		Title:    "What a preemption model buys, and what it costs",
		Question: fmt.Sprintf("How late does a real-time thread wake up on %s while the kernel is busy, and how much of the other work is done meanwhile?", releases[0]),
		Answer:   answerPreemption(median, worst, work),
		How: []string{
			fmt.Sprintf("A guest with one processor: a SCHED_FIFO thread sleeps until each multiple of %v for %v, %d times; its lateness is taken from CLOCK_MONOTONIC.", measurePeriod, measureDuration, int(measureDuration/measurePeriod)),
			"Beside it an ordinary thread reads /proc/kallsyms all the time: each read keeps the kernel busy without a point where it gives way by itself. What it read is the other work.",
			fmt.Sprintf("Each model booted %d times, in turn. That the kernel runs the model asked for is read from its console.", n),
			b.host(),
		},
		Caveats: []string{"An emulated processor is some twenty times as slow as a real one and its host interferes: compare the models, not the microseconds."},
		Charts:  []study.Chart{median, worst, work},
		Made:    time.Now(),
	}, nil
}

// answerPreemption compares the first model with the one of the least latency.
func answerPreemption(median, worst, work study.Chart) string {
	best := -1
	for i, p := range worst.Points {
		v, ok := p.Median()
		if !ok {
			continue
		}
		if best < 0 {
			best = i
			continue
		}
		if least, _ := worst.Points[best].Median(); v < least {
			best = i
		}
	}
	first := -1
	for i, p := range worst.Points {
		if _, ok := p.Median(); ok {
			first = i
			break
		}
	}
	if best == first {
		return "No model was better than the least preemptible one."
	}
	at := func(c study.Chart, i int) float64 { v, _ := c.Points[i].Median(); return v }
	least, _ := worst.Points[first].Range()
	if _, most := worst.Points[best].Range(); most >= least {
		return fmt.Sprintf("On this host the measurements spread more than the models differ: the worst wake-ups are %.0f to %.0f µs late at the median of the boots.",
			at(worst, best), at(worst, first))
	}
	return fmt.Sprintf("From %s to %s the worst wake-up goes from %.0f to %.0f µs (median %.0f to %.0f µs); the other work goes from %.1f to %.1f MB/s.",
		worst.Points[first].Label, worst.Points[best].Label, at(worst, first), at(worst, best), at(median, first), at(median, best), at(work, first), at(work, best))
}

// preemptModel is one of the models measured.
type preemptModel struct {
	*boots
	name    string
	cmdline string // that asks for it; "" for what the kernel was built with

	results []*wire.Measured
	lacks   string // why there are none
}

// saysModel matches what a kernel with CONFIG_PREEMPT_DYNAMIC says at boot
// (sched_dynamic_update and preempt_dynamic_init in kernel/sched/core.c).
var saysModel = regexp.MustCompile(`Dynamic Preempt: (\w+)`)

func (m *preemptModel) measure(ctx context.Context, round int) (err error) {
	shown := m.ui.Begin(fmt.Sprintf("%s %d", m.name, round+1))
	note := ""
	defer func() { shown.End(note, false, err) }()
	measured, console, err := m.boots.measure(ctx, m.cmdline, measureDuration, wire.Trigger{
		Kind: wire.TriggerMeasure, Measure: wire.Measure{Period: measurePeriod, Duration: measureDuration},
	})
	if err != nil {
		return err
	}
	if m.cmdline != "" {
		said := saysModel.FindAllStringSubmatch(console, -1)
		if len(said) == 0 {
			return blame.New(blame.Kernel, "boot with "+m.cmdline, errors.New("the kernel does not say which preemption model it runs"))
		}
		if is := said[len(said)-1][1]; is != m.name {
			m.lacks = "this kernel does not have it"
			note = "the kernel runs " + is
			return nil
		}
	}
	m.results = append(m.results, measured)
	note = fmt.Sprintf("median %v, worst %v, %.1f MB/s", measured.Median, measured.Worst, float64(measured.Work)/1e6/measured.Duration.Seconds())
	return nil
}
