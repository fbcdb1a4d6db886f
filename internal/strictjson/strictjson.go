// Package strictjson reads JSON that people write by hand: what is not known is an error, in
// words that name the field and not the Go type behind it. What programs wrote is read with the same words.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// Decode reads content, one JSON value, into a pointer. Unknown fields, values of another type
// and anything behind the value are errors.
func Decode(content []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	return decode(decoder, content, into)
}

// DecodeKnown is [Decode] without a look at unknown fields, for what programs wrote, perhaps later versions.
func DecodeKnown(content []byte, into any) error {
	return decode(json.NewDecoder(bytes.NewReader(content)), content, into)
}

func decode(decoder *json.Decoder, content []byte, into any) error {
	if err := decoder.Decode(into); err != nil {
		return explain(content, into, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// explain words an error of the decoder. A mistake of form has its line, if there are several; an unknown field of the value itself, or of
// one of those that it lists, has the fields that there are.
func explain(content []byte, into any, err error) error {
	var kind *json.UnmarshalTypeError
	var form *json.SyntaxError
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("it is empty")
	case errors.As(err, &form) && bytes.Contains(bytes.TrimSpace(content), []byte("\n")):
		return fmt.Errorf("line %d: %w", 1+bytes.Count(content[:max(form.Offset-1, 0)], []byte("\n")), err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the JSON ends too early: a bracket or a quote is not closed")
	case errors.As(err, &kind) && kind.Field != "":
		return fmt.Errorf("%s is a JSON %s, want %s", kind.Field, kind.Value, wanted(kind.Type))
	case errors.As(err, &kind):
		return fmt.Errorf("a JSON %s, want %s", kind.Value, wanted(kind.Type))
	}
	message, ok := strings.CutPrefix(err.Error(), "json: ")
	if !ok {
		return err
	}
	if name, ok := strings.CutPrefix(message, "unknown field "); ok {
		name, known := strings.Trim(name, `"`), fields(reflect.TypeOf(into))
		if len(known) > 0 && !slices.Contains(known, name) && outermost(content, name) {
			message += ", want " + strings.Join(known, ", ")
		}
	}
	return errors.New(message)
}

// outermost tells whether a field is one of the JSON object itself, or of an object of the list that it is.
func outermost(content []byte, field string) bool {
	var list []map[string]json.RawMessage
	if json.Unmarshal(content, &list) != nil {
		list = make([]map[string]json.RawMessage, 1)
		if json.Unmarshal(content, &list[0]) != nil {
			return false
		}
	}
	for _, object := range list {
		if _, ok := object[field]; ok {
			return true
		}
	}
	return false
}

// fields lists the names of the JSON fields of a struct, or of those in a list, in their order.
func fields(t reflect.Type) (names []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported() && !f.Anonymous:
		case f.Anonymous && name == "":
			names = append(names, fields(f.Type)...)
		case name == "":
			names = append(names, f.Name)
		default:
			names = append(names, name)
		}
	}
	return names
}

// wanted names the JSON that a Go type is read from.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number from 0 on"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Pointer:
		return wanted(t.Elem())
	}
	return "an object"
}
