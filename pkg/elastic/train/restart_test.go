package train_test

import (
	"context"
	"slices"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/pkg/elastic/train"
)

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
		flat := value(t, from, v.Path)
		if err := c.Store().GetVariable(v.Path).SetValue(tensors.FromFlatDataAndDimensions(flat, v.Shape...)); err != nil {
			t.Fatal(err)
		}
	}
}
