package optim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
)

// matrix is square, by rows.
type matrix [][]float64

func square(n int) matrix {
	m := make(matrix, n)
	for i := range m {
		m[i] = make([]float64, n)
	}
	return m
}

func (m matrix) times(other matrix) matrix {
	out := square(len(m))
	for i := range m {
		for j := range m {
			for k := range m {
				out[i][j] += m[i][k] * other[k][j]
			}
		}
	}
	return out
}

func (m matrix) turned() matrix {
	out := square(len(m))
	for i := range m {
		for j := range m {
			out[j][i] = m[i][j]
		}
	}
	return out
}

// rotation is orthogonal: a product of rotations in planes.
func rotation(n int, seed uint64) matrix {
	random := rand.New(rand.NewPCG(seed, 1))
	q := diagonal(n, func(int) float64 { return 1 })
	for i := range n {
		for j := range i {
			c, s := math.Cos(6*random.Float64()), 0.0
			s = math.Sqrt(1 - c*c)
			for r := range n {
				q[r][i], q[r][j] = c*q[r][i]-s*q[r][j], s*q[r][i]+c*q[r][j]
			}
		}
	}
	return q
}

func diagonal(n int, of func(i int) float64) matrix {
	m := square(n)
	for i := range n {
		m[i][i] = of(i)
	}
	return m
}

func (m matrix) tensor(dtype dtypes.DType) *tensors.Tensor {
	n := len(m)
	if dtype == dtypes.Float32 {
		var data []float32
		for _, row := range m {
			for _, x := range row {
				data = append(data, float32(x))
			}
		}
		return tensors.FromFlatDataAndDimensions(data, 1, n, n)
	}
	var data []float64
	for _, row := range m {
		data = append(data, row...)
	}
	return tensors.FromFlatDataAndDimensions(data, 1, n, n)
}

func matrixOf(t *tensors.Tensor) matrix {
	var data []float64
	if t.DType() == dtypes.Float32 {
		for _, x := range tensors.MustCopyFlatData[float32](t) {
			data = append(data, float64(x))
		}
	} else {
		data = tensors.MustCopyFlatData[float64](t)
	}
	n := t.Shape().Dimensions[1]
	m := square(n)
	for i := range n {
		copy(m[i], data[i*n:])
	}
	return m
}

// far returns the largest difference of elements.
func (m matrix) far(other matrix) float64 {
	worst := 0.0
	for i := range m {
		for j := range m {
			worst = max(worst, math.Abs(m[i][j]-other[i][j]))
		}
	}
	return worst
}

// precisions are the tests' types of numbers.
var precisions = map[dtypes.DType]float64{dtypes.Float64: 1e-12, dtypes.Float32: 2e-4}

// TestOrthogonalIteration: columns become orthonormal eigenvectors, also where panels overlap; what has no
// length stays orthonormal; no round changes nothing.
func TestOrthogonalIteration(t *testing.T) {
	for dtype, tolerance := range precisions {
		for _, c := range []struct {
			n, rank int
			ratio   float64
		}{{1, 1, 1}, {5, 5, 0.1}, {21, 3, 0.03}, {21, 21, 0.9}, {7, 0, 1}} {
			u := rotation(c.n, 3)
			values := diagonal(c.n, func(i int) float64 {
				if i >= c.rank {
					return 0
				}
				return 100 * math.Pow(c.ratio, float64(i))
			})
			m := u.times(values).times(u.turned())
			start := rotation(c.n, 4)
			exec, err := graph.NewExec(gxtest.Backend(t), orthogonalIteration)
			if err != nil {
				t.Fatal(err)
			}
			for _, rounds := range []int32{0, 1, 12} {
				name := fmt.Sprintf("%s, %+v, %d rounds", dtype, c, rounds)
				out, err := exec.Call(m.tensor(dtype), start.tensor(dtype), rounds)
				if err != nil {
					t.Fatal(name, err)
				}
				q := matrixOf(out[0])
				if rounds == 0 {
					if d := q.far(start); d > 1e-6 {
						t.Errorf("%s: turned by %g", name, d)
					}
					continue
				}
				if d := q.turned().times(q).far(diagonal(c.n, func(int) float64 { return 1 })); !(d < tolerance) {
					t.Errorf("%s: off orthonormal by %g", name, d)
				}
				if rounds > 1 && c.ratio <= 0.1 && dtype == dtypes.Float64 {
					if d := q.turned().times(m).times(q).far(values); !(d < 1e-8) {
						t.Errorf("%s: off the eigenvalues by %g", name, d)
					}
				}
			}
		}
	}
}

// TestInverseRoots: Xᵖ·A = I, and nothing is computed if it is not due.
func TestInverseRoots(t *testing.T) {
	for dtype, tolerance := range precisions {
		for _, p := range []int{1, 2, 4, 6} {
			n := 21
			u := rotation(n, 5)
			a := u.times(diagonal(n, func(i int) float64 { return 30 * math.Pow(0.7, float64(i)) })).times(u.turned())
			old := rotation(n, 6)
			exec, err := graph.NewExec(gxtest.Backend(t), func(a, old, rounds *graph.Node) *graph.Node { return inverseRoots(a, old, p, rounds) })
			if err != nil {
				t.Fatal(err)
			}
			for _, rounds := range []int32{0, newtonRounds} {
				out, err := exec.Call(a.tensor(dtype), old.tensor(dtype), rounds)
				if err != nil {
					t.Fatal(err)
				}
				x, want := matrixOf(out[0]), old
				if rounds > 0 {
					root := x
					for range p - 1 {
						x = x.times(root)
					}
					x, want = x.times(a), diagonal(n, func(int) float64 { return 1 })
				}
				if d := x.far(want); !(d < 100*tolerance) {
					t.Errorf("%s, p = %d, %d rounds: off by %g", dtype, p, rounds, d)
				}
			}
		}
	}
}

// TestSOAPIsAdamInTheEigenbasis: with gradients U·D·Vᵀ of one U and V, SOAP moves the parameters as Adam would by D, one update late.
func TestSOAPIsAdamInTheEigenbasis(t *testing.T) {
	const n, updates, rate = 5, 7, 0.01
	u, v := rotation(n, 7), rotation(n, 8)
	o, err := New(Config{Rule: SOAP{Every: 2}}, []elastic.Variable{{Path: "/w", Shape: []int{n, n}}})
	if err != nil {
		t.Fatal(err)
	}
	exec, err := graph.NewExec(gxtest.Backend(t), func(in []*graph.Node) []*graph.Node {
		values, slots, _ := o.Update(Input{Number: in[0], Rate: in[1], Values: in[2:3], Gradients: in[3:4], Slots: in[4:]})
		return append(values, slots...)
	})
	if err != nil {
		t.Fatal(err)
	}
	state := []any{tensors.FromFlatDataAndDimensions(make([]float64, n*n), n, n)}
	for _, s := range o.Slots() {
		state = append(state, tensors.FromFlatDataAndDimensions(make([]float64, s.Size()), s.Shape...))
	}
	var want [n]float64
	var m, squares [n]float64
	for step := range updates {
		d := diagonal(n, func(i int) float64 { return math.Pow(0.2, float64(i)) * (1 + 0.3*math.Sin(float64(step*(i+1)))) })
		gradient := tensors.FromFlatDataAndDimensions(tensors.MustCopyFlatData[float64](u.times(d).times(v.turned()).tensor(dtypes.Float64)), n, n)
		out, err := exec.Call(append([]any{float64(step + 1), rate, state[0], gradient}, state[1:]...)...)
		if err != nil {
			t.Fatal(err)
		}
		for i := range state {
			state[i] = out[i]
		}
		if step > 0 {
			for i := range n {
				m[i] = 0.95*m[i] + 0.05*d[i][i]
				squares[i] = 0.95*squares[i] + 0.05*d[i][i]*d[i][i]
				correction := 1 - math.Pow(0.95, float64(step))
				want[i] -= rate * math.Sqrt(correction) / correction * m[i] / (math.Sqrt(squares[i]) + 1e-8)
			}
		}
		moved := matrixOf(tensors.FromFlatDataAndDimensions(tensors.MustCopyFlatData[float64](out[0]), 1, n, n))
		if off := u.turned().times(moved).times(v).far(diagonal(n, func(i int) float64 { return want[i] })); !(off < 1e-7) {
			t.Fatalf("update %d: off by %g", step+1, off)
		}
	}
}

// TestOrthogonalOfWideMatrices: for matrices of twice the width and more, which take another way through their products, Newton and
// Schulz's steps give the same as for their singular values, U·p(S)·Vᵀ; small ones are not lost.
func TestOrthogonalOfWideMatrices(t *testing.T) {
	for dtype, tolerance := range precisions {
		for _, width := range []int{1, 2, 4} { // times the height
			const n = 6
			u, v := rotation(n, 7), rotation(n*width, 8)
			values := make([]float64, n)
			length := 0.0
			for i := range values {
				values[i] = math.Pow(0.05, float64(i))
				length += values[i] * values[i]
			}
			wide, want := make([][]float64, n), make([][]float64, n)
			for i := range n {
				wide[i], want[i] = make([]float64, n*width), make([]float64, n*width)
				for j := range n * width {
					for k, s := range values {
						x := s / (math.Sqrt(length) + 1e-8)
						for range 5 {
							x = 3.4445*x - 4.7750*math.Pow(x, 3) + 2.0315*math.Pow(x, 5)
						}
						wide[i][j] += u[i][k] * s * v[j][k]
						want[i][j] += u[i][k] * x * v[j][k]
					}
				}
			}
			for _, turned := range []bool{false, true} {
				out, err := graph.CallOnce(gxtest.Backend(t), func(x *graph.Node) *graph.Node {
					x = graph.ConvertDType(x, dtype)
					if turned {
						return graph.Transpose(orthogonal(graph.Transpose(x, 0, 1)), 0, 1)
					}
					return orthogonal(x)
				}, wide)
				if err != nil {
					t.Fatal(err)
				}
				gxtest.Close(t, out, want, tolerance)
			}
		}
	}
}
