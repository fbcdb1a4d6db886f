package loss_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
)

// twoTasks is a model with a shared layer h = W·x, two features, and two tasks: a regression by a·h
// of y and a classification by the logits B·h. Everything is written down twice, as a graph and in
// float64.
type twoTasks struct {
	x [][]float32 // [n, 2]
	y []float32   // [n]
	c []int32     // [n]
	w [][]float32 // [2, 2]
	a []float32   // [2]
	b [][]float32 // [2, 3]
}

func newTwoTasks() twoTasks {
	random := rand.New(rand.NewPCG(4, 5))
	number := func() float32 { return float32(random.NormFloat64()) }
	matrix := func(n, m int) [][]float32 {
		rows := make([][]float32, n)
		for i := range rows {
			rows[i] = make([]float32, m)
			for j := range rows[i] {
				rows[i][j] = number()
			}
		}
		return rows
	}
	m := twoTasks{x: matrix(6, 2), w: matrix(2, 2), a: []float32{number(), number()}, b: matrix(2, 3), c: []int32{0, 2, 1, 1, 0, 2}}
	for range m.x {
		m.y = append(m.y, 5*number()) // a task of much larger losses
	}
	return m
}

// graph returns the mean losses of both tasks.
func (m twoTasks) graph(w *Node) []*Node {
	g := w.Graph()
	h := MatMul(Const(g, m.x), w)
	y := Const(g, m.y)
	squared := ReduceAllMean(Square(Sub(ReduceSum(Mul(h, ExpandLeftToRank(Const(g, m.a), 2)), -1), y)))
	sum, count := loss.CrossEntropy(MatMul(h, Const(g, m.b)), Const(g, m.c))
	return []*Node{squared, Div(sum, count)}
}

// losses computes the same in float64.
func (m twoTasks) losses(w [4]float64) [2]float64 {
	var out [2]float64
	n := float64(len(m.x))
	for i, x := range m.x {
		h := [2]float64{float64(x[0])*w[0] + float64(x[1])*w[2], float64(x[0])*w[1] + float64(x[1])*w[3]}
		d := float64(m.a[0])*h[0] + float64(m.a[1])*h[1] - float64(m.y[i])
		out[0] += d * d / n
		norm, own := 0.0, 0.0
		for k := range 3 {
			z := float64(m.b[0][k])*h[0] + float64(m.b[1][k])*h[1]
			norm += math.Exp(z)
			if int32(k) == m.c[i] {
				own = z
			}
		}
		out[1] += (math.Log(norm) - own) / n
	}
	return out
}

func (m twoTasks) shared() [4]float64 {
	return [4]float64{float64(m.w[0][0]), float64(m.w[0][1]), float64(m.w[1][0]), float64(m.w[1][1])}
}

// norms returns the norms of the gradients of both losses, by differences.
func (m twoTasks) norms() (norms [2]float64) {
	const step = 1e-5
	for i := range 4 {
		up, down := m.shared(), m.shared()
		up[i] += step
		down[i] -= step
		a, b := m.losses(up), m.losses(down)
		for task := range 2 {
			d := (a[task] - b[task]) / (2 * step)
			norms[task] += d * d
		}
	}
	return [2]float64{math.Sqrt(norms[0]), math.Sqrt(norms[1])}
}

func TestUncertainty(t *testing.T) {
	m, s := newTwoTasks(), []float32{0.7, -0.4}
	out, err := CallOnceN(gxtest.Backend(t), func(w, s *Node) (*Node, *Node, *Node) {
		total := loss.Uncertainty(m.graph(w), s, []bool{true, false})
		gradients := Gradient(total, w, s)
		return total, gradients[0], gradients[1]
	}, m.w, s)
	if err != nil {
		t.Fatal(err)
	}
	total := func(w [4]float64, s [2]float64) float64 {
		l := m.losses(w)
		return math.Exp(-s[0])*l[0]/2 + s[0]/2 + math.Exp(-s[1])*l[1] + s[1]/2
	}
	at := [2]float64{float64(s[0]), float64(s[1])}
	want := total(m.shared(), at)
	gxtest.Close(t, float64(tensors.ToScalar[float32](out[0])), want, 1e-5*want)
	const step = 1e-5
	var wantW []float64
	for i := range 4 {
		up, down := m.shared(), m.shared()
		up[i] += step
		down[i] -= step
		wantW = append(wantW, (total(up, at)-total(down, at))/(2*step))
	}
	gxtest.Close(t, tensors.MustCopyFlatData[float32](out[1]), wantW, 1e-4)
	l := m.losses(m.shared())
	gxtest.Close(t, tensors.MustCopyFlatData[float32](out[2]), []float64{0.5 - math.Exp(-at[0])*l[0]/2, 0.5 - math.Exp(-at[1])*l[1]}, 1e-5*l[0])
}

// gradNorm takes the gradients of losses with respect to one node that they share.
func gradNorm(losses []*Node, weights, initial, shared *Node, alpha float64) loss.Balancing {
	gradients := make([][]*Node, len(losses))
	for i, l := range losses {
		gradients[i] = Gradient(l, shared)
	}
	return loss.GradNorm(losses, gradients, weights, initial, alpha)
}

func TestGradNorm(t *testing.T) {
	m, weights, initial := newTwoTasks(), []float32{0.6, 1.4}, []float32{20, 1.1}
	for _, alpha := range []float64{0, 0.5, 1.5} {
		exec := MustNewExec(gxtest.Backend(t), func(w, weights, initial *Node) []*Node {
			g := gradNorm(m.graph(w), weights, initial, w, alpha)
			return []*Node{g.Norms, g.Targets, g.Gradient}
		})
		out, err := exec.Call(m.w, weights, initial)
		if err != nil {
			t.Fatal(err)
		}
		l, norms := m.losses(m.shared()), m.norms()
		var g, target, gradient [2]float64
		for i := range 2 {
			g[i] = float64(weights[i]) * norms[i]
		}
		ratio := [2]float64{l[0] / float64(initial[0]), l[1] / float64(initial[1])}
		for i := range 2 {
			rate := ratio[i] / ((ratio[0] + ratio[1]) / 2)
			target[i] = (g[0] + g[1]) / 2 * math.Pow(rate, alpha)
			gradient[i] = norms[i]
			if g[i] < target[i] {
				gradient[i] = -norms[i]
			}
		}
		for i, want := range [][2]float64{g, target, gradient} {
			gxtest.Close(t, tensors.MustCopyFlatData[float32](out[i]), want[:], 2e-5*max(math.Abs(want[0]), math.Abs(want[1])))
		}
	}
}

// TestGradNormBalances moves the weights only: the norms of the two tasks' gradients, far apart at
// first, meet.
func TestGradNormBalances(t *testing.T) {
	m, weights, initial := newTwoTasks(), []float32{1, 1}, newTwoTasks().first()
	exec := MustNewExec(gxtest.Backend(t), func(w, weights, initial *Node) []*Node {
		g := gradNorm(m.graph(w), weights, initial, w, 1)
		return []*Node{g.Norms, loss.Renormalize(Sub(weights, MulScalar(g.Gradient, 1e-3)))}
	})
	apart := func(norms []float32) float64 { return math.Abs(math.Log(float64(norms[0] / norms[1]))) }
	var before, after float64
	for step := range 2000 {
		out, err := exec.Call(m.w, weights, initial)
		if err != nil {
			t.Fatal(err)
		}
		weights = tensors.MustCopyFlatData[float32](out[1])
		after = apart(tensors.MustCopyFlatData[float32](out[0]))
		if step == 0 {
			before = after
		}
		if sum := weights[0] + weights[1]; math.Abs(float64(sum)-2) > 1e-5 || weights[0] < 0 || weights[1] < 0 {
			t.Fatalf("step %d: weights %v, want them to add up to 2", step, weights)
		}
	}
	if !(before > 1 && after < 0.1) {
		t.Errorf("logarithm of the quotient of norms went from %g to %g, want near 0", before, after)
	}
}

// first are the losses as they are before any update.
func (m twoTasks) first() []float32 {
	l := m.losses(m.shared())
	return []float32{float32(l[0]), float32(l[1])}
}

func TestTasksAreChecked(t *testing.T) {
	for name, build := range map[string]func(losses []*Node, x *Node) *Node{
		"one weight": func(l []*Node, x *Node) *Node { return loss.Uncertainty(l, x, []bool{true, true}) },
		"one kind":   func(l []*Node, x *Node) *Node { return loss.Uncertainty(l, Stack(l, 0), []bool{true}) },
		"nothing shared": func(l []*Node, x *Node) *Node {
			return loss.GradNorm(l, [][]*Node{nil, nil}, Stack(l, 0), Stack(l, 0), 1).Norms
		},
		"one gradient": func(l []*Node, x *Node) *Node {
			return loss.GradNorm(l, [][]*Node{{x}}, Stack(l, 0), Stack(l, 0), 1).Norms
		},
		"losses of texts": func(l []*Node, x *Node) *Node {
			return loss.Uncertainty([]*Node{x, x}, Stack(l, 0), []bool{true, true})
		},
		"no losses at all": func(l []*Node, x *Node) *Node { return loss.Uncertainty(nil, x, nil) },
	} {
		_, err := CallOnce(gxtest.Backend(t), func(x *Node) *Node {
			l := ReduceAllSum(x)
			return build([]*Node{l, l}, x)
		}, []float32{1})
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func ExampleUncertainty() {
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	out, err := CallOnceN(engine, func(squared, entropy, logVariances *Node) (*Node, *Node) {
		total := loss.Uncertainty([]*Node{squared, entropy}, logVariances, []bool{true, false})
		return total, Gradient(total, logVariances)[0]
	}, float32(4), float32(0.25), []float32{0, 0})
	if err != nil {
		panic(err)
	}
	fmt.Printf("%.2f, %.2f\n", out[0].Value(), out[1].Value()) // the large loss gets a larger variance, the small one a smaller
	// Output: 2.25, [-1.50 0.25]
}

func ExampleWeighing() {
	fmt.Println(loss.Weighing{Kind: loss.ByGradNorm, Exponent: 0.12}.Validate())
	fmt.Println(loss.Weighing{Kind: loss.ByUncertainty, Exponent: 0.12}.Validate())
	// Output:
	// <nil>
	// weigh.exponent is for weigh.kind "gradnorm" only, not "uncertainty"
}

// TestRenormalizeOfNothing: an update that leaves no weight above 0 begins anew.
func TestRenormalizeOfNothing(t *testing.T) {
	out, err := CallOnce(gxtest.Backend(t), loss.Renormalize, []float32{-0.5, 0, -1})
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, out, []float32{1, 1, 1}, 0)
}
