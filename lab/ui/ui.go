// Package ui shows a run in the terminal: one line for each stage while it runs,
// then the verdict. On a terminal the lines of running stages are redrawn in place;
// anywhere else, a line is written when a stage has ended.
package ui

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// Options say where and how to write.
type Options struct {
	Out   io.Writer
	Fancy bool       // Out is a terminal that understands ANSI sequences and wants colours
	Width func() int // of the terminal in columns; nil means 80

	Verbose bool // show the guest's console

	Now func() time.Time // nil means time.Now
}

// For returns the options for a file such as os.Stdout. getenv is os.Getenv:
// NO_COLOR, and TERM=dumb, ask for plain text.
func For(f *os.File, getenv func(string) string) Options {
	fd := int(f.Fd())
	return Options{
		Out:   f,
		Fancy: term.IsTerminal(fd) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb",
		Width: func() int {
			if w, _, err := term.GetSize(fd); err == nil && w > 0 {
				return w
			}
			return 80
		},
	}
}

// UI writes to one terminal. It is safe for concurrent use.
type UI struct {
	o    Options
	stop func() // ends the animation

	mu     sync.Mutex
	live   []*Stage // running, oldest first
	drawn  int      // lines of the live area on the screen
	frame  int      // of the spinner
	hidden bool     // the cursor
}

// interval is the time between two pictures of the spinner.
const interval = 100 * time.Millisecond

// New returns a UI. Call Close at the end, however the run ends: it gives the
// terminal back its cursor.
func New(o Options) *UI {
	u := newUI(o)
	if !o.Fancy {
		return u
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(interval)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				u.tick()
			case <-done:
				return
			}
		}
	}()
	u.stop = sync.OnceFunc(func() { close(done); <-ended })
	return u
}

// newUI returns a UI that does not move by itself.
func newUI(o Options) *UI {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Width == nil {
		o.Width = func() int { return 80 }
	}
	return &UI{o: o, stop: func() {}}
}

// Close ends the animation; the lines of stages that still run are left as they are.
func (u *UI) Close() {
	u.stop()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.hidden {
		u.write("\x1b[?25h")
		u.hidden = false
	}
	if u.drawn > 0 {
		u.write("\n")
	}
	u.live, u.drawn = nil, 0
}

// Stage is a stage that runs.
type Stage struct {
	u     *UI
	name  string
	note  string
	start time.Time
}

// Begin shows that a stage begins.
func (u *UI) Begin(name string) *Stage {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := &Stage{u: u, name: name, start: u.o.Now()}
	u.live = append(u.live, s)
	u.print("")
	return s
}

// Note says what the stage is doing now.
func (s *Stage) Note(format string, args ...any) {
	s.u.mu.Lock()
	defer s.u.mu.Unlock()
	s.note = fmt.Sprintf(format, args...)
	s.u.print("")
}

// End shows that the stage has ended: err is why it failed, note what came of it,
// and cached says that its result was there already.
func (s *Stage) End(note string, cached bool, err error) {
	u := s.u
	u.mu.Lock()
	defer u.mu.Unlock()
	i := slices.Index(u.live, s)
	if i < 0 {
		return
	}
	u.live = slices.Delete(u.live, i, i+1)
	took := u.o.Now().Sub(s.start)
	if err != nil {
		note = err.Error()
	}
	if !u.o.Fancy {
		word := "done"
		switch {
		case err != nil:
			word = "FAILED"
		case cached:
			word = "cached"
		}
		u.print(strings.TrimRight(fmt.Sprintf("%-6s  %-*s %8s  %s", word, nameWidth, clean(s.name), seconds(took), clean(note)), " ") + "\n")
		return
	}
	p := palette{u.o.Fancy}
	mark := p.green("✓")
	switch {
	case err != nil:
		mark = p.red("✗")
	case cached:
		mark = p.dim("✓")
		note = strings.TrimSpace(note + " (cached)")
	}
	u.print(u.stageLine(mark, s.name, note, took, cached) + "\n")
}

// Say writes a line of its own, above the stages that run.
func (u *UI) Say(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.print(clean(fmt.Sprintf(format, args...)) + "\n")
}

// Console writes a line of the guest's console, if the user asked for it.
func (u *UI) Console(line string) {
	if !u.o.Verbose {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	line = clean(strings.TrimRight(sequence.ReplaceAllString(line, ""), "\r\n"))
	if !u.o.Fancy {
		u.print("        | " + line + "\n")
		return
	}
	p := palette{true}
	u.print(p.dim("    │ "+truncate(line, u.width()-6)) + "\n")
}

// sequence is an escape sequence: firmware clears the screen and kernels may print in colour.
var sequence = regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-z]")

// nameWidth is that of the column of the stages' names.
const nameWidth = 10

var spinner = []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}

// tick draws the next picture.
func (u *UI) tick() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.live) == 0 {
		return
	}
	u.frame++
	u.print("")
}

// print writes text above the live area and draws the area anew, all in one write:
// lines are overwritten, not erased first, so nothing flickers.
func (u *UI) print(text string) {
	if !u.o.Fancy {
		u.write(text)
		return
	}
	var b strings.Builder
	if !u.hidden && len(u.live) > 0 {
		b.WriteString("\x1b[?25l")
		u.hidden = true
	}
	if u.drawn > 1 {
		fmt.Fprintf(&b, "\x1b[%dA", u.drawn-1)
	}
	if u.drawn > 0 {
		b.WriteByte('\r')
	}
	if u.drawn > 0 {
		text = strings.ReplaceAll(text, "\n", "\x1b[K\n")
	}
	b.WriteString(text)
	p := palette{true}
	for i, s := range u.live {
		if i > 0 {
			b.WriteByte('\n')
		}
		mark := p.cyan(spinner[u.frame%len(spinner)])
		b.WriteString(u.stageLine(mark, s.name, s.note, u.o.Now().Sub(s.start), false) + "\x1b[K")
	}
	if u.drawn > 0 {
		b.WriteString("\x1b[J") // what is left of a live area that was larger
	}
	if u.hidden && len(u.live) == 0 {
		b.WriteString("\x1b[?25h")
		u.hidden = false
	}
	u.drawn = len(u.live)
	u.write(b.String())
}

// stageLine lays out "  ✓ boot       note          1.2s" in the terminal's width.
func (u *UI) stageLine(mark, name, note string, took time.Duration, faint bool) string {
	p := palette{true}
	right := seconds(took)
	width := u.width()
	name = pad(truncate(clean(name), nameWidth), nameWidth)
	room := width - len("  ✓ ") - nameWidth - len(" ") - len(right) - 1
	if room < 8 { // too narrow for a note
		return "  " + mark + " " + truncate(name, max(width-len(right)-6, 1)) + " " + p.dim(right)
	}
	note = pad(truncate(clean(note), room), room)
	if faint {
		note = p.dim(note)
	}
	return "  " + mark + " " + p.bold(name) + " " + note + " " + p.dim(right)
}

// width is one less than the terminal's: a line that fills the last column wraps in
// some terminals.
func (u *UI) width() int { return max(u.o.Width()-1, 20) }

// write ignores errors: there is nobody left to tell.
func (u *UI) write(s string) { _, _ = io.WriteString(u.o.Out, s) }

// seconds renders a duration for people.
func seconds(d time.Duration) string {
	switch {
	case d < 0:
		d = 0
	case d >= time.Minute:
		d = d.Round(time.Second)
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%.1fs", d.Seconds())
}
