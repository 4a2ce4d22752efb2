package report

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"crashlab/crashkit/facts"
	"crashlab/crashkit/oops"
	"crashlab/lab/ledger"
)

// view is what the page shows: the run, and what is worked out from it.
type view struct {
	*ledger.Run
	Badge, Tone  string // the verdict in a word; the class that colours it
	Headline     string
	Where        string
	Met          int
	Look         []string        // the failure's, unless the expectations say it
	At           facts.TraceLine // where the processor was
	ErrorCode    string          // decoded
	Bytes        string          // of the instruction
	Registers    []register
	Trace        []traceRow
	SameTrace    bool // the kernel's reliable lines are the frames
	Bars         []bar
	Oops         bool // the console has the kernel's own report
	ConsoleLines []consoleLine
	Running      []facts.Task // on their CPUs first, then the others
}

type register struct {
	Name  string
	Value uint64
	Used  bool // by the instruction
}

// traceRow has a frame of ours, a line of the kernel's, or both if they are the
// same place.
type traceRow struct {
	Frame *facts.Frame
	Line  *facts.TraceLine
	Tone  string // "exception", "same", "path", "guess", "ours", "theirs"
}

// bar is a stage in the chart. From and Len are thousandths of the whole.
type bar struct {
	ledger.Stage
	From, Len float64
	Tone      string
}

type consoleLine struct {
	Text string
	Tone string
}

func newView(run *ledger.Run) *view {
	v := &view{Run: run, Badge: "Running", Tone: "running"}
	switch run.Verdict {
	case ledger.Passed:
		v.Badge, v.Tone = "Passed", "good"
	case ledger.NotMet:
		v.Badge, v.Tone = "Failed", "bad"
	case ledger.Broken:
		v.Badge, v.Tone = "Error", "broken"
	}
	for _, e := range run.Expectations {
		if e.OK {
			v.Met++
		}
	}
	if run.Failure != nil && v.Met == len(run.Expectations) {
		v.Look = run.Failure.Look
	}
	v.Headline = run.Title
	v.bars()
	v.console()
	f := run.Facts
	if f == nil {
		if run.Failure != nil {
			v.Headline = strings.TrimPrefix(run.Failure.Doing+": "+run.Failure.Err, ": ")
			v.Where = run.Title
		}
		return v
	}
	p := &f.Panic
	v.Headline = cmp.Or(f.Verdict.What, p.Title, run.Title)
	v.Where = f.Verdict.Where
	if v.Where == "" && p.Symbol != "" {
		v.Where = fmt.Sprintf("%s+%#x", p.Symbol, p.Offset)
		if p.Module != "" {
			v.Where += " in module " + p.Module
		}
	}
	if p.ErrorCode != nil && (p.Kind == oops.NullDeref || p.Kind == oops.PageFault) && f.Kernel.Machine == "x86_64" {
		v.ErrorCode = pageFaultCode(*p.ErrorCode)
	}
	v.At = facts.TraceLine{Symbol: p.Symbol, Offset: p.Offset, Module: p.Module}
	v.Bytes = fmt.Sprintf("% x", p.Instruction.Bytes)
	v.registers(p)
	v.trace(p)
	v.Running = slices.Clone(f.Tasks)
	slices.SortStableFunc(v.Running, func(a, b facts.Task) int {
		switch {
		case a.Running == b.Running:
			return 0
		case a.Running:
			return -1
		}
		return 1
	})
	return v
}

// pageFaultCode says in words what the bits of enum x86_pf_error_code mean.
func pageFaultCode(code uint64) string {
	pick := func(bit uint64, yes, no string) string {
		if code&bit != 0 {
			return yes
		}
		return no
	}
	words := []string{
		pick(1<<2, "user mode", "kernel mode"),
		pick(1<<4, "instruction fetch", pick(1<<1, "write", "read")),
		pick(1<<0, "the page forbids it", "no page there"),
	}
	if code&(1<<3) != 0 {
		words = append(words, "reserved bit set in a page table")
	}
	if code&(1<<5) != 0 {
		words = append(words, "protection key")
	}
	return strings.Join(words, ", ")
}

// order is how people look for registers.
var order = strings.Fields("rip pc rsp sp rflags pstate rax rbx rcx rdx rsi rdi rbp r8 r9 r10 r11 r12 r13 r14 r15 lr cs ss ds es fs gs fs_base gs_base kernel_gs_base cr0 cr2 cr3 cr4")

var (
	registerName = regexp.MustCompile(`%([a-z0-9]+)`)
	digits       = regexp.MustCompile(`\d+`)
)

func (v *view) registers(p *facts.Panic) {
	used := make(map[string]bool)
	for _, m := range registerName.FindAllStringSubmatch(p.Instruction.Text, -1) {
		used[wide(m[1])] = true
	}
	rank := func(name string) int {
		if i := slices.Index(order, name); i >= 0 {
			return i
		}
		n, _ := strconv.Atoi(digits.FindString(name))
		return len(order) + min(n, 1000)
	}
	for _, name := range slices.SortedFunc(maps.Keys(p.Registers), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	}) {
		v.Registers = append(v.Registers, register{name, p.Registers[name], used[name] || name == "cr2" && p.Address != nil})
	}
}

// wide returns the 64-bit register that name is a part of.
func wide(name string) string {
	switch {
	case len(name) == 3 && name[0] == 'e':
		return "r" + name[1:]
	case len(name) == 2 && name[1] == 'l' && strings.ContainsRune("abcd", rune(name[0])):
		return "r" + name[:1] + "x"
	case len(name) == 2 && (name[1] == 'x' || name[1] == 'i' || name[1] == 'p'):
		return "r" + name
	case len(name) > 2 && name[0] == 'r' && name[1] >= '0' && name[1] <= '9':
		return strings.TrimRight(name, "dwb")
	}
	return name
}

// trace puts our frames beside the lines that the kernel printed.
func (v *view) trace(p *facts.Panic) {
	for i := range p.CrashPath {
		v.Trace = append(v.Trace, traceRow{Frame: &p.CrashPath[i], Tone: "path"})
	}
	v.SameTrace = len(p.KernelTrace) > 0
	frames, lines := p.Frames, p.KernelTrace
	same := func(f facts.Frame, l facts.TraceLine) bool {
		return l.Reliable && f.Symbol == l.Symbol && f.Offset == l.Offset && f.Module == l.Module
	}
	for len(frames) > 0 || len(lines) > 0 {
		switch {
		case len(frames) > 0 && frames[0].Exception:
			v.Trace = append(v.Trace, traceRow{Frame: &frames[0], Tone: "exception"})
			// The kernel prints this place as RIP, not in the trace; arm64 prints it there too.
			if frames = frames[1:]; len(lines) > 0 && same(p.Frames[0], lines[0]) {
				v.Trace[len(v.Trace)-1].Line, lines = &lines[0], lines[1:]
			}
		case len(frames) > 0 && len(lines) > 0 && same(frames[0], lines[0]):
			v.Trace = append(v.Trace, traceRow{&frames[0], &lines[0], "same"})
			frames, lines = frames[1:], lines[1:]
		case len(lines) > 0 && !lines[0].Reliable:
			v.Trace = append(v.Trace, traceRow{Line: &lines[0], Tone: "guess"})
			lines = lines[1:]
		case len(lines) > 0 && (len(frames) == 0 || slices.ContainsFunc(lines[1:], func(l facts.TraceLine) bool { return same(frames[0], l) })):
			// The kernel has this line and we do not: panic's own frames, for
			// one, which are in our crash path.
			tone := "theirs"
			if onPath(p.CrashPath, lines[0]) {
				tone = "path"
			} else {
				v.SameTrace = false
			}
			v.Trace = append(v.Trace, traceRow{Line: &lines[0], Tone: tone})
			lines = lines[1:]
		default:
			v.Trace = append(v.Trace, traceRow{Frame: &frames[0], Tone: "ours"})
			v.SameTrace = false
			frames = frames[1:]
		}
	}
}

// onPath says whether the line is a frame of the crash path, or the printing of the trace itself.
func onPath(path []facts.Frame, l facts.TraceLine) bool {
	return strings.HasPrefix(l.Symbol, "dump_stack") || strings.HasPrefix(l.Symbol, "show_stack") ||
		slices.ContainsFunc(path, func(f facts.Frame) bool { return f.Symbol == l.Symbol })
}

// bars places the stages on a common axis of time.
func (v *view) bars() {
	stages := finished(v.Run)
	if len(stages) == 0 {
		return
	}
	from := stages[0].Started
	var end time.Duration
	for _, s := range stages {
		if s.Started.Before(from) {
			from = s.Started
		}
	}
	for _, s := range stages {
		end = max(end, s.Started.Sub(from)+s.Took)
	}
	for _, s := range stages {
		b := bar{Stage: s, Tone: "work"}
		if end > 0 {
			b.From = 1000 * float64(s.Started.Sub(from)) / float64(end)
			b.Len = max(1000*float64(s.Took)/float64(end), 3)
			b.From = min(b.From, 1000-b.Len)
		}
		switch {
		case s.State == ledger.Failed:
			b.Tone = "bad"
		case s.State == ledger.Started:
			b.Tone = "running"
		case s.Cached:
			b.Tone = "cached"
		}
		v.Bars = append(v.Bars, b)
	}
}

// console marks the lines of the kernel's own report.
func (v *view) console() {
	r, ok := oops.Last(strings.Join(v.Console, "\n"))
	v.Oops = ok
	for i, l := range v.Console {
		line := consoleLine{Text: strings.TrimRight(sequence.ReplaceAllString(l, ""), " \r")}
		switch {
		case ok && i == r.Start:
			line.Tone = "title"
		case ok && i > r.Start && i < r.End:
			line.Tone = "oops"
			if strings.Contains(l, "RIP: 0010:") || strings.Contains(l, "Kernel panic - ") || strings.Contains(l, "] pc : ") {
				line.Tone = "key"
			} else if strings.Contains(l, "]  ? ") {
				line.Tone = "guess"
			}
		}
		v.ConsoleLines = append(v.ConsoleLines, line)
	}
}

// sequence is an escape sequence that changes colours or clears the screen.
var sequence = regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-z]")
