package command

import (
	"context"
	"strings"
)

func helpCommand() *Command {
	return &Command{
		Name:     "help",
		Aliases:  []string{"?"},
		Summary:  "list the commands, or explain one",
		Operands: "[COMMAND]",
		Max:      1,
		Help:     "Without COMMAND lists all commands in a line each.",
		Examples: []string{"help quit"},
		run:      help,
	}
}

func quitCommand() *Command {
	return &Command{
		Name:    "quit",
		Aliases: []string{"exit", "q"},
		Summary: "end the session",
		Help:    "Ends the session. Commands that were to follow, from a file or further -c flags, do not run.",
		run:     func(context.Context, *Env, *Args) (Result, error) { return nil, ErrQuit },
	}
}

// helpResult explains commands.
type helpResult struct {
	Commands []commandHelp `json:"commands"`

	list bool
}

type commandHelp struct {
	Name     string     `json:"name"`
	Aliases  []string   `json:"aliases,omitempty"`
	Summary  string     `json:"summary"`
	Usage    string     `json:"usage"`
	Help     string     `json:"help"`
	Flags    []flagHelp `json:"flags,omitempty"`
	Examples []string   `json:"examples,omitempty"`
}

type flagHelp struct {
	Flag string `json:"flag"`
	Help string `json:"help"`
}

func (c *Command) help() commandHelp {
	h := commandHelp{
		Name: c.Name, Aliases: c.Aliases, Summary: c.Summary, Usage: c.Usage(), Help: c.Help, Examples: c.Examples,
	}
	for _, f := range c.Flags {
		h.Flags = append(h.Flags, flagHelp{f.String(), f.Help})
	}
	return h
}

func help(_ context.Context, _ *Env, args *Args) (Result, error) {
	if len(args.Operands) == 1 {
		c, err := Lookup(args.Operands[0])
		if err != nil {
			return nil, err
		}
		return &helpResult{Commands: []commandHelp{c.help()}}, nil
	}
	r := &helpResult{list: true}
	for _, c := range Table() {
		r.Commands = append(r.Commands, c.help())
	}
	return r, nil
}

// WriteText implements Result.
func (h *helpResult) WriteText(t *Text) {
	for _, c := range h.Commands {
		if h.list {
			t.Printf("%-8s %s\n", c.Name, c.Summary)
			continue
		}
		t.Printf("%s: %s\n\nusage: %s\n", c.Name, c.Summary, c.Usage)
		if len(c.Aliases) > 0 {
			t.Printf("also called: %s\n", strings.Join(c.Aliases, ", "))
		}
		for _, f := range c.Flags {
			t.Printf("  %-12s %s\n", f.Flag, f.Help)
		}
		t.String("\n")
		wrap(t, c.Help, 78)
		for i, e := range c.Examples {
			if i == 0 {
				t.String("\n")
			}
			t.Printf("example: %s\n", e)
		}
	}
}

// wrap writes text in lines of at most width columns.
func wrap(t *Text, text string, width int) {
	n := 0
	for w := range strings.FieldsSeq(text) {
		switch {
		case n == 0:
		case n+1+len(w) > width:
			t.String("\n")
			n = 0
		default:
			t.String(" ")
			n++
		}
		t.String(w)
		n += len(w)
	}
	t.String("\n")
}
