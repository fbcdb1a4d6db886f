package run_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/elastic-attention/workbench/pkg/data/tokenizer"
	"github.com/elastic-attention/workbench/pkg/run"
)

// TestSoftTargetsStandAtTheirTokens: what a teacher says of a token, here its id and the negative of it, comes with that token
// in every batch that packs it; and what it says of a text comes with the text.
func TestSoftTargetsStandAtTheirTokens(t *testing.T) {
	tok, err := tokenizer.Parse("made", synth.Tokenizer())
	if err != nil {
		t.Fatal(err)
	}
	pupil := run.Pupil{Labels: []string{"a", "b"}, Tokenizer: tok, MaxLength: 8}
	var examples []batch.Example
	for i := range 21 {
		e := batch.Example{}
		for j := range 1 + i%5 {
			id := int32(10*(i+1) + j)
			e.IDs, e.TypeIDs, e.Labels = append(e.IDs, id), append(e.TypeIDs, 0), append(e.Labels, 1)
		}
		examples = append(examples, e)
	}
	teach := func(ctx context.Context, d run.Distill, tokens bool) (*run.Soft, error) {
		return d.Teach(ctx, pupil, examples, func(string) (run.Pupil, func(context.Context, batch.Batch) ([]float32, error), error) {
			return pupil, func(_ context.Context, b batch.Batch) (flat []float32, _ error) {
				for i, id := range b.IDs {
					if tokens || i%b.Length == 0 {
						flat = append(flat, float32(id), -float32(id))
					}
				}
				return flat, nil
			}, nil
		})
	}
	d := run.Distill{Teacher: t.TempDir()}
	byToken, err := teach(t.Context(), d, true)
	if err != nil {
		t.Fatal(err)
	}
	byText, err := teach(t.Context(), d, false)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := batch.Pack("train", examples, batch.PackConfig{Size: 4, Length: 8, Epochs: 2, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	for epoch := range 2 {
		for b := range packed.EpochFrom(epoch, 0) {
			tokens, texts := byToken.Tokens(b).Inputs[4], byText.Texts(b).Inputs[6]
			soft := tensors.MustCopyFlatData[float32](tokens)
			for i, id := range b.IDs {
				if b.Documents[i] == 0 {
					id = 0
				}
				if soft[2*i] != float32(id) || soft[2*i+1] != -float32(id) {
					t.Fatalf("token %d has logits %v", id, soft[2*i:2*i+2])
				}
			}
			soft = tensors.MustCopyFlatData[float32](texts)
			for i, start := range b.Starts {
				id := b.IDs[start]
				if b.Lengths[i] == 0 {
					id = 0
				}
				if soft[2*i] != float32(id) {
					t.Fatalf("text that begins with %d has logits %v", id, soft[2*i:2*i+2])
				}
			}
		}
	}
	none, err := teach(t.Context(), run.Distill{}, true)
	if err != nil || none != nil {
		t.Errorf("no teacher: %v, %v", none, err)
	}
	for b := range packed.EpochFrom(0, 0) {
		if len(none.Tokens(b).Inputs) != 4 || len(none.Texts(b).Inputs) != 6 {
			t.Fatal("inputs without a teacher")
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("Ctrl-C"))
	_, err = teach(ctx, d, true)
	wants(t, "cancelled", err, "Ctrl-C")
}

func ExampleDistill() {
	fmt.Println(run.Distill{Teacher: "runs/large", Temperature: 3}.Validate())
	fmt.Println(run.Distill{Alpha: 1.5}.Validate())
	// Output:
	// <nil>
	// distill has a temperature, an alpha or a weighing, but no teacher
	// distill.alpha is 1.5, want 0 < α ≤ 1, or 0 for 0.5
}
