package qemu

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMachineArgv(t *testing.T) {
	full := Machine{
		Binary:     "/usr/bin/qemu-system-x86_64",
		Accel:      KVM,
		Type:       "q35",
		CPU:        "host,la57=off",
		CPUs:       2,
		MemoryMiB:  1024,
		Kernel:     "/cache/vmlinuz",
		Initrd:     "/cache/initrd,1",
		Cmdline:    "console=ttyS0 crashkernel=160M",
		Disks:      []Disk{{Path: "/run/a,b.raw", Serial: "vmcore"}, {Path: "/run/in.raw", ReadOnly: true}},
		VMCoreInfo: true,
		NoReboot:   true,
		Extra:      []string{"-action", "panic=pause"},
		Sockets:    "/tmp/q,1",
	}
	for _, tt := range []struct {
		name string
		m    Machine
		want []string // one option per element
	}{
		{"by hand", Machine{Binary: "qemu", Kernel: "vmlinuz"}, []string{
			"qemu",
			"-nodefaults",
			"-no-user-config",
			"-display none",
			"-machine pc",
			"-accel tcg",
			"-cpu max,erms=off,fsrm=off,cx16=off",
			"-smp 1,sockets=1,cores=1,threads=1",
			"-m 512",
			"-chardev stdio,id=console",
			"-device isa-serial,chardev=console,index=0",
			"-chardev null,id=control",
			"-device isa-serial,chardev=control,index=1",
			"-kernel vmlinuz",
		}},
		{"arm64 by hand", Machine{Binary: "qemu", Arch: ARM64, Kernel: "Image", CPUs: 2}, []string{
			"qemu",
			"-nodefaults",
			"-no-user-config",
			"-display none",
			"-machine virt",
			"-accel tcg",
			"-cpu cortex-a57",
			"-smp 2,sockets=2,cores=1,threads=1",
			"-m 512",
			"-chardev stdio,id=console",
			"-serial chardev:console",
			"-chardev null,id=control",
			"-device pci-serial,chardev=control",
			"-kernel Image",
		}},
		{"everything", full, []string{
			"/usr/bin/qemu-system-x86_64",
			"-nodefaults",
			"-no-user-config",
			"-display none",
			"-machine q35",
			"-accel kvm",
			"-cpu host,la57=off",
			"-smp 2,sockets=2,cores=1,threads=1",
			"-m 1024",
			"-no-reboot",
			"-chardev socket,id=console,server=off,path=/tmp/q,,1/console",
			"-device isa-serial,chardev=console,index=0",
			"-chardev socket,id=control,server=off,path=/tmp/q,,1/control",
			"-device isa-serial,chardev=control,index=1",
			"-chardev socket,id=qmp,server=off,path=/tmp/q,,1/qmp",
			"-mon chardev=qmp,mode=control",
			"-S",
			"-drive if=none,id=disk0,format=raw,cache=unsafe,file=/run/a,,b.raw",
			"-device virtio-blk-pci,drive=disk0,serial=vmcore",
			"-drive if=none,id=disk1,format=raw,cache=unsafe,file=/run/in.raw,readonly=on",
			"-device virtio-blk-pci,drive=disk1",
			"-device vmcoreinfo",
			"-kernel /cache/vmlinuz",
			"-initrd /cache/initrd,1",
			"-append console=ttyS0 crashkernel=160M",
			"-action panic=pause",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, options(tt.m.Argv())); diff != "" {
				t.Errorf("Argv (-want +got):\n%s", diff)
			}
		})
	}
}

// options joins each option with its value.
func options(argv []string) []string {
	var out []string
	for i, a := range argv {
		if i > 1 && !strings.HasPrefix(a, "-") {
			out[len(out)-1] += " " + a
			continue
		}
		out = append(out, a)
	}
	return out
}

func TestAccelScale(t *testing.T) {
	if got := KVM.Scale(2 * time.Second); got != 2*time.Second {
		t.Errorf("KVM.Scale(2s) = %v; want 2s", got)
	}
	if got := TCG.Scale(2 * time.Second); got <= 2*time.Second {
		t.Errorf("TCG.Scale(2s) = %v; want more than 2s", got)
	}
}
