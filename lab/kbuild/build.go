package kbuild

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"crashlab/internal/execx"
	"crashlab/kconfig"
	"crashlab/lab/blame"
)

// Result says what a build made, and what it took. It is the file build.json of
// a built kernel.
type Result struct {
	Release     string              `json:"release"`
	Version     string              `json:"version"` // of the source tree
	BuildID     string              `json:"build_id"`
	Compression kconfig.Compression `json:"compression"`
	Toolchain   Toolchain           `json:"toolchain"`
	Fragments   []string            `json:"fragments"`
	ImageBytes  int64               `json:"image_bytes"`
	Compiled    int                 `json:"compiled"` // files compiled or assembled now, host tools included
	CPU         time.Duration       `json:"cpu_ns"`   // of all processes, user and system
	Wall        time.Duration       `json:"wall_ns"`
	ImageWall   time.Duration       `json:"image_wall_ns"` // packing the image, of Wall
	Refusals    []string            `json:"refusals,omitempty"`
	Overrides   []string            `json:"overrides,omitempty"`
}

// ResultFile is the name of the Result beside a built kernel.
const ResultFile = "build.json"

// SpaceNeeded is what an object tree with debug information, and what is
// installed of it, take at most for a small configuration, in bytes.
const SpaceNeeded = 3 << 30

// Build builds src as w asks and installs into dest, an empty directory, what is
// needed to run the kernel and to build modules for it: see install. Ended by
// its context it leaves the object tree so that the next Build goes on.
func (b *Builder) Build(ctx context.Context, src Source, w *Want, dest string) (*Result, error) {
	o, err := b.open(ctx, src, w)
	if err != nil {
		return nil, err
	}
	defer o.unlock()
	if err := o.checkSpace(dest); err != nil {
		return nil, err
	}
	began, cpu := time.Now(), childCPU()
	c, err := o.configure(ctx)
	if err != nil {
		return nil, err
	}
	// Saved before the build starts: also of a build that fails one knows what it was.
	if err := copyFile(c.Path, filepath.Join(o.dir, "crashlab.config")); err != nil {
		return nil, blame.New(blame.Infrastructure, "save the configuration", err)
	}
	r := &Result{Version: src.Version, Toolchain: b.Toolchain, Compression: kconfig.CompressionOf(c.Config)}
	for _, f := range w.Fragments {
		r.Fragments = append(r.Fragments, f.Name)
	}
	for _, f := range c.Refusals {
		r.Refusals = append(r.Refusals, f.String())
	}
	for _, f := range c.Overrides {
		r.Overrides = append(r.Overrides, f.String())
	}
	if r.Compiled, err = o.compile(ctx, buildLog, "build", "vmlinux", "modules"); err != nil {
		return nil, err
	}
	image := time.Now()
	n, err := o.compile(ctx, imageLog, "pack", w.Built().Image)
	if err != nil {
		return nil, err
	}
	r.Compiled += n
	r.ImageWall = time.Since(image)
	if err := o.install(ctx, dest, r); err != nil {
		return nil, err
	}
	r.Wall, r.CPU = time.Since(began), childCPU()-cpu
	text, err := json.MarshalIndent(r, "", "\t")
	if err == nil {
		err = os.WriteFile(filepath.Join(dest, ResultFile), append(text, '\n'), 0o644)
	}
	if err != nil {
		return nil, blame.New(blame.Infrastructure, "write "+ResultFile, err)
	}
	return r, nil
}

// checkSpace says before the build that the disk is too small for it.
func (o *object) checkSpace(dest string) error {
	for _, dir := range []string{o.dir, dest} {
		var st syscall.Statfs_t
		if err := syscall.Statfs(dir, &st); err != nil {
			return blame.New(blame.Infrastructure, "measure the free space of "+dir, err)
		}
		if free := int64(st.Bavail) * st.Bsize; free < SpaceNeeded {
			return blame.New(blame.Infrastructure, "build "+o.src.Version+o.want.Suffix,
				fmt.Errorf("%d MiB are free in %s, and up to %d are needed", free>>20, dir, int64(SpaceNeeded)>>20)).
				WithHint("free some space, or set CRASHLAB_CACHE to a directory on another disk")
		}
	}
	return nil
}

// childCPU returns the time that processes we have waited for took.
func childCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// run runs make with the targets; its output goes to log.
func (o *object) run(ctx context.Context, doing string, log io.Writer, targets ...string) error {
	argv := o.argv(targets...)
	fmt.Fprintf(log, "%s\n", execx.Quote(argv))
	_, err := execx.Run(ctx, execx.Cmd{Argv: argv, Env: o.environment(), Log: log, Grace: 10 * time.Second})
	if err == nil || ctx.Err() != nil {
		return err
	}
	return o.explain(doing, err, argv, log)
}

// explain shows the first error of a failed make, with its context.
func (o *object) explain(doing string, err error, argv []string, log io.Writer) error {
	if execx.NotFound(err) {
		return blame.New(blame.Infrastructure, doing, err).WithHint("install make")
	}
	e := blame.New(blame.Kernel, doing, errors.New("make failed"))
	e.Replay = execx.Quote(argv)
	f, ok := named(log)
	if !ok {
		return e
	}
	text, rerr := os.ReadFile(f)
	if rerr != nil {
		return e
	}
	lines, first := firstError(string(text))
	e.Look = append(lines, f)
	if first != "" {
		e.Err = fmt.Errorf("make failed: %s", first)
	}
	if strings.Contains(first, "No space left on device") {
		e.Party = blame.Infrastructure
	}
	return e
}

// named returns the name of the file behind a log.
func named(w io.Writer) (string, bool) {
	switch f := w.(type) {
	case *os.File:
		return f.Name(), true
	case *counter:
		return named(f.next)
	}
	return "", false
}

// compile runs make and returns how many files it compiled or assembled.
func (o *object) compile(ctx context.Context, log, doing string, targets ...string) (int, error) {
	doing += " " + o.src.Version + o.want.Suffix
	f, err := os.Create(filepath.Join(o.dir, log))
	if err != nil {
		return 0, blame.New(blame.Infrastructure, doing, err)
	}
	defer f.Close()
	o.say(doing)
	c := &counter{next: f, say: func(n int, file string) { o.say(fmt.Sprintf("%s: %d files, %s", doing, n, file)) }}
	// The lines of one command stay together.
	err = o.run(ctx, doing, c, append([]string{"--output-sync=target"}, targets...)...)
	return c.n, err
}

// counter counts the files that make compiles, by what it prints:
// "  CC      kernel/panic.o".
type counter struct {
	next io.Writer
	say  func(n int, file string)

	mu   sync.Mutex
	line []byte
	n    int
	told time.Time
}

func (c *counter) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range p {
		if b != '\n' {
			if len(c.line) < 4096 {
				c.line = append(c.line, b)
			}
			continue
		}
		f := strings.Fields(string(c.line))
		c.line = c.line[:0]
		if len(f) >= 2 && (f[0] == "CC" || f[0] == "AS" || f[0] == "HOSTCC") {
			c.n++
			if time.Since(c.told) > 200*time.Millisecond {
				c.told = time.Now()
				c.say(c.n, f[len(f)-1])
			}
		}
	}
	return c.next.Write(p)
}

// firstError returns the line in which a build's output first says what is
// wrong, and the lines around it: make goes on with other files, so that the
// last lines are those of another one.
func firstError(text string) (around []string, first string) {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	at := -1
	for i, l := range lines {
		if isError(l) {
			at = i
			break
		}
	}
	if at < 0 {
		return lines[max(0, len(lines)-12):], ""
	}
	return lines[max(0, at-4):min(len(lines), at+8)], strings.TrimSpace(lines[at])
}

// isError reports whether a compiler, a linker, a script or at last make says
// that something failed.
func isError(l string) bool {
	for _, s := range []string{": error: ", "fatal error: ", "undefined reference to", "ERROR: modpost", "ERROR: ", "FAILED: ", "No space left on device",
		": not found", "command not found", "Killed", "No rule to make target", "Segmentation fault"} {
		if strings.Contains(l, s) {
			return true
		}
	}
	return strings.Contains(l, "*** ")
}
