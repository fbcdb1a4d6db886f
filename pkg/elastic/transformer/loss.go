package transformer

import (
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
)

// Loss computes the training loss of an output, a sum over the labels that count and their
// number; see [loss.CrossEntropy]. It joins the losses of all exits as Depth.Loss says, and
// adds what the parts of the model cost, once a label.
func (c Config) Loss(w elastic.Weights, out Output, labels *Node, drop *dropout.Source) (sum, count *Node) {
	exits := c.Exits(w, out, drop)
	weights := []float64{1}
	if len(exits) > 1 {
		weights = c.Depth.exitWeights(len(exits))
	}
	for i, logits := range exits {
		var one *Node
		one, count = loss.CrossEntropy(logits, labels)
		if weights[i] != 1 {
			one = MulScalar(one, weights[i])
		}
		sum = elastic.AddIf(sum, one)
	}
	if out.Penalty != nil { // the loop divides by the count
		sum = Add(sum, Mul(out.Penalty, count))
	}
	return sum, count
}
