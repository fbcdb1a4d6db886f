package attention_test

import (
	"slices"
	"testing"
	"time"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
)

// BenchmarkRatios times attention with its gradient, one text and heads of 64, in turn with another
// that it is held against, and prints the median of the ratios. Goals: entmax at most 5 times softmax,
// a frozen span of 256 at least 1.8 times faster than one that is not frozen, a window's time at most
// 2.2 times for twice the length, blockwise no slower than the matrix.
func BenchmarkRatios(b *testing.B) {
	heads, scale := 8, 1
	if gxtest.Backend(b).String() == "go" {
		heads, scale = 1, 8 // its matrices take seconds
	}
	causal := attention.Causal{}
	naive := attention.Execution{Kind: attention.Naive}
	span := attention.Span{Max: 1024 / scale, Init: 0.1}
	frozen := span.Freeze(span.Init)
	frozen.Limit = max(frozen.Limit, 256/scale)
	window := attention.Window{Size: 256 / scale}
	type side struct {
		spec   attention.Spec
		length int
	}
	for _, c := range []struct {
		name      string
		one, base side
	}{
		{"entmax_to_softmax", side{attention.Spec{Heads: heads, Normalizer: attention.Entmax{}, Execution: naive}, 512 / scale}, side{attention.Spec{Heads: heads, Execution: naive}, 512 / scale}},
		{"learned_entmax_to_softmax", side{attention.Spec{Heads: heads, Normalizer: attention.Entmax{Learned: true}, Execution: naive}, 512 / scale}, side{attention.Spec{Heads: heads, Execution: naive}, 512 / scale}},
		{"span_to_frozen", side{attention.Spec{Heads: heads, Mask: causal, Span: &span}, 2048 / scale}, side{attention.Spec{Heads: heads, Mask: causal, Span: &frozen}, 2048 / scale}},
		{"window_at_twice_the_length", side{attention.Spec{Heads: 1, Mask: window}, 16384 / scale}, side{attention.Spec{Heads: 1, Mask: window}, 8192 / scale}},
		{"blockwise_to_matrix", side{attention.Spec{Heads: 1, Mask: causal, Execution: attention.Execution{Kind: attention.Blockwise}}, 4096 / scale}, side{attention.Spec{Heads: 1, Mask: causal, Execution: naive}, 4096 / scale}},
	} {
		b.Run(c.name, func(b *testing.B) {
			one, base := timed(b, c.one.spec, c.one.length), timed(b, c.base.spec, c.base.length)
			var ratios []float64
			for b.Loop() {
				ratios = append(ratios, one().Seconds()/base().Seconds())
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "ratio")
		})
	}
}

// timed returns a function that computes the gradient of a spec's output once.
func timed(b *testing.B, s attention.Spec, length int) func() time.Duration {
	store, err := elastic.NewStore(elastic.Under("", s.Variables(64*s.Heads, 0.02)), 1)
	if err != nil {
		b.Fatal(err)
	}
	exec, err := model.NewExec(gxtest.Backend(b), store, func(scope *model.Scope, in []*Node) []*Node {
		w := elastic.WeightsOf(scope.Store(), in[0].Graph())
		y := attention.Attend(s, w, in[0], in[1], in[2], attention.Inputs{}).Output
		return Gradient(ReduceAllSum(y), in...)
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { exec.Finalize() })
	x := tensors.FromFlatDataAndDimensions(ramp(length*s.Heads*64), 1, length, s.Heads, 64)
	once := func() time.Duration {
		begin := time.Now()
		results, err := exec.Call(x, x, x)
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range results {
			tensors.MustCopyFlatData[float32](r) // until it is there
		}
		return time.Since(begin)
	}
	once() // compiles
	return once
}
