// Package batch pads tokenized examples into batches of a few fixed shapes.
//
// A compiling backend such as XLA compiles a step once for each shape that it
// meets, and that takes seconds; padding every example to the longest one
// wastes most of the work instead. Between the two lie length buckets: a
// handful of lengths, chosen so that as few positions as possible are padding
// ([Lengths]), and every batch has the shape [Size, one of the lengths].
//
//	dataset, err := batch.New("train", examples, batch.Config{Size: 16, Shuffle: true, Seed: 42})
//	…
//	for epoch := range 3 {
//		for b := range dataset.Epoch(epoch) {
//			… // b.IDs, b.Mask and b.Labels are flat [b.Size, b.Length]
//		}
//	}
//
// An epoch visits each example once, in exactly ⌈examples / Size⌉ batches: what
// is left over in the buckets after the full batches is gathered, longest
// first, into shared batches, so that at most one batch of an epoch is filled
// up with rows of padding. Those rows have mask 0 and labels [Ignore]
// throughout, and [Batch.Rows] tells how many rows are real.
//
// With [Config.Shuffle] the examples are permuted by (Seed, epoch), dealt to
// their buckets in that order, and the finished batches are permuted again.
// The companions of an example in its batch are therefore a fresh random draw
// each epoch from the examples of its own bucket: random, except that lengths
// agree roughly, which is the price of little padding. Without Shuffle, the
// examples are sorted by length, longest first, for evaluation; [Batch.Index]
// restores the order of the data.
//
// The same examples, configuration and epoch give the same batches, in any
// process; [Dataset.EpochFrom] continues within an epoch after the batches that
// were already used.
//
// Examples are kept as given, by reference, and batches are padded when they
// are needed, a few in advance, by a goroutine that ends with the loop.
// [Dataset.GoMLX] gives the same batches as tensors, as a dataset of GoMLX.
package batch
