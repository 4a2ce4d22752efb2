package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"crashlab/crashkit"
	"crashlab/crashkit/command"
	"crashlab/crashkit/debuginfo"
	"crashlab/crashkit/kernel"
	"crashlab/lab/blame"
	"crashlab/lab/kernels"
	"crashlab/lab/ledger"
	"crashlab/lab/store"
	"crashlab/lab/truth"
	"crashlab/scenarios"
)

// MatrixRow is one kernel, and how it is crashed.
type MatrixRow struct {
	Name     string `json:"name"` // unique
	Spec     string `json:"spec"` // of the kernel
	Scenario string `json:"scenario"`
	Cmdline  string `json:"cmdline,omitempty"` // added to the kernel's command line
	CPUs     int    `json:"cpus,omitempty"`    // 0: the scenario's
}

// MatrixRows are the kernels that crashkit is held against. The module of
// nullderef builds with the compiler of Debian 12 for the older ones; the
// headers of 7.x ask for a newer compiler, and sysrq needs none.
func MatrixRows() []MatrixRow {
	return []MatrixRow{
		{Name: "5.10", Spec: "debian@bullseye:5.10", Scenario: "nullderef"},
		{Name: "6.1", Spec: "debian", Scenario: "nullderef"},
		{Name: "6.1-rt", Spec: "debian:6.1-rt-amd64", Scenario: "nullderef"},
		{Name: "6.12", Spec: "debian@trixie:6.12", Scenario: "sysrq"},
		{Name: "7.0", Spec: "ubuntu@resolute:7.0", Scenario: "sysrq"},
		{Name: "7.2-forky", Spec: "debian@forky", Scenario: "sysrq"},
		{Name: "7.2", Spec: "debian@sid", Scenario: "sysrq"},
		{Name: "7.3-backports", Spec: "debian@trixie-backports", Scenario: "sysrq"},
		{Name: "7.3", Spec: "debian@experimental", Scenario: "sysrq"},
		{Name: "6.1-nokaslr", Spec: "debian", Scenario: "nullderef", Cmdline: "nokaslr"},
		{Name: "6.1-4level", Spec: "debian", Scenario: "nullderef", Cmdline: "no5lvl"},
		{Name: "6.1-preempt-none", Spec: "debian", Scenario: "nullderef", Cmdline: "preempt=none"},
		{Name: "6.1-preempt-voluntary", Spec: "debian", Scenario: "nullderef", Cmdline: "preempt=voluntary"},
		{Name: "6.1-preempt-full", Spec: "debian", Scenario: "nullderef", Cmdline: "preempt=full"},
		{Name: "6.1-1cpu", Spec: "debian", Scenario: "nullderef", CPUs: 1},
		{Name: "6.1-lab", Spec: "source:6.1", Scenario: "nullderef"},
		{Name: "6.1-lab-framepointer", Spec: "source:6.1+framepointer", Scenario: "nullderef"},
		{Name: "6.1-lab-nobtf", Spec: "source:6.1+nobtf", Scenario: "nullderef"},
		{Name: "6.1-lab-up", Spec: "source:6.1+up", Scenario: "nullderef"},
	}
}

// MatrixResult is what came of a row.
type MatrixResult struct {
	MatrixRow
	Tried    bool          `json:"tried"` // false: nothing below is known
	Release  string        `json:"release,omitempty"`
	Verdict  string        `json:"verdict,omitempty"` // of the scenario
	Checked  truth.Checked `json:"checked"`
	Tasks    int           `json:"tasks"`    // in the dump that have a stack: all but zombies
	Traces   int           `json:"traces"`   // of these, whose stack was unwound without a complaint
	Opened   time.Duration `json:"opened"`   // the time to open the dump
	Commands []string      `json:"commands"` // that answered without a complaint
	Problems []string      `json:"problems"` // why the row fails; empty if it passes
}

// Passed reports whether the row was tried and nothing is wrong with it.
func (r *MatrixResult) Passed() bool { return r.Tried && len(r.Problems) == 0 }

// MatrixFile and SupportFile hold the results, for machines and for people,
// relative to the checkout.
const (
	MatrixFile  = "docs/support.json"
	SupportFile = "docs/SUPPORT.md"
)

// matrixCommands are run on each dump, besides bt of each task.
var matrixCommands = []string{"sys", "log", "bt -a", "ps", "mod", "sym linux_banner", "struct task_struct"}

// Matrix crashes the kernels of the rows whose names are in only,
// all if it is empty, compares what crashkit reads with what each kernel
// knew of itself, and rewrites MatrixFile and SupportFile. A dump that was made
// before is used again unless fresh. Rows that were not asked for keep their
// results. The error says which rows failed.
func (l *Lab) Matrix(ctx context.Context, only []string, fresh bool) error {
	const doing = "run the matrix"
	rows := MatrixRows()
	for _, name := range only {
		if !slices.ContainsFunc(rows, func(r MatrixRow) bool { return r.Name == name }) {
			e := blame.New(blame.Usage, doing, fmt.Errorf("there is no row %q", name))
			for _, r := range rows {
				e.Look = append(e.Look, fmt.Sprintf("%-22s %s", r.Name, r.Spec))
			}
			return e
		}
	}
	file := filepath.Join(l.Root, MatrixFile)
	old, err := ReadMatrix(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return blame.New(blame.Infrastructure, doing, err)
	}
	results := make([]MatrixResult, len(rows))
	for i, row := range rows {
		results[i] = MatrixResult{MatrixRow: row}
		for _, o := range old {
			if o.MatrixRow == row {
				results[i] = o
			}
		}
	}
	var failed []string
	for i, row := range rows {
		if len(only) > 0 && !slices.Contains(only, row.Name) {
			continue
		}
		r := l.matrixRow(ctx, row, fresh)
		if ctx.Err() != nil {
			return interrupted(ctx, ctx.Err())
		}
		results[i] = r
		if !r.Passed() {
			failed = append(failed, row.Name+": "+r.Problems[0])
		}
		// After each row: an interrupted matrix keeps what it has.
		if err := writeMatrix(l.Root, results); err != nil {
			return blame.New(blame.Infrastructure, doing, err)
		}
	}
	if len(failed) > 0 {
		e := blame.New(blame.Analyzer, doing, fmt.Errorf("%d rows failed", len(failed)))
		e.Look = failed
		return e
	}
	return nil
}

// matrixRow crashes one kernel, unless its dump is there, and looks at the dump.
func (l *Lab) matrixRow(ctx context.Context, row MatrixRow, fresh bool) MatrixResult {
	r := MatrixResult{MatrixRow: row, Tried: true}
	l.UI.Say("matrix: %s (%s, %s)", row.Name, row.Spec, row.Scenario)
	run, dir, err := l.matrixDump(ctx, row, fresh)
	r.Release, r.Verdict = run.Kernel.Release, string(run.Verdict)
	if err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	if dir != "" {
		if _, serr := os.Stat(filepath.Join(dir, vmcoreFile)); serr == nil {
			r.examine(ctx, dir, func() (string, error) { return l.vmlinux(ctx, row.Spec) })
		}
	}
	if !r.Passed() {
		l.UI.Say("matrix: %s failed: %s", row.Name, strings.Join(r.Problems, "\n    "))
	}
	return r
}

// matrixDump returns the run of a row and its folder: the last one that passed,
// or a new one.
func (l *Lab) matrixDump(ctx context.Context, row MatrixRow, fresh bool) (ledger.Run, string, error) {
	s, err := scenarios.Load(row.Scenario)
	if err != nil {
		return ledger.Run{}, "", err
	}
	c, err := store.Open(l.Settings.Cache, l.Log)
	if err != nil {
		return ledger.Run{}, "", err
	}
	key := store.Key{Name: row.Name, Inputs: []string{row.Spec, row.Scenario, row.Cmdline, strconv.Itoa(row.CPUs)}}
	runs := filepath.Join(c.Area("matrix"), key.ID())
	if !fresh {
		found, err := filepath.Glob(filepath.Join(runs, "*", ledger.File))
		if err != nil {
			return ledger.Run{}, "", err
		}
		slices.Sort(found)
		for _, name := range slices.Backward(found) {
			var run ledger.Run
			b, err := os.ReadFile(name)
			if err == nil {
				err = json.Unmarshal(b, &run)
			}
			if err == nil && run.Verdict == ledger.Passed && run.Kernel.Spec == row.Spec {
				return run, filepath.Dir(name), nil
			}
		}
	}
	if err := os.RemoveAll(runs); err != nil {
		return ledger.Run{}, "", blame.New(blame.Infrastructure, "remove the old dump", err)
	}
	one := *l
	one.Settings.Kernel, one.Settings.Runs = row.Spec, runs
	s.Guest.Cmdline = strings.TrimSpace(s.Guest.Cmdline + " " + row.Cmdline)
	if row.CPUs != 0 {
		s.Guest.CPUs = row.CPUs
	}
	return one.Run(ctx, s)
}

// vmlinux returns the kernel's file with debug information, "" if there is none.
func (l *Lab) vmlinux(ctx context.Context, spec string) (string, error) {
	c, err := store.Open(l.Settings.Cache, l.Log)
	if err != nil {
		return "", err
	}
	k, err := kernels.New(c, l.Log, nil, l.kernelOptions()).Fetch(ctx, spec)
	if err != nil {
		return "", err
	}
	return k.VMLinux, nil
}

// examine opens the dump in dir, compares it with the truth, and runs the commands.
// Vmlinux is asked for if the dump has no types.
func (r *MatrixResult) examine(ctx context.Context, dir string, vmlinux func() (string, error)) {
	problem := func(format string, a ...any) { r.Problems = append(r.Problems, fmt.Sprintf(format, a...)) }
	path := filepath.Join(dir, vmcoreFile)
	began := time.Now()
	p, err := crashkit.Open(path)
	r.Opened = time.Since(began)
	if err != nil {
		problem("open: %v", err)
		return
	}
	defer p.Close()
	if p.Types.IsEmpty() {
		file, err := vmlinux()
		if err != nil {
			problem("%v", err)
		}
		debug := debuginfo.New(p, path, file, nil)
		defer debug.Close()
		if err := debug.SupplyTypes(); err != nil {
			problem("%v", err)
		}
	}
	console, err := os.ReadFile(filepath.Join(dir, consoleFile))
	if err != nil {
		problem("%v", err)
	}
	checked, differences := truth.Compare(os.DirFS(filepath.Join(dir, truthDir, "proc")), string(console), p)
	r.Checked = checked
	const most = 5 // one wrong base makes as many differences as there are symbols
	for _, d := range differences[:min(most, len(differences))] {
		problem("%s", d)
	}
	if n := len(differences) - most; n > 0 {
		problem("and %d differences more", n)
	}
	env := command.NewEnv(p, path)
	for _, line := range matrixCommands {
		if a := command.Run(ctx, env, line); a.Err != nil {
			problem("%s: %v", line, a.Err)
		} else {
			r.Commands = append(r.Commands, line)
		}
	}
	tasks, err := kernel.Tasks(p)
	if err != nil {
		problem("tasks: %v", err)
	}
	for _, t := range tasks {
		if t.State == "ZO" {
			continue // it gave its stack back when it died (put_task_stack, v4.9)
		}
		r.Tasks++
		if a := command.Run(ctx, env, fmt.Sprintf("bt %x", uint64(t.Addr))); a.Err != nil {
			problem("bt of %d (%s): %v", t.PID, t.Comm, a.Err)
		} else {
			r.Traces++
		}
	}
}

// ReadMatrix reads the results in the file called name.
func ReadMatrix(name string) ([]MatrixResult, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var all []MatrixResult
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return all, nil
}

func writeMatrix(root string, all []MatrixResult) error {
	b, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(root, MatrixFile), append(b, '\n'), 0o644),
		os.WriteFile(filepath.Join(root, SupportFile), []byte(Support(all)), 0o644))
}

// Support renders the results as the page of what is supported.
func Support(all []MatrixResult) string {
	var b strings.Builder
	b.WriteString("# Kernels that crashkit was held against\n\n" +
		"Written by `go tool mage matrix` from support.json: do not edit. Each row is a kernel that was crashed, its memory\n" +
		"captured by kdump (kdump-compressed, zstd), and what crashkit reads there compared with what the guest had recorded of\n" +
		"itself: /proc/kallsyms, /proc/modules, the status and stack of each thread, and the call traces on the console.\n" +
		"\"traces\" is how many tasks' stacks were unwound without a complaint, of how many; zombies have none.\n\n" +
		"| row | kernel | crashed by | options | result | symbols | modules | threads | trace frames | stacks | traces | open |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range all {
		options := strings.TrimSpace(r.Cmdline)
		if r.CPUs != 0 {
			options = strings.TrimSpace(fmt.Sprintf("%s %d CPU", options, r.CPUs))
		}
		result, kernel := "passed", r.Release
		switch {
		case !r.Tried:
			result = "not tried"
		case !r.Passed():
			result = "**failed**"
		}
		if kernel == "" {
			kernel = "`" + r.Spec + "`"
		}
		c := r.Checked
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %d | %d | %d | %d | %d | %d of %d | %d ms |\n", r.Name, kernel, r.Scenario, options, result,
			c.Symbols, c.Modules, c.Threads, c.Frames, c.Stacks, r.Traces, r.Tasks, r.Opened.Milliseconds())
	}
	fmt.Fprintf(&b, "\nCommands run on each: `%s`, and `bt` of each task.\n", strings.Join(matrixCommands, "`, `"))
	for _, r := range all {
		if !r.Tried || r.Passed() {
			continue
		}
		fmt.Fprintf(&b, "\n## Why %s failed\n\n", r.Name)
		for _, p := range r.Problems {
			fmt.Fprintf(&b, "- %s\n", command.Printable(strings.ReplaceAll(p, "\n", " ")))
		}
	}
	return b.String()
}
