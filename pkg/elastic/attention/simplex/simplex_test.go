package simplex_test

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
	"github.com/elastic-attention/workbench/pkg/elastic/attention/simplex"
)

func call(t *testing.T, of func(logits *Node) *Node, logits any) []float32 {
	t.Helper()
	out, err := CallOnce(gxtest.Backend(t), of, logits)
	if err != nil {
		t.Fatal(err)
	}
	return tensors.MustCopyFlatData[float32](out)
}

// bisect is entmax by 100 halvings in float64, from its definition.
func bisect(s []float64, alpha float64) []float64 {
	greatest := math.Inf(-1)
	for _, v := range s {
		greatest = max(greatest, (alpha-1)*v)
	}
	low, high := greatest-1, greatest
	weights := make([]float64, len(s))
	for range 100 {
		tau, sum := (low+high)/2, 0.0
		for i, v := range s {
			weights[i] = math.Pow(max((alpha-1)*v-tau, 0), 1/(alpha-1))
			sum += weights[i]
		}
		if sum >= 1 {
			low = tau
		} else {
			high = tau
		}
	}
	return weights
}

// TestEntmaxIsWhatItsDefinitionSays compares random rows, long ones and flat ones too,
// with a search in float64.
func TestEntmaxIsWhatItsDefinitionSays(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, alpha := range []float64{1.02, 1.1, 1.33, 1.5, 1.8, 2, 2.5, 4} {
		for _, scale := range []float64{0, 0.01, 1, 10, 1000} {
			for _, size := range []int{1, 2, 17, 600} {
				logits, wide := make([]float32, size), make([]float64, size)
				for i := range logits {
					logits[i] = float32(random.NormFloat64() * scale)
					wide[i] = float64(logits[i])
				}
				got := call(t, func(x *Node) *Node { return simplex.Entmax(x, nil, alpha) }, [][]float32{logits})
				want := bisect(wide, alpha)
				for i := range got {
					// Near α = 1 the exponent 1/(α−1) multiplies the rounding of float32.
					if diff := math.Abs(float64(got[i]) - want[i]); !(diff <= 2e-6/(alpha-1)*max(1, scale/10)) {
						t.Fatalf("α %g, scale %g, size %d: weight %d is %g, want %g", alpha, scale, size, i, got[i], want[i])
					}
				}
			}
		}
	}
}

// TestLearnedEntmaxAtFixedAlpha: the two ways to give α agree.
func TestLearnedEntmaxAtFixedAlpha(t *testing.T) {
	logits := [][]float32{{1, -2, 0.5, 0.7}, {3, 3, 3, 2.9}}
	for _, alpha := range []float64{1.25, 1.5, 2} {
		want := call(t, func(x *Node) *Node { return simplex.Entmax(x, nil, alpha) }, logits)
		got := call(t, func(x *Node) *Node {
			return simplex.LearnedEntmax(x, nil, Const(x.Graph(), [][]float32{{float32(alpha)}, {float32(alpha)}}))
		}, logits)
		gxtest.Close(t, got, want, 1e-6)
	}
}

func TestTopKKeepsTies(t *testing.T) {
	got := call(t, func(x *Node) *Node { return simplex.TopK(x, nil, 2) }, [][]float32{{1, 0, 0, -1}})
	e := math.E
	gxtest.Close(t, got, []float64{e / (e + 2), 1 / (e + 2), 1 / (e + 2), 0}, 1e-6)
}

func ExampleEntmax() {
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	logits := []float32{2, 1, 0, -3}
	for _, alpha := range []float64{1, 1.5, 2} {
		out, err := CallOnce(engine, func(x *Node) *Node { return simplex.Entmax(x, nil, alpha) }, logits)
		if err != nil {
			panic(err)
		}
		fmt.Printf("α %.1f: %.3f\n", alpha, tensors.MustCopyFlatData[float32](out))
	}
	// Output:
	// α 1.0: [0.662 0.244 0.090 0.004]
	// α 1.5: [0.831 0.169 0.000 0.000]
	// α 2.0: [1.000 0.000 0.000 0.000]
}
