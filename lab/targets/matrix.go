package targets

import (
	"context"
	"os"
	"strings"

	"crashlab/lab"
)

// Matrix crashes all supported kernels, compares, and writes docs/SUPPORT.md.
//
// only: the rows to run, separated by commas; without it all
// fresh: make new dumps even where there are some
func Matrix(ctx context.Context, only *string, fresh *bool) error {
	var rows []string
	if only != nil && *only != "" {
		rows = strings.Split(*only, ",")
	}
	return withLab(func(l *lab.Lab) error { return l.Matrix(ctx, rows, fresh != nil && *fresh) })
}

// Kernels lists the kernels that can be had, and which of them are in the cache.
func Kernels(ctx context.Context) error {
	return withLab(func(l *lab.Lab) error { return l.KernelList(ctx, os.Stdout) })
}
