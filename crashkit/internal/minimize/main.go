// Minimize makes a test fixture of a crash dump: a kdump-compressed file with
// only those pages that a list of commands reads.
//
//	go run ./crashkit/internal/minimize -i COMMANDS -o OUT DUMP
//
// DUMP must be an ELF dump, unfiltered. COMMANDS is a file as of crashkit -i.
// Besides what they read, the kernel stack of every task is kept, and what
// unwinding it needs. Pages that were left out read as excluded.
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
	"strings"
	"sync"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/command"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/kernel"
)

func main() {
	in := flag.String("i", "", "file of commands")
	out := flag.String("o", "", "file to write")
	flag.Parse()
	if flag.NArg() != 1 || *in == "" || *out == "" {
		fmt.Fprintln(os.Stderr, "usage: minimize -i COMMANDS -o OUT DUMP")
		os.Exit(2)
	}
	if err := minimize(flag.Arg(0), *in, *out); err != nil {
		fmt.Fprintln(os.Stderr, "minimize:", err)
		os.Exit(1)
	}
}

// page is the size of a page of x86-64.
const page = 4096

// recorder is a file that remembers where it was read.
type recorder struct {
	io.ReaderAt

	mu      sync.Mutex
	touched map[int64]bool // by offset in pages
}

func (r *recorder) ReadAt(b []byte, off int64) (int, error) {
	r.mu.Lock()
	for at := off / page; at*page < off+int64(len(b)); at++ {
		r.touched[at] = true
	}
	r.mu.Unlock()
	return r.ReaderAt.ReadAt(b, off)
}

// pages returns the page frames that were read.
func (r *recorder) pages(segments []dump.Segment) map[addr.PFN]bool {
	pfns := make(map[addr.PFN]bool)
	for at := range r.touched {
		for _, s := range segments {
			// The page of the file may be parts of two page frames.
			for _, off := range []int64{at * page, at*page + page - 1} {
				if off >= s.Offset && uint64(off-s.Offset) < s.FileSize {
					pfns[addr.PFN((uint64(s.Phys)+uint64(off-s.Offset))/page)] = true
				}
			}
		}
	}
	return pfns
}

func minimize(from, commands, to string) error {
	script, err := os.ReadFile(commands)
	if err != nil {
		return err
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	rec := &recorder{ReaderAt: f, touched: make(map[int64]bool)}
	img, err := dump.NewImage(rec, st.Size())
	if err != nil {
		return err
	}
	p, err := crashkit.New(img)
	if err != nil {
		return err
	}
	defer p.Close()
	if img.Segments() == nil {
		return fmt.Errorf("%s is no ELF dump", from)
	}
	if err := errors.Join(p.Limits...); err != nil {
		return err
	}
	env := command.NewEnv(p, from)
	sc := bufio.NewScanner(bytes.NewReader(script))
	for sc.Scan() {
		if line := strings.TrimSpace(sc.Text()); line != "" && !strings.HasPrefix(line, "#") {
			if err := run(env, line); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(sc.Err(), readStacks(env)); err != nil {
		return err
	}
	return write(to, img, rec.pages(img.Segments()))
}

func run(env *command.Env, line string) error {
	a := command.Run(context.Background(), env, line)
	if a.Err != nil {
		return fmt.Errorf("%s: %w", line, a.Err)
	}
	return nil
}

// readStacks reads and unwinds the kernel stacks of all tasks.
func readStacks(env *command.Env) error {
	const size = 16 << 10 // THREAD_SIZE of x86-64 without KASAN
	tasks, err := kernel.Tasks(env.Program)
	if err != nil {
		return err
	}
	for _, t := range tasks {
		if err := env.Program.Read(t.Stack, make([]byte, size)); err != nil {
			return err
		}
		if err := run(env, fmt.Sprintf("bt %x", uint64(t.Addr))); err != nil {
			return err
		}
	}
	return nil
}

func write(to string, img *dump.Image, keep map[addr.PFN]bool) error {
	cfg := dump.ConfigOf(img)
	cfg.Compression = dump.Zstd
	cfg.DumpLevel = 31
	cfg.Keep = func(pfn addr.PFN) bool { return keep[pfn] }
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	stats, err := dump.Write(context.Background(), f, cfg, img)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	fmt.Printf("%s: %d pages (%d of them zero), %d bytes\n", to, stats.Stored, stats.Zero, stats.Bytes)
	return nil
}
