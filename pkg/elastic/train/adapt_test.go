package train_test

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mltrain "github.com/gomlx/gomlx/ml/train"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/control"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
)

// experienced is a classifier that knows an earlier run, "before".
type experienced struct {
	classifier
	values, fisher map[string]*tensors.Tensor
}

func (e experienced) Experience(p adapt.Prior) (values, fisher map[string]*tensors.Tensor, err error) {
	if p.FromRun != "before" {
		return nil, nil, errors.New("no such run")
	}
	return e.values, e.fisher, nil
}

func known(value float64) map[string]*tensors.Tensor {
	list := map[string]*tensors.Tensor{}
	for _, v := range (classifier{}).Variables() {
		v.Init = elastic.Init{Value: value}
		list[v.Path] = v.Tensor(0)
	}
	return list
}

func value(t *testing.T, c classifier, path string) []float32 {
	t.Helper()
	return tensors.MustCopyFlatData[float32](c.store.GetVariable(path).MustValue())
}

func runWith(t *testing.T, task train.Task, cfg train.Config) train.Result {
	t.Helper()
	trainer, err := train.New(gxtest.Backend(t), task, cfg)
	if err != nil {
		t.Fatal(err)
	}
	result, err := trainer.Run(t.Context(), rows{batches: 5, size: 8}, train.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// TestRatesByPattern: a factor of 0 leaves every bit, and one of ½ makes the first step half as
// long, weight decay included.
func TestRatesByPattern(t *testing.T) {
	one := config()
	one.MaxUpdates, one.ClipNorm = 1, 0
	plain, strategic := newClassifier(t), newClassifier(t)
	begin := newClassifier(t)
	runWith(t, plain, one)
	one.Adapt = adapt.Strategy{Gradient: []adapt.Rate{{Variables: []string{"/norm/*"}, Factor: 0}, {Variables: []string{"/outer/*", "/norm/*"}, Factor: 0.5}}}
	result := runWith(t, strategic, one)
	if !slices.Equal(value(t, strategic, "/norm/scale"), value(t, begin, "/norm/scale")) {
		t.Error("a frozen variable moved")
	}
	gxtest.Close(t, value(t, strategic, "/inner/weights"), value(t, plain, "/inner/weights"), 0)
	half := value(t, begin, "/outer/weights")
	for i, x := range value(t, plain, "/outer/weights") {
		half[i] += (x - half[i]) / 2
	}
	gxtest.Close(t, value(t, strategic, "/outer/weights"), half, 1e-7)

	events := result.State.Adaptation
	if len(events) != 2 || events[0].Why != "begin" || events[0].Frozen["/norm"] != 16 || events[0].Adapts["/outer"] != 27 || events[1].Update != 1 {
		t.Fatalf("events are %+v", events)
	}
	distance := 0.0
	for _, name := range []string{"weights", "bias"} {
		before := value(t, begin, "/outer/"+name)
		for i, x := range value(t, strategic, "/outer/"+name) {
			distance += math.Pow(float64(x-before[i]), 2)
		}
	}
	gxtest.Close(t, events[1].Moved["/outer"], math.Sqrt(distance), 1e-6)
	if _, ok := events[1].Moved["/norm"]; ok {
		t.Error("a frozen group is said to move")
	}
}

// TestRatesOfAverages: a factor is one of the learning rate also where rules keep sequences or averages of their own, so that one
// for all variables is the same as a schedule of that height.
func TestRatesOfAverages(t *testing.T) {
	for name, rule := range map[string]optim.Rule{
		"schedule-free": optim.ScheduleFreeSGD{}, "ema": optim.Chain{optim.SGD{}, optim.EMA{Beta: 0.9}}, "swa": optim.Chain{optim.SGD{}, optim.SWA{Start: 2}},
		"lookahead": optim.Chain{optim.SGD{}, optim.Lookahead{Every: 2}}, "dadapt_sgd": optim.DAdaptSGD{D0: 0.01},
	} {
		cfg := config()
		cfg.Optimizer = optim.Config{Rule: rule}
		lower, strategic := newClassifier(t), newClassifier(t)
		cfg.Schedule.Peak /= 4
		if name == "dadapt_sgd" { // whose estimate makes up for the schedule
			cfg.Optimizer.Groups = []optim.Group{{Variables: []string{"*"}, Rate: 0.25}}
			cfg.Schedule.Peak *= 4
		}
		runWith(t, lower, cfg)
		cfg.Optimizer.Groups, cfg.Schedule.Peak = nil, config().Schedule.Peak
		cfg.Adapt = adapt.Strategy{Gradient: []adapt.Rate{{Variables: []string{"*"}, Factor: 0.25}}}
		runWith(t, strategic, cfg)
		t.Run(name, func(t *testing.T) { gxtest.Close(t, weights(t, strategic), weights(t, lower), 1e-6) })
	}
}

// TestPriorsPull: the pull is the gradient of ½·α·Σ F·(w − w₀)², which shows where the loss has none: with
// labels that are all ignored.
func TestPriorsPull(t *testing.T) {
	cfg := config()
	cfg.MaxUpdates, cfg.ClipNorm, cfg.Optimizer = 1, 0, optim.Config{}
	for _, fisher := range []float64{0, 3} {
		c := newClassifier(t)
		task := experienced{c, known(2), known(fisher)}
		prior := adapt.Prior{FromRun: "before", Variables: []string{"/outer/*"}, Weight: 0.25}
		if fisher > 0 {
			prior.Fisher = 7
		}
		cfg.Adapt = adapt.Strategy{Experience: []adapt.Prior{prior}}
		before := value(t, c, "/outer/weights")
		trainer, err := train.New(gxtest.Backend(t), task, cfg)
		if err != nil {
			t.Fatal(err)
		}
		result, err := trainer.Run(t.Context(), unlabelled{}, train.Hooks{})
		if err != nil {
			t.Fatal(err)
		}
		want := 0.0 // the norm of the gradient is that of the pull
		for _, w := range append(before, 0, 0, 0) {
			want += math.Pow(0.25*max(fisher, 1)*(float64(w)-2), 2)
		}
		if fisher == 0 {
			want = 0
			for _, w := range append(before, 0, 0, 0) {
				want += math.Pow(0.25*(float64(w)-2), 2)
			}
		}
		gxtest.Close(t, result.State.History[0].GradientNorm, math.Sqrt(want), 1e-5)
	}
}

type unlabelled struct{}

func (unlabelled) Steps() int { return 1 }
func (unlabelled) Batches(int, int) iter.Seq2[mltrain.Batch, error] {
	return func(yield func(mltrain.Batch, error) bool) {
		b := rows{}.batch(0, 0, 8)
		b.Labels = []*tensors.Tensor{tensors.FromFlatDataAndDimensions(slices.Repeat([]int32{loss.Ignored}, 8), 8)}
		yield(b, nil)
	}
}

// TestInitialValues come from an earlier run or from somebody, before the first update.
func TestInitialValues(t *testing.T) {
	cfg := config()
	cfg.Epochs = 1
	two := 2.0
	c := newClassifier(t)
	cfg.Adapt = adapt.Strategy{
		Gradient: []adapt.Rate{{Variables: []string{"/norm/*", "/outer/bias"}, Factor: 0}},
		Experience: []adapt.Prior{
			{Variables: []string{"/norm/scale"}, Value: &two, Initial: true}, {FromRun: "before", Variables: []string{"/outer/bias"}, Initial: true},
		},
	}
	runWith(t, experienced{c, known(0.5), nil}, cfg)
	gxtest.Close(t, value(t, c, "/norm/scale"), slices.Repeat([]float32{2}, 8), 0)
	gxtest.Close(t, value(t, c, "/outer/bias"), slices.Repeat([]float32{0.5}, 3), 0)
}

// TestStrategiesEnd a run: by each budget and by convergence.
func TestStrategiesEnd(t *testing.T) {
	for want, strategy := range map[string]adapt.Strategy{
		"budget of 4 updates":      {Budget: adapt.Budget{Updates: 4}},
		"budget of 1e-09 seconds":  {Budget: adapt.Budget{Seconds: 1e-9}},
		"budget of distance 0.1":   {Budget: adapt.Budget{Distance: 0.1}},
		"below 10 for 3 updates":   {Converge: adapt.Converge{Below: 10, Steps: 3}},
		"below 0.001 for 5 update": {Converge: adapt.Converge{Below: 1e-3}},
	} {
		cfg := config()
		cfg.Epochs, cfg.Adapt = 30, strategy
		result := runWith(t, newClassifier(t), cfg)
		events := result.State.Adaptation
		last := events[len(events)-1]
		if !strings.Contains(result.State.Ended, want) || last.Why != result.State.Ended || last.Update != result.State.Update || !result.Stopped || !result.State.Finished {
			t.Errorf("ended after update %d because %q, want %q; last event %+v", result.State.Update, result.State.Ended, want, last)
		}
		if strategy.Budget.Updates > 0 && result.State.Update != 4 || strategy.Converge.Steps == 3 && result.State.Update != 3 {
			t.Errorf("%s: %d updates", want, result.State.Update)
		}
	}
}

// TestControllerEndsAStrategy: the strategy does not take back that a controller ends the run, and where both would, the controller's
// reason stands.
func TestControllerEndsAStrategy(t *testing.T) {
	cfg := config()
	cfg.Control = []control.Config{{Stop: &control.Stop{Progress: control.Progress{Signal: "loss", Threshold: 1e6, ThresholdMode: "abs"}}}}
	cfg.Adapt = adapt.Strategy{Budget: adapt.Budget{Updates: 4}}
	result := runWith(t, newClassifier(t), cfg)
	if result.State.Update != 2 || !strings.Contains(result.State.Ended, "loss did not improve") {
		t.Errorf("ended after update %d because %q", result.State.Update, result.State.Ended)
	}
}

// TestSkippedUpdatesAreNoCalm: a strategy does not converge by updates that are not made, and its events can be written.
func TestSkippedUpdatesAreNoCalm(t *testing.T) {
	cfg := config()
	cfg.Epochs, cfg.SkipNonFinite = 1, true
	cfg.Adapt = adapt.Strategy{Converge: adapt.Converge{Below: 1e-12, Steps: 1}, LogEvery: 1}
	trainer, err := train.New(gxtest.Backend(t), newClassifier(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	result, err := trainer.Run(t.Context(), poisoned{rows{batches: 4, size: 8}}, train.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := json.Marshal(result.State); err != nil || result.State.Ended != "" || result.State.Skipped != 1 {
		t.Errorf("ended because %q with %d updates skipped, written with %v", result.State.Ended, result.State.Skipped, err)
	}
}

// endless is a classifier whose loss is infinite, and its gradients not.
type endless struct{ classifier }

func (e endless) Loss(w elastic.Weights, inputs, labels []*graph.Node, drop *dropout.Source) (sum, count *graph.Node) {
	sum, count = e.classifier.Loss(w, inputs, labels, drop)
	return graph.Add(sum, graph.Infinity(sum.Graph(), sum.DType(), 1)), count
}

// TestInfiniteLossIsSkipped: what is said to be skipped changes nothing.
func TestInfiniteLossIsSkipped(t *testing.T) {
	c := newClassifier(t)
	before := weights(t, c)
	cfg := config()
	cfg.SkipNonFinite = true
	if result := runWith(t, endless{c}, cfg); result.State.Skipped != result.State.Update {
		t.Errorf("%d of %d updates skipped", result.State.Skipped, result.State.Update)
	}
	if !slices.Equal(weights(t, c), before) {
		t.Error("skipped updates were made")
	}
}

// TestStrategyResumesExactly: weights and events of a run that was interrupted after each update
// are those of one that was not, though the earlier run is gone by then.
func TestStrategyResumesExactly(t *testing.T) {
	data := rows{batches: 3, size: 8}
	cfg := config()
	cfg.Epochs = 2
	cfg.Adapt = adapt.Strategy{
		Gradient:   []adapt.Rate{{Variables: []string{"/norm/*"}, Factor: 0}, {Variables: []string{"/inner/*"}, Factor: 0.3}},
		Experience: []adapt.Prior{{FromRun: "before", Weight: 0.1, Fisher: 2}, {Variables: []string{"/inner/*"}, Weight: 0.5}},
		Converge:   adapt.Converge{Below: 1e-9}, LogEvery: 2,
	}
	whole := newClassifier(t)
	trainer, err := train.New(gxtest.Backend(t), experienced{whole, known(1), known(0.5)}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	want, err := trainer.Run(t.Context(), data, train.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	for stop := 1; stop < want.State.Update; stop++ {
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		first := newClassifier(t)
		trainer, err := train.New(gxtest.Backend(t), experienced{first, known(1), known(0.5)}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, err = trainer.Run(ctx, data, train.Hooks{
			Step: func(s train.Step) {
				if s.Update == stop {
					cancel()
				}
			},
			Save: func(train.State, bool) error { return save(dir, first, trainer) },
		})
		cancel()
		if !errors.Is(err, train.ErrInterrupted) {
			t.Fatalf("stopping after update %d: %v", stop, err)
		}
		second := load(t, dir)
		trainer, err = train.New(gxtest.Backend(t), experienced{second, nil, nil}, cfg)
		if err == nil {
			err = trainer.Restore(dir)
		}
		if err != nil {
			t.Fatal(err)
		}
		got, err := trainer.Run(t.Context(), data, train.Hooks{})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(weights(t, second), weights(t, whole)) || !reflect.DeepEqual(got.State.Adaptation, want.State.Adaptation) {
			t.Fatalf("resumed after update %d, weights or events differ:\n%+v\n%+v", stop, got.State.Adaptation, want.State.Adaptation)
		}
	}
}

// TestPlainTrainingHasNoStrategy: without one there are no copies of the weights in store and
// checkpoint, and no events.
func TestPlainTrainingHasNoStrategy(t *testing.T) {
	c := newClassifier(t)
	result := runWith(t, c, config())
	if len(result.State.Adaptation) > 0 {
		t.Errorf("plain training has events %+v", result.State.Adaptation)
	}
	for v := range c.Store().IterVariables() {
		if strings.HasPrefix(v.Path(), "/adapt/") {
			t.Errorf("plain training keeps %s", v.Path())
		}
	}
}

func TestStrategyRefuses(t *testing.T) {
	for want, strategy := range map[string]adapt.Strategy{
		`gradient[0].variables: pattern "/x"`: {Gradient: []adapt.Rate{{Variables: []string{"/x"}}}},
		"freezes all variables":               {Gradient: []adapt.Rate{{Variables: []string{"*"}}}},
		"does not have these objectives":      {Objective: []adapt.Objective{{Kind: "entropy", Weight: 1}}},
		"knows no earlier runs":               {Experience: []adapt.Prior{{FromRun: "before", Weight: 1}}},
		"budget.updates is -1":                {Budget: adapt.Budget{Updates: -1}},
	} {
		cfg := config()
		cfg.Adapt = strategy
		if _, err := train.New(gxtest.Backend(t), newClassifier(t), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q", err, want)
		}
	}
	cfg := config()
	cfg.Adapt.Experience = []adapt.Prior{{FromRun: "before", Weight: 1}}
	trainer, err := train.New(gxtest.Backend(t), experienced{newClassifier(t), map[string]*tensors.Tensor{}, nil}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trainer.Run(t.Context(), rows{batches: 1, size: 8}, train.Hooks{}); err == nil || !strings.Contains(err.Error(), "leave it out by variables") {
		t.Errorf("an earlier run without a variable: %v", err)
	}
}

// TestFisher: for a linear classifier the gradient of an example's loss is x·(p − y)ᵀ, so the
// diagonal of the empirical Fisher information is the mean of its square.
func TestFisher(t *testing.T) {
	c := linear{newClassifier(t)}
	got, err := train.Fisher(t.Context(), gxtest.Backend(t), c, rows{batches: 9, size: 1})
	if err != nil {
		t.Fatal(err)
	}
	w, b := value(t, c.classifier, "/outer/weights"), value(t, c.classifier, "/outer/bias")
	want, n := make([]float64, len(w)), 0.0
	for i := range 9 {
		batch := rows{}.batch(0, i, 1)
		y := tensors.MustCopyFlatData[int32](batch.Labels[0])[0]
		if y == loss.Ignored {
			continue
		}
		n++
		x := make([]float64, 8)
		for j, v := range tensors.MustCopyFlatData[float32](batch.Inputs[0]) {
			x[j], x[j+4] = float64(v), float64(v)
		}
		var p [3]float64
		sum := 0.0
		for k := range p {
			z := float64(b[k])
			for j := range x {
				z += x[j] * float64(w[j*3+k])
			}
			p[k] = math.Exp(z)
			sum += p[k]
		}
		for k := range p {
			p[k] /= sum
		}
		p[y]--
		for j := range x {
			for k := range p {
				want[j*3+k] += x[j] * x[j] * p[k] * p[k]
			}
		}
	}
	for i := range want {
		want[i] /= n
	}
	gxtest.Close(t, got["/outer/weights"], want, 1e-5)
}

// linear is the classifier without its inner layer.
type linear struct{ classifier }

func (linear) Loss(w elastic.Weights, inputs, labels []*graph.Node, _ *dropout.Source) (sum, count *graph.Node) {
	x := graph.Concatenate([]*graph.Node{inputs[0], inputs[0]}, -1)
	return loss.CrossEntropy(elastic.Dense(w.In("outer"), x), labels[0])
}
