package peft

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
)

// adalora adds α/r₀ · B·diag(E)·A·x to a layer, with A [r, inputs], E [r, 1], B [outputs, r] and
// r₀ the rank at the start, whatever is left of it. See [Adapter.Follow] for the ranks.
//
// Source: Zhang et al. 2023, "AdaLoRA: Adaptive budget allocation for parameter-efficient
// fine-tuning"; r₀ and its 1e-5 as in peft.
type adalora struct{}

func (adalora) variables(_ Config, l layer) []elastic.Variable {
	const std = 0.02
	if l.rank == 0 {
		return nil
	}
	return []elastic.Variable{
		{Path: "lora_A", Shape: []int{l.rank, l.inputs}, Init: elastic.Init{Normal: std}, Decay: true},
		{Path: "lora_E", Shape: []int{l.rank, 1}, Decay: true},
		{Path: "lora_B", Shape: []int{l.outputs, l.rank}, Init: elastic.Init{Normal: std}, Decay: true},
	}
}

// The places of a layer's variables in the list above.
const placeA, placeE, placeB, places = 0, 1, 2, 3

func (adalora) scale(c Config) float64 { return c.Alpha / (float64(c.Rank) + 1e-5) }

func (m adalora) dense(c Config, l layer, own, _ elastic.Weights, x *Node, base func(x *Node) *Node, drop *dropout.Source) *Node {
	y := base(x)
	if l.rank == 0 {
		return y
	}
	a := Mul(own.At("lora_A"), own.At("lora_E")) // [r, inputs]
	return Add(y, MulScalar(rows(rows(drop.Apply(x, c.Dropout), a), own.At("lora_B")), m.scale(c)))
}

func (m adalora) merged(c Config, l layer, own, w elastic.Weights) (weights, bias *Node) {
	weights, bias = w.At("weights"), w.At("bias")
	if l.rank == 0 {
		return weights, bias
	}
	a := Mul(own.At("lora_A"), own.At("lora_E"))
	return Add(weights, MulScalar(DotGeneral(a, []int{0}, nil, own.At("lora_B"), []int{1}, nil), m.scale(c))), bias
}

// Penalty returns what is to be added to the training loss, nil for nothing: of adalora
//
//	γ · mean over all A and B of ‖A·Aᵀ − I‖, ‖Bᵀ·B − I‖
//
// with Frobenius norms and γ the budget's Orthogonality. W are the weights of the whole model.
func (a *Adapter) Penalty(w elastic.Weights) *Node {
	if a.config.Kind != "adalora" || a.config.Budget.Orthogonality < 0 {
		return nil
	}
	var sum *Node
	count := 0
	for _, l := range a.layers {
		if l.rank == 0 {
			continue
		}
		for axis, name := range []string{"lora_B", "lora_A"} { // the axis that is summed over
			m := w.At(Scope[1:] + l.path + "/" + name)
			square := DotGeneral(m, []int{axis}, nil, m, []int{axis}, nil) // [r, r]
			difference := Sub(square, DiagonalWithValue(ScalarOne(w.Graph(), m.DType()), l.rank))
			sum = elastic.AddIf(sum, Sqrt(ReduceAllSum(Square(difference))))
			count++
		}
	}
	if sum == nil {
		return nil
	}
	return MulScalar(sum, a.config.Budget.Orthogonality/float64(count))
}

// spends says whether there are ranks to allocate.
func (a *Adapter) spends() bool {
	return a.config.Kind == "adalora" && !slices.ContainsFunc(a.layers, func(l layer) bool { return l.kept != nil })
}

// FollowSlots lists the state of the budget between updates: sensitivity and uncertainty of
// each of the adapter's elements, and which ranks are kept. Only adalora has it, before its
// tensors are as small as the budget.
func (a *Adapter) FollowSlots() []elastic.Variable {
	if !a.spends() {
		return nil
	}
	var slots []elastic.Variable
	for _, v := range a.Variables() {
		for _, name := range []string{"/sensitivity", "/uncertainty"} {
			slots = append(slots, elastic.Variable{Path: name + v.Path, Shape: v.Shape})
		}
	}
	for _, l := range a.layers {
		slots = append(slots, elastic.Variable{Path: "/kept" + Scope + l.path, Shape: []int{l.rank, 1}})
	}
	return slots
}

// FollowScalars says what the budget does after an update, counted from 0, of a run of total
// updates: whether sensitivities are learned, whether ranks are allocated, whether the last
// allocation holds, and how many ranks are dropped. The budget falls by the cube of the time
// that is left, from the end of Warmup to the beginning of Final.
func (a *Adapter) FollowScalars(update, total int) []float32 {
	if !a.spends() {
		return nil
	}
	b := a.config.Budget
	a.updates = total
	warmup, settled := a.phases()
	t := update + 1
	start, target := a.config.Rank*len(a.layers), b.Target*len(a.layers)
	switch {
	case t > settled:
		return []float32{0, 0, 1, 0}
	case t == settled:
		return []float32{0, 1, 0, float32(start - target)}
	case t <= warmup || t%b.Every != 0:
		return []float32{1, 0, 0, 0}
	}
	left := 1 - float64(t-warmup)/float64(settled-warmup)
	budget := int(float64(start-target)*left*left*left + float64(target))
	return []float32{1, 1, 0, float32(start - budget)}
}

// phases returns the last update of the warm-up and the one after which ranks are settled: never before something is known of
// sensitivities. If the run is too short for that, none are dropped before [Adapter.Finish].
func (a *Adapter) phases() (warmup, settled int) {
	warmup, final := a.config.Budget.Warmup, a.config.Budget.Final
	if warmup == 0 {
		warmup = a.updates / 10
	}
	if final == 0 {
		final = a.updates / 3
	}
	return warmup, max(warmup+1, 2, a.updates-final)
}

// Follow spends the budget after an update, inside of the compiled training step. Values and
// gradients are those of [Adapter.Trained], the values after the update and the gradients that
// led to it:
//
//	I ← |p·∇p|    Ī ← β₁Ī + (1−β₁)I    U ← β₂U + (1−β₂)|I − Ī|
//	score of rank i of a layer = Ī·U of Eᵢ + mean of Ī·U over row i of A and column i of B
//	E ← 0 where the score is among the lowest
//
// until ranks are settled; what is 0 by then stays 0. Between two allocations E may grow again.
//
// Source: Zhang et al. 2023, equations 7 to 12; scores with p after the update, as in peft. On
// a tie, the rank that comes first is dropped, so that the ranks kept are always the budget.
func (a *Adapter) Follow(scalars *Node, values, gradients, slots []*Node) (newValues, newSlots []*Node) {
	flag := func(i int) *Node { return Reshape(Slice(scalars, AxisElem(i))) }
	choose := func(i int, yes, no *Node) *Node {
		on := GreaterThan(flag(i), ScalarZero(scalars.Graph(), scalars.DType()))
		return Where(BroadcastToDims(on, yes.Shape().Dimensions...), yes, no)
	}
	newValues = slices.Clone(values)
	b := a.config.Budget
	elements := make([]*Node, len(a.layers)*places) // Ī·U
	for i := range elements {
		now := Abs(Mul(values[i], gradients[i]))
		sensitivity := Add(MulScalar(slots[2*i], b.Beta1), MulScalar(now, 1-b.Beta1))
		uncertainty := Add(MulScalar(slots[2*i+1], b.Beta2), MulScalar(Abs(Sub(now, sensitivity)), 1-b.Beta2))
		sensitivity, uncertainty = choose(0, sensitivity, slots[2*i]), choose(0, uncertainty, slots[2*i+1])
		newSlots = append(newSlots, sensitivity, uncertainty)
		elements[i] = Mul(sensitivity, uncertainty)
	}
	scores := make([]*Node, len(a.layers))
	for i := range scores {
		at := elements[i*places:]
		scores[i] = Add(Reshape(at[placeE], -1), Add(ReduceMean(at[placeA], 1), ReduceMean(at[placeB], 0))) // [r]
	}
	all := Concatenate(scores, 0) // [n]
	dropped := LessThan(place(all), BroadcastToDims(flag(3), all.Shape().Dimensions...))
	kept := ConvertDType(LogicalNot(dropped), all.DType()) // [n]
	from := 0
	for i, l := range a.layers {
		old := slots[2*len(elements)+i]
		mine := Reshape(Slice(kept, AxisRange(from, from+l.rank)), l.rank, 1)
		from += l.rank
		factor := choose(1, mine, choose(2, old, OnesLike(old)))
		newValues[i*places+placeE] = Mul(values[i*places+placeE], factor)
		newSlots = append(newSlots, choose(1, mine, old))
	}
	return newValues, newSlots
}

// place returns for each number how many of the others [n] come before it in ascending order.
func place(x *Node) *Node {
	n := x.Shape().Dimensions[0]
	other, own := BroadcastToDims(InsertAxes(x, 0), n, n), BroadcastToDims(InsertAxes(x, 1), n, n)
	index := Iota(x.Graph(), other.Shape(), 1)
	before := LessThan(index, Iota(x.Graph(), other.Shape(), 0))
	first := LogicalOr(LessThan(other, own), LogicalAnd(Equal(other, own), before))
	return ReduceSum(ConvertDType(first, x.DType()), 1)
}

// Finish makes adalora's tensors as small as the ranks that are left, in the store, and returns
// the adapter that they belong to; other kinds return themselves. The ranks kept are those of
// the greatest |E|, as many as the budget says. After a run that was not cut short, these are
// the ones that the last allocation left.
func (a *Adapter) Finish(store *model.Store) (*Adapter, error) {
	if !a.spends() {
		return a, nil
	}
	type rank struct {
		layer, index int
		size         float64
	}
	var ranks []rank
	tensor := func(l layer, name string) ([]float32, error) {
		value, err := store.GetVariable(Scope + l.path + "/" + name).Value()
		if err != nil {
			return nil, fmt.Errorf("reading %s of %s: %w", name, l.path, err)
		}
		return tensors.CopyFlatData[float32](value)
	}
	for i, l := range a.layers {
		e, err := tensor(l, "lora_E")
		if err != nil {
			return nil, err
		}
		for j, x := range e {
			ranks = append(ranks, rank{i, j, math.Abs(float64(x))})
		}
	}
	slices.SortStableFunc(ranks, func(x, y rank) int { return cmp.Compare(y.size, x.size) })
	finished := *a
	finished.layers = slices.Clone(a.layers)
	for i, l := range a.layers {
		finished.layers[i].kept, finished.layers[i].rank = make([]bool, l.rank), 0
	}
	for _, r := range ranks[:a.config.Budget.Target*len(a.layers)] {
		finished.layers[r.layer].kept[r.index] = true
		finished.layers[r.layer].rank++
	}
	values := map[string]*tensors.Tensor{}
	for i, l := range finished.layers {
		if l.rank == 0 {
			continue
		}
		for _, v := range (adalora{}).variables(a.config, a.layers[i]) {
			flat, err := tensor(l, v.Path)
			if err != nil {
				return nil, err
			}
			values[Scope+l.path+"/"+v.Path] = l.shrink(v, flat)
		}
	}
	if err := Remove(store); err != nil {
		return nil, err
	}
	for _, v := range finished.Variables() {
		if _, err := store.CreateVariable(v.Path, values[v.Path]); err != nil {
			return nil, fmt.Errorf("creating %s: %w", v.Path, err)
		}
	}
	return &finished, nil
}

// shrink takes the ranks that are kept of a variable: rows of A and E, columns of B.
func (l layer) shrink(v elastic.Variable, flat []float32) *tensors.Tensor {
	var out []float32
	byColumn := v.Path == "lora_B"
	for i, x := range flat {
		at := i / v.Shape[1]
		if byColumn {
			at = i % v.Shape[1]
		}
		if l.kept[at] {
			out = append(out, x)
		}
	}
	if byColumn {
		return tensors.FromFlatDataAndDimensions(out, v.Shape[0], l.rank)
	}
	return tensors.FromFlatDataAndDimensions(out, l.rank, v.Shape[1])
}
