package kconfig

import (
	"fmt"
	"slices"
)

// Merged is a configuration put together from a base and fragments.
type Merged struct {
	Config *Config

	// Asked holds, for each option that a fragment sets, the line that counts.
	Asked map[string]Asked

	Contradictions []Contradiction // in the order in which they came up
}

// Asked is a line of a fragment that was merged.
type Asked struct {
	FragmentLine
	Fragment string // its name
}

func (a Asked) String() string { return fmt.Sprintf("%s:%d: %s", a.Fragment, a.Number, a.Line()) }

// Contradiction is an option to which two fragments give different values. The
// later one counts.
type Contradiction struct {
	First, Then Asked
}

func (c Contradiction) String() string {
	return fmt.Sprintf("%s sets %s, against %s of %s", c.Then.Fragment, c.Then.Line(), c.First.Line(), c.First.Fragment)
}

// Merge merges fragments, in their order, into a copy of base; nil stands for
// an empty one.
func Merge(base *Config, fragments ...*Fragment) *Merged {
	m := &Merged{Config: new(Config), Asked: make(map[string]Asked)}
	if base != nil {
		m.Config = base.Clone()
	}
	for _, f := range fragments {
		for _, l := range f.Lines {
			now := Asked{l, f.Name}
			if was, ok := m.Asked[l.Name]; ok && !same(was.Value, now.Value) {
				m.Contradictions = append(m.Contradictions, Contradiction{was, now})
			}
			m.Asked[l.Name] = now
			m.Config.Set(l.Name, l.Value) // both are of a parsed line
		}
	}
	return m
}

// Lines returns what was asked for, in the order of the options' names.
func (m *Merged) Lines() []Asked {
	var all []Asked
	for _, name := range m.Config.Names() {
		if a, ok := m.Asked[name]; ok {
			all = append(all, a)
		}
	}
	return all
}

// Overrides splits contradictions into those in which the first fragment is
// one of base, which others may change, and the rest.
func (m *Merged) Overrides(base []string) (overrides, conflicts []Contradiction) {
	for _, c := range m.Contradictions {
		if slices.Contains(base, c.First.Fragment) {
			overrides = append(overrides, c)
		} else {
			conflicts = append(conflicts, c)
		}
	}
	return overrides, conflicts
}
