package train_test

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	mltrain "github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// miniLM is a tagger of MiniLM's size.
var miniLM = transformer.Config{
	VocabSize: 30522, Hidden: 384, Layers: 6, FeedForward: 1536, MaxPositions: 512, TypeVocab: 2, Activation: "gelu", NormEpsilon: 1e-12, InitStd: 0.02,
	Attention: attention.Spec{Heads: 12}, Head: transformer.Head{Kind: transformer.Tokens, Labels: []string{"O", "A", "B", "C", "D", "E", "F"}},
}

// BenchmarkStep holds a training step of MiniLM's size, rows of 128 tokens without dropout, against
// one of GoMLX's own trainer with its Adam: the same loss of the same model, in turn. Ratio is the median
// of the ratios of neighbours; that of sums counts the updates in which SOAP and Shampoo make new bases and roots. Goals: AdamW at most 1.03, Muon at most
// 1.3; what Muon adds, products of each matrix with itself, does not depend on the batch, so that it is measured with larger ones too.
func BenchmarkStep(b *testing.B) {
	config := miniLM
	few, many, length := 4, 16, 128
	if gxtest.Backend(b).String() == "go" {
		config.Layers, config.VocabSize, few, many, length = 1, 1000, 1, 2, 32 // the whole takes minutes
	}
	for _, rule := range []struct {
		name string
		rule optim.Rule
		rows int
	}{
		{"adamw", optim.AdamW{WeightDecay: 0.01}, few}, {"muon", optim.Muon{}, few}, {"muon", optim.Muon{}, many}, {"muon", optim.Muon{}, 2 * many},
		{"soap", optim.SOAP{Limit: 512}, few}, {"shampoo", optim.Shampoo{Limit: 512}, few},
	} {
		rows := rule.rows
		b.Run(fmt.Sprintf("%s/%dx%d", rule.name, rows, length), func(b *testing.B) {
			ours, theirs := tagger(b, config), tagger(b, config)
			trainer, err := train.New(gxtest.Backend(b), ours, train.Config{
				Epochs: 1, Optimizer: optim.Config{Rule: rule.rule}, Schedule: schedule.Config{Kind: "constant", Peak: 1e-5},
			})
			if err != nil {
				b.Fatal(err)
			}
			peer := mltrain.NewTrainer(gxtest.Backend(b), theirs.m.Store, func(scope *model.Scope, ids, labels *graph.Node) *graph.Node {
				sum, count := theirs.Loss(elastic.WeightsOf(scope.Store(), ids.Graph()), []*graph.Node{ids}, []*graph.Node{labels}, nil)
				return graph.Div(sum, count)
			}, func(_, predictions []*graph.Node) *graph.Node { return predictions[0] }, optimizer.Adam().LearningRate(1e-5).Done(), nil, nil)
			batch := func() mltrain.Batch { return batchOf(rows, length) }
			var ratios []float64
			var mine, other time.Duration
			ctx, stop := context.WithCancel(context.Background())
			_, err = trainer.Run(ctx, repeated{batch}, train.Hooks{Step: func(s train.Step) {
				one := batch()
				one.Inputs = append(one.Inputs, one.Labels[0])
				one.Labels = nil
				begin := time.Now()
				metrics, err := peer.TrainStep(one)
				if err != nil {
					b.Fatal(err)
				}
				for _, m := range metrics { // waits for the step
					tensors.MustCopyFlatData[float32](m)
				}
				elapsed := time.Since(begin)
				switch {
				case s.Update <= 3: // compiles
				case s.Update == 4:
					b.ResetTimer()
				default:
					ratios = append(ratios, s.Elapsed.Seconds()/elapsed.Seconds())
					mine, other = mine+s.Elapsed, other+elapsed
					if len(ratios) >= max(b.N, 5) {
						stop()
					}
				}
			}})
			if ctx.Err() == nil {
				b.Fatal(err)
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "ratio")
			b.ReportMetric(mine.Seconds()/other.Seconds(), "ratio-of-sums")
			if err := trainer.Finalize(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkCheckpointBlocks times steps of MiniLM's size, 16 rows of 128 tokens without dropout, with all of the forward pass kept for
// the gradient and with the blocks' inputs alone. In XLA_FLAGS, --xla_dump_to=DIR makes XLA write down what memory either takes.
func BenchmarkCheckpointBlocks(b *testing.B) {
	config, rows, length := miniLM, 16, 128
	if gxtest.Backend(b).String() == "go" {
		config.Layers, config.VocabSize, rows, length = 2, 1000, 2, 32
	}
	for _, checkpoint := range []bool{false, true} {
		b.Run(fmt.Sprint(checkpoint), func(b *testing.B) {
			trainer, err := train.New(gxtest.Backend(b), tagger(b, config), train.Config{
				Schedule: schedule.Config{Kind: "constant", Peak: 1e-5}, CheckpointBlocks: checkpoint, MaxUpdates: b.N + 1,
			})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := trainer.Run(b.Context(), repeated{func() mltrain.Batch { return batchOf(rows, length) }}, train.Hooks{Step: func(s train.Step) {
				if s.Update == 1 {
					b.ResetTimer() // after the compilation
				}
			}}); err != nil {
				b.Fatal(err)
			}
			if err := trainer.Finalize(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// batchOf is a batch of made-up tokens and labels.
func batchOf(rows, length int) mltrain.Batch {
	ids, labels := make([]int32, rows*length), make([]int32, rows*length)
	for i := range ids {
		ids[i], labels[i] = int32(i*641%1000), int32(i*13%7)
	}
	tensor := func(ids []int32) *tensors.Tensor { return tensors.FromFlatDataAndDimensions(ids, rows, length) }
	return mltrain.Batch{Inputs: []*tensors.Tensor{tensor(ids)}, Labels: []*tensors.Tensor{tensor(labels)}}
}

// encoder is a tagger as a task.
type encoder struct{ m *transformer.Model }

func tagger(b *testing.B, config transformer.Config) encoder {
	m, err := transformer.New(config, 1)
	if err != nil {
		b.Fatal(err)
	}
	return encoder{m}
}

func (e encoder) Store() *model.Store { return e.m.Store }

func (e encoder) Variables() []elastic.Variable { return e.m.Config.Variables() }

func (e encoder) Loss(w elastic.Weights, inputs, labels []*graph.Node, drop *dropout.Source) (sum, count *graph.Node) {
	return loss.CrossEntropy(e.m.Config.Logits(w, transformer.Inputs{IDs: inputs[0]}, drop), labels[0])
}

// repeated is one batch without end.
type repeated struct{ batch func() mltrain.Batch }

func (r repeated) Steps() int { return 1 << 20 }

func (r repeated) Batches(_, skip int) iter.Seq2[mltrain.Batch, error] {
	return func(yield func(mltrain.Batch, error) bool) {
		for range r.Steps() - skip {
			if !yield(r.batch(), nil) {
				return
			}
		}
	}
}
