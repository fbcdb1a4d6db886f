package nb

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// Plan is what a notebook's metadata says about its execution, under "workbench".
type Plan struct {
	// Expect has, for each number that the notebook must print, its value and the tolerance.
	Expect map[string][2]float64 `json:"expect,omitempty"`
	// Budget is the longest time that the whole notebook may take, in seconds; 0 is no limit.
	Budget float64 `json:"budget,omitempty"`
	// CellTimeout is the longest time of one cell, in seconds; 0 leaves it to the runner.
	CellTimeout float64 `json:"cell_timeout,omitempty"`
	// Measured describes the execution whose outputs were saved; nil if there was none.
	Measured *Measured `json:"measured,omitempty"`
}

// Measured describes one execution of a notebook.
type Measured struct {
	Seconds float64 `json:"seconds"`
	Backend string  `json:"backend"`
	Cores   int     `json:"cores"`
}

// planField is the field of the metadata that holds the plan.
const planField = "workbench"

// Plan returns the notebook's plan, that of a notebook without one being empty. The error names all fields that are wrong.
func (n *Notebook) Plan() (Plan, error) {
	tree, ok := n.Metadata[planField]
	if !ok {
		return Plan{}, nil
	}
	object, ok := tree.(map[string]any)
	if !ok {
		return Plan{}, fmt.Errorf("metadata.workbench is %s, want an object", kindOf(tree))
	}
	var errs []error
	for name := range object {
		if !slices.Contains([]string{"expect", "budget", "cell_timeout", "measured"}, name) {
			errs = append(errs, fmt.Errorf("metadata.workbench: unknown field %q; there are expect, budget, cell_timeout and measured", name))
		}
	}
	p := Plan{Expect: map[string][2]float64{}}
	if expect, ok := object["expect"]; ok {
		numbers, ok := expect.(map[string]any)
		if !ok {
			errs = append(errs, fmt.Errorf("metadata.workbench.expect is %s, want an object", kindOf(expect)))
		}
		for _, name := range slices.Sorted(maps.Keys(numbers)) {
			pair, err := pairOf(numbers[name])
			if err != nil {
				errs = append(errs, fmt.Errorf("metadata.workbench.expect: %q is %w", name, err))
				continue
			}
			p.Expect[name] = pair
		}
	}
	for name, into := range map[string]any{"budget": &p.Budget, "cell_timeout": &p.CellTimeout, "measured": &p.Measured} {
		value, ok := object[name]
		if !ok {
			continue
		}
		text, err := json.Marshal(value)
		if err == nil {
			err = json.Unmarshal(text, into)
		}
		if seconds, is := into.(*float64); is && err == nil && *seconds < 0 {
			err = fmt.Errorf("it is %g, want seconds", *seconds)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("metadata.workbench.%s: %w", name, err))
		}
	}
	return p, errors.Join(errs...)
}

// pairOf reads [value, tolerance].
func pairOf(tree any) ([2]float64, error) {
	text, err := json.Marshal(tree)
	if err != nil {
		return [2]float64{}, err
	}
	wrong := fmt.Errorf("%s, want [value, tolerance >= 0]", text)
	list, ok := tree.([]any)
	if !ok || len(list) != 2 {
		return [2]float64{}, wrong
	}
	var pair [2]float64
	for i, item := range list {
		switch item := item.(type) {
		case json.Number:
			if pair[i], err = item.Float64(); err != nil {
				return pair, wrong
			}
		case float64:
			pair[i] = item
		default:
			return pair, wrong
		}
	}
	if pair[1] < 0 {
		return pair, wrong
	}
	return pair, nil
}

// SetMeasured notes the execution whose outputs the notebook holds now.
func (n *Notebook) SetMeasured(m Measured) {
	if n.Metadata == nil {
		n.Metadata = map[string]any{}
	}
	house, ok := n.Metadata[planField].(map[string]any)
	if !ok {
		house = map[string]any{}
		n.Metadata[planField] = house
	}
	house["measured"] = map[string]any{"seconds": m.Seconds, "backend": m.Backend, "cores": m.Cores}
}

// Compare returns complaints about expected numbers that were not found or are further away than their tolerance. NaN is
// never close.
func (p Plan) Compare(found map[string]float64) []error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(p.Expect)) {
		want, tolerance := p.Expect[name][0], p.Expect[name][1]
		got, ok := found[name]
		if !ok {
			errs = append(errs, fmt.Errorf("expected number %q was not printed; a cell must print \"result: %s=<number>\"", name, name))
		} else if !(math.Abs(got-want) <= tolerance) {
			errs = append(errs, fmt.Errorf("%s = %g, want %g within %g", name, got, want, tolerance))
		}
	}
	return errs
}

// Markdown writes the expected numbers as a table, sorted by name, and the times below it.
func (p Plan) Markdown() string {
	var b strings.Builder
	b.WriteString("| number | expected | tolerance |\n|---|---:|---:|\n")
	for _, name := range slices.Sorted(maps.Keys(p.Expect)) {
		fmt.Fprintf(&b, "| %s | %g | ± %g |\n", name, p.Expect[name][0], p.Expect[name][1])
	}
	b.WriteString("\n")
	if p.Measured != nil {
		fmt.Fprintf(&b, "The last saved execution took %.0f s on %s with %d cores. ", p.Measured.Seconds, p.Measured.Backend, p.Measured.Cores)
	}
	if p.Budget > 0 {
		fmt.Fprintf(&b, "The headless runner stops the notebook after %.0f s.", p.Budget)
	}
	return b.String()
}
