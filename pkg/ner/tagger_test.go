package ner_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/ner"
)

// tokenizerDir returns a folder with the tokenizer of the synthetic corpus.
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
		Hidden: 48, Layers: 2, FeedForward: 96, Attention: attention.Spec{Heads: 4, Dropout: 0.1}, MaxPositions: 64,
		TypeVocab: 2, Activation: "gelu", NormEpsilon: 1e-12, Dropout: 0.1, InitStd: 0.1,
	}
}

func newTagger(tb testing.TB, seed uint64) *ner.Tagger {
	tb.Helper()
	labels, err := ner.LabelsOfTypes("LOC", "ORG", "PER")
	if err != nil {
		tb.Fatal(err)
	}
	tagger, err := ner.NewTaggerFromScratch(gxtest.Backend(tb), tokenizerDir(tb), encoder(), labels, ner.Config{MaxLength: 48, Lengths: []int{24, 48}, Overlap: 8}, seed)
	if err != nil {
		tb.Fatal(err)
	}
	return tagger
}

func recipe(epochs int) ner.TrainConfig {
	return ner.TrainConfig{
		Config:    train.Config{Epochs: epochs, ClipNorm: 1, Schedule: schedule.Config{Peak: 4e-3, Warmup: 0.1}, Seed: 5},
		BatchSize: 16, Shapes: 2,
	}
}

func weights(t *testing.T, tagger *ner.Tagger) []byte {
	t.Helper()
	var all []byte
	for _, v := range tagger.Model.Config.Variables() {
		if err := tagger.Model.Store.GetVariable(v.Path).MustValue().ConstBytes(func(data []byte) { all = append(all, data...) }); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// trained is a tagger that knows the synthetic corpus, trained once for all tests.
var trained = sync.OnceValues(func() (dir string, err error) {
	dir, err = os.MkdirTemp("", "tagger")
	if err != nil {
		return "", err
	}
	trainedRoot = dir
	tokenizer := filepath.Join(dir, "tokenizer")
	if err := os.MkdirAll(tokenizer, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(tokenizer, "tokenizer.json"), synth.Tokenizer(), 0o644); err != nil {
		return "", err
	}
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		return "", err
	}
	labels, err := ner.LabelsOfTypes("LOC", "ORG", "PER")
	if err != nil {
		return "", err
	}
	tagger, err := ner.NewTaggerFromScratch(engine, tokenizer, encoder(), labels, ner.Config{MaxLength: 48, Lengths: []int{24, 48}, Overlap: 8}, 1)
	if err != nil {
		return "", err
	}
	if _, err := tagger.Train(context.Background(), synth.Entities(1, 1500), nil, recipe(5), ner.TrainOptions{}); err != nil {
		return "", err
	}
	model := filepath.Join(dir, "model")
	return model, tagger.Save(model)
})

// trainedRoot is the folder that trained has made, if it was called.
var trainedRoot string

func TestMain(m *testing.M) {
	code := m.Run()
	if trainedRoot != "" {
		os.RemoveAll(trainedRoot)
	}
	os.Exit(code)
}

func loadTrained(t *testing.T) *ner.Tagger {
	t.Helper()
	dir, err := trained()
	if err != nil {
		t.Fatal(err)
	}
	tagger, err := ner.Load(gxtest.Backend(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	return tagger
}

func TestTaggerLearnsTheSyntheticCorpus(t *testing.T) {
	tagger := loadTrained(t)
	report, err := tagger.Evaluate(t.Context(), synth.Entities(3, 300), ner.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if report.Micro.F1 < 0.6 {
		t.Errorf("F1 on unseen names is %.3f, want at least 0.6", report.Micro.F1)
	}
	if tagger.Compilations() > 2 {
		t.Errorf("%d compilations for two lengths", tagger.Compilations())
	}
}

// TestLabelsOfExamples checks that pads, special tokens and later pieces of a word are
// ignored, not labelled O, and that no label is lost.
func TestLabelsOfExamples(t *testing.T) {
	tagger := newTagger(t, 1)
	sentences := synth.Entities(4, 200)
	examples, err := tagger.Examples(sentences)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range examples {
		if e.Labels[0] != ner.Ignore || e.Labels[len(e.Labels)-1] != ner.Ignore {
			t.Fatalf("special tokens have labels: %v", e.Labels)
		}
		var tags []string
		for _, label := range e.Labels {
			if label != ner.Ignore {
				tags = append(tags, tagger.Labels().Tag(label))
			}
		}
		if !slices.Equal(tags, sentences[i].Tags) {
			t.Fatalf("sentence %d has labels %v, want %v", i, tags, sentences[i].Tags)
		}
	}
	dataset, err := batch.New("x", examples, batch.Config{Size: 16})
	if err != nil {
		t.Fatal(err)
	}
	for b := range dataset.Epoch(0) {
		for i, mask := range b.Mask {
			if mask == 0 && b.Labels[i] != ner.Ignore {
				t.Fatalf("padding has label %d", b.Labels[i])
			}
		}
	}
}

// TestLongTextKeepsEveryWord joins many sentences to one that needs many windows.
func TestLongTextKeepsEveryWord(t *testing.T) {
	tagger := loadTrained(t)
	var words, tags []string
	for _, s := range synth.Entities(3, 60) {
		words, tags = append(words, s.Words...), append(tags, s.Tags...)
	}
	long := data.Sentence{Words: words, Tags: tags}
	examples, err := tagger.Examples([]data.Sentence{long})
	if err != nil {
		t.Fatal(err)
	}
	targets := 0
	for _, e := range examples {
		if len(e.IDs) > 48 {
			t.Fatalf("window of %d tokens, want at most 48", len(e.IDs))
		}
		for _, label := range e.Labels {
			if label != ner.Ignore {
				targets++
			}
		}
	}
	if len(examples) < 10 || targets != len(words) {
		t.Fatalf("%d windows with %d labels, want one for each of %d words", len(examples), targets, len(words))
	}
	report, err := tagger.Evaluate(t.Context(), []data.Sentence{long}, ner.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if report.Micro.Support != len(ner.FromTags(tags)) {
		t.Errorf("support is %d, want %d", report.Micro.Support, len(ner.FromTags(tags)))
	}
}

func TestPredictPlacesEntities(t *testing.T) {
	tagger := loadTrained(t)
	var text string
	var want []ner.Span
	for _, s := range synth.Entities(1, 200) { // seen in training
		if spans := ner.FromTags(s.Tags); len(spans) > 0 && s.Text != "" {
			text, want = s.Text, spans
			break
		}
	}
	documents, err := tagger.Predict(t.Context(), "", text, "  ")
	if err != nil {
		t.Fatal(err)
	}
	if len(documents) != 3 || len(documents[0].Entities)+len(documents[2].Entities) != 0 {
		t.Fatalf("empty texts give %+v", documents)
	}
	if len(documents[1].Entities) != len(want) {
		t.Errorf("found %+v in %q, want %v", documents[1].Entities, text, want)
	}
	runes := []rune(text)
	for _, e := range documents[1].Entities {
		if string(runes[e.Start:e.End]) != e.Text || !(e.Score > 0 && e.Score <= 1) {
			t.Errorf("entity %+v does not lie at its place", e)
		}
	}
}

func TestOneTextAndManyAgree(t *testing.T) {
	tagger := loadTrained(t)
	var texts []string
	for _, s := range synth.Entities(6, 40) {
		texts = append(texts, s.Text)
	}
	many, err := tagger.Predict(t.Context(), texts...)
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range texts[:5] {
		one, err := tagger.Predict(t.Context(), text)
		if err != nil {
			t.Fatal(err)
		}
		if len(one[0].Entities) != len(many[i].Entities) {
			t.Errorf("%q: alone %v, among others %v", text, one[0].Entities, many[i].Entities)
		}
	}
}

func TestSaveAndLoadGiveTheSameTagger(t *testing.T) {
	tagger := newTagger(t, 3)
	dir := filepath.Join(t.TempDir(), "model")
	if err := tagger.Save(dir); err != nil {
		t.Fatal(err)
	}
	again, err := ner.Load(gxtest.Backend(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(weights(t, tagger), weights(t, again)) {
		t.Error("weights differ")
	}
	if a, b := again.Config(), tagger.Config(); !slices.Equal(a.Lengths, b.Lengths) || a.MaxLength != b.MaxLength || a.Overlap != b.Overlap {
		t.Errorf("config is %+v, want %+v", a, b)
	}
	if !slices.Equal(again.Labels().Tags(), tagger.Labels().Tags()) {
		t.Errorf("labels are %v", again.Labels().Tags())
	}
}

// TestInterruptedTrainingEndsWithTheSameWeights stops a run at three places and resumes
// it from its folder, as the command does.
func TestInterruptedTrainingEndsWithTheSameWeights(t *testing.T) {
	sentences, dev := synth.Entities(1, 160), synth.Entities(2, 40)
	config := recipe(2)
	config.SaveEvery = 2
	whole := newTagger(t, 9)
	want, err := whole.Train(t.Context(), sentences, dev, config, ner.TrainOptions{Run: checkpoint.Run{Dir: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	for _, stop := range []int{1, 5, 7} {
		run := checkpoint.Run{Dir: t.TempDir()}
		ctx, cancel := context.WithCancel(t.Context())
		_, err := newTagger(t, 9).Train(ctx, sentences, dev, config, ner.TrainOptions{Run: run, Step: func(s train.Step) {
			if s.Update == stop {
				cancel()
			}
		}})
		cancel()
		if !errors.Is(err, train.ErrInterrupted) {
			t.Fatalf("stopped at %d: %v", stop, err)
		}
		folder, err := run.Latest()
		if err != nil {
			t.Fatal(err)
		}
		tagger, err := ner.Load(gxtest.Backend(t), folder.Dir)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tagger.Train(t.Context(), sentences, dev, config, ner.TrainOptions{Run: run, Resume: folder.Dir})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(weights(t, tagger), weights(t, whole)) {
			t.Errorf("stopped after update %d: the final weights differ", stop)
		}
		if !slices.Equal(got.State.Metrics, want.State.Metrics) {
			t.Errorf("stopped after update %d: metrics %v, want %v", stop, got.State.Metrics, want.State.Metrics)
		}
	}
}

// TestKilledBeforeTheBestWasMarked is for a process that died between saving the
// checkpoint of the best epoch and marking it as the best.
func TestKilledBeforeTheBestWasMarked(t *testing.T) {
	sentences, dev := synth.Entities(1, 160), synth.Entities(2, 40)
	config := recipe(4)
	config.SaveEvery = 1
	run := checkpoint.Run{Dir: t.TempDir(), Keep: -1}
	whole := newTagger(t, 9)
	result, err := whole.Train(t.Context(), sentences, dev, config, ner.TrainOptions{Run: run})
	if err != nil {
		t.Fatal(err)
	}
	if best := result.State.Best; best.Update != result.State.Update || best.Metric == 0 {
		t.Fatalf("the last epoch is not the best, so this test tests nothing: %+v", best)
	}
	if err := run.MarkBest(2); err != nil {
		t.Fatal(err)
	}
	folder, err := run.Latest()
	if err != nil {
		t.Fatal(err)
	}
	tagger, err := ner.Load(gxtest.Backend(t), folder.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tagger.Train(t.Context(), sentences, dev, config, ner.TrainOptions{Run: run, Resume: folder.Dir}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(weights(t, tagger), weights(t, whole)) {
		t.Error("the final weights are not those of the best epoch")
	}
}

func TestBadDataIsExplained(t *testing.T) {
	tagger := newTagger(t, 1)
	foreign := []data.Sentence{{Words: []string{"x"}, Tags: []string{"B-MISC"}, File: "a.iob2", Line: 7}}
	for name, run := range map[string]func() error{
		"train": func() error {
			_, err := tagger.Train(t.Context(), foreign, nil, recipe(1), ner.TrainOptions{})
			return err
		},
		"evaluate": func() error { _, err := tagger.Evaluate(t.Context(), foreign, ner.Options{}, nil); return err },
	} {
		err := run()
		var labels *ner.LabelsError
		if !errors.As(err, &labels) || !strings.Contains(err.Error(), "B-MISC") || !strings.Contains(err.Error(), "a.iob2:7") || !strings.Contains(err.Error(), "map it to O") {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	if _, err := tagger.Train(t.Context(), nil, nil, recipe(1), ner.TrainOptions{}); err == nil {
		t.Error("training without sentences: no error")
	}
	bad := recipe(1)
	bad.Schedule.Peak = -1
	if _, err := tagger.Train(t.Context(), synth.Entities(1, 8), nil, bad, ner.TrainOptions{}); err == nil || !strings.Contains(err.Error(), "schedule.peak") {
		t.Errorf("bad recipe: %v", err)
	}
}

func TestOddTexts(t *testing.T) {
	tagger := newTagger(t, 1)
	documents, err := tagger.Predict(t.Context(), "", " \t\n\u00a0", "\x00", "a\x00b 😀 c")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range documents[:2] {
		if d.Entities == nil || len(d.Entities) > 0 {
			t.Errorf("%q: entities %#v, want an empty list", d.Text, d.Entities)
		}
	}
	if _, err := tagger.Predict(t.Context(), "good", "Andr\xe9"); err == nil || !strings.Contains(err.Error(), "text 2 is not UTF-8") {
		t.Errorf("text that is not UTF-8: %v", err)
	}
	if logits, err := tagger.Logits(t.Context(), nil); err != nil || logits == nil || len(logits) > 0 {
		t.Errorf("logits of no word are %#v (%v), want an empty list", logits, err)
	}
}

func TestLoadExplainsWhatIsMissing(t *testing.T) {
	good := filepath.Join(t.TempDir(), "model")
	if err := newTagger(t, 1).Save(good); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"tokenizer.json": "tokenizer", "model.safetensors": "model.safetensors", "config.json": "config.json"} {
		dir := filepath.Join(t.TempDir(), "model")
		if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if _, err := ner.Load(gxtest.Backend(t), dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without %s: error is %v", name, err)
		}
	}
	if _, err := ner.Load(nil, good); err == nil || !strings.Contains(err.Error(), "tagger: the backend is nil: open one") {
		t.Errorf("without a backend: error is %v", err)
	}
	bare := encoder()
	bare.VocabSize = 30
	headless, err := transformer.New(bare, 1)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "headless")
	if err := checkpoint.Save(dir, checkpoint.Checkpoint{Files: pretrained.Files(headless)}); err != nil {
		t.Fatal(err)
	}
	if _, err := ner.Load(gxtest.Backend(t), dir); err == nil || !strings.Contains(err.Error(), `want "tokens"): train it first`) {
		t.Errorf("model that is no tagger: %v", err)
	}
	for content, want := range map[string]string{
		"{":                     "unexpected EOF",
		`{"lenghts":[32]}`:      `unknown field "lenghts"`,
		`{"lengths":[100000]}`:  "lengths is 100000",
		`{"max_length":100000}`: "max_length is 100000",
	} {
		dir := filepath.Join(t.TempDir(), "model")
		if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, ner.TaggerFile)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := ner.Load(gxtest.Backend(t), dir); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("tagger.json %s: error is %v, want %q and the path", content, err, want)
		}
	}
	labels, err := ner.LabelsOfTypes("X")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ner.NewTaggerFromScratch(gxtest.Backend(t), tokenizerDir(t), encoder(), labels, ner.Config{MaxLength: 5, Lengths: []int{64, 32}}, 1); err == nil || !strings.Contains(err.Error(), "ascending") || !strings.Contains(err.Error(), "max_length is 5") {
		t.Errorf("bad config: %v", err)
	}
}

// TestDivergedModelIsAnError predicts with weights that are not numbers.
func TestDivergedModelIsAnError(t *testing.T) {
	tagger := newTagger(t, 1)
	for _, v := range tagger.Model.Config.Variables() {
		if len(v.Shape) == 1 {
			value := tensors.FromFlatDataAndDimensions(slices.Repeat([]float32{float32(math.NaN())}, v.Shape[0]), v.Shape...)
			if err := tagger.Model.Store.GetVariable(v.Path).SetValue(value); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := tagger.Predict(t.Context(), "Ann lives here."); err == nil || !strings.Contains(err.Error(), "computes NaN") {
		t.Errorf("error is %v", err)
	}
}

func TestCancelledPredictionStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newTagger(t, 1).Predict(ctx, "Some text."); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func ExampleTagger() {
	dir, err := trained() // a folder that Tagger.Save wrote
	if err != nil {
		panic(err)
	}
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	tagger, err := ner.Load(engine, dir)
	if err != nil {
		panic(err)
	}
	sentence := synth.Entities(1, 1)[0]
	documents, err := tagger.Predict(context.Background(), sentence.Text)
	if err != nil {
		panic(err)
	}
	fmt.Println(ner.Mark(documents[0].Text, documents[0].Entities, false))
}
