package train_test

import (
	"math"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
)

// measured is a classifier without dropout under a criterion.
type measured struct {
	classifier
	config    loss.Config
	criterion loss.Criterion
}

func (m measured) LossConfig() loss.Config { return m.config }

func (m measured) Loss(w elastic.Weights, inputs, labels []*graph.Node, _ *dropout.Source) (sum, count *graph.Node) {
	x := graph.Tanh(elastic.Dense(w.In("inner"), inputs[0]))
	x = elastic.LayerNorm(w.In("norm"), x, 1e-5)
	sum, count = m.criterion.Loss(loss.Targets{Labels: labels[0]}, elastic.Dense(w.In("outer"), x))
	if penalty := m.config.Penalty(w, m.Variables()); penalty != nil {
		sum = graph.Add(sum, graph.Mul(penalty, count))
	}
	return sum, count
}

// trainMeasured returns the weights and losses of four updates.
func trainMeasured(t *testing.T, c loss.Config, data train.Data, accumulate int) (weightsAfter []float32, losses []float64) {
	t.Helper()
	m := measured{classifier: newClassifier(t), config: c}
	var err error
	if m.criterion, err = c.Criterion([]string{"a", "b", "c"}, []int{40, 10, 10}); err != nil {
		t.Fatal(err)
	}
	cfg := config()
	cfg.Loss, cfg.Accumulate, cfg.Epochs = c, accumulate, 2
	trainer, err := train.New(gxtest.Backend(t), m, cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = trainer.Run(t.Context(), data, train.Hooks{Step: func(s train.Step) { losses = append(losses, s.Loss) }})
	if err != nil {
		t.Fatal(err)
	}
	return weights(t, m.classifier), losses
}

// TestWeightedMicroBatches compares micro-batches of unequal size with one large batch where
// classes have weights, and variables cost.
func TestWeightedMicroBatches(t *testing.T) {
	for name, c := range map[string]loss.Config{
		"balanced":  {Balanced: true, LabelSmoothing: 0.1},
		"penalties": {ClassWeights: map[string]float64{"a": 0.02, "b": 0.3}, Penalties: []loss.Penalty{{Variables: []string{"*/weights"}, L1: 0.01, L2: 0.1}}},
	} {
		t.Run(name, func(t *testing.T) {
			one, losses := trainMeasured(t, c, uneven{{30}, {30}}.flat(), 1)
			three, again := trainMeasured(t, c, uneven{{5, 20, 5}, {13, 4, 13}}.flat(), 3)
			gxtest.Close(t, three, one, 1e-6)
			gxtest.Close(t, again, losses, 1e-5)
		})
	}
}

// TestSmallWeights: weights that are all alike change nothing, also where they add up to less than 1.
func TestSmallWeights(t *testing.T) {
	plain, losses := trainMeasured(t, loss.Config{}, uneven{{30}, {30}}.flat(), 1)
	small, again := trainMeasured(t, loss.Config{ClassWeights: map[string]float64{"a": 1e-3, "b": 1e-3, "c": 1e-3}}, uneven{{30}, {30}}.flat(), 1)
	gxtest.Close(t, small, plain, 1e-5)
	gxtest.Close(t, again, losses, 1e-5)
}

func TestPenaltiesShrink(t *testing.T) {
	norm := func(c loss.Config) (sum float64) {
		after, _ := trainMeasured(t, c, uneven{{30}, {30}}.flat(), 1)
		for _, x := range after {
			sum += math.Abs(float64(x))
		}
		return sum
	}
	plain, pulled := norm(loss.Config{}), norm(loss.Config{Penalties: []loss.Penalty{{Variables: []string{"*"}, L1: 0.5}}})
	if !(pulled < plain-0.5) {
		t.Errorf("weights have L1 norm %g with a penalty and %g without", pulled, plain)
	}
}

// TestLossIsTheTasks: a loss that the task does not compute is refused, and so is a penalty of nothing.
func TestLossIsTheTasks(t *testing.T) {
	smooth := loss.Config{LabelSmoothing: 0.1}
	nothing := loss.Config{Penalties: []loss.Penalty{{Variables: []string{"/no/*"}, L1: 1}}}
	for _, test := range []struct {
		task   train.Task
		config loss.Config
		want   string
	}{
		{newClassifier(t), smooth, "the task does not compute this loss"},
		{measured{classifier: newClassifier(t), config: loss.Config{FocalGamma: 2}}, smooth, "the task does not compute this loss"},
		{measured{classifier: newClassifier(t), config: nothing}, nothing, `loss.penalties[0].variables: pattern "/no/*"`},
		{newClassifier(t), loss.Config{RDrop: -1}, "loss.r_drop is -1"},
	} {
		cfg := config()
		cfg.Loss = test.config
		if _, err := train.New(gxtest.Backend(t), test.task, cfg); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error %v, want %q", test.config, err, test.want)
		}
	}
}
