package report

import (
	"strings"

	"crashlab/crashkit/oops"
)

// Bounds of Excerpt, in lines.
const (
	excerptBefore = 12
	excerptAfter  = 4
	excerptMax    = 300
)

// Excerpt returns the lines of a console around the crash, for ledger.Run's Console;
// the last lines if the kernel said nothing about one.
func Excerpt(console string) []string {
	lines := strings.Split(strings.ReplaceAll(strings.TrimRight(console, "\r\n"), "\r\n", "\n"), "\n")
	from, to := max(len(lines)-40, 0), len(lines)
	if r, ok := oops.Last(console); ok {
		from, to = max(r.Start-excerptBefore, 0), min(r.End+excerptAfter, len(lines))
	}
	return lines[min(from, to):min(to, from+excerptMax)]
}
