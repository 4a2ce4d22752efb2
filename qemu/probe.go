package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"crashlab/internal/execx"
)

// Probe is the answer of ProbeAccel. It may be stored and used for as long as
// ProbeKey gives the same Key.
type Probe struct {
	Accel   Accel  `json:"accel"`
	Reason  string `json:"reason"`  // one line: why this one
	Version string `json:"version"` // QEMU's: "7.2.22"
	Key     string `json:"key"`
}

const kvmDevice = "/dev/kvm"

// probeTimeout bounds one run of probeROM, whose 40 instructions take QEMU
// 0.15 s to start and end.
const probeTimeout = 5 * time.Second

// ProbeAccel finds out which accelerator works, by executing instructions.
// That /dev/kvm is there and even creates machines proves nothing: where
// virtualization is nested in an emulator, the first unusual instruction may
// end the guest. An error means that QEMU at path binary runs nothing at all.
func ProbeAccel(ctx context.Context, binary string) (Probe, error) {
	key, err := ProbeKey(binary)
	if err != nil {
		return Probe{}, err
	}
	version, kvmErr := "", checkKVM()
	if kvmErr == nil {
		version, kvmErr = execute(ctx, binary, KVM)
	}
	if kvmErr == nil {
		return Probe{KVM, kvmDevice + " executes guest code", version, key}, nil
	}
	if ctx.Err() != nil {
		return Probe{}, context.Cause(ctx)
	}
	version, err = execute(ctx, binary, TCG)
	if err != nil {
		return Probe{}, fmt.Errorf("try %s: %w", binary, err)
	}
	return Probe{TCG, "KVM does not work: " + kvmErr.Error(), version, key}, nil
}

// checkKVM explains the usual reasons for which QEMU cannot use KVM.
func checkKVM() error {
	f, err := os.OpenFile(kvmDevice, os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w (is the user in the group kvm?)", err)
	case err != nil:
		return err
	}
	return f.Close()
}

// ProbeKey names everything that ProbeAccel's answer depends on: the QEMU
// binary, the boot of the host, and the KVM device with our access to it.
func ProbeKey(binary string) (string, error) {
	fi, err := os.Stat(binary)
	if err != nil {
		return "", err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	kvm := "none"
	var st unix.Stat_t
	if err := unix.Stat(kvmDevice, &st); err == nil {
		kvm = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		if unix.Access(kvmDevice, unix.R_OK|unix.W_OK) != nil {
			kvm += " no access"
		}
	}
	return fmt.Sprintf("%s %d bytes of %d; boot %s; kvm %s",
		binary, fi.Size(), fi.ModTime().UnixNano(), strings.TrimSpace(string(boot)), kvm), nil
}

// execute runs probeROM and returns QEMU's version.
func execute(ctx context.Context, binary string, accel Accel) (version string, err error) {
	dir, err := os.MkdirTemp("", "qemu-probe-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	rom := filepath.Join(dir, "rom")
	if err := os.WriteFile(rom, probeROM(), 0o600); err != nil {
		return "", err
	}
	// The plainest machine there is: what counts is the processor, all of it.
	m := Machine{Binary: binary, Accel: accel, Type: "pc", CPU: "max", MemoryMiB: 2, NoReboot: true,
		Extra: []string{"-bios", rom, "-device", fmt.Sprintf("isa-debug-exit,iobase=%#x,iosize=1", probePort)}}
	g, err := Start(ctx, m, Options{})
	if err != nil {
		return "", err
	}
	defer g.Kill()
	defer g.Control().Close()
	version = g.QMP().Version().String()
	_, err = g.Watch().Await(ctx, Phase{Deadline: probeTimeout})
	if exit, ok := errors.AsType[*execx.Error](err); ok && exit.Code == probePassed {
		return version, nil
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Kind == Stopped {
		return version, fmt.Errorf("guest code ends in state %s (%s)", e.Status, firstLine(e.Stderr))
	}
	return version, err
}
