// Package blame says whose fault a failure is. Every stage of a run returns
// its failures as an *Error, so that the exit code, the report and JUnit can
// tell a missing package from a broken kernel from a wrong expectation.
package blame

import (
	"errors"
	"fmt"
	"strings"
)

// Party is whose fault a failure is. Its value is the process's exit code.
type Party int

// The parties, with their exit codes.
const (
	Usage          Party = 2 // the command line or a settings file is wrong
	Infrastructure Party = 3 // host: no QEMU, no network, disk full, interrupted
	Kernel         Party = 4 // the build failed, the guest hung or died before the trigger, the capture kernel died
	Scenario       Party = 5 // an expectation was not met
	Analyzer       Party = 6 // crashkit could not read what it should
)

func (p Party) String() string {
	switch p {
	case Usage:
		return "usage"
	case Infrastructure:
		return "infrastructure"
	case Kernel:
		return "kernel"
	case Scenario:
		return "scenario"
	case Analyzer:
		return "analyzer"
	}
	return fmt.Sprintf("Party(%d)", int(p))
}

// MarshalText renders the party's name, for reports.
func (p Party) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (p *Party) UnmarshalText(b []byte) error {
	for _, q := range []Party{Usage, Infrastructure, Kernel, Scenario, Analyzer} {
		if q.String() == string(b) {
			*p = q
			return nil
		}
	}
	return fmt.Errorf("unknown party %q", b)
}

// Error is a failure with its culprit and what to do about it.
type Error struct {
	Party  Party
	Doing  string   // what was being done to what: "unpack linux-image-6.1.0-56-cloud-amd64"
	Err    error    // why it failed
	Look   []string // lines or files worth looking at, best first
	Replay string   // the command line that replays the failing step by hand; may be empty
	Hint   string   // what to type next; may be empty
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Doing)
	if e.Err != nil {
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// New returns an Error that blames party for err, which happened while doing.
func New(party Party, doing string, err error) *Error {
	return &Error{Party: party, Doing: doing, Err: err}
}

// WithHint returns e after setting what to type next.
func (e *Error) WithHint(format string, a ...any) *Error {
	e.Hint = fmt.Sprintf(format, a...)
	return e
}

// Of returns the outermost *Error in err's chain. An error without one is
// blamed on the infrastructure.
func Of(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Party: Infrastructure, Err: err}
}

// ExitCode returns 0 for nil and the culprit's code otherwise.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	return int(Of(err).Party)
}
