package transformer

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
)

// The kinds that Depth.Kind may name.
const (
	// ACT is adaptive computation time: each token has its own number of layers; see [Halt].
	ACT = "act"
	// EarlyExit puts a head after every layer; [Runner] leaves at the first that is sure.
	EarlyExit = "early_exit"
)

// The kinds that Depth.Rule may name: when an exit is sure of a prediction.
const (
	// Entropy leaves when the entropy of the prediction, divided by that of no knowledge, is
	// below the threshold: H(p) / ln(labels) < threshold.
	//
	// Source: Xin et al. 2020, "DeeBERT: dynamic early exiting for accelerating BERT inference".
	Entropy = "entropy"
	// Confidence leaves when the probability of the likeliest label is above the threshold.
	Confidence = "confidence"
	// Patience leaves when so many exits in succession agreed with the one before them.
	//
	// Source: Zhou et al. 2020, "BERT loses patience: fast and robust inference with early exit".
	Patience = "patience"
)

// The kinds that Depth.Loss may name: how the losses of exits are joined.
const (
	// SumLoss adds them up. Source: Elbayad et al. 2020, "Depth-adaptive transformer",
	// section 3.1, aligned training with equal weights.
	SumLoss = "sum"
	// WeightedLoss is their mean, weighted by the number of the layer: Σ i·Lᵢ / Σ i.
	// Source: Zhou et al. 2020, equation 5.
	WeightedLoss = "weighted"
)

// Depth lets the number of layers follow the input.
type Depth struct {
	// Kind is a kind that [DepthKinds] lists.
	Kind string `json:"kind"`

	// Epsilon of "act": a token halts when its halting probabilities reach 1−Epsilon; 0
	// means 0.01.
	Epsilon float64 `json:"epsilon,omitempty"`
	// Penalty of "act" is what a layer costs, τ: the mean ponder cost times it is added to the
	// training loss.
	Penalty float64 `json:"penalty,omitempty"`

	// Rule of "early_exit" is a kind that [ExitRules] lists; empty means "entropy".
	Rule string `json:"rule,omitempty"`
	// Threshold of the rule; 0 never leaves early.
	Threshold float64 `json:"threshold,omitempty"`
	// Loss of "early_exit" is "sum" or "weighted"; empty means "weighted".
	Loss string `json:"loss,omitempty"`
}

// DepthKinds lists the kinds that Depth.Kind may name, sorted.
func DepthKinds() []string { return []string{ACT, EarlyExit} }

// ExitRules lists the kinds that Depth.Rule may name, sorted.
func ExitRules() []string { return []string{Confidence, Entropy, Patience} }

func (d Depth) rule() string {
	if d.Rule == "" {
		return Entropy
	}
	return d.Rule
}

func (d Depth) epsilon() float64 {
	if d.Epsilon == 0 {
		return 0.01
	}
	return d.Epsilon
}

// validate reports all that is wrong with d in a model.
func (d Depth) validate(c Config) error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf("depth."+format, args...)) }
	switch d.Kind {
	case ACT:
		if !(d.Epsilon >= 0 && d.Epsilon < 1) {
			add("epsilon is %g, want 0 < ε < 1, or 0 for 0.01", d.Epsilon)
		}
		if !(d.Penalty >= 0) || math.IsInf(d.Penalty, 1) {
			add("penalty is %g, want 0 or more", d.Penalty)
		}
		if d.Rule != "" || d.Threshold != 0 || d.Loss != "" {
			add("rule, threshold and loss are for depth.kind %q only, not %q", EarlyExit, d.Kind)
		}
	case EarlyExit:
		if d.Epsilon != 0 || d.Penalty != 0 {
			add("epsilon and penalty are for depth.kind %q only, not %q", ACT, d.Kind)
		}
		if !slices.Contains(ExitRules(), d.rule()) {
			add("rule %q is unknown; known: %s", d.Rule, strings.Join(ExitRules(), ", "))
		} else if most := map[string]float64{Entropy: 1, Confidence: 1, Patience: math.MaxInt32}[d.rule()]; !(d.Threshold >= 0 && d.Threshold <= most) {
			add("threshold is %g, want 0 to %g for rule %q", d.Threshold, most, d.rule())
		} else if d.rule() == Patience && d.Threshold != math.Trunc(d.Threshold) {
			add("threshold is %g, want a whole number for rule %q", d.Threshold, Patience)
		}
		if !slices.Contains([]string{"", SumLoss, WeightedLoss}, d.Loss) {
			add("loss %q is unknown; known: %s", d.Loss, strings.Join([]string{SumLoss, WeightedLoss}, ", "))
		}
		if len(c.Head.Labels) < 2 {
			add("kind %q needs a head with at least two labels, head.kind %q has %d", EarlyExit, c.Head.Kind, len(c.Head.Labels))
		}
	default:
		add("kind %q is unknown; known: %s", d.Kind, strings.Join(DepthKinds(), ", "))
	}
	if c.Decoder != nil {
		add("kind %q is for encoders only, and the model has a decoder", d.Kind)
	}
	return errors.Join(problems...)
}

// haltBias is the initial bias of halting: each layer gives a token little of its weight, so
// that a pretrained model begins near what it was.
const haltBias = -3

// variables lists the weights, with paths relative to /depth.
func (d Depth) variables(c Config) []elastic.Variable {
	if d.Kind == ACT {
		list := elastic.Under("halt", elastic.DenseVariables(c.Hidden, 1, c.InitStd))
		list[1].Init.Value = haltBias
		return list
	}
	var list []elastic.Variable
	for i := range c.Layers - 1 { // the last exit is the model's head
		list = append(list, elastic.Under(exitName(i), heads[c.Head.Kind].variables(c))...)
	}
	return list
}

func exitName(i int) string { return fmt.Sprintf("exit_%d", i) }

// Halting is what adaptive computation time computes.
type Halting struct {
	Mixture *Node // [batch, length, hidden]: the states, each with the weight of its layer
	Steps   *Node // [batch, length]: layers that a token took, N
	Ponder  *Node // [batch, length]: ponder cost N + R, with R the weight of the last layer

	sum     *Node // [batch, length]: halting probabilities so far
	running *Node // [batch, length]: 1 for a token that has not halted, else 0
}

// Halt mixes the states of layers, each [batch, length, hidden], by halting logits, each
// [batch, length]. With pₙ = σ(logitₙ), a token takes layers until its probabilities reach
// 1−ε, or to the last:
//
//	N = min{n : p₁ + … + pₙ ≥ 1−ε}
//	R = 1 − (p₁ + … + p₍N−1₎)
//	y = Σₙ₍<N₎ pₙ·xₙ + R·x_N
//
// The ponder cost is N + R, whose gradient is that of R: N is counted, not differentiated.
//
// Source: Graves 2016, "Adaptive computation time for recurrent neural networks",
// equations 5 to 9 and 13; Dehghani et al. 2019, "Universal transformers", section 2.2. There
// the same layer is repeated; here layers may differ, and one that a token does not take any
// more is computed for it all the same, since others attend to its state.
func Halt(logits, states []*Node, epsilon float64) Halting {
	if len(logits) == 0 || len(logits) != len(states) {
		exceptions.Panicf("halting needs a logit for each state, got %d and %d", len(logits), len(states))
	}
	h := newHalting(states[0], OnesLike(logits[0]))
	for n := range logits {
		h = h.step(logits[n], states[n], epsilon, n == len(logits)-1)
	}
	return h
}

// newHalting begins, before the first layer, with the tokens that run, [b, l].
func newHalting(x, running *Node) Halting {
	zero := ZerosLike(running)
	return Halting{Mixture: ZerosLike(x), Steps: zero, Ponder: zero, sum: zero, running: running}
}

// step takes one layer.
func (h Halting) step(logit, x *Node, epsilon float64, last bool) Halting {
	if x.Rank() != 3 || logit.Rank() != 2 {
		exceptions.Panicf("halting needs logits [batch, length] and states [batch, length, hidden], got %s and %s", logit.Shape(), x.Shape())
	}
	p := Sigmoid(logit)
	halts := OnesLike(p)
	if !last {
		halts = ConvertDType(GreaterOrEqual(Add(h.sum, p), AddScalar(ZerosLike(p), 1-epsilon)), p.DType())
	}
	halts = Mul(h.running, halts)       // 1 for a token whose last layer this is
	goes := Sub(h.running, halts)       // 1 for one that takes the next as well
	rest := Mul(halts, OneMinus(h.sum)) // R
	weight := Add(rest, Mul(goes, p))   // [b, l]
	return Halting{
		Mixture: Add(h.Mixture, Mul(InsertAxes(weight, -1), x)),
		Steps:   Add(h.Steps, h.running),
		Ponder:  Add(h.Ponder, Add(h.running, rest)),
		sum:     Add(h.sum, Mul(goes, p)),
		running: goes,
	}
}

// logit returns the halting logits of states x, [b, l].
func (d Depth) logit(w elastic.Weights, x *Node) *Node {
	return Squeeze(elastic.Dense(w.In("depth").In("halt"), x), -1)
}

// halt takes the mixture of an encoder's layers for its output. Padding neither runs nor costs.
func (d Depth) halt(w elastic.Weights, in Inputs, out *Output) {
	states := out.States[1:]
	logits := make([]*Node, len(states))
	for n, x := range states {
		logits[n] = d.logit(w, x)
	}
	real := in.real(states[0].DType())
	out.Halting = Halt(logits, states, d.epsilon())
	out.Hidden = out.Halting.Mixture
	if d.Penalty != 0 {
		mean := Div(ReduceAllSum(Mul(out.Halting.Ponder, real)), MaxScalar(ReduceAllSum(real), 1))
		out.Penalty = elastic.AddIf(out.Penalty, MulScalar(mean, d.Penalty))
	}
}

// real returns 1 for tokens and 0 for padding, [b, l].
func (in Inputs) real(dtype dtypes.DType) *Node {
	documents := in.documents()
	return ConvertDType(NotEqual(documents, ZerosLike(documents)), dtype)
}

// Exits returns the logits of all exits of an encoder's output, in the order of the layers;
// the last is the model's head. A model without early exits has that one only.
func (c Config) Exits(w elastic.Weights, out Output, drop *dropout.Source) []*Node {
	var list []*Node
	if c.Depth != nil && c.Depth.Kind == EarlyExit {
		for i := range c.Layers - 1 {
			list = append(list, c.exit(w, i, out.States[i+1], drop))
		}
	}
	return append(list, c.HeadLogits(w, out.Hidden, drop))
}

// exit computes the head after the i-th layer on that layer's output.
func (c Config) exit(w elastic.Weights, i int, x *Node, drop *dropout.Source) *Node {
	if i == c.Layers-1 {
		return c.HeadLogits(w, x, drop)
	}
	return heads[c.Head.Kind].logits(c, w, w.In("depth").In(exitName(i)), c.finish(w, x), nil, drop)
}

// exitWeights returns the weight of each exit's loss.
func (d Depth) exitWeights(exits int) []float64 {
	weights := make([]float64, exits)
	for i := range weights {
		weights[i] = 1
		if d.Loss != SumLoss {
			weights[i] = float64(i+1) * 2 / float64(exits*(exits+1))
		}
	}
	return weights
}
