// Package modules holds the C sources of the kernel modules that crash the
// guest, one directory per module. They are GPL-2.0, as kernel modules must be.
package modules

import "embed"

// FS has the sources of module NAME in the directory NAME.
//
//go:embed badcall bug hungtask irqcrash nmicrash nullderef softlockup stackoverflow warn
var FS embed.FS
