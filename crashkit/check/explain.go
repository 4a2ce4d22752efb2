package check

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// explain returns which part of the expression, which is false, was wanted to be true, and what
// was found instead.
func (e evaluator) explain(src source, x syntax.Expr) (wanted, found string) {
	switch x := x.(type) {
	case *syntax.ParenExpr:
		return e.explain(src, x.X)
	case *syntax.BinaryExpr:
		switch x.Op {
		case syntax.AND:
			if !e.truth(src, x.X) {
				return e.explain(src, x.X)
			}
			return e.explain(src, x.Y)
		case syntax.OR:
			_, l := e.explain(src, x.X)
			_, r := e.explain(src, x.Y)
			return src.text(x), joinFound(l, r)
		case syntax.EQL, syntax.NEQ, syntax.LT, syntax.GT, syntax.LE, syntax.GE, syntax.IN, syntax.NOT_IN:
			return src.text(x), joinFound(e.found(src, x.X), e.found(src, x.Y), e.difference(src, x))
		}
	case *syntax.UnaryExpr:
		if x.Op == syntax.NOT {
			if b, ok := unparen(x.X).(*syntax.BinaryExpr); ok && b.Op != syntax.AND && b.Op != syntax.OR {
				return src.text(x), joinFound(e.found(src, b.X), e.found(src, b.Y))
			}
			return src.text(x), e.found(src, x.X)
		}
	case *syntax.CallExpr:
		if fn, ok := x.Fn.(*syntax.Ident); ok && len(x.Args) > 0 {
			if c, ok := x.Args[0].(*syntax.Comprehension); ok && (fn.Name == "all" || fn.Name == "any") {
				return src.text(x), e.elements(src, fn.Name, c)
			}
			var args []string
			for _, a := range x.Args {
				args = append(args, e.found(src, a))
			}
			return src.text(x), joinFound(args...)
		}
	}
	return src.text(x), e.found(src, x)
}

// elements says for all() which element failed, and for any() what there was.
func (e evaluator) elements(src source, fn string, c *syntax.Comprehension) string {
	clause, ok := c.Clauses[0].(*syntax.ForClause)
	if !ok || len(c.Clauses) != 1 {
		return e.found(src, c)
	}
	vars, over := src.text(clause.Vars), src.raw(clause.X)
	if fn == "any" {
		// What the body looks at, if that is one attribute compared with something.
		if b, ok := unparen(c.Body).(*syntax.BinaryExpr); ok {
			if v, err := e.eval(fmt.Sprintf("[%s\n for %s in %s\n]", src.raw(b.X), vars, over)); err == nil {
				return fmt.Sprintf("%s = %s", src.text(b.X), oneOf(v))
			}
		}
		return e.found(src, clause.X)
	}
	v, err := e.eval(fmt.Sprintf("[(%s) for %s in %s\n if not (%s\n)]", vars, vars, over, src.raw(c.Body)))
	list, ok := v.(*starlark.List)
	if err != nil || !ok || list.Len() == 0 {
		return e.found(src, c)
	}
	s := fmt.Sprintf("%s = %s", vars, show(list.Index(0)))
	if n := list.Len(); n > 1 {
		s += fmt.Sprintf(" and %d more", n-1)
	}
	return s
}

func oneOf(v starlark.Value) string {
	if l, ok := v.(*starlark.List); ok && l.Len() == 0 {
		return "nothing: the list is empty"
	}
	return "one of " + show(v)
}

// found returns "expression = value"; nothing for a constant.
func (e evaluator) found(src source, x syntax.Expr) string {
	if constant(x) {
		return ""
	}
	v, err := e.eval(src.raw(x))
	if err != nil {
		return fmt.Sprintf("%s: %v", src.text(x), err)
	}
	return fmt.Sprintf("%s = %s", src.text(x), show(v))
}

// difference says where two lists begin to differ, if that is not at the first element.
func (e evaluator) difference(src source, x *syntax.BinaryExpr) string {
	if x.Op != syntax.EQL {
		return ""
	}
	l, err1 := e.eval(src.raw(x.X))
	r, err2 := e.eval(src.raw(x.Y))
	a, ok1 := l.(*starlark.List)
	b, ok2 := r.(*starlark.List)
	if err1 != nil || err2 != nil || !ok1 || !ok2 {
		return ""
	}
	i := 0
	for ; i < a.Len() && i < b.Len(); i++ {
		if same, err := starlark.Equal(a.Index(i), b.Index(i)); err != nil || !same {
			break
		}
	}
	switch {
	case i == 0 && a.Len() > 0 && b.Len() > 0:
		return ""
	case i < a.Len() && i < b.Len():
		return fmt.Sprintf("[%d] is %s, not %s", i, show(a.Index(i)), show(b.Index(i)))
	}
	return fmt.Sprintf("%d element(s), not %d", a.Len(), b.Len())
}

func (e evaluator) truth(src source, x syntax.Expr) bool {
	v, err := e.eval(src.raw(x))
	return err == nil && bool(v.Truth())
}

func unparen(x syntax.Expr) syntax.Expr {
	for {
		p, ok := x.(*syntax.ParenExpr)
		if !ok {
			return x
		}
		x = p.X
	}
}

// constant says whether x is a literal or made of literals.
func constant(x syntax.Expr) bool {
	ok := true
	syntax.Walk(x, func(n syntax.Node) bool {
		if id, is := n.(*syntax.Ident); is {
			_, known := constants[id.Name]
			ok = ok && known
		}
		return ok
	})
	return ok
}

func joinFound(parts ...string) string {
	var kept []string
	for _, p := range parts {
		if p != "" {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, "; ")
}

// Bounds of what show renders.
const (
	maxString = 160 // bytes
	maxList   = 12  // elements
)

// show renders a value for people: like Starlark, but short, and with large numbers in
// hexadecimal too.
func show(v starlark.Value) string {
	switch v := v.(type) {
	case starlark.Int:
		if n := v.BigInt(); n.BitLen() > 16 {
			return fmt.Sprintf("%#x", n)
		}
	case starlark.String:
		if len(v) > maxString {
			cut := maxString / 2
			for cut > 0 && !utf8.RuneStart(v[cut]) {
				cut--
			}
			return fmt.Sprintf("%s… (%d bytes)", strings.TrimSuffix(v[:cut].String(), `"`), len(v))
		}
	case *starlark.List:
		var b strings.Builder
		b.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				b.WriteString(", ")
			}
			if i == maxList || b.Len() > 4*maxString {
				fmt.Fprintf(&b, "… %d in all", v.Len())
				break
			}
			b.WriteString(show(v.Index(i)))
		}
		return b.String() + "]"
	}
	s := v.String()
	if len(s) > 4*maxString {
		cut := 4 * maxString
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return s
}
