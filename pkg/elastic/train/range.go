package train

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"strings"

	"github.com/gomlx/compute"
	mltrain "github.com/gomlx/gomlx/ml/train"

	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
)

// RateRange says what a range test of the learning rate tries. The zero value of a field means its
// default.
type RateRange struct {
	From    float64 // rate of the first update; 0 means 1e-7
	To      float64 // rate of the last update; 0 means 1
	Updates int     // 0 means 100
	// Linear lets the rate grow evenly from From to To, not by the same factor each update.
	Linear bool
	// Pretrained says that the model is not fresh, for the warnings.
	Pretrained bool
	// Step is called after each update; it may be nil.
	Step func(Step)
}

func (r RateRange) withDefaults() RateRange {
	if r.From == 0 {
		r.From = 1e-7
	}
	if r.To == 0 {
		r.To = 1
	}
	if r.Updates == 0 {
		r.Updates = 100
	}
	return r
}

// Validate reports all that is wrong with r.
func (r RateRange) Validate() error {
	r = r.withDefaults()
	var problems []error
	if !(r.From > 0 && r.From < r.To) || math.IsInf(r.To, 0) {
		problems = append(problems, fmt.Errorf("rates go from %g to %g, want 0 < from < to, and finite", r.From, r.To))
	}
	if r.Updates < 2 {
		problems = append(problems, fmt.Errorf("updates is %d, want at least 2", r.Updates))
	}
	return errors.Join(problems...)
}

// schedule returns the rates of the updates.
func (r RateRange) schedule() schedule.Schedule {
	if r.Linear {
		return schedule.Anneal{From: r.From, To: r.To, Steps: r.Updates - 1}
	}
	return schedule.Exponential{From: r.From, Factor: r.To / r.From, Every: float64(r.Updates - 1)}
}

// RateCurve is what a range test of the learning rate found.
type RateCurve struct {
	Points []RatePoint `json:"points"`
	// Diverged says that the test ended because the loss grew beyond bounds, at the last point.
	Diverged bool `json:"diverged"`
	// Steepest is the rate at which the smoothed loss falls most per factor of the rate, and Tenth a
	// tenth of the rate at which it is lowest. Both are 0 if the loss never fell.
	Steepest float64 `json:"steepest,omitempty"`
	Tenth    float64 `json:"tenth,omitempty"`
	// Warnings say why the suggestion may mislead.
	Warnings []string `json:"warnings,omitempty"`
}

// RatePoint is one update of a range test.
type RatePoint struct {
	Rate     float64 `json:"rate"`
	Loss     float64 `json:"loss"`     // before the update
	Smoothed float64 `json:"smoothed"` // moving average of the losses until here, corrected for its start
}

// Range returns the suggested range of rates, from the lesser of Steepest and Tenth to the greater; 0
// and 0 if there is no suggestion.
func (c RateCurve) Range() (low, high float64) {
	return math.Min(c.Steepest, c.Tenth), math.Max(c.Steepest, c.Tenth)
}

// Middle returns the geometric mean of the suggested range, 0 if there is none.
func (c RateCurve) Middle() float64 { return math.Sqrt(c.Steepest * c.Tenth) }

const (
	// rateSmoothing is the weight of the past in the smoothed loss: it lags by some 9 updates.
	rateSmoothing = 0.9
	// rateSettled is the number of points before the average has settled.
	rateSettled = 10
	// rateDiverged is how often its lowest value the smoothed loss may be, as in fastai.
	rateDiverged = 4
	// perDecade is the fewest updates for each factor of ten of the rate that tell something.
	perDecade = 10
)

// RangeTest trains for some updates while the learning rate grows, and ends early when the loss
// diverges: at which rates does it fall, and from which on is the rate too high? The config is that
// of the run to come, of which schedule, controllers, unfreezing and ends are not used. The batches
// are those of epoch 0, again and again.
//
// The task's variables are afterwards what they were. The test needs the optimizer's slots for itself,
// so it comes before [New]: a task that a [Trainer] holds is an error.
//
// Source: Smith 2017, "Cyclical learning rates for training neural networks", section 3.3; the
// exponential growth, the end at four times the lowest smoothed loss, and both suggestions are those
// of fastai's learning-rate finder.
func RangeTest(ctx context.Context, backend compute.Backend, task Task, data Data, config Config, r RateRange) (curve RateCurve, failure error) {
	r = r.withDefaults()
	if err := r.Validate(); err != nil {
		return RateCurve{}, fmt.Errorf("range test: %w", err)
	}
	config = config.withDefaults()
	updatesPerEpoch := (data.Steps() + config.Accumulate - 1) / config.Accumulate
	if updatesPerEpoch == 0 {
		return RateCurve{}, errors.New("range test: training data has no batches")
	}
	config.Epochs, config.MaxUpdates = (r.Updates+updatesPerEpoch-1)/updatesPerEpoch, r.Updates
	config.Schedule = schedule.Config{Kind: "constant", Peak: r.To}
	config.Unfreeze, config.Control, config.Patience, config.SaveEvery = Unfreeze{}, nil, 0, 0
	config.Adapt.Budget, config.Adapt.Converge = adapt.Budget{}, adapt.Converge{}
	config.SkipNonFinite = true // an infinite loss is what the test looks for

	for v := range task.Store().IterVariables() {
		if strings.HasPrefix(v.Path(), SlotsScope+"/") {
			return RateCurve{}, fmt.Errorf("range test: the store has %s already: test before a trainer is made", v.Path())
		}
	}
	before, err := copies(task.Store(), task.Variables())
	if err != nil {
		return RateCurve{}, fmt.Errorf("range test: %w", err)
	}
	trainer, err := New(backend, task, config)
	if err != nil {
		return RateCurve{}, err
	}
	defer func() {
		failure = errors.Join(failure, trainer.Finalize(), putBack(task.Store(), task.Variables(), before))
	}()
	trainer.rates = r.schedule()
	average, weight, lowest := 0.0, 0.0, math.Inf(1)
	_, err = trainer.Run(ctx, firstEpoch{data}, Hooks{Step: func(s Step) {
		if math.IsNaN(s.Loss) || math.IsInf(s.Loss, 0) || math.IsNaN(s.GradientNorm) || math.IsInf(s.GradientNorm, 0) {
			curve.Diverged = true // no point: JSON has no NaN
		} else {
			average = rateSmoothing*average + (1-rateSmoothing)*s.Loss
			weight = rateSmoothing*weight + (1 - rateSmoothing)
			smoothed := average / weight
			curve.Points = append(curve.Points, RatePoint{Rate: trainer.rates.At(s.Update - 1), Loss: s.Loss, Smoothed: smoothed})
			lowest = math.Min(lowest, smoothed)
			curve.Diverged = smoothed > rateDiverged*lowest && lowest > 0
		}
		if curve.Diverged {
			trainer.state.Ended = "the loss diverged"
		}
		if r.Step != nil {
			r.Step(s)
		}
	}})
	if err != nil {
		return RateCurve{}, fmt.Errorf("range test: %w", err)
	}
	curve.suggest(r)
	return curve, nil
}

// suggest finds the suggested rates and what speaks against them.
func (c *RateCurve) suggest(r RateRange) {
	warn := func(format string, args ...any) { c.Warnings = append(c.Warnings, fmt.Sprintf(format, args...)) }
	points := c.Points
	first, lowest := min(rateSettled-1, len(points)/4), 0
	for i, p := range points {
		if p.Smoothed < points[lowest].Smoothed {
			lowest = i
		}
	}
	if len(points) < 3 || lowest <= first || points[lowest].Smoothed > 0.98*points[first].Smoothed {
		warn("the loss never fell: there is no suggestion; begin lower, take more updates, or look at the model")
	} else {
		steepest := math.Inf(1)
		for i := max(first, 1); i < lowest; i++ {
			from, to := points[i-1], points[i+1]
			if slope := (to.Smoothed - from.Smoothed) / math.Log(to.Rate/from.Rate); slope < steepest {
				steepest, c.Steepest = slope, points[i].Rate
			}
		}
		c.Tenth = points[lowest].Rate / 10
	}
	if !c.Diverged {
		warn("the loss did not diverge up to a rate of %g: the bound lies higher", r.To)
	}
	growth := math.Log10(r.To / r.From)
	if float64(r.Updates) < perDecade*growth {
		warn("%d updates over %.1f powers of ten are few: take %d", r.Updates, growth, int(math.Ceil(perDecade*growth)))
	}
	if r.Pretrained {
		warn("the model is pretrained: it stands the rates that are found, but forgets at them; fine-tuning rates lie far below, 1e-5 to 1e-4 with Adam's kin, where this test hardly sees the loss fall")
	}
}

// firstEpoch is data whose epochs are all the first one.
type firstEpoch struct{ Data }

func (d firstEpoch) Batches(_, skip int) iter.Seq2[mltrain.Batch, error] {
	return d.Data.Batches(0, skip)
}
