package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// qemuBinary returns the QEMU that the tests run.
func qemuBinary(t *testing.T) string {
	t.Helper()
	binary, err := FindBinary()
	if err != nil {
		t.Fatalf("%v; to install it: apt-get install qemu-system-x86", err)
	}
	return binary
}

// testMachine returns a machine that executes code, a firmware made of the
// pieces of code in romcode_test.go.
func testMachine(t *testing.T, code ...[]byte) Machine {
	t.Helper()
	rom := make([]byte, 64<<10)
	if n := copy(rom[:len(rom)-16], bytes.Join(code, nil)); n == len(rom)-16 {
		t.Fatal("the code does not fit into the ROM")
	}
	copy(rom[len(rom)-16:], "\xea\x00\x00\x00\xf0") // ljmp $0xf000,$0
	path := filepath.Join(t.TempDir(), "rom")
	if err := os.WriteFile(path, rom, 0o600); err != nil {
		t.Fatal(err)
	}
	return Machine{Binary: qemuBinary(t), Type: "pc", MemoryMiB: 2, NoReboot: true, Extra: []string{"-bios", path}}
}

// start starts m, and ends it with the test.
func start(t *testing.T, m Machine, o Options) *Guest {
	t.Helper()
	g, err := Start(t.Context(), m, o)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() {
		g.Kill()
		_ = g.Control().Close()
	})
	return g
}

// privateTemp directs temporary files of the test into a directory of its own.
func privateTemp(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	return dir
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("files left in %s: %v, %v", dir, entries, err)
	}
}

func wantGone(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d: %v; want it gone", pid, err)
	}
}

func wantKind(t *testing.T, err error, want Kind) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("error = %v; want an *Error", err)
	}
	if e.Kind != want {
		t.Errorf("error = %v, of kind %q; want kind %q", err, e.Kind, want)
	}
	if e.Phase != "test" && want != Refused && want != Killed && want != Died {
		t.Errorf("phase = %q; want test", e.Phase)
	}
	return e
}

func TestGuestRunsToItsEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		end    []byte
		reason string
	}{
		"reset":     {reset(), "guest-reset"},
		"power off": {powerOff(), "guest-shutdown"},
	} {
		t.Run(name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "console.log")
			var live bytes.Buffer
			g := start(t, testMachine(t, print("hello\r\nwor"), print("ld"), tt.end), Options{ConsoleLog: log, ConsoleTo: &live})
			if err := g.Wait(); err != nil {
				t.Errorf("Wait: %v", err)
			}
			if got := g.Reason(); got != tt.reason {
				t.Errorf("Reason() = %q; want %q", got, tt.reason)
			}
			var text []string
			for _, l := range g.Console().Lines() {
				text = append(text, l.Text)
			}
			if got := strings.Join(text, "|"); got != "hello|world" {
				t.Errorf("console lines %q; want hello|world", got)
			}
			b, err := os.ReadFile(log)
			if err != nil || !strings.HasSuffix(string(b), " world\n") {
				t.Errorf("console log %q, %v; want it to end with world", b, err)
			}
			if live.String() != string(b) {
				t.Errorf("live console %q differs from the log %q", live.String(), b)
			}
			wantGone(t, g.PID())
		})
	}
}

func TestGuestControl(t *testing.T) {
	g := start(t, testMachine(t, echoControl()), Options{})
	for _, want := range []string{"first message\n", "\x00\xff\r\n second"} {
		if _, err := io.WriteString(g.Control(), want); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(g.Control(), got); err != nil || string(got) != want {
			t.Fatalf("echo = %q, %v; want %q", got, err, want)
		}
	}
	g.Kill()
	if n, err := g.Control().Read(make([]byte, 1)); err == nil {
		t.Errorf("Read after the end = %d bytes; want an error", n)
	}
}

func TestGuestQMP(t *testing.T) {
	g := start(t, testMachine(t, halt()), Options{})
	if status, err := g.Status(t.Context()); err != nil || status != "running" {
		t.Errorf("Status() = %q, %v; want running", status, err)
	}
	if v := g.QMP().Version(); v.QEMU.Major < 4 {
		t.Errorf("Version() = %v", v)
	}
	var schema json.RawMessage // some 200 KB in one line
	if err := g.QMP().Do(t.Context(), "query-qmp-schema", nil, &schema); err != nil || len(schema) < 64<<10 {
		t.Errorf("query-qmp-schema = %d bytes, %v; want more than 64 KiB", len(schema), err)
	}
	if err := g.QMP().Raw(t.Context()).Quit(); err != nil {
		t.Errorf("Quit: %v", err)
	}
	if err := g.Wait(); err != nil {
		t.Errorf("Wait: %v", err)
	}
}

func TestGuestCancel(t *testing.T) {
	tmp := privateTemp(t)
	m := testMachine(t, halt())
	entries, _ := os.ReadDir(tmp)
	if len(entries) > 0 {
		t.Fatalf("files in %s before the start: %v", tmp, entries)
	}
	ctx, cancel := context.WithCancel(t.Context())
	g, err := Start(ctx, m, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Control().Close()
	wantEmpty(t, tmp) // even if we were killed now
	cancel()
	if e := wantKind(t, g.Wait(), Killed); !errors.Is(e, context.Canceled) {
		t.Errorf("cause = %v; want context.Canceled", e.Err)
	}
	wantGone(t, g.PID())
}

func TestGuestKill(t *testing.T) {
	g := start(t, testMachine(t, halt()), Options{})
	g.Kill()
	if e := wantKind(t, g.Wait(), Killed); !errors.Is(e, ErrKilled) {
		t.Errorf("cause = %v; want ErrKilled", e.Err)
	}
	wantGone(t, g.PID())
	g.Kill() // once more does no harm
}

func TestGuestDies(t *testing.T) {
	g := start(t, testMachine(t, print("last words\n"), halt()), Options{})
	w := g.Watch()
	if _, err := w.Await(t.Context(), Phase{Until: lineIs("last words")}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(g.PID(), syscall.SIGSEGV); err != nil {
		t.Fatal(err)
	}
	_, err := w.Await(t.Context(), Phase{Name: "test"})
	e := wantKind(t, err, Died)
	if n := len(e.Last); n == 0 || e.Last[n-1].Text != "last words" {
		t.Errorf("last lines %v; want last words", e.Last)
	}
	wantKind(t, g.Wait(), Died)
}

func TestStartRefused(t *testing.T) {
	tmp := privateTemp(t)
	for name, tt := range map[string]struct {
		change func(*Machine)
		want   string // part of the message
	}{
		"option":  {func(m *Machine) { m.Extra = []string{"-no-such-option"} }, "-no-such-option"},
		"device":  {func(m *Machine) { m.Extra = []string{"-device", "no-such-device"} }, "no-such-device"},
		"machine": {func(m *Machine) { m.Type = "no-such-machine" }, "unsupported machine type"},
		"kernel":  {func(m *Machine) { m.Kernel = "/no/such/kernel" }, "/no/such/kernel"},
		"disk":    {func(m *Machine) { m.Disks = []Disk{{Path: "/no/such/disk"}} }, "/no/such/disk"},
	} {
		t.Run(name, func(t *testing.T) {
			m := Machine{Binary: qemuBinary(t), Type: "pc"}
			tt.change(&m)
			_, err := Start(t.Context(), m, Options{})
			e := wantKind(t, err, Refused)
			if !strings.Contains(e.Error(), tt.want) {
				t.Errorf("error %q; want it to contain %q", e, tt.want)
			}
			if len(e.Argv) == 0 || e.Argv[0] != m.Binary {
				t.Errorf("argv = %q; want QEMU's", e.Argv)
			}
		})
	}
	wantEmpty(t, tmp)
}

func TestStartNoBinary(t *testing.T) {
	tmp := privateTemp(t)
	_, err := Start(t.Context(), Machine{Binary: "/no/such/qemu"}, Options{})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Start = %v; want ErrNotExist", err)
	}
	wantEmpty(t, tmp)
}

// TestStartCancel ends the context while QEMU hangs before its first connection.
func TestStartCancel(t *testing.T) {
	tmp := privateTemp(t)
	dir := t.TempDir()
	pidFile, binary := filepath.Join(dir, "pid"), filepath.Join(dir, "qemu")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\necho $$ >"+pidFile+".new; mv "+pidFile+".new "+pidFile+"; sleep 1000; :\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(pidFile); err == nil {
				cancel()
			}
		}
	}()
	begin := time.Now()
	_, err := Start(ctx, Machine{Binary: binary}, Options{})
	if e := wantKind(t, err, Killed); !errors.Is(e, context.Canceled) {
		t.Errorf("cause = %v; want context.Canceled", e.Err)
	}
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("Start returned after %v", d)
	}
	var pid int
	b, err := os.ReadFile(pidFile)
	if err == nil {
		err = json.Unmarshal(b, &pid)
	}
	if err != nil {
		t.Fatal(err)
	}
	wantGone(t, pid)
	wantEmpty(t, tmp)
}

// TestGuestSlowReader checks that a live console that accepts nothing holds up
// neither the guest nor Wait.
func TestGuestSlowReader(t *testing.T) {
	stuck := make(chan struct{})
	defer close(stuck)
	g := start(t, testMachine(t, repeat(1000, print("0123456789012\r\n")), reset()), Options{ConsoleTo: stuckWriter(stuck)})
	if err := g.Wait(); err != nil {
		t.Errorf("Wait: %v", err)
	}
	if got := len(g.Console().Lines()); got != 1000 {
		t.Errorf("%d console lines; want 1000", got)
	}
}

// stuckWriter is a writer whose Write returns when the channel is closed.
type stuckWriter chan struct{}

func (w stuckWriter) Write(p []byte) (int, error) {
	<-w
	return len(p), nil
}

func TestFindBinaryMissing(t *testing.T) {
	if _, err := os.Stat("/usr/libexec/qemu-kvm"); err == nil {
		return // this system has it outside of the PATH
	}
	t.Setenv("PATH", t.TempDir())
	if path, err := FindBinary(); err == nil || !strings.Contains(err.Error(), Binary) {
		t.Errorf("FindBinary() = %q, %v; want an error naming %s", path, err, Binary)
	}
}
