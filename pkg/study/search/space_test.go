package search_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/study/search"
)

func ExampleSpace_Validate() {
	space := search.Space{
		{Name: "rate", Kind: search.Float, Low: 0, High: 1, Log: true},
		{Name: "heads", Kind: search.Int, Low: 1, High: 8, When: map[string][]string{"attention": {"multi"}}},
	}
	fmt.Println(space.Validate())
	// Output:
	// space.0.low: 0, want more than 0 with log (parameter "rate")
	// space.1.when: no categorical parameter "attention" stands before this one (parameter "heads")
}

func TestSpaceValidate(t *testing.T) {
	for content, want := range map[string]string{
		`[]`: "space is empty",
		`[{"name": "a b", "kind": "float", "high": 1}]`:                                                                             `space.0.name: "a b"`,
		`[{"name": "dir", "kind": "float", "high": 1}]`:                                                                             `"dir" has a meaning in commands`,
		`[{"name": "x", "kind": "float", "high": 1}, {"name": "x", "kind": "float", "high": 1}]`:                                    "space.1.name: is there twice",
		`[{"name": "x", "kind": "real", "high": 1}]`:                                                                                `space.0.kind: "real" is unknown; known: float, int, categorical`,
		`[{"name": "x", "kind": "float", "low": 1, "high": 1}]`:                                                                     "low below high",
		`[{"name": "x", "kind": "float", "high": 1, "step": 2}]`:                                                                    "space.0.step: is for ints only",
		`[{"name": "x", "kind": "float", "low": -1.7e308, "high": 1.7e308}]`:                                                        "their distance is no number",
		`[{"name": "x", "kind": "float", "low": 5e-324, "high": 1e-323, "log": true}]`:                                              "cannot be told apart",
		`[{"name": "x", "kind": "int", "low": 0.5, "high": 3}]`:                                                                     "want whole numbers",
		`[{"name": "x", "kind": "int", "low": 1, "high": 3, "step": 2, "log": true}]`:                                               "none with log",
		`[{"name": "x", "kind": "int", "low": 1, "high": 3, "choices": ["a"]}]`:                                                     "are for categorical parameters only",
		`[{"name": "x", "kind": "categorical"}]`:                                                                                    "space.0.choices: are empty",
		`[{"name": "x", "kind": "categorical", "choices": ["a", "a"]}]`:                                                             `"a" is there twice`,
		`[{"name": "x", "kind": "categorical", "choices": ["a"], "high": 1}]`:                                                       "has choices only",
		`[{"name": "x", "kind": "categorical", "choices": ["a"]}, {"name": "y", "kind": "float", "high": 1, "when": {"x": ["b"]}}]`: `x is never "b"`,
		`[{"name": "x", "kind": "categorical", "choices": ["a"]}, {"name": "y", "kind": "float", "high": 1, "when": {"x": []}}]`:    "would never exist",
	} {
		var space search.Space
		if err := json.Unmarshal([]byte(content), &space); err != nil {
			t.Fatal(err)
		}
		if err := space.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", content, err, want)
		}
	}
}

// nested has every kind of parameter, and conditions on conditions.
var nested = search.Space{
	{Name: "model", Kind: search.Categorical, Choices: []string{"linear", "tree", "net"}},
	{Name: "rate", Kind: search.Float, Low: 1e-5, High: 1, Log: true, When: map[string][]string{"model": {"linear", "net"}}},
	{Name: "optimizer", Kind: search.Categorical, Choices: []string{"sgd", "adam"}, When: map[string][]string{"model": {"net"}}},
	{Name: "beta", Kind: search.Float, Low: 0.8, High: 0.999, When: map[string][]string{"optimizer": {"adam"}}},
	{Name: "depth", Kind: search.Int, Low: 2, High: 10, Step: 3, When: map[string][]string{"model": {"tree"}}},
	{Name: "width", Kind: search.Int, Low: 1, High: 512, Log: true},
}

func TestCheck(t *testing.T) {
	for content, want := range map[string]string{
		`{"model": "tree", "depth": 5, "width": 1}`:                                       "",
		`{"model": "net", "rate": 0.1, "optimizer": "adam", "beta": 0.9, "width": 512}`:   "",
		`{"model": "tree", "depth": 5}`:                                                   "width is missing",
		`{"model": "tree", "depth": 4, "width": 1}`:                                       "depth is 4, want a whole number from 2 to 10 in steps of 3",
		`{"model": "tree", "depth": 5, "width": 1.5}`:                                     "width is 1.5",
		`{"model": "forest", "width": 1}`:                                                 `model is forest, want one of ["linear" "tree" "net"]`,
		`{"model": "linear", "rate": 2, "width": 1}`:                                      "rate is 2, want a number from 1e-05 to 1",
		`{"model": "tree", "depth": 5, "width": 1, "rate": 0.1}`:                          "rate is given, but does not exist beside",
		`{"model": "tree", "depth": 5, "width": 1, "size": 1}`:                            "size is no parameter",
		`{"model": "net", "rate": 0.1, "optimizer": "sgd", "width": 512, "beta": 0.9}`:    "beta is given, but does not exist",
		`{"model": "net", "rate": 0.1, "optimizer": "adam", "width": "512", "beta": 0.9}`: "width is 512",
		`{"model": 3, "rate": 0.1, "optimizer": "adam", "width": 512, "beta": 0.9}`:       "model is 3",
	} {
		var params search.Params
		if err := json.Unmarshal([]byte(content), &params); err != nil {
			t.Fatal(err)
		}
		got := ""
		checked, err := nested.Check(params)
		if err != nil {
			got = err.Error()
		}
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", content, got, want)
		}
		if width, ok := checked["width"]; ok {
			if _, whole := width.(int); !whole {
				t.Errorf("%s: width is a %T, want an int", content, width)
			}
		}
	}
}

// TestSamplersStayInTheSpace: every suggestion of every sampler is one of the space, follows from the seed, and differs
// with it; and all values of discrete parameters come.
func TestSamplersStayInTheSpace(t *testing.T) {
	for _, kind := range search.Samplers() {
		suggest := func(seed uint64) (all []search.Params) {
			config := search.Config{Space: nested, Trials: 150, Seed: seed}
			content := fmt.Sprintf(`{"space": [{"name": "x", "kind": "float", "high": 1}], "sampler": %q}`, kind)
			var parsed search.Config
			if err := json.Unmarshal([]byte(content), &parsed); err != nil {
				t.Fatal(err)
			}
			config.Sampler = parsed.Sampler
			s := play(t, config, func(p search.Params) float64 {
				if _, err := nested.Check(p); err != nil {
					t.Errorf("%s suggests %v: %v", kind, p, err)
				}
				return math.Abs(float64(p["width"].(int)) - 40)
			})
			for _, trial := range s.Trials() {
				all = append(all, trial.Params)
			}
			return all
		}
		first := suggest(1)
		if fmt.Sprint(first) != fmt.Sprint(suggest(1)) {
			t.Errorf("%s suggests something else under the same seed", kind)
		}
		if kind != "grid" && fmt.Sprint(first) == fmt.Sprint(suggest(2)) {
			t.Errorf("%s suggests the same under another seed", kind)
		}
		seen := map[any]int{}
		for _, p := range first {
			seen[p["model"]]++
			seen[p["depth"]]++
		}
		for _, value := range []any{"linear", "tree", "net", 2, 5, 8} {
			if seen[value] == 0 {
				t.Errorf("%s never suggests %v", kind, value)
			}
		}
	}
}

func TestUniform(t *testing.T) {
	// A value of a discrete parameter is as probable as any other; of a logarithmic one as wide as its cell.
	for _, sampler := range []search.Sampler{search.Random{}, search.Sobol{}} {
		space := search.Space{
			{Name: "step", Kind: search.Int, Low: 0, High: 9, Step: 3},
			{Name: "log", Kind: search.Int, Low: 1, High: 4, Log: true},
			{Name: "rate", Kind: search.Float, Low: 1e-4, High: 1, Log: true},
		}
		counts := map[string]map[any]int{"step": {}, "log": {}, "rate": {}}
		const n = 4096
		for i := range n {
			p := sampler.Sample(search.History{Space: space, Number: i, Seed: 3})
			counts["step"][p["step"]]++
			counts["log"][p["log"]]++
			counts["rate"][int(math.Floor(math.Log10(p["rate"].(float64))))]++
		}
		want := map[string]map[any]float64{
			"step": {0: 0.25, 3: 0.25, 6: 0.25, 9: 0.25},
			"rate": {-4: 0.25, -3: 0.25, -2: 0.25, -1: 0.25},
			"log":  {},
		}
		for v := 1; v <= 4; v++ {
			want["log"][v] = math.Log((float64(v)+0.5)/(float64(v)-0.5)) / math.Log(4.5/0.5)
		}
		for name, shares := range want {
			for value, share := range shares {
				if got := float64(counts[name][value]) / n; math.Abs(got-share) > 0.025 {
					t.Errorf("%s: %s = %v comes in %.3f of the draws, want %.3f", sampler.Kind(), name, value, got, share)
				}
			}
		}
	}
}

func TestGrid(t *testing.T) {
	var got []string
	s := play(t, search.Config{Space: nested[:3], Sampler: search.Grid{Points: 2}, Trials: 7}, func(search.Params) float64 { return 0 })
	for _, trial := range s.Trials() {
		content, err := json.Marshal(trial.Params)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(content))
	}
	want := []string{
		`{"model":"linear","rate":0.00001}`, `{"model":"linear","rate":1}`, `{"model":"tree"}`,
		`{"model":"net","optimizer":"sgd","rate":0.00001}`, `{"model":"net","optimizer":"adam","rate":0.00001}`,
		`{"model":"net","optimizer":"sgd","rate":1}`, `{"model":"net","optimizer":"adam","rate":1}`,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the grid is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := (search.Grid{Points: 100}).Validate(cube(6)); err == nil {
		t.Error("a grid of 100⁶ points is accepted")
	}
	ints := search.Space{{Name: "n", Kind: search.Int, Low: 0, High: 100, Step: 10}}
	s = play(t, search.Config{Space: ints, Sampler: search.Grid{Points: 3}, Trials: 3}, func(search.Params) float64 { return 0 })
	for i, want := range []int{0, 50, 100} {
		if n := s.Trials()[i].Params["n"]; n != want {
			t.Errorf("point %d of the ints is %v, want %d", i, n, want)
		}
	}
}
