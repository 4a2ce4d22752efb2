package command

import (
	"bufio"
	"fmt"
	"io"
)

// Text writes a result as text. The writer keeps the first error for Flush.
type Text struct {
	w *bufio.Writer
}

// NewText returns a Text that writes to w.
func NewText(w io.Writer) *Text { return &Text{bufio.NewWriterSize(w, 64<<10)} }

// Printf writes formatted text.
func (t *Text) Printf(format string, args ...any) {
	fmt.Fprintf(t.w, format, args...) // the writer keeps an error for Flush
}

// String writes s.
func (t *Text) String(s string) {
	t.w.WriteString(s) // the writer keeps an error for Flush
}

// Err returns the first error of writing so far. What renders a great deal asks
// now and then whether to go on.
func (t *Text) Err() error {
	_, err := t.w.Write(nil)
	return err
}

// Flush writes what is buffered and returns the first error of all writing.
func (t *Text) Flush() error { return t.w.Flush() }
