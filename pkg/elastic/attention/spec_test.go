package attention_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
)

// The parts of each role, with numbers that are not their defaults, for 4 heads of width 4.
var (
	masks = []attention.Mask{
		attention.Causal{}, attention.Window{Size: 3}, attention.Band{Radius: 2}, attention.SinkWindow{Size: 2, Sinks: 1},
		attention.Dilated{Size: 2, Step: 2}, attention.Chunk{Size: 3}, attention.Prefix{Length: 2}, attention.Document{},
		attention.All{attention.Chunk{Size: 4}, attention.Causal{}}, attention.Any{attention.Window{Size: 2}, attention.Band{Radius: 1}},
		attention.None{attention.Dilated{Size: 3, Step: 2}},
	}
	scores = []attention.Score{
		attention.Temperature{Value: 0.5}, attention.InputTemperature{}, attention.TaskTemperature{Tasks: 3}, attention.SSMax{},
		attention.Softcap{Limit: 0.5}, attention.TalkingHeads{}, attention.Selective{}, attention.Recency{Init: 0.3}, attention.Salience{},
		attention.Inhibition{Init: 0.2},
	}
	positions = []attention.Score{
		attention.ALiBi{Learned: true}, attention.T5Bias{Buckets: 8, MaxDistance: 16, Bidirectional: true}, attention.ShawBias{Radius: 2},
	}
	normalizers = []attention.Normalizer{
		attention.PlainSoftmax{}, attention.Sparsemax{}, attention.Entmax{Alpha: 1.3}, attention.Entmax{Learned: true},
		attention.ElementSigmoid{Keys: 6}, attention.OffByOne{}, attention.Sink{}, attention.TopKeys{Keys: 2}, attention.Linear{},
	}
	gates = []attention.Gate{
		attention.HeadGate{Init: 0.5}, attention.HardConcrete{Init: 0.5}, attention.OutputGate{}, attention.MixtureOfHeads{Keep: 2},
	}
)

// randomSpec draws a spec, which may be invalid.
func randomSpec(random *rand.Rand) attention.Spec {
	s := attention.Spec{Heads: 4}
	if random.IntN(3) == 0 {
		s.KVHeads = []int{1, 2}[random.IntN(2)]
	}
	if random.IntN(4) == 0 {
		s.HeadDim, s.ValueDim = 6, 2
	}
	if random.IntN(4) == 0 {
		s.Scale = 0.7
	}
	if random.IntN(4) == 0 {
		s.QKNorm = &attention.QKNorm{Norm: "l2", Gain: 3}
	}
	if random.IntN(4) == 0 {
		s.Rotary = &attention.Rotary{Base: 100, Width: 2}
	}
	if random.IntN(4) == 0 {
		s.Differential = &attention.Differential{Lambda: 0.3}
	}
	if random.IntN(4) == 0 {
		s.Span = &attention.Span{Max: 8, Ramp: 2, Init: 0.25}
	}
	if random.IntN(2) == 0 {
		s.Mask = masks[random.IntN(len(masks))]
	}
	if random.IntN(2) == 0 {
		s.Normalizer = normalizers[random.IntN(len(normalizers))]
	}
	s.Scores = some(random, scores)
	s.Positions = some(random, positions)
	s.Gates = some(random, gates)
	s.Dropout = float64(random.IntN(3)) / 10
	return s
}

func some[T any](random *rand.Rand, from []T) []T {
	var chosen []T
	for _, i := range random.Perm(len(from))[:random.IntN(3)] {
		chosen = append(chosen, from[i])
	}
	return chosen
}

// TestRandomSpecs: JSON keeps a spec as it is, and leaving out a part changes nothing else.
func TestRandomSpecs(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	hashes := map[string]string{}
	for range 1000 {
		s := randomSpec(random)
		content, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var again attention.Spec
		if err := json.Unmarshal(content, &again); err != nil {
			t.Fatalf("%s: %v", content, err)
		}
		if !reflect.DeepEqual(s, again) {
			t.Fatalf("%s: read as %+v, want %+v", content, again, s)
		}
		hash, err := s.Hash()
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := hashes[hash]; ok && other != string(content) {
			t.Fatalf("%s and %s have the same hash", content, other)
		}
		hashes[hash] = string(content)

		for _, name := range names(s) {
			less, err := s.Without(name)
			if err != nil {
				t.Fatalf("%s: %v", content, err)
			}
			changes, err := attention.Diff(s, less)
			if err != nil || len(changes) == 0 {
				t.Fatalf("%s: without %s: %v, %v", content, name, changes, err)
			}
			for _, c := range changes {
				// What stands behind a part of a list moves up.
				if c.Is != "" && !strings.HasSuffix(c.Path, ".at") || !strings.Contains(c.Path, name) && !strings.HasSuffix(c.Path, ".at") {
					t.Fatalf("%s: without %s changes %s", content, name, c)
				}
			}
		}
	}
	if len(hashes) < 900 {
		t.Errorf("only %d different specs were drawn", len(hashes))
	}
}

// names lists the parts that Without can leave out.
func names(s attention.Spec) []string {
	var list []string
	add := func(present bool, name string) {
		if present {
			list = append(list, name)
		}
	}
	add(s.QKNorm != nil, "qk_norm")
	add(s.Rotary != nil, "rotary")
	add(s.Differential != nil, "differential")
	add(s.Span != nil, "span")
	add(s.Mask != nil, "mask")
	add(s.Normalizer != nil, "normalizer")
	add(s.Dropout != 0, "dropout")
	for _, p := range slices.Concat(s.Scores, s.Positions) {
		add(true, p.Kind())
	}
	for _, p := range s.Gates {
		add(true, p.Kind())
	}
	return list
}

// TestHash pins the hash of one spec: it must be the same in every process and version.
func TestHash(t *testing.T) {
	s := attention.Spec{Heads: 8, Scores: []attention.Score{attention.Softcap{Limit: 30}}, Mask: attention.Causal{}, Normalizer: attention.Entmax{Alpha: 1.5}}
	content, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	const text = `{"heads":8,"scores":[{"kind":"softcap","limit":30}],"mask":"causal","normalizer":{"kind":"entmax","alpha":1.5}}`
	if string(content) != text {
		t.Errorf("JSON is %s, want %s", content, text)
	}
	hash, err := s.Hash()
	if err != nil {
		t.Fatal(err)
	}
	if want := "87ac6e73"; !strings.HasPrefix(hash, want) {
		t.Errorf("hash is %s, want %s…", hash, want)
	}
}

// TestString: a spec is printed as its JSON, also behind a pointer, and one that has none says so.
func TestString(t *testing.T) {
	s := attention.Spec{Heads: 8, Scores: []attention.Score{attention.Softcap{Limit: 30}}, Normalizer: attention.Entmax{Alpha: 1.5}}
	const text = `{"heads":8,"scores":[{"kind":"softcap","limit":30}],"normalizer":{"kind":"entmax","alpha":1.5}}`
	for _, format := range []string{"%v", "%+v", "%s"} {
		for _, value := range []any{s, &s} {
			if got := fmt.Sprintf(format, value); got != text {
				t.Errorf("%s of a %T prints %s, want %s", format, value, got, text)
			}
		}
	}
	if got, want := fmt.Sprint(attention.Spec{Heads: 1, Scale: math.NaN()}), "attention spec without JSON: "; !strings.HasPrefix(got, want) {
		t.Errorf("got %s, want %s…", got, want)
	}
}

func TestWithAndDiff(t *testing.T) {
	s := attention.Spec{Heads: 4, Scores: []attention.Score{attention.Softcap{Limit: 30}}}
	for _, step := range []struct {
		path  string
		value any
		want  string
	}{
		{"scores.softcap.limit", 20, "scores.softcap.limit: 30 → 20"},
		{"scores.temperature.value", 0.5, "scores.temperature.at: unset → 1\nscores.temperature.kind: unset → \"temperature\"\nscores.temperature.value: unset → 0.5"},
		{"normalizer", attention.Sparsemax{}, `normalizer: unset → "sparsemax"`},
		{"normalizer", attention.Entmax{Alpha: 1.5}, "normalizer: \"sparsemax\" → unset\nnormalizer.alpha: unset → 1.5\nnormalizer.kind: unset → \"entmax\""},
		{"normalizer.alpha", 1.2, "normalizer.alpha: 1.5 → 1.2"},
		{"mask", "causal", `mask: unset → "causal"`},
		{"dropout", 0.1, "dropout: unset → 0.1"},
		{"heads", 8, "heads: 4 → 8"},
	} {
		changed, err := s.With(step.path, step.value)
		if err != nil {
			t.Fatal(err)
		}
		changes, err := attention.Diff(s, changed)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, c := range changes {
			lines = append(lines, c.String())
		}
		if got := strings.Join(lines, "\n"); got != step.want {
			t.Errorf("%s = %v: changes are\n%s\nwant\n%s", step.path, step.value, got, step.want)
		}
		s = changed
	}
}

// TestBadSpecs: everything wrong is refused with the path of its field, before any graph
// is built.
func TestBadSpecs(t *testing.T) {
	for _, test := range []struct{ spec, want string }{
		{`{"heads": 0}`, "attention.heads is 0, want at least 1"},
		{`{"heads": 5}`, "attention.heads is 5, which does not divide the hidden size 16"},
		{`{"heads": 4, "kv_heads": 3}`, "attention.kv_heads is 3, which does not divide heads, 4"},
		{`{"heads": 4, "head_dim": -1}`, "attention.head_dim is -1"},
		{`{"heads": 4, "dropout": 1}`, "attention.dropout is 1, want 0 ≤ p < 1"},
		{`{"heads": 4, "scale": -1}`, "attention.scale is -1"},
		{`{"heads": 4, "window": 3}`, `unknown field "window"`},
		{`{"heads": 4, "mask": "gaussian"}`, `mask: kind "gaussian" is unknown; known: all, any, band, causal, chunk, dilated, document, none, prefix, sink_window, window`},
		{`{"heads": 4, "mask": {"kind": "window", "width": 3}}`, `mask (window): unknown field "width"`},
		{`{"heads": 4, "mask": 3}`, `mask: want the name of a kind or an object with a field "kind", got 3`},
		{`{"heads": 4, "mask": {"size": 3}}`, `mask: want a field "kind" with a name`},
		{`{"heads": 4, "mask": "softcap"}`, `mask: "softcap" is no part for this place`},
		{`{"heads": 4, "mask": "window"}`, "attention.mask.size is 0, want at least 1"},
		{`{"heads": 4, "mask": {"kind": "all", "of": []}}`, "attention.mask.of is empty"},
		{`{"heads": 4, "mask": {"kind": "all", "of": ["causal", "window"]}}`, "attention.mask.of[1].size is 0"},
		{`{"heads": 4, "mask": {"kind": "any", "of": ["causal", "walk"]}}`, `mask (any): of[1]: kind "walk" is unknown`},
		{`{"heads": 4, "normalizer": {"kind": "entmax", "alpha": 0.5}}`, "attention.normalizer.alpha is 0.5, want at least 1"},
		{`{"heads": 4, "normalizer": {"kind": "entmax", "alpha": 2, "learned": true}}`, "attention.normalizer.alpha is 2, want a number between 1 and 2"},
		{`{"heads": 4, "normalizer": "sigmoid"}`, "attention.normalizer.keys is 0"},
		{`{"heads": 4, "normalizer": "linear", "scores": ["ssmax"]}`, "attention.normalizer: uses no logits"},
		{`{"heads": 4, "scores": [{"kind": "softcap", "limit": 0}]}`, "attention.scores.softcap.limit is 0, want a positive number"},
		{`{"heads": 4, "scores": ["temperature"]}`, "attention.scores.temperature.value is 0 and learned is false, which changes nothing"},
		{`{"heads": 4, "scores": ["ssmax", "ssmax"]}`, `attention.scores.ssmax: kind "ssmax" is used by scores.ssmax already`},
		{`{"heads": 4, "scores": ["selective"]}`, "attention.scores.selective: needs a mask that hides later keys"},
		{`{"heads": 4, "scores": ["inhibition"], "mask": {"kind": "band", "radius": 2}}`, "attention.scores.inhibition: needs a mask"},
		{`{"heads": 4, "positions": [{"kind": "t5_bias", "buckets": 7}]}`, "attention.positions.t5_bias.buckets is 7, want a multiple of 2"},
		{`{"heads": 4, "positions": [{"kind": "t5_bias", "max_distance": 3}]}`, "attention.positions.t5_bias.max_distance is 3"},
		{`{"heads": 4, "positions": [{"kind": "t5_bias", "max_distance": 4294967296}]}`, "attention.positions.t5_bias.max_distance is 4294967296, want at most 2147483647"},
		{`{"heads": 4, "mask": {"kind": "window", "size": 4294967296}}`, "attention.mask.size is 4294967296, want at most 2147483647"},
		{`{"heads": 4, "mask": {"kind": "chunk", "size": 4294967296}}`, "attention.mask.size is 4294967296, want at most 2147483647"},
		{`{"heads": 4, "mask": {"kind": "dilated", "size": 65536, "step": 65536}}`, "attention.mask.size · step is 4294967296, want at most 2147483647"},
		{`{"heads": 4, "rotary": {"width": 3}}`, "attention.rotary.width is 3, want an even number"},
		{`{"heads": 4, "qk_norm": {"norm": "max"}}`, `attention.qk_norm.norm is "max", want "rms" or "l2"`},
		{`{"heads": 4, "differential": {}, "qk_norm": {"norm": "rms"}}`, `attention.qk_norm: norm "rms" does not go with differential`},
		{`{"heads": 4, "differential": {"lambda": 1.5}}`, "attention.differential.lambda is 1.5"},
		{`{"heads": 4, "span": {"max": 0, "init": 2}}`, "attention.span.max is 0, want at least 1\nattention.span.init is 2"},
		{`{"heads": 4, "gates": [{"kind": "mixture_of_heads", "keep": 5}]}`, "attention.gates.mixture_of_heads.keep is 5, want 1 to 4"},
	} {
		var s attention.Spec
		err := json.Unmarshal([]byte(test.spec), &s)
		if err == nil {
			err = s.Validate(16)
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error is %v, want %q", test.spec, err, test.want)
		}
	}
	if _, err := (attention.Spec{Heads: 4}).Without("softcap"); err == nil || !strings.Contains(err.Error(), `no part "softcap"; it has softmax`) {
		t.Errorf("without a part that is not there: %v", err)
	}
	if _, err := (attention.Spec{Heads: 4}).With("scores.softcup.limit", 3); err == nil || !strings.Contains(err.Error(), `kind "softcup" is unknown`) {
		t.Errorf("with a kind that does not exist: %v", err)
	}
}

// TestNilParts: what a program left out is told, not run into.
func TestNilParts(t *testing.T) {
	for want, s := range map[string]attention.Spec{
		"attention.scores[1] is nil":    {Heads: 4, Scores: []attention.Score{attention.Softcap{Limit: 3}, nil}},
		"attention.positions[0] is nil": {Heads: 4, Positions: []attention.Score{nil}},
		"attention.gates[0] is nil":     {Heads: 4, Gates: []attention.Gate{nil}},
		"attention.mask.of[0] is nil":   {Heads: 4, Mask: attention.Any{nil}},
	} {
		if err := s.Validate(16); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// flip is a user's own part: it turns the sign of all logits.
type flip struct{}

func (flip) Kind() string                                                   { return "test_flip" }
func (flip) Validate(attention.Sizes) error                                 { return nil }
func (flip) Variables(attention.Sizes) []elastic.Variable                   { return nil }
func (flip) Score(_ *attention.Tile, _ elastic.Weights, logits *Node) *Node { return Neg(logits) }

func TestRegister(t *testing.T) {
	const text = `{"heads":4,"scores":["test_flip"]}`
	var s attention.Spec
	if err := json.Unmarshal([]byte(text), &s); err == nil {
		t.Fatal("a kind that is not registered was read")
	}
	if err := attention.Register[flip](); err != nil {
		t.Fatal(err)
	}
	if err := attention.Register[flip](); err == nil {
		t.Error("registered twice")
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	if content, err := json.Marshal(s); err != nil || string(content) != text {
		t.Errorf("written as %s, %v", content, err)
	}
	got, want := run(t, s, nil), run(t, attention.Spec{Heads: 4, Scores: []attention.Score{attention.Temperature{Value: -1}}}, nil)
	gxtest.Close(t, got.output, want.output, 1e-6)
}

// outcome is what a layer computes on fixed numbers.
type outcome struct {
	output, weights, gradient []float32
}

// run computes self-attention of two rows of six tokens and the gradient of a weighted sum.
// Variables are drawn by their paths, so specs that share a part share its weights.
func run(t *testing.T, s attention.Spec, allowed [][][][]bool) outcome {
	t.Helper()
	const batch, length, hidden = 2, 6, 16
	store := model.NewStore()
	for _, v := range s.Variables(hidden, 0.3) {
		v.Path = "/" + v.Path
		begin, noise := v.Tensor(7), elastic.Variable{Path: v.Path, Shape: v.Shape, Init: elastic.Init{Normal: 0.4}}.Tensor(8)
		sum := make([]float32, v.Size())
		for i := range sum {
			sum[i] = tensors.MustCopyFlatData[float32](begin)[i] + tensors.MustCopyFlatData[float32](noise)[i]
		}
		if _, err := store.CreateVariable(v.Path, tensors.FromFlatDataAndDimensions(sum, v.Shape...)); err != nil {
			t.Fatal(err)
		}
	}
	x := tensors.FromFlatDataAndDimensions(ramp(batch*length*hidden), batch, length, hidden)
	documents := [][]int32{{1, 1, 1, 2, 2, 2}, {1, 1, 2, 2, 2, 0}}
	args := []any{x, documents, []int32{0, 2}}
	if allowed != nil {
		args = append(args, allowed)
	}
	exec, err := model.NewExec(gxtest.Backend(t), store, func(scope *model.Scope, in []*Node) []*Node {
		inputs := attention.Inputs{QueryDocuments: in[1], KeyDocuments: in[1], Tasks: in[2]}
		if len(in) > 3 {
			inputs.Mask = in[3]
		}
		out := attention.Self(s, elastic.WeightsOf(scope.Store(), in[0].Graph()), in[0], inputs)
		loss := ReduceAllSum(Mul(out.Output, Sin(IotaFull(in[0].Graph(), out.Output.Shape()))))
		return []*Node{out.Output, out.Weights, Gradient(loss, in[0])[0]}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	results, err := exec.Call(args...)
	if err != nil {
		t.Fatal(err)
	}
	flat := func(i int) []float32 { return tensors.MustCopyFlatData[float32](results[i]) }
	return outcome{flat(0), flat(1), flat(2)}
}

// TestEveryPartMatters: each part changes what a layer computes, and keeps values and
// gradients finite.
func TestEveryPartMatters(t *testing.T) {
	type variant struct {
		name       string
		with, less attention.Spec
	}
	base := attention.Spec{Heads: 4, Mask: attention.Causal{}}
	var variants []variant
	add := func(name string, with attention.Spec) { variants = append(variants, variant{name, with, base}) }
	with := func(change func(s *attention.Spec)) attention.Spec {
		s := base
		change(&s)
		return s
	}
	for _, m := range masks[1:] {
		add("mask "+m.Kind(), with(func(s *attention.Spec) { s.Mask = m }))
	}
	for _, p := range scores {
		add("score "+p.Kind(), with(func(s *attention.Spec) { s.Scores = []attention.Score{p} }))
	}
	for _, p := range positions {
		add("position "+p.Kind(), with(func(s *attention.Spec) { s.Positions = []attention.Score{p} }))
	}
	for _, n := range normalizers[1:] {
		add("normalizer "+n.Kind(), with(func(s *attention.Spec) { s.Normalizer = n }))
	}
	for _, p := range gates {
		add("gate "+p.Kind(), with(func(s *attention.Spec) { s.Gates = []attention.Gate{p} }))
	}
	add("qk_norm l2", with(func(s *attention.Spec) { s.QKNorm = &attention.QKNorm{Norm: "l2"} }))
	add("qk_norm rms", with(func(s *attention.Spec) { s.QKNorm = &attention.QKNorm{Norm: "rms"} }))
	add("rotary", with(func(s *attention.Spec) { s.Rotary = &attention.Rotary{} }))
	add("rotary scaled", with(func(s *attention.Spec) { s.Rotary = &attention.Rotary{Scale: 2} }))
	add("span", with(func(s *attention.Spec) { s.Span = &attention.Span{Max: 4, Ramp: 2, Init: 0.2} }))
	add("scale", with(func(s *attention.Spec) { s.Scale = 1 }))
	plain := run(t, base, nil)
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			if err := v.with.Validate(16); err != nil {
				t.Fatal(err)
			}
			got := run(t, v.with, nil)
			largest := 0.0
			for i, x := range got.output {
				largest = max(largest, math.Abs(float64(x-plain.output[i])))
			}
			if largest < 1e-4 {
				t.Errorf("output changes by %g at most", largest)
			}
			if err := finite(got); err != nil {
				t.Error(err)
			}
		})
	}
	for _, s := range []attention.Spec{
		{Heads: 4, KVHeads: 2}, {Heads: 4, KVHeads: 1, Mask: attention.Causal{}}, {Heads: 3, HeadDim: 4, ValueDim: 6},
		{Heads: 4, Differential: &attention.Differential{}, Mask: attention.Causal{}},
	} {
		if err := s.Validate(16); err != nil {
			t.Fatal(err)
		}
		if err := finite(run(t, s, nil)); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

func finite(o outcome) error {
	for name, list := range map[string][]float32{"output": o.output, "weights": o.weights, "gradient": o.gradient} {
		for i, v := range list {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return fmt.Errorf("%s[%d] is %g", name, i, v)
			}
		}
	}
	if !slices.ContainsFunc(o.gradient, func(v float32) bool { return v != 0 }) {
		return errors.New("gradient is zero")
	}
	return nil
}

// TestMaskedRows: whatever the normaliser, a query that may attend to nothing gets zero
// weights, no key gets weight that the mask forbids, and nothing is NaN.
func TestMaskedRows(t *testing.T) {
	allowed := make([][][][]bool, 2)
	for b := range allowed {
		rows := make([][]bool, 6)
		for q := range rows {
			rows[q] = make([]bool, 6)
			for k := range rows[q] {
				rows[q][k] = (q+k+b)%3 != 0 && !(b == 0 && q == 2)
			}
		}
		allowed[b] = [][][]bool{rows}
	}
	for _, n := range normalizers {
		t.Run(n.Kind(), func(t *testing.T) {
			got := run(t, attention.Spec{Heads: 4, Normalizer: n}, allowed)
			if err := finite(got); err != nil {
				t.Error(err)
			}
			for i, v := range got.weights {
				b, q, k := i/(4*36), i/6%6, i%6
				if !allowed[b][0][q][k] && v != 0 {
					t.Fatalf("row %d, query %d gives key %d the weight %g", b, q, k, v)
				}
			}
		})
	}
}
