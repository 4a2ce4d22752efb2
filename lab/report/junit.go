package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"crashlab/lab/blame"
	"crashlab/lab/ledger"
)

// The elements of a JUnit file, as far as CI systems read it.
type (
	junitSuite struct {
		XMLName   xml.Name        `xml:"testsuite"`
		Name      string          `xml:"name,attr"`
		Tests     int             `xml:"tests,attr"`
		Failures  int             `xml:"failures,attr"`
		Errors    int             `xml:"errors,attr"`
		Time      string          `xml:"time,attr"`
		Timestamp string          `xml:"timestamp,attr"`
		Props     []junitProperty `xml:"properties>property"`
		Cases     []junitCase     `xml:"testcase"`
		Out       string          `xml:"system-out,omitempty"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Time    string        `xml:"time,attr"`
		File    string        `xml:"file,attr,omitempty"`
		Line    int           `xml:"line,attr,omitempty"`
		Failure *junitProblem `xml:"failure"`
		Error   *junitProblem `xml:"error"`
	}
	junitProblem struct {
		Type    string `xml:"type,attr"` // the party that is to blame
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// JUnit writes the run as a test suite: a case for each stage and for each
// expectation. What the scenario is to blame for, an expectation that is not met, is a
// failure; everything else is an error, since it says nothing about the crash.
func JUnit(w io.Writer, run *ledger.Run) error {
	s := junitSuite{
		Name:      "crashlab." + run.Scenario,
		Time:      junitTime(run.Took),
		Timestamp: run.Started.UTC().Format("2006-01-02T15:04:05"),
		Props: []junitProperty{
			{"run", run.ID}, {"verdict", string(run.Verdict)},
			{"kernel", run.Kernel.Spec}, {"release", run.Kernel.Release},
			{"accel", run.Host.Accel}, {"qemu", run.Host.QEMU},
		},
	}
	class := "crashlab." + run.Scenario
	accounted := run.Failure == nil
	for _, st := range finished(run) {
		c := junitCase{Class: class + ".stage", Name: st.Name, Time: junitTime(st.Took)}
		switch {
		case st.State == ledger.Failed && run.Failure != nil && run.Failure.Party == blame.Scenario:
			accounted = true // by the expectations, below
		case st.State == ledger.Failed:
			c.Error = problemOf(run.Failure, st.Err)
			accounted = true
		case st.State == ledger.Started:
			c.Error = &junitProblem{Type: blame.Infrastructure.String(), Message: "interrupted in this stage"}
		}
		s.Cases = append(s.Cases, c)
	}
	for _, e := range run.Expectations {
		c := junitCase{Class: class, Name: e.Name, Time: junitTime(0), File: e.File, Line: e.Line}
		switch {
		case e.Err != "":
			c.Error = &junitProblem{Type: blame.Analyzer.String(), Message: e.Err, Text: e.Expr}
			accounted = accounted || run.Failure.Party == blame.Analyzer
		case !e.OK:
			c.Failure = &junitProblem{
				Type:    blame.Scenario.String(),
				Message: fmt.Sprintf("wanted %s, found %s", e.Wanted, e.Found),
				Text:    fmt.Sprintf("expression: %s\nwanted:     %s\nfound:      %s\n", e.Expr, e.Wanted, e.Found),
			}
			accounted = accounted || run.Failure.Party == blame.Scenario
		}
		s.Cases = append(s.Cases, c)
	}
	if !accounted {
		s.Cases = append(s.Cases, junitCase{Class: class, Name: "run", Time: junitTime(run.Took), Error: problemOf(run.Failure, run.Failure.Err)})
	}
	s.Tests = len(s.Cases)
	for _, c := range s.Cases {
		if c.Failure != nil {
			s.Failures++
		}
		if c.Error != nil {
			s.Errors++
		}
	}
	if run.Replay != "" {
		s.Out = "replay: " + run.Replay
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(s); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// problemOf describes f; message is used where there is none.
func problemOf(f *ledger.Failure, message string) *junitProblem {
	if f == nil {
		return &junitProblem{Type: blame.Infrastructure.String(), Message: message}
	}
	var b strings.Builder
	for _, l := range f.Look {
		b.WriteString(l + "\n")
	}
	if f.Hint != "" {
		b.WriteString("hint: " + f.Hint + "\n")
	}
	if f.Replay != "" {
		b.WriteString("replay: " + f.Replay + "\n")
	}
	text := f.Err
	if f.Doing != "" {
		text = f.Doing + ": " + text
	}
	return &junitProblem{Type: f.Party.String(), Message: text, Text: b.String()}
}

func junitTime(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

// finished returns the stages of run, without one that has begun after the verdict:
// that is the one that writes this.
func finished(run *ledger.Run) []ledger.Stage {
	return slices.DeleteFunc(slices.Clone(run.Stages), func(s ledger.Stage) bool {
		return s.State == ledger.Started && run.Verdict != ledger.Running
	})
}
