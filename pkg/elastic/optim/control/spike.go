package control

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Spike backs off from spikes of the loss: when a loss exceeds the median of the last
// Window ones by more than Deviations robust standard deviations (1.4826 times the median
// absolute deviation, at least Floor·|median|), the factor of the rate becomes Factor, for Hold updates. It then
// recovers evenly to 1 within Recovery updates. A spike in that time begins it anew. Losses of spikes do not enter
// the window, unless half a window of them came in a row: then the loss has moved, and the window begins again with them.
//
// The rule is our own; that one backs off at all is as in Chowdhery et al. 2022, "PaLM", section 5.1 (there by restarting and
// skipping batches).
type Spike struct {
	// Window is a number of updates, at least 4; 0 means 32. Nothing is a spike before it is full.
	Window int `json:"window,omitempty"`
	// Deviations is 6 if 0.
	Deviations float64 `json:"deviations,omitempty"`
	// Floor is the least deviation as a share of the median; 0 means 0.01.
	Floor float64 `json:"floor,omitempty"`
	// Factor is in (0, 1); 0 means 0.1.
	Factor float64 `json:"factor,omitempty"`
	// Hold and Recovery are numbers of updates; 0 means 10.
	Hold     int `json:"hold,omitempty"`
	Recovery int `json:"recovery,omitempty"`
}

func (s Spike) withDefaults() Spike {
	for _, option := range []struct {
		value *float64
		or    float64
	}{{&s.Deviations, 6}, {&s.Floor, 0.01}, {&s.Factor, 0.1}} {
		if *option.value == 0 {
			*option.value = option.or
		}
	}
	for _, option := range []struct {
		value *int
		or    int
	}{{&s.Window, 32}, {&s.Hold, 10}, {&s.Recovery, 10}} {
		if *option.value == 0 {
			*option.value = option.or
		}
	}
	return s
}

func (s Spike) validate(path string) error {
	s = s.withDefaults()
	path += "spike."
	var problems []error
	if s.Window < 4 {
		problems = append(problems, fmt.Errorf("%swindow is %d, want at least 4 updates", path, s.Window))
	}
	if !(s.Deviations > 0) || math.IsInf(s.Deviations, 0) {
		problems = append(problems, fmt.Errorf("%sdeviations is %g, want a positive number", path, s.Deviations))
	}
	if !(s.Floor > 0) || math.IsInf(s.Floor, 0) {
		problems = append(problems, fmt.Errorf("%sfloor is %g, want a positive share", path, s.Floor))
	}
	if !(s.Factor > 0 && s.Factor < 1) {
		problems = append(problems, fmt.Errorf("%sfactor is %g, want 0 < f < 1", path, s.Factor))
	}
	if s.Hold < 0 {
		problems = append(problems, fmt.Errorf("%shold is %d, want a number of updates", path, s.Hold))
	}
	if s.Recovery < 0 {
		problems = append(problems, fmt.Errorf("%srecovery is %d, want a number of updates", path, s.Recovery))
	}
	return errors.Join(problems...)
}

func (s Spike) start() worker { return &spike{Spike: s.withDefaults()} }

type spikeState struct {
	Losses []float64 `json:"losses,omitempty"` // the window, oldest first
	Spikes []float64 `json:"spikes,omitempty"` // losses of the spikes in a row until now
	Left   int       `json:"left,omitempty"`   // updates until the factor is 1 again
}

type spike struct {
	Spike
	spikeState
}

func (s *spike) stopped() string { return "" }
func (s *spike) state() any      { return &s.spikeState }

func (s *spike) factor() float64 {
	switch {
	case s.Left == 0:
		return 1
	case s.Left > s.Recovery:
		return s.Factor
	}
	return 1 - (1-s.Factor)*float64(s.Left)/float64(s.Recovery+1)
}

func (s *spike) observe(signals Signals) (Event, bool) {
	if signals.Metric != nil {
		return Event{}, false
	}
	if reason := s.reason(signals.Loss); reason != "" {
		s.Spikes = append(s.Spikes, signals.Loss)
		if len(s.Spikes) >= s.Window/2 {
			s.Losses, s.Spikes = s.Spikes, nil
		}
		s.Left = s.Hold + s.Recovery
		return Event{Controller: "spike", Signal: "loss", Action: "back off", Reason: reason}, true
	}
	s.Losses, s.Spikes = append(s.Losses, signals.Loss), nil
	s.Losses = s.Losses[max(0, len(s.Losses)-s.Window):]
	if s.Left == 0 {
		return Event{}, false
	}
	s.Left--
	if s.Left > 0 {
		return Event{}, false
	}
	return Event{
		Controller: "spike", Signal: "loss", Action: "recover",
		Reason: fmt.Sprintf("no spike for %d updates", s.Hold+s.Recovery),
	}, true
}

// reason says why a loss is a spike, empty if it is none.
func (s *spike) reason(loss float64) string {
	if len(s.Losses) < s.Window {
		return ""
	}
	middle := median(s.Losses)
	distances := make([]float64, len(s.Losses))
	for i, x := range s.Losses {
		distances[i] = math.Abs(x - middle)
	}
	// 1.4826 makes the median absolute deviation of a normal distribution its standard deviation.
	deviation := math.Max(1.4826*median(distances), s.Floor*math.Abs(middle))
	if !(loss-middle > s.Deviations*deviation) {
		return ""
	}
	return fmt.Sprintf("loss %.6g exceeds the median %.6g of %d updates by more than %g deviations of %.3g", loss, middle, s.Window, s.Deviations, deviation)
}

func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}
