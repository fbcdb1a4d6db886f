package loss_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
)

var (
	someLogits = [][]float32{{1, -2, 0.5}, {3, 3, 3}, {-1, 4, 2}, {0.3, -0.2, 0}, {2, -7, 1}, {0.1, 0.2, 0.3}}
	someLabels = []int32{2, 0, loss.Ignored, 0, 1, 2}
)

// lossOf computes sum, count and the gradient of the sum with respect to the logits.
func lossOf(t *testing.T, criterion loss.Criterion, logits [][]float32, labels []int32) (sum, count float32, gradient []float32) {
	t.Helper()
	return compiled(t, criterion)(logits, labels)
}

// compiled returns what computes lossOf of batches, with one compilation for each number of targets.
func compiled(t *testing.T, criterion loss.Criterion) func(logits [][]float32, labels []int32) (sum, count float32, gradient []float32) {
	t.Helper()
	exec := MustNewExec(gxtest.Backend(t), func(logits, labels *Node) (*Node, *Node, *Node) {
		passes := []*Node{logits}
		if criterion.Passes() == 2 {
			passes = append(passes, MulScalar(logits, 0.5))
		}
		sum, count := criterion.Loss(loss.Targets{Labels: labels}, passes...)
		return sum, count, Gradient(sum, logits)[0]
	})
	return func(logits [][]float32, labels []int32) (sum, count float32, gradient []float32) {
		t.Helper()
		out, err := exec.Call(logits, labels)
		if err != nil {
			t.Fatal(err)
		}
		return tensors.ToScalar[float32](out[0]), tensors.ToScalar[float32](out[1]), tensors.MustCopyFlatData[float32](out[2])
	}
}

func TestNeutralOptionsChangeNothing(t *testing.T) {
	wantSum, wantCount, wantGradient := crossEntropy(t, someLogits, someLabels)
	for name, classes := range map[string]loss.Classes{
		"zero value": {}, "weights of 1": {Weights: []float64{1, 1, 1}}, "no smoothing, no focus": {Smoothing: 0, Focus: 0},
	} {
		sum, count, gradient := lossOf(t, loss.Criterion{Classes: classes}, someLogits, someLabels)
		if float64(sum) != wantSum || float64(count) != wantCount || !slices.Equal(gradient, wantGradient) {
			t.Errorf("%s: sum %v, count %v, gradient %v; want bit for bit %v, %v, %v", name, sum, count, gradient, wantSum, wantCount, wantGradient)
		}
	}
}

// TestMicroBatchesAddUp parts the targets into batches of unequal size, one of them without any.
func TestMicroBatchesAddUp(t *testing.T) {
	for name, criterion := range map[string]loss.Criterion{
		"weights":            {Classes: loss.Classes{Weights: []float64{0.1, 2.5, 0.7}}},
		"weights, smoothing": {Classes: loss.Classes{Weights: []float64{0.1, 2.5, 0.7}, Smoothing: 0.2}},
		"weights, focus":     {Classes: loss.Classes{Weights: []float64{0.1, 2.5, 0.7}, Focus: 2}},
		"weights, r-drop":    {Classes: loss.Classes{Weights: []float64{0.1, 2.5, 0.7}}, RDrop: 3},
	} {
		t.Run(name, func(t *testing.T) {
			lossOf := compiled(t, criterion)
			wantSum, wantCount, wantGradient := lossOf(someLogits, someLabels)
			var sum, count float32
			var gradient []float32
			for _, part := range [][2]int{{0, 1}, {1, 2}, {2, 3}, {3, 6}} {
				s, c, g := lossOf(someLogits[part[0]:part[1]], someLabels[part[0]:part[1]])
				sum, count, gradient = sum+s, count+c, append(gradient, g...)
			}
			gxtest.Close(t, []float32{sum, count}, []float32{wantSum, wantCount}, 2e-6)
			gxtest.Close(t, gradient, wantGradient, 1e-6)
			if wantWeights := float32(0.1 + 0.1 + 2.5 + 0.7 + 0.7); math.Abs(float64(count-wantWeights)) > 1e-6 {
				t.Errorf("count is %g, want the weights of the targets, %g", count, wantWeights)
			}
		})
	}
}

func TestFocusStaysFinite(t *testing.T) {
	for _, focus := range []float64{0.01, 0.5, 1, 5} {
		sum, _, gradient := lossOf(t, loss.Criterion{Classes: loss.Classes{Focus: focus}}, [][]float32{{1e4, -1e4, 0}, {-1e4, 1e4, 0}}, []int32{0, 0})
		if sum != 2e4 {
			t.Errorf("focus %g: a sure hit and a sure miss cost %g, want 20000", focus, sum)
		}
		for _, x := range gradient {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				t.Errorf("focus %g: gradient is %v", focus, gradient)
			}
		}
	}
}

func TestPassesAreChecked(t *testing.T) {
	_, err := CallOnce(gxtest.Backend(t), func(logits, labels *Node) *Node {
		sum, _ := loss.Criterion{RDrop: 1}.Loss(loss.Targets{Labels: labels}, logits)
		return sum
	}, someLogits, someLabels)
	if err == nil {
		t.Error("R-Drop took one pass")
	}
	_, err = CallOnce(gxtest.Backend(t), func(logits, labels *Node) *Node {
		sum, _ := loss.Classes{Weights: []float64{1, 2}}.CrossEntropy(logits, labels)
		return sum
	}, someLogits, someLabels)
	if err == nil {
		t.Error("two weights served three classes")
	}
}

// mixture returns the shares and partners of n examples under a key, n even.
func mixture(t *testing.T, alpha float64, n, exist int, step uint64) (shares []float32, partners []int32) {
	t.Helper()
	there, parity := make([]bool, n), make([]float32, n)
	for i := range n {
		there[i], parity[i] = i < exist, float32(i%2)
	}
	out, err := CallOnceN(gxtest.Backend(t), func(key, there, parity *Node) (*Node, *Node) {
		m := loss.NewMixture(dropout.NewSource(key), there, alpha)
		return m.Mix(parity), m.Partners(Iota(key.Graph(), shapes.Make(dtypes.Int32, n), 0))
	}, dropout.Key(1, step), there, parity)
	if err != nil {
		t.Fatal(err)
	}
	shares = tensors.MustCopyFlatData[float32](out[0])
	for i := range shares { // neighbours differ: 0·λ + 1·(1−λ), 1·λ + 0·(1−λ)
		if i%2 == 0 {
			shares[i] = 1 - shares[i]
		}
	}
	return shares, tensors.MustCopyFlatData[int32](out[1])
}

func TestMixtureIsOfTheNextExample(t *testing.T) {
	shares, partners := mixture(t, 0.4, 6, 4, 3)
	if want := []int32{1, 2, 3, 0, 0, 0}; !slices.Equal(partners, want) {
		t.Errorf("partners are %v, want %v", partners, want)
	}
	again, _ := mixture(t, 0.4, 6, 4, 3)
	other, _ := mixture(t, 0.4, 6, 4, 4)
	if !slices.Equal(shares, again) || slices.Equal(shares, other) {
		t.Errorf("shares %v; with the same key %v, with another one %v", shares, again, other)
	}
}

// TestSharesAreBeta compares moments with those of Beta(α, α): mean ½, variance 1/(4·(2α+1)).
func TestSharesAreBeta(t *testing.T) {
	for _, alpha := range []float64{0.1, 0.4, 1, 5} {
		var mean, square, n float64
		shares, _ := mixture(t, alpha, 4000, 4000, 1)
		for _, x := range shares {
			if !(x >= 0 && x <= 1) {
				t.Fatalf("α = %g: a share is %g", alpha, x)
			}
			mean += float64(x)
			square += float64(x) * float64(x)
			n++
		}
		mean /= n
		variance := square/n - mean*mean
		want := 1 / (4 * (2*alpha + 1))
		if math.Abs(mean-0.5) > 5*math.Sqrt(want/n) || math.Abs(variance/want-1) > 0.1 {
			t.Errorf("α = %g: mean %.4f, variance %.4f over %g draws; want 0.5 and %.4f", alpha, mean, variance, n, want)
		}
	}
}

// TestMixedLoss computes mixup's loss in plain Go from the shares.
func TestMixedLoss(t *testing.T) {
	logits, labels := someLogits[:2], []int32{2, 0}
	weights := []float64{0.5, 1, 3}
	out, err := CallOnceN(gxtest.Backend(t), func(key, logits, labels *Node) (*Node, *Node, *Node) {
		m := loss.NewMixture(dropout.NewSource(key), OnesLike(ConvertDType(labels, dtypes.Bool)), 0.7)
		sum, count := loss.Criterion{Classes: loss.Classes{Weights: weights}, Mixup: 0.7}.Loss(loss.Targets{Labels: labels, Mixture: m}, logits)
		return sum, count, m.Mix(ConvertDType(Iota(key.Graph(), shapes.Make(dtypes.Int32, 2), 0), dtypes.Float32))
	}, dropout.Key(1, 1), logits, labels)
	if err != nil {
		t.Fatal(err)
	}
	mixed := tensors.MustCopyFlatData[float32](out[2]) // 0·λ₀ + 1·(1−λ₀) and 1·λ₁
	shares := []float64{1 - float64(mixed[0]), float64(mixed[1])}
	var sum, count float64
	for i := range 2 {
		z, norm := make([]float64, 3), 0.0
		for j := range z {
			z[j] = shares[i]*float64(logits[i][j]) + (1-shares[i])*float64(logits[1-i][j])
			norm += math.Exp(z[j])
		}
		for _, part := range []struct {
			label int32
			share float64
		}{{labels[i], shares[i]}, {labels[1-i], 1 - shares[i]}} {
			w := weights[part.label] * part.share
			sum += w * (math.Log(norm) - z[part.label])
			count += w
		}
	}
	gxtest.Close(t, []float64{float64(tensors.ToScalar[float32](out[0])), float64(tensors.ToScalar[float32](out[1]))}, []float64{sum, count}, 2e-6)
}

func TestTeachersDoNotLearn(t *testing.T) {
	for name, compare := range map[string]func(student, teacher *Node) (sum, count *Node){
		"logits":  func(s, t *Node) (sum, count *Node) { return loss.Distill(s, t, nil, 2) },
		"squares": func(s, t *Node) (sum, count *Node) { return loss.HiddenSquares(s, t, nil) },
		"cosine":  func(s, t *Node) (sum, count *Node) { return loss.HiddenCosine(s, t, nil) },
	} {
		out, err := CallOnceN(gxtest.Backend(t), func(student, teacher *Node) (*Node, *Node) {
			sum, _ := compare(student, teacher)
			gradients := Gradient(sum, student, teacher)
			return ReduceAllSum(Square(gradients[0])), ReduceAllSum(Square(gradients[1]))
		}, [][]float32{{1, 2, -1}}, [][]float32{{0, 3, 1}})
		if err != nil {
			t.Fatal(err)
		}
		if of, by := tensors.ToScalar[float32](out[0]), tensors.ToScalar[float32](out[1]); of == 0 || by != 0 {
			t.Errorf("%s: gradients of student and teacher have squares %g and %g, want only the student's", name, of, by)
		}
	}
}

func TestNothingIsMixed(t *testing.T) {
	_, err := CallOnce(gxtest.Backend(t), func(key, exist *Node) *Node {
		if loss.NewMixture(nil, exist, 1) != nil || loss.NewMixture(dropout.NewSource(key), exist, 0) != nil {
			t.Error("a mixture was made without a source, or with α = 0")
		}
		var none *loss.Mixture
		if none.Mix(exist) != exist {
			t.Error("no mixture changes what it is given")
		}
		return LogicalNot(exist)
	}, dropout.Key(1, 1), []bool{true, true})
	if err != nil {
		t.Fatal(err)
	}
}

func ExampleCriterion() {
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	config := loss.Config{LabelSmoothing: 0.1, ClassWeights: map[string]float64{"spam": 3}, RDrop: 1}
	criterion, err := config.Criterion([]string{"ham", "spam"}, nil)
	if err != nil {
		panic(err)
	}
	fmt.Println("passes:", criterion.Passes())
	first, second := [][]float32{{2, 0}, {0, 2}}, [][]float32{{1, 0}, {0, 2}} // with different dropout
	out, err := CallOnceN(engine, func(first, second, labels *Node) (sum, count *Node) {
		return criterion.Loss(loss.Targets{Labels: labels}, first, second)
	}, first, second, []int32{0, 1})
	if err != nil {
		panic(err)
	}
	fmt.Printf("%.4f over %.0f\n", out[0].Value(), out[1].Value())
	// Output:
	// passes: 2
	// 1.0101 over 4
}

func ExampleDistill() {
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	student, teacher := [][]float32{{1, 0}}, [][]float32{{3, 0}}
	out, err := CallOnceN(engine, func(student, teacher *Node) (sum, count *Node) {
		return loss.Distill(student, teacher, nil, 2)
	}, student, teacher)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%.4f over %.0f\n", out[0].Value(), out[1].Value())
	// Output: 0.3610 over 1
}
