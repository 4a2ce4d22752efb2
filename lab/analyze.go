package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"crashlab/crashkit"
	"crashlab/crashkit/debuginfo"
	"crashlab/crashkit/triage"
	"crashlab/lab/blame"
	"crashlab/lab/ledger"
	"crashlab/lab/report"
)

func (r *run) doAnalyze(ctx context.Context) (outcome, error) {
	const doing = "analyze the vmcore"
	path := filepath.Join(r.dir, vmcoreFile)
	replay := "go run ./crashkit/cmd/crashkit " + path
	fail := func(err error) error {
		e := blame.New(blame.Analyzer, doing, err)
		e.Replay = replay
		return e
	}
	p, err := crashkit.Open(path)
	if err != nil {
		return outcome{}, fail(err)
	}
	defer p.Close()
	// A kernel without BTF has its types in the file it was built to, if that is here.
	debug := debuginfo.New(p, path, r.kernel.VMLinux, nil)
	defer debug.Close()
	if err := debug.SupplyTypes(); err != nil && !errors.Is(err, debuginfo.ErrNone) {
		return outcome{}, fail(err)
	}
	f, err := triage.Facts(ctx, p, path, debug)
	if err != nil {
		return outcome{}, fail(err)
	}
	if err := r.ledger.Update(func(l *ledger.Run) { l.Facts = f }); err != nil {
		return outcome{}, blame.New(blame.Infrastructure, "write the run's ledger", err)
	}
	note := fmt.Sprintf("%d symbols, %d tasks, %d modules, %d log records", len(p.Syms.All()), len(f.Tasks), len(f.Modules), len(f.Records))
	if f.Dump.Partial {
		note += fmt.Sprintf("; partial: %s", strings.Join(f.Dump.Problems, "; "))
	}
	return outcome{note: note}, nil
}

func (r *run) doAssert(ctx context.Context) (outcome, error) {
	results := ledger.Expectations(r.scenario.Expect.Run(ctx, r.ledger.Run().Facts))
	if err := r.ledger.Update(func(l *ledger.Run) { l.Expectations = results }); err != nil {
		return outcome{}, blame.New(blame.Infrastructure, "write the run's ledger", err)
	}
	met := 0
	for _, e := range results {
		if e.OK {
			met++
		}
	}
	return outcome{note: fmt.Sprintf("%d of %d expectations met", met, len(results))}, ledger.Judge(results)
}

// report writes what people and machines read of the run.
func (r *run) report() (outcome, error) {
	console, err := os.ReadFile(filepath.Join(r.dir, consoleFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) { // it may have failed before there was a guest
		return outcome{}, blame.New(blame.Infrastructure, "read the guest's console", err)
	}
	err = r.ledger.Update(func(l *ledger.Run) {
		l.Console = report.Excerpt(string(console))
		l.Artifacts = r.artifacts()
	})
	if err != nil {
		return outcome{}, blame.New(blame.Infrastructure, "write the run's ledger", err)
	}
	run := r.ledger.Run()
	if err := report.Write(r.dir, &run); err != nil {
		return outcome{}, blame.New(blame.Infrastructure, "write the report", err)
	}
	return outcome{note: "report.html, report.json, junit.xml"}, nil
}

// artifacts lists what a run's folder has to offer.
func (r *run) artifacts() []ledger.Artifact {
	var all []ledger.Artifact
	for _, a := range []struct{ path, what string }{
		{ledger.File, "the record of the run"},
		{vmcoreFile, "the crashed kernel's memory, for crashkit, crash and drgn"},
		{consoleFile, "the guest's console"},
		{r.scenario.Module + ".ko", "the module, with the lines of its source"},
		{"build.log", "the module's build"},
		{truthDir, "the guest's own /proc, recorded before the crash"},
	} {
		if fi, err := os.Stat(filepath.Join(r.dir, a.path)); err == nil {
			all = append(all, ledger.Artifact{Path: a.path, What: a.what, Size: fi.Size()})
		}
	}
	return all
}
