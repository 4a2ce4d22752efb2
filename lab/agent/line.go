//go:build linux

package main

import (
	"fmt"
	"sync"

	"crashlab/lab/wire"
	"golang.org/x/sys/unix"
)

// line is the serial port to the host. Its methods are safe for concurrent
// use. Events that cannot be sent are lost: there is nobody to tell.
type line struct {
	fd    int
	stage wire.Stage

	mu   sync.Mutex
	seq  int
	name string // the phase that began last
}

func openLine(path string, stage wire.Stage) (*line, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("read settings of %s: %w", path, err)
	}
	// Raw mode: no byte is translated, echoed or taken for a signal.
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return nil, fmt.Errorf("set %s to raw mode: %w", path, err)
	}
	return &line{fd: fd, stage: stage, name: wire.PhaseMount}, nil
}

func (l *line) send(e wire.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	e.Stage, e.Seq, e.Uptime = l.stage, l.seq, uptime()
	b, err := wire.AppendEvent(nil, e)
	if err != nil {
		kmsg(3, err.Error())
		return
	}
	for len(b) > 0 {
		n, err := unix.Write(l.fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			kmsg(3, fmt.Sprintf("write to the host: %v", err))
			return
		}
		b = b[n:]
	}
}

// phase reports that a phase begins.
func (l *line) phase(name string) {
	l.mu.Lock()
	l.name = name
	l.mu.Unlock()
	l.send(wire.Event{Kind: wire.EventPhase, Name: name})
}

func (l *line) current() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.name
}

// drain waits until the last byte has left the serial port.
func (l *line) drain() { _ = unix.IoctlSetInt(l.fd, unix.TCSBRK, 1) }

// uptime returns the seconds since this kernel started.
func uptime() float64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // cannot fail with this clock
	return float64(t.Nano()) / 1e9
}
