package kconfig

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// Tree is what the Kconfig files of a source tree say. It is not a second
// kconfig: it computes no configuration, it explains the one that kconfig made.
type Tree struct {
	symbols map[string]*Symbol
	choices []*Choice
}

// Symbol is an option.
type Symbol struct {
	Name    string
	Type    string // "bool", "tristate", "string", "int", "hex"; empty if unknown
	Defs    []*Definition
	reverse []reverse // who selects or implies it
}

// Definition is a place where an option is defined; some have several.
type Definition struct {
	File      string // relative to the tree
	Line      int
	Prompt    string // empty: nobody is asked
	PromptIf  *Expr
	DependsOn *Expr // with the conditions of the menus and ifs around it
	Help      string
	Choice    *Choice // nil outside of choices
	defaults  []conditional
	ranges    []valueRange
}

// Choice is a group of options of which one is set.
type Choice struct {
	Prompt    string
	File      string
	Line      int
	Members   []string
	DependsOn *Expr
}

type conditional struct{ value, when *Expr }

type valueRange struct {
	low, high string
	when      *Expr
}

type reverse struct {
	by    string
	when  *Expr
	force bool // select, not imply
}

// Symbol returns the option called name, or nil.
func (t *Tree) Symbol(name string) *Symbol { return t.symbols[name] }

// Names returns the names of all options, in their order.
func (t *Tree) Names() []string {
	var names []string
	for _, n := range slices.Sorted(maps.Keys(t.symbols)) {
		if len(t.symbols[n].Defs) > 0 {
			names = append(names, n)
		}
	}
	return names
}

// Bounds of what a tree may hold; Linux 6.1 has 1600 files and 18,000 options.
const (
	maxFiles     = 20000
	maxNesting   = 100
	maxStatement = 64 << 10 // bytes; expressions are walked recursively
)

// ParseTree parses the file Kconfig of the source tree and all that it names.
// vars are the variables that the names of files use: SRCARCH, such as "x86".
func ParseTree(tree fs.FS, vars map[string]string) (*Tree, error) {
	p := &treeParser{fs: tree, vars: vars, tree: &Tree{symbols: make(map[string]*Symbol)}}
	if err := p.file("Kconfig", scope{}, 0); err != nil {
		return nil, err
	}
	return p.tree, nil
}

// scope is what surrounds an entry.
type scope struct {
	depends *Expr
	choice  *Choice
}

type treeParser struct {
	fs    fs.FS
	vars  map[string]string
	tree  *Tree
	files int
}

func (p *treeParser) symbol(name string) *Symbol {
	s := p.tree.symbols[name]
	if s == nil {
		s = &Symbol{Name: name}
		p.tree.symbols[name] = s
	}
	return s
}

// source is one file while it is read.
type source struct {
	*treeParser
	name  string
	lines []string // with continued lines put together
	first []int    // number of the first line of each
	next  int
	stack []block
}

// block is an if, menu or choice that has begun.
type block struct {
	kind  string
	scope scope
}

func (p *treeParser) file(name string, outer scope, depth int) error {
	if p.files++; p.files > maxFiles || depth > maxNesting {
		return fmt.Errorf("%s: too many Kconfig files, or one that reads itself", name)
	}
	text, err := fs.ReadFile(p.fs, name)
	if err != nil {
		return err
	}
	s := &source{treeParser: p, name: name, stack: []block{{"file", outer}}}
	if err := s.split(string(text)); err != nil {
		return fmt.Errorf("%s:%w", name, err)
	}
	for s.next < len(s.lines) {
		line := s.next
		if err := s.statement(depth); err != nil {
			return fmt.Errorf("%s:%d: %w", name, s.first[line], err)
		}
	}
	if open := s.stack[len(s.stack)-1]; open.kind != "file" {
		return fmt.Errorf("%s: %s has no end", name, open.kind)
	}
	return nil
}

// split cuts the text into lines; a backslash at the end continues a line.
func (s *source) split(text string) error {
	continued := false
	for i, l := range strings.Split(text, "\n") {
		l = strings.TrimSuffix(l, "\r")
		if continued {
			s.lines[len(s.lines)-1] += l
		} else {
			s.lines, s.first = append(s.lines, l), append(s.first, i+1)
		}
		last := &s.lines[len(s.lines)-1]
		if continued = strings.HasSuffix(*last, "\\"); continued {
			*last = strings.TrimSuffix(*last, "\\") + " "
		}
		if len(*last) > maxStatement {
			return fmt.Errorf("%d: a line is longer than %d bytes", i+1, maxStatement)
		}
	}
	return nil
}

func (s *source) scope() scope { return s.stack[len(s.stack)-1].scope }

// tokens returns the words of the next line and moves on.
func (s *source) tokens() ([]token, error) {
	l := s.lines[s.next]
	s.next++
	// Definitions of macros, and macros that stand alone, are the preprocessor's.
	if t := strings.TrimSpace(l); strings.HasPrefix(t, "$(") || isAssignment(t) {
		return nil, nil
	}
	return tokenize(l)
}

// isAssignment reports whether l is NAME = value, NAME := value or NAME += value.
func isAssignment(l string) bool {
	i := strings.IndexByte(l, '=')
	if i <= 0 {
		return false
	}
	name := strings.TrimRight(strings.TrimRight(l[:i], ":+"), " \t")
	for j := range len(name) {
		if !isWord(name[j]) {
			return false
		}
	}
	return name != ""
}

// statement parses the next entry.
func (s *source) statement(depth int) error {
	number := s.first[s.next]
	t, err := s.tokens()
	if err != nil || len(t) == 0 {
		return err
	}
	arg := ""
	if len(t) > 1 {
		arg = t[1].text
	}
	switch t[0].text {
	case "config", "menuconfig":
		if !isName(arg) {
			return fmt.Errorf("%q is not the name of an option", arg)
		}
		return s.config(arg, number)
	case "choice":
		c := &Choice{File: s.name, Line: number}
		s.tree.choices = append(s.tree.choices, c)
		d := &Definition{}
		if err := s.properties(nil, d); err != nil {
			return err
		}
		c.Prompt, c.DependsOn = d.Prompt, and(s.scope().depends, d.DependsOn)
		s.stack = append(s.stack, block{"choice", scope{and(s.scope().depends, d.DependsOn), c}})
	case "menu":
		d := &Definition{}
		if err := s.properties(nil, d); err != nil {
			return err
		}
		s.stack = append(s.stack, block{"menu", scope{and(s.scope().depends, d.DependsOn), s.scope().choice}})
	case "if":
		e, err := parseExpr(t[1:])
		if err != nil {
			return err
		}
		s.stack = append(s.stack, block{"if", scope{and(s.scope().depends, e), s.scope().choice}})
	case "endif", "endmenu", "endchoice":
		if kind := strings.TrimPrefix(t[0].text, "end"); s.stack[len(s.stack)-1].kind != kind {
			return fmt.Errorf("%s without %s", t[0].text, kind)
		}
		s.stack = s.stack[:len(s.stack)-1]
	case "comment":
		return s.properties(nil, &Definition{})
	case "mainmenu":
	case "source":
		name, err := s.expand(arg)
		if err != nil {
			return err
		}
		return s.file(path.Clean(name), s.scope(), depth+1)
	default:
		return fmt.Errorf("%q begins no entry", t[0].text)
	}
	return nil
}

// expand replaces variables in the name of a file.
func (s *source) expand(name string) (string, error) {
	for {
		before, rest, ok := strings.Cut(name, "$(")
		if !ok {
			return name, nil
		}
		v, after, ok := strings.Cut(rest, ")")
		value, known := s.vars[v]
		if !ok || !known {
			return "", fmt.Errorf("the variable %s is not known", v)
		}
		if strings.Contains(value, "$(") {
			return "", fmt.Errorf("the variable %s holds another one", v)
		}
		name = before + value + after
	}
}

func (s *source) config(name string, number int) error {
	sym := s.symbol(name)
	sc := s.scope()
	d := &Definition{File: s.name, Line: number, Choice: sc.choice}
	if sc.choice != nil {
		sc.choice.Members = append(sc.choice.Members, name)
	}
	sym.Defs = append(sym.Defs, d)
	if err := s.properties(sym, d); err != nil {
		return err
	}
	d.DependsOn = and(sc.depends, d.DependsOn)
	return nil
}

// properties parses the lines of an entry: of the option sym, or of a menu or
// choice if that is nil. It stops at the line that begins the next entry.
func (s *source) properties(sym *Symbol, d *Definition) error {
	for s.next < len(s.lines) {
		at := s.next
		t, err := s.tokens()
		if err != nil {
			return s.in(at, err)
		}
		if len(t) == 0 {
			continue
		}
		done, err := s.property(sym, d, t)
		if err != nil {
			return s.in(at, err)
		}
		if done {
			s.next = at
			return nil
		}
	}
	return nil
}

func (s *source) in(at int, err error) error { return fmt.Errorf("in line %d: %w", s.first[at], err) }

// property parses one line of an entry; done reports that it is none.
func (s *source) property(sym *Symbol, d *Definition, t []token) (done bool, err error) {
	if t[0].kind != word {
		return false, fmt.Errorf("%q begins no property", t[0].text)
	}
	key, rest := t[0].text, t[1:]
	rest, when, err := condition(rest)
	if err != nil && key != "if" {
		return false, err
	}
	first := ""
	if len(rest) > 0 {
		first = rest[0].text
	}
	switch key {
	case "bool", "boolean", "tristate", "string", "int", "hex":
		if sym != nil {
			sym.Type = strings.TrimSuffix(key, "ean")
		}
		if len(rest) > 0 {
			d.Prompt, d.PromptIf = first, when
		}
	case "prompt":
		d.Prompt, d.PromptIf = first, when
	case "def_bool", "def_tristate", "default":
		if sym != nil && key != "default" {
			sym.Type = strings.TrimPrefix(key, "def_")
		}
		e, err := parseExpr(rest)
		if err != nil {
			return false, err
		}
		d.defaults = append(d.defaults, conditional{e, when})
	case "depends":
		if first != "on" {
			return false, fmt.Errorf("depends %s", first)
		}
		e, err := parseExpr(rest[1:])
		if err != nil {
			return false, err
		}
		// "depends on A if B", since v7.0
		if when != nil {
			e = &Expr{op: opOr, l: &Expr{op: opNot, l: when}, r: e}
		}
		d.DependsOn = and(d.DependsOn, e)
	case "visible":
		// Hides prompts: what is behind it is explained by their own conditions.
	case "select", "imply":
		if sym != nil && isName(first) {
			target := s.symbol(first)
			target.reverse = append(target.reverse, reverse{sym.Name, when, key == "select"})
		}
	case "range":
		if len(rest) > 1 {
			d.ranges = append(d.ranges, valueRange{rest[0].text, rest[1].text, when})
		}
	case "help", "---help---":
		d.Help = s.help()
	case "optional", "modules", "option", "transitional":
	default:
		return true, nil
	}
	return false, nil
}

// help returns the text that follows: up to a line that is indented less than
// its first one.
func (s *source) help() string {
	var b strings.Builder
	indent := -1
	for ; s.next < len(s.lines); s.next++ {
		l := s.lines[s.next]
		text := strings.TrimLeft(l, " \t")
		if text == "" {
			if indent >= 0 {
				b.WriteByte('\n')
			}
			continue
		}
		n := columns(l[:len(l)-len(text)])
		if indent < 0 {
			indent = n
		}
		if n < indent || n == 0 {
			break
		}
		b.WriteString(strings.Repeat(" ", n-indent) + text + "\n")
	}
	return strings.TrimSpace(b.String())
}

func columns(blanks string) int {
	n := 0
	for _, c := range []byte(blanks) {
		if c == '\t' {
			n = n&^7 + 8
		} else {
			n++
		}
	}
	return n
}

// condition splits off "if EXPR" at the end.
func condition(t []token) ([]token, *Expr, error) {
	i := slices.IndexFunc(t, func(t token) bool { return t.kind == word && t.text == "if" })
	if i < 0 {
		return t, nil, nil
	}
	e, err := parseExpr(t[i+1:])
	return t[:i], e, err
}

func parseExpr(t []token) (*Expr, error) {
	p := &exprParser{tokens: t}
	e, err := p.or()
	if err == nil && len(p.tokens) > 0 {
		err = fmt.Errorf("%q behind the end of an expression", p.tokens[0].text)
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Match is an option that a search has found.
type Match struct {
	*Symbol
	rank int
}

// Search returns the options whose name, prompt or help has all words, whatever
// their case: those with them in the name first, then in the prompt.
func (t *Tree) Search(words ...string) []Match {
	var out []Match
	for _, name := range t.Names() {
		s := t.symbols[name]
		texts := []string{name, "", ""}
		for _, d := range s.Defs {
			texts[1] += " " + d.Prompt
			texts[2] += " " + d.Help
		}
		worst := 0
		for _, w := range words {
			w = strings.TrimPrefix(strings.ToLower(w), "config_")
			worst = max(worst, slices.IndexFunc(append(texts, w), func(text string) bool { return strings.Contains(strings.ToLower(text), w) }))
		}
		if worst < len(texts) && len(words) > 0 {
			out = append(out, Match{s, worst})
		}
	}
	slices.SortStableFunc(out, func(a, b Match) int { return cmp.Compare(a.rank, b.rank) })
	return out
}
