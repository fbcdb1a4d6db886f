package attention

import (
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Former is a [Score] that can be computed block by block, since what it does has a simple
// form. Scores that are neither this nor [Distant] need all keys of a row at once.
type Former interface {
	Form(t *Tile, w elastic.Weights) Form
}

// Form is what a score does to a logit s of query q and key k. Of its fields one is set.
type Form struct {
	// Factor, which broadcasts to [batch, heads, queries, 1]: s ← s · Factor.
	Factor *Node
	// KeyBias, which broadcasts to [batch, heads, 1, keys]: s ← s + KeyBias.
	KeyBias *Node
	// Slope, which broadcasts to [1, heads, 1, 1]: s ← s − Slope · |q − k|, of the positions of query and key.
	Slope *Node
	// Cap: s ← Cap · tanh(s / Cap).
	Cap float64
}

// Distant is a [Score] that adds what depends on head and distance only; it can be computed block
// by block where positions count from 0.
type Distant interface {
	// DistanceBias returns the biases [heads, n] of distances q − k, int32 [n].
	DistanceBias(t *Tile, w elastic.Weights, distance *Node) *Node
}

// Form implements [Former].
func (p Softcap) Form(*Tile, elastic.Weights) Form { return Form{Cap: p.Limit} }

// Form implements [Former].
func (p Temperature) Form(t *Tile, w elastic.Weights) Form {
	if !p.Learned {
		return Form{Factor: ConstAsDType(t.Q.Graph(), t.Q.DType(), [][][][]float64{{{{1 / p.Value}}}})}
	}
	return Form{Factor: Exp(perHead(w.At("log_scale")))}
}

// Form implements [Former].
func (p InputTemperature) Form(t *Tile, w elastic.Weights) Form { return Form{Factor: p.factor(t, w)} }

// Form implements [Former].
func (p TaskTemperature) Form(t *Tile, w elastic.Weights) Form { return Form{Factor: p.factor(t, w)} }

// Form implements [Former].
func (p SSMax) Form(t *Tile, w elastic.Weights) Form { return Form{Factor: p.factor(t, w)} }

// Form implements [Former].
func (p Salience) Form(t *Tile, w elastic.Weights) Form { return Form{KeyBias: p.bias(t, w)} }

// Form implements [Former].
func (a ALiBi) Form(t *Tile, w elastic.Weights) Form { return Form{Slope: perHead(a.slopes(t, w))} }

// DistanceBias implements [Distant].
func (Recency) DistanceBias(t *Tile, w elastic.Weights, distance *Node) *Node {
	return Neg(Mul(InsertAxes(w.At("decay"), -1), InsertAxes(logDistance(t, distance), 0)))
}

// DistanceBias implements [Distant].
func (b T5Bias) DistanceBias(_ *Tile, w elastic.Weights, distance *Node) *Node {
	return TransposeAllDims(Gather(w.At("table"), InsertAxes(b.bucket(Neg(distance)), -1)), 1, 0)
}
