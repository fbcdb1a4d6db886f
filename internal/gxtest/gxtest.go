// Package gxtest helps tests run computation graphs and compare their results.
package gxtest

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"
)

var open = sync.OnceValues(func() (compute.Backend, error) {
	config := os.Getenv(backend.ConfigEnv)
	if config == "" {
		config = backend.PureGo // a plugin that happens to be installed must not change what a test tests
	}
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: config})
	return engine, err
})

// Backend returns the backend that GOMLX_BACKEND names, or the pure-Go one if it
// is unset. It is opened once per test binary and nothing is downloaded.
func Backend(tb testing.TB) compute.Backend {
	tb.Helper()
	engine, err := open()
	if err != nil {
		tb.Fatal(err)
	}
	return engine
}

// Close fails the test unless got and want have the same shape and differ by at
// most tol in every element. Both are tensors, slices (nested ones too) or numbers
// of float32 or float64; a flat slice is compared with a tensor of any shape by
// its elements in order. NaN is close to nothing.
func Close(tb testing.TB, got, want any, tol float64) {
	tb.Helper()
	g, gotDims, err := flatten(got)
	if err != nil {
		tb.Fatalf("got: %v", err)
	}
	w, wantDims, err := flatten(want)
	if err != nil {
		tb.Fatalf("want: %v", err)
	}
	if len(g) != len(w) || (gotDims != nil && wantDims != nil && !slices.Equal(gotDims, wantDims)) {
		tb.Fatalf("shape is %v (%d elements), want %v (%d)", gotDims, len(g), wantDims, len(w))
	}
	worst, at := 0.0, -1
	for i := range w {
		if diff := math.Abs(g[i] - w[i]); !(diff <= worst) && !(g[i] == w[i]) { // equal infinities differ by NaN
			worst, at = diff, i
			if math.IsNaN(diff) {
				break
			}
		}
	}
	if !(worst <= tol) {
		tb.Fatalf("element %d is %g, want %g: off by %.3g, tolerance %.3g", at, g[at], w[at], worst, tol)
	}
}

// flatten returns the elements of a value and its dimensions, nil for a flat slice.
func flatten(value any) ([]float64, []int, error) {
	switch v := value.(type) {
	case []float32:
		return widen(v), nil, nil
	case []float64:
		return v, nil, nil
	case *tensors.Tensor:
		return flattenTensor(v)
	}
	tensor, err := tensors.FromAnyValue(value)
	if err != nil {
		return nil, nil, err
	}
	return flattenTensor(tensor)
}

func flattenTensor(t *tensors.Tensor) ([]float64, []int, error) {
	dims := slices.Concat([]int{}, t.Shape().Dimensions) // not nil, even for a scalar
	switch t.DType() {
	case dtypes.Float32:
		flat, err := tensors.CopyFlatData[float32](t)
		return widen(flat), dims, err
	case dtypes.Float64:
		flat, err := tensors.CopyFlatData[float64](t)
		return flat, dims, err
	}
	return nil, nil, fmt.Errorf("elements are %s, want float32 or float64", t.DType())
}

func widen(list []float32) []float64 {
	wide := make([]float64, len(list))
	for i, x := range list {
		wide[i] = float64(x)
	}
	return wide
}
