package transformer_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// causalSpecs are attention specs that a cache can serve; a window of 3 is a ring.
var causalSpecs = []string{
	`{"heads": 4, "mask": "causal"}`,
	`{"heads": 4, "mask": {"kind": "window", "size": 3}, "rotary": {}}`,
	`{"heads": 4, "kv_heads": 2, "mask": {"kind": "sink_window", "size": 3, "sinks": 1}, "rotary": {"interleaved": true}, "qk_norm": {"norm": "rms"}}`,
	`{"heads": 4, "mask": {"kind": "window", "size": 3}, "positions": ["alibi"], "scores": [{"kind": "softcap", "limit": 5}], "normalizer": "sink"}`,
	`{"heads": 2, "mask": "causal", "normalizer": {"kind": "entmax", "learned": true}, "scores": [{"kind": "temperature", "learned": true}], "gates": ["output_gate"]}`,
	`{"heads": 2, "mask": {"kind": "dilated", "size": 2, "step": 2}, "differential": {"lambda": 0.5}}`,
}

// crossSpecs are specs of cross-attention.
var crossSpecs = []string{`{"heads": 4}`, `{"heads": 4, "kv_heads": 2, "rotary": {}, "qk_norm": {"norm": "l2"}}`, `{"heads": 2, "differential": {"lambda": 0.5}, "gates": ["head_gate"]}`}

func spec(t *testing.T, text string) (s attention.Spec) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestStepsEqualTheWholePass: models of either norm order, decoder-only and encoder–decoder,
// with and without experts, computed in steps of one to three tokens over more than two
// windows, give what one pass gives.
func TestStepsEqualTheWholePass(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for i, text := range causalSpecs {
		for j := range 4 { // norm order and kind of model
			if gxtest.Backend(t).String() != "go" && (i+2*j)%8 != 0 {
				continue // a compiler needs seconds for each
			}
			config := small()
			config.TypeVocab, config.Head, config.MaxPositions = 0, transformer.Head{Kind: transformer.LM}, 20
			config.NormOrder = transformer.NormOrders()[j%2]
			config.PositionsFromPad = i%2 == 1
			if i%3 == 0 {
				config.Experts = &transformer.Experts{Count: 3}
			}
			own := spec(t, text)
			if j < 2 {
				config.Attention = own
			} else {
				config.Decoder = &transformer.Decoder{Layers: 2, Attention: own, Cross: spec(t, crossSpecs[i%len(crossSpecs)])}
			}
			tokens := 1 + random.IntN(3)
			t.Run(fmt.Sprintf("%d_%s_decoder_%t_steps_of_%d", i, config.NormOrder, config.Decoder != nil, tokens), func(t *testing.T) {
				stepwise(t, config, tokens)
			})
		}
	}
}

func stepwise(t *testing.T, config transformer.Config, tokens int) {
	const batch, length, memoryLength = 2, 9, 5
	m, err := transformer.New(config, 4)
	if err != nil {
		t.Fatal(err)
	}
	slots, err := config.Slots(length, tokens)
	if err != nil {
		t.Fatal(err)
	}
	ids := func(from, to int) *tensors.Tensor {
		var flat []int32
		for b := range batch {
			for i := from; i < to; i++ {
				flat = append(flat, int32(1+(b*31+i*17)%49))
			}
		}
		return tensors.FromFlatDataAndDimensions(flat, batch, to-from)
	}
	source := ids(100, 100+memoryLength)
	mask := tensors.FromValue([][]int32{{1, 1, 1, 1, 1}, {1, 1, 1, 0, 0}})
	// begin computes one pass, and what steps begin with: empty caches, and the memory.
	begin, err := model.CallOnceN(gxtest.Backend(t), m.Store, func(scope *model.Scope, in []*Node) []*Node {
		w := elastic.WeightsOf(scope.Store(), in[0].Graph())
		var out transformer.Output
		var memory transformer.Memory
		if config.Decoder == nil {
			out = config.Encode(w, transformer.Inputs{IDs: in[0]}, nil)
		} else {
			memory = config.Remember(w, config.Encode(w, transformer.Inputs{IDs: in[1], Mask: in[2]}, nil).Hidden, in[2])
			out = config.Decode(w, transformer.Inputs{IDs: in[0]}, memory, nil)
		}
		nodes := []*Node{config.HeadLogits(w, out.Hidden, nil)}
		for _, cache := range config.NewCaches(in[0].Graph(), dtypes.Float32, batch, slots) {
			nodes = append(nodes, cache.Keys, cache.Values, cache.Positions)
		}
		for i := range memory.Keys {
			nodes = append(nodes, memory.Keys[i], memory.Values[i])
		}
		return nodes
	}, ids(0, length), source, mask)
	if err != nil {
		t.Fatal(err)
	}
	whole, state, memory := tensors.MustCopyFlatData[float32](begin[0]), begin[1:1+3*2], begin[1+3*2:]
	step, err := model.NewExec(gxtest.Backend(t), m.Store, func(scope *model.Scope, in []*Node) []*Node {
		w := elastic.WeightsOf(scope.Store(), in[0].Graph())
		memory := transformer.Memory{Mask: in[2]}
		for i := 3 + 3*2; i < len(in); i += 2 {
			memory.Keys, memory.Values = append(memory.Keys, in[i]), append(memory.Values, in[i+1])
		}
		var caches []attention.Cache
		for i := 3; i < 3+3*2; i += 3 {
			caches = append(caches, attention.Cache{Keys: in[i], Values: in[i+1], Positions: in[i+2]})
		}
		hidden, caches := config.Step(w, in[0], in[1], caches, memory)
		nodes := []*Node{config.HeadLogits(w, hidden, nil)}
		for _, cache := range caches {
			nodes = append(nodes, cache.Keys, cache.Values, cache.Positions)
		}
		return nodes
	})
	if err != nil {
		t.Fatal(err)
	}
	defer step.Finalize()
	for from := 0; from < length; from += tokens {
		to := min(from+tokens, length)
		args := []any{ids(from, to), int32(from), mask}
		for _, tensor := range append(state[:len(state):len(state)], memory...) {
			args = append(args, tensor)
		}
		out, err := step.Call(args...)
		if err != nil {
			t.Fatal(err)
		}
		state = out[1:]
		var want []float32
		for b := range batch {
			want = append(want, whole[(b*length+from)*config.VocabSize:(b*length+to)*config.VocabSize]...)
		}
		gxtest.Close(t, out[0], want, 1e-5)
	}
}

func TestWhatCannotBeComputedInSteps(t *testing.T) {
	config := small()
	if _, err := config.Slots(5, 1); err == nil || !strings.Contains(err.Error(), "attention.mask: a cache needs a mask that hides later keys") {
		t.Errorf("an encoder: %v", err)
	}
	config.Attention = spec(t, causalSpecs[0])
	if slots, err := config.Slots(5, 1); err != nil || slots != 5 {
		t.Errorf("%d slots, %v; want 5", slots, err)
	}
	if _, err := config.Slots(50, 1); err == nil || !strings.Contains(err.Error(), "the model has positions for 12") {
		t.Errorf("a text that is too long: %v", err)
	}
	config.Depth = &transformer.Depth{Kind: transformer.ACT}
	if _, err := config.Slots(5, 1); err == nil || !strings.Contains(err.Error(), "not computed step by step") {
		t.Errorf("adaptive computation time: %v", err)
	}
}
