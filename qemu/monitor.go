package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
	"github.com/digitalocean/go-qemu/qmp/raw"
)

// Monitor is a QMP connection. It is a qmp.Monitor, so that go-qemu's
// generated commands run over it (see Raw), and differs from go-qemu's own
// SocketMonitor in that replies may be of any length and are matched with
// their commands by id, that waiting ends with a context, that events nobody
// reads hold up nothing, and that errors keep their class.
//
// A Monitor is safe for concurrent use.
type Monitor struct {
	conn net.Conn

	version qmp.Version
	done    chan struct{} // closed when nothing more will be received
	err     error         // why; read after done

	sendMu sync.Mutex // one command line at a time

	mu      sync.Mutex
	lastID  uint64
	pending []*call // in the order sent
	subs    map[*subscription]struct{}
}

// call is a command that waits for its reply.
type call struct {
	id    string
	reply chan []byte // buffered; receives the reply's line
}

// CommandError is QEMU's refusal of a command.
type CommandError struct {
	Command string // "query-status"
	Class   string // QMP's error class: "GenericError", "CommandNotFound", …
	Desc    string
}

func (e *CommandError) Error() string { return fmt.Sprintf("qmp %s: %s", e.Command, e.Desc) }

// ErrDisconnected is wrapped by the errors of commands that can no longer get
// a reply, because QEMU ended or Disconnect was called.
var ErrDisconnected = errors.New("monitor disconnected")

const (
	// handshakeTimeout bounds Connect; QEMU answers within milliseconds.
	handshakeTimeout = 10 * time.Second
	// runTimeout bounds Run, whose signature has no context.
	runTimeout = time.Minute
	// maxReply bounds one line from QEMU, in bytes. The longest known reply,
	// to query-qmp-schema, has 0.2 MB.
	maxReply = 64 << 20
)

// NewMonitor returns a Monitor over conn, which it owns from then on. Connect
// must come next.
func NewMonitor(conn net.Conn) *Monitor {
	return &Monitor{conn: conn, done: make(chan struct{}), subs: make(map[*subscription]struct{})}
}

// Connect reads QEMU's greeting and negotiates capabilities.
func (m *Monitor) Connect() error {
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	return m.ConnectContext(ctx)
}

// ConnectContext is Connect bounded by ctx. After an error the connection is
// closed.
func (m *Monitor) ConnectContext(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = m.conn.Close() })
	r := bufio.NewReaderSize(m.conn, 64<<10)
	line, err := readLine(r)
	if !stop() {
		err = context.Cause(ctx)
	}
	var greeting struct {
		QMP *struct {
			Version qmp.Version `json:"version"`
		} `json:"QMP"`
	}
	if err == nil {
		err = json.Unmarshal(line, &greeting)
	}
	if err == nil && greeting.QMP == nil {
		err = fmt.Errorf("not a greeting: %.80q", line)
	}
	if err != nil {
		_ = m.conn.Close()
		m.err = err
		close(m.done)
		return fmt.Errorf("qmp greeting: %w", err)
	}
	m.version = greeting.QMP.Version
	go m.receive(r)
	if _, err := m.run(ctx, []byte(`{"execute":"qmp_capabilities"}`)); err != nil {
		_ = m.Disconnect()
		return err
	}
	return nil
}

// Disconnect closes the connection. Commands under way fail with
// ErrDisconnected and event channels are closed.
func (m *Monitor) Disconnect() error { return m.conn.Close() }

// Version returns QEMU's version from the greeting.
func (m *Monitor) Version() qmp.Version { return m.version }

// Done is closed when the connection has ended and every event has been handed
// to its subscriptions.
func (m *Monitor) Done() <-chan struct{} { return m.done }

// Raw returns go-qemu's generated commands over m, each bounded by ctx.
func (m *Monitor) Raw(ctx context.Context) *raw.Monitor {
	return raw.NewMonitor(bound{m, func(command []byte) ([]byte, error) { return m.run(ctx, command) }})
}

// bound is a Monitor whose Run is another.
type bound struct {
	*Monitor
	runFunc func([]byte) ([]byte, error)
}

func (b bound) Run(command []byte) ([]byte, error) { return b.runFunc(command) }

// Do runs a command for which Raw has no method, for at most as long as ctx.
// args and result may be nil. QEMU's refusal is a *CommandError.
func (m *Monitor) Do(ctx context.Context, name string, args, result any) error {
	command, err := json.Marshal(qmp.Command{Execute: name, Args: args})
	if err != nil {
		return fmt.Errorf("qmp %s: %w", name, err)
	}
	line, err := m.run(ctx, command)
	if err != nil || result == nil {
		return err
	}
	var reply struct{ Return any }
	reply.Return = result
	if err := json.Unmarshal(line, &reply); err != nil {
		return fmt.Errorf("qmp %s: decode the reply: %w", name, err)
	}
	return nil
}

// Run sends a command, a JSON object, and returns the line of the reply, for
// at most a minute. QEMU's refusal is a *CommandError.
func (m *Monitor) Run(command []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	defer cancel()
	return m.run(ctx, command)
}

func (m *Monitor) run(ctx context.Context, command []byte) ([]byte, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(command, &object); err != nil {
		return nil, fmt.Errorf("qmp command %.80q: %w", command, err)
	}
	var name string
	if err := json.Unmarshal(object["execute"], &name); err != nil {
		return nil, fmt.Errorf(`qmp command %.80q: "execute": %w`, command, err)
	}
	line, err := m.exchange(ctx, object)
	if err != nil {
		return nil, fmt.Errorf("qmp %s: %w", name, err)
	}
	var reply struct {
		Error *struct{ Class, Desc string }
	}
	if err := json.Unmarshal(line, &reply); err != nil {
		return nil, fmt.Errorf("qmp %s: decode the reply: %w", name, err)
	}
	if reply.Error != nil {
		return nil, &CommandError{Command: name, Class: reply.Error.Class, Desc: reply.Error.Desc}
	}
	return line, nil
}

// exchange sends object with an id of its own and waits for the reply.
func (m *Monitor) exchange(ctx context.Context, object map[string]json.RawMessage) ([]byte, error) {
	c := &call{reply: make(chan []byte, 1)}
	defer m.forget(c)

	if err := m.send(ctx, c, object); err != nil {
		return nil, err
	}
	select {
	case line := <-c.reply:
		return line, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-m.done:
	}
	select {
	case line := <-c.reply: // it came with the last bytes
		return line, nil
	default:
		return nil, m.disconnected()
	}
}

func (m *Monitor) send(ctx context.Context, c *call, object map[string]json.RawMessage) error {
	m.sendMu.Lock()
	defer m.sendMu.Unlock()
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}

	m.mu.Lock()
	m.lastID++
	c.id = strconv.FormatUint(m.lastID, 10)
	m.pending = append(m.pending, c)
	m.mu.Unlock()

	object["id"] = json.RawMessage(strconv.Quote(c.id))
	line, err := json.Marshal(object)
	if err != nil {
		return err
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = m.conn.SetWriteDeadline(time.Unix(1, 0))
		close(interrupted)
	})
	_, err = m.conn.Write(append(line, '\n'))
	if !stop() {
		<-interrupted
		_ = m.conn.SetWriteDeadline(time.Time{})
	}
	if err == nil {
		return nil
	}
	// A command cut short would spoil the next one, so that is the end of the
	// connection. Unless QEMU ended it happens only if QEMU does not read.
	_ = m.conn.Close()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return fmt.Errorf("%w: %w", ErrDisconnected, err)
}

// forget drops c, whose reply came or will not be waited for.
func (m *Monitor) forget(c *call) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, p := range m.pending {
		if p == c {
			m.pending = append(m.pending[:i], m.pending[i+1:]...)
			return
		}
	}
}

func (m *Monitor) disconnected() error {
	if m.err != nil {
		return fmt.Errorf("%w: %w", ErrDisconnected, m.err)
	}
	return ErrDisconnected
}

// receive sorts QEMU's lines into replies and events until the connection ends.
func (m *Monitor) receive(r *bufio.Reader) {
	for {
		line, err := readLine(r)
		if err != nil {
			m.end(err)
			return
		}
		var head struct {
			ID    string `json:"id"`
			Event string `json:"event"`
		}
		if err := json.Unmarshal(line, &head); err != nil {
			m.end(fmt.Errorf("not a QMP message: %.80q: %w", line, err))
			return
		}
		if head.Event == "" {
			m.deliver(head.ID, line)
			continue
		}
		var e qmp.Event
		if err := json.Unmarshal(line, &e); err != nil {
			m.end(fmt.Errorf("event %s: %w", head.Event, err))
			return
		}
		m.mu.Lock()
		for s := range m.subs {
			s.push(e)
		}
		m.mu.Unlock()
	}
}

// deliver hands a reply to its command. QEMU leaves the id out when it could
// not parse the command; as it answers in order that is the oldest one. A
// reply to a command that nobody waits for any more is dropped.
func (m *Monitor) deliver(id string, line []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, c := range m.pending {
		if c.id == id || id == "" {
			m.pending = append(m.pending[:i], m.pending[i+1:]...)
			c.reply <- line
			return
		}
	}
}

func (m *Monitor) end(err error) {
	_ = m.conn.Close()
	m.mu.Lock()
	m.err = err
	for s := range m.subs {
		s.end()
	}
	close(m.done)
	m.mu.Unlock()
}

// readLine reads up to and including the next newline, into memory of its own.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
		if len(line) > maxReply {
			return nil, fmt.Errorf("a line of more than %d bytes", maxReply)
		}
	}
}

var _ qmp.Monitor = (*Monitor)(nil)
