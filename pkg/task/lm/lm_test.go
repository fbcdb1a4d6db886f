package lm_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/task/lm"
)

// tiny is a model that learns the text below within seconds.
func tiny() transformer.Config {
	c := lm.Small()
	c.Hidden, c.Layers, c.FeedForward, c.MaxPositions, c.Attention.Heads = 32, 1, 64, 16, 2
	return c
}

// song is a text with little to learn and letters of two and three bytes.
var song = []byte(strings.Repeat("über den Wolken 你好, ", 60))

var recipe = lm.TrainConfig{
	Config: train.Config{Epochs: 12, Schedule: schedule.Config{Peak: 1e-2, Warmup: 0.1}, Seed: 3}, BatchSize: 8,
}

func trained(t *testing.T, options lm.TrainOptions) *lm.Model {
	t.Helper()
	m, err := lm.New(gxtest.Backend(t), tiny(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Finalize)
	if _, err := m.Train(context.Background(), song, song[:200], recipe, options); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestLearnsAndWrites: the model learns the text nearly by heart, is the same after it was saved
// and loaded, and writes the text on, whole characters at a time.
func TestLearnsAndWrites(t *testing.T) {
	var epochs []lm.Score
	m := trained(t, lm.TrainOptions{Run: checkpoint.Run{Dir: t.TempDir()}, Epoch: func(_ int, dev lm.Score) { epochs = append(epochs, dev) }})
	score, err := m.Evaluate(context.Background(), song, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(epochs) != 12 || score.Loss > 0.5 || score.Accuracy < 0.85 || epochs[0].Loss < 2*score.Loss {
		t.Fatalf("%d epochs, the first %v, the last %v: the model has not learned", len(epochs), epochs[0], score)
	}
	dir := filepath.Join(t.TempDir(), "model")
	if err := m.Save(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := lm.Load(nil, dir); err == nil || !strings.Contains(err.Error(), "backend is nil") {
		t.Errorf("loaded without a backend: %v", err)
	}
	again, err := lm.Load(gxtest.Backend(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Finalize()
	if same, err := again.Evaluate(context.Background(), song, nil); err != nil || same.Loss != score.Loss {
		t.Errorf("loaded: %v (%v), saved: %v", same, err, score)
	}
	var pieces []string
	text, err := again.Generate(context.Background(), "den Wolken ", lm.Sampling{Bytes: 60}, func(s string) { pieces = append(pieces, s) })
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(text, "你好, über den Wolken 你好, ") || strings.Join(pieces, "") != text || slices.Contains(pieces, "\uFFFD") {
		t.Errorf("wrote %q in pieces %q", text, pieces)
	}
}

// TestScoreIsTheSumOverWindows: loss and accuracy are those computed here, window by window, from the model's
// probabilities, whatever the length of the text.
func TestScoreIsTheSumOverWindows(t *testing.T) {
	m := trained(t, lm.TrainOptions{})
	for _, size := range []int{2, 16, 17, 18, 33, 600} {
		text := song[:size]
		got, err := m.Evaluate(context.Background(), text, nil)
		if err != nil {
			t.Fatal(err)
		}
		loss, hits := 0.0, 0
		for begin := 0; begin+1 < size; begin += m.Context() {
			window := text[begin:min(begin+m.Context(), size-1)]
			logits := logits(t, m, window)
			for i := range window {
				row, next := logits[i*lm.VocabSize:(i+1)*lm.VocabSize], text[begin+i+1]
				sum := 0.0
				for _, v := range row {
					sum += math.Exp(float64(v))
				}
				loss += math.Log(sum) - float64(row[next])
				if slices.Index(row, slices.Max(row)) == int(next) {
					hits++
				}
			}
		}
		if n := float64(size - 1); math.Abs(got.Loss-loss/n) > 1e-5 || math.Abs(got.Accuracy-float64(hits)/n) > 1e-12 || got.Bytes != size-1 {
			t.Errorf("%d bytes: %+v, want loss %g, accuracy %g", size, got, loss/n, float64(hits)/n)
		}
		counted := 0
		for _, w := range got.Windows {
			counted += w[0] + w[1]
		}
		if counted != size-1 {
			t.Errorf("%d bytes: windows have %d", size, counted)
		}
	}
}

// logits computes a window at once.
func logits(t *testing.T, m *lm.Model, window []byte) []float32 {
	t.Helper()
	ids := make([]int32, len(window))
	for i, b := range window {
		ids[i] = int32(b)
	}
	out, err := model.CallOnce(gxtest.Backend(t), m.Transformer.Store, func(scope *model.Scope, in *graph.Node) *graph.Node {
		return m.Transformer.Config.Logits(elastic.WeightsOf(scope.Store(), in.Graph()), transformer.Inputs{IDs: in}, nil)
	}, [][]int32{ids})
	if err != nil {
		t.Fatal(err)
	}
	return tensors.MustCopyFlatData[float32](out)
}

// TestStepsAreThePass: written byte by byte with a cache, a text is what whole passes choose, also
// where the context is full and its later half is read anew, and where the prompt is longer than it.
func TestStepsAreThePass(t *testing.T) {
	m := trained(t, lm.TrainOptions{})
	for _, prompt := range []string{"ü", "x", strings.Repeat("Wolken ", 4)} {
		text := []byte(prompt)
		begin := max(0, len(text)-m.Context())
		for range 40 {
			if len(text)-begin > m.Context() {
				begin = len(text) - (m.Context()+1)/2
			}
			all := logits(t, m, text[begin:])
			last := all[len(all)-lm.VocabSize:]
			text = append(text, byte(slices.Index(last, slices.Max(last))))
		}
		want := strings.ToValidUTF8(string(text[len(prompt):]), "\uFFFD")
		got, err := m.Generate(context.Background(), prompt, lm.Sampling{Bytes: 40}, nil)
		if err != nil || strings.ToValidUTF8(got, "") != got || strings.ReplaceAll(got, "\uFFFD", "") != strings.ReplaceAll(want, "\uFFFD", "") {
			t.Errorf("after %q: %q (%v), want %q", prompt, got, err, want)
		}
	}
}

// TestSampling: the same seed writes the same text, another one another; one byte to choose of,
// by either rule, is the most probable one.
func TestSampling(t *testing.T) {
	m := trained(t, lm.TrainOptions{})
	write := func(s lm.Sampling) string {
		s.Bytes = 30
		text, err := m.Generate(context.Background(), "Wolken", s, nil)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if a, b := write(lm.Sampling{Temperature: 2, Seed: 1}), write(lm.Sampling{Temperature: 2, Seed: 1}); a != b {
		t.Errorf("one seed wrote %q and %q", a, b)
	}
	if a, b := write(lm.Sampling{Temperature: 2, Seed: 1}), write(lm.Sampling{Temperature: 2, Seed: 2}); a == b {
		t.Errorf("two seeds wrote %q", a)
	}
	greedy := write(lm.Sampling{})
	if a, b := write(lm.Sampling{Temperature: 5, TopK: 1, Seed: 1}), write(lm.Sampling{Temperature: 5, TopP: 1e-9, Seed: 1}); a != greedy || b != greedy {
		t.Errorf("top 1 wrote %q, p 0 %q, want %q", a, b, greedy)
	}
}

// TestResume: a run that was stopped in the middle of an epoch ends as one that was not.
func TestResume(t *testing.T) {
	whole := trained(t, lm.TrainOptions{})
	dir := checkpoint.Run{Dir: t.TempDir()}
	m, err := lm.New(gxtest.Backend(t), tiny(), 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	_, err = m.Train(ctx, song, nil, recipe, lm.TrainOptions{Run: dir, Step: func(s train.Step) {
		if s.Update == 20 {
			stop()
		}
	}})
	if !errors.Is(err, train.ErrInterrupted) {
		t.Fatalf("stopped: %v", err)
	}
	latest, err := dir.Latest()
	if err != nil {
		t.Fatal(err)
	}
	if m, err = lm.Load(gxtest.Backend(t), latest.Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Train(context.Background(), song, nil, recipe, lm.TrainOptions{Run: dir, Resume: latest.Dir}); err != nil {
		t.Fatal(err)
	}
	a, err := whole.Evaluate(context.Background(), song, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := m.Evaluate(context.Background(), song, nil); err != nil || a.Loss != b.Loss {
		t.Errorf("resumed: %v (%v), want %v", b, err, a)
	}
}

// TestErrorsSayWhatIsWrong: mistakes are errors that name them.
func TestErrorsSayWhatIsWrong(t *testing.T) {
	ctx, engine := context.Background(), gxtest.Backend(t)
	m, err := lm.New(engine, tiny(), 1)
	if err != nil {
		t.Fatal(err)
	}
	bert := tiny()
	bert.Attention.Mask = nil
	latin := tiny()
	latin.VocabSize, latin.Head = 300, transformer.Head{Kind: transformer.LM}
	other, err := transformer.New(latin, 1)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "other")
	if err := checkpoint.Save(dir, checkpoint.Checkpoint{Files: (&lm.Model{Transformer: other}).Files()}); err != nil {
		t.Fatal(err)
	}
	long := recipe
	long.Length = 17
	stopped, stop := context.WithCancel(ctx)
	stop()
	for want, try := range map[string]func() error{
		"causal":                               func() error { _, err := lm.New(engine, bert, 1); return err },
		"vocabulary of 300 tokens, want 256":   func() error { _, err := lm.Load(engine, dir); return err },
		"backend is nil: open one":             func() error { _, err := lm.New(nil, tiny(), 1); return err },
		"want at least 145":                    func() error { _, err := m.Train(ctx, song[:100], nil, recipe, lm.TrainOptions{}); return err },
		"length is 17 bytes, want 1 to 16":     func() error { _, err := m.Train(ctx, song, nil, long, lm.TrainOptions{}); return err },
		"at least 2":                           func() error { _, err := m.Evaluate(ctx, song[:1], nil); return err },
		"evaluation stopped after 0 of":        func() error { _, err := m.Evaluate(stopped, song, nil); return err },
		"writing stopped after 0 of 256 bytes": func() error { _, err := m.Generate(stopped, "a", lm.Sampling{}, nil); return err },
		"top_p is 2":                           func() error { _, err := m.Generate(ctx, "a", lm.Sampling{TopP: 2}, nil); return err },
		"no such file":                         func() error { _, err := lm.Load(engine, filepath.Join(os.TempDir(), "nowhere at all")); return err },
	} {
		if err := try(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
}

func Example() {
	ctx := context.Background()
	engine, _, err := backend.Open(ctx, backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	config := lm.Small()
	config.Hidden, config.Layers, config.FeedForward, config.MaxPositions = 32, 1, 64, 16
	config.Attention = attention.Spec{Heads: 2, Mask: attention.Causal{}, Positions: []attention.Score{attention.ALiBi{}}}
	m, err := lm.New(engine, config, 42)
	if err != nil {
		panic(err)
	}
	text := []byte(strings.Repeat("to be or not to be, ", 60))
	_, err = m.Train(ctx, text, nil, lm.TrainConfig{
		Config: train.Config{Epochs: 40, Schedule: schedule.Config{Peak: 1e-2, Warmup: 0.1}}, BatchSize: 8,
	}, lm.TrainOptions{})
	if err != nil {
		panic(err)
	}
	more, err := m.Generate(ctx, "to be ", lm.Sampling{Bytes: 14}, nil)
	if err != nil {
		panic(err)
	}
	fmt.Println(more)
	// Output: or not to be,
}
