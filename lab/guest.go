package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"crashlab/internal/execx"
	"crashlab/lab/blame"
	"crashlab/lab/wire"
	"crashlab/qemu"
)

// guest is a running guest and what its agent reports.
type guest struct {
	*qemu.Guest
	machine qemu.Machine
	watch   *qemu.Watcher

	mu      sync.Mutex
	events  []wire.Event
	changed chan struct{} // closed and replaced when events grows
}

// startGuest boots machine and begins to collect the agent's events.
func startGuest(ctx context.Context, machine qemu.Machine, o qemu.Options) (*guest, error) {
	g, err := qemu.Start(ctx, machine, o)
	if err != nil {
		return nil, guestError("start the guest", machine, err)
	}
	v := &guest{Guest: g, machine: machine, watch: g.Watch(), changed: make(chan struct{})}
	go v.collect()
	return v, nil
}

func (g *guest) collect() {
	defer g.Control().Close()
	d := wire.NewDecoder(g.Control())
	for {
		e, err := d.Next()
		if err != nil {
			return // the guest has ended; whoever waits for an event watches it too
		}
		g.mu.Lock()
		g.events = append(g.events, e)
		close(g.changed)
		g.changed = make(chan struct{})
		g.mu.Unlock()
	}
}

// find returns the first event that match accepts, or an error event; if there
// is none yet, changed is closed at the next event.
func (g *guest) find(match func(wire.Event) bool) (e wire.Event, ok bool, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.events {
		if e.Kind == wire.EventError || match(e) {
			return e, true, nil
		}
	}
	return wire.Event{}, false, g.changed
}

// await waits until the agent has sent the event of kind at stage. What else
// may end the phase is in p.
func (g *guest) await(ctx context.Context, stage wire.Stage, kind wire.EventKind, p qemu.Phase) (wire.Event, error) {
	match := func(e wire.Event) bool { return e.Stage == stage && e.Kind == kind }
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	there := make(chan struct{})
	go func() {
		for {
			_, ok, changed := g.find(match)
			if ok {
				close(there)
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	doing := p.Name
	p.Name, p.Done = "", there // the name is ours to tell
	p.Deadline, p.Silence = g.machine.Accel.Scale(p.Deadline), g.machine.Accel.Scale(p.Silence)
	_, err := g.watch.Await(ctx, p)
	e, ok, _ := g.find(match)
	switch {
	case ok && e.Kind == wire.EventError:
		return e, &blame.Error{
			Party: blame.Kernel, Doing: fmt.Sprintf("%s, in the guest's %s", doing, e.Name),
			Err: errors.New(e.Text), Look: texts(g.Console().Tail(20)), Replay: execx.Quote(g.machine.Argv()),
		}
	case ok:
		return e, nil
	}
	return e, guestError(doing, g.machine, err)
}

// guestError turns what package qemu says of a guest into whose fault it is.
func guestError(doing string, machine qemu.Machine, err error) error {
	e := blame.New(blame.Infrastructure, doing, err)
	e.Replay = execx.Quote(machine.Argv())
	q, ok := errors.AsType[*qemu.Error](err)
	if !ok {
		return e
	}
	switch q.Kind {
	case qemu.Reset, qemu.PoweredOff, qemu.Panicked, qemu.Hung, qemu.Slow:
		e.Party = blame.Kernel
	}
	if q.Status == "io-error" { // QEMU stops the guest when the host's disk is full
		e.WithHint("the disk with %s is full: CRASHLAB_RUNS names another place", filepath.Dir(machine.Disks[0].Path))
	}
	e.Look = texts(q.Last)
	if s := strings.TrimSpace(q.Stderr); s != "" {
		e.Look = append(strings.Split(s, "\n"), e.Look...)
	}
	return e
}

func texts(lines []qemu.Line) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = l.Text
	}
	return out
}

// captureBootFailed recognizes the end of hope while the capture kernel boots.
// The crashed kernel may say "Kernel panic" before it starts the capture kernel;
// only after the latter's first line is that fatal.
func captureBootFailed() func(qemu.Line) bool {
	second := false
	return func(l qemu.Line) bool {
		// Every kernel begins with its banner (init/version.c).
		if strings.Contains(l.Text, "Linux version ") {
			second = true
		}
		return second && qemu.IsPanic(l) ||
			// machine_kexec was not reached: panic() went on to its last line
			// (kernel/panic.c).
			strings.Contains(l.Text, "---[ end Kernel panic")
	}
}

// The deadlines of a guest's phases under hardware virtualization, where a
// scenario gives none; they are scaled to the accelerator.
const (
	bootDeadline    = 8 * time.Second
	armDeadline     = 4 * time.Second
	captureDeadline = 8 * time.Second
	copyDeadline    = 10 * time.Second
	endDeadline     = 2 * time.Second

	// silence is how long a booting kernel may say nothing. Emulated, it does so
	// for two or three seconds; a distribution's biggest on a busy machine for twenty.
	silence = 2 * time.Second
)
