package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
)

const (
	greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}`
	event    = `{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESUME"}`
)

// fakeQEMU is QEMU's end of a monitor connection.
type fakeQEMU struct {
	conn net.Conn
	r    *bufio.Reader
}

// command is what a Monitor sends.
type command struct {
	Execute string `json:"execute"`
	ID      string `json:"id"`
}

func (f *fakeQEMU) next() (c command, err error) {
	line, err := f.r.ReadBytes('\n')
	if err != nil {
		return c, err
	}
	err = json.Unmarshal(line, &c)
	return c, err
}

func (f *fakeQEMU) send(format string, a ...any) { fmt.Fprintf(f.conn, format+"\r\n", a...) }

// connect returns a connected Monitor. Its QEMU answers the handshake and is
// then in the hands of serve, which runs beside the test.
func connect(t *testing.T, serve func(*fakeQEMU)) *Monitor {
	t.Helper()
	ours, theirs := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer theirs.Close()
		f := &fakeQEMU{theirs, bufio.NewReader(theirs)}
		f.send(greeting)
		c, err := f.next()
		if err != nil || c.Execute != "qmp_capabilities" {
			t.Errorf("first command %q, %v; want qmp_capabilities", c.Execute, err)
			return
		}
		f.send(event) // must not be taken for the reply
		f.send(`{"return": {}, "id": %q}`, c.ID)
		serve(f)
	})
	m := NewMonitor(ours)
	if err := m.Connect(); err != nil {
		t.Fatalf("Connect: %v", err)
	}
	t.Cleanup(func() {
		_ = m.Disconnect()
		wg.Wait()
	})
	return m
}

// answer replies to every command until the connection ends.
func answer(f *fakeQEMU, reply func(command) string) {
	for {
		c, err := f.next()
		if err != nil {
			return
		}
		f.send("%s", reply(c))
	}
}

func echo(c command) string {
	return fmt.Sprintf(`{"return": {"command": %q, "id": %q}, "id": %q}`, c.Execute, c.ID, c.ID)
}

func TestMonitorVersion(t *testing.T) {
	m := connect(t, func(*fakeQEMU) {})
	if got := m.Version().String(); got != "7.2.22" {
		t.Errorf("Version() = %s; want 7.2.22", got)
	}
}

func TestMonitorGeneratedCommand(t *testing.T) {
	m := connect(t, func(f *fakeQEMU) {
		answer(f, func(c command) string {
			return fmt.Sprintf(`{"return": {"status": "internal-error", "singlestep": false, "running": false}, "id": %q}`, c.ID)
		})
	})
	info, err := m.Raw(context.Background()).QueryStatus()
	if got := info.Status.String(); err != nil || got != "internal-error" {
		t.Errorf("QueryStatus() = %s, %v; want internal-error", got, err)
	}
}

func TestMonitorLongReply(t *testing.T) {
	want := strings.Repeat("x", 300<<10)
	m := connect(t, func(f *fakeQEMU) {
		answer(f, func(c command) string { return fmt.Sprintf(`{"return": %q, "id": %q}`, want, c.ID) })
	})
	for range 2 {
		var got string
		if err := m.Do(context.Background(), "query-qmp-schema", nil, &got); err != nil || got != want {
			t.Fatalf("Do = %d bytes, %v; want %d", len(got), err, len(want))
		}
	}
}

func TestMonitorTooLongReply(t *testing.T) {
	m := connect(t, func(f *fakeQEMU) {
		part := []byte(strings.Repeat("x", 1<<20))
		for {
			if _, err := f.conn.Write(part); err != nil {
				return
			}
		}
	})
	if err := m.Do(context.Background(), "query-status", nil, nil); !errors.Is(err, ErrDisconnected) {
		t.Errorf("Do = %v; want ErrDisconnected", err)
	}
}

func TestMonitorRepliesKeepTheirMemory(t *testing.T) {
	m := connect(t, func(f *fakeQEMU) { answer(f, echo) })
	first, err := m.Run([]byte(`{"execute": "first"}`))
	if err != nil {
		t.Fatal(err)
	}
	before := string(first)
	for i := range 20 {
		if _, err := m.Run(fmt.Appendf(nil, `{"execute": "other%d"}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	if string(first) != before {
		t.Errorf("first reply reads %q after 20 more; want %q", first, before)
	}
}

func TestMonitorConcurrentCommands(t *testing.T) {
	m := connect(t, func(f *fakeQEMU) {
		var held []command // answered in pairs, the later one first
		for {
			c, err := f.next()
			if err != nil {
				return
			}
			f.send(event)
			if held = append(held, c); len(held) == 2 {
				f.send("%s", echo(held[1]))
				f.send("%s", echo(held[0]))
				held = nil
			}
		}
	})
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			name := fmt.Sprintf("command%d", i)
			var got struct{ Command string }
			if err := m.Do(context.Background(), name, nil, &got); err != nil || got.Command != name {
				t.Errorf("Do(%s) = reply to %s, %v", name, got.Command, err)
			}
		})
	}
	wg.Wait()
}

func TestMonitorErrorClass(t *testing.T) {
	m := connect(t, func(f *fakeQEMU) {
		answer(f, func(c command) string {
			if c.Execute == "unparsable" { // QEMU then has no id to repeat
				return `{"error": {"class": "GenericError", "desc": "JSON parse error"}}`
			}
			return fmt.Sprintf(`{"error": {"class": "CommandNotFound", "desc": "The command %s has not been found"}, "id": %q}`, c.Execute, c.ID)
		})
	})
	for name, want := range map[string]CommandError{
		"frobnicate": {"frobnicate", "CommandNotFound", "The command frobnicate has not been found"},
		"unparsable": {"unparsable", "GenericError", "JSON parse error"},
	} {
		err := m.Do(context.Background(), name, nil, nil)
		if got, ok := errors.AsType[*CommandError](err); !ok || *got != want {
			t.Errorf("Do(%s) = %#v; want %#v", name, err, want)
		}
	}
}

func TestMonitorDeadSocket(t *testing.T) {
	m := connect(t, func(f *fakeQEMU) { _, _ = f.next() }) // takes a command to its grave
	for _, name := range []string{"pending", "later"} {
		if err := m.Do(context.Background(), name, nil, nil); !errors.Is(err, ErrDisconnected) {
			t.Errorf("Do(%s) = %v; want ErrDisconnected", name, err)
		}
	}
	if _, err := m.Events(context.Background()); !errors.Is(err, ErrDisconnected) {
		t.Errorf("Events = %v; want ErrDisconnected", err)
	}
}

func TestMonitorGarbage(t *testing.T) {
	m := connect(t, func(f *fakeQEMU) {
		_, _ = f.next()
		f.send("qemu: warning: something")
		_, _ = f.next()
	})
	if err := m.Do(context.Background(), "query-status", nil, nil); !errors.Is(err, ErrDisconnected) {
		t.Errorf("Do = %v; want ErrDisconnected", err)
	}
}

func TestMonitorLateReply(t *testing.T) {
	canceled := make(chan struct{})
	m := connect(t, func(f *fakeQEMU) {
		slow, _ := f.next()
		<-canceled
		f.send("%s", echo(slow))
		answer(f, echo)
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := m.Do(ctx, "slow", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Do(slow) = %v; want DeadlineExceeded", err)
	}
	close(canceled)
	var got struct{ Command string }
	if err := m.Do(context.Background(), "next", nil, &got); err != nil || got.Command != "next" {
		t.Errorf("Do(next) = reply to %q, %v", got.Command, err)
	}
}

func TestMonitorDeafQEMU(t *testing.T) {
	hold := make(chan struct{})
	m := connect(t, func(*fakeQEMU) { <-hold }) // does not read: the write cannot finish
	defer close(hold)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := m.Do(ctx, "query-status", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Do = %v; want DeadlineExceeded", err)
	}
}

func TestMonitorConnectFails(t *testing.T) {
	for name, first := range map[string]string{
		"silent":       "",
		"not QMP":      "SSH-2.0-OpenSSH\n",
		"not greeting": event + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer theirs.Close()
			go func() { _, _ = theirs.Write([]byte(first)) }()
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			m := NewMonitor(ours)
			err := m.ConnectContext(ctx)
			if err == nil {
				t.Fatal("ConnectContext succeeded")
			}
			if got, want := errors.Is(err, context.DeadlineExceeded), first == ""; got != want {
				t.Errorf("ConnectContext = %v; deadline exceeded %v, want %v", err, got, want)
			}
			if err := m.Do(context.Background(), "query-status", nil, nil); !errors.Is(err, ErrDisconnected) {
				t.Errorf("Do after that = %v; want ErrDisconnected", err)
			}
		})
	}
}

// TestMonitorEventsUnread checks that a subscriber which does not read holds
// up neither commands nor the other subscriber, and still gets the newest.
func TestMonitorEventsUnread(t *testing.T) {
	const n = 3 * eventBacklog
	m := connect(t, func(f *fakeQEMU) {
		c, _ := f.next()
		for i := range n {
			f.send(`{"event": "E%d", "timestamp": {}}`, i)
		}
		f.send("%s", echo(c))
		answer(f, echo)
	})
	unread, err := m.Events(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		if err := m.Do(context.Background(), name, nil, nil); err != nil {
			t.Fatalf("Do(%s): %v", name, err)
		}
	}
	_ = m.Disconnect()
	var last qmp.Event
	received := 0
	for e := range unread { // ends because the connection did
		last, received = e, received+1
	}
	if want := fmt.Sprintf("E%d", n-1); last.Event != want {
		t.Errorf("last event = %s; want %s", last.Event, want)
	}
	if received < eventBacklog || received > n {
		t.Errorf("received %d events; want %d to %d", received, eventBacklog, n)
	}
}

func TestMonitorEventsEndWithContext(t *testing.T) {
	m := connect(t, func(f *fakeQEMU) { answer(f, echo) })
	ctx, cancel := context.WithCancel(context.Background())
	events, err := m.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	for range events {
	}
	if err := m.Do(context.Background(), "query-status", nil, nil); err != nil {
		t.Errorf("Do: %v", err)
	}
}
