package train_test

import (
	"context"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	mltrain "github.com/gomlx/gomlx/ml/train"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/control"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
)

// bowl is a task whose loss is ½·curvature·‖w‖²: gradient descent is stable below the rate 2/curvature.
type bowl struct {
	store     *model.Store
	curvature float64
}

func newBowl(curvature float64) (bowl, error) {
	b := bowl{curvature: curvature}
	var err error
	b.store, err = elastic.NewStore(b.Variables(), 1)
	return b, err
}

func (b bowl) Store() *model.Store { return b.store }

func (bowl) Variables() []elastic.Variable {
	return []elastic.Variable{{Path: "/w", Shape: []int{3}, Init: elastic.Init{Value: 1000}}}
}

func (b bowl) Loss(w elastic.Weights, inputs, _ []*graph.Node, _ *dropout.Source) (sum, count *graph.Node) {
	count = graph.ReduceAllSum(inputs[0])
	return graph.Mul(count, graph.MulScalar(graph.ReduceAllSum(graph.Square(w.At("w"))), b.curvature/2)), count
}

// ones are batches that say nothing.
type ones int

func (n ones) Steps() int { return int(n) }

func (n ones) Batches(_, skip int) iter.Seq2[mltrain.Batch, error] {
	return func(yield func(mltrain.Batch, error) bool) {
		for range int(n) - skip {
			if !yield(mltrain.Batch{
				Inputs: []*tensors.Tensor{tensors.FromFlatDataAndDimensions([]float32{1, 1}, 2)},
				Labels: []*tensors.Tensor{tensors.FromFlatDataAndDimensions([]int32{0, 0}, 2)},
			}, nil) {
				return
			}
		}
	}
}

// TestRangeTestFindsTheBound: on a quadratic the loss falls up to the rate 2/L exactly, and the test ends
// soon after; the suggested rates are below; variables and store are as before.
func TestRangeTestFindsTheBound(t *testing.T) {
	for _, curvature := range []float64{0.5, 20} {
		for _, r := range []train.RateRange{
			{From: 0.01 / curvature, To: 100 / curvature, Updates: 60},
			{From: 0.01 / curvature, To: 6 / curvature, Updates: 90, Linear: true},
		} {
			b, err := newBowl(curvature)
			if err != nil {
				t.Fatal(err)
			}
			cfg := train.Config{Optimizer: optim.Config{Rule: optim.SGD{}}, Accumulate: 2, Control: []control.Config{{Stop: &control.Stop{Progress: control.Progress{Signal: "loss", Threshold: 1e9}}}}}
			curve, err := train.RangeTest(t.Context(), gxtest.Backend(t), b, ones(7), cfg, r)
			if err != nil {
				t.Fatal(err)
			}
			bound := 2 / curvature
			lowest := 0
			for i, p := range curve.Points {
				if p.Loss < curve.Points[lowest].Loss {
					lowest = i
				}
			}
			// The loss of a point is from before its update, so the lowest is the first beyond the bound.
			if at, before := curve.Points[lowest].Rate, curve.Points[lowest-1].Rate; !(before <= bound && at > bound) {
				t.Errorf("curvature %g, linear %v: the loss falls up to a rate between %g and %g, want %g", curvature, r.Linear, before, at, bound)
			}
			last := curve.Points[len(curve.Points)-1].Rate
			if !curve.Diverged || !(last > bound && last < r.To) {
				t.Errorf("curvature %g, linear %v: diverged is %v, last rate %g, want more than %g", curvature, r.Linear, curve.Diverged, last, bound)
			}
			if low, high := curve.Range(); !(low > r.From && low < high && high < bound) {
				t.Errorf("curvature %g, linear %v: suggested rates %g to %g, want them below %g", curvature, r.Linear, low, high, bound)
			}
			if first := curve.Points[0]; math.Abs(first.Rate/r.From-1) > 1e-9 || first.Loss != first.Smoothed || math.Abs(first.Loss/(1.5e6*curvature)-1) > 1e-6 {
				t.Errorf("first point is %+v", first)
			}
			if len(curve.Warnings) != 0 {
				t.Errorf("warnings %q", curve.Warnings)
			}
			if w := tensors.MustCopyFlatData[float32](b.store.GetVariable("/w").MustValue()); !slices.Equal(w, []float32{1000, 1000, 1000}) {
				t.Errorf("weights are %v afterwards", w)
			}
			if n := b.store.NumVariables(); n != 1 {
				t.Errorf("the store has %d variables afterwards", n)
			}
		}
	}
}

// TestRangeTestChangesNothing: a run after a range test is, bit by bit, one without.
func TestRangeTestChangesNothing(t *testing.T) {
	plain, tested := newClassifier(t), newClassifier(t)
	cfg := config()
	cfg.Optimizer.Rule = optim.Chain{cfg.Optimizer.Rule, optim.EMA{}}
	data := rows{batches: 3, size: 8}
	curve, err := train.RangeTest(t.Context(), gxtest.Backend(t), tested, data, cfg, train.RateRange{From: 1e-4, To: 1, Updates: 50})
	if err != nil || len(curve.Points) < 20 {
		t.Fatalf("%d points, %v", len(curve.Points), err)
	}
	for _, c := range []classifier{plain, tested} {
		if _, err := newTrainer(t, c, cfg).Run(t.Context(), data, train.Hooks{}); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(weights(t, plain), weights(t, tested)) {
		t.Error("the run after a range test differs")
	}
	_, err = train.RangeTest(t.Context(), gxtest.Backend(t), tested, data, cfg, train.RateRange{})
	if err == nil || !strings.Contains(err.Error(), "before a trainer is made") {
		t.Errorf("a trainer holds the task: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	start := weights(t, plain)
	fresh := newClassifier(t)
	if _, err := train.RangeTest(ctx, gxtest.Backend(t), fresh, data, cfg, train.RateRange{}); err == nil {
		t.Error("a cancelled test gives no error")
	}
	if slices.Equal(start, weights(t, fresh)) || !slices.Equal(weights(t, newClassifier(t)), weights(t, fresh)) {
		t.Error("a cancelled test changes weights")
	}
}

func TestRangeTestWarns(t *testing.T) {
	for _, test := range []struct {
		name string
		r    train.RateRange
		want []string
		none bool // no suggestion
	}{
		{"too low", train.RateRange{From: 1e-9, To: 1e-6, Updates: 40}, []string{"never fell", "did not diverge up to a rate of 1e-06"}, true},
		{"too high", train.RateRange{From: 3, To: 30, Updates: 40}, []string{"never fell"}, true},
		{"infinite", train.RateRange{From: 1e-3, To: 1e30, Updates: 30}, []string{"30 updates over 33.0 powers of ten are few: take 330"}, false},
		{"pretrained", train.RateRange{From: 0.01, To: 100, Updates: 60, Pretrained: true}, []string{"pretrained"}, false},
	} {
		b, err := newBowl(1)
		if err != nil {
			t.Fatal(err)
		}
		curve, err := train.RangeTest(t.Context(), gxtest.Backend(t), b, ones(3), train.Config{Optimizer: optim.Config{Rule: optim.SGD{}}}, test.r)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range test.want {
			if !strings.Contains(strings.Join(curve.Warnings, "\n"), want) {
				t.Errorf("%s: warnings %q, want %q", test.name, curve.Warnings, want)
			}
		}
		if low, high := curve.Range(); (high == 0) != (low == 0) || test.none && high != 0 {
			t.Errorf("%s: suggested rates %g to %g", test.name, low, high)
		}
	}
	err := train.RateRange{From: 2, To: 1, Updates: 1}.Validate()
	if err == nil || !strings.Contains(err.Error(), "from 2 to 1") || !strings.Contains(err.Error(), "updates is 1") {
		t.Errorf("error is %v", err)
	}
}

func ExampleRangeTest() {
	ctx := context.Background()
	engine, _, err := backend.Open(ctx, backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	task, err := newBowl(10) // stable below a rate of 0.2
	if err != nil {
		panic(err)
	}
	curve, err := train.RangeTest(ctx, engine, task, ones(5), train.Config{Optimizer: optim.Config{Rule: optim.SGD{}}}, train.RateRange{From: 1e-3, To: 10, Updates: 60})
	if err != nil {
		panic(err)
	}
	low, high := curve.Range()
	fmt.Printf("diverged: %v; try rates from %.3f to %.3f\n", curve.Diverged, low, high)
	// Output:
	// diverged: true; try rates from 0.014 to 0.112
}
