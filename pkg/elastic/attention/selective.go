package attention

import (
	"errors"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Selective lets tokens mark earlier ones as no longer needed. The positive logits of head
// 0 are votes; what has been voted against by earlier queries is inhibited for all heads:
//
//	S = relu(s of head 0), 0 on the diagonal, at the first key, and where not allowed
//	s[q, k] ← s[q, k] − Σ_{q' < q} S[q', k]
//
// It needs a causal mask and all rows at once. Source: Leviathan et al. 2025, "Selective
// attention improves transformer".
type Selective struct{ plain }

// Kind returns "selective".
func (Selective) Kind() string { return "selective" }

// Needs checks that later keys are masked.
func (Selective) Needs(s Spec) error { return needsCausal(s) }

// NeedsAllRows implements [AllRows].
func (Selective) NeedsAllRows() {}

// Score implements [Score].
func (p Selective) Score(t *Tile, _ elastic.Weights, logits *Node) *Node {
	d := logits.Shape().Dimensions
	if d[2] != d[3] {
		exceptions.Panicf("attention part %q needs as many queries as keys, got logits %s", p.Kind(), logits.Shape())
	}
	g := logits.Graph()
	votes := Slice(logits, AxisRange(), AxisRange(0, 1)) // [b, 1, q, k]
	votes = Max(votes, ZerosLike(votes))
	matrix := shapes.Make(dtypes.Int32, 1, 1, d[2], d[3])
	row, column := Iota(g, matrix, 2), Iota(g, matrix, 3)
	counts := LogicalAnd(NotEqual(row, column), NotEqual(column, ZerosLike(column)))
	counts = LogicalAnd(BroadcastToDims(counts, votes.Shape().Dimensions...), Slice(t.Allowed, AxisRange(), AxisRange(0, 1)))
	votes = Where(counts, votes, ZerosLike(votes))
	return Sub(logits, before(votes))
}

// before returns, for each query, the sum over the earlier ones: [.., q, k] → [.., q, k].
func before(n *Node) *Node { return Sub(CumSum(n, 2), n) }

// needsCausal reports a spec whose mask does not hide later keys.
func needsCausal(s Spec) error {
	if _, ahead := reach(s.mask()); ahead > 0 {
		return errors.New("needs a mask that hides later keys, such as \"causal\" or \"window\"")
	}
	return nil
}
