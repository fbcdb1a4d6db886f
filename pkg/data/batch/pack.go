package batch

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"

	"github.com/gomlx/gomlx/core/tensors"
	mltrain "github.com/gomlx/gomlx/ml/train"
)

// PackConfig says how examples are packed. Its zero value is the documented default,
// but for Length and Epochs, which must be given.
type PackConfig struct {
	Size      int    `json:"size,omitempty"`       // examples a batch; 0 means 16
	Length    int    `json:"length"`               // tokens a row, the longest that an example may be
	Epochs    int    `json:"epochs"`               // epochs that will be visited
	MaxShapes int    `json:"max_shapes,omitempty"` // different numbers of rows; 0 means 3
	Seed      uint64 `json:"seed,omitempty"`       // seed of the order
	PadID     int32  `json:"pad_id,omitempty"`     // token id of padding
	Apart     bool   `json:"apart,omitempty"`      // each example has a row of its own
	Prefetch  int    `json:"prefetch,omitempty"`   // batches made in advance; 0 means 2, -1 means none and no goroutine
}

// Packed is a list of examples that are packed into rows, several to a row. It is safe
// for concurrent use.
//
// A batch is Size examples, drawn at random, as if each had a row of its own; so its
// gradient is that of an ordinary random batch. (Grouping examples by length saves
// padding too, but a batch is then no random draw any more.) Its rows are filled by
// first fit, longest example first, and their number is rounded up to one of MaxShapes
// numbers, which are chosen so that the epochs have the fewest rows in all. The model must
// keep the examples of a row apart: see [PackedBatch].
type Packed struct {
	name     string
	examples []Example
	config   PackConfig
	rows     []int // numbers of rows, ascending
}

// PackedBatch is Size examples in Rows rows of Length tokens. Its slices are its own: it
// may be kept after the loop went on.
type PackedBatch struct {
	IDs       []int32 // [Rows·Length] token ids, PadID at padding
	TypeIDs   []int32 // [Rows·Length] segments, 0 at padding
	Documents []int32 // [Rows·Length] 1, 2, … for the examples of a row, 0 at padding: attention stays inside one number
	Positions []int32 // [Rows·Length] position in the example, from 0; 0 at padding
	Labels    []int32 // [Rows·Length] targets, Ignore at padding

	Starts  []int32 // [Size] where each example begins, counted over all rows; 0 for one that is not there
	Lengths []int32 // [Size] tokens of each example; 0 for one that is not there, as in an epoch's last batch
	Index   []int   // which of the examples they are, as many as there are

	Rows    int
	Length  int
	Tokens  int // positions that hold a token
	Targets int // labels other than Ignore
	Step    int // position of the batch in its epoch, from 0
}

// Pack checks labelled examples and plans the epochs. An error names the example that is
// empty, longer than a row, unlabelled, or otherwise wrong.
func Pack(name string, examples []Example, config PackConfig) (*Packed, error) {
	if config.Size == 0 {
		config.Size = DefaultSize
	}
	if config.MaxShapes == 0 {
		config.MaxShapes = DefaultMaxShapes
	}
	if config.Prefetch == 0 {
		config.Prefetch = DefaultPrefetch
	}
	var errs []error
	for _, field := range []struct {
		name  string
		value int
	}{{"size", config.Size}, {"length", config.Length}, {"epochs", config.Epochs}, {"max_shapes", config.MaxShapes}} {
		if field.value < 1 {
			errs = append(errs, fmt.Errorf("%s: got %d, want 1 or more", field.name, field.value))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("dataset %s: config: %w", name, err)
	}
	if len(examples) == 0 {
		return nil, fmt.Errorf("dataset %s: no examples", name)
	}
	for i, e := range examples {
		if e.Labels == nil {
			return nil, fmt.Errorf("dataset %s: example %d has no labels", name, i)
		}
		if err := e.check(true); err != nil {
			return nil, fmt.Errorf("dataset %s: example %d: %w", name, i, err)
		}
		if len(e.IDs) > config.Length {
			return nil, fmt.Errorf("dataset %s: example %d has %d tokens, want at most %d", name, i, len(e.IDs), config.Length)
		}
	}
	d := &Packed{name: name, examples: examples, config: config}
	var counts []int
	for epoch := range config.Epochs {
		order := d.order(epoch)
		for step := range d.Steps() {
			counts = append(counts, len(d.fit(d.draw(order, step))))
		}
	}
	d.rows = Lengths(counts, config.MaxShapes, 1)
	return d, nil
}

// Name returns the name that [Pack] was given.
func (d *Packed) Name() string { return d.name }

// Steps returns the number of batches of an epoch, ⌈examples / Size⌉.
func (d *Packed) Steps() int { return (len(d.examples) + d.config.Size - 1) / d.config.Size }

// order returns the examples of an epoch in their random order.
func (d *Packed) order(epoch int) []int32 {
	order := make([]int32, len(d.examples))
	for i := range order {
		order[i] = int32(i)
	}
	shuffle(rand.NewPCG(d.config.Seed, uint64(epoch)), order)
	return order
}

// draw returns the examples of a batch, longest first.
func (d *Packed) draw(order []int32, step int) []int32 {
	drawn := slices.Clone(order[step*d.config.Size : min((step+1)*d.config.Size, len(order))])
	slices.SortStableFunc(drawn, func(a, b int32) int { return cmp.Compare(len(d.examples[b].IDs), len(d.examples[a].IDs)) })
	return drawn
}

// fit puts examples into rows, each into the first that has room.
func (d *Packed) fit(drawn []int32) [][]int32 {
	var rows [][]int32
	var room []int
	for _, i := range drawn {
		size := len(d.examples[i].IDs)
		at := slices.IndexFunc(room, func(free int) bool { return free >= size })
		if at < 0 || d.config.Apart {
			at = len(rows)
			rows, room = append(rows, nil), append(room, d.config.Length)
		}
		rows[at] = append(rows[at], i)
		room[at] -= size
	}
	return rows
}

// EpochFrom returns the batches of one epoch without its first skip ones. The epoch must
// be one of the planned.
func (d *Packed) EpochFrom(epoch, skip int) iter.Seq[PackedBatch] {
	return prefetch(func(yield func(PackedBatch) bool) {
		order := d.order(epoch)
		for step := max(skip, 0); step < d.Steps(); step++ {
			if !yield(d.lay(d.draw(order, step), step)) {
				return
			}
		}
	}, d.config.Prefetch)
}

// lay makes a batch.
func (d *Packed) lay(drawn []int32, step int) PackedBatch {
	rows := d.fit(drawn)
	count := d.rows[len(d.rows)-1]
	for _, candidate := range slices.Backward(d.rows) {
		if candidate >= len(rows) {
			count = candidate
		}
	}
	n := count * d.config.Length
	b := PackedBatch{
		IDs: make([]int32, n), TypeIDs: make([]int32, n), Documents: make([]int32, n), Positions: make([]int32, n), Labels: make([]int32, n),
		Starts: make([]int32, d.config.Size), Lengths: make([]int32, d.config.Size),
		Rows: count, Length: d.config.Length, Step: step,
	}
	text := 0
	fill(b.IDs, d.config.PadID)
	fill(b.Labels, Ignore)
	for row, members := range rows {
		at := row * d.config.Length
		for number, i := range members {
			e := d.examples[i]
			copy(b.IDs[at:], e.IDs)
			copy(b.TypeIDs[at:], e.TypeIDs)
			copy(b.Labels[at:], e.Labels)
			b.Starts[text], b.Lengths[text] = int32(at), int32(len(e.IDs))
			b.Index = append(b.Index, int(i))
			text++
			for position := range e.IDs {
				b.Documents[at+position] = int32(number + 1)
				b.Positions[at+position] = int32(position)
				if e.Labels[position] != Ignore {
					b.Targets++
				}
			}
			at += len(e.IDs)
			b.Tokens += len(e.IDs)
		}
	}
	return b
}

// Stats counts epoch 0.
func (d *Packed) Stats() Stats {
	s := Stats{Examples: len(d.examples), Batches: d.Steps(), Shapes: len(d.rows)}
	for b := range d.EpochFrom(0, 0) {
		s.Tokens += b.Tokens
		s.Positions += b.Rows * b.Length
	}
	s.Padding = 1 - float64(s.Tokens)/float64(s.Positions)
	return s
}

// GoMLX copies the batch into tensors: inputs are token ids, type ids, documents and
// positions, labels are the targets; each int32 [Rows, Length]. The tensors belong to the
// caller.
func (b PackedBatch) GoMLX() mltrain.Batch {
	tensor := func(flat []int32) *tensors.Tensor { return tensors.FromFlatDataAndDimensions(flat, b.Rows, b.Length) }
	return mltrain.Batch{
		Inputs: []*tensors.Tensor{tensor(b.IDs), tensor(b.TypeIDs), tensor(b.Documents), tensor(b.Positions)},
		Labels: []*tensors.Tensor{tensor(b.Labels)},
	}
}

// Texts copies the batch into tensors for a task with one target an example, the label of its
// first token: inputs are those of [PackedBatch.GoMLX] and then starts and lengths, int32
// [Size]; labels are the targets, int32 [Size], Ignore for an example that is not there. The
// tensors belong to the caller.
func (b PackedBatch) Texts() mltrain.Batch {
	targets := make([]int32, len(b.Starts))
	for i, start := range b.Starts {
		targets[i] = Ignore
		if b.Lengths[i] > 0 {
			targets[i] = b.Labels[start]
		}
	}
	tensor := func(flat []int32) *tensors.Tensor { return tensors.FromFlatDataAndDimensions(flat, len(flat)) }
	out := b.GoMLX()
	out.Labels[0].MustFinalizeAll()
	out.Inputs = append(out.Inputs, tensor(b.Starts), tensor(b.Lengths))
	out.Labels = []*tensors.Tensor{tensor(targets)}
	return out
}
