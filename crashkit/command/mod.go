package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"crashlab/crashkit/kernel"
)

func modCommand() *Command {
	return &Command{
		Name:     "mod",
		Summary:  "list the loaded modules",
		Operands: "[MODULE]…",
		Max:      -1,
		Flags: []Flag{
			{"t", "", "only modules that taint the kernel, with their taints"},
		},
		Help: "Shows struct module, name, base address and size of each module, by address. The symbols of all modules come " +
			"from the dump, as those of the kernel do; no object file is loaded, and that is what the last column says.",
		Examples: []string{"mod", "mod -t"},
		run:      mod,
	}
}

// modules are the loaded modules, by address.
type modules struct {
	Modules []kernel.Module `json:"modules"`

	taints bool
}

func mod(_ context.Context, env *Env, args *Args) (Result, error) {
	all, err := kernel.Modules(env.Program)
	errs := []error{err}
	r := &modules{Modules: []kernel.Module{}, taints: args.Has("t")}
	for _, m := range all {
		if len(args.Operands) > 0 && !slices.Contains(args.Operands, m.Name) || r.taints && len(m.Taints) == 0 {
			continue
		}
		r.Modules = append(r.Modules, m)
		for _, p := range m.Problems {
			errs = append(errs, fmt.Errorf("module %s: %w", m.Name, p))
		}
	}
	for _, name := range args.Operands {
		if !slices.ContainsFunc(all, func(m kernel.Module) bool { return m.Name == name }) {
			errs = append(errs, fmt.Errorf("no module is called %s", name))
		}
	}
	slices.SortFunc(r.Modules, func(a, b kernel.Module) int { return cmp.Compare(a.Base, b.Base) })
	err = errors.Join(errs...)
	if len(r.Modules) == 0 && err != nil {
		return nil, err
	}
	return r, err
}

// WriteText implements Result.
func (m *modules) WriteText(t *Text) {
	name, size := len("NAME"), len("SIZE")
	for _, mod := range m.Modules {
		name = max(name, len(safe(mod.Name)))
		size = max(size, len(fmt.Sprint(mod.Size)))
	}
	if m.taints {
		if len(m.Modules) == 0 {
			t.String("no tainted modules\n")
			return
		}
		t.Printf("%-*s  TAINTS\n", name, "NAME")
		for _, mod := range m.Modules {
			t.Printf("%-*s  %s\n", name, safe(mod.Name), letters(mod.Taints))
		}
		return
	}
	t.Printf("     MODULE       %-*s        BASE        %*s  OBJECT FILE\n", name, "NAME", size, "SIZE")
	for _, mod := range m.Modules {
		t.Printf("%016x  %-*s  %016x  %*d  (not loaded)  [CONFIG_KALLSYMS]\n",
			uint64(mod.Addr), name, safe(mod.Name), uint64(mod.Base), size, mod.Size)
	}
}

func letters(taints []kernel.Taint) string {
	var s strings.Builder
	for _, t := range taints {
		s.WriteString(t.Letter)
	}
	return s.String()
}
