package attention

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

func blockwiseSpec(s Spec) error {
	if !builtinMask(s.mask()) {
		return fmt.Errorf("mask %q is not one that it knows", s.Mask.Kind())
	}
	for _, score := range slices.Concat(s.Scores, s.Positions) {
		if _, ok := score.(Reweigher); ok {
			return fmt.Errorf("%q changes weights after they were normalised", score.Kind())
		}
		_, former := score.(Former)
		if _, distant := score.(Distant); !former && !distant {
			return fmt.Errorf("%q needs all keys of a row at once", score.Kind())
		}
	}
	switch n := s.normalizer().(type) {
	case PlainSoftmax, OffByOne, Sink, ElementSigmoid:
		return nil
	default:
		return fmt.Errorf("normalizer %q needs all keys of a row at once", n.Kind())
	}
}

func blockwiseInput(j job) error {
	if j.in.prefix() > 0 {
		return errors.New("virtual tokens of an adapter stand before the keys")
	}
	if !j.regular { // what depends on distance is kept by distance, not by position
		for _, score := range slices.Concat(j.spec.Scores, j.spec.Positions) {
			if _, ok := score.(Distant); ok {
				return fmt.Errorf("%q needs positions that count from 0", score.Kind())
			}
		}
		if j.spec.Span != nil {
			return errors.New("\"span\" needs positions that count from 0")
		}
	}
	return withoutDropout(j)
}

// tile is how many logits a step should work on: 4 MB of them. Tests make it smaller, so that small inputs have several lanes.
var tile = 1 << 20

// cut chooses the size of blocks, lanes, and the pairs of blocks to go over. Each step of the loop has costs of its own, so that blocks
// are large unless more logits would be computed for nothing then, as beside a narrow window. The backward pass holds three or
// four tiles at once, which for a single head should be small beside its queries and keys. What was measured is in docs/benchmarks.md.
func (b *flow) cut() {
	rows, length := b.batch()*b.sizes.Heads, max(b.queries(), b.keys())
	into := func(size int) (logits int) {
		b.size = min(size, length)
		b.rows, b.columns = (b.queries()+b.size-1)/b.size, (b.keys()+b.size-1)/b.size
		b.pairs = b.visiblePairs()
		return len(b.pairs) * b.size * b.size
	}
	b.lanes = lanes{1, 1}
	loops := canLoop(b.q.Graph().Backend())
	switch {
	case b.spec.Execution.Block > 0:
		into(b.spec.Execution.Block)
	case !loops: // all lanes go together, so that their blocks have to be small
		size := 256
		for size > 64 && rows*size*size > tile {
			size /= 2
		}
		into(size)
	default:
		into(blockSize(rows, length, into))
	}
	if loops {
		b.lanes = lanesOf(b.batch(), b.sizes.Heads, b.size)
	}
}

// blockSize chooses the size of blocks in a loop, of the heads of all texts, from how many logits are computed with blocks of a size.
func blockSize(heads, length int, logits func(size int) int) int {
	if heads == 1 && length < 8192 {
		return 256
	}
	small, medium := logits(256), logits(512)
	switch {
	case heads >= 4 && float64(logits(1024)) <= 1.02*float64(min(small, medium)):
		return 1024
	case float64(medium) <= 1.15*float64(small):
		return 512
	default:
		return 256
	}
}

// lanesOf cuts texts and heads into groups with tiles of that size, if their numbers can be divided so.
func lanesOf(batch, heads, size int) lanes {
	rows := max(1, tile/(size*size))
	group := min(heads, rows)
	for heads%group != 0 {
		group--
	}
	if heads > rows && 2*group < rows { // as 1 of 7: rather too large
		for group = rows + 1; heads%group != 0; group++ {
		}
	}
	texts := max(1, min(batch, rows/group))
	for batch%texts != 0 {
		texts--
	}
	return lanes{batches: batch / texts, heads: heads / group}
}

// flow is blockwise attention while its graph is built. Blocks of queries are [b, h, block, d] of the texts and heads of a lane, and
// of keys the same; tensors of blocks have their number in front, see [stack].
type flow struct {
	job
	size           int // of a block
	rows, columns  int // blocks of queries and of keys
	lanes          lanes
	pairs          [][2]int
	steps          []step
	sigmoid        bool // else exp
	operands       []stack
	constants      []stack
	sink           bool // its logit is the last operand
	fade           int  // operand; −1 for none
	valid, allowed int  // constants; −1 for none
	queryPosition  int  // constants
	keyPosition    int
	documents      [2]int
}

// step is what a score does; its tensor, if it has one, is an operand.
type step struct {
	kind    stepKind
	operand int
	cap     float64
}

type stepKind int

const (
	byRow stepKind = iota
	byKey
	bySlope
	byDistance
	capped
)

// The first operands; those of steps and the span follow.
const (
	ofQueries = iota
	ofKeys
	ofValues
)

// runBlockwise computes a job over pairs of blocks.
//
// The forward pass keeps, for each query, the greatest logit m so far, the sum l of exp(s − m) and
// the sum acc of exp(s − m)·v; a greater m rescales the others. Then y = acc/l, and only
// ln l + m is kept beside it. The backward pass computes s and from it a = exp(s − m − ln l) again:
//
//	∂v = aᵀ·∂y,  ∂s = a·(∂y·vᵀ − D),  D = Σ y·∂y
//
// With a span's mask f the weights are f·e/Z, e = exp(s − m), Z = Σ f·e + ε·Σ e:
//
//	∂s = e/Z·(f·(∂y·vᵀ − D) − ε·D),  ∂f = e/Z·(∂y·vᵀ − D)
func runBlockwise(j job) (y, logSum *Node) {
	b := newFlow(j)
	dims := j.q.Shape().Dimensions
	operands := make([]*Node, len(b.operands))
	for i, s := range b.operands {
		operands[i] = s.node
	}
	outputs := custom(operands, func(inputs []*Node) ([]*Node, func([]*Node) []*Node) {
		for i, n := range inputs {
			b.operands[i].node = n
		}
		y, logZ, logSum := b.forward()
		return []*Node{y, logSum}, func(gradients []*Node) []*Node { return b.backward(y, logZ, gradients[0], gradients[1]) }
	})
	y = b.unblock(outputs[0], dims[1])
	if !b.sigmoid && j.spec.Span == nil {
		logSum = Squeeze(b.unblock(outputs[1], dims[1]), -1) // [b, q, h]
		logSum = TransposeAllDims(logSum, 0, 2, 1)
	}
	return y, logSum
}

func newFlow(j job) *flow {
	b := &flow{job: j, fade: -1, valid: -1, allowed: -1, documents: [2]int{-1, -1}}
	b.cut()
	group := j.sizes.Heads / j.sizes.KVHeads
	b.add(b.block(j.q, 1))
	b.add(b.block(repeatHeads(j.k, group), 1))
	b.add(b.block(repeatHeads(j.v, group), 1))
	b.addMasks()
	t := &Tile{Sizes: j.sizes, Scale: j.spec.scale(j.sizes), Inputs: j.in, Q: j.q, K: j.k, losses: map[string]*Node{}, count: b.count}
	for _, score := range slices.Concat(j.spec.Scores, j.spec.Positions) {
		w := j.weights.In(score.Kind())
		if distant, ok := score.(Distant); ok {
			of := func(distance *Node) *Node { return distant.DistanceBias(t, w, distance) }
			b.steps = append(b.steps, step{kind: byDistance, operand: b.add(b.byDistance(of))})
		} else {
			b.addStep(score.(Former).Form(t, w))
		}
	}
	w := j.weights.In(j.spec.normalizer().Kind())
	var sink *Node
	switch j.spec.normalizer().(type) {
	case ElementSigmoid:
		b.sigmoid = true
		b.addStep(Form{KeyBias: Reshape(w.At("bias"), 1, 1, 1, 1)})
	case OffByOne:
		sink = Zeros(j.q.Graph(), shapes.Make(j.q.DType(), 1, j.sizes.Heads, 1, 1))
	case Sink:
		sink = perHead(w.At("logit"))
	}
	if p := j.spec.Span; p != nil {
		b.fade = b.add(b.byDistance(func(distance *Node) *Node {
			lengths := InsertAxes(p.lengths(j.weights.In(p.Kind())), -1)
			return p.fade(lengths, InsertAxes(ConvertDType(Abs(distance), j.q.DType()), 0))
		}))
	}
	if b.sink = sink != nil; b.sink {
		b.add(InsertAxes(sink, 0)) // the last
	}
	return b
}

// add adds an operand in blocks [n, b, h, ...], of which b and h may be 1.
func (b *flow) add(operand *Node) int {
	b.operands = append(b.operands, b.stack(operand))
	return len(b.operands) - 1
}

func (b *flow) addConstant(n *Node) int {
	b.constants = append(b.constants, b.stack(n))
	return len(b.constants) - 1
}

// stack sorts blocks [n, b, h, ...] by lanes.
func (b *flow) stack(x *Node) stack {
	d := x.Shape().Dimensions
	s := stack{node: x, batches: d[1] > 1, heads: d[2] > 1}
	if b.lanes == (lanes{1, 1}) {
		return s
	}
	l := b.lanesOf(s)
	x = Reshape(x, slices.Concat([]int{d[0], l.batches, d[1] / l.batches, l.heads, d[2] / l.heads}, d[3:])...)
	order := []int{1, 3, 0, 2, 4}
	for axis := 5; axis < x.Rank(); axis++ {
		order = append(order, axis)
	}
	x = TransposeAllDims(x, order...)
	s.node = Reshape(x, slices.Concat([]int{l.batches * l.heads * d[0], d[1] / l.batches, d[2] / l.heads}, d[3:])...)
	return s
}

// unstack undoes [flow.stack], whatever the last axes are now.
func (b *flow) unstack(s stack) *Node {
	if b.lanes == (lanes{1, 1}) {
		return s.node
	}
	d, l := s.node.Shape().Dimensions, b.lanesOf(s)
	x := Reshape(s.node, slices.Concat([]int{l.batches, l.heads, d[0] / (l.batches * l.heads)}, d[1:])...)
	order := []int{2, 0, 3, 1, 4}
	for axis := 5; axis < x.Rank(); axis++ {
		order = append(order, axis)
	}
	x = TransposeAllDims(x, order...)
	return Reshape(x, slices.Concat([]int{d[0] / (l.batches * l.heads), d[1] * l.batches, d[2] * l.heads}, d[3:])...)
}

// lanesOf returns the lanes by which a stack is sorted.
func (b *flow) lanesOf(s stack) lanes {
	l := lanes{1, 1}
	if s.batches {
		l.batches = b.lanes.batches
	}
	if s.heads {
		l.heads = b.lanes.heads
	}
	return l
}

// likeQueries is the stack of blocks that are sorted as those of queries are.
func likeQueries(n *Node) stack { return stack{node: n, batches: true, heads: true} }

func (b *flow) addStep(f Form) {
	switch {
	case f.Factor != nil:
		if f.Factor.Rank() == 0 {
			f.Factor = InsertAxes(f.Factor, 0, 0, 0, 0)
		}
		b.steps = append(b.steps, step{kind: byRow, operand: b.add(b.along(f.Factor, 2, b.rows))})
	case f.Slope != nil: // one block, that of all pairs
		b.steps = append(b.steps, step{kind: bySlope, operand: b.add(InsertAxes(f.Slope, 0))})
	case f.KeyBias != nil:
		b.steps = append(b.steps, step{kind: byKey, operand: b.add(b.along(f.KeyBias, 3, b.columns))})
	default:
		b.steps = append(b.steps, step{kind: capped, cap: f.Cap})
	}
}

// addMasks prepares what tells which keys a query may attend to.
func (b *flow) addMasks() {
	g := b.q.Graph()
	line := func(n *Node, count int) *Node { // [b or 1, l] → [count, b or 1, 1, block]
		return TransposeAllDims(Reshape(padEnd(n, 1, count*b.size), n.Shape().Dimensions[0], 1, count, b.size), 2, 0, 1, 3)
	}
	b.queryPosition = b.addConstant(line(b.in.QueryPositions, b.rows))
	b.keyPosition = b.addConstant(line(b.in.KeyPositions, b.columns))
	if b.in.QueryDocuments != nil && b.in.KeyDocuments != nil {
		b.documents = [2]int{b.addConstant(line(b.in.QueryDocuments, b.rows)), b.addConstant(line(b.in.KeyDocuments, b.columns))}
	}
	mask := b.in.Mask
	if mask != nil && mask.Rank() < 4 {
		mask = ExpandLeftToRank(mask, 4)
	}
	full := mask != nil && mask.Shape().Dimensions[2] != 1
	if mask != nil && !full || b.keys()%b.size != 0 {
		if mask == nil || full {
			valid := LessThan(Iota(g, shapes.Make(dtypes.Int32, 1, 1, 1, b.keys()), 3), Const(g, int32(b.keys())))
			b.valid = b.addConstant(b.keyBlocks(valid))
		} else {
			d := slices.Clone(mask.Shape().Dimensions)
			d[3] = b.keys()
			b.valid = b.addConstant(b.keyBlocks(BroadcastToDims(mask, d...)))
		}
	}
	if full {
		d := slices.Clone(mask.Shape().Dimensions)
		mask = BroadcastToDims(mask, d[0], d[1], b.queries(), b.keys())
		mask = padEnd(padEnd(mask, 2, b.rows*b.size), 3, b.columns*b.size)
		mask = TransposeAllDims(Reshape(mask, d[0], d[1], b.rows, b.size, b.columns, b.size), 2, 4, 0, 1, 3, 5)
		b.allowed = b.addConstant(Reshape(mask, b.rows*b.columns, d[0], d[1], b.size, b.size))
	}
}

// visiblePairs lists the pairs of blocks that the mask does not hide, by rows.
func (b *flow) visiblePairs() [][2]int {
	var pairs [][2]int
	first := b.keys() - b.queries() // position of query 0
	for i := range b.rows {
		for k := range b.columns {
			queries := interval{first + i*b.size, first + min((i+1)*b.size, b.queries()) - 1}
			keys := interval{k * b.size, min((k+1)*b.size, b.keys()) - 1}
			if !b.regular || queries.low < 0 || mayAllow(b.spec.mask(), queries, keys) {
				pairs = append(pairs, [2]int{i, k})
			}
		}
	}
	return pairs
}

// count computes how many keys each query may attend to, [b, h, q, 1], at least in broadcast.
func (b *flow) count() *Node {
	like := b.operands[ofQueries].node
	dims := like.Shape().Dimensions
	zeros := Zeros(b.q.Graph(), shapes.Make(like.DType(), dims[0], dims[1], dims[2], b.size, 1))
	counts := overPairs(b.lanes, b.pairs, b.constants, []stack{likeQueries(zeros)}, func(in, st []blocks, i, k index) {
		ones := BroadcastToDims(number(like, 1), dims[1], dims[2], b.size, b.size)
		seen := b.masked(in, i, k, ones, 0)
		st[0].set(i, Add(st[0].at(i), rowSum(seen)))
	})[0]
	return TransposeAllDims(b.unblock(counts, b.queries()), 0, 2, 1, 3)
}

// masked puts low where a query may not attend to a key; constants are the last inputs.
func (b *flow) masked(in []blocks, i, k index, logits *Node, low float64) *Node {
	constants := in[len(in)-len(b.constants):]
	join := func(mask, with *Node) *Node {
		if mask == nil {
			return with
		}
		return LogicalAnd(mask, with)
	}
	var mask *Node
	if m := b.spec.mask(); m != nil {
		t := &Tile{Sizes: b.sizes}
		t.QueryPositions, t.KeyPositions = b.line(in, b.queryPosition, i), b.line(in, b.keyPosition, k)
		if b.documents[0] >= 0 {
			t.QueryDocuments, t.KeyDocuments = b.line(in, b.documents[0], i), b.line(in, b.documents[1], k)
		}
		mask = m.Allowed(t)
	}
	if b.valid >= 0 {
		mask = join(mask, constants[b.valid].at(k))
	}
	if b.allowed >= 0 {
		mask = join(mask, constants[b.allowed].at(linear(b.columns, i, 1, k, 0)))
	}
	if mask == nil {
		return logits
	}
	dims := logits.Shape().Dimensions
	return Where(BroadcastToDims(mask, dims...), logits, BroadcastToDims(number(logits, low), dims...))
}

// line returns a block of a constant of positions or documents, [b or 1, block].
func (b *flow) line(in []blocks, constant int, at index) *Node {
	n := in[len(in)-len(b.constants)+constant].at(at)
	return Reshape(n, n.Shape().Dimensions[0], b.size)
}

// distances returns |q − k| of a pair, in the type of like, as [b or 1, 1, q, k].
func (b *flow) distances(in []blocks, i, k index, like *Node) *Node {
	t := &Tile{}
	t.QueryPositions, t.KeyPositions = b.line(in, b.queryPosition, i), b.line(in, b.keyPosition, k)
	return ConvertDType(Abs(t.Distance()), like.DType())
}

// first is the number 0 as a block's, as i is one.
func first(i index) index { return linear(0, i, 0, i, 0) }

// diagonal returns the number of the block of distances of a pair.
func (b *flow) diagonal(i, k index) index { return linear(-1, i, 1, k, b.rows-1) }

// scaled multiplies a block by the scale of the logits. In the loop, for a scaled copy of all queries
// would take memory of its own.
func (b *flow) scaled(x *Node) *Node { return Mul(x, number(x, b.spec.scale(b.sizes))) }

// product is that of blocks, in the type that the weights compute in. Logits, their greatest and sums, and what is summed over
// blocks stay in float32.
func (b *flow) product(equation string, x, y *Node) *Node {
	return b.weights.Product(func(x, y *Node) *Node { return Einsum(equation, x, y) }, x, y)
}

// logits computes the logits of a pair before masking, after each step.
func (b *flow) logits(in []blocks, i, k index) []*Node {
	s := b.product("bhqd,bhkd->bhqk", b.scaled(in[ofQueries].at(i)), in[ofKeys].at(k))
	values := []*Node{s}
	for _, step := range b.steps {
		switch step.kind {
		case byRow:
			s = Mul(s, in[step.operand].at(i))
		case byKey:
			s = Add(s, in[step.operand].at(k))
		case bySlope:
			s = Sub(s, Mul(in[step.operand].at(first(i)), b.distances(in, i, k, s)))
		case byDistance:
			s = Add(s, toeplitz(in[step.operand].at(b.diagonal(i, k))))
		case capped:
			s = Mul(Tanh(Mul(s, number(s, 1/step.cap))), number(s, step.cap))
		}
		values = append(values, s)
	}
	return values
}

// hidden stands for the logit of a key that is masked, and least for the greatest logit of a row
// before any was seen: exp(hidden − least) is 0.
const (
	hidden = -1e30
	least  = -1e29
)

// forward returns in blocks y, ln Z + m (of the sigmoid Z itself), and ln Z + m once more with
// hidden for rows that have no key.
func (b *flow) forward() (y, logZ, logSum *Node) {
	g, dtype := b.q.Graph(), b.q.DType()
	d := b.operands[ofQueries].node.Shape().Dimensions
	fill := func(value float64, width int) *Node {
		return BroadcastToDims(Scalar(g, dtype, value), d[0], d[1], d[2], b.size, width)
	}
	m, l := fill(least, 1), fill(0, 1)
	if b.sink {
		m = b.stack(BroadcastToDims(b.sinkLogit(), b.rows, b.batch(), b.sizes.Heads, b.size, 1)).node
		l = fill(1, 1)
	}
	begin := []stack{likeQueries(fill(0, b.sizes.ValueDim)), likeQueries(l), likeQueries(m)}
	if b.fade >= 0 {
		begin = append(begin, likeQueries(fill(0, 1))) // Σ f·e
	}
	state := overPairs(b.lanes, b.pairs, slices.Concat(b.operands, b.constants), begin, func(in, st []blocks, i, k index) {
		steps := b.logits(in, i, k)
		s := b.masked(in, i, k, steps[len(steps)-1], hidden)
		var e, c *Node
		if b.sigmoid {
			e = b.masked(in, i, k, Logistic(steps[len(steps)-1]), 0)
		} else {
			before := st[2].at(i)
			now := Max(before, rowMax(s))
			c, e = Exp(Sub(before, now)), Exp(Sub(s, now))
			st[2].set(i, now)
		}
		scaled := func(n *Node) *Node {
			if c == nil {
				return n
			}
			return Mul(n, c)
		}
		st[1].set(i, Add(scaled(st[1].at(i)), rowSum(e)))
		if b.fade >= 0 {
			e = Mul(e, toeplitz(in[b.fade].at(b.diagonal(i, k))))
			st[3].set(i, Add(scaled(st[3].at(i)), rowSum(e)))
		}
		st[0].set(i, Add(scaled(st[0].at(i)), b.product("bhqk,bhkd->bhqd", e, in[ofValues].at(k))))
	})
	z := state[1]
	switch {
	case b.fade >= 0 && b.sigmoid:
		z = AddScalar(state[3], spanEpsilon)
	case b.fade >= 0:
		z = Add(state[3], MulScalar(z, spanEpsilon))
	case b.sigmoid:
		return state[0], z, z // nothing is divided
	}
	some := GreaterThan(z, ZerosLike(z))
	z = Where(some, z, OnesLike(z))
	y = Mul(state[0], Reciprocal(z))
	if b.sigmoid {
		return y, z, z
	}
	// A row without any key has least as its greatest logit; exp(hidden − 0) is 0, as it must be.
	logZ = Add(state[2], Log(z))
	return y, Where(some, logZ, ZerosLike(z)), Where(some, logZ, FillScalar(g, z.Shape(), hidden))
}

// sinkLogit is the sink's operand, [1, 1, h, 1, 1].
func (b *flow) sinkLogit() *Node { return b.unstack(b.operands[len(b.operands)-1]) }

// backward returns the gradients of the operands.
func (b *flow) backward(y, logZ, gradient, logGradient *Node) []*Node {
	if gradient == nil {
		gradient = ZerosLike(y)
	}
	dot := InsertAxes(Einsum("nbhqd,nbhqd->nbhq", y, gradient), -1) // D
	if logGradient != nil && !b.sigmoid {
		dot = Sub(dot, logGradient)
	}
	carried := b.operands
	if b.sink {
		carried = carried[:len(carried)-1]
	}
	inputs := slices.Concat(carried, []stack{likeQueries(gradient), likeQueries(dot), likeQueries(logZ)}, b.constants)
	ofGradient, ofDot, ofLogZ := len(carried), len(carried)+1, len(carried)+2
	begin := slices.Clone(carried)
	for i, s := range begin {
		if i == ofKeys || i == ofValues {
			s.node = turned(s.node)
		}
		begin[i].node = SchedulingBarrier(ZerosLike(s.node), dot) // not during the forward pass already
	}
	state := overPairs(b.lanes, b.pairs, inputs, begin, func(in, st []blocks, i, k index) {
		add := func(operand int, at index, value *Node) { st[operand].set(at, Add(st[operand].at(at), value)) }
		steps := b.logits(in, i, k)
		s := steps[len(steps)-1]
		dy, logZ := in[ofGradient].at(i), in[ofLogZ].at(i)
		dp := b.product("bhqd,bhkd->bhqk", dy, in[ofValues].at(k)) // of the weights
		var e, ds *Node
		if b.sigmoid {
			e = b.masked(in, i, k, Logistic(s), 0)
		} else {
			e = Exp(Sub(b.masked(in, i, k, s, hidden), logZ)) // divided by Z already
		}
		weights := e
		if b.fade < 0 && b.sigmoid {
			ds = dp
		} else {
			ds = Sub(dp, in[ofDot].at(i))
			if b.fade >= 0 {
				fade := toeplitz(in[b.fade].at(b.diagonal(i, k)))
				if b.sigmoid {
					e = Mul(e, Div(number(e, 1), logZ))
				}
				add(b.fade, b.diagonal(i, k), diagonals(Mul(e, ds)))
				weights = Mul(e, fade)
				ds = Mul(fade, ds)
				if !b.sigmoid {
					ds = Sub(ds, Mul(in[ofDot].at(i), number(ds, spanEpsilon)))
				}
			}
		}
		add(ofValues, k, b.product("bhqd,bhqk->bhdk", dy, weights))
		ds = Mul(e, ds)
		if b.sigmoid {
			ds = Mul(ds, Sub(number(s, 1), Logistic(s)))
		}
		for n := len(b.steps) - 1; n >= 0; n-- {
			step, before, after := b.steps[n], steps[n], steps[n+1]
			switch step.kind {
			case byRow:
				add(step.operand, i, b.summed(step.operand, Mul(ds, before)))
				ds = Mul(ds, in[step.operand].at(i))
			case byKey:
				add(step.operand, k, b.summed(step.operand, ds))
			case bySlope:
				add(step.operand, first(i), b.summed(step.operand, Neg(Mul(ds, b.distances(in, i, k, ds)))))
			case byDistance:
				add(step.operand, b.diagonal(i, k), diagonals(ds))
			case capped:
				t := Mul(after, number(after, 1/step.cap))
				ds = Mul(ds, Sub(number(t, 1), Mul(t, t)))
			}
		}
		add(ofQueries, i, b.scaled(b.product("bhqk,bhkd->bhqd", ds, in[ofKeys].at(k))))
		add(ofKeys, k, b.product("bhqd,bhqk->bhdk", b.scaled(in[ofQueries].at(i)), ds))
	})
	state[ofKeys], state[ofValues] = turned(state[ofKeys]), turned(state[ofValues])
	if b.sink { // its weight is exp(sink − ln Z), its value 0
		logZ, dot := b.unstack(likeQueries(logZ)), b.unstack(likeQueries(dot))
		weight := Exp(Sub(BroadcastToDims(b.sinkLogit(), logZ.Shape().Dimensions...), logZ))
		if b.fade >= 0 {
			weight = MulScalar(weight, spanEpsilon)
		}
		state = append(state, b.stack(Neg(ReduceAndKeep(Mul(weight, dot), ReduceSum, 0, 1, 3, 4))).node)
	}
	return state
}

// turned exchanges the last two axes of blocks. The gradients of keys and values are summed as [d,
// block]: then XLA turns the narrow factor of each product and not the weights.
func turned(x *Node) *Node { return TransposeAllDims(x, 0, 1, 2, 4, 3) }

// summed sums a block's gradient [b, h, q, k] over the axes that the operand's blocks are broadcast
// along.
func (b *flow) summed(operand int, gradient *Node) *Node {
	want := b.operands[operand].node.Shape().Dimensions[1:]
	for axis, d := range want {
		if d == 1 && gradient.Shape().Dimensions[axis] > 1 {
			from := []byte("bhqk")
			to := slices.Delete(slices.Clone(from), axis, axis+1)
			gradient = InsertAxes(Einsum(fmt.Sprintf("%s,%c->%s", from, from[axis], to), gradient, vector(gradient, gradient.Shape().Dimensions[axis], 1)), axis)
		}
	}
	return gradient
}

// block cuts x [b, l, h, d] into blocks [n, b, h, block, d] along an axis.
func (b *flow) block(x *Node, axis int) *Node {
	d := x.Shape().Dimensions
	count := (d[axis] + b.size - 1) / b.size
	x = padEnd(x, axis, count*b.size)
	return TransposeAllDims(Reshape(x, d[0], count, b.size, d[2], d[3]), 1, 0, 3, 2, 4)
}

// unblock puts blocks that are sorted as those of queries together, as [b, length, h, d].
func (b *flow) unblock(x *Node, length int) *Node {
	x = b.unstack(likeQueries(x))
	d := x.Shape().Dimensions
	x = Reshape(TransposeAllDims(x, 1, 0, 3, 2, 4), d[1], d[0]*d[3], d[2], d[4])
	return Slice(x, AxisRange(), AxisRange(0, length))
}

// keyBlocks cuts what tells keys apart, [b, h, 1, keys], into blocks of keys; what is added at the end is false, also behind a
// single key.
func (b *flow) keyBlocks(x *Node) *Node {
	return b.along(padEnd(x, 3, b.columns*b.size), 3, b.columns)
}

// along cuts x [b, h, q, k], of which all axes but one may be 1, into count blocks of that axis, in
// front; an axis of 1 is repeated.
func (b *flow) along(x *Node, axis, count int) *Node {
	d := slices.Clone(x.Shape().Dimensions)
	if d[axis] == 1 {
		return BroadcastToDims(InsertAxes(x, 0), append([]int{count}, d...)...)
	}
	x = padEnd(x, axis, count*b.size)
	dims := slices.Insert(slices.Clone(d), axis, count)
	dims[axis+1] = b.size
	order := []int{axis}
	for a := range 5 {
		if a != axis {
			order = append(order, a)
		}
	}
	return TransposeAllDims(Reshape(x, dims...), order...)
}

// byDistance returns numbers that depend on head and distance in blocks [diagonals, 1, h, 2·block]: the
// pair (i, k) of blocks uses block k − i + rows − 1, by k − q from −(block−1) up.
func (b *flow) byDistance(of func(distance *Node) *Node) *Node {
	n := (b.rows + b.columns) * b.size
	first := b.keys() - b.queries() + b.rows*b.size - 1 // q − k of the first
	values := of(arange(b.q.Graph(), first, -1, n))     // [h, n]
	h := values.Shape().Dimensions[0]
	values = Reshape(values, h, b.rows+b.columns, b.size)
	both := Concatenate([]*Node{
		Slice(values, AxisRange(), AxisRange(0, b.rows+b.columns-1)), Slice(values, AxisRange(), AxisRange(1)),
	}, -1)
	return InsertAxes(TransposeAllDims(both, 1, 0, 2), 1)
}

// toeplitz returns the matrix [1, h, n, n] whose element (q, k) is element k − q + n − 1 of line
// [1, h, 2n]. It is read off by rows of 2n−1 out of repetitions of 2n, which moves each row by one.
func toeplitz(line *Node) *Node {
	h, n := line.Shape().Dimensions[1], line.Shape().Dimensions[2]/2
	line = Reshape(line, h, 2*n)
	line = Concatenate([]*Node{Slice(line, AxisRange(), AxisRange(n-1)), Slice(line, AxisRange(), AxisRange(0, n-1))}, 1) // by k − q modulo 2n
	rows := Reshape(BroadcastToDims(InsertAxes(line, 1), h, n, 2*n), h, 2*n*n)
	rows = Reshape(Slice(rows, AxisRange(), AxisRange(0, n*(2*n-1))), h, n, 2*n-1)
	return InsertAxes(Slice(rows, AxisRange(), AxisRange(), AxisRange(0, n)), 0)
}

// diagonals is the transpose of [toeplitz]: it sums x [b, h, n, n] along its diagonals and over b,
// as [1, h, 2n].
func diagonals(x *Node) *Node {
	b, h, n := x.Shape().Dimensions[0], x.Shape().Dimensions[1], x.Shape().Dimensions[2]
	x = Einsum("bhqk,b->hqk", x, vector(x, b, 1))
	zeros := func(dims ...int) *Node { return BroadcastToDims(number(x, 0), dims...) }
	if n > 1 {
		x = Concatenate([]*Node{x, zeros(h, n, n-1)}, 2)
	}
	x = Concatenate([]*Node{Reshape(x, h, n*(2*n-1)), zeros(h, n)}, 1)
	line := Einsum("hqt,q->ht", Reshape(x, h, n, 2*n), vector(x, n, 1))
	line = Concatenate([]*Node{Slice(line, AxisRange(), AxisRange(n+1)), Slice(line, AxisRange(), AxisRange(0, n+1))}, 1)
	return Reshape(line, 1, h, 2*n)
}

// repeatHeads gives each of group query heads the key head that it shares, [b, l, kv·group, d].
func repeatHeads(x *Node, group int) *Node {
	if group == 1 {
		return x
	}
	d := x.Shape().Dimensions
	return Reshape(BroadcastToDims(InsertAxes(x, 3), d[0], d[1], d[2], group, d[3]), d[0], d[1], d[2]*group, d[3])
}

// padEnd adds zeros to an axis up to a size.
func padEnd(x *Node, axis, size int) *Node { return pad(x, axis, 0, size-x.Shape().Dimensions[axis]) }

// pad adds zeros before and after an axis.
func pad(x *Node, axis, before, after int) *Node {
	if before == 0 && after == 0 {
		return x
	}
	pads := make([]compute.PadAxis, x.Rank())
	pads[axis].Start, pads[axis].End = before, after
	if x.DType() == dtypes.Bool {
		return NotEqual(Pad(ConvertDType(x, dtypes.Int8), Const(x.Graph(), int8(0)), pads...), Const(x.Graph(), int8(0)))
	}
	return Pad(x, ScalarZero(x.Graph(), x.DType()), pads...)
}

// Merge joins attention over parts of the keys: results that were computed blockwise, of the same
// queries and of one part of the keys each, become what attention to all keys gives.
//
//	y = Σᵢ exp(lseᵢ − lse)·yᵢ,  lse = ln Σᵢ exp(lseᵢ)
//
// Outputs are those of [Attend], [batch, queries, heads, value width].
//
// Source: Dao et al. 2023, "Flash-decoding for long-context inference".
func Merge(parts ...Result) Result {
	greatest := parts[0].LogSum
	for _, p := range parts[1:] {
		greatest = Max(greatest, p.LogSum)
	}
	greatest = StopGradient(greatest)
	var sum, y *Node
	for _, p := range parts {
		share := Exp(Sub(p.LogSum, greatest)) // [b, h, q]
		sum = elastic.AddIf(sum, share)
		y = elastic.AddIf(y, Mul(p.Output, InsertAxes(TransposeAllDims(share, 0, 2, 1), -1)))
	}
	whole := InsertAxes(TransposeAllDims(sum, 0, 2, 1), -1)
	return Result{Output: Mul(y, Reciprocal(whole)), LogSum: Add(greatest, Log(sum))}
}
