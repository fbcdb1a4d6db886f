// Package strictjson reads JSON that people write by hand: what is not known is an error, in
// words that name the field and not the Go type behind it.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Decode reads content, one JSON value, into a pointer. Unknown fields, values of another type
// and anything behind the value are errors.
func Decode(content []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return explain(content, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// explain words an error of the decoder. A mistake of form has its line, if there are several.
func explain(content []byte, err error) error {
	var kind *json.UnmarshalTypeError
	var form *json.SyntaxError
	switch {
	case errors.As(err, &form) && bytes.Contains(bytes.TrimSpace(content), []byte("\n")):
		return fmt.Errorf("line %d: %w", 1+bytes.Count(content[:max(form.Offset-1, 0)], []byte("\n")), err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the JSON ends too early: a bracket or a quote is not closed")
	case errors.As(err, &kind) && kind.Field != "":
		return fmt.Errorf("%s is a JSON %s, want %s", kind.Field, kind.Value, wanted(kind.Type))
	case errors.As(err, &kind):
		return fmt.Errorf("a JSON %s, want %s", kind.Value, wanted(kind.Type))
	}
	if message, ok := strings.CutPrefix(err.Error(), "json: "); ok {
		return errors.New(message)
	}
	return err
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
