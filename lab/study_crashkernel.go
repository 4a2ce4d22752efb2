package lab

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"crashlab/lab/blame"
	"crashlab/lab/study"
	"crashlab/lab/wire"
)

// The search of StudyCrashkernel, in MiB. The kernel aligns a reservation to 16
// MiB on x86 (CRASH_ALIGN in arch/x86/include/asm/crash_reserve.h), but its
// size is free.
const (
	leastReserve = 16
	mostReserve  = 256
	reserveStep  = 4
)

// studyMemory is the memory of the guests that StudyCrashkernel crashes, in MiB.
var studyMemory = []int{384, 512, 1024, 2048}

// StudyCrashkernel finds, for guests of several sizes, the smallest crashkernel=
// with which the memory is still captured, each confirmed n times, and how much
// the capture kernel used of it.
func (l *Lab) StudyCrashkernel(ctx context.Context, n int) (*study.Study, error) {
	b, err := l.newBoots(ctx)
	if err != nil {
		return nil, err
	}
	smallest := study.Chart{Title: "Smallest reservation that captures", Unit: "MiB"}
	peak := study.Chart{Title: "Peak use of the capture kernel", Unit: "MiB"}
	var whys []string
	for _, memory := range studyMemory {
		label := fmt.Sprintf("%d MiB guest", memory)
		r := reservation{boots: b, memory: memory}
		if err := r.search(ctx, n); err != nil {
			return nil, err
		}
		p, q := study.Point{Label: label}, study.Point{Label: label}
		if r.size == 0 {
			p.Note = fmt.Sprintf("none up to %d MiB: %s", mostReserve, r.why)
			q.Note = "none"
		} else {
			p.Values = []float64{float64(r.size)}
			q.Values = r.peaks
			whys = append(whys, fmt.Sprintf("%s: with %d MiB it failed: %s.", label, r.size-reserveStep, strings.TrimSuffix(r.why, ".")))
		}
		smallest.Points, peak.Points = append(smallest.Points, p), append(peak.Points, q)
	}
	return &study.Study{
		Name:     "crashkernel",
		Title:    "How much memory a capture kernel needs",
		Question: fmt.Sprintf("What is the smallest crashkernel= with which %s still saves the memory of a crash?", b.kernel.Release),
		Answer:   answerCrashkernel(smallest, peak),
		How: append([]string{
			fmt.Sprintf("Guests with one processor and the memory given crash by sysrq-c; the capture kernel is the same %s with an initramfs of one static program that writes /proc/vmcore to a disk.", b.kernel.Release),
			fmt.Sprintf("Reservations in steps of %d MiB, found by bisection; the smallest that worked was confirmed %d times.", reserveStep, n),
			"Peak use is MemTotal less MemAvailable in the capture kernel while it copies; what the kernel itself takes before it counts memory is not in it.",
			b.host(),
		}, whys...),
		Caveats: []string{"A distribution's capture initramfs is ten times as large, and drivers of real devices take memory too: on such machines take what kdump's own tools advise."},
		Charts:  []study.Chart{smallest, peak},
		Made:    time.Now(),
	}, nil
}

// answerCrashkernel says what the charts show.
func answerCrashkernel(smallest, peak study.Chart) string {
	var least, most, used float64
	for i, p := range smallest.Points {
		v, ok := p.Median()
		if !ok {
			continue
		}
		if least == 0 {
			least = v
		}
		least, most = min(least, v), max(most, v)
		_, hi := peak.Points[i].Range()
		used = max(used, hi)
	}
	switch {
	case most == 0:
		return fmt.Sprintf("None of the reservations up to %d MiB was enough.", mostReserve)
	case least == most:
		return fmt.Sprintf("%.0f MiB, whatever the size of the guest; at most %.0f MiB of it were in use.", most, used)
	}
	return fmt.Sprintf("From %.0f MiB for the smallest guest to %.0f MiB for the largest; at most %.0f MiB of it were in use.", least, most, used)
}

// reservation is the search for the smallest one for a guest of one size.
type reservation struct {
	*boots
	memory int // of the guest, in MiB

	size  int       // the smallest that captured every time, in MiB; 0 if none did
	peaks []float64 // the capture kernel's use in MiB, one for each of the confirmations
	why   string    // the step below, or all, failed
}

// search bisects, then confirms the result n times, going up as long as one of
// these fails.
func (r *reservation) search(ctx context.Context, n int) error {
	low, high := leastReserve, mostReserve // low fails, high captures
	if high > r.memory/2 {
		high = r.memory / 2
	}
	if ok, _, why, err := r.try(ctx, high); err != nil || !ok {
		r.why = why
		return err
	}
	for high-low > reserveStep {
		mid := (low + high) / 2 / reserveStep * reserveStep
		ok, _, why, err := r.try(ctx, mid)
		if err != nil {
			return err
		}
		if ok {
			high = mid
		} else {
			low, r.why = mid, why
		}
	}
	for size := high; size <= mostReserve; size += reserveStep {
		r.peaks = nil
		for len(r.peaks) < n {
			ok, peak, why, err := r.try(ctx, size)
			if err != nil {
				return err
			}
			if !ok {
				r.why = why
				break
			}
			r.peaks = append(r.peaks, float64(peak)/(1<<20))
		}
		if len(r.peaks) == n {
			r.size = size
			return nil
		}
	}
	return nil
}

// try crashes a guest with so many MiB reserved. It returns whether its memory was
// captured and the capture kernel's peak use in bytes, or else why not. The
// error is of what is not the kernel's doing.
func (r *reservation) try(ctx context.Context, mib int) (ok bool, peak uint64, why string, err error) {
	note := r.ui.Begin(fmt.Sprintf("%d/%d MiB", mib, r.memory))
	defer func() {
		text := why
		if ok {
			text = fmt.Sprintf("captured, peak %d MiB", peak>>20)
		}
		note.End(text, false, err)
	}()
	dir, err := os.MkdirTemp("", "crashlab-study-")
	if err != nil {
		return false, 0, "", blame.New(blame.Infrastructure, "make a folder for the guest", err)
	}
	defer os.RemoveAll(dir)
	im, err := r.images(ctx, wire.FirstJob{
		Kexec:   &wire.Kexec{Cmdline: kexecCmdline},
		Trigger: wire.Trigger{Kind: wire.TriggerSysRq},
	})
	if err != nil {
		return false, 0, "", err
	}
	c, err := newCrash(crashSpec{
		dir: dir, binary: r.binary, accel: r.probe.Accel, cpus: 1, memoryMiB: r.memory,
		kernel: r.kernel.Image, initrd: im.first, crashkernel: fmt.Sprintf("%dM", mib),
	})
	if err != nil {
		return false, 0, "", err
	}
	defer c.close()
	for _, step := range []func() error{
		func() error { _, err := c.boot(ctx, r.log, "", nil); return err },
		func() error { _, err := c.arm(ctx); return err },
		func() error { _, err := c.trigger(ctx); return err },
		func() error {
			var e wire.Event
			e, err := c.copied(ctx)
			peak = e.MemPeak
			return err
		},
	} {
		if err := step(); err != nil {
			if ctx.Err() != nil {
				return false, 0, "", interrupted(ctx, err)
			}
			b := blame.Of(err)
			if b.Party != blame.Kernel {
				return false, 0, "", err
			}
			return false, 0, fmt.Sprintf("%s: %v", b.Doing, b.Err), nil
		}
	}
	return true, peak, "", nil
}
