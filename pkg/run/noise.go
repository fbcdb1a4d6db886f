package run

import (
	"errors"
	"fmt"

	"github.com/elastic-attention/workbench/pkg/data/tokenizer"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// Noise is what a recipe drops while training, beside the model's own dropout; the zero value drops
// nothing.
type Noise struct {
	// DropPath and WordDropout are rates; see [transformer.Noise].
	DropPath    float64 `json:"drop_path,omitempty"`
	WordDropout float64 `json:"word_dropout,omitempty"`
}

// Validate reports all that is wrong with n.
func (n Noise) Validate() error {
	var problems []error
	for _, rate := range []struct {
		name string
		p    float64
	}{{"drop_path", n.DropPath}, {"word_dropout", n.WordDropout}} {
		if !(rate.p >= 0 && rate.p < 1) {
			problems = append(problems, fmt.Errorf("noise.%s is %g, want 0 ≤ p < 1", rate.name, rate.p))
		}
	}
	return errors.Join(problems...)
}

// Config returns the config of a model with the noise, whose tokens are those of a tokenizer. What
// word dropout puts in is the token of masked language models, or that of unknown words.
func (n Noise) Config(config transformer.Config, tok *tokenizer.Tokenizer) (transformer.Config, error) {
	if n == (Noise{}) {
		return config, nil
	}
	config.Noise = &transformer.Noise{DropPath: n.DropPath, WordDropout: n.WordDropout}
	if n.WordDropout != 0 {
		unknown, ok := int32(0), false
		for _, token := range []string{"[MASK]", "<mask>", "[UNK]", "<unk>"} {
			if unknown, ok = tok.TokenID(token); ok {
				break
			}
		}
		if !ok {
			return config, errors.New("noise.word_dropout needs a tokenizer with a token [MASK], <mask>, [UNK] or <unk>")
		}
		config.Noise.Unknown = int(unknown)
		for _, id := range tok.SpecialIDs() {
			config.Noise.Keep = append(config.Noise.Keep, int(id))
		}
	}
	if err := config.Validate(); err != nil {
		return config, fmt.Errorf("model with noise: %w", err)
	}
	return config, nil
}
