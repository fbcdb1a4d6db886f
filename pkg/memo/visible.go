package memo

import (
	"encoding"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"unsafe"
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

// visible reports what of parameters JSON would leave out without a word, and parameters that lead back to themselves.
func visible(v reflect.Value, name string) error { return visibleIn(v, name, nil) }

// place is where a pointer, map or slice points to. Slices of two lengths may share their first element.
type place struct {
	typ    reflect.Type
	at     unsafe.Pointer
	length int
}

// visibleIn is [visible] of a value that was come to by way of places.
func visibleIn(v reflect.Value, name string, way []place) error {
	if !v.IsValid() {
		return nil
	}
	t := v.Type()
	if t.Implements(reflect.TypeFor[json.Marshaler]()) || t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return nil
	}
	if kind := t.Kind(); (kind == reflect.Pointer || kind == reflect.Map || kind == reflect.Slice) && !v.IsNil() {
		here := place{typ: t, at: v.UnsafePointer()}
		if kind == reflect.Slice {
			here.length = v.Len()
		}
		if slices.Contains(way, here) {
			return fmt.Errorf("%s leads back to itself: parameters have an end, so give numbers or names in place of what points back", name)
		}
		way = append(way, here)
	}
	switch t.Kind() {
	case reflect.Interface, reflect.Pointer:
		return visibleIn(v.Elem(), name, way)
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if err := visibleIn(v.Index(i), fmt.Sprintf("%s[%d]", name, i), way); err != nil {
				return err
			}
		}
	case reflect.Map:
		for m := v.MapRange(); m.Next(); {
			if err := visibleIn(m.Value(), fmt.Sprintf("%s[%v]", name, m.Key()), way); err != nil {
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
			if err := visibleIn(v.Field(i), name+"."+f.Name, way); err != nil {
				return err
			}
		}
	}
	return nil
}
