package transformer

import (
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
)

// Loss computes the training loss of an output, a sum over the labels that count and what it is to
// be divided by; see [loss.Criterion], whose zero value is plain cross-entropy. A criterion that
// compares passes takes their outputs: of the same inputs, with different dropout. The losses of all
// exits are joined as Depth.Loss says, and what the parts of the model cost is added, once a label.
func (c Config) Loss(w elastic.Weights, criterion loss.Criterion, labels *Node, drop *dropout.Source, outs ...Output) (sum, count *Node) {
	terms, count := c.Terms(w, criterion, loss.Targets{Labels: labels}, drop, outs...)
	return loss.Total(terms), count
}

// Terms is [Config.Loss] in parts: those of the criterion, see [loss.Criterion.Terms], and behind them what the parts of the
// model cost, if they do. Targets may have more than labels: a teacher, whom all exits follow.
func (c Config) Terms(w elastic.Weights, criterion loss.Criterion, targets loss.Targets, drop *dropout.Source, outs ...Output) (terms []*Node, count *Node) {
	passes := make([][]*Node, len(outs)) // logits of each pass, by exit
	for i, out := range outs {
		passes[i] = c.Exits(w, out, drop)
	}
	exits := len(passes[0])
	weights := []float64{1}
	if exits > 1 {
		weights = c.Depth.exitWeights(exits)
	}
	for i := range exits {
		logits := make([]*Node, len(passes))
		for pass := range passes {
			logits[pass] = passes[pass][i]
		}
		var own []*Node
		own, count = criterion.Terms(targets, logits...)
		if terms == nil {
			terms = make([]*Node, len(own))
		}
		for k, term := range own {
			if weights[i] != 1 {
				term = MulScalar(term, weights[i])
			}
			terms[k] = elastic.AddIf(terms[k], term)
		}
	}
	if penalty := MeanPenalty(outs...); penalty != nil { // the loop divides by the count
		terms = append(terms, Mul(penalty, count))
	}
	return terms, count
}

// MeanPenalty returns the mean of what the parts of a model cost in several passes, a scalar, or nil
// if they cost nothing; see [Output].Penalty.
func MeanPenalty(outs ...Output) *Node {
	var total *Node
	for _, out := range outs {
		total = elastic.AddIf(total, out.Penalty)
	}
	if total == nil || len(outs) == 1 {
		return total
	}
	return MulScalar(total, 1/float64(len(outs)))
}
