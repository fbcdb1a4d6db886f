package train

import (
	"math"
	"testing"

	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
)

// TestTrialRates: a trial rises as the run does, or in half of its updates where that is less, and falls to where the run does.
func TestTrialRates(t *testing.T) {
	run := schedule.Linear{Peak: 2, WarmupSteps: 100, TotalSteps: 1000}
	long := newTrialRates(run, 0, 1000, 400)
	for i := range 100 {
		if long.At(i) != run.At(i) {
			t.Fatalf("update %d has the rate %g, in the run %g", i, long.At(i), run.At(i))
		}
	}
	short := newTrialRates(run, 0, 1000, 100)
	constant := newTrialRates(schedule.Constant{Rate: 2}, 30, 1000, 10)
	for _, c := range []struct {
		rates  trialRates
		update int
		want   float64
	}{
		{long, 99, 2}, {long, 250, 1}, {long, 399, 2. / 300},
		{short, 0, 0.02}, {short, 25, 1}, {short, 49, 1.96}, {short, 50, 2}, {short, 99, 0.04},
		{constant, 30, 2}, {constant, 39, 2},
	} {
		if got := c.rates.At(c.update); math.Abs(got-c.want) > 0.03 {
			t.Errorf("update %d of %d has the rate %g, want %g", c.update, c.rates.updates, got, c.want)
		}
	}
}
