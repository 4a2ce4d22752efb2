package ui

import (
	"fmt"
	"strings"
	"unicode"
)

// palette puts text into colours, if it may.
type palette struct{ on bool }

func (p palette) sgr(code, s string) string {
	if !p.on || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p palette) bold(s string) string  { return p.sgr("1", s) }
func (p palette) dim(s string) string   { return p.sgr("2", s) }
func (p palette) red(s string) string   { return p.sgr("31", s) }
func (p palette) green(s string) string { return p.sgr("32", s) }
func (p palette) cyan(s string) string  { return p.sgr("36", s) }

// badge is text on a coloured ground.
func (p palette) badge(colour, s string) string { return p.sgr("1;97;"+colour, " "+s+" ") }

// clean makes text that came from a guest harmless: what is not printable,
// escape sequences above all, is shown as what it is.
func clean(s string) string {
	harmless := func(r rune) bool { return r != '\ufffd' && unicode.IsPrint(r) }
	if strings.IndexFunc(s, func(r rune) bool { return !harmless(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\t':
			b.WriteByte(' ')
		case r == '\n':
			b.WriteString("⏎")
		case harmless(r):
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, "\\x%02x", r)
		default:
			b.WriteString("·")
		}
	}
	return b.String()
}

// runeWidth is how many columns r takes.
func runeWidth(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case r >= 0x1100 && (r <= 0x115f || r >= 0x2e80 && r <= 0xa4cf || r >= 0xac00 && r <= 0xd7a3 ||
		r >= 0xf900 && r <= 0xfaff || r >= 0xfe30 && r <= 0xfe6f || r >= 0xff00 && r <= 0xff60 ||
		r >= 0xffe0 && r <= 0xffe6 || r >= 0x1f300 && r <= 0x1faff || r >= 0x20000 && r <= 0x3fffd):
		return 2
	}
	return 1
}

// columns is the width of s, which has no escape sequences.
func columns(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

// truncate shortens s to n columns.
func truncate(s string, n int) string {
	if columns(s) <= n {
		return s
	}
	at := 0
	for i, r := range s {
		if at += runeWidth(r); at > n-1 {
			return s[:i] + "…"
		}
	}
	return s
}

// pad fills s with blanks to n columns.
func pad(s string, n int) string { return s + strings.Repeat(" ", max(n-columns(s), 0)) }

// wrap breaks s into lines of at most n columns, at blanks where it can.
func wrap(s string, n int) []string {
	n = max(n, 8)
	var lines []string
	for columns(s) > n {
		at, cut, blank := 0, len(s), -1
		for i, r := range s {
			if r == ' ' {
				blank = i
			}
			if at += runeWidth(r); at > n {
				cut = i
				break
			}
		}
		if blank > 0 {
			cut = blank
		}
		lines = append(lines, s[:cut])
		s = strings.TrimLeft(s[cut:], " ")
	}
	return append(lines, s)
}
