package peft

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
)

// lora adds s·B·A·x to a layer, with A [r, inputs] and B [outputs, r]. The product goes
// through the r numbers in the middle: W + s·B·A is never formed, which would cost more than
// the layer itself when tokens are few.
//
// Source: Hu et al. 2021, "LoRA: Low-rank adaptation of large language models", section 4.1;
// s = α/√r: Kalajdzievski 2023, "A rank stabilization scaling factor for fine-tuning with LoRA".
type lora struct{}

// scale is s.
func (l layer) scale(c Config) float64 {
	if c.Kind == "rslora" {
		return c.Alpha / math.Sqrt(float64(l.rank))
	}
	return c.Alpha / float64(l.rank)
}

func (lora) variables(c Config, l layer) []elastic.Variable {
	return []elastic.Variable{
		// The variance of peft's initial A, which is uniform between ±1/√inputs.
		{Path: "lora_A", Shape: []int{l.rank, l.inputs}, Init: elastic.Init{Normal: 1 / math.Sqrt(3*float64(l.inputs))}, Decay: true},
		{Path: "lora_B", Shape: []int{l.outputs, l.rank}, Decay: true},
	}
}

func (lora) dense(c Config, l layer, own, _ elastic.Weights, x *Node, base func(x *Node) *Node, drop *dropout.Source) *Node {
	return Add(base(x), MulScalar(through(own, drop.Apply(x, c.Dropout)), l.scale(c)))
}

func (lora) merged(c Config, l layer, own, w elastic.Weights) (weights, bias *Node) {
	return Add(w.At("weights"), MulScalar(product(own), l.scale(c))), w.At("bias")
}

// through computes B·A·x of x [..., inputs].
func through(own elastic.Weights, x *Node) *Node {
	return rows(rows(x, own.At("lora_A")), own.At("lora_B"))
}

// rows computes x·Mᵀ over the last axis of x, with M [outputs, inputs].
func rows(x, m *Node) *Node { return DotGeneral(x, []int{x.Rank() - 1}, nil, m, []int{1}, nil) }

// product computes (B·A)ᵀ, [inputs, outputs].
func product(own elastic.Weights) *Node {
	return DotGeneral(own.At("lora_A"), []int{0}, nil, own.At("lora_B"), []int{1}, nil)
}

// dora learns the length m of each output's weights apart from their direction:
//
//	y = m/‖W + s·B·A‖ · (W + s·B·A)·x + b
//
// with the norm over inputs, through which no gradient passes (section 4.3 of the paper). An output whose norm is 0 has no direction,
// and y = b.
//
// Source: Liu et al. 2024, "DoRA: Weight-decomposed low-rank adaptation", equation 5.
type dora struct{}

func (dora) variables(c Config, l layer) []elastic.Variable {
	// Create sets it to ‖W‖; a model that forgets its weights, and with them their norms, begins with 1.
	return append(lora{}.variables(c, l), elastic.Variable{Path: "lora_magnitude_vector", Shape: []int{l.outputs}, Init: elastic.Init{Value: 1}})
}

// factor computes m/‖W + s·B·A‖, [outputs].
func (dora) factor(c Config, l layer, own, w elastic.Weights) *Node {
	directed := Add(w.At("weights"), MulScalar(product(own), l.scale(c))) // [inputs, outputs]
	length := StopGradient(Sqrt(ReduceSum(Square(directed), 0)))
	some := GreaterThan(length, ZerosLike(length))
	return Where(some, Div(own.At("lora_magnitude_vector"), Where(some, length, OnesLike(length))), ZerosLike(length))
}

func (d dora) dense(c Config, l layer, own, w elastic.Weights, x *Node, base func(x *Node) *Node, drop *dropout.Source) *Node {
	x = drop.Apply(x, c.Dropout)
	bias := ExpandLeftToRank(w.At("bias"), x.Rank())
	y := Add(Sub(base(x), bias), MulScalar(through(own, x), l.scale(c)))
	return Add(Mul(ExpandLeftToRank(d.factor(c, l, own, w), x.Rank()), y), bias)
}

func (d dora) merged(c Config, l layer, own, w elastic.Weights) (weights, bias *Node) {
	directed, bias := lora{}.merged(c, l, own, w)
	return Mul(directed, InsertAxes(d.factor(c, l, own, w), 0)), bias
}

// startMagnitudes sets each m to ‖W‖: B is 0 at the start.
func (a *Adapter) startMagnitudes(store *model.Store) error {
	for _, l := range a.layers {
		value, err := store.GetVariable(l.path + "/weights").Value()
		if err != nil {
			return fmt.Errorf("reading %s/weights: %w", l.path, err)
		}
		squares := make([]float64, l.outputs)
		if err := tensors.ConstFlatData(value, func(flat []float32) {
			for i, x := range flat {
				squares[i%l.outputs] += float64(x) * float64(x)
			}
		}); err != nil {
			return fmt.Errorf("reading %s/weights: %w", l.path, err)
		}
		norms := make([]float32, l.outputs)
		for i, sum := range squares {
			norms[i] = float32(math.Sqrt(sum))
		}
		path := Scope + l.path + "/lora_magnitude_vector"
		if err := store.GetVariable(path).SetValue(tensors.FromFlatDataAndDimensions(norms, l.outputs)); err != nil {
			return fmt.Errorf("setting %s: %w", path, err)
		}
	}
	return nil
}
