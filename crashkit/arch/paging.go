// Package arch knows what the processor defines: page tables and registers.
//
// x86-64 is the architecture supported now. To add another one, give it what
// Pager and Regs give x86-64: a page-table walk from a root, the registers of
// NT_PRSTATUS and of the kernel's exception frame, and the addresses that the
// architecture fixes.
package arch

import (
	"encoding/binary"
	"fmt"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
)

// KernelTextBase is the virtual address at which x86-64 maps the kernel image:
// physical address phys_base is mapped here (__START_KERNEL_map in
// arch/x86/include/asm/page_64_types.h).
const KernelTextBase addr.Virt = 0xffffffff80000000

// Pager walks x86-64 page tables (Intel SDM volume 3, chapter 4.5).
// It is immutable and safe for concurrent use if Mem is.
type Pager struct {
	Mem    dump.PhysReader
	Root   addr.Phys // of the top-level table
	Levels int       // 4 or 5
	// CMask holds the address bits that mean "encrypted" (AMD SME) and are not
	// part of a physical address: VMCOREINFO's sme_mask.
	CMask uint64
}

// Mapping is one page-table leaf.
type Mapping struct {
	Phys addr.Phys // of the address asked for, not of the page's start
	Size uint64    // of the page: 4 KiB, 2 MiB or 1 GiB
}

const (
	ptePresent = 1 << 0
	pteHuge    = 1 << 7
	// ptePhys are bits 12 to 51.
	ptePhys = 0x000ffffffffff000
	// ptProtNone marks a page that is kept but not accessible, such as one under
	// NUMA balancing: the present bit is clear and the global bit is set
	// (_PAGE_PROTNONE in arch/x86/include/asm/pgtable_types.h).
	ptProtNone = 1 << 8
)

// Canonical reports whether v's upper bits all repeat the highest translated bit.
func (p *Pager) Canonical(v addr.Virt) bool {
	shift := uint(64 - (12 + 9*p.Levels))
	return uint64(int64(v<<shift)>>shift) == uint64(v)
}

// Translate walks the tables for v. Its error is an *addr.Fault whose reason
// is NotCanonical, NotMapped, or that of the table page that could not be read.
func (p *Pager) Translate(v addr.Virt) (Mapping, error) {
	if !p.Canonical(v) {
		return Mapping{}, &addr.Fault{Virt: v, HasVirt: true, Reason: addr.NotCanonical}
	}
	table := p.Root
	var b [8]byte
	for level := p.Levels; level >= 1; level-- {
		shift := uint(12 + 9*(level-1))
		entry := table + addr.Phys(v>>shift&0x1ff)*8
		if err := p.Mem.ReadPhys(entry, b[:]); err != nil {
			return Mapping{}, &addr.Fault{
				What: fmt.Sprintf("level %d page table", level), Virt: v, HasVirt: true,
				Phys: entry, HasPhys: true, Reason: addr.ReasonOf(err), Err: err,
			}
		}
		e := binary.LittleEndian.Uint64(b[:])
		leaf := level == 1 || level <= 3 && e&pteHuge != 0
		switch {
		case e&ptePresent != 0:
		case leaf && e&ptProtNone != 0:
			// Kept with its address inverted since Linux commit 6b28baca9b1f
			// ("x86/speculation/l1tf: Protect PROT_NONE PTEs against
			// speculation") (in v4.19).
			e = ^e
		default:
			return Mapping{}, &addr.Fault{Virt: v, HasVirt: true, Reason: addr.NotMapped}
		}
		phys := e & ptePhys &^ p.CMask
		if leaf {
			size := uint64(1) << shift
			return Mapping{addr.Phys(phys&^(size-1) | uint64(v)&(size-1)), size}, nil
		}
		table = addr.Phys(phys)
	}
	panic("unreachable: level 1 always returns")
}
