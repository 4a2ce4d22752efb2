//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"crashlab/lab/wire"
	"golang.org/x/sys/unix"
)

// child is what a spawned process does: it takes a name, makes one system call
// and exits with its error number.
type child struct {
	name [16]byte
	spin bool // instead
	nr   uintptr
	arg  [3]uintptr
}

func newChild(name string, nr uintptr, args ...uintptr) *child {
	c := &child{nr: nr}
	copy(c.name[:15], name)
	copy(c.arg[:], args)
	return c
}

// spawn forks without exec, so that the child is one task with the agent's
// memory and costs a millisecond rather than the start of another Go runtime.
// The child is not a Go program any more, for only this thread lives on in it:
// from there on nothing may be allocated, locked or scheduled, only system
// calls made, with memory that c holds.
//
//go:noinline
//go:norace
func spawn(c *child) (pid int, err error) {
	all := ^uint64(0) // every signal
	n, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return 0, fmt.Errorf("fork %s: %w", unix.ByteSliceToString(c.name[:]), errno)
	}
	if n != 0 {
		runtime.KeepAlive(c)
		return int(n), nil
	}
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), 0, 8, 0, 0)
	unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&c.name)), 0)
	for c.spin { //nolint:staticcheck // for ever: it is killed by the crash
	}
	_, _, errno = unix.RawSyscall(c.nr, c.arg[0], c.arg[1], c.arg[2])
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(errno), 0, 0)
	}
}

// startWorker starts one process, or thread, of the workload and returns its
// process id when it is in its state: what is recorded next must not catch it
// on the way there.
func startWorker(w wire.Worker) (pid int, err error) {
	long := &unix.Timespec{Sec: 1 << 30}
	c := newChild(w.Name, unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(long)), 0)
	state := byte('S')
	switch w.Kind {
	case wire.PipeRead:
		var p [2]int
		if err := unix.Pipe2(p[:], 0); err != nil {
			return 0, fmt.Errorf("pipe for %s: %w", w.Name, err)
		}
		buf := new(byte)
		defer runtime.KeepAlive(buf)
		c = newChild(w.Name, unix.SYS_READ, uintptr(p[0]), uintptr(unsafe.Pointer(buf)), 1)
	case wire.Zombie:
		state = 'Z'
		c = newChild(w.Name, unix.SYS_EXIT_GROUP, 0)
	case wire.Spin:
		state = 'R'
		c.spin = true
	case wire.Thread:
		go func() {
			runtime.LockOSThread()
			unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&c.name)), 0)
			for {
				_ = unix.Nanosleep(long, nil)
			}
		}()
		return os.Getpid(), nil
	}
	if pid, err = spawn(c); err != nil {
		return 0, err
	}
	runtime.KeepAlive(long)
	if err := awaitState(pid, w.Name, state); err != nil || w.Kind != wire.Stopped {
		return pid, err
	}
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		return pid, fmt.Errorf("stop %s: %w", w.Name, err)
	}
	return pid, awaitState(pid, w.Name, 'T')
}

// awaitState waits until the process has its name and is in the state.
func awaitState(pid int, name string, state byte) error {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	want := fmt.Sprintf("%d (%s) %c ", pid, name, state)
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("wait for %s: %w", name, err)
		}
		if strings.HasPrefix(string(stat), want) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("wait for %s to reach state %c: it is %.40q", name, state, stat)
		}
	}
}
