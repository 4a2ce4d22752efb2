package targets

import (
	"context"
	"fmt"
	"os"

	"github.com/magefile/mage/mg"

	"crashlab/internal/execx"
	"crashlab/lab"
	"crashlab/lab/blame"
	"crashlab/lab/doctor"
	"crashlab/lab/kernels"
	"crashlab/lab/settings"
	"crashlab/lab/store"
)

// Test runs what a change must pass: vet, linters, unit tests with -race, scenarios for real.
func Test(ctx context.Context) error {
	if err := ready(ctx); err != nil {
		return exit(err)
	}
	mg.SerialCtxDeps(ctx, Vet, Lint, Unit, Real)
	return nil
}

// Vet runs go vet on all build variants.
func Vet(ctx context.Context) error {
	return tool(ctx, "go", "vet", "-tags", "mage,lab,built", "./...")
}

// Lint runs the linters of .golangci.yaml, import direction included.
func Lint(ctx context.Context) error {
	return tool(ctx, "go", "tool", "-modfile=tools/go.mod", "golangci-lint", "run")
}

// Unit runs the unit tests with -race: no kernel is booted.
func Unit(ctx context.Context) error {
	return tool(ctx, "go", "test", "-race", "./...")
}

// Real crashes real kernels and holds the analyzer against what they said of themselves.
func Real(ctx context.Context) error {
	return tool(ctx, "go", "test", "-tags", "lab", "-count=1", "-timeout=40m", "./lab/...")
}

// Golden rewrites golden files and generated code after a change that was meant.
func Golden(ctx context.Context) error {
	if err := tool(ctx, "go", "generate", "./..."); err != nil {
		return err
	}
	return toolEnv(ctx, []string{"LAB_UPDATE=1"}, "go", "test", "./...")
}

// Doctor says what the machine has and lacks to run the lab.
func Doctor(ctx context.Context) error {
	o, err := doctorOptions()
	if err != nil {
		return exit(err)
	}
	checks := doctor.New().Examine(ctx, o)
	if err := doctor.WriteTable(os.Stdout, checks); err != nil {
		return err
	}
	for _, c := range checks {
		if !c.OK && !c.Info {
			return code(blame.New(blame.Infrastructure, "look at the machine", fmt.Errorf("%s is missing", c.Name)))
		}
	}
	return nil
}

// Clean removes the cache of kernels, modules and images; runs are kept.
func Clean(ctx context.Context) error {
	s, err := settings.Load(".")
	if err != nil {
		return exit(err)
	}
	c, err := store.Open(s.Cache, nil)
	if err != nil {
		return exit(err)
	}
	n, err := c.Clear(ctx)
	fmt.Printf("%d entries removed from %s\n", n, c.Dir())
	return exit(err)
}

// ready installs what the tests need.
func ready(ctx context.Context) error {
	o, err := doctorOptions()
	if err != nil {
		return err
	}
	return doctor.New().Ensure(ctx, o, func(line string) { fmt.Println(line) })
}

func doctorOptions() (doctor.Options, error) {
	s, err := settings.Load(".")
	if err != nil {
		return doctor.Options{}, err
	}
	build, packers := kernels.Tools(s.Kernel)
	return doctor.Options{
		Build: build, Packers: packers,
		Kernel: s.Kernel, Tests: true, Cache: s.Cache, Space: lab.SpaceNeeded,
		Accelerator: func(ctx context.Context) (string, error) {
			c, err := store.Open(s.Cache, nil)
			if err != nil {
				return "", err
			}
			p, err := lab.Accelerator(ctx, c, s.QEMU, s.Accel)
			return fmt.Sprintf("%s: %s", p.Accel, p.Reason), err
		},
	}, nil
}

// tool runs a program of the Go toolchain in the checkout, its output shown.
func tool(ctx context.Context, argv ...string) error { return toolEnv(ctx, nil, argv...) }

func toolEnv(ctx context.Context, env []string, argv ...string) error {
	root, err := lab.FindRoot()
	if err != nil {
		return exit(err)
	}
	fmt.Println(execx.Quote(argv))
	if _, err := execx.Run(ctx, execx.Cmd{Argv: argv, Dir: root, Env: env, Log: os.Stdout}); err != nil {
		return mg.Fatalf(1, "%v", err)
	}
	return nil
}
