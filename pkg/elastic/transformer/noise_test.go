package transformer_test

import (
	"math"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

func noisyConfig() transformer.Config {
	return transformer.Config{
		VocabSize: 20, Hidden: 8, Layers: 2, FeedForward: 16, Attention: attention.Spec{Heads: 2}, MaxPositions: 10, TypeVocab: 2,
		Activation: "gelu", NormEpsilon: 1e-6, InitStd: 0.3, NormOrder: transformer.PreNorm,
	}
}

// states computes the states of a model of the config in training.
func states(t *testing.T, config transformer.Config) (states [][]float32) {
	t.Helper()
	m, err := transformer.New(config, 4)
	if err != nil {
		t.Fatal(err)
	}
	exec, err := model.NewExec(gxtest.Backend(t), m.Store, func(scope *model.Scope, key, ids, documents *Node) []*Node {
		in := transformer.Inputs{IDs: ids, Documents: documents, Positions: Iota(ids.Graph(), ids.Shape(), 1)}
		return config.Encode(elastic.WeightsOf(scope.Store(), ids.Graph()), in, dropout.NewSource(key)).States
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Call(dropout.Key(1, 1), [][]int32{{5, 6, 7, 8, 0}, {9, 5, 4, 3, 2}}, [][]int32{{1, 1, 2, 2, 0}, {1, 2, 2, 2, 2}})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range out {
		states = append(states, tensors.MustCopyFlatData[float32](o))
	}
	return states
}

func TestNoNoiseChangesNothing(t *testing.T) {
	plain, silent := noisyConfig(), noisyConfig()
	plain.Dropout, silent.Dropout = 0.3, 0.3 // also the places of dropout stay the same
	silent.Noise = &transformer.Noise{}
	want, got := states(t, plain), states(t, silent)
	for i := range want {
		gxtest.Close(t, got[i], want[i], 0)
	}
}

// TestDroppedBlockLeavesTheResidual drops the last block for sure, or nearly: only the last
// normalisation is left of it.
func TestDroppedBlockLeavesTheResidual(t *testing.T) {
	config := noisyConfig()
	config.Noise = &transformer.Noise{DropPath: 1 - 1e-7}
	got := states(t, config)
	want := make([]float32, len(got[1]))
	for at := 0; at < len(want); at += config.Hidden {
		row, mean, variance := got[1][at:at+config.Hidden], 0.0, 0.0
		for _, x := range row {
			mean += float64(x) / float64(len(row))
		}
		for _, x := range row {
			variance += (float64(x) - mean) * (float64(x) - mean) / float64(len(row))
		}
		for i, x := range row {
			want[at+i] = float32((float64(x) - mean) / math.Sqrt(variance+config.NormEpsilon))
		}
	}
	gxtest.Close(t, got[2], want, 1e-5)
	whole := states(t, noisyConfig())
	gxtest.Close(t, got[1], whole[1], 0) // the first block is always there
}

func TestDroppedWordsAreUnknown(t *testing.T) {
	config := noisyConfig()
	config.Noise = &transformer.Noise{WordDropout: 1 - 1e-7, Unknown: 1, Keep: []int{5}}
	out := states(t, config)[0]
	token := func(row, at int) []float32 {
		start := (row*5 + at) * config.Hidden
		return out[start : start+config.Hidden]
	}
	// 6 and 5, 8 and 3 at the same positions: unknown but for 5.
	gxtest.Close(t, token(0, 3), token(1, 3), 0)
	gxtest.Close(t, token(0, 2), token(1, 2), 0)
	different := false
	for i, x := range token(0, 1) {
		different = different || x != token(1, 1)[i]
	}
	if !different {
		t.Error("an id that is to be kept was replaced")
	}
}

func TestBadNoise(t *testing.T) {
	for want, noise := range map[string]transformer.Noise{
		"noise.drop_path is 1, want 0 ≤ p < 1":        {DropPath: 1},
		"noise.word_dropout is -0.5, want 0 ≤ p < 1":  {WordDropout: -0.5},
		"noise.unknown and keep have the id 20, want": {WordDropout: 0.5, Unknown: 20},
	} {
		config := noisyConfig()
		config.Noise = &noise
		if err := config.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", noise, err, want)
		}
	}
}
