package qemu

import (
	"context"
	"fmt"
	"regexp"

	"crashlab/internal/execx"
)

// Arch is what a Machine's processor is.
type Arch string

// The architectures.
const (
	X8664 Arch = "x86-64" // a PC
	ARM64 Arch = "arm64"  // QEMU's machine virt
)

// BinaryFor returns the name of the program for guests of a.
func BinaryFor(a Arch) string {
	if a == ARM64 {
		return "qemu-system-aarch64"
	}
	return Binary
}

var versionLine = regexp.MustCompile(`version ([0-9]+(?:\.[0-9]+)+)`)

// Version asks the QEMU program at path binary for its version: "7.2.22".
func Version(ctx context.Context, binary string) (string, error) {
	out, err := execx.Run(ctx, execx.Cmd{Argv: []string{binary, "--version"}})
	if err != nil {
		return "", err
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("%s does not say its version", binary)
	}
	return string(m[1]), nil
}
