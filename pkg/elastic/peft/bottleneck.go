package peft

import (
	"math"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
)

// bottleneck adds a small network of its own behind a layer:
//
//	y = h + U·gelu(D·LayerNorm(h) + d) + u,   h = W·x + b
//
// U begins near 0, so that y begins as h. Dropout of the model is applied to y. Houlsby et
// al. put one behind each of a block's two parts, Pfeiffer et al. one behind the second.
//
// Source: Houlsby et al. 2019, "Parameter-efficient transfer learning for NLP", section 2;
// Pfeiffer et al. 2021, "AdapterFusion: Non-destructive task composition for transfer learning".
type bottleneck struct{}

// normEpsilon of the adapter's own layer normalisation.
const normEpsilon = 1e-5

func (bottleneck) variables(c Config, l layer) []elastic.Variable {
	list := elastic.Under("norm", elastic.NormVariables(l.outputs))
	list = append(list, elastic.Under("down", elastic.DenseVariables(l.outputs, c.Width, 1/math.Sqrt(float64(l.outputs))))...)
	return append(list, elastic.Under("up", elastic.DenseVariables(c.Width, l.outputs, 1e-3))...)
}

func (bottleneck) dense(_ Config, _ layer, own, _ elastic.Weights, x *Node, base func(x *Node) *Node, _ *dropout.Source) *Node {
	h := base(x)
	inner := elastic.Dense(own.In("down"), elastic.LayerNorm(own.In("norm"), h, normEpsilon)) // [..., width]
	inner = Mul(MulScalar(inner, 0.5), OnePlus(Erf(MulScalar(inner, 1/math.Sqrt2))))          // gelu
	return Add(h, elastic.Dense(own.In("up"), inner))
}
