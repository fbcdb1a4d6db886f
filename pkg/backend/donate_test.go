package backend_test

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
)

// xlaBackends opens the XLA backend that GOMLX_BACKEND names, with and without donation.
func xlaBackends(t *testing.T) (with, without compute.Backend) {
	t.Helper()
	config := os.Getenv(backend.ConfigEnv)
	if !strings.HasPrefix(config, "xla") {
		t.Skip("tests the XLA backend: set GOMLX_BACKEND=xla:<plugin>")
	}
	with, choice, err := backend.Open(t.Context(), backend.Options{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	if choice.Donation != "on" {
		t.Fatalf("donation is %q, want on: has go-xla changed?", choice.Donation)
	}
	without, choice, err = backend.Open(t.Context(), backend.Options{Config: config, NoDonation: true})
	if err != nil {
		t.Fatal(err)
	}
	if choice.Donation == "on" {
		t.Fatal("donation is on, want off")
	}
	return with, without
}

const width = 64 // 16 kB a matrix: large enough to be donated

// trainer is a small network with Adam, written out. The variable "frozen" has
// the shape of the others but is never replaced.
type trainer struct {
	store *model.Store
	step  *model.Exec
	eval  *model.Exec
	names []string
}

func newTrainer(t *testing.T, engine compute.Backend) *trainer {
	t.Helper()
	tr := &trainer{store: model.NewStore(), names: []string{"first", "frozen", "second"}}
	for i, name := range tr.names {
		tr.store.CreateVariable("/"+name, matrix(uint32(i+1), 0.1))
		if name != "frozen" {
			tr.store.CreateVariable("/m/"+name, matrix(0, 0))
			tr.store.CreateVariable("/v/"+name, matrix(0, 0))
		}
	}
	forward := func(g *Graph, x, y *Node) *Node {
		h := x
		for _, name := range tr.names {
			h = Tanh(MatMul(h, tr.store.GetVariable("/"+name).NodeValue(g)))
		}
		return ReduceAllMean(Square(Sub(h, y)))
	}
	var err error
	tr.step, err = model.NewExec(engine, tr.store, func(_ *model.Scope, x, y *Node) *Node {
		g := x.Graph()
		loss := forward(g, x, y)
		trained := []string{"first", "second"}
		var values []*Node
		for _, name := range trained {
			values = append(values, tr.store.GetVariable("/"+name).NodeValue(g))
		}
		for i, grad := range Gradient(loss, values...) {
			w, m, v := tr.store.GetVariable("/"+trained[i]), tr.store.GetVariable("/m/"+trained[i]), tr.store.GetVariable("/v/"+trained[i])
			newM := Add(MulScalar(m.NodeValue(g), 0.9), MulScalar(grad, 0.1))
			newV := Add(MulScalar(v.NodeValue(g), 0.99), MulScalar(Square(grad), 0.01))
			w.SetNodeValue(Sub(w.NodeValue(g), MulScalar(Div(newM, AddScalar(Sqrt(newV), 1e-6)), 1e-2)))
			m.SetNodeValue(newM)
			v.SetNodeValue(newV)
		}
		return loss
	})
	if err != nil {
		t.Fatal(err)
	}
	tr.eval, err = model.NewExec(engine, tr.store, func(_ *model.Scope, x, y *Node) *Node {
		return forward(x.Graph(), x, y)
	})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// matrix has fixed pseudo-random elements in (-scale, scale).
func matrix(seed uint32, scale float32) *tensors.Tensor {
	flat := make([]float32, width*width)
	for i := range flat {
		seed = seed*1664525 + 1013904223
		flat[i] = scale * (float32(seed>>8)/(1<<23) - 1)
	}
	return tensors.FromFlatDataAndDimensions(flat, width, width)
}

func (tr *trainer) run(t *testing.T, exec *model.Exec, seed uint32) float32 {
	t.Helper()
	outputs, err := exec.Exec(matrix(seed+100, 1), matrix(seed+200, 0.5))
	if err != nil {
		t.Fatal(err)
	}
	return tensors.MustCopyFlatData[float32](outputs[0])[0]
}

func (tr *trainer) variable(t *testing.T, path string) []float32 {
	t.Helper()
	value, err := tr.store.GetVariable(path).Value()
	if err != nil {
		t.Fatal(err)
	}
	flat, err := tensors.CopyFlatData[float32](value)
	if err != nil {
		t.Fatalf("variable %s: %v", path, err)
	}
	return flat
}

func TestDonationChangesNoNumber(t *testing.T) {
	with, without := xlaBackends(t)
	a, b := newTrainer(t, with), newTrainer(t, without)
	frozen := a.variable(t, "/frozen")
	for step := range uint32(12) {
		if got, want := a.run(t, a.step, step), b.run(t, b.step, step); got != want {
			t.Fatalf("step %d: loss %v with donation, %v without", step, got, want)
		}
		if step%3 == 0 { // evaluation in between reads the variables and must leave them valid
			for range 2 {
				if got, want := a.run(t, a.eval, step), b.run(t, b.eval, step); got != want {
					t.Fatalf("step %d: evaluation %v with donation, %v without", step, got, want)
				}
			}
			runtime.GC() // frees buffers that nobody holds any more
		}
	}
	for _, path := range []string{"/first", "/second", "/m/first", "/v/second"} {
		if !slices.Equal(a.variable(t, path), b.variable(t, path)) {
			t.Errorf("variable %s differs", path)
		}
	}
	if !slices.Equal(a.variable(t, "/frozen"), frozen) {
		t.Error("the frozen variable has changed")
	}
}

// Variables that lie in memory shared with Go are donated too; nobody may write into or free memory that is still in use.
func TestDonationOfSharedBuffers(t *testing.T) {
	config := os.Getenv(backend.ConfigEnv)
	xlaBackends(t)
	plugin, _, _ := strings.Cut(config, ",")
	for _, option := range []string{"shared_buffers", "noshared_buffers"} {
		t.Run(option, func(t *testing.T) {
			var runs [2][]float32
			for i, off := range []bool{false, true} {
				engine, _, err := backend.Open(t.Context(), backend.Options{Config: plugin + "," + option, NoDonation: off})
				if err != nil {
					t.Fatal(err)
				}
				tr := newTrainer(t, engine)
				for range 30 {
					for _, path := range []string{"/first", "/m/first"} { // freshly loaded values, shared or not
						value := tr.store.GetVariable(path)
						fresh := tensors.FromFlatDataAndDimensions(tr.variable(t, path), width, width)
						if err := fresh.MaterializeOnDevice(engine, true, 0); err != nil {
							t.Fatal(err)
						}
						if err := value.SetValue(fresh); err != nil {
							t.Fatal(err)
						}
					}
					runs[i] = append(runs[i], tr.run(t, tr.step, 1), tr.run(t, tr.eval, 1), tr.run(t, tr.step, 2))
					runtime.GC()
				}
				runs[i] = append(runs[i], tr.variable(t, "/first")...)
			}
			if !slices.Equal(runs[0], runs[1]) {
				t.Errorf("numbers differ with and without donation")
			}
		})
	}
}

// An execution that keeps a variable must find it unharmed, even where shapes suggest that it is replaced.
func TestKeptInputsStayValid(t *testing.T) {
	with, _ := xlaBackends(t)
	builder := with.Builder("kept")
	main := builder.Main()
	shape := shapes.Make(dtypes.Float32, width, width)
	x, err := main.Parameter("/w", shape, nil)
	if err != nil {
		t.Fatal(err)
	}
	double, err := main.Add(x, x)
	if err != nil {
		t.Fatal(err)
	}
	if err := main.Return([]compute.Value{double}, nil); err != nil {
		t.Fatal(err)
	}
	exec, err := builder.Compile()
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	if names, inputs := exec.Inputs(); len(names) != 1 || !inputs[0].Equal(shape) || !exec.Outputs()[0].Equal(shape) {
		t.Errorf("inputs %v %v, outputs %v", names, inputs, exec.Outputs())
	}
	flat := tensors.MustCopyFlatData[float32](matrix(1, 1))
	twice := make([]float32, len(flat))
	for i, v := range flat {
		twice[i] = 2 * v
	}
	read := func(b compute.Buffer) []float32 {
		t.Helper()
		list := make([]float32, len(flat))
		if err := b.ToFlatData(list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	// Donated, kept (compiles again), kept, donated, kept.
	for round, donate := range [][]bool{{true}, nil, {false}, {true}, {false}} {
		input, err := with.BufferFromFlatData(0, flat, shape)
		if err != nil {
			t.Fatal(err)
		}
		if input.Backend() != with {
			t.Fatal("the buffer names another backend")
		}
		outputs, err := exec.Execute([]compute.Buffer{input}, donate, 0)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		gxtest.Close(t, read(outputs[0]), twice, 0)
		if len(donate) == 0 || !donate[0] {
			gxtest.Close(t, read(input), flat, 0)
			if err := input.Finalize(); err != nil {
				t.Error(err)
			}
		}
	}
	exec.Finalize()
	if _, err := exec.Execute(nil, nil, 0); err == nil {
		t.Error("a finalized executable runs")
	}
}

func TestDonatingBackendCopiesBetweenDevices(t *testing.T) {
	with, _ := xlaBackends(t)
	if with.NumDevices() < 2 {
		t.Skip("the plugin has one device")
	}
	flat := []float32{1, 2, 3}
	buffer, err := with.BufferFromFlatData(0, flat, shapes.Make(dtypes.Float32, 3))
	if err != nil {
		t.Fatal(err)
	}
	moved, err := buffer.CopyToDevice(1)
	if err != nil {
		t.Fatal(err)
	}
	if moved.Backend() != with {
		t.Error("the copy names another backend")
	}
	if device, err := moved.DeviceNum(); err != nil || device != 1 {
		t.Errorf("the copy is on device %d (%v), want 1", device, err)
	}
	got := make([]float32, 3)
	if err := moved.ToFlatData(got); err != nil || !slices.Equal(got, flat) {
		t.Errorf("got %v (%v), want %v", got, err, flat)
	}
}

// What this package relies on: a marked variable that is given away is overwritten in
// its place, and one whose memory belongs to Go never is.
func TestDonationHappensInPlace(t *testing.T) {
	xlaBackends(t)
	plugin, _, _ := strings.Cut(os.Getenv(backend.ConfigEnv), ",")
	engine, _, err := backend.Open(t.Context(), backend.Options{Config: plugin + ",shared_buffers"})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(plugin, "cpu") {
		t.Skip("compares addresses, which only the CPU plugin shows")
	}
	shape := shapes.Make(dtypes.Float32, width, width)
	address := func(b compute.Buffer) *float32 {
		t.Helper()
		flat, err := b.Data()
		if err != nil {
			t.Fatal(err)
		}
		return &flat.([]float32)[0]
	}
	for _, test := range []struct {
		name, param     string
		shared, inPlace bool
	}{
		{"variable", "/w", false, true},
		{"other input", "x", false, false},
		{"memory of Go", "/w", true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			builder := engine.Builder("in place")
			x, err := builder.Main().Parameter(test.param, shape, nil)
			if err != nil {
				t.Fatal(err)
			}
			double, err := builder.Main().Add(x, x)
			if err != nil {
				t.Fatal(err)
			}
			if err := builder.Main().Return([]compute.Value{double}, nil); err != nil {
				t.Fatal(err)
			}
			exec, err := builder.Compile()
			if err != nil {
				t.Fatal(err)
			}
			defer exec.Finalize()
			flat := tensors.MustCopyFlatData[float32](matrix(1, 1))
			var input compute.Buffer
			if test.shared {
				var storage any
				input, storage, err = engine.NewSharedBuffer(0, shape)
				copy(storage.([]float32), flat)
			} else {
				input, err = engine.BufferFromFlatData(0, flat, shape)
			}
			if err != nil {
				t.Fatal(err)
			}
			before := address(input)
			outputs, err := exec.Execute([]compute.Buffer{input}, []bool{true}, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := address(outputs[0]) == before; got != test.inPlace {
				t.Errorf("in place: %v, want %v", got, test.inPlace)
			}
		})
	}
}
