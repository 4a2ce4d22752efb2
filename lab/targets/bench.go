package targets

import (
	"context"

	"crashlab/lab"
)

// Bench measures a run and the analyzer beside a bare boot and what is promised.
func Bench(ctx context.Context) error {
	l, err := open()
	if err != nil {
		return exit(err)
	}
	defer l.UI.Close()
	return exit(l.Bench(ctx, benchRuns))
}

// BenchDump measures crashkit beside crash, drgn and makedumpfile, as far as they are installed.
//
// vmlinux: the kernel's file with debug information, which these need
func BenchDump(ctx context.Context, vmlinux *string) error {
	l, err := open()
	if err != nil {
		return exit(err)
	}
	defer l.UI.Close()
	file := ""
	if vmlinux != nil {
		file = *vmlinux
	}
	return exit(l.BenchDump(ctx, benchRuns, file))
}

// benchRuns is how often each thing is measured; medians are printed.
const benchRuns = 5

// BenchKernel measures what building and booting the lab's kernel costs, and what is promised.
//
// cold: compile it anew, without ccache, for ten minutes of processor time
func BenchKernel(ctx context.Context, cold *bool) error {
	return withLab(func(l *lab.Lab) error { return l.BenchKernel(ctx, kernelRuns, cold != nil && *cold) })
}

// kernelRuns is the same of what takes longer.
const kernelRuns = 3
