package check

import "reflect"

// kind is what is known of a value before there are facts.
type kind uint8

const (
	kAny kind = iota // nothing
	kNone
	kBool
	kInt
	kFloat
	kString
	kBytes
	kList
	kTuple
	kDict
	kStruct
)

// typ is the type of an expression.
type typ struct {
	kind  kind
	null  bool  // may be None instead
	elem  *typ  // of a list; the value of a dict; nil if not known
	key   *typ  // of a dict
	elems []typ // of a tuple; nil if not known
	st    reflect.Type
}

func listOf(t typ) typ         { return typ{kind: kList, elem: &t} }
func tupleOf(elems ...typ) typ { return typ{kind: kTuple, elems: elems} }

// typeOf is the type of what valueOf makes of a value of type t.
func typeOf(t reflect.Type) typ {
	switch t.Kind() {
	case reflect.Pointer:
		r := typeOf(t.Elem())
		r.null = true
		return r
	case reflect.Bool:
		return typ{kind: kBool}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return typ{kind: kInt}
	case reflect.Float32, reflect.Float64:
		return typ{kind: kFloat}
	case reflect.String:
		return typ{kind: kString}
	case reflect.Slice:
		if t.ConvertibleTo(byteSlice) {
			return typ{kind: kBytes}
		}
		return listOf(typeOf(t.Elem()))
	case reflect.Array:
		return listOf(typeOf(t.Elem()))
	case reflect.Map:
		key, elem := typeOf(t.Key()), typeOf(t.Elem())
		return typ{kind: kDict, key: &key, elem: &elem}
	case reflect.Struct:
		if t == timeType {
			return typ{kind: kInt}
		}
		return typ{kind: kStruct, st: t}
	}
	return typ{}
}

// elements returns the type of what iterating over t yields.
func (t typ) elements() typ {
	switch {
	case t.kind == kList && t.elem != nil:
		return *t.elem
	case t.kind == kDict && t.key != nil:
		return *t.key
	case t.kind == kTuple && len(t.elems) > 0:
		r := t.elems[0]
		for _, e := range t.elems[1:] {
			r = union(r, e)
		}
		return r
	}
	return typ{}
}

// union is the type of a value that is of type a or b.
func union(a, b typ) typ {
	switch {
	case a.kind == kNone && b.kind != kAny:
		b.null = true
		return b
	case b.kind == kNone && a.kind != kAny:
		a.null = true
		return a
	case a.kind != b.kind || a.st != b.st:
		return typ{}
	case a.kind == kList && a.elem != nil && b.elem != nil:
		return listOf(union(*a.elem, *b.elem))
	}
	a.null = a.null || b.null
	return a
}

// equatable says whether values of the types can be equal.
func equatable(a, b typ) bool {
	number := func(t typ) bool { return t.kind == kInt || t.kind == kFloat }
	switch {
	case a.kind == kAny || b.kind == kAny:
		return true
	case a.kind == kNone:
		return b.null || b.kind == kNone
	case b.kind == kNone:
		return a.null
	case a.null && b.null, number(a) && number(b):
		return true
	case a.kind != b.kind:
		return false
	case a.kind == kStruct:
		return a.st == b.st
	case a.kind == kList && a.elem != nil && b.elem != nil:
		return equatable(*a.elem, *b.elem)
	case a.kind == kTuple && a.elems != nil && b.elems != nil:
		if len(a.elems) != len(b.elems) {
			return false
		}
		for i := range a.elems {
			if !equatable(a.elems[i], b.elems[i]) {
				return false
			}
		}
	}
	return true
}

// iterable says whether t can be gone through. Strings cannot.
func (t typ) iterable() bool {
	return t.kind == kAny || t.kind == kList || t.kind == kTuple || t.kind == kDict
}

func (t typ) String() string {
	var s string
	switch t.kind {
	case kAny:
		return "of any type"
	case kNone:
		return "None"
	case kBool:
		s = "a bool"
	case kInt:
		s = "an int"
	case kFloat:
		s = "a float"
	case kString:
		s = "a string"
	case kBytes:
		s = "bytes"
	case kList:
		s = "a list"
		if t.elem != nil {
			s += t.elem.plural()
		}
	case kTuple:
		s = "a tuple"
	case kDict:
		s = "a dict"
	case kStruct:
		s = "a " + t.st.Name()
	}
	if t.null {
		s += " or None"
	}
	return s
}

// plural returns " of strings" and the like.
func (t typ) plural() string {
	switch t.kind {
	case kBool:
		return " of bools"
	case kInt:
		return " of ints"
	case kFloat:
		return " of floats"
	case kString:
		return " of strings"
	case kList:
		return " of lists"
	case kTuple:
		return " of tuples"
	case kStruct:
		return " of " + t.st.Name()
	}
	return ""
}
