// Package wire is what the guest's agent and the host say to each other.
//
//   - Job: what the agent is to do, a JSON file in the initramfs.
//   - Event: what it reports, small JSON messages in checksummed frames on the
//     guest's second serial port. Serial ports lose and invent bytes while a
//     machine boots, so a Decoder finds the next good frame by itself.
//   - Stream: the bulk, written in order to a raw disk as checksummed blocks:
//     the crashed kernel's memory (CaptureWriter, Capture) and the files the
//     guest recorded about itself (TruthWriter, ReadTruth).
//
// The agent links this package, so it must stay small: nothing that pulls in
// the network, templates or a compressor.
package wire

// PageSize is the unit of the capture in bytes. Kernels with larger pages are
// captured in the same unit.
const PageSize = 4096

// The virtio serial numbers by which the agent knows its disks.
const (
	CaptureDisk = "capture"
	TruthDisk   = "truth"
)
