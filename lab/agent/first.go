//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"crashlab/lab/wire"
	"golang.org/x/sys/unix"
)

// first prepares the crash and causes it.
func (a *agent) first(job *wire.FirstJob) error {
	if err := a.loadModules(); err != nil {
		return err
	}
	a.line.phase(wire.PhaseWorkload)
	for _, w := range job.Workload {
		if _, err := startWorker(w); err != nil {
			return err
		}
	}
	// Loading the capture kernel is one long system call, most of it spent on
	// checksums: recording goes on beside it. Not so loading modules and
	// starting processes, which may have to wait for the CPU it keeps busy.
	armed := make(chan error, 1)
	go func() {
		defer a.recover()
		armed <- a.arm(job.Kexec)
	}()
	if err := a.truth(job.Truth); err != nil {
		return err
	}
	if err := <-armed; err != nil {
		return &armError{err}
	}
	switch job.Trigger.Kind {
	case wire.TriggerMeasure:
		return a.measure(&job.Trigger.Measure)
	case wire.TriggerClock:
		return a.beforeKernel()
	}
	return a.trigger(job.Trigger)
}

// armError is a failure of arm, which runs beside other phases.
type armError struct{ err error }

func (e *armError) Error() string { return "arm: " + e.err.Error() }
func (e *armError) Unwrap() error { return e.err }

// arm loads the capture kernel and verifies that a crash will start it.
func (a *agent) arm(k *wire.Kexec) error {
	if k == nil {
		return nil
	}
	a.line.send(wire.Event{Kind: wire.EventPhase, Name: wire.PhaseArm})
	size, err := readUint("/sys/kernel/kexec_crash_size")
	if err != nil {
		return err
	}
	iomem, err := os.ReadFile("/proc/iomem")
	if err != nil {
		return err
	}
	if err := checkReserved(size, k.MinCrashSize, string(iomem)); err != nil {
		return err
	}
	if err := kexecLoad(k); err != nil {
		return err
	}
	loaded, err := readUint("/sys/kernel/kexec_crash_loaded")
	if err != nil {
		return err
	}
	if loaded != 1 {
		return fmt.Errorf("/sys/kernel/kexec_crash_loaded is %d after loading %s", loaded, k.Kernel)
	}
	if err := os.WriteFile("/proc/sys/kernel/panic_on_oops", []byte("1"), 0); err != nil {
		return err
	}
	a.line.send(wire.Event{Kind: wire.EventArmed, CrashSize: size})
	return nil
}

// checkReserved verifies what crashkernel= has reserved. size is
// kexec_crash_size in bytes.
func checkReserved(size, want uint64, iomem string) error {
	switch {
	case size == 0:
		return fmt.Errorf("no memory is reserved for a capture kernel: crashkernel= is missing, too large or out of range")
	case size < want:
		return fmt.Errorf("%d MiB are reserved for the capture kernel, want %d", size>>20, want>>20)
	case !strings.Contains(iomem, " : Crash kernel\n"):
		return fmt.Errorf("/proc/iomem has no line \"Crash kernel\", kexec_crash_size is %d", size)
	}
	return nil
}

func kexecLoad(k *wire.Kexec) error {
	kernel, err := unix.Open(k.Kernel, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open capture kernel %s: %w", k.Kernel, err)
	}
	defer unix.Close(kernel)
	initrd, err := unix.Open(k.Initrd, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open capture initramfs %s: %w", k.Initrd, err)
	}
	defer unix.Close(initrd)
	err = unix.KexecFileLoad(kernel, initrd, k.Cmdline, unix.KEXEC_FILE_ON_CRASH)
	switch {
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("kexec_file_load %s: it does not fit into the memory that crashkernel= reserves: %w", k.Kernel, err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("kexec_file_load %s: lockdown wants a signature, or kexec is disabled: %w", k.Kernel, err)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("kexec_file_load %s: the kernel was built without CONFIG_KEXEC_FILE: %w", k.Kernel, err)
	case err != nil:
		return fmt.Errorf("kexec_file_load %s: %w", k.Kernel, err)
	}
	return nil
}

// readUint reads a file that holds one decimal number.
func readUint(path string) (uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	return n, nil
}
