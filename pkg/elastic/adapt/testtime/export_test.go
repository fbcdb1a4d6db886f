package testtime

import (
	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
)

// Trace makes a step and shows the nodes that its graph must compute: the logits, and all else, the
// new values of the variables that adapt among it.
func (a *Adapter) Trace(backend compute.Backend, look bool, see func(logits *Node, all []*Node), inputs ...any) error {
	exec, err := a.compile(backend, func(store *model.Store, in []*Node) []*Node {
		outputs := a.graph(store, in, look)
		all := append([]*Node{}, outputs...)
		for _, v := range a.variables {
			all = append(all, store.GetVariable(v.Path).NodeValue(in[0].Graph()))
		}
		see(outputs[0], all)
		return outputs
	})
	if err != nil {
		return err
	}
	defer exec.Finalize()
	args := []any{[]float64{1, a.config.Rate}}
	if a.config.Method == "masked" {
		args = append(args, dropout.Key(1, 1))
	}
	_, err = exec.Call(append(args, inputs...)...)
	return err
}
