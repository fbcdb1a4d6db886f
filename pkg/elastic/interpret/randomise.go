package interpret

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Stage is a part of a model that [Randomise] forgets at a time.
type Stage struct {
	Name      string
	Variables []elastic.Variable
}

// Cascade cuts a model into stages from its output down: by the first name in the path of
// each variable, last listed first (head, layer_5, … layer_0, embeddings).
func Cascade(variables []elastic.Variable) []Stage {
	var stages []Stage
	for _, v := range variables {
		name, _, _ := strings.Cut(strings.TrimPrefix(v.Path, "/"), "/")
		at := slices.IndexFunc(stages, func(s Stage) bool { return s.Name == name })
		if at < 0 {
			stages, at = append(stages, Stage{Name: name}), len(stages)
		}
		stages[at].Variables = append(stages[at].Variables, v)
	}
	slices.Reverse(stages)
	return stages
}

// Similarity says how like an explanation of the trained model one of a randomised model is.
type Similarity struct {
	Stage string `json:"stage"` // randomised, with all before it
	// Rank is the rank correlation of the values, Absolute that of their absolute values.
	Rank     float64 `json:"rank"`
	Absolute float64 `json:"absolute"`
}

// Randomise puts fresh weights, drawn under seed, in place of the stages' variables, one
// stage after the other, and compares each time what explain gives with what it gave at
// first. An explanation that stays alike tells about the input, not about what the model has
// learned. In the end, also after an error, the model is as it was, to the last bit.
//
// Source: Adebayo et al. 2018, "Sanity checks for saliency maps", section 4.1, cascading
// randomisation.
func Randomise(store *model.Store, stages []Stage, seed uint64, explain func() ([]float64, error)) (list []Similarity, err error) {
	first, err := explain()
	if err != nil {
		return nil, err
	}
	old := map[string]*tensors.Tensor{}
	defer func() {
		for path, value := range old {
			if restored := store.GetVariable(path).SetValue(value); restored != nil {
				err = errors.Join(err, fmt.Errorf("putting back %s: %w", path, restored))
			}
		}
	}()
	for _, stage := range stages {
		for _, v := range stage.Variables {
			variable := store.GetVariable(v.Path)
			if variable == nil {
				return nil, fmt.Errorf("model has no variable %s", v.Path)
			}
			value, err := variable.Value()
			if err == nil {
				old[v.Path], err = value.LocalClone()
			}
			if err == nil {
				err = variable.SetValue(v.Tensor(seed))
			}
			if err != nil {
				return nil, fmt.Errorf("randomising %s: %w", v.Path, err)
			}
		}
		values, err := explain()
		if err != nil {
			return nil, fmt.Errorf("explaining with a random %s: %w", stage.Name, err)
		}
		if len(values) != len(first) {
			return nil, fmt.Errorf("explaining with a random %s: %d values, %d before", stage.Name, len(values), len(first))
		}
		list = append(list, Similarity{Stage: stage.Name, Rank: RankCorrelation(first, values), Absolute: RankCorrelation(absolute(first), absolute(values))})
	}
	return list, nil
}

func absolute(values []float64) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = math.Abs(v)
	}
	return out
}

// RankCorrelation is Spearman's ρ of equally many x and y: the correlation of their ranks,
// where equal values share the mean of theirs. It is 0 where all x or all y are equal, or
// where there is only one: they have no order.
func RankCorrelation(x, y []float64) float64 {
	a, b := ranks(x), ranks(y)
	middle := float64(len(x)-1) / 2
	var xy, xx, yy float64
	for i := range a {
		xy += (a[i] - middle) * (b[i] - middle)
		xx += (a[i] - middle) * (a[i] - middle)
		yy += (b[i] - middle) * (b[i] - middle)
	}
	if xx == 0 || yy == 0 {
		return 0
	}
	return xy / math.Sqrt(xx*yy)
}

// ranks returns the rank of each value, from 0; equal ones have the mean of theirs.
func ranks(values []float64) []float64 {
	order := make([]int, len(values))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return cmp.Compare(values[i], values[j]) })
	out := make([]float64, len(values))
	for from := 0; from < len(order); {
		to := from + 1
		for to < len(order) && values[order[to]] == values[order[from]] {
			to++
		}
		for _, i := range order[from:to] {
			out[i] = float64(from+to-1) / 2
		}
		from = to
	}
	return out
}
