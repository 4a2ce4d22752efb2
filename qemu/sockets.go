package qemu

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// maxSocketPath is the size in bytes of sockaddr_un.sun_path, less its final NUL.
const maxSocketPath = 107

// sockets are Unix sockets in a private directory, each waiting for one
// connection.
type sockets struct {
	dir       string
	listeners map[string]net.Listener
}

// listen makes one socket for each name.
func listen(names ...string) (_ *sockets, err error) {
	const pattern, longest = "qemu-*", "/qemu-1234567890/console"
	parent := os.TempDir()
	if len(parent)+len(longest) > maxSocketPath {
		parent = "/tmp"
	}
	dir, err := os.MkdirTemp(parent, pattern)
	if err != nil {
		return nil, fmt.Errorf("make a directory for qemu's sockets: %w", err)
	}
	s := &sockets{dir: dir, listeners: make(map[string]net.Listener)}
	for _, name := range names {
		l, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			s.close()
			return nil, err
		}
		s.listeners[name] = l
	}
	return s, nil
}

// accept waits for the connection to the socket called name. When ctx ends
// first, all sockets are closed.
func (s *sockets) accept(ctx context.Context, name string) (net.Conn, error) {
	stop := context.AfterFunc(ctx, s.close)
	defer stop()
	conn, err := s.listeners[name].Accept()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("wait for qemu to connect its %s: %w", name, err)
	}
	return conn, nil
}

// close ends listening and removes the directory. Connections live on.
func (s *sockets) close() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
	_ = os.RemoveAll(s.dir)
}
