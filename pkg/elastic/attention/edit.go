package attention

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/elastic-attention/workbench/internal/kind"
)

// Change is a field in which two specs differ. Was and Is are JSON, empty where a spec
// does not have the field.
type Change struct {
	Path, Was, Is string
}

// String returns the change as "path: was → is".
func (c Change) String() string {
	or := func(value string) string {
		if value == "" {
			return "unset"
		}
		return value
	}
	return fmt.Sprintf("%s: %s → %s", c.Path, or(c.Was), or(c.Is))
}

// Diff lists the fields in which a and b differ, by path. Parts of a list are told apart
// by their kind: "scores.softcap.limit".
func Diff(a, b Spec) ([]Change, error) {
	was, err := flatten(a)
	if err != nil {
		return nil, err
	}
	is, err := flatten(b)
	if err != nil {
		return nil, err
	}
	var changes []Change
	for _, path := range slices.Sorted(maps.Keys(was)) {
		if was[path] != is[path] {
			changes = append(changes, Change{path, was[path], is[path]})
		}
	}
	for _, path := range slices.Sorted(maps.Keys(is)) {
		if _, ok := was[path]; !ok {
			changes = append(changes, Change{path, "", is[path]})
		}
	}
	slices.SortStableFunc(changes, func(x, y Change) int { return strings.Compare(x.Path, y.Path) })
	return changes, nil
}

// tree returns a spec's JSON as a tree in which lists of parts are maps by kind.
func tree(s Spec) (map[string]any, error) {
	content, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	var root map[string]any
	if err := json.Unmarshal(content, &root); err != nil {
		return nil, err
	}
	return root, nil
}

func flatten(s Spec) (map[string]string, error) {
	root, err := tree(s)
	if err != nil {
		return nil, err
	}
	flat := map[string]string{}
	var walk func(path string, value any) error
	walk = func(path string, value any) error {
		switch v := value.(type) {
		case map[string]any:
			for name, child := range v {
				if err := walk(path+"."+name, child); err != nil {
					return err
				}
			}
			return nil
		case []any:
			for i, child := range v {
				name := strconv.Itoa(i)
				switch c := child.(type) {
				case string:
					name = c
				case map[string]any:
					if kind, ok := c["kind"].(string); ok {
						name = kind
					}
				}
				// The position is part of what a list says.
				if err := walk(fmt.Sprintf("%s.%s", path, name), child); err != nil {
					return err
				}
				flat[strings.TrimPrefix(fmt.Sprintf("%s.%s.at", path, name), ".")] = strconv.Itoa(i)
			}
			return nil
		}
		content, err := json.Marshal(value)
		flat[strings.TrimPrefix(path, ".")] = string(content)
		return err
	}
	return flat, walk("", root)
}

// Without returns s without the named parts: the kinds of its score modifiers, position
// biases and gates, or "qk_norm", "rotary", "differential", "mask", "normalizer" (softmax
// takes its place), "span" and "dropout". The rest is unchanged. A name that s does not
// have is an error.
func (s Spec) Without(names ...string) (Spec, error) {
	for _, name := range names {
		found := false
		drop := func(present bool, clear func()) {
			if present && !found {
				clear()
				found = true
			}
		}
		is := func(field string, part Part) bool { return name == field || part != nil && name == part.Kind() }
		switch name {
		case "qk_norm":
			drop(s.QKNorm != nil, func() { s.QKNorm = nil })
		case "rotary":
			drop(s.Rotary != nil, func() { s.Rotary = nil })
		case "differential":
			drop(s.Differential != nil, func() { s.Differential = nil })
		case "span":
			drop(s.Span != nil, func() { s.Span = nil })
		case "dropout":
			drop(s.Dropout != 0, func() { s.Dropout = 0 })
		}
		if s.Mask != nil {
			drop(is("mask", s.Mask), func() { s.Mask = nil })
		}
		if s.Normalizer != nil {
			drop(is("normalizer", s.Normalizer), func() { s.Normalizer = nil })
		}
		s.Scores = without(s.Scores, name, &found)
		s.Positions = without(s.Positions, name, &found)
		s.Gates = without(s.Gates, name, &found)
		if !found {
			var have []string
			for _, p := range s.parts() {
				have = append(have, p.part.Kind())
			}
			return Spec{}, fmt.Errorf("attention spec has no part %q; it has %s", name, strings.Join(have, ", "))
		}
	}
	return s, nil
}

func without[P Part](parts []P, name string, found *bool) []P {
	at := slices.IndexFunc(parts, func(p P) bool { return p.Kind() == name })
	if at < 0 || *found {
		return parts
	}
	*found = true
	if len(parts) == 1 {
		return nil
	}
	return slices.Concat(parts[:at], parts[at+1:])
}

// With returns s with the field at a path set to a value, which may be anything that
// encodes to the field's JSON: s.With("scores.softcap.limit", 20),
// s.With("normalizer", Sparsemax{}). A part of a list is named by its kind; if the list
// has none of that kind, it is added at the end. A field or kind that does not exist is
// an error.
func (s Spec) With(path string, value any) (Spec, error) {
	root, err := tree(s)
	if err != nil {
		return Spec{}, err
	}
	var raw json.RawMessage
	if part, ok := value.(Part); ok {
		raw, err = kind.Write(part)
	} else {
		raw, err = json.Marshal(value)
	}
	if err != nil {
		return Spec{}, fmt.Errorf("attention.%s: %w", path, err)
	}
	var leaf any
	if err := json.Unmarshal(raw, &leaf); err != nil {
		return Spec{}, fmt.Errorf("attention.%s: %w", path, err)
	}
	names := strings.Split(path, ".")
	root[names[0]] = set(root[names[0]], names[0], names[1:], leaf)
	content, err := json.Marshal(root)
	if err != nil {
		return Spec{}, err
	}
	var changed Spec
	if err := json.Unmarshal(content, &changed); err != nil {
		return Spec{}, fmt.Errorf("setting %s: %w", path, err)
	}
	return changed, nil
}

// lists are the fields that hold lists of parts.
var lists = []string{"scores", "positions", "gates"}

// set returns node with the value at the path below it set to leaf.
func set(node any, field string, path []string, leaf any) any {
	if len(path) == 0 {
		return leaf
	}
	if slices.Contains(lists, field) {
		list, _ := node.([]any)
		kind := path[0]
		for i, child := range list {
			if child == kind {
				child = map[string]any{"kind": kind}
			}
			if object, ok := child.(map[string]any); ok && object["kind"] == kind {
				list = slices.Clone(list)
				list[i] = set(object, "", path[1:], leaf)
				return list
			}
		}
		return append(slices.Clone(list), set(map[string]any{"kind": kind}, "", path[1:], leaf))
	}
	object, ok := node.(map[string]any)
	if kind, named := node.(string); named { // a part without fields so far
		object, ok = map[string]any{"kind": kind}, true
	}
	if !ok {
		object = map[string]any{}
	}
	object = maps.Clone(object)
	object[path[0]] = set(object[path[0]], "", path[1:], leaf)
	return object
}
