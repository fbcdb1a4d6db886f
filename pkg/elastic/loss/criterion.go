package loss

import (
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Criterion is the loss of a [Config] over the classes of a task. The zero value is plain
// cross-entropy.
type Criterion struct {
	Classes
	// RDrop is the weight α of R-Drop, which wants two passes over the same inputs that drop
	// different elements. Each target's loss is then, with the predictions p and q of the passes,
	//
	//	½·(loss(p) + loss(q)) + α·½·(KL(p‖q) + KL(q‖p))
	//
	// where the divergence has the target's class weight. 0 means one pass.
	//
	// Source: Liang et al. 2021, "R-Drop: regularized dropout for neural networks", with the mean of
	// the two losses as in the authors' program; the paper's equation 3 has their sum.
	RDrop float64
	// Mixup is the α of Beta(α, α), from which the shares of [NewMixture] are drawn; 0 means none.
	Mixup float64
	// Follow is the share α of what a teacher says, at temperature T, in the loss of targets that have
	// one: with the teacher's logits t, the logits z and a target's weight w, its loss is
	//
	//	(1−α)·loss + α·w·T²·KL(softmax(t/T) ‖ softmax(z/T))
	//
	// where loss is all of the above; see [Distill]. Mixed examples have no teacher.
	//
	// Source: Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network", section 2.
	Follow, Temperature float64
	// Apart makes two terms of what labels and a teacher say, of which neither has a share: with them
	// [Criterion.Terms] is weighed by who calls it, and Follow is not used; see [Weighing].
	Apart bool
}

// Passes returns how many passes over the same inputs, with different dropout, the loss compares.
func (c Criterion) Passes() int {
	if c.RDrop != 0 {
		return 2
	}
	return 1
}

// Targets is what logits are compared with.
type Targets struct {
	Labels  *Node    // int32 [...], each [Ignored] or in [0, classes)
	Mixture *Mixture // of the examples, the first axis of Labels; nil if they are not mixed
	Teacher *Node    // logits of a teacher, [..., classes]; nil for none
}

// Loss computes the summed loss of as many passes as [Criterion.Passes] says, logits [..., classes]
// each, and what it is to be divided by, both float32 scalars.
func (c Criterion) Loss(t Targets, passes ...*Node) (sum, count *Node) {
	terms, count := c.Terms(t, passes...)
	return Total(terms), count
}

// TermNames names the terms of a criterion that keeps them [Criterion.Apart], in their order.
func (Criterion) TermNames() []string { return []string{"labels", "teacher"} }

// Total adds terms of a loss up.
func Total(terms []*Node) *Node {
	var sum *Node
	for _, term := range terms {
		sum = elastic.AddIf(sum, term)
	}
	return sum
}

// Terms is [Criterion.Loss] in parts, float32 scalars: one, or two if they are kept [Criterion.Apart].
func (c Criterion) Terms(t Targets, passes ...*Node) (terms []*Node, count *Node) {
	if len(passes) != c.Passes() {
		exceptions.Panicf("the loss compares %d passes, got the logits of %d", c.Passes(), len(passes))
	}
	if t.Teacher != nil && t.Mixture != nil {
		exceptions.Panicf("a teacher has no logits of mixed examples")
	}
	if c.Apart && t.Teacher == nil {
		exceptions.Panicf("the teacher's loss is a term of its own, but there are no logits of a teacher")
	}
	mixed := make([]*Node, len(passes))
	var losses, weights *Node // [...]
	for i, logits := range passes {
		mixed[i] = t.Mixture.Mix(logits)
		var one *Node
		one, weights = c.each(mixed[i], t.Labels)
		if t.Mixture != nil {
			partners, partnersWeights := c.each(mixed[i], t.Mixture.Partners(t.Labels))
			one, weights = t.Mixture.join(one, partners), t.Mixture.join(weights, partnersWeights)
		}
		if losses == nil {
			losses = one
		} else {
			losses = MulScalar(Add(losses, one), 0.5)
		}
	}
	if c.RDrop != 0 {
		losses = Add(losses, MulScalar(Mul(weights, divergence(mixed[0], mixed[1])), c.RDrop))
	}
	if t.Teacher != nil {
		share := c.Follow
		if c.Apart {
			terms, losses, share = []*Node{ReduceAllSum(losses)}, nil, 1
		} else {
			losses = MulScalar(losses, 1-c.Follow)
		}
		for _, logits := range passes {
			soft := Mul(weights, distance(logits, t.Teacher, c.Temperature))
			losses = elastic.AddIf(losses, MulScalar(soft, share/float64(len(passes))))
		}
	}
	return append(terms, ReduceAllSum(losses)), ReduceAllSum(weights)
}

// divergence computes ½·(KL(p‖q) + KL(q‖p)) = ½·Σ (p−q)·(log p − log q) over the last axis of two
// logits.
func divergence(a, b *Node) *Node {
	a, b = logSoftmax(a), logSoftmax(b)
	return MulScalar(ReduceSum(Mul(Sub(Exp(a), Exp(b)), Sub(a, b)), -1), 0.5)
}
