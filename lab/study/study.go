// Package study renders what a measurement of kernels found: as a table for the
// terminal, as JSON, and as one HTML page with charts that read well in black
// and white too. It measures nothing itself.
package study

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Study is what was measured and what came out.
type Study struct {
	Name     string    `json:"name"` // of the files it is kept in
	Title    string    `json:"title"`
	Question string    `json:"question"`
	Answer   string    `json:"answer"` // from the numbers, in a sentence or two
	How      []string  `json:"how"`    // what was measured, how often and on what, a sentence each
	Charts   []Chart   `json:"charts"`
	Caveats  []string  `json:"caveats,omitempty"` // what the numbers do not say
	Made     time.Time `json:"made"`
}

// Chart is one quantity for each choice. All charts of a study have the same
// choices in the same order.
type Chart struct {
	Title  string  `json:"title"`
	Unit   string  `json:"unit"` // such as "ms"
	Points []Point `json:"points"`
}

// Point is one choice and what was measured of it.
type Point struct {
	Label  string    `json:"label"`
	Values []float64 `json:"values"`         // one for each repetition, in the order measured
	Note   string    `json:"note,omitempty"` // beside the number, or instead of it when there is none
}

// Median returns the middle value, or the mean of the two in the middle; ok is
// false if there is none.
func (p Point) Median() (v float64, ok bool) {
	if len(p.Values) == 0 {
		return 0, false
	}
	s := slices.Sorted(slices.Values(p.Values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2, true
}

// Range returns the least and the greatest value, 0 and 0 if there is none.
func (p Point) Range() (least, greatest float64) {
	if len(p.Values) == 0 {
		return 0, 0
	}
	return slices.Min(p.Values), slices.Max(p.Values)
}

// text returns the point for a table: "12.3 ms (11.9 to 14.0)".
func (p Point) text(unit string) string {
	v, ok := p.Median()
	if !ok {
		return p.Note
	}
	s := number(v) + " " + unit
	if lo, hi := p.Range(); number(lo) != number(hi) {
		s += fmt.Sprintf(" (%s to %s)", number(lo), number(hi))
	}
	if p.Note != "" {
		s += ", " + p.Note
	}
	return s
}

// number renders v with three digits that matter.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// WriteText writes the study for a terminal: the table, the answer and how it
// was measured.
func (s *Study) WriteText(w io.Writer) error {
	if err := s.check(); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range s.Charts {
		fmt.Fprintf(t, "\t%s", c.Title)
	}
	fmt.Fprintln(t)
	for i, p := range s.Charts[0].Points {
		fmt.Fprint(t, p.Label)
		for _, c := range s.Charts {
			fmt.Fprintf(t, "\t%s", c.Points[i].text(c.Unit))
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n\n%s\n", s.Answer, strings.Join(append(slices.Clone(s.How), s.Caveats...), "\n"))
	return err
}

// check reports charts that do not have the same choices.
func (s *Study) check() error {
	if len(s.Charts) == 0 {
		return fmt.Errorf("study %s: it has no chart", s.Name)
	}

	want := labels(s.Charts[0].Points)
	for _, c := range s.Charts {
		if got := labels(c.Points); !slices.Equal(got, want) {
			return fmt.Errorf("study %s: %q has %q, but %q has %q", s.Name, c.Title, got, s.Charts[0].Title, want)
		}
	}
	return nil
}

func labels(points []Point) []string {
	var all []string
	for _, p := range points {
		all = append(all, p.Label)
	}
	return all
}
