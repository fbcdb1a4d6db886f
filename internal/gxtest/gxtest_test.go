package gxtest_test

import (
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

func TestBackend(t *testing.T) {
	engine := gxtest.Backend(t)
	if engine != gxtest.Backend(t) {
		t.Error("opened twice")
	}
	if os.Getenv(backend.ConfigEnv) == "" && engine.String() != "go" {
		t.Errorf("backend is %s, want pure Go when GOMLX_BACKEND is unset", engine)
	}
	exec, err := graph.NewExec(engine, func(x *graph.Node) *graph.Node { return graph.Square(x) })
	if err != nil {
		t.Fatal(err)
	}
	got, err := exec.Call([][]float32{{1, 2}, {3, 4}})
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, got[0], [][]float32{{1, 4}, {9, 16}}, 0)
}

// failure records what Close says instead of ending the test.
type failure struct {
	testing.TB
	text string
}

func (f *failure) Helper() {}

func (f *failure) Fatalf(format string, args ...any) {
	f.text = fmt.Sprintf(format, args...)
	panic(f)
}

func closeFails(t *testing.T, got, want any, tol float64) (text string) {
	t.Helper()
	f := &failure{TB: t}
	defer func() {
		if r := recover(); r != nil && r != any(f) {
			panic(r)
		}
		text = f.text
	}()
	gxtest.Close(f, got, want, tol)
	return ""
}

func TestClose(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	tensor := tensors.FromFlatDataAndDimensions([]float32{1, 2, 3, 4}, 2, 2)
	for _, test := range []struct {
		name      string
		got, want any
		tol       float64
		fails     string
	}{
		{"equal", []float32{1, 2}, []float32{1, 2}, 0, ""},
		{"within", []float64{1, 2.09}, []float32{1, 2}, 0.1, ""},
		{"off", []float64{1, 2.2}, []float64{1, 2}, 0.1, "element 1 is 2.2, want 2: off by 0.2, tolerance 0.1"},
		{"tensor and flat", tensor, []float32{1, 2, 3, 4}, 0, ""},
		{"tensor and nested", tensor, [][]float32{{1, 2}, {3, 4}}, 0, ""},
		{"other shape", tensor, [][]float32{{1, 2, 3, 4}}, 0, "shape is [2 2] (4 elements), want [1 4]"},
		{"other length", []float32{1}, []float32{1, 2}, 0, "1 elements"},
		{"scalar", float32(3), []float32{3}, 0, ""},
		{"nothing", []float32{}, []float32{}, 0, ""},
		{"got nan", []float64{nan}, []float64{0}, 1e9, "element 0 is NaN"},
		{"want nan", []float64{1, nan}, []float64{1, nan}, 1e9, "element 1 is NaN, want NaN"},
		{"nan before a difference", []float64{nan, 5}, []float64{0, 0}, 1e9, "element 0 is NaN"},
		{"equal infinities", []float64{inf, -inf}, []float64{inf, -inf}, 0, ""},
		{"other infinity", []float64{inf}, []float64{-inf}, 1e9, "element 0 is +Inf"},
		{"integers", []int32{1}, []float32{1}, 0, "want float32 or float64"},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := closeFails(t, test.got, test.want, test.tol)
			if (test.fails == "") != (text == "") || !strings.Contains(text, test.fails) {
				t.Errorf("failure is %q, want %q", text, test.fails)
			}
		})
	}
}
