//go:build linux

package main

import (
	"errors"
	"fmt"
	"time"

	"crashlab/lab/wire"
	"golang.org/x/sys/unix"
)

// beforeKernel measures how long the machine ran before the kernel's clock
// started: the processor has counted cycles since power-on, the kernel's clock
// counts from where it took over.
func (a *agent) beforeKernel() error {
	a.line.phase(wire.PhaseMeasure)
	sample := func() (c uint64, t int64, err error) {
		var ts unix.Timespec
		err = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
		return cycles(), ts.Nano(), err
	}
	c0, t0, err := sample()
	if err != nil {
		return fmt.Errorf("read the clock: %w", err)
	}
	time.Sleep(500 * time.Millisecond) // long enough to count cycles in
	c1, t1, err := sample()
	if err != nil {
		return fmt.Errorf("read the clock: %w", err)
	}
	if c1 <= c0 || t1 <= t0 {
		return errors.New("the processor has no counter of cycles")
	}
	sinceReset := time.Duration(float64(c1) / float64(c1-c0) * float64(t1-t0))
	a.line.send(wire.Event{Kind: wire.EventMeasured, Measured: &wire.Measured{BeforeKernel: sinceReset - time.Duration(t1)}})
	a.line.send(wire.Event{Kind: wire.EventDone})
	return nil
}
