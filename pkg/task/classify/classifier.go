package classify

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/data/tokenizer"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/eval"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/explain"
)

// ConfigFile is the file of a checkpoint that holds a classifier's [Config].
const ConfigFile = "classifier.json"

// tokenizerFiles are carried from the pretrained folder into every checkpoint, as far
// as they are there.
var tokenizerFiles = []string{"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"}

// Classifier tells classes of texts with a transformer. Its prediction methods are safe for
// concurrent use; training is not.
type Classifier struct {
	// Model is the transformer with a sequence head.
	Model *transformer.Model
	// Tokenizer splits texts into the model's tokens.
	Tokenizer *tokenizer.Tokenizer

	backend compute.Backend
	config  Config
	assets  map[string][]byte // tokenizer files, by name
	numbers map[string]int    // of labels

	adaptation // empty but in an Adaptive

	mu        sync.Mutex
	forward   *run.Forward
	explainer explain.Explainer
}

// Labels lists the classes of texts, sorted. A text without a label is an error.
func Labels(texts []data.Text) ([]string, error) {
	labels := map[string]bool{}
	for _, t := range texts {
		if t.Label == "" {
			return nil, fmt.Errorf("%s: the text has no label", t.Place())
		}
		labels[t.Label] = true
	}
	return slices.Sorted(maps.Keys(labels)), nil
}

// New makes a classifier of a pretrained encoder with a fresh head for the labels. Dir is a
// folder in Hugging Face layout with config.json, model.safetensors and tokenizer.json; the
// checkpoint's own head, if it has one, is dropped, but for its pooler.
func New(backend compute.Backend, dir string, labels []string, config Config, seed uint64) (*Classifier, error) {
	own, err := pretrained.ReadHead(dir)
	if err != nil {
		return nil, err
	}
	head := &transformer.Head{Kind: transformer.Sequence, Labels: labels, Pooling: config.Pooling, Dropout: own.Dropout}
	m, _, err := pretrained.Load(dir, pretrained.Options{Head: head, Attention: config.Attention, Seed: seed})
	if err != nil {
		return nil, fmt.Errorf("loading pretrained model: %w", err)
	}
	return newClassifier(backend, m, dir, config)
}

// NewFromScratch makes a classifier whose transformer has fresh weights. Dir holds the
// tokenizer; the encoder's VocabSize, PadID and Head are set from it, the labels and config.
func NewFromScratch(backend compute.Backend, dir string, encoder transformer.Config, labels []string, config Config, seed uint64) (*Classifier, error) {
	tok, err := tokenizer.Load(dir)
	if err != nil {
		return nil, fmt.Errorf("loading tokenizer: %w", err)
	}
	if config.Attention != nil {
		encoder.Attention = config.Attention.Over(encoder.Attention)
	}
	encoder.VocabSize, encoder.PadID = tok.VocabSize(), int(tok.PadID())
	encoder.Head = transformer.Head{Kind: transformer.Sequence, Labels: labels, Pooling: config.Pooling, Dropout: encoder.Dropout}
	m, err := transformer.New(encoder, seed)
	if err != nil {
		return nil, err
	}
	return newClassifier(backend, m, dir, config)
}

// Load reads a classifier from a run folder, from one that [Classifier.Save] wrote, or from any checkpoint of
// the BERT family for sequence classification in Hugging Face layout.
func Load(backend compute.Backend, dir string) (*Classifier, error) {
	dir, err := run.ModelFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("loading classifier: %w", err)
	}
	m, _, err := pretrained.Load(dir, pretrained.Options{})
	if err != nil {
		return nil, fmt.Errorf("loading classifier: %w", err)
	}
	if m.Config.Head.Kind != transformer.Sequence {
		return nil, fmt.Errorf("%s: the model is no classifier of texts (it has head %q, want %q): train it first", filepath.Join(dir, pretrained.ConfigFile), m.Config.Head.Kind, transformer.Sequence)
	}
	var config Config
	path := filepath.Join(dir, ConfigFile)
	switch content, err := os.ReadFile(path); {
	case errors.Is(err, os.ErrNotExist): // a checkpoint of another program
	case err != nil:
		return nil, fmt.Errorf("reading classifier config: %w", err)
	default:
		decoder := json.NewDecoder(bytes.NewReader(content))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&config); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if err := config.Validate(m.Config.MaxLength()); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return newClassifier(backend, m, dir, config)
}

func newClassifier(backend compute.Backend, m *transformer.Model, dir string, config Config) (*Classifier, error) {
	if err := run.CheckBackend(backend); err != nil {
		return nil, fmt.Errorf("classifier: %w", err)
	}
	limit := m.Config.MaxLength()
	config = config.withDefaults(limit)
	if err := config.Validate(limit); err != nil {
		return nil, fmt.Errorf("classifier config: %w", err)
	}
	tok, err := tokenizer.Load(dir)
	if err != nil {
		return nil, fmt.Errorf("loading tokenizer: %w", err)
	}
	if tok.VocabSize() > m.Config.VocabSize {
		return nil, fmt.Errorf("%s: tokenizer has %d tokens, the model embeddings for %d: they do not belong together", dir, tok.VocabSize(), m.Config.VocabSize)
	}
	c := &Classifier{Model: m, Tokenizer: tok, backend: backend, config: config, assets: map[string][]byte{}}
	for _, name := range tokenizerFiles {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading tokenizer: %w", err)
		}
		c.assets[name] = content
	}
	return c, c.prepare()
}

// prepare makes what follows from the model.
func (c *Classifier) prepare() (err error) {
	c.numbers = map[string]int{}
	for i, label := range c.Labels() {
		c.numbers[label] = i
	}
	config := c.Model.Config
	c.forward, err = run.NewForward(c.backend, c.Model.Store, func(w elastic.Weights, in transformer.Inputs) *graph.Node { return config.Logits(w, in, nil) })
	if err != nil {
		return err
	}
	c.explainer = c.explaining()
	return nil
}

// Labels returns the classes that the classifier tells apart, in the order of their numbers.
func (c *Classifier) Labels() []string { return c.Model.Config.Head.Labels }

// Config returns the classifier's config with its defaults filled in.
func (c *Classifier) Config() Config { return c.config }

// Compilations returns the number of prediction graphs compiled so far.
func (c *Classifier) Compilations() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.forward.Compilations()
}

// Files returns the files of a checkpoint: the model in Hugging Face layout, the tokenizer,
// and the classifier's config. Where attention and pooling are BERT's, transformers loads them
// with AutoModelForSequenceClassification and AutoTokenizer.
func (c *Classifier) Files() []checkpoint.File {
	files := pretrained.Files(c.Model)
	for _, name := range tokenizerFiles {
		if content, ok := c.assets[name]; ok {
			files = append(files, checkpoint.FromBytes(name, content))
		}
	}
	return append(files, checkpoint.File{Name: ConfigFile, Write: func(w io.Writer) error {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(c.config)
	}})
}

// Save writes the classifier as a folder, complete or not at all. [Load] reads it.
func (c *Classifier) Save(dir string) error {
	return checkpoint.Save(dir, checkpoint.Checkpoint{Files: c.Files()})
}

// Choice is a class and the probability that a classifier gives it.
type Choice struct {
	Label string  `json:"label"`
	Score float64 `json:"score"`
}

// Prediction is what a classifier says about a text.
type Prediction struct {
	Text string `json:"text"`
	Choice
	// Next are the most probable classes behind the first, at most four.
	Next []Choice `json:"next,omitempty"`
}

// Predict classifies texts (UTF-8). Each gets a class, an empty text too.
func (c *Classifier) Predict(ctx context.Context, texts ...string) ([]Prediction, error) {
	logits, err := c.Logits(ctx, texts, nil)
	if err != nil {
		return nil, err
	}
	return c.predictions(texts, logits), nil
}

func (c *Classifier) predictions(texts []string, logits [][]float32) []Prediction {
	const most = 5
	list := make([]Prediction, len(texts))
	for i, row := range logits {
		choices := make([]Choice, len(row))
		for class, p := range softmax(row) {
			choices[class] = Choice{c.Labels()[class], p}
		}
		slices.SortStableFunc(choices, func(a, b Choice) int { return cmp.Compare(b.Score, a.Score) })
		list[i] = Prediction{Text: texts[i], Choice: choices[0], Next: choices[1:min(most, len(choices))]}
	}
	return list
}

// Evaluate scores the classifier on labelled texts. A label that it does not know is an error
// that says where it was read. Progress, if not nil, is told how many batches of how many are
// done.
func (c *Classifier) Evaluate(ctx context.Context, texts []data.Text, progress func(done, total int)) (eval.Classification, error) {
	gold, err := c.encodeLabels(texts)
	if err != nil {
		return eval.Classification{}, err
	}
	logits, err := c.Logits(ctx, textsOf(texts), progress)
	if err != nil {
		return eval.Classification{}, err
	}
	return c.report(gold, logits)
}

func textsOf(texts []data.Text) []string {
	plain := make([]string, len(texts))
	for i, t := range texts {
		plain[i] = t.Text
	}
	return plain
}

// report scores what was predicted for texts of known classes.
func (c *Classifier) report(gold []int, logits [][]float32) (eval.Classification, error) {
	predicted, confidence := make([]int, len(gold)), make([]float64, len(gold))
	for i, row := range logits {
		predicted[i] = argmax(row)
		confidence[i] = softmax(row)[predicted[i]]
	}
	return eval.Classify(c.Labels(), gold, predicted, confidence)
}

// encodeLabels returns the numbers of the texts' classes.
func (c *Classifier) encodeLabels(texts []data.Text) ([]int, error) {
	numbers := make([]int, len(texts))
	for i, t := range texts {
		number, ok := c.numbers[t.Label]
		if !ok {
			return nil, fmt.Errorf("%s: label %q is none of the model's %d, such as %q", t.Place(), t.Label, len(c.numbers), c.Labels()[0])
		}
		numbers[i] = number
	}
	return numbers, nil
}

// encode returns the tokens of a text, at most limit.
func (c *Classifier) encode(text string, limit int) (*tokenizer.Encoding, error) {
	if !utf8.ValidString(text) {
		return nil, errors.New("the text is not UTF-8: convert it first")
	}
	return c.Tokenizer.Encode(text, tokenizer.Options{MaxLength: limit})
}

// Logits computes the logits of texts, [texts][labels], before any decision. Progress, if not
// nil, is told how many batches of how many are done.
func (c *Classifier) Logits(ctx context.Context, texts []string, progress func(done, total int)) ([][]float32, error) {
	return c.logits(ctx, texts, nil, progress)
}

// logits is Logits for texts of which the classes may be known, as numbers, which an [Adaptive] learns from.
func (c *Classifier) logits(ctx context.Context, texts []string, gold []int, progress func(done, total int)) ([][]float32, error) {
	limit := c.longest()
	examples := make([]batch.Example, len(texts))
	for i, text := range texts {
		encoding, err := c.encode(text, limit)
		if err != nil {
			return nil, fmt.Errorf("text %d: %w", i+1, err)
		}
		examples[i] = batch.Example{IDs: encoding.IDs, TypeIDs: encoding.TypeIDs}
	}
	config := batch.Config{Size: c.config.BatchSize, Lengths: c.config.Lengths, PadID: int32(c.Model.Config.PadID)}
	rows, classes := make([][]float32, len(texts)), len(c.Labels())
	err := run.Predict(ctx, examples, config, func(ctx context.Context, b batch.Batch) ([]float32, error) {
		return c.compute(ctx, b, gold)
	}, func(b batch.Batch, logits []float32) {
		for row, index := range b.Index {
			rows[index] = logits[row*classes : (row+1)*classes]
		}
	}, progress)
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// compute computes the logits of a batch, flat [size, labels].
func (c *Classifier) compute(ctx context.Context, b batch.Batch, gold []int) ([]float32, error) {
	c.mu.Lock() // one at a time: the backend uses all cores for one anyway
	defer c.mu.Unlock()
	if c.adapter != nil {
		return c.adapt(ctx, b, gold)
	}
	return c.forward.Logits(ctx, b)
}

func argmax(logits []float32) int {
	best := 0
	for class, v := range logits {
		if v > logits[best] {
			best = class
		}
	}
	return best
}

func softmax(logits []float32) []float64 {
	p, sum := make([]float64, len(logits)), 0.0
	most := logits[argmax(logits)]
	for class, v := range logits {
		p[class] = math.Exp(float64(v - most))
		sum += p[class]
	}
	for class := range p {
		p[class] /= sum
	}
	return p
}
