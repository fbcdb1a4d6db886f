package search_test

import (
	"encoding/json"
	"testing"

	"github.com/elastic-attention/workbench/pkg/study/search"
)

// FuzzConfig: a config that is valid suggests what its space allows, and is read again as it was written.
func FuzzConfig(f *testing.F) {
	for _, content := range []string{
		`{"space": [{"name": "x", "kind": "float", "low": 1e-6, "high": 1, "log": true}], "trials": 3, "sampler": "tpe"}`,
		`{"space": [{"name": "n", "kind": "int", "low": -3, "high": 9, "step": 4}], "sampler": {"kind": "grid", "points": 3}, "scheduler": {"kind": "hyperband", "max": 9}}`,
		`{"space": [{"name": "c", "kind": "categorical", "choices": ["a", "b"]}, {"name": "y", "kind": "int", "low": 1, "high": 64, "log": true, "when": {"c": ["b"]}}],
			"scheduler": {"kind": "population", "size": 4, "interval": 1, "max": 3}, "sampler": "sobol", "maximize": true, "seed": 5}`,
		`{"space": [{"name": "x", "kind": "float", "low": -1, "high": 1}], "trials": 9, "scheduler": {"kind": "asha", "min": 2, "max": 9, "eta": 2}, "sampler": "cmaes"}`,
		`{"space": [{"name": "x", "kind": "float", "low": -1.7e308, "high": 1.7e308}], "trials": 3, "sampler": "grid"}`,
		`{"space": [{"name": "n", "kind": "int", "low": -9007199254740992, "high": 9007199254740992, "step": 3}], "trials": 3, "sampler": "random"}`,
	} {
		f.Add([]byte(content))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		var config search.Config
		if json.Unmarshal(content, &config) != nil {
			return
		}
		s, err := search.New(config)
		if err != nil {
			return
		}
		for range 3 {
			event, advice := s.Ask()
			if advice != search.Work {
				break
			}
			if err := s.Apply(event); err != nil {
				t.Fatalf("%s: it suggests %+v: %v", content, event, err)
			}
		}
		written, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		var again search.Config
		if err := json.Unmarshal(written, &again); err != nil {
			t.Fatalf("%s: %v", written, err)
		}
		if twice, err := json.Marshal(again); err != nil || string(twice) != string(written) {
			t.Fatalf("%s became %s, %v", written, twice, err)
		}
	})
}
