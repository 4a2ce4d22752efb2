package check

import (
	"fmt"
	"regexp"

	"go.starlark.net/starlark"
)

// function is a function that expectations may call.
type function struct {
	result func(args []typ) typ
	impl   func(*starlark.Thread, *starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error) // nil for Starlark's own
}

// functions are all that expectations may call. Starlark's range, print, fail, getattr and the
// like are left out on purpose.
var functions = map[string]function{
	"abs":       {result: first},
	"all":       {result: always(kBool)},
	"any":       {result: always(kBool)},
	"bool":      {result: always(kBool)},
	"enumerate": {result: func(a []typ) typ { return listOf(tupleOf(typ{kind: kInt}, elemOf(a, 0))) }},
	"hex":       {result: always(kString), impl: hexFunc},
	"int":       {result: always(kInt)},
	"len":       {result: always(kInt)},
	"list":      {result: func(a []typ) typ { return listOf(elemOf(a, 0)) }},
	"matches":   {result: always(kBool), impl: matchesFunc},
	"max":       {result: firstOrElem},
	"min":       {result: firstOrElem},
	"repr":      {result: always(kString)},
	"reversed":  {result: func(a []typ) typ { return listOf(elemOf(a, 0)) }},
	"sorted":    {result: func(a []typ) typ { return listOf(elemOf(a, 0)) }},
	"str":       {result: always(kString)},
	"tuple":     {result: func([]typ) typ { return typ{} }},
	"zip":       {result: func(a []typ) typ { return listOf(zipped(a)) }},
}

// constants are the names with a fixed meaning.
var constants = map[string]typ{
	"True":  {kind: kBool},
	"False": {kind: kBool},
	"None":  {kind: kNone},
}

func always(k kind) func([]typ) typ { return func([]typ) typ { return typ{kind: k} } }

func first(args []typ) typ {
	if len(args) == 0 {
		return typ{}
	}
	return args[0]
}

func firstOrElem(args []typ) typ {
	if len(args) == 1 {
		return elemOf(args, 0)
	}
	return first(args)
}

// elemOf returns the type of the elements of the i-th argument.
func elemOf(args []typ, i int) typ {
	if i >= len(args) {
		return typ{}
	}
	return args[i].elements()
}

func zipped(args []typ) typ {
	elems := make([]typ, len(args))
	for i := range args {
		elems[i] = elemOf(args, i)
	}
	return tupleOf(elems...)
}

func hexFunc(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var n starlark.Int
	if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 1, &n); err != nil {
		return nil, err
	}
	return starlark.String(fmt.Sprintf("%#x", n.BigInt())), nil
}

func matchesFunc(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var pattern, s string
	if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 2, &pattern, &s); err != nil {
		return nil, err
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	return starlark.Bool(re.MatchString(s)), nil
}
