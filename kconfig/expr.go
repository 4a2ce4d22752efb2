package kconfig

import (
	"fmt"
	"strings"
)

// Expr is an expression of the Kconfig language; nil is true.
type Expr struct {
	op   op
	l, r *Expr
	word string // of a leaf: a symbol's name, a constant or a macro
	kind leaf
}

type op byte

const (
	opLeaf op = iota
	opNot
	opAnd
	opOr
	opEq
	opNe
	opLt
	opLe
	opGt
	opGe
)

type leaf byte

const (
	isSymbol leaf = iota
	isConst       // in quotes, or y, m, n, or a number
	isMacro       // $(…), which is not evaluated
)

func (o op) String() string {
	return [...]string{"", "!", "&&", "||", "=", "!=", "<", "<=", ">", ">="}[o]
}

// String renders e in the language.
func (e *Expr) String() string {
	if e == nil {
		return "y"
	}
	inner := func(x *Expr) string {
		if x != nil && x.op != opLeaf && x.op != opNot && x.op < opEq && x.op != e.op {
			return "(" + x.String() + ")"
		}
		return x.String()
	}
	switch e.op {
	case opLeaf:
		return e.word
	case opNot:
		return "!" + inner(e.l)
	}
	return inner(e.l) + " " + e.op.String() + " " + inner(e.r)
}

// and returns a && b.
func and(a, b *Expr) *Expr {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return &Expr{op: opAnd, l: a, r: b}
}

// Eval returns the value of e when the options are those of c. A macro, which
// asks the compiler or a shell, counts as met.
func (e *Expr) Eval(c *Config) Tristate {
	if e == nil {
		return Yes
	}
	switch e.op {
	case opLeaf:
		switch {
		case e.kind == isMacro:
			return Yes
		case e.kind == isConst:
			return map[string]Tristate{"y": Yes, "m": Module}[e.word]
		}
		return c.State(e.word)
	case opNot:
		return Yes - e.l.Eval(c)
	case opAnd:
		return min(e.l.Eval(c), e.r.Eval(c))
	case opOr:
		return max(e.l.Eval(c), e.r.Eval(c))
	}
	if compare(e, c) {
		return Yes
	}
	return No
}

// operand returns the value of a leaf as a string.
func (e *Expr) operand(c *Config) string {
	if e.kind != isSymbol {
		return e.word
	}
	v := c.Value(e.word)
	if s, err := unquote(v); err == nil {
		return s
	}
	if v == "n" && c.values[e.word] == "" {
		return "" // of a string or a number, which is not known here
	}
	return v
}

func compare(e *Expr, c *Config) bool {
	if e.l == nil || e.r == nil || e.l.kind == isMacro || e.r.kind == isMacro {
		return true
	}
	a, b := e.l.operand(c), e.r.operand(c)
	if a == "" && (b == "n" || b == "0") {
		a = b // an option that is absent is n, a number that is absent none
	}
	if b == "" && a == "n" {
		b = a
	}
	n := strings.Compare(a, b)
	x, okx := value(a)
	y, oky := value(b)
	if okx && oky {
		n = 0
		if x < y {
			n = -1
		} else if x > y {
			n = 1
		}
	}
	switch e.op {
	case opEq:
		return n == 0
	case opNe:
		return n != 0
	case opLt:
		return n < 0
	case opLe:
		return n <= 0
	case opGt:
		return n > 0
	}
	return n >= 0
}

// symbols calls f with the name of each symbol in e.
func (e *Expr) symbols(f func(string)) {
	switch {
	case e == nil:
	case e.op == opLeaf:
		if e.kind == isSymbol {
			f(e.word)
		}
	default:
		e.l.symbols(f)
		e.r.symbols(f)
	}
}

// maxDepth bounds how deep expressions may be nested.
const maxDepth = 200

// exprParser parses an expression out of tokens.
type exprParser struct {
	tokens []token
	depth  int
}

func (p *exprParser) peek() token {
	if len(p.tokens) == 0 {
		return token{}
	}
	return p.tokens[0]
}

func (p *exprParser) accept(text string) bool {
	if t := p.peek(); t.kind == punctuation && t.text == text {
		p.tokens = p.tokens[1:]
		return true
	}
	return false
}

func (p *exprParser) or() (*Expr, error)  { return p.binary("||", opOr, p.and) }
func (p *exprParser) and() (*Expr, error) { return p.binary("&&", opAnd, p.not) }

func (p *exprParser) binary(text string, o op, next func() (*Expr, error)) (*Expr, error) {
	l, err := next()
	for err == nil && p.accept(text) {
		var r *Expr
		if r, err = next(); err == nil {
			l = &Expr{op: o, l: l, r: r}
		}
	}
	return l, err
}

func (p *exprParser) not() (*Expr, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, fmt.Errorf("an expression is nested deeper than %d", maxDepth)
	}
	defer func() { p.depth-- }()
	if p.accept("!") {
		e, err := p.not()
		return &Expr{op: opNot, l: e}, err
	}
	if p.accept("(") {
		e, err := p.or()
		if err == nil && !p.accept(")") {
			err = fmt.Errorf("%q where ) is missing", p.peek().text)
		}
		return e, err
	}
	l, err := p.leaf()
	if err != nil {
		return nil, err
	}
	for _, o := range []op{opEq, opNe, opLe, opLt, opGe, opGt} {
		if p.accept(o.String()) {
			r, err := p.leaf()
			return &Expr{op: o, l: l, r: r}, err
		}
	}
	return l, nil
}

func (p *exprParser) leaf() (*Expr, error) {
	t := p.peek()
	if t.kind == punctuation || t.kind == end {
		return nil, fmt.Errorf("%q where an operand is missing", t.text)
	}
	p.tokens = p.tokens[1:]
	e := &Expr{word: t.text}
	switch {
	case t.kind == macro:
		e.kind = isMacro
	case t.kind == quoted && strings.Contains(t.text, "$("):
		e.kind = isMacro
	case t.kind == quoted, t.text == "y", t.text == "m", t.text == "n", isNumber(t.text) && t.text[0] <= '9':
		e.kind = isConst
		if t.kind != quoted && isName(t.text) && strings.Trim(t.text, "0123456789") != "" && !strings.HasPrefix(t.text, "0x") && len(t.text) > 1 {
			e.kind = isSymbol // such as 64BIT, were it all hexadecimal digits
		}
	}
	return e, nil
}
