package loss

import (
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
)

// Penalty adds to the mean loss what variables cost:
//
//	L1·Σ|w| + ½·L2·Σw²
//
// Its gradient goes through the optimizer, with its momenta and scales. It is not the decoupled
// decay of [AdamW], which moves weights beside them; the transform l2 of package optim adds the
// gradient of the second term without showing it in the loss. At w = 0 the gradient of |w| is 0.
//
// Source: Tibshirani 1996, "Regression shrinkage and selection via the lasso"; Loshchilov, Hutter
// 2019, "Decoupled weight decay regularization", on the difference.
//
// [AdamW]: https://pkg.go.dev/github.com/elastic-attention/workbench/pkg/elastic/optim#AdamW
type Penalty struct {
	// Variables are patterns of paths, in which * stands for any text.
	Variables []string `json:"variables"`
	L1        float64  `json:"l1,omitempty"`
	L2        float64  `json:"l2,omitempty"`
}

// Of computes the penalty of those of the variables that match, a float32 scalar. A pattern that
// matches none is an error, for [Config.Check] to report: here it panics.
func (p Penalty) Of(w elastic.Weights, variables []elastic.Variable) *Node {
	chosen, err := adapt.Select(variables, p.Variables)
	if err != nil {
		panic(err)
	}
	var total *Node
	for _, v := range chosen {
		x := w.At(v.Path[1:]) // from the root
		if p.L1 != 0 {
			total = elastic.AddIf(total, MulScalar(elastic.SumAll(Mul(x, Sign(x))), p.L1))
		}
		if p.L2 != 0 {
			total = elastic.AddIf(total, MulScalar(elastic.SumAll(Square(x)), p.L2/2))
		}
	}
	return total
}
