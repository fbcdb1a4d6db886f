package batch

import (
	"iter"
	"sync/atomic"

	"github.com/gomlx/gomlx/core/tensors"
	mltrain "github.com/gomlx/gomlx/ml/train"
)

// Tensors is a Dataset as GoMLX's trainer takes it: a train.Dataset.
type Tensors struct {
	dataset *Dataset
	epoch   atomic.Int64
	skip    atomic.Int64
}

var _ mltrain.Dataset = (*Tensors)(nil)

// GoMLX returns the dataset as a train.Dataset of GoMLX. Each call of its Iter
// is one epoch: the given one first, without its first skip batches, then the
// ones after it, whole.
func (d *Dataset) GoMLX(epoch, skip int) *Tensors {
	t := &Tensors{dataset: d}
	t.epoch.Store(int64(epoch))
	t.skip.Store(int64(skip))
	return t
}

// Name implements train.Dataset.
func (t *Tensors) Name() string { return t.dataset.name }

// Iter implements train.Dataset. It returns the next epoch; errors do not occur.
func (t *Tensors) Iter() iter.Seq2[mltrain.Batch, error] {
	epoch, skip := int(t.epoch.Add(1)-1), int(t.skip.Swap(0))
	return func(yield func(mltrain.Batch, error) bool) {
		for b := range t.dataset.EpochFrom(epoch, skip) {
			if !yield(b.GoMLX(), nil) {
				return
			}
		}
	}
}

// GoMLX copies the batch into tensors: inputs are token ids, type ids and mask,
// labels are the targets, or none; each int32 [Size, Length]. The tensors belong
// to the caller.
func (b Batch) GoMLX() mltrain.Batch {
	tensor := func(flat []int32) *tensors.Tensor {
		return tensors.FromFlatDataAndDimensions(flat, b.Size, b.Length)
	}
	out := mltrain.Batch{Inputs: []*tensors.Tensor{tensor(b.IDs), tensor(b.TypeIDs), tensor(b.Mask)}}
	if b.Labels != nil {
		out.Labels = []*tensors.Tensor{tensor(b.Labels)}
	}
	return out
}
