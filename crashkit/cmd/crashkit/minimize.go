package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/command"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/kernel"
)

const minimizeUsage = `usage: crashkit minimize -i COMMANDS [-k] IN OUT

Writes a dump that has only the pages that a list of commands reads, and every
task's kernel stack. All other pages read as left out by the filter. IN may be
of any format; OUT is kdump-compressed with zstd.

  -i COMMANDS  a file of commands as of crashkit -i; "-" is standard input
  -k           go on after a command that fails`

// minimizeMain is the subcommand minimize.
func minimizeMain(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("minimize", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	commands := fs.String("i", "", "file of commands")
	keepGoing := fs.Bool("k", false, "go on after a command that fails")
	paths, err := parseMixed(fs, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stdout, minimizeUsage)
		return exitOK
	case err == nil && *commands == "":
		err = errors.New("no list of commands given (-i)")
	case err == nil && len(paths) != 2:
		err = fmt.Errorf("%d paths given, not IN and OUT", len(paths))
	}
	var script []byte
	if err == nil && *commands == "-" {
		script, err = io.ReadAll(stdin)
	} else if err == nil {
		script, err = os.ReadFile(*commands)
	}
	if err != nil {
		fmt.Fprintf(stderr, "crashkit minimize: %v\n%s\n", err, minimizeUsage)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	m, err := openMinimizer(paths[0])
	if err != nil {
		fmt.Fprintf(stderr, "crashkit minimize: %v\n", err)
		return exitOpen
	}
	defer m.p.Close()
	status := exitOK
	m.failed = func(line string, err error) error {
		err = fmt.Errorf("%s: %w", line, err)
		if !*keepGoing {
			return err
		}
		status = exitFailed
		fmt.Fprintf(stderr, "crashkit minimize: %s\n", command.Printable(err.Error()))
		return nil
	}
	if err = m.run(ctx, script); err == nil {
		var st dump.WriteStats
		if st, err = m.write(ctx, paths[1]); err == nil {
			fmt.Fprintf(stdout, "%s: %d pages (%d of them zero), %d bytes\n", paths[1], st.Stored, st.Zero, st.Bytes)
		}
	}
	if err != nil {
		fmt.Fprintf(stderr, "crashkit minimize: %s\n", command.Printable(err.Error()))
		return exitFailed
	}
	return status
}

// parseMixed parses flags that may stand before, between and behind the paths.
func parseMixed(fs *flag.FlagSet, args []string) (paths []string, err error) {
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		if fs.NArg() == 0 {
			return paths, nil
		}
		paths = append(paths, fs.Arg(0))
		args = fs.Args()[1:]
	}
}

// minimizer is a dump whose pages that are read are remembered.
type minimizer struct {
	p      *crashkit.Program
	path   string
	cfg    dump.WriterConfig // of a copy, made before anything was recorded
	failed func(line string, err error) error

	mu      sync.Mutex
	touched map[addr.PFN]bool
}

func openMinimizer(path string) (*minimizer, error) {
	img, err := dump.Open(path)
	if err != nil {
		return nil, err
	}
	m := &minimizer{path: path, cfg: dump.ConfigOf(img), touched: make(map[addr.PFN]bool)}
	img.Record(func(pfn addr.PFN) {
		m.mu.Lock()
		m.touched[pfn] = true
		m.mu.Unlock()
	})
	if m.p, err = crashkit.New(img); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), img.Close())
	}
	if _, ok := m.p.Info.Symbol("kallsyms_names"); !ok {
		err = m.forgetSearch()
	}
	if err != nil {
		return nil, errors.Join(err, img.Close())
	}
	return m, nil
}

// forgetSearch keeps of what opening the dump read only the tables that the
// search of the kernel's image found: the image itself is a hundred times that.
func (m *minimizer) forgetSearch() error {
	clear(m.touched)
	syms := m.p.Syms
	start, ok1 := syms.Lookup("_stext")
	end, ok2 := syms.Lookup("_end")
	if !ok1 || !ok2 {
		return nil // nothing was found
	}
	// Translations are remembered, so that reading does not walk the page tables
	// a second time.
	pager := m.p.Pager()
	for v := start.Addr; v < end.Addr; v += 4096 {
		_, _ = pager.Translate(v) // holes in the image are no concern here
	}
	// The markers stand between the names and the tokens. The last table ends
	// with the tokens' index, the offsets or the addresses of symbols.
	t := m.p.Kallsyms
	first, last := t.Names, t.TokenIndex+512
	n := addr.Virt(len(syms.All()))
	for _, part := range []struct{ at, size addr.Virt }{
		{t.NumSyms, 8}, {t.TokenTable, 1}, {t.Offsets, 4 * n}, {t.Addresses, 8 * n}, {t.RelativeBase, 8},
	} {
		if part.at != 0 {
			first, last = min(first, part.at), max(last, part.at+part.size)
		}
	}
	if err := m.read(first, last); err != nil {
		return fmt.Errorf("read kallsyms: %w", err)
	}
	btf, ok1 := syms.Lookup("__start_BTF")
	btfEnd, ok2 := syms.Lookup("__stop_BTF")
	if ok1 && ok2 {
		if err := m.read(btf.Addr, btfEnd.Addr); err != nil {
			return fmt.Errorf("read BTF: %w", err)
		}
	}
	return nil
}

// maxTables bounds the tables that are read to be kept, in bytes.
const maxTables = 64 << 20

func (m *minimizer) read(from, till addr.Virt) error {
	if till < from || till-from > maxTables {
		return fmt.Errorf("from %v to %v: not a sensible size", from, till)
	}
	return m.p.Read(from, make([]byte, till-from))
}

// run runs the commands and reads the kernel stacks of all tasks.
func (m *minimizer) run(ctx context.Context, script []byte) error {
	env := command.NewEnv(m.p, m.path)
	sc := bufio.NewScanner(bytes.NewReader(script))
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := m.command(ctx, env, line); err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil {
		return err
	}
	tasks, err := kernel.Tasks(m.p)
	if err != nil {
		if err := m.failed("tasks", err); err != nil {
			return err
		}
	}
	for _, t := range tasks {
		// What cannot be read, such as the stack of a task that is dead and
		// about to go, cannot be read in the copy either.
		_ = m.p.Read(t.Stack, make([]byte, 16<<10)) // THREAD_SIZE of x86-64 without KASAN
		_ = m.answer(ctx, env, fmt.Sprintf("bt %x", uint64(t.Addr)))
	}
	return ctx.Err()
}

func (m *minimizer) command(ctx context.Context, env *command.Env, line string) error {
	if err := m.answer(ctx, env, line); err != nil {
		return m.failed(line, err)
	}
	return nil
}

func (m *minimizer) answer(ctx context.Context, env *command.Env, line string) error {
	a := command.Run(ctx, env, line)
	if a.Result != nil {
		a.Result.WriteText(command.NewText(io.Discard)) // some answers are read as they are written
	}
	return a.Err
}

func (m *minimizer) write(ctx context.Context, to string) (st dump.WriteStats, err error) {
	touched := m.touched
	m.touched = make(map[addr.PFN]bool) // of the copy
	there := m.cfg.Keep
	m.cfg.Keep = func(pfn addr.PFN) bool { return touched[pfn] && there(pfn) }
	m.cfg.Compression = dump.Zstd
	m.cfg.DumpLevel = 31
	err = createFile([]string{m.path}, to, func(f *os.File) (err error) {
		st, err = dump.Write(ctx, f, m.cfg, m.p.Image)
		return err
	})
	return st, err
}
