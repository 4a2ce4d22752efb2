package kernel

import (
	"strings"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
)

// Module is a loaded module: a struct module (include/linux/module.h).
type Module struct {
	Name       string    `json:"name"`
	Addr       addr.Virt `json:"address"` // of the struct module
	Base       addr.Virt `json:"base"`    // of its text
	Size       uint64    `json:"size"`    // in bytes, as in /proc/modules
	State      string    `json:"state"`   // "live", "coming", "going"
	Refs       int       `json:"refs"`    // as in /proc/modules
	UsedBy     []string  `json:"used_by"` // modules
	Taints     []Taint   `json:"taints"`
	Version    string    `json:"version,omitempty"`
	SrcVersion string    `json:"srcversion,omitempty"`

	Problems Problems `json:"problems,omitempty"`
}

// Modules returns the loaded modules in the order of the kernel's list, the
// newest first. With an error come those before the damage.
func Modules(p *crashkit.Program) ([]Module, error) {
	mods, err := p.Modules()
	flags := taintFlags(p)
	use, _ := p.Type("struct module_use") // without it, a module of a kernel that cannot unload any
	all := make([]Module, len(mods))
	for i, m := range mods {
		all[i] = readModule(p, m, flags, use)
	}
	return all, err
}

func readModule(p *crashkit.Program, m *crashkit.Module, flags []Taint, use ctype.Type) Module {
	o := m.Object
	e := Problems(append([]error(nil), m.Limits...))
	f := Module{Name: m.Name, Addr: o.Addr(), Base: m.Base(), Size: m.Size(), UsedBy: []string{}}
	f.Taints = taintsOf(e.uint(o.Member("taints")), flags)
	f.State = moduleState(&e, o.Member("state"))
	if o.Has("refcnt") { // CONFIG_MODULE_UNLOAD
		// The kernel holds one reference itself (MODULE_REF_BASE).
		f.Refs = max(e.int(o.Member("refcnt.counter"))-1, 0)
		if use != nil {
			e.note(p.List(o.Member("source_list"), use, "source_list", func(u ctype.Object) bool {
				f.UsedBy = append(f.UsedBy, e.str(u.Member("source").Deref().Member("name")))
				return true
			}))
		}
	}
	for _, s := range []struct {
		member string
		text   *string
	}{{"version", &f.Version}, {"srcversion", &f.SrcVersion}} {
		if v := o.Member(s.member); o.Has(s.member) && e.ptr(v) != 0 {
			*s.text = e.str(v)
		}
	}
	f.Problems = e
	return f
}

// moduleState names an enum module_state after its enumerators.
func moduleState(e *Problems, o ctype.Object) string {
	v := e.uint(o)
	if enum, ok := ctype.Resolve(o.Type()).(*ctype.Enum); ok {
		for _, k := range enum.Values {
			if k.Value == v {
				return strings.ToLower(strings.TrimPrefix(k.Name, "MODULE_STATE_"))
			}
		}
	}
	return ""
}
