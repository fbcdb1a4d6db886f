package transformer_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

func small() transformer.Config {
	return transformer.Config{
		VocabSize: 50, Hidden: 16, Layers: 2, FeedForward: 32, Attention: attention.Spec{Heads: 4}, MaxPositions: 12,
		TypeVocab: 2, Activation: "gelu", NormEpsilon: 1e-12, InitStd: 0.3,
		Head: transformer.Head{Kind: transformer.Tokens, Labels: []string{"O", "B-X", "I-X"}},
	}
}

// logits computes a model's logits in evaluation.
func logits(t *testing.T, m *transformer.Model, ids, mask [][]int32) ([]float32, error) {
	t.Helper()
	out, err := model.CallOnce(gxtest.Backend(t), m.Store, func(scope *model.Scope, ids, mask *graph.Node) *graph.Node {
		return m.Config.Logits(elastic.WeightsOf(scope.Store(), ids.Graph()), transformer.Inputs{IDs: ids, Mask: mask}, nil)
	}, ids, mask)
	if err != nil {
		return nil, err
	}
	return tensors.MustCopyFlatData[float32](out), nil
}

// TestPaddingChangesNothing: a sentence gives the same logits alone and padded, and a
// row of padding only gives finite numbers.
func TestPaddingChangesNothing(t *testing.T) {
	for _, fromPad := range []bool{false, true} {
		config := small()
		config.PositionsFromPad = fromPad
		m, err := transformer.New(config, 1)
		if err != nil {
			t.Fatal(err)
		}
		alone, err := logits(t, m, [][]int32{{5, 9, 7}}, [][]int32{{1, 1, 1}})
		if err != nil {
			t.Fatal(err)
		}
		padded, err := logits(t, m, [][]int32{{5, 9, 7, 0, 0}, {0, 0, 0, 0, 0}}, [][]int32{{1, 1, 1, 0, 0}, {0, 0, 0, 0, 0}})
		if err != nil {
			t.Fatal(err)
		}
		gxtest.Close(t, padded[:len(alone)], alone, 1e-5)
		for _, v := range padded {
			if math.IsNaN(float64(v)) {
				t.Fatal("padding gives NaN")
			}
		}
	}
}

// TestPackingChangesNothing: texts that share a row give the logits that they give alone.
func TestPackingChangesNothing(t *testing.T) {
	for _, fromPad := range []bool{false, true} {
		config := small()
		config.PositionsFromPad = fromPad
		m, err := transformer.New(config, 1)
		if err != nil {
			t.Fatal(err)
		}
		texts := [][]int32{{5, 9, 7}, {8, 6}, {9, 9, 4}}
		out, err := model.CallOnce(gxtest.Backend(t), m.Store, func(scope *model.Scope, in []*graph.Node) *graph.Node {
			return m.Config.Logits(elastic.WeightsOf(scope.Store(), in[0].Graph()), transformer.Inputs{IDs: in[0], Documents: in[1], Positions: in[2]}, nil)
		}, [][]int32{{5, 9, 7, 8, 6, 0}, {9, 9, 4, 0, 0, 0}}, [][]int32{{1, 1, 1, 2, 2, 0}, {1, 1, 1, 0, 0, 0}}, [][]int32{{0, 1, 2, 0, 1, 0}, {0, 1, 2, 0, 0, 0}})
		if err != nil {
			t.Fatal(err)
		}
		packed := tensors.MustCopyFlatData[float32](out)
		for i, at := range []int{0, 3, 6} {
			mask := make([]int32, len(texts[i]))
			for j := range mask {
				mask[j] = 1
			}
			alone, err := logits(t, m, [][]int32{texts[i]}, [][]int32{mask})
			if err != nil {
				t.Fatal(err)
			}
			gxtest.Close(t, packed[at*3:at*3+len(alone)], alone, 1e-5)
		}
		for _, v := range packed {
			if math.IsNaN(float64(v)) {
				t.Fatal("padding gives NaN")
			}
		}
	}
}

// TestHeadGates: a gate of 0 is a model from whose output projection a head's rows are cut,
// for each row of the batch by itself.
func TestHeadGates(t *testing.T) {
	config := small()
	m, err := transformer.New(config, 1)
	if err != nil {
		t.Fatal(err)
	}
	ids := [][]int32{{5, 9, 7}, {8, 6, 4}}
	const layer, head = 1, 2
	gates := make([][][]float32, 2)
	for row := range gates {
		for range config.Layers {
			gates[row] = append(gates[row], []float32{1, 1, 1, 1})
		}
	}
	gates[0][layer][head] = 0
	out, err := model.CallOnce(gxtest.Backend(t), m.Store, func(scope *model.Scope, ids, gates *graph.Node) *graph.Node {
		return m.Config.Logits(elastic.WeightsOf(scope.Store(), ids.Graph()), transformer.Inputs{IDs: ids, HeadGates: gates}, nil)
	}, ids, gates)
	if err != nil {
		t.Fatal(err)
	}
	got := tensors.MustCopyFlatData[float32](out)
	ones := [][]int32{{1, 1, 1}}
	whole, err := logits(t, m, ids[1:], ones)
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, got[len(got)/2:], whole, 1e-6)

	variable := m.Store.GetVariable(fmt.Sprintf("/layer_%d/attention/output/weights", layer))
	cut := tensors.MustCopyFlatData[float32](variable.MustValue())
	width := config.Hidden / config.Attention.Heads
	for i := head * width * config.Hidden; i < (head+1)*width*config.Hidden; i++ {
		cut[i] = 0
	}
	if err := variable.SetValue(tensors.FromFlatDataAndDimensions(cut, config.Hidden, config.Hidden)); err != nil {
		t.Fatal(err)
	}
	removed, err := logits(t, m, ids[:1], ones)
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, got[:len(got)/2], removed, 1e-6)
	difference := 0.0
	before, err := transformer.New(config, 1)
	if err != nil {
		t.Fatal(err)
	}
	uncut, err := logits(t, before, ids[:1], ones)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uncut {
		difference = math.Max(difference, math.Abs(float64(uncut[i]-removed[i])))
	}
	if difference < 1e-3 {
		t.Errorf("removing a head changes the logits by %g", difference)
	}
}

func TestPositionsMatter(t *testing.T) {
	m, err := transformer.New(small(), 1)
	if err != nil {
		t.Fatal(err)
	}
	out, err := logits(t, m, [][]int32{{5, 5}}, [][]int32{{1, 1}})
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(float64(out[0]-out[3])) < 1e-4 {
		t.Error("the same token at two positions has the same logits")
	}
}

func TestTooLongInputIsRefused(t *testing.T) {
	m, err := transformer.New(small(), 1)
	if err != nil {
		t.Fatal(err)
	}
	long := make([]int32, 13)
	_, err = logits(t, m, [][]int32{long}, [][]int32{long})
	if err == nil || !strings.Contains(err.Error(), "13 tokens, the model has positions for 12") {
		t.Errorf("error is %v", err)
	}
}

// TestEveryConfigFieldChangesTheResult guards against options that do nothing.
func TestEveryConfigFieldChangesTheResult(t *testing.T) {
	of := func(change func(*transformer.Config)) []float32 {
		config := small()
		change(&config)
		m, err := transformer.New(config, 1)
		if err != nil {
			t.Fatal(err)
		}
		out, err := logits(t, m, [][]int32{{5, 0, 7}}, [][]int32{{1, 1, 1}})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	base := of(func(*transformer.Config) {})
	for name, change := range map[string]func(*transformer.Config){
		"layers":             func(c *transformer.Config) { c.Layers = 1 },
		"heads":              func(c *transformer.Config) { c.Attention.Heads = 2 },
		"feed_forward":       func(c *transformer.Config) { c.FeedForward = 8 },
		"type_vocab":         func(c *transformer.Config) { c.TypeVocab = 0 },
		"activation":         func(c *transformer.Config) { c.Activation = "relu" },
		"activation tanh":    func(c *transformer.Config) { c.Activation = "tanh" },
		"activation approx":  func(c *transformer.Config) { c.Activation = "gelu_tanh" },
		"norm_epsilon":       func(c *transformer.Config) { c.NormEpsilon = 0.1 },
		"positions_from_pad": func(c *transformer.Config) { c.PositionsFromPad = true },
		"init_std":           func(c *transformer.Config) { c.InitStd = 0.1 },
	} {
		same := true
		for i, v := range of(change) {
			same = same && v == base[i]
		}
		if same {
			t.Errorf("%s changes nothing", name)
		}
	}
}

func TestConfigReportsAllProblems(t *testing.T) {
	config := small()
	config.Hidden, config.Layers, config.Activation, config.NormEpsilon, config.Dropout, config.PadID = 18, 0, "swish", 0, 1, 50
	config.Head.Labels = []string{"O", "O"}
	_, err := transformer.New(config, 1)
	for _, want := range []string{
		"layers is 0", `activation "swish" is unknown; known: gelu, gelu_tanh, relu, tanh`, "norm_epsilon is 0", "dropout is 1", "pad_id is 50", "or -1 for none",
		"attention.heads is 4, which does not divide the hidden size 18", `head.labels 0 and 1 are both "O"`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q: %v", want, err)
		}
	}
	config = small()
	config.Head.Kind = "crf"
	if err := config.Validate(); err == nil || !strings.Contains(err.Error(), `head.kind "crf" is unknown`) {
		t.Errorf("unknown head: %v", err)
	}
	config.Head = transformer.Head{Kind: transformer.Pooled, Labels: []string{"a"}}
	if err := config.Validate(); err == nil || !strings.Contains(err.Error(), "head.labels has 1 names") {
		t.Errorf("labels without use: %v", err)
	}
	config.Head = transformer.Head{Kind: transformer.Pooled, Untied: true}
	if err := config.Validate(); err == nil || !strings.Contains(err.Error(), `head.untied is for head.kind "masked_lm" only, not "pooled"`) {
		t.Errorf("untied without a vocabulary: %v", err)
	}
}

func ExampleNew() {
	config := transformer.Config{
		VocabSize: 100, Hidden: 32, Layers: 2, FeedForward: 64, Attention: attention.Spec{Heads: 4}, MaxPositions: 64,
		TypeVocab: 2, Activation: "gelu", NormEpsilon: 1e-12, InitStd: 0.02,
		Head: transformer.Head{Kind: transformer.Tokens, Labels: []string{"O", "B-PER", "I-PER"}},
	}
	m, err := transformer.New(config, 42)
	if err != nil {
		panic(err)
	}
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	ids := [][]int32{{2, 17, 4, 3}}
	logits, err := model.CallOnce(engine, m.Store, func(scope *model.Scope, ids *graph.Node) *graph.Node {
		return m.Config.Logits(elastic.WeightsOf(scope.Store(), ids.Graph()), transformer.Inputs{IDs: ids}, nil)
	}, ids)
	if err != nil {
		panic(err)
	}
	fmt.Println(m.Parameters(), "parameters, logits", logits.Shape())
	// Output: 22563 parameters, logits (Float32)[1, 4, 3]
}

func TestStructureReportsAllProblems(t *testing.T) {
	for _, test := range []struct {
		change func(c *transformer.Config)
		want   []string
	}{
		{func(c *transformer.Config) { c.NormOrder = "sandwich" }, []string{`norm_order "sandwich" is unknown; known: post, pre`}},
		{func(c *transformer.Config) { c.Depth = &transformer.Depth{Kind: "skip"} }, []string{`depth.kind "skip" is unknown; known: act, early_exit`}},
		{func(c *transformer.Config) {
			c.Depth = &transformer.Depth{Kind: transformer.ACT, Epsilon: 1, Penalty: -1, Threshold: 0.1}
		}, []string{"depth.epsilon is 1", "depth.penalty is -1", "depth.rule, threshold and loss are for"}},
		{func(c *transformer.Config) {
			c.Head, c.Depth = transformer.Head{}, &transformer.Depth{Kind: transformer.EarlyExit, Rule: "luck", Loss: "max", Epsilon: 0.1}
		}, []string{`depth.rule "luck" is unknown; known: confidence, entropy, patience`, `depth.loss "max" is unknown`, "depth.epsilon and penalty are for", "needs a head with at least two labels"}},
		{func(c *transformer.Config) {
			c.Depth = &transformer.Depth{Kind: transformer.EarlyExit, Rule: transformer.Patience, Threshold: 1.5}
		}, []string{"depth.threshold is 1.5, want a whole number"}},
		{func(c *transformer.Config) { c.Experts = &transformer.Experts{Count: 2, Keep: 3, Balance: -1} }, []string{"experts.keep is 3, want 1 to count, 2", "experts.balance is -1"}},
		{func(c *transformer.Config) { c.Experts = &transformer.Experts{Count: 4, Keep: 1} }, []string{"experts.keep is 1, whose router would learn nothing"}},
		{func(c *transformer.Config) { c.Experts = &transformer.Experts{Count: 4, Keep: 2, Switch: true} }, []string{"experts.keep is 2, want 1 with experts.switch"}},
		{func(c *transformer.Config) {
			c.Depth, c.Decoder = &transformer.Depth{Kind: transformer.ACT}, &transformer.Decoder{FeedForward: -1, Attention: attention.Spec{Heads: 4}, Cross: attention.Spec{Heads: 3}}
		}, []string{
			"depth.kind \"act\" is for encoders only", "decoder.layers is 0", "decoder.feed_forward is -1",
			"decoder.attention.mask: a cache needs a mask that hides later keys", "decoder.cross.heads is 3, which does not divide the hidden size 16",
		}},
	} {
		config := small()
		test.change(&config)
		err := config.Validate()
		for _, want := range test.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error does not say %q: %v", want, err)
			}
		}
	}
}

func TestHash(t *testing.T) {
	seen := map[string]bool{}
	for _, depth := range []*transformer.Depth{nil, {Kind: transformer.ACT}, {Kind: transformer.EarlyExit}, {Kind: transformer.EarlyExit, Threshold: 0.1}} {
		config := small()
		config.Depth = depth
		hash, err := config.Hash()
		if err != nil || seen[hash] {
			t.Errorf("hash %s of %+v, %v: want one of its own", hash, depth, err)
		}
		seen[hash] = true
	}
}

// TestPenaltiesReachTheLoss: what depth and experts cost is in the training loss.
func TestPenaltiesReachTheLoss(t *testing.T) {
	loss := func(change func(c *transformer.Config)) float32 {
		config := small()
		change(&config)
		m, err := transformer.New(config, 1)
		if err != nil {
			t.Fatal(err)
		}
		out, err := model.CallOnce(gxtest.Backend(t), m.Store, func(scope *model.Scope, ids, labels *graph.Node) *graph.Node {
			w := elastic.WeightsOf(scope.Store(), ids.Graph())
			sum, count := m.Config.Loss(w, loss.Criterion{}, labels, nil, m.Config.Encode(w, transformer.Inputs{IDs: ids}, nil))
			return graph.Div(sum, count)
		}, [][]int32{{5, 9, 7}}, [][]int32{{0, 1, -100}})
		if err != nil {
			t.Fatal(err)
		}
		return tensors.ToScalar[float32](out)
	}
	for name, change := range map[string]func(c *transformer.Config, cost float64){
		"act": func(c *transformer.Config, cost float64) {
			c.Depth = &transformer.Depth{Kind: transformer.ACT, Penalty: cost}
		},
		"balance": func(c *transformer.Config, cost float64) { c.Experts = &transformer.Experts{Count: 3, Balance: cost} },
		"router":  func(c *transformer.Config, cost float64) { c.Experts = &transformer.Experts{Count: 3, RouterZ: cost} },
	} {
		free, dear := loss(func(c *transformer.Config) { change(c, 0) }), loss(func(c *transformer.Config) { change(c, 1) })
		if !(dear > free+0.1) {
			t.Errorf("%s: loss is %g without a penalty and %g with one", name, free, dear)
		}
	}
}

// TestLastLayer is the one that the head reads, with experts too.
func TestLastLayer(t *testing.T) {
	c := small()
	for want, experts := range map[string]*transformer.Experts{"outer/weights": nil, "experts/outer/weights": {Count: 2}} {
		c.Experts = experts
		if got, want := c.LastLayer(), fmt.Sprintf("/layer_%d/feed_forward/%s", c.Layers-1, want); len(got) != 1 || got[0].Path != want {
			t.Errorf("last layer is %v, want %s", got, want)
		}
	}
}
