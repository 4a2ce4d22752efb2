// Package execx runs child processes that cannot outlive us: each gets its own
// process group, which is killed when the context ends, and a parent-death
// signal for the case that we are killed ourselves.
package execx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Cmd describes a child process.
type Cmd struct {
	Argv  []string
	Dir   string    // working directory; empty means ours
	Env   []string  // added to our own environment
	Stdin io.Reader // nil means empty
	Log   io.Writer // receives stdout and stderr as they come; may be nil
	// Terminal gives the child our own stdin, stdout and stderr, and leaves it in
	// our process group, so that it may read from the terminal. Stdin and Log do
	// not count, and no output is kept.
	Terminal bool

	Grace time.Duration // between SIGTERM and SIGKILL when the context ends; 0 means SIGKILL at once
}

// String returns the command line quoted for a shell.
func (c Cmd) String() string { return Quote(c.Argv) }

// Error is the failure of a child process. It keeps the command line and the
// last output, which is where the reason usually stands.
type Error struct {
	Argv []string
	Dir  string
	Code int    // exit code, or -1 when it did not exit by itself
	Tail string // last lines of stderr, or of stdout if nothing was written there
	Err  error
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %v", e.Argv[0], e.Err)
	if t := strings.TrimSpace(e.Tail); t != "" {
		lines := strings.Split(t, "\n")
		s += ": " + strings.TrimSpace(lines[len(lines)-1])
	}
	return s
}

// Unwrap returns the cause: an *exec.ExitError, exec.ErrNotFound or the context's error.
func (e *Error) Unwrap() error { return e.Err }

// Process is a started child.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	pid  int
}

// PID returns the child's process id.
func (p *Process) PID() int { return p.pid }

// Done is closed when the child has been reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the child and returns nil or an *Error.
func (p *Process) Wait() error { <-p.done; return p.err }

// Signal sends sig to the child's whole process group.
func (p *Process) Signal(sig syscall.Signal) error { return syscall.Kill(-p.pid, sig) }

// Start starts c. The child's group is killed when ctx ends.
func Start(ctx context.Context, c Cmd) (*Process, error) {
	out := newTail(c.Log)
	return start(ctx, c, out, out, out.String)
}

// Run starts c, waits for it and returns its stdout. On failure the error is
// an *Error.
func Run(ctx context.Context, c Cmd) ([]byte, error) {
	// Two pipes are read in no order, so what was the last line is only known
	// for each of them.
	var stdout bytes.Buffer
	both := newTail(c.Log)
	why := newTail(both)
	p, err := start(ctx, c, io.MultiWriter(&stdout, both), why, func() string {
		if s := why.String(); s != "" {
			return s
		}
		return both.String()
	})
	if err != nil {
		return nil, err
	}
	err = p.Wait()
	return stdout.Bytes(), err
}

func start(ctx context.Context, c Cmd, stdout, stderr io.Writer, last func() string) (*Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, &Error{Argv: c.Argv, Dir: c.Dir, Code: -1, Err: err}
	}
	cmd := exec.CommandContext(ctx, c.Argv[0], c.Argv[1:]...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Dir, c.Stdin, stdout, stderr
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error {
		sig := syscall.SIGKILL
		if c.Grace > 0 {
			sig = syscall.SIGTERM
			time.AfterFunc(c.Grace, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		}
		return syscall.Kill(-cmd.Process.Pid, sig)
	}
	if c.Terminal {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr.Setpgid = false
		cmd.Cancel = func() error { return cmd.Process.Kill() }
	}
	// A grandchild may keep the pipe open after the child is gone.
	cmd.WaitDelay = c.Grace + 2*time.Second

	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The parent-death signal is sent when the *thread* that forked ends,
		// so that thread must live as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- &Error{Argv: c.Argv, Dir: c.Dir, Code: -1, Err: err}
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		err := cmd.Wait()
		if cerr := ctx.Err(); cerr != nil && err != nil {
			err = cerr
		}
		if err != nil {
			p.err = &Error{Argv: c.Argv, Dir: c.Dir, Code: cmd.ProcessState.ExitCode(), Tail: last(), Err: err}
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// NotFound reports whether err means that the program is not installed.
func NotFound(err error) bool { return errors.Is(err, exec.ErrNotFound) }

// Quote joins argv into one line that a POSIX shell splits back into argv.
func Quote(argv []string) string {
	q := make([]string, len(argv))
	for i, a := range argv {
		if a != "" && !strings.ContainsAny(a, " \t\n\"'`$&|;<>()*?[]#~!{}\\") {
			q[i] = a
			continue
		}
		q[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	return strings.Join(q, " ")
}

// tail keeps the last tailSize bytes written and passes everything on.
type tail struct {
	next io.Writer // may be nil

	mu  sync.Mutex
	buf []byte
}

const tailSize = 16 << 10

func newTail(next io.Writer) *tail { return &tail{next: next} }

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if n := len(t.buf) - tailSize; n > 0 {
		t.buf = append(t.buf[:0], t.buf[n:]...)
	}
	if t.next != nil {
		if _, err := t.next.Write(p); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
