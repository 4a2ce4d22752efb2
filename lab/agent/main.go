//go:build linux

// Command agent is process 1 of the guest, in both of its kernels: in the
// first it prepares and causes the crash, in the capture kernel it saves the
// crashed kernel's memory. It reports to the host over the second serial port;
// errors appear on the console as well.
//
// It never guesses: what to load, record and do is in the job that the host
// put into the initramfs.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"

	"crashlab/lab/wire"
	"golang.org/x/sys/unix"
)

func main() {
	debug.SetGCPercent(-1) // it lives for seconds; collecting costs more than it frees
	runtime.LockOSThread() // the main thread, whose name is the process's, does nothing else
	a := &agent{stage: wire.StageFirst}
	defer a.end()
	defer a.recover()
	if err := a.run(); err != nil {
		a.fail(err)
	}
}

// agent is the state of one run in one kernel.
type agent struct {
	stage wire.Stage
	line  *line // nil until the serial port is open
	job   *wire.Job
}

func (a *agent) run() error {
	if err := mountAll(); err != nil {
		return err
	}
	if _, err := os.Stat("/proc/vmcore"); err == nil {
		a.stage = wire.StageCapture
	}
	var err error
	if a.line, err = openLine(controlPort, a.stage); err != nil {
		return err
	}
	a.line.send(wire.Event{Kind: wire.EventHello})
	text, err := os.ReadFile(wire.JobPath)
	if err != nil {
		return err
	}
	if a.job, err = wire.ParseJob(text); err != nil {
		return err
	}
	switch {
	case a.stage == wire.StageCapture && a.job.Capture != nil:
		return a.capture(a.job.Capture)
	case a.stage == wire.StageFirst && a.job.First != nil:
		return a.first(a.job.First)
	}
	return fmt.Errorf("the job is for another stage than %q", a.stage)
}

// loadModules loads the job's modules in their order.
func (a *agent) loadModules() error {
	a.line.phase(wire.PhaseModules)
	for _, m := range a.job.Modules {
		if err := loadModule(m); err != nil {
			return err
		}
	}
	return nil
}

// fail reports err, on the console and to the host.
func (a *agent) fail(err error) {
	kmsg(3, err.Error())
	if a.line == nil {
		return
	}
	e := wire.Event{Kind: wire.EventError, Name: a.line.current(), Text: err.Error()}
	if f, ok := errors.AsType[*armError](err); ok {
		e.Name, e.Text = wire.PhaseArm, f.err.Error()
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		e.Errno = int(errno)
	}
	a.line.send(e)
}

// recover reports a panic of the agent itself. Every goroutine defers it.
func (a *agent) recover() {
	if v := recover(); v != nil {
		a.fail(fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
		a.end()
	}
}

// end ends the machine. It does not return: if process 1 did, the kernel would
// panic, and that would look like the crash.
func (a *agent) end() {
	how := unix.LINUX_REBOOT_CMD_RESTART
	if a.job != nil && a.job.First != nil && a.job.First.Trigger.Kind == wire.TriggerOff {
		how = unix.LINUX_REBOOT_CMD_POWER_OFF
	}
	if a.line != nil {
		a.line.phase(wire.PhaseEnd)
		a.line.drain()
	}
	for {
		err := unix.Reboot(how)
		kmsg(3, fmt.Sprintf("reboot: %v", err))
		_ = unix.Pause()
	}
}

// kmsg writes a line to the kernel log, and so to the console.
func kmsg(level int, text string) {
	line := fmt.Sprintf("<%d>crashlab agent: %s\n", level, text)
	fd, err := unix.Open("/dev/kmsg", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		_, _ = unix.Write(2, []byte(line))
		return
	}
	defer unix.Close(fd)
	const limit = 900 // of the kernel for one record
	_, _ = unix.Write(fd, []byte(line[:min(len(line), limit)]))
}

// mountAll mounts what the agent itself needs.
func mountAll() error {
	for _, m := range []struct{ dir, kind string }{{"/proc", "proc"}, {"/sys", "sysfs"}, {"/dev", "devtmpfs"}, {"/tmp", "tmpfs"}} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, unix.MS_NOSUID, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	return nil
}
