package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"
	"unicode"

	"crashlab/lab/ledger"
)

//go:embed report.html.tmpl
var page string

// HTML writes the run as one HTML page that needs nothing but itself: no
// script, no font, no network. Everything that came from a guest is escaped.
func HTML(w io.Writer, run *ledger.Run) error {
	t, err := template.New("report").Funcs(template.FuncMap{
		"text":    text,
		"hex":     func(n uint64) string { return fmt.Sprintf("%#x", n) },
		"address": func(n uint64) string { return fmt.Sprintf("%016x", n) },
		"seconds": seconds,
		"size":    func(n any) string { return size(n) },
		"join":    strings.Join,
	}).Parse(page)
	if err != nil {
		return fmt.Errorf("parse the page's template: %w", err)
	}
	return t.Execute(w, newView(run))
}

// text shows what is not printable as what it is, so that a guest's control and
// direction characters change nothing around them.
func text(s string) string {
	odd := func(r rune) bool {
		return r != '\n' && r != '\t' && (r == unicode.ReplacementChar || !unicode.IsPrint(r))
	}
	if strings.IndexFunc(s, odd) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !odd(r):
			b.WriteRune(r)
		case r == unicode.ReplacementChar:
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "‹%U›", r)
		}
	}
	return b.String()
}

// seconds renders a duration for people.
func seconds(d time.Duration) string {
	switch {
	case d >= time.Minute:
		d = d.Round(time.Second)
		return fmt.Sprintf("%d min %02d s", d/time.Minute, d%time.Minute/time.Second)
	case d >= 100*time.Millisecond:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%d ms", max(d, 0).Round(time.Millisecond)/time.Millisecond)
}

// size renders a number of bytes.
func size(n any) string {
	var bytes float64
	switch n := n.(type) {
	case int64:
		bytes = float64(n)
	case uint64:
		bytes = float64(n)
	}
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if bytes < 1024 {
			if unit == "B" || bytes >= 100 {
				return fmt.Sprintf("%.0f %s", bytes, unit)
			}
			return fmt.Sprintf("%.1f %s", bytes, unit)
		}
		bytes /= 1024
	}
	return fmt.Sprintf("%.1f TiB", bytes)
}
