package loss

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
)

// Config is the loss of a training: plain data, stored with each run. The zero value is plain
// cross-entropy. Tasks refuse what they have no use for.
type Config struct {
	// LabelSmoothing is [Classes].Smoothing.
	LabelSmoothing float64 `json:"label_smoothing,omitempty"`
	// FocalGamma is [Classes].Focus.
	FocalGamma float64 `json:"focal_gamma,omitempty"`
	// ClassWeights are weights of classes by name; those that are not named have 1.
	ClassWeights map[string]float64 `json:"class_weights,omitempty"`
	// Balanced gives each class a weight by its number of targets in the training data; see [Balance].
	Balanced bool `json:"balanced,omitempty"`
	// RDrop is [Criterion].RDrop: training takes twice the time and memory.
	RDrop float64 `json:"r_drop,omitempty"`
	// Mixup is [Criterion].Mixup.
	Mixup float64 `json:"mixup,omitempty"`
	// Penalties are what variables cost.
	Penalties []Penalty `json:"penalties,omitempty"`
}

// IsZero reports whether c is plain cross-entropy.
func (c Config) IsZero() bool {
	return c.LabelSmoothing == 0 && c.FocalGamma == 0 && len(c.ClassWeights) == 0 && !c.Balanced && c.RDrop == 0 && c.Mixup == 0 && len(c.Penalties) == 0
}

// Validate reports all that is wrong with c, apart from what only classes and variables show.
func (c Config) Validate() error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf("loss."+format, args...)) }
	number := func(path string, x float64) {
		if !(x >= 0) || math.IsInf(x, 0) {
			add("%s is %g, want 0 or more, and finite", path, x)
		}
	}
	if !(c.LabelSmoothing >= 0 && c.LabelSmoothing < 1) {
		add("label_smoothing is %g, want 0 ≤ ε < 1", c.LabelSmoothing)
	}
	number("focal_gamma", c.FocalGamma)
	number("r_drop", c.RDrop)
	number("mixup", c.Mixup)
	if c.LabelSmoothing != 0 && c.FocalGamma != 0 {
		add("label_smoothing and focal_gamma exclude each other: one keeps targets that are predicted well in the loss, the other takes them out")
	}
	for _, name := range slices.Sorted(maps.Keys(c.ClassWeights)) {
		number(fmt.Sprintf("class_weights[%q]", name), c.ClassWeights[name])
	}
	if c.Balanced && len(c.ClassWeights) > 0 {
		add("balanced and class_weights exclude each other")
	}
	for i, p := range c.Penalties {
		path := fmt.Sprintf("penalties[%d]", i)
		if len(p.Variables) == 0 {
			add("%s.variables is empty, want patterns of paths", path)
		}
		number(path+".l1", p.L1)
		number(path+".l2", p.L2)
		if p.L1 == 0 && p.L2 == 0 {
			add("%s costs nothing, want l1 or l2", path)
		}
	}
	return errors.Join(problems...)
}

// Criterion returns the loss over classes with the given names. Counts are the numbers of their
// targets in the training data, which only Balanced reads.
func (c Config) Criterion(classes []string, counts []int) (Criterion, error) {
	if err := c.Validate(); err != nil {
		return Criterion{}, err
	}
	criterion := Criterion{Classes: Classes{Smoothing: c.LabelSmoothing, Focus: c.FocalGamma}, RDrop: c.RDrop, Mixup: c.Mixup}
	var problems []error
	switch {
	case c.Balanced:
		if len(counts) != len(classes) {
			return Criterion{}, fmt.Errorf("loss.balanced: counts of %d classes, want %d", len(counts), len(classes))
		}
		criterion.Weights = Balance(counts)
	case len(c.ClassWeights) > 0:
		criterion.Weights = make([]float64, len(classes))
		for i, name := range classes {
			weight, ok := c.ClassWeights[name]
			if !ok {
				weight = 1
			}
			criterion.Weights[i] = weight
		}
		for _, name := range slices.Sorted(maps.Keys(c.ClassWeights)) {
			if !slices.Contains(classes, name) {
				problems = append(problems, fmt.Errorf("loss.class_weights: %q is no class of the task; classes: %q", name, classes))
			}
		}
	}
	if len(criterion.Weights) > 0 && slices.Max(criterion.Weights) == 0 {
		problems = append(problems, errors.New("loss.class_weights are 0 for all classes: there is nothing to learn"))
	}
	return criterion, errors.Join(problems...)
}

// Balance returns weights by which all classes count alike: Σn / (K·n_c) for a class with n_c of
// the targets, with K the number of classes that have any. A class without targets has weight 1.
// So the weighted number of targets is their number.
//
// Source: King, Zeng 2001, "Logistic regression in rare events data"; as scikit-learn's "balanced".
func Balance(counts []int) []float64 {
	total, present := 0, 0
	for _, n := range counts {
		total += n
		if n > 0 {
			present++
		}
	}
	weights := make([]float64, len(counts))
	for i, n := range counts {
		weights[i] = 1
		if n > 0 {
			weights[i] = float64(total) / (float64(present) * float64(n))
		}
	}
	return weights
}

// Check reports patterns of penalties that match none of the variables that are trained.
func (c Config) Check(variables []elastic.Variable) error {
	var problems []error
	for i, p := range c.Penalties {
		if _, err := adapt.Select(variables, p.Variables); err != nil {
			problems = append(problems, fmt.Errorf("loss.penalties[%d].variables: %w", i, err))
		}
	}
	return errors.Join(problems...)
}

// Penalty computes all penalties, a float32 scalar to be added to the mean loss; nil if there are
// none. The variables are those that are trained.
func (c Config) Penalty(w elastic.Weights, variables []elastic.Variable) *Node {
	var total *Node
	for _, p := range c.Penalties {
		total = elastic.AddIf(total, p.Of(w, variables))
	}
	return total
}
