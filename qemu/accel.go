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
