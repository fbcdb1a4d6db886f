package schedule_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
)

func TestLinear(t *testing.T) {
	l := schedule.Linear{Peak: 8, WarmupSteps: 4, TotalSteps: 12}
	for step, want := range []float64{2, 4, 6, 8, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0} {
		if got := l.At(step); got != want {
			t.Errorf("At(%d) = %g, want %g", step, got, want)
		}
	}
	if got := (schedule.Linear{Peak: 1, TotalSteps: 2}).At(0); got != 1 {
		t.Errorf("without warm-up the first rate is %g, want 1", got)
	}
}

func TestConfig(t *testing.T) {
	if got := (schedule.Config{Peak: 1, Warmup: 0.1}).Schedule(56); got != (schedule.Linear{Peak: 1, WarmupSteps: 5, TotalSteps: 56}) {
		t.Errorf("got %+v", got)
	}
	if got := (schedule.Config{Kind: "constant", Peak: 1}).Schedule(56); got.At(1000) != 1 {
		t.Errorf("got %+v", got)
	}
	for _, bad := range []struct {
		config schedule.Config
		want   string
	}{
		{schedule.Config{Kind: "cosine", Peak: 1}, `"cosine" is unknown`},
		{schedule.Config{}, "peak is 0"},
		{schedule.Config{Peak: math.NaN()}, "peak is NaN"},
		{schedule.Config{Peak: math.Inf(1)}, "peak is +Inf"},
		{schedule.Config{Peak: 1, Warmup: 1}, "warmup is 1"},
		{schedule.Config{Kind: "constant", Peak: 1, Warmup: 0.5}, "a constant schedule has none"},
	} {
		if err := bad.config.Validate(); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%+v: error is %v, want %q", bad.config, err, bad.want)
		}
	}
	if err := (schedule.Config{Peak: 1, Warmup: 0.1}).Validate(); err != nil {
		t.Error(err)
	}
}

func ExampleLinear() {
	rates := schedule.Linear{Peak: 1e-4, WarmupSteps: 2, TotalSteps: 6}
	for step := range 7 {
		fmt.Printf("%.1e ", rates.At(step))
	}
	// Output: 5.0e-05 1.0e-04 1.0e-04 7.5e-05 5.0e-05 2.5e-05 0.0e+00
}
