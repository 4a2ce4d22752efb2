package ledger

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/check"
	"crashlab/crashkit/facts"
	"crashlab/lab/blame"
)

// clock advances by one second each time it is asked.
func clock() func() time.Time {
	var mu sync.Mutex
	t := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		t = t.Add(time.Second)
		return t
	}
}

func read(t *testing.T, dir string) *Run {
	t.Helper()
	r, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestTruthful reads the file after each step, as one would after an interruption there.
func TestTruthful(t *testing.T) {
	dir := t.TempDir()
	l, err := newLedger(dir, Run{ID: "r1", Scenario: "nullderef"}, clock())
	if err != nil {
		t.Fatal(err)
	}
	if r := read(t, dir); r.Verdict != Running || len(r.Stages) != 0 || r.PID != os.Getpid() {
		t.Errorf("at the start: %+v", r)
	}
	step := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	step(l.Begin("kernel"))
	if r := read(t, dir); len(r.Stages) != 1 || r.Stages[0].State != Started || r.Stages[0].Took != 0 {
		t.Errorf("in the stage: %+v", r.Stages)
	}
	step(l.End("kernel", "6.1.0-56", true, nil))
	step(l.Begin("boot"))
	step(l.End("boot", "", false, errors.New("it hangs")))
	step(l.Update(func(r *Run) { r.Facts = &facts.Facts{Panic: facts.Panic{IP: 0xffffffffc0598011}} }))
	e := blame.New(blame.Kernel, "boot the guest", errors.New("it hangs"))
	e.Look, e.Replay = []string{"last line"}, "qemu -x"
	step(l.Finish(fmt.Errorf("run: %w", e)))

	r := read(t, dir)
	start := time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC)
	wantStages := []Stage{
		{Name: "kernel", State: Done, Started: start.Add(time.Second), Took: time.Second, Cached: true, Note: "6.1.0-56"},
		{Name: "boot", State: Failed, Started: start.Add(3 * time.Second), Took: time.Second, Err: "it hangs"},
	}
	if diff := cmp.Diff(wantStages, r.Stages); diff != "" {
		t.Errorf("stages (-want +got):\n%s", diff)
	}
	want := &Failure{Party: blame.Kernel, Doing: "boot the guest", Err: "it hangs", Look: []string{"last line"}, Replay: "qemu -x"}
	if diff := cmp.Diff(want, r.Failure); diff != "" {
		t.Errorf("failure (-want +got):\n%s", diff)
	}
	if r.Verdict != Broken || r.Took != 5*time.Second {
		t.Errorf("verdict = %v after %v; want %v after 5s", r.Verdict, r.Took, Broken)
	}
	if r.Facts.Panic.IP != 0xffffffffc0598011 {
		t.Errorf("IP = %#x; an address has lost bits", r.Facts.Panic.IP)
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("folder holds %v; want run.json alone", names)
	}
}

func TestFinish(t *testing.T) {
	for _, tt := range []struct {
		err   error
		want  Verdict
		party blame.Party
	}{
		{nil, Passed, 0},
		{blame.New(blame.Scenario, "assert", nil), NotMet, blame.Scenario},
		{blame.New(blame.Analyzer, "analyze", errors.New("x")), Broken, blame.Analyzer},
		{errors.New("disk full"), Broken, blame.Infrastructure},
	} {
		dir := t.TempDir()
		l, err := New(dir, Run{})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Finish(tt.err); err != nil {
			t.Fatal(err)
		}
		r := read(t, dir)
		var party blame.Party
		if r.Failure != nil {
			party = r.Failure.Party
		}
		if r.Verdict != tt.want || party != tt.party {
			t.Errorf("Finish(%v): %v, %v; want %v, %v", tt.err, r.Verdict, party, tt.want, tt.party)
		}
	}
}

func TestJudge(t *testing.T) {
	ok := check.Result{Expectation: check.Expectation{Name: "a"}, OK: true}
	bad := check.Result{Expectation: check.Expectation{Name: "b"}, Wanted: "x == 1", Found: "x = 2"}
	unknown := check.Result{Expectation: check.Expectation{Name: "c"}, Err: errors.New("no such key")}
	if err := Judge(Expectations([]check.Result{ok})); err != nil {
		t.Errorf("Judge = %v; want nil", err)
	}
	err := Judge(Expectations([]check.Result{ok, bad}))
	if b := blame.Of(err); b.Party != blame.Scenario || len(b.Look) != 1 || b.Look[0] != "b: wanted x == 1, found x = 2" {
		t.Errorf("Judge = %v, %q", err, b.Look)
	}
	err = Judge(Expectations([]check.Result{bad, unknown}))
	if b := blame.Of(err); b.Party != blame.Analyzer || !strings.Contains(err.Error(), "1 of 2 expectations could not be evaluated") {
		t.Errorf("Judge = %v", err)
	}
}

func TestUnwritable(t *testing.T) {
	dir := t.TempDir()
	l, err := New(dir, Run{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := l.Begin("boot"); err == nil {
		t.Error("Begin without a folder = nil; want an error")
	}
	if _, err := Read(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Read = %v; want ErrNotExist", err)
	}
}

func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	l, err := New(dir, Run{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			name := fmt.Sprint(i)
			if err := errors.Join(l.Begin(name), l.End(name, "", false, nil)); err != nil {
				t.Error(err)
			}
			_ = l.Run()
		})
	}
	wg.Wait()
	for _, s := range read(t, dir).Stages {
		if s.State != Done {
			t.Errorf("stage %s is %s; want done", s.Name, s.State)
		}
	}
}
