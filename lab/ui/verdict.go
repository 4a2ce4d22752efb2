package ui

import (
	"fmt"
	"strings"

	"crashlab/crashkit/facts"
	"crashlab/lab/ledger"
)

// maxFrames is how many frames of the stack the verdict shows.
const maxFrames = 8

// Verdict shows what came of a run. The last line is dir, the run's folder, alone.
func (u *UI) Verdict(run *ledger.Run, dir string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	v := verdict{p: palette{u.o.Fancy}, width: u.width(), fancy: u.o.Fancy}
	v.header(run)
	v.crash(run)
	shown := v.expectations(run.Expectations)
	v.failure(run.Failure, shown)
	v.times(run.Stages)
	v.line("")
	v.line(dir)
	u.print(v.b.String())
}

// Failure shows an error that stopped something that is not recorded as a run.
func (u *UI) Failure(f *ledger.Failure) {
	u.mu.Lock()
	defer u.mu.Unlock()
	v := verdict{p: palette{u.o.Fancy}, width: u.width(), fancy: u.o.Fancy}
	v.failure(f, false)
	u.print(v.b.String())
}

// verdict lays out the text.
type verdict struct {
	b     strings.Builder
	p     palette
	width int
	fancy bool
}

func (v *verdict) line(s string) { v.b.WriteString(s + "\n") }

// field writes "  name  text", the text wrapped below itself.
func (v *verdict) field(name, text string) {
	if text == "" {
		return
	}
	const column = 9
	for i, l := range wrap(clean(text), v.width-column-2) {
		if i > 0 {
			name = ""
		}
		v.line("  " + v.p.dim(pad(name, column)) + l)
	}
}

func (v *verdict) mark(fancy, plain string) string {
	if v.fancy {
		return fancy
	}
	return plain
}

func (v *verdict) header(run *ledger.Run) {
	badge := map[ledger.Verdict]string{
		ledger.Passed: v.p.badge("42", "PASSED"),
		ledger.NotMet: v.p.badge("41", "FAILED"),
		ledger.Broken: v.p.badge("45", "ERROR"),
	}[run.Verdict]
	if badge == "" {
		badge = v.p.badge("43", strings.ToUpper(string(run.Verdict)))
	}
	v.line("")
	used := len(run.Verdict) + 6
	title := truncate(clean(strings.TrimPrefix(run.Scenario+": "+run.Title, ": ")), v.width-used-10)
	v.line("  " + badge + "  " + v.p.bold(title) + "  " + v.p.dim(seconds(run.Took)))
}

func (v *verdict) crash(run *ledger.Run) {
	f := run.Facts
	if f == nil {
		return
	}
	p := &f.Panic
	v.line("")
	what := f.Verdict.What
	if what == "" {
		what = p.Title
	}
	where := f.Verdict.Where
	if where == "" && p.Symbol != "" {
		where = place(p.Symbol, p.Offset, p.Module)
	}
	v.field("what", what)
	v.field("where", where)
	v.field("why", f.Verdict.Why)
	v.field("whose", f.Verdict.Whose)
	v.field("task", fmt.Sprintf("%s, PID %d, on CPU %d", p.Task.Comm, p.Task.PID, p.CPU))
	v.field("kernel", f.Kernel.Release)
	if len(p.Frames) > 0 {
		v.line("")
	}
	for i, fr := range p.Frames {
		if i == maxFrames && len(p.Frames) > maxFrames+1 {
			v.line("    " + v.p.dim(fmt.Sprintf("%d more", len(p.Frames)-i)))
			break
		}
		v.frame(fr)
	}
	for _, problem := range f.Dump.Problems {
		v.field("unread", problem)
	}
}

func (v *verdict) frame(fr facts.Frame) {
	name := fr.Symbol
	if name == "" {
		name = fmt.Sprintf("%#x", fr.IP)
	} else {
		name = fmt.Sprintf("%s+%#x", name, fr.Offset)
	}
	if !fr.Reliable && !fr.Exception {
		name = "? " + name
	}
	module := ""
	if fr.Module != "" {
		module = "[" + clean(fr.Module) + "]"
	}
	name = truncate(clean(name), v.width-4-columns(module)-1)
	line := "    " + name
	if fr.Exception {
		line = "  " + v.p.red(v.mark("▶ ", "> ")) + v.p.bold(name)
	}
	used := 4 + columns(name)
	if module != "" {
		line += " " + v.p.cyan(module)
		used += 1 + columns(module)
	}
	if source := clean(fr.Source); source != "" && used+2+columns(source) <= v.width {
		line += "  " + v.p.dim(source)
	}
	v.line(line)
}

func place(symbol string, offset uint64, module string) string {
	s := fmt.Sprintf("%s+%#x", symbol, offset)
	if module != "" {
		s += " in module " + module
	}
	return s
}

// expectations lists them; it returns whether there was one that is not met.
func (v *verdict) expectations(list []ledger.Expectation) (failed bool) {
	if len(list) == 0 {
		return false
	}
	met := 0
	for _, e := range list {
		if e.OK {
			met++
		}
	}
	v.line("")
	v.line("  " + v.p.dim(fmt.Sprintf("%d of %d expectations met", met, len(list))))
	for _, e := range list {
		mark, detail := v.p.green(v.mark("✓", "ok    ")), [][2]string(nil)
		switch {
		case e.Err != "":
			mark, detail = v.p.red(v.mark("!", "ERROR ")), [][2]string{{"wanted", e.Expr}, {"error", e.Err}}
		case !e.OK:
			mark, detail = v.p.red(v.mark("✗", "FAILED")), [][2]string{{"wanted", e.Wanted}, {"found", e.Found}}
		}
		if detail != nil && e.File != "" {
			detail = append(detail, [2]string{"at", fmt.Sprintf("%s:%d", e.File, e.Line)})
		}
		v.line("  " + mark + " " + truncate(clean(e.Name), v.width-columns(v.mark("✓", "FAILED"))-3))
		for _, d := range detail {
			lines := wrap(clean(d[1]), v.width-14)
			if d[0] == "at" {
				lines = []string{clean(d[1])} // whole, for terminals that open files
			}
			for i, l := range lines {
				if i > 0 {
					d[0] = ""
				}
				v.line("      " + v.p.dim(pad(d[0], 8)) + l)
			}
		}
		failed = failed || !e.OK
	}
	return failed
}

// failure says whose fault it is. What to look at is left out if it has been shown.
func (v *verdict) failure(f *ledger.Failure, shown bool) {
	if f == nil {
		return
	}
	v.line("")
	why := f.Err
	if f.Doing != "" {
		why = f.Doing + ": " + why
	}
	v.field("fault", f.Party.String())
	v.field("why", why)
	if !shown {
		for i, l := range f.Look {
			name := "look"
			if i > 0 {
				name = ""
			}
			v.line("  " + v.p.dim(pad(name, 9)) + truncate(clean(l), v.width-11))
		}
	}
	v.field("hint", f.Hint)
	if f.Replay != "" {
		// Unbroken, to be copied.
		v.line("  " + v.p.dim(pad("replay", 9)) + clean(f.Replay))
	}
}

// times writes how long each stage took, the longest first in bold.
func (v *verdict) times(stages []ledger.Stage) {
	longest := -1
	for i, s := range stages {
		if s.Took > 0 && (longest < 0 || s.Took > stages[longest].Took) {
			longest = i
		}
	}
	if longest < 0 {
		return
	}
	v.line("")
	const indent = "  "
	line, used := "", 0
	for i, s := range stages {
		text := clean(s.Name) + " " + seconds(s.Took)
		if used > 0 && used+3+columns(text) > v.width-len(indent) {
			v.line(indent + line)
			line, used = "", 0
		}
		if used > 0 {
			line, used = line+v.p.dim(" · "), used+3
		}
		used += columns(text)
		if i == longest {
			line += v.p.bold(text)
		} else {
			line += v.p.dim(text)
		}
	}
	v.line(indent + line)
}
