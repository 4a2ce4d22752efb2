//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// blockSize is how much is written to a disk at once. Each write is a round
// trip through the emulator, which is slow where its host is busy.
const blockSize = 4 << 20

// disk is a raw disk written from its start, past the page cache. While one
// buffer is on its way, the other is being filled.
type disk struct {
	fd     int
	path   string
	full   chan []byte
	empty  chan []byte
	result chan error
	buf    []byte // the first buffer to fill
}

// openDisk opens the virtio disk with the given serial number, which may take
// a moment to appear after its driver was loaded.
func (a *agent) openDisk(serial string) (*disk, error) {
	name, err := findDisk("/sys/block", serial, 5*time.Second)
	if err != nil {
		return nil, err
	}
	path := "/dev/" + name
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	// In a RAM file system an open for writing would make a file of a device
	// that is not there, and the dump would go nowhere.
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return nil, fmt.Errorf("%s is not a block device (mode %#o)", path, st.Mode)
	}
	return a.startDisk(fd, path)
}

// startDisk starts writing what put gets to the file fd, which it owns.
func (a *agent) startDisk(fd int, path string) (*disk, error) {
	mem, err := unix.Mmap(-1, 0, 2*blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("allocate buffers for %s: %w", path, err)
	}
	d := &disk{
		fd: fd, path: path,
		full: make(chan []byte), empty: make(chan []byte, 1), result: make(chan error, 1),
		buf: mem[:blockSize],
	}
	d.empty <- mem[blockSize:]
	go func() {
		defer a.recover()
		d.result <- d.writeAll()
	}()
	return d, nil
}

// put is a wire.Put.
func (d *disk) put(block []byte) ([]byte, error) {
	select {
	case d.full <- block:
	case err := <-d.result:
		return nil, err
	}
	select {
	case next := <-d.empty:
		return next, nil
	case err := <-d.result:
		return nil, err
	}
}

// writeAll writes the blocks that come from put. It returns after the first
// error, or after a flush when there are no more.
func (d *disk) writeAll() error {
	for b := range d.full {
		for rest := b; len(rest) > 0; {
			n, err := unix.Write(d.fd, rest)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return fmt.Errorf("write to %s: %w", d.path, err)
			}
			rest = rest[n:]
		}
		d.empty <- b[:blockSize]
	}
	if err := unix.Fsync(d.fd); err != nil {
		return fmt.Errorf("flush %s: %w", d.path, err)
	}
	return nil
}

// close waits until everything is on the disk.
func (d *disk) close() error {
	close(d.full)
	if err := <-d.result; err != nil {
		return err
	}
	return unix.Close(d.fd)
}

// findDisk returns the name of the virtio disk with the serial number, of those
// that dir, /sys/block, lists.
func findDisk(dir, serial string, patience time.Duration) (string, error) {
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		var seen []string
		names, err := os.ReadDir(dir)
		if err != nil {
			return "", err
		}
		for _, n := range names {
			text, err := os.ReadFile(filepath.Join(dir, n.Name(), "serial"))
			if err != nil {
				continue // not a virtio disk
			}
			got := strings.TrimSpace(string(text))
			if got == serial {
				return n.Name(), nil
			}
			seen = append(seen, n.Name()+"="+got)
		}
		if time.Now().After(end) {
			return "", fmt.Errorf("no disk with serial number %q, only %q: is its driver among the modules?", serial, seen)
		}
	}
}
