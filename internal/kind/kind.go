// Package kind reads and writes plain data of several types in JSON: an object whose field "kind"
// names its type.
package kind

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/elastic-attention/workbench/internal/strictjson"
)

// Value is plain data that names its type.
type Value interface{ Kind() string }

// Registry knows the types that can stand for a T in JSON.
type Registry[T Value] struct {
	mutex sync.RWMutex
	read  map[string]func(json.RawMessage) (T, error)
}

// Add makes the type of V known. It fails if its kind is empty or taken.
func Add[V Value, T Value](r *Registry[T]) error {
	var zero V
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if _, taken := r.read[zero.Kind()]; taken || zero.Kind() == "" {
		return fmt.Errorf("kind %q is empty or taken", zero.Kind())
	}
	if r.read == nil {
		r.read = map[string]func(json.RawMessage) (T, error){}
	}
	r.read[zero.Kind()] = func(fields json.RawMessage) (T, error) {
		var none T
		var value V
		if err := strictjson.Decode(fields, &value); err != nil {
			return none, err
		}
		return any(value).(T), nil
	}
	return nil
}

// Kinds lists the known kinds, sorted.
func (r *Registry[T]) Kinds() []string {
	r.mutex.RLock()
	defer r.mutex.RUnlock()
	return slices.Sorted(maps.Keys(r.read))
}

// Read decodes a value of role R from the name of its kind, or from an object with a field "kind"; an
// object without one is of kind otherwise, if that is not empty. Path names the value in errors.
func Read[R, T Value](r *Registry[T], raw json.RawMessage, path, otherwise string) (R, error) {
	var none R
	var name string
	fields := json.RawMessage("{}")
	if err := json.Unmarshal(raw, &name); err != nil {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(raw, &object); err != nil {
			return none, fmt.Errorf("%s: want the name of a kind or an object with a field \"kind\", got %s", path, raw)
		}
		name = otherwise
		if given, ok := object["kind"]; ok || otherwise == "" {
			if err := json.Unmarshal(given, &name); err != nil {
				return none, fmt.Errorf("%s: want a field \"kind\" with a name, got %s", path, raw)
			}
		}
		delete(object, "kind")
		if fields, err = json.Marshal(object); err != nil {
			return none, fmt.Errorf("%s: %w", path, err)
		}
	}
	read, ok := r.reader(name)
	if !ok {
		return none, fmt.Errorf("%s: kind %q is unknown; known: %s", path, name, strings.Join(kindsFor[R](r), ", "))
	}
	value, err := read(fields)
	if err != nil {
		return none, fmt.Errorf("%s (%s): %w", path, name, err)
	}
	role, ok := any(value).(R)
	if !ok {
		return none, fmt.Errorf("%s: %q is no part for this place", path, name)
	}
	return role, nil
}

func (r *Registry[T]) reader(name string) (read func(json.RawMessage) (T, error), ok bool) {
	r.mutex.RLock()
	defer r.mutex.RUnlock()
	read, ok = r.read[name]
	return read, ok
}

// kindsFor lists the kinds that have the role R.
func kindsFor[R, T Value](r *Registry[T]) []string {
	return slices.DeleteFunc(r.Kinds(), func(name string) bool {
		read, _ := r.reader(name)
		value, err := read(json.RawMessage("{}"))
		_, ok := any(value).(R)
		return err == nil && !ok
	})
}

// Write encodes a value: the name of its kind if it has no fields set, else an object whose first
// field is "kind".
func Write(v Value) (json.RawMessage, error) {
	object, err := Object(v)
	if err != nil {
		return nil, err
	}
	name, err := json.Marshal(v.Kind())
	if err == nil && len(object) == len(`{"kind":}`)+len(name) {
		return name, nil
	}
	return object, err
}

// Object encodes a value as an object whose first field is "kind".
func Object(v Value) (json.RawMessage, error) {
	name, err := json.Marshal(v.Kind())
	if err != nil {
		return nil, err
	}
	fields, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", v.Kind(), err)
	}
	if bytes.Equal(fields, []byte("{}")) {
		return slices.Concat([]byte(`{"kind":`), name, []byte("}")), nil
	}
	return slices.Concat([]byte(`{"kind":`), name, []byte(","), fields[1:]), nil
}
