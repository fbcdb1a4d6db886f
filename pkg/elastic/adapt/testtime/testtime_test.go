package testtime_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
)

// net is the model of the recorded cases: relu(LayerNorm(x·w1))·w2 + b2.
type net struct {
	store     *model.Store
	variables []elastic.Variable
	classes   int
}

func newNet(t testing.TB, value func(string) *tensors.Tensor) net {
	t.Helper()
	n := net{store: model.NewStore(), classes: value("w2").Shape().Dimensions[1]}
	for path, name := range map[string]string{"/norm/scale": "gamma", "/norm/bias": "beta", "/w1": "w1", "/w2": "w2", "/b2": "b2"} {
		v := value(name)
		if _, err := n.store.CreateVariable(path, v); err != nil {
			t.Fatal(err)
		}
		n.variables = append(n.variables, elastic.Variable{Path: path, Shape: v.Shape().Dimensions})
	}
	return n
}

func (n net) Store() *model.Store           { return n.store }
func (n net) Variables() []elastic.Variable { return n.variables }
func (n net) Classes() int                  { return n.classes }

func (n net) Logits(w elastic.Weights, in []*Node) (logits, counts *Node) {
	h := elastic.LayerNorm(w.In("norm"), MatMul(in[0], w.At("w1")), 1e-5)
	h = Max(h, ZerosLike(h))
	if len(in) > 1 {
		counts = in[1]
	}
	return Add(MatMul(h, w.At("w2")), InsertAxes(w.At("b2"), 0)), counts
}

func (n net) Masked(in []*Node, share float64, noise *dropout.Source) []*Node {
	hidden := LessThan(noise.Uniform(in[0].Shape()), Scalar(in[0].Graph(), in[0].DType(), share))
	return append([]*Node{Where(hidden, ZerosLike(in[0]), in[0])}, in[1:]...)
}

func (n net) value(t testing.TB, path string) []float32 {
	t.Helper()
	v, err := n.store.GetVariable(path).Value()
	if err != nil {
		t.Fatal(err)
	}
	return tensors.MustCopyFlatData[float32](v)
}

func cases(t *testing.T, known []string, f func(t *testing.T, name string, params map[string]float64, atol float64, value func(string) *tensors.Tensor)) {
	t.Helper()
	dir := golden.Dir(t, "adaptation")
	type goldenCase struct {
		Name, File string
		Atol       float64
		Params     map[string]float64
	}
	found := 0
	for _, c := range golden.Cases[goldenCase](t, dir) {
		if !slices.Contains(known, c.Name) {
			continue
		}
		found++
		t.Run(c.Name, func(t *testing.T) {
			file, err := safetensors.Open(filepath.Join(dir, c.File))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			f(t, c.Name, c.Params, c.Atol, func(name string) *tensors.Tensor {
				value, err := file.Tensor(name)
				if err != nil {
					t.Fatal(err)
				}
				return value
			})
		})
	}
	if found != len(known) {
		t.Errorf("collection has %d of the cases %v", found, known)
	}
}

// TestGoldenTestTime follows the recorded adaptations step by step: losses, adapted
// variables, entropies, rows kept, and logits at the end.
func TestGoldenTestTime(t *testing.T) {
	cases(t, []string{"tent_sgd", "tent_adam", "eata_sgd", "sar_sgd", "memo_sgd"}, func(t *testing.T, name string, params map[string]float64, atol float64, value func(string) *tensors.Tensor) {
		method, optimizer, _ := strings.Cut(name, "_")
		config := testtime.Config{
			Method: method, Optimizer: optimizer, Rate: params["lr"], Variables: []string{"*norm*"}, FullRows: 1, Guard: testtime.Guard{Off: true},
		}
		n := newNet(t, func(name string) *tensors.Tensor { return value("in." + name) })
		constant := func(name string) float64 {
			return float64(tensors.MustCopyFlatData[float32](value("const." + name))[0])
		}
		switch name {
		case "tent_sgd":
			config.Momentum = 0.9
		case "eata_sgd":
			config.Threshold, config.Redundancy = constant("e0")/math.Log(float64(n.classes)), constant("d")
		case "sar_sgd":
			config.Threshold, config.Radius = constant("e0")/math.Log(float64(n.classes)), constant("rho")
		}
		a, err := testtime.New(gxtest.Backend(t), n, config)
		if err != nil {
			t.Fatal(err)
		}
		losses := tensors.MustCopyFlatData[float32](value("traj.loss"))
		gamma, beta := tensors.MustCopyFlatData[float32](value("traj.gamma")), tensors.MustCopyFlatData[float32](value("traj.beta"))
		entropies := tensors.MustCopyFlatData[float32](value("traj.entropy_mean"))
		width := len(gamma) / len(losses)
		for step, want := range losses {
			batch := value("in.x")
			if method == "memo" {
				all := value("in.aug")
				flat, dims := tensors.MustCopyFlatData[float32](all), all.Shape().Dimensions
				size := dims[1] * dims[2]
				batch = tensors.FromFlatDataAndDimensions(flat[step*size:(step+1)*size], dims[1], dims[2])
			}
			logits, event, err := a.Step(t.Context(), batch)
			if err != nil {
				t.Fatal(err)
			}
			gxtest.Close(t, event.Loss, want, atol)
			gxtest.Close(t, n.value(t, "/norm/scale"), gamma[step*width:(step+1)*width], atol)
			gxtest.Close(t, n.value(t, "/norm/bias"), beta[step*width:(step+1)*width], atol)
			if step == 0 && method != "memo" {
				gxtest.Close(t, logits, tensors.MustCopyFlatData[float32](value("out.logits_before")), atol)
			}
			if step > 0 && method != "memo" {
				gxtest.Close(t, event.Entropy, entropies[step-1], atol)
			}
			if method == "eata" {
				kept := tensors.MustCopyFlatData[int32](value("traj.kept"))
				rows, sum := len(kept)/len(losses), 0
				for _, k := range kept[step*rows : (step+1)*rows] {
					sum += int(k)
				}
				if event.Kept != sum {
					t.Errorf("step %d keeps %d rows, want %d", step, event.Kept, sum)
				}
			}
		}
		if err := a.Reset(); err != nil {
			t.Fatal(err)
		}
		gxtest.Close(t, n.value(t, "/norm/scale"), tensors.MustCopyFlatData[float32](value("in.gamma")), 0)
		gxtest.Close(t, n.value(t, "/norm/bias"), tensors.MustCopyFlatData[float32](value("in.beta")), 0)
	})
}

func testNet(t testing.TB) net {
	shapes := map[string][]int{"gamma": {6}, "beta": {6}, "w1": {6, 6}, "w2": {6, 3}, "b2": {3}}
	return newNet(t, func(name string) *tensors.Tensor {
		init := elastic.Init{Normal: 0.8}
		if name == "gamma" {
			init = elastic.Init{Value: 1}
		}
		return elastic.Variable{Path: name, Shape: shapes[name], Init: init}.Tensor(4)
	})
}

func batch(seed uint64) *tensors.Tensor {
	return elastic.Variable{Path: "x", Shape: []int{20, 6}, Init: elastic.Init{Normal: 1}}.Tensor(seed)
}

// makeStep makes one step of a method, for "labels" with made-up ones.
func makeStep(t *testing.T, a *testtime.Adapter, method string, x *tensors.Tensor) ([]float32, error) {
	if method != "labels" {
		logits, _, err := a.Step(t.Context(), x)
		return logits, err
	}
	logits, ticket, err := a.Predict(t.Context(), x)
	if err != nil {
		return nil, err
	}
	labels := make([]int32, len(logits)/3)
	for i := range labels {
		labels[i] = int32(i % 3)
	}
	_, err = a.Learn(t.Context(), ticket, labels)
	return logits, err
}

// TestResetIsExact: after many steps a reset gives back every bit, and the same
// adaptation again gives the same bits.
func TestResetIsExact(t *testing.T) {
	for _, method := range testtime.Methods() {
		for _, optimizer := range []string{"sgd", "adam"} {
			n := testNet(t)
			before := n.value(t, "/norm/scale")
			a, err := testtime.New(gxtest.Backend(t), n, testtime.Config{Method: method, Optimizer: optimizer, Rate: 0.05, Redundancy: 1, Threshold: 1, Confidence: 0.4, Guard: testtime.Guard{Off: true}})
			if err != nil {
				t.Fatal(err)
			}
			var once [][]float32
			for round := range 2 {
				for step := range 5 {
					logits, err := makeStep(t, a, method, batch(uint64(step)))
					if err != nil {
						t.Fatal(err)
					}
					if round == 0 {
						once = append(once, logits)
					} else if !slices.Equal(logits, once[step]) {
						t.Errorf("%s %s: step %d differs after a reset", method, optimizer, step)
					}
				}
				if slices.Equal(n.value(t, "/norm/scale"), before) {
					t.Errorf("%s %s: nothing has adapted", method, optimizer)
				}
				if err := a.Reset(); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(n.value(t, "/norm/scale"), before) {
					t.Errorf("%s %s: reset gives %v, want %v", method, optimizer, n.value(t, "/norm/scale"), before)
				}
			}
			if err := a.Finalize(); err != nil {
				t.Fatal(err)
			}
			for v := range n.store.IterVariables() {
				if strings.HasPrefix(v.Path(), "/testtime") {
					t.Errorf("%s is left over", v.Path())
				}
			}
		}
	}
}

// TestEpisodic: each batch is predicted by the model as it is after that batch alone.
func TestEpisodic(t *testing.T) {
	n := testNet(t)
	a, err := testtime.New(gxtest.Backend(t), n, testtime.Config{Rate: 0.1, Episodic: true})
	if err != nil {
		t.Fatal(err)
	}
	first, _, err := a.Step(t.Context(), batch(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Step(t.Context(), batch(2)); err != nil {
		t.Fatal(err)
	}
	again, _, err := a.Step(t.Context(), batch(1))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(first, again) {
		t.Error("a batch is predicted differently after another one")
	}
	plain, err := testtime.New(gxtest.Backend(t), testNet(t), testtime.Config{Rate: 0.1})
	if err != nil {
		t.Fatal(err)
	}
	before, _, err := plain.Step(t.Context(), batch(1))
	if err != nil {
		t.Fatal(err)
	}
	after, _, err := plain.Step(t.Context(), batch(1))
	if err != nil {
		t.Fatal(err)
	}
	if slices.Equal(first, before) || !slices.Equal(first, after) {
		t.Error("a batch is not predicted by what was learned from it")
	}
}

// TestGuard: with a rate that makes everything one class, the guard puts the variables
// back, predicts the batch again with the model as it began, and in the end gives up.
func TestGuard(t *testing.T) {
	n, fixed := testNet(t), testNet(t)
	plain, err := testtime.New(gxtest.Backend(t), fixed, testtime.Config{Rate: 1e-12, Guard: testtime.Guard{Off: true}})
	if err != nil {
		t.Fatal(err)
	}
	a, err := testtime.New(gxtest.Backend(t), n, testtime.Config{Rate: 20, Guard: testtime.Guard{Every: 1}})
	if err != nil {
		t.Fatal(err)
	}
	resets, stopped := 0, false
	for step := range 30 {
		logits, event, err := a.Step(t.Context(), batch(uint64(step)))
		if err != nil {
			t.Fatal(err)
		}
		if event.Reset != "" {
			resets++
			if !strings.Contains(event.Reset, "entropy fell") && !strings.Contains(event.Reset, "decisions changed") {
				t.Errorf("reset because %q", event.Reset)
			}
		}
		if event.Reset != "" || event.Stopped {
			want, _, err := plain.Step(t.Context(), batch(uint64(step)))
			if err != nil {
				t.Fatal(err)
			}
			gxtest.Close(t, logits, want, 1e-5)
		}
		stopped = stopped || event.Stopped
	}
	if resets != 3 || !stopped {
		t.Errorf("%d resets, stopped %v; want 3 and then an end", resets, stopped)
	}
	gxtest.Close(t, n.value(t, "/norm/scale"), fixed.value(t, "/norm/scale"), 1e-6)
}

// TestRowsThatDoNotCount change nothing.
func TestRowsThatDoNotCount(t *testing.T) {
	run := func(rows int) []float32 {
		n := testNet(t)
		a, err := testtime.New(gxtest.Backend(t), n, testtime.Config{Rate: 0.1})
		if err != nil {
			t.Fatal(err)
		}
		flat := tensors.MustCopyFlatData[float32](batch(3))[:rows*6]
		counts := make([]bool, rows)
		for i := range counts {
			counts[i] = i < 12
		}
		if _, event, err := a.Step(t.Context(), tensors.FromFlatDataAndDimensions(flat, rows, 6), counts); err != nil || event.Kept != 12 {
			t.Fatalf("event %+v, error %v", event, err)
		}
		return n.value(t, "/norm/scale")
	}
	gxtest.Close(t, run(20), run(12), 1e-6)
}

func TestBadConfigs(t *testing.T) {
	for _, test := range []struct {
		config testtime.Config
		want   string
	}{
		{testtime.Config{Method: "hope"}, `method "hope" is unknown; known: [eata labels masked memo pseudo_label sar tent]`},
		{testtime.Config{Optimizer: "lion"}, `optimizer "lion" is unknown`},
		{testtime.Config{Rate: -1}, "rate is -1"},
		{testtime.Config{Threshold: 2}, "threshold is 2, want 0 to 1"},
		{testtime.Config{Optimizer: "adam", Momentum: 0.9}, "momentum is 0.9, which only sgd has"},
		{testtime.Config{Guard: testtime.Guard{Every: -1}}, "guard.every is -1"},
		{testtime.Config{Variables: []string{"*/norm/*", "*/temperature/*"}}, `pattern "*/temperature/*" matches no variable of the model; there are `},
		{testtime.Config{LastLayers: -1}, "last_layers is -1, want at least 0"},
		{testtime.Config{Variables: []string{}}, "no variables are to adapt"},
	} {
		if _, err := testtime.New(gxtest.Backend(t), testNet(t), test.config); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error is %v, want %q", test.config, err, test.want)
		}
	}
	a, err := testtime.New(gxtest.Backend(t), testNet(t), testtime.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := a.Step(ctx, batch(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func ExampleAdapter() {
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	n := testNet(&testing.B{})
	a, err := testtime.New(engine, n, testtime.Config{Method: "tent", Rate: 0.05, FullRows: 1})
	if err != nil {
		panic(err)
	}
	for step := range 3 {
		_, event, err := a.Step(context.Background(), batch(1))
		if err != nil {
			panic(err)
		}
		fmt.Printf("batch %d: entropy %.3f\n", step+1, event.Entropy)
	}
	if err := a.Reset(); err != nil { // to the last bit
		panic(err)
	}
	// Output:
	// batch 1: entropy 0.989
	// batch 2: entropy 0.988
	// batch 3: entropy 0.986
}
