package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/kernel"
)

func psCommand() *Command {
	return &Command{
		Name:     "ps",
		Summary:  "list tasks",
		Operands: "[PID|TASK|COMMAND]…",
		Max:      -1,
		Flags: []Flag{
			{"k", "", "only kernel threads"},
			{"u", "", "only user tasks"},
			{"G", "", "only the leaders of thread groups"},
			{"A", "", "only the tasks that were running on a CPU"},
			{"p", "", "the ancestors of each task"},
			{"c", "", "the children of each task"},
			{"S", "", "how many tasks are in each state"},
		},
		Help: "Shows each thread: PID, the PID of its parent, CPU, task_struct, state, share of memory, virtual and resident size " +
			"in kilobytes, and name; [name] has no user memory. > marks what was running on a CPU. PID is decimal, TASK hexadecimal.",
		Examples: []string{"ps -A", "ps -p 1", "ps -S"},
		run:      ps,
		each:     psEach,
	}
}

// tasks are threads of the dump.
type tasks struct {
	Tasks       []kernel.Task `json:"tasks"`
	MemoryBytes uint64        `json:"memory_bytes"` // that RSS is a share of

	// Related has with -p the ancestors of each task, outermost first and the
	// task itself last; with -c the task itself and then its children.
	Related [][]kernel.Task `json:"related,omitempty"`
	// States has with -S the number of tasks in each state.
	States map[string]int `json:"states,omitempty"`

	children bool
}

func ps(ctx context.Context, env *Env, args *Args) (Result, error) {
	all, err := env.tasks()
	if len(all) == 0 {
		return nil, err
	}
	errs := []error{err}
	chosen := all
	if len(args.Operands) > 0 {
		chosen = nil
		for _, o := range args.Operands {
			found := findTasks(all, o)
			if len(found) == 0 {
				errs = append(errs, fmt.Errorf("no task has the PID, the address or the name %s", o))
			}
			chosen = append(chosen, found...)
		}
	} else if args.Has("p") || args.Has("c") {
		current, err := env.current()
		if err != nil {
			return nil, err
		}
		chosen = []kernel.Task{current}
	}
	r, err := psEach(ctx, env, args, chosen)
	return r, errors.Join(append(errs, err)...)
}

// psEach lists those of the chosen tasks that the flags let through.
func psEach(_ context.Context, env *Env, args *Args, chosen []kernel.Task) (Result, error) {
	var errs []error
	var all []kernel.Task
	if args.Has("p") || args.Has("c") {
		all, _ = env.tasks() // the error is known by now: the tasks were chosen from them
	}
	r := &tasks{Tasks: []kernel.Task{}, children: args.Has("c")}
	for _, t := range chosen {
		switch {
		case args.Has("k") && !t.Kthread && !t.Idle,
			args.Has("u") && (t.Kthread || t.Idle),
			args.Has("G") && t.PID != t.TGID,
			args.Has("A") && !t.Running:
			continue
		}
		r.Tasks = append(r.Tasks, t)
		errs = append(errs, taskProblems(t)...)
	}
	if len(r.Tasks) == 0 {
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
		return r, nil
	}
	switch {
	case args.Has("p"):
		for _, t := range r.Tasks {
			r.Related = append(r.Related, ancestors(all, t))
		}
	case args.Has("c"):
		for _, t := range r.Tasks {
			r.Related = append(r.Related, append([]kernel.Task{t}, childrenOf(all, t)...))
		}
	case args.Has("S"):
		r.States = make(map[string]int)
		for _, t := range r.Tasks {
			r.States[t.State]++
		}
	default:
		sys := kernel.Sys(env.Program)
		r.MemoryBytes = sys.MemoryBytes
	}
	return r, errors.Join(errs...)
}

func taskProblems(t kernel.Task) []error {
	var errs []error
	for _, p := range t.Problems {
		errs = append(errs, fmt.Errorf("task %x (PID %d): %w", uint64(t.Addr), t.PID, p))
	}
	return errs
}

// tasks returns all threads of the dump, read once.
func (e *Env) tasks() ([]kernel.Task, error) {
	if e.taskList == nil {
		e.taskList, e.taskErr = kernel.Tasks(e.Program)
	}
	return e.taskList, e.taskErr
}

// current returns the task that commands are about when none is named: the one
// that brought the kernel down, or else what ran on the first CPU.
func (e *Env) current() (kernel.Task, error) {
	running, err := kernel.CurrentTasks(e.Program)
	if len(running) == 0 {
		if err == nil {
			err = errors.New("no CPU was online")
		}
		return kernel.Task{}, fmt.Errorf("find the task that crashed: %w", err)
	}
	cpu, _, _ := kernel.PanicCPU(e.Program) // unknown: the first CPU
	for _, t := range running {
		if t.CPU == cpu {
			return t, nil
		}
	}
	return running[0], nil
}

// findTasks returns the tasks that an operand names: by PID, else by the
// address of the task_struct, else by name.
func findTasks(all []kernel.Task, operand string) []kernel.Task {
	var found []kernel.Task
	match := func(is func(kernel.Task) bool) bool {
		for _, t := range all {
			if is(t) {
				found = append(found, t)
			}
		}
		return len(found) > 0
	}
	if pid, err := strconv.Atoi(operand); err == nil && match(func(t kernel.Task) bool { return t.PID == pid }) {
		return found
	}
	if v, err := strconv.ParseUint(strings.TrimPrefix(operand, "0x"), 16, 64); err == nil &&
		match(func(t kernel.Task) bool { return t.Addr == addr.Virt(v) }) {
		return found
	}
	match(func(t kernel.Task) bool { return t.Comm == operand })
	return found
}

// ancestors returns the line from the first task down to t.
func ancestors(all []kernel.Task, t kernel.Task) []kernel.Task {
	line := []kernel.Task{t}
	for t.PID != 0 && len(line) <= len(all) {
		i := slices.IndexFunc(all, func(p kernel.Task) bool { return p.PID == t.PPID && p.PID == p.TGID })
		if i < 0 {
			break
		}
		t = all[i]
		line = append(line, t)
	}
	slices.Reverse(line)
	return line
}

func childrenOf(all []kernel.Task, t kernel.Task) []kernel.Task {
	var found []kernel.Task
	for _, c := range all {
		if c.PPID == t.TGID && c.Addr != t.Addr && c.PID == c.TGID && !c.Idle && !(t.Idle && t.CPU != 0) {
			found = append(found, c)
		}
	}
	return found
}

// taskName is a task's name in the ps table.
func taskName(t kernel.Task) string {
	if t.Kthread || t.MM == 0 {
		return "[" + safe(t.Comm) + "]"
	}
	return safe(t.Comm)
}

// taskLine is the line that crash heads a task's answers with.
func taskLine(t kernel.Task) string {
	return fmt.Sprintf("PID: %-8d TASK: %-16x  CPU: %-4d COMMAND: \"%s\"", t.PID, uint64(t.Addr), t.CPU, safe(t.Comm))
}

// WriteText implements Result.
func (r *tasks) WriteText(t *Text) {
	switch {
	case r.Related != nil:
		for i, related := range r.Related {
			if i > 0 {
				t.String("\n")
			}
			for j, task := range related {
				indent := j
				if r.children {
					indent = min(2*j, 2)
				}
				t.String(strings.Repeat(" ", indent) + taskLine(task) + "\n")
			}
			if r.children && len(related) == 1 {
				t.String("  (no children)\n")
			}
		}
	case r.States != nil:
		states := make([]string, 0, len(r.States))
		for s := range r.States {
			states = append(states, s)
		}
		slices.SortFunc(states, func(a, b string) int {
			if n := r.States[b] - r.States[a]; n != 0 {
				return n
			}
			return strings.Compare(a, b)
		})
		for _, s := range states {
			t.Printf("  %s: %d\n", s, r.States[s])
		}
	default:
		t.String("      PID    PPID  CPU       TASK        ST  %MEM      VSZ      RSS  COMM\n")
		for _, task := range r.Tasks {
			active := ' '
			if task.Running {
				active = '>'
			}
			share := 0.0
			if r.MemoryBytes > 0 {
				share = 100 * float64(task.RSSBytes) / float64(r.MemoryBytes)
			}
			t.Printf("%c%8d %7d %3d  %-16x  %-2s %5.1f %8d %8d  %s\n", active, task.PID, task.PPID, task.CPU,
				uint64(task.Addr), task.State, share, task.VMBytes>>10, task.RSSBytes>>10, taskName(task))
		}
	}
}
