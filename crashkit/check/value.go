package check

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

var (
	timeType  = reflect.TypeFor[time.Time]()
	byteSlice = reflect.TypeFor[[]byte]()
)

// fieldsOf returns the fields of the struct type t by their JSON names. Embedded
// structs without a name lend theirs, as in encoding/json.
func fieldsOf(t reflect.Type) map[string]reflect.StructField {
	fields := make(map[string]reflect.StructField)
	for _, f := range reflect.VisibleFields(t) {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || tag == "-" || f.Anonymous && tag == "" {
			continue
		}
		name := tag
		if name == "" {
			name = f.Name
		}
		if old, ok := fields[name]; !ok || len(f.Index) < len(old.Index) {
			fields[name] = f
		}
	}
	return fields
}

// fieldValue returns v's field, and the zero Value if it lies in an embedded struct that is nil.
func fieldValue(v reflect.Value, f reflect.StructField) reflect.Value {
	field, err := v.FieldByIndexErr(f.Index)
	if err != nil {
		return reflect.Value{}
	}
	return field
}

// valueOf makes a Go value visible to Starlark. Structs stay as they are until
// an attribute is asked for.
func valueOf(v reflect.Value) starlark.Value {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			return starlark.None
		}
		v = v.Elem()
	}
	if !v.IsValid() {
		return starlark.None
	}
	switch v.Kind() {
	case reflect.Bool:
		return starlark.Bool(v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return starlark.MakeInt64(v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return starlark.MakeUint64(v.Uint())
	case reflect.Float32, reflect.Float64:
		return starlark.Float(v.Float())
	case reflect.String:
		return starlark.String(v.String())
	case reflect.Slice, reflect.Array:
		if v.Type().ConvertibleTo(byteSlice) && v.Kind() == reflect.Slice {
			return starlark.Bytes(v.Bytes())
		}
		elems := make([]starlark.Value, v.Len())
		for i := range elems {
			elems[i] = valueOf(v.Index(i))
		}
		list := starlark.NewList(elems)
		list.Freeze()
		return list
	case reflect.Map:
		dict := starlark.NewDict(v.Len())
		for _, key := range slices.SortedFunc(slices.Values(v.MapKeys()), compareKeys) {
			// Keys are strings and integers (typeOf knows no others): hashable.
			_ = dict.SetKey(valueOf(key), valueOf(v.MapIndex(key)))
		}
		dict.Freeze()
		return dict
	case reflect.Struct:
		if v.Type() == timeType && v.CanInterface() {
			return starlark.MakeInt64(v.Interface().(time.Time).Unix())
		}
		return structValue{v}
	}
	return starlark.None
}

func compareKeys(a, b reflect.Value) int {
	switch {
	case a.Kind() == reflect.String:
		return cmp.Compare(a.String(), b.String())
	case a.CanInt():
		return cmp.Compare(a.Int(), b.Int())
	case a.CanUint():
		return cmp.Compare(a.Uint(), b.Uint())
	}
	return 0
}

// structValue is a read-only struct.
type structValue struct{ v reflect.Value }

var (
	_ starlark.HasAttrs   = structValue{}
	_ starlark.Comparable = structValue{}
)

func (s structValue) Type() string         { return s.v.Type().Name() }
func (s structValue) Freeze()              {}
func (s structValue) Truth() starlark.Bool { return true }
func (s structValue) Hash() (uint32, error) {
	return 0, fmt.Errorf("unhashable type: %s", s.Type())
}

func (s structValue) Attr(name string) (starlark.Value, error) {
	f, ok := fieldsOf(s.v.Type())[name]
	if !ok {
		return nil, nil
	}
	return valueOf(fieldValue(s.v, f)), nil
}

func (s structValue) AttrNames() []string {
	return slices.Sorted(maps.Keys(fieldsOf(s.v.Type())))
}

// CompareSameType compares all fields.
func (s structValue) CompareSameType(op syntax.Token, y starlark.Value, _ int) (bool, error) {
	o, ok := y.(structValue)
	equal := ok && o.v.Type() == s.v.Type() && reflect.DeepEqual(s.v.Interface(), o.v.Interface())
	switch op {
	case syntax.EQL:
		return equal, nil
	case syntax.NEQ:
		return !equal, nil
	}
	return false, fmt.Errorf("%s %s %s not implemented", s.Type(), op, y.Type())
}

// String renders the fields that are not empty, in the order of their declaration.
func (s structValue) String() string {
	fields := fieldsOf(s.v.Type())
	names := slices.SortedFunc(maps.Keys(fields), func(a, b string) int {
		return slices.Compare(fields[a].Index, fields[b].Index)
	})
	var b strings.Builder
	b.WriteByte('{')
	for _, name := range names {
		f := fieldValue(s.v, fields[name])
		if !f.IsValid() || f.IsZero() {
			continue
		}
		if b.Len() > 1 {
			b.WriteString(", ")
		}
		b.WriteString(name + ": " + show(valueOf(f)))
	}
	return b.String() + "}"
}
