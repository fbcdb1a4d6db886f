package train

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/control"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
)

// The precisions of [Config].
const (
	F32  = "f32"
	BF16 = "bf16" // 8 bits of mantissa, the range of float32
)

// Config is a training recipe: plain data, stored with each run.
type Config struct {
	// Epochs is how often the data is gone through; 0 means 1.
	Epochs int `json:"epochs"`
	// MaxUpdates ends the run early; 0 means no limit. The schedule ends there too.
	MaxUpdates int `json:"max_updates,omitempty"`
	// Accumulate is the number of micro-batches per update; 0 means 1. An update divides by
	// the targets of all its micro-batches together. The last update of an epoch takes what
	// is left.
	Accumulate int `json:"accumulate,omitempty"`
	// ClipNorm is the largest global gradient norm; 0 means no clipping.
	ClipNorm float64 `json:"clip_norm,omitempty"`
	// Optimizer is the update rule, with parameter groups.
	Optimizer optim.Config `json:"optimizer"`
	// Loss is what training minimises: the task's to compute, see [Measured]. The zero value is plain
	// cross-entropy.
	Loss loss.Config `json:"loss,omitzero"`
	// Schedule gives the learning rate.
	Schedule schedule.Config `json:"schedule"`
	// Control lists controllers of the learning rate: each multiplies the schedule's rate by a
	// factor, or ends the run, because of what it sees.
	Control []control.Config `json:"control,omitempty"`
	// Unfreeze says when variables begin to train; the zero value means at once.
	Unfreeze Unfreeze `json:"unfreeze,omitzero"`
	// SkipNonFinite leaves weights and slots as they are in an update whose gradients are not all
	// finite, and counts it; else such an update ends the run with an error.
	SkipNonFinite bool `json:"skip_non_finite,omitempty"`
	// Precision is that of the products of matrices while training, [F32] or [BF16]; empty means F32. Dense layers,
	// experts, attention and the products with the vocabulary take it; linear attention, GoMLX's own
	// and adapters' small matrices stay in float32, as do weights, slots, norms, softmax, losses and updates,
	// checkpoints and all evaluations. There is no 16-bit float with a smaller range, which would need loss scaling.
	Precision string `json:"precision,omitempty"`
	// CheckpointBlocks keeps of each block of layers only its input for the gradient, and computes the rest again: less
	// memory for about a second forward pass. Results are the same.
	CheckpointBlocks bool `json:"checkpoint_blocks,omitempty"`
	// Patience ends the run after that many epochs without a better metric; 0 means never.
	Patience int `json:"patience,omitempty"`
	// SaveEvery is the number of updates between checkpoints within an epoch; 0 means none.
	// Each epoch's end is saved always.
	SaveEvery int `json:"save_every,omitempty"`
	// LogEvery is the number of updates between points of the history; 0 means 10.
	LogEvery int `json:"log_every,omitempty"`
	// Adapt is the strategy by which the model adapts: which variables, towards what, from what
	// is known, and when to end. Its objectives are the task's to add. The zero value is plain training.
	Adapt adapt.Strategy `json:"adapt,omitzero"`
	// Seed of data order, fresh weights and dropout.
	Seed uint64 `json:"seed"`
}

func (c Config) withDefaults() Config {
	if c.Epochs == 0 {
		c.Epochs = 1
	}
	if c.Accumulate == 0 {
		c.Accumulate = 1
	}
	if c.LogEvery == 0 {
		c.LogEvery = 10
	}
	c.Adapt = c.Adapt.WithDefaults()
	return c
}

// measuresNoise reports whether a controller wants the norms of micro-batches' gradients.
func (c Config) measuresNoise() bool {
	return slices.ContainsFunc(c.Control, func(c control.Config) bool { return c.Noise != nil })
}

// Validate reports all that is wrong with c.
func (c Config) Validate() error {
	var problems []error
	for _, field := range []struct {
		name  string
		value int
	}{
		{"epochs", c.Epochs}, {"max_updates", c.MaxUpdates}, {"accumulate", c.Accumulate},
		{"patience", c.Patience}, {"save_every", c.SaveEvery}, {"log_every", c.LogEvery},
	} {
		if field.value < 0 {
			problems = append(problems, fmt.Errorf("%s is %d, want 0 or more", field.name, field.value))
		}
	}
	if !(c.ClipNorm >= 0) || math.IsInf(c.ClipNorm, 0) { // JSON has no infinity
		problems = append(problems, fmt.Errorf("clip_norm is %g, want 0 or more, and finite", c.ClipNorm))
	}
	if err := c.Adapt.Validate(); err != nil {
		problems = append(problems, fmt.Errorf("adapt: %w", err))
	}
	if _, err := control.New(c.Control); err != nil {
		problems = append(problems, err)
	}
	if c.Precision != "" && c.Precision != F32 && c.Precision != BF16 {
		problems = append(problems, fmt.Errorf("precision %q is unknown; known: %s, %s", c.Precision, F32, BF16))
	}
	if c.measuresNoise() && c.Accumulate < 2 {
		problems = append(problems, errors.New("control: noise_scale compares the gradients of micro-batches and updates: want accumulate of 2 or more"))
	}
	return errors.Join(append(problems, c.Loss.Validate(), c.Unfreeze.Validate(), c.Optimizer.Validate(), c.Schedule.Validate())...)
}
