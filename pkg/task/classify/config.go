package classify

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// Config says how a classifier cuts texts, attends to them and pools them. Its zero value is
// the documented default.
type Config struct {
	// MaxLength is the longest text of training in tokens, special ones included; 0 means 64,
	// or what the model has positions for if that is less. What is longer is cut off.
	MaxLength int `json:"max_length,omitempty"`
	// Lengths are the lengths in tokens, ascending, that texts are padded to for prediction and
	// evaluation; texts longer than the last are cut off there. Each length is one compilation.
	// Nil means 32 and 64.
	Lengths []int `json:"lengths,omitempty"`
	// BatchSize is the number of texts that are predicted at a time when there are several; 0
	// means 32. A single one is predicted alone, in a batch of one.
	BatchSize int `json:"batch_size,omitempty"`
	// Pooling takes the place of a pretrained model's pooling when a classifier is made of it:
	// one of [transformer.Poolings]; empty means "cls". What a classifier has is
	// Model.Config.Head.Pooling.
	Pooling string `json:"pooling,omitempty"`
	// Attention takes the place of a pretrained model's attention when a classifier is made of
	// it; nil keeps that. Heads may be left 0. What a classifier has is Model.Config.Attention.
	Attention *attention.Spec `json:"attention,omitempty"`
}

// withDefaults fills in the defaults for a model that has positions for limit tokens.
func (c Config) withDefaults(limit int) Config {
	if c.MaxLength == 0 {
		c.MaxLength = min(64, limit)
	}
	if c.Lengths == nil {
		c.Lengths = []int{min(32, limit), min(64, limit)}
	}
	if c.BatchSize == 0 {
		c.BatchSize = 32
	}
	c.Lengths = slices.Compact(slices.Clone(c.Lengths))
	return c
}

// Validate reports all that is wrong with c for a model that has positions for limit tokens.
func (c Config) Validate(limit int) error {
	c = c.withDefaults(limit)
	var problems []error
	within := func(name string, length int) {
		if length < 3 || length > limit {
			problems = append(problems, fmt.Errorf("%s is %d, want 3 to %d, the positions of the model", name, length, limit))
		}
	}
	within("max_length", c.MaxLength)
	if len(c.Lengths) == 0 || !slices.IsSorted(c.Lengths) {
		problems = append(problems, fmt.Errorf("lengths are %v, want at least one, ascending", c.Lengths))
	} else {
		within("the first of lengths", c.Lengths[0])
		within("the last of lengths", c.Lengths[len(c.Lengths)-1])
	}
	if c.BatchSize < 1 {
		problems = append(problems, fmt.Errorf("batch_size is %d, want at least 1", c.BatchSize))
	}
	if c.Pooling != "" && !slices.Contains(transformer.Poolings(), c.Pooling) {
		problems = append(problems, fmt.Errorf("pooling %q is unknown; known: %s", c.Pooling, strings.Join(transformer.Poolings(), ", ")))
	}
	return errors.Join(problems...)
}
