package transformer

import (
	"errors"
	"fmt"
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
)

// The names under which experts report what they compute, in Output.Losses.
const (
	ExpertBalance = "expert_balance" // see [Experts].Balance
	RouterZ       = "router_z"       // see [Experts].RouterZ
)

// Experts is a mixture of feed-forward parts: a router gives each token to the Keep experts
// with the highest logits r = x·W,
//
//	y = Σᵢ gᵢ·Eᵢ(x),   Eᵢ(x) = W₂ᵢ·act(W₁ᵢ·x)
//
// with gᵢ the softmax over the logits of those that are kept, so that the weights add up to
// 1; or, with Switch, the one expert's probability among all.
//
// No token is dropped and no expert has a capacity: every expert is computed for every
// token, and those that are not kept have weight 0. That is exact, of one shape, and the same
// on every backend; it adds parameters, and saves no time.
//
// Source: Shazeer et al. 2017, "Outrageously large neural networks: the sparsely-gated
// mixture-of-experts layer", equations 1, 3 and 5, without noise; Fedus et al. 2021, "Switch
// transformers", section 2.1.
type Experts struct {
	// Count is the number of experts of a block.
	Count int `json:"count"`
	// Keep is how many a token uses; 0 means 2, or 1 with Switch.
	Keep int `json:"keep,omitempty"`
	// Switch uses one expert and weighs it by its probability among all.
	Switch bool `json:"switch,omitempty"`
	// Balance is what unequal use of experts costs: it multiplies
	//
	//	Count · Σᵢ fᵢ·Pᵢ
	//
	// with fᵢ the part of the tokens' choices that fell on expert i, which has no gradient,
	// and Pᵢ the mean probability of i; equal use gives 1. Source: Fedus et al., equation 4.
	Balance float64 `json:"balance,omitempty"`
	// RouterZ is what large router logits cost: it multiplies the mean of (log Σᵢ exp rᵢ)².
	// Source: Zoph et al. 2022, "ST-MoE", equation 5.
	RouterZ float64 `json:"router_z,omitempty"`
}

func (e Experts) keep() int {
	switch {
	case e.Keep > 0:
		return e.Keep
	case e.Switch:
		return 1
	}
	return 2
}

func (e Experts) validate() error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf("experts."+format, args...)) }
	if e.Count < 2 {
		add("count is %d, want at least 2", e.Count)
	} else if e.Keep < 0 || e.keep() > e.Count {
		add("keep is %d, want 1 to count, %d", e.keep(), e.Count)
	}
	if e.Switch && e.keep() != 1 {
		add("keep is %d, want 1 with experts.switch", e.Keep)
	}
	if !e.Switch && e.keep() == 1 {
		add("keep is 1, whose router would learn nothing but balance: set experts.switch, or keep more")
	}
	for name, v := range map[string]float64{"balance": e.Balance, "router_z": e.RouterZ} {
		if !(v >= 0) || math.IsInf(v, 1) {
			add("%s is %g, want 0 or more", name, v)
		}
	}
	return errors.Join(problems...)
}

// variables lists the weights, with paths relative to the feed-forward part.
func (e Experts) variables(c Config, width int) []elastic.Variable {
	matrix := func(name string, inputs, outputs int) []elastic.Variable {
		return []elastic.Variable{
			{Path: "experts/" + name + "/weights", Shape: []int{e.Count, inputs, outputs}, Init: elastic.Init{Normal: c.InitStd}, Decay: true},
			{Path: "experts/" + name + "/bias", Shape: []int{e.Count, outputs}},
		}
	}
	router := elastic.Variable{Path: "router/weights", Shape: []int{c.Hidden, e.Count}, Init: elastic.Init{Normal: c.InitStd}, Decay: true}
	return append(append([]elastic.Variable{router}, matrix("inner", c.Hidden, width)...), matrix("outer", width, c.Hidden)...)
}

// mix computes the experts of x [b, l, hidden], and reports to r. Documents [b, l] is 0 for
// padding, which does not count for the losses; nil means none.
func (e Experts) mix(c Config, w elastic.Weights, x, documents *Node, r *attention.Result) *Node {
	logits := Einsum("bli,ie->ble", x, w.In("router").At("weights")) // [b, l, experts]
	logits = ConvertDType(logits, dtypes.Float32)
	kept := TopKMask(StopGradient(logits), e.keep(), -1) // boolean
	probabilities := Softmax(logits, -1)
	var gates *Node // [b, l, experts]
	if e.Switch {
		gates = Where(kept, probabilities, ZerosLike(probabilities))
	} else {
		gates = MaskedSoftmax(logits, kept, -1)
	}
	e.report(logits, probabilities, kept, documents, r)

	experts := w.In("experts")
	each := func(equation, name string, x *Node) *Node {
		y := w.Product(func(x, weights *Node) *Node { return Einsum(equation, x, weights) }, x, experts.In(name).At("weights"))
		return Add(y, InsertAxes(experts.In(name).At("bias"), 0, 0)) // [b, l, experts, …]
	}
	y := activations[c.Activation](each("bli,eio->bleo", "inner", x))
	y = each("blei,eio->bleo", "outer", y)
	return Einsum("ble,bleo->blo", ConvertDType(gates, x.DType()), y)
}

// report adds the losses of the router, over all tokens but padding.
func (e Experts) report(logits, probabilities, kept, documents *Node, r *attention.Result) {
	real := OnesLike(Slice(logits, AxisRange(), AxisRange(), AxisRange(0, 1))) // [b, l, 1]
	if documents != nil {
		real = InsertAxes(ConvertDType(NotEqual(documents, ZerosLike(documents)), logits.DType()), -1)
	}
	tokens := MaxScalar(ReduceAllSum(real), 1)
	mean := func(n *Node) *Node { return Div(ReduceSum(Mul(n, real), 0, 1), tokens) } // [experts]

	chosen := MulScalar(mean(ConvertDType(kept, logits.DType())), 1/float64(e.keep()))
	balance := MulScalar(ReduceAllSum(Mul(StopGradient(chosen), mean(probabilities))), float64(e.Count))
	largest := StopGradient(ReduceAndKeep(logits, ReduceMax, -1))
	norm := Add(Log(ReduceAndKeep(Exp(Sub(logits, largest)), ReduceSum, -1)), largest) // [b, l, 1]
	z := Div(ReduceAllSum(Mul(Square(norm), real)), tokens)

	for _, l := range []struct {
		name    string
		value   *Node
		penalty float64
	}{{ExpertBalance, balance, e.Balance}, {RouterZ, z, e.RouterZ}} {
		r.Losses[l.name] = l.value
		if l.penalty != 0 {
			r.Penalty = elastic.AddIf(r.Penalty, MulScalar(l.value, l.penalty))
		}
	}
}
