// Package addr gives the address spaces of a crashed kernel their own types,
// so that a virtual address cannot be handed to a reader of physical memory.
package addr

import "fmt"

// Virt is an address in the crashed kernel's virtual address space.
type Virt uint64

// Phys is an address in the crashed machine's physical address space.
type Phys uint64

// PFN is a page frame number: a physical address divided by the page size.
type PFN uint64

func (v Virt) String() string { return fmt.Sprintf("%#x", uint64(v)) }
func (p Phys) String() string { return fmt.Sprintf("%#x", uint64(p)) }

// Add returns v+n, wrapping like the machine does.
func (v Virt) Add(n int64) Virt { return v + Virt(n) }

// Range is the half-open range of physical addresses [Start, Start+Size).
type Range struct {
	Start Phys
	Size  uint64 // in bytes
}

// End returns the first address after the range.
func (r Range) End() Phys { return r.Start + Phys(r.Size) }

// Contains reports whether p lies in the range.
func (r Range) Contains(p Phys) bool { return p >= r.Start && uint64(p-r.Start) < r.Size }

func (r Range) String() string { return fmt.Sprintf("[%v, %v)", r.Start, r.End()) }
