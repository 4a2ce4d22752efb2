package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Phase is a part of the guest's life with a known end.
type Phase struct {
	Name string // for the error: "boot"

	// The phase is over when Done is closed, or at the first console line for
	// which Until is true. Either may be nil.
	Done  <-chan struct{}
	Until func(Line) bool

	// Fatal tells the lines after which there is no hope; nil means IsPanic.
	// Until is asked first.
	Fatal func(Line) bool

	Deadline time.Duration // for the whole phase; 0: none. See Accel.Scale.
	Silence  time.Duration // the longest time without console output; 0: any
}

// IsPanic reports whether the kernel says that it panics. A kernel that goes
// to a capture kernel straight from an oops does not say so.
func IsPanic(l Line) bool { return strings.Contains(l.Text, "Kernel panic - not syncing") }

// Watcher follows a guest through its phases. It is not safe for concurrent
// use.
type Watcher struct {
	guest *Guest
	next  int // number of the first console line not seen yet
}

// Watch returns a Watcher that starts with the guest's first console line.
func (g *Guest) Watch() *Watcher { return &Watcher{guest: g} }

const (
	// aftermath bounds the wait for the rest of a panic message.
	aftermath = 3 * time.Second
	// aftermathGap is a silence that says that the message is complete.
	aftermathGap = 500 * time.Millisecond
	// lastWord is how long Await waits for Phase.Done after QEMU's end, as
	// whoever closes it may still be reading what the guest sent last.
	lastWord = time.Second
)

// Await waits for the end of phase p and returns the line that ended it, if
// one did. It looks at console lines from where the last Await stopped. If the
// guest cannot get there any more, the error is an *Error that says why; if
// ctx ends, it is ctx's cause. The guest is left as it is.
func (w *Watcher) Await(ctx context.Context, p Phase) (Line, error) {
	line, err := w.await(ctx, p)
	if e, ok := errors.AsType[*Error](err); ok {
		e.Phase = p.Name
	}
	return line, err
}

func (w *Watcher) await(ctx context.Context, p Phase) (Line, error) {
	g := w.guest
	if p.Fatal == nil {
		p.Fatal = IsPanic
	}
	begin := g.uptime()
	var deadline <-chan time.Time
	if p.Deadline > 0 {
		deadline = time.After(p.Deadline)
	}
	for {
		line, next, changed, err := g.console.poll(w.next)
		if next > 0 {
			w.next = next
			switch {
			case p.Until != nil && p.Until(line):
				return line, nil
			case p.Fatal(line):
				return Line{}, w.panicked(ctx, line)
			}
			continue
		}
		var ended <-chan struct{} // only after the last line
		if errors.Is(err, io.EOF) {
			ended = g.done
		}
		var silence <-chan time.Time
		if p.Silence > 0 {
			silence = time.After(max(begin, g.console.lastHeard()) + p.Silence - g.uptime())
		}
		select {
		case <-changed:
		case <-p.Done:
			return Line{}, nil
		case <-ended:
			return Line{}, w.ended(p.Done)
		case status := <-g.halted:
			e := g.failure(Stopped, g.uptime(), nil)
			e.Status = status
			return Line{}, e
		case <-silence:
			if g.uptime()-max(begin, g.console.lastHeard()) >= p.Silence { // else: output without a line end
				return Line{}, w.stuck(ctx, Hung)
			}
		case <-deadline:
			// Silent for the second half is not just slow.
			kind := Slow
			if g.uptime()-max(begin, g.console.lastHeard()) > p.Deadline/2 {
				kind = Hung
			}
			return Line{}, w.stuck(ctx, kind)
		case <-ctx.Done():
			return Line{}, context.Cause(ctx)
		}
	}
}

// panicked lets the guest finish its message.
func (w *Watcher) panicked(ctx context.Context, line Line) error {
	g := w.guest
	end := time.After(aftermath)
	for quiet := false; !quiet; {
		l, next, changed, err := g.console.poll(w.next)
		if err != nil {
			break
		}
		if next > 0 {
			w.next = next
			if strings.Contains(l.Text, "---[ end Kernel panic") {
				break
			}
			continue
		}
		select {
		case <-changed:
		case <-time.After(aftermathGap):
			quiet = true
		case <-end:
			quiet = true
		case <-ctx.Done():
			quiet = true
		}
	}
	e := g.failure(Panicked, g.uptime(), nil)
	e.Line = line
	return e
}

// ended says how a guest that runs no more ended.
func (w *Watcher) ended(done <-chan struct{}) error {
	if done != nil {
		select {
		case <-done:
			return nil
		case <-time.After(lastWord):
		}
	}
	g := w.guest
	if e, ok := errors.AsType[*Error](g.err); ok {
		again := *e
		return &again
	}
	if g.err != nil {
		return g.err
	}
	switch reason := g.Reason(); reason {
	case "guest-shutdown":
		return g.failure(PoweredOff, g.endedAt, nil)
	case "guest-reset":
		return g.failure(Reset, g.endedAt, nil)
	case "guest-panic":
		return g.failure(Panicked, g.endedAt, nil)
	default: // "host-qmp-quit", "host-signal", …
		return g.failure(Killed, g.endedAt, fmt.Errorf("shutdown by %q", reason))
	}
}

// stuck says how a guest is that makes no progress.
func (w *Watcher) stuck(ctx context.Context, kind Kind) error {
	status, err := w.guest.Status(ctx)
	if err != nil {
		status = "unknown"
	}
	e := w.guest.failure(kind, w.guest.uptime(), err)
	e.Status = status
	return e
}
