// Package kconfig knows how a Linux kernel is configured: it reads and writes
// .config files, puts them together from fragments, and explains by the Kconfig
// files of a source tree why an option did not become what was asked for.
//
// The format of .config is that of scripts/kconfig/confdata.c (Linux 6.1): one
// line per option, CONFIG_NAME=value or # CONFIG_NAME is not set. Option names
// are given without CONFIG_ throughout this package.
package kconfig

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Tristate is the value of a bool or tristate option.
type Tristate byte

// The values, in the order in which kconfig compares them.
const (
	No     Tristate = iota // not set, or unknown to this kernel
	Module                 // =m
	Yes                    // =y: built in
)

func (t Tristate) String() string { return [...]string{"n", "m", "y"}[min(t, Yes)] }

// Config is a parsed .config. Its zero value has no options set.
type Config struct {
	values map[string]string // as written; options that are not set have "n"
}

// ErrNotSet is wrapped by the errors of Int and Str for options without a value.
var ErrNotSet = errors.New("is not set")

// ReadFile parses the file called name.
func ReadFile(name string) (*Config, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := Parse(f)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", name, err)
	}
	return c, nil
}

// Parse parses a .config. Of an option that is given twice the last value
// counts, as for the kernel. An error begins with the number of its line.
func Parse(r io.Reader) (*Config, error) {
	c := &Config{values: make(map[string]string)}
	err := scan(r, func(_ int, l line) error {
		if l.name != "" {
			c.values[l.name] = l.value
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// line is one line of a .config or of a fragment.
type line struct {
	name, value string // of an option; empty in other lines
	comment     string // what follows #, if it is a comment
}

// maxLine is the length of the longest line that is read, in bytes.
const maxLine = 1 << 20

// scan calls f for each line. It is all that knows the format: what is an error
// in a fragment is one in a .config. Errors begin with the number of the line.
func scan(r io.Reader, f func(number int, l line) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, maxLine)
	n := 0
	for sc.Scan() {
		n++
		l, ok := parseLine(sc.Text())
		if !ok {
			return fmt.Errorf("%d: %q is not a line of a .config", n, sc.Text())
		}
		if err := f(n, l); err != nil {
			return fmt.Errorf("%d: %w", n, err)
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("%d: %w", n+1, err)
	}
	return nil
}

// parseLine parses a line without its end. Like the kernel it takes anything
// that begins with "# CONFIG_NAME is not set" for that.
func parseLine(s string) (line, bool) {
	if rest, cut := strings.CutPrefix(s, "# CONFIG_"); cut {
		if name, tail, cut := strings.Cut(rest, " "); cut && strings.HasPrefix(tail, "is not set") {
			return line{name: name, value: "n"}, isName(name)
		}
	}
	if s == "" {
		return line{}, true
	}
	if s[0] == '#' {
		return line{comment: s[1:]}, true
	}
	s, cut := strings.CutPrefix(s, "CONFIG_")
	name, value, eq := strings.Cut(s, "=")
	if !cut || !eq || !isName(name) || !isValue(value) {
		return line{}, false
	}
	return line{name: name, value: value}, true
}

// isValue reports whether s can stand behind the = of a line: y, m, n, a
// number, or a string in quotes.
func isValue(s string) bool {
	switch s {
	case "y", "m", "n":
		return true
	}
	if strings.HasPrefix(s, `"`) {
		_, err := unquote(s)
		return err == nil
	}
	return isNumber(s)
}

// isNumber reports whether s is decimal, or hexadecimal with or without 0x.
func isNumber(s string) bool {
	s = strings.TrimPrefix(s, "-")
	if len(s) > 1 && s[0] == '0' && s[1]|0x20 == 'x' {
		s = s[2:]
	}
	for _, r := range []byte(s) {
		if !('0' <= r && r <= '9' || 'a' <= r|0x20 && r|0x20 <= 'f') {
			return false
		}
	}
	return s != ""
}

func isName(s string) bool {
	for _, r := range s {
		if !('A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '_') {
			return false
		}
	}
	return s != ""
}

// unquote undoes conf_write's quoting, which escapes only " and \.
func unquote(s string) (string, error) {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return "", fmt.Errorf("%s is not a quoted string", s)
	}
	var b strings.Builder
	for in := s[1 : len(s)-1]; in != ""; in = in[1:] {
		switch {
		case in[0] == '"':
			return "", fmt.Errorf("%s has a quote inside", s)
		case in[0] < ' ' && in[0] != '\t' || in[0] == 0x7f:
			return "", fmt.Errorf("%q has a control character", s)
		}
		if in[0] == '\\' {
			if in = in[1:]; in == "" {
				return "", fmt.Errorf("%s has no end", s)
			}
		}
		b.WriteByte(in[0])
	}
	return b.String(), nil
}

// State returns the value of a bool or tristate option; options that are
// absent, and those of another type, are No.
func (c *Config) State(name string) Tristate {
	switch c.values[name] {
	case "y":
		return Yes
	case "m":
		return Module
	}
	return No
}

// Str returns the value of a string option. The error wraps ErrNotSet when it
// has none.
func (c *Config) Str(name string) (string, error) {
	v, err := c.value(name)
	if err != nil {
		return "", err
	}
	s, err := unquote(v)
	if err != nil {
		return "", fmt.Errorf("CONFIG_%s: %w", name, err)
	}
	return s, nil
}

// Int returns the value of an int (decimal) or hex option. The error wraps
// ErrNotSet when it has none.
func (c *Config) Int(name string) (int64, error) {
	v, err := c.value(name)
	if err != nil {
		return 0, err
	}
	base := 10
	digits, neg := strings.CutPrefix(v, "-")
	if h, ok := strings.CutPrefix(strings.ToLower(digits), "0x"); ok {
		base, digits = 16, h
	}
	u, err := strconv.ParseUint(digits, base, 64)
	if err != nil {
		return 0, fmt.Errorf("CONFIG_%s=%s is not a number", name, v)
	}
	if neg {
		return -int64(u), nil
	}
	return int64(u), nil // hex options such as PAGE_OFFSET have the top bit set
}

func (c *Config) value(name string) (string, error) {
	v, ok := c.values[name]
	if !ok || v == "n" {
		return "", fmt.Errorf("CONFIG_%s %w", name, ErrNotSet)
	}
	return v, nil
}

// Value returns what stands behind the = of the option's line, a string in its
// quotes. Options that are not set, or absent, have the value n.
func (c *Config) Value(name string) string {
	if v, ok := c.values[name]; ok {
		return v
	}
	return "n"
}

// Set sets the option called name to a value as it is written in a .config. It
// reports whether both can stand there; if not, nothing is changed.
func (c *Config) Set(name, value string) bool {
	if !isName(name) || !isValue(value) {
		return false
	}
	if c.values == nil {
		c.values = make(map[string]string)
	}
	c.values[name] = value
	return true
}

// Names returns the names of all options that c mentions, in their order.
func (c *Config) Names() []string { return slices.Sorted(maps.Keys(c.values)) }

// Clone returns a copy of c.
func (c *Config) Clone() *Config { return &Config{values: maps.Clone(c.values)} }

// WriteTo writes c as a .config, the options in the order of their names.
func (c *Config) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	for _, name := range c.Names() {
		b.WriteString(Setting{Name: name, Value: c.values[name]}.Line())
		b.WriteByte('\n')
	}
	return b.WriteTo(w)
}

// Setting is an option with its value.
type Setting struct {
	Name  string
	Value string // as in a .config; n for one that is not set
}

// Line returns the setting as a line of a .config, without its end.
func (s Setting) Line() string {
	if s.Value == "n" {
		return "# CONFIG_" + s.Name + " is not set"
	}
	return "CONFIG_" + s.Name + "=" + s.Value
}
