//go:build linux

package main

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"crashlab/lab/wire"
	"golang.org/x/sys/unix"
)

// trigger causes the crash, in a process of its own so that the panicking task
// has a name and so that the agent survives to tell if the kernel does too.
func (a *agent) trigger(t wire.Trigger) error {
	a.line.phase(wire.PhaseTrigger)
	if t.Kind == wire.TriggerExit || t.Kind == wire.TriggerOff {
		a.line.send(wire.Event{Kind: wire.EventDone})
		return nil
	}
	if t.Kind == wire.TriggerNMI {
		return a.awaitNMI(t)
	}
	path, flags := "/proc/sysrq-trigger", unix.O_WRONLY
	text := []byte("c\x00")
	if t.Kind == wire.TriggerModule {
		path, flags = t.Module.Path, unix.O_RDONLY
		text = append([]byte(t.Module.Params), 0)
	}
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	c := newChild(wire.TriggerComm, unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&text[0])), 1)
	if t.Kind == wire.TriggerModule {
		c = newChild(wire.TriggerComm, unix.SYS_FINIT_MODULE, uintptr(fd), uintptr(unsafe.Pointer(&text[0])), 0)
	}
	if err := a.announce(t); err != nil {
		return err
	}
	pid, err := spawn(c)
	if err != nil {
		return err
	}
	died := make(chan error, 1)
	go func() {
		defer a.recover()
		var status unix.WaitStatus
		for {
			_, err := unix.Wait4(pid, &status, 0, nil)
			if err != unix.EINTR {
				died <- triggerResult(path, status, err)
				return
			}
		}
	}()
	patience := cmp.Or(t.Timeout, defaultPatience)
	defer runtime.KeepAlive(text)
	select {
	case err := <-died:
		return err
	case <-time.After(patience):
		return fmt.Errorf("%s: no crash within %v", path, patience)
	}
}

// defaultPatience is how long the kernel may take to crash.
const defaultPatience = 30 * time.Second

// announce sets what the kernel takes for a crash and says that the crash is next.
func (a *agent) announce(t wire.Trigger) error {
	for name, value := range t.Sysctl {
		if err := os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	a.line.send(wire.Event{Kind: wire.EventTrigger, Name: string(t.Kind)})
	a.line.drain()
	return nil
}

// awaitNMI sleeps until the host crashes the kernel by an NMI.
func (a *agent) awaitNMI(t wire.Trigger) error {
	if err := a.announce(t); err != nil {
		return err
	}
	patience := cmp.Or(t.Timeout, defaultPatience)
	time.Sleep(patience)
	return fmt.Errorf("no NMI has crashed the kernel within %v", patience)
}

// triggerResult says how the process of the trigger ended though the kernel
// still runs.
func triggerResult(path string, status unix.WaitStatus, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("wait for the trigger: %w", err)
	case status.Signaled():
		return fmt.Errorf("%s: the task was killed by %v and the kernel lived on: an oops that did not panic", path, status.Signal())
	case status.ExitStatus() == 0:
		return fmt.Errorf("%s: it returned without a crash", path)
	}
	return fmt.Errorf("%s: it returned without a crash: %w", path, unix.Errno(status.ExitStatus()))
}
