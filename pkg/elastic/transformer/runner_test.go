package transformer_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

var (
	someIDs   = [][]int32{{5, 9, 7, 3, 2}, {8, 6, 0, 0, 0}}
	someTypes = [][]int32{{0, 0, 0, 1, 1}, {0, 0, 0, 0, 0}}
	someMask  = [][]int32{{1, 1, 1, 1, 1}, {1, 1, 0, 0, 0}}
	someCount = [][]bool{{true, false, false, false, false}, {false, false, false, false, false}} // few, that exits may agree
)

// adaptive returns a model of four layers whose depth adapts, with the logits of all its
// exits for the inputs above; [batch, length, labels] each.
func adaptive(t *testing.T, depth transformer.Depth) (*transformer.Model, []*tensors.Tensor) {
	t.Helper()
	config := small()
	config.Layers, config.Depth = 4, &depth
	m, err := transformer.New(config, 4)
	if err != nil {
		t.Fatal(err)
	}
	exits, err := model.CallOnceN(gxtest.Backend(t), m.Store, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		w := elastic.WeightsOf(scope.Store(), in[0].Graph())
		return m.Config.Exits(w, m.Config.Encode(w, transformer.Inputs{IDs: in[0], Types: in[1], Mask: in[2]}, nil), nil)
	}, someIDs, someTypes, someMask)
	if err != nil {
		t.Fatal(err)
	}
	return m, exits
}

func runner(t *testing.T, m *transformer.Model) func(threshold float64) (*tensors.Tensor, int) {
	t.Helper()
	r, err := transformer.NewRunner(gxtest.Backend(t), m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Finalize)
	return func(threshold float64) (*tensors.Tensor, int) {
		t.Helper()
		if threshold > 0 {
			if err := r.SetThreshold(threshold); err != nil {
				t.Fatal(err)
			}
		}
		logits, layers, err := r.Logits(tensors.FromValue(someIDs), tensors.FromValue(someTypes), tensors.FromValue(someMask), tensors.FromValue(someCount))
		if err != nil {
			t.Fatal(err)
		}
		return logits, layers
	}
}

// TestNeverLeavingIsTheFullModel: with a threshold that never leaves the logits are those of
// the full model, to the last bit; also layer by layer, as far as the backend keeps it.
func TestNeverLeavingIsTheFullModel(t *testing.T) {
	for _, depth := range []transformer.Depth{
		{Kind: transformer.EarlyExit},
		{Kind: transformer.EarlyExit, Rule: transformer.Confidence},
		{Kind: transformer.EarlyExit, Rule: transformer.Patience},
	} {
		t.Run(depth.Rule, func(t *testing.T) {
			m, exits := adaptive(t, depth)
			run := runner(t, m)
			logits, layers := run(0)
			if layers != 4 {
				t.Errorf("%d layers, want 4", layers)
			}
			gxtest.Close(t, logits, exits[3], 0)
			never := map[string]float64{"": 1e-9, transformer.Confidence: 1, transformer.Patience: 4}[depth.Rule]
			logits, layers = run(never)
			if layers != 4 {
				t.Errorf("threshold %g: %d layers, want 4", never, layers)
			}
			gxtest.Close(t, logits, exits[3], rounding(t))
		})
	}
}

// rounding is by how much layers that are compiled one by one may differ from a whole model:
// by nothing on pure Go, which computes what it is told, by float32's last bits on a compiler.
func rounding(t *testing.T) float64 {
	if gxtest.Backend(t).String() == "go" {
		return 0
	}
	return 1e-5
}

// TestLeavingEarly: every rule leaves at the layer, and with the logits, that its definition
// gives on the host.
func TestLeavingEarly(t *testing.T) {
	const labels = 3
	// sure tells whether exit n is sure of a token, of which it has the probabilities and labels of all exits.
	for rule, sure := range map[string]func(p [][]float64, best []int, n int, threshold float64) bool{
		transformer.Entropy: func(p [][]float64, _ []int, n int, threshold float64) bool {
			h := 0.0
			for _, q := range p[n] {
				h -= q * math.Log(q)
			}
			return h/math.Log(labels) < threshold
		},
		transformer.Confidence: func(p [][]float64, best []int, n int, threshold float64) bool { return p[n][best[n]] > threshold },
		transformer.Patience: func(_ [][]float64, best []int, n int, threshold float64) bool {
			streak := 0
			for k := n; k > 0 && best[k] == best[k-1]; k-- {
				streak++
			}
			return float64(streak) >= threshold
		},
	} {
		t.Run(rule, func(t *testing.T) {
			m, exits := adaptive(t, transformer.Depth{Kind: transformer.EarlyExit, Rule: rule})
			run := runner(t, m)
			seen := map[int]bool{}
			thresholds := []float64{1, 2, 3, 4}
			if rule != transformer.Patience {
				thresholds = nil
				for i := range 40 {
					thresholds = append(thresholds, float64(i+1)/40)
				}
			}
			for _, threshold := range thresholds {
				want := 0
				for sureOfAll := false; !sureOfAll && want < len(exits); want++ {
					sureOfAll = true
					for row := range someCount {
						for i, counts := range someCount[row] {
							p, best := tokenAt(exits, (row*len(someIDs[0])+i)*labels, labels)
							sureOfAll = sureOfAll && (!counts || sure(p, best, want, threshold))
						}
					}
				}
				logits, layers := run(threshold)
				if layers != want {
					t.Errorf("threshold %g: %d layers, want %d", threshold, layers, want)
					continue
				}
				gxtest.Close(t, logits, exits[layers-1], rounding(t))
				seen[layers] = true
			}
			if len(seen) < 2 {
				t.Errorf("every threshold leaves after the layers %v: nothing is tested", seen)
			}
		})
	}
}

// tokenAt returns what all exits think of one token.
func tokenAt(exits []*tensors.Tensor, at, labels int) (p [][]float64, best []int) {
	for _, exit := range exits {
		logits := tensors.MustCopyFlatData[float32](exit)[at : at+labels]
		sum, label, row := 0.0, 0, make([]float64, labels)
		for i, v := range logits {
			row[i] = math.Exp(float64(v))
			sum += row[i]
			if v > logits[label] {
				label = i
			}
		}
		for i := range row {
			row[i] /= sum
		}
		p, best = append(p, row), append(best, label)
	}
	return p, best
}

// TestHaltingSkipsLayers: what adaptive computation time does not execute changes nothing.
func TestHaltingSkipsLayers(t *testing.T) {
	for bias, want := range map[float32]int{20: 1, 0.3: 2, -20: 4} { // all tokens alike: the weights are 0

		config := small()
		config.Layers, config.Depth = 4, &transformer.Depth{Kind: transformer.ACT, Epsilon: 0.4}
		m, err := transformer.New(config, 4)
		if err != nil {
			t.Fatal(err)
		}
		for path, value := range map[string]*tensors.Tensor{
			"/depth/halt/bias":    tensors.FromValue([]float32{bias}),
			"/depth/halt/weights": tensors.FromFlatDataAndDimensions(make([]float32, config.Hidden), config.Hidden, 1),
		} {
			if err := m.Store.GetVariable(path).SetValue(value); err != nil {
				t.Fatal(err)
			}
		}
		full, err := logits(t, m, someIDs, someMask)
		if err != nil {
			t.Fatal(err)
		}
		r, err := transformer.NewRunner(gxtest.Backend(t), m)
		if err != nil {
			t.Fatal(err)
		}
		zero := tensors.FromFlatDataAndDimensions(make([]int32, 10), 2, 5)
		got, layers, err := r.Logits(tensors.FromValue(someIDs), zero, tensors.FromValue(someMask), tensors.FromValue(someCount))
		if err != nil {
			t.Fatal(err)
		}
		if layers != want {
			t.Errorf("bias %g: %d layers, want %d", bias, layers, want)
		}
		flat := tensors.MustCopyFlatData[float32](got)
		gxtest.Close(t, flat[:7*3], full[:7*3], 1e-5) // the second row ends with padding, whose logits mean nothing
		r.Finalize()
	}
}

func TestRunnerRefuses(t *testing.T) {
	m, err := transformer.New(small(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transformer.NewRunner(gxtest.Backend(t), m); err == nil || !strings.Contains(err.Error(), "config.depth is not set") {
		t.Errorf("a model of fixed depth: %v", err)
	}
	m, _ = adaptive(t, transformer.Depth{Kind: transformer.EarlyExit})
	r, err := transformer.NewRunner(gxtest.Backend(t), m)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Finalize()
	if err := r.SetThreshold(1.5); err == nil || !strings.Contains(err.Error(), `depth.threshold is 1.5, want 0 to 1 for rule "entropy"`) {
		t.Errorf("a threshold that is none: %v", err)
	}
	bad := tensors.FromValue([][]int32{{1, 2, 3}})
	if _, _, err := r.Logits(tensors.FromValue(someIDs), bad, bad, bad); err == nil || !strings.Contains(err.Error(), "computing all layers") {
		t.Errorf("inputs of other shapes: %v", err)
	}
}

// BenchmarkEarlyExit measures what leaving early saves: a batch of one, 64 tokens, a model of
// the size of MiniLM-L6, by the layer after which it leaves.
func BenchmarkEarlyExit(b *testing.B) {
	config := transformer.Config{
		VocabSize: 1000, Hidden: 384, Layers: 6, FeedForward: 1536, Attention: attention.Spec{Heads: 12}, MaxPositions: 64,
		Activation: "gelu", NormEpsilon: 1e-12, InitStd: 0.02, TypeVocab: 2,
		Head:  transformer.Head{Kind: transformer.Tokens, Labels: []string{"O", "B-X", "I-X"}},
		Depth: &transformer.Depth{Kind: transformer.EarlyExit, Rule: transformer.Patience},
	}
	m, err := transformer.New(config, 4)
	if err != nil {
		b.Fatal(err)
	}
	for _, v := range config.Variables() { // all exits agree, so that patience says the layer
		if strings.HasSuffix(v.Path, "/classifier/weights") {
			zeros := tensors.FromFlatDataAndDimensions(make([]float32, v.Size()), v.Shape...)
			if err := m.Store.GetVariable(v.Path).SetValue(zeros); err != nil {
				b.Fatal(err)
			}
		}
	}
	r, err := transformer.NewRunner(gxtest.Backend(b), m)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Finalize()
	ids, ones, counts := make([]int32, 64), make([]int32, 64), make([]bool, 64)
	for i := range ids {
		ids[i], ones[i], counts[i] = int32(i), 1, true
	}
	tensor := func(flat []int32) *tensors.Tensor { return tensors.FromFlatDataAndDimensions(flat, 1, 64) }
	for _, threshold := range []float64{1, 2, 3, 4, 0} {
		b.Run(fmt.Sprintf("patience_%g", threshold), func(b *testing.B) {
			if err := r.SetThreshold(threshold); err != nil {
				b.Fatal(err)
			}
			layers := 0
			for b.Loop() {
				var logits *tensors.Tensor
				logits, layers, err = r.Logits(tensor(ids), tensor(make([]int32, 64)), tensor(ones), tensors.FromFlatDataAndDimensions(counts, 1, 64))
				if err != nil {
					b.Fatal(err)
				}
				logits.MustFinalizeAll()
			}
			b.ReportMetric(float64(layers), "layers")
		})
	}
}
