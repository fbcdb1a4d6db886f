package attention

import (
	"maps"
	"slices"

	. "github.com/gomlx/gomlx/core/graph"
)

// normalizers maps the kinds that a Spec may name to their functions. Each takes
// logits [batch, heads, queries, keys] and a boolean mask of the same shape, or nil,
// and returns weights of that shape: zero where the mask is false, and all zero in a
// row that is masked entirely.
var normalizers = map[string]func(logits, mask *Node) *Node{
	"softmax": softmax,
}

// Normalizers lists the known kinds, sorted.
func Normalizers() []string { return slices.Sorted(maps.Keys(normalizers)) }

// softmax normalises the last axis:
//
//	aᵢ = exp(sᵢ − max s) / Σⱼ exp(sⱼ − max s), over the i and j that the mask allows
//
// A row in which the mask allows nothing gives zeros and zero gradients. The maximum
// carries no gradient: it cancels, and GoMLX would give the full gradient to every
// element of a tie.
func softmax(logits, mask *Node) *Node {
	if mask == nil {
		maximum := StopGradient(ReduceAndKeep(logits, ReduceMax, -1))
		e := Exp(Sub(logits, maximum))
		return Mul(e, Reciprocal(ReduceAndKeep(e, ReduceSum, -1)))
	}
	// A finite floor, not −Inf: a row without any allowed key would give NaN gradients.
	// Beside an allowed logit, exp takes it to exactly 0.
	const floor = -1e30
	masked := Where(mask, logits, FillScalar(logits.Graph(), logits.Shape(), floor))
	maximum := StopGradient(ReduceAndKeep(masked, ReduceMax, -1)) // [..., 1]
	e := Exp(Sub(masked, maximum))
	scale := Reciprocal(ReduceAndKeep(e, ReduceSum, -1))
	anything := GreaterThan(maximum, FillScalar(logits.Graph(), maximum.Shape(), floor))
	return Mul(e, Where(anything, scale, ZerosLike(scale)))
}
