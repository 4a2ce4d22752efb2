package check

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// checker finds the type of an expression and everything that is wrong with it whatever the
// facts are.
type checker struct {
	x      Expectation
	src    source
	schema reflect.Type
	scopes []map[string]typ // variables of comprehensions, innermost last
	errs   []error
}

func (k *checker) errorf(n syntax.Node, format string, args ...any) typ {
	k.errs = append(k.errs, k.x.errorAt(syntax.Start(n), format, args...))
	return typ{}
}

func (k *checker) expr(e syntax.Expr) typ {
	switch e := e.(type) {
	case *syntax.ParenExpr:
		return k.expr(e.X)
	case *syntax.Literal:
		switch e.Token {
		case syntax.STRING:
			return typ{kind: kString}
		case syntax.BYTES:
			return typ{kind: kBytes}
		case syntax.INT:
			return typ{kind: kInt}
		}
		return typ{kind: kFloat}
	case *syntax.Ident:
		return k.name(e)
	case *syntax.DotExpr:
		return k.dot(e)
	case *syntax.IndexExpr:
		return k.index(e)
	case *syntax.SliceExpr:
		return k.slice(e)
	case *syntax.CallExpr:
		return k.call(e)
	case *syntax.UnaryExpr:
		return k.unary(e)
	case *syntax.BinaryExpr:
		return k.binary(e)
	case *syntax.CondExpr:
		k.expr(e.Cond)
		return union(k.expr(e.True), k.expr(e.False))
	case *syntax.ListExpr:
		t := typ{kind: kList}
		for i, x := range e.List {
			if u := k.expr(x); i == 0 {
				t.elem = &u
			} else {
				*t.elem = union(*t.elem, u)
			}
		}
		return t
	case *syntax.TupleExpr:
		elems := []typ{}
		for _, x := range e.List {
			elems = append(elems, k.expr(x))
		}
		return tupleOf(elems...)
	case *syntax.DictExpr:
		for _, x := range e.List {
			entry := x.(*syntax.DictEntry)
			k.expr(entry.Key)
			k.expr(entry.Value)
		}
		return typ{kind: kDict}
	case *syntax.Comprehension:
		return k.comprehension(e)
	}
	return k.errorf(e, "%s is not allowed in an expectation", strings.ToLower(strings.TrimSuffix(reflect.TypeOf(e).Elem().Name(), "Expr")))
}

// name returns the type of a variable, a fact or a constant.
func (k *checker) name(e *syntax.Ident) typ {
	for _, scope := range slices.Backward(k.scopes) {
		if t, ok := scope[e.Name]; ok {
			return t
		}
	}
	fields := fieldsOf(k.schema)
	if f, ok := fields[e.Name]; ok {
		return typeOf(f.Type)
	}
	if t, ok := constants[e.Name]; ok {
		return t
	}
	if _, ok := functions[e.Name]; ok {
		return k.errorf(e, "%s is a function: call it", e.Name)
	}
	known := slices.Collect(maps.Keys(fields))
	for _, scope := range k.scopes {
		known = slices.AppendSeq(known, maps.Keys(scope))
	}
	return k.errorf(e, "there is no %q%s", e.Name, suggest(e.Name, slices.AppendSeq(known, maps.Keys(functions)), known))
}

func (k *checker) dot(e *syntax.DotExpr) typ {
	x := k.expr(e.X)
	name := e.Name.Name
	switch x.kind {
	case kAny:
		return typ{}
	case kStruct:
		fields := fieldsOf(x.st)
		if f, ok := fields[name]; ok {
			return typeOf(f.Type)
		}
		known := slices.Collect(maps.Keys(fields))
		return k.errorf(e.Name, "%s has no field %q%s", k.src.text(e.X), name, suggest(name, known, known))
	}
	if methods := methodsOf(x); slices.Contains(methods, name) {
		return k.errorf(e.Name, "%s is a method of %s: call it", name, k.src.text(e.X))
	}
	return k.errorf(e.Name, "%s is %v and has no field %q", k.src.text(e.X), x, name)
}

// methodsOf returns the names of t's methods, without those that change it.
func methodsOf(t typ) []string {
	switch t.kind {
	case kString:
		return starlark.String("").AttrNames()
	case kList:
		return []string{"index"}
	case kDict:
		return []string{"get", "items", "keys", "values"}
	}
	return nil
}

// method returns the type of what t's method returns.
func (t typ) method(name string) typ {
	at := func(p *typ) typ {
		if p == nil {
			return typ{}
		}
		return *p
	}
	switch t.kind {
	case kString:
		switch name {
		case "startswith", "endswith", "isalnum", "isalpha", "isdigit", "islower", "isspace", "istitle", "isupper":
			return typ{kind: kBool}
		case "count", "find", "index", "rfind", "rindex":
			return typ{kind: kInt}
		case "split", "rsplit", "splitlines":
			return listOf(typ{kind: kString})
		case "partition", "rpartition":
			return tupleOf(typ{kind: kString}, typ{kind: kString}, typ{kind: kString})
		case "elems", "codepoints", "elem_ords", "codepoint_ords":
			return typ{}
		}
		return typ{kind: kString}
	case kList:
		return typ{kind: kInt}
	case kDict:
		switch name {
		case "keys":
			return listOf(at(t.key))
		case "values":
			return listOf(at(t.elem))
		case "items":
			return listOf(tupleOf(at(t.key), at(t.elem)))
		}
		r := at(t.elem)
		r.null = true
		return r
	}
	return typ{}
}

func (k *checker) index(e *syntax.IndexExpr) typ {
	x, i := k.expr(e.X), k.expr(e.Y)
	switch x.kind {
	case kAny:
		return typ{}
	case kDict:
		if x.key != nil && !equatable(*x.key, i) {
			return k.errorf(e.Y, "the keys of %s are not %v", k.src.text(e.X), i)
		}
		if x.elem == nil {
			return typ{}
		}
		return *x.elem
	case kList, kTuple, kString, kBytes:
		if i.kind != kInt && i.kind != kAny {
			return k.errorf(e.Y, "an index is an int, not %v", i)
		}
		if x.kind == kString || x.kind == kBytes {
			return typ{kind: x.kind}
		}
		return x.elements()
	}
	return k.errorf(e, "%s is %v and cannot be indexed", k.src.text(e.X), x)
}

func (k *checker) slice(e *syntax.SliceExpr) typ {
	x := k.expr(e.X)
	for _, b := range []syntax.Expr{e.Lo, e.Hi, e.Step} {
		if b == nil {
			continue
		}
		if t := k.expr(b); t.kind != kInt && t.kind != kAny && t.kind != kNone {
			k.errorf(b, "a bound is an int, not %v", t)
		}
	}
	switch x.kind {
	case kAny, kList, kString, kBytes:
		return x
	case kTuple:
		return typ{kind: kTuple}
	}
	return k.errorf(e, "%s is %v and cannot be sliced", k.src.text(e.X), x)
}

func (k *checker) call(e *syntax.CallExpr) typ {
	var args []typ
	var plain []syntax.Expr
	for _, a := range e.Args {
		if b, ok := a.(*syntax.BinaryExpr); ok && b.Op == syntax.EQ {
			k.expr(b.Y)
			continue
		}
		if u, ok := a.(*syntax.UnaryExpr); ok && (u.Op == syntax.STAR || u.Op == syntax.STARSTAR) {
			return k.errorf(a, "%v is not allowed in an expectation", u.Op)
		}
		plain, args = append(plain, a), append(args, k.expr(a))
	}
	switch fn := e.Fn.(type) {
	case *syntax.Ident:
		f, ok := functions[fn.Name]
		if _, field := fieldsOf(k.schema)[fn.Name]; field || !ok {
			if field {
				return k.errorf(fn, "%s is no function", fn.Name)
			}
			known := slices.Collect(maps.Keys(functions))
			return k.errorf(fn, "there is no function %q%s", fn.Name, suggest(fn.Name, known, known))
		}
		k.arguments(e, fn.Name, plain, args)
		return f.result(args)
	case *syntax.DotExpr:
		x := k.expr(fn.X)
		if x.kind == kAny {
			return typ{}
		}
		if known := methodsOf(x); !slices.Contains(known, fn.Name.Name) {
			return k.errorf(fn.Name, "%s is %v and has no method %q%s", k.src.text(fn.X), x, fn.Name.Name, suggest(fn.Name.Name, known, known))
		}
		return x.method(fn.Name.Name)
	}
	return k.errorf(e, "%s is no function", k.src.text(e.Fn))
}

// arguments checks what can be known of a function's arguments.
func (k *checker) arguments(call syntax.Expr, name string, exprs []syntax.Expr, args []typ) {
	want := 1
	switch name {
	case "matches":
		want = 2
	case "zip", "max", "min", "enumerate", "int", "bool", "str", "tuple", "list":
		want = len(args)
	}
	if len(args) != want {
		k.errorf(call, "%s takes %d argument(s), not %d", name, want, len(args))
		return
	}
	for i, t := range args {
		e := exprs[i]
		switch name {
		case "len":
			if !t.iterable() && t.kind != kString && t.kind != kBytes {
				k.errorf(e, "%s is %v and has no length", k.src.text(e), t)
			}
		case "any", "all", "sorted", "reversed", "list", "zip", "enumerate":
			if !t.iterable() && (name != "enumerate" || i == 0) {
				k.errorf(e, "%s is %v and cannot be gone through", k.src.text(e), t)
			}
		case "hex", "abs":
			if t.kind != kInt && t.kind != kAny && (name == "hex" || t.kind != kFloat) {
				k.errorf(e, "%s is %v, not an int", k.src.text(e), t)
			}
		case "matches":
			if t.kind != kString && t.kind != kAny {
				k.errorf(e, "%s is %v, not a string", k.src.text(e), t)
			}
			if l, ok := e.(*syntax.Literal); ok && i == 0 {
				if pattern, ok := l.Value.(string); ok {
					if _, err := regexp.Compile(pattern); err != nil {
						k.errorf(e, "%v", err)
					}
				}
			}
		}
	}
}

func (k *checker) unary(e *syntax.UnaryExpr) typ {
	x := k.expr(e.X)
	if e.Op == syntax.NOT {
		return typ{kind: kBool}
	}
	if x.kind != kInt && x.kind != kFloat && x.kind != kAny {
		return k.errorf(e, "%v needs a number; %s is %v", e.Op, k.src.text(e.X), x)
	}
	return x
}

func (k *checker) binary(e *syntax.BinaryExpr) typ {
	x, y := k.expr(e.X), k.expr(e.Y)
	known := x.kind != kAny && y.kind != kAny
	sides := func() string {
		return fmt.Sprintf("%s is %v, %s is %v", k.src.text(e.X), x, k.src.text(e.Y), y)
	}
	switch e.Op {
	case syntax.AND, syntax.OR:
		return union(x, y)
	case syntax.EQL, syntax.NEQ:
		if !equatable(x, y) {
			k.errorf(e, "%s: they are never equal", sides())
		}
		return typ{kind: kBool}
	case syntax.LT, syntax.GT, syntax.LE, syntax.GE:
		if known && (!equatable(x, y) || x.kind == kNone || x.kind == kStruct || x.kind == kDict) {
			k.errorf(e, "%s: they have no order", sides())
		}
		return typ{kind: kBool}
	case syntax.IN, syntax.NOT_IN:
		ok := y.kind == kAny
		switch y.kind {
		case kString:
			ok = x.kind == kString || x.kind == kAny
		case kBytes:
			ok = x.kind == kBytes || x.kind == kInt || x.kind == kAny
		case kList, kTuple, kDict:
			ok = equatable(x, y.elements())
		}
		if !ok {
			k.errorf(e, "%s: the one is never in the other", sides())
		}
		return typ{kind: kBool}
	case syntax.PLUS:
		if known && (x.kind != y.kind || x.kind == kNone || x.kind == kBool || x.kind == kStruct || x.kind == kDict) && !numbers(x, y) {
			return k.errorf(e, "%s: they cannot be added", sides())
		}
		return union(x, y)
	case syntax.PERCENT:
		if x.kind == kString {
			return x
		}
	}
	if known && !numbers(x, y) {
		return k.errorf(e, "%v needs numbers: %s", e.Op, sides())
	}
	if x.kind == kFloat || y.kind == kFloat || e.Op == syntax.SLASH {
		return typ{kind: kFloat}
	}
	return union(x, y)
}

func numbers(x, y typ) bool {
	return (x.kind == kInt || x.kind == kFloat) && (y.kind == kInt || y.kind == kFloat)
}

func (k *checker) comprehension(e *syntax.Comprehension) typ {
	k.scopes = append(k.scopes, map[string]typ{})
	defer func() { k.scopes = k.scopes[:len(k.scopes)-1] }()
	for _, clause := range e.Clauses {
		switch c := clause.(type) {
		case *syntax.ForClause:
			x := k.expr(c.X)
			if !x.iterable() {
				k.errorf(c.X, "%s is %v and cannot be gone through", k.src.text(c.X), x)
			}
			k.bind(c.Vars, x.elements())
		case *syntax.IfClause:
			k.expr(c.Cond)
		}
	}
	if entry, ok := e.Body.(*syntax.DictEntry); ok {
		key, elem := k.expr(entry.Key), k.expr(entry.Value)
		return typ{kind: kDict, key: &key, elem: &elem}
	}
	return listOf(k.expr(e.Body))
}

// bind gives the variables of a for clause their types.
func (k *checker) bind(vars syntax.Expr, t typ) {
	scope := k.scopes[len(k.scopes)-1]
	switch v := vars.(type) {
	case *syntax.Ident:
		scope[v.Name] = t
	case *syntax.ParenExpr:
		k.bind(v.X, t)
	case *syntax.TupleExpr:
		k.unpack(v, v.List, t)
	case *syntax.ListExpr:
		k.unpack(v, v.List, t)
	default:
		k.errorf(vars, "%s is no variable", k.src.text(vars))
	}
}

func (k *checker) unpack(e syntax.Expr, vars []syntax.Expr, t typ) {
	if t.kind == kTuple && t.elems != nil && len(t.elems) != len(vars) || t.kind != kTuple && t.kind != kList && t.kind != kAny {
		k.errorf(e, "%d variables for %v", len(vars), t)
		t = typ{}
	}
	for i, v := range vars {
		if t.kind == kTuple && t.elems != nil {
			k.bind(v, t.elems[i])
		} else {
			k.bind(v, t.elements())
		}
	}
}

// suggest names the nearest of candidates, or else all that are known.
func suggest(name string, candidates, known []string) string {
	best, least := "", max(1, len(name)/2)
	for _, c := range slices.Sorted(slices.Values(candidates)) {
		if d := distance(name, c); d < least || d == least && best == "" {
			best, least = c, d
		}
	}
	if best != "" {
		return fmt.Sprintf(": did you mean %q?", best)
	}
	return ": there are " + strings.Join(slices.Sorted(slices.Values(known)), ", ")
}

// distance is the number of letters to insert, delete, replace or swap with their
// neighbours to get from a to b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
