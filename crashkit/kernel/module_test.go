package kernel_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/internal/coretest"
	"crashlab/crashkit/kernel"
)

const module = "struct module"

// module makes a module with 0x2000 bytes of text and a symbol in it, and 0x1000
// bytes of init text.
func (m *made) module(name string, base addr.Virt, state int) addr.Virt {
	v := m.New(m.t, module)
	m.set(v, module, name, "name")
	m.set(v, module, state, "state")
	init := base + 0x10000
	if m.Has(module, "mem") {
		const mem = "struct module_memory"
		for i, r := range map[int]addr.Virt{0 /* MOD_TEXT */ : base, 4 /* MOD_INIT_TEXT */ : init} {
			at := v + m.Offset(m.t, module, "mem") + addr.Virt(uint64(i)*m.Size(m.t, mem))
			m.set(at, mem, r, "base")
			m.set(at, mem, map[int]int{0: 0x2000, 4: 0x1000}[i], "size")
		}
	} else {
		const layout = "struct module_layout"
		for member, r := range map[string]struct {
			base addr.Virt
			size int
		}{"core_layout": {base, 0x2000}, "init_layout": {init, 0x1000}} {
			at := v + m.Offset(m.t, module, member)
			m.set(at, layout, r.base, "base")
			m.set(at, layout, r.size, "size")
			m.set(at, layout, r.size, "text_size")
		}
	}
	m.Write(base, make([]byte, 0x2000))

	const kallsyms = "struct mod_kallsyms"
	k := m.New(m.t, kallsyms)
	m.set(v, module, k, "kallsyms")
	strtab := m.Alloc(64)
	m.Write(strtab, []byte("\x00"+name+"_init\x00"+name+"_work\x00"))
	symtab := m.Alloc(4 * 24)
	for i, s := range []struct {
		name  int
		value addr.Virt
	}{{}, {1, init}, {1 + len(name) + 6, base + 0x40}} { // the first of an ELF symbol table is empty
		at := symtab + addr.Virt(24*i)
		m.Write(at, binary.LittleEndian.AppendUint32(nil, uint32(s.name)))
		m.Write(at+4, []byte{2 /* STT_FUNC */, 0, 1, 0}) // in section 1
		m.Uint64(at+8, uint64(s.value))
	}
	m.set(k, kallsyms, symtab, "symtab")
	m.set(k, kallsyms, strtab, "strtab")
	m.set(k, kallsyms, 3, "num_symtab")
	m.set(k, kallsyms, m.String("?tT"), "typetab")
	return v
}

func TestModulesOfEveryLayout(t *testing.T) {
	forEachKernel(t, func(t *testing.T, m *made) {
		const live, coming, unformed = 0, 1, 3
		base := coretest.Text + 0x20000000
		a, b := m.module("upper", base, live), m.module("lower", base+0x100000, coming)
		half := m.module("half", base+0x200000, unformed)
		m.set(a, module, 1<<12|1<<13, "taints")
		m.set(b, module, 3, "refcnt.counter") // two users and the kernel itself
		m.set(b, module, m.String("1.2"), "version")
		use := m.New(t, "struct module_use")
		m.set(use, "struct module_use", a, "source")
		m.List(b+m.Offset(t, module, "source_list"), use+m.Offset(t, "struct module_use", "source_list"))
		m.List(a + m.Offset(t, module, "source_list"))
		list := m.Offset(t, module, "list")
		m.List(m.Global(t, "modules", "struct list_head"), half+list, a+list, b+list)

		p := m.Open(t)
		mods, err := kernel.Modules(p)
		if err != nil {
			t.Fatal(err)
		}
		want := []kernel.Module{
			{
				Name: "upper", Addr: a, Base: base, Size: 0x2000, State: "live", UsedBy: []string{},
				Taints: []kernel.Taint{{Bit: 12, Letter: "O", Name: "OOT_MODULE"}, {Bit: 13, Letter: "E", Name: "UNSIGNED_MODULE"}},
			},
			{
				Name: "lower", Addr: b, Base: base + 0x100000, Size: 0x2000, State: "coming", Refs: 2, UsedBy: []string{"upper"},
				Taints: []kernel.Taint{}, Version: "1.2",
			},
		}
		if d := cmp.Diff(want, mods); d != "" {
			t.Errorf("Modules: -want +got:\n%s", d)
		}
		for at, want := range map[addr.Virt]string{
			base + 0x48:     "upper_work+0x8/0x1fc0 T upper",
			base + 0x10002:  "upper_init+0x2/0x1000 t upper",
			base + 0x100040: "lower_work+0x0/0x1fc0 T lower",
			base + 0x10:     "", // before the first symbol
			base + 0x2000:   "",
		} {
			got := ""
			if s, off, ok := p.FindSymbol(at); ok {
				got = fmt.Sprintf("%s+%#x/%#x %c %s", s.Name, off, s.Size, s.Type, s.Module)
			}
			if got != want {
				t.Errorf("FindSymbol(%v) = %q; want %q", at, got, want)
			}
		}
		if s, ok := p.Symbol("lower:lower_work"); !ok || s.Addr != base+0x100040 {
			t.Errorf("Symbol(lower:lower_work) = %+v, %v", s, ok)
		}
	})
}

// A module that is damaged keeps what is not, and the others are whole.
func TestModulesDamaged(t *testing.T) {
	forEachKernel(t, func(t *testing.T, m *made) {
		a, b := m.module("good", coretest.Text+0x20000000, 0), m.module("bad", coretest.Text+0x21000000, 0)
		m.set(b, module, 8, "kallsyms")
		m.set(b, module, 16, "version")
		list := m.Offset(t, module, "list")
		for _, v := range []addr.Virt{a, b} {
			m.List(v + m.Offset(t, module, "source_list"))
		}
		m.List(m.Global(t, "modules", "struct list_head"), a+list, b+list)
		m.Uint64(b+list, 0xdead000000000100) // and then the list ends
		mods, err := kernel.Modules(m.Open(t))
		if err == nil || !strings.Contains(err.Error(), "list modules, after 2 entries") {
			t.Errorf("Modules = %v; want that the list broke off", err)
		}
		if len(mods) != 2 || mods[0].Name != "good" || len(mods[0].Problems) != 0 || mods[1].Name != "bad" || len(mods[1].Problems) != 2 {
			t.Errorf("Modules = %+v; want a good one, and a bad one with two problems", mods)
		}
	})
}
