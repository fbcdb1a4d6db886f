package lm

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// Score says how well a model predicts a text.
type Score struct {
	// Bytes is how many were predicted: all but the first.
	Bytes int `json:"bytes"`
	// Loss is the mean of −ln p of the byte that came, in nats.
	Loss float64 `json:"loss"`
	// Accuracy is the share of bytes that were the most probable.
	Accuracy float64 `json:"accuracy"`
	// Windows holds, for each window of the text in order, how many of its bytes were the most
	// probable, and how many were not.
	Windows [][2]int `json:"-"`
}

// Perplexity returns e^loss: that of a byte, not of a word.
func (s Score) Perplexity() float64 { return math.Exp(s.Loss) }

// BitsPerByte returns the loss in bits, which compares models of any tokens.
func (s Score) BitsPerByte() float64 { return s.Loss / math.Ln2 }

// Scores returns the numbers by name, for a run's journal.
func (s Score) Scores() map[string]float64 {
	return map[string]float64{"loss": s.Loss, "bits_per_byte": s.BitsPerByte(), "accuracy": s.Accuracy}
}

// String is one line for people.
func (s Score) String() string {
	return fmt.Sprintf("loss %.4f  %.4f bits per byte  accuracy %.4f", s.Loss, s.BitsPerByte(), s.Accuracy)
}

// evaluationBatch is the number of windows that are scored at once.
const evaluationBatch = 32

// Evaluate scores the model on a text, in windows as long as its context, one behind the other:
// a window's first bytes are predicted from few. Progress, if not nil, is told how many batches of
// how many are done.
func (m *Model) Evaluate(ctx context.Context, text []byte, progress func(done, total int)) (Score, error) {
	if len(text) < 2 {
		return Score{}, fmt.Errorf("a text of %d bytes cannot be scored, want at least 2", len(text))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.prepareScore(); err != nil {
		return Score{}, err
	}
	length := m.Context()
	count := (len(text) - 2 + length) / length
	total := (count + evaluationBatch - 1) / evaluationBatch
	score, sum := Score{Bytes: len(text) - 1}, 0.0
	for done := range total {
		if ctx.Err() != nil {
			return Score{}, fmt.Errorf("evaluation stopped after %d of %d batches: %w", done, total, context.Cause(ctx))
		}
		inputs, labels := make([]int32, evaluationBatch*length), make([]int32, evaluationBatch*length)
		for i := range inputs {
			at := done*evaluationBatch*length + i
			if labels[i] = loss.Ignored; at+1 < len(text) {
				inputs[i], labels[i] = int32(text[at]), int32(text[at+1])
			}
		}
		one, hits, err := m.scoreBatch(inputs, labels, length)
		if err != nil {
			return Score{}, fmt.Errorf("scoring: %w", err)
		}
		sum += one
		for row := range min(evaluationBatch, count-done*evaluationBatch) {
			at := (done*evaluationBatch + row) * length
			size := min(length, len(text)-1-at)
			score.Windows = append(score.Windows, [2]int{hits[row], size - hits[row]})
			score.Accuracy += float64(hits[row])
		}
		if progress != nil {
			progress(done+1, total)
		}
	}
	score.Loss, score.Accuracy = sum/float64(score.Bytes), score.Accuracy/float64(score.Bytes)
	if math.IsNaN(score.Loss) || math.IsInf(score.Loss, 0) {
		return Score{}, fmt.Errorf("scoring: the model's loss is %g: its weights are damaged, or its training diverged", score.Loss)
	}
	return score, nil
}

func (m *Model) prepareScore() error {
	if m.score != nil {
		return nil
	}
	config := m.Transformer.Config
	exec, err := model.NewExec(m.backend, m.Transformer.Store, func(scope *model.Scope, in []*Node) []*Node {
		logits := config.Logits(elastic.WeightsOf(scope.Store(), in[0].Graph()), transformer.Inputs{IDs: in[0]}, nil)
		sum, _ := loss.CrossEntropy(logits, in[1])
		hits := Equal(ArgMax(logits, -1, dtypes.Int32), in[1]) // the label of nothing is no byte
		return []*Node{sum, ReduceSum(ConvertDType(hits, dtypes.Int32), -1)}
	})
	if err != nil {
		return fmt.Errorf("preparing evaluation: %w", err)
	}
	m.score = exec
	return nil
}

// scoreBatch returns the summed loss of a batch, and the hits in each of its windows.
func (m *Model) scoreBatch(inputs, labels []int32, length int) (sum float64, hits []int, err error) {
	var failure error
	err = exceptions.TryCatch[error](func() {
		outputs, err := m.score.Call(tensors.FromFlatDataAndDimensions(inputs, len(inputs)/length, length), tensors.FromFlatDataAndDimensions(labels, len(labels)/length, length))
		if err != nil {
			failure = err
			return
		}
		sum = float64(tensors.ToScalar[float32](outputs[0]))
		for _, n := range tensors.MustCopyFlatData[int32](outputs[1]) {
			hits = append(hits, int(n))
		}
		for _, tensor := range outputs {
			tensor.MustFinalizeAll()
		}
	})
	return sum, hits, errors.Join(err, failure)
}
