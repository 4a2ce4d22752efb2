//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"crashlab/lab/wire"
	"golang.org/x/sys/unix"
)

// measure measures how late a real-time thread wakes up while another thread
// keeps the same processor busy inside the kernel, and how much work that one
// gets done.
//
// The work is to read /proc/kallsyms: each read(2) expands the names of a page
// full of symbols without a point where the kernel would give way by itself.
func (a *agent) measure(m *wire.Measure) error {
	a.line.phase(wire.PhaseMeasure)
	stop := make(chan struct{})
	work := make(chan uint64, 1)
	failed := make(chan error, 1)
	go func() {
		defer a.recover()
		n, err := readSymbols(stop)
		if err != nil {
			failed <- err
			return
		}
		work <- n
	}()
	late, err := wakeups(m.Period, m.Duration)
	close(stop)
	if err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	case n := <-work:
		a.line.send(wire.Event{Kind: wire.EventMeasured, Measured: summary(late, n, m.Duration)})
	}
	a.line.send(wire.Event{Kind: wire.EventDone})
	return nil
}

// readSymbols reads /proc/kallsyms over and over and returns how many bytes
// it got.
func readSymbols(stop <-chan struct{}) (uint64, error) {
	runtime.LockOSThread()
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var total uint64
	buf := make([]byte, 64<<10)
	for {
		select {
		case <-stop:
			return total, nil
		default:
		}
		n, err := unix.Read(int(f.Fd()), buf)
		if err != nil {
			return 0, fmt.Errorf("read /proc/kallsyms: %w", err)
		}
		total += uint64(n)
		if n == 0 {
			if _, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_SET); err != nil {
				return 0, fmt.Errorf("read /proc/kallsyms again: %w", err)
			}
		}
	}
}

// wakeups sleeps until each multiple of period and returns how late it woke.
func wakeups(period, duration time.Duration) ([]time.Duration, error) {
	runtime.LockOSThread() // to the end of the machine
	const fifo = 1         // SCHED_FIFO
	priority := int32(80)
	if _, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, fifo, uintptr(unsafe.Pointer(&priority))); errno != 0 {
		return nil, fmt.Errorf("become a real-time thread: %w", errno)
	}
	n := int(duration / period)
	late := make([]time.Duration, 0, n)
	now := func() (int64, error) {
		var t unix.Timespec
		err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
		return t.Nano(), err
	}
	next, err := now()
	if err != nil {
		return nil, err
	}
	for len(late) < n {
		next += period.Nanoseconds()
		at := unix.NsecToTimespec(next)
		if err := unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &at, nil); err != nil {
			return nil, fmt.Errorf("sleep: %w", err)
		}
		woke, err := now()
		if err != nil {
			return nil, err
		}
		late = append(late, time.Duration(woke-next))
		if woke > next+period.Nanoseconds() {
			next = woke // a period was missed: the next one counts from here
		}
	}
	return late, nil
}

// summary sorts late.
func summary(late []time.Duration, work uint64, took time.Duration) *wire.Measured {
	slices.Sort(late)
	at := func(percent int) time.Duration { return late[min(len(late)*percent/100, len(late)-1)] }
	return &wire.Measured{Wakeups: len(late), Median: at(50), P99: at(99), Worst: late[len(late)-1], Work: work, Duration: took}
}
