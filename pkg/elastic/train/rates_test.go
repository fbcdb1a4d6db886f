package train_test

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
)

// values are a variable's.
func values(t *testing.T, c classifier, path string) []float32 {
	t.Helper()
	v, err := c.Store().GetVariable(path).Value()
	if err != nil {
		t.Fatal(err)
	}
	return tensors.MustCopyFlatData[float32](v)
}

// TestRates: the first update of AdamW moves a weight by rate and decay times what the gradient and
// the weight say, so a tenth of the rate is a tenth of the way, and 0 is none, without slots.
func TestRates(t *testing.T) {
	paths := []string{"/inner/weights", "/outer/weights", "/outer/bias", "/norm/scale"}
	moved := func(rates map[string]float64) map[string][]float64 {
		c := newClassifier(t)
		one := config()
		one.MaxUpdates, one.Rates = 1, rates
		before := map[string][]float32{}
		for _, path := range paths {
			before[path] = values(t, c, path)
		}
		if _, err := newTrainer(t, c, one).Run(context.Background(), rows{2, 16}, train.Hooks{}); err != nil {
			t.Fatal(err)
		}
		if frozen := rates["/norm/*"] == 0 && rates != nil; frozen != (c.Store().GetVariable("/optimizer/m/norm/scale") == nil) {
			t.Errorf("rates %v: frozen is %v, but there are slots or none", rates, frozen)
		}
		out := map[string][]float64{}
		for _, path := range paths {
			for i, value := range values(t, c, path) {
				out[path] = append(out[path], float64(value-before[path][i]))
			}
		}
		return out
	}
	// Clipping sees all gradients that there are, and Adam's first step hardly depends on their size.
	plain, scaled := moved(nil), moved(map[string]float64{"/outer/*": 0.1, "/*/bias": 10, "/norm/*": 0})
	for path, factor := range map[string]float64{"/inner/weights": 1, "/outer/weights": 0.1, "/outer/bias": 1, "/norm/scale": 0} {
		for i, move := range scaled[path] {
			if want := factor * plain[path][i]; math.Abs(move-want) > 2e-5 {
				t.Errorf("%s moves by %g, want %g·%g", path, move, factor, plain[path][i])
				break
			}
		}
		if slices.Max(plain[path]) < 1e-3 {
			t.Errorf("%s does not move without rates", path)
		}
	}
}

func TestBadRates(t *testing.T) {
	for want, rates := range map[string]map[string]float64{
		`"/nothing/*" matches no variable`: {"/nothing/*": 2},
		`factor of "/inner/*" is -1`:       {"/inner/*": -1},
		`pattern "["`:                      {"[": 1},
		"nothing to train":                 {"/*/*": 0},
	} {
		bad := config()
		bad.Rates = rates
		if _, err := train.New(gxtest.Backend(t), newClassifier(t), bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error is %v, want %s", rates, err, want)
		}
	}
}

// TestRestartIsANewRun: a second run with the weights of the beginning put back and another seed
// equals one of a new trainer with that seed, to the last bit, and compiles nothing.
func TestRestartIsANewRun(t *testing.T) {
	c := newClassifier(t)
	trainer := newTrainer(t, c, config())
	first, err := trainer.Run(context.Background(), rows{4, 16}, train.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	fresh := newClassifier(t)
	put(t, c, fresh)
	if err := trainer.Restart(99); err != nil {
		t.Fatal(err)
	}
	second, err := trainer.Run(context.Background(), rows{4, 16}, train.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	other := config()
	other.Seed = 99
	want, err := newTrainer(t, fresh, other).Run(context.Background(), rows{4, 16}, train.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(weights(t, c), weights(t, fresh)) {
		t.Error("a run after Restart ends with other weights than that of a new trainer")
	}
	if second.Compilations != first.Compilations || second.State.Update != want.State.Update || second.State.Seed != 99 {
		t.Errorf("restarted: %d compilations after %d, state %+v", second.Compilations, first.Compilations, second.State)
	}
}

// put gives c the weights of another classifier.
func put(t *testing.T, c, from classifier) {
	t.Helper()
	for _, v := range c.Variables() {
		value := values(t, from, v.Path)
		if err := c.Store().GetVariable(v.Path).SetValue(tensors.FromFlatDataAndDimensions(value, v.Shape...)); err != nil {
			t.Fatal(err)
		}
	}
}
