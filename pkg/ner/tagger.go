package ner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/data/tokenizer"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/peft"
	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/explain"
)

// TaggerFile is the file of a checkpoint that holds a tagger's [Config].
const TaggerFile = "tagger.json"

// tokenizerFiles are carried from the pretrained folder into every checkpoint, as far
// as they are there.
var tokenizerFiles = []string{"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"}

// Config says how a tagger cuts texts and attends to them. Its zero value is the documented default.
type Config struct {
	// MaxLength is the longest example of training in tokens, special ones included; 0
	// means 128, or what the model has positions for if that is less. Longer sentences are cut into overlapping windows.
	MaxLength int `json:"max_length,omitempty"`
	// Lengths are the lengths in tokens, ascending, that texts are padded to for
	// prediction and evaluation; texts longer than the last are cut into overlapping
	// windows. Each length is one compilation. Nil means 32 and 64.
	Lengths []int `json:"lengths,omitempty"`
	// Overlap is how many tokens two windows share, where words allow it; 0 means 16.
	Overlap int `json:"overlap,omitempty"`
	// BatchSize is the number of windows that are predicted at a time when there are
	// several; 0 means 32. A single one is predicted alone, in a batch of one.
	BatchSize int `json:"batch_size,omitempty"`
	// Attention takes the place of a pretrained model's attention when a tagger is made of it;
	// nil keeps that. Heads may be left 0. What a tagger has is Model.Config.Attention.
	Attention *attention.Spec `json:"attention,omitempty"`
	// Depth and Experts do the same for those. A tagger with a depth predicts layer by layer;
	// see [Tagger.ExitAt].
	Depth   *transformer.Depth   `json:"depth,omitempty"`
	Experts *transformer.Experts `json:"experts,omitempty"`
	// Adapter is added to a pretrained model when a tagger is made of it: then only the adapter
	// and the head are trained, and saved. Nil trains the whole model.
	Adapter *peft.Config `json:"adapter,omitempty"`
}

// withDefaults fills in the defaults for a model that has positions for limit tokens.
func (c Config) withDefaults(limit int) Config {
	if c.MaxLength == 0 {
		c.MaxLength = min(128, limit)
	}
	if c.Lengths == nil {
		c.Lengths = []int{32, 64}
	}
	if c.Overlap == 0 {
		c.Overlap = 16
	}
	if c.BatchSize == 0 {
		c.BatchSize = 32
	}
	return c
}

// Validate reports all that is wrong with c for a model that has positions for limit tokens.
func (c Config) Validate(limit int) error {
	c = c.withDefaults(limit)
	var problems []error
	longest := func(name string, length int) {
		if length < 8 || length > limit {
			problems = append(problems, fmt.Errorf("%s is %d, want 8 to %d, the positions of the model", name, length, limit))
		}
	}
	longest("max_length", c.MaxLength)
	if len(c.Lengths) == 0 || !slices.IsSorted(c.Lengths) {
		problems = append(problems, fmt.Errorf("lengths are %v, want at least one, ascending", c.Lengths))
	} else {
		longest("the last of lengths", c.Lengths[len(c.Lengths)-1])
		if c.Lengths[0] < 1 {
			problems = append(problems, fmt.Errorf("lengths begin with %d, want a positive length", c.Lengths[0]))
		}
		if c.Overlap < 0 || c.Overlap > c.Lengths[len(c.Lengths)-1]-4 {
			problems = append(problems, fmt.Errorf("overlap is %d, want 0 to %d", c.Overlap, c.Lengths[len(c.Lengths)-1]-4))
		}
	}
	if c.BatchSize < 1 {
		problems = append(problems, fmt.Errorf("batch_size is %d, want at least 1", c.BatchSize))
	}
	return errors.Join(problems...)
}

// Tagger finds named entities with a transformer. Its prediction methods are safe for
// concurrent use; training is not.
type Tagger struct {
	// Model is the transformer with a token-classification head.
	Model *transformer.Model
	// Tokenizer splits words into the model's tokens.
	Tokenizer *tokenizer.Tokenizer

	backend compute.Backend
	labels  LabelSet
	config  Config
	assets  map[string][]byte // tokenizer files, by name

	net      net               // Model with its adapter
	adapter  *testtime.Adapter // nil but in an Adaptive
	events   []testtime.Event
	labelled bool // adapter learns from labels

	mu       sync.Mutex
	forward  *run.Forward        // nil in an Adaptive
	runner   *transformer.Runner // in place of forward for a model whose depth adapts
	executed [2]int              // layers and batches

	explainer explain.Explainer
}

// NewTagger makes a tagger of a pretrained encoder with a fresh head for the labels.
// Dir is a folder in Hugging Face layout with config.json, model.safetensors and
// tokenizer.json; the checkpoint's own head, if it has one, is dropped.
func NewTagger(backend compute.Backend, dir string, labels LabelSet, config Config, seed uint64) (*Tagger, error) {
	own, err := pretrained.ReadHead(dir)
	if err != nil {
		return nil, err
	}
	head := &transformer.Head{Kind: transformer.Tokens, Labels: labels.Tags(), Dropout: own.Dropout}
	m, report, err := pretrained.Load(dir, pretrained.Options{Head: head, Attention: config.Attention, Depth: config.Depth, Experts: config.Experts, Seed: seed})
	if err != nil {
		return nil, fmt.Errorf("loading pretrained model: %w", err)
	}
	n := net{Model: m}
	if config.Adapter != nil {
		if err := n.adapt(*config.Adapter, dir, report.Fresh, seed); err != nil {
			return nil, err
		}
	}
	return newTagger(backend, n, dir, config)
}

// NewTaggerFromScratch makes a tagger whose transformer has fresh weights. Dir holds
// the tokenizer; config.VocabSize, PadID and Head are set from it and the labels.
func NewTaggerFromScratch(backend compute.Backend, dir string, encoder transformer.Config, labels LabelSet, config Config, seed uint64) (*Tagger, error) {
	if config.Adapter != nil {
		return nil, errors.New("an adapter wants a pretrained model, not fresh weights")
	}
	tok, err := tokenizer.Load(dir)
	if err != nil {
		return nil, fmt.Errorf("loading tokenizer: %w", err)
	}
	if config.Attention != nil {
		encoder.Attention = config.Attention.Over(encoder.Attention)
	}
	if config.Depth != nil {
		encoder.Depth = config.Depth
	}
	if config.Experts != nil {
		encoder.Experts = config.Experts
	}
	encoder.VocabSize, encoder.PadID = tok.VocabSize(), int(tok.PadID())
	encoder.Head = transformer.Head{Kind: transformer.Tokens, Labels: labels.Tags(), Dropout: encoder.Dropout}
	m, err := transformer.New(encoder, seed)
	if err != nil {
		return nil, err
	}
	return newTagger(backend, net{Model: m}, dir, config)
}

// Load reads a tagger from a run folder, from one that [Tagger.Save] wrote, or from any checkpoint
// for token classification in Hugging Face layout, or an adapter in the layout of Python's peft
// whose base model is a folder.
func Load(backend compute.Backend, dir string) (*Tagger, error) {
	dir, err := run.ModelFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("loading tagger: %w", err)
	}
	m, err := loadNet(dir)
	if err != nil {
		return nil, fmt.Errorf("loading tagger: %w", err)
	}
	if m.Config.Head.Kind != transformer.Tokens {
		return nil, fmt.Errorf("%s: the model is no tagger (it has head %q, want %q): train it first", filepath.Join(dir, pretrained.ConfigFile), m.Config.Head.Kind, transformer.Tokens)
	}
	var config Config
	path := filepath.Join(dir, TaggerFile)
	switch content, err := os.ReadFile(path); {
	case errors.Is(err, os.ErrNotExist): // a checkpoint of another program
	case err != nil:
		return nil, fmt.Errorf("reading tagger config: %w", err)
	default:
		decoder := json.NewDecoder(bytes.NewReader(content))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&config); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if err := config.withDefaults(m.Config.MaxLength()).Validate(m.Config.MaxLength()); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return newTagger(backend, m, dir, config)
}

func newTagger(backend compute.Backend, m net, dir string, config Config) (*Tagger, error) {
	if err := run.CheckBackend(backend); err != nil {
		return nil, fmt.Errorf("tagger: %w", err)
	}
	limit := m.maxLength()
	config = config.withDefaults(limit)
	if err := config.Validate(limit); err != nil {
		return nil, fmt.Errorf("tagger config: %w", err)
	}
	labels, err := NewLabelSet(m.Config.Head.Labels)
	if err != nil {
		return nil, fmt.Errorf("%s: id2label: %w", filepath.Join(dir, pretrained.ConfigFile), err)
	}
	if _, err := os.Stat(filepath.Join(dir, tokenizerFiles[0])); errors.Is(err, os.ErrNotExist) && m.base != "" {
		dir = m.base // an adapter of another program
	}
	tok, err := tokenizer.Load(dir)
	if err != nil {
		return nil, fmt.Errorf("loading tokenizer: %w", err)
	}
	if tok.VocabSize() > m.Config.VocabSize {
		return nil, fmt.Errorf("%s: tokenizer has %d tokens, the model embeddings for %d: they do not belong together", dir, tok.VocabSize(), m.Config.VocabSize)
	}
	t := &Tagger{Model: m.Model, net: m, Tokenizer: tok, backend: backend, labels: labels, config: config, assets: map[string][]byte{}}
	for _, name := range tokenizerFiles {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading tokenizer: %w", err)
		}
		t.assets[name] = content
	}
	return t, t.prepare()
}

// prepare makes ready to compute with the net as it is.
func (t *Tagger) prepare() error {
	if t.forward != nil {
		t.forward.Finalize()
	}
	n := t.net
	var err error
	if t.forward, err = run.NewForward(t.backend, n.Store, n.logits); err != nil {
		return err
	}
	t.explainer = t.explaining()
	if n.Config.Depth != nil {
		if n.adapter != nil {
			return errors.New("the model has a depth that adapts, which does not go with an adapter")
		}
		if t.runner, err = transformer.NewRunner(t.backend, n.Model); err != nil {
			return fmt.Errorf("preparing prediction: %w", err)
		}
	}
	return nil
}

// Adapter returns the tagger's adapter, nil if it has none.
func (t *Tagger) Adapter() *peft.Adapter { return t.net.adapter }

// Trained returns the number of elements of the variables that training changes.
func (t *Tagger) Trained() int {
	total := 0
	for _, v := range t.net.trained() {
		total += v.Size()
	}
	return total
}

// Merge puts the adapter into the model's weights, for good: the tagger predicts the same, and
// is saved as a whole model, which needs no adapter and no base.
func (t *Tagger) Merge() error {
	if t.net.adapter == nil {
		return errors.New("the tagger has no adapter to merge")
	}
	if _, err := t.net.adapter.Merge(t.backend, t.Model.Store); err != nil {
		return err
	}
	if err := peft.Remove(t.Model.Store); err != nil {
		return err
	}
	t.net.adapter, t.net.base, t.config.Adapter = nil, "", nil
	return t.prepare()
}

// ExitAt sets the threshold at which predictions leave a model with early exits, in place of
// its config's; 0 never leaves early. A batch leaves at the first exit that is sure of the
// first pieces of all its words.
func (t *Tagger) ExitAt(threshold float64) error {
	if t.runner == nil || t.Model.Config.Depth.Kind != transformer.EarlyExit {
		return errors.New("the model has no early exits: train one with a depth of kind \"early_exit\"")
	}
	return t.runner.SetThreshold(threshold)
}

// MeanLayers returns how many layers a batch took in the mean, over all predictions so far;
// 0 before the first, and for a model of fixed depth.
func (t *Tagger) MeanLayers() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return float64(t.executed[0]) / float64(max(t.executed[1], 1))
}

// Labels returns the tags that the tagger can predict.
func (t *Tagger) Labels() LabelSet { return t.labels }

// Config returns the tagger's config with its defaults filled in.
func (t *Tagger) Config() Config { return t.config }

// Compilations returns the number of prediction graphs compiled so far.
func (t *Tagger) Compilations() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.runner != nil {
		return t.runner.Compilations()
	}
	return t.forward.Compilations()
}

// Files returns the files of a checkpoint: the model in Hugging Face layout, the
// tokenizer, and the tagger's config. Transformers loads them with
// AutoModelForTokenClassification and AutoTokenizer. Of a tagger with an adapter, only that, the
// head, and the model's config are written, in the layout of Python's peft.
func (t *Tagger) Files() []checkpoint.File {
	files := pretrained.Files(t.Model)
	if t.net.adapter != nil {
		files = append(files[:1], peft.Files(t.Model, t.net.adapter, t.net.base)...)
	}
	for _, name := range tokenizerFiles {
		if content, ok := t.assets[name]; ok {
			files = append(files, checkpoint.FromBytes(name, content))
		}
	}
	return append(files, checkpoint.File{Name: TaggerFile, Write: func(w io.Writer) error {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(t.config)
	}})
}

// Save writes the tagger as a folder, complete or not at all. [Load] reads it.
func (t *Tagger) Save(dir string) error {
	return checkpoint.Save(dir, checkpoint.Checkpoint{Files: t.Files()})
}

// Tagged is what a tagger predicts for a sentence.
type Tagged struct {
	Tags   []string  // one per word
	Scores []float64 // probability of each word's tag; 0 for a word that the tokenizer drops
}

// Tag predicts a tag for each word of each sentence. Progress, if not nil, is told how
// many batches of how many are done.
func (t *Tagger) Tag(ctx context.Context, sentences [][]string, progress func(done, total int)) ([]Tagged, error) {
	return t.tag(ctx, sentences, nil, progress)
}

// tag is Tag for sentences of which the true tags may be known, as numbers, which an [Adaptive] learns from.
func (t *Tagger) tag(ctx context.Context, sentences [][]string, truth [][]int32, progress func(done, total int)) ([]Tagged, error) {
	limit := t.config.Lengths[len(t.config.Lengths)-1]
	var parts []part
	cuts := make([]cut, len(sentences))
	for i, words := range sentences {
		c, made, err := t.cut(words, limit)
		if err != nil {
			return nil, fmt.Errorf("sentence %d: %w", i+1, err)
		}
		if truth != nil {
			c.owned(made, truth[i])
		}
		c.first = len(parts)
		cuts[i], parts = c, append(parts, made...)
	}
	tags := make([][]wordTag, len(parts))
	if err := t.predict(ctx, parts, tags, progress); err != nil {
		return nil, err
	}
	out := make([]Tagged, len(sentences))
	for i, c := range cuts {
		var merged []wordTag
		if len(c.windows) > 0 {
			var err error
			merged, err = Merge(c.windows, c.owners, tags[c.first:c.first+len(c.windows)])
			if err != nil {
				return nil, fmt.Errorf("sentence %d: %w", i+1, err)
			}
		}
		out[i] = Tagged{Tags: make([]string, len(merged)), Scores: make([]float64, len(merged))}
		for j, w := range merged {
			out[i].Tags[j], out[i].Scores[j] = t.labels.Tag(w.label), w.score
		}
	}
	return out, nil
}

// Document is a text with the entities that were found in it.
type Document struct {
	Text     string   `json:"text"`
	Entities []Entity `json:"entities"`
}

// Predict finds the entities of running texts (UTF-8) of any length. A text without
// words, as an empty one, has none.
func (t *Tagger) Predict(ctx context.Context, texts ...string) ([]Document, error) {
	sentences, places := make([][]string, len(texts)), make([][][2]int, len(texts))
	for i, text := range texts {
		if !utf8.ValidString(text) {
			return nil, fmt.Errorf("text %d is not UTF-8: convert it first", i+1)
		}
		sentences[i], places[i] = Words(text)
	}
	tagged, err := t.Tag(ctx, sentences, nil)
	if err != nil {
		return nil, err
	}
	documents := make([]Document, len(texts))
	for i, text := range texts {
		entities, err := Entities(text, places[i], FromTags(tagged[i].Tags), tagged[i].Scores)
		if err != nil {
			return nil, fmt.Errorf("text %d: %w", i+1, err)
		}
		documents[i] = Document{Text: text, Entities: entities}
	}
	return documents, nil
}

// Evaluate scores the tagger on labelled sentences. Every word counts, also those that
// the tokenizer drops (predicted O). Progress, if not nil, is told how many batches of
// how many are done.
func (t *Tagger) Evaluate(ctx context.Context, sentences []data.Sentence, options Options, progress func(done, total int)) (Report, error) {
	if err := t.labels.coverAll(sentences); err != nil {
		return Report{}, err
	}
	tagged, err := t.Tag(ctx, wordsOf(sentences), progress)
	if err != nil {
		return Report{}, err
	}
	return report(sentences, tagged, options)
}

func wordsOf(sentences []data.Sentence) [][]string {
	words := make([][]string, len(sentences))
	for i, s := range sentences {
		words[i] = s.Words
	}
	return words
}

// report scores what was predicted for labelled sentences.
func report(sentences []data.Sentence, tagged []Tagged, options Options) (Report, error) {
	gold, predicted := make([][]string, len(sentences)), make([][]string, len(sentences))
	for i, s := range sentences {
		gold[i], predicted[i] = s.Tags, tagged[i].Tags
	}
	return Evaluate(gold, predicted, options)
}

// cut says how a sentence is spread over windows, and first which of all parts is its first.
type cut struct {
	windows []Window
	owners  []int
	first   int
}

// owned gives each window the true tags of the words that it decides on. Of the others it must not know them:
// a model that learned from this window would know what is still to be predicted in the next.
func (c cut) owned(parts []part, truth []int32) {
	for k := range parts {
		w := c.windows[k]
		parts[k].truth = slices.Clone(truth[w.Start:w.End])
		for i := range parts[k].truth {
			if c.owners[w.Start+i] != k {
				parts[k].truth[i] = testtime.NoLabel
			}
		}
	}
}

// part is one window of a sentence, ready for the model.
type part struct {
	encoding  *tokenizer.Encoding
	alignment Alignment
	words     int
	truth     []int32 // true tag of each word, NoLabel for none; nil where all are unknown
}

// cut encodes the words of a sentence in windows of at most limit tokens.
func (t *Tagger) cut(words []string, limit int) (cut, []part, error) {
	if len(words) == 0 {
		return cut{}, nil, nil
	}
	whole, err := t.Tokenizer.EncodeWords(words, tokenizer.Options{})
	if err != nil {
		return cut{}, nil, err
	}
	c := cut{windows: []Window{{Start: 0, End: len(words)}}, owners: make([]int, len(words))}
	encodings := []*tokenizer.Encoding{whole}
	if len(whole.IDs) > limit {
		pieces, err := Pieces(whole.Words, len(words))
		if err != nil {
			return cut{}, nil, err
		}
		special := 0
		for _, word := range whole.Words {
			if word < 0 {
				special++
			}
		}
		if c.windows, err = Windows(pieces, limit-special, t.config.Overlap); err != nil {
			return cut{}, nil, err
		}
		c.owners = Owners(c.windows, pieces, limit-special)
		encodings = encodings[:0]
		for _, w := range c.windows {
			encoding, err := t.Tokenizer.EncodeWords(words[w.Start:w.End], tokenizer.Options{MaxLength: limit})
			if err != nil {
				return cut{}, nil, err
			}
			encodings = append(encodings, encoding)
		}
	}
	parts := make([]part, len(encodings))
	for i, encoding := range encodings {
		count := c.windows[i].End - c.windows[i].Start
		alignment, err := Align(encoding.Words, count)
		if err != nil {
			return cut{}, nil, err
		}
		parts[i] = part{encoding: encoding, alignment: alignment, words: count}
	}
	return c, parts, nil
}

type wordTag struct {
	label int32
	score float64
}

// predict fills tags, one slice of word tags per part.
func (t *Tagger) predict(ctx context.Context, parts []part, tags [][]wordTag, progress func(done, total int)) error {
	outside, _ := t.labels.ID(Outside)
	classes := t.labels.Len()
	return t.logits(ctx, parts, t.config.BatchSize, func(index int, logits []float32) {
		p := parts[index]
		tokens := make([]wordTag, len(p.encoding.IDs))
		for i := range tokens {
			tokens[i] = best(logits[i*classes : (i+1)*classes])
		}
		tags[index] = Gather(p.alignment, tokens, wordTag{label: outside})
	}, progress)
}

// logits computes those of parts, and hands each part's number with its logits, flat [length, labels], to take.
func (t *Tagger) logits(ctx context.Context, parts []part, size int, take func(index int, logits []float32), progress func(done, total int)) error {
	examples := make([]batch.Example, len(parts))
	for i, p := range parts {
		examples[i] = batch.Example{IDs: p.encoding.IDs, TypeIDs: p.encoding.TypeIDs}
	}
	config := batch.Config{Size: size, Lengths: t.config.Lengths, PadID: int32(t.Model.Config.PadID)}
	return run.Predict(ctx, examples, config, func(ctx context.Context, b batch.Batch) ([]float32, error) {
		return t.compute(ctx, b, parts)
	}, func(b batch.Batch, logits []float32) {
		row := b.Length * t.labels.Len()
		for i, index := range b.Index {
			take(index, logits[i*row:(i+1)*row])
		}
	}, progress)
}

// compute computes the logits of a batch of parts, flat [size, length, labels].
func (t *Tagger) compute(ctx context.Context, b batch.Batch, parts []part) (logits []float32, err error) {
	t.mu.Lock() // one at a time: the backend uses all cores for one anyway
	defer t.mu.Unlock()
	switch {
	case t.adapter != nil:
		return t.adapt(ctx, b, parts)
	case t.runner == nil:
		return t.forward.Logits(ctx, b)
	}
	var failure error
	err = exceptions.TryCatch[error](func() { logits, failure = t.computeByLayer(b.GoMLX().Inputs, firstPieces(b, parts)) })
	return logits, errors.Join(err, failure)
}

// computeByLayer runs a model whose depth adapts. Counts [size·length] says which tokens have
// a say in leaving early.
func (t *Tagger) computeByLayer(inputs []*tensors.Tensor, counts []bool) ([]float32, error) {
	said := tensors.FromFlatDataAndDimensions(counts, inputs[0].Shape().Dimensions...)
	outputs, layers, err := t.runner.Logits(inputs[0], inputs[1], inputs[2], said)
	if err != nil {
		return nil, err
	}
	t.executed[0], t.executed[1] = t.executed[0]+layers, t.executed[1]+1
	logits, err := tensors.CopyFlatData[float32](outputs)
	for _, tensor := range append(inputs, outputs, said) {
		tensor.MustFinalizeAll()
	}
	return logits, err
}

// firstPieces returns where the first pieces of words stand in a batch, flat [size, length].
func firstPieces(b batch.Batch, parts []part) []bool {
	first := make([]bool, b.Size*b.Length)
	for row, index := range b.Index {
		for _, at := range parts[index].alignment.First {
			if at >= 0 {
				first[row*b.Length+at] = true
			}
		}
	}
	return first
}

// best returns the label with the highest logit and its probability under a softmax.
func best(logits []float32) wordTag {
	label := 0
	for i, v := range logits {
		if v > logits[label] {
			label = i
		}
	}
	sum := 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v - logits[label]))
	}
	return wordTag{label: int32(label), score: 1 / sum}
}

// TokenLogits is what the model computes for one window of a text, before any decision:
// the means to compare it with another program.
type TokenLogits struct {
	IDs    []int32     `json:"input_ids"`
	Logits [][]float32 `json:"logits"` // [tokens, labels]
}

// Logits computes the logits of all tokens of a sentence, window by window. A sentence
// without words has no window.
func (t *Tagger) Logits(ctx context.Context, words []string) ([]TokenLogits, error) {
	_, parts, err := t.cut(words, t.config.Lengths[len(t.config.Lengths)-1])
	if err != nil {
		return nil, err
	}
	list, classes := make([]TokenLogits, len(parts)), t.labels.Len() // not nil: in JSON it is a list
	err = t.logits(ctx, parts, 1, func(index int, logits []float32) {
		list[index] = TokenLogits{IDs: parts[index].encoding.IDs}
		for i := range list[index].IDs {
			list[index].Logits = append(list[index].Logits, logits[i*classes:(i+1)*classes])
		}
	}, nil)
	if err != nil {
		return nil, err
	}
	return list, nil
}
