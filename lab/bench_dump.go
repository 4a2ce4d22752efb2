package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
	"crashlab/internal/execx"
	"crashlab/lab/blame"
	"crashlab/scenarios"
)

// BenchDump measures crashkit on the dump of a fresh run beside crash, drgn and makedumpfile,
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
	for _, part := range []func(context.Context) error{b.open, b.usual, b.foreach, b.filter, b.readAll} {
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
	notes   []string
}

// benchRow is one thing measured.
type benchRow struct {
	what    string
	times   []time.Duration // sorted
	peak    int64           // of memory, in bytes
	size    int64           // of the memory that was read or written, in bytes; 0 if that is not the question
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
	readSpeed    = 1e9 // bytes of memory in a second
)

// benchCmd is a command line to measure.
type benchCmd struct {
	what  string
	argv  []string
	stdin string
	made  string // the file that it makes, if any: removed before each time, as to overwrite it takes longer
}

// add measures a command line n times, and once more that does not count.
func (b *dumpBench) add(ctx context.Context, c benchCmd) (*benchRow, error) {
	rows, err := b.addInTurn(ctx, b.n, c)
	if err != nil {
		return nil, err
	}
	return &rows[0], nil
}

// addInTurn measures command lines n times in turn, so that what else the machine does
// meets all of them. It returns their rows.
func (b *dumpBench) addInTurn(ctx context.Context, n int, cmds ...benchCmd) ([]benchRow, error) {
	first := len(b.rows)
	for _, c := range cmds {
		b.rows = append(b.rows, benchRow{what: c.what, kept: true})
	}
	rows := b.rows[first:]
	for i := range n + 1 {
		for j, c := range cmds {
			if err := os.Remove(c.made); err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
			took, peak, err := measureCmd(ctx, execx.Cmd{Argv: c.argv, Stdin: strings.NewReader(c.stdin)})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.what, err)
			}
			if i > 0 {
				rows[j].times, rows[j].peak = append(rows[j].times, took), max(rows[j].peak, peak)
			}
		}
	}
	for _, r := range rows {
		slices.Sort(r.times)
	}
	return rows, nil
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
		r, err := b.add(ctx, benchCmd{what: "  crash", argv: []string{path, "-s", b.vmlinux, b.vmcore}, stdin: crashCommands + "\nquit\n"})
		if err != nil {
			return 0, 0, err
		}
		crash = float64(r.median()) / float64(own)
	}
	if path, lerr := exec.LookPath("drgn"); lerr == nil && drgnScript != "" {
		r, err := b.add(ctx, benchCmd{what: "  drgn", argv: []string{path, "-q", "-c", b.vmcore, "-s", b.vmlinux, "-e", drgnScript}})
		if err != nil {
			return 0, 0, err
		}
		drgn = float64(r.median()) / float64(own)
	}
	return crash, drgn, nil
}

func (b *dumpBench) open(ctx context.Context) error {
	row := len(b.rows)
	r, err := b.add(ctx, benchCmd{what: "open, sys", argv: []string{b.tool, "-c", "sys", b.vmcore}})
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
	r, err := b.add(ctx, benchCmd{what: "open, bt -a, ps, log, mod", argv: []string{b.tool, "-c", "bt -a", "-c", "ps", "-c", "log", "-c", "mod", b.vmcore}})
	if err != nil {
		return err
	}
	b.promise(len(b.rows)-1, r.median() <= usualTime, "at most %v", usualTime)
	return nil
}

func (b *dumpBench) foreach(ctx context.Context) error {
	row := len(b.rows)
	if _, err := b.add(ctx, benchCmd{what: "open, foreach bt", argv: []string{b.tool, "-c", "foreach bt", b.vmcore}}); err != nil {
		return err
	}
	crash, _, err := b.beside(ctx, "foreach bt", "")
	if crash > 0 {
		b.promise(row, crash >= foreachCrash, "ten times as fast as crash: %.1f", crash)
	}
	return err
}

// filter measures crashkit dump beside makedumpfile on an ELF file of all the
// memory. What the run had already left out is zeroes there; they are free pages.
func (b *dumpBench) filter(ctx context.Context) error {
	dir := filepath.Dir(b.vmcore)
	elf, ours, theirs := filepath.Join(dir, "bench.elf"), filepath.Join(dir, "bench.crashkit"), filepath.Join(dir, "bench.makedumpfile")
	for _, f := range []string{elf, ours, theirs} {
		defer os.Remove(f)
	}
	st, err := rewrite(b.vmcore, elf, true, func(f *os.File, cfg dump.WriterConfig, img *dump.Image) (dump.WriteStats, error) {
		return dump.WriteELF(ctx, f, cfg, img)
	})
	if err != nil {
		return err
	}
	cmds := []benchCmd{{what: "dump -l -d 31 of ELF", argv: []string{b.tool, "dump", "-l", "-d", "31", elf, ours}, made: ours}}
	if path, err := exec.LookPath("makedumpfile"); err == nil {
		cmds = append(cmds, benchCmd{what: "  makedumpfile", argv: []string{path, "-l", "-d", "31", "--message-level", "0", elf, theirs}, made: theirs})
	} else {
		b.notes = append(b.notes, "makedumpfile is not installed, and not measured")
	}
	row := len(b.rows)
	rows, err := b.addInTurn(ctx, 5*b.n, cmds...)
	if err != nil {
		return err
	}
	for i := range rows {
		rows[i].size = st.Bytes
	}
	if len(rows) > 1 {
		faster := float64(rows[1].median()) / float64(rows[0].median())
		b.promise(row, faster >= 1, "as fast as makedumpfile: %.2f times", faster)
	}
	return nil
}

// readAll measures the reading of all pages, each time of a dump opened anew.
func (b *dumpBench) readAll(ctx context.Context) error {
	for _, c := range []dump.Compression{dump.Zstd, dump.LZO} {
		path := filepath.Join(filepath.Dir(b.vmcore), "bench."+c.String())
		defer os.Remove(path)
		st, err := rewrite(b.vmcore, path, false, func(f *os.File, cfg dump.WriterConfig, img *dump.Image) (dump.WriteStats, error) {
			cfg.Compression = c
			return dump.Write(ctx, f, cfg, img)
		})
		if err != nil {
			return err
		}
		r := benchRow{what: fmt.Sprintf("read all pages, %v", c), kept: true, size: int64(st.Stored) * 4096}
		var busy []float64
		for range b.n {
			took, cpu, err := readPages(path, st.Stored)
			if err != nil {
				return err
			}
			r.times = append(r.times, took)
			busy = append(busy, float64(cpu)/float64(took)/float64(runtime.GOMAXPROCS(0)))
		}
		slices.Sort(r.times)
		slices.Sort(busy)
		b.rows = append(b.rows, r)
		speed := float64(r.size) / r.median().Seconds()
		b.promise(len(b.rows)-1, speed >= readSpeed, "at least %.0f GB/s, all of %d CPUs busy: %.0f %%", readSpeed/1e9, runtime.GOMAXPROCS(0), 100*busy[len(busy)/2])
	}
	return nil
}

// readPages reads the pages of a dump, of which there must be want, and returns
// how long it took and how much time of CPUs.
func readPages(path string, want uint64) (took, cpu time.Duration, err error) {
	img, err := dump.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer img.Close()
	var n atomic.Uint64
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		return 0, 0, err
	}
	start := time.Now()
	err = img.ReadAll(func(_ addr.PFN, _ []byte, err error) error {
		n.Add(1)
		return err
	})
	took = time.Since(start)
	if err == nil && n.Load() != want {
		err = fmt.Errorf("%d pages read; want %d", n.Load(), want)
	}
	if err := errors.Join(err, unix.Getrusage(unix.RUSAGE_SELF, &after)); err != nil {
		return 0, 0, err
	}
	return took, time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()), nil
}

// rewrite writes the dump at from to the file to, all of its memory or what it has of it.
func rewrite(from, to string, all bool, write func(*os.File, dump.WriterConfig, *dump.Image) (dump.WriteStats, error)) (st dump.WriteStats, err error) {
	img, err := dump.OpenFiles([]string{from}, dump.Options{ZeroExcluded: all})
	if err != nil {
		return st, err
	}
	defer img.Close()
	cfg := dump.ConfigOf(img)
	if all {
		cfg.Keep = nil
	}
	f, err := os.Create(to)
	if err != nil {
		return st, err
	}
	st, err = write(f, cfg, img)
	return st, errors.Join(err, f.Close())
}

// text returns the table.
func (b *dumpBench) text() string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "measured\tmedian\tfrom\tto\tspeed\tmemory\tpromised\t")
	for _, r := range b.rows {
		speed, peak := "", ""
		if r.size > 0 {
			speed = fmt.Sprintf("%.2f GB/s", float64(r.size)/1e9/r.median().Seconds())
		}
		if r.peak > 0 {
			peak = fmt.Sprintf("%d MB", r.peak>>20)
		}
		fmt.Fprintf(w, "%s\t%v\t%v\t%v\t%s\t%s\t%s\t\n", r.what, round(r.median()), round(r.times[0]), round(r.times[len(r.times)-1]), speed, peak, r.promise)
	}
	if b.vmlinux == "" {
		fmt.Fprintln(w, "crash and drgn are not measured without -vmlinux=FILE")
	}
	for _, n := range b.notes {
		fmt.Fprintln(w, n)
	}
	if err := w.Flush(); err != nil {
		return errors.Join(err).Error()
	}
	return out.String()
}
