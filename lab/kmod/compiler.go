package kmod

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"crashlab/internal/execx"
	"crashlab/lab/blame"
	"crashlab/lab/kernels"
)

// compiler is the one that modules are built with.
type compiler struct {
	name     string // for CC=
	version  string // first line of --version
	warnings []string
}

// compiler finds the compiler that the kernel was built with, or else the
// host's gcc, which usually does if it is not much older.
func (b *Builder) compiler(ctx context.Context, k *kernels.Kernel) (compiler, error) {
	look := b.lookPath
	if look == nil {
		look = exec.LookPath
	}
	names := compilerNames(k.Compiler)
	for _, name := range names {
		if _, err := look(name); err != nil {
			continue
		}
		out, err := execx.Run(ctx, execx.Cmd{Argv: []string{name, "--version"}, Env: []string{"LC_ALL=C"}})
		if err != nil {
			return compiler{}, blame.New(blame.Infrastructure, "ask the compiler for its version", err)
		}
		version, _, _ := strings.Cut(string(out), "\n")
		c := compiler{name: name, version: version}
		if w := mismatch(k.Compiler, version); w != "" {
			c.warnings = append(c.warnings, w)
		}
		return c, nil
	}
	return compiler{}, blame.New(blame.Infrastructure, "build a module for "+k.Release, errors.New("there is no C compiler")).
		WithHint("install one of %s", strings.Join(names, ", "))
}

// compilerNames lists the commands to try, best first, for a kernel whose
// CONFIG_CC_VERSION_TEXT is text.
func compilerNames(text string) []string {
	first, _, _ := strings.Cut(text, " ")
	names := []string{}
	if i := strings.LastIndex(first, "gcc"); i >= 0 {
		names = append(names, first[i:]) // without x86_64-linux-gnu-
	}
	if len(names) == 0 || names[0] != "gcc" {
		names = append(names, "gcc")
	}
	return names
}

// mismatch says in one sentence that a module's compiler is not the kernel's.
// The name by which a compiler was called, the first word, does not count.
func mismatch(kernel, module string) string {
	_, k, _ := strings.Cut(kernel, " ")
	_, m, _ := strings.Cut(module, " ")
	if kernel == "" || k == m {
		return ""
	}
	return fmt.Sprintf("the kernel was built by %s, the module is by %s", kernel, module)
}
