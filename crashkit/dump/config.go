package dump

import (
	"slices"
	"time"

	"crashlab/crashkit/addr"
)

// WriterConfig describes the file that [Write] or [WriteELF] makes. Use
// [ConfigOf] for a copy of an existing dump.
type WriterConfig struct {
	Compression Compression // of Write alone
	PageSize    int         // in bytes; 0 means 4096

	// Ranges is the memory of the crashed machine. Pages that are only partly
	// inside are left out.
	Ranges []addr.Range

	// Keep says whether a page is to be stored. It is asked once for each page
	// of Ranges, in ascending order, before the first page is read. Those it
	// declines will read as excluded. Nil keeps all.
	Keep func(addr.PFN) bool

	Notes     []Note // NT_PRSTATUS of each CPU, VMCOREINFO
	UTS       UTS    // readers need at least Machine; strings are cut to 64 bytes
	DumpLevel int    // for the record: what Keep declines, in makedumpfile's bits
	Time      time.Time
	NCPUs     int
	PhysBase  int64
	Workers   int // goroutines that compress; 0 means as many as there are CPUs

	// Virt is where the crashed kernel had mapped a physical address, for the
	// program headers of WriteELF. Nil leaves that out.
	Virt func(addr.Phys) addr.Virt
	// Sparse makes WriteELF leave holes for pages full of zeroes.
	Sparse bool
}

// ConfigOf returns the configuration for a copy of a dump: its memory, its
// notes, and of the header fields what its own header or VMCOREINFO has. Excluded
// pages stay excluded, but those a truncated dump lost are kept, so that Write
// fails on them rather than pass them for excluded. Compression is left at Plain.
func ConfigOf(i *Image) WriterConfig {
	info := i.Info()
	cfg := WriterConfig{
		PageSize:  info.PageSize,
		Ranges:    i.Ranges(),
		Keep:      func(pfn addr.PFN) bool { s := i.PageState(pfn); return s == Present || s == Truncated },
		Notes:     i.Notes(),
		UTS:       info.UTS,
		DumpLevel: max(info.DumpLevel, 0),
		Time:      info.Time,
		NCPUs:     info.NCPUs,
		PhysBase:  info.PhysBase,
		Virt:      i.virt(),
	}
	if cfg.NCPUs == 0 {
		cfg.NCPUs = len(i.PRStatus())
	}
	if cfg.UTS.Machine == "" {
		cfg.UTS.Machine = info.Machine
	}
	v, err := i.VMCoreInfo()
	if err != nil {
		return cfg
	}
	if i.infoText != nil && !slices.ContainsFunc(cfg.Notes, isVMCoreInfo) {
		cfg.Notes = append(slices.Clip(cfg.Notes), Note{Name: "VMCOREINFO", Desc: i.infoText})
	}
	if cfg.UTS.Release == "" {
		cfg.UTS = i.utsFromMemory(v, cfg.UTS.Machine)
	}
	if sec, ok := v.Uint("CRASHTIME", 10); ok && cfg.Time.IsZero() && sec < 1<<40 {
		cfg.Time = time.Unix(int64(sec), 0).UTC()
	}
	if base, ok := v.Number("phys_base"); ok && cfg.PhysBase == 0 {
		cfg.PhysBase = base
	}
	return cfg
}

// virt returns the kernel's map of all memory, as far as the segments tell: the
// lowest of the places where they are mapped belongs to it, another one to the
// kernel's code. Nil if they do not tell.
func (i *Image) virt() func(addr.Phys) addr.Virt {
	var low Segment
	for _, s := range i.segments {
		if s.Virt != 0 && (low.Virt == 0 || s.Virt < low.Virt) {
			low = s
		}
	}
	if low.Virt == 0 {
		return nil
	}
	return func(p addr.Phys) addr.Virt { return low.Virt + addr.Virt(p-low.Phys) }
}

// utsFromMemory reads the kernel's init_uts_ns.name where the dump's segments
// map it, and makes do with VMCOREINFO where they do not.
func (i *Image) utsFromMemory(v *VMCoreInfo, machine string) UTS {
	uts := UTS{Sysname: "Linux", Release: v.OSRelease(), Machine: machine}
	ns, ok := v.Symbol("init_uts_ns")
	name, ok2 := v.Offset("uts_namespace.name")
	if !ok || !ok2 {
		return uts
	}
	at := addr.Virt(ns + name)
	for _, s := range i.segments {
		if at < s.Virt || uint64(at-s.Virt) >= s.MemSize {
			continue
		}
		var b [6 * utsFieldLen]byte
		if i.ReadPhys(s.Phys+addr.Phys(at-s.Virt), b[:]) != nil {
			continue
		}
		if found := parseUTS(b[:]); found.Release == uts.Release {
			return found
		}
	}
	return uts
}
