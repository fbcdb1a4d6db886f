package classify_test

import (
	"math"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/task/classify"
)

// losses trains some updates and returns their losses.
func losses(t *testing.T, c loss.Config, updates int) []float64 {
	t.Helper()
	config := recipe(updates)
	config.LogEvery, config.Loss = 1, c
	classifier := scratch(t, classify.Config{Pooling: "mean", Lengths: []int{16}, MaxLength: 24})
	result, err := classifier.Train(t.Context(), texts(24), nil, config, classify.TrainOptions{})
	if err != nil {
		t.Fatal(err)
	}
	list := make([]float64, len(result.State.History))
	for i, point := range result.State.History {
		list[i] = point.Loss
	}
	return list
}

func TestLossOfAClassifier(t *testing.T) {
	plain := losses(t, loss.Config{}, 5)
	for name, c := range map[string]loss.Config{ // the model has no dropout, and its classes are of one size
		"two equal passes": {RDrop: 3}, "balanced": {Balanced: true}, "weights of 2": {ClassWeights: map[string]float64{"place": 2, "thing": 2}},
	} {
		for i, got := range losses(t, c, 5) {
			if math.Abs(got-plain[i]) > 1e-4 {
				t.Errorf("%s: loss %d is %g, want that of the plain one, %g", name, i, got, plain[i])
			}
		}
	}
	// Where texts are mixed with ones of another class, no model can be sure.
	mixed, smoothed := losses(t, loss.Config{Mixup: 5, RDrop: 1}, 60), losses(t, loss.Config{LabelSmoothing: 0.5}, 60)
	sure := losses(t, loss.Config{}, 60)[59]
	if sure > 0.05 || mixed[59] < sure+0.1 || smoothed[59] < sure+0.1 {
		t.Errorf("losses end at %g plain, %g mixed, %g smoothed; want the last two to stay above", sure, mixed[59], smoothed[59])
	}
}

func TestLossesThatAClassifierRefuses(t *testing.T) {
	for want, c := range map[string]loss.Config{
		`"O" is no class of the task; classes: ["place" "thing"]`: {ClassWeights: map[string]float64{"O": 2}},
		"loss.mixup is -1": {Mixup: -1},
	} {
		config := recipe(1)
		config.Loss = c
		if _, err := scratch(t, classify.Config{}).Train(t.Context(), texts(8), nil, config, classify.TrainOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q", err, want)
		}
	}
}
