package attention_test

import (
	"encoding/json"
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
)

// TestStepsEqualTheWholePass: for random specs that a cache can serve, steps of several
// sizes over more than two windows give what one pass over the whole text gives.
func TestStepsEqualTheWholePass(t *testing.T) {
	want := 200
	if gxtest.Backend(t).String() != "go" {
		want = 25 // XLA compiles each spec for half a second
	}
	random := rand.New(rand.NewPCG(5, 6))
	tested, rings := 0, 0
	for tested < want {
		s := randomSpec(random)
		s.Dropout = 0
		if s.Validate(16) != nil {
			continue
		}
		const length = 11
		tokens := 1 + random.IntN(3)
		slots, err := s.Slots(length, tokens)
		if err != nil {
			continue
		}
		tested++
		if slots < length {
			rings++
		}
		stepwise(t, s, length, tokens, slots)
		if t.Failed() {
			content, _ := json.Marshal(s)
			t.Fatalf("spec %s, steps of %d, %d slots", content, tokens, slots)
		}
	}
	if rings < want/10 {
		t.Errorf("only %d of %d caches were rings", rings, tested)
	}
}

func stepwise(t *testing.T, s attention.Spec, length, tokens, slots int) {
	const batch, hidden = 2, 16
	store, err := elastic.NewStore(elastic.Under("", noisy(s.Variables(hidden, 0.3))), 9)
	if err != nil {
		t.Fatal(err)
	}
	flat := ramp(batch * length * hidden)
	at := func(from, to int) *tensors.Tensor { // tokens from..to of each row
		var part []float32
		for b := range batch {
			part = append(part, flat[(b*length+from)*hidden:(b*length+to)*hidden]...)
		}
		return tensors.FromFlatDataAndDimensions(part, batch, to-from, hidden)
	}
	tasks := []int32{0, 2}
	whole, err := model.CallOnce(gxtest.Backend(t), store, func(scope *model.Scope, x, tasks *Node) *Node {
		return attention.Self(s, elastic.WeightsOf(scope.Store(), x.Graph()), x, attention.Inputs{Tasks: tasks}).Output
	}, at(0, length), tasks)
	if err != nil {
		t.Fatal(err)
	}
	step, err := model.NewExec(gxtest.Backend(t), store, func(scope *model.Scope, in []*Node) []*Node {
		cache := attention.Cache{Keys: in[3], Values: in[4], Positions: in[5]}
		out, cache := attention.Step(s, elastic.WeightsOf(scope.Store(), in[0].Graph()), in[0], cache, in[1], attention.Inputs{Tasks: in[2]})
		return []*Node{out.Output, cache.Keys, cache.Values, cache.Positions}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer step.Finalize()
	empty, err := CallOnceN(gxtest.Backend(t), func(x *Node) (*Node, *Node, *Node) {
		cache := attention.NewCache(x.Graph(), dtypes.Float32, s, hidden, batch, slots)
		return cache.Keys, cache.Values, cache.Positions
	}, at(0, 1))
	if err != nil {
		t.Fatal(err)
	}
	keys, values, positions := empty[0], empty[1], empty[2]
	wide := tensors.MustCopyFlatData[float32](whole)
	for from := 0; from < length; from += tokens {
		to := min(from+tokens, length)
		out, err := step.Call(at(from, to), int32(from), tasks, keys, values, positions)
		if err != nil {
			t.Fatal(err)
		}
		keys, values, positions = out[1], out[2], out[3]
		var want []float32
		for b := range batch {
			want = append(want, wide[(b*length+from)*hidden:(b*length+to)*hidden]...)
		}
		gxtest.Close(t, out[0], want, 1e-5)
	}
}

// noisy lets no part begin where it changes nothing.
func noisy(list []elastic.Variable) []elastic.Variable {
	for i, v := range list {
		if v.Init.Normal == 0 {
			list[i].Init = elastic.Init{Normal: 0.4}
		}
	}
	return list
}

// TestStepGatesHeads: a step without heads gives the bias of the output, 0.
func TestStepGatesHeads(t *testing.T) {
	s := attention.Spec{Heads: 2, Mask: attention.Causal{}}
	store, err := elastic.NewStore(elastic.Under("", s.Variables(8, 0.3)), 9)
	if err != nil {
		t.Fatal(err)
	}
	out, err := model.CallOnce(gxtest.Backend(t), store, func(scope *model.Scope, x *Node) *Node {
		g := x.Graph()
		in := attention.Inputs{HeadGates: Const(g, [][]float32{{0, 0}})}
		r, _ := attention.Step(s, elastic.WeightsOf(scope.Store(), g), x, attention.NewCache(g, x.DType(), s, 8, 1, 4), Const(g, int32(0)), in)
		return r.Output
	}, tensors.FromFlatDataAndDimensions(ramp(16), 1, 2, 8))
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, out, make([]float32, 16), 0)
}

func TestSlots(t *testing.T) {
	for _, test := range []struct {
		spec  string
		slots int
		err   string
	}{
		{`{"heads": 4, "mask": "causal"}`, 100, ""},
		{`{"heads": 4, "mask": {"kind": "window", "size": 8}}`, 10, ""},
		{`{"heads": 4, "mask": {"kind": "dilated", "size": 4, "step": 2}}`, 9, ""},
		{`{"heads": 4, "mask": {"kind": "all", "of": ["causal", {"kind": "window", "size": 8}]}}`, 10, ""},
		{`{"heads": 4, "mask": {"kind": "any", "of": ["causal", {"kind": "window", "size": 8}]}}`, 100, ""},
		{`{"heads": 4, "mask": {"kind": "sink_window", "size": 8, "sinks": 2}}`, 100, ""},
		{`{"heads": 4, "mask": {"kind": "window", "size": 800}}`, 100, ""},
		{`{"heads": 4}`, 0, "attention.mask: a cache needs a mask that hides later keys"},
		{`{"heads": 4, "mask": {"kind": "prefix", "length": 3}}`, 0, "a cache needs a mask"},
		{`{"heads": 4, "mask": {"kind": "all", "of": ["causal", "document"]}}`, 0, "a cache holds one text a row"},
		{`{"heads": 4, "mask": "causal", "scores": ["selective"]}`, 0, "attention.scores.selective needs all rows at once"},
	} {
		var s attention.Spec
		if err := json.Unmarshal([]byte(test.spec), &s); err != nil {
			t.Fatal(err)
		}
		slots, err := s.Slots(100, 3)
		if slots != test.slots || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %d slots, error %v; want %d, %q", test.spec, slots, err, test.slots, test.err)
		}
	}
}
