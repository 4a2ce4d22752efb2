// Package check evaluates expectations on facts. An expectation is a Starlark
// expression that is true or false:
//
//	panic.kind == "null-deref" and panic.address == 0
//	[f.symbol for f in panic.frames][:2] == ["hello_crash", "nullderef_init"]
//	any([m.name == "nullderef" for m in modules])
//	"about to write" in log
//
// The facts are any Go struct. Its fields are the names that an expectation
// may use, by their JSON names, and only these: Compile tells every misspelt
// name and every comparison that can never hold, before there are facts.
//
// # Values
//
//	struct           attributes, by JSON name
//	slice, array     list, read-only
//	map              dict, read-only, in order of its keys
//	[]byte           bytes
//	integers         whole numbers of any size: 0xffffffff816a8a00 is positive
//	time.Duration    int, nanoseconds
//	time.Time        int, seconds since 1970
//	nil pointer      None
//
// # Functions
//
// Of Starlark's own: abs, all, any, bool, enumerate, int, len, list, max,
// min, repr, reversed, sorted, str, tuple, zip and the methods of strings.
// Besides:
//
//	hex(n)               "0x1f" for 31
//	matches(pattern, s)  whether the regular expression (Go's syntax) matches somewhere in s
//
// There is no way to load, print, loop for ever or change anything.
package check

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// Expectation is one expression that should be true. File, Line and Col say where
// Expr begins and are used in messages only; Line and Col count from 1, and
// 0 means that they are not known. Further lines of Expr begin at Col too.
type Expectation struct {
	Name string `json:"name"`
	Expr string `json:"expr"`
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	Col  int    `json:"col,omitempty"`
}

// Error is what is wrong with an expectation itself.
type Error struct {
	Expectation Expectation
	Line, Col   int // of the wrong place, counted like the Expectation's
	Msg         string
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Expectation.File != "" {
		b.WriteString(e.Expectation.File + ":")
	}
	fmt.Fprintf(&b, "%d:%d: ", e.Line, e.Col)
	if e.Expectation.Name != "" {
		fmt.Fprintf(&b, "expectation %q: ", e.Expectation.Name)
	}
	return b.String() + e.Msg
}

// Suite is a list of compiled expectations. It is safe for concurrent use.
type Suite struct {
	schema reflect.Type // a struct
	checks []compiled
}

// compiled is an expectation with its parsed expression. The tree is only read; what is
// evaluated is the text.
type compiled struct {
	Expectation
	src  source
	expr syntax.Expr
}

// maxSteps bounds the evaluation of one expression. A comprehension over 10,000
// tasks takes about 200,000.
const maxSteps = 50_000_000

// Compile parses the expectations and checks them against schema, the type of the
// facts: a struct or a pointer to one. The error joins one *Error for each mistake.
func Compile(exprs []Expectation, schema reflect.Type) (*Suite, error) {
	for schema != nil && schema.Kind() == reflect.Pointer {
		schema = schema.Elem()
	}
	if schema == nil || schema.Kind() != reflect.Struct {
		return nil, fmt.Errorf("schema of the facts is %v, not a struct", schema)
	}
	s := &Suite{schema: schema}
	var errs []error
	for _, x := range exprs {
		c, err := compile(x, schema)
		errs = append(errs, err...)
		s.checks = append(s.checks, c)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

// Expectations returns the suite's expectations in order.
func (s *Suite) Expectations() []Expectation {
	list := make([]Expectation, len(s.checks))
	for i, c := range s.checks {
		list[i] = c.Expectation
	}
	return list
}

// Result says whether an expectation holds.
type Result struct {
	Expectation

	OK bool

	// Of an expectation that is not met: Wanted is the part of the expression that is not
	// true, Found is what its operands are.
	Wanted, Found string

	// Err is why the expression could not be evaluated; OK is false then. This is
	// no statement about the crash.
	Err error
}

// Run evaluates the suite on facts, which must be of the schema's type or a pointer to
// it and not change meanwhile. The results are in the order of the expectations.
func (s *Suite) Run(ctx context.Context, facts any) []Result {
	results := make([]Result, len(s.checks))
	env, err := s.env(facts)
	for i, c := range s.checks {
		results[i] = Result{Expectation: c.Expectation, Err: err}
		if err == nil {
			e := evaluator{ctx: ctx, env: env}
			e.run(c, &results[i])
		}
	}
	return results
}

func (s *Suite) env(facts any) (starlark.StringDict, error) {
	v := reflect.ValueOf(facts)
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if !v.IsValid() || v.Type() != s.schema {
		return nil, fmt.Errorf("facts are of type %T, not %v", facts, s.schema)
	}
	env := starlark.StringDict{}
	for name, f := range fieldsOf(s.schema) {
		env[name] = valueOf(fieldValue(v, f))
	}
	for name, fn := range functions {
		if !env.Has(name) && fn.impl != nil {
			env[name] = starlark.NewBuiltin(name, fn.impl)
		}
	}
	env.Freeze()
	return env, nil
}

// evaluator evaluates expressions and parts of them.
type evaluator struct {
	ctx context.Context //nolint:containedctx // lives for one call of Run
	env starlark.StringDict
}

func (e evaluator) eval(expr string) (starlark.Value, error) {
	thread := &starlark.Thread{Name: "expectation"}
	thread.SetMaxExecutionSteps(maxSteps)
	stop := context.AfterFunc(e.ctx, func() { thread.Cancel(context.Cause(e.ctx).Error()) })
	defer stop()
	if err := e.ctx.Err(); err != nil {
		return nil, context.Cause(e.ctx)
	}
	return starlark.EvalOptions(options, thread, "", "("+expr+"\n)", e.env)
}

func (e evaluator) run(c compiled, r *Result) {
	v, err := e.eval(c.Expr)
	if err != nil {
		r.Err = fmt.Errorf("evaluate %s: %w", oneLine(c.Expr), err)
		return
	}
	ok, isBool := v.(starlark.Bool)
	switch {
	case !isBool:
		r.Err = fmt.Errorf("evaluate %s: the result is %s, neither True nor False", oneLine(c.Expr), show(v))
	case bool(ok):
		r.OK = true
	default:
		if r.Wanted, r.Found = e.explain(c.src, c.expr); r.Found == "" {
			r.Found = r.Wanted + " = False" // constants only
		}
	}
}
