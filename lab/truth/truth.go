// Package truth compares what the analyzer reads out of a dump with what the
// crashed guest knew about itself: the files of its own /proc, recorded before
// the crash, and the call trace on its console.
package truth

import (
	"bufio"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"crashlab/crashkit"
	"crashlab/crashkit/kernel"
)

// Checked counts what was compared. A comparison of nothing proves nothing, so
// Compare reports a difference for each count that is 0, but for modules: a
// kernel may have none.
type Checked struct {
	Symbols int // lines of kallsyms
	Modules int // lines of modules
	Threads int // status files
	Frames  int // reliable lines of the kernel's call traces
	Stacks  int // tasks whose stack was recorded and that did not run after that
}

// Compare compares the analyzer's answers about p with the guest's own: proc is
// its /proc, as far as it was recorded, and console what it printed. The
// differences are sentences.
func Compare(proc fs.FS, console string, p *crashkit.Program) (Checked, []string) {
	c := &comparison{proc: proc, p: p}
	c.symbols()
	c.modules()
	c.tasks()
	c.system()
	c.traces(console)
	c.stacks()
	for what, n := range map[string]int{
		"symbols": c.checked.Symbols, "threads": c.checked.Threads, "frames": c.checked.Frames, "stacks": c.checked.Stacks,
	} {
		if n == 0 {
			c.differ("no %s were compared", what)
		}
	}
	return c.checked, c.differences
}

// maxDifferences bounds the answer: one wrong base makes 100,000 differences.
const maxDifferences = 50

type comparison struct {
	proc        fs.FS
	p           *crashkit.Program
	checked     Checked
	differences []string
}

func (c *comparison) differ(format string, a ...any) {
	if len(c.differences) < maxDifferences {
		c.differences = append(c.differences, fmt.Sprintf(format, a...))
	}
}

func (c *comparison) read(name string) string {
	b, err := fs.ReadFile(c.proc, name)
	if err != nil {
		c.differ("%v", err)
	}
	return string(b)
}

// symbols compares every line of /proc/kallsyms with the symbol tables of the
// kernel and of its modules, both ways.
func (c *comparison) symbols() {
	type symbol struct {
		addr         uint64
		letter       string
		name, module string
	}
	have := make(map[symbol]int)
	for _, s := range c.p.Syms.All() {
		have[symbol{uint64(s.Addr), string(s.Type), s.Name, ""}]++
	}
	mods, err := c.p.Modules()
	if err != nil {
		c.differ("modules: %v", err)
	}
	recorded := make(map[string]bool)
	for name := range strings.Lines(c.read("modules")) {
		recorded[strings.Fields(name)[0]] = true
	}
	for _, m := range mods {
		if !recorded[m.Name] {
			continue // loaded after the recording: the one that crashed
		}
		for _, s := range m.Syms.All() {
			have[symbol{uint64(s.Addr), string(s.Type), s.Name, m.Name}]++
		}
	}
	lines := bufio.NewScanner(strings.NewReader(c.read("kallsyms")))
	part := false // a comment says that the recording has not all of them
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			part = true
			continue
		}
		f := strings.Fields(lines.Text())
		if len(f) < 3 {
			c.differ("kallsyms: line %q", lines.Text())
			continue
		}
		a, err := strconv.ParseUint(f[0], 16, 64)
		if err != nil {
			c.differ("kallsyms: %v", err)
		}
		s := symbol{addr: a, letter: f[1], name: f[2]}
		if len(f) > 3 {
			s.module = strings.Trim(f[3], "[]")
		}
		c.checked.Symbols++
		if have[s] == 0 {
			c.differ("kallsyms: the dump has no %q", lines.Text())
			continue
		}
		have[s]--
	}
	for s, n := range have {
		if n > 0 && !part {
			c.differ("kallsyms: the guest has no %x %s %s [%s]", s.addr, s.letter, s.name, s.module)
		}
	}
}

// modules compares the lists of modules.
func (c *comparison) modules() {
	mods, err := kernel.Modules(c.p)
	if err != nil {
		c.differ("modules: %v", err)
	}
	have := make(map[string]kernel.Module)
	for _, m := range mods {
		have[m.Name] = m
	}
	for line := range strings.Lines(c.read("modules")) {
		// name size references users state address, such as
		// "virtio_ring 49152 3 virtio_blk,virtio_pci, Live 0xffffffffc058b000".
		f := strings.Fields(line)
		if len(f) < 6 {
			c.differ("modules: line %q", line)
			continue
		}
		c.checked.Modules++
		m, ok := have[f[0]]
		// The references are not compared: the disk that the recording is
		// written to is open while it is made.
		if got := fmt.Sprintf("%s %d %#x", m.Name, m.Size, uint64(m.Base)); !ok || got != strings.Join([]string{f[0], f[1], f[5]}, " ") {
			c.differ("modules: the dump has %q, the guest %q", got, strings.TrimSpace(line))
		}
		delete(have, f[0])
	}
	// A kernel may have all built in, and list none. What was loaded after the
	// recording is the one that crashed.
	if len(have) > 1 {
		c.differ("modules: the guest has none of %v", slices.Sorted(maps.Keys(have)))
	}
}

// tasks compares every thread that the guest saw: PID, parent, name and state.
func (c *comparison) tasks() {
	tasks, err := kernel.Tasks(c.p)
	if err != nil {
		c.differ("tasks: %v", err)
	}
	have := make(map[int]kernel.Task)
	for _, t := range tasks {
		if t.Idle {
			continue // not in /proc
		}
		if _, twice := have[t.PID]; twice {
			c.differ("tasks: PID %d is there twice", t.PID)
		}
		have[t.PID] = t
	}
	files, err := fs.Glob(c.proc, "[0-9]*/task/[0-9]*/status")
	if err != nil {
		c.differ("tasks: %v", err)
	}
	newest := 0 // PID that was recorded; those above it came later
	for _, file := range files {
		s := status(c.read(file))
		pid, err := strconv.Atoi(s["Pid"])
		if err != nil {
			c.differ("tasks: %s: %v", file, err)
		}
		newest = max(newest, pid)
		t, ok := have[pid]
		delete(have, pid)
		if !ok {
			if !strings.HasPrefix(s["Name"], "kworker/") { // the kernel ends and makes them at any time
				c.differ("tasks: the dump has no %s (%s)", s["Pid"], s["Name"])
			}
			continue
		}
		c.checked.Threads++
		got := fmt.Sprintf("pid %d tgid %d ppid %d %s", t.PID, t.TGID, t.PPID, t.Comm)
		want := fmt.Sprintf("pid %s tgid %s ppid %s %s", s["Pid"], s["Tgid"], s["PPid"], commName(s["Name"], t.Kthread))
		if got != want {
			c.differ("tasks: the dump has %q, the guest %q", got, want)
		}
		if !sameState(t, s["State"]) {
			c.differ("tasks: the state of %d (%s) is %s in the dump, %s in the guest", t.PID, t.Comm, t.State, s["State"])
		}
	}
	for _, t := range have {
		if t.PID <= newest && !strings.HasPrefix(t.Comm, "kworker/") {
			c.differ("tasks: the guest had no %d (%s)", t.PID, t.Comm)
		}
	}
}

// status returns the fields of a /proc/PID/status.
func status(text string) map[string]string {
	m := make(map[string]string)
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		m[name] = strings.TrimSpace(value)
	}
	return m
}

// commName returns a task's comm from the name in its status. Of a kworker the
// kernel shows its work there too ("kworker/0:0-events", wq_worker_comm in
// kernel/workqueue.c), and of other kernel threads, since v5.17, the name in
// full (proc_task_name in fs/proc/array.c), of which comm keeps 15 bytes.
func commName(name string, kthread bool) string {
	// A rescuer's own name has the dash (v6.10).
	if strings.HasPrefix(name, "kworker/") && !strings.HasPrefix(name, "kworker/R-") {
		if i := strings.IndexAny(name, "-+"); i >= 0 {
			return name[:i]
		}
	}
	if kthread && len(name) > 15 {
		return name[:15]
	}
	return name
}

// stateNames are the letters of /proc/PID/status (fs/proc/array.c) with the
// names that crash gives these states.
var stateNames = map[byte]string{'R': "RU", 'S': "IN", 'D': "UN", 'T': "ST", 't': "TR", 'Z': "ZO", 'X': "DE", 'P': "PA", 'I': "ID"}

// sameState reports whether a task's state is what the guest saw. Between the
// recording and the crash a task may have been woken or gone to sleep: one that
// was running at either time may be in any state at the other, and kernel
// threads nap without being asked. Processes are held to their word.
func sameState(t kernel.Task, seen string) bool {
	if seen == "" {
		return false
	}
	want := stateNames[seen[0]]
	if t.State == want {
		return true
	}
	if want == "RU" || t.State == "RU" || t.State == "WA" { // WA: woken, its CPU has not yet seen to it
		return true
	}
	return t.Kthread && want != "ZO" && t.State != "ZO"
}

func (c *comparison) system() {
	uts, err := kernel.UTS(c.p)
	if err != nil {
		c.differ("utsname: %v", err)
	}
	// "Linux version RELEASE (BUILDER) (COMPILER) VERSION"
	version := c.read("version")
	if !strings.HasPrefix(version, "Linux version "+uts.Release+" ") || uts.Release == "" {
		c.differ("release: the dump has %q, the guest %q", uts.Release, version)
	}
	if !strings.HasSuffix(strings.TrimSpace(version), uts.Version) || uts.Version == "" {
		c.differ("version: the dump has %q, the guest %q", uts.Version, version)
	}
	cmdline, err := kernel.CommandLine(c.p)
	if err != nil {
		c.differ("command line: %v", err)
	}
	if want := strings.TrimSpace(c.read("cmdline")); strings.TrimSpace(cmdline) != want {
		c.differ("command line: the dump has %q, the guest %q", cmdline, want)
	}
}
