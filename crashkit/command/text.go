package command

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Text writes a result as text. The writer keeps the first error for Flush.
type Text struct {
	w *bufio.Writer
}

// NewText returns a Text that writes to w.
func NewText(w io.Writer) *Text { return &Text{bufio.NewWriterSize(w, 64<<10)} }

// Printf writes formatted text.
func (t *Text) Printf(format string, args ...any) { t.String(fmt.Sprintf(format, args...)) }

// String writes s, made Printable.
func (t *Text) String(s string) { t.w.WriteString(Printable(s)) }

// Err returns the first error of writing so far. What renders a great deal asks
// now and then whether to go on.
func (t *Text) Err() error {
	_, err := t.w.Write(nil)
	return err
}

// Flush writes what is buffered and returns the first error of all writing.
func (t *Text) Flush() error { return t.w.Flush() }

// Printable returns text with what a terminal would obey, or could not show,
// written as \xNN: control characters except for tabs and ends of lines, and
// bytes that are no UTF-8. Text from a dump may hold anything.
func Printable(s string) string { return visible(s, "\t\n") }

// safe is Printable for what must stay within its line.
func safe(s string) string { return visible(s, "\t") }

func visible(s, allowed string) string {
	bad := func(r rune) bool {
		return (r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError) && !strings.ContainsRune(allowed, r)
	}
	if strings.IndexFunc(s, bad) < 0 {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if bad(r) {
			for _, c := range []byte(s[:n]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}
