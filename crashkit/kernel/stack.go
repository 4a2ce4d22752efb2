package kernel

import (
	"errors"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/unwind"
)

// Unwinder returns an unwinder of p's stacks that knows the tasks that were
// running, and the task that brought the kernel down, 0 if none did. It may
// return both and an error: a CPU whose registers could not be read.
func Unwinder(p *crashkit.Program) (*unwind.Unwinder, addr.Virt, error) {
	cpus, err := CPUs(p)
	var running []unwind.Running
	var panicked addr.Virt
	for _, c := range cpus {
		err = errors.Join(err, c.Problems.Err())
		if c.Panic {
			panicked = c.Task
		}
		if c.Regs != nil && (c.Task != 0 || p.Types.IsEmpty()) {
			running = append(running, unwind.Running{Task: c.Task, CPU: c.CPU, Regs: *c.Regs, Panic: c.Panic})
		}
	}
	u, uerr := unwind.New(p, running...)
	return u, panicked, errors.Join(err, uerr)
}
