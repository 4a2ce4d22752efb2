package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/kernel"
)

func foreachCommand() *Command {
	return &Command{
		Name:     "foreach",
		Summary:  "run a command on many tasks",
		Operands: "[user|kernel|gleader|active|STATE|PID|TASK|COMMAND]… bt|ps [FLAG]…",
		Min:      1,
		Max:      -1,
		raw:      true,
		Help: `Without choice takes every thread. Several PIDs, addresses or names take the tasks that have one of them, and several states ` +
			`those in one of them; these and user, kernel, gleader (leaders of thread groups) and active (running on a CPU) all have to fit. ` +
			`STATE is one of those that ps shows: RU, IN, UN, ID, ZO… A name that means something else here is written with a backslash, \user, and one ` +
			`with blanks is quoted. The flags after bt or ps are that command's own.`,
		Examples: []string{"foreach active bt", "foreach IN user bt -s", "foreach UN RU ps"},
		run:      foreach,
	}
}

// taskChoice is which tasks foreach takes.
type taskChoice struct {
	is     []func(kernel.Task) bool // user, kernel, …: all have to hold
	states []string
	named  map[addr.Virt]bool // task_struct of those that were named; nil if no word is a name
}

// taskKinds are the words that stand for a kind of task.
var taskKinds = map[string]func(kernel.Task) bool{
	"user":    func(t kernel.Task) bool { return !t.Kthread && !t.Idle },
	"kernel":  func(t kernel.Task) bool { return t.Kthread || t.Idle },
	"gleader": func(t kernel.Task) bool { return t.PID == t.TGID },
	"active":  func(t kernel.Task) bool { return t.Running },
}

// add takes one word of the command line. The error says that it is of no task.
func (c *taskChoice) add(all []kernel.Task, word string) error {
	name, quoted := strings.CutPrefix(word, `\`)
	if !quoted {
		if is, ok := taskKinds[word]; ok {
			c.is = append(c.is, is)
			return nil
		}
		if kernel.IsTaskState(word) {
			c.states = append(c.states, word)
			return nil
		}
	}
	if c.named == nil {
		c.named = make(map[addr.Virt]bool)
	}
	found := findTasks(all, name)
	for _, t := range found {
		c.named[t.Addr] = true
	}
	if len(found) == 0 {
		return fmt.Errorf("no task has the PID, the address or the name %s", name)
	}
	return nil
}

// of returns the tasks of all that were chosen, in their order.
func (c *taskChoice) of(all []kernel.Task) []kernel.Task {
	var chosen []kernel.Task
	for _, t := range all {
		if c.named != nil && !c.named[t.Addr] || len(c.states) > 0 && !slices.Contains(c.states, t.State) ||
			slices.ContainsFunc(c.is, func(is func(kernel.Task) bool) bool { return !is(t) }) {
			continue
		}
		chosen = append(chosen, t)
	}
	return chosen
}

func foreach(ctx context.Context, env *Env, args *Args) (Result, error) {
	i := slices.IndexFunc(args.Operands, func(word string) bool { return eachCommand(word) != nil })
	if i < 0 {
		return nil, args.usage("no command that runs on tasks")
	}
	cmd := eachCommand(args.Operands[i])
	inner, err := cmd.parse(args.Operands[i+1:])
	if err != nil {
		return nil, err
	}
	if len(inner.Operands) > 0 {
		return nil, args.usage("%q stands behind %s: the tasks stand before it", inner.Operands[0], cmd.Name)
	}
	all, err := env.tasks()
	if len(all) == 0 {
		return nil, err
	}
	errs := []error{err}
	var choice taskChoice
	for _, word := range args.Operands[:i] {
		errs = append(errs, choice.add(all, word))
	}
	r, err := cmd.each(ctx, env, inner, choice.of(all))
	return r, errors.Join(append(errs, err)...)
}

// eachCommand returns the command of that name if it can run on each of many
// tasks, or else nil.
func eachCommand(name string) *Command {
	c, err := Lookup(name)
	if err != nil || c.each == nil {
		return nil
	}
	return c
}
