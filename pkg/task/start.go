package task

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/run"
)

// ScratchEpochs is how often the model from scratch goes through the [Synthetic] corpus, some minutes in all.
const ScratchEpochs = 6

// Scratch describes the small transformer that learns the [Synthetic] corpus, for texts of so many tokens.
func Scratch(positions int) transformer.Config {
	return transformer.Config{
		Hidden: 96, Layers: 2, FeedForward: 192, Attention: attention.Spec{Heads: 4, Dropout: 0.1},
		MaxPositions: positions, TypeVocab: 2, Activation: "gelu", NormEpsilon: 1e-12, Dropout: 0.1, InitStd: 0.05,
	}
}

// Start makes the model M that a run begins with: of the folder of a pretrained one, or, for [run.Scratch], with
// fresh weights and the tokenizer of a folder. It returns the checksums of what it was made of.
func Start[M any](ctx context.Context, client *hub.Client, base string, pretrained, fresh func(dir string) (M, error)) (m M, sums map[string]string, err error) {
	if base != run.Scratch {
		dir, sums, err := run.FetchModel(ctx, client, base)
		if err != nil {
			return m, nil, err
		}
		m, err = pretrained(dir)
		return m, sums, err
	}
	dir, err := os.MkdirTemp("", "tokenizer-")
	if err != nil {
		return m, nil, fmt.Errorf("making the tokenizer's folder: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), synth.Tokenizer(), 0o644); err != nil {
		return m, nil, fmt.Errorf("writing the tokenizer: %w", err)
	}
	m, err = fresh(dir)
	return m, map[string]string{"model": "fresh weights"}, err
}
