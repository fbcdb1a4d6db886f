package experiment

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/gomlx/compute"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/format"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/ner"
)

// The synthetic corpus, and the model from scratch that learns it in some minutes.
const (
	scratchEpochs = 6
	synthTrain    = 4000
	synthOther    = 500
)

func scratchEncoder() transformer.Config {
	return transformer.Config{
		Hidden: 96, Layers: 2, FeedForward: 192, Attention: attention.Spec{Heads: 4, Dropout: 0.1},
		MaxPositions: 128, TypeVocab: 2, Activation: "gelu", NormEpsilon: 1e-12, Dropout: 0.1, InitStd: 0.05,
	}
}

// Corpus is the data of an experiment.
type Corpus struct {
	Train, Dev, Test []data.Sentence
	// Checksums has the SHA-256 of each file, by its name, or a description of data that
	// was made.
	Checksums map[string]string
	// Note is what must be said beside results on this corpus, or "".
	Note string
}

// Load brings in the corpus. The client fetches what is not there yet.
func (d Data) Load(ctx context.Context, client *hub.Client) (Corpus, error) {
	if d.Name == Synthetic {
		return d.limit(Corpus{
			Train: synth.Entities(1, synthTrain), Dev: synth.Entities(2, synthOther), Test: synth.Entities(3, synthOther),
			Checksums: map[string]string{"synthetic": "synth.Entities, seeds 1 to 3"},
			Note:      "a synthetic corpus: the scores say nothing about real text",
		})
	}
	files := map[data.Split]string{data.Train: d.TrainFile, data.Dev: d.DevFile, data.Test: d.TestFile}
	corpus := Corpus{Checksums: map[string]string{}}
	if d.Name != "" {
		resource, err := hub.Lookup(d.Name)
		if err != nil {
			return Corpus{}, err
		}
		dir, err := client.Fetch(ctx, resource)
		if err != nil {
			return Corpus{}, fmt.Errorf("fetching data %s: %w", d.Name, err)
		}
		for split := range files {
			name, ok := resource.SplitFile(split)
			if !ok {
				return Corpus{}, fmt.Errorf("%s is no corpus: it has no file for %s", d.Name, split)
			}
			files[split] = filepath.Join(dir, name)
		}
		if d.Name == hub.UNEREnglishEWT {
			corpus.Note = "trained on the first-commit version of the train file"
		}
	}
	for split, into := range map[data.Split]*[]data.Sentence{data.Train: &corpus.Train, data.Dev: &corpus.Dev, data.Test: &corpus.Test} {
		path := files[split]
		if path == "" {
			continue
		}
		sentences, err := data.Collect(format.CoNLLFile(path, format.CoNLLOptions{Types: d.Types}))
		if err != nil {
			return Corpus{}, fmt.Errorf("reading %s data: %w", split, err)
		}
		*into = sentences
		if corpus.Checksums[filepath.Base(path)], err = checksum(path); err != nil {
			return Corpus{}, err
		}
	}
	return d.limit(corpus)
}

func (d Data) limit(c Corpus) (Corpus, error) {
	if d.Limit > 0 {
		for _, part := range []*[]data.Sentence{&c.Train, &c.Dev, &c.Test} {
			*part = (*part)[:min(d.Limit, len(*part))]
		}
	}
	return c, nil
}

// fetchModel returns the folder of a pretrained model, and the checksum of its weights.
func fetchModel(ctx context.Context, client *hub.Client, name string) (dir string, err error) {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return name, nil
	}
	resource, err := hub.Lookup(name)
	if err != nil {
		if owner, model, ok := strings.Cut(name, "/"); !ok || owner == "" || model == "" || strings.HasPrefix(name, ".") || filepath.IsAbs(name) {
			return "", fmt.Errorf("model %q is neither a folder, nor owner/name of a hub's model, nor in the catalogue: %w", name, err)
		}
		resource = hub.HuggingFace(name, "")
	}
	if dir, err = client.Fetch(ctx, resource); err != nil {
		return "", fmt.Errorf("fetching model %s: %w", name, err)
	}
	return dir, nil
}

// newTagger makes the tagger that an experiment trains. Work is a folder for files
// that are made.
func newTagger(ctx context.Context, backend compute.Backend, client *hub.Client, c Config, labels ner.LabelSet, work string) (*ner.Tagger, map[string]string, error) {
	if c.Model == Scratch {
		dir := filepath.Join(work, "tokenizer")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, nil, fmt.Errorf("making the tokenizer's folder: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), synth.Tokenizer(), 0o644); err != nil {
			return nil, nil, fmt.Errorf("writing the tokenizer: %w", err)
		}
		tagger, err := ner.NewTaggerFromScratch(backend, dir, scratchEncoder(), labels, c.Tagger, c.Train.Seed)
		return tagger, map[string]string{"model": "fresh weights"}, err
	}
	dir, err := fetchModel(ctx, client, c.Model)
	if err != nil {
		return nil, nil, err
	}
	sums := map[string]string{}
	for _, name := range []string{"config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json", "vocab.txt"} {
		sum, err := checksum(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		sums[name] = sum
	}
	tagger, err := ner.NewTagger(backend, dir, labels, c.Tagger, c.Train.Seed)
	return tagger, sums, err
}

// checksum returns the SHA-256 of a file.
func checksum(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("checking %s: %w", filepath.Base(path), err)
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", fmt.Errorf("checking %s: %w", path, err)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
