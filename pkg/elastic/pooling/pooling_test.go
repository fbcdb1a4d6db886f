package pooling_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
	"github.com/elastic-attention/workbench/pkg/elastic/pooling"
)

// open reads the manifest of a collection and calls f for the named cases, each with its
// tensors and tolerance.
func open(t *testing.T, collection string, names []string, f func(t *testing.T, value func(string) *tensors.Tensor, atol map[string]float64)) {
	t.Helper()
	dir := golden.Dir(t, collection)
	type goldenCase struct {
		Name string          `json:"name"`
		File string          `json:"file"`
		Atol json.RawMessage `json:"atol"`
	}
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	for _, c := range golden.Cases[goldenCase](t, dir) {
		if !wanted[c.Name] {
			continue
		}
		delete(wanted, c.Name)
		t.Run(c.Name, func(t *testing.T) {
			atol := map[string]float64{}
			if err := json.Unmarshal(c.Atol, &atol); err != nil {
				var one float64
				if err := json.Unmarshal(c.Atol, &one); err != nil {
					t.Fatal(err)
				}
				atol["all"] = one
			}
			file, err := safetensors.Open(filepath.Join(dir, c.File))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			f(t, func(name string) *tensors.Tensor {
				value, err := file.Tensor(name)
				if err != nil {
					t.Fatal(err)
				}
				return value
			}, atol)
		})
	}
	if len(wanted) > 0 {
		t.Errorf("collection %s has no case %v", collection, wanted)
	}
}

// TestGoldenPooling compares the three readings, values and gradients.
func TestGoldenPooling(t *testing.T) {
	check := func(value func(string) *tensors.Tensor, atol map[string]float64, pool func(w, u *Node) (y, a *Node)) func(*testing.T) {
		return func(t *testing.T) {
			out, err := CallOnceN(gxtest.Backend(t), func(in []*Node) []*Node {
				w, u := in[0], in[1]
				y, a := pool(w, u)
				loss := Add(ReduceAllSum(Mul(in[2], y)), ReduceAllSum(Mul(in[3], a)))
				return append([]*Node{y, a}, Gradient(loss, w, u)...)
			}, value("in.w"), value("in.u"), value("ct.y"), value("ct.a"))
			if err != nil {
				t.Fatal(err)
			}
			for i, name := range []string{"out.y", "out.a", "grad.w", "grad.u"} {
				kind, _, _ := strings.Cut(name, ".")
				gxtest.Close(t, out[i], value(name), atol[kind])
			}
		}
	}
	for name, pool := range map[string]func(w, u *Node) (y, a *Node){"seed_pooling_scalar": pooling.ByScalar, "seed_pooling_rows": pooling.ByRows} {
		open(t, "attention", []string{name}, func(t *testing.T, value func(string) *tensors.Tensor, atol map[string]float64) {
			check(value, atol, pool)(t)
		})
	}
	open(t, "attention", []string{"seed_pooling_tokens"}, func(t *testing.T, value func(string) *tensors.Tensor, atol map[string]float64) {
		check(value, atol, func(w, u *Node) (y, a *Node) {
			mask := Const(w.Graph(), value("const.mask").Value())
			return pooling.ByTokens(w, u, NotEqual(mask, ZerosLike(mask)))
		})(t)
	})
}

// TestGoldenDescent replays the supervised adaptation by rows and the one of token pooling
// that needs no labels, in float64 as they were recorded.
func TestGoldenDescent(t *testing.T) {
	wide := func(t *testing.T, value *tensors.Tensor) *tensors.Tensor {
		out, err := CallOnce(gxtest.Backend(t), func(x *Node) *Node { return ConvertDType(x, dtypes.Float64) }, value)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	follow := func(t *testing.T, value func(string) *tensors.Tensor, atol float64, trace pooling.Trace) {
		values, weights := tensors.MustCopyFlatData[float32](value("traj.F")), tensors.MustCopyFlatData[float32](value("traj.w"))
		size := len(weights) / len(values)
		if len(trace.Values) < len(values) {
			t.Fatalf("made %d steps, want at least %d", len(trace.Values), len(values))
		}
		gxtest.Close(t, trace.Values[:len(values)], values, atol)
		for step := range values {
			gxtest.Close(t, trace.Weights[step], weights[step*size:(step+1)*size], atol)
		}
	}
	open(t, "adaptation", []string{"seed_supervised_rows"}, func(t *testing.T, value func(string) *tensors.Tensor, atol map[string]float64) {
		steps := value("traj.F").Shape().Dimensions[0]
		trace, err := pooling.Descent{Rate: 0.5, MaxSteps: steps}.Run(t.Context(), gxtest.Backend(t), wide(t, value("in.w0")),
			func(w *Node, in []*Node) *Node {
				y, _ := pooling.ByRows(w, in[0])
				return pooling.CrossEntropy(y, in[1])
			}, wide(t, value("in.u")), wide(t, value("const.labels")))
		if err != nil {
			t.Fatal(err)
		}
		follow(t, value, atol["all"], trace)
	})
	open(t, "adaptation", []string{"seed_tta_pooling"}, func(t *testing.T, value func(string) *tensors.Tensor, atol map[string]float64) {
		constants := tensors.MustCopyFlatData[float32](value("const.mu_lr_tol"))
		mu, rate, tolerance := float64(constants[0]), float64(constants[1]), float64(constants[2])
		start := wide(t, value("in.w0"))
		trace, err := pooling.Descent{Rate: rate, Tolerance: tolerance, MaxSteps: 200}.Run(t.Context(), gxtest.Backend(t), start,
			func(w *Node, in []*Node) *Node {
				y, _ := pooling.ByTokens(w, in[0], nil)
				entropy := ReduceAllMean(pooling.Entropy(Einsum("nf,fc->nc", y, in[1])))
				return Add(entropy, MulScalar(ReduceAllSum(Square(Sub(w, in[2]))), mu))
			}, wide(t, value("in.u")), wide(t, value("in.head")), start)
		if err != nil {
			t.Fatal(err)
		}
		follow(t, value, atol["all"], trace)
		if want := int(tensors.MustCopyFlatData[int32](value("out.n_steps"))[0]); len(trace.Values) != want || trace.Converged != (want < 200) {
			t.Errorf("%d steps, converged %v, want %d", len(trace.Values), trace.Converged, want)
		}
		gxtest.Close(t, trace.Weights[len(trace.Weights)-1], value("out.w_final"), atol["all"])
	})
}

// TestTokensGradient: the derivation by hand agrees with automatic differentiation.
func TestTokensGradient(t *testing.T) {
	u := [][][]float32{{{1, 2}, {-1, 0.5}, {3, -2}}, {{0, 1}, {1, 1}, {9, 9}}}
	out, err := CallOnceN(gxtest.Backend(t), func(w, u, g *Node) (*Node, *Node) {
		mask := Const(w.Graph(), [][]bool{{true, true, true}, {true, true, false}})
		y, _ := pooling.ByTokens(w, u, mask)
		return pooling.TokensGradient(w, u, mask, g), Gradient(ReduceAllSum(Mul(y, g)), w)[0]
	}, []float32{0.3, -0.2}, u, [][]float32{{1, -1}, {0.5, 2}})
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, out[0], out[1], 1e-6)
}

func TestDescentRefuses(t *testing.T) {
	engine := gxtest.Backend(t)
	square := func(w *Node, _ []*Node) *Node { return ReduceAllSum(Square(w)) }
	w := pooling.Random(1, 1, 3)
	for _, test := range []struct {
		descent pooling.Descent
		want    string
	}{
		{pooling.Descent{MaxSteps: 3}, "rate is 0"},
		{pooling.Descent{Rate: 1}, "max_steps is 0"},
		{pooling.Descent{Rate: 1, MaxSteps: 1, Tolerance: -1}, "tolerance is -1"},
		{pooling.Descent{Rate: 1e30, MaxSteps: 9}, "lower the rate"},
	} {
		if _, err := test.descent.Run(t.Context(), engine, w, square); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error is %v, want %q", test.descent, err, test.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (pooling.Descent{Rate: 0.1, MaxSteps: 9}).Run(ctx, engine, w, square); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := (pooling.Descent{Rate: 0.1, MaxSteps: 9}).Run(t.Context(), engine, w, func(w *Node, in []*Node) *Node {
		y, _ := pooling.ByTokens(w, in[0], nil)
		return ReduceAllSum(y)
	}, [][][]float32{{{1, 2}}}); err == nil || !strings.Contains(err.Error(), "the same width") {
		t.Errorf("features of another width: %v", err)
	}
}

// Two texts of three tokens are pooled; w learns to look at the token that tells the class.
func ExampleDescent() {
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	u := [][][]float32{{{2, 1}, {0, 0}, {-1, 0}}, {{1, 0}, {-2, 1}, {0, 0}}}
	labels := []float32{1, 0}
	loss := func(w *Node, in []*Node) *Node {
		y, _ := pooling.ByTokens(w, in[0], nil)
		return pooling.CrossEntropy(Einsum("nd,d->n", y, Const(w.Graph(), []float32{1, 0})), in[1])
	}
	trace, err := pooling.Descent{Rate: 1, MaxSteps: 20}.Run(context.Background(), engine, pooling.Random(1, 0.1, 2), loss, u, labels)
	if err != nil {
		panic(err)
	}
	fmt.Printf("loss %.2f → %.2f\n", trace.Values[0], trace.Values[19])
	out, err := CallOnce(engine, func(w, u *Node) *Node {
		_, a := pooling.ByTokens(w, u, nil)
		return a
	}, trace.Weights[19], u)
	if err != nil {
		panic(err)
	}
	fmt.Printf("weights %.2f\n", tensors.MustCopyFlatData[float32](out))
	// Output:
	// loss 0.53 → 0.18
	// weights [0.86 0.07 0.07 0.07 0.86 0.07]
}
