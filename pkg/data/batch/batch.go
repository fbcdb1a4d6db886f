package batch

import (
	"errors"
	"fmt"
	"iter"
	"slices"
)

// Ignore is the label of a token that carries no target: special tokens,
// padding, and the second and further subwords of a word.
const Ignore int32 = -100

// Defaults of the fields of [Config] that are zero.
const (
	DefaultSize      = 16
	DefaultMaxShapes = 3
	DefaultMultiple  = 8
	DefaultPrefetch  = 2
)

// Example is one tokenized text. A Dataset keeps the slices; they must not be
// changed while it is in use.
type Example struct {
	IDs     []int32 // token ids, special tokens included
	TypeIDs []int32 // segment of each token; nil means all 0
	Labels  []int32 // target of each token, Ignore for none; nil when unlabelled
}

// Targets counts how often each of so many classes is a label of the examples, [Ignore] left out.
func Targets(examples []Example, classes int) []int {
	counts := make([]int, classes)
	for _, e := range examples {
		for _, y := range e.Labels {
			if y != Ignore {
				counts[y]++
			}
		}
	}
	return counts
}

// Config says how examples are put together. Its zero value is the documented default.
type Config struct {
	Size      int    `json:"size,omitempty"`       // examples a batch; 0 means 16
	Lengths   []int  `json:"lengths,omitempty"`    // lengths of the buckets, ascending; nil means chosen by [Lengths]
	MaxShapes int    `json:"max_shapes,omitempty"` // number of buckets when chosen; 0 means 3
	Multiple  int    `json:"multiple,omitempty"`   // chosen lengths are multiples of it; 0 means 8
	MaxLength int    `json:"max_length,omitempty"` // no bucket is longer, as the positions of a model; 0 means no bound
	Shuffle   bool   `json:"shuffle,omitempty"`    // a new random order each epoch; else sorted by length
	Seed      uint64 `json:"seed,omitempty"`       // seed of the order; used only with Shuffle
	DropLast  bool   `json:"drop_last,omitempty"`  // leave out the batch that would have rows of padding
	PadID     int32  `json:"pad_id,omitempty"`     // token id of padding
	Prefetch  int    `json:"prefetch,omitempty"`   // batches made in advance; 0 means 2, -1 means none and no goroutine
}

// withDefaults replaces zeros by their defaults.
func (c Config) withDefaults() Config {
	if c.Size == 0 {
		c.Size = DefaultSize
	}
	if c.MaxShapes == 0 {
		c.MaxShapes = DefaultMaxShapes
	}
	if c.Multiple == 0 {
		c.Multiple = DefaultMultiple
	}
	if c.Prefetch == 0 {
		c.Prefetch = DefaultPrefetch
	}
	return c
}

// Validate reports every problem of the configuration, each with its field.
func (c Config) Validate() error {
	var errs []error
	report := func(field string, got int) {
		errs = append(errs, fmt.Errorf("%s: got %d, want 0 (the default) or more", field, got))
	}
	for _, f := range []struct {
		name  string
		value int
	}{{"size", c.Size}, {"max_shapes", c.MaxShapes}, {"multiple", c.Multiple}, {"max_length", c.MaxLength}} {
		if f.value < 0 {
			report(f.name, f.value)
		}
	}
	if c.Prefetch < -1 {
		errs = append(errs, fmt.Errorf("prefetch: got %d, want -1 (none), 0 (the default) or more", c.Prefetch))
	}
	for i, length := range c.Lengths {
		if length < 1 || i > 0 && length <= c.Lengths[i-1] {
			errs = append(errs, fmt.Errorf("lengths: got %v, want positive lengths in ascending order", c.Lengths))
			break
		}
	}
	if n := len(c.Lengths); n > 0 && c.MaxLength > 0 && c.Lengths[n-1] > c.MaxLength {
		errs = append(errs, fmt.Errorf("lengths: got %v, want at most max_length, %d", c.Lengths, c.MaxLength))
	}
	return errors.Join(errs...)
}

// Batch is Size examples padded to one Length. Its slices are its own: it may
// be kept after the loop went on.
type Batch struct {
	IDs     []int32 // [Size·Length] token ids, PadID at padding
	TypeIDs []int32 // [Size·Length] segments, 0 at padding
	Mask    []int32 // [Size·Length] 1 at tokens, 0 at padding
	Labels  []int32 // [Size·Length] targets, Ignore at padding; nil when the dataset is unlabelled
	Index   []int   // [Rows] position of each real row's example in the data

	Size    int // rows
	Length  int // columns
	Rows    int // rows that hold an example; they come first
	Tokens  int // positions that hold a token
	Targets int // labels other than Ignore
	Step    int // position of the batch in its epoch, from 0
}

// Dataset is a list of examples and the plan of how to batch them. It is safe
// for concurrent use.
type Dataset struct {
	name     string
	examples []Example
	config   Config
	buckets  []int   // lengths, ascending
	bucketOf []uint8 // bucket of each example
	labelled bool
}

// maxBuckets bounds the number of shapes; more of them is a mistake, since each is compiled.
const maxBuckets = 255

// New checks the examples and chooses the buckets. It returns an error that
// names the example when one is empty or longer than the last bucket, when its
// slices disagree in length, when a token id or label is negative (other than
// [Ignore]), and when only some of the examples have labels.
func New(name string, examples []Example, config Config) (*Dataset, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("dataset %s: config: %w", name, err)
	}
	config = config.withDefaults()
	if len(examples) == 0 {
		return nil, fmt.Errorf("dataset %s: no examples", name)
	}
	lengths := make([]int, len(examples))
	for i, e := range examples {
		if err := e.check(examples[0].Labels != nil); err != nil {
			return nil, fmt.Errorf("dataset %s: example %d: %w", name, i, err)
		}
		lengths[i] = len(e.IDs)
	}
	limit := config.MaxLength
	buckets := slices.Clone(config.Lengths)
	if len(buckets) == 0 {
		buckets = Lengths(lengths, config.MaxShapes, config.Multiple)
		if last := len(buckets) - 1; limit > 0 {
			// Only rounding up can exceed the limit: longer examples are refused below,
			// and the bucket before the last is shorter than the longest example.
			buckets[last] = min(buckets[last], limit)
		}
	}
	if last := buckets[len(buckets)-1]; limit == 0 || limit > last {
		limit = last
	}
	if len(buckets) > maxBuckets {
		return nil, fmt.Errorf("dataset %s: %d bucket lengths, want at most %d (each one is a shape to compile)", name, len(buckets), maxBuckets)
	}
	d := &Dataset{
		name:     name,
		examples: examples,
		config:   config,
		buckets:  buckets,
		bucketOf: make([]uint8, len(examples)),
		labelled: examples[0].Labels != nil,
	}
	for i, length := range lengths {
		if length > limit {
			return nil, fmt.Errorf("dataset %s: example %d has %d tokens, want at most %d (the longest bucket): truncate it, split it into windows, or allow a longer bucket",
				name, i, length, limit)
		}
		b, _ := slices.BinarySearch(buckets, length)
		d.bucketOf[i] = uint8(b)
	}
	return d, nil
}

// check reports what is wrong with an example, taken alone.
func (e Example) check(labelled bool) error {
	switch {
	case len(e.IDs) == 0:
		return errors.New("no tokens")
	case e.TypeIDs != nil && len(e.TypeIDs) != len(e.IDs):
		return fmt.Errorf("%d type ids for %d tokens", len(e.TypeIDs), len(e.IDs))
	case (e.Labels != nil) != labelled:
		return errors.New("either all examples of a dataset have labels, or none: this one differs from example 0")
	case e.Labels != nil && len(e.Labels) != len(e.IDs):
		return fmt.Errorf("%d labels for %d tokens", len(e.Labels), len(e.IDs))
	}
	for i, id := range e.IDs {
		if id < 0 {
			return fmt.Errorf("token %d has id %d, want 0 or more", i, id)
		}
	}
	for i, label := range e.Labels {
		if label < 0 && label != Ignore {
			return fmt.Errorf("token %d has label %d, want 0 or more, or %d for none", i, label, Ignore)
		}
	}
	return nil
}

// Name returns the name that New was given.
func (d *Dataset) Name() string { return d.name }

// Len returns the number of examples.
func (d *Dataset) Len() int { return len(d.examples) }

// Config returns the configuration with its defaults filled in and the lengths that are used.
func (d *Dataset) Config() Config {
	c := d.config
	c.Lengths = slices.Clone(d.buckets)
	return c
}

// Steps returns the number of batches of an epoch: ⌈examples / Size⌉, or
// ⌊examples / Size⌋ with DropLast. It is the same in every epoch.
func (d *Dataset) Steps() int {
	if d.config.DropLast {
		return len(d.examples) / d.config.Size
	}
	return (len(d.examples) + d.config.Size - 1) / d.config.Size
}

// Epoch returns the batches of one epoch; see [Dataset.EpochFrom].
func (d *Dataset) Epoch(epoch int) iter.Seq[Batch] { return d.EpochFrom(epoch, 0) }

// EpochFrom returns the batches of one epoch without its first skip ones, which
// cost nothing: after training was stopped behind a batch b, EpochFrom(epoch,
// b.Step+1) yields exactly the batches that had been to come. Without Shuffle
// all epochs are alike. A negative skip counts as 0, and one of [Dataset.Steps]
// or more yields nothing.
func (d *Dataset) EpochFrom(epoch, skip int) iter.Seq[Batch] {
	return func(yield func(Batch) bool) {
		p := d.plan(epoch)
		made := func(yield func(Batch) bool) {
			for step := max(skip, 0); step < len(p.batches); step++ {
				if !yield(d.pad(p, step)) {
					return
				}
			}
		}
		prefetch(made, d.config.Prefetch)(yield)
	}
}

// pad makes batch number step of the plan.
func (d *Dataset) pad(p plan, step int) Batch {
	rows, length := p.batches[step].rows, d.buckets[p.batches[step].bucket]
	n := d.config.Size * length
	b := Batch{
		IDs:     make([]int32, n),
		TypeIDs: make([]int32, n),
		Mask:    make([]int32, n),
		Index:   make([]int, len(rows)),
		Size:    d.config.Size,
		Length:  length,
		Rows:    len(rows),
		Step:    step,
	}
	if d.config.PadID != 0 {
		fill(b.IDs, d.config.PadID)
	}
	if d.labelled {
		b.Labels = make([]int32, n)
		fill(b.Labels, Ignore)
	}
	for row, i := range rows {
		e, at := d.examples[i], row*length
		copy(b.IDs[at:], e.IDs)
		copy(b.TypeIDs[at:], e.TypeIDs)
		fill(b.Mask[at:at+len(e.IDs)], 1)
		if d.labelled {
			copy(b.Labels[at:], e.Labels)
			for _, label := range e.Labels {
				if label != Ignore {
					b.Targets++
				}
			}
		}
		b.Index[row] = int(i)
		b.Tokens += len(e.IDs)
	}
	return b
}

func fill(s []int32, value int32) {
	for i := range s {
		s[i] = value
	}
}
