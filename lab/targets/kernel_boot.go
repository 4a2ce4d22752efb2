package targets

import (
	"context"
	"os"

	"crashlab/lab"
)

// Boot boots a kernel, shuts it down, and says how long each took.
func (Kernel) Boot(ctx context.Context) error {
	return withLab(func(l *lab.Lab) error { return l.KernelBoot(ctx, os.Stdout, "") })
}
