package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"crashlab/internal/execx"
	"crashlab/lab/blame"
	"crashlab/scenarios"
)

// BenchDump measures crashkit on the dump of a fresh run beside crash and drgn,
// if these are installed and vmlinux, the kernel's file with debug information, is
// given. It prints medians and ranges of n measurements and whether what is
// promised is kept; the error is of what could not be measured.
func (l *Lab) BenchDump(ctx context.Context, n int, vmlinux string) error {
	s, err := scenarios.Load(benchScenario)
	if err != nil {
		return err
	}
	_, dir, err := l.Run(ctx, s)
	if err != nil {
		return err
	}
	b := &dumpBench{n: n, vmcore: filepath.Join(dir, vmcoreFile), vmlinux: vmlinux, tool: filepath.Join(dir, "crashkit")}
	if _, err := execx.Run(ctx, execx.Cmd{Argv: []string{"go", "build", "-o", b.tool, "./crashkit/cmd/crashkit"}, Dir: l.Root}); err != nil {
		return blame.New(blame.Infrastructure, "build crashkit", err)
	}
	defer os.Remove(b.tool)
	for _, part := range []func(context.Context) error{b.open, b.usual, b.foreach} {
		if err := part(ctx); err != nil {
			return blame.New(blame.Analyzer, "measure crashkit", err)
		}
	}
	for line := range strings.Lines(b.text()) {
		l.UI.Say("%s", strings.TrimRight(line, " \n"))
	}
	return nil
}

// dumpBench is the measurements of one dump.
type dumpBench struct {
	n       int
	vmcore  string
	vmlinux string // "" if there is none
	tool    string // crashkit
	rows    []benchRow
}

// benchRow is one thing measured.
type benchRow struct {
	what    string
	times   []time.Duration // sorted
	peak    int64           // of memory, in bytes
	promise string
	kept    bool
}

// promises of BenchDump.
const (
	openMemory   = 100 << 20
	openToDrgn   = 3.0
	openToCrash  = 40.0
	usualTime    = 250 * time.Millisecond
	foreachCrash = 10.0
)

// add measures a command line, once more than it counts.
func (b *dumpBench) add(ctx context.Context, what string, c execx.Cmd) (*benchRow, error) {
	r := benchRow{what: what, kept: true}
	for i := range b.n + 1 {
		took, peak, err := measureCmd(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		if i > 0 {
			r.times, r.peak = append(r.times, took), max(r.peak, peak)
		}
	}
	slices.Sort(r.times)
	b.rows = append(b.rows, r)
	return &b.rows[len(b.rows)-1], nil
}

// promise notes what a row is to keep.
func (b *dumpBench) promise(row int, kept bool, format string, args ...any) {
	r := &b.rows[row]
	text := fmt.Sprintf(format, args...)
	if !kept {
		text += " (broken)"
	}
	if r.promise != "" {
		text = r.promise + ", " + text
	}
	r.promise, r.kept = text, r.kept && kept
}

func (r *benchRow) median() time.Duration { return r.times[len(r.times)/2] }

// beside measures crash, and drgn if its script is given, doing the same as the
// row before, and returns how many times as long they took; 0 if they are not there.
func (b *dumpBench) beside(ctx context.Context, crashCommands, drgnScript string) (crash, drgn float64, err error) {
	own := b.rows[len(b.rows)-1].median()
	if b.vmlinux == "" {
		return 0, 0, nil
	}
	if path, lerr := exec.LookPath("crash"); lerr == nil {
		r, err := b.add(ctx, "  crash", execx.Cmd{Argv: []string{path, "-s", b.vmlinux, b.vmcore}, Stdin: strings.NewReader(crashCommands + "\nquit\n")})
		if err != nil {
			return 0, 0, err
		}
		crash = float64(r.median()) / float64(own)
	}
	if path, lerr := exec.LookPath("drgn"); lerr == nil && drgnScript != "" {
		r, err := b.add(ctx, "  drgn", execx.Cmd{Argv: []string{path, "-q", "-c", b.vmcore, "-s", b.vmlinux, "-e", drgnScript}})
		if err != nil {
			return 0, 0, err
		}
		drgn = float64(r.median()) / float64(own)
	}
	return crash, drgn, nil
}

func (b *dumpBench) open(ctx context.Context) error {
	row := len(b.rows)
	r, err := b.add(ctx, "open, sys", execx.Cmd{Argv: []string{b.tool, "-c", "sys", b.vmcore}})
	if err != nil {
		return err
	}
	peak := r.peak
	crash, drgn, err := b.beside(ctx, "sys", `print(prog["init_uts_ns"].name.release.string_())`)
	if err != nil {
		return err
	}
	b.promise(row, peak <= openMemory, "at most %d MB", openMemory>>20)
	if drgn > 0 {
		b.promise(row, drgn >= openToDrgn, "a third of drgn's time: %.1f times as fast", drgn)
	}
	if crash > 0 {
		b.promise(row, crash >= openToCrash, "a fortieth of crash's: %.1f times", crash)
	}
	return nil
}

func (b *dumpBench) usual(ctx context.Context) error {
	r, err := b.add(ctx, "open, bt -a, ps, log, mod", execx.Cmd{Argv: []string{b.tool, "-c", "bt -a", "-c", "ps", "-c", "log", "-c", "mod", b.vmcore}})
	if err != nil {
		return err
	}
	b.promise(len(b.rows)-1, r.median() <= usualTime, "at most %v", usualTime)
	return nil
}

func (b *dumpBench) foreach(ctx context.Context) error {
	row := len(b.rows)
	if _, err := b.add(ctx, "open, foreach bt", execx.Cmd{Argv: []string{b.tool, "-c", "foreach bt", b.vmcore}}); err != nil {
		return err
	}
	crash, _, err := b.beside(ctx, "foreach bt", "")
	if crash > 0 {
		b.promise(row, crash >= foreachCrash, "ten times as fast as crash: %.1f", crash)
	}
	return err
}

// text returns the table.
func (b *dumpBench) text() string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "measured\tmedian\tfrom\tto\tmemory\tpromised\t")
	for _, r := range b.rows {
		fmt.Fprintf(w, "%s\t%v\t%v\t%v\t%d MB\t%s\t\n", r.what, round(r.median()), round(r.times[0]), round(r.times[len(r.times)-1]), r.peak>>20, r.promise)
	}
	if b.vmlinux == "" {
		fmt.Fprintln(w, "crash and drgn are not measured without -vmlinux=FILE")
	}
	if err := w.Flush(); err != nil {
		return errors.Join(err).Error()
	}
	return out.String()
}
