package explain_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
	"github.com/elastic-attention/workbench/pkg/elastic/peft"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/task/explain"
)

func config(head transformer.Head) transformer.Config {
	return transformer.Config{
		VocabSize: 20, PadID: 0, Hidden: 8, Layers: 2, FeedForward: 16, Attention: attention.Spec{Heads: 2}, MaxPositions: 32, TypeVocab: 2,
		Activation: "gelu", NormEpsilon: 1e-12, InitStd: 0.5, Head: head,
	}
}

var labels = []string{"a", "b", "c"}

// pooled is a head that pools, each in its way.
func pooled(kind string) transformer.Head {
	return transformer.Head{Kind: transformer.Sequence, Labels: labels, Pooling: kind}
}

var tokens = transformer.Head{Kind: transformer.Tokens, Labels: labels}

// fresh explains a model of fresh weights, texts padded to multiples of a length.
func fresh(t *testing.T, head transformer.Head, padded int) *explain.Explainer {
	t.Helper()
	m, err := transformer.New(config(head), 5)
	if err != nil {
		t.Fatal(err)
	}
	if w := m.Store.GetVariable("/head/pooling/w"); w != nil {
		if err := w.SetValue(tensors.FromFlatDataAndDimensions([]float32{1, -1, 2, 0, 1, -2, 1, 0.5}, 8)); err != nil {
			t.Fatal(err)
		}
	}
	return &explain.Explainer{Backend: gxtest.Backend(t), Model: m, Length: func(n int) int { return (n + padded - 1) / padded * padded }, Lock: new(sync.Mutex)}
}

// example is a text of so many words between two special tokens, the second word of two tokens, and what speaks for label
// a against b; of all tokens it is that of the second.
func example(head transformer.Head, words int) explain.Example {
	e := explain.Example{IDs: []int32{1, 3}, Words: []int32{-1, 0}, Size: words}
	for word := 1; word < words; word++ {
		e.IDs, e.Words = append(e.IDs, int32(4+3*word%15)), append(e.Words, int32(word))
		if word == 1 {
			e.IDs, e.Words = append(e.IDs, 19), append(e.Words, 1)
		}
	}
	e.IDs, e.Words = append(e.IDs, 2), append(e.Words, -1)
	e.TypeIDs = make([]int32, len(e.IDs))
	e.Counts = []float32{1, -1, 0}
	if head.Kind == transformer.Tokens {
		e.Counts, e.Outputs = make([]float32, 3*len(e.IDs)), []int{1}
		e.Counts[3], e.Counts[4] = 1, -1
	}
	return e
}

// evidence computes what an example's is in the model as it stands, or with padding in place of its words.
func evidence(t *testing.T, x *explain.Explainer, e explain.Example, words bool) float64 {
	t.Helper()
	c := x.Model.Config
	out, err := model.CallOnce(gxtest.Backend(t), x.Model.Store, func(scope *model.Scope, ids, shown *Node) *Node {
		w := elastic.WeightsOf(scope.Store(), ids.Graph())
		return c.Logits(w, transformer.Inputs{IDs: ids, Words: Gather(w.In("embeddings").At("word"), InsertAxes(shown, -1))}, nil)
	}, [][]int32{e.IDs}, [][]int32{shown(e, words)})
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for i, logit := range tensors.MustCopyFlatData[float32](out) {
		sum += float64(logit * e.Counts[i])
	}
	return sum
}

func shown(e explain.Example, words bool) []int32 {
	ids := slices.Clone(e.IDs)
	for token, word := range e.Words {
		if word >= 0 && !words {
			ids[token] = 0
		}
	}
	return ids
}

// TestExplain: the evidence is the model's own, contributions add up, and neither padding nor what
// else is explained changes them, whatever the head.
func TestExplain(t *testing.T) {
	for _, head := range []transformer.Head{tokens, pooled("cls"), pooled("mean"), pooled("attention")} {
		var examples []explain.Example
		for i := range 11 {
			examples = append(examples, example(head, 2+i%5))
		}
		x, y := fresh(t, head, 4), fresh(t, head, 32)
		for _, method := range explain.Methods() {
			name := head.Kind + " " + head.Pooling + " " + method
			list, err := x.Explain(t.Context(), examples, explain.Config{Method: method})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			alone, err := y.Explain(t.Context(), examples[10:], explain.Config{Method: method})
			if err != nil {
				t.Fatal(err)
			}
			gxtest.Close(t, list[10].Words, alone[0].Words, 2e-5)
			for i, a := range list {
				with, without, sum := evidence(t, x, examples[i], true), evidence(t, x, examples[i], false), 0.0
				for _, v := range a.Words {
					sum += v
				}
				switch {
				case math.Abs(a.Evidence-with) > 1e-5 || len(a.Words) != examples[i].Size:
					t.Errorf("%s: evidence %g, want %g; %d words", name, a.Evidence, with, len(a.Words))
				case method == explain.IntegratedGradients || method == explain.GradientTimesInput:
					if math.Abs(a.Without-without) > 1e-5 || math.Abs(sum+a.Error-with+without) > 1e-4 {
						t.Errorf("%s: without %g, want %g; contributions %g and error %g", name, a.Without, without, sum, a.Error)
					}
					if method == explain.IntegratedGradients && math.Abs(a.Error) > 0.01*math.Abs(with-without) {
						t.Errorf("%s: %g of %g is left open", name, a.Error, with-without)
					}
				case a.Without != 0 || a.Error != 0 || !(sum > 0) || slices.Min(a.Words) < 0:
					t.Errorf("%s: %+v", name, a)
				case method == explain.Rollout && sum > 1:
					t.Errorf("%s: words have %g in all, special tokens the rest of 1", name, sum)
				}
			}
		}
	}
}

// TestFollowPools: what a head that pools follows are the ways to each token, as its pooling weighs them.
func TestFollowPools(t *testing.T) {
	for _, kind := range transformer.Poolings() {
		head := pooled(kind)
		x, e := fresh(t, head, 4), example(head, 3)
		list, err := x.Explain(t.Context(), []explain.Example{e}, explain.Config{Method: explain.Rollout})
		if err != nil {
			t.Fatal(err)
		}
		out, err := model.CallOnceN(gxtest.Backend(t), x.Model.Store, func(scope *model.Scope, ids *Node) []*Node {
			encoded := x.Model.Config.Encode(elastic.WeightsOf(scope.Store(), ids.Graph()), transformer.Inputs{IDs: ids}, nil)
			return []*Node{interpret.Rollout(encoded.Attentions), encoded.Hidden}
		}, [][]int32{e.IDs})
		if err != nil {
			t.Fatal(err)
		}
		ways, hidden := tensors.MustCopyFlatData[float32](out[0]), tensors.MustCopyFlatData[float32](out[1])
		n, pooling, sum := len(e.IDs), make([]float64, len(e.IDs)), 0.0
		for i := range pooling {
			score := 0.0
			switch kind {
			case "cls":
				score = math.Inf(-1)
				if i == 0 {
					score = 0
				}
			case "attention":
				for j, w := range []float64{1, -1, 2, 0, 1, -2, 1, 0.5} {
					score += w * float64(hidden[i*8+j])
				}
			}
			pooling[i] = math.Exp(score)
			sum += pooling[i]
		}
		want := make([]float64, 3)
		for i, p := range pooling {
			for token, word := range e.Words {
				if word >= 0 {
					want[word] += p / sum * float64(ways[i*n+token])
				}
			}
		}
		gxtest.Close(t, list[0].Words, want, 1e-5)
	}
}

// TestFaithfulness: curves begin with the model's evidence and end with that of padding.
func TestFaithfulness(t *testing.T) {
	for _, head := range []transformer.Head{tokens, pooled("mean")} {
		x, e := fresh(t, head, 4), example(head, 4)
		done := 0
		f, err := x.Faithfulness(t.Context(), []explain.Example{e, e, e}, explain.Config{}, 7, func(n, total int) { done = 10*n + total })
		if err != nil {
			t.Fatal(err)
		}
		c, with, without := f.Curves, evidence(t, x, e, true), evidence(t, x, e, false)
		gxtest.Close(t, []float64{c.Deletion[0], c.Random[0], c.Insertion[10]}, []float64{with, with, with}, 1e-5)
		gxtest.Close(t, []float64{c.Deletion[10], c.Random[10], c.Insertion[0]}, []float64{without, without, without}, 1e-5)
		if f.Completeness == nil || !(f.Completeness.Greatest < 0.01) || done != 33 {
			t.Errorf("completeness %+v, progress %d", f.Completeness, done)
		}
		if f, err = x.Faithfulness(t.Context(), []explain.Example{e}, explain.Config{Method: explain.Rollout}, 7, nil); err != nil || f.Completeness != nil {
			t.Errorf("rollout, which need not add up: completeness %+v, %v", f.Completeness, err)
		}
	}
}

// TestFaithfulnessOfNothing: where words change nothing, nothing is left open, and the result can be written.
func TestFaithfulnessOfNothing(t *testing.T) {
	x := fresh(t, tokens, 4)
	for _, v := range x.Model.Config.Variables() {
		if strings.HasPrefix(v.Path, "/head/") {
			if err := x.Model.Store.GetVariable(v.Path).SetValue(elastic.Variable{Shape: v.Shape}.Tensor(0)); err != nil {
				t.Fatal(err)
			}
		}
	}
	f, err := x.Faithfulness(t.Context(), []explain.Example{example(tokens, 4)}, explain.Config{}, 7, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := json.Marshal(f); err != nil || *f.Completeness != (interpret.Spread{}) {
		t.Errorf("completeness %+v, written with %v", f.Completeness, err)
	}
}

// TestHeads: removal is by how much the loss, computed in float64 from the logits, grows; of a head that pools the first
// token has the label.
func TestHeads(t *testing.T) {
	for _, head := range []transformer.Head{tokens, pooled("mean")} {
		x, e := fresh(t, head, 4), example(head, 3)
		targets := slices.Repeat([]int32{batch.Ignore}, len(e.IDs))
		targets[0] = 2
		if head.Kind == transformer.Tokens {
			targets[1] = 1
		}
		heads, err := x.Heads(t.Context(), []batch.Example{{IDs: e.IDs, TypeIDs: e.TypeIDs, Labels: targets}}, true, nil)
		if err != nil {
			t.Fatal(err)
		}
		loss := func(without int) float64 {
			gates := []float32{1, 1, 1, 1}
			if without >= 0 {
				gates[without] = 0
			}
			out, err := model.CallOnce(gxtest.Backend(t), x.Model.Store, func(scope *model.Scope, ids, gates *Node) *Node {
				return x.Model.Config.Logits(elastic.WeightsOf(scope.Store(), ids.Graph()), transformer.Inputs{IDs: ids, HeadGates: gates}, nil)
			}, [][]int32{e.IDs}, tensors.FromFlatDataAndDimensions(gates, 1, 2, 2))
			if err != nil {
				t.Fatal(err)
			}
			sum, count := 0.0, 0.0
			for row := range slices.Chunk(tensors.MustCopyFlatData[float32](out), 3) {
				if target := targets[int(count)]; target >= 0 { // those with labels come first
					all := 0.0
					for _, v := range row {
						all += math.Exp(float64(v))
					}
					sum += math.Log(all) - float64(row[target])
					count++
				} else {
					break
				}
			}
			return sum / count
		}
		if len(heads) != 4 {
			t.Fatalf("%d heads", len(heads))
		}
		for i, h := range heads {
			if want := loss(i) - loss(-1); h.Layer != i/2 || h.Head != i%2 || math.Abs(h.Removal-want) > 1e-5 || !(h.Importance > 0) || len(h.Profile) != len(interpret.Features)-1 {
				t.Errorf("%s: %+v, want removal %g", head.Kind, h, want)
			}
		}
	}
}

// TestSanity: the explanation goes with what the model knows, and the model stays.
func TestSanity(t *testing.T) {
	head := pooled("attention")
	x, e := fresh(t, head, 4), example(head, 6)
	before := evidence(t, x, e, true)
	list, err := x.Sanity(t.Context(), []explain.Example{e, e}, explain.Config{Steps: 8}, 3)
	if err != nil {
		t.Fatal(err)
	}
	var stages []string
	for _, s := range list {
		stages = append(stages, s.Stage)
	}
	if strings.Join(stages, " ") != "head layer_1 layer_0 embeddings" || list[3].Rank >= 0.95 || evidence(t, x, e, true) != before {
		t.Errorf("similarities %+v, evidence %g, was %g", list, evidence(t, x, e, true), before)
	}
}

// TestSanityOfAnAdapter: what an adapter has learned is forgotten with the layer that it belongs to, not before.
func TestSanityOfAnAdapter(t *testing.T) {
	for _, kind := range []string{"lora", "dora", "prompt"} {
		x, e := fresh(t, tokens, 4), example(tokens, 6)
		adapter, err := peft.New(peft.Config{Kind: kind}, x.Model.Config.Variables())
		if err != nil {
			t.Fatal(err)
		}
		if err := adapter.Create(x.Model.Store, 1); err != nil {
			t.Fatal(err)
		}
		var own []elastic.Variable // one of each stage
		for _, v := range adapter.Variables() {
			if strings.HasSuffix(v.Path, "/layer_0/attention/query/lora_B") || strings.HasSuffix(v.Path, "/layer_1/attention/query/lora_B") || kind == "prompt" {
				own = append(own, v)
				if err := x.Model.Store.GetVariable(v.Path).SetValue(tensors.FromFlatDataAndDimensions(slices.Repeat([]float32{0.5}, v.Size()), v.Shape...)); err != nil {
					t.Fatal(err)
				}
			}
		}
		var stages []string // which variables are as they were, at each explanation
		x.Adapter, x.Weights = adapter.Variables(), func(w elastic.Weights) elastic.Weights { return adapter.Weights(w, nil) }
		x.Length = func(int) int {
			stage := ""
			for _, v := range own {
				kept := "-"
				if tensors.MustCopyFlatData[float32](x.Model.Store.GetVariable(v.Path).MustValue())[0] == 0.5 {
					kept = "+"
				}
				stage += kept
			}
			stages = append(stages, stage)
			return 12
		}
		list, err := x.Sanity(t.Context(), []explain.Example{e}, explain.Config{Steps: 2}, 3)
		if err != nil {
			t.Fatal(err)
		}
		x.Length(0)
		want := "++ ++ +- -- -- ++" // at first, without the head, layer 1, layer 0, embeddings; put back
		if kind == "prompt" {
			want = "+ + + + - +"
		}
		if got := strings.Join(stages, " "); got != want || math.IsNaN(list[3].Rank) || list[3].Rank == 0 {
			t.Errorf("%s: kept %s, want %s; similarities %+v", kind, got, want, list)
		}
	}
}

// TestAttention: padding changes nothing, and is not there.
func TestAttention(t *testing.T) {
	x, e := fresh(t, tokens, 4), example(tokens, 3)
	name := func(id int32) string { return fmt.Sprint("t", id) }
	whole, err := x.Attention(t.Context(), e.IDs, e.TypeIDs, len(e.IDs), name)
	if err != nil {
		t.Fatal(err)
	}
	padded, err := x.Attention(t.Context(), e.IDs, e.TypeIDs, 16, name)
	if err != nil {
		t.Fatal(err)
	}
	for layer := range whole.Weights {
		for head, rows := range whole.Weights[layer] {
			gxtest.Close(t, slices.Concat(padded.Weights[layer][head]...), slices.Concat(rows...), 1e-6)
		}
	}
	if len(whole.Weights) != 2 || padded.Tokens[1] != "t3" {
		t.Errorf("%d layers, tokens %q", len(whole.Weights), padded.Tokens)
	}
}

func TestRefuses(t *testing.T) {
	x, e := fresh(t, tokens, 4), example(tokens, 3)
	if _, err := x.Explain(t.Context(), []explain.Example{e}, explain.Config{Method: "guess", Steps: -1}); err == nil || !strings.Contains(err.Error(), "known: integrated_gradients, gradient_input") || !strings.Contains(err.Error(), "steps is -1") {
		t.Errorf("bad config: %v", err)
	}
	if _, err := x.Faithfulness(t.Context(), nil, explain.Config{}, 1, nil); err == nil || !strings.Contains(err.Error(), "nothing to explain") {
		t.Errorf("no example: %v", err)
	}
	if _, err := x.Heads(t.Context(), nil, false, nil); err == nil || !strings.Contains(err.Error(), "no example") {
		t.Errorf("no labelled example: %v", err)
	}
	x.Virtual = true
	if _, err := x.Explain(t.Context(), []explain.Example{e}, explain.Config{Method: explain.Flow}); err == nil || !strings.Contains(err.Error(), "virtual tokens") {
		t.Errorf("virtual tokens: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, method := range explain.Methods() {
		if _, err := fresh(t, tokens, 4).Explain(ctx, []explain.Example{e}, explain.Config{Method: method}); err == nil || !strings.Contains(err.Error(), "stopped") {
			t.Errorf("%s, cancelled: %v", method, err)
		}
	}
}

// A model of fresh weights says how a text speaks for its first label against its second.
func ExampleExplainer() {
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	m, err := transformer.New(config(transformer.Head{Kind: transformer.Sequence, Labels: []string{"yes", "no"}}), 1)
	if err != nil {
		panic(err)
	}
	x := explain.Explainer{Backend: engine, Model: m, Length: func(int) int { return 8 }, Lock: new(sync.Mutex)}
	list, err := x.Explain(context.Background(), []explain.Example{{
		IDs: []int32{1, 7, 8, 9, 2}, TypeIDs: make([]int32, 5), Words: []int32{-1, 0, 1, 1, -1}, Size: 2, Counts: []float32{1, -1},
	}}, explain.Config{})
	if err != nil {
		panic(err)
	}
	a := list[0]
	fmt.Printf("%d words, which add up: %t\n", len(a.Words), math.Abs(a.Words[0]+a.Words[1]+a.Error-a.Evidence+a.Without) < 1e-5)
	fmt.Printf("left open: less than a hundredth: %t\n", math.Abs(a.Error) < 0.01*math.Abs(a.Evidence-a.Without))
	// Output:
	// 2 words, which add up: true
	// left open: less than a hundredth: true
}
