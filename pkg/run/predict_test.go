package run_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/run"
)

// sums is a model of one label a text: the sum of its tokens.
func sums(t *testing.T) *run.Forward {
	forward, err := run.NewForward(gxtest.Backend(t), model.NewStore(), func(_ elastic.Weights, in transformer.Inputs) *graph.Node {
		return graph.ReduceSum(graph.ConvertDType(graph.Mul(in.IDs, in.Mask), dtypes.Float32), 1)
	})
	if err != nil {
		t.Fatal(err)
	}
	return forward
}

var examples = []batch.Example{{IDs: []int32{1, 2, 3, 4, 5}}, {IDs: []int32{7}}, {IDs: []int32{8, 9, 10}}, {IDs: []int32{20, 1}}, {IDs: []int32{1, 1, 1}}}

// TestPredict: of whatever length an example is, and whatever stands beside it, it gets its own logits; each shape is compiled once.
func TestPredict(t *testing.T) {
	forward := sums(t)
	defer forward.Finalize()
	config := batch.Config{Size: 2, Lengths: []int{4, 8}, PadID: 99}
	predict := func(examples []batch.Example) (got []float32, sizes []int) {
		got = make([]float32, len(examples))
		last := 0
		err := run.Predict(t.Context(), examples, config, forward.Logits, func(b batch.Batch, logits []float32) {
			for row, index := range b.Index {
				got[index] = logits[row]
			}
			sizes = append(sizes, len(logits))
		}, func(done, total int) {
			if done != last+1 || total != (len(examples)+1)/2 {
				t.Errorf("progress is %d of %d, want %d of %d", done, total, last+1, (len(examples)+1)/2)
			}
			last = done
		})
		if err != nil {
			t.Fatal(err)
		}
		return got, sizes
	}
	for range 2 {
		if got, _ := predict(examples); !slices.Equal(got, []float32{15, 7, 27, 21, 3}) {
			t.Errorf("logits %v", got)
		}
	}
	if got := forward.Compilations(); got != 2 {
		t.Errorf("%d shapes are compiled, want 2", got)
	}
	if got, sizes := predict(examples[1:2]); got[0] != 7 || !slices.Equal(sizes, []int{1}) {
		t.Errorf("of one example: logits %v in batches of %v, want one of 1", got, sizes)
	}
	if got, sizes := predict(nil); len(got)+len(sizes) > 0 {
		t.Errorf("of nothing: logits %v in batches of %v", got, sizes)
	}
	if none := (*run.Forward)(nil); none.Compilations() != 0 {
		t.Error("nothing has compiled something")
	}
}

func TestPredictRefuses(t *testing.T) {
	stopped, stop := context.WithCancelCause(t.Context())
	stop(errors.New("enough"))
	constant := func(v float64, err error) run.Logits {
		return func(_ context.Context, b batch.Batch) ([]float32, error) {
			return slices.Repeat([]float32{float32(v)}, b.Size), err
		}
	}
	for _, test := range []struct {
		ctx    context.Context
		logits run.Logits
		want   string
	}{
		{stopped, constant(0, nil), "prediction stopped after 0 of 1 batches: enough"},
		{t.Context(), constant(0, errors.New("no memory")), "predicting a batch of 8×8 tokens: no memory"},
		{t.Context(), constant(math.NaN(), nil), "the model computes NaN"},
		{t.Context(), constant(math.Inf(1), nil), "the model computes +Inf"},
	} {
		wants(t, test.want, run.Predict(test.ctx, examples, batch.Config{Size: 8, Lengths: []int{8}}, test.logits, func(batch.Batch, []float32) {
			t.Errorf("%s: logits are taken", test.want)
		}, nil), test.want)
	}
	wants(t, "without a backend", run.CheckBackend(nil), "backend is nil: open one")
	if err := run.CheckBackend(gxtest.Backend(t)); err != nil {
		t.Error(err)
	}
}

func ExamplePredict() {
	double := func(_ context.Context, b batch.Batch) ([]float32, error) { // in place of a model's
		out := make([]float32, b.Size)
		for row := range out {
			out[row] = 2 * float32(b.IDs[row*b.Length])
		}
		return out, nil
	}
	found := make([]float32, 3)
	err := run.Predict(context.Background(), []batch.Example{{IDs: []int32{5, 6, 7}}, {IDs: []int32{1}}, {IDs: []int32{2, 3}}},
		batch.Config{Size: 2, Lengths: []int{4}}, double, func(b batch.Batch, logits []float32) {
			for row, index := range b.Index {
				found[index] = logits[row]
			}
		}, nil)
	fmt.Println(found, err)
	// Output: [10 2 4] <nil>
}
