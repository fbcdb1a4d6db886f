package transformer_test

import (
	"context"
	"fmt"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// Three layers give a token 0.3, 0.5 and what is left of its weight; a second token halts
// after the first.
func ExampleHalt() {
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	out, err := graph.CallOnceN(engine, func(p, x *graph.Node) []*graph.Node {
		var logits, states []*graph.Node
		for n := range 3 {
			p := graph.Squeeze(graph.Slice(p, graph.AxisElem(n)), 0) // [batch, length]
			logits = append(logits, graph.Log(graph.Div(p, graph.OneMinus(p))))
			states = append(states, graph.Squeeze(graph.Slice(x, graph.AxisElem(n)), 0)) // [batch, length, hidden]
		}
		h := transformer.Halt(logits, states, 0.01)
		return []*graph.Node{h.Mixture, h.Steps, h.Ponder}
	}, [][][]float32{{{0.3, 0.995}}, {{0.5, 0.5}}, {{0.9, 0.5}}}, [][][][]float32{{{{10}, {10}}}, {{{100}, {100}}}, {{{1000}, {1000}}}})
	if err != nil {
		panic(err)
	}
	fmt.Printf("mixtures %.0f, layers %v, ponder cost %.1f\n", out[0].Value(), out[1].Value(), out[2].Value())
	// Output: mixtures [[[253] [10]]], layers [[3 1]], ponder cost [[3.2 2.0]]
}

func ExampleRunner() {
	config := transformer.Config{
		VocabSize: 100, Hidden: 32, Layers: 4, FeedForward: 64, Attention: attention.Spec{Heads: 4}, MaxPositions: 64,
		TypeVocab: 2, Activation: "gelu", NormEpsilon: 1e-12, InitStd: 0.02,
		Head:  transformer.Head{Kind: transformer.Tokens, Labels: []string{"O", "B-PER", "I-PER"}},
		Depth: &transformer.Depth{Kind: transformer.EarlyExit, Rule: transformer.Confidence},
	}
	m, err := transformer.New(config, 42)
	if err != nil {
		panic(err)
	}
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	runner, err := transformer.NewRunner(engine, m)
	if err != nil {
		panic(err)
	}
	defer runner.Finalize()
	ids, types := tensors.FromValue([][]int32{{2, 17, 4, 3}}), tensors.FromValue([][]int32{{0, 0, 0, 0}})
	mask, counts := tensors.FromValue([][]int32{{1, 1, 1, 1}}), tensors.FromValue([][]bool{{false, true, true, false}})
	for _, threshold := range []float64{0.3, 0.99, 0} {
		if err := runner.SetThreshold(threshold); err != nil {
			panic(err)
		}
		logits, layers, err := runner.Logits(ids, types, mask, counts)
		if err != nil {
			panic(err)
		}
		fmt.Println("threshold", threshold, "layers", layers, "logits", logits.Shape())
	}
	// Output:
	// threshold 0.3 layers 1 logits (Float32)[1, 4, 3]
	// threshold 0.99 layers 4 logits (Float32)[1, 4, 3]
	// threshold 0 layers 4 logits (Float32)[1, 4, 3]
}

func ExampleExperts() {
	config := transformer.Config{
		VocabSize: 100, Hidden: 32, Layers: 1, FeedForward: 64, Attention: attention.Spec{Heads: 4}, MaxPositions: 64,
		Activation: "gelu", NormEpsilon: 1e-12, InitStd: 0.02,
		Experts: &transformer.Experts{Count: 4, Balance: 0.01},
	}
	m, err := transformer.New(config, 42)
	if err != nil {
		panic(err)
	}
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	out, err := model.CallOnceN(engine, m.Store, func(scope *model.Scope, ids *graph.Node) (hidden, balance *graph.Node) {
		out := m.Config.Encode(elastic.WeightsOf(scope.Store(), ids.Graph()), transformer.Inputs{IDs: ids}, nil)
		return out.Hidden, out.Losses[0][transformer.ExpertBalance]
	}, [][]int32{{2, 17, 4, 3}})
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s, imbalance %.2f\n", out[0].Shape(), out[1].Value())
	// Output: (Float32)[1, 4, 32], imbalance 1.02
}

// A decoder-only model reads three tokens at once and then foretells one at a time.
func ExampleConfig_Step() {
	config := transformer.Config{
		VocabSize: 100, Hidden: 32, Layers: 2, FeedForward: 64, Attention: attention.Spec{Heads: 4, Mask: attention.Causal{}}, MaxPositions: 64,
		NormOrder: transformer.PreNorm, PadID: -1, Activation: "gelu_tanh", NormEpsilon: 1e-5, InitStd: 0.3, Head: transformer.Head{Kind: transformer.LM},
	}
	m, err := transformer.New(config, 42)
	if err != nil {
		panic(err)
	}
	slots, err := config.Slots(10, 3)
	if err != nil {
		panic(err)
	}
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	step, err := model.NewExec(engine, m.Store, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		g := in[0].Graph()
		w := elastic.WeightsOf(scope.Store(), g)
		caches := config.NewCaches(g, w.In("embeddings").At("word").DType(), 1, slots)
		if len(in) > 2 {
			for i := range caches {
				caches[i] = attention.Cache{Keys: in[2+3*i], Values: in[3+3*i], Positions: in[4+3*i]}
			}
		}
		hidden, caches := config.Step(w, in[0], in[1], caches, transformer.Memory{})
		logits := config.HeadLogits(w, hidden, nil)
		out := []*graph.Node{graph.ArgMax(graph.Squeeze(graph.Slice(logits, graph.AxisRange(), graph.AxisElem(-1)), 1), -1)}
		for _, cache := range caches {
			out = append(out, cache.Keys, cache.Values, cache.Positions)
		}
		return out
	})
	if err != nil {
		panic(err)
	}
	defer step.Finalize()
	text := []int32{5, 9, 7}
	args := []any{[][]int32{text}, int32(0)}
	for range 3 {
		out, err := step.Call(args...)
		if err != nil {
			panic(err)
		}
		next := tensors.MustCopyFlatData[int32](out[0])[0]
		args = []any{[][]int32{{next}}, int32(len(text))}
		for _, cache := range out[1:] {
			args = append(args, cache)
		}
		text = append(text, next)
	}
	fmt.Println(text)
	// Output: [5 9 7 13 43 34]
}
