package main

import (
	"errors"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"crashlab/crashkit/internal/fixture"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"crashkit": main})
}

// TestScripts runs the program on the shared dump, which the scripts see as
// "vmcore", and on that of a running guest, "qemu". LAB_UPDATE=1 rewrites what they expect.
func TestScripts(t *testing.T) {
	dump, qemu := fixture.Path(t, fixture.NullDeref), fixture.Path(t, fixture.QEMU)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       os.Getenv("LAB_UPDATE") == "1",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			return errors.Join(os.Symlink(dump, env.Cd+"/vmcore"), os.Symlink(qemu, env.Cd+"/qemu"))
		},
	})
}
