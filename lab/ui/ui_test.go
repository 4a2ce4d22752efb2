package ui

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/check"
	"crashlab/crashkit/facts"
	"crashlab/lab/blame"
	"crashlab/lab/ledger"
)

// screen is a terminal: as much of one as the UI uses.
type screen struct {
	t       *testing.T
	width   int
	lines   []string // without colours
	row     int
	col     int
	hidden  bool
	writes  int
	history []string // pictures, where asked for
}

func (s *screen) Write(b []byte) (int, error) {
	s.writes++
	text := string(b)
	for text != "" {
		switch {
		case strings.HasPrefix(text, "\x1b["):
			end := strings.IndexAny(text[2:], "ABCDHJKmhl")
			if end < 0 {
				s.t.Fatalf("unfinished sequence %q", text)
			}
			arg, op := text[2:2+end], text[2+end]
			text = text[3+end:]
			s.sequence(arg, op)
		case text[0] == '\n':
			s.row, s.col = s.row+1, 0
			text = text[1:]
		case text[0] == '\r':
			s.col = 0
			text = text[1:]
		default:
			for i, r := range text {
				if i > 0 || r < ' ' {
					if r < ' ' && i == 0 {
						s.t.Fatalf("control character %q", r)
					}
					text = text[i:]
					break
				}
				s.put(r)
				if len(string(r)) == len(text) {
					text = ""
				}
			}
		}
	}
	return len(b), nil
}

func (s *screen) put(r rune) {
	for len(s.lines) <= s.row {
		s.lines = append(s.lines, "")
	}
	line := []rune(s.lines[s.row])
	for len(line) <= s.col {
		line = append(line, ' ')
	}
	line[s.col] = r
	s.lines[s.row] = string(line)
	s.col++
	if s.col >= s.width {
		s.t.Errorf("line %d reaches the last of %d columns: %q", s.row, s.width, s.lines[s.row])
	}
}

func (s *screen) sequence(arg string, op byte) {
	for len(s.lines) <= s.row {
		s.lines = append(s.lines, "")
	}
	cut := func() {
		if line := []rune(s.lines[s.row]); len(line) > s.col {
			s.lines[s.row] = string(line[:s.col])
		}
	}
	switch op {
	case 'A':
		n, _ := strconv.Atoi(arg)
		s.row -= n
		if s.row < 0 {
			s.t.Fatal("cursor above the screen")
		}
	case 'K':
		cut()
	case 'J':
		cut()
		s.lines = s.lines[:s.row+1]
	case 'm':
	case 'l', 'h':
		if arg != "?25" {
			s.t.Errorf("sequence %q%c", arg, op)
		}
		s.hidden = op == 'l'
	default:
		s.t.Errorf("sequence %q%c", arg, op)
	}
}

func (s *screen) String() string {
	return strings.TrimRight(strings.Join(s.lines, "\n"), " \n") + "\n"
}

func (s *screen) snapshot(title string) {
	s.history = append(s.history, fmt.Sprintf("== %s ==\n%s", title, s))
}

// golden compares with testdata/name; LAB_UPDATE=1 rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if os.Getenv("LAB_UPDATE") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// clock is moved by hand.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func (c *clock) add(d time.Duration) { c.t = c.t.Add(d) }

func passed() *ledger.Run {
	frames := func(names ...string) (list []facts.Frame) {
		for i, n := range names {
			f := facts.Frame{Symbol: n, Offset: uint64(0x11 + i), Reliable: true}
			if i < 2 {
				f.Module = "nullderef"
			}
			list = append(list, f)
		}
		list[0].Exception = true
		return list
	}
	met := func(names ...string) (list []ledger.Expectation) {
		for _, n := range names {
			list = append(list, ledger.Expectation{Expectation: check.Expectation{Name: n}, OK: true})
		}
		return list
	}
	return &ledger.Run{
		Scenario: "nullderef", Title: "A write through a NULL pointer", Verdict: ledger.Passed, Took: 9812 * time.Millisecond,
		Stages: []ledger.Stage{
			{Name: "host", Took: 12 * time.Millisecond}, {Name: "kernel", Took: 3 * time.Millisecond}, {Name: "module", Took: 2 * time.Millisecond},
			{Name: "initramfs", Took: 4 * time.Millisecond}, {Name: "boot", Took: 2400 * time.Millisecond}, {Name: "arm", Took: 810 * time.Millisecond},
			{Name: "trigger", Took: 90 * time.Millisecond}, {Name: "capture", Took: 4100 * time.Millisecond}, {Name: "vmcore", Took: 210 * time.Millisecond},
			{Name: "analyze", Took: 150 * time.Millisecond}, {Name: "assert", Took: time.Millisecond}, {Name: "report", Took: 20 * time.Millisecond},
		},
		Facts: &facts.Facts{
			Kernel: facts.Kernel{Release: "6.1.0-56-cloud-amd64"},
			Panic: facts.Panic{
				Kind: "null-deref", Title: "BUG: kernel NULL pointer dereference, address: 0000000000000000",
				Symbol: "hello_crash", Offset: 0x11, Module: "nullderef", Task: facts.Task{PID: 60, Comm: "trigger"},
				Frames: frames("hello_crash", "nullderef_init", "do_one_initcall", "do_init_module", "__do_sys_finit_module", "do_syscall_64", "entry_SYSCALL_64_after_hwframe", "one", "two", "three"),
			},
			Verdict: facts.Verdict{
				What: "a write through a NULL pointer", Where: "hello_crash+0x11 in module nullderef",
				Why:   "the instruction movl $0x2a,0x0 stores to the absolute address 0, which no page table maps",
				Whose: "module nullderef (out of tree, unsigned)",
			},
		},
		Expectations: met("it is a NULL dereference", "the address is NULL itself", "the stack is the one that the kernel printed"),
	}
}

func notMet() *ledger.Run {
	r := passed()
	r.Verdict = ledger.NotMet
	r.Expectations = append(r.Expectations,
		ledger.Expectation{
			Expectation: check.Expectation{Name: "the task that loaded the module", Expr: "x", File: "scenarios/nullderef/scenario.yaml", Line: 41},
			Wanted:      `panic.task.comm == "insmod"`, Found: `panic.task.comm = "trigger"`,
		},
		ledger.Expectation{
			Expectation: check.Expectation{Name: "the registers", Expr: `panic.registers["rip"] == panic.ip and a_name_that_is_long == another_name_that_is_long`, File: "scenarios/nullderef/scenario.yaml", Line: 44},
			Err:         `key "rip" not in dict`,
		})
	r.Failure = &ledger.Failure{Party: blame.Scenario, Doing: "assert", Err: "2 of 5 expectations are not met", Look: []string{"not shown again"}, Replay: "go tool mage scenario:nullderef"}
	return r
}

func broken() *ledger.Run {
	r := passed()
	r.Verdict, r.Facts, r.Expectations = ledger.Broken, nil, nil
	r.Stages = r.Stages[:5]
	r.Failure = &ledger.Failure{
		Party: blame.Kernel, Doing: "boot the guest", Err: "no sign of life for 10s",
		Look:   []string{"[    0.031] last line\x1b[2J of the console", "runs/r1/console.log"},
		Hint:   "give it more memory",
		Replay: "qemu-system-x86_64 -machine q35 -m 512 -kernel /cache/kernels/debian-6.1/vmlinuz -append 'console=ttyS0 oops=panic' -nographic",
	}
	return r
}

// play is a run with everything in it.
func play(u *UI, c *clock, snapshot func(string)) {
	k := u.Begin("kernel")
	k.Note("looking for debian:6.1")
	snapshot("kernel")
	c.add(40 * time.Millisecond)
	k.End("6.1.0-56-cloud-amd64", true, nil)

	m, i := u.Begin("module"), u.Begin("initramfs")
	m.Note("cc nullderef.c")
	i.Note("packing a name that is so long that it does not fit into a line of eighty columns at all, 日本語 too")
	c.add(1200 * time.Millisecond)
	u.tick()
	snapshot("two at once")
	u.Console("\x1b[31m[    0.000000] Linux version 6.1.0\x07\r\n")
	u.Say("kvm is present and broken: using tcg")
	i.End("2.1 MB", false, nil)
	snapshot("one left")
	c.add(65 * time.Second)
	m.End("", false, errors.New("nullderef.c:12:3: error: expected ';'\nmake: *** [Makefile:1] Error 2"))
	m.End("twice", false, nil)
	snapshot("end")
}

func TestTerminal(t *testing.T) {
	for _, width := range []int{80, 40} {
		s, c := &screen{t: t, width: width}, &clock{time.Unix(0, 0)}
		u := newUI(Options{Out: s, Fancy: true, Verbose: true, Width: func() int { return width }, Now: c.now})
		play(u, c, s.snapshot)
		if s.hidden {
			t.Error("the cursor is hidden although no stage runs")
		}
		golden(t, fmt.Sprintf("stages-%d.txt", width), strings.Join(s.history, ""))
	}
}

func TestPlain(t *testing.T) {
	var b strings.Builder
	c := &clock{time.Unix(0, 0)}
	u := New(Options{Out: &b, Verbose: true, Now: c.now})
	play(u, c, func(string) {})
	u.Verdict(notMet(), "runs/r1")
	u.Verdict(broken(), "runs/r2")
	u.Close()
	if strings.ContainsAny(b.String(), "\x1b\r\x07") {
		t.Errorf("plain output has control characters: %q", b.String())
	}
	golden(t, "plain.txt", b.String())
}

func TestVerdict(t *testing.T) {
	for _, width := range []int{80, 50} {
		for name, run := range map[string]*ledger.Run{"passed": passed(), "failed": notMet(), "error": broken()} {
			s := &screen{t: t, width: width}
			if name == "error" || width < 80 {
				s.width = 1000 // a command line to copy, or a file and line, is not broken
			}
			u := newUI(Options{Out: s, Fancy: true, Width: func() int { return width }})
			u.Verdict(run, "runs/2026-01-02T03-04-05-nullderef")
			if last := s.lines[s.row-1]; last != "runs/2026-01-02T03-04-05-nullderef" {
				t.Errorf("last line = %q; want the folder alone", last)
			}
			golden(t, fmt.Sprintf("verdict-%s-%d.txt", name, width), s.String())
		}
	}
}

// TestInterrupted says that Close, as after Ctrl-C in a stage, gives the cursor back.
func TestInterrupted(t *testing.T) {
	s := &screen{t: t, width: 80}
	u := New(Options{Out: s, Fancy: true})
	u.Begin("boot")
	if !s.hidden {
		t.Error("the cursor is not hidden while a stage runs")
	}
	u.Close()
	u.Close()
	if s.hidden || s.col != 0 || !strings.Contains(s.String(), "boot") {
		t.Errorf("after Close: cursor hidden %v, in column %d, screen %q", s.hidden, s.col, s)
	}
	before := s.writes
	u.tick()
	if s.writes != before {
		t.Error("something is drawn after Close")
	}
}

// TestOneWrite says that each change reaches the terminal in one write: no flicker.
func TestOneWrite(t *testing.T) {
	s := &screen{t: t, width: 80}
	u := newUI(Options{Out: s, Fancy: true})
	st := u.Begin("a")
	u.Begin("b")
	before := s.writes
	u.tick()
	st.Note("x")
	st.End("", false, nil)
	if s.writes != before+3 {
		t.Errorf("3 changes made %d writes", s.writes-before)
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{-1: "0.0s", 0: "0.0s", 1234 * time.Millisecond: "1.2s", 59 * time.Second: "59.0s", 61 * time.Second: "1m01s", 3600 * time.Second: "60m00s"} {
		if got := seconds(d); got != want {
			t.Errorf("seconds(%v) = %s; want %s", d, got, want)
		}
	}
}

func TestFor(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if o := For(f, func(string) string { return "" }); o.Fancy || o.Width() != 80 {
		t.Errorf("For(a file) = fancy %v, width %d; want plain, 80", o.Fancy, o.Width())
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\x1b]0;title\x07b\u202e\u009b\xff", 10)
	f.Fuzz(func(t *testing.T, s string, n int) {
		n = 1 + max(n, -n)%200
		c := clean(s)
		if strings.IndexFunc(c, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e' }) >= 0 {
			t.Errorf("clean(%q) = %q", s, c)
		}
		if w := columns(truncate(c, n)); w > n {
			t.Errorf("truncate(%q, %d) is %d columns wide", c, n, w)
		}
		for _, l := range wrap(c, n) {
			if w := columns(l); w > max(n, 8) {
				t.Errorf("wrap(%q, %d): %q is %d columns wide", c, n, l, w)
			}
		}
	})
}
