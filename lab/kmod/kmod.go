// Package kmod builds kernel modules against the headers of a fetched kernel.
package kmod

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"crashlab/internal/execx"
	"crashlab/kconfig"
	"crashlab/lab/blame"
	"crashlab/lab/kernels"
	"crashlab/lab/store"
)

// Module is a built module.
type Module struct {
	KO       string // path of NAME.ko, in the store; with debug info
	Log      []byte // all that make said when it was built
	Compiler string // what built it, in the words of --version
	Warnings []string
	Cached   bool // nothing had to be built
}

// Builder builds modules.
type Builder struct {
	Store *store.Store
	Log   *slog.Logger // nil discards

	lookPath func(string) (string, error) // nil: exec.LookPath
}

// buildVersion is part of the key of built modules; it changes when building
// does something else than before.
const buildVersion = "1"

// Build builds NAME.ko from the directory name of src, which has a Kbuild and
// C files, against k. The result is kept in the store: the same sources,
// kernel and compiler are built once. Neither the place of the store nor that
// of the sources leaves a trace in the module.
//
// If the module does not compile, Build returns a *blame.Error with the
// compiler's own lines, and a Module that has the log only.
func (b *Builder) Build(ctx context.Context, k *kernels.Kernel, src fs.FS, name string) (*Module, error) {
	doing := "build module " + name
	if strings.ContainsAny(b.Store.Dir(), " :") {
		// The kernel's Makefile refuses, in words that do not help.
		return nil, blame.New(blame.Infrastructure, doing, fmt.Errorf("make cannot work in %q", b.Store.Dir())).
			WithHint("set %s to a path without blanks and colons", store.EnvDir)
	}
	if k.Headers == "" {
		return nil, blame.New(blame.Usage, doing, fmt.Errorf("the packages of %s have nothing to build modules with", k.Release)).
			WithHint("add its package kernel-devel; scenario:sysrq needs no module")
	}
	cc, err := b.compiler(ctx, k)
	if err != nil {
		return nil, err
	}
	files, err := sources(src, name)
	if err != nil {
		return nil, blame.New(blame.Usage, doing, err)
	}
	key := store.Key{Kind: "module", Name: name + "-" + k.Release, Inputs: []string{buildVersion, name, k.ID, cc.name, cc.version}}
	for _, f := range files {
		key.Inputs = append(key.Inputs, f.name, string(f.data))
	}
	var output bytes.Buffer
	m := &Module{Compiler: cc.version, Warnings: cc.warnings}
	dir, hit, err := b.Store.Get(ctx, key, func(ctx context.Context, dir string) error {
		return b.make(ctx, k, cc, name, files, dir, &output)
	})
	if err != nil {
		m.Log = output.Bytes()
		return m, err
	}
	m.KO, m.Cached = filepath.Join(dir, name+".ko"), hit
	if b.Log != nil {
		b.Log.Debug("module", "layer", "kmod", "name", name, "cached", hit, "file", m.KO)
	}
	m.Log, err = os.ReadFile(filepath.Join(dir, logName))
	return m, err
}

const logName = "build.log"

type file struct {
	name string
	data []byte
}

// isSource leaves out what building a module by hand adds to its directory.
func isSource(name string) bool {
	switch path.Ext(name) {
	case ".c":
		return !strings.HasSuffix(name, ".mod.c")
	case ".h", ".S":
		return true
	}
	return name == "Kbuild" || name == "Makefile"
}

// sources reads the files of the module's directory, in the order of their names.
func sources(src fs.FS, name string) ([]file, error) {
	des, err := fs.ReadDir(src, name)
	if err != nil {
		return nil, err
	}
	var files []file
	for _, de := range des {
		if !de.Type().IsRegular() || !isSource(de.Name()) {
			continue
		}
		data, err := fs.ReadFile(src, name+"/"+de.Name())
		if err != nil {
			return nil, err
		}
		files = append(files, file{de.Name(), data})
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no sources", name)
	}
	return files, nil
}

// make builds in a directory beside dir's files and leaves the module and the
// log in dir.
func (b *Builder) make(ctx context.Context, k *kernels.Kernel, cc compiler, name string, files []file, dir string, output *bytes.Buffer) error {
	build := filepath.Join(dir, "build")
	if err := os.Mkdir(build, 0o755); err != nil {
		return err
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(build, f.name), f.data, 0o644); err != nil {
			return err
		}
	}
	origin := "modules/" + name
	argv, err := makeArgs(k, cc, build, origin)
	if err != nil {
		return err
	}
	fmt.Fprintf(output, "%s\n", execx.Quote(argv))
	_, err = execx.Run(ctx, execx.Cmd{
		Argv: argv,
		Log:  output,
		// What the user's shell has set for other kernels' builds.
		Env: []string{"MAKEFLAGS=", "MAKELEVEL=", "KBUILD_OUTPUT=", "KBUILD_EXTMOD=", "KBUILD_VERBOSE=", "V=",
			// The kernel's Makefile takes LC_ALL away.
			"LANG=C", "LC_CTYPE=C", "LC_MESSAGES=C", "LC_ALL=C"},
	})
	if err != nil {
		return b.explain(ctx, err, k, cc, name, build, output.Bytes())
	}
	if err := os.Rename(filepath.Join(build, name+".ko"), filepath.Join(dir, name+".ko")); err != nil {
		return blame.New(blame.Usage, "build module "+name, fmt.Errorf("its Kbuild does not make %s.ko", name))
	}
	if err := os.WriteFile(filepath.Join(dir, logName), output.Bytes(), 0o644); err != nil {
		return err
	}
	return os.RemoveAll(build)
}

// makeArgs returns the command that builds the module in dir, whose sources
// are said to come from origin.
func makeArgs(k *kernels.Kernel, cc compiler, dir, origin string) ([]string, error) {
	c, err := kconfig.ReadFile(k.Config)
	if err != nil {
		return nil, err
	}
	// The headers lie in ROOT/usr/src/linux-headers-RELEASE or deeper. With ROOT taken
	// off, the debug info names them as if they were installed.
	root := k.Headers[:max(0, strings.LastIndex(k.Headers, "/usr/src/"))]
	flags := fmt.Sprintf("-ffile-prefix-map=%s=%s -ffile-prefix-map=%s=", dir, origin, root)
	if c.State("DEBUG_INFO") == kconfig.No {
		flags += " -g"
	}
	return []string{"make", "-C", k.Headers, "M=" + dir,
		"CC=" + cc.name,
		"KCFLAGS=" + flags,
		// Takes the kernel's vmlinux and a matching pahole: not everywhere there.
		"CONFIG_DEBUG_INFO_BTF_MODULES=",
		"modules"}, nil
}

// diagnostic matches what the compiler, modpost, objtool, the loader and make
// say when something is wrong.
var diagnostic = regexp.MustCompile(`(?m)^.*(?:\berror: |ERROR: |: not found| not found \(required by).*$`)

// explain turns a failed make into an error that shows the compiler's lines.
func (b *Builder) explain(ctx context.Context, err error, k *kernels.Kernel, cc compiler, name, build string, output []byte) error {
	if ctx.Err() != nil {
		return err
	}
	doing := "build module " + name
	if execx.NotFound(err) {
		return blame.New(blame.Infrastructure, doing, err).WithHint("install make")
	}
	origin := "modules/" + name
	text := strings.ReplaceAll(string(output), build, origin)
	e := blame.New(blame.Kernel, doing, fmt.Errorf("it does not compile for %s", k.Release))
	for _, line := range diagnostic.FindAllString(text, 20) {
		// From 6.13 on make runs in the module's directory.
		if f, _, ok := strings.Cut(line, ":"); ok && !strings.Contains(f, "/") && filepath.Ext(f) != "" {
			line = origin + "/" + line
		}
		e.Look = append(e.Look, line)
	}
	if len(e.Look) == 0 {
		lines := strings.Split(strings.TrimSpace(text), "\n")
		e.Look = lines[max(0, len(lines)-10):]
		e.Err = errors.Unwrap(err)
	}
	if len(cc.warnings) > 0 {
		e.WithHint("%s", cc.warnings[0])
	}
	if argv, aerr := makeArgs(k, cc, "/tmp/"+name, origin); aerr == nil {
		e.Replay = fmt.Sprintf("cp -rT %s /tmp/%s && %s", origin, name, execx.Quote(argv))
	}
	return e
}
