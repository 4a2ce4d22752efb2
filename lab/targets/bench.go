package targets

import "context"

// Bench measures a run and the analyzer beside a bare boot and what is promised.
func Bench(ctx context.Context) error {
	l, err := open()
	if err != nil {
		return exit(err)
	}
	defer l.UI.Close()
	return exit(l.Bench(ctx, benchRuns))
}

// benchRuns is how often each thing is measured; medians are printed.
const benchRuns = 5
