// Package gofuzz runs all fuzz targets of a module, several at a time: go test
// itself takes one target of one package.
package gofuzz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"crashlab/internal/execx"
)

// Target is a fuzz target.
type Target struct {
	Package string // its import path
	Name    string // of the function
}

func (t Target) String() string { return t.Package + "." + t.Name }

// List returns the fuzz targets of the module in dir, in the order of go list.
func List(ctx context.Context, dir string) ([]Target, error) {
	out, err := execx.Run(ctx, execx.Cmd{Argv: []string{"go", "test", "-list=^Fuzz", "./..."}, Dir: dir})
	if err != nil {
		return nil, fmt.Errorf("list the fuzz targets: %w", err)
	}
	return parseList(string(out)), nil
}

// parseList reads what go test -list prints: for each package the names of its
// targets, and then a line "ok", the package and the time.
func parseList(out string) []Target {
	var all []Target
	var names []string
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		switch {
		case len(f) == 1 && strings.HasPrefix(f[0], "Fuzz"):
			names = append(names, f[0])
		case len(f) > 1 && f[0] == "ok":
			for _, n := range names {
				all = append(all, Target{f[1], n})
			}
			names = nil
		}
	}
	return all
}

// ErrFound is wrapped by the error of Run when a target failed: the input that
// makes it fail is then in the package's testdata/fuzz.
var ErrFound = errors.New("fuzzing found a failure")

// Run fuzzes each target for d, n of them at a time, each on one processor. A
// line for each goes to out, and all that a failing one printed. A failing
// target does not end the others.
func Run(ctx context.Context, dir string, targets []Target, d time.Duration, n int, out io.Writer) error {
	todo := make(chan Target)
	var mu sync.Mutex // of out and failed
	var failed []string
	var workers sync.WaitGroup
	for range n {
		workers.Go(func() {
			for t := range todo {
				text, err := fuzz(ctx, dir, t, d)
				mu.Lock()
				if err == nil {
					fmt.Fprintf(out, "ok    %s  %s\n", t, lastProgress(text))
				} else {
					fmt.Fprintf(out, "%sFAIL  %s: %v\n", text, t, err)
					failed = append(failed, t.String())
				}
				mu.Unlock()
			}
		})
	}
	for _, t := range targets {
		select {
		case todo <- t:
		case <-ctx.Done():
		}
	}
	close(todo)
	workers.Wait()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case len(failed) > 0:
		return fmt.Errorf("%w in %s", ErrFound, strings.Join(failed, ", "))
	}
	return nil
}

// minimize bounds how long go test looks for a shorter input that does the same
// as a new one. Its default, a minute, leaves no time for anything else.
const minimize = time.Second

func fuzz(ctx context.Context, dir string, t Target, d time.Duration) (string, error) {
	var text bytes.Buffer
	_, err := execx.Run(ctx, execx.Cmd{
		Argv: []string{
			"go", "test", "-run=^$", "-fuzz=^" + t.Name + "$", "-fuzztime=" + d.String(),
			"-fuzzminimizetime=" + minimize.String(), "-parallel=1", "-timeout=" + (2*d + 10*time.Minute).String(), t.Package,
		},
		Dir: dir, Log: &text,
	})
	switch {
	case err == nil || endedByClock(text.String()):
		return text.String(), nil
	case stalled(ctx, dir, t, text.String()):
		return text.String() + "fuzz: elapsed: ended early, by a process that stalled or was killed: its input passes\n", nil
	}
	return text.String(), err
}

// stalled reports whether go test ended for a process that took more than 10
// seconds or was killed, and the input that it had passes when it is run again,
// each of three times. Then it was the machine's doing, and the input's file is
// removed.
func stalled(ctx context.Context, dir string, t Target, text string) bool {
	m := hung.FindStringSubmatch(text)
	if m == nil {
		return false
	}
	_, err := execx.Run(ctx, execx.Cmd{Argv: []string{"go", "test", "-count=3", "-timeout=1m", "-run=^" + m[1] + "$/^" + m[2] + "$", t.Package}, Dir: dir})
	if err != nil {
		return false
	}
	out, err := execx.Run(ctx, execx.Cmd{Argv: []string{"go", "list", "-f", "{{.Dir}}", t.Package}, Dir: dir})
	return err == nil && os.Remove(filepath.Join(strings.TrimSpace(string(out)), "testdata", "fuzz", m[1], m[2])) == nil
}

var hung = regexp.MustCompile(`fuzzing process hung or terminated unexpectedly[^\n]*\n +Failing input written to testdata/fuzz/(Fuzz\w+)/([0-9a-f]+)\n`)

// endedByClock reports whether all that go test complains of is that the time
// was over. Before Go 1.27 its coordinator may take its own deadline for a
// failure (go.dev/issue/75804); a real one writes the input that failed.
func endedByClock(text string) bool {
	return deadline.MatchString(text) && !strings.Contains(text, "Failing input written to") && !strings.Contains(text, "panic:")
}

var deadline = regexp.MustCompile(`(?m)^--- FAIL: Fuzz\w+ \([0-9.]+s\)\n +context deadline exceeded\nFAIL$`)

// lastProgress returns what go test last said of its progress.
func lastProgress(text string) string {
	last := ""
	for line := range strings.Lines(text) {
		if s, ok := strings.CutPrefix(line, "fuzz: elapsed: "); ok {
			last = strings.TrimSpace(s)
		}
	}
	return last
}
