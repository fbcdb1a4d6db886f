package train_test

import (
	"context"
	"encoding/json"
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
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/control"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
)

// rules have all kinds of state: moments, copies, shared numbers, averages, a second gradient.
var rules = []optim.Rule{
	optim.AdamW{WeightDecay: 0.1}, optim.Lion{}, optim.SGD{Momentum: 0.9}, optim.Adafactor{}, optim.Muon{}, optim.Shampoo{Every: 2}, optim.SOAP{Every: 2}, optim.NAdam{}, optim.Rprop{},
	optim.Prodigy{D0: 0.01}, optim.DAdaptSGD{D0: 0.01}, optim.DoWG{}, optim.MoMo{}, optim.COCOB{}, optim.ScheduleFreeAdamW{},
	optim.Chain{optim.SAM{}, optim.SGD{Momentum: 0.9}}, optim.Chain{optim.AdamW{}, optim.EMA{Beta: 0.9}}, optim.Chain{optim.AdamW{}, optim.SWA{Start: 5}},
	optim.Chain{optim.Noise{Eta: 0.01}, optim.AdamW{}}, optim.Chain{optim.AdamW{}, optim.Lookahead{}}, optim.Chain{optim.Adam{}, optim.Hypergradient{Beta: 1e-4}}, optim.Chain{optim.AdamW{}, optim.Mechanic{Start: 0.1}},
	optim.RAdam{}, optim.Adamax{}, optim.AdaBelief{}, optim.Yogi{}, optim.QHAdam{}, optim.ADOPT{}, optim.AdEMAMix{}, optim.Adan{}, optim.MARS{},
	optim.AdamP{}, optim.StableAdamW{}, optim.RMSprop{Momentum: 0.9, Centered: true}, optim.Adagrad{}, optim.Adadelta{}, optim.SM3{}, optim.NovoGrad{}, optim.CAME{},
	optim.LAMB{}, optim.LARS{}, optim.Signum{}, optim.ScheduleFreeSGD{}, optim.DAdaptAdam{D0: 0.01}, optim.DAdaptLion{D0: 0.01}, optim.DoG{Start: 0.1}, optim.Polyak{},
	optim.Chain{optim.Momentum{Beta: 0.9}}, optim.Chain{optim.Mean{Beta: 0.9}}, optim.Chain{optim.SecondMoment{Beta: 0.9}, optim.ScheduleFree{}},
}

// TestRulesAreAll: every kind that keeps state is among the rules.
func TestRulesAreAll(t *testing.T) {
	there := map[string]bool{}
	for _, rule := range rules {
		there[rule.Kind()] = true
		if chain, ok := rule.(optim.Chain); ok {
			for _, link := range chain {
				there[link.Kind()] = true
			}
		}
	}
	for _, kind := range optim.Kinds() {
		var config optim.Config
		if err := json.Unmarshal([]byte(`{"kind": "`+kind+`"}`), &config); err != nil {
			t.Fatal(err)
		}
		link, isLink := config.Rule.(interface {
			Slots(elastic.Variable) []optim.Slot
		})
		shared, shares := config.Rule.(interface{ Shared() []optim.Slot })
		keeps := !isLink || len(link.Slots(elastic.Variable{Path: "/w", Shape: []int{2, 2}})) > 0 || shares && len(shared.Shared()) > 0
		if keeps && kind != (optim.Chain{}).Kind() && !there[kind] {
			t.Errorf("%s keeps state, and is not tested", kind)
		}
	}
}

// TestResumeOfRules: with each rule, a run that ends in the middle of an epoch and goes on from its
// checkpoint equals one in one piece, to the last bit, controllers included.
func TestResumeOfRules(t *testing.T) {
	for i, rule := range rules {
		t.Run(fmt.Sprintf("%d-%s", i, rule.Kind()), func(t *testing.T) {
			cfg := config()
			cfg.Epochs, cfg.Optimizer = 2, optim.Config{Rule: rule}
			cfg.Accumulate = 1 + i%2
			cfg.Control = []control.Config{{Plateau: &control.Plateau{Progress: control.Progress{Signal: "loss", Patience: 1}, Factor: 0.7}}}
			data := rows{batches: 6, size: 8}

			whole := newClassifier(t)
			var metrics []float64
			hooks := func(c classifier, metrics *[]float64) train.Hooks {
				return train.Hooks{Evaluate: func(context.Context, int) (float64, error) {
					sum := 0.0
					for _, w := range weights(t, c) {
						sum += float64(w)
					}
					*metrics = append(*metrics, sum)
					return sum, nil
				}}
			}
			want, err := newTrainer(t, whole, cfg).Run(t.Context(), data, hooks(whole, &metrics))
			if err != nil {
				t.Fatal(err)
			}

			first, dir := newClassifier(t), t.TempDir()
			trainer := newTrainer(t, first, cfg)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var again []float64
			h := hooks(first, &again)
			h.Step = func(s train.Step) {
				if s.Update == 2 {
					cancel()
				}
			}
			h.Save = func(train.State, bool) error { return save(dir, first, trainer) }
			if _, err := trainer.Run(ctx, data, h); err == nil {
				t.Fatal("the run was not interrupted")
			}
			second := load(t, dir)
			resumed := newTrainer(t, second, cfg)
			if err := resumed.Restore(dir); err != nil {
				t.Fatal(err)
			}
			got, err := resumed.Run(t.Context(), data, hooks(second, &again))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(weights(t, whole), weights(t, second)) {
				t.Error("weights differ")
			}
			if !slices.Equal(metrics, again) {
				t.Errorf("metrics %v, want %v", again, metrics)
			}
			if fmt.Sprint(got.State.Control) != fmt.Sprint(want.State.Control) || len(want.State.Control) == 0 && i == 0 {
				t.Errorf("controllers did %v, want %v", got.State.Control, want.State.Control)
			}
			if want.Compilations > 5 { // the steps and the exchange of averages
				t.Errorf("%d compilations", want.Compilations)
			}
		})
	}
}

// TestEvaluationIsOfAverages: with EMA the weights in evaluations, checkpoints and at the end are the
// averages, and training goes on with the trained ones.
func TestEvaluationIsOfAverages(t *testing.T) {
	plain, averaged := newClassifier(t), newClassifier(t)
	cfg := config()
	cfg.Epochs = 2
	var seen [][]float32
	if _, err := newTrainer(t, plain, cfg).Run(t.Context(), rows{batches: 1, size: 8}, train.Hooks{Evaluate: func(context.Context, int) (float64, error) {
		seen = append(seen, weights(t, plain))
		return 0, nil
	}}); err != nil {
		t.Fatal(err)
	}
	start := weights(t, newClassifier(t))
	cfg.Optimizer.Rule = optim.Chain{cfg.Optimizer.Rule, optim.EMA{Beta: 0.75}}
	epoch := 0
	average := start
	if _, err := newTrainer(t, averaged, cfg).Run(t.Context(), rows{batches: 1, size: 8}, train.Hooks{Evaluate: func(context.Context, int) (float64, error) {
		next := make([]float32, len(average))
		for i, a := range average {
			next[i] = 0.75*a + 0.25*seen[epoch][i]
		}
		average = next
		for i, w := range weights(t, averaged) {
			if math.Abs(float64(w-average[i])) > 1e-6 {
				t.Fatalf("epoch %d: weight %d is %g, want %g", epoch, i, w, average[i])
			}
		}
		epoch++
		return 0, nil
	}}); err != nil {
		t.Fatal(err)
	}
	if epoch != 2 {
		t.Errorf("%d evaluations", epoch)
	}
	for i, w := range weights(t, averaged) {
		if math.Abs(float64(w-average[i])) > 1e-6 {
			t.Fatalf("after the run weight %d is %g, want %g", i, w, average[i])
		}
	}
}

// poisoned has a batch with infinite features.
type poisoned struct{ rows }

func (p poisoned) Batches(epoch, skip int) iter.Seq2[mltrain.Batch, error] {
	return func(yield func(mltrain.Batch, error) bool) {
		i := skip
		for batch, err := range p.rows.Batches(epoch, skip) {
			if i == 2 {
				size := batch.Inputs[0].Shape().Dimensions
				batch.Inputs[0] = tensors.FromFlatDataAndDimensions(slices.Repeat([]float32{float32(math.Inf(1))}, size[0]*size[1]), size...)
			}
			i++
			if !yield(batch, err) {
				return
			}
		}
	}
}

// follower remembers the squares of gradients.
type follower struct{ classifier }

func (follower) FollowSlots() []elastic.Variable  { return []elastic.Variable{{Path: "/squares"}} }
func (follower) FollowScalars(int, int) []float32 { return []float32{1} }
func (follower) Follow(scalars *graph.Node, values, gradients, slots []*graph.Node) (newValues, newSlots []*graph.Node) {
	return values, []*graph.Node{graph.Add(slots[0], graph.ReduceAllSum(graph.Square(gradients[0])))}
}

// TestSkipNonFinite: an update without finite gradients changes nothing and is counted; by default it
// ends the run.
func TestSkipNonFinite(t *testing.T) {
	cfg := config()
	cfg.Epochs = 1
	data := poisoned{rows{batches: 4, size: 8}}
	ended, err := newTrainer(t, newClassifier(t), cfg).Run(t.Context(), data, train.Hooks{})
	if events := ended.State.Control; len(events) != 1 || events[0].Action != "stop" || events[0].Update != 3 {
		t.Errorf("events %+v", events)
	}
	if err == nil || !strings.Contains(err.Error(), "update 3") || !strings.Contains(err.Error(), "skip_non_finite") {
		t.Errorf("error is %v", err)
	}
	cfg.SkipNonFinite = true
	c := follower{newClassifier(t)}
	var before []float32
	trainer, err := train.New(gxtest.Backend(t), c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	var told []control.Event
	result, err := trainer.Run(t.Context(), data, train.Hooks{Event: func(e control.Event) { told = append(told, e) }, Step: func(s train.Step) {
		squares := tensors.ToScalar[float32](c.store.GetVariable(train.SlotsScope + "/squares").MustValue())
		if !(squares > 0) || math.IsInf(float64(squares), 0) {
			t.Errorf("update %d: the follower remembers %g", s.Update, squares)
		}
		if s.Update == 2 {
			before = weights(t, c.classifier)
		}
		if s.Update == 3 && !slices.Equal(before, weights(t, c.classifier)) {
			t.Error("the update was made")
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if result.State.Skipped != 1 {
		t.Errorf("%d updates are said to be skipped, want 1", result.State.Skipped)
	}
	if !slices.Equal(told, result.State.Control) || len(told) != 1 || told[0].Controller != "non_finite" || told[0].Action != "skip" || !strings.Contains(told[0].Reason, "1 updates skipped so far") {
		t.Errorf("events %+v, told %+v", result.State.Control, told)
	}
	for _, w := range weights(t, c.classifier) {
		if math.IsNaN(float64(w)) {
			t.Fatal("weights are not finite")
		}
	}
}

// drift is a task whose gradient at an example is the example, plus 1.
type drift struct{ store *model.Store }

func (d drift) Store() *model.Store { return d.store }

func (drift) Variables() []elastic.Variable { return []elastic.Variable{{Path: "/w", Shape: []int{4}}} }

func (drift) Loss(w elastic.Weights, inputs, _ []*graph.Node, _ *dropout.Source) (sum, count *graph.Node) {
	x := graph.AddScalar(inputs[0], 1)
	return graph.ReduceAllSum(graph.Mul(x, graph.BroadcastToShape(graph.ExpandLeftToRank(w.At("w"), 2), x.Shape()))), graph.Scalar(x.Graph(), x.DType(), float64(x.Shape().Dimensions[0]))
}

// TestNoiseScaleOfARun: the events say the noise scale that follows from the gradients of micro-batches and updates,
// here means of examples, and change nothing.
func TestNoiseScaleOfARun(t *testing.T) {
	data := uneven{{4, 12, 8}, {2, 30}}
	fresh := func() drift {
		store, err := elastic.NewStore(drift{}.Variables(), 1)
		if err != nil {
			t.Fatal(err)
		}
		return drift{store}
	}
	cfg := train.Config{Accumulate: 3, ClipNorm: 0.1, Schedule: schedule.Config{Kind: "constant", Peak: 0.01}, Control: []control.Config{{Noise: &control.Noise{Every: 2, Decay: 0.5}}}}
	trainer, err := train.New(gxtest.Backend(t), fresh(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	result, err := trainer.Run(t.Context(), data.flat(), train.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	var noise control.NoiseScale
	mean := func(batches []mltrain.Batch) (square float64, examples int) {
		var sum [4]float64
		for _, b := range batches {
			for i, x := range tensors.MustCopyFlatData[float32](b.Inputs[0]) {
				sum[i%4] += float64(x) + 1
			}
			examples += b.Inputs[0].Shape().Dimensions[0]
		}
		for _, x := range sum {
			square += x * x / float64(examples*examples)
		}
		return square, examples
	}
	var all []mltrain.Batch
	for b, err := range data.flat().Batches(0, 0) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	for _, update := range [][]mltrain.Batch{all[:3], all[3:]} {
		squares, inverses := 0.0, 0.0
		for _, b := range update {
			square, examples := mean([]mltrain.Batch{b})
			squares, inverses = squares+square/float64(len(update)), inverses+1/float64(examples)/float64(len(update))
		}
		square, examples := mean(update)
		if noise, err = noise.Observe(control.SquaredNorm{Value: squares, Examples: int(math.Round(1 / inverses))}, control.SquaredNorm{Value: square, Examples: examples}, 0.5); err != nil {
			t.Fatal(err)
		}
	}
	want := fmt.Sprintf("gradient noise scale is about %.3g targets; an update has 32", noise.Examples())
	if events := result.State.Control; len(events) != 1 || events[0].Reason != want || events[0].Factor != 1 || events[0].Update != 2 {
		t.Errorf("events %+v, want %q", events, want)
	}
	cfg.Accumulate = 1
	if _, err := train.New(gxtest.Backend(t), fresh(), cfg); err == nil || !strings.Contains(err.Error(), "want accumulate of 2 or more") {
		t.Errorf("without micro-batches: %v", err)
	}
}

// TestControllersChangeTheRate that is used and logged, end runs, and compile nothing.
func TestControllersChangeTheRate(t *testing.T) {
	cfg := config()
	cfg.Epochs, cfg.LogEvery, cfg.Schedule.Kind, cfg.Schedule.Warmup = 8, 1, "constant", 0
	cfg.Control = []control.Config{
		{Plateau: &control.Plateau{Progress: control.Progress{Patience: 0}, Factor: 0.5}},
		{Stop: &control.Stop{Progress: control.Progress{Patience: 4}}},
	}
	result, err := newTrainer(t, newClassifier(t), cfg).Run(t.Context(), rows{batches: 2, size: 8}, train.Hooks{
		Evaluate: func(context.Context, int) (float64, error) { return 0.5, nil }, // never improves
	})
	if err != nil {
		t.Fatal(err)
	}
	if result.Compilations != 1 || !result.Stopped || result.State.Ended == "" {
		t.Errorf("%d compilations, stopped %v: %q", result.Compilations, result.Stopped, result.State.Ended)
	}
	history := result.State.History
	if first, last := history[0].Rate, history[len(history)-1].Rate; first != cfg.Schedule.Peak || last != first/16 {
		t.Errorf("rates from %g to %g, want a sixteenth after four evaluations without improvement", first, last)
	}
}
