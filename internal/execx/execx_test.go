package execx

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	var log bytes.Buffer
	out, err := Run(t.Context(), Cmd{
		Argv: []string{"sh", "-c", `cat; echo "$X in $PWD"; echo why >&2`}, Dir: "/", Env: []string{"X=y"},
		Stdin: strings.NewReader("in\n"), Log: &log,
	})
	if err != nil || string(out) != "in\ny in /\n" {
		t.Errorf("Run() = %q, %v; want stdin, the environment and the folder", out, err)
	}
	if !strings.Contains(log.String(), "why") || !strings.Contains(log.String(), "y in /") {
		t.Errorf("log = %q; want stdout and stderr", log.String())
	}
}

func TestError(t *testing.T) {
	_, err := Run(t.Context(), Cmd{Argv: []string{"sh", "-c", "echo early; echo the reason >&2; exit 7"}})
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Code != 7 || !strings.HasSuffix(err.Error(), ": the reason") {
		t.Errorf("Run() = %v (%+v); want exit code 7 and the last line of stderr", err, e)
	}
	_, err = Run(t.Context(), Cmd{Argv: []string{"sh", "-c", "echo only this; exit 1"}})
	if err == nil || !strings.HasSuffix(err.Error(), ": only this") {
		t.Errorf("Run() = %v; want the last line of stdout where stderr is empty", err)
	}
	if _, err := Run(t.Context(), Cmd{Argv: []string{"no-such-program"}}); !NotFound(err) {
		t.Errorf("Run(no-such-program) = %v; want NotFound", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, Cmd{Argv: []string{"true"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("Run() with a dead context = %v; want %v", err, context.Canceled)
	}
}

// gone waits until no process has that pid any more.
func gone(pid int) bool {
	for range 100 {
		if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
			return true
		}
		if state(pid) == "Z" { // its parent has not asked yet
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

func state(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	return f[0]
}

// TestCancel ends a child that ignores SIGTERM, and its own child.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	pids := make(chan string, 1)
	p, err := Start(ctx, Cmd{
		Argv: []string{"sh", "-c", `trap "" TERM; sleep 1000 & echo $!; while :; do sleep 1; done`},
		Log:  lineTo(pids), Grace: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	grandchild, err := strconv.Atoi(strings.TrimSpace(<-pids))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := p.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait() = %v; want %v", err, context.Canceled)
	}
	if !gone(p.PID()) || !gone(grandchild) {
		t.Errorf("child %d or grandchild %d is still there", p.PID(), grandchild)
	}
}

type lineTo chan string

func (c lineTo) Write(b []byte) (int, error) {
	select {
	case c <- string(b):
	default:
	}
	return len(b), nil
}

// TestParentDies kills a process that has started a child by Start.
func TestParentDies(t *testing.T) {
	if os.Getenv("EXECX_PARENT") != "" {
		p, err := Start(context.Background(), Cmd{Argv: []string{"sleep", "1000"}})
		if err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString(strconv.Itoa(p.PID()) + "\n")
		<-p.Done()
		return
	}
	parent := exec.Command(os.Args[0], "-test.run=^TestParentDies$")
	parent.Env = append(os.Environ(), "EXECX_PARENT=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 32)
	n, err := out.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := parent.Wait(); err == nil {
		t.Error("the parent ended by itself")
	}
	if !gone(child) {
		t.Errorf("child %d outlived its parent", child)
	}
}

// TestQuote lets a shell split what Quote has joined.
func TestQuote(t *testing.T) {
	argv := []string{"a", "", "b c", `it's`, `"$HOME" \ *`, "x=1,y", "new\nline", "~", "{a,b}", "#"}
	out, err := exec.Command("bash", "-c", "printf '%s\\0' "+Quote(argv)).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); strings.Join(got, "|") != strings.Join(argv, "|") {
		t.Errorf("a shell splits Quote(%q) into %q", argv, got)
	}
}
