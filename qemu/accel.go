package qemu

import "time"

// Accel is how QEMU executes the guest's instructions.
type Accel string

// The accelerators.
const (
	TCG Accel = "tcg" // translation to host instructions; works everywhere
	KVM Accel = "kvm" // the host's virtualization hardware
)

// Scale turns a time limit that is right under hardware virtualization into
// the one for a. Translated guests take 10 to 20 times as long.
func (a Accel) Scale(d time.Duration) time.Duration {
	if a == KVM {
		return d
	}
	return 15 * d
}

// KernelParams returns kernel parameters that do nothing but save boot time
// under a. They are as good for a capture kernel, and kernels that do not know
// them ignore them.
func (a Accel) KernelParams() []string {
	if a == KVM {
		return nil
	}
	return []string{
		"cryptomgr.notests", // the self-tests of cryptographic algorithms take 0.3 s
	}
}
