package attention

import (
	"errors"
	"fmt"
	"slices"

	. "github.com/gomlx/gomlx/core/graph"
)

func windowedSpec(s Spec) error {
	if back, ahead := reach(s.mask()); back == unlimited || ahead == unlimited {
		return errors.New("the mask does not limit how far a query sees")
	}
	return rowwise(s)
}

func windowedInput(j job) error {
	switch {
	case !j.regular || j.queries() != j.keys():
		return errors.New("positions must count from 0, in queries as in keys")
	case perQuery(j.in.Mask):
		return errors.New("the input's mask is different for each query")
	}
	return withoutDropout(j)
}

// perQuery tells whether a mask of the input, nil or broadcasting to [b, h, q, k], depends on the query.
func perQuery(mask *Node) bool {
	return mask != nil && mask.Rank() > 1 && mask.Shape().Dimensions[mask.Rank()-2] != 1
}

// halo returns the size of a block of queries, and how many blocks of keys before and after its own
// they see.
func (j job) halo() (size, before, after int) {
	back, ahead := reach(j.spec.mask())
	size = 64
	for size < 512 && size < max(back, ahead)/2 {
		size *= 2
	}
	size = j.block(size)
	blocks := (j.keys() + size - 1) / size
	return size, min((back+size-1)/size, blocks-1), min((ahead+size-1)/size, blocks-1)
}

// neighbourhood returns how many keys a block of queries sees.
func (j job) neighbourhood() int {
	size, before, after := j.halo()
	return size * (before + 1 + after)
}

// runWindowed makes each block of queries, with the keys around it, a row of a batch of its own, and
// computes that batch by its matrices.
//
// Source: Beltagy et al. 2020, "Longformer", section 3.1 (overlapping chunks).
func runWindowed(j job) (y, logSum *Node) {
	size, before, after := j.halo()
	batch, length := j.batch(), j.queries()
	count := (length + size - 1) / size

	// own [b, l, …] → [b·n, size, …]
	own := func(x *Node) *Node {
		d := x.Shape().Dimensions
		x = padEnd(x, 1, count*size)
		if d[0] != batch {
			x = BroadcastToDims(x, slices.Concat([]int{batch, count * size}, d[2:])...)
		}
		return Reshape(x, slices.Concat([]int{batch * count, size}, d[2:])...)
	}
	// around [b, l, …] → [b·n, (before+1+after)·size, …]: parts i … i+before+after of the blocks with
	// as many empty ones before and after the text.
	around := func(x *Node) *Node {
		d := x.Shape().Dimensions
		dims := slices.Concat([]int{batch, count, size}, d[2:])
		blocks := pad(Reshape(own(x), dims...), 1, before, after)
		var shifted []*Node
		for s := range before + 1 + after {
			shifted = append(shifted, Slice(blocks, AxisRange(), AxisRange(s, s+count)))
		}
		return Reshape(Concatenate(shifted, 2), slices.Concat([]int{batch * count, len(shifted) * size}, d[2:])...)
	}
	in := j.in
	in.QueryPositions, in.KeyPositions = own(in.QueryPositions), around(in.KeyPositions)
	if in.QueryDocuments != nil && in.KeyDocuments != nil {
		in.QueryDocuments, in.KeyDocuments = own(in.QueryDocuments), around(in.KeyDocuments)
	}
	if in.X != nil {
		in.X = own(in.X)
	}
	if in.Tasks != nil {
		in.Tasks = Reshape(BroadcastToDims(InsertAxes(in.Tasks, -1), batch, count), batch*count)
	}
	// Keys of the empty blocks, and the end of the last, do not exist.
	exists := Const(j.q.Graph(), [][][]bool{{{true}}}) // [b, l, h]
	if j.in.Mask != nil {
		exists = TransposeAllDims(Squeeze(ExpandLeftToRank(j.in.Mask, 4), 2), 0, 2, 1)
	}
	heads := exists.Shape().Dimensions[2]
	exists = around(BroadcastToDims(exists, exists.Shape().Dimensions[0], length, heads))
	in.Mask = InsertAxes(TransposeAllDims(exists, 0, 2, 1), 2)

	rows := j
	rows.q, rows.k, rows.v, rows.in, rows.regular = own(j.q), around(j.k), around(j.v), in, false
	y = Reshape(rows.naive(), batch, count*size, j.sizes.Heads, j.sizes.ValueDim)
	return Slice(y, AxisRange(), AxisRange(0, length)), nil
}

// runChunked computes some queries at a time, each chunk after the one before, with those keys that
// the mask may allow; and again, in the other direction, for the gradient.
func runChunked(j job) (y, logSum *Node) {
	size := j.block(j.rowsAtATime())
	var outputs []*Node
	order := &chain{}
	for first := 0; first < j.queries(); first += size {
		chunk, _ := j.chunk(first, min(first+size, j.queries()))
		outputs = append(outputs, chunk.recomputed(order))
	}
	return Concatenate(outputs, 1), nil
}

// rowsAtATime is the default number of queries of a chunk: as many as make sixteen chunks, since each
// is compiled by itself.
func (j job) rowsAtATime() int { return max(64, (j.queries()+15)/16) }

// chunk returns the job of the queries from first up to last, with the keys that they may see, and the
// number of the first of those.
func (j job) chunk(first, last int) (c job, low int) {
	rows := func(x *Node, axis, low, high int) *Node {
		if x == nil || x.Shape().Dimensions[axis] == 1 {
			return x
		}
		return SliceAxis(x, axis, AxisRange(low, high))
	}
	high := j.keys()
	if j.regular {
		back, ahead := reach(j.spec.mask())
		offset := j.keys() - j.queries()
		low = min(max(low, first+offset-back), high-1)
		high = max(min(high, last+offset+ahead), low+1)
	}
	c = j
	c.regular = false
	c.q, c.k, c.v = rows(j.q, 1, first, last), rows(j.k, 1, low, high), rows(j.v, 1, low, high)
	c.in.X = rows(j.in.X, 1, first, last)
	c.in.QueryPositions, c.in.KeyPositions = rows(j.in.QueryPositions, 1, first, last), rows(j.in.KeyPositions, 1, low, high)
	c.in.QueryDocuments, c.in.KeyDocuments = rows(j.in.QueryDocuments, 1, first, last), rows(j.in.KeyDocuments, 1, low, high)
	if j.in.Mask != nil {
		mask := ExpandLeftToRank(j.in.Mask, 4)
		c.in.Mask = rows(rows(mask, 2, first, last), 3, low, high)
	}
	return c, low
}

// chain makes chunks wait for each other, so that their matrices are not all there at once.
type chain struct{ forward, backward *Node }

// after returns nodes that are there only after what the link holds.
func after(link *Node, nodes []*Node) []*Node {
	list := make([]*Node, len(nodes))
	for i, n := range nodes {
		if list[i] = n; link != nil {
			list[i] = SchedulingBarrier(n, link)
		}
	}
	return list
}

// recomputed computes the values of a job, and its matrix again when the gradient asks for it.
func (j job) recomputed(order *chain) *Node {
	var paths []string
	operands := []*Node{j.q, j.k, j.v}
	if j.in.X != nil {
		operands = append(operands, j.in.X)
	}
	for _, p := range j.spec.parts() {
		w := j.weights.In(p.part.Kind())
		for _, v := range p.part.Variables(j.sizes) {
			paths, operands = append(paths, w.Path(v.Path)), append(operands, w.At(v.Path))
		}
	}
	of := func(inputs []*Node) *Node {
		c := j
		c.q, c.k, c.v = inputs[0], inputs[1], inputs[2]
		if j.in.X != nil {
			c.in.X = inputs[3]
		}
		replaced := map[string]*Node{}
		for i, path := range paths {
			replaced[path] = inputs[len(inputs)-len(paths)+i]
		}
		c.weights = j.weights.With(replaced)
		return c.naive()
	}
	return custom(operands, func(inputs []*Node) ([]*Node, func([]*Node) []*Node) {
		y := of(after(order.forward, inputs))
		order.forward = y
		return []*Node{y}, func(gradients []*Node) []*Node {
			// They wait for the gradient as well, or they would be taken for those of the forward pass. They and the
			// gradient are there: nothing that led to them is to be computed again, as in a block with a checkpoint.
			again := after(gradients[0], after(order.backward, inputs))
			for i, n := range again {
				again[i] = n.StopCheckpoint()
			}
			y := of(again)
			results := Gradient(ReduceAllSum(Mul(y, gradients[0].StopCheckpoint())), again...)
			order.backward = results[0]
			return results
		}
	})[0]
}

func recurrentSpec(s Spec) error {
	if _, ok := s.normalizer().(Linear); !ok {
		return fmt.Errorf("normalizer %q is not \"linear\"", s.normalizer().Kind())
	}
	switch {
	case s.mask() != nil && !isCausal(s.mask()):
		return errors.New("a mask other than \"causal\" has no linear form")
	case s.Span != nil:
		return errors.New("\"span\" has no linear form")
	}
	return rowwise(s)
}

func recurrentInput(j job) error {
	switch {
	case perQuery(j.in.Mask):
		return errors.New("the input's mask is different for each query")
	case isCausal(j.spec.mask()) && (!j.regular || j.queries() != j.keys()):
		return errors.New("positions must count from 0, in queries as in keys")
	}
	return withoutDropout(j)
}

func isCausal(m Mask) bool { _, ok := m.(Causal); return ok }

// runRecurrent computes linear attention by the sums S = Σ φ(k)·vᵀ and z = Σ φ(k), over all keys or,
// with a causal mask, over those of earlier chunks:
//
//	y = φ(q)·S / φ(q)·z
//
// z is the last column of S, since values get a column of ones.
func runRecurrent(j job) (y, logSum *Node) {
	group := j.sizes.Heads / j.sizes.KVHeads
	q, k, v := feature(j.q), feature(repeatHeads(j.k, group)), repeatHeads(j.v, group)
	v = Concatenate([]*Node{v, OnesLike(Slice(v, AxisRange().Spacer(), AxisElem(0)))}, -1)
	if j.in.Mask != nil {
		d := k.Shape().Dimensions
		mask := TransposeAllDims(ExpandLeftToRank(j.in.Mask, 4), 0, 3, 1, 2) // [b, k, h, 1]
		k = Where(BroadcastToDims(mask, d...), k, ZerosLike(k))
	}
	if j.spec.Mask == nil {
		y = Einsum("bqhd,bhdv->bqhv", q, Einsum("bkhd,bkhv->bhdv", k, v))
	} else {
		y = causalSums(q, k, v, j.block(128))
	}
	width := j.sizes.ValueDim
	y, z := Slice(y, AxisRange().Spacer(), AxisRange(0, width)), Slice(y, AxisRange().Spacer(), AxisRange(width))
	some := GreaterThan(z, ZerosLike(z))
	return Mul(y, Where(some, Reciprocal(Where(some, z, OnesLike(z))), ZerosLike(z))), nil
}

// causalSums computes Σ_{j ≤ i} (qᵢ·kⱼ)·vⱼ, all [b, l, h, …]: by a matrix within chunks, by sums over
// the chunks before.
func causalSums(q, k, v *Node, size int) *Node {
	length := q.Shape().Dimensions[1]
	count := (length + size - 1) / size
	chunks := func(x *Node) *Node {
		d := x.Shape().Dimensions
		return Reshape(padEnd(x, 1, count*size), d[0], count, size, d[2], d[3])
	}
	q, k, v = chunks(q), chunks(k), chunks(v)
	sums := Einsum("bnkhd,bnkhv->bnhdv", k, v)
	earlier := Sub(CumSum(sums, 1), sums)
	products := Einsum("bnqhd,bnkhd->bnhqk", q, k)
	products = Where(BroadcastToDims(InsertAxes(LowerTriangular(q.Graph(), size), 0, 0, 0), products.Shape().Dimensions...), products, ZerosLike(products))
	y := Add(Einsum("bnqhd,bnhdv->bnqhv", q, earlier), Einsum("bnhqk,bnkhv->bnqhv", products, v))
	d := y.Shape().Dimensions
	return Slice(Reshape(y, d[0], count*size, d[3], d[4]), AxisRange(), AxisRange(0, length))
}
