package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// testConsole returns a Console whose clock advances a second with each write,
// beginning with 1 s.
func testConsole(log io.Writer) *Console {
	var now time.Duration
	return newConsole(log, func() time.Duration { now += time.Second; return now })
}

func TestConsoleText(t *testing.T) {
	for _, tt := range []struct {
		name   string
		writes []string
		want   []Line
	}{
		{"none", nil, nil},
		{"lines", []string{"a\r\nb\n"}, []Line{{time.Second, "a"}, {time.Second, "b"}}},
		{"empty lines", []string{"\n\r\n"}, []Line{{time.Second, ""}, {time.Second, ""}}},
		{"time of the first byte", []string{"a", "b", "c\nd"}, []Line{{time.Second, "abc"}, {3 * time.Second, "d"}}},
		{"unfinished", []string{"a\nlogin: "}, []Line{{time.Second, "a"}, {time.Second, "login: "}}},
		{"SeaBIOS", []string{"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS\n"}, []Line{{time.Second, "SeaBIOS"}}},
		{"sequence in pieces", []string{"a\x1b", "[3", "1mb\n"}, []Line{{time.Second, "ab"}}},
		{"window title", []string{"\x1b]0;title\x07a\x1b]0;t\x1b\\b\n"}, []Line{{time.Second, "ab"}}},
		{"character set", []string{"\x1b(Ba\n"}, []Line{{time.Second, "a"}}},
		{"unfinished sequence", []string{"a\x1b[12\nb\x1b]x\nc\n"}, []Line{{time.Second, "a"}, {time.Second, "b"}, {time.Second, "c"}}},
		{"control characters", []string{"a\x00\x08\x7f\tb\n"}, []Line{{time.Second, "a\tb"}}},
		{"UTF-8", []string{"\xc3", "\xa4\n\xff\n"}, []Line{{time.Second, "ä"}, {2 * time.Second, "\uFFFD"}}},
		{"long", []string{strings.Repeat("x", maxLine+1) + "\n"}, []Line{{time.Second, strings.Repeat("x", maxLine)}, {time.Second, "x"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			c := testConsole(&log)
			for _, w := range tt.writes {
				c.write([]byte(w))
			}
			if diff := cmp.Diff(tt.want, c.Lines()); diff != "" {
				t.Errorf("Lines before the end (-want +got):\n%s", diff)
			}
			c.end()
			if diff := cmp.Diff(tt.want, c.Lines()); diff != "" {
				t.Errorf("Lines (-want +got):\n%s", diff)
			}
			var want strings.Builder
			for _, l := range tt.want {
				fmt.Fprintf(&want, "%9.3f %s\n", l.At.Seconds(), l.Text)
			}
			if diff := cmp.Diff(want.String(), log.String()); diff != "" {
				t.Errorf("log file (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConsoleTail(t *testing.T) {
	c := testConsole(io.Discard)
	c.write([]byte("a\nb\nc"))
	for n, want := range map[int][]Line{
		0: nil,
		1: {{time.Second, "c"}},
		2: {{time.Second, "b"}, {time.Second, "c"}},
		9: {{time.Second, "a"}, {time.Second, "b"}, {time.Second, "c"}},
	} {
		if diff := cmp.Diff(want, c.Tail(n)); diff != "" {
			t.Errorf("Tail(%d) (-want +got):\n%s", n, diff)
		}
	}
}

func TestConsoleFollow(t *testing.T) {
	c := testConsole(io.Discard)
	c.write([]byte("early\n"))
	lines := c.Follow(context.Background())
	go func() {
		c.write([]byte("la"))
		c.write([]byte("te\nunfinished"))
		c.end()
	}()
	var got []string
	for l := range lines {
		got = append(got, l.Text)
	}
	if diff := cmp.Diff([]string{"early", "late", "unfinished"}, got); diff != "" {
		t.Errorf("followed lines (-want +got):\n%s", diff)
	}
}

func TestConsoleFollowEndsWithContext(t *testing.T) {
	c := testConsole(io.Discard)
	ctx, cancel := context.WithCancel(context.Background())
	idle, unread := c.Follow(ctx), c.Follow(ctx)
	c.write([]byte("a\n"))
	<-idle
	cancel()
	for range idle {
	}
	for range unread {
	}
}

// TestConsoleRunaway checks that a guest which never stops printing costs a
// bounded amount of memory and that followers go on with what is left.
func TestConsoleRunaway(t *testing.T) {
	const n = 5 * keptLines
	c := testConsole(io.Discard)
	lines := c.Follow(context.Background()) // reads only after all is over
	for i := range n {
		c.write(fmt.Appendf(nil, "%d\n", i))
	}
	c.end()
	kept := c.Lines()
	if len(kept) < keptLines || len(kept) > 2*keptLines {
		t.Errorf("%d lines kept; want %d to %d", len(kept), keptLines, 2*keptLines)
	}
	if got, want := kept[len(kept)-1].Text, fmt.Sprint(n-1); got != want {
		t.Errorf("last line = %s; want %s", got, want)
	}
	var last string
	for l := range lines {
		last = l.Text
	}
	if want := fmt.Sprint(n - 1); last != want {
		t.Errorf("last followed line = %s; want %s", last, want)
	}
}

func TestConsoleLogError(t *testing.T) {
	full := errors.New("no space left on device")
	c := testConsole(failingWriter{full})
	c.write([]byte("a\nb\n"))
	if got := c.LogErr(); !errors.Is(got, full) {
		t.Errorf("LogErr() = %v; want %v", got, full)
	}
	if got := len(c.Lines()); got != 2 {
		t.Errorf("%d lines; want 2", got)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }
