package qemu

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Kind says what became of a guest that did not do what it should.
type Kind string

// The kinds of an Error.
const (
	Refused    Kind = "refused"     // QEMU ended before the guest ran: a bad argument, a missing file
	Died       Kind = "died"        // QEMU failed while the guest ran
	Killed     Kind = "killed"      // we ended QEMU: Kill or the end of the context
	Stopped    Kind = "stopped"     // QEMU runs, but stopped the machine: Status says why
	Reset      Kind = "reset"       // the guest rebooted, or crashed so hard that the processor reset
	PoweredOff Kind = "powered off" // the guest switched itself off
	Panicked   Kind = "panicked"    // a fatal line on the console
	Hung       Kind = "hung"        // silent for too long
	Slow       Kind = "slow"        // not there at the deadline, but not silent
)

// Error says what became of a guest, with what there is to look at.
type Error struct {
	Kind   Kind
	Phase  string        // what the guest should have been doing; may be empty
	At     time.Duration // when it was noticed, since the guest's first instruction
	Silent time.Duration // how long the console had been silent then
	Status string        // QMP run state, for Stopped, Hung and Slow: "running", "internal-error", …
	Line   Line          // the fatal line, for Panicked
	Argv   []string      // QEMU's arguments
	Stderr string        // the last of what QEMU itself said
	Last   []Line        // the last console lines
	Err    error         // cause, for Refused, Died and Killed
}

// Error returns one line.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Phase != "" {
		b.WriteString(e.Phase + ": ")
	}
	switch e.Kind {
	case Refused, Died:
		fmt.Fprintf(&b, "qemu %s: %s", e.Kind, e.said())
	case Killed:
		fmt.Fprintf(&b, "qemu killed: %v", e.Err)
	case Stopped:
		fmt.Fprintf(&b, "qemu stopped the guest: %s", e.Status)
		if said := firstLine(e.Stderr); said != "" {
			b.WriteString(": " + said)
		}
	case Reset:
		b.WriteString("guest reset by itself")
	case PoweredOff:
		b.WriteString("guest switched itself off")
	case Panicked:
		b.WriteString("guest panicked")
		if e.Line.Text != "" {
			b.WriteString(": " + e.Line.Text)
		}
	case Hung:
		fmt.Fprintf(&b, "guest hangs: nothing on the console for %.1f s, machine %s", e.Silent.Seconds(), e.Status)
	case Slow:
		fmt.Fprintf(&b, "guest is too slow: last console output %.1f s ago, machine %s", e.Silent.Seconds(), e.Status)
	}
	if e.Kind != Refused {
		fmt.Fprintf(&b, " (after %.1f s", e.At.Seconds())
		if n := len(e.Last); n > 0 && e.Kind != Panicked {
			fmt.Fprintf(&b, ", last line %q", e.Last[n-1].Text)
		}
		b.WriteString(")")
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// said returns QEMU's own reason, or how it ended if it gave none. QEMU puts
// its name before errors, and hints behind them on further lines.
func (e *Error) said() string {
	lines := strings.Split(strings.TrimSpace(e.Stderr), "\n")
	for _, line := range slices.Backward(lines) {
		if msg, ok := strings.CutPrefix(line, filepath.Base(e.Argv[0])+": "); ok && !strings.HasPrefix(msg, "warning: ") {
			return strings.TrimSpace(msg)
		}
	}
	if last := strings.TrimSpace(lines[len(lines)-1]); last != "" {
		return last
	}
	return fmt.Sprint(e.Err)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(line)
}
