package transformer_test

import (
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// TestCheckpointingChangesNothing: blocks that are computed again give the same loss and gradients, with dropout, penalties, experts
// and every execution of attention, and they are computed again.
func TestCheckpointingChangesNothing(t *testing.T) {
	for name, change := range map[string]func(*transformer.Config){
		"plain":   func(*transformer.Config) {},
		"pre":     func(c *transformer.Config) { c.NormOrder = transformer.PreNorm },
		"dropout": func(c *transformer.Config) { c.Dropout, c.Attention.Dropout = 0.3, 0.2 },
		"span": func(c *transformer.Config) {
			c.Attention.Span = &attention.Span{Max: 8, Ramp: 2, Init: 0.5, Penalty: 0.1}
		},
		"experts": func(c *transformer.Config) { c.Experts = &transformer.Experts{Count: 3, Balance: 0.1} },
		"act":     func(c *transformer.Config) { c.Depth = &transformer.Depth{Kind: transformer.ACT} },
		"blockwise": func(c *transformer.Config) {
			c.Attention.Execution = attention.Execution{Kind: attention.Blockwise, Block: 3}
		},
		"chunked": func(c *transformer.Config) {
			c.Attention.Execution = attention.Execution{Kind: attention.Chunked, Block: 3}
		},
	} {
		t.Run(name, func(t *testing.T) {
			if gxtest.Backend(t).String() != "go" && name != "dropout" && name != "blockwise" {
				t.Logf("the graph is the same as on pure Go, and compiling it takes long")
				return
			}
			config := small()
			change(&config)
			m, err := transformer.New(config, 1)
			if err != nil {
				t.Fatal(err)
			}
			sizes := make([]int, 2) // of the graph after each
			out, err := model.CallOnceN(gxtest.Backend(t), m.Store, func(scope *model.Scope, ids, labels, key *graph.Node) []*graph.Node {
				plain := elastic.WeightsOf(scope.Store(), ids.Graph())
				var values []*graph.Node
				for _, v := range config.Variables() {
					values = append(values, scope.Store().GetVariable(v.Path).NodeValue(ids.Graph()))
				}
				var all []*graph.Node
				for i, w := range []elastic.Weights{plain, plain.Checkpointing()} {
					before := len(ids.Graph().Nodes())
					drop := dropout.NewSource(key)
					sum, _ := config.Loss(w, loss.Criterion{}, labels, drop, config.Encode(w, transformer.Inputs{IDs: ids}, drop))
					all = append(append(all, sum), graph.Gradient(sum, values...)...)
					sizes[i] = len(ids.Graph().Nodes()) - before
				}
				return all
			}, [][]int32{{5, 9, 7, 3, 2, 1, 8}, {4, 4, 0, 2, 9, 9, 1}}, [][]int32{{0, 1, 2, 0, 1, 2, 0}, {1, 1, 1, 0, 0, 2, 2}}, dropout.Key(3, 4))
			if err != nil {
				t.Fatal(err)
			}
			half := len(out) / 2
			for i := range half {
				gxtest.Close(t, out[half+i], tensors.MustCopyFlatData[float32](out[i]), 1e-5)
			}
			if sizes[1] < sizes[0]*5/4 {
				t.Errorf("%d nodes with checkpoints, %d without: nothing is computed again", sizes[1], sizes[0])
			}
		})
	}
}
