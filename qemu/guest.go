package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/digitalocean/go-qemu/qmp"

	"crashlab/internal/execx"
)

// Options are the parts of running a Machine that the guest does not see.
type Options struct {
	Log        *slog.Logger // nil: discard
	ConsoleLog string       // file that gets every console line with its time; empty: none
	ConsoleTo  io.Writer    // gets the same lines live, and may be slow; nil: none
}

// Guest is a running, or ended, Machine.
type Guest struct {
	argv   []string
	log    *slog.Logger
	proc   *execx.Process
	stderr *tail
	kill   context.CancelCauseFunc

	console    *Console
	consoleLog *os.File // nil: none
	control    net.Conn
	monitor    *Monitor
	started    time.Time // when the first instruction was about to be executed

	halted  chan string   // receives the run state in which QEMU stopped the machine; buffered
	watched chan struct{} // closed after the last event
	done    chan struct{} // closed when everything is over
	err     error         // of Wait; read after done
	endedAt time.Duration // read after done

	mu     sync.Mutex
	reason string // of the last SHUTDOWN event
}

const (
	// connectTimeout bounds QEMU's way from exec to its last socket, which
	// takes 0.1 s. The guest does not run yet.
	connectTimeout = 30 * time.Second
	// drainTimeout bounds what remains to be done at QEMU's end.
	drainTimeout = 2 * time.Second
	// statusTimeout bounds the question how the machine is.
	statusTimeout = 5 * time.Second
	// lastLines is how many console lines an Error carries.
	lastLines = 40
)

// ErrKilled is the cause of an Error of Kind Killed after a call of Kill.
var ErrKilled = errors.New("kill requested")

// Start runs m until the guest ends, ctx ends or Kill is called. When it
// returns, the guest has begun to run. If QEMU was started and did not get
// that far, the error is an *Error of Kind Refused or Killed.
func Start(ctx context.Context, m Machine, o Options) (*Guest, error) {
	s, err := listen("console", "control", "qmp")
	if err != nil {
		return nil, err
	}
	defer s.close() // once connected, nobody needs the names any more
	m.Sockets = s.dir

	g := &Guest{
		argv:    m.Argv(),
		log:     o.Log,
		stderr:  &tail{max: 64 << 10},
		halted:  make(chan string, 1),
		watched: make(chan struct{}),
		done:    make(chan struct{}),
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	g.console = newConsole(io.Discard, g.uptime)
	if o.ConsoleLog != "" {
		if g.consoleLog, err = os.Create(o.ConsoleLog); err != nil {
			return nil, fmt.Errorf("create the console log: %w", err)
		}
		g.console.log = g.consoleLog
	}

	ctx, g.kill = context.WithCancelCause(ctx)
	g.log.DebugContext(ctx, "start qemu", "layer", "qemu", "command", execx.Quote(g.argv))
	g.proc, err = execx.Start(ctx, execx.Cmd{Argv: g.argv, Log: g.stderr})
	if err == nil {
		err = g.connect(ctx, s)
		if err != nil {
			err = g.abandon(ctx, err)
		}
	}
	if err != nil {
		g.release()
		return nil, err
	}
	go g.finish(ctx, o.ConsoleTo)
	return g, nil
}

// connect takes QEMU's connections and lets the guest go.
func (g *Guest) connect(ctx context.Context, s *sockets) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, errors.New("qemu does not start up"))
	defer cancel()
	alive, died := context.WithCancel(ctx)
	defer died()
	go func() { // no use in listening for a dead QEMU
		select {
		case <-g.proc.Done():
			died()
		case <-alive.Done():
		}
	}()
	console, err := s.accept(alive, "console")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = console.Close()
		}
	}()
	if g.control, err = s.accept(alive, "control"); err != nil {
		return err
	}
	conn, err := s.accept(alive, "qmp")
	if err != nil {
		return err
	}
	g.monitor = NewMonitor(conn)
	if err := g.monitor.ConnectContext(ctx); err != nil {
		return err
	}
	events, err := g.monitor.Events(context.Background())
	if err != nil {
		return err
	}
	g.started = time.Now()
	go g.console.read(console)
	go g.watch(events)
	// A short guest may be over before QEMU can answer, which is no failure.
	if err := g.monitor.Raw(ctx).Cont(); err != nil && !errors.Is(err, ErrDisconnected) {
		return err
	}
	return nil
}

// abandon ends a QEMU that did not come up, because of cause, and says why.
func (g *Guest) abandon(ctx context.Context, cause error) error {
	select {
	case <-g.proc.Done():
	case <-ctx.Done():
	case <-time.After(drainTimeout): // or it is about to exit with a message
	}
	kind := Refused
	if ctx.Err() != nil {
		kind, cause = Killed, context.Cause(ctx)
	}
	g.kill(ErrKilled)
	if err := g.proc.Wait(); kind == Refused && err != nil && !errors.Is(err, context.Canceled) {
		cause = err
	}
	if g.control != nil {
		_ = g.control.Close()
	}
	return &Error{Kind: kind, Argv: g.argv, Stderr: g.stderr.String(), Err: cause}
}

// release frees what the guest had on our side, except for the control
// connection, which is its user's.
func (g *Guest) release() {
	g.kill(nil)
	if g.monitor != nil {
		_ = g.monitor.Disconnect()
	}
	if g.consoleLog != nil {
		_ = g.consoleLog.Close()
	}
}

// finish waits for QEMU's end, then for all that it said to arrive.
func (g *Guest) finish(ctx context.Context, consoleTo io.Writer) {
	liveCtx, stopLive := context.WithCancel(context.Background())
	live := make(chan struct{})
	go func() {
		defer close(live)
		if consoleTo == nil {
			return
		}
		for line := range g.console.Follow(liveCtx) {
			if _, err := fmt.Fprintln(consoleTo, line); err != nil {
				return
			}
		}
	}()

	err := g.proc.Wait()
	g.endedAt = g.uptime()
	drain, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	for _, c := range []<-chan struct{}{g.monitor.Done(), g.watched, g.console.Done(), live} {
		select {
		case <-c:
		case <-drain.Done():
		}
	}
	stopLive()

	kind := Died
	if ctx.Err() != nil {
		kind, err = Killed, context.Cause(ctx)
	}
	if err != nil {
		g.err = g.failure(kind, g.endedAt, err)
	} else if err := g.console.LogErr(); err != nil {
		g.err = fmt.Errorf("write the console log: %w", err)
	}
	g.release()
	g.log.Debug("qemu ended", "layer", "qemu", "reason", g.Reason(), "err", g.err)
	close(g.done)
}

// watch notes why the guest ended or stopped.
func (g *Guest) watch(events <-chan qmp.Event) {
	defer close(g.watched)
	for e := range events {
		g.log.Debug("event", "layer", "qemu", "event", e.Event, "data", e.Data)
		switch e.Event {
		case "SHUTDOWN":
			reason, _ := e.Data["reason"].(string)
			g.mu.Lock()
			g.reason = reason
			g.mu.Unlock()
		case "STOP":
			// Stopping is not a failure in itself: a dump or a migration does
			// it too.
			status, err := g.Status(context.Background())
			if err != nil {
				continue
			}
			switch status {
			case "internal-error", "io-error", "guest-panicked", "watchdog":
				select {
				case g.halted <- status:
				default:
				}
			}
		}
	}
}

// failure returns an Error with what can be seen now.
func (g *Guest) failure(kind Kind, at time.Duration, cause error) *Error {
	return &Error{
		Kind:   kind,
		At:     at,
		Silent: at - g.console.lastHeard(),
		Argv:   g.argv,
		Stderr: g.stderr.String(),
		Last:   g.console.Tail(lastLines),
		Err:    cause,
	}
}

func (g *Guest) uptime() time.Duration { return time.Since(g.started) }

// Wait waits until QEMU has ended and everything it said was received. It
// returns nil if the guest ended itself (see Reason), or an *Error of Kind
// Died or Killed, or the error of writing the console log.
func (g *Guest) Wait() error { <-g.done; return g.err }

// Done is closed when Wait would return.
func (g *Guest) Done() <-chan struct{} { return g.done }

// Kill ends QEMU at once and waits for it.
func (g *Guest) Kill() {
	g.kill(ErrKilled)
	<-g.done
}

// Reason returns QMP's reason of the guest's end: "guest-shutdown",
// "guest-reset" (with Machine.NoReboot), … It is empty while the guest runs
// and if QEMU could not tell.
func (g *Guest) Reason() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reason
}

// PID returns QEMU's process id.
func (g *Guest) PID() int { return g.proc.PID() }

// Argv returns QEMU's arguments. To run the guest by hand take the Argv of the
// Machine given to Start.
func (g *Guest) Argv() []string { return g.argv }

// Stderr returns the last of what QEMU itself said, such as its warnings.
func (g *Guest) Stderr() string { return g.stderr.String() }

// Console returns the guest's ttyS0.
func (g *Guest) Console() *Console { return g.console }

// Control returns the connection to the guest's ttyS1. It reads io.EOF when
// QEMU has ended. The caller reads it, since otherwise the guest's writes get
// stuck after some 100 KB, and closes it.
func (g *Guest) Control() net.Conn { return g.control }

// QMP returns the connection to QEMU's monitor.
func (g *Guest) QMP() *Monitor { return g.monitor }

// Status returns QMP's run state: "running", "paused", "internal-error",
// "shutdown", …
func (g *Guest) Status(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	info, err := g.monitor.Raw(ctx).QueryStatus()
	if err != nil {
		return "", err
	}
	return info.Status.String(), nil
}
