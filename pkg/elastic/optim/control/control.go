// Package control has controllers: what changes the learning rate of a run, or ends
// it, because of what the run shows.
//
// A schedule knows its rates before the run; a controller does not. It observes
// [Signals] on the host after each update and answers with a factor for the scheduled rate
// and with [Event] values that say what it did and why. Nothing recompiles.
//
//	set, err := control.New([]control.Config{{Plateau: &control.Plateau{Progress: control.Progress{Patience: 2}}}})
//	for _, event := range set.Observe(signals) { … }
//	rate := schedule.Schedule(total).At(update) * set.Scale() // of a schedule.Config
//
// One controller, [Trials], asks before it answers: the loop makes each [Trial] that [Set.Trial] wants, puts all back,
// and tells [Set.Tried] the losses.
//
// All state is plain data: a [Set] that is written as JSON in the middle of a plateau
// and read again goes on bit for bit.
package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Signals is what a run shows after an update, or after an evaluation.
type Signals struct {
	// Update counts from 1.
	Update int
	// Loss is that of the update, finite; it does not count after an evaluation.
	Loss float64
	// Metric is the outcome of the evaluation after this update, nil for an update.
	Metric *float64
	// Small and Big are squared norms of gradients of the update: the mean over its micro-batches, of
	// so many targets, and that of all of it. They have no examples where they are not measured.
	Small, Big SquaredNorm
}

// Event says what a controller did.
type Event struct {
	Update     int     `json:"update"`
	Controller string  `json:"controller"` // kind: plateau, spike, stop, noise_scale, trials; of the loop itself: unfreeze, non_finite
	Signal     string  `json:"signal"`     // metric, loss, gradient, or update
	Action     string  `json:"action"`     // reduce, back off, recover, stop, measure, try, choose, unfreeze, keep frozen, skip
	Factor     float64 `json:"factor"`     // the controller's factor of the rate from now on
	Reason     string  `json:"reason"`
}

// controller is the options of one: plain data. What it remembers of a run is kept apart.
type controller interface {
	// validate reports all that is wrong, under a path.
	validate(path string) error
	// start returns the controller at work, in the state of a fresh run.
	start() worker
}

// worker is a controller with its state.
type worker interface {
	observe(Signals) (Event, bool)
	factor() float64
	// stopped says why the run should end, empty if it should not.
	stopped() string
	// state points to plain data.
	state() any
}

// Config names one controller: exactly one field is set.
type Config struct {
	Plateau *Plateau `json:"plateau,omitempty"`
	Spike   *Spike   `json:"spike,omitempty"`
	Stop    *Stop    `json:"stop,omitempty"`
	Noise   *Noise   `json:"noise_scale,omitempty"`
	Trials  *Trials  `json:"trials,omitempty"`
}

// controllers lists those that c names.
func (c Config) controllers() []controller {
	var list []controller
	if c.Plateau != nil {
		list = append(list, *c.Plateau)
	}
	if c.Spike != nil {
		list = append(list, *c.Spike)
	}
	if c.Stop != nil {
		list = append(list, *c.Stop)
	}
	if c.Noise != nil {
		list = append(list, *c.Noise)
	}
	if c.Trials != nil {
		list = append(list, *c.Trials)
	}
	return list
}

func (c Config) tries() bool { return c.Trials != nil }

// Validate reports all that is wrong with c.
func (c Config) Validate() error {
	list := c.controllers()
	if len(list) != 1 {
		return fmt.Errorf("control names %d controllers, want one of plateau, spike, stop, noise_scale, trials", len(list))
	}
	return list[0].validate("control.")
}

// Set is several controllers at work on one run.
type Set struct{ workers []worker }

// New starts controllers for a fresh run. The error has all problems of all configs.
func New(configs []Config) (*Set, error) {
	set := &Set{}
	var problems []error
	for i, config := range configs {
		if err := config.Validate(); err != nil {
			problems = append(problems, fmt.Errorf("controller %d: %w", i, err))
			continue
		}
		set.workers = append(set.workers, config.controllers()[0].start())
	}
	if i := slices.IndexFunc(configs, Config.tries); i >= 0 && slices.ContainsFunc(configs[i+1:], Config.tries) {
		problems = append(problems, errors.New("control has several trials, want one"))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return set, nil
}

// Observe gives signals to all controllers, once per update or evaluation and in order.
func (s *Set) Observe(signals Signals) []Event {
	var events []Event
	for _, worker := range s.workers {
		if event, acted := worker.observe(signals); acted {
			event.Update = signals.Update
			event.Factor = worker.factor()
			events = append(events, event)
		}
	}
	return events
}

// Scale returns the product of all factors, for the rates of the updates to come.
func (s *Set) Scale() float64 {
	scale := 1.0
	for _, worker := range s.workers {
		scale *= worker.factor()
	}
	return scale
}

// Trial is what a controller wants to know: the losses of the next updates under a factor of the rate, from the
// weights and slots that the run has now.
type Trial struct {
	Scale   float64 // in place of [Set.Scale]
	Updates int
}

// tries returns the controller that makes trials, nil if there is none.
func (s *Set) tries() *trials {
	for _, worker := range s.workers {
		if t, ok := worker.(*trials); ok {
			return t
		}
	}
	return nil
}

// Trial returns the trial that is to be made before the next update, if there is one. The run has so many updates left.
func (s *Set) Trial(left int) (Trial, bool) {
	t := s.tries()
	if t == nil {
		return Trial{}, false
	}
	factor, updates := t.next(left)
	return Trial{Scale: s.Scale() / t.factor() * factor, Updates: updates}, factor > 0
}

// Tried gives the losses of the trial's updates, in order; one that is not finite is the last. After it, another trial
// may be due. Update is how many the run has made, for the events.
func (s *Set) Tried(update int, losses []float64) []Event {
	t := s.tries()
	events := t.tried(losses)
	for i := range events {
		events[i].Update, events[i].Factor = update, t.factor()
	}
	return events
}

// Stop says why the run should end, empty if it should go on.
func (s *Set) Stop() string {
	for _, worker := range s.workers {
		if reason := worker.stopped(); reason != "" {
			return reason
		}
	}
	return ""
}

// MarshalJSON writes the state of all controllers.
func (s *Set) MarshalJSON() ([]byte, error) {
	states := make([]any, len(s.workers))
	for i, worker := range s.workers {
		states[i] = worker.state()
	}
	return json.Marshal(states)
}

// UnmarshalJSON reads the state of a set that was made from the same configs.
func (s *Set) UnmarshalJSON(content []byte) error {
	var states []json.RawMessage
	if err := json.Unmarshal(content, &states); err != nil {
		return fmt.Errorf("state of controllers: %w", err)
	}
	if len(states) != len(s.workers) {
		return fmt.Errorf("state of %d controllers, but the config has %d", len(states), len(s.workers))
	}
	for i, worker := range s.workers {
		decoder := json.NewDecoder(bytes.NewReader(states[i]))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(worker.state()); err != nil {
			return fmt.Errorf("state of controller %d: %w", i, err)
		}
	}
	return nil
}
