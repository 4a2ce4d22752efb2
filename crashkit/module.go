package crashkit

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
	"crashlab/crashkit/sym"
)

// Module is a loaded kernel module: what struct module (include/linux/module.h)
// says about it.
type Module struct {
	Name   string
	Object ctype.Object // the struct module
	Memory []ModuleMemory
	Syms   *sym.Table // its own symbols, from its own kallsyms; empty if unreadable
	// Limits says what of the module could not be read.
	Limits []error
}

// ModuleMemory is one range of memory of a module, [Base, Base+Size).
type ModuleMemory struct {
	Kind string // "text", "data", "rodata", "ro_after_init", …; "core" before v6.4
	Init bool   // freed once the module's init function has returned
	Base addr.Virt
	Size uint64

	code uint64 // of Size, how much is code, at its start; 0 for all or none
}

// Contains reports whether v lies in the range.
func (m ModuleMemory) Contains(v addr.Virt) bool { return v >= m.Base && uint64(v-m.Base) < m.Size }

// Base returns the address that /proc/modules and crash call the module's: that
// of its core memory or of its text.
func (m *Module) Base() addr.Virt {
	for _, mem := range m.Memory {
		if !mem.Init {
			return mem.Base
		}
	}
	return 0
}

// Size returns the size of the module's core memory in bytes, without what is
// freed after init.
func (m *Module) Size() uint64 {
	var n uint64
	for _, mem := range m.Memory {
		if !mem.Init {
			n += mem.Size
		}
	}
	return n
}

// Contains reports whether v lies in the module, init memory included.
func (m *Module) Contains(v addr.Virt) bool {
	return slices.ContainsFunc(m.Memory, func(r ModuleMemory) bool { return r.Contains(v) })
}

// Modules returns the loaded modules, most recently loaded first, as the kernel
// lists them. It may return modules and an error: those before the damage.
func (p *Program) Modules() ([]*Module, error) { return p.modules() }

// ModuleAt returns the module whose memory covers v, or nil.
func (p *Program) ModuleAt(v addr.Virt) *Module {
	mods, _ := p.Modules() // those that could be read
	for _, m := range mods {
		if m.Contains(v) {
			return m
		}
	}
	return nil
}

func (p *Program) readModules() ([]*Module, error) {
	t, err := p.Types.Lookup("struct module")
	if err != nil {
		return nil, err
	}
	unformed, _ := p.Types.Enumerator("MODULE_STATE_UNFORMED")
	var mods []*Module
	err = p.List(p.Object("modules"), t, "list", func(o ctype.Object) bool {
		if state, err := o.Member("state").Uint(); err == nil && unformed != 0 && state == unformed {
			return true // not set up yet: its fields mean nothing
		}
		m := &Module{Object: o, Syms: sym.NewTable(nil)}
		if m.Name, err = o.Member("name").Str(); err != nil {
			m.Limits = append(m.Limits, err)
		}
		if m.Memory, err = moduleMemory(p.Types, o); err != nil {
			m.Limits = append(m.Limits, err)
		}
		syms, err := p.moduleSyms(m)
		if err != nil {
			m.Limits = append(m.Limits, fmt.Errorf("symbols of %s: %w", m.Name, err))
		}
		if syms != nil {
			m.Syms = syms
		}
		mods = append(mods, m)
		return true
	})
	return mods, err
}

// moduleMemory reads where a module lies.
func moduleMemory(types *ctype.Set, o ctype.Object) ([]ModuleMemory, error) {
	var mem []ModuleMemory
	add := func(kind string, init bool, base, size ctype.Object) error {
		b, err := base.Ptr()
		if err != nil {
			return err
		}
		n, err := size.Uint()
		if err == nil && b != 0 && n != 0 {
			mem = append(mem, ModuleMemory{Kind: kind, Init: init, Base: b, Size: n})
		}
		return err
	}
	if !o.Has("mem") {
		// Until v6.3: two ranges, each with its code at the start.
		for _, kind := range []string{"core", "init"} {
			layout := o.Member(kind + "_layout")
			had := len(mem)
			if err := add(kind, kind == "init", layout.Member("base"), layout.Member("size")); err != nil {
				return mem, err
			}
			if len(mem) > had {
				code, err := layout.Member("text_size").Uint()
				if err != nil {
					return mem, err
				}
				mem[had].code = code
			}
		}
		return mem, nil
	}
	// Since Linux commit ac3b43283923 ("module: replace module_layout with
	// module_memory") (in v6.4): one range for each kind of use.
	for _, k := range []struct {
		enum, kind string
		init       bool
	}{
		{"MOD_TEXT", "text", false},
		{"MOD_DATA", "data", false},
		{"MOD_RODATA", "rodata", false},
		{"MOD_RO_AFTER_INIT", "ro_after_init", false},
		{"MOD_INIT_TEXT", "init_text", true},
		{"MOD_INIT_DATA", "init_data", true},
		{"MOD_INIT_RODATA", "init_rodata", true},
	} {
		i, ok := types.Enumerator(k.enum)
		if !ok {
			return mem, fmt.Errorf("enumerator %s: %w", k.enum, ctype.ErrNotFound)
		}
		r := o.Member("mem").Index(int(i))
		if err := add(k.kind, k.init, r.Member("base"), r.Member("size")); err != nil {
			return mem, err
		}
	}
	return mem, nil
}

// maxModuleSyms bounds num_symtab: amdgpu, one of the largest, has some 50,000.
const maxModuleSyms = 1 << 20

// moduleSyms reads the symbols that a module keeps for kallsyms: ELF symbols, a
// string table and, since v5.2, a table of type letters (struct mod_kallsyms).
// With an error may come those symbols that could be read.
func (p *Program) moduleSyms(m *Module) (*sym.Table, error) {
	const entry = 24 // sizeof(Elf64_Sym)
	k := m.Object.Member("kallsyms").Deref()
	n, err := k.Member("num_symtab").Uint()
	if err != nil {
		return nil, err
	}
	if n > maxModuleSyms {
		return nil, fmt.Errorf("num_symtab is %d: not a module's", n)
	}
	symtab, err := k.Member("symtab").Ptr()
	if err != nil {
		return nil, err
	}
	strtab, err := k.Member("strtab").Ptr()
	if err != nil {
		return nil, err
	}
	raw := make([]byte, entry*n)
	if err := p.Read(symtab, raw); err != nil {
		return nil, err
	}
	letters := make([]byte, n)
	if k.Has("typetab") {
		at, err := k.Member("typetab").Ptr()
		if err != nil {
			return nil, err
		}
		if err := p.Read(at, letters); err != nil {
			return nil, err
		}
	}
	var syms []sym.Symbol
	var bad error
	for i := range n {
		e := raw[entry*i:]
		name, shndx := binary.LittleEndian.Uint32(e), binary.LittleEndian.Uint16(e[6:])
		if name == 0 || shndx == 0 { // no name; undefined
			continue
		}
		s := sym.Symbol{Addr: addr.Virt(le64(e[8:])), Type: letters[i], Module: m.Name}
		if s.Type == 0 {
			s.Type = 'd'
			if e[4]&0xf == 2 { // STT_FUNC
				s.Type = 't'
			}
		}
		if s.Name, err = ctype.CString(p, strtab+addr.Virt(name)); err != nil {
			bad = err
			continue
		}
		syms = append(syms, s)
	}
	// The kernel's own idea of a symbol's size, which its traces show: up to the
	// next symbol or the end of the memory it is in (kernel/module/kallsyms.c).
	slices.SortStableFunc(syms, func(a, b sym.Symbol) int { return cmp.Compare(a.Addr, b.Addr) })
	next := addr.Virt(0)
	for i := len(syms) - 1; i >= 0; i-- {
		s := &syms[i]
		if i+1 < len(syms) && syms[i+1].Addr != s.Addr {
			next = syms[i+1].Addr
		}
		end := next
		for _, mem := range m.Memory {
			if !mem.Contains(s.Addr) {
				continue
			}
			e := mem.Base + addr.Virt(mem.Size)
			if code := mem.Base + addr.Virt(mem.code); s.Addr < code {
				e = code
			}
			if end == 0 || end > e {
				end = e
			}
		}
		if end > s.Addr {
			s.Size = uint64(end - s.Addr)
		}
	}
	return sym.NewTable(syms), bad
}

// ModuleTypes returns a module's own types on top of the kernel's, from the BTF
// that it was loaded with. The error wraps ctype.ErrNotFound if it has none.
func (p *Program) ModuleTypes(m *Module) (*ctype.Set, error) {
	t, err := p.Types.Lookup("struct btf_module")
	if err != nil {
		return nil, err
	}
	var set *ctype.Set
	found := fmt.Errorf("BTF of module %s: %w", m.Name, ctype.ErrNotFound)
	err = p.List(p.Object("btf_modules"), t, "list", func(o ctype.Object) bool {
		owner, err := o.Member("module").Ptr()
		if err != nil || owner != m.Object.Addr() {
			return true
		}
		set, found = p.moduleBTF(o.Member("btf").Deref())
		return false
	})
	return set, errors.Join(found, err)
}

func (p *Program) moduleBTF(btf ctype.Object) (*ctype.Set, error) {
	data, err := btf.Member("data").Ptr()
	if err != nil {
		return nil, err
	}
	size, err := btf.Member("data_size").Uint()
	if err != nil {
		return nil, err
	}
	if size > maxBTF {
		return nil, fmt.Errorf("%s: %d bytes of BTF is too much", btf.Path(), size)
	}
	b := make([]byte, size)
	if err := p.Read(data, b); err != nil {
		return nil, err
	}
	return ctype.ParseBTF(b, p.Types)
}
