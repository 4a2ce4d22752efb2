package qemu

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Line is one line of the guest's console.
type Line struct {
	At   time.Duration // arrival of its first byte, since the guest's first instruction
	Text string        // valid UTF-8 without line end, escape sequences and control characters other than tab
}

// String returns the line as it stands in the log file.
func (l Line) String() string { return fmt.Sprintf("%9.3f %s", l.At.Seconds(), l.Text) }

const (
	// keptLines is how many of the newest lines a Console keeps.
	keptLines = 1 << 14
	// maxLine is the length in bytes at which a line is broken.
	maxLine = 4 << 10
)

// Console is what the guest wrote to ttyS0. It reads as fast as the guest
// writes, whether anybody listens or not. It is safe for concurrent use.
type Console struct {
	log   io.Writer // gets each line as it ends; may be nil
	clock func() time.Duration
	done  chan struct{} // closed at the end of the console

	clean cleaner

	mu      sync.Mutex
	lines   []Line
	dropped int // lines that are no longer in lines
	heard   time.Duration
	partial Line // the unfinished last line, whose text is in text
	text    bytes.Buffer
	changed chan struct{} // closed and replaced when a line was added
	ended   bool
	logErr  error
}

func newConsole(log io.Writer, clock func() time.Duration) *Console {
	return &Console{log: log, clock: clock, done: make(chan struct{}), changed: make(chan struct{})}
}

// read takes in everything from r, until its end, and closes it.
func (c *Console) read(r io.ReadCloser) {
	defer r.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		c.write(buf[:n])
		if err != nil {
			c.end()
			return
		}
	}
}

func (c *Console) write(p []byte) {
	if len(p) == 0 {
		return
	}
	at := c.clock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = at
	for _, b := range p {
		if !c.clean.keep(b) {
			continue
		}
		if c.text.Len() == 0 {
			c.partial.At = at
		}
		if b != '\n' {
			c.text.WriteByte(b)
		}
		if b == '\n' || c.text.Len() == maxLine {
			c.finishLine()
		}
	}
}

// finishLine moves the partial line to the finished ones. It holds c.mu.
func (c *Console) finishLine() {
	line := c.partialLine()
	c.text.Reset()
	if len(c.lines) == 2*keptLines {
		c.dropped += keptLines
		c.lines = append(c.lines[:0], c.lines[keptLines:]...)
	}
	c.lines = append(c.lines, line)
	if c.log != nil && c.logErr == nil {
		_, c.logErr = fmt.Fprintln(c.log, line)
	}
	c.wake()
}

func (c *Console) partialLine() Line {
	return Line{At: c.partial.At, Text: strings.ToValidUTF8(c.text.String(), "\uFFFD")}
}

func (c *Console) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Console) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.text.Len() > 0 {
		c.finishLine()
	}
	c.ended = true
	c.wake()
	close(c.done)
}

// Done is closed when the guest can write no more.
func (c *Console) Done() <-chan struct{} { return c.done }

// LogErr returns the first error of writing the log file.
func (c *Console) LogErr() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.logErr
}

// Lines returns all lines so far, the unfinished last one included. Of a very
// long log only the newest ones are kept, at least 16384.
func (c *Console) Lines() []Line { return c.Tail(keptLines * 2) }

// Tail returns the last n lines, or fewer if there are not as many.
func (c *Console) Tail(n int) []Line {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := c.lines[:len(c.lines):len(c.lines)]
	if c.text.Len() > 0 {
		lines = append(lines, c.partialLine())
	}
	return append([]Line(nil), lines[max(0, len(lines)-n):]...)
}

// Follow sends every line, from the first one still kept on, as it ends. A
// slow receiver delays nothing else. The channel is closed when ctx ends or
// after the last line of the console.
func (c *Console) Follow(ctx context.Context) <-chan Line {
	out := make(chan Line)
	go func() {
		defer close(out)
		for n := 0; ; {
			line, next, err := c.line(ctx, n)
			if err != nil {
				return
			}
			n = next
			select {
			case out <- line:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// line waits for line number n, counted from the guest's start, and returns
// the number of the line after it. A line no longer kept is replaced by the
// oldest one. At the end of the console the error is io.EOF.
func (c *Console) line(ctx context.Context, n int) (Line, int, error) {
	for {
		line, next, changed, err := c.poll(n)
		if err != nil || next > 0 {
			return line, next, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Line{}, 0, context.Cause(ctx)
		}
	}
}

// poll is line without waiting: next is 0 if there is no such line yet, and
// changed is closed when there may be one.
func (c *Console) poll(n int) (line Line, next int, changed <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = max(n, c.dropped)
	switch i := n - c.dropped; {
	case i < len(c.lines):
		return c.lines[i], n + 1, nil, nil
	case c.ended:
		return Line{}, 0, nil, io.EOF
	}
	return Line{}, 0, c.changed, nil
}

// lastHeard returns when the newest output came, 0 if none came.
func (c *Console) lastHeard() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heard
}
