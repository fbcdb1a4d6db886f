package attention_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
)

// TestExecutionsAgree: for random specs every kind of execution that takes one gives the output, the
// losses and the gradients that the matrix gives; so do rows and statistics.
func TestExecutionsAgree(t *testing.T) {
	want := 40
	if gxtest.Backend(t).String() != "go" {
		want = 5 // XLA compiles each for seconds
	}
	random := rand.New(rand.NewPCG(7, 8))
	taken := map[string]int{}
	for n := range want {
		s := randomSpec(random)
		for s.Validate(16) != nil {
			s = randomSpec(random)
		}
		if n < len(simple) {
			s = simple[n]
		}
		s.Dropout = 0
		if random.IntN(4) == 0 && s.Span != nil {
			frozen := s.Span.Freeze(0.5)
			frozen.Limit = 5
			s.Span = &frozen
		}
		block := 1 + random.IntN(6)
		for _, kind := range agree(t, s, block, random.IntN(2) == 0, nil) {
			taken[kind]++
		}
		if t.Failed() {
			content, _ := json.Marshal(s)
			t.Fatalf("spec %s, blocks of %d", content, block)
		}
	}
	if gxtest.Backend(t).String() == "go" {
		for _, kind := range attention.Executions() {
			if taken[kind] < 2 {
				t.Errorf("only %d of %d specs were computed by %q", taken[kind], want, kind)
			}
		}
	}
}

// TestALiBiAtPositions: blockwise attention takes ALiBi's distances from positions, also where they begin anew with each document.
func TestALiBiAtPositions(t *testing.T) {
	s := attention.Spec{Heads: 2, Mask: attention.Document{}, Positions: []attention.Score{attention.ALiBi{Learned: true}}}
	positions := [][]int32{{0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1}, {0, 0, 1, 2, 0, 1, 2, 3, 4, 5, 6}}
	if taken := agree(t, s, 4, false, positions); !slices.Contains(taken, attention.Blockwise) {
		t.Errorf("blockwise did not take it: only %v", taken)
	}
}

// TestLanesAgree: texts and heads that are cut into groups change nothing, whatever part has numbers of its own for texts or heads.
func TestLanesAgree(t *testing.T) {
	const block = 4
	for rows, s := range map[int]attention.Spec{ // of two texts with four heads
		1: {Heads: 4, KVHeads: 2, Mask: attention.Causal{}, Scores: []attention.Score{attention.SSMax{}}, Normalizer: attention.Sink{}},
		2: {Heads: 4, Mask: attention.Document{}, Positions: []attention.Score{attention.ALiBi{Learned: true}}, Span: &attention.Span{Max: 4, Ramp: 2, Init: 0.5}},
		4: {Heads: 4, Scores: []attention.Score{attention.InputTemperature{}}, Normalizer: attention.ElementSigmoid{Keys: 11}},
	} {
		t.Run(fmt.Sprint(rows), func(t *testing.T) {
			defer attention.SetTile(rows * block * block)()
			if taken := agree(t, s, block, true, nil); !slices.Contains(taken, attention.Blockwise) {
				t.Errorf("blockwise did not take it: only %v", taken)
			}
		})
	}
}

// TestCrossExecutionsAgree: nor do fewer keys than queries change results. The first queries then have negative positions, and a
// single key must not be taken for one that stands for all of its block.
func TestCrossExecutionsAgree(t *testing.T) {
	for name, test := range map[string]struct {
		spec          attention.Spec
		queries, keys int
	}{
		"single key":      {attention.Spec{Heads: 2, Normalizer: attention.Sink{}, Positions: []attention.Score{attention.T5Bias{Buckets: 8, MaxDistance: 16}}}, 5, 1},
		"chunks before 0": {attention.Spec{Heads: 3, HeadDim: 4, Mask: attention.Chunk{Size: 3}}, 11, 3},
	} {
		t.Run(name, func(t *testing.T) {
			variables := noisy(test.spec.Variables(16, 0.3))
			store, err := elastic.NewStore(elastic.Under("", variables), 9)
			if err != nil {
				t.Fatal(err)
			}
			x := tensors.FromFlatDataAndDimensions(ramp(2*test.queries*16), 2, test.queries, 16)
			memory := tensors.FromFlatDataAndDimensions(ramp(2*test.keys*16), 2, test.keys, 16)
			kinds := []string{attention.Naive, attention.Blockwise, attention.Chunked}
			results, err := model.CallOnceN(gxtest.Backend(t), store, func(scope *model.Scope, x, memory *Node) (all []*Node) {
				for _, kind := range kinds {
					test.spec.Execution = attention.Execution{Kind: kind, Block: 4}
					y := attention.Cross(test.spec, elastic.WeightsOf(scope.Store(), x.Graph()), x, memory, attention.Inputs{}).Output
					all = append(append(all, y), Gradient(ReduceAllSum(Mul(y, Sin(y))), x, memory)...)
				}
				return all
			}, x, memory)
			if err != nil {
				t.Fatal(err)
			}
			for i, got := range results[3:] {
				t.Run(fmt.Sprintf("%s/%d", kinds[1+i/3], i%3), func(t *testing.T) { gxtest.Close(t, got, results[i%3], 1e-5) })
			}
		})
	}
}

// TestDifferentialReportsOnce: a loss of the attention counts once, though both maps have the part.
func TestDifferentialReportsOnce(t *testing.T) {
	s := attention.Spec{Heads: 2, Differential: &attention.Differential{}, Span: &attention.Span{Max: 8, Init: 0.5, Penalty: 0.25}}
	store, err := elastic.NewStore(elastic.Under("", s.Variables(16, 0.3)), 9)
	if err != nil {
		t.Fatal(err)
	}
	results, err := model.CallOnceN(gxtest.Backend(t), store, func(scope *model.Scope, x *Node) []*Node {
		r := attention.Self(s, elastic.WeightsOf(scope.Store(), x.Graph()), x, attention.Inputs{})
		return []*Node{r.Losses["span"], r.Penalty, r.Output}
	}, tensors.FromFlatDataAndDimensions(ramp(6*16), 1, 6, 16))
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, results[0], []float32{4}, 1e-6)
	gxtest.Close(t, results[1], []float32{1}, 1e-6) // 0.25·4
}

// simple are specs that random ones hardly ever are.
var simple = []attention.Spec{
	{Heads: 4},
	{Heads: 4, KVHeads: 2, Mask: attention.Causal{}, Scores: []attention.Score{attention.Softcap{Limit: 0.5}}},
	{Heads: 4, Mask: attention.Window{Size: 3}, Span: &attention.Span{Max: 4, Ramp: 2, Init: 0.5}},
	{Heads: 4, Normalizer: attention.Linear{}},
	{Heads: 4, KVHeads: 2, Mask: attention.Causal{}, Normalizer: attention.Linear{}, Gates: []attention.Gate{attention.HeadGate{}}},
}

// agree computes a spec in all ways and returns those that took it. Positions are those of tokens; nil counts from 0.
func agree(t *testing.T, s attention.Spec, block int, padded bool, positions [][]int32) (taken []string) {
	const batch, length, hidden = 2, 11, 16
	variables := noisy(s.Variables(hidden, 0.3))
	store, err := elastic.NewStore(elastic.Under("", variables), 9)
	if err != nil {
		t.Fatal(err)
	}
	x := tensors.FromFlatDataAndDimensions(ramp(batch*length*hidden), batch, length, hidden)
	rows := []int{0, 4, length - 1}
	var perKind int
	results, err := model.CallOnceN(gxtest.Backend(t), store, func(scope *model.Scope, x *Node) []*Node {
		g := x.Graph()
		w := elastic.WeightsOf(scope.Store(), g)
		documents := Const(g, [][]int32{{1, 1, 1, 1, 2, 2, 2, 2, 2, 0, 0}, {1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3}})
		in := attention.Inputs{
			Tasks: Const(g, []int32{0, 2}), QueryDocuments: documents, KeyDocuments: documents, Statistics: true, Rows: rows,
		}
		if positions != nil {
			in.QueryPositions, in.KeyPositions = Const(g, positions), Const(g, positions)
		}
		if padded {
			mask := make([][]bool, batch)
			for b := range mask {
				for i := range length {
					mask[b] = append(mask[b], i < length-3*b)
				}
			}
			in.Mask = InsertAxes(Const(g, mask), 1, 1)
		}
		var all []*Node
		for _, kind := range append([]string{attention.Naive}, attention.Executions()...) {
			s.Execution = attention.Execution{Kind: kind, Block: block}
			var r attention.Result
			if err := exceptions.TryCatch[error](func() { r = attention.Self(s, w, x, in) }); err != nil {
				if strings.Contains(err.Error(), "cannot compute this: ") {
					continue
				}
				panic(err)
			}
			taken = append(taken, kind)
			loss := ReduceAllSum(Mul(r.Output, Sin(r.Output)))
			if r.Penalty != nil {
				loss = Add(loss, r.Penalty)
			}
			wrt := []*Node{x}
			for _, v := range variables {
				wrt = append(wrt, w.At(strings.TrimPrefix(v.Path, "/")))
			}
			one := append([]*Node{r.Output, loss}, Gradient(loss, wrt...)...)
			picked := make([]*Node, len(rows))
			for i, row := range rows {
				picked[i] = Slice(r.Weights, AxisRange(), AxisRange(), AxisElem(row))
			}
			size := Abs(r.Weights)
			one = append(one,
				Sub(Concatenate(picked, 2), r.Rows),
				Add(ReduceSum(Mul(size, Log(MaxScalar(size, 1e-30))), -1), r.Statistics.Entropy),
				Sub(ReduceSum(r.Weights, 2), r.Statistics.Mass),
				r.Statistics.Support)
			perKind = len(one)
			all = append(all, one...)
		}
		return all
	}, x)
	if err != nil {
		t.Fatal(err)
	}
	for k, kind := range taken {
		for i, got := range results[k*perKind : (k+1)*perKind] {
			t.Run(fmt.Sprintf("%s/%d", kind, i), func(t *testing.T) {
				if i >= perKind-4 && i < perKind-1 { // differences
					gxtest.Close(t, got, make([]float32, got.Shape().Size()), 2e-5)
					return
				}
				gxtest.Close(t, got, results[i], 2e-4)
			})
		}
	}
	return taken[1:]
}

// TestFrozenSpanChangesNothing: keys beyond the limit had no weight before.
func TestFrozenSpanChangesNothing(t *testing.T) {
	span := attention.Span{Max: 64, Ramp: 8, Init: 0.25} // nothing beyond 24
	frozen := span.Freeze(0.25, 0.1)
	if frozen.Limit != 32 {
		t.Fatalf("limit is %d, want 32", frozen.Limit)
	}
	spec := attention.Spec{Heads: 2, Span: &span}
	store, err := elastic.NewStore(elastic.Under("", spec.Variables(16, 0.3)), 4)
	if err != nil {
		t.Fatal(err)
	}
	x := tensors.FromFlatDataAndDimensions(ramp(200*16), 1, 200, 16)
	results, err := model.CallOnceN(gxtest.Backend(t), store, func(scope *model.Scope, x *Node) []*Node {
		w := elastic.WeightsOf(scope.Store(), x.Graph())
		whole := attention.Self(spec, w, x, attention.Inputs{})
		spec.Span = &frozen
		windowed := attention.Self(spec, w, x, attention.Inputs{})
		z := Gradient(ReduceAllSum(windowed.Output), w.In("span").At("z"))[0]
		return []*Node{whole.Output, windowed.Output, z}
	}, x)
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, results[1], results[0], 1e-6)
	gxtest.Close(t, results[2], []float32{0, 0}, 0) // frozen
}

// TestExecutionIsNoPartOfTheHash: it changes no result.
func TestExecutionIsNoPartOfTheHash(t *testing.T) {
	spec := attention.Spec{Heads: 2}
	plain, err := spec.Hash()
	if err != nil {
		t.Fatal(err)
	}
	spec.Execution = attention.Execution{Kind: attention.Blockwise, Block: 64}
	if hash, err := spec.Hash(); err != nil || hash != plain {
		t.Errorf("hash with an execution is %s, %v, want %s", hash, err, plain)
	}
	for kind, want := range map[string]string{
		attention.Windowed:  "the mask does not limit how far a query sees",
		attention.Blockwise: `normalizer "entmax" needs all keys of a row at once`,
		attention.Recurrent: `normalizer "entmax" is not "linear"`,
	} {
		never := attention.Spec{Heads: 2, Normalizer: attention.Entmax{}, Execution: attention.Execution{Kind: kind}}
		want = fmt.Sprintf("attention.execution.kind %q cannot compute this: %s", kind, want)
		if err := never.Validate(16); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	spec.Execution = attention.Execution{Kind: "flash", Block: -1}
	err = spec.Validate(16)
	for _, want := range []string{`attention.execution.kind "flash" is unknown; known: auto, blockwise`, "attention.execution.block is -1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

// TestMayAllowNeverHides: a block that a mask may not allow has no allowed pair.
func TestMayAllowNeverHides(t *testing.T) {
	const length = 12
	for _, mask := range masks {
		var allowed [][]bool
		spec := attention.Spec{Heads: 4, Mask: mask}
		result, err := CallOnce(gxtest.Backend(t), func(x *Node) *Node {
			documents := Const(x.Graph(), [][]int32{{1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2}})
			in := attention.Inputs{QueryDocuments: documents, KeyDocuments: documents}
			weights := attention.Attend(spec, elastic.Weights{}, x, x, x, in).Weights
			return Reshape(Slice(weights, AxisElem(0), AxisElem(0)), length, length)
		}, tensors.FromFlatDataAndDimensions(ramp(length*8), 1, length, 4, 2))
		if err != nil {
			t.Fatal(err)
		}
		flat := tensors.MustCopyFlatData[float32](result)
		for q := range length {
			allowed = append(allowed, make([]bool, length))
			for k := range length {
				allowed[q][k] = flat[q*length+k] > 0
			}
		}
		hidden := 0
		for q := 0; q < length; q += 3 {
			for k := 0; k < length; k += 3 {
				if attention.MayAllow(mask, q, q+2, k, k+2) {
					continue
				}
				hidden++
				for i := range 9 {
					if allowed[q+i/3][k+i%3] {
						t.Errorf("%s: block of queries from %d and keys from %d is left out, but %d sees %d", mask.Kind(), q, k, q+i/3, k+i%3)
					}
				}
			}
		}
		switch mask.(type) {
		case attention.Causal, attention.Window, attention.Band:
			if hidden == 0 {
				t.Errorf("%s: no block is left out", mask.Kind())
			}
		}
	}
}

// TestBlockSize: blocks are as large as the mask wastes little of, and small for a single head, whose tiles would be large beside it.
func TestBlockSize(t *testing.T) {
	full, causal, window := attention.Band{Radius: 1 << 20}, attention.Causal{}, attention.Window{Size: 256}
	for _, c := range []struct {
		name          string
		mask          attention.Mask
		heads, length int
		want          int
	}{
		{"full", full, 8, 4096, 1024},
		{"full and of an odd length", full, 8, 900, 1024},
		{"full but just above a block", full, 8, 1030, 256},
		{"of two heads", full, 2, 4096, 512},
		{"of one head", full, 1, 4096, 256},
		{"of one head of a long text", full, 1, 8192, 512},
		{"causal", causal, 8, 4096, 512},
		{"window", window, 8, 4096, 256},
	} {
		got := attention.BlockSize(c.heads, c.length, func(size int) int {
			size = min(size, c.length)
			logits := 0
			for q := 0; q < c.length; q += size {
				for k := 0; k < c.length; k += size {
					if attention.MayAllow(c.mask, q, min(q+size, c.length)-1, k, min(k+size, c.length)-1) {
						logits += size * size
					}
				}
			}
			return logits
		})
		if got != c.want {
			t.Errorf("%s: blocks of %d, want %d", c.name, got, c.want)
		}
	}
}

func ExampleExecution() {
	spec := attention.Spec{Heads: 8, Mask: attention.Causal{}, Execution: attention.Execution{Kind: attention.Blockwise, Block: 256}}
	content, _ := json.Marshal(spec)
	fmt.Println(string(content))
	// Output: {"heads":8,"mask":"causal","execution":{"kind":"blockwise","block":256}}
}
