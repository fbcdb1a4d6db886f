package train_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	mltrain "github.com/gomlx/gomlx/ml/train"
	"github.com/google/go-cmp/cmp"
	"github.com/janpfeifer/must"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
)

// classifier is a small network with dropout: 4 features, 8 hidden units, 3 classes.
type classifier struct{ store *model.Store }

func newClassifier(t *testing.T) classifier {
	t.Helper()
	store, err := elastic.NewStore(classifier{}.Variables(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return classifier{store}
}

func (c classifier) Store() *model.Store { return c.store }

func (classifier) Variables() []elastic.Variable {
	return slices.Concat(
		elastic.Under("/inner", elastic.DenseVariables(4, 8, 0.5)),
		elastic.Under("/norm", elastic.NormVariables(8)),
		elastic.Under("/outer", elastic.DenseVariables(8, 3, 0.5)))
}

func (classifier) Watched() []string { return []string{"/norm/scale"} }

func (classifier) Loss(w elastic.Weights, inputs, labels []*graph.Node, drop *dropout.Source) (sum, count *graph.Node) {
	x := graph.Tanh(elastic.Dense(w.In("inner"), inputs[0]))
	x = elastic.LayerNorm(w.In("norm"), drop.Apply(x, dropRate), 1e-5)
	return loss.CrossEntropy(elastic.Dense(w.In("outer"), x), labels[0])
}

const dropRate = 0.25

// rows are examples whose class follows from the features; every fifth is ignored.
type rows struct{ batches, size int }

func (r rows) Steps() int { return r.batches }

func (r rows) Batches(epoch, skip int) iter.Seq2[mltrain.Batch, error] {
	return func(yield func(mltrain.Batch, error) bool) {
		for b := skip; b < r.batches; b++ {
			if !yield(r.batch(epoch, b*r.size, r.size), nil) {
				return
			}
		}
	}
}

func (rows) batch(epoch, first, size int) mltrain.Batch {
	x, y := make([]float32, 0, size*4), make([]int32, 0, size)
	for i := first; i < first+size; i++ {
		phase := float64(i*7+epoch*3) * 0.37
		features := []float64{math.Sin(phase), math.Cos(phase), math.Sin(2 * phase), math.Cos(3 * phase)}
		for _, f := range features {
			x = append(x, float32(f))
		}
		label := int32(0)
		if features[0] > 0.3 {
			label = 1
		} else if features[1] > 0.3 {
			label = 2
		}
		if i%5 == 4 {
			label = loss.Ignored
		}
		y = append(y, label)
	}
	return mltrain.Batch{Inputs: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(x, size, 4)}, Labels: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(y, size)}}
}

func config() train.Config {
	return train.Config{
		Epochs: 3, ClipNorm: 1, Seed: 7, LogEvery: 2, Optimizer: optim.Config{Rule: optim.AdamW{WeightDecay: 0.1}},
		Schedule: schedule.Config{Peak: 0.02, Warmup: 0.2},
	}
}

func newTrainer(t *testing.T, c classifier, config train.Config) *train.Trainer {
	t.Helper()
	trainer, err := train.New(gxtest.Backend(t), c, config)
	if err != nil {
		t.Fatal(err)
	}
	return trainer
}

// weights returns all weights of a classifier as one slice.
func weights(t *testing.T, c classifier) []float32 {
	t.Helper()
	var all []float32
	for _, v := range c.Variables() {
		all = append(all, tensors.MustCopyFlatData[float32](c.store.GetVariable(v.Path).MustValue())...)
	}
	return all
}

func TestRunLearns(t *testing.T) {
	c := newClassifier(t)
	cfg := config()
	cfg.Epochs = 20
	var steps []train.Step
	result, err := newTrainer(t, c, cfg).Run(t.Context(), rows{batches: 8, size: 16}, train.Hooks{Step: func(s train.Step) { steps = append(steps, s) }})
	if err != nil {
		t.Fatal(err)
	}
	if len(steps) != 160 || result.State.Update != 160 || !result.State.Finished || result.Compilations != 1 {
		t.Fatalf("%d steps, state %+v, %d compilations; want 160 steps and 1 compilation", len(steps), result.State.Update, result.Compilations)
	}
	first, last := steps[0], steps[159]
	if !(last.Loss < first.Loss/2) {
		t.Errorf("loss went from %g to %g", first.Loss, last.Loss)
	}
	if first.Targets != 13 || first.Positions != 64 {
		t.Errorf("first step has %d targets and %d positions, want 13 and 64", first.Targets, first.Positions)
	}
	want := schedule.Linear{Peak: 0.02, WarmupSteps: 32, TotalSteps: 160}
	for _, s := range []train.Step{first, steps[40], last} {
		if s.Rate != want.At(s.Update-1) {
			t.Errorf("update %d used rate %g, want %g", s.Update, s.Rate, want.At(s.Update-1))
		}
	}
	if points := result.State.History; len(points) != 81 || points[1].Update != 2 {
		t.Errorf("history has %d points, want the first and every second update", len(points))
	}
}

func TestSameSeedSameWeights(t *testing.T) {
	run := func(seed uint64) []float32 {
		c := newClassifier(t)
		cfg := config()
		cfg.Seed = seed
		if _, err := newTrainer(t, c, cfg).Run(t.Context(), rows{batches: 5, size: 8}, train.Hooks{}); err != nil {
			t.Fatal(err)
		}
		return weights(t, c)
	}
	a, b, other := run(7), run(7), run(8)
	if !slices.Equal(a, b) {
		t.Error("two runs with the same seed differ")
	}
	if slices.Equal(a, other) {
		t.Error("dropout does not depend on the seed")
	}
}

// TestAccumulationEqualsOneBatch compares micro-batches with one large batch. Dropout
// differs between the two, so the rate is 0 here.
func TestAccumulationEqualsOneBatch(t *testing.T) {
	run := func(data train.Data, accumulate int) []float32 {
		c := noDropout{newClassifier(t)}
		cfg := config()
		cfg.Accumulate, cfg.Epochs = accumulate, 2
		trainer, err := train.New(gxtest.Backend(t), c, cfg)
		if err != nil {
			t.Fatal(err)
		}
		result, err := trainer.Run(t.Context(), data, train.Hooks{})
		if err != nil {
			t.Fatal(err)
		}
		if result.State.Update != 4 {
			t.Fatalf("%d updates, want 4", result.State.Update)
		}
		return weights(t, c.classifier)
	}
	// 2 updates of 30 examples an epoch; the micro-batches differ in size, and so in targets.
	one := run(uneven{{30}, {30}}.flat(), 1)
	three := run(uneven{{5, 20, 5}, {13, 4, 13}}.flat(), 3)
	for i := range one {
		if math.Abs(float64(one[i]-three[i])) > 1e-6 {
			t.Fatalf("weight %d is %g after one batch and %g after three micro-batches", i, one[i], three[i])
		}
	}
}

type noDropout struct{ classifier }

func (c noDropout) Loss(w elastic.Weights, inputs, labels []*graph.Node, _ *dropout.Source) (sum, count *graph.Node) {
	return c.classifier.Loss(w, inputs, labels, nil)
}

// uneven lists batch sizes.
type uneven [][]int

func (u uneven) flat() sizes { return slices.Concat(u...) }

type sizes []int

func (s sizes) Steps() int { return len(s) }

func (s sizes) Batches(epoch, skip int) iter.Seq2[mltrain.Batch, error] {
	return func(yield func(mltrain.Batch, error) bool) {
		first := 0
		for i, size := range s {
			if i >= skip && !yield(rows{}.batch(epoch, first, size), nil) {
				return
			}
			first += size
		}
	}
}

// TestLastUpdateOfAnEpoch checks that an incomplete window of micro-batches is applied.
func TestLastUpdateOfAnEpoch(t *testing.T) {
	c := newClassifier(t)
	cfg := config()
	cfg.Accumulate = 4
	var steps []train.Step
	_, err := newTrainer(t, c, cfg).Run(t.Context(), rows{batches: 6, size: 8}, train.Hooks{Step: func(s train.Step) { steps = append(steps, s) }})
	if err != nil {
		t.Fatal(err)
	}
	if len(steps) != 6 || steps[1].Positions != 2*8*4 {
		t.Errorf("%d updates, the second with %d positions; want 6 and 64", len(steps), steps[1].Positions)
	}
}

// TestResumeIsExact interrupts a run after every update in turn and continues from the
// checkpoint in a new trainer: the weights must equal those of a run that was let be.
func TestResumeIsExact(t *testing.T) {
	data := rows{batches: 5, size: 8}
	for _, accumulate := range []int{1, 2} {
		cfg := config()
		cfg.Accumulate = accumulate
		metric := func(_ context.Context, epoch int) (float64, error) { return []float64{0, 0.5, 0.4, 0.3}[epoch], nil }
		whole := newClassifier(t)
		want, err := newTrainer(t, whole, cfg).Run(t.Context(), data, train.Hooks{Evaluate: metric})
		if err != nil {
			t.Fatal(err)
		}
		for stop := 1; stop < want.State.Update; stop++ {
			dir := t.TempDir()
			ctx, cancel := context.WithCancel(t.Context())
			first := newClassifier(t)
			trainer := newTrainer(t, first, cfg)
			_, err := trainer.Run(ctx, data, train.Hooks{
				Evaluate: metric,
				Step: func(s train.Step) {
					if s.Update == stop {
						cancel()
					}
				},
				Save: func(train.State, bool) error { return save(dir, first, trainer) },
			})
			cancel()
			if !errors.Is(err, train.ErrInterrupted) || !errors.Is(err, context.Canceled) {
				t.Fatalf("stopping after update %d: error is %v", stop, err)
			}
			second := load(t, dir)
			trainer = newTrainer(t, second, cfg)
			if err := trainer.Restore(dir); err != nil {
				t.Fatal(err)
			}
			got, err := trainer.Run(t.Context(), data, train.Hooks{Evaluate: metric})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(weights(t, second), weights(t, whole)) {
				t.Fatalf("accumulate %d: resumed after update %d, the weights differ", accumulate, stop)
			}
			if got.State.Best != want.State.Best || got.State.Stale != want.State.Stale || !cmp.Equal(got.State.History, want.State.History) || !slices.Equal(got.State.Metrics, want.State.Metrics) {
				t.Fatalf("resumed after update %d, the state differs:\n%+v\n%+v", stop, got.State, want.State)
			}
		}
	}
}

func save(dir string, c classifier, trainer *train.Trainer) error {
	files := trainer.Files()
	for _, v := range c.Variables() {
		value, err := c.store.GetVariable(v.Path).Value()
		if err != nil {
			return err
		}
		files = append(files, checkpoint.File{Name: "w" + strings.ReplaceAll(v.Path, "/", "_"), Write: func(w io.Writer) error {
			return value.ConstBytes(func(data []byte) { _, err = w.Write(data) })
		}})
	}
	return checkpoint.Save(filepath.Join(dir), checkpoint.Checkpoint{Files: files})
}

func load(t *testing.T, dir string) classifier {
	t.Helper()
	c := newClassifier(t)
	for _, v := range c.Variables() {
		content, err := os.ReadFile(filepath.Join(dir, "w"+strings.ReplaceAll(v.Path, "/", "_")))
		if err != nil {
			t.Fatal(err)
		}
		value := tensors.FromFlatDataAndDimensions(make([]float32, v.Size()), v.Shape...)
		if err := value.MutableBytes(func(data []byte) { copy(data, content) }); err != nil {
			t.Fatal(err)
		}
		must.M(c.store.GetVariable(v.Path).SetValue(value))
	}
	return c
}

func TestRestoreRefusesWhatDoesNotBelong(t *testing.T) {
	c := newClassifier(t)
	trainer := newTrainer(t, c, config())
	dir := t.TempDir()
	if err := save(dir, c, trainer); err != nil {
		t.Fatal(err)
	}
	other := config()
	other.Seed = 8
	if err := newTrainer(t, newClassifier(t), other).Restore(dir); err == nil || !strings.Contains(err.Error(), "seed 7, the config 8") {
		t.Errorf("another seed: %v", err)
	}
	if err := newTrainer(t, newClassifier(t), config()).Restore(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("empty folder: %v", err)
	}
	if err := os.Truncate(filepath.Join(dir, train.SlotsFile), 100); err != nil {
		t.Fatal(err)
	}
	if err := newTrainer(t, newClassifier(t), config()).Restore(dir); err == nil || !strings.Contains(err.Error(), train.SlotsFile) {
		t.Errorf("truncated slots: %v", err)
	}
}

func TestEarlyStop(t *testing.T) {
	cfg := config()
	cfg.Epochs, cfg.Patience = 10, 2
	var saved []bool
	result, err := newTrainer(t, newClassifier(t), cfg).Run(t.Context(), rows{batches: 2, size: 8}, train.Hooks{
		Evaluate: func(_ context.Context, epoch int) (float64, error) {
			return map[int]float64{1: 0.2, 2: 0.6, 3: 0.6, 4: math.NaN()}[epoch], nil
		},
		Save: func(_ train.State, best bool) error { saved = append(saved, best); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if !result.Stopped || result.State.Epoch != 4 || result.State.Best != (train.Best{Epoch: 2, Update: 4, Metric: 0.6}) {
		t.Errorf("stopped %v after epoch %d, best %+v; want true, 4, epoch 2", result.Stopped, result.State.Epoch, result.State.Best)
	}
	if !slices.Equal(saved, []bool{true, true, false, false}) {
		t.Errorf("best epochs were %v", saved)
	}
}

// TestInfiniteMetricIsNeverBest, and leaves a state that can be written.
func TestInfiniteMetricIsNeverBest(t *testing.T) {
	cfg := config()
	result, err := newTrainer(t, newClassifier(t), cfg).Run(t.Context(), rows{batches: 2, size: 8}, train.Hooks{
		Evaluate: func(_ context.Context, epoch int) (float64, error) {
			return map[int]float64{1: math.Inf(-1), 2: 0.5, 3: math.Inf(1)}[epoch], nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := json.Marshal(result.State); err != nil || result.State.Best.Epoch != 2 || len(result.State.Metrics) != 1 {
		t.Errorf("best %+v of %+v, written with %v", result.State.Best, result.State.Metrics, err)
	}
}

// TestPartOfAnEpochHasItsOwnNumber ends a run in the middle of its second epoch: what is
// measured there is not the first epoch's.
func TestPartOfAnEpochHasItsOwnNumber(t *testing.T) {
	cfg := config()
	cfg.MaxUpdates = 3
	var epochs []int
	result, err := newTrainer(t, newClassifier(t), cfg).Run(t.Context(), rows{batches: 2, size: 8}, train.Hooks{
		Evaluate: func(_ context.Context, epoch int) (float64, error) {
			epochs = append(epochs, epoch)
			return float64(epoch), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(epochs, []int{1, 2}) || result.State.Best != (train.Best{Epoch: 2, Update: 3, Metric: 2}) {
		t.Errorf("evaluated after epochs %v, best %+v; want 1 and 2, and the second", epochs, result.State.Best)
	}
}

func TestDivergenceIsAnError(t *testing.T) {
	cfg := config()
	cfg.Schedule = schedule.Config{Kind: "constant", Peak: 1e30}
	cfg.ClipNorm = 0
	_, err := newTrainer(t, newClassifier(t), cfg).Run(t.Context(), rows{batches: 5, size: 8}, train.Hooks{})
	if err == nil || !strings.Contains(err.Error(), "lower the learning rate") {
		t.Errorf("error is %v", err)
	}
}

func TestSaveErrorEndsTheRun(t *testing.T) {
	full := errors.New("disk full")
	_, err := newTrainer(t, newClassifier(t), config()).Run(t.Context(), rows{batches: 2, size: 8}, train.Hooks{
		Save: func(train.State, bool) error { return full },
	})
	if !errors.Is(err, full) || !strings.Contains(err.Error(), "checkpoint of update 2") {
		t.Errorf("error is %v", err)
	}
}

func TestConfigReportsAllProblems(t *testing.T) {
	_, err := train.New(gxtest.Backend(t), newClassifier(t), train.Config{
		Epochs: -1, ClipNorm: math.Inf(1), Optimizer: optim.Config{Rule: optim.AdamW{Beta1: 2}}, Schedule: schedule.Config{Kind: "sine"},
	})
	for _, want := range []string{"epochs is -1", "clip_norm is +Inf", "optimizer.beta1 is 2", `schedule.kind "sine"`, "schedule.peak is 0"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q: %v", want, err)
		}
	}
}

// TestHistoryKeepsWhatIsWatched: each recorded update has the values from after it.
func TestHistoryKeepsWhatIsWatched(t *testing.T) {
	c := newClassifier(t)
	result, err := newTrainer(t, c, config()).Run(t.Context(), rows{batches: 4, size: 8}, train.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	history := result.State.History
	last := history[len(history)-1]
	now := tensors.MustCopyFlatData[float32](must.M1(c.store.GetVariable("/norm/scale").Value()))
	if last.Update != 12 || len(last.Scalars) != 1 || !slices.Equal(last.Scalars["/norm/scale"], now) {
		t.Errorf("update %d has %v, the model %v", last.Update, last.Scalars, now)
	}
	if first := history[0]; slices.Equal(first.Scalars["/norm/scale"], now) || len(first.Scalars["/norm/scale"]) != 8 {
		t.Errorf("update %d has %v", first.Update, first.Scalars)
	}
}
