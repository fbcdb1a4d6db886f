package loss_test

import (
	"fmt"
	"slices"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
)

// TestGoldenFollow: with α = 1 a criterion is what the golden cases of distillation say, sum, count and gradient; with less,
// the cross-entropy has the rest.
func TestGoldenFollow(t *testing.T) {
	cases := 0
	for i, c := range golden.Cases[goldenCase](t, golden.Dir(t, "losses")) {
		if c.Kind != "distill" {
			continue
		}
		cases++
		t.Run(fmt.Sprintf("%02d", i), func(t *testing.T) {
			tensor := func(name string) *tensors.Tensor {
				return tensors.FromFlatDataAndDimensions(c.Inputs[name].Values, c.Inputs[name].Shape...)
			}
			shape := c.Inputs["student"].Shape
			positions := len(c.Inputs["student"].Values) / shape[len(shape)-1]
			labels := make([]int32, positions) // class 0 where positions count
			if c.Where != nil {
				for i, there := range c.Where.Values {
					if !there {
						labels[i] = loss.Ignored
					}
				}
			}
			const alpha = 0.3
			out, err := CallOnceN(gxtest.Backend(t), func(student, teacher, labels *Node) []*Node {
				plain, _ := loss.CrossEntropy(student, labels)
				results := []*Node{plain, Gradient(plain, student)[0]}
				for _, follow := range []float64{1, alpha} {
					criterion := loss.Criterion{Follow: follow, Temperature: c.Options.Temperature}
					sum, count := criterion.Loss(loss.Targets{Labels: labels, Teacher: teacher}, student)
					gradients := Gradient(sum, student, teacher)
					results = append(results, sum, count, gradients[0], ReduceAllSum(Abs(gradients[1])))
				}
				return results
			}, tensor("student"), tensor("teacher"), tensors.FromFlatDataAndDimensions(labels, shape[:len(shape)-1]...))
			if err != nil {
				t.Fatal(err)
			}
			flat := func(at int) []float64 {
				var list []float64
				for _, x := range tensors.MustCopyFlatData[float32](out[at]) {
					list = append(list, float64(x))
				}
				return list
			}
			near := func(what string, got, want []float64) {
				t.Helper()
				for i := range want {
					if diff := got[i] - want[i]; !(max(diff, -diff) <= 1e-5*max(1, want[i], -want[i])) {
						t.Errorf("%s[%d] is %g, want %g", what, i, got[i], want[i])
					}
				}
			}
			var gradient, mixed []float64 // of the sum; the golden ones are of the mean
			for i, g := range c.Gradients["student"] {
				gradient = append(gradient, g*c.Count)
				mixed = append(mixed, (1-alpha)*flat(1)[i]+alpha*g*c.Count)
			}
			near("sum and count", slices.Concat(flat(2), flat(3)), []float64{c.Sum, c.Count})
			near("gradient", flat(4), gradient)
			near("mixed sum and count", slices.Concat(flat(6), flat(7)), []float64{(1-alpha)*flat(0)[0] + alpha*c.Sum, c.Count})
			near("mixed gradient", flat(8), mixed)
			near("gradients of the teacher", slices.Concat(flat(5), flat(9)), []float64{0, 0})
		})
	}
	if cases == 0 {
		t.Error("no golden cases of distillation")
	}
}

// TestTermsApart: what is kept apart adds up, with shares, to the loss with these shares, with R-Drop and class weights too; and
// without a teacher there is nothing to keep apart.
func TestTermsApart(t *testing.T) {
	teacher := [][]float32{{0, 1, 2}, {3, 1, 0}, {0, 0, 0}, {1, 0, 1}, {0, 2, 0}, {1, 1, 1}}
	const alpha = 0.3
	criterion := loss.Criterion{Classes: loss.Classes{Weights: []float64{0.5, 2, 3}}, RDrop: 1, Follow: alpha, Temperature: 2}
	out, err := CallOnceN(gxtest.Backend(t), func(logits, teacher, labels *Node) []*Node {
		targets, other := loss.Targets{Labels: labels, Teacher: teacher}, MulScalar(logits, 0.5)
		sum, count := criterion.Loss(targets, logits, other)
		apart := criterion
		apart.Apart = true
		terms, same := apart.Terms(targets, logits, other)
		return append(terms, same, sum, count)
	}, someLogits, teacher, someLabels)
	if err != nil {
		t.Fatal(err)
	}
	number := func(i int) float64 { return float64(tensors.ToScalar[float32](out[i])) }
	if len(out) != 5 || number(2) != number(4) {
		t.Fatalf("%d outputs, counts %g and %g", len(out), number(2), number(4))
	}
	gxtest.Close(t, (1-alpha)*number(0)+alpha*number(1), number(3), 1e-5*number(3))
	if _, err := CallOnce(gxtest.Backend(t), func(logits, labels *Node) *Node {
		terms, _ := loss.Criterion{Apart: true, Temperature: 2}.Terms(loss.Targets{Labels: labels}, logits)
		return loss.Total(terms)
	}, someLogits, someLabels); err == nil {
		t.Error("without a teacher: no error")
	}
}

// TestFollowInPasses: a target's weight counts for what the teacher says too, two passes count half each, and mixed
// examples have no teacher.
func TestFollowInPasses(t *testing.T) {
	teacher := [][]float32{{0, 1, 2}, {3, 1, 0}, {0, 0, 0}, {1, 0, 1}, {0, 2, 0}, {1, 1, 1}}
	out, err := CallOnceN(gxtest.Backend(t), func(logits, teacher, labels *Node) (*Node, *Node) {
		other := MulScalar(logits, 0.5)
		follow := loss.Criterion{Classes: loss.Classes{Weights: []float64{0.5, 2, 3}}, RDrop: 1, Follow: 1, Temperature: 2}
		sum, _ := follow.Loss(loss.Targets{Labels: labels, Teacher: teacher}, logits, other)
		var want *Node
		for class, weight := range follow.Weights {
			of := Equal(labels, FillScalar(labels.Graph(), labels.Shape(), float64(class)))
			for _, pass := range []*Node{logits, other} {
				part, _ := loss.Distill(pass, teacher, of, 2)
				if part = MulScalar(part, weight/2); want == nil {
					want = part
				} else {
					want = Add(want, part)
				}
			}
		}
		return sum, want
	}, someLogits, teacher, someLabels)
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, tensors.ToScalar[float32](out[0]), tensors.ToScalar[float32](out[1]), 1e-5)
}
