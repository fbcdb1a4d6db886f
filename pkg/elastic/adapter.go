package elastic

import "github.com/gomlx/gomlx/core/graph"

// Adapter changes what a model computes at places that it knows by their paths, while the
// model's own code and variables stay as they are. Package peft has those that are trained.
type Adapter interface {
	// Dense computes the dense layer at a path, such as "/layer_0/attention/query", on x
	// [..., inputs]. W are the layer's own weights, and layer is what it computes by itself:
	// a place without adapter returns layer(x).
	Dense(path string, w Weights, x *graph.Node, layer func(x *graph.Node) *graph.Node) *graph.Node
	// Extra returns the node at a path that models make use of if there is one, such as
	// "/layer_0/attention/prefix/keys", or nil.
	Extra(path string, g *graph.Graph) *graph.Node
}

// Adapted returns the weights as seen through an adapter; nil takes it away.
func (w Weights) Adapted(a Adapter) Weights {
	w.adapter = a
	return w
}

// Extra returns what an adapter adds below the current scope under a name, nil if it or the
// adapter is not there.
func (w Weights) Extra(name string) *graph.Node {
	if w.adapter == nil {
		return nil
	}
	return w.adapter.Extra(w.scope+"/"+name, w.graph)
}
