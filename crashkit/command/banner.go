package command

import (
	"strings"

	"crashlab/crashkit/kernel"
)

// banner is what a session begins with: the system, and the task that crashed.
type banner struct {
	*system
	Task *kernel.Task `json:"task,omitempty"`
}

// Banner describes the dump for the start of a session.
func (e *Env) Banner() (Result, error) {
	s, err := e.system()
	b := &banner{system: s}
	if t, terr := e.current(); terr == nil {
		b.Task = &t
	}
	return b, err
}

// WriteText implements Result.
func (b *banner) WriteText(t *Text) {
	b.system.WriteText(t)
	if b.Task == nil {
		return
	}
	t.Printf("         PID: %d\n", b.Task.PID)
	t.Printf("     COMMAND: \"%s\"\n", safe(b.Task.Comm))
	t.Printf("        TASK: %x\n", uint64(b.Task.Addr))
	t.Printf("         CPU: %d\n", b.Task.CPU)
	state := b.Task.State
	if b.Panic != "" {
		state += " (PANIC)"
	}
	t.Printf("       STATE: %s\n", state)
}

// maxCandidates bounds the completions of one word.
const maxCandidates = 500

// Complete returns what the last word of line may become, sorted as the tables
// are: a command first, then what the command's operands name. Head is the line
// before that word.
func (e *Env) Complete(line string) (head string, candidates []string) {
	i := strings.LastIndexAny(line, " \t") + 1
	head, word := line[:i], line[i:]
	add := func(s string) {
		if strings.HasPrefix(s, word) && len(candidates) < maxCandidates {
			candidates = append(candidates, s)
		}
	}
	words := strings.Fields(head)
	if len(words) == 0 || words[0] == "help" {
		for _, c := range Table() {
			add(c.Name)
		}
		return head, candidates
	}
	if word == "" {
		return head, nil // every symbol there is
	}
	c, err := Lookup(words[0])
	switch {
	case err != nil:
	case c.Name == "struct" && len(words) == 1:
		seen := make(map[string]bool)
		for _, n := range e.Program.Types.Names() {
			if !seen[n] {
				seen[n] = true
				add(n)
			}
		}
	case c.Name == "mod":
		mods, _ := e.Program.Modules() // without them, no completion
		for _, m := range mods {
			add(m.Name)
		}
	case strings.Contains(c.Operands, "SYMBOL"):
		for _, s := range e.Program.Syms.All() {
			add(s.Name)
		}
		mods, _ := e.Program.Modules()
		for _, m := range mods {
			for _, s := range m.Syms.All() {
				add(s.Name)
			}
		}
	}
	return head, candidates
}
