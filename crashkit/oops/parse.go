package oops

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// parser collects reports. Lines that different callers of printk wrote at the same
// time go to different reports, if the log says who the caller was.
type parser struct {
	all  []*builder
	open map[string]*builder // by caller
}

func (p *parser) line(i int, line, caller string) {
	b := p.open[caller]
	if msg, ok := strings.CutPrefix(line, "Kernel panic - not syncing: "); ok {
		p.panicked(i, line, strings.TrimSpace(msg), caller)
		return
	}
	if kind := titleKind(line); kind != "" {
		if b == nil || !b.continuedBy(kind) {
			p.begin(kind, i, line, caller)
			return
		}
	}
	if m := deathLine.FindStringSubmatch(line); m != nil {
		if b == nil || b.Number != 0 || b.traceSeen {
			b = p.begin(deathKind(strings.TrimPrefix(m[1], "Oops: ")), i, line, caller)
		}
		b.died(i, m)
		return
	}
	if b == nil {
		return
	}
	if strings.HasPrefix(line, "------------[ cut here ]") && !b.continuedBy(Bug) ||
		strings.HasPrefix(line, "Linux version ") || i-b.End > maxSilence {
		delete(p.open, caller)
		return
	}
	b.line(i, line)
	if strings.HasPrefix(line, "---[ end ") {
		delete(p.open, caller)
	}
}

// maxSilence is after how many lines that it does not understand a report is over.
const maxSilence = 100

func (p *parser) begin(kind string, i int, line, caller string) *builder {
	b := &builder{Report: Report{Kind: kind, Title: line, Start: i, End: i + 1}}
	b.title(line)
	p.all = append(p.all, b)
	p.reopen(b, caller)
	return b
}

func (p *parser) reopen(b *builder, caller string) {
	if p.open == nil {
		p.open = make(map[string]*builder)
	}
	p.open[caller] = b
}

// panicked handles the first line of panic(): it ends the report that it is the consequence
// of, or begins one.
func (p *parser) panicked(i int, line, msg, caller string) {
	var b *builder
	kind, after := panicKind(msg)
	for _, c := range slices.Backward(p.all) {
		if c.PanicMessage == "" && (slices.Contains(after, c.Kind) || c.Number > 0 && slices.Contains(after, "#") ||
			// An oops in PID 1 kills it, which is a panic.
			c.Number > 0 && c.PID != nil && *c.PID == 1 && strings.HasPrefix(msg, "Attempted to kill init!")) {
			b = c
			break
		}
	}
	if b == nil {
		b = p.begin(kind, i, line, caller)
		b.PanicMessage = msg
		return
	}
	p.reopen(b, caller)
	b.PanicMessage = msg
	b.panicking, b.inTrace, b.End = true, false, i+1
}

func panicKind(msg string) (kind string, after []string) {
	for _, k := range panicKinds {
		if strings.Contains(msg, k.contains) {
			return k.kind, k.after
		}
	}
	return Panic, nil
}

// builder is a report in the making. The kernel prints outer contexts after the inner
// one, so of everything the first counts.
type builder struct {
	Report
	inTrace   bool
	traceSeen bool
	userRegs  bool // the registers that follow are those of user space
	panicking bool // panic() has been called since the report began
	arm64     bool
	stack     string
}

// continuedBy says whether a line that would begin a report of that kind belongs to this one:
// list debugging and CFI print their own line before BUG() or WARN().
func (b *builder) continuedBy(kind string) bool {
	return (b.Kind == ListCorrupt || b.Kind == CFI) && (kind == Bug || kind == Warn) && b.PC == nil && !b.traceSeen
}

const location = `(?:\[<[0-9a-f]+>\] )?(?:\? )?(?:([^\s+]+)\+0x([0-9a-f]+)/0x([0-9a-f]+)(?: \[([^\s\]]+)[^\]]*\])?|0x([0-9a-f]+))`

var (
	deathLine = regexp.MustCompile(`^(?:Internal error: )?(.{2,200}?):? ([0-9a-f]{4,16}) \[#(\d+)\]`)

	titleAddress  = regexp.MustCompile(`(?:address:?|\bat) (?:0x)?([0-9a-f]{8,16})\b`)
	titleLocation = regexp.MustCompile(`(?: at | in )` + location)
	oldWarning    = regexp.MustCompile(`^WARNING: CPU: (\d+) PID: (\d+) at `)
	newWarning    = regexp.MustCompile(`, CPU#(\d+): (.*)/(\d+)$`)
	softLockup    = regexp.MustCompile(`CPU#(\d+) stuck for \d+s! \[(.*):(\d+)\]`)
	hardLockup    = regexp.MustCompile(`hard LOCKUP on cpu (\d+)`)
	hungTask      = regexp.MustCompile(`^INFO: task (.*):(\d+) blocked `)

	commLine    = regexp.MustCompile(`^CPU: (\d+) (?:UID: (\d+) )?PID: (\d+) Comm: (.*?) (?:Kdump: loaded )?(?:Not tainted|Tainted: ([A-Z -]*?)) +(\d\S*)`)
	taintLine   = regexp.MustCompile(`^(?:Not tainted|Tainted: ([A-Z -]*?)) +(\d\S*)`)
	faultAccess = regexp.MustCompile(`^#PF: (?:supervisor|user) (read access|write access|instruction fetch) in (kernel|user) mode`)
	kasanAccess = regexp.MustCompile(`^(Read|Write) (?:of size \d+ )?at (?:addr )?(?:0x)?([0-9a-f]{8,16}) by (?:task (.*)/(\d+))?`)

	ripLine   = regexp.MustCompile(`^RIP: ([0-9a-f]{4}):` + location)
	pcLine    = regexp.MustCompile(`^pc : ` + location)
	traceLine = regexp.MustCompile(`^(\? )?` + location + `(?: \([A-Z]+\))?(?: \S+:\d+)?$`)
	stackTag  = regexp.MustCompile(`^<(/?)([#A-Z][A-Z0-9]*)>$`)
	registers = regexp.MustCompile(`\b([ER]?[A-Z][A-Z0-9]{1,2}|EFLAGS|ORIG_[ER]AX|PKRU|knlGS|x\d{1,2}|sp|pstate) ?: *(?:([0-9a-f]{4}):)?([0-9a-f]{4,16})\b`)
	lastCR2   = regexp.MustCompile(`^CR2: ([0-9a-f]{16})$`)
	armESR    = regexp.MustCompile(`^ESR = 0x([0-9a-f]{8,16})`)
	moduleRE  = regexp.MustCompile(`^[\w-]+`)
)

func (b *builder) title(line string) {
	switch b.Kind {
	case NullDeref, PageFault, GPF, StackGuard:
		if m := titleAddress.FindStringSubmatch(line); m != nil {
			b.Address = hex(m[1])
		}
		if strings.HasPrefix(line, "Unable to handle kernel") {
			b.Mode = "kernel"
		}
	case KASAN:
		if m := titleLocation.FindStringSubmatch(line); m != nil {
			b.PC = new(locationOf(m[1:]))
		}
	case Warn:
		if m := oldWarning.FindStringSubmatch(line); m != nil {
			b.CPU, b.PID = number(m[1]), number(m[2])
		} else if m := newWarning.FindStringSubmatch(line); m != nil {
			b.CPU, b.Comm, b.PID = number(m[1]), m[2], number(m[3])
		}
	case SoftLockup:
		if m := softLockup.FindStringSubmatch(line); m != nil {
			b.CPU, b.Comm, b.PID = number(m[1]), m[2], number(m[3])
		}
	case HardLockup:
		if m := hardLockup.FindStringSubmatch(line); m != nil {
			b.CPU = number(m[1])
		}
	case HungTask:
		if m := hungTask.FindStringSubmatch(line); m != nil {
			b.Comm, b.PID = m[1], number(m[2])
		}
	}
}

// died handles the line of die(), matched by deathLine.
func (b *builder) died(i int, m []string) {
	b.Number, _ = strconv.Atoi(m[3])
	if code := hex(m[2]); b.ErrorCode == nil {
		b.ErrorCode = code
	}
	b.arm64 = b.arm64 || len(m[2]) > 4
	b.End = i + 1
}

// line takes what line says, if it says anything.
func (b *builder) line(i int, line string) {
	if b.fields(line) || b.trace(line) {
		b.End = i + 1
	}
}

// fields handles the lines around the trace.
func (b *builder) fields(line string) bool {
	switch {
	case strings.HasPrefix(line, "CPU: "):
		m := commLine.FindStringSubmatch(line)
		if m == nil {
			return false
		}
		// A hung task's report ends with the watchdog's own line.
		if b.Kind != HungTask {
			b.CPU, b.UID = first(b.CPU, number(m[1])), first(b.UID, number(m[2]))
			b.PID = first(b.PID, number(m[3]))
			if b.Comm == "" {
				b.Comm = m[4]
			}
		}
		b.tainted(m[5], m[6])
	case strings.HasPrefix(line, "Tainted: "), strings.HasPrefix(line, "Not tainted "):
		m := taintLine.FindStringSubmatch(line)
		if m == nil {
			return false
		}
		b.tainted(m[1], m[2])
	case strings.HasPrefix(line, "#PF: "):
		if m := faultAccess.FindStringSubmatch(line); m != nil && b.Access == "" {
			b.Access = map[string]string{"read access": "read", "write access": "write", "instruction fetch": "exec"}[m[1]]
			b.Mode = m[2]
		}
	case strings.HasPrefix(line, "Read "), strings.HasPrefix(line, "Write "):
		m := kasanAccess.FindStringSubmatch(line)
		if m == nil || b.Kind != KASAN || b.Access != "" {
			return false
		}
		b.Access, b.Address, b.Mode = strings.ToLower(m[1]), hex(m[2]), "kernel"
		if m[4] != "" {
			b.Comm, b.PID = m[3], number(m[4])
		}
	case strings.HasPrefix(line, "ESR = "):
		m := armESR.FindStringSubmatch(line)
		if m == nil {
			return false
		}
		b.arm64, b.ErrorCode = true, first(b.ErrorCode, hex(m[1]))
	case strings.HasPrefix(line, "WnR = ") || strings.HasPrefix(line, "CM = 0, WnR = "):
		if b.Access == "" {
			b.Access = "read"
			if strings.Contains(line, "WnR = 1") {
				b.Access = "write"
			}
		}
	case strings.HasPrefix(line, "Code: "):
		if b.Code == "" && !b.traceSeen && !b.userRegs {
			b.Code = strings.TrimPrefix(line, "Code: ")
		}
	case strings.HasPrefix(line, "Modules linked in:"):
		b.inTrace = false
		if b.Modules == nil {
			b.modules(strings.TrimPrefix(line, "Modules linked in:"))
		}
	case strings.HasPrefix(line, "---[ end "), strings.HasPrefix(line, "Hardware name: "), strings.HasPrefix(line, "Kernel Offset: "),
		// KASAN goes on with other stacks.
		strings.HasPrefix(line, "Allocated by "), strings.HasPrefix(line, "Freed by "), strings.HasPrefix(line, "The buggy address "):
		b.inTrace = false
	default:
		return b.registerLine(line)
	}
	return true
}

func (b *builder) tainted(letters, release string) {
	if b.Release != "" {
		return
	}
	b.Release = release
	b.Tainted = strings.Map(func(r rune) rune {
		if r < 'A' || r > 'Z' || r == 'G' {
			return -1
		}
		return r
	}, letters)
}

func (b *builder) modules(list string) {
	list, _, _ = strings.Cut(list, "[last unloaded:")
	b.Modules = []string{}
	for f := range strings.FieldsSeq(list) {
		if name := moduleRE.FindString(f); name != "" {
			b.Modules = append(b.Modules, name)
		}
	}
}

// registerLine handles the lines with RIP and with registers.
func (b *builder) registerLine(line string) bool {
	if m := ripLine.FindStringSubmatch(line); m != nil {
		cs, _ := strconv.ParseUint(m[1], 16, 16)
		if cs&3 == 0 && b.inTrace {
			into := b.traceTarget()
			*into = append(*into, TraceLine{Location: locationOf(m[2:]), Reliable: true, Exception: true, Stack: b.stack})
		}
		if cs&3 != 0 || b.traceSeen || b.PC != nil {
			b.userRegs = true // or those of an outer context
			return true
		}
		b.PC = new(locationOf(m[2:]))
		b.register("cs", cs)
		return true
	}
	if strings.HasPrefix(line, "RIP: ") {
		b.userRegs = true
		return true
	}
	if m := pcLine.FindStringSubmatch(line); m != nil {
		b.arm64 = true
		if b.PC == nil && !b.traceSeen {
			b.PC = new(locationOf(m[1:]))
		}
		return true
	}
	if m := lastCR2.FindStringSubmatch(line); m != nil && b.Registers != nil && !b.panicking {
		// In the block of registers CR2 may be that of a later fault: reading
		// the code bytes. die()'s callers print the one that counts last.
		b.Registers["cr2"] = *hex(m[1])
		return true
	}
	all := registers.FindAllStringSubmatchIndex(line, -1)
	if all == nil || all[0][0] != 0 {
		return false
	}
	if b.userRegs || b.traceSeen {
		return true
	}
	for _, at := range all {
		value, err := strconv.ParseUint(line[at[6]:at[7]], 16, 64)
		if err != nil {
			continue
		}
		name := line[at[2]:at[3]]
		switch name {
		case "EFLAGS":
			name = "rflags"
		case "R08", "R09":
			name = "r" + name[2:]
		case "FS", "GS":
			name = strings.ToLower(name) + "_base"
		case "knlGS":
			name = "kernel_gs_base"
		case "RSP":
			if at[4] >= 0 {
				ss, _ := strconv.ParseUint(line[at[4]:at[5]], 16, 16)
				b.register("ss", ss)
			}
		}
		b.register(strings.ToLower(name), value)
	}
	return true
}

func (b *builder) register(name string, value uint64) {
	if b.Registers == nil {
		b.Registers = make(map[string]uint64)
	}
	if _, ok := b.Registers[name]; !ok {
		b.Registers[name] = value
	}
}

// trace handles the lines of a call trace.
func (b *builder) trace(line string) bool {
	if line == "Call Trace:" || line == "Call trace:" {
		into := b.traceTarget()
		b.traceSeen, b.stack = true, ""
		b.inTrace = into != nil && len(*into) == 0
		return b.inTrace
	}
	if !b.inTrace {
		return false
	}
	if m := stackTag.FindStringSubmatch(line); m != nil {
		b.stack = m[2]
		if m[1] != "" {
			b.stack = ""
		}
		return true
	}
	m := traceLine.FindStringSubmatch(line)
	if m == nil {
		return false
	}
	into := b.traceTarget()
	*into = append(*into, TraceLine{Location: locationOf(m[2:]), Reliable: !strings.Contains(line, "? "), Stack: b.stack})
	return true
}

// traceTarget returns the trace that a "Call Trace:" seen now belongs to.
func (b *builder) traceTarget() *[]TraceLine {
	if b.panicking {
		return &b.PanicTrace
	}
	return &b.CallTrace
}

// finish returns the report, with what follows from its other fields.
func (b *builder) finish() Report {
	r := b.Report
	fault := r.Kind == NullDeref || r.Kind == PageFault
	if fault && !b.arm64 && r.ErrorCode != nil && r.Access == "" {
		// The bits of enum x86_pf_error_code.
		switch c := *r.ErrorCode; {
		case c&(1<<4) != 0:
			r.Access = "exec"
		case c&(1<<1) != 0:
			r.Access = "write"
		default:
			r.Access = "read"
		}
	}
	if r.PC != nil && r.Mode == "" && fault {
		r.Mode = "kernel"
	}
	return r
}

// locationOf takes the groups of the pattern location.
func locationOf(m []string) Location {
	if m[0] == "" {
		return Location{Addr: *hex(m[4])}
	}
	return Location{Symbol: m[0], Offset: *hex(m[1]), Size: *hex(m[2]), Module: m[3]}
}

// hex returns the number that the hexadecimal digits stand for; more than 64
// bits give the largest one.
func hex(digits string) *uint64 {
	n, _ := strconv.ParseUint(digits, 16, 64)
	return &n
}

// number returns the decimal number, and nil if there is none.
func number(digits string) *int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		return nil
	}
	return &n
}

func first[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}
