// Package crashkit opens a crash dump of a Linux kernel from the dump alone.
//
// The dump describes itself: VMCOREINFO gives the page tables and the place of
// kallsyms, kallsyms gives every symbol, and between the symbols __start_BTF and
// __stop_BTF stand the types. No vmlinux and no debug information is needed.
//
// A Program is the layer on which the others stand: memory, symbols, types and
// the list of modules. Package unwind walks stacks on it, package kernel reads
// what its structures mean.
package crashkit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/arch"
	"crashlab/crashkit/ctype"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/sym"
)

// Program is an opened crash dump. It is safe for concurrent use.
type Program struct {
	Image *dump.Image
	Info  *dump.VMCoreInfo
	// Syms are the kernel's own symbols; those of modules are in Modules.
	// Symbol and FindSymbol ask both. Empty, never nil, if they could not be read.
	Syms *sym.Table
	// Kallsyms is where in the kernel's memory they were read from.
	Kallsyms sym.KallsymsTables
	// Types are the kernel's types. Empty, never nil, if they could not be read.
	Types *ctype.Set
	// TypesFrom is the file that Types come from, for those who ask; "" for the dump itself.
	TypesFrom string
	// Limits says what could not be read when the dump was opened, and so which
	// answers will be missing.
	Limits []error

	pager   arch.Pager
	tlb     [4096]atomic.Pointer[translation]
	modules func() ([]*Module, error)
}

// Open opens the dump at path. It fails only if the file is no dump or says
// nothing about its kernel; what else is missing is in Limits.
func Open(path string) (*Program, error) { return OpenFiles([]string{path}, dump.Options{}) }

// OpenFiles opens the dump in the named files, as [dump.OpenFiles] does.
func OpenFiles(paths []string, o dump.Options) (*Program, error) {
	img, err := dump.OpenFiles(paths, o)
	if err != nil {
		return nil, err
	}
	p, err := New(img)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", strings.Join(paths, " "), err), img.Close())
	}
	return p, nil
}

// New makes a Program from an image, which it takes over on success. VMCOREINFO
// is searched for in memory if the image has none.
func New(img *dump.Image) (*Program, error) {
	var limits []error
	info, err := img.VMCoreInfo()
	if errors.Is(err, dump.ErrNoVMCoreInfo) {
		how, rerr := recoverInfo(img)
		if rerr != nil {
			return nil, rerr
		}
		limits = append(limits, errors.New(how))
		info, err = img.VMCoreInfo()
	}
	if err != nil {
		return nil, err
	}
	p, err := newProgram(img, info)
	if err != nil {
		return nil, err
	}
	p.Limits = append(limits, p.Limits...)
	return p, nil
}

// newProgram makes a Program of an image and what its kernel says of itself.
func newProgram(img *dump.Image, info *dump.VMCoreInfo) (*Program, error) {
	p := &Program{Image: img, Info: info}
	p.modules = sync.OnceValues(p.readModules)
	var err error
	if p.pager, err = pagerOf(img, info); err != nil {
		return nil, err
	}
	if p.Syms, err = p.readKallsyms(); err != nil {
		p.Limits = append(p.Limits, fmt.Errorf("no symbols: %w", err))
		p.Syms = sym.NewTable(nil)
	}
	if p.Types, err = p.readBTF(); err != nil {
		p.Limits = append(p.Limits, fmt.Errorf("%w: %w", ErrNoTypes, err))
		p.Types = ctype.Empty()
	}
	return p, nil
}

// ErrNoTypes is wrapped by the one of a Program's Limits that says why the dump has
// no types.
var ErrNoTypes = errors.New("no types")

// SetTypes gives p the types of its kernel from elsewhere than the dump, before
// anything else is asked of p.
func (p *Program) SetTypes(types *ctype.Set) {
	p.Types = types
	p.Limits = slices.DeleteFunc(p.Limits, func(err error) bool { return errors.Is(err, ErrNoTypes) })
}

// Close releases the dump. Nothing obtained from p may be used after it.
func (p *Program) Close() error { return p.Image.Close() }

// pagerOf returns the walker of the page tables that VMCOREINFO tells of.
func pagerOf(img *dump.Image, info *dump.VMCoreInfo) (arch.Pager, error) {
	root, ok := info.Symbol("swapper_pg_dir")
	if !ok {
		return arch.Pager{}, errors.New("find the page tables: VMCOREINFO has no SYMBOL(swapper_pg_dir)")
	}
	base, ok := info.Number("phys_base")
	if !ok {
		return arch.Pager{}, errors.New("find the page tables: VMCOREINFO has no NUMBER(phys_base)")
	}
	pager := arch.Pager{
		Mem:    img,
		Root:   addr.Phys(root - uint64(arch.KernelTextBase) + uint64(base)),
		Levels: 4,
	}
	if l5, _ := info.Number("pgtable_l5_enabled"); l5 == 1 {
		pager.Levels = 5
	}
	if mask, ok := info.Number("sme_mask"); ok {
		pager.CMask = uint64(mask)
	}
	return pager, nil
}

// translation is the last result for a 4 KiB page of virtual addresses.
type translation struct {
	virt addr.Virt
	phys addr.Phys
}

const pageMask = 4096 - 1

// Translate returns the physical address of a kernel virtual address. The error
// is an *addr.Fault.
func (p *Program) Translate(v addr.Virt) (addr.Phys, error) {
	page := v &^ pageMask
	slot := &p.tlb[page>>12&addr.Virt(len(p.tlb)-1)]
	if t := slot.Load(); t != nil && t.virt == page {
		return t.phys + addr.Phys(v&pageMask), nil
	}
	m, err := p.pager.Translate(page)
	if err != nil {
		if f, ok := errors.AsType[*addr.Fault](err); ok {
			g := *f
			g.Virt = v
			return 0, &g
		}
		return 0, err
	}
	slot.Store(&translation{page, m.Phys})
	return m.Phys + addr.Phys(v&pageMask), nil
}

// Pager returns the walker of the kernel's page tables.
func (p *Program) Pager() arch.Pager { return p.pager }

// Read fills b from kernel virtual memory at v, or returns an *addr.Fault that
// names the first address that could not be read.
func (p *Program) Read(v addr.Virt, b []byte) error {
	for len(b) > 0 {
		n := min(len(b), 4096-int(v&pageMask))
		phys, err := p.Translate(v)
		if err != nil {
			return err
		}
		if err := p.Image.ReadPhys(phys, b[:n]); err != nil {
			f := &addr.Fault{Virt: v, HasVirt: true, Phys: phys, HasPhys: true, Reason: addr.ReasonOf(err), Err: nil}
			if g, ok := errors.AsType[*addr.Fault](err); ok {
				f.Err = g.Err
			} else {
				f.Err = err
			}
			return f
		}
		b = b[n:]
		v += addr.Virt(n)
	}
	return nil
}

// Uint64 reads a 64-bit number.
func (p *Program) Uint64(v addr.Virt) (uint64, error) {
	var b [8]byte
	err := p.Read(v, b[:])
	return le64(b[:]), err
}

// Uint32 reads a 32-bit number.
func (p *Program) Uint32(v addr.Virt) (uint32, error) {
	var b [4]byte
	err := p.Read(v, b[:])
	return le32(b[:]), err
}

func le32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func le64(b []byte) uint64 { return uint64(le32(b)) | uint64(le32(b[4:]))<<32 }

// imageSize bounds the search in the kernel's image: KERNEL_IMAGE_SIZE
// (arch/x86/include/asm/page_64_types.h) is 1 GiB, but its read-only data lies
// behind its code, which takes less than a tenth of that.
const imageSize = 96 << 20

func (p *Program) readKallsyms() (*sym.Table, error) {
	t := sym.KallsymsTables{AnchorName: "_stext"}
	if v, ok := p.Info.Symbol(t.AnchorName); ok {
		t.AnchorAddr = addr.Virt(v)
	} else {
		return nil, fmt.Errorf("VMCOREINFO has no SYMBOL(%s)", t.AnchorName)
	}
	known := true
	for _, s := range []struct {
		name string
		at   *addr.Virt
	}{
		{"kallsyms_names", &t.Names},
		{"kallsyms_num_syms", &t.NumSyms},
		{"kallsyms_token_table", &t.TokenTable},
		{"kallsyms_token_index", &t.TokenIndex},
		{"kallsyms_offsets", &t.Offsets},
	} {
		v, ok := p.Info.Symbol(s.name)
		known = known && ok
		*s.at = addr.Virt(v)
	}
	// Gone since Linux commit a081b5789255 (in v7.0), which made the offsets
	// relative to their own place.
	if v, ok := p.Info.Symbol("kallsyms_relative_base"); ok {
		t.RelativeBase = addr.Virt(v)
	}
	var syms []sym.Symbol
	err := errors.New("VMCOREINFO has no SYMBOL(kallsyms_names)")
	if known {
		syms, err = sym.Kallsyms(p, t)
	}
	if err != nil {
		var serr error
		if syms, t, serr = sym.FindKallsyms(p, t.AnchorAddr, imageSize, t.AnchorName, t.AnchorAddr); serr != nil {
			return nil, fmt.Errorf("%w; %w", err, serr)
		}
	}
	p.Kallsyms = t
	return sym.NewTable(syms), nil
}

// maxBTF bounds the size of a kernel's BTF; those of distributions have 4 to 8 MB.
const maxBTF = 64 << 20

func (p *Program) readBTF() (*ctype.Set, error) {
	start, ok1 := p.Syms.Lookup("__start_BTF")
	stop, ok2 := p.Syms.Lookup("__stop_BTF")
	if !ok1 || !ok2 {
		return nil, errors.New("kallsyms has no __start_BTF and __stop_BTF: the kernel was built without CONFIG_DEBUG_INFO_BTF or CONFIG_KALLSYMS_ALL")
	}
	if stop.Addr <= start.Addr || stop.Addr-start.Addr > maxBTF {
		return nil, fmt.Errorf("BTF from %v to %v: not a sensible size", start.Addr, stop.Addr)
	}
	b := make([]byte, stop.Addr-start.Addr)
	if err := p.Read(start.Addr, b); err != nil {
		return nil, err
	}
	return ctype.ParseBTF(b, nil)
}

// Symbol returns the symbol of that name in the kernel or else in a module.
// "name@module" or "module:name" asks for that module's.
func (p *Program) Symbol(name string) (sym.Symbol, bool) {
	if s, ok := p.Syms.Lookup(name); ok {
		return s, true
	}
	mods, _ := p.Modules() // a module that cannot be read has no symbols
	mod := ""
	if m, n, ok := strings.Cut(name, ":"); ok {
		mod, name = m, n
	}
	for _, m := range mods {
		if mod != "" && m.Name != mod {
			continue
		}
		if s, ok := m.Syms.Lookup(name); ok {
			return s, true
		}
	}
	return sym.Symbol{}, false
}

// FindSymbol returns the symbol of the kernel or of a module that covers v, and
// v's offset in it.
func (p *Program) FindSymbol(v addr.Virt) (s sym.Symbol, off uint64, ok bool) {
	if v < arch.KernelTextBase {
		// Below the kernel's image kallsyms has only offsets of per-cpu symbols.
		return sym.Symbol{}, 0, false
	}
	if m := p.ModuleAt(v); m != nil {
		return m.Syms.Find(v)
	}
	if end, ok := p.Syms.Lookup("_end"); ok && v >= end.Addr {
		return sym.Symbol{}, 0, false
	}
	return p.Syms.Find(v)
}

// Type returns the type called name, such as "struct task_struct".
func (p *Program) Type(name string) (ctype.Type, error) { return p.Types.Lookup(name) }

// ObjectAt returns the object of the named type at v.
func (p *Program) ObjectAt(v addr.Virt, typ string) ctype.Object {
	path := fmt.Sprintf("(%s *)%v", typ, v)
	t, err := p.Types.Lookup(typ)
	if err != nil {
		return ctype.Failed(path, err)
	}
	return ctype.NewObject(p, t, v, path)
}

// globalTypes are the types of the global variables that we use: BTF has types
// for per-cpu variables only (as of Linux v7.1).
var globalTypes = map[string]string{
	"__cpu_online_mask":   "struct cpumask",
	"__cpu_possible_mask": "struct cpumask",
	"__cpu_present_mask":  "struct cpumask",
	"btf_modules":         "struct list_head",
	"init_task":           "struct task_struct",
	"init_uts_ns":         "struct uts_namespace",
	"init_pid_ns":         "struct pid_namespace",
	"modules":             "struct list_head",
	"panic_cpu":           "int", // an atomic_t, which has nothing else
	"avenrun":             "unsigned long",
	"jiffies_64":          "u64",
	"jiffies":             "unsigned long",
	"nr_cpu_ids":          "unsigned int",
	"crashing_cpu":        "int",
	"tainted_mask":        "unsigned long",
	"saved_command_line":  "unsigned long",
}

// Object returns a global variable that is in the curated table of types.
func (p *Program) Object(name string) ctype.Object {
	typ, ok := globalTypes[name]
	if !ok {
		return ctype.Failed(name, fmt.Errorf("%s: its type is unknown", name))
	}
	return p.ObjectAs(name, typ)
}

// ObjectAs returns the global variable called name as an object of the named type.
func (p *Program) ObjectAs(name, typ string) ctype.Object {
	s, ok := p.Syms.Lookup(name)
	if !ok {
		return ctype.Failed(name, fmt.Errorf("symbol %s: %w", name, ctype.ErrNotFound))
	}
	t, err := p.Types.Lookup(typ)
	if err != nil {
		return ctype.Failed(name, err)
	}
	return ctype.NewObject(p, t, s.Addr, name)
}
