package interpret

import (
	"fmt"
	"math"
)

// Flow returns how much each input can send to one output through all layers at the most:
// the maximum flow in the graph whose nodes are positions in layers and whose capacities
// are the layers' weights, [length] numbers. Layers holds matrices [length][length], first
// layer first, such as [WithResidual] gives for a row of a batch: row i says what position i
// takes from each position below.
//
// Unlike [Rollout], where the ways through a layer multiply, a way is as wide as its
// narrowest place. The flows are bounded by the inputs' own: they need not add up to 1.
//
// Source: Abnar, Zuidema 2020, "Quantifying attention flow in transformers", section 3, before
// their normalisation; the flows are found as in Dinitz 1970.
func Flow(layers [][][]float64, output int) ([]float64, error) {
	if len(layers) == 0 {
		return nil, fmt.Errorf("flow needs at least one layer")
	}
	length := len(layers[0])
	if output < 0 || output >= length {
		return nil, fmt.Errorf("flow to output %d: want 0 to %d", output, length-1)
	}
	net := network{arcs: make([][]arc, (len(layers)+1)*length)}
	for l, layer := range layers {
		if len(layer) != length {
			return nil, fmt.Errorf("layer %d has %d rows, the first %d", l, len(layer), length)
		}
		for i, row := range layer {
			if len(row) != length {
				return nil, fmt.Errorf("row %d of layer %d has %d weights, want %d", i, l, len(row), length)
			}
			for j, capacity := range row {
				if !(capacity >= 0) || math.IsInf(capacity, 0) {
					return nil, fmt.Errorf("weight %d of row %d of layer %d is %g, want 0 or more, and finite", j, i, l, capacity)
				}
				net.join(l*length+j, (l+1)*length+i, capacity)
			}
		}
	}
	flows := make([]float64, length)
	for input := range flows {
		flows[input] = net.most(input, len(layers)*length+output)
	}
	return flows, nil
}

// network is a directed graph with capacities. Each arc has its reverse at arcs[to][back].
type network struct{ arcs [][]arc }

type arc struct {
	to, back       int
	capacity, left float64
}

// join adds an arc. Arcs of no capacity are left out.
func (n *network) join(from, to int, capacity float64) {
	if capacity == 0 {
		return
	}
	n.arcs[from] = append(n.arcs[from], arc{to: to, back: len(n.arcs[to]), capacity: capacity})
	n.arcs[to] = append(n.arcs[to], arc{to: from, back: len(n.arcs[from]) - 1})
}

// spent is what counts as nothing left of a capacity, which is at most 1 here: without it,
// rounding would leave ways of no width to be searched.
const spent = 1e-12

// most returns the maximum flow: as long as there are ways from source to sink, all
// shortest ones are filled.
func (n *network) most(source, sink int) float64 {
	for _, arcs := range n.arcs {
		for i := range arcs {
			arcs[i].left = arcs[i].capacity
		}
	}
	total := 0.0
	for {
		depth := n.depths(source)
		if depth[sink] < 0 {
			return total
		}
		next := make([]int, len(n.arcs)) // arcs before this one lead nowhere any more
		for {
			pushed := n.push(source, sink, math.Inf(1), depth, next)
			if pushed == 0 {
				break
			}
			total += pushed
		}
	}
}

// depths returns how far each node is from source, −1 where no way leads.
func (n *network) depths(source int) []int {
	depth := make([]int, len(n.arcs))
	for i := range depth {
		depth[i] = -1
	}
	depth[source] = 0
	for queue := []int{source}; len(queue) > 0; queue = queue[1:] {
		for _, a := range n.arcs[queue[0]] {
			if depth[a.to] < 0 && a.left > spent {
				depth[a.to] = depth[queue[0]] + 1
				queue = append(queue, a.to)
			}
		}
	}
	return depth
}

// push sends at most limit along one shortest way from a node to the sink.
func (n *network) push(node, sink int, limit float64, depth, next []int) float64 {
	if node == sink {
		return limit
	}
	for ; next[node] < len(n.arcs[node]); next[node]++ {
		a := &n.arcs[node][next[node]]
		if a.left <= spent || depth[a.to] != depth[node]+1 {
			continue
		}
		if pushed := n.push(a.to, sink, math.Min(limit, a.left), depth, next); pushed > 0 {
			a.left -= pushed
			n.arcs[a.to][a.back].left += pushed
			return pushed
		}
	}
	return 0
}
