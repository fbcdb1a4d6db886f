package control

import (
	"errors"
	"fmt"
	"math"
)

// Progress says which number is watched, and by how much it must improve to count. The zero value
// watches the metric, greater is better, and any improvement above one in 10,000 counts.
type Progress struct {
	// Signal is "metric", at each evaluation, or "loss", at each update; empty means metric.
	Signal string `json:"signal,omitempty"`
	// Mode is "max" (greater is better) or "min"; empty means max for a metric and min for a loss.
	Mode string `json:"mode,omitempty"`
	// Patience is the number of observations in a row that may pass without an improvement; one more is too many.
	Patience int `json:"patience"`
	// Threshold is how much an improvement must exceed, as a share of the best value or, if
	// ThresholdMode is "abs", in its unit. 0 means 1e-4; a tiny number counts everything.
	Threshold float64 `json:"threshold,omitempty"`
	// ThresholdMode is "rel" or "abs"; empty means rel.
	ThresholdMode string `json:"threshold_mode,omitempty"`
}

// watched is the state of Progress.
type watched struct {
	Best *float64 `json:"best"` // nil before the first observation
	Bad  int      `json:"bad"`  // observations since the last improvement
}

func (p Progress) withDefaults() Progress {
	if p.Signal == "" {
		p.Signal = "metric"
	}
	if p.Mode == "" {
		p.Mode = map[string]string{"metric": "max", "loss": "min"}[p.Signal]
	}
	if p.Threshold == 0 {
		p.Threshold = 1e-4
	}
	if p.ThresholdMode == "" {
		p.ThresholdMode = "rel"
	}
	return p
}

func (p Progress) validate(path string) error {
	p = p.withDefaults()
	var problems []error
	for _, option := range []struct{ name, value, one, other string }{
		{"signal", p.Signal, "metric", "loss"}, {"mode", p.Mode, "max", "min"}, {"threshold_mode", p.ThresholdMode, "rel", "abs"},
	} {
		if option.value != option.one && option.value != option.other && option.value != "" { // an unknown signal has no mode
			problems = append(problems, fmt.Errorf("%s%s %q is unknown; known: %s, %s", path, option.name, option.value, option.one, option.other))
		}
	}
	if p.Patience < 0 {
		problems = append(problems, fmt.Errorf("%spatience is %d, want 0 or more", path, p.Patience))
	}
	if !(p.Threshold > 0) || math.IsInf(p.Threshold, 0) {
		problems = append(problems, fmt.Errorf("%sthreshold is %g, want a positive number", path, p.Threshold))
	}
	return errors.Join(problems...)
}

// value returns the watched number, if the signals have it. NaN is an observation that
// improves nothing.
func (p Progress) value(signals Signals) (float64, bool) {
	switch {
	case p.Signal == "loss":
		return signals.Loss, signals.Metric == nil
	case signals.Metric != nil:
		return *signals.Metric, true
	}
	return 0, false
}

// observe counts an observation.
func (p Progress) observe(w *watched, value float64) {
	if p.better(value, w.Best) {
		w.Best, w.Bad = &value, 0
	} else {
		w.Bad++
	}
}

func (p Progress) better(value float64, best *float64) bool {
	if math.IsNaN(value) || math.IsInf(value, 0) { // JSON has neither
		return false
	}
	if best == nil {
		return true
	}
	share := math.Copysign(p.Threshold, *best) // of a best value below 0, PyTorch would take what is worse for better
	switch {
	case p.Mode == "min" && p.ThresholdMode == "rel":
		return value < *best*(1-share)
	case p.Mode == "min":
		return value < *best-p.Threshold
	case p.ThresholdMode == "rel":
		return value > *best*(1+share)
	}
	return value > *best+p.Threshold
}

// Stop ends a run that no longer improves.
type Stop struct{ Progress }

func (s Stop) validate(path string) error { return s.Progress.validate(path + "stop.") }

func (s Stop) start() worker { return &stop{options: s.withDefaults()} }

type stopState struct {
	watched
	Reason string `json:"reason,omitempty"`
}

type stop struct {
	options Progress
	stopState
}

func (s *stop) factor() float64 { return 1 }
func (s *stop) stopped() string { return s.Reason }
func (s *stop) state() any      { return &s.stopState }

func (s *stop) observe(signals Signals) (Event, bool) {
	value, seen := s.options.value(signals)
	if !seen || s.Reason != "" {
		return Event{}, false
	}
	s.options.observe(&s.watched, value)
	if s.Bad <= s.options.Patience {
		return Event{}, false
	}
	s.Reason = s.options.reason(s.Bad, value, s.Best)
	return Event{Controller: "stop", Signal: s.options.Signal, Action: "stop", Reason: s.Reason}, true
}

func (p Progress) reason(bad int, last float64, best *float64) string {
	reason := fmt.Sprintf("%s did not improve %d times in a row, last %.6g", p.Signal, bad, last)
	if best != nil {
		reason += fmt.Sprintf(", best %.6g", *best)
	}
	return reason
}
