// Package triage reads a crash dump the way an engineer does first: what
// crashed, where, why, and whose code it was. It fills in package facts.
//
// Two witnesses are heard, the kernel's own last words and the memory it left
// behind, and where they contradict each other that is said. Nothing is guessed
// from what cannot be read: it is absent, and the reason is among the problems.
package triage

import (
	"context"
	"fmt"

	"crashlab/crashkit"
	"crashlab/crashkit/debuginfo"
	"crashlab/crashkit/facts"
	"crashlab/crashkit/kernel"
)

// Facts returns all that is known of the crash whose dump, at path, is open as
// p. What cannot be read is left out and named in Dump.Problems; the only error
// is that of ctx. Debug may be nil: no line of a source is named then.
func Facts(ctx context.Context, p *crashkit.Program, path string, debug *debuginfo.Source) (*facts.Facts, error) {
	t := &triage{p: p, debug: debug, f: &facts.Facts{}}
	for _, step := range []func(){
		func() { t.dump(path) },
		t.log,
		t.system,
		t.tasks,
		t.modules,
		t.panic,
		t.sources,
		t.verdict,
	} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		step()
	}
	t.f.Dump.Partial = t.f.Dump.Partial || len(t.f.Dump.Problems) > 0
	return t.f, nil
}

// triage is the reading of one dump.
type triage struct {
	p     *crashkit.Program
	debug *debuginfo.Source // nil: none
	f     *facts.Facts
	mods  []kernel.Module
}

// maxProblems bounds what a dump in which everything is wrong makes us say.
const maxProblems = 100

func (t *triage) problem(format string, args ...any) {
	switch n := len(t.f.Dump.Problems); {
	case n < maxProblems:
		t.f.Dump.Problems = append(t.f.Dump.Problems, fmt.Sprintf(format, args...))
	case n == maxProblems:
		t.f.Dump.Problems = append(t.f.Dump.Problems, "and more")
	}
}

// note adds err, unless it is nil, to the problems.
func (t *triage) note(err error) {
	if err != nil {
		t.problem("%v", err)
	}
}

func (t *triage) noteAll(errs []error) {
	for _, err := range errs {
		t.note(err)
	}
}

func (t *triage) dump(path string) {
	info := t.p.Image.Info()
	format := "elf"
	if info.HeaderVersion > 0 {
		format = "kdump"
		if info.Compression != "" && info.Compression != "none" {
			format += "-" + info.Compression
		}
	}
	t.f.Dump = facts.Dump{
		Path: path, Format: format, SizeBytes: uint64(info.FileSize),
		Partial:  info.Incomplete || info.Truncated,
		Problems: append([]string{}, info.Problems...),
	}
	t.noteAll(t.p.Limits)
}

func (t *triage) log() {
	records, err := kernel.Log(t.p)
	t.note(err)
	t.f.Log = kernel.LogText(records)
	t.f.Records = make([]facts.LogRecord, len(records))
	for i, r := range records {
		t.f.Records[i] = facts.LogRecord{TimeNS: r.TimeNS, Level: r.Level, Facility: r.Facility, Caller: r.Caller, Text: r.Text}
	}
}

func (t *triage) system() {
	s := kernel.Sys(t.p)
	t.noteAll(s.Problems)
	k := facts.Kernel{
		Release: s.UTS.Release, Version: s.UTS.Version, Machine: s.UTS.Machine, Hostname: s.UTS.Nodename,
		CPUs: s.CPUsOnline, MemoryBytes: s.MemoryBytes, CommandLine: s.CommandLine, KASLROffset: s.KASLROffset,
	}
	if !s.CrashTime.IsZero() {
		k.CrashTime = s.CrashTime.Unix()
	}
	if n := len(t.f.Records); n > 0 {
		k.UptimeNS = t.f.Records[n-1].TimeNS
	}
	t.f.Kernel = k
	t.f.Panic.Taints, t.f.Panic.TaintLetters = taints(s.Taints)
}

// taints returns the names of taints, and their letters.
func taints(all []kernel.Taint) (names []string, letters string) {
	names = []string{}
	for _, x := range all {
		names = append(names, x.Name)
		letters += x.Letter
	}
	return names, letters
}

func (t *triage) tasks() {
	tasks, err := kernel.Tasks(t.p)
	t.note(err)
	t.f.Tasks = make([]facts.Task, len(tasks))
	for i := range tasks {
		t.f.Tasks[i] = taskFacts(&tasks[i])
		for _, err := range tasks[i].Problems {
			t.problem("task %d: %v", tasks[i].PID, err)
		}
	}
}

func taskFacts(k *kernel.Task) facts.Task {
	return facts.Task{
		PID: k.PID, TGID: k.TGID, PPID: k.PPID, Comm: k.Comm, State: k.State, CPU: k.CPU, Running: k.Running,
		Kthread: k.Kthread, UID: k.UID, Address: uint64(k.Addr), RSSBytes: k.RSSBytes, VMBytes: k.VMBytes,
	}
}

func (t *triage) modules() {
	var err error
	t.mods, err = kernel.Modules(t.p)
	t.note(err)
	t.f.Modules = make([]facts.Module, len(t.mods))
	for i, m := range t.mods {
		names, _ := taints(m.Taints)
		t.f.Modules[i] = facts.Module{
			Name: m.Name, Base: uint64(m.Base), Size: m.Size, State: m.State, Taints: names, UsedBy: m.UsedBy,
		}
		for _, err := range m.Problems {
			t.problem("module %s: %v", m.Name, err)
		}
	}
}
