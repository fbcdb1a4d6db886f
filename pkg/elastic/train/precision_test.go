package train_test

import (
	"iter"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	mltrain "github.com/gomlx/gomlx/ml/train"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
)

// TestPrecisionTracksF32: in bf16 the losses of a run with dense layers stay within 2 % of those in f32, and the
// weights, the optimizer's slots and the checkpoint are float32 with all their bits.
func TestPrecisionTracksF32(t *testing.T) {
	cfg := config()
	cfg.Epochs, cfg.LogEvery = 6, 1
	data := rows{batches: 5, size: 16}
	runs := map[string][]train.Point{}
	ends := map[string][]float32{}
	for _, precision := range []string{train.F32, train.BF16, ""} {
		c, dir := newClassifier(t), t.TempDir()
		cfg.Precision = precision
		trainer := newTrainer(t, c, cfg)
		result, err := trainer.Run(t.Context(), data, train.Hooks{Save: func(train.State, bool) error { return save(dir, c, trainer) }})
		if err != nil {
			t.Fatal(err)
		}
		runs[precision], ends[precision] = result.State.History, weights(t, c)
		for v := range c.store.IterVariables() {
			if v.DType() != dtypes.Float32 {
				t.Errorf("%s: %s is %s", precision, v.Path(), v.DType())
			}
		}
		file, err := safetensors.Open(filepath.Join(dir, train.SlotsFile))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range file.Names() {
			if value, err := file.Tensor(name); err != nil || value.DType() != dtypes.Float32 {
				t.Errorf("%s: slot %s: %v", precision, name, err)
			}
		}
		file.Close()
	}
	if !slices.Equal(ends[""], ends[train.F32]) {
		t.Error("f32 is not the default")
	}
	if slices.Equal(ends[train.BF16], ends[train.F32]) {
		t.Error("bf16 changes nothing")
	}
	rough := 0 // weights that bfloat16 could not hold
	for _, w := range ends[train.BF16] {
		if math.Float32bits(w)&0xffff != 0 {
			rough++
		}
	}
	if rough < len(ends[train.BF16])/2 {
		t.Errorf("only %d of %d weights have more bits than bfloat16: updates are rounded", rough, len(ends[train.BF16]))
	}
	for i, p := range runs[train.BF16] {
		if want := runs[train.F32][i].Loss; math.Abs(p.Loss/want-1) > 0.02 {
			t.Errorf("update %d: loss %g, in f32 %g", p.Update, p.Loss, want)
		}
	}
	cfg.Precision = "f16"
	if _, err := train.New(gxtest.Backend(t), newClassifier(t), cfg); err == nil || !strings.Contains(err.Error(), `precision "f16" is unknown; known: f32, bf16`) {
		t.Errorf("f16: %v", err)
	}
}

// reader is attention over a row of features.
type reader struct{ store *model.Store }

var readerSpec = attention.Spec{Heads: 8}

const readerSize = 256

func (r reader) Store() *model.Store { return r.store }

func (reader) Variables() []elastic.Variable {
	return slices.Concat(elastic.Under("/attention", readerSpec.Variables(readerSize, 0.05)), elastic.Under("/head", elastic.DenseVariables(readerSize, 2, 0.05)))
}

func (reader) Loss(w elastic.Weights, inputs, labels []*graph.Node, _ *dropout.Source) (sum, count *graph.Node) {
	y := attention.Self(readerSpec, w.In("attention"), inputs[0], attention.Inputs{}).Output
	return loss.CrossEntropy(elastic.Dense(w.In("head"), graph.ReduceMean(y, 1)), labels[0])
}

type sentences struct{ batches, rows, length int }

func (s sentences) Steps() int { return s.batches }

func (s sentences) Batches(_, skip int) iter.Seq2[mltrain.Batch, error] {
	return func(yield func(mltrain.Batch, error) bool) {
		for b := skip; b < s.batches; b++ {
			x, y := make([]float32, s.rows*s.length*readerSize), make([]int32, s.rows)
			for i := range x {
				x[i] = float32(math.Sin(float64(i*(b+3)) * 0.7))
			}
			for i := range y {
				y[i] = int32(i % 2)
				x[i*s.length*readerSize] += 4 * float32(y[i])
			}
			if !yield(mltrain.Batch{
				Inputs: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(x, s.rows, s.length, readerSize)},
				Labels: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(y, s.rows)},
			}, nil) {
				return
			}
		}
	}
}

func readerRun(tb testing.TB, precision string, data sentences) []train.Point {
	store, err := elastic.NewStore(reader{}.Variables(), 1)
	if err != nil {
		tb.Fatal(err)
	}
	trainer, err := train.New(gxtest.Backend(tb), reader{store}, train.Config{LogEvery: 1, Precision: precision, Schedule: schedule.Config{Kind: "constant", Peak: 1e-3}})
	if err != nil {
		tb.Fatal(err)
	}
	result, err := trainer.Run(tb.Context(), data, train.Hooks{Step: func(s train.Step) {
		if b, ok := tb.(*testing.B); ok && s.Update == 1 {
			b.ResetTimer() // after the compilation
		}
	}})
	if err != nil {
		tb.Fatal(err)
	}
	return result.State.History
}

// TestPrecisionOfAttention: losses of a run with attention stay within 2 % too.
func TestPrecisionOfAttention(t *testing.T) {
	data := sentences{batches: 12, rows: 4, length: 6}
	low, high := readerRun(t, train.BF16, data), readerRun(t, train.F32, data)
	same := true
	for i, p := range low {
		if math.Abs(p.Loss/high[i].Loss-1) > 0.02 {
			t.Errorf("update %d: loss %g, in f32 %g", p.Update, p.Loss, high[i].Loss)
		}
		same = same && p.Loss == high[i].Loss
	}
	if same || !(high[11].Loss < high[0].Loss) {
		t.Errorf("bf16 changes nothing, or nothing is learned: %g to %g", high[0].Loss, high[11].Loss)
	}
}

// BenchmarkPrecision times updates of attention and dense layers in both precisions.
func BenchmarkPrecision(b *testing.B) {
	rows, length := 16, 128
	if gxtest.Backend(b).String() == "go" {
		rows, length = 2, 16 // whose bf16 takes minutes
	}
	for _, precision := range []string{train.F32, train.BF16} {
		b.Run(precision, func(b *testing.B) {
			readerRun(b, precision, sentences{batches: b.N + 1, rows: rows, length: length})
		})
	}
}
