// Crashkit analyzes crash dumps of Linux kernels from the dump alone: symbols,
// types and unwind tables are those that the crashed kernel carried.
//
//	crashkit [-c COMMAND]… [-i FILE] [--json] [--zero-excluded] [--vmcoreinfo FILE] [--ram RANGES|FILE] [--version] VMCORE… [VMLINUX]
//	crashkit dump [-f FORMAT] [-d LEVEL] IN… OUT
//	crashkit minimize -i COMMANDS IN OUT
//
// Without -c and -i it reads commands from a prompt, or from standard input if
// that is no terminal. "crashkit -c help VMCORE" lists the commands.
//
// VMCORE is one file, or all parts of a dump that makedumpfile split, in any
// order. With --zero-excluded, memory that was left out of the dump reads as
// zeroes, and the answers say so. --vmcoreinfo gives a dump the text that it lacks. --ram
// says what memory a raw image has: START-END,… or a file such as the guest's
// /proc/iomem; see [dump.ParseRAM].
//
// VMLINUX is the kernel's file with debug information, or a package that has it; see
// [debuginfo.New].
//
// Exit status: 0 all is well, 1 a command failed or could answer only in part,
// 2 wrong usage, 3 the dump cannot be opened or VMLINUX is not its kernel.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"

	"crashlab/crashkit"
	"crashlab/crashkit/command"
	"crashlab/crashkit/debuginfo"
	"crashlab/crashkit/dump"
)

// The exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitOpen   = 3
)

func main() {
	if os.Getenv("GOGC") == "" {
		// The symbols and types are read once and stay. Collecting while they
		// grow costs a third of the time to open a dump.
		debug.SetGCPercent(400)
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// options are the command line.
type options struct {
	sources []source // in the order given
	json    bool
	version bool
	dump    dump.Options
	paths   []string
}

// source is where commands come from: a -c or a -i.
type source struct {
	line string // of a -c
	file string // of a -i; "" for a -c
}

const usage = "usage: crashkit [-c COMMAND]… [-i FILE] [--json] [--zero-excluded] [--vmcoreinfo FILE] [--ram RANGES|FILE] [--version] VMCORE… [VMLINUX]"

func parseArgs(args []string) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("crashkit", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Func("c", "run this command", func(s string) error {
		o.sources = append(o.sources, source{line: s})
		return nil
	})
	fs.Func("i", "run the commands in this file", func(s string) error {
		if s == "" {
			return errors.New("no name")
		}
		o.sources = append(o.sources, source{file: s})
		return nil
	})
	fs.BoolVar(&o.json, "json", false, "answer in JSON, one object per command")
	openFlags(fs, &o.dump)
	fs.BoolVar(&o.version, "version", false, "print the version")
	for { // flags may stand behind the paths
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		if fs.NArg() == 0 {
			break
		}
		o.paths = append(o.paths, fs.Arg(0))
		args = fs.Args()[1:]
	}
	switch {
	case o.version:
	case len(o.paths) == 0:
		return nil, errors.New("no VMCORE given")
	}
	return o, nil
}

// openFlags adds the flags that say how to open a dump.
func openFlags(fs *flag.FlagSet, o *dump.Options) {
	fs.BoolVar(&o.ZeroExcluded, "zero-excluded", false, "read what was left out of the dump as zeroes")
	fs.Func("vmcoreinfo", "use the VMCOREINFO text in this file", func(s string) (err error) {
		o.VMCoreInfo, err = readSmall(s)
		return err
	})
	fs.Func("ram", "the dump is raw memory of these ranges, START-END,… or a file such as /proc/iomem", func(s string) (err error) {
		if _, err := os.Stat(s); err == nil {
			b, err := readSmall(s)
			if err != nil {
				return err
			}
			s = string(b)
		}
		o.RAM, err = dump.ParseRAM(s)
		return err
	})
}

// maxSmall bounds the size in bytes of a file that an option names.
const maxSmall = 1 << 20

// readSmall reads a file that is not empty.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) == 0:
		return nil, fmt.Errorf("%s is empty", path)
	case len(b) > maxSmall:
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxSmall)
	}
	return b, nil
}

// files tells the files of the dump from VMLINUX, which is "" if not given.
func (o *options) files() (dumps []string, vmlinux string, err error) {
	dumps = o.paths[:1:1]
	for _, path := range o.paths[1:] {
		switch {
		case dump.IsPart(path):
			dumps = append(dumps, path)
		case vmlinux != "":
			return nil, "", fmt.Errorf("unexpected argument %q", path)
		default:
			vmlinux = path
		}
	}
	return dumps, vmlinux, nil
}

// run is main without the process: it returns the exit status.
func run(args []string, stdin *os.File, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		switch args[0] { // a file of that name is ./dump
		case "dump":
			return dumpMain(args[1:], stdout, stderr)
		case "minimize":
			return minimizeMain(args[1:], stdin, stdout, stderr)
		}
	}
	o, err := parseArgs(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stdout, usage)
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "crashkit: %v\n%s\n", err, usage)
		return exitUsage
	case o.version:
		fmt.Fprintln(stdout, version())
		return exitOK
	}
	dumps, vmlinux, err := o.files()
	if err != nil {
		fmt.Fprintf(stderr, "crashkit: %v\n%s\n", err, usage)
		return exitUsage
	}
	o.dump.Notify = func(s string) { fmt.Fprintf(stderr, "crashkit: %s\n", command.Printable(s)) }
	p, err := crashkit.OpenFiles(dumps, o.dump)
	if err != nil {
		fmt.Fprintf(stderr, "crashkit: %v\n", err)
		return exitOpen
	}
	defer p.Close()
	debug := debuginfo.New(p, o.paths[0], vmlinux, o.dump.Notify)
	defer debug.Close()
	if vmlinux != "" {
		if err := debug.Check(); err != nil {
			fmt.Fprintf(stderr, "crashkit: %v\n", err)
			return exitOpen
		}
	}
	s := &session{
		env:    command.NewEnv(p, strings.Join(dumps, " ")),
		stdout: stdout,
		stderr: stderr,
		json:   o.json,
	}
	s.env.Debug = debug
	s.warn(debug.SupplyTypes())
	for _, err := range p.Limits {
		s.warn(err)
	}
	for _, problem := range p.Image.Info().Problems {
		s.warn(errors.New("the dump: " + problem))
	}
	switch {
	case len(o.sources) > 0:
		return s.runSources(o.sources, stdin)
	case isTerminal(stdin):
		return s.repl()
	}
	return s.runReader(stdin)
}

// session runs commands and shows their answers.
type session struct {
	env    *command.Env
	stdout io.Writer
	stderr io.Writer
	json   bool
	status int

	interactive bool // an interrupt ends the command, not the session
}

func (s *session) warn(err error) {
	for _, p := range command.Problems(err) {
		fmt.Fprintf(s.stderr, "crashkit: %s\n", command.Printable(p))
	}
}

// runSources runs the commands of -c and -i and returns the exit status.
func (s *session) runSources(sources []source, stdin io.Reader) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for _, src := range sources {
		var more bool
		switch src.file {
		case "":
			more = s.line(ctx, src.line)
		case "-":
			more = s.lines(ctx, stdin)
		default:
			f, err := os.Open(src.file)
			if err != nil {
				s.warn(err)
				return exitUsage
			}
			more = s.lines(ctx, f)
			f.Close()
		}
		if !more {
			break
		}
	}
	return s.status
}

// runReader runs the commands that r has, one in each line.
func (s *session) runReader(r io.Reader) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	s.lines(ctx, r)
	return s.status
}

// lines runs the commands that r has and reports whether the session goes on.
func (s *session) lines(ctx context.Context, r io.Reader) bool {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		if !s.line(ctx, sc.Text()) {
			return false
		}
	}
	if err := sc.Err(); err != nil {
		s.warn(fmt.Errorf("read commands: %w", err))
		s.status = exitFailed
	}
	return true
}

// line runs one command line, which may be blank or a comment. It reports
// whether the session goes on.
func (s *session) line(ctx context.Context, line string) bool {
	line = strings.TrimSpace(line)
	if line == "" || strings.HasPrefix(line, "#") {
		return true
	}
	if ctx.Err() != nil {
		s.status = exitFailed
		return false
	}
	a := command.Run(ctx, s.env, line)
	if errors.Is(a.Err, command.ErrQuit) {
		return false
	}
	err := s.show(ctx, a)
	switch {
	case ctx.Err() != nil:
		s.warn(errors.New("interrupted"))
		s.status = exitFailed
		return s.interactive
	case err != nil:
		s.warn(fmt.Errorf("write the answer: %w", err))
		s.status = exitFailed
		return false
	}
	if !s.json {
		for _, n := range a.Notes {
			fmt.Fprintf(s.stderr, "crashkit: %s: %s\n", a.Command, n)
		}
	}
	if a.Err != nil {
		s.status = exitFailed
		for _, p := range command.Problems(a.Err) {
			fmt.Fprintf(s.stderr, "crashkit: %s: %s\n", a.Command, command.Printable(p))
		}
	}
	return true
}

// writerFunc is an io.Writer.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// show writes an answer until ctx ends.
func (s *session) show(ctx context.Context, a *command.Answer) error {
	w := writerFunc(func(b []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return s.stdout.Write(b)
	})
	if s.json {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return enc.Encode(a)
	}
	out := command.NewText(w)
	if a.Result != nil {
		a.Result.WriteText(out)
	}
	return out.Flush()
}

// version names the program and what it was built from.
func version() string {
	v := "crashkit"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v += " " + info.Main.Version
	for _, set := range info.Settings {
		if set.Key == "vcs.revision" {
			v += " " + set.Value[:min(12, len(set.Value))]
		}
	}
	return v + " " + info.GoVersion
}
