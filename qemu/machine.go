package qemu

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// Machine describes a PC, or another machine: see Arch. The zero value of a field other than Binary
// means its default.
type Machine struct {
	Binary    string // path of qemu-system-x86_64, see FindBinary, or of BinaryFor(Arch)
	Arch      Arch   // default X8664
	Accel     Accel  // default TCG
	Type      string // QEMU machine type; default DefaultType, or "virt"
	CPU       string // CPU model; default "host" under KVM, and under TCG "max" without what it emulates badly, or "cortex-a57"
	CPUs      int    // number of virtual CPUs; default 1
	MemoryMiB int    // guest memory; default 512

	Kernel  string // bzImage, or arm64's Image; empty means that the firmware finds something to boot by itself
	Initrd  string
	Cmdline string // the kernel's command line

	Disks []Disk // vda, vdb, … in this order

	// VMCoreInfo adds the device through which the kernel tells QEMU where its
	// VMCOREINFO lies, for memory dumps that QEMU writes. The guest must load
	// qemu_fw_cfg before it crashes.
	VMCoreInfo bool

	// NoReboot makes a reset of the guest end QEMU (with exit code 0). kexec
	// is not a reset.
	NoReboot bool

	Extra []string // further arguments, at the end

	// Sockets is the directory with the sockets "console", "control" and "qmp"
	// to which QEMU connects. Start sets it. Left empty, Argv is the command
	// to run the same guest by hand: the console is the terminal, control leads
	// nowhere, and the guest starts at once.
	Sockets string
}

// Disk is a virtio block device over a raw file.
type Disk struct {
	Path     string
	Serial   string // at most 20 bytes; the guest's /sys/block/vdX/serial
	ReadOnly bool
}

// tcgCPU is the CPU model under TCG: all that can be emulated, but for string
// instructions, which the kernel prefers to its loops where they claim to be
// fast and which TCG executes byte by byte (a twelfth of a boot), and for
// cmpxchg16b, after which QEMU 7.2 resumes Linux 6.12 with garbage in RFLAGS.
const tcgCPU = "max,erms=off,fsrm=off,cx16=off"

// DefaultType is the machine type of a Machine that names none. Linux boots on
// it 0.2 s faster than on q35, whose PCI Express it has to explore.
const DefaultType = "pc"

// armCPU is the CPU model under TCG for arm64: the plainest of 64 bits. "max" has
// pointer authentication, which takes longer to emulate than all the rest.
const armCPU = "cortex-a57"

// Argv returns QEMU's whole argument vector, Binary first. It depends on
// nothing but m.
func (m Machine) Argv() []string {
	accel := cmp.Or(m.Accel, TCG)
	cpu, machine := tcgCPU, DefaultType
	if m.Arch == ARM64 {
		cpu, machine = armCPU, "virt"
	}
	if accel == KVM {
		cpu = "host"
	}
	argv := []string{
		m.Binary,
		// Nothing that we did not ask for: no default devices, no settings
		// from /etc or from the user's home.
		"-nodefaults", "-no-user-config", "-display", "none",
		"-machine", cmp.Or(m.Type, machine),
		"-accel", string(accel),
		"-cpu", cmp.Or(m.CPU, cpu),
		// One CPU in each socket: the MP table of SeaBIOS, by which a kernel
		// without ACPI finds them, has one for each socket.
		"-smp", smp(cmp.Or(m.CPUs, 1)),
		"-m", strconv.Itoa(cmp.Or(m.MemoryMiB, 512)),
	}
	if m.NoReboot {
		argv = append(argv, "-no-reboot")
	}
	argv = append(argv, m.serial("console", 0)...)
	argv = append(argv, m.serial("control", 1)...)
	if m.Sockets != "" {
		// The CPUs wait for "cont", so that no event comes before we listen.
		argv = append(argv, "-chardev", m.socket("qmp"), "-mon", "chardev=qmp,mode=control", "-S")
	}
	for i, d := range m.Disks {
		id := fmt.Sprintf("disk%d", i)
		// cache=unsafe: host crashes are none of our worries, and flushes cost.
		drive := "if=none,id=" + id + ",format=raw,cache=unsafe,file=" + escape(d.Path)
		if d.ReadOnly {
			drive += ",readonly=on"
		}
		device := "virtio-blk-pci,drive=" + id
		if d.Serial != "" {
			device += ",serial=" + escape(d.Serial)
		}
		argv = append(argv, "-drive", drive, "-device", device)
	}
	if m.VMCoreInfo {
		argv = append(argv, "-device", "vmcoreinfo")
	}
	if m.Kernel != "" {
		argv = append(argv, "-kernel", m.Kernel)
	}
	if m.Initrd != "" {
		argv = append(argv, "-initrd", m.Initrd)
	}
	if m.Cmdline != "" {
		argv = append(argv, "-append", m.Cmdline)
	}
	return append(argv, m.Extra...)
}

func smp(n int) string { return fmt.Sprintf("%d,sockets=%d,cores=1,threads=1", n, n) }

// serial returns the arguments for a PC's serial port ttyS<index>, or for arm64's
// console ttyAMA0 and the card ttyS0.
func (m Machine) serial(id string, index int) []string {
	var chardev string
	switch {
	case m.Sockets != "":
		chardev = m.socket(id)
	case index == 0:
		chardev = "stdio,id=" + id
	default:
		chardev = "null,id=" + id
	}
	switch {
	case m.Arch == ARM64 && index == 0:
		return []string{"-chardev", chardev, "-serial", "chardev:" + id}
	case m.Arch == ARM64:
		return []string{"-chardev", chardev, "-device", "pci-serial,chardev=" + id}
	}
	return []string{"-chardev", chardev, "-device", fmt.Sprintf("isa-serial,chardev=%s,index=%d", id, index)}
}

func (m Machine) socket(id string) string {
	return "socket,id=" + id + ",server=off,path=" + escape(filepath.Join(m.Sockets, id))
}

// escape doubles commas, which separate the options of one QEMU argument.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
