package attention_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/attention/simplex"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
)

// goldenCase is an entry of the manifest.
type goldenCase struct {
	Name    string             `json:"name"`
	Group   string             `json:"group"`
	File    string             `json:"file"`
	Formula string             `json:"formula"`
	Params  map[string]float64 `json:"params"`
	Atol    struct {
		Out  float64 `json:"out"`
		Grad float64 `json:"grad"`
	} `json:"atol"`
	Tensors map[string]struct {
		Role  string `json:"role"`
		Shape []int  `json:"shape"`
	} `json:"tensors"`
}

// int returns a parameter as a whole number.
func (c goldenCase) int(name string) int { return int(c.Params[name]) }

// has tells whether the case has a tensor.
func (c goldenCase) has(name string) bool { _, ok := c.Tensors[name]; return ok }

// heads returns query and key heads of the case's vectors.
func (c goldenCase) heads() (heads, kv int) {
	for _, q := range []string{"in.q", "in.q_new"} {
		if t, ok := c.Tensors[q]; ok {
			if k, ok := c.Tensors["in.k"]; ok {
				return t.Shape[1], k.Shape[1]
			}
		}
	}
	return c.int("H"), c.int("H")
}

// nodes are the case's inputs and constants while a graph is built.
type nodes map[string]*Node

// recipe is how a case is computed.
type recipe struct {
	spec attention.Spec
	// weights maps the layer's variables to inputs of the case.
	weights map[string]string
	// input completes the input of the layer.
	input func(n nodes) attention.Inputs
	// more adds outputs beside y and w.
	more func(n nodes, r attention.Result, out nodes)
	// build replaces the call of Attend.
	build func(w elastic.Weights, n nodes) nodes
}

// recipes says for each case what it is in our terms.
var recipes = map[string]func(c goldenCase) recipe{
	"softmax_self":           func(goldenCase) recipe { return recipe{} },
	"softmax_self_f64":       func(goldenCase) recipe { return recipe{} },
	"extreme_large_logits":   func(goldenCase) recipe { return recipe{} },
	"extreme_tiny":           func(goldenCase) recipe { return recipe{} },
	"softmax_cross_padding":  func(goldenCase) recipe { return recipe{input: keyMask} },
	"mask_random_per_head":   func(goldenCase) recipe { return recipe{input: givenMask} },
	"mask_fully_masked_rows": func(goldenCase) recipe { return recipe{input: givenMask} },
	"mask_causal":            masked(func(goldenCase) attention.Mask { return attention.Causal{} }),
	"gqa":                    masked(func(goldenCase) attention.Mask { return attention.Causal{} }),
	"mqa":                    masked(func(goldenCase) attention.Mask { return attention.Causal{} }),
	"blockwise_long_causal":  masked(func(goldenCase) attention.Mask { return attention.Causal{} }),
	"mask_sliding_causal":    masked(func(c goldenCase) attention.Mask { return attention.Window{Size: c.int("window")} }),
	"mask_sliding_bidir":     masked(func(c goldenCase) attention.Mask { return attention.Band{Radius: c.int("window")} }),
	"mask_prefix_lm":         masked(func(c goldenCase) attention.Mask { return attention.Prefix{Length: c.int("prefix")} }),
	"mask_dilated":           masked(func(c goldenCase) attention.Mask { return attention.Dilated{Size: c.int("window"), Step: 2} }),
	"mask_sink_window": masked(func(c goldenCase) attention.Mask {
		return attention.SinkWindow{Size: c.int("window"), Sinks: c.int("nsink")}
	}),
	"mask_chunked_local": masked(func(c goldenCase) attention.Mask {
		return attention.All{attention.Chunk{Size: c.int("window")}, attention.Causal{}}
	}),
	"mask_document": func(c goldenCase) recipe {
		return recipe{
			spec: attention.Spec{Mask: attention.All{attention.Document{}, attention.Causal{}}},
			input: func(n nodes) attention.Inputs {
				rows := make([][]int32, c.int("B"))
				for b := range rows {
					for i := range c.int("L") {
						rows[b] = append(rows[b], int32(1+i/(c.int("doc")+b)))
					}
				}
				documents := Const(n["q"].Graph(), rows)
				return attention.Inputs{QueryDocuments: documents, KeyDocuments: documents}
			},
		}
	},

	"alibi_causal": func(goldenCase) recipe {
		return recipe{spec: attention.Spec{Mask: attention.Causal{}, Positions: []attention.Score{attention.ALiBi{}}}}
	},
	"alibi_symmetric_learned": func(goldenCase) recipe {
		return recipe{
			spec:    attention.Spec{Positions: []attention.Score{attention.ALiBi{Learned: true}}},
			weights: map[string]string{"alibi/slopes": "slopes"},
		}
	},
	"rope_half":        rotary(func(goldenCase) attention.Rotary { return attention.Rotary{} }),
	"rope_interleaved": rotary(func(goldenCase) attention.Rotary { return attention.Rotary{Interleaved: true} }),
	"rope_partial":     rotary(func(c goldenCase) attention.Rotary { return attention.Rotary{Width: c.int("D") / 2} }),
	"t5_bias_bidirectional": func(c goldenCase) recipe {
		// The case numbers queries and keys from 0, whatever their lengths.
		return recipe{
			spec: attention.Spec{Scale: 1, Positions: []attention.Score{
				attention.T5Bias{Buckets: c.int("t5_buckets"), MaxDistance: c.int("t5_max"), Bidirectional: true}}},
			weights: map[string]string{"t5_bias/table": "bias_table"},
			input: func(n nodes) attention.Inputs {
				return attention.Inputs{QueryPositions: numbered(n["q"], 2, 0), KeyPositions: numbered(n["k"], 2, 0)}
			},
		}
	},
	"t5_bias_causal": func(c goldenCase) recipe {
		return recipe{
			spec: attention.Spec{Scale: 1, Mask: attention.Causal{}, Positions: []attention.Score{
				attention.T5Bias{Buckets: c.int("t5_buckets"), MaxDistance: c.int("t5_max")}}},
			weights: map[string]string{"t5_bias/table": "bias_table"},
		}
	},
	"shaw_relative_keys": func(c goldenCase) recipe {
		return recipe{
			spec:    attention.Spec{Positions: []attention.Score{attention.ShawBias{Radius: c.int("shaw_r")}}},
			weights: map[string]string{"shaw_bias/table": "relk"},
		}
	},

	"softcap_tanh": func(c goldenCase) recipe {
		return recipe{spec: attention.Spec{Mask: attention.Causal{}, Scores: []attention.Score{attention.Softcap{Limit: c.Params["cap"]}}}}
	},
	"temperature_per_head": func(goldenCase) recipe {
		return recipe{
			spec:    attention.Spec{Scores: []attention.Score{attention.Temperature{Learned: true}}},
			weights: map[string]string{"temperature/log_scale": "log_temp"},
		}
	},
	"ssmax_causal": func(goldenCase) recipe {
		return recipe{
			spec:    attention.Spec{Mask: attention.Causal{}, Scores: []attention.Score{attention.SSMax{}}},
			weights: map[string]string{"ssmax/scale": "ss_scale", "ssmax/bias": "ss_bias"},
		}
	},
	"qk_l2norm": func(goldenCase) recipe {
		return recipe{
			spec:    attention.Spec{Scale: 1, QKNorm: &attention.QKNorm{Norm: "l2", Gain: 6}},
			weights: map[string]string{"qk_norm/gain": "g"},
		}
	},
	"qk_rmsnorm": func(goldenCase) recipe {
		return recipe{
			spec:    attention.Spec{Mask: attention.Causal{}, QKNorm: &attention.QKNorm{Norm: "rms"}},
			weights: map[string]string{"qk_norm/query": "wq", "qk_norm/key": "wk"},
		}
	},
	"talking_heads": func(goldenCase) recipe {
		return recipe{
			spec:    attention.Spec{Scores: []attention.Score{attention.TalkingHeads{}}},
			weights: map[string]string{"talking_heads/before": "pre", "talking_heads/after": "post"},
		}
	},
	"selective_attention": func(goldenCase) recipe {
		return recipe{spec: attention.Spec{Mask: attention.Causal{}, Scores: []attention.Score{attention.Selective{}}}}
	},

	"sparsemax": func(goldenCase) recipe { return recipe{spec: attention.Spec{Normalizer: attention.Sparsemax{}}} },
	"entmax15_causal": func(goldenCase) recipe {
		return recipe{spec: attention.Spec{Mask: attention.Causal{}, Normalizer: attention.Entmax{}}}
	},
	"entmax_alpha_learned": func(goldenCase) recipe {
		return recipe{
			spec:    attention.Spec{Normalizer: attention.Entmax{Learned: true}},
			weights: map[string]string{"entmax/alpha": "a"},
		}
	},
	"entmax_alpha_rows": func(c goldenCase) recipe {
		return recipe{build: func(_ elastic.Weights, n nodes) nodes {
			var rows []*Node
			for i, alpha := range constant(c, "alpha") {
				rows = append(rows, simplex.Entmax(Slice(n["x"], AxisElem(i)), nil, alpha))
			}
			return nodes{"p": Concatenate(rows, 0)}
		}}
	},
	"sigmoid_attention": func(c goldenCase) recipe {
		return recipe{
			spec:    attention.Spec{Normalizer: attention.ElementSigmoid{Keys: c.int("L")}},
			weights: map[string]string{"sigmoid/bias": "b"},
		}
	},
	"softmax_off_by_one": func(goldenCase) recipe {
		return recipe{spec: attention.Spec{Mask: attention.Causal{}, Normalizer: attention.OffByOne{}}}
	},
	"learned_sinks": func(goldenCase) recipe {
		return recipe{
			spec:    attention.Spec{Mask: attention.Causal{}, Normalizer: attention.Sink{}},
			weights: map[string]string{"sink/logit": "sink"},
		}
	},
	"topk_softmax": func(c goldenCase) recipe {
		return recipe{spec: attention.Spec{Normalizer: attention.TopKeys{Keys: c.int("topk")}}}
	},
	"linear_attention": func(goldenCase) recipe { return recipe{spec: attention.Spec{Normalizer: attention.Linear{}}} },
	"linear_attention_causal": func(goldenCase) recipe {
		return recipe{spec: attention.Spec{Mask: attention.Causal{}, Normalizer: attention.Linear{}}}
	},

	"adaptive_span": func(c goldenCase) recipe {
		return recipe{
			spec:    attention.Spec{Mask: attention.Causal{}, Span: &attention.Span{Max: c.int("L"), Ramp: c.int("ramp")}},
			weights: map[string]string{"span/z": "z"},
			more:    func(_ nodes, r attention.Result, out nodes) { out["mean_span"] = r.Losses["span"] },
		}
	},
	"head_gates": func(goldenCase) recipe {
		return recipe{
			spec:    attention.Spec{Gates: []attention.Gate{attention.HeadGate{}}},
			weights: map[string]string{"head_gate/logit": "g"},
		}
	},
	"hard_concrete_head_gates": func(c goldenCase) recipe {
		// The noise is given, so the gate is applied by hand; the penalty comes from the layer.
		h, _ := c.heads()
		open, gated := attention.Spec{Heads: h}, attention.Spec{Heads: h, Gates: []attention.Gate{attention.HardConcrete{}}}
		return recipe{
			spec:    gated,
			weights: map[string]string{"hard_concrete/logit": "a"},
			build: func(w elastic.Weights, n nodes) nodes {
				gate := attention.HardConcreteGate(n["a"], n["u"])
				q, k, v := swap(n["q"]), swap(n["k"]), swap(n["v"])
				y := attention.Attend(open, w, q, k, v, attention.Inputs{}).Output
				l0 := attention.Attend(gated, w, q, k, v, attention.Inputs{}).Losses["hard_concrete"]
				return nodes{"y": swap(Mul(y, InsertAxes(gate, 0, 0, -1))), "gate": gate, "l0": l0}
			},
		}
	},
	"gated_output": func(goldenCase) recipe {
		return recipe{
			spec:    attention.Spec{Mask: attention.Causal{}, Gates: []attention.Gate{attention.OutputGate{}}},
			weights: map[string]string{"output_gate/weights": "wg"},
		}
	},
	"differential_attention": func(c goldenCase) recipe {
		return recipe{
			spec: attention.Spec{Mask: attention.Causal{}, Differential: &attention.Differential{Lambda: c.Params["lam_init"]}},
			weights: map[string]string{
				"differential/query_1": "lq1", "differential/key_1": "lk1", "differential/query_2": "lq2", "differential/key_2": "lk2",
				"differential/scale": "subln",
			},
		}
	},
	"mixture_of_heads": func(c goldenCase) recipe {
		return recipe{
			spec:    attention.Spec{Gates: []attention.Gate{attention.MixtureOfHeads{Keep: c.int("heads_kept")}}},
			weights: map[string]string{"mixture_of_heads/weights": "wr"},
			more: func(n nodes, r attention.Result, out nodes) {
				out["y"] = Einsum("blhd,hdm->blm", r.Output, n["wo"])
				out["balance"] = r.Losses["mixture_of_heads"]
			},
		}
	},

	"mha_layer": func(c goldenCase) recipe {
		h := c.int("H")
		weights := map[string]string{}
		for letter, name := range map[string]string{"q": "query", "k": "key", "v": "value", "o": "output"} {
			weights[name+"/weights"], weights[name+"/bias"] = "w"+letter, "b"+letter
		}
		return recipe{
			spec: attention.Spec{Heads: h}, weights: weights,
			build: func(w elastic.Weights, n nodes) nodes {
				r := attention.Self(attention.Spec{Heads: h}, w, n["x"], keyMask(n))
				return nodes{"y": r.Output, "w": r.Weights}
			},
		}
	},
	"kv_cache_decode": func(c goldenCase) recipe {
		h, kv := c.heads()
		spec := attention.Spec{Heads: h, KVHeads: kv, Mask: attention.Causal{}, Rotary: &attention.Rotary{}}
		return recipe{build: func(w elastic.Weights, n nodes) nodes {
			q, k, v := swap(n["q_new"]), swap(n["k"]), swap(n["v"])
			return nodes{
				"y":       swap(attention.Attend(spec, w, q, k, v, attention.Inputs{}).Output),
				"k_cache": swap(spec.Rotary.Apply(k, numbered(n["k"], 2, 0))),
			}
		}}
	},
	"blockwise_merge": func(c goldenCase) recipe {
		h, _ := c.heads()
		spec := attention.Spec{Heads: h, Execution: attention.Execution{Kind: attention.Blockwise, Block: 4}}
		return recipe{build: func(w elastic.Weights, n nodes) nodes {
			part := func(low, high int) attention.Result {
				cut := func(x *Node) *Node { return swap(SliceAxis(x, 2, AxisRange(low, high))) }
				return attention.Attend(spec, w, swap(n["q"]), cut(n["k"]), cut(n["v"]), attention.Inputs{})
			}
			first, second := part(0, c.int("cut")), part(c.int("cut"), c.int("L"))
			whole := attention.Merge(first, second)
			return nodes{
				"o_0": swap(first.Output), "o_1": swap(second.Output), "y": swap(whole.Output),
				"lse_0": first.LogSum, "lse_1": second.LogSum, "lse": whole.LogSum,
			}
		}}
	},
	"dropout_given_mask": func(c goldenCase) recipe {
		h, _ := c.heads()
		return recipe{build: func(w elastic.Weights, n nodes) nodes {
			weights := attention.Attend(attention.Spec{Heads: h}, w, swap(n["q"]), swap(n["k"]), swap(n["v"]), attention.Inputs{}).Weights
			weights = MulScalar(Mul(weights, n["keep"]), 1/0.8)
			return nodes{"w": weights, "y": Einsum("bhqk,bhkd->bhqd", weights, n["v"])}
		}}
	},
	"ties": func(c goldenCase) recipe {
		h := c.int("H")
		return recipe{build: func(w elastic.Weights, n nodes) nodes {
			dims := n["v"].Shape().Dimensions
			keys := BroadcastToDims(n["k0"], dims[0], dims[1], dims[2], n["k0"].Shape().Dimensions[3])
			out := nodes{}
			for name, normalizer := range map[string]attention.Normalizer{"y": nil, "ysparse": attention.Sparsemax{}, "y15": attention.Entmax{}} {
				spec := attention.Spec{Heads: h, Normalizer: normalizer}
				out[name] = swap(attention.Attend(spec, w, swap(n["q"]), swap(keys), swap(n["v"]), attention.Inputs{}).Output)
			}
			return out
		}}
	},

	"compose_rms_rope_softcap_window_sink_gqa": func(c goldenCase) recipe {
		return recipe{
			spec: attention.Spec{
				QKNorm: &attention.QKNorm{Norm: "rms"}, Rotary: &attention.Rotary{}, Scores: []attention.Score{attention.Softcap{Limit: c.Params["cap"]}},
				Mask: attention.Window{Size: c.int("window")}, Normalizer: attention.Sink{},
			},
			weights: map[string]string{"qk_norm/query": "wq", "qk_norm/key": "wk", "sink/logit": "sink"},
		}
	},
	"compose_temp_alibi_entmax_span_gate": func(c goldenCase) recipe {
		return recipe{
			spec: attention.Spec{
				Scores: []attention.Score{attention.Temperature{Learned: true}}, Positions: []attention.Score{attention.ALiBi{}},
				Mask: attention.Causal{}, Normalizer: attention.Entmax{Learned: true},
				Span: &attention.Span{Max: c.int("L"), Ramp: c.int("ramp")}, Gates: []attention.Gate{attention.HeadGate{}},
			},
			weights: map[string]string{"temperature/log_scale": "log_temp", "entmax/alpha": "a", "span/z": "z", "head_gate/logit": "g"},
		}
	},
}

func masked(mask func(c goldenCase) attention.Mask) func(goldenCase) recipe {
	return func(c goldenCase) recipe { return recipe{spec: attention.Spec{Mask: mask(c)}} }
}

func rotary(of func(c goldenCase) attention.Rotary) func(goldenCase) recipe {
	return func(c goldenCase) recipe {
		r := of(c)
		r.Base = c.Params["rope_base"]
		positions := func(n nodes) *Node { return numbered(n["q"], 2, c.int("offset")) }
		return recipe{
			spec: attention.Spec{Mask: attention.Causal{}, Rotary: &r},
			input: func(n nodes) attention.Inputs {
				return attention.Inputs{QueryPositions: positions(n), KeyPositions: positions(n)}
			},
			more: func(n nodes, _ attention.Result, out nodes) { out["qrot"] = swap(r.Apply(swap(n["q"]), positions(n))) },
		}
	}
}

func givenMask(n nodes) attention.Inputs { return attention.Inputs{Mask: n["mask"]} }

func keyMask(n nodes) attention.Inputs {
	return attention.Inputs{Mask: InsertAxes(n["key_mask"], 1, 1)}
}

// swap exchanges the axes of heads and length.
func swap(n *Node) *Node { return TransposeAllDims(n, 0, 2, 1, 3) }

// numbered returns first, first+1, … along an axis of n, as positions [1, length].
func numbered(n *Node, axis, first int) *Node {
	list := make([]int32, n.Shape().Dimensions[axis])
	for i := range list {
		list[i] = int32(first + i)
	}
	return Const(n.Graph(), [][]int32{list})
}

// elsewhere lists the cases that other packages' tests compute.
var elsewhere = []string{
	"seed_pooling_scalar", "seed_pooling_rows", "seed_pooling_tokens", "integrated_gradients_pooling", "rollout_entropy", "act_halting",
}

// folder is where the cases lie; constants are read from there while graphs are built.
var folder string

func constant(c goldenCase, name string) []float64 {
	file, err := safetensors.Open(filepath.Join(folder, c.File))
	if err != nil {
		panic(err)
	}
	defer file.Close()
	value, err := file.Tensor("const." + name)
	if err != nil {
		panic(err)
	}
	wide := []float64{}
	for _, v := range tensors.MustCopyFlatData[float32](value) {
		wide = append(wide, math.Round(float64(v)*1e6)/1e6) // what was written as 1.05 is 1.05
	}
	return wide
}

// TestGoldenAttention computes every case of the collection, outputs and gradients with
// respect to all inputs and weights.
func TestGoldenAttention(t *testing.T) {
	folder = golden.Dir(t, "attention")
	for _, c := range golden.Cases[goldenCase](t, folder) {
		if slices.Contains(elsewhere, c.Name) {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			of, ok := recipes[c.Name]
			if !ok {
				t.Fatalf("case is not known: %s", c.Formula)
			}
			compute(t, c, of(c))
		})
	}
}

func compute(t *testing.T, c goldenCase, r recipe) {
	file, err := safetensors.Open(filepath.Join(folder, c.File))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	values := map[string]*tensors.Tensor{}
	for name := range c.Tensors {
		if values[name], err = file.Tensor(name); err != nil {
			t.Fatal(err)
		}
	}

	if r.spec.Heads == 0 {
		r.spec.Heads, r.spec.KVHeads = c.heads()
	}
	if err := checkWeights(c, r); err != nil {
		t.Fatal(err)
	}
	store := model.NewStore()
	places := map[string]string{} // path by input
	for path, input := range r.weights {
		places[input] = "/" + path
		if _, err := store.CreateVariable("/"+path, values["in."+input]); err != nil {
			t.Fatal(err)
		}
	}
	var names, inputs, outputs []string
	var args []any
	for _, name := range slices.Sorted(maps.Keys(values)) {
		kind, short, _ := strings.Cut(name, ".")
		switch {
		case kind == "in":
			inputs = append(inputs, short)
			if _, ok := places[short]; ok {
				continue
			}
		case kind == "out":
			outputs = append(outputs, short)
			continue
		case kind == "grad":
			continue
		}
		names, args = append(names, name), append(args, values[name])
	}

	var used []string // kinds of execution
	exec, err := model.NewExec(gxtest.Backend(t), store, func(scope *model.Scope, in []*Node) []*Node {
		g := in[0].Graph()
		w := elastic.WeightsOf(scope.Store(), g)
		n, cotangents := nodes{}, nodes{}
		for i, name := range names {
			kind, short, _ := strings.Cut(name, ".")
			switch {
			case kind == "ct":
				cotangents[short] = in[i]
			case in[i].DType() == dtypes.Uint8:
				n[short] = NotEqual(in[i], ZerosLike(in[i]))
			default:
				n[short] = in[i]
			}
		}
		for input, path := range places {
			n[input] = scope.Store().GetVariable(path).NodeValue(g)
		}
		var wrt []*Node
		for _, input := range inputs {
			wrt = append(wrt, n[input])
		}
		results := []*Node{}
		for _, execution := range executions(t, c, r) {
			r.spec.Execution = execution
			var out nodes
			if err := exceptions.TryCatch[error](func() { out = outputsOf(r, w, n) }); err != nil {
				if execution.Kind != "" && strings.Contains(err.Error(), "cannot compute this: ") {
					continue
				}
				panic(err)
			}
			used = append(used, execution.Kind)
			loss := ScalarZero(g, in[0].DType())
			for _, name := range outputs {
				if out[name] == nil {
					t.Errorf("output %s was not computed", name)
					return in
				}
				results = append(results, out[name])
				if cotangents[name] != nil {
					loss = Add(ConvertDType(loss, out[name].DType()), ReduceAllSum(Mul(cotangents[name], out[name])))
				}
			}
			results = append(results, Gradient(loss, wrt...)...)
		}
		return results
	})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	results, err := exec.Call(args...)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range used {
		for i, name := range outputs {
			t.Run(path.Join(kind, "out."+name), func(t *testing.T) { gxtest.Close(t, results[i], values["out."+name], c.Atol.Out) })
		}
		for i, name := range inputs {
			if c.has("grad." + name) {
				t.Run(path.Join(kind, "grad."+name), func(t *testing.T) {
					gxtest.Close(t, results[len(outputs)+i], values["grad."+name], c.Atol.Grad*looser(c, kind))
				})
			}
		}
		results = results[len(outputs)+len(inputs):]
	}
	if r.build == nil {
		checkExecutions(t, c, used)
	}
}

// executions lists how a case is computed: as it is, and by each kind of execution in three blocks
// (two on XLA, which compiles for long), of which the last is not full. What a recipe builds by hand
// is computed once.
func executions(t *testing.T, c goldenCase, r recipe) []attention.Execution {
	list := []attention.Execution{{}}
	if r.build != nil {
		return list
	}
	blocks := 3
	if gxtest.Backend(t).String() != "go" {
		blocks = 2
	}
	for _, kind := range attention.Executions() {
		if kind != attention.Auto && kind != attention.Naive { // what short texts get
			list = append(list, attention.Execution{Kind: kind, Block: c.Tensors["in.k"].Shape[2]/blocks + 1})
		}
	}
	return list
}

// looser is by how much a kind of execution may be further off than the matrix.
func looser(c goldenCase, kind string) float64 {
	if c.Name == "extreme_large_logits" && (kind == attention.Blockwise || kind == attention.Core) {
		return 10 // where a is 1, its gradient is a difference of equal numbers, times keys of 30
	}
	return 1
}

// rowsAtOnce lists the cases that need all keys of a row at once, or their positions, so that
// blockwise execution refuses them; all but the last group are computed in chunks.
var rowsAtOnce = []string{
	"shaw_relative_keys", "talking_heads", "sparsemax", "entmax15_causal", "entmax_alpha_learned", "topk_softmax",
	"compose_temp_alibi_entmax_span_gate",
	"linear_attention", "linear_attention_causal", // recurrent
	"t5_bias_bidirectional", // its positions are given
	"selective_attention",   // needs all rows, too
}

// checkExecutions fails if a kind of execution has refused a case that it should compute, or has
// computed one of which it is known that it cannot.
func checkExecutions(t *testing.T, c goldenCase, used []string) {
	if got, want := slices.Contains(used, attention.Blockwise), !slices.Contains(rowsAtOnce, c.Name); got != want {
		t.Errorf("computed blockwise: %t, want %t", got, want)
	}
	if got, want := slices.Contains(used, attention.Chunked), c.Name != "selective_attention"; got != want {
		t.Errorf("computed in chunks: %t, want %t", got, want)
	}
	if got, want := slices.Contains(used, attention.Recurrent), strings.HasPrefix(c.Name, "linear_attention"); got != want {
		t.Errorf("computed recurrently: %t, want %t", got, want)
	}
	windows := []string{"mask_sliding_causal", "mask_sliding_bidir", "mask_dilated", "mask_chunked_local", "compose_rms_rope_softcap_window_sink_gqa"}
	if got, want := slices.Contains(used, attention.Windowed), slices.Contains(windows, c.Name); got != want {
		t.Errorf("computed windowed: %t, want %t", got, want)
	}
	biases := slices.Contains([]string{"alibi_causal", "alibi_symmetric_learned", "t5_bias_causal", "t5_bias_bidirectional", "shaw_relative_keys"}, c.Name)
	if slices.Contains(used, attention.Core) && biases {
		t.Error("GoMLX's core took a spec with a bias, whose gradient it may lose")
	}
	if !slices.Contains(used, attention.Core) && (strings.HasPrefix(c.Name, "mask_") || c.Name == "softcap_tanh" || c.Name == "gqa") {
		t.Error("GoMLX's core did not take a case of plain softmax")
	}
}

func outputsOf(r recipe, w elastic.Weights, n nodes) nodes {
	if r.build != nil {
		return r.build(w, n)
	}
	in := attention.Inputs{}
	if r.input != nil {
		in = r.input(n)
	}
	in.X = n["x"]
	result := attention.Attend(r.spec, w, swap(n["q"]), swap(n["k"]), swap(n["v"]), in)
	out := nodes{"y": swap(result.Output), "w": result.Weights}
	if r.more != nil {
		r.more(n, result, out)
	}
	return out
}

// checkWeights holds the spec against the case: it is valid, survives JSON, and asks for
// weights of the shapes that the case has.
func checkWeights(c goldenCase, r recipe) error {
	if r.build != nil && r.spec.Heads == 0 || len(r.weights) == 0 {
		return nil
	}
	content, err := json.Marshal(r.spec)
	if err != nil {
		return err
	}
	var again attention.Spec
	if err := json.Unmarshal(content, &again); err != nil {
		return err
	}
	if changes, err := attention.Diff(r.spec, again); err != nil || len(changes) > 0 {
		return fmt.Errorf("%s: reading it again gives %v, %v", content, changes, err)
	}
	sized := r.spec
	if q, ok := c.Tensors["in.q"]; ok {
		sized.HeadDim, sized.ValueDim = q.Shape[3], c.Tensors["in.v"].Shape[3]
		if sized.Differential != nil {
			sized.HeadDim /= 2
		}
	}
	hidden := c.int("M")
	if hidden == 0 {
		hidden = c.int("H") * c.int("D")
	}
	if err := sized.Validate(hidden); err != nil {
		return err
	}
	for _, v := range sized.Variables(hidden, 0.02) {
		input, ok := r.weights[v.Path]
		if !ok {
			continue
		}
		if got := c.Tensors["in."+input].Shape; !slices.Equal(got, v.Shape) {
			return fmt.Errorf("variable %s has shape %v, in.%s %v", v.Path, v.Shape, input, got)
		}
	}
	return nil
}
