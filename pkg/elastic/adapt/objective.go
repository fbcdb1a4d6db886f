package adapt

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Signals is what a model computes for a micro-batch, as objectives see it.
type Signals struct {
	Logits *Node // [rows, classes]
	Labels *Node // int32 [rows]; only rows that count are read
	Counts *Node // 1 for rows that count, 0 for others: [rows]
	// Attentions holds each layer's attention weights, [batch, heads, queries, keys], and
	// Queries 1 for queries that are tokens, 0 for padding: [batch, queries].
	Attentions []*Node
	Queries    *Node
	// Losses is what the parts of each layer's attention report, by kind: scalars.
	Losses []map[string]*Node
}

// Custom computes an objective of the caller's, a scalar; a strategy names it "custom".
type Custom func(Signals) *Node

// Objective is a term of F(w). With p the softmax of a row's logits z, y its label, a the
// attention weights, means over rows (or heads and queries) that count:
//
//	entropy             mean of H(p) = −Σ p·ln p                 (Grandvalet, Bengio 2004)
//	margin              mean of max(0, Margin + max_{j≠y} zⱼ − z_y)   (Crammer, Singer 2001)
//	calibration         (mean of max p − share of rows with argmax p = y)²: confidence that
//	                    differs from accuracy (Liang et al. 2020, DCA, there the absolute value)
//	mutual_information  mean of H(p) − H(mean p) = −I(x; y): sure of each, even over all
//	                                                            (Krause et al. 2010, RIM)
//	attention_entropy   mean of −Σ |a|·ln |a| over keys: sparse attention (Zhai et al. 2023 bound it)
//	span                mean span over layers, in positions; for attention with a span
//	                                                            (Sukhbaatar et al. 2019)
//	custom              what the caller's function computes
type Objective struct {
	Kind   string  `json:"kind"`
	Weight float64 `json:"weight"` // negative maximises
	// Margin of "margin"; 0 means 1.
	Margin float64 `json:"margin,omitempty"`
}

// objectives maps the kinds to what they compute. Custom is nil here: it has no formula.
var objectives = map[string]func(o Objective, s Signals) *Node{
	"entropy": func(_ Objective, s Signals) *Node {
		return mean(entropyOf(s.Logits), s.Counts)
	},
	"margin": func(o Objective, s Signals) *Node {
		truth := s.truth()
		own := ReduceSum(Mul(truth, s.Logits), -1)
		best := ArgMax(StopGradient(Sub(s.Logits, MulScalar(truth, 1e9))), -1) // one of those that are equal, with all of the gradient
		rival := ReduceSum(Mul(OneHot(best, s.Logits.Shape().Dimensions[1], s.Logits.DType()), s.Logits), -1)
		short := AddScalar(Sub(rival, own), o.margin())
		return mean(Max(short, ZerosLike(short)), s.Counts)
	},
	"calibration": func(_ Objective, s Signals) *Node {
		p := Softmax(s.Logits, -1)
		best := OneHot(ArgMax(StopGradient(s.Logits), -1), p.Shape().Dimensions[1], p.DType())
		confidence := ReduceSum(Mul(p, best), -1)
		right := ReduceSum(Mul(best, s.truth()), -1)
		return Square(mean(Sub(confidence, right), s.Counts))
	},
	"mutual_information": func(_ Objective, s Signals) *Node {
		p := Softmax(s.Logits, -1)
		total := ReduceSum(Mul(p, InsertAxes(s.Counts, -1)), 0)
		q := Mul(total, Reciprocal(MaxScalar(ReduceAllSum(s.Counts), 1)))
		return Add(mean(entropyOf(s.Logits), s.Counts), ReduceAllSum(Mul(q, Log(MaxScalar(q, tiny)))))
	},
	"attention_entropy": func(_ Objective, s Signals) *Node {
		var total *Node
		for _, a := range s.Attentions {
			size := Abs(a)                                                                // weights of differential attention may be negative
			h := ReduceMean(Neg(ReduceSum(Mul(size, Log(MaxScalar(size, tiny))), -1)), 1) // [b, q]
			total = elastic.AddIf(total, mean(h, ConvertDType(s.Queries, h.DType())))
		}
		if total == nil {
			exceptions.Panicf("objective attention_entropy: the model reports no attention weights")
		}
		return MulScalar(total, 1/float64(len(s.Attentions)))
	},
	"span": func(_ Objective, s Signals) *Node {
		var total *Node
		for _, losses := range s.Losses {
			span, ok := losses["span"]
			if !ok {
				exceptions.Panicf("objective span: the model's attention has no span; want a part \"span\" in its spec")
			}
			total = elastic.AddIf(total, span)
		}
		if total == nil {
			exceptions.Panicf("objective span: the model has no attention")
		}
		return MulScalar(total, 1/float64(len(s.Losses)))
	},
	"custom": nil,
}

// tiny keeps logarithms finite where a probability is 0.
const tiny = 1e-12

// Objectives lists the kinds that Objective.Kind may name, sorted.
func Objectives() []string { return slices.Sorted(maps.Keys(objectives)) }

func (o Objective) margin() float64 {
	if o.Margin == 0 {
		return 1
	}
	return o.Margin
}

func (o Objective) validate(path string) error {
	var problems []error
	if _, ok := objectives[o.Kind]; !ok {
		problems = append(problems, fmt.Errorf("%s.kind %q is unknown; known: %s", path, o.Kind, strings.Join(Objectives(), ", ")))
	}
	if o.Weight == 0 || math.IsNaN(o.Weight) || math.IsInf(o.Weight, 0) {
		problems = append(problems, fmt.Errorf("%s.weight is %g, want a finite number that is not 0", path, o.Weight))
	}
	if !(o.Margin >= 0) || math.IsInf(o.Margin, 0) || o.Margin != 0 && o.Kind != "margin" {
		problems = append(problems, fmt.Errorf("%s.margin is %g, want a positive number, for kind \"margin\" only", path, o.Margin))
	}
	return errors.Join(problems...)
}

// Check reports a custom objective without a function, and a function without an objective.
func (s Strategy) Check(custom Custom) error {
	named := slices.ContainsFunc(s.Objective, func(o Objective) bool { return o.Kind == "custom" })
	switch {
	case named && custom == nil:
		return errors.New("the strategy has an objective \"custom\", but no function came with it")
	case !named && custom != nil:
		return errors.New("a custom objective came without an entry in the strategy: add one of kind \"custom\", with its weight")
	}
	return nil
}

// Total returns Σ weight·objective, a scalar, or nil if s has none. Custom may be nil if s does not
// name it.
func (s Strategy) Total(signals Signals, custom Custom) *Node {
	var total *Node
	for _, o := range s.Objective {
		var value *Node
		if o.Kind == "custom" {
			value = custom(signals)
		} else {
			value = objectives[o.Kind](o, signals)
		}
		total = elastic.AddIf(total, MulScalar(value, o.Weight))
	}
	return total
}

// truth has a 1 at each row's label, 0 in rows that do not count: [rows, classes].
func (s Signals) truth() *Node {
	if s.Labels == nil {
		exceptions.Panicf("this objective needs labels")
	}
	valid := Max(s.Labels, ZerosLike(s.Labels))
	truth := OneHot(valid, s.Logits.Shape().Dimensions[1], s.Logits.DType())
	return Mul(truth, InsertAxes(s.Counts, -1))
}

// entropyOf returns the entropy of each row of softmax(logits), in nats.
func entropyOf(logits *Node) *Node {
	shifted := Sub(logits, StopGradient(ReduceAndKeep(logits, ReduceMax, -1)))
	logP := Sub(shifted, Log(ReduceAndKeep(Exp(shifted), ReduceSum, -1)))
	return Neg(ReduceSum(Mul(Exp(logP), logP), -1))
}

// mean is Σ weight·n / Σ weight, 0 where nothing has weight.
func mean(n, weight *Node) *Node {
	return Mul(ReduceAllSum(Mul(n, weight)), Reciprocal(MaxScalar(ReduceAllSum(weight), 1)))
}
