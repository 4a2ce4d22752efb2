// Package command is crashkit's command language: commands named, and answering,
// as those of the crash utility do.
//
// A command takes facts from the packages below and returns them as a struct, a
// Result. Text is one rendering of it and JSON another, so that nothing has to
// be parsed out of the columns again. The table of commands is in table.go, and
// each command has a file of its own.
package command

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"crashlab/crashkit"
	"crashlab/crashkit/debuginfo"
	"crashlab/crashkit/kernel"
	"crashlab/crashkit/unwind"
)

// Command is one entry of the table.
type Command struct {
	Name     string
	Aliases  []string
	Summary  string // one line
	Operands string // as the usage shows them, such as "ADDRESS [COUNT]"
	Min, Max int    // how many operands there may be; Max < 0 for any number
	Flags    []Flag
	Help     string   // one paragraph
	Examples []string // command lines that mean something on any dump

	run func(context.Context, *Env, *Args) (Result, error)
	// each runs the command on these tasks, for foreach; nil if it is not about tasks.
	each func(context.Context, *Env, *Args, []kernel.Task) (Result, error)
	raw  bool // flags are operands: they are those of another command
}

// Result is what a command found out. It marshals to JSON as the facts it is.
type Result interface {
	// WriteText renders the result the way crash prints it.
	WriteText(*Text)
}

// Env is what commands run on. It must not be copied, and commands run on it
// one at a time.
type Env struct {
	Program *crashkit.Program
	Path    string // of the dump, as given

	// Debug is the debug information of the kernel; nil if there is none to ask.
	Debug *debuginfo.Source

	taskList []kernel.Task // read once
	taskErr  error
	unwind   *unwind.Unwinder
}

// NewEnv returns the environment for commands on the dump that p was opened from.
func NewEnv(p *crashkit.Program, path string) *Env {
	return &Env{Program: p, Path: path}
}

// ErrQuit is the error of the commands that end a session.
var ErrQuit = errors.New("quit")

// UsageError says that a command line is not of the command's form.
type UsageError struct {
	Command *Command // nil if there is no such command
	Problem string
}

func (e *UsageError) Error() string {
	if e.Command == nil {
		return e.Problem
	}
	return fmt.Sprintf("%s; usage: %s", e.Problem, e.Command.Usage())
}

// Lookup returns the command of that name or alias. Its error is a *UsageError
// that lists commands of similar names.
func Lookup(name string) (*Command, error) {
	var names []string
	for _, c := range Table() {
		for _, n := range append([]string{c.Name}, c.Aliases...) {
			if n == name {
				return c, nil
			}
			names = append(names, n)
		}
	}
	problem := fmt.Sprintf("unknown command %q", name)
	if near := nearest(name, names, 3); len(near) > 0 {
		problem += ": did you mean " + strings.Join(near, " or ") + "?"
	} else {
		problem += ` (try "help")`
	}
	return nil, &UsageError{Problem: problem}
}

// Usage returns the command's form in one line, such as
// "dis [-r] [-x] ADDRESS|SYMBOL [COUNT]".
func (c *Command) Usage() string {
	s := c.Name
	for _, f := range c.Flags {
		s += " [" + f.String() + "]"
	}
	if c.Operands != "" {
		s += " " + c.Operands
	}
	return s
}

// Answer is the outcome of one command line.
type Answer struct {
	Command string   `json:"command"`
	Args    []string `json:"args"`
	Result  Result   `json:"result"` // null if there is none
	// Partial says that Result is incomplete and Error says why.
	Partial bool   `json:"partial"`
	Error   string `json:"error"` // "" if all is well
	Err     error  `json:"-"`     // Error as an error, or nil
	// Notes are what has to be known to trust the answer, a line each.
	Notes []string `json:"notes,omitempty"`
}

// Run runs one command line, which must not be blank.
func Run(ctx context.Context, env *Env, line string) *Answer {
	words, err := splitWords(line)
	if err != nil {
		return &Answer{Command: line, Args: []string{}, Error: err.Error(), Err: err}
	}
	a := &Answer{Command: words[0], Args: words[1:]}
	a.Result, a.Err = run(ctx, env, words)
	if a.Err != nil {
		a.Error = a.Err.Error()
		a.Partial = a.Result != nil
	}
	if n := env.Program.Image.ZeroedReads(); n > 0 {
		// Not only this command's: it may stand on what an earlier one read.
		a.Partial = a.Result != nil
		a.Notes = append(a.Notes, fmt.Sprintf("memory that is not in the dump was read as zeroes, %d times so far", n))
	}
	return a
}

func run(ctx context.Context, env *Env, words []string) (Result, error) {
	c, err := Lookup(words[0])
	if err != nil {
		return nil, err
	}
	args, err := c.parse(words[1:])
	if err != nil {
		return nil, err
	}
	return c.run(ctx, env, args)
}

// Problems splits a command's error into the lines to show: one for each thing
// that went wrong.
func Problems(err error) []string {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []string{err.Error()}
	}
	if each := errors.Join(joined.Unwrap()...); each == nil || err.Error() != each.Error() {
		return []string{err.Error()} // one message about several
	}
	var all []string
	for _, e := range joined.Unwrap() {
		all = append(all, Problems(e)...)
	}
	return all
}
