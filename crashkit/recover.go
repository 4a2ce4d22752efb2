package crashkit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/arch"
	"crashlab/crashkit/dump"
)

// recoverInfo finds the VMCOREINFO of a dump that has no such note, and says how:
// QEMU has it only of a guest with a vmcoreinfo device, and an image of memory
// has no notes at all. The image has it from then on.
//
// It is searched for in memory. A machine that was dumped while its capture
// kernel was there has that one's too: the crashed kernel is the one that had
// reserved memory for the other. If there is none, the registers that QEMU noted
// lead to the page tables and to the kernel's image.
func recoverInfo(img *dump.Image) (how string, err error) {
	var fits []candidate
	var misfits []string
	for _, f := range img.ScanVMCoreInfo() {
		c := candidate{FoundInfo: f, info: dump.ParseVMCoreInfo(f.Text)}
		if err := c.check(img); err != nil {
			misfits = append(misfits, fmt.Sprintf("the one at %v does not describe this memory: %v", f.Phys, err))
			continue
		}
		fits = append(fits, c)
	}
	if len(fits) > 0 {
		c, why := choose(img, fits)
		img.SetVMCoreInfo(c.Text)
		return fmt.Sprintf("the dump has no VMCOREINFO note; found in memory at %v%s", c.Phys, why), nil
	}
	text, err := infoFromRegisters(img)
	if err == nil {
		img.SetVMCoreInfo([]byte(text))
		return "the dump has no VMCOREINFO note and none was found in memory: the kernel was found by CR3 and IDTR of QEMU's note", nil
	}
	for _, m := range misfits {
		err = fmt.Errorf("%w; %s", err, m)
	}
	return "", fmt.Errorf("%w, none was found in memory, and %w", dump.ErrNoVMCoreInfo, err)
}

// candidate is a VMCOREINFO that may be the crashed kernel's.
type candidate struct {
	dump.FoundInfo
	info *dump.VMCoreInfo
}

// utsRelease is the offset of the release in struct new_utsname, whose strings
// have 65 bytes (include/uapi/linux/utsname.h).
const utsRelease = 2 * 65

// check sees whether the memory is that of the kernel which the text describes:
// its page tables must lead to a struct uts_namespace with the same release.
func (c candidate) check(img *dump.Image) error {
	ns, ok1 := c.info.Symbol("init_uts_ns")
	name, ok2 := c.info.Offset("uts_namespace.name")
	if !ok1 || !ok2 {
		return errors.New("it has no SYMBOL(init_uts_ns) and OFFSET(uts_namespace.name)")
	}
	pager, err := pagerOf(img, c.info)
	if err != nil {
		return err
	}
	p := &Program{Image: img, pager: pager}
	want := c.info.OSRelease()
	b := make([]byte, min(len(want)+1, 65))
	if err := p.Read(addr.Virt(ns+name+utsRelease), b); err != nil {
		return err
	}
	if got, _, _ := strings.Cut(string(b), "\x00"); got != want {
		return fmt.Errorf("the release in memory is %q, not %q", got, want)
	}
	return nil
}

// imageAt returns the physical address of the kernel's code.
func (c candidate) imageAt() (addr.Phys, bool) {
	text, ok1 := c.info.Symbol("_stext")
	base, ok2 := c.info.Number("phys_base")
	return addr.Phys(text - uint64(arch.KernelTextBase) + uint64(base)), ok1 && ok2
}

// choose picks the crashed kernel's of those that fit, and says why if there was
// a choice.
func choose(img *dump.Image, fits []candidate) (candidate, string) {
	if len(fits) == 1 {
		return fits[0], ""
	}
	others := func(i int) string {
		var at []string
		for j, c := range fits {
			if j != i {
				at = append(at, c.Phys.String())
			}
		}
		return strings.Join(at, ", ")
	}
	for i, c := range fits {
		p, err := newProgram(img, c.info)
		if err != nil {
			continue
		}
		res, ok := p.Syms.Lookup("crashk_res")
		if !ok {
			continue
		}
		// struct resource begins with the first and the last address
		// (include/linux/ioport.h), on every kernel, so that no types are needed.
		start, err1 := p.Uint64(res.Addr)
		end, err2 := p.Uint64(res.Addr + 8)
		if err1 != nil || err2 != nil || end <= start {
			continue
		}
		for j, other := range fits {
			if at, ok := other.imageAt(); ok && j != i && uint64(at) >= start && uint64(at) <= end {
				return c, fmt.Sprintf(": another one, at %s, is that of the capture kernel, which runs from %v in memory that this one had reserved for it (%#x-%#x)",
					others(i), at, start, end)
			}
		}
	}
	for i, c := range fits {
		if _, ok := c.info.Get("CRASHTIME"); ok {
			return c, fmt.Sprintf(": it has the time of a crash, and another one, at %s, has none", others(i))
		}
	}
	return fits[0], fmt.Sprintf(": it may be the wrong one, as nothing tells which of it and another at %s crashed; the choice can be made with --vmcoreinfo", others(0))
}

// Offsets in QEMU's note of a CPU's state, struct QEMUCPUState
// (target/i386/arch_dump.c, QEMU 7.2), in bytes: two u32, 18 registers, ten
// segments of 24 bytes each, of which the address is the last 8, CR0 to CR4.
const (
	qemuIDTBase = 8 + 18*8 + 9*24 + 16
	qemuCR      = 8 + 18*8 + 10*24
	qemuLen     = qemuCR + 5*8
)

const (
	cr3Root = 0x000f_ffff_ffff_f000
	cr3User = 0x1000 // with page table isolation: the half that user space has
	cr4LA57 = 1 << 12
)

// infoFromRegisters makes up as much of VMCOREINFO as the registers in QEMU's
// notes tell.
func infoFromRegisters(img *dump.Image) (string, error) {
	err := errors.New("the dump has no note of QEMU with the registers that would lead to it")
	le := binary.LittleEndian
	for _, n := range img.Notes() {
		if n.Name != "QEMU" || len(n.Desc) < qemuLen || img.Info().Machine != "x86_64" {
			continue
		}
		cr3, cr4, idt := le.Uint64(n.Desc[qemuCR+3*8:]), le.Uint64(n.Desc[qemuCR+4*8:]), le.Uint64(n.Desc[qemuIDTBase:])
		levels := 4
		if cr4&cr4LA57 != 0 {
			levels = 5
		}
		var text string
		for _, root := range []uint64{cr3 & cr3Root &^ cr3User, cr3 & cr3Root} {
			pager := arch.Pager{Mem: img, Root: addr.Phys(root), Levels: levels}
			if text, err = infoFromTables(img, pager, addr.Virt(idt)); err == nil {
				return text, nil
			}
			err = fmt.Errorf("the page tables that QEMU's note has lead nowhere: %w", err)
		}
	}
	return "", err
}

// kernelAlign is the least alignment of the kernel's image in memory: a large
// page, CONFIG_PHYSICAL_ALIGN.
const kernelAlign = 2 << 20

// kernelSpace is the size of the virtual memory from KernelTextBase in which the
// kernel's image is: KERNEL_IMAGE_SIZE (arch/x86/include/asm/page_64_types.h).
const kernelSpace = 1 << 30

// infoFromTables describes a kernel by its page tables and its interrupt table.
func infoFromTables(img *dump.Image, pager arch.Pager, idt addr.Virt) (string, error) {
	p := &Program{Image: img, pager: pager}
	var gate [16]byte // of vector 0: struct gate_struct, arch/x86/include/asm/desc_defs.h
	if err := p.Read(idt, gate[:]); err != nil {
		return "", fmt.Errorf("interrupt table: %w", err)
	}
	le := binary.LittleEndian
	handler := addr.Virt(uint64(le.Uint16(gate[:])) | uint64(le.Uint16(gate[6:]))<<16 | uint64(le.Uint32(gate[8:]))<<32)
	if handler < arch.KernelTextBase || handler-arch.KernelTextBase >= kernelSpace {
		return "", fmt.Errorf("interrupt table at %v: the handler of vector 0 is %v, which is not in the kernel's image", idt, handler)
	}
	phys, err := p.Translate(handler)
	if err != nil {
		return "", err
	}
	base := uint64(phys) - uint64(handler-arch.KernelTextBase)
	// The kernel unmaps what is in front of its code (cleanup_highmap,
	// arch/x86/mm/init_64.c), which begins with _stext.
	stext := addr.Virt(0)
	for v := handler &^ (kernelAlign - 1); v >= arch.KernelTextBase; v -= kernelAlign {
		at, err := p.Translate(v)
		if err != nil || uint64(at) != uint64(v-arch.KernelTextBase)+base {
			break
		}
		stext = v
	}
	if stext == 0 {
		return "", fmt.Errorf("the kernel's code around %v is not mapped", handler)
	}
	l5 := 0
	if pager.Levels == 5 {
		l5 = 1
	}
	return fmt.Sprintf("PAGESIZE=4096\nSYMBOL(_stext)=%x\nSYMBOL(swapper_pg_dir)=%x\nNUMBER(phys_base)=%d\nNUMBER(pgtable_l5_enabled)=%d\n",
		uint64(stext), uint64(pager.Root)-base+uint64(arch.KernelTextBase), int64(base), l5), nil
}
