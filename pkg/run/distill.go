package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/gomlx/gomlx/core/tensors"
	mltrain "github.com/gomlx/gomlx/ml/train"

	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/data/tokenizer"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
)

// Distill makes a model follow a teacher, a trained model of the same task, beside the labels; see
// [loss.Criterion]. The zero value has no teacher.
type Distill struct {
	// Teacher is the folder of a finished run, or of a model. It must have the labels and the tokenizer of the
	// model that is trained, its student.
	Teacher string `json:"teacher,omitempty"`
	// Temperature softens what both predict; 0 means 2.
	Temperature float64 `json:"temperature,omitempty"`
	// Alpha is the teacher's share of the loss, the labels have the rest; 0 means 0.5, and 1 that labels do not count.
	Alpha float64 `json:"alpha,omitempty"`
	// Weigh learns the weights of the labels' loss and the teacher's in place of a fixed Alpha.
	Weigh loss.Weighing `json:"weigh,omitzero"`
}

// Validate reports all that is wrong with d.
func (d Distill) Validate() error {
	var problems []error
	if d.Teacher == "" && d != (Distill{}) {
		problems = append(problems, errors.New("distill has a temperature, an alpha or a weighing, but no teacher"))
	}
	if !(d.Temperature >= 0 && d.Temperature < 1e6) {
		problems = append(problems, fmt.Errorf("distill.temperature is %g, want more than 0, or 0 for 2", d.Temperature))
	}
	if !(d.Alpha >= 0 && d.Alpha <= 1) {
		problems = append(problems, fmt.Errorf("distill.alpha is %g, want 0 < α ≤ 1, or 0 for 0.5", d.Alpha))
	}
	if d.Alpha != 0 && d.Weigh != (loss.Weighing{}) {
		problems = append(problems, errors.New("distill.alpha and distill.weigh exclude each other: the one fixes the teacher's share of the loss, the other learns it"))
	}
	if err := d.Weigh.Validate(); err != nil {
		problems = append(problems, fmt.Errorf("distill: %w", err))
	}
	return errors.Join(problems...)
}

// Criterion adds the teacher to a loss.
func (d Distill) Criterion(c loss.Criterion) (loss.Criterion, error) {
	if d.Teacher == "" {
		return c, nil
	}
	if c.Mixup != 0 {
		return c, errors.New("distill and loss.mixup exclude each other: a teacher does not see mixed texts")
	}
	c.Follow, c.Temperature, c.Apart = d.Alpha, d.Temperature, d.Weigh.Kind != ""
	if c.Follow == 0 {
		c.Follow = 0.5
	}
	if c.Temperature == 0 {
		c.Temperature = 2
	}
	return c, nil
}

// Note adds the checksums of the teacher to those of the data that a model learns from: so the record has them, and a run is
// not resumed with a teacher that has changed.
func (d Distill) Note(sums map[string]string) error {
	if d.Teacher == "" {
		return nil
	}
	dir, err := d.folder()
	if err != nil {
		return err
	}
	own, err := checksums(dir)
	for file, sum := range own {
		sums["teacher/"+file] = sum
	}
	return err
}

// folder is that of the teacher's model.
func (d Distill) folder() (string, error) {
	dir, _, err := FindModel(d.Teacher)
	if unknown := (*NameError)(nil); err != nil && !errors.As(err, &unknown) {
		return "", fmt.Errorf("distill.teacher: %w", err)
	}
	if err != nil || dir == "" {
		return "", fmt.Errorf("distill.teacher %q is no folder: want that of a finished run, or of a model", d.Teacher)
	}
	return dir, nil
}

// Pupil is what a teacher and its student must have in common, and how many tokens they can see.
type Pupil struct {
	Labels    []string
	Tokenizer *tokenizer.Tokenizer
	MaxLength int
}

// Soft are the logits of a teacher for the examples of a student.
type Soft struct {
	classes int
	rows    [][]float32 // by example, flat [tokens, classes] or [classes]
}

// Teach has the teacher that d names compute its logits for the examples of a student, once for all epochs; nil if there is
// none. Load reads the teacher from the folder of its model, and returns what computes a batch, flat
// [size, classes], or [size, length, classes] if each token has logits.
func (d Distill) Teach(ctx context.Context, student Pupil, examples []batch.Example, load func(dir string) (Pupil, func(context.Context, batch.Batch) ([]float32, error), error)) (*Soft, error) {
	if d.Teacher == "" {
		return nil, nil
	}
	dir, err := d.folder()
	if err != nil {
		return nil, err
	}
	teacher, compute, err := load(dir)
	if err != nil {
		return nil, fmt.Errorf("distill.teacher: %w", err)
	}
	longest := 0
	plain := make([]batch.Example, len(examples))
	for i, e := range examples {
		longest = max(longest, len(e.IDs))
		plain[i] = batch.Example{IDs: e.IDs, TypeIDs: e.TypeIDs}
	}
	switch {
	case !slices.Equal(teacher.Labels, student.Labels):
		return nil, fmt.Errorf("distill.teacher: %s predicts the labels %q, its student %q: they must be the same, in one order", d.Teacher, teacher.Labels, student.Labels)
	case !bytes.Equal(teacher.Tokenizer.Raw(), student.Tokenizer.Raw()):
		return nil, fmt.Errorf("distill.teacher: %s has another tokenizer than its student: begin both with models of one vocabulary", d.Teacher)
	case longest > teacher.MaxLength:
		return nil, fmt.Errorf("distill.teacher: an example has %d tokens, and %s sees at most %d: give a smaller max_length", longest, d.Teacher, teacher.MaxLength)
	}
	data, err := batch.New("teacher", plain, batch.Config{MaxLength: teacher.MaxLength, PadID: int32(teacher.Tokenizer.PadID())})
	if err != nil {
		return nil, err
	}
	soft := &Soft{classes: len(teacher.Labels), rows: make([][]float32, len(examples))}
	for b := range data.Epoch(0) {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("the teacher was stopped: %w", context.Cause(ctx))
		}
		logits, err := compute(ctx, b)
		if err != nil {
			return nil, fmt.Errorf("distill.teacher: %w", err)
		}
		each := len(logits) / b.Size
		for row, example := range b.Index {
			some := logits[row*each : (row+1)*each]
			soft.rows[example] = slices.Clone(some[:min(each, len(examples[example].IDs)*soft.classes)])
		}
	}
	return soft, nil
}

// Texts copies a batch into tensors as [batch.PackedBatch.Texts] does, and adds the logits of its texts as the last
// input, float32 [Size, classes]; 0 for one that is not there. A nil s adds none.
func (s *Soft) Texts(b batch.PackedBatch) mltrain.Batch {
	out := b.Texts()
	if s != nil {
		flat := make([]float32, len(b.Starts)*s.classes)
		for i, example := range b.Index {
			copy(flat[i*s.classes:], s.rows[example][:s.classes])
		}
		out.Inputs = append(out.Inputs, tensors.FromFlatDataAndDimensions(flat, len(b.Starts), s.classes))
	}
	return out
}

// Tokens copies a batch into tensors as [batch.PackedBatch.GoMLX] does, and adds the logits of its tokens as the last
// input, float32 [Rows, Length, classes]; 0 at padding. A nil s adds none.
func (s *Soft) Tokens(b batch.PackedBatch) mltrain.Batch {
	out := b.GoMLX()
	if s != nil {
		flat := make([]float32, b.Rows*b.Length*s.classes)
		for i, example := range b.Index {
			copy(flat[int(b.Starts[i])*s.classes:], s.rows[example])
		}
		out.Inputs = append(out.Inputs, tensors.FromFlatDataAndDimensions(flat, b.Rows, b.Length, s.classes))
	}
	return out
}

// Packed gives packed batches to the training loop.
type Packed struct {
	*batch.Packed
	// Tensors copies a batch into tensors.
	Tensors func(batch.PackedBatch) mltrain.Batch
}

// Batches implements [train.Data].
func (p Packed) Batches(epoch, skip int) iter.Seq2[mltrain.Batch, error] {
	return func(yield func(mltrain.Batch, error) bool) {
		for b := range p.EpochFrom(epoch, skip) {
			if !yield(p.Tensors(b), nil) {
				return
			}
		}
	}
}
