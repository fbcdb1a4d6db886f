package attention

import (
	"errors"
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"
	gomlx "github.com/gomlx/gomlx/ml/layers/attention"
)

// refuseCore takes only what GoMLX computes with all gradients: its fused kernel drops those of a
// bias in silence, so parts that add to logits are refused.
func refuseCore(j job) error {
	if _, ok := j.spec.normalizer().(PlainSoftmax); !ok {
		return fmt.Errorf("normalizer %q is not \"softmax\"", j.spec.normalizer().Kind())
	}
	for _, score := range j.spec.Scores {
		if _, ok := score.(Softcap); !ok || len(j.spec.Scores) > 1 {
			return fmt.Errorf("of scores it knows only \"softcap\", by itself, not %q", score.Kind())
		}
	}
	switch {
	case len(j.spec.Positions) > 0:
		return fmt.Errorf("%q adds to logits, and its gradient could be lost", j.spec.Positions[0].Kind())
	case j.spec.Span != nil:
		return errors.New("it does not know \"span\"")
	case j.drops():
		return errors.New("dropout here has its own source of randomness")
	}
	return nil
}

func runCore(j job) (y, logSum *Node) {
	options := gomlx.CoreOptions{Scale: j.spec.scale(j.sizes)}
	if len(j.spec.Scores) > 0 {
		options.ScoreSoftCap = j.spec.Scores[0].(Softcap).Limit
	}
	_, causal := j.spec.mask().(Causal)
	if causal && j.regular && j.in.Mask == nil && j.queries() == j.keys() {
		options.UseCausalMask = true
	} else if mask := j.tile().Allowed; mask != nil {
		options.AttentionMask = TransposeAllDims(mask, 0, 2, 1, 3) // [b, q, h, k]
	}
	y, _ = gomlx.Core(j.q, j.k, j.v, gomlx.LayoutBSHD, options)
	return y, nil
}
