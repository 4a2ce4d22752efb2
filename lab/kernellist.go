package lab

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"crashlab/lab/blame"
	"crashlab/lab/kernels"
	"crashlab/lab/store"
)

// KernelList writes to w the kernels that can be had, one a line: the spec that
// names it, its version, flavour, download size, and whether it is in the cache.
// A suite that cannot be asked is a line that says why.
func (l *Lab) KernelList(ctx context.Context, w io.Writer) error {
	c, err := store.Open(l.Settings.Cache, l.Log)
	if err != nil {
		return stageError(blame.Infrastructure, "open the cache", err)
	}
	src := kernels.New(c, l.Log, nil, l.kernelOptions())
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "spec\tversion\tflavour\tdownload\tcached")
	for _, suite := range kernels.Suites() {
		all, err := src.List(ctx, suite)
		if ctx.Err() != nil {
			return interrupted(ctx, ctx.Err())
		}
		if err != nil {
			why, _, _ := strings.Cut(err.Error(), "\n")
			fmt.Fprintf(t, "debian@%s\t-\t-\t-\t%s\n", suite, why)
			continue
		}
		for _, k := range all {
			cached := "no"
			if k.Cached {
				cached = "yes"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%.0f MB\t%s\n", k.Plan.Spec, k.Plan.Version, k.Flavour, float64(k.Plan.Size())/1e6, cached)
		}
	}
	return t.Flush()
}
