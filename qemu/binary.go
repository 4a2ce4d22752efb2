package qemu

import (
	"fmt"
	"os/exec"
)

// Binary is the name of the program that this package runs.
const Binary = "qemu-system-x86_64"

// FindBinary returns the path of the QEMU for x86-64 guests. Without one the
// error wraps exec.ErrNotFound.
func FindBinary() (string, error) {
	// RHEL and its relatives keep it outside of the PATH, under another name.
	for _, name := range []string{Binary, "/usr/libexec/qemu-kvm"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("look for %s: %w", Binary, exec.ErrNotFound)
}
