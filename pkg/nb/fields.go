package nb

import (
	"encoding/json"
	"fmt"
	"strings"
)

// fields takes known fields out of a JSON object; what is left is kept for writing. The first error stays.
type fields struct {
	tree map[string]any
	err  error
}

func fieldsOf(tree any) (*fields, error) {
	object, ok := tree.(map[string]any)
	if !ok {
		return nil, fmt.Errorf(" is %s, want an object", kindOf(tree))
	}
	return &fields{tree: object}, nil
}

// take returns a field as a T and removes it.
func take[T any](f *fields, name, want string) T {
	raw, present := f.tree[name]
	value, ok := raw.(T)
	delete(f.tree, name)
	if !ok && f.err == nil {
		if present {
			f.err = fmt.Errorf("%s is %s, want %s", name, kindOf(raw), want)
		} else {
			f.err = fmt.Errorf("%s is missing, want %s", name, want)
		}
	}
	return value
}

func (f *fields) text(name string) string { return take[string](f, name, "a text") }
func (f *fields) object(name string) map[string]any {
	return take[map[string]any](f, name, "an object")
}
func (f *fields) list(name string) []any { return take[[]any](f, name, "a list") }

func (f *fields) integer(name string) int {
	number := take[json.Number](f, name, "a number")
	if f.err != nil {
		return 0
	}
	value, err := number.Int64()
	if err != nil {
		f.err = fmt.Errorf("%s is %s, want an integer", name, number)
	}
	return int(value)
}

// count is an integer, where null and 0 are the same.
func (f *fields) count(name string) int {
	if value, ok := f.tree[name]; ok && value == nil {
		delete(f.tree, name)
		return 0
	}
	return f.integer(name)
}

// lines is a text, which may be split into lines.
func (f *fields) lines(name string) string {
	if text, ok := joined(f.tree[name]); ok {
		delete(f.tree, name)
		return text
	}
	return f.text(name)
}

// joined returns a list of texts as one text.
func joined(value any) (string, bool) {
	list, ok := value.([]any)
	if !ok {
		return "", false
	}
	var b strings.Builder
	for _, line := range list {
		text, ok := line.(string)
		if !ok {
			return "", false
		}
		b.WriteString(text)
	}
	return b.String(), true
}

func kindOf(value any) string {
	switch value := value.(type) {
	case nil:
		return "null"
	case string:
		return "a text"
	case bool:
		return fmt.Sprint(value)
	case json.Number:
		return "number " + value.String()
	case []any:
		return "a list"
	default:
		return "an object"
	}
}
