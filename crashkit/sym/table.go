// Package sym maps addresses to symbols and back: the kernel's own kallsyms
// tables decoded from the dump, and the symbols that each module carries.
package sym

import (
	"hash/maphash"
	"sort"
	"strings"

	"crashlab/crashkit/addr"
)

// Symbol is one name in the kernel's address space.
type Symbol struct {
	Name   string    `json:"name"`
	Addr   addr.Virt `json:"addr"`
	Size   uint64    `json:"size"` // in bytes; up to the next symbol where the source has no size
	Type   byte      `json:"-"`    // as nm(1) prints it: T t D d B b R r A …
	Module string    `json:"module,omitempty"`
}

// End returns the first address after the symbol.
func (s Symbol) End() addr.Virt { return s.Addr + addr.Virt(s.Size) }

// Text reports whether the symbol is a function.
func (s Symbol) Text() bool { return strings.IndexByte("TtWw", s.Type) >= 0 }

// Table is a set of symbols. It is immutable and safe for concurrent use. In a
// kernel one name may stand for several addresses, and one address may have
// several names.
type Table struct {
	syms []Symbol // by address; source order among equals
	seed maphash.Seed
	// slots is an open-addressing hash table of 1+index into syms, by name.
	// It costs a tenth of a map's time and memory for a kernel's 180,000 names.
	slots []int32
}

// NewTable builds a table from syms, which it takes over. A symbol whose Size
// is 0 gets the distance to the next higher address.
func NewTable(syms []Symbol) *Table {
	byAddr := func(i, j int) bool { return syms[i].Addr < syms[j].Addr }
	if !sort.SliceIsSorted(syms, byAddr) {
		sort.SliceStable(syms, byAddr)
	}
	for i := len(syms) - 2; i >= 0; i-- {
		switch {
		case syms[i].Size != 0:
		case syms[i].Addr == syms[i+1].Addr:
			syms[i].Size = syms[i+1].Size
		default:
			syms[i].Size = uint64(syms[i+1].Addr - syms[i].Addr)
		}
	}
	t := &Table{syms: syms, seed: maphash.MakeSeed()}
	n := 16
	for n < 2*len(syms) {
		n *= 2
	}
	t.slots = make([]int32, n)
	for i := range syms {
		h := t.hash(syms[i].Name)
		for t.slots[h] != 0 {
			h = (h + 1) & (n - 1)
		}
		t.slots[h] = int32(i + 1)
	}
	return t
}

func (t *Table) hash(name string) int {
	return int(maphash.String(t.seed, name)) & (len(t.slots) - 1)
}

// All returns the symbols by ascending address. The caller must not modify them.
func (t *Table) All() []Symbol { return t.syms }

// Lookup returns the symbol of that name; of several, the one at the lowest address.
func (t *Table) Lookup(name string) (Symbol, bool) {
	for h := t.hash(name); t.slots[h] != 0; h = (h + 1) & (len(t.slots) - 1) {
		if s := t.syms[t.slots[h]-1]; s.Name == name {
			return s, true
		}
	}
	return Symbol{}, false
}

// LookupAll returns all symbols of that name by ascending address.
func (t *Table) LookupAll(name string) []Symbol {
	var all []Symbol
	for h := t.hash(name); t.slots[h] != 0; h = (h + 1) & (len(t.slots) - 1) {
		if s := t.syms[t.slots[h]-1]; s.Name == name {
			all = append(all, s)
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Addr < all[j].Addr })
	return all
}

// Find returns the symbol that covers v and v's offset in it. Where one address
// has several names it prefers a global function, then a local one, then the
// first in source order.
func (t *Table) Find(v addr.Virt) (s Symbol, off uint64, ok bool) {
	i := sort.Search(len(t.syms), func(i int) bool { return t.syms[i].Addr > v })
	if i == 0 {
		return Symbol{}, 0, false
	}
	best := t.syms[i-1]
	for j := i - 2; j >= 0 && t.syms[j].Addr == best.Addr; j-- {
		if c := t.syms[j]; rank(c) >= rank(best) {
			best = c
		}
	}
	if v >= best.End() {
		return Symbol{}, 0, false
	}
	return best, uint64(v - best.Addr), true
}

// Next returns the first symbol above v.
func (t *Table) Next(v addr.Virt) (Symbol, bool) {
	i := sort.Search(len(t.syms), func(i int) bool { return t.syms[i].Addr > v })
	if i == len(t.syms) {
		return Symbol{}, false
	}
	return t.syms[i], true
}

func rank(s Symbol) int {
	switch s.Type {
	case 'T':
		return 3
	case 't', 'W', 'w':
		return 2
	}
	return 1
}
