package qemu

import (
	"context"
	"sync"

	"github.com/digitalocean/go-qemu/qmp"
)

// eventBacklog is the number of events kept for a subscriber that is behind.
const eventBacklog = 1024

// Events subscribes to QEMU's events from now on. The channel is closed when
// ctx ends, or when the connection has ended and its last event was received.
// A subscriber that falls far behind loses its oldest events.
func (m *Monitor) Events(ctx context.Context) (<-chan qmp.Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &subscription{changed: make(chan struct{}, 1)}
	select {
	case <-m.done:
		return nil, m.disconnected()
	default:
		m.subs[s] = struct{}{}
	}
	out := make(chan qmp.Event)
	go func() {
		defer close(out)
		defer func() {
			m.mu.Lock()
			delete(m.subs, s)
			m.mu.Unlock()
		}()
		s.pump(ctx, out)
	}()
	return out, nil
}

// subscription is a queue whose writer never waits.
type subscription struct {
	changed chan struct{} // holds a token when there is something new

	mu    sync.Mutex
	queue []qmp.Event
	ended bool
}

func (s *subscription) push(e qmp.Event) {
	s.mu.Lock()
	if len(s.queue) == eventBacklog {
		s.queue = append(s.queue[:0], s.queue[1:]...)
	}
	s.queue = append(s.queue, e)
	s.mu.Unlock()
	s.wake()
}

func (s *subscription) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.wake()
}

func (s *subscription) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// take empties the queue.
func (s *subscription) take() (events []qmp.Event, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events, s.queue = s.queue, nil
	return events, s.ended
}

// pump sends everything pushed to out until end was called or ctx ended.
func (s *subscription) pump(ctx context.Context, out chan<- qmp.Event) {
	for {
		events, ended := s.take()
		for _, e := range events {
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		}
		if ended {
			return
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			return
		}
	}
}
