package command

import (
	"fmt"
	"strconv"
	"strings"
)

// Flag is an option of a command. One with a name of one letter or a number is
// written -x, another one --how. Letters may be joined, as in -rx.
type Flag struct {
	Name  string // without dashes
	Value string // what stands for its value in the usage; "" if it has none
	Help  string
}

func (f Flag) String() string {
	s := "-" + f.Name
	if !f.short() {
		s = "-" + s
	}
	if f.Value != "" {
		s += " " + f.Value
	}
	return s
}

func (f Flag) short() bool {
	_, err := strconv.Atoi(f.Name)
	return len(f.Name) == 1 || err == nil
}

// Args is a parsed command line.
type Args struct {
	Operands []string

	cmd   *Command
	flags map[string]string
}

// Has reports whether the flag was given.
func (a *Args) Has(flag string) bool {
	_, ok := a.flags[flag]
	return ok
}

// Value returns the value given to the flag.
func (a *Args) Value(flag string) (string, bool) {
	v, ok := a.flags[flag]
	return v, ok
}

// usage returns the error of a command line that the command does not take.
func (a *Args) usage(format string, args ...any) error {
	return &UsageError{a.cmd, fmt.Sprintf(format, args...)}
}

// parse sorts the words after the command's name into flags and operands, which
// may be mixed. After "--" all are operands.
func (c *Command) parse(words []string) (*Args, error) {
	a := &Args{cmd: c, flags: make(map[string]string)}
	for len(words) > 0 {
		w := words[0]
		words = words[1:]
		switch {
		case c.raw:
			a.Operands = append(a.Operands, w)
		case w == "--":
			a.Operands = append(a.Operands, words...)
			words = nil
		case len(w) < 2 || w[0] != '-':
			a.Operands = append(a.Operands, w)
		default:
			var err error
			if words, err = a.flag(w, words); err != nil {
				return nil, err
			}
		}
	}
	switch n := len(a.Operands); {
	case n < c.Min:
		return nil, a.usage("missing operand")
	case c.Max >= 0 && n > c.Max:
		return nil, a.usage("unexpected operand %q", a.Operands[c.Max])
	}
	return a, nil
}

// flag takes the flags in word w, whose value may be in the words after it. It
// returns those that are left.
func (a *Args) flag(w string, rest []string) ([]string, error) {
	take := func(name, joined string) (string, error) {
		for _, f := range a.cmd.Flags {
			switch {
			case f.Name != name:
			case f.Value == "":
				a.flags[name] = ""
				return joined, nil
			case joined != "":
				a.flags[name] = joined
				return "", nil
			case len(rest) == 0:
				return "", a.usage("%s needs a value", f)
			default:
				a.flags[name], rest = rest[0], rest[1:]
				return "", nil
			}
		}
		return "", a.usage("unknown flag %q", w)
	}
	if name, ok := strings.CutPrefix(w, "--"); ok {
		name, value, has := strings.Cut(name, "=")
		left, err := take(name, value)
		if err == nil && has && left != "" {
			err = a.usage("--%s takes no value", name)
		}
		return rest, err
	}
	if _, err := strconv.Atoi(w[1:]); err == nil { // a number is one flag
		_, err := take(w[1:], "")
		return rest, err
	}
	for letters := w[1:]; letters != ""; {
		left, err := take(letters[:1], letters[1:])
		if err != nil {
			return nil, err
		}
		letters = left
	}
	return rest, nil
}

// splitWords splits a line at white space. Text in single or double quotes is
// one word.
func splitWords(line string) ([]string, error) {
	var words []string
	var w strings.Builder
	started := false
	quote := rune(0)
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, started = r, true
		case quote == 0 && (r == ' ' || r == '\t' || r == '\n' || r == '\r'):
			if started {
				words = append(words, w.String())
				w.Reset()
			}
			started = false
		default:
			w.WriteRune(r)
			started = true
		}
	}
	if quote != 0 {
		return nil, &UsageError{Problem: fmt.Sprintf("the quote %c is not closed", quote)}
	}
	if started {
		words = append(words, w.String())
	}
	if len(words) == 0 {
		return nil, &UsageError{Problem: "no command"}
	}
	return words, nil
}
