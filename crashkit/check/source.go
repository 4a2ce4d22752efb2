package check

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

var options = &syntax.FileOptions{}

// source is the text of an expression. The parser sees it in parentheses, so
// that it may be spread over lines.
type source string

// offset returns where in the text a position of the parser is.
func (s source) offset(p syntax.Position) int {
	line, col, at := int(p.Line), int(p.Col)-1, 0
	if line == 1 {
		col-- // the parenthesis
	}
	for ; line > 1; line-- {
		i := strings.IndexByte(string(s[at:]), '\n')
		if i < 0 {
			return len(s)
		}
		at += i + 1
	}
	for i := range string(s[at:]) {
		if col <= 0 {
			return at + i
		}
		col--
	}
	return len(s)
}

// text returns the text of e for people, on one line.
func (s source) text(e syntax.Expr) string { return oneLine(s.raw(e)) }

// raw returns the text of e as it stands.
func (s source) raw(e syntax.Expr) string {
	start, end := e.Span()
	to := s.offset(end)
	switch last(e).(type) {
	case *syntax.IndexExpr, *syntax.SliceExpr:
		to++ // Span leaves out the bracket
	case *syntax.TupleExpr:
		if t := last(e).(*syntax.TupleExpr); t.Lparen.IsValid() {
			to++
		}
	}
	from := s.offset(start)
	return string(s[min(from, to, len(s)):min(max(from, to), len(s))])
}

// last returns the expression that e's text ends with.
func last(e syntax.Expr) syntax.Expr {
	for {
		switch x := e.(type) {
		case *syntax.BinaryExpr:
			e = x.Y
		case *syntax.UnaryExpr:
			e = x.X
		case *syntax.CondExpr:
			e = x.False
		default:
			return e
		}
	}
}

// oneLine replaces line breaks, the blanks around them and comments before them by one blank.
func oneLine(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		if i := comment(line); i >= 0 {
			line = line[:i]
		}
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, " ")
}

// comment returns where the comment of a line begins, or -1.
func comment(line string) int {
	var quote rune
	for i, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote = r
		case quote == 0 && r == '#':
			return i
		}
	}
	return -1
}

// errorAt returns an Error about the place at p.
func (x Expectation) errorAt(p syntax.Position, format string, args ...any) *Error {
	line, col := int(p.Line), int(p.Col)+max(x.Col, 1)-1
	if line == 1 {
		col-- // the parenthesis
	}
	return &Error{Expectation: x, Line: max(x.Line, 1) + line - 1, Col: max(col, 1), Msg: fmt.Sprintf(format, args...)}
}

// newlines makes the ends of lines one byte each, which is how the parser
// counts them.
var newlines = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// compile parses x and checks it against the schema.
func compile(x Expectation, schema reflect.Type) (compiled, []error) {
	start := syntax.MakePosition(nil, 1, 2)
	if strings.TrimSpace(x.Expr) == "" {
		return compiled{}, []error{x.errorAt(start, "the expression is empty")}
	}
	x.Expr = newlines.Replace(x.Expr)
	wrapped := "(" + x.Expr + "\n)"
	expr, err := options.ParseExpr("", wrapped, 0)
	if err != nil {
		if se, ok := errors.AsType[syntax.Error](err); ok {
			return compiled{}, []error{x.errorAt(se.Pos, "%s", se.Msg)}
		}
		return compiled{}, []error{x.errorAt(start, "%v", err)}
	}
	paren, ok := expr.(*syntax.ParenExpr)
	if !ok || paren.Lparen.Line != 1 || paren.Lparen.Col != 1 {
		return compiled{}, []error{x.errorAt(start, "a parenthesis is closed that is not open")}
	}
	c := compiled{Expectation: x, src: source(x.Expr), expr: paren.X}
	k := checker{x: x, src: c.src, schema: schema}
	if t := k.expr(c.expr); t.kind != kBool && t.kind != kAny {
		k.errorf(c.expr, "the expectation is %v, neither True nor False", t)
	}
	if k.errs != nil {
		return compiled{}, k.errs
	}
	// Starlark's own resolver has the last word.
	env := starlark.StringDict{}
	for name := range fieldsOf(schema) {
		env[name] = starlark.None
	}
	for name := range functions {
		env[name] = starlark.None
	}
	if _, err := starlark.ExprFuncOptions(options, "", wrapped, env); err != nil {
		return compiled{}, []error{x.errorAt(start, "%v", err)}
	}
	return c, nil
}
