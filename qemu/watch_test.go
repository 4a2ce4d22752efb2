package qemu

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func lineIs(text string) func(Line) bool { return func(l Line) bool { return l.Text == text } }

func TestAwaitLines(t *testing.T) {
	g := start(t, testMachine(t, print("one\ntwo\none\nthree\n"), halt()), Options{})
	w := g.Watch()
	for _, text := range []string{"one", "one", "three"} { // each Await goes on behind the last
		l, err := w.Await(t.Context(), Phase{Until: lineIs(text), Deadline: time.Minute})
		if err != nil || l.Text != text {
			t.Fatalf("Await(%s) = %q, %v", text, l.Text, err)
		}
	}
}

func TestAwaitDone(t *testing.T) {
	g := start(t, testMachine(t, halt()), Options{})
	done := make(chan struct{})
	close(done)
	if _, err := g.Watch().Await(t.Context(), Phase{Done: done}); err != nil {
		t.Errorf("Await: %v", err)
	}
}

// TestAwaitDoneLate checks that a guest which ended after its last message did
// not fail, even if the message is read later.
func TestAwaitDoneLate(t *testing.T) {
	g := start(t, testMachine(t, reset()), Options{})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	time.AfterFunc(50*time.Millisecond, func() { close(done) })
	if _, err := g.Watch().Await(t.Context(), Phase{Done: done}); err != nil {
		t.Errorf("Await: %v", err)
	}
}

func TestAwaitContext(t *testing.T) {
	g := start(t, testMachine(t, halt()), Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := g.Watch().Await(ctx, Phase{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Await = %v; want DeadlineExceeded", err)
	}
	if status, err := g.Status(t.Context()); err != nil || status != "running" {
		t.Errorf("Status() = %q, %v; want the guest left alone", status, err)
	}
}

// TestAwaitFailures has one guest for each end that it can come to.
func TestAwaitFailures(t *testing.T) {
	const panicText = "[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs"
	endless := forever(print("still here\n"))
	for _, tt := range []struct {
		kind  Kind
		code  [][]byte
		extra []string
		phase Phase
		want  string // part of the error's text
	}{
		{Hung, [][]byte{print("booting\n"), halt()}, nil, Phase{Silence: 300 * time.Millisecond}, `last line "booting"`},
		{Hung, [][]byte{print("booting\n"), halt()}, nil, Phase{Deadline: time.Second}, "machine running"},
		{Slow, [][]byte{endless}, nil, Phase{Deadline: 500 * time.Millisecond, Silence: time.Minute}, "too slow"},
		{Panicked, [][]byte{print(panicText + "\nCall Trace:\n---[ end Kernel panic - not syncing ]---\n"), halt()}, nil, Phase{}, "Unable to mount root fs"},
		{Panicked, [][]byte{print(panicText + "\nRebooting"), reset()}, nil, Phase{}, "Unable to mount root fs"},
		{Reset, [][]byte{print("booting\n"), reset()}, nil, Phase{}, "guest reset"},
		{PoweredOff, [][]byte{print("booting\n"), powerOff()}, nil, Phase{}, "switched itself off"},
		{Panicked, [][]byte{print("booting\n"), out8(0x505, 1), halt()}, []string{"-device", "pvpanic", "-action", "panic=shutdown"}, Phase{}, "guest panicked"},
		{Stopped, [][]byte{print("booting\n"), out8(0x505, 1), halt()}, []string{"-device", "pvpanic", "-action", "panic=pause"}, Phase{}, "guest-panicked"},
	} {
		t.Run(string(tt.kind), func(t *testing.T) {
			m := testMachine(t, tt.code...)
			m.Extra = append(m.Extra, tt.extra...)
			g := start(t, m, Options{})
			tt.phase.Name = "test"
			if tt.phase.Deadline == 0 {
				tt.phase.Deadline = time.Minute
			}
			_, err := g.Watch().Await(t.Context(), tt.phase)
			e := wantKind(t, err, tt.kind)
			if !strings.Contains(e.Error(), tt.want) || !strings.HasPrefix(e.Error(), "test: ") {
				t.Errorf("error %q; want it to begin with the phase and contain %q", e, tt.want)
			}
			if len(e.Last) == 0 || len(e.Argv) == 0 {
				t.Errorf("error with %d lines and %d arguments; want some", len(e.Last), len(e.Argv))
			}
			if e.Kind == Panicked && e.Line.Text != "" && e.Line.Text != panicText {
				t.Errorf("fatal line %q; want %q", e.Line.Text, panicText)
			}
		})
	}
}

func TestAwaitQuit(t *testing.T) {
	g := start(t, testMachine(t, halt()), Options{})
	if err := g.QMP().Raw(t.Context()).Quit(); err != nil {
		t.Fatal(err)
	}
	_, err := g.Watch().Await(t.Context(), Phase{Name: "test"})
	if e := wantKind(t, err, Killed); !strings.Contains(e.Error(), "host-qmp-quit") {
		t.Errorf("error %q; want it to contain host-qmp-quit", e)
	}
}

func TestAwaitFatal(t *testing.T) {
	g := start(t, testMachine(t, print("Kernel panic - not syncing: on purpose\nkdump begins\n"), halt()), Options{})
	_, err := g.Watch().Await(t.Context(), Phase{
		Until:    lineIs("kdump begins"),
		Fatal:    func(Line) bool { return false },
		Deadline: time.Minute,
	})
	if err != nil {
		t.Errorf("Await: %v", err)
	}
}
