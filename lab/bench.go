package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"crashlab/internal/execx"
	"crashlab/lab/blame"
	"crashlab/lab/kernels"
	"crashlab/lab/store"
	"crashlab/lab/wire"
	"crashlab/qemu"
	"crashlab/scenarios"
)

// What the project promises.
const (
	maxRunToBoot  = 4.0                    // a warm run, in bare boots of the same kernel
	maxSysTime    = 150 * time.Millisecond // crashkit -c sys
	maxSysMemory  = 120 << 20              // its peak, in bytes
	benchScenario = "nullderef"
)

// Bench measures a warm run against a bare boot-to-poweroff of the same kernel,
// in turn so that a machine that slows down does so for both, and crashkit on the
// dump of the last run. It prints medians and ranges of n measurements.
func (l *Lab) Bench(ctx context.Context, n int) error {
	s, err := scenarios.Load(benchScenario)
	if err != nil {
		return err
	}
	spec := s.Kernel
	if l.Settings.Kernel != "" {
		spec = l.Settings.Kernel
	}
	var runs, boots, sys []time.Duration
	stages := make(map[string][]time.Duration)
	var order []string
	var dir string
	for i := range n + 1 { // the first run fills the caches and does not count
		run, d, err := l.Run(ctx, s)
		if err != nil {
			return err
		}
		if dir != "" {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
		dir = d
		boot, err := l.bareBoot(ctx, spec, s)
		if err != nil {
			return err
		}
		if i == 0 {
			for _, st := range run.Stages {
				order = append(order, st.Name)
			}
			continue
		}
		runs, boots = append(runs, run.Took), append(boots, boot)
		for _, st := range run.Stages {
			stages[st.Name] = append(stages[st.Name], st.Took)
		}
	}

	tool := filepath.Join(dir, "crashkit")
	if _, err := execx.Run(ctx, execx.Cmd{Argv: []string{"go", "build", "-o", tool, "./crashkit/cmd/crashkit"}, Dir: l.Root}); err != nil {
		return blame.New(blame.Infrastructure, "build crashkit", err)
	}
	var memory int64
	for range 2*n + 1 {
		took, peak, err := measure(ctx, tool, "-c", "sys", filepath.Join(dir, vmcoreFile))
		if err != nil {
			return blame.New(blame.Analyzer, "run crashkit", err)
		}
		sys, memory = append(sys, took), max(memory, peak)
	}
	sys = sys[1:]

	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "measured\tmedian\tfrom\tto\tpromised\t")
	row := func(name string, d []time.Duration, promise string) {
		slices.Sort(d)
		fmt.Fprintf(w, "%s\t%v\t%v\t%v\t%s\t\n", name, median(d), round(d[0]), round(d[len(d)-1]), promise)
	}
	row("bare boot to power-off", boots, "")
	row("warm run of scenario:"+benchScenario, runs, "")
	for _, name := range order {
		row("  "+name, stages[name], "")
	}
	fmt.Fprintf(w, "warm run / bare boot\t%.2f\t\t\tat most %.0f\t\n", float64(median(runs))/float64(median(boots)), maxRunToBoot)
	row("crashkit -c sys VMCORE", sys, "at most "+maxSysTime.String())
	fmt.Fprintf(w, "  its peak memory\t%d MB\t\t\tat most %d MB\t\n", memory>>20, int64(maxSysMemory)>>20)
	if err := w.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		l.UI.Say("%s", strings.TrimRight(line, " \n"))
	}
	return os.Remove(tool)
}

func median(sorted []time.Duration) time.Duration { return round(sorted[len(sorted)/2]) }

func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Millisecond)
}

// bareBoot boots the kernel with an initramfs that ends the machine at once, and
// returns how long QEMU ran.
func (l *Lab) bareBoot(ctx context.Context, spec string, s *scenarios.Scenario) (time.Duration, error) {
	c, err := store.Open(l.Settings.Cache, l.Log)
	if err != nil {
		return 0, err
	}
	k, err := kernels.New(c, l.Log, nil, l.kernelOptions()).Fetch(ctx, spec)
	if err != nil {
		return 0, err
	}
	im, err := buildImages(ctx, c, l.Root, k, wire.FirstJob{Trigger: wire.Trigger{Kind: wire.TriggerExit}}, "")
	if err != nil {
		return 0, err
	}
	probe, err := Accelerator(ctx, c, l.Settings.QEMU, l.Settings.Accel)
	if err != nil {
		return 0, err
	}
	binary, err := findQEMU(l.Settings.QEMU)
	if err != nil {
		return 0, err
	}
	m := qemu.Machine{
		Binary: binary, Accel: probe.Accel, CPUs: s.Guest.CPUs, MemoryMiB: s.Guest.MemoryMiB,
		Kernel: k.Image, Initrd: im.first, Cmdline: firstCmdline, NoReboot: true,
	}
	start := time.Now()
	g, err := startGuest(ctx, m, qemu.Options{Log: l.Log})
	if err != nil {
		return 0, err
	}
	defer g.Kill()
	if err := g.Wait(); err != nil {
		return 0, guestError("boot and power off", m, err)
	}
	return time.Since(start), nil
}

// measure is measureCmd of a command line.
func measure(ctx context.Context, argv ...string) (took time.Duration, peak int64, err error) {
	return measureCmd(ctx, execx.Cmd{Argv: argv})
}

// measureCmd runs a program and returns how long it took and its peak memory in
// bytes. The peak is sampled from /proc: what wait4 reports includes the peak of
// the process that forked it.
func measureCmd(ctx context.Context, c execx.Cmd) (took time.Duration, peak int64, err error) {
	start := time.Now()
	p, err := execx.Start(ctx, c)
	if err != nil {
		return 0, 0, err
	}
	status := fmt.Sprintf("/proc/%d/status", p.PID())
	for {
		select {
		case <-p.Done():
			return time.Since(start), peak, p.Wait()
		case <-time.After(time.Millisecond):
		}
		b, err := os.ReadFile(status)
		if err != nil {
			continue // it has ended
		}
		if _, rest, ok := strings.Cut(string(b), "\nVmHWM:"); ok {
			var kib int64
			if _, err := fmt.Sscan(rest, &kib); err == nil {
				peak = max(peak, kib<<10)
			}
		}
	}
}
