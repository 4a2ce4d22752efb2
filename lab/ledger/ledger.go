// Package ledger records what happened in a run: run.json in the run's folder.
// It is written anew after every change, so that a run which is interrupted at any
// moment leaves a ledger that is true as far as the run came.
package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"crashlab/crashkit/check"
	"crashlab/crashkit/facts"
	"crashlab/lab/blame"
)

// File is the name of the ledger in the run's folder.
const File = "run.json"

// Run is everything about one run. Durations are nanoseconds in JSON.
type Run struct {
	ID       string    `json:"id"` // also the name of the run's folder
	Scenario string    `json:"scenario"`
	Title    string    `json:"title"` // the scenario's
	Started  time.Time `json:"started"`
	PID      int       `json:"pid"` // of the process that runs or ran it

	// Took is the time from Started to the end; 0 until then.
	Took time.Duration `json:"took_ns"`

	Kernel Kernel  `json:"kernel"`
	Host   Host    `json:"host"`
	Stages []Stage `json:"stages"`

	Verdict      Verdict       `json:"verdict"`
	Failure      *Failure      `json:"failure,omitempty"` // unless Verdict is Passed or Running
	Expectations []Expectation `json:"expectations"`
	Facts        *facts.Facts  `json:"facts,omitempty"`

	// Console is the part of the guest's console around the crash, one line
	// each, as the guest wrote it.
	Console []string `json:"console,omitempty"`

	Artifacts []Artifact `json:"artifacts"`
	Replay    string     `json:"replay"`  // the command line that repeats this run
	Inspect   string     `json:"inspect"` // the command line that opens the dump; "" if there is none
}

// Kernel is the kernel that was crashed.
type Kernel struct {
	Spec    string `json:"spec"` // as asked for: "debian:6.1"
	Release string `json:"release"`
}

// Host is the machine that ran the guest.
type Host struct {
	OS       string `json:"os"`
	CPUs     int    `json:"cpus"`
	QEMU     string `json:"qemu"`      // version
	Accel    string `json:"accel"`     // "kvm" or "tcg"
	AccelWhy string `json:"accel_why"` // why that one
}

// State says how far a stage is.
type State string

// The states of a stage.
const (
	Started State = "started" // it runs, or the run was interrupted in it
	Done    State = "done"
	Failed  State = "failed"
)

// Stage is one step of the run.
type Stage struct {
	Name    string        `json:"name"`
	State   State         `json:"state"`
	Started time.Time     `json:"started"`
	Took    time.Duration `json:"took_ns"`
	Cached  bool          `json:"cached,omitempty"` // its result was there already
	Note    string        `json:"note,omitempty"`   // what came of it, in a few words
	Err     string        `json:"error,omitempty"`
}

// Verdict is what came of a run.
type Verdict string

// The verdicts.
const (
	Running Verdict = "running" // it runs, or was interrupted so hard that nobody could say so
	Passed  Verdict = "passed"
	NotMet  Verdict = "failed" // an expectation is not met
	Broken  Verdict = "error"  // there is no verdict on the expectations
)

// Failure is why the run did not pass.
type Failure struct {
	Party  blame.Party `json:"party"`
	Doing  string      `json:"doing"`
	Err    string      `json:"error"`
	Look   []string    `json:"look,omitempty"`
	Replay string      `json:"replay,omitempty"` // of the failing step
	Hint   string      `json:"hint,omitempty"`
}

// Expectation is the result of one expectation.
type Expectation struct {
	check.Expectation
	OK     bool   `json:"ok"`
	Wanted string `json:"wanted,omitempty"`
	Found  string `json:"found,omitempty"`
	Err    string `json:"error,omitempty"` // why it could not be evaluated
}

// Artifact is a file in the run's folder.
type Artifact struct {
	Path string `json:"path"` // relative to the run's folder
	What string `json:"what"` // in a few words
	Size int64  `json:"size"` // in bytes
}

// Expectations converts the results of a suite.
func Expectations(results []check.Result) []Expectation {
	list := make([]Expectation, len(results))
	for i, r := range results {
		list[i] = Expectation{Expectation: r.Expectation, OK: r.OK, Wanted: r.Wanted, Found: r.Found}
		if r.Err != nil {
			list[i].Err = r.Err.Error()
		}
	}
	return list
}

// Judge returns nil if all expectations are met, and else a *blame.Error: on the
// analyzer if one could not be evaluated, on the scenario otherwise.
func Judge(list []Expectation) error {
	var look []string
	notMet, unknown := 0, 0
	for _, e := range list {
		switch {
		case e.Err != "":
			unknown++
			look = append(look, fmt.Sprintf("%s: %s", e.Name, e.Err))
		case !e.OK:
			notMet++
			look = append(look, fmt.Sprintf("%s: wanted %s, found %s", e.Name, e.Wanted, e.Found))
		}
	}
	var err *blame.Error
	switch {
	case unknown > 0:
		err = blame.New(blame.Analyzer, "assert", fmt.Errorf("%d of %d expectations could not be evaluated", unknown, len(list)))
	case notMet > 0:
		err = blame.New(blame.Scenario, "assert", fmt.Errorf("%d of %d expectations are not met", notMet, len(list)))
	default:
		return nil
	}
	err.Look = look
	return err
}

// Ledger is the record of a run in the making. It is safe for concurrent use.
type Ledger struct {
	path string
	now  func() time.Time

	mu  sync.Mutex
	run Run
}

// New starts the ledger of a run in dir, the run's folder, which exists.
func New(dir string, run Run) (*Ledger, error) { return newLedger(dir, run, time.Now) }

func newLedger(dir string, run Run, now func() time.Time) (*Ledger, error) {
	l := &Ledger{path: filepath.Join(dir, File), now: now, run: run}
	return l, l.Update(func(r *Run) {
		if r.Started.IsZero() {
			r.Started = now()
		}
		r.PID = os.Getpid()
		r.Verdict = Running
	})
}

// Update changes the record and writes it out. f must not keep r.
func (l *Ledger) Update(f func(r *Run)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.run)
	if err := write(l.path, &l.run); err != nil {
		return fmt.Errorf("write the ledger: %w", err)
	}
	return nil
}

// Begin records that a stage begins.
func (l *Ledger) Begin(stage string) error {
	return l.Update(func(r *Run) {
		r.Stages = append(r.Stages, Stage{Name: stage, State: Started, Started: l.now()})
	})
}

// End records how the last stage of that name that has begun ended. note may be
// empty.
func (l *Ledger) End(stage, note string, cached bool, err error) error {
	return l.Update(func(r *Run) {
		for i := range slices.Backward(r.Stages) {
			s := &r.Stages[i]
			if s.Name != stage || s.State != Started {
				continue
			}
			s.State, s.Took, s.Note, s.Cached = Done, l.now().Sub(s.Started), note, cached
			if err != nil {
				s.State, s.Err = Failed, err.Error()
			}
			return
		}
	})
}

// Finish records the end of the run: err is nil if it passed.
func (l *Ledger) Finish(err error) error {
	return l.Update(func(r *Run) {
		r.Took = l.now().Sub(r.Started)
		r.Verdict, r.Failure = Passed, nil
		if err == nil {
			return
		}
		r.Failure = NewFailure(err)
		r.Verdict = Broken
		if r.Failure.Party == blame.Scenario {
			r.Verdict = NotMet
		}
	})
}

// NewFailure returns what is known of err, which is not nil.
func NewFailure(err error) *Failure {
	b := blame.Of(err)
	f := &Failure{Party: b.Party, Doing: b.Doing, Err: err.Error(), Look: b.Look, Replay: b.Replay, Hint: b.Hint}
	if b.Err != nil {
		f.Err = b.Err.Error()
	}
	return f
}

// Run returns the record as it is now. Its slices must not be changed.
func (l *Ledger) Run() Run {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.run
	r.Stages = slices.Clone(r.Stages)
	r.Artifacts = slices.Clone(r.Artifacts)
	return r
}

// Read returns the record in dir, the folder of a run.
func Read(dir string) (*Run, error) {
	path := filepath.Join(dir, File)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	r := new(Run)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return r, nil
}

// write replaces the file as a whole or not at all.
func write(path string, run *Run) (err error) {
	data, err := json.MarshalIndent(run, "", "\t")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), File+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(append(data, '\n')); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return f.Close()
}
