package loss_test

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
)

func crossEntropy(t *testing.T, logits [][]float32, labels []int32) (sum, count float64, gradient []float32) {
	t.Helper()
	out, err := graph.CallOnceN(gxtest.Backend(t), func(logits, labels *graph.Node) (*graph.Node, *graph.Node, *graph.Node) {
		sum, count := loss.CrossEntropy(logits, labels)
		return sum, count, graph.Gradient(sum, logits)[0]
	}, logits, labels)
	if err != nil {
		t.Fatal(err)
	}
	return float64(tensors.ToScalar[float32](out[0])), float64(tensors.ToScalar[float32](out[1])), tensors.MustCopyFlatData[float32](out[2])
}

func TestCrossEntropyAgainstTheFormula(t *testing.T) {
	logits := [][]float32{{1, -2, 0.5}, {3, 3, 3}, {-1, 4, 2}, {1e4, -1e4, 0}}
	labels := []int32{2, 0, loss.Ignored, 0}
	sum, count, gradient := crossEntropy(t, logits, labels)
	wantSum, wantGradient := 0.0, []float64{}
	for i, row := range logits {
		norm := 0.0
		for _, z := range row {
			norm += math.Exp(float64(z) - float64(row[argmax(row)]))
		}
		for j, z := range row {
			p := math.Exp(float64(z)-float64(row[argmax(row)])) / norm
			if labels[i] == loss.Ignored {
				p = 0
			} else if int32(j) == labels[i] {
				wantSum -= math.Log(p)
				p--
			}
			wantGradient = append(wantGradient, p)
		}
	}
	if count != 3 || math.Abs(sum-wantSum) > 1e-5 {
		t.Errorf("sum %g over %g targets, want %g over 3", sum, count, wantSum)
	}
	for i, want := range wantGradient {
		if math.Abs(float64(gradient[i])-want) > 1e-6 {
			t.Errorf("gradient %d is %g, want %g", i, gradient[i], want)
		}
	}
}

func argmax(row []float32) (best int) {
	for i := range row {
		if row[i] > row[best] {
			best = i
		}
	}
	return best
}

func TestNoTargetsGiveZero(t *testing.T) {
	sum, count, gradient := crossEntropy(t, [][]float32{{1, 2}}, []int32{loss.Ignored})
	if sum != 0 || count != 0 || gradient[0] != 0 || gradient[1] != 0 {
		t.Errorf("sum %g, count %g, gradient %v; want zeros", sum, count, gradient)
	}
}

func TestShapesAreChecked(t *testing.T) {
	_, err := graph.CallOnce(gxtest.Backend(t), func(logits, labels *graph.Node) *graph.Node {
		sum, _ := loss.CrossEntropy(logits, labels)
		return sum
	}, [][]float32{{1, 2}}, [][]int32{{0}})
	if err == nil {
		t.Error("labels of the logits' rank were accepted")
	}
}

func ExampleCrossEntropy() {
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	logits := [][]float32{{2, 0}, {0, 2}, {0, 0}}
	labels := []int32{0, 0, loss.Ignored} // right, wrong, padding
	out, err := graph.CallOnceN(engine, func(logits, labels *graph.Node) (sum, count *graph.Node) {
		return loss.CrossEntropy(logits, labels)
	}, logits, labels)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%.4f over %.0f targets\n", out[0].Value(), out[1].Value())
	// Output: 2.2539 over 2 targets
}
