package kbuild

import (
	"fmt"
	"runtime"

	"crashlab/kconfig"
)

// Arch is a processor architecture that kernels are built for.
type Arch struct {
	Name  string // as users say it: "arm64"
	Make  string // ARCH of the kernel's Makefile: "x86_64"
	Dir   string // below arch/ in the sources: "x86"
	Image string // the target of make that packs the image, and the file in the object tree below arch/Dir/boot
	Go    string // GOARCH
	Cross string // before the names of the tools where the host is another one: "aarch64-linux-gnu-"
}

// Archs lists all that can be built, the lab's own first.
func Archs() []Arch {
	return []Arch{
		{Name: "x86-64", Make: "x86_64", Dir: "x86", Image: "bzImage", Go: "amd64", Cross: "x86_64-linux-gnu-"},
		{Name: "arm64", Make: "arm64", Dir: "arm64", Image: "Image", Go: "arm64", Cross: "aarch64-linux-gnu-"},
	}
}

// ArchNamed returns the architecture of that name; the lab's own has no other name
// in a spec than none.
func ArchNamed(name string) (Arch, error) {
	for i, a := range Archs() {
		if name == a.Name || name == "" && i == 0 {
			return a, nil
		}
	}
	return Arch{}, fmt.Errorf("kernels are not built for %q", name)
}

// ArchOf returns the architecture of a kernel with that configuration: the lab's
// own if it is none of the others.
func ArchOf(c *kconfig.Config) Arch {
	all := Archs()
	if c.State("ARM64") == kconfig.Yes {
		return all[1]
	}
	return all[0]
}

// Prefix returns what stands before the names of the compiler and the linker on
// this machine.
func (a Arch) Prefix() string {
	if a.Go == runtime.GOARCH {
		return ""
	}
	return a.Cross
}

// boot returns the path of the image in an object tree.
func (a Arch) boot() string { return "arch/" + a.Dir + "/boot/" + a.Image }

// Built returns what w is built for.
func (w *Want) Built() Arch {
	if w.Arch == (Arch{}) {
		return Archs()[0]
	}
	return w.Arch
}
