package optim_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
)

// params are those of a small encoder.
var params = []elastic.Variable{
	{Path: "/embeddings/word", Shape: []int{5, 4}, Decay: true},
	{Path: "/layer_0/dense/weights", Shape: []int{4, 6}, Decay: true},
	{Path: "/layer_0/dense/bias", Shape: []int{6}},
	{Path: "/layer_1/dense/weights", Shape: []int{6, 3}, Decay: true},
	{Path: "/head/weights", Shape: []int{3, 2}, Decay: true},
	{Path: "/head/scale", Shape: []int{}},
}

// steps makes some updates with gradients that depend on parameters and update, and returns the
// parameters after each.
func steps(t *testing.T, config optim.Config, n int, scale float32) [][][]float32 {
	t.Helper()
	o, err := optim.New(config, params)
	if err != nil {
		t.Fatal(err)
	}
	k := len(params)
	exec, err := graph.NewExec(gxtest.Backend(t), func(in []*graph.Node) []*graph.Node {
		input := optim.Input{Number: in[0], Rate: in[1], Loss: in[2], Values: in[3 : 3+k], Slots: in[3+k:]}
		input.Key = graph.ConvertDType(graph.Concatenate([]*graph.Node{graph.Reshape(in[0], 1), graph.Reshape(in[0], 1)}, 0), dtypes.Uint32)
		for i, v := range input.Values {
			g := graph.MulScalar(graph.Add(v, graph.Sin(graph.AddScalar(graph.ConvertDType(graph.MulScalar(in[0], float64(i+1)), v.DType()), 0.3))), float64(scale))
			input.Gradients = append(input.Gradients, g)
		}
		if o.Perturbs() {
			moved := o.Perturb(input)
			for i := range moved {
				input.Gradients[i] = graph.Add(input.Gradients[i], graph.Sub(moved[i], input.Values[i]))
			}
		}
		values, slots, _ := o.Update(input)
		out := append(slices.Clone(values), slots...)
		if o.Averages() {
			out = append(out, o.Average(optim.Input{Number: in[0], Values: values, Slots: slots})...)
		}
		return out
	})
	if err != nil {
		t.Fatal(err)
	}
	state := []any{}
	starts := make([]*tensors.Tensor, k)
	for i, p := range params {
		starts[i] = filled(p.Shape, func(j int) float32 { return float32(j%5)*0.2 - 0.3 })
		state = append(state, starts[i])
	}
	for _, s := range o.Slots() {
		if s.Copy {
			state = append(state, starts[s.Of])
			continue
		}
		state = append(state, s.Tensor(0))
	}
	var trace [][][]float32
	for step := range n {
		out, err := exec.Call(append([]any{float64(step + 1), 0.01, float32(1)}, state...)...)
		if err != nil {
			t.Fatal(err)
		}
		var values [][]float32
		for i := range state {
			state[i] = out[i]
		}
		for _, v := range out {
			values = append(values, tensors.MustCopyFlatData[float32](v))
		}
		trace = append(trace, values)
	}
	return trace
}

func filled(shape []int, f func(i int) float32) *tensors.Tensor {
	size := 1
	for _, d := range shape {
		size *= d
	}
	data := make([]float32, size)
	for i := range data {
		data[i] = f(i)
	}
	return tensors.FromFlatDataAndDimensions(data, shape...)
}

// rules are all presets and transforms that can stand in the place of a rule.
var rules = []optim.Rule{
	optim.SGD{Momentum: 0.9, Nesterov: true, L2: 0.1}, optim.Signum{WeightDecay: 0.1}, optim.Lion{WeightDecay: 0.1}, optim.Adam{AMSGrad: true},
	optim.AdamW{WeightDecay: 0.1}, optim.NAdam{}, optim.RAdam{}, optim.Adamax{}, optim.AdaBelief{}, optim.Yogi{}, optim.QHAdam{}, optim.ADOPT{},
	optim.AdEMAMix{Warmup: 3}, optim.Adan{}, optim.MARS{}, optim.AdamP{WeightDecay: 0.1}, optim.StableAdamW{WeightDecay: 0.1}, optim.RMSprop{Centered: true, Momentum: 0.5},
	optim.Adagrad{}, optim.Adadelta{}, optim.Rprop{}, optim.SM3{}, optim.NovoGrad{WeightDecay: 0.1}, optim.Adafactor{WeightDecay: 0.1}, optim.CAME{WeightDecay: 0.1}, optim.LAMB{WeightDecay: 0.1}, optim.LAMB{WeightDecay: 0.1, PyTorchOptimizer: true},
	optim.LARS{WeightDecay: 0.1}, optim.Muon{WeightDecay: 0.1}, optim.Shampoo{Every: 2}, optim.SOAP{Every: 2, WeightDecay: 0.1}, optim.ScheduleFreeAdamW{WeightDecay: 0.1}, optim.ScheduleFreeSGD{}, optim.Prodigy{D0: 0.1, WeightDecay: 0.1}, optim.DAdaptAdam{D0: 0.1},
	optim.DAdaptSGD{D0: 0.1}, optim.DAdaptLion{D0: 0.1}, optim.DoWG{}, optim.DoG{Start: 0.1}, optim.MoMo{}, optim.Polyak{}, optim.COCOB{},
	optim.Chain{optim.Adam{}, optim.Hypergradient{Beta: 1e-3}}, optim.Chain{optim.AdamW{}, optim.Mechanic{Start: 0.1}},
}

var (
	before = []optim.Rule{nil, optim.ClipNorm{Limit: 1}, optim.ClipValue{Limit: 0.1}, optim.ClipRMS{Limit: 0.1}, optim.AGC{Limit: 0.1}, optim.Centralize{}, optim.SAM{}, optim.Noise{Eta: 0.01}}
	after  = []optim.Rule{nil, optim.EMA{Beta: 0.9}, optim.SWA{Start: 2}, optim.Lookahead{Every: 2}}
)

// TestPairs builds each rule with each clipping, averaging and split of the parameters, pairwise. All
// numbers stay finite and all parameters move.
func TestPairs(t *testing.T) {
	rank := 2
	splits := []func(optim.Rule) optim.Config{
		func(r optim.Rule) optim.Config { return optim.Config{Rule: r} },
		func(r optim.Rule) optim.Config {
			return optim.Config{Rule: r, Groups: []optim.Group{{Variables: []string{"/head/*"}, Rate: 3}}}
		},
		func(r optim.Rule) optim.Config {
			return optim.Config{Rule: optim.AdamW{}, LayerDecay: 0.8, Groups: []optim.Group{{Variables: []string{"*"}, Rank: &rank, Rule: r}}}
		},
	}
	for i, rule := range rules {
		choices := 8
		if gxtest.Backend(t).String() != "go" {
			choices = 1 // what a choice computes is the same graph; compiling all takes minutes
		}
		for j := range choices {
			chain := optim.Chain{rule}
			if b := before[(i+j)%len(before)]; b != nil {
				chain = append(optim.Chain{b}, chain...)
			}
			if a := after[(i/3+j)%len(after)]; a != nil {
				chain = append(chain, a)
			}
			config := splits[(i/2+j)%len(splits)](chain)
			name := fmt.Sprintf("%s/%d", rule.Kind(), j)
			t.Run(name, func(t *testing.T) {
				trace := steps(t, config, 4, 1)
				for p := range params {
					if reflect.DeepEqual(trace[0][p], trace[3][p]) {
						t.Errorf("%s does not move", params[p].Path)
					}
				}
				for _, values := range trace {
					for _, v := range values {
						for _, x := range v {
							if x-x != 0 {
								t.Fatalf("%g in parameters or state", x)
							}
						}
					}
				}
			})
		}
	}
}

// TestZeroGradients: without any gradient, from the first update on, all numbers stay finite.
func TestZeroGradients(t *testing.T) {
	chains := slices.Concat(rules, []optim.Rule{optim.Chain{optim.SGD{}, optim.Cautious{}}, optim.Chain{optim.SGD{}, optim.Hypergradient{Beta: 0.1, Multiplicative: true}}})
	for _, b := range slices.Concat(before[1:], after[1:]) {
		chains = append(chains, optim.Chain{b, optim.SGD{}})
	}
	for _, rule := range chains {
		if gxtest.Backend(t).String() != "go" && rule.Kind() == "shampoo" {
			continue // compiles for long, and has no division
		}
		for _, values := range steps(t, optim.Config{Rule: rule}, 3, 0) {
			for _, v := range values {
				if slices.ContainsFunc(v, func(x float32) bool { return x-x != 0 }) {
					t.Fatalf("%T: not finite: %v", rule, v)
				}
			}
		}
	}
}

// TestSWAEvery: also where one part of Every, times Every, is not 1 but for rounding.
func TestSWAEvery(t *testing.T) {
	const every = 49
	trace := steps(t, optim.Config{Rule: optim.Chain{optim.SGD{}, optim.SWA{Start: 1, Every: every}}}, every+1, 1)
	begin, end := trace[0][0], trace[every][0]
	mean := make([]float32, len(begin))
	for i := range mean {
		mean[i] = (begin[i] + end[i]) / 2
	}
	gxtest.Close(t, trace[every][len(params)], mean, 1e-6) // the first slot, of the first parameter
}

// TestRulesRoundTrip: each rule's JSON gives the rule again, and all registered kinds are covered.
func TestRulesRoundTrip(t *testing.T) {
	half := 0.5
	covered := map[string]bool{}
	for _, rule := range slices.Concat(rules, before[1:], after[1:], []optim.Rule{
		optim.Cautious{}, optim.Decay{Weight: 0.1}, optim.L2{Weight: 0.1}, optim.ProximalDecay{Weight: 0.1}, optim.Momentum{Beta: 0.9}, optim.Mean{Beta: 0.9},
		optim.SignOf{}, optim.TrustRatio{}, optim.ScheduleFree{}, optim.SecondMoment{Beta: 0.9}, optim.Mechanic{}, optim.Hypergradient{Beta: 1},
	}) {
		covered[rule.Kind()] = true
		config := optim.Config{Rule: rule, LayerDecay: 0.9, Groups: []optim.Group{{Variables: []string{"*"}, Rate: 2, WeightDecay: &half, Rule: optim.Chain{rule}}}}
		content, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		var again optim.Config
		if err := json.Unmarshal(content, &again); err != nil {
			t.Fatalf("%s: %v", content, err)
		}
		if !reflect.DeepEqual(config, again) {
			t.Errorf("%s: got %+v, want %+v", content, again, config)
		}
		if err := again.Validate(); err != nil {
			t.Errorf("%s: %v", content, err)
		}
	}
	for _, kind := range optim.Kinds() {
		if !covered[kind] {
			t.Errorf("kind %q is not covered", kind)
		}
	}
}

// TestErrorsNameWhatIsWrong: each of these would train silently otherwise than was meant.
func TestErrorsNameWhatIsWrong(t *testing.T) {
	for _, bad := range []struct{ config, want string }{
		{`{"kind": "adamww"}`, `kind "adamww" is unknown; known:`},
		{`{"kind": "adamw", "beta": 0.9}`, `unknown field "beta"`},
		{`{"weight_decay": -1}`, "optimizer.weight_decay is -1"},
		{`{"beta1": 1}`, "optimizer.beta1 is 1, want 0 ≤ β < 1"},
		{`{"kind": "chain", "of": []}`, "optimizer.of is empty"},
		{`{"kind": "chain", "of": [{"kind": "adam"}, {"kind": "clip_norm"}]}`, "optimizer.of[1].limit is 0"},
		{`{"kind": "chain", "of": [{"kind": "adam"}, {"kind": "lion"}]}`, `"adam" and "lion" in one chain keep the same state "m"`},
		{`{"groups": [{"variables": ["/heads/*"]}]}`, "optimizer.groups[0]: /heads/* match no parameter that is trained; those are /"},
		{`{"groups": [{"variables": ["*"]}, {"variables": ["/head/*"]}]}`, "optimizer.groups[1]: all that /head/* match is in groups before it"},
		{`{"groups": {}}`, "optimizer.groups: a JSON object, want a list"},
		{`{"groups": [3]}`, "optimizer.groups[0]: a JSON number, want an object"},
		{`{"layer_decay": "x"}`, "optimizer.layer_decay: a JSON string, want a number"},
		{`{"groups": [{"variables": []}]}`, "optimizer.groups[0].variables is empty"},
		{`{"groups": [{"variables": ["*"], "lr": 1}]}`, `optimizer.groups[0]: unknown field "lr"`},
		{`{"kind": "adam", "groups": [{"variables": ["/head/*"], "weight_decay": 0.1}]}`, `optimizer.groups[0].weight_decay: rule "adam" has no weight decay`},
		{`{"groups": [{"variables": ["*"], "rule": {"kind": "sgd", "momentum": 2}}]}`, "optimizer.groups[0].rule.momentum is 2"},
		{`{"layer_decay": 2}`, "optimizer.layer_decay is 2"},
		{`{"kind": "sgd", "nesterov": true}`, "momentum is 0"},
		{`{"kind": "soap", "every": -1}`, "optimizer.every is -1"},
	} {
		var config optim.Config
		err := json.Unmarshal([]byte(bad.config), &config)
		if err == nil {
			_, err = optim.New(config, params)
		}
		if err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: error is %v, want %q", bad.config, err, bad.want)
		}
	}
}

// idle is a rule that can do nothing.
type idle struct{}

func (idle) Kind() string    { return "idle" }
func (idle) Validate() error { return nil }

// TestNil: what a program left out is told, not run into.
func TestNil(t *testing.T) {
	variables := elastic.Under("/head", elastic.DenseVariables(2, 2, 1))
	if _, err := optim.New(optim.Config{Rule: optim.Chain{optim.ClipNorm{Limit: 1}, nil}}, variables); err == nil || !strings.Contains(err.Error(), "of[1] is nil, want a rule") {
		t.Errorf("a chain with nil: %v", err)
	}
	optimizer, err := optim.New(optim.Config{}, variables)
	if err != nil {
		t.Fatal(err)
	}
	if err := exceptions.TryCatch[error](func() { optimizer.Update(optim.Input{}) }); err == nil || !strings.Contains(err.Error(), "an update of 2 parameters with 4 slots needs so many nodes") {
		t.Errorf("an empty update: %v", err)
	}
}

func TestRuleWithoutMeansIsRefused(t *testing.T) {
	if _, err := optim.New(optim.Config{Rule: optim.Chain{optim.Adam{}, idle{}}}, params); err == nil || !strings.Contains(err.Error(), `"idle" is neither`) {
		t.Errorf("error is %v", err)
	}
}

// TestWeightDecayIsOnlyWhereItBelongs: with no gradient, only parameters that decay move, by the factor
// 1 − η·λ of the first update, also when the config came by JSON.
func TestWeightDecayIsOnlyWhereItBelongs(t *testing.T) {
	for _, text := range []string{
		`{"weight_decay": 0.5}`, `{"kind": "lion", "weight_decay": 0.5}`, `{"kind": "muon", "weight_decay": 0.5, "adam_decay": 0.5}`, `{"kind": "signum", "weight_decay": 0.5}`,
		`{"kind": "stable_adamw", "weight_decay": 0.5}`, `{"kind": "adamp", "weight_decay": 0.5, "ratio": 1}`, `{"kind": "came", "weight_decay": 0.5}`, `{"kind": "schedule_free_adamw", "weight_decay": 0.5}`,
	} {
		var config optim.Config
		if err := json.Unmarshal([]byte(text), &config); err != nil {
			t.Fatal(err)
		}
		got := steps(t, config, 1, 0)[0]
		for i, p := range params {
			start := tensors.MustCopyFlatData[float32](filled(p.Shape, func(j int) float32 { return float32(j%5)*0.2 - 0.3 }))
			keep := float32(1)
			if p.Decay {
				keep = 1 - 0.01*0.5
			}
			for j, x := range got[i] {
				if want := start[j] * keep; x-want > 1e-6 || want-x > 1e-6 {
					t.Errorf("%s: %s[%d] is %g, want %g", text, p.Path, j, x, want)
					break
				}
			}
		}
	}
}

func TestClipFactor(t *testing.T) {
	out, err := graph.CallOnceN(gxtest.Backend(t), func(a, b *graph.Node) (*graph.Node, *graph.Node, *graph.Node) {
		norm := optim.GlobalNorm([]*graph.Node{a, b})
		return norm, optim.ClipFactor(norm, 1), optim.ClipFactor(norm, 100)
	}, []float32{3, 0}, [][]float32{{0, 4}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []float32{5, 0.2, 1} {
		gxtest.Close(t, out[i], want, 1e-6)
	}
}

// TestStateIsAsLarge as the formula of each rule says, in elements a parameter.
func TestStateIsAsLarge(t *testing.T) {
	p := []elastic.Variable{{Path: "/w", Shape: []int{300, 200}}}
	for _, c := range []struct {
		rule optim.Rule
		want int
	}{
		{optim.SGD{}, 0}, {optim.Lion{}, 60000}, {optim.AdamW{}, 120000}, {optim.Adafactor{}, 500}, {optim.CAME{}, 61000}, {optim.SM3{}, 60500}, {optim.Muon{}, 60000},
		{optim.ScheduleFreeAdamW{}, 120002}, {optim.Prodigy{}, 240002}, {optim.NovoGrad{}, 60001},
		{optim.Shampoo{}, 2*300*300 + 2*200*200}, {optim.Shampoo{Limit: 250}, 2 * 200 * 200}, {optim.SOAP{}, 120000 + 2*300*300 + 2*200*200}, {optim.SOAP{Limit: 250}, 120000 + 2*200*200},
	} {
		o, err := optim.New(optim.Config{Rule: c.rule}, p)
		if err != nil {
			t.Fatal(err)
		}
		total := 0
		for _, s := range o.Slots() {
			total += s.Size()
		}
		if total != c.want {
			t.Errorf("%s keeps %d numbers, want %d", c.rule.Kind(), total, c.want)
		}
	}
}

// TestExplainTellsRulesApart: what Muon leaves to Adam has a row of its own, with Adam's rate and decay.
func TestExplainTellsRulesApart(t *testing.T) {
	parameters := []elastic.Variable{{Path: "/layer_0/weights", Shape: []int{4, 4}, Decay: true}, {Path: "/embeddings/word", Shape: []int{9, 4}, Decay: true}, {Path: "/layer_0/bias", Shape: []int{4}}}
	optimizer, err := optim.New(optim.Config{Rule: optim.Muon{WeightDecay: 0.5, AdamRate: 0.25, AdamDecay: 0.125}}, parameters)
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for line := range strings.Lines(optimizer.Explain()) {
		rows = append(rows, strings.Fields(line))
	}
	want := [][]string{
		{"rest", "muon", "1", "0.5", "1", "16", "64", "/layer_0/weights"},
		{"rest", "muon:", "adam", "0.25", "0.125", "1", "36", "288", "/embeddings/word"},
		{"rest", "muon:", "adam", "0.25", "0", "1", "4", "32", "/layer_0/bias"},
	}
	if len(rows) != 4 || !reflect.DeepEqual(rows[1:], want) {
		t.Errorf("rows %q, want %q", rows, want)
	}
}

func ExampleOptimizer_Explain() {
	var config optim.Config
	err := json.Unmarshal([]byte(`{
		"kind": "adamw", "weight_decay": 0.01, "layer_decay": 0.5,
		"groups": [{"variables": ["/head/*"], "rate": 10}, {"variables": ["*"], "rank": 2, "rule": {"kind": "lion", "weight_decay": 0.1}}]
	}`), &config)
	if err != nil {
		fmt.Println(err)
		return
	}
	optimizer, err := optim.New(config, params)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(optimizer.Explain())
	// Output:
	// group    rule   rate ×  decay  tensors  parameters  state bytes  first
	// *        lion   0.125   0.1    1        20          80           /embeddings/word
	// *        lion   0.25    0.1    1        24          96           /layer_0/dense/weights
	// *        lion   0.5     0.1    1        18          72           /layer_1/dense/weights
	// rest     adamw  0.25    0      1        6           48           /layer_0/dense/bias
	// /head/*  adamw  10      0.01   1        6           48           /head/weights
	// /head/*  adamw  10      0      1        1           8            /head/scale
}

func ExampleConfig() {
	config := optim.Config{
		Rule:   optim.Chain{optim.ClipNorm{Limit: 1}, optim.AdamW{WeightDecay: 0.01}, optim.EMA{Beta: 0.999}},
		Groups: []optim.Group{{Variables: []string{"/head/*"}, Rate: 10}},
	}
	text, err := json.Marshal(config)
	fmt.Println(string(text), err)
	// Output: {"kind":"chain","of":[{"kind":"clip_norm","limit":1},{"kind":"adamw","weight_decay":0.01},{"kind":"ema","beta":0.999}],"groups":[{"variables":["/head/*"],"rate":10}]} <nil>
}
