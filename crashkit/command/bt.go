package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/arch"
	"crashlab/crashkit/debuginfo"
	"crashlab/crashkit/kernel"
	"crashlab/crashkit/unwind"
)

func btCommand() *Command {
	return &Command{
		Name:     "bt",
		Summary:  "show the call stack of a task",
		Operands: "[PID|TASK]…",
		Max:      -1,
		Flags: []Flag{
			{"a", "", "of each CPU's current task"},
			{"c", "CPUS", "of the current task of these CPUs, such as 0,2-3"},
			{"l", "", "file and line of each frame, and the functions inlined there, by debug information"},
			{"s", "", "the offset in each function"},
			{"x", "", "offsets and values in hex"},
			{"how", "", "how each frame was found"},
			{"locals", "", "parameters and local variables of each frame, by debug information"},
		},
		Help: "Without operand shows the stack of the task that crashed, or of the first CPU's. The frames are found by the unwind " +
			"tables that the kernel and its modules carry, so that none is left over from an earlier call. A frame that had to be found " +
			"otherwise, and may be, is marked unreliable. After a frame's line come the registers that an exception saved there, and at the end those of user mode. " +
			"A variable without a value says why: it was optimized out, known only when the function was called, or in a register that was not saved. " +
			"In a kernel whose types are not known there are no tasks to choose from, only CPUs.",
		Examples: []string{"bt", "bt -s --how 1", "bt -a"},
		run:      bt,
		each:     btEach,
	}
}

// traces are stacks of tasks.
type traces struct {
	Traces []trace `json:"traces"`

	style traceStyle
}

type traceStyle struct{ offsets, hex, how bool }

func styleOf(args *Args) traceStyle {
	return traceStyle{args.Has("s") || args.Has("x"), args.Has("x"), args.Has("how")}
}

type trace struct {
	Task kernel.Task `json:"task"`
	unwind.Trace
	// Places has for each frame where its code comes from, innermost first.
	Places [][]debuginfo.Place `json:"places,omitempty"`
	// Locals has for each frame the variables of its functions, innermost first.
	Locals [][]functionLocals `json:"locals,omitempty"`
	// NoStack says that the task is dead, a zombie, and its stack given back.
	NoStack bool   `json:"no_stack,omitempty"`
	Error   string `json:"error,omitempty"` // why the end of the stack was not reached
}

func bt(ctx context.Context, env *Env, args *Args) (Result, error) {
	if env.Program.Types.IsEmpty() {
		return btCPUs(ctx, env, args)
	}
	chosen, err := btTasks(env, args)
	if err != nil && len(chosen) == 0 {
		return nil, err
	}
	r, berr := btEach(ctx, env, args, chosen)
	return r, errors.Join(err, berr)
}

// btEach unwinds the stacks of tasks.
func btEach(ctx context.Context, env *Env, args *Args, chosen []kernel.Task) (Result, error) {
	u, err := env.unwinder()
	errs := []error{err}
	r := &traces{Traces: []trace{}, style: styleOf(args)}
	for _, task := range chosen {
		if err := ctx.Err(); err != nil {
			return r, errors.Join(append(errs, err)...)
		}
		t := trace{Task: task, Trace: unwind.Trace{Frames: []unwind.Frame{}}}
		if u != nil {
			t.Trace, err = u.Task(task.Addr)
			switch {
			case errors.Is(err, unwind.ErrNoStack):
				t.NoStack = true
			case err != nil:
				t.Error = err.Error()
				errs = append(errs, fmt.Errorf("PID %d: %w", task.PID, err))
			}
		}
		if args.Has("l") {
			if t.Places, err = env.framePlaces(t.Frames); err != nil {
				errs = append(errs, fmt.Errorf("PID %d: %w", task.PID, err))
			}
		}
		if args.Has("locals") {
			if t.Locals, err = env.locals(t.Trace, args.Has("x")); err != nil {
				errs = append(errs, fmt.Errorf("PID %d: %w", task.PID, err))
			}
		}
		r.Traces = append(r.Traces, t)
	}
	return r, errors.Join(errs...)
}

// btCPUs unwinds the stacks of CPUs in a kernel whose types, and so tasks, are not known.
func btCPUs(ctx context.Context, env *Env, args *Args) (Result, error) {
	if len(args.Operands) > 0 {
		return nil, errors.New("without types no task can be found: only what ran on a CPU (-a, -c)")
	}
	u, err := env.unwinder()
	if u == nil {
		return nil, err
	}
	cpus, _ := kernel.CPUs(env.Program) // the error was the unwinder's too
	var wanted []int
	list, some := args.Value("c")
	switch panicked, ok, _ := kernel.PanicCPU(env.Program); {
	case some:
		var perr error
		if wanted, perr = parseCPUs(list); perr != nil {
			return nil, args.usage("-c: %v", perr)
		}
	case ok && !args.Has("a"):
		wanted = []int{panicked}
	default:
		for _, c := range cpus {
			wanted = append(wanted, c.CPU)
		}
	}
	errs := []error{err}
	r := &traces{Traces: []trace{}, style: styleOf(args)}
	for _, cpu := range wanted {
		t := trace{Task: kernel.Task{PID: -1, CPU: cpu}}
		if i := slices.IndexFunc(cpus, func(c kernel.CPU) bool { return c.CPU == cpu }); i >= 0 {
			t.Task.PID = cpus[i].PID
		}
		t.Trace, err = u.CPU(cpu)
		if err != nil {
			t.Error = err.Error()
			errs = append(errs, fmt.Errorf("CPU %d: %w", cpu, err))
		}
		r.Traces = append(r.Traces, t)
		if err := ctx.Err(); err != nil {
			return r, errors.Join(append(errs, err)...)
		}
	}
	return r, errors.Join(errs...)
}

// btTasks returns the tasks that bt is to show.
func btTasks(env *Env, args *Args) ([]kernel.Task, error) {
	cpus, some := args.Value("c")
	if some || args.Has("a") {
		if len(args.Operands) > 0 {
			return nil, args.usage("-a and -c take no operand")
		}
		running, err := kernel.CurrentTasks(env.Program)
		if !some {
			return running, err
		}
		wanted, perr := parseCPUs(cpus)
		if perr != nil {
			return nil, args.usage("-c: %v", perr)
		}
		var chosen []kernel.Task
		errs := []error{err}
		for _, cpu := range wanted {
			i := slices.IndexFunc(running, func(t kernel.Task) bool { return t.CPU == cpu })
			if i < 0 {
				errs = append(errs, fmt.Errorf("CPU %d was not online", cpu))
				continue
			}
			chosen = append(chosen, running[i])
		}
		return chosen, errors.Join(errs...)
	}
	if len(args.Operands) == 0 {
		t, err := env.current()
		if err != nil {
			return nil, err
		}
		return []kernel.Task{t}, nil
	}
	var chosen []kernel.Task
	all, err := env.tasks()
	errs := []error{err}
	for _, o := range args.Operands {
		found := findTasks(all, o)
		if len(found) == 0 {
			// A task that no list has may still be there.
			if v, perr := strconv.ParseUint(strings.TrimPrefix(o, "0x"), 16, 64); perr == nil && addr.Virt(v) >= 1<<63 {
				t, terr := kernel.TaskAt(env.Program, addr.Virt(v))
				if terr == nil && len(t.Problems) == 0 {
					found = []kernel.Task{t}
				}
			}
		}
		if len(found) == 0 {
			errs = append(errs, fmt.Errorf("no task has the PID, the address or the name %s", o))
		}
		chosen = append(chosen, found...)
	}
	return chosen, errors.Join(errs...)
}

// maxCPU bounds the CPU numbers in an operand.
const maxCPU = 64 << 10

// parseCPUs parses a list of CPUs such as "0,2-3".
func parseCPUs(s string) ([]int, error) {
	var cpus []int
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 31)
		b, err2 := strconv.ParseUint(last, 10, 31)
		if err1 != nil || err2 != nil || a > b || b >= maxCPU {
			return nil, fmt.Errorf("%q is no list of CPUs", s)
		}
		for n := a; n <= b; n++ {
			cpus = append(cpus, int(n))
		}
	}
	return cpus, nil
}

// unwinder returns the unwinder of the dump's stacks, made once.
func (e *Env) unwinder() (*unwind.Unwinder, error) {
	if e.unwind != nil {
		return e.unwind, nil
	}
	u, _, err := kernel.Unwinder(e.Program)
	if u == nil {
		return nil, err
	}
	e.unwind = u
	return u, err
}

// WriteText implements Result.
func (r *traces) WriteText(t *Text) {
	for i, tr := range r.Traces {
		if i > 0 {
			t.String("\n")
		}
		t.String(taskLine(tr.Task) + "\n")
		if tr.NoStack {
			t.String("(no stack: the task is dead and has given it back)\n")
		}
		for i, f := range tr.Frames {
			t.frame(f, r.style)
			if i < len(tr.Places) {
				for _, p := range tr.Places[i] {
					t.String("    " + placeText(p) + "\n")
				}
			}
			if i < len(tr.Locals) {
				t.locals(tr.Locals[i])
			}
		}
		if tr.User != nil {
			t.registers(tr.User, false)
		}
	}
}

func (t *Text) frame(f unwind.Frame, style traceStyle) {
	note := ""
	switch {
	case style.how:
		note = "  (" + string(f.How) + ")"
	case !f.Reliable:
		note = "  (unreliable: " + string(f.How) + ")"
	}
	if f.Regs != nil {
		t.Printf("    [exception RIP: %s]%s\n", location(f, true, style.hex), note)
		t.registers(f.Regs, f.Partial)
		return
	}
	at := f.At
	if at == 0 {
		at = f.SP
	}
	module := ""
	if f.Module != "" {
		module = " [" + safe(f.Module) + "]"
	}
	t.Printf("%3s [%x] %s at %x%s%s\n", "#"+strconv.Itoa(f.Index), uint64(at), location(f, style.offsets, style.hex), uint64(f.IP), module, note)
}

// location names where a frame is.
func location(f unwind.Frame, offset, hex bool) string {
	switch {
	case f.Symbol == "":
		return "(unknown)"
	case !offset:
		return safe(f.Symbol)
	case hex:
		return fmt.Sprintf("%s+%#x", safe(f.Symbol), f.Offset)
	}
	return fmt.Sprintf("%s+%d", safe(f.Symbol), f.Offset)
}

// registers writes saved registers the way crash does; partial ones have only
// those that the processor itself saves.
func (t *Text) registers(r *arch.Regs, partial bool) {
	t.Printf("    RIP: %016x  RSP: %016x  RFLAGS: %08x\n", r.RIP, r.RSP, r.EFlags)
	if !partial {
		t.Printf("    RAX: %016x  RBX: %016x  RCX: %016x\n", r.RAX, r.RBX, r.RCX)
		t.Printf("    RDX: %016x  RSI: %016x  RDI: %016x\n", r.RDX, r.RSI, r.RDI)
		t.Printf("    RBP: %016x   R8: %016x   R9: %016x\n", r.RBP, r.R8, r.R9)
		t.Printf("    R10: %016x  R11: %016x  R12: %016x\n", r.R10, r.R11, r.R12)
		t.Printf("    R13: %016x  R14: %016x  R15: %016x\n", r.R13, r.R14, r.R15)
		t.Printf("    ORIG_RAX: %016x  ", r.OrigAX)
	} else {
		t.String("    ")
	}
	t.Printf("CS: %04x  SS: %04x\n", r.CS, r.SS)
}
