// Package targets holds what mage shows as targets: functions that take
// arguments and call package lab, without logic of their own.
package targets

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/magefile/mage/mg"

	"crashlab/lab"
	"crashlab/lab/blame"
	"crashlab/lab/ledger"
	"crashlab/lab/settings"
	"crashlab/lab/ui"
	"crashlab/scenarios"
)

//go:generate go run ./gen

// Scenario is the namespace of the targets that crash a kernel.
type Scenario mg.Namespace

// List says which scenarios there are.
func (Scenario) List() error {
	all, err := scenarios.List(userScenarios)
	for _, s := range all {
		fmt.Printf("%-14s %s\n", s.Name, s.Title)
	}
	return exit(err)
}

// Run crashes a kernel as the named scenario says, a built-in one or yours in scenarios/NAME.
func (Scenario) Run(ctx context.Context, name string) error { return runScenario(ctx, name) }

// userScenarios is where users put scenarios of their own.
const userScenarios = "scenarios"

// runScenario is behind every scenario target.
func runScenario(ctx context.Context, name string) error {
	l, err := open()
	if err != nil {
		return exit(err)
	}
	defer l.UI.Close()
	s, err := scenarios.Load(name, filepath.Join(l.Root, userScenarios))
	if err != nil {
		return exit(blame.New(blame.Usage, "load the scenario", err).WithHint("go tool mage scenario:list"))
	}
	run, dir, err := l.Run(ctx, s)
	if dir == "" {
		return exit(err)
	}
	l.UI.Verdict(&run, dir)
	return code(err)
}

// open returns a Lab with the user's settings that shows its progress in the
// terminal. Close its UI.
func open() (*lab.Lab, error) {
	root, err := lab.FindRoot()
	if err != nil {
		return nil, err
	}
	s, err := settings.Load(root)
	if err != nil {
		return nil, err
	}
	s.Verbose = s.Verbose || mg.Verbose()
	o := ui.For(os.Stdout, os.Getenv)
	o.Verbose = s.Verbose
	level := slog.LevelWarn
	if mg.Debug() {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	return &lab.Lab{Settings: s, Root: root, UI: ui.New(o), Log: log}, nil
}

// exit shows an error that has no run to be recorded in, and returns mage's exit code.
func exit(err error) error {
	if err == nil {
		return nil
	}
	u := ui.New(ui.For(os.Stdout, os.Getenv))
	defer u.Close()
	u.Failure(ledger.NewFailure(err))
	return code(err)
}

// code turns err, which has been shown, into mage's exit code.
func code(err error) error {
	if err == nil {
		return nil
	}
	e := blame.Of(err)
	return mg.Fatalf(int(e.Party), "exit code %d: %v", int(e.Party), e.Party)
}
