package memo

import (
	"encoding"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
)

// keepable reports what of a type gob would leave out without a word, or refuse only after the computation.
func keepable(t reflect.Type, seen []reflect.Type) error {
	if slices.Contains(seen, t) {
		return nil
	}
	seen = append(seen, t)
	for _, whole := range []reflect.Type{t, reflect.PointerTo(t)} {
		if whole.Implements(reflect.TypeFor[gob.GobEncoder]()) || whole.Implements(reflect.TypeFor[encoding.BinaryMarshaler]()) {
			return nil
		}
	}
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.Interface, reflect.UnsafePointer, reflect.Uintptr:
		return fmt.Errorf("a value of type %s cannot be kept", t)
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return keepable(t.Elem(), seen)
	case reflect.Map:
		if err := keepable(t.Key(), seen); err != nil {
			return err
		}
		return keepable(t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if !f.IsExported() {
				return fmt.Errorf("field %s of %s is not exported and cannot be kept", f.Name, t)
			}
			if err := keepable(f.Type, seen); err != nil {
				return fmt.Errorf("field %s of %s: %w", f.Name, t, err)
			}
		}
	}
	return nil
}

// visible reports what of parameters JSON would leave out without a word.
func visible(v reflect.Value, name string) error {
	if !v.IsValid() {
		return nil
	}
	t := v.Type()
	if t.Implements(reflect.TypeFor[json.Marshaler]()) || t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return nil
	}
	switch t.Kind() {
	case reflect.Interface, reflect.Pointer:
		return visible(v.Elem(), name)
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if err := visible(v.Index(i), fmt.Sprintf("%s[%d]", name, i)); err != nil {
				return err
			}
		}
	case reflect.Map:
		for m := v.MapRange(); m.Next(); {
			if err := visible(m.Value(), fmt.Sprintf("%s[%v]", name, m.Key())); err != nil {
				return err
			}
		}
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Tag.Get("json") == "-" {
				return fmt.Errorf("%s.%s is left out of JSON: two values would be taken for one", name, f.Name)
			}
			if !f.IsExported() && !f.Anonymous {
				return fmt.Errorf("%s.%s is not exported, so that JSON does not show it: two values would be taken for one; begin its name with a capital", name, f.Name)
			}
			if err := visible(v.Field(i), name+"."+f.Name); err != nil {
				return err
			}
		}
	}
	return nil
}
