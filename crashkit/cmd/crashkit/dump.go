package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/command"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/filter"
)

const dumpUsage = `usage: crashkit dump [-f FORMAT] [-d LEVEL] [-F] [--zero-excluded] [--vmcoreinfo FILE] [--ram RANGES|FILE] IN… OUT
       crashkit dump --mem-usage [--json] IN…
       crashkit dump --dump-dmesg IN [OUT]

Converts a dump to another format and leaves pages out. IN may be of any format
that crashkit reads, or all parts of a split dump; "-" as OUT is standard output.

  -f FORMAT     elf, zlib, lzo, snappy, zstd (if not said otherwise) or raw;
                all but elf are kdump-compressed. -E -c -l -p -z are -f elf,
                zlib, lzo, snappy and zstd, as with makedumpfile
  -d LEVEL      leave pages out, the sum of: 1 full of zeroes; 2 page cache
                without private data; 4 all page cache; 8 user memory; 16 free.
                In a kdump-compressed file zero pages share one place at any
                level and read as zeroes; in an ELF file 1 makes them holes
  -F            write a flattened stream, for pipes; not with elf
  --mem-usage   print what the pages are used for
  --dump-dmesg  write the kernel log
  --json        with --mem-usage: in JSON
  --zero-excluded, --vmcoreinfo FILE, --ram RANGES|FILE
                as without dump; pages that read as zeroes are stored as such

Without -d no page is left out that IN has. What pages are used for is read
from the dump, by its own types; a page is kept if that is in doubt.`

// dumpOptions are the command line of dump.
type dumpOptions struct {
	format    string
	level     filter.Level
	flat      bool
	memUsage  bool
	dumpDmesg bool
	json      bool
	open      dump.Options
	in        []string
	out       string
}

// dumpFormats are the formats of files to write.
var dumpFormats = map[string]dump.Compression{
	"raw": dump.Plain, "zlib": dump.Zlib, "lzo": dump.LZO, "snappy": dump.Snappy, "zstd": dump.Zstd,
}

func parseDumpArgs(args []string) (*dumpOptions, error) {
	o := &dumpOptions{format: "zstd"}
	fs := flag.NewFlagSet("dump", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&o.format, "f", o.format, "format")
	for short, format := range map[string]string{"E": "elf", "c": "zlib", "l": "lzo", "p": "snappy", "z": "zstd"} {
		fs.BoolFunc(short, "format "+format, func(string) error {
			o.format = format
			return nil
		})
	}
	fs.Func("d", "level", func(s string) error {
		n, err := strconv.ParseUint(s, 0, 8)
		if err != nil || n > uint64(filter.MaxLevel) {
			return fmt.Errorf("a level is from 0 to %d", filter.MaxLevel)
		}
		o.level = filter.Level(n)
		return nil
	})
	fs.BoolVar(&o.flat, "F", false, "flattened")
	fs.BoolVar(&o.memUsage, "mem-usage", false, "print what the pages are used for")
	fs.BoolVar(&o.dumpDmesg, "dump-dmesg", false, "write the kernel log")
	fs.BoolVar(&o.json, "json", false, "in JSON")
	openFlags(fs, &o.open)
	paths, err := parseMixed(fs, args)
	if err != nil {
		return nil, err
	}
	outs := 1 // how many of the paths are to be written
	switch _, known := dumpFormats[o.format]; {
	case o.memUsage && o.dumpDmesg:
		return nil, errors.New("--mem-usage and --dump-dmesg exclude each other")
	case o.memUsage:
		outs = 0
	case o.dumpDmesg:
		outs = min(1, max(0, len(paths)-1))
	case !known && o.format != "elf":
		return nil, fmt.Errorf("unknown format %q", o.format)
	case o.flat && o.format == "elf":
		return nil, errors.New("an ELF file cannot be flattened")
	}
	if len(paths) <= outs {
		return nil, fmt.Errorf("%d paths given", len(paths))
	}
	o.in, o.out = paths[:len(paths)-outs], "-"
	if outs > 0 {
		o.out = paths[len(paths)-1]
	}
	if o.out == "-" && !o.flat && !o.dumpDmesg && !o.memUsage {
		return nil, errors.New("standard output takes a flattened stream only (-F)")
	}
	return o, nil
}

// dumpMain is the subcommand dump.
func dumpMain(args []string, stdout, stderr io.Writer) int {
	o, err := parseDumpArgs(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stdout, dumpUsage)
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "crashkit dump: %v\n%s\n", err, dumpUsage)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	d := &dumper{dumpOptions: o, stdout: stdout, stderr: stderr}
	o.open.Notify = func(s string) { fmt.Fprintf(stderr, "crashkit dump: %s\n", command.Printable(s)) }
	if d.img, err = dump.OpenFiles(o.in, o.open); err == nil && d.needsProgram() {
		if d.p, err = crashkit.New(d.img); err != nil {
			err = errors.Join(fmt.Errorf("open %s: %w", strings.Join(o.in, " "), err), d.img.Close())
		}
	}
	if err != nil {
		fmt.Fprintf(stderr, "crashkit dump: %v\n", err)
		return exitOpen
	}
	defer d.img.Close()
	switch {
	case o.memUsage:
		err = d.printUsage()
	case o.dumpDmesg:
		err = d.writeLog(ctx)
	default:
		err = d.convert(ctx)
	}
	if err != nil {
		d.complain(err)
		return exitFailed
	}
	return exitOK
}

// dumper carries out dump.
type dumper struct {
	*dumpOptions
	stdout, stderr io.Writer
	img            *dump.Image
	p              *crashkit.Program // nil if not needed
}

func (d *dumper) complain(err error) {
	for _, p := range command.Problems(err) {
		fmt.Fprintf(d.stderr, "crashkit dump: %s\n", command.Printable(p))
	}
}

// needsProgram reports whether more is needed than the pages themselves.
func (o *dumpOptions) needsProgram() bool {
	return o.memUsage || o.dumpDmesg || o.level&^filter.ExcludeZero != 0
}

// classify tells what pages are used for, and says which it could not tell.
func (d *dumper) classify() (*filter.Map, error) {
	kinds, err := filter.Classify(d.p)
	if err != nil {
		return nil, err
	}
	if n, err := kinds.Unread(); n > 0 {
		d.complain(fmt.Errorf("%d pages are kept, as it is unknown what they are used for: %w", n, err))
	}
	return kinds, nil
}

func (d *dumper) convert(ctx context.Context) error {
	cfg := dump.ConfigOf(d.img)
	if d.open.ZeroExcluded {
		cfg.Keep, cfg.DumpLevel = func(addr.PFN) bool { return true }, 0
	}
	cfg.DumpLevel |= int(d.level)
	if d.needsProgram() {
		kinds, err := d.classify()
		if err != nil {
			return err
		}
		there := cfg.Keep
		cfg.Keep = func(pfn addr.PFN) bool { return !d.level.Excludes(kinds.Kind(pfn)) && there(pfn) }
	}
	var st dump.WriteStats
	err := d.output(func(f *os.File) (err error) {
		switch {
		case d.format == "elf":
			cfg.Sparse = d.level&filter.ExcludeZero != 0
			if cfg.Virt == nil {
				cfg.Virt = directMap(d.img)
			}
			st, err = dump.WriteELF(ctx, f, cfg, d.img)
		case d.flat:
			cfg.Compression = dumpFormats[d.format]
			var flat *dump.Flattener
			if flat, err = dump.NewFlattener(f); err == nil {
				if st, err = dump.Write(ctx, flat, cfg, d.img); err == nil {
					err = flat.Close()
				}
			}
		default:
			cfg.Compression = dumpFormats[d.format]
			st, err = dump.Write(ctx, f, cfg, d.img)
		}
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(d.stderr, "%s: %d of %d pages (%d of them zero), %d bytes\n", d.out, st.Stored, st.Pages, st.Zero, st.Bytes)
	return nil
}

// directMap returns where a kernel of x86-64 maps all memory; nil if the dump
// does not say.
func directMap(img *dump.Image) func(addr.Phys) addr.Virt {
	p, err := crashkit.New(img)
	if err != nil {
		return nil
	}
	base, err := p.ObjectAs("page_offset_base", "unsigned long").Ptr()
	if err != nil {
		return nil
	}
	return func(p addr.Phys) addr.Virt { return base + addr.Virt(p) }
}

// output calls write with the file OUT, or with standard output.
func (d *dumper) output(write func(*os.File) error) error {
	if d.out != "-" {
		return createFile(d.in, d.out, write)
	}
	f, ok := d.stdout.(*os.File)
	if !ok {
		return errors.New("standard output is no file")
	}
	return write(f)
}

// createFile makes a file that is no other name of one of those in from, which
// are being read. It is removed again if it is not finished.
func createFile(from []string, path string, write func(*os.File) error) error {
	for _, name := range from {
		a, err := os.Stat(name)
		if err != nil {
			continue
		}
		if b, err := os.Stat(path); err == nil && os.SameFile(a, b) {
			return fmt.Errorf("%s and %s are the same file", name, path)
		}
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = write(f)
	if err = errors.Join(err, f.Close()); err != nil {
		// A device or a pipe is no file of ours.
		if fi, serr := os.Lstat(path); serr == nil && fi.Mode().IsRegular() {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

func (d *dumper) writeLog(ctx context.Context) error {
	a := command.Run(ctx, command.NewEnv(d.p, strings.Join(d.in, " ")), "log")
	if a.Result == nil {
		return a.Err
	}
	err := d.output(func(f *os.File) error {
		t := command.NewText(f)
		a.Result.WriteText(t)
		return t.Flush()
	})
	return errors.Join(err, a.Err)
}

// pageUsage is a row of the table of --mem-usage.
type pageUsage struct {
	Kind     string `json:"kind"`
	Pages    uint64 `json:"pages"`
	Level    int    `json:"level"` // that leaves them out; 0 if none does
	Describe string `json:"description"`
}

// memUsage is the answer to --mem-usage.
type memUsage struct {
	PageSize int         `json:"page_size"`
	Pages    uint64      `json:"pages"`  // of memory
	Stored   uint64      `json:"stored"` // of these, in the dump
	Usage    []pageUsage `json:"usage"`  // of those stored
}

func (d *dumper) usage() (*memUsage, error) {
	kinds, err := d.classify()
	if err != nil {
		return nil, err
	}
	u := &memUsage{PageSize: d.img.PageSize()}
	zero, err := kinds.Zero(d.img)
	if err != nil {
		return nil, err
	}
	for _, r := range d.img.Ranges() {
		u.Pages += r.Size / uint64(u.PageSize)
	}
	u.Usage = []pageUsage{
		{"zero", zero, int(filter.ExcludeZero), "kernel pages full of zeroes"},
		{"cache", kinds.Count(filter.Cache), int(filter.ExcludeCache), "page cache without private data"},
		{"private cache", kinds.Count(filter.CachePrivate), int(filter.ExcludeCachePrivate), "page cache with private data"},
		{"user", kinds.Count(filter.User), int(filter.ExcludeUser), "anonymous and hugetlb pages of processes"},
		{"free", kinds.Count(filter.Free), int(filter.ExcludeFree), "free pages of the buddy allocator"},
		{"kernel", kinds.Count(filter.Kernel) + kinds.Count(filter.Unknown) - zero, 0, "kernel data, and all that is in doubt"},
	}
	for _, row := range u.Usage {
		u.Stored += row.Pages
	}
	return u, nil
}

func (d *dumper) printUsage() error {
	u, err := d.usage()
	if err != nil {
		return err
	}
	if d.json {
		return json.NewEncoder(d.stdout).Encode(u)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-14s %10s %6s  %s\n", "TYPE", "PAGES", "LEVEL", "DESCRIPTION")
	for _, row := range u.Usage {
		level := "-"
		if row.Level > 0 {
			level = strconv.Itoa(row.Level)
		}
		fmt.Fprintf(&b, "%-14s %10d %6s  %s\n", row.Kind, row.Pages, level, row.Describe)
	}
	fmt.Fprintf(&b, "%-14s %10d %6s  of %d pages of memory, of %d bytes each\n", "stored", u.Stored, "", u.Pages, u.PageSize)
	_, err = io.WriteString(d.stdout, b.String())
	return err
}
