package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"crashlab/lab/blame"
	"crashlab/lab/store"
	"crashlab/qemu"
)

// findQEMU returns the path of the QEMU program called name.
func findQEMU(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", blame.New(blame.Infrastructure, "find QEMU", err).
			WithHint("go tool mage doctor says what is missing and how to get it")
	}
	return filepath.Abs(path)
}

// Accelerator returns which accelerator the QEMU program runs guests with. The
// answer is measured once, and kept for as long as neither QEMU nor the host's
// KVM changes. want is "auto", or the accelerator that must be used.
func Accelerator(ctx context.Context, s *store.Store, binary, want string) (qemu.Probe, error) {
	const doing = "find out which accelerator works"
	path, err := findQEMU(binary)
	if err != nil {
		return qemu.Probe{}, err
	}
	id, err := qemu.ProbeKey(path)
	if err != nil {
		return qemu.Probe{}, blame.New(blame.Infrastructure, doing, err)
	}
	const file = "probe.json"
	dir, _, err := s.Get(ctx, store.Key{Kind: "accel", Name: "accel", Inputs: []string{id}}, func(ctx context.Context, dir string) error {
		p, err := qemu.ProbeAccel(ctx, path)
		if err != nil {
			return err
		}
		b, err := json.MarshalIndent(p, "", "\t")
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, file), b, 0o666)
	})
	if err != nil {
		return qemu.Probe{}, stageError(blame.Infrastructure, doing, err)
	}
	var p qemu.Probe
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil {
		return qemu.Probe{}, blame.New(blame.Infrastructure, doing, err)
	}
	switch qemu.Accel(want) {
	case "", "auto", p.Accel:
		return p, nil
	case qemu.KVM:
		return p, blame.New(blame.Infrastructure, "use KVM", fmt.Errorf("it does not work here: %s", p.Reason)).
			WithHint("CRASHLAB_ACCEL=auto falls back to emulation")
	}
	p.Accel, p.Reason = qemu.TCG, "asked for"
	return p, nil
}
