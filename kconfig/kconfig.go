// Package kconfig reads the Linux kernel's .config files and says what a
// kernel that was configured so cannot do for the lab.
//
// The format is that of scripts/kconfig/confdata.c (Linux 6.1): one line per
// option, CONFIG_NAME=value or # CONFIG_NAME is not set. Option names are
// given without CONFIG_ throughout this package.
package kconfig

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
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
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	n := 0
	for sc.Scan() {
		n++
		line := strings.TrimSuffix(sc.Text(), "\r")
		name, value, ok := parseLine(line)
		if !ok {
			return nil, fmt.Errorf("%d: %q is not a line of a .config", n, line)
		}
		if name != "" {
			c.values[name] = value
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("%d: %w", n+1, err)
	}
	return c, nil
}

// parseLine returns an empty name for lines without an option.
func parseLine(line string) (name, value string, ok bool) {
	if s, cut := strings.CutPrefix(line, "# CONFIG_"); cut {
		if name, cut := strings.CutSuffix(s, " is not set"); cut {
			return name, "n", isName(name)
		}
	}
	if line == "" || line[0] == '#' {
		return "", "", true
	}
	s, cut := strings.CutPrefix(line, "CONFIG_")
	name, value, eq := strings.Cut(s, "=")
	if !cut || !eq || !isName(name) {
		return "", "", false
	}
	if strings.HasPrefix(value, `"`) {
		_, err := unquote(value)
		return name, value, err == nil
	}
	return name, value, value != ""
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
		if in[0] == '"' {
			return "", fmt.Errorf("%s has a quote inside", s)
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
