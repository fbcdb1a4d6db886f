package eval_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/pkg/eval"
)

func near(got, want, tolerance float64) bool { return math.Abs(got-want) <= tolerance }

// TestCompareEqualsScipy holds intervals, effects and adjusted p-values against those that
// tools/golden/bootstrap.py wrote. Other random numbers are drawn here, so the ends of intervals
// agree up to their Monte Carlo error, about 0.001 with as many resamples.
func TestCompareEqualsScipy(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(golden.Dir(t, "bootstrap"), "cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []struct {
			Name     string
			From, To []eval.Outcomes

			Difference, Low, High, Effect, Least float64
		}
		P, Holm []float64
	}
	if err := json.Unmarshal(content, &file); err != nil {
		t.Fatal(err)
	}
	for _, c := range file.Cases {
		got, err := eval.Compare(c.From, c.To, eval.Bootstrap{Resamples: 20000, Seed: 3})
		if err != nil {
			t.Fatal(err)
		}
		if !near(got.Difference, c.Difference, 1e-12) || !near(got.Effect, c.Effect, 1e-9) || !near(got.Least, c.Least, 1e-12) {
			t.Errorf("%s: got %+v, want %+v", c.Name, got, c)
		}
		if !near(got.Low, c.Low, 0.003) || !near(got.High, c.High, 0.003) {
			t.Errorf("%s: interval [%.4f, %.4f], want [%.4f, %.4f]", c.Name, got.Low, got.High, c.Low, c.High)
		}
	}
	for i, got := range eval.Holm(file.P) {
		if !near(got, file.Holm[i], 1e-12) {
			t.Errorf("Holm of %v: got %v at %d, want %v", file.P, got, i, file.Holm[i])
		}
	}
	if len(file.Cases) == 0 || len(file.P) == 0 {
		t.Error("no cases")
	}
}

// TestCompareIsPaired: systems that are both good or both bad on an example have a difference
// that is known much better than their scores.
func TestCompareIsPaired(t *testing.T) {
	var from, to eval.Outcomes
	for i := range 200 {
		right := i % 2
		from.Add(right, 1-right, 1-right)
		if i == 0 {
			right = 1
		}
		to.Add(right, 1-right, 1-right)
	}
	d, err := eval.Compare([]eval.Outcomes{from}, []eval.Outcomes{to}, eval.Bootstrap{})
	if err != nil {
		t.Fatal(err)
	}
	if !near(d.From, 0.5, 1e-12) || !near(d.Difference, 0.005, 1e-12) || d.High-d.Low > 0.03 {
		t.Errorf("got %+v, want a difference of 0.005 in a narrow interval", d)
	}
	again, _ := eval.Compare([]eval.Outcomes{from}, []eval.Outcomes{to}, eval.Bootstrap{})
	if again != d {
		t.Errorf("a second call gives %+v, want %+v", again, d)
	}
	same, _ := eval.Compare([]eval.Outcomes{from}, []eval.Outcomes{from}, eval.Bootstrap{})
	if same.P != 1 || same.Low != 0 || same.High != 0 || same.Effect != 0 {
		t.Errorf("a system and itself: %+v, want no difference with p 1", same)
	}
}

func TestCompareRefuses(t *testing.T) {
	one := eval.Outcomes{TP: []int{1}, FP: []int{0}, FN: []int{0}}
	two := eval.Outcomes{TP: []int{1, 1}, FP: []int{0, 0}, FN: []int{0, 0}}
	for name, err := range map[string]error{
		"no seeds":        second(eval.Compare(nil, nil, eval.Bootstrap{})),
		"other seeds":     second(eval.Compare([]eval.Outcomes{one}, []eval.Outcomes{one, one}, eval.Bootstrap{})),
		"other examples":  second(eval.Compare([]eval.Outcomes{one}, []eval.Outcomes{two}, eval.Bootstrap{})),
		"torn":            second(eval.Compare([]eval.Outcomes{{TP: []int{1}}}, []eval.Outcomes{one}, eval.Bootstrap{})),
		"negative counts": second(eval.Compare([]eval.Outcomes{{TP: []int{-1}, FP: []int{0}, FN: []int{0}}}, []eval.Outcomes{one}, eval.Bootstrap{})),
		"level":           second(eval.Compare([]eval.Outcomes{one}, []eval.Outcomes{one}, eval.Bootstrap{Level: 1.5})),
	} {
		if err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
}

func second(_ eval.Difference, err error) error { return err }

func ExampleCompare() {
	var softmax, other eval.Outcomes
	for range 30 {
		softmax.Add(1, 0, 1) // one entity found, one missed
		softmax.Add(0, 1, 0) // one that is none
		other.Add(2, 0, 0)
		other.Add(0, 1, 0)
	}
	d, err := eval.Compare([]eval.Outcomes{softmax}, []eval.Outcomes{other}, eval.Bootstrap{Seed: 1})
	if err != nil {
		panic(err)
	}
	fmt.Printf("F1 %.3f → %.3f, difference %.3f in [%.3f, %.3f]\n", d.From, d.To, d.Difference, d.Low, d.High)
	fmt.Println(eval.Holm([]float64{0.01, 0.04, 0.03}))
	// Output:
	// F1 0.500 → 0.800, difference 0.300 in [0.275, 0.313]
	// [0.03 0.06 0.06]
}
