package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"crashlab/crashkit/internal/fixture"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"crashkit": main})
}

// TestScripts runs the program on the shared dump, which the scripts see as
// "vmcore". LAB_UPDATE=1 rewrites what they expect.
func TestScripts(t *testing.T) {
	dump := fixture.Path(t, fixture.NullDeref)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       os.Getenv("LAB_UPDATE") == "1",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			return os.Symlink(dump, env.Cd+"/vmcore")
		},
	})
}
