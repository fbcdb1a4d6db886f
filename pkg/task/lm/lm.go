// Package lm trains language models of text, and writes text with them. A token is a byte of
// UTF-8: nothing has to be learned or stored beside the model, and no text is outside the
// vocabulary.
//
//	m, err := lm.New(backend, lm.Small(), 42)
//	_, err = m.Train(ctx, text, dev, lm.TrainConfig{…}, lm.TrainOptions{})
//	score, err := m.Evaluate(ctx, test, nil)
//	text, err := m.Generate(ctx, "ROMEO:", lm.Sampling{Bytes: 200, Temperature: 0.8, Seed: 1}, nil)
//
// The model is a [transformer.Config] whose attention sees no later token and whose head is
// [transformer.LM], so everything that its spec can say may be tried here too. Checkpoints are
// GPT-2's in layout, with a vocabulary of 256.
package lm

import (
	"fmt"
	"path/filepath"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/run"
)

// VocabSize is the number of tokens: one for each byte.
const VocabSize = 256

// Model is a language model. Its methods are safe for concurrent use, but for training.
type Model struct {
	// Transformer is the model itself.
	Transformer *transformer.Model

	backend compute.Backend

	mu    sync.Mutex
	score *model.Exec // losses and hits of windows; nil before the first use, as steps
	steps *generator
}

// Small describes a model that learns something within a minute on two cores: 2 layers, width
// 128, 64 bytes of context, 0.4 million weights.
func Small() transformer.Config {
	return transformer.Config{
		Hidden: 128, Layers: 2, FeedForward: 512, Attention: attention.Spec{Heads: 4, Mask: attention.Causal{}},
		MaxPositions: 64, PadID: -1, Activation: "gelu_tanh", NormEpsilon: 1e-5, InitStd: 0.02, NormOrder: transformer.PreNorm,
	}
}

// New makes a model with fresh weights. VocabSize, PadID and Head of the config are set here.
func New(backend compute.Backend, config transformer.Config, seed uint64) (*Model, error) {
	config.VocabSize, config.PadID, config.Head = VocabSize, -1, transformer.Head{Kind: transformer.LM}
	if err := check(config); err != nil {
		return nil, fmt.Errorf("language model: %w", err)
	}
	m, err := transformer.New(config, seed)
	if err != nil {
		return nil, err
	}
	return newModel(backend, m)
}

// Load reads a model from a run folder, or from one that [Model.Save] wrote.
func Load(backend compute.Backend, dir string) (*Model, error) {
	dir, err := run.ModelFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("loading language model: %w", err)
	}
	m, _, err := pretrained.Load(dir, pretrained.Options{})
	if err != nil {
		return nil, fmt.Errorf("loading language model: %w", err)
	}
	if err := check(m.Config); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, pretrained.ConfigFile), err)
	}
	return newModel(backend, m)
}

func newModel(backend compute.Backend, m *transformer.Model) (*Model, error) {
	if err := run.CheckBackend(backend); err != nil {
		return nil, fmt.Errorf("language model: %w", err)
	}
	return &Model{Transformer: m, backend: backend}, nil
}

// check refuses models that do not predict the next byte from those before it.
func check(c transformer.Config) error {
	if c.Head.Kind != transformer.LM {
		return fmt.Errorf("the model has head %q, want %q", c.Head.Kind, transformer.LM)
	}
	if c.VocabSize != VocabSize {
		return fmt.Errorf("the model has a vocabulary of %d tokens, want %d, one for each byte", c.VocabSize, VocabSize)
	}
	if c.Decoder != nil {
		return fmt.Errorf("the model has an encoder and a decoder, want one stack whose tokens see those before them")
	}
	if _, err := c.Attention.Slots(c.MaxLength(), 1); err != nil { // also tells whether tokens see later ones
		return err
	}
	return c.Validate()
}

// Context returns the number of bytes that the model can see.
func (m *Model) Context() int { return m.Transformer.Config.MaxLength() }

// Files returns the files of a checkpoint.
func (m *Model) Files() []checkpoint.File { return pretrained.Files(m.Transformer) }

// Save writes the model as a folder, complete or not at all. [Load] reads it.
func (m *Model) Save(dir string) error {
	return checkpoint.Save(dir, checkpoint.Checkpoint{Files: m.Files()})
}

// Finalize frees what was compiled. The model stays.
func (m *Model) Finalize() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.score != nil {
		m.score.Finalize()
		m.score = nil
	}
	if m.steps != nil {
		m.steps.finalize()
		m.steps = nil
	}
}
