package schedule

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// Config names a schedule in a training config. Times are fractions of all updates, so
// that one config fits runs of any length. An option that a kind does not have must
// not be set.
//
//	kind          after the warm-up                            options
//	linear        to Min at the last update; the default       min
//	constant      stays
//	cosine        along a half cosine to Min                   min
//	polynomial    along (1−p)^Power to Min                     min, power
//	rex           along (1−p)/(1−p/2) to Min                   min
//	tanh          along a hyperbolic tangent to Min            min
//	inverse_sqrt  by the root of time; needs a warm-up         min
//	exponential   evenly by Factor in all, not below Min       factor, min
//	restarts      Cycles half cosines from Peak to Min         cycles, min, growth, factor
//	step          by Factor at each time in At                 at, factor
//	piecewise     through Rates at the times in At             at, rates, shape
//	wsd           stays, and falls to Min in the end           decay, min, shape
//	onecycle      one cycle; Warmup is its rise                shape, three_phase
//	cyclic        Cycles times from Min to Peak and back       cycles, min, factor
//
// Every kind but onecycle and cyclic can have a warm-up before it; times in At are of the whole run.
type Config struct {
	// Kind is one of the above; empty means linear.
	Kind string `json:"kind,omitempty"`
	// Peak is the highest rate.
	Peak float64 `json:"peak"`
	// Warmup is the fraction of all updates that the warm-up takes, in [0, 1). For
	// onecycle it is the rise, 0 means 0.3.
	Warmup float64 `json:"warmup,omitempty"`
	// WarmupFromZero gives the first update the rate 0, as Transformers does, and not 1/W of Peak.
	WarmupFromZero bool `json:"warmup_from_zero,omitempty"`
	// Min is the lowest rate, below Peak.
	Min float64 `json:"min,omitempty"`
	// Power is the exponent of polynomial; 0 means 1.
	Power float64 `json:"power,omitempty"`
	// Shape is linear, cosine or 1-sqrt. Empty means linear for wsd, cosine for onecycle, and jumps for piecewise.
	Shape string `json:"shape,omitempty"`
	// Decay is the fraction of all updates at the end in which wsd falls, in (0, 1 − Warmup].
	Decay float64 `json:"decay,omitempty"`
	// Factor multiplies the rate: of exponential over the whole, of step at each time, of restarts
	// and cyclic the height of each cycle over that of the one before (0 means 1 there).
	Factor float64 `json:"factor,omitempty"`
	// Cycles is how many there are, at least 1.
	Cycles int `json:"cycles,omitempty"`
	// Growth is how much longer each of the restarts takes than the one before; 0 means 1.
	Growth float64 `json:"growth,omitempty"`
	// At are rising fractions of all updates, between Warmup and 1.
	At []float64 `json:"at,omitempty"`
	// Rates are those from each time in At on.
	Rates []float64 `json:"rates,omitempty"`
	// ThreePhase lets onecycle come down as fast as it rose, and on from there.
	ThreePhase bool `json:"three_phase,omitempty"`
}

// kind is what a name in a config means.
type kind struct {
	// options are those that it has beside peak.
	options []string
	// build returns the schedule for a run of total updates, of which steps come after the warm-up.
	build func(c Config, steps, total int) Schedule
}

var kinds = map[string]kind{
	"linear":       {[]string{"warmup", "min"}, func(c Config, steps, _ int) Schedule { return c.anneal(steps, Line{}) }},
	"constant":     {[]string{"warmup"}, func(c Config, _, _ int) Schedule { return Constant{c.Peak} }},
	"cosine":       {[]string{"warmup", "min"}, func(c Config, steps, _ int) Schedule { return c.anneal(steps, HalfCosine{}) }},
	"rex":          {[]string{"warmup", "min"}, func(c Config, steps, _ int) Schedule { return c.anneal(steps, Rational{}) }},
	"tanh":         {[]string{"warmup", "min"}, func(c Config, steps, _ int) Schedule { return c.anneal(steps, HyperbolicTangent{}) }},
	"polynomial":   {[]string{"warmup", "min", "power"}, Config.polynomial},
	"inverse_sqrt": {[]string{"warmup", "min"}, Config.inverseSqrt},
	"exponential":  {[]string{"warmup", "min", "factor"}, Config.exponential},
	"restarts":     {[]string{"warmup", "min", "cycles", "growth", "factor"}, Config.restarts},
	"step":         {[]string{"warmup", "at", "factor"}, Config.step},
	"piecewise":    {[]string{"warmup", "at", "rates", "shape"}, Config.piecewise},
	"wsd":          {[]string{"warmup", "min", "decay", "shape"}, Config.stableDecay},
	"onecycle":     {[]string{"warmup", "shape", "three_phase"}, Config.oneCycle},
	"cyclic":       {[]string{"min", "cycles", "factor"}, Config.cyclic},
}

var shapes = map[string]Curve{"linear": Line{}, "cosine": HalfCosine{}, "1-sqrt": Root{}}

func (c Config) name() string {
	if c.Kind == "" {
		return "linear"
	}
	return c.Kind
}

// Schedule returns the schedule over a number of updates.
func (c Config) Schedule(totalSteps int) Schedule {
	warmup := int(c.Warmup * float64(totalSteps))
	if c.name() == "onecycle" {
		warmup = 0 // it has its own
	}
	after := kinds[c.name()].build(c, totalSteps-warmup, totalSteps)
	if warmup == 0 {
		return after
	}
	return Warmup{Of: after, Steps: warmup, To: c.Peak, FromFirst: c.WarmupFromZero, Within: c.At != nil}
}

func (c Config) anneal(steps int, curve Curve) Schedule {
	return Anneal{From: c.Peak, To: c.Min, Steps: steps, Curve: curve}
}

func (c Config) polynomial(steps, _ int) Schedule {
	return c.anneal(steps, Power{Exponent: orOne(c.Power)})
}

func (c Config) inverseSqrt(steps, total int) Schedule {
	return Limit{Of: InverseSqrt{Peak: c.Peak, Timescale: math.Max(1, float64(total-steps))}, Min: c.Min}
}

func (c Config) exponential(steps, _ int) Schedule {
	return Limit{Of: Exponential{From: c.Peak, Factor: c.Factor, Every: float64(steps)}, Min: c.Min}
}

func (c Config) restarts(steps, _ int) Schedule {
	first := 1 / float64(c.Cycles)
	if growth := orOne(c.Growth); growth != 1 {
		first = (growth - 1) / (math.Pow(growth, float64(c.Cycles)) - 1)
	}
	return Restarts{
		Peak: c.Peak, Min: c.Min, Steps: first * float64(steps), Growth: c.Growth, Shrink: c.Factor, Cycles: c.Cycles,
	}
}

func (c Config) step(steps, total int) Schedule {
	points := []Point{{Step: float64(total - steps), Rate: c.Peak}}
	for i, at := range c.At {
		points = append(points, Point{math.Floor(at * float64(total)), c.Peak * math.Pow(c.Factor, float64(i+1))})
	}
	return Piecewise{Points: points}
}

func (c Config) piecewise(steps, total int) Schedule {
	points := []Point{{Step: float64(total - steps), Rate: c.Peak}}
	for i, at := range c.At {
		points = append(points, Point{math.Floor(at * float64(total)), c.Rates[i]})
	}
	return Piecewise{Points: points, Curve: shapes[c.Shape]}
}

func (c Config) stableDecay(steps, total int) Schedule {
	decay := min(steps, int(math.Ceil(c.Decay*float64(total))))
	return Join{
		Schedules:  []Schedule{Constant{c.Peak}, c.anneal(decay, shapes[c.Shape])},
		Boundaries: []int{steps - decay},
	}
}

func (c Config) oneCycle(_, total int) Schedule {
	return OneCycle{Peak: c.Peak, Steps: total, Rise: c.Warmup, ThreePhase: c.ThreePhase, Curve: shapes[c.Shape]}
}

func (c Config) cyclic(_, total int) Schedule {
	half := float64(total) / float64(2*c.Cycles)
	return Cyclic{Min: c.Min, Max: c.Peak, Up: half, Down: half, CycleFactor: c.Factor}
}

// Kinds lists the known kinds, sorted.
func Kinds() []string { return slices.Sorted(maps.Keys(kinds)) }

// Validate reports all that is wrong with c.
func (c Config) Validate() error {
	var problems []error
	wrong := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("schedule."+format, args...))
	}
	if !(c.Peak > 0) || math.IsInf(c.Peak, 0) {
		wrong("peak is %g, want a positive and finite rate", c.Peak)
	}
	kind, known := kinds[c.name()]
	if !known {
		wrong("kind %q is unknown; known: %s", c.Kind, strings.Join(Kinds(), ", "))
		return errors.Join(problems...)
	}
	has := func(option string) bool { return slices.Contains(kind.options, option) }
	for _, option := range []struct {
		name string
		set  bool
	}{
		{"warmup", c.Warmup != 0}, {"min", c.Min != 0}, {"power", c.Power != 0}, {"shape", c.Shape != ""},
		{"decay", c.Decay != 0}, {"factor", c.Factor != 0}, {"cycles", c.Cycles != 0}, {"growth", c.Growth != 0},
		{"at", len(c.At) > 0}, {"rates", len(c.Rates) > 0}, {"three_phase", c.ThreePhase},
	} {
		if option.set && !has(option.name) {
			wrong("%s is set, but kind %s has only %s", option.name, c.name(), strings.Join(kind.options, ", "))
		}
	}
	if !(c.Warmup >= 0 && c.Warmup < 1) {
		wrong("warmup is %g, want a fraction 0 ≤ w < 1", c.Warmup)
	}
	if c.WarmupFromZero && (c.Warmup == 0 || c.name() == "onecycle") {
		wrong("warmup_from_zero is set, but there is no warm-up before kind %s", c.name())
	}
	if c.name() == "inverse_sqrt" && c.Warmup == 0 {
		wrong("warmup is 0, but inverse_sqrt takes its time scale from the warm-up")
	}
	if !(c.Min >= 0 && (c.Min == 0 || c.Min < c.Peak)) {
		wrong("min is %g, want a rate from 0 to below the peak", c.Min)
	}
	if !(c.Power >= 0) || math.IsInf(c.Power, 0) {
		wrong("power is %g, want a positive exponent", c.Power)
	}
	if _, known := shapes[c.Shape]; !known && c.Shape != "" {
		wrong("shape %q is unknown; known: %s", c.Shape, strings.Join(slices.Sorted(maps.Keys(shapes)), ", "))
	}
	if has("decay") && !(c.Decay > 0 && c.Decay <= 1-c.Warmup) {
		wrong("decay is %g, want a fraction 0 < d ≤ 1 − warmup", c.Decay)
	}
	if has("factor") && !(c.Factor > 0 && c.Factor <= 1) && !(has("cycles") && c.Factor == 0) {
		wrong("factor is %g, want 0 < f ≤ 1", c.Factor)
	}
	if has("cycles") && c.Cycles < 1 {
		wrong("cycles is %d, want at least 1", c.Cycles)
	}
	if has("growth") && !(c.Growth == 0 || c.Growth >= 1) || math.IsInf(c.Growth, 0) {
		wrong("growth is %g, want at least 1", c.Growth)
	}
	if has("at") {
		if len(c.At) == 0 {
			wrong("at is empty, want times as fractions of all updates")
		}
		last := c.Warmup
		for i, at := range c.At {
			if !(at > last && at < 1) {
				wrong("at[%d] is %g, want fractions that rise, after the warm-up and below 1", i, at)
			}
			last = at
		}
	}
	if has("rates") {
		if len(c.Rates) != len(c.At) {
			wrong("rates has %d elements, want %d as at has", len(c.Rates), len(c.At))
		}
		for i, rate := range c.Rates {
			if !(rate >= 0 && rate <= c.Peak) {
				wrong("rates[%d] is %g, want 0 ≤ r ≤ peak", i, rate)
			}
		}
	}
	return errors.Join(problems...)
}
