package train_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
)

// one returns the values of one variable.
func one(t *testing.T, c classifier, path string) []float32 {
	t.Helper()
	return tensors.MustCopyFlatData[float32](c.store.GetVariable(path).MustValue())
}

// innerLater lets the inner layer train after three updates, and the norm after an epoch of four.
var innerLater = train.Unfreeze{Stages: []train.Stage{
	{Variables: []string{"/inner/*"}, AfterUpdates: 3},
	{Variables: []string{"/norm/*", "/inner/bias"}, AfterEpochs: 1},
}}

// TestFrozenStaysToTheLastBit: with each rule, with its decay, momentum and averages, clipped or not, what is
// frozen is not changed by one bit, the optimizer's slots for it neither, and it learns from its update on.
func TestFrozenStaysToTheLastBit(t *testing.T) {
	for i, rule := range rules {
		t.Run(fmt.Sprintf("%d-%s", i, rule.Kind()), func(t *testing.T) {
			cfg := config()
			cfg.Epochs, cfg.Accumulate, cfg.Schedule = 2, 1+i%2, schedule.Config{Kind: "constant", Peak: 0.02}
			cfg.Optimizer, cfg.Unfreeze = optim.Config{Rule: rule}, innerLater
			c := newClassifier(t)
			start := map[string][]float32{}
			for _, v := range c.Variables() {
				start[v.Path] = one(t, c, v.Path)
			}
			trainer := newTrainer(t, c, cfg)
			slots := map[string][]float32{}
			read := func() {
				for v := range c.store.IterVariables() {
					if strings.HasPrefix(v.Path(), train.SlotsScope+"/") && !strings.Contains(v.Path(), "/gradient/") && !strings.Contains(v.Path(), "/trained/") {
						slots[v.Path()] = tensors.MustCopyFlatData[float32](v.MustValue())
					}
				}
			}
			if _, err := trainer.Run(t.Context(), rows{batches: 4 * cfg.Accumulate, size: 8}, train.Hooks{Step: func(s train.Step) {
				if s.Update == 1 { // slots that begin as copies have their values then
					read()
				}
				opens := map[string]int{"/inner/weights": 3, "/inner/bias": 3, "/norm/scale": 4, "/norm/bias": 4}
				for path, after := range opens {
					same := slices.Equal(one(t, c, path), start[path])
					if s.Update <= after && !same {
						t.Fatalf("update %d: %s changed", s.Update, path)
					}
					if s.Update == after+2 && same && rule.Kind() != "dadapt_sgd" && !strings.Contains(fmt.Sprintf("%T%v", rule, rule), "Lookahead") {
						t.Errorf("update %d: %s did not change", s.Update, path)
					}
					for name, before := range slots {
						if s.Update <= after && strings.HasSuffix(name, path) && !slices.Equal(tensors.MustCopyFlatData[float32](c.store.GetVariable(name).MustValue()), before) {
							t.Errorf("update %d: slot %s changed", s.Update, name)
						}
					}
				}
				if s.Update == 2 && slices.Equal(one(t, c, "/outer/weights"), start["/outer/weights"]) && rule.Kind() != "dadapt_sgd" {
					t.Error("what is not frozen did not change")
				}
			}}); err != nil {
				t.Fatal(err)
			}
			for _, v := range c.Variables() {
				for _, w := range one(t, c, v.Path) {
					if math.IsNaN(float64(w)) {
						t.Fatalf("%s is not a number", v.Path)
					}
				}
			}
		})
	}
}

// TestUnfrozenBeginsAnew: Adam's first update of a variable that was frozen is as large as that of a fresh
// run, the rate, and not three times as large, as it would be if the updates before were counted.
func TestUnfrozenBeginsAnew(t *testing.T) {
	cfg := config()
	cfg.ClipNorm, cfg.Epochs, cfg.Schedule = 0, 4, schedule.Config{Kind: "constant", Peak: 0.01}
	cfg.Optimizer.Rule, cfg.Unfreeze = optim.AdamW{}, train.Unfreeze{Stages: []train.Stage{{Variables: []string{"/inner/*"}, AfterUpdates: 9}}}
	c := newClassifier(t)
	start := one(t, c, "/inner/weights")
	if _, err := newTrainer(t, c, cfg).Run(t.Context(), rows{batches: 4, size: 8}, train.Hooks{Step: func(s train.Step) {
		if s.Update != 10 {
			return
		}
		for i, w := range one(t, c, "/inner/weights") {
			if moved := math.Abs(float64(w - start[i])); moved > 0.0101 || moved < 0.0099 {
				t.Errorf("weight %d moved by %g, want 0.01", i, moved)
			}
		}
	}}); err != nil {
		t.Fatal(err)
	}
}

// TestFrozenIsOutOfTheNorm: until the others train, a run equals one in which they are frozen for good,
// clipping by the norm included.
func TestFrozenIsOutOfTheNorm(t *testing.T) {
	cfg := config()
	cfg.Epochs, cfg.MaxUpdates, cfg.ClipNorm = 2, 6, 0.01
	later, never := newClassifier(t), newClassifier(t)
	cfg.Unfreeze = train.Unfreeze{Stages: []train.Stage{{Variables: []string{"/inner/*", "/norm/*"}, AfterUpdates: 6}}}
	result, err := newTrainer(t, later, cfg).Run(t.Context(), rows{batches: 4, size: 8}, train.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Unfreeze, cfg.Adapt = train.Unfreeze{}, adapt.Strategy{Gradient: []adapt.Rate{{Variables: []string{"/inner/*", "/norm/*"}}}}
	want, err := newTrainer(t, never, cfg).Run(t.Context(), rows{batches: 4, size: 8}, train.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	want32 := weights(t, never)
	for i, w := range weights(t, later) { // XLA rounds the two graphs differently
		if math.Abs(float64(w-want32[i])) > 1e-6 {
			t.Errorf("weight %d is %g, want %g", i, w, want32[i])
		}
	}
	for i, p := range result.State.History {
		if got, want := p.GradientNorm, want.State.History[i].GradientNorm; math.Abs(got/want-1) > 1e-6 {
			t.Errorf("update %d: norm %g, want %g", p.Update, got, want)
		}
	}
	if events := result.State.Control; len(events) != 2 || events[0].Action != "keep frozen" || !strings.Contains(events[0].Reason, "4 variables of 56 numbers (/inner/weights, …) would train after 6 updates, the run has 6") {
		t.Errorf("events %+v", events)
	}
}

// TestUnfreezeResumesExactly interrupts a run after every update in turn.
func TestUnfreezeResumesExactly(t *testing.T) {
	data := rows{batches: 4, size: 8}
	for _, rule := range []optim.Rule{optim.AdamW{WeightDecay: 0.1}, optim.Chain{optim.SAM{}, optim.Prodigy{D0: 0.01}, optim.EMA{Beta: 0.9}}} {
		cfg := config()
		cfg.Epochs, cfg.Optimizer.Rule, cfg.Unfreeze, cfg.Accumulate = 2, rule, innerLater, 2
		if rule.Kind() == "adamw" {
			cfg.Accumulate = 1
		}
		whole := newClassifier(t)
		want, err := newTrainer(t, whole, cfg).Run(t.Context(), data, train.Hooks{})
		if err != nil {
			t.Fatal(err)
		}
		for stop := 1; stop < want.State.Update; stop++ {
			first, dir := newClassifier(t), t.TempDir()
			trainer := newTrainer(t, first, cfg)
			ctx, cancel := context.WithCancel(t.Context())
			_, err := trainer.Run(ctx, data, train.Hooks{
				Step: func(s train.Step) {
					if s.Update == stop {
						cancel()
					}
				},
				Save: func(train.State, bool) error { return save(dir, first, trainer) },
			})
			cancel()
			if err == nil {
				t.Fatal("the run was not interrupted")
			}
			second := load(t, dir)
			resumed := newTrainer(t, second, cfg)
			if err := resumed.Restore(dir); err != nil {
				t.Fatal(err)
			}
			got, err := resumed.Run(t.Context(), data, train.Hooks{})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(weights(t, whole), weights(t, second)) {
				t.Errorf("%s, interrupted after update %d: weights differ", rule.Kind(), stop)
			}
			if fmt.Sprint(got.State.Control) != fmt.Sprint(want.State.Control) {
				t.Errorf("events %v, want %v", got.State.Control, want.State.Control)
			}
		}
	}
}

// stack has variables in layers, as a transformer has.
type stack struct{ classifier }

func (stack) Variables() []elastic.Variable {
	return slices.Concat(
		elastic.Under("/embeddings", elastic.DenseVariables(4, 4, 0.5)), elastic.Under("/layer_0/dense", elastic.DenseVariables(4, 4, 0.5)),
		elastic.Under("/layer_1/dense", elastic.DenseVariables(4, 4, 0.5)), elastic.Under("/head", elastic.DenseVariables(4, 3, 0.5)))
}

func (stack) Watched() []string { return nil }

func (stack) Loss(w elastic.Weights, inputs, labels []*graph.Node, _ *dropout.Source) (sum, count *graph.Node) {
	x := inputs[0]
	for _, name := range []string{"embeddings", "layer_0", "layer_1"} {
		if in := w.In(name); name != "embeddings" {
			x = graph.Tanh(elastic.Dense(in.In("dense"), x))
		} else {
			x = elastic.Dense(in, x)
		}
	}
	return loss.CrossEntropy(elastic.Dense(w.In("head"), x), labels[0])
}

// TestGradual: layers begin to train from the top, one after each epoch, with one compilation; each is an event.
func TestGradual(t *testing.T) {
	store, err := elastic.NewStore(stack{}.Variables(), 1)
	if err != nil {
		t.Fatal(err)
	}
	s := stack{classifier{store}}
	cfg := config()
	cfg.Epochs, cfg.Unfreeze = 4, train.Unfreeze{EveryEpochs: 1}
	trainer, err := train.New(gxtest.Backend(t), s, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if table := trainer.Explain(); !strings.Contains(table, "unfrozen after 1 epochs and 0 updates: 2 variables of 20 numbers (/layer_1/dense/weights, …)\nunfrozen after 2 epochs") {
		t.Errorf("table:\n%s", table)
	}
	order := []string{"/head/weights", "/layer_1/dense/weights", "/layer_0/dense/weights", "/embeddings/weights"}
	start := map[string][]float32{}
	for _, path := range order {
		start[path] = one(t, s.classifier, path)
	}
	result, err := trainer.Run(t.Context(), rows{batches: 2, size: 8}, train.Hooks{Evaluate: func(_ context.Context, epoch int) (float64, error) {
		for i, path := range order {
			if changed := !slices.Equal(one(t, s.classifier, path), start[path]); changed != (i < epoch) {
				t.Errorf("after epoch %d: %s changed is %v", epoch, path, changed)
			}
		}
		return 0, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	var updates []int
	for _, e := range result.State.Control {
		if e.Controller == "unfreeze" && e.Action == "unfreeze" {
			updates = append(updates, e.Update)
		}
	}
	if result.Compilations != 1 || !slices.Equal(updates, []int{2, 4, 6}) {
		t.Errorf("%d compilations, stages after updates %v", result.Compilations, updates)
	}
}

func TestUnfreezeRefuses(t *testing.T) {
	for _, test := range []struct {
		json string
		want []string
	}{
		{`{"stages": [{"variables": ["/inner/*"], "after_epochs": 1}, {"variables": ["/outr/*"], "after_epochs": 1}]}`, []string{"unfreeze.stages[1].variables", "/outr/*"}},
		{`{"stages": [{"variables": ["/inner/*"], "after_epochs": 1}, {"variables": ["/inner/bias"], "after_epochs": 2}]}`, []string{"unfreeze.stages[1]", "in stages before it"}},
		{`{"stages": [{"variables": []}]}`, []string{"stages[0].variables is empty", "not both 0"}},
		{`{"every_epochs": 1, "every_updates": -2}`, []string{"more than one of", "every_updates -2"}},
		{`{"every_epochs": 1}`, []string{"no variable that is trained lies in a layer"}},
	} {
		cfg := config()
		if err := json.Unmarshal([]byte(test.json), &cfg.Unfreeze); err != nil {
			t.Fatal(err)
		}
		_, err := train.New(gxtest.Backend(t), newClassifier(t), cfg)
		for _, want := range test.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error is %v, want %q in it", test.json, err, want)
			}
		}
	}
}

func ExampleUnfreeze() {
	var recipe train.Config
	err := json.Unmarshal([]byte(`{
		"epochs": 5, "schedule": {"peak": 1e-4},
		"unfreeze": {"stages": [{"variables": ["/layer_*"], "after_epochs": 1}, {"variables": ["/embeddings/*"], "after_epochs": 3}]}
	}`), &recipe)
	fmt.Println(err, recipe.Validate(), len(recipe.Unfreeze.Stages))
	recipe.Unfreeze.EveryEpochs = 1
	fmt.Println(recipe.Validate())
	// Output:
	// <nil> <nil> 2
	// unfreeze has more than one of every_epochs, every_updates and stages, want one
}
