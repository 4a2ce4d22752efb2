package targets

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/magefile/mage/mg"

	"crashlab/internal/gofuzz"
	"crashlab/lab"
)

// Fuzz runs every fuzz target, as many at a time as there are processors.
//
// each: how long each, by default 1m
func Fuzz(ctx context.Context, each *time.Duration) error {
	d := fuzzTime
	if each != nil {
		d = *each
	}
	root, err := lab.FindRoot()
	if err != nil {
		return exit(err)
	}
	all, err := gofuzz.List(ctx, root)
	if err != nil {
		return mg.Fatalf(1, "%v", err)
	}
	n := runtime.NumCPU()
	fmt.Printf("%d fuzz targets, %v each, %d at a time\n", len(all), d, n)
	if err := gofuzz.Run(ctx, root, all, d, n, os.Stdout); errors.Is(err, context.Canceled) {
		return exit(err)
	} else if err != nil {
		return mg.Fatalf(1, "%v", err)
	}
	return nil
}

const fuzzTime = time.Minute

// Torture runs crashkit's commands on thousands of damaged dumps.
//
// rounds: how many, by default 10,000
func Torture(ctx context.Context, rounds *int) error {
	n := tortureRounds
	if rounds != nil {
		n = *rounds
	}
	return toolEnv(ctx, []string{"CRASHKIT_DAMAGE_ROUNDS=" + strconv.Itoa(n)},
		"go", "test", "-count=1", "-timeout=2h", "-run=^TestDamage$", "./crashkit/command")
}

const tortureRounds = 10_000
