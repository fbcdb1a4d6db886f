package attention

import (
	"errors"
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"
	gomlx "github.com/gomlx/gomlx/ml/layers/attention"
)

// coreSpec takes only what GoMLX computes with all gradients: its fused kernel drops those of a
// bias in silence, so parts that add to logits are refused.
func coreSpec(s Spec) error {
	if _, ok := s.normalizer().(PlainSoftmax); !ok {
		return fmt.Errorf("normalizer %q is not \"softmax\"", s.normalizer().Kind())
	}
	for _, score := range s.Scores {
		if _, ok := score.(Softcap); !ok || len(s.Scores) > 1 {
			return fmt.Errorf("of scores it knows only \"softcap\", by itself, not %q", score.Kind())
		}
	}
	if len(s.Positions) > 0 {
		return fmt.Errorf("%q adds to logits, and its gradient could be lost", s.Positions[0].Kind())
	}
	if s.Span != nil {
		return errors.New("it does not know \"span\"")
	}
	return nil
}

func runCore(j job) (y, logSum *Node) {
	options := gomlx.CoreOptions{Scale: j.spec.scale(j.sizes)}
	if len(j.spec.Scores) > 0 {
		options.ScoreSoftCap = j.spec.Scores[0].(Softcap).Limit
	}
	if isCausal(j.spec.mask()) && j.regular && j.in.Mask == nil && j.queries() == j.keys() {
		options.UseCausalMask = true
	} else if mask := j.tile().Allowed; mask != nil {
		options.AttentionMask = TransposeAllDims(mask, 0, 2, 1, 3) // [b, q, h, k]
	}
	y, _ = gomlx.Core(j.q, j.k, j.v, gomlx.LayoutBSHD, options)
	return y, nil
}
