package kconfig

import (
	"fmt"
	"slices"
	"strings"
)

// Refusal is an option that did not become what was asked for.
type Refusal struct {
	Asked Asked
	Got   string   // value as in a .config
	Why   []string // sentences, the nearest reason first
}

func (r Refusal) String() string {
	got := "CONFIG_" + r.Asked.Name + "=" + r.Got
	if r.Got == "n" {
		got = "it is not set"
	}
	s := fmt.Sprintf("%s asks for %s: %s", r.Asked.Fragment, r.Asked.Line(), got)
	if len(r.Why) > 0 {
		s += "; " + strings.Join(r.Why, "; ")
	}
	return s
}

// Verify compares what was asked for with what kconfig made of it (make
// olddefconfig), and explains each difference by the tree.
func (t *Tree) Verify(m *Merged, got *Config) []Refusal {
	var out []Refusal
	for _, a := range m.Lines() {
		v := got.Value(a.Name)
		if same(a.Value, v) {
			continue // among them what does not exist and should not
		}
		s := t.symbols[a.Name]
		exists := s != nil && len(s.Defs) > 0
		if !exists && a.IfExists {
			continue
		}
		out = append(out, Refusal{a, v, t.Explain(a.Setting, got)})
	}
	return out
}

// Explain says why the option of want has not the value of want in the
// configuration got.
func (t *Tree) Explain(want Setting, got *Config) []string {
	s := t.symbols[want.Name]
	if s == nil || len(s.Defs) == 0 {
		why := fmt.Sprintf("there is no CONFIG_%s in this release", want.Name)
		if near := Nearest(want.Name, t.Names()); len(near) > 0 {
			why += ", but CONFIG_" + strings.Join(near, ", CONFIG_")
		}
		return []string{why}
	}
	if want.Value == "n" {
		return t.explainSet(s, got)
	}
	e := explainer{tree: t, got: got, seen: map[string]bool{want.Name: true}}
	if why := e.unmet(s, wanted(want.Value)); len(why) > 0 {
		return why
	}
	if why := wrongType(s, want.Value); why != "" {
		return []string{why}
	}
	if why := outOfRange(s, want.Value, got); why != "" {
		return []string{why}
	}
	for _, d := range s.Defs {
		if d.Choice == nil {
			continue
		}
		for _, m := range d.Choice.Members {
			if m != s.Name && got.State(m) != No {
				return []string{fmt.Sprintf("CONFIG_%s is chosen instead: of %q only one can be set", m, d.Choice.Prompt)}
			}
		}
	}
	if want.Value == "m" && got.State(s.Name) == Yes {
		return t.explainSet(s, got)
	}
	return []string{"nothing that the Kconfig files tell keeps it from being set"}
}

// wanted returns the least that an option's dependencies must be.
func wanted(value string) Tristate {
	if value == "m" {
		return Module
	}
	return Yes
}

// explainSet says why an option is set that should not be.
func (t *Tree) explainSet(s *Symbol, got *Config) []string {
	var by []string
	for _, r := range s.reverse {
		if r.force && got.State(r.by) != No && r.when.Eval(got) != No {
			by = append(by, "CONFIG_"+r.by)
		}
	}
	if len(by) > 0 {
		slices.Sort(by)
		return []string{"it is selected by " + strings.Join(slices.Compact(by), ", ")}
	}
	for _, d := range s.Defs {
		if d.Choice != nil && got.State(s.Name) == Yes {
			return []string{fmt.Sprintf("of %q one must be set: set another one", d.Choice.Prompt)}
		}
	}
	if e := prompt(s); e == nil || e.Eval(got) == No {
		return []string{"it has a default, and there is nothing to turn it off by" + unless(e)}
	}
	return []string{"it is on by default"}
}

func unless(e *Expr) string {
	if e == nil {
		return ""
	}
	return " unless " + e.String()
}

// prompt returns the condition on which the user is asked for s; nil if never.
func prompt(s *Symbol) *Expr {
	var e *Expr
	for _, d := range s.Defs {
		if d.Prompt == "" {
			continue
		}
		c := and(d.DependsOn, d.PromptIf)
		if c == nil {
			c = &Expr{word: "y", kind: isConst}
		}
		if e == nil {
			e = c
		} else {
			e = &Expr{op: opOr, l: e, r: c}
		}
	}
	return e
}

type explainer struct {
	tree *Tree
	got  *Config
	seen map[string]bool
}

// maxReasons bounds an explanation.
const maxReasons = 8

// unmet says what keeps s from being set to want.
func (e *explainer) unmet(s *Symbol, want Tristate) []string {
	var best []string
	prompts := 0
	for _, d := range s.Defs {
		c := d.DependsOn
		if d.Prompt != "" {
			prompts++
			c = and(c, d.PromptIf)
		}
		if c.Eval(e.got) >= want {
			if d.Prompt != "" {
				return nil // of several definitions this one can be used
			}
			continue
		}
		if why := e.reasons(c, want); best == nil || len(why) < len(best) {
			best = why
		}
	}
	if prompts > 0 || len(best) > 0 {
		return best[:min(len(best), maxReasons)]
	}
	var by []string
	for _, r := range s.reverse {
		if r.force {
			by = append(by, "CONFIG_"+r.by)
		}
	}
	slices.Sort(by)
	by = slices.Compact(by)
	switch {
	case len(by) == 0 && !hasDefaults(s):
		return []string{fmt.Sprintf("CONFIG_%s cannot be asked for, and nothing selects it here", s.Name)}
	case len(by) == 0:
		return []string{fmt.Sprintf("CONFIG_%s cannot be asked for: its default decides", s.Name)}
	case len(by) > 6:
		by = append(by[:6], "…")
	}
	return []string{fmt.Sprintf("CONFIG_%s cannot be asked for; it is selected by %s", s.Name, strings.Join(by, ", "))}
}

func hasDefaults(s *Symbol) bool {
	return slices.ContainsFunc(s.Defs, func(d *Definition) bool { return len(d.defaults) > 0 })
}

// reasons says which parts of x are below want.
func (e *explainer) reasons(x *Expr, want Tristate) []string {
	if x.Eval(e.got) >= want {
		return nil
	}
	switch x.op {
	case opAnd:
		return append(e.reasons(x.l, want), e.reasons(x.r, want)...)
	case opOr:
		return []string{"it needs " + x.String() + e.values(x)}
	case opNot:
		return []string{"it needs " + x.String() + e.values(x)}
	case opLeaf:
		if x.kind != isSymbol {
			return []string{"it never can: it depends on " + x.word}
		}
		return e.missing(x.word, want)
	}
	return []string{"it needs " + x.String() + e.values(x)}
}

// values tells what the symbols of x are.
func (e *explainer) values(x *Expr) string {
	var seen, out []string
	x.symbols(func(name string) {
		if !slices.Contains(seen, name) {
			seen = append(seen, name)
			out = append(out, name+"="+e.got.Value(name))
		}
	})
	if len(out) > 6 {
		out = append(out[:6], "…")
	}
	return " (" + strings.Join(out, ", ") + ")"
}

// missing says that name is below want, and what that needs itself.
func (e *explainer) missing(name string, want Tristate) []string {
	why := "it needs CONFIG_" + name
	if want == Yes && e.got.State(name) == Module {
		return []string{why + "=y, which is a module"}
	}
	s := e.tree.symbols[name]
	switch {
	case s == nil || len(s.Defs) == 0:
		return []string{why + ", which does not exist here"}
	case e.seen[name]:
		return []string{why}
	}
	e.seen[name] = true
	out := []string{why + ", which is not set"}
	for _, deeper := range e.unmet(s, want) {
		if rest, ok := strings.CutPrefix(deeper, "it needs "); ok {
			deeper = "CONFIG_" + name + " needs " + rest
		}
		out = append(out, deeper)
	}
	return out
}

// wrongType says that value does not suit the type of s.
func wrongType(s *Symbol, value string) string {
	ok := true
	switch s.Type {
	case "bool":
		ok = value == "y"
	case "tristate":
		ok = value == "y" || value == "m"
	case "string":
		ok = strings.HasPrefix(value, `"`)
	case "int", "hex":
		ok = isNumber(value)
	}
	if ok {
		return ""
	}
	return fmt.Sprintf("it is of type %s, and %s is none", s.Type, value)
}

// outOfRange says that value is not in the range of s.
func outOfRange(s *Symbol, v string, got *Config) string {
	n, ok := value(v)
	if !ok {
		return ""
	}
	limit := func(word string) (int64, bool) {
		if isName(word) && !isNumber(word) {
			word = got.Value(word)
		}
		return value(word)
	}
	for _, d := range s.Defs {
		for _, r := range d.ranges {
			if r.when.Eval(got) == No {
				continue
			}
			low, ok1 := limit(r.low)
			high, ok2 := limit(r.high)
			if ok1 && ok2 && (n < low || n > high) {
				return fmt.Sprintf("it may be from %d to %d", low, high)
			}
			return "" // the first range that applies counts
		}
	}
	return ""
}

// Settable reports whether a user who has the configuration c is asked for s.
func (s *Symbol) Settable(c *Config) bool {
	e := prompt(s)
	return e != nil && e.Eval(c) != No
}

// Title returns the prompt of s; empty if nobody is asked for it.
func (s *Symbol) Title() string {
	for _, d := range s.Defs {
		if d.Prompt != "" {
			return d.Prompt
		}
	}
	return ""
}
