package peft_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/peft"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

func small() transformer.Config {
	return transformer.Config{
		VocabSize: 23, Hidden: 12, Layers: 2, FeedForward: 20, Attention: attention.Spec{Heads: 3}, MaxPositions: 16, TypeVocab: 2,
		Activation: "gelu", NormEpsilon: 1e-12, InitStd: 0.3, Head: transformer.Head{Kind: transformer.Tokens, Labels: []string{"O", "X"}},
	}
}

func newModel(t testing.TB) *transformer.Model {
	t.Helper()
	m, err := transformer.New(small(), 7)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// scrambled makes an adapter whose weights are all random, so that none begins as no change.
func scrambled(t testing.TB, m *transformer.Model, config peft.Config, seed uint64) *peft.Adapter {
	t.Helper()
	a, err := peft.New(config, m.Config.Variables())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Create(m.Store, seed); err != nil {
		t.Fatal(err)
	}
	for _, v := range a.Variables() {
		v.Init = elastic.Init{Normal: 0.1}
		if err := m.Store.GetVariable(v.Path).SetValue(v.Tensor(seed)); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

var ids, mask = [][]int32{{2, 3, 4, 5, 6}, {7, 8, 9, 0, 0}}, [][]int32{{1, 1, 1, 1, 1}, {1, 1, 1, 0, 0}}

func tensorOfIDs() (*tensors.Tensor, *tensors.Tensor) {
	return tensors.MustFromAnyValue(ids), tensors.MustFromAnyValue(mask)
}

// TestAdaptersBeginAsNoChange: what an adapter begins with must not move a trained model. Only
// virtual tokens cannot help it.
func TestAdaptersBeginAsNoChange(t *testing.T) {
	x, m1 := tensorOfIDs()
	for _, kind := range peft.Kinds() {
		if kind == "prefix" || kind == "prompt" {
			continue
		}
		m := newModel(t)
		a, err := peft.New(peft.Config{Kind: kind}, m.Config.Variables())
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Create(m.Store, 3); err != nil {
			t.Fatal(err)
		}
		tolerance := 1e-5
		if kind == "houlsby" || kind == "pfeiffer" { // near 0, so that both of its matrices have a gradient
			tolerance = 0.1
		}
		t.Run(kind, func(t *testing.T) {
			gxtest.Close(t, modelLogits(t, m, a, x, m1), modelLogits(t, m, nil, x, m1), tolerance)
		})
	}
}

// TestDoRAOfNothing: an output of a layer whose weights are all 0 stays one, and nothing is NaN.
func TestDoRAOfNothing(t *testing.T) {
	x, m1 := tensorOfIDs()
	m := newModel(t)
	path := "/layer_0/attention/query/weights"
	weights := tensors.MustCopyFlatData[float32](m.Store.GetVariable(path).MustValue())
	shape := m.Store.GetVariable(path).Shape().Dimensions
	for i := range shape[0] {
		weights[i*shape[1]] = 0
	}
	if err := m.Store.GetVariable(path).SetValue(tensors.FromFlatDataAndDimensions(weights, shape...)); err != nil {
		t.Fatal(err)
	}
	a, err := peft.New(peft.Config{Kind: "dora"}, m.Config.Variables())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Create(m.Store, 3); err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, modelLogits(t, m, a, x, m1), modelLogits(t, m, nil, x, m1), 1e-5)
}

// TestFileWithoutAlpha means peft's default, 8.
func TestFileWithoutAlpha(t *testing.T) {
	m := newModel(t)
	a := scrambled(t, m, peft.Config{Kind: "lora", Rank: 2, Alpha: 8}, 1)
	dir := filepath.Join(t.TempDir(), "adapter")
	if err := checkpoint.Save(dir, checkpoint.Checkpoint{Files: peft.Files(m, a, "base")}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, peft.ConfigFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), `"lora_alpha": 8,`, "", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	read, err := peft.Load(dir, newModel(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := read.Config().Alpha; got != 8 {
		t.Errorf("alpha is %g, want 8", got)
	}
}

// TestMergedEqualsUnmerged goes through all kinds that can be merged, with every dense layer of
// the model as a target.
func TestMergedEqualsUnmerged(t *testing.T) {
	x, m1 := tensorOfIDs()
	for _, kind := range []string{"lora", "rslora", "dora", "adalora", "ia3"} {
		t.Run(kind, func(t *testing.T) {
			m := newModel(t)
			base := modelLogits(t, m, nil, x, m1)
			config := peft.Config{Kind: kind, Targets: []string{"*/weights"}}
			if kind == "ia3" {
				config.Inputs = []string{"*/attention/output/weights"}
			}
			a := scrambled(t, m, config, 5)
			want := modelLogits(t, m, a, x, m1)
			if slices.Equal(base, want) {
				t.Fatal("the adapter changes nothing")
			}
			merged, err := a.Merge(gxtest.Backend(t), m.Store)
			if err != nil {
				t.Fatal(err)
			}
			gxtest.Close(t, modelLogits(t, m, nil, x, m1), want, 1e-5)
			if err := merged.Unmerge(); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(modelLogits(t, m, nil, x, m1), base) {
				t.Error("the model is not what it was before")
			}
		})
	}
	if _, err := scrambled(t, newModel(t), peft.Config{Kind: "prefix"}, 1).Merge(gxtest.Backend(t), newModel(t).Store); err == nil || !strings.Contains(err.Error(), "prefix") {
		t.Errorf("merging a prefix: %v", err)
	}
}

// TestBankSwitches wants each call to compute what its adapter computes alone, and to compile
// nothing for a second adapter of the same config.
func TestBankSwitches(t *testing.T) {
	x, m1 := tensorOfIDs()
	m := newModel(t)
	bank, err := peft.NewBank(gxtest.Backend(t), m.Store, func(w elastic.Weights, in []*Node) []*Node {
		return []*Node{m.Config.Logits(w, transformer.Inputs{IDs: in[0], Mask: in[1]}, nil)}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer bank.Finalize()
	want := map[string][]float32{"": modelLogits(t, m, nil, x, m1)}
	for i, config := range []peft.Config{{Kind: "lora"}, {Kind: "lora"}, {Kind: "lora", Rank: 2}, {Kind: "ia3"}, {Kind: "prefix", Length: 3}} {
		own := newModel(t)
		a := scrambled(t, own, config, uint64(i))
		for _, v := range a.Beside() { // its head is its own too
			v.Init = elastic.Init{Normal: 0.3}
			if err := own.Store.GetVariable(v.Path).SetValue(v.Tensor(uint64(i))); err != nil {
				t.Fatal(err)
			}
		}
		name := fmt.Sprint(config.Kind, i)
		want[name] = modelLogits(t, own, a, x, m1)
		if err := bank.Add(name, a, own.Store); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		for _, name := range []string{"lora0", "lora1", "", "ia33", "lora22", "lora2", "lora0", "prefix4"} {
			out, err := bank.Call(name, x, m1)
			if name == "lora22" {
				if err == nil {
					t.Error("called an adapter that is not there")
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			gxtest.Close(t, out[0], want[name], 1e-6)
		}
	}
	if bank.Compilations() != 5 {
		t.Errorf("%d compilations, want one each of base, LoRA, smaller LoRA, IA³ and prefix", bank.Compilations())
	}
	if err := bank.Add("lora0", nil, m.Store); err == nil {
		t.Error("took a second adapter of one name")
	}
}

// TestPatterns: what matches nothing is an error that names it.
func TestPatterns(t *testing.T) {
	variables := small().Variables()
	for want, config := range map[string]peft.Config{
		`kind "lorra" is unknown; known: adalora, dora`:                  {Kind: "lorra"},
		`targets: pattern "*/nothing/*" matches no variable`:             {Kind: "lora", Targets: []string{"*/query/*", "*/nothing/*"}},
		`targets: pattern "*/query/bias" matches no variable`:            {Kind: "lora", Targets: []string{"*/query/bias"}},
		`inputs: pattern "*/value/weights" matches no variable`:          {Kind: "ia3", Targets: []string{"*/key/weights"}, Inputs: []string{"*/value/weights"}},
		`train: pattern "/tail/*" matches no variable`:                   {Kind: "lora", Train: []string{"/tail/*"}},
		`rank is set, which kind "ia3" does not have`:                    {Kind: "ia3", Rank: 4},
		`budget.target is 5, want 1 to the rank, 4`:                      {Kind: "adalora", Rank: 4, Budget: &peft.Budget{Target: 5}},
		`dropout is 1, want 0 ≤ p < 1`:                                   {Kind: "lora", Dropout: 1},
		`length is -1, want at least 1`:                                  {Kind: "prompt", Length: -1},
		"budget.beta1 is 2, want 0 < β < 1\nbudget.warmup is -1, want 0": {Kind: "adalora", Budget: &peft.Budget{Beta1: 2, Warmup: -1}},
	} {
		if _, err := peft.New(config, variables); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %s", err, want)
		}
	}
	a, err := peft.New(peft.Config{Kind: "lora", Rank: 2, Targets: []string{"/layer_1/*/weights"}}, variables)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Ranks()) != 6 {
		t.Errorf("layers are %v, want the six of the second block", a.Ranks())
	}
}

// TestBudgetOfShortRuns: ranks are not dropped before anything is known of them, also if the run has fewer updates than the budget's
// last phase.
func TestBudgetOfShortRuns(t *testing.T) {
	for _, c := range []struct {
		budget  peft.Budget
		updates int
	}{{peft.Budget{Final: 100}, 60}, {peft.Budget{Warmup: 100}, 60}, {peft.Budget{}, 1}, {peft.Budget{}, 2}} {
		a, err := peft.New(peft.Config{Kind: "adalora", Budget: &c.budget}, small().Variables())
		if err != nil {
			t.Fatal(err)
		}
		if first := a.FollowScalars(0, c.updates); first[0] != 1 || first[1] != 0 {
			t.Errorf("%+v, %d updates: the first is told %v", c.budget, c.updates, first)
		}
	}
}

// TestConfigTravels as JSON, with an empty list apart from none.
func TestConfigTravels(t *testing.T) {
	config := peft.Config{Kind: "adalora", Rank: 6, Train: []string{}, Budget: &peft.Budget{Target: 3, Orthogonality: -1}}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	var again peft.Config
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if again.Train == nil || again.Budget.Target != 3 || again.Budget.Orthogonality != -1 || again.Rank != 6 {
		t.Errorf("%s came back as %+v", text, again)
	}
}

// TestPenalty compares value and gradient of adalora's penalty with its formula in float64.
func TestPenalty(t *testing.T) {
	m := newModel(t)
	a := scrambled(t, m, peft.Config{Kind: "adalora", Rank: 3}, 2)
	var parameters []elastic.Variable
	for _, v := range a.Variables() {
		if !strings.HasSuffix(v.Path, "lora_E") {
			parameters = append(parameters, v)
		}
	}
	exec, err := model.NewExec(gxtest.Backend(t), m.Store, func(scope *model.Scope, x *Node) []*Node {
		w := elastic.WeightsOf(scope.Store(), x.Graph())
		penalty := a.Penalty(w)
		var at []*Node
		for _, v := range parameters {
			at = append(at, w.At(v.Path[1:]))
		}
		return append([]*Node{penalty}, Gradient(penalty, at...)...)
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Call(float32(0))
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	gradients := make([][]float64, len(parameters))
	for p, v := range parameters {
		flat := tensors.MustCopyFlatData[float32](m.Store.GetVariable(v.Path).MustValue())
		rows, columns := v.Shape[0], v.Shape[1]
		at := func(rank, i int) float64 { return float64(flat[rank*columns+i]) } // A
		n := columns
		if strings.HasSuffix(v.Path, "lora_B") {
			at, n = func(rank, i int) float64 { return float64(flat[i*columns+rank]) }, rows
		}
		var d [3][3]float64 // P·Pᵀ − I
		square := 0.0
		for r := range d {
			for s := range d[r] {
				for i := range n {
					d[r][s] += at(r, i) * at(s, i)
				}
				if r == s {
					d[r][s]--
				}
				square += d[r][s] * d[r][s]
			}
		}
		norm := math.Sqrt(square)
		sum += norm
		gradients[p] = make([]float64, len(flat))
		for r := range d {
			for i := range n {
				g := 0.0
				for s := range d {
					g += 2 * d[r][s] * at(s, i) / norm
				}
				place := r*columns + i
				if strings.HasSuffix(v.Path, "lora_B") {
					place = i*columns + r
				}
				gradients[p][place] = g * 0.5 / float64(len(parameters))
			}
		}
	}
	gxtest.Close(t, tensors.ToScalar[float32](out[0]), 0.5*sum/float64(len(parameters)), 1e-5)
	for i, want := range gradients {
		gxtest.Close(t, out[i+1], want, 1e-6)
	}
}

// TestVirtualTokensShareARow wants packed texts to be what they are alone, with a prefix.
func TestVirtualTokensShareARow(t *testing.T) {
	m := newModel(t)
	a := scrambled(t, m, peft.Config{Kind: "prefix", Length: 3}, 9)
	exec, err := model.NewExec(gxtest.Backend(t), m.Store, func(scope *model.Scope, in []*Node) *Node {
		w := a.Weights(elastic.WeightsOf(scope.Store(), in[0].Graph()), nil)
		return m.Config.Logits(w, transformer.Inputs{IDs: in[0], Documents: in[1], Positions: in[2]}, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	packed, err := exec.Call([][]int32{{2, 3, 4, 7, 8, 9, 10, 0}}, [][]int32{{1, 1, 1, 2, 2, 2, 2, 0}}, [][]int32{{0, 1, 2, 0, 1, 2, 3, 0}})
	if err != nil {
		t.Fatal(err)
	}
	one := func(ids ...int32) []float32 {
		ones := slices.Repeat([]int32{1}, len(ids))
		return modelLogits(t, m, a, tensors.MustFromAnyValue([][]int32{ids}), tensors.MustFromAnyValue([][]int32{ones}))
	}
	flat := tensors.MustCopyFlatData[float32](packed[0])
	gxtest.Close(t, flat[:6], one(2, 3, 4), 1e-5)
	gxtest.Close(t, flat[6:14], one(7, 8, 9, 10), 1e-5)
}

// TestDamagedFilesAreExplained changes what peft wrote in ways that must not pass.
func TestDamagedFilesAreExplained(t *testing.T) {
	m := newModel(t)
	a := scrambled(t, m, peft.Config{Kind: "lora", Rank: 2}, 1)
	dir := filepath.Join(t.TempDir(), "adapter")
	if err := checkpoint.Save(dir, checkpoint.Checkpoint{Files: peft.Files(m, a, "base")}); err != nil {
		t.Fatal(err)
	}
	if _, err := peft.Load(dir, newModel(t)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, peft.ConfigFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string][2]string{
		`peft_type "LOHA" is not supported`:                {`"LORA"`, `"LOHA"`},
		"use_rslora and use_dora together":                 {`"use_dora": false,`, `"use_dora": true,`},
		`lora_magnitude_vector is missing`:                 {`"use_dora": false,`, `"use_dora": true, "use_rslora": false,`},
		`alpha_pattern is {"a":1}, which is not supported`: {`"bias": "none",`, `"bias": "none", "alpha_pattern": {"a":1},`},
		`init_lora_weights is "pissa_niter_4"`:             {`"bias": "none"`, `"bias": "none", "init_lora_weights": "pissa_niter_4"`},
		"lora_alpha is 0":                                  {`"lora_alpha": 4`, `"lora_alpha": 0`},
		`bias is "all", want "none"`:                       {`"bias": "none"`, `"bias": "all"`},
		`has no tensor of kind "ia3" for any layer`:        {`"LORA"`, `"IA3"`},
		"invalid character":                                {`{`, `{{`},
	} {
		text := strings.Replace(string(whole), change[0], change[1], 1)
		if want == "use_rslora and use_dora together" {
			text = strings.Replace(text, `"use_rslora": false`, `"use_rslora": true`, 1)
		}
		if want == `lora_magnitude_vector is missing` {
			text = strings.Replace(string(whole), `"use_dora": false`, `"use_dora": true`, 1)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := peft.Load(dir, newModel(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %s", err, want)
		}
	}
	if err := os.WriteFile(path, whole, 0o644); err != nil {
		t.Fatal(err)
	}
	smaller := small()
	smaller.Layers = 1
	other, err := transformer.New(smaller, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := peft.Load(dir, other); err == nil || !strings.Contains(err.Error(), "layer.1.attention.self.query.lora_A.weight belongs to no variable") {
		t.Errorf("error is %v", err)
	}
}

func ExampleBank() {
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := transformer.New(small(), 7)
	if err != nil {
		fmt.Println(err)
		return
	}
	bank, err := peft.NewBank(engine, m.Store, func(w elastic.Weights, in []*Node) []*Node {
		return []*Node{m.Config.Logits(w, transformer.Inputs{IDs: in[0]}, nil)}
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer bank.Finalize()
	adapter, err := peft.New(peft.Config{Kind: "lora"}, m.Config.Variables())
	for i, name := range []string{"news", "law"} {
		if err == nil {
			err = adapter.Create(m.Store, uint64(i)) // or peft.Load
		}
		if err == nil {
			err = bank.Add(name, adapter, m.Store)
		}
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, name := range []string{"news", "law", "", "news"} {
		logits, err := bank.Call(name, [][]int32{{2, 3, 4}})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(logits[0].Shape(), bank.Compilations())
	}
	// Output:
	// (Float32)[1, 3, 2] 1
	// (Float32)[1, 3, 2] 1
	// (Float32)[1, 3, 2] 2
	// (Float32)[1, 3, 2] 2
}

func ExampleAdapter() {
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := transformer.New(small(), 7)
	if err != nil {
		fmt.Println(err)
		return
	}
	adapter, err := peft.New(peft.Config{Kind: "lora", Rank: 4, Targets: []string{"*/attention/query/weights"}}, m.Config.Variables())
	if err == nil {
		err = adapter.Create(m.Store, 1)
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	exec, err := model.NewExec(engine, m.Store, func(scope *model.Scope, ids *Node) *Node {
		w := adapter.Weights(elastic.WeightsOf(scope.Store(), ids.Graph()), nil)
		return m.Config.Logits(w, transformer.Inputs{IDs: ids}, nil)
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	logits, err := exec.Call([][]int32{{2, 3, 4}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(logits[0].Shape())
	fmt.Printf("%d of %d parameters are the adapter's\n", adapter.Parameters(), m.Parameters())
	for _, v := range adapter.Variables()[:2] {
		fmt.Println(v.Path, v.Shape)
	}
	// Output:
	// (Float32)[1, 3, 2]
	// 192 of 2910 parameters are the adapter's
	// /peft/layer_0/attention/query/lora_A [4 12]
	// /peft/layer_0/attention/query/lora_B [12 4]
}
