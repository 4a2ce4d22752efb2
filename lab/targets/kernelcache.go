package targets

import (
	"context"
	"os"

	"crashlab/lab"
)

// List lists the kernels, source trees, object trees and downloads in the cache, with their sizes.
func (Kernel) List() error {
	return withLab(func(l *lab.Lab) error { return l.KernelCached(os.Stdout) })
}

// Fetch gets a kernel into the cache, of one that is built here its sources: kernel:fetch source:6.1.
func (Kernel) Fetch(ctx context.Context, spec string) error {
	return withLab(func(l *lab.Lab) error { return l.KernelFetch(ctx, os.Stdout, spec) })
}

// Prune removes from the cache what was not used for two weeks; all of it can be made again.
//
// days: how many days instead
func (Kernel) Prune(ctx context.Context, days *int) error {
	n := 14
	if days != nil {
		n = *days
	}
	return withLab(func(l *lab.Lab) error { return l.KernelPrune(ctx, os.Stdout, n) })
}
