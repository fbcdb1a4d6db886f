package classify_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/task/classify"
)

var labels = []string{"place", "thing"}

// tokenizerDir writes the tokenizer of the synthetic corpus.
func tokenizerDir(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), synth.Tokenizer(), 0o644); err != nil {
		tb.Fatal(err)
	}
	return dir
}

func encoder() transformer.Config {
	return transformer.Config{
		Hidden: 16, Layers: 1, FeedForward: 32, Attention: attention.Spec{Heads: 2}, MaxPositions: 32, TypeVocab: 2,
		Activation: "gelu", NormEpsilon: 1e-12, InitStd: 0.1,
	}
}

func scratch(tb testing.TB, config classify.Config) *classify.Classifier {
	tb.Helper()
	c, err := classify.NewFromScratch(gxtest.Backend(tb), tokenizerDir(tb), encoder(), labels, config, 1)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// texts are of a language in which one word decides: "the river …" is a place, "the museum …"
// a thing.
func texts(n int) []data.Text {
	list := make([]data.Text, n)
	for i := range list {
		word, class := "river", "place"
		if i%2 == 1 {
			word, class = "museum", "thing"
		}
		list[i] = data.Text{Text: "the " + word + strings.Repeat(" warm", i/2%5), Label: class, File: "made", Line: i + 1}
	}
	return list
}

func recipe(updates int) classify.TrainConfig {
	return classify.TrainConfig{BatchSize: 8, Shapes: 1, Config: train.Config{
		Epochs: 20, MaxUpdates: updates, ClipNorm: 1, Schedule: schedule.Config{Peak: 1e-2, Kind: "constant"}, Seed: 1,
	}}
}

// TestLearns: each pooling learns the language, and the classifier that is saved
// and loaded says the same.
func TestLearns(t *testing.T) {
	for _, kind := range transformer.Poolings() {
		c := scratch(t, classify.Config{Pooling: kind, Lengths: []int{16}, MaxLength: 24})
		result, err := c.Train(t.Context(), texts(40), texts(20), recipe(40), classify.TrainOptions{Run: checkpoint.Run{Dir: filepath.Join(t.TempDir(), "run")}})
		if err != nil || result.State.Update != 40 {
			t.Fatalf("%s: %d updates, %v", kind, result.State.Update, err)
		}
		report, err := c.Evaluate(t.Context(), texts(30), nil)
		if err != nil || report.Accuracy < 0.99 || report.Items != 30 {
			t.Errorf("%s: accuracy %g of %d, %v", kind, report.Accuracy, report.Items, err)
		}
		dir := filepath.Join(t.TempDir(), "model")
		if err := c.Save(dir); err != nil {
			t.Fatal(err)
		}
		again, err := classify.Load(gxtest.Backend(t), dir)
		if err != nil {
			t.Fatal(err)
		}
		inputs := []string{"the river warm", "museum", ""}
		want, err := c.Logits(t.Context(), inputs, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := again.Logits(t.Context(), inputs, nil)
		if err != nil {
			t.Fatal(err)
		}
		gxtest.Close(t, slices.Concat(got...), slices.Concat(want...), 0)
		if again.Model.Config.Head.Pooling != c.Model.Config.Head.Pooling && kind != "cls" {
			t.Errorf("%s: pooling is %q after loading", kind, again.Model.Config.Head.Pooling)
		}
		w := c.Model.Store.GetVariable("/head/pooling/w")
		if (w != nil) != (kind == "attention") {
			t.Errorf("%s: pooling vector %v", kind, w)
		} else if w != nil && slices.Max(tensors.MustCopyFlatData[float32](w.MustValue())) == 0 {
			t.Error("the pooling vector has not moved")
		}
	}
}

// TestPredict: several texts give what each gives alone, and probabilities are probabilities.
func TestPredict(t *testing.T) {
	c := scratch(t, classify.Config{Pooling: "mean", Lengths: []int{8, 16}, BatchSize: 2})
	inputs := []string{"the river", "", strings.Repeat("warm ", 40), "museum of javan bay"}
	all, err := c.Predict(t.Context(), inputs...)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range all {
		alone, err := c.Predict(t.Context(), inputs[i])
		if err != nil {
			t.Fatal(err)
		}
		if p.Text != inputs[i] || p.Label != alone[0].Label || math.Abs(p.Score-alone[0].Score) > 1e-6 {
			t.Errorf("%q: %+v together, %+v alone", inputs[i], p, alone[0])
		}
		if len(p.Next) != 1 || math.Abs(p.Score+p.Next[0].Score-1) > 1e-9 || p.Next[0].Score > p.Score {
			t.Errorf("%q: %+v", inputs[i], p)
		}
	}
	if none, err := c.Predict(t.Context()); err != nil || len(none) != 0 {
		t.Errorf("no texts: %v, %v", none, err)
	}
	if _, err := c.Predict(t.Context(), "a", "Andr\xe9"); err == nil || !strings.Contains(err.Error(), "text 2: the text is not UTF-8") {
		t.Errorf("not UTF-8: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Predict(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestPackingChangesNothing: the loss of texts that share rows is that of each text alone.
func TestPackingChangesNothing(t *testing.T) {
	for _, kind := range transformer.Poolings() {
		c := scratch(t, classify.Config{Pooling: kind, Lengths: []int{24}, MaxLength: 24})
		if kind == "attention" {
			w := make([]float32, c.Model.Config.Hidden)
			for i := range w {
				w[i] = float32(math.Sin(float64(i)))
			}
			if err := c.Model.Store.GetVariable("/head/pooling/w").SetValue(tensors.FromFlatDataAndDimensions(w, len(w))); err != nil {
				t.Fatal(err)
			}
		}
		list := texts(11) // the second batch has 3 of 8
		plain, want := make([]string, len(list)), 0.0
		for i := range list {
			plain[i] = list[i].Text
		}
		logits, err := c.Logits(t.Context(), plain, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, row := range logits {
			sum := 0.0
			for _, v := range row {
				sum += math.Exp(float64(v))
			}
			want += math.Log(sum) - float64(row[slices.Index(labels, list[i].Label)])
		}
		config := recipe(2)
		config.Schedule.Peak = 1e-30 // moves nothing
		got, targets := 0.0, 0
		if _, err := c.Train(t.Context(), list, nil, config, classify.TrainOptions{Step: func(s train.Step) {
			got += s.Loss * float64(s.Targets)
			targets += s.Targets
		}}); err != nil {
			t.Fatal(err)
		}
		if targets != len(list) || math.Abs(got-want) > 1e-4 {
			t.Errorf("%s: loss of %d texts is %g, want %g of %d", kind, targets, got, want, len(list))
		}
	}
}

// TestAdapt: predictions are those of before each step, the original stays as it is, and a reset
// is exact.
func TestAdapt(t *testing.T) {
	c := scratch(t, classify.Config{Pooling: "attention", Lengths: []int{16}, BatchSize: 8})
	list := texts(20) // the last batch has 4 of 8
	before, err := c.Evaluate(t.Context(), list, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Adapt(testtime.Config{Method: "memo"}); err == nil || !strings.Contains(err.Error(), "augmentations") {
		t.Errorf("memo: %v", err)
	}
	if _, err := c.Adapt(testtime.Config{Variables: []string{"/head/pool/*"}}); err == nil || !strings.Contains(err.Error(), "/head/pool/*") {
		t.Errorf("unknown variables: %v", err)
	}
	a, err := c.Adapt(testtime.Config{Variables: []string{"/head/pooling/w", "*/norm/*"}, Rate: 0.1, Guard: testtime.Guard{Off: true}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Evaluate(t.Context(), list, nil); err != nil {
		t.Fatal(err)
	}
	events := a.Events()
	if len(events) != 3 || events[0].Kept != 8 || events[2].Kept != 4 || events[0].Moved == 0 {
		t.Errorf("events %+v", events)
	}
	moved, err := a.Model.Store.GetVariable("/head/pooling/w").MustValue().LocalClone()
	if err != nil {
		t.Fatal(err)
	}
	if slices.Max(tensors.MustCopyFlatData[float32](moved)) == 0 {
		t.Error("the pooling vector did not adapt")
	}
	after, err := c.Evaluate(t.Context(), list, nil)
	if err != nil || after.Confidence != before.Confidence {
		t.Errorf("the original has confidence %g, had %g: %v", after.Confidence, before.Confidence, err)
	}
	if err := a.Reset(); err != nil || len(a.Events()) != 0 {
		t.Fatalf("reset: %v, %d events", err, len(a.Events()))
	}
	for _, v := range c.Model.Config.Variables() {
		got := tensors.MustCopyFlatData[float32](a.Model.Store.GetVariable(v.Path).MustValue())
		if want := tensors.MustCopyFlatData[float32](c.Model.Store.GetVariable(v.Path).MustValue()); !slices.Equal(got, want) {
			t.Errorf("%s is not put back", v.Path)
		}
	}
}

// TestPredictThenLearn: labels change what is predicted for later batches and not for their own; on a stream of
// one class that is soon predicted, which makes the report better; without labels nothing is learned.
func TestPredictThenLearn(t *testing.T) {
	c := scratch(t, classify.Config{Pooling: "mean", Lengths: []int{16}, BatchSize: 4})
	list := texts(40)
	for i := range list {
		list[i].Label = c.Labels()[1]
	}
	a, err := c.Adapt(testtime.Config{Method: "labels", Variables: []string{"/head/*"}, Rate: 1, FullRows: 1})
	if err != nil {
		t.Fatal(err)
	}
	before, err := a.PredictThenLearn(t.Context(), list, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Reset(); err != nil {
		t.Fatal(err)
	}
	other := slices.Clone(list)
	for i := range other {
		other[i].Label = c.Labels()[0]
	}
	after, err := a.PredictThenLearn(t.Context(), other, nil)
	if err != nil {
		t.Fatal(err)
	}
	plain := make([]string, len(list))
	same := 0
	for i := range list {
		plain[i] = list[i].Text
		if before[i].Score == after[i].Score && before[i].Label == after[i].Label {
			same++
		}
	}
	if same != 4 {
		t.Errorf("%d of 40 texts are predicted alike whatever was learned before, want the first batch of 4", same)
	}

	if err := a.Reset(); err != nil {
		t.Fatal(err)
	}
	want, err := c.Predict(t.Context(), plain...)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := a.Predict(t.Context(), plain...); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("without labels it predicts otherwise than the classifier: %v", err)
	}
	still, err := c.Evaluate(t.Context(), list, nil)
	if err != nil {
		t.Fatal(err)
	}
	learning, err := a.Evaluate(t.Context(), list, nil)
	if err != nil {
		t.Fatal(err)
	}
	if learning.Accuracy < 0.85 || learning.Accuracy < still.Accuracy {
		t.Errorf("accuracy on one class is %.3f while learning, %.3f without", learning.Accuracy, still.Accuracy)
	}
	list[3].Label = "no such class"
	if _, err := a.Evaluate(t.Context(), list, nil); err == nil || !strings.Contains(err.Error(), "no such class") {
		t.Errorf("an unknown label: %v", err)
	}
	tent, err := c.Adapt(testtime.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tent.PredictThenLearn(t.Context(), other, nil); err == nil || !strings.Contains(err.Error(), "method labels") {
		t.Errorf("learning labels by tent: %v", err)
	}
}

// TestExplain: the contributions add up to the difference of the evidence, and the word that
// decides has the most.
func TestExplain(t *testing.T) {
	c := scratch(t, classify.Config{Pooling: "attention", Lengths: []int{16}, MaxLength: 24})
	if _, err := c.Train(t.Context(), texts(40), nil, recipe(40), classify.TrainOptions{}); err != nil {
		t.Fatal(err)
	}
	const text = "The MUSEUM warm, warm"
	e, err := c.Explain(t.Context(), text, classify.ExplainConfig{})
	if err != nil {
		t.Fatal(err)
	}
	sum, best := 0.0, 0
	var words []string
	for i, w := range e.Words {
		sum += w.Value
		if w.Value > e.Words[best].Value {
			best = i
		}
		words = append(words, w.Text)
	}
	if e.Label != "thing" || !slices.Equal(words, []string{"The", "MUSEUM", "warm", ",", "warm"}) || words[best] != "MUSEUM" {
		t.Errorf("%s, words %q, most %q", e.Label, words, words[best])
	}
	if math.Abs(e.Evidence-e.Without-sum-e.Error) > 1e-4 || math.Abs(e.Error) > 0.02*math.Abs(e.Evidence-e.Without) {
		t.Errorf("evidence %g, without %g, contributions %g, open %g", e.Evidence, e.Without, sum, e.Error)
	}
	logits, err := c.Logits(t.Context(), []string{text}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := float64(logits[0][1]-logits[0][0]) / 2; math.Abs(e.Evidence-want) > 1e-4 { // less the mean of two
		t.Errorf("evidence %g, want %g", e.Evidence, want)
	}
}

// TestFaithfulness: of the language in which one word decides, explanations are complete and beat
// random orders, and the heads that matter are seen to; explanations go away with what was learned.
func TestFaithfulness(t *testing.T) {
	c := scratch(t, classify.Config{Pooling: "attention", Lengths: []int{8, 16}, MaxLength: 24})
	if _, err := c.Train(t.Context(), texts(40), nil, recipe(40), classify.TrainOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, list := t.Context(), append(texts(20), data.Text{Text: "museum", Label: "thing"}) // of the last one word alone
	f, err := c.Faithfulness(ctx, list, classify.ExplainConfig{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if f.Method != "integrated_gradients" || f.Texts != 20 || f.Completeness == nil || !(f.Completeness.Greatest <= 0.01) || f.DeletionBetter < 0.95 || !(f.Deletion < f.Random && f.Random < f.Insertion) {
		t.Errorf("%s of %d texts: completeness %+v, areas of deletion %g, random %g, insertion %g; better than random %g", f.Method, f.Texts, f.Completeness, f.Deletion, f.Random, f.Insertion, f.DeletionBetter)
	}
	long := data.Text{Text: "the river" + strings.Repeat(" warm", 20), Label: "place"}
	heads, err := c.Heads(ctx, append(texts(4), long), true, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(heads) != 2 || heads[1].Head != 1 || heads[0].Importance <= 0 || heads[0].Removal == 0 || heads[0].Profile["entropy"] <= 0 {
		t.Errorf("heads %+v", heads)
	}
	similar, err := c.Sanity(ctx, "the museum is warm", classify.ExplainConfig{Steps: 16}, 1)
	if err != nil {
		t.Fatal(err)
	}
	var stages []string
	for _, s := range similar {
		stages = append(stages, s.Stage)
	}
	if !slices.Equal(stages, []string{"head", "layer_0", "embeddings"}) || similar[2].Rank >= 0.99 {
		t.Errorf("sanity check: %+v", similar)
	}
	if again, err := c.Faithfulness(ctx, list, classify.ExplainConfig{}, 1, nil); err != nil || again.Deletion != f.Deletion {
		t.Errorf("after the sanity check: area %g, was %g (%v)", again.Deletion, f.Deletion, err)
	}
	for what, err := range map[string]error{
		"no text of two": second(c.Faithfulness(ctx, list[20:], classify.ExplainConfig{}, 1, nil)),
		"no text of t":   second(c.Faithfulness(ctx, nil, classify.ExplainConfig{}, 1, nil)),
		"steps is -1":    second(c.Faithfulness(ctx, list, classify.ExplainConfig{Steps: -1}, 1, nil)),
		"is unknown":     second(c.Explain(ctx, "museum", classify.ExplainConfig{Method: "guess"})),
		"has no words":   second(c.Sanity(ctx, " ", classify.ExplainConfig{}, 1)),
		"not UTF-8":      second(c.Sanity(ctx, "\xff", classify.ExplainConfig{}, 1)),
		"there is no":    second(c.Heads(ctx, nil, false, nil)),
		"made:7: label":  second(c.Heads(ctx, []data.Text{{Text: "sea", Label: "water", File: "made", Line: 7}}, false, nil)),
	} {
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("error is %v, want %q", err, what)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestAttention: what tokens attend to sums to 1 over them, whatever the padding.
func TestAttention(t *testing.T) {
	const text = "The museum, warm"
	var maps []interpret.AttentionMap
	for _, length := range []int{8, 16} {
		m, err := scratch(t, classify.Config{Lengths: []int{length}}).Attention(t.Context(), text)
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{"[CLS]", "the", "museum", ",", "warm", "[SEP]"}; !slices.Equal(m.Tokens, want) {
			t.Fatalf("tokens %q, want %q", m.Tokens, want)
		}
		if len(m.Weights) != 1 || len(m.Weights[0]) != 2 || len(m.Weights[0][1]) != len(m.Tokens) {
			t.Fatalf("weights of %d layers", len(m.Weights))
		}
		for head, rows := range m.Weights[0] {
			for query, row := range rows {
				sum := 0.0
				for _, v := range row {
					sum += v
				}
				if len(row) != len(m.Tokens) || math.Abs(sum-1) > 1e-5 {
					t.Errorf("head %d, query %d: %d weights add up to %g", head, query, len(row), sum)
				}
			}
		}
		maps = append(maps, m)
	}
	if diff := cmp.Diff(maps[0], maps[1], cmpopts.EquateApprox(0, 1e-5)); diff != "" {
		t.Errorf("padding changes it:\n%s", diff)
	}
	c := scratch(t, classify.Config{})
	if _, err := c.Attention(t.Context(), "\xff"); err == nil || !strings.Contains(err.Error(), "not UTF-8") {
		t.Errorf("not UTF-8: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("Ctrl-C"))
	if _, err := c.Attention(ctx, text); err == nil || !strings.Contains(err.Error(), "Ctrl-C") {
		t.Errorf("cancelled: %v", err)
	}
}

func TestErrors(t *testing.T) {
	c := scratch(t, classify.Config{Lengths: []int{16}})
	unknown := []data.Text{{Text: "a", Label: "place"}, {Text: "b", Label: "plane", File: "my.csv", Line: 7}}
	if _, err := c.Evaluate(t.Context(), unknown, nil); err == nil || !strings.Contains(err.Error(), `my.csv:7: label "plane" is none of the model's 2`) {
		t.Errorf("unknown label: %v", err)
	}
	if _, err := c.Train(t.Context(), texts(4), unknown, recipe(1), classify.TrainOptions{}); err == nil || !strings.Contains(err.Error(), "my.csv:7") {
		t.Errorf("unknown label in dev: %v", err)
	}
	if _, err := classify.Labels([]data.Text{{Text: "a", File: "x.csv", Line: 3}}); err == nil || !strings.Contains(err.Error(), "x.csv:3: the text has no label") {
		t.Errorf("unlabelled: %v", err)
	}
	for want, config := range map[string]classify.Config{
		"max_length is 33, want 3 to 32": {MaxLength: 33},
		"lengths are [16 8]":             {Lengths: []int{16, 8}},
		"batch_size is -1":               {BatchSize: -1},
		`pooling "max" is unknown`:       {Pooling: "max"},
	} {
		if err := config.Validate(32); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", config, err, want)
		}
	}
	if _, err := classify.Load(gxtest.Backend(t), t.TempDir()); err == nil || !strings.Contains(err.Error(), "config.json") {
		t.Errorf("empty folder: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "model")
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := classify.Load(nil, dir); err == nil || !strings.Contains(err.Error(), "classifier: the backend is nil: open one") {
		t.Errorf("without a backend: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, classify.ConfigFile), []byte(`{"max_lenght": 3}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := classify.Load(gxtest.Backend(t), dir); err == nil || !strings.Contains(err.Error(), "max_lenght") {
		t.Errorf("unknown field: %v", err)
	}
}

func ExampleClassifier_Predict() {
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	dir, err := os.MkdirTemp("", "tokenizer-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), synth.Tokenizer(), 0o644); err != nil {
		panic(err)
	}
	c, err := classify.NewFromScratch(engine, dir, encoder(), labels, classify.Config{Pooling: "attention", Lengths: []int{16}, MaxLength: 24}, 1)
	if err != nil {
		panic(err)
	}
	if _, err := c.Train(context.Background(), texts(40), nil, recipe(40), classify.TrainOptions{}); err != nil {
		panic(err)
	}
	predictions, err := c.Predict(context.Background(), "the river warm warm", "the museum is warm")
	if err != nil {
		panic(err)
	}
	for _, p := range predictions {
		fmt.Println(p.Label, p.Text)
	}
	// Output:
	// place the river warm warm
	// thing the museum is warm
}
