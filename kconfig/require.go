package kconfig

import (
	"fmt"
	"strings"
)

// Need is something the lab wants of a kernel.
type Need struct {
	AnyOf   []string // option names; one of them suffices
	BuiltIn bool     // =m does not do
	Vital   bool     // without it a run cannot succeed; otherwise it only loses something
	Without string   // "the capture kernel has no /proc/vmcore"
}

// LabNeeds returns what a scenario run asks of the kernel it crashes, which
// is the capture kernel too.
func LabNeeds() []Need {
	return []Need{
		// To boot into our own init and talk to it.
		{AnyOf: []string{"BLK_DEV_INITRD"}, BuiltIn: true, Vital: true, Without: "the kernel cannot unpack our initramfs"},
		{AnyOf: []string{"RD_GZIP", "RD_ZSTD"}, BuiltIn: true, Without: "the initramfs has to be loaded uncompressed"},
		{AnyOf: []string{"BINFMT_ELF"}, BuiltIn: true, Vital: true, Without: "no program can be started"},
		{AnyOf: []string{"DEVTMPFS"}, BuiltIn: true, Vital: true, Without: "there is no /dev/vda to write the dump to"},
		{AnyOf: []string{"PROC_FS"}, BuiltIn: true, Vital: true, Without: "there is no /proc to read the truth from"},
		{AnyOf: []string{"SYSFS"}, BuiltIn: true, Vital: true, Without: "there is no /sys/kernel/kexec_crash_loaded to check"},
		{AnyOf: []string{"PRINTK"}, BuiltIn: true, Vital: true, Without: "the kernel says nothing when it crashes"},
		{AnyOf: []string{"SERIAL_8250_CONSOLE", "SERIAL_AMBA_PL011_CONSOLE"}, BuiltIn: true, Vital: true, Without: "there is no console on ttyS0, or on arm64's ttyAMA0"},
		{AnyOf: []string{"VIRTIO_PCI", "VIRTIO_MMIO"}, Vital: true, Without: "the guest sees none of its virtio devices"},
		{AnyOf: []string{"VIRTIO_BLK"}, Vital: true, Without: "the guest has no disk for the dump"},
		{AnyOf: []string{"VIRTIO_CONSOLE"}, Without: "the agent has to talk over the serial console"},

		// To crash.
		{AnyOf: []string{"MODULES"}, BuiltIn: true, Vital: true, Without: "the crash module cannot be loaded"},
		{AnyOf: []string{"MAGIC_SYSRQ"}, BuiltIn: true, Without: "echo c > /proc/sysrq-trigger does not crash the kernel"},

		// To capture.
		{AnyOf: []string{"KEXEC_FILE"}, BuiltIn: true, Vital: true, Without: "the agent cannot load the capture kernel with kexec_file_load"},
		{AnyOf: []string{"CRASH_DUMP"}, BuiltIn: true, Vital: true, Without: "a kernel started after a crash does not know the crashed one's memory"},
		{AnyOf: []string{"PROC_VMCORE"}, BuiltIn: true, Vital: true, Without: "the capture kernel has no /proc/vmcore"},
		{AnyOf: []string{"RELOCATABLE"}, BuiltIn: true, Vital: true, Without: "the capture kernel cannot run from the reserved memory"},

		// To analyze with nothing but the dump.
		{AnyOf: []string{"KALLSYMS"}, BuiltIn: true, Vital: true, Without: "the dump has no symbol table"},
		{AnyOf: []string{"KALLSYMS_ALL"}, BuiltIn: true, Without: "the symbol table in the dump has functions only: no variables, no BTF and ORC tables to find"},
		{AnyOf: []string{"DEBUG_INFO_BTF"}, BuiltIn: true, Without: "the dump does not describe its types: a vmlinux with debug info is needed"},
		{AnyOf: []string{"DEBUG_INFO_BTF_MODULES"}, BuiltIn: true, Without: "the dump does not describe the types of its modules"},
		{AnyOf: []string{"UNWINDER_ORC", "FRAME_POINTER"}, BuiltIn: true, Without: "backtraces are guesses"},
	}
}

// Loss is a Need that a kernel does not meet.
type Loss struct {
	Need
	Got Tristate // the best of the options asked for
}

// String explains the loss in one sentence.
func (l Loss) String() string {
	names := "CONFIG_" + strings.Join(l.AnyOf, " or CONFIG_")
	is := "is not set"
	switch {
	case l.Got == Module:
		is = "is a module and not built in"
	case len(l.AnyOf) > 1:
		names, is = "neither "+strings.ReplaceAll(names, " or ", " nor "), "is set"
	}
	return fmt.Sprintf("%s %s: without it %s", names, is, l.Without)
}

// Missing returns what c lacks of needs, in their order.
func (c *Config) Missing(needs []Need) []Loss {
	var losses []Loss
	for _, n := range needs {
		want := Module
		if n.BuiltIn {
			want = Yes
		}
		got := No
		for _, name := range n.AnyOf {
			got = max(got, c.State(name))
		}
		if got < want {
			losses = append(losses, Loss{Need: n, Got: got})
		}
	}
	return losses
}
