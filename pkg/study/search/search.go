// Package search looks for good values of parameters: what to try next, and how far to go with it.
//
// A [Config] is plain data: a [Space] of floats, ints and categories, some of which exist only under values of others; a
// [Sampler], which suggests values ([Random], [Grid], [Sobol], [TPE], [CMAES]); and a [Scheduler], which decides how
// much resource trials get ([Halving], [Hyperband], [ASHA], [Median], [Population]). A [Search] is asked and told:
//
//	s, err := search.New(config)
//	for {
//		event, advice := s.Ask() // a trial that begins, or goes on after a pause
//		if advice == search.Done {
//			break
//		}
//		err = s.Apply(event)
//		value := objective(event.Params)
//		err = s.Apply(search.Event{Kind: search.Finish, Trial: event.Trial, Value: &value})
//	}
//
// All that it decides follows from the events and the seed. So whoever keeps the events can take a search up again;
// package journal, below this one, keeps them in a file that several processes share, and package program makes trials of
// commands.
package search

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/elastic-attention/workbench/internal/kind"
	"github.com/elastic-attention/workbench/internal/strictjson"
)

// Config is a search as plain data.
type Config struct {
	Space Space `json:"space"`
	// Sampler suggests parameters: its kind, or an object with a field "kind". Nil means [TPE].
	Sampler Sampler `json:"sampler,omitempty"`
	// Scheduler decides how far trials go. Nil lets each go to its end.
	Scheduler Scheduler `json:"scheduler,omitempty"`
	// Trials is how many are begun. Schedulers that plan by themselves take what they need and want 0.
	Trials int `json:"trials,omitempty"`
	// Maximize says that more is better.
	Maximize bool   `json:"maximize,omitempty"`
	Seed     uint64 `json:"seed,omitempty"`
}

var (
	samplers   kind.Registry[Sampler]
	schedulers kind.Registry[Scheduler]
)

func init() {
	for _, err := range []error{
		kind.Add[Random](&samplers), kind.Add[Grid](&samplers), kind.Add[Sobol](&samplers), kind.Add[TPE](&samplers), kind.Add[CMAES](&samplers),
		kind.Add[Halving](&schedulers), kind.Add[ASHA](&schedulers), kind.Add[Hyperband](&schedulers), kind.Add[Median](&schedulers),
		kind.Add[Population](&schedulers),
	} {
		if err != nil {
			panic(err) // two of this package have one kind
		}
	}
}

// Samplers lists the kinds of samplers that a config can name.
func Samplers() []string { return samplers.Kinds() }

// Schedulers lists the kinds of schedulers that a config can name.
func Schedulers() []string { return schedulers.Kinds() }

// plain is a Config whose parts are not decoded.
type plain struct {
	Space     Space           `json:"space"`
	Sampler   json.RawMessage `json:"sampler,omitempty"`
	Scheduler json.RawMessage `json:"scheduler,omitempty"`
	Trials    int             `json:"trials,omitempty"`
	Maximize  bool            `json:"maximize,omitempty"`
	Seed      uint64          `json:"seed,omitempty"`
}

// UnmarshalJSON refuses unknown fields.
func (c *Config) UnmarshalJSON(content []byte) error {
	var p plain
	if err := strictjson.Decode(content, &p); err != nil {
		return err
	}
	*c = Config{Space: p.Space, Trials: p.Trials, Maximize: p.Maximize, Seed: p.Seed}
	var err error
	if p.Sampler != nil {
		if c.Sampler, err = kind.Read[Sampler](&samplers, p.Sampler, "sampler", ""); err != nil {
			return err
		}
	}
	if p.Scheduler != nil {
		c.Scheduler, err = kind.Read[Scheduler](&schedulers, p.Scheduler, "scheduler", "")
	}
	return err
}

// MarshalJSON writes what UnmarshalJSON reads.
func (c Config) MarshalJSON() ([]byte, error) {
	p := plain{Space: c.Space, Trials: c.Trials, Maximize: c.Maximize, Seed: c.Seed}
	var err error
	if c.Sampler != nil {
		if p.Sampler, err = kind.Write(c.Sampler); err != nil {
			return nil, err
		}
	}
	if c.Scheduler != nil {
		if p.Scheduler, err = kind.Write(c.Scheduler); err != nil {
			return nil, err
		}
	}
	return json.Marshal(p)
}

// Validate reports all that is wrong with c.
func (c Config) Validate() error {
	problems := []error{c.Space.Validate()}
	if problems[0] == nil && c.Sampler != nil { // samplers may rely on a sound space
		problems = append(problems, c.Sampler.Validate(c.Space))
	}
	plans := false
	if c.Scheduler != nil {
		problems = append(problems, c.Scheduler.Validate())
		plans = c.Scheduler.Plan() > 0
	}
	switch {
	case c.Trials < 0:
		problems = append(problems, fmt.Errorf("trials is %d, want 1 or more", c.Trials))
	case plans && c.Trials > 0:
		problems = append(problems, fmt.Errorf("trials is %d, but the scheduler %s plans them itself: leave trials out", c.Trials, c.Scheduler.Kind()))
	case !plans && c.Trials == 0:
		problems = append(problems, errors.New("trials is 0, want how many are begun"))
	}
	return errors.Join(problems...)
}

// Search is a search at work: all that was asked, told and decided. Its methods are not safe for concurrent use; two
// searches that saw the same events are the same.
type Search struct {
	config  Config
	earlier []Trial
	trials  []Trial
}

// New begins a search. Trials of earlier searches with a value teach the sampler; they must fit the space.
func New(config Config, earlier ...Trial) (*Search, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("search: %w", err)
	}
	s := &Search{config: config}
	for _, t := range earlier {
		params, err := config.Space.Check(t.Params)
		if err != nil {
			return nil, fmt.Errorf("search: trial %d of an earlier search: %w", t.Number, err)
		}
		t.Params = params
		s.earlier = append(s.earlier, t)
	}
	return s, nil
}

// Trials returns what is known, by number.
func (s *Search) Trials() []Trial { return slices.Clone(s.trials) }

// Best returns the finished trial with the best value, and whether there is one.
func (s *Search) Best() (Trial, bool) { return Best(s.trials, s.config.Maximize) }

// Best returns the finished trial with the best value, and whether there is one.
func Best(trials []Trial, maximize bool) (best Trial, found bool) {
	sign := 1.0
	if maximize {
		sign = -1
	}
	for _, t := range trials {
		if t.State == Finished && (!found || sign*t.Value < sign*best.Value) {
			best, found = t, true
		}
	}
	return best, found
}

// Advice is what a free worker should do.
type Advice int

// What a worker can be advised.
const (
	// Work on the trial.
	Work Advice = iota
	// Wait until another trial reports or ends.
	Wait
	// Done: nothing will be left to do.
	Done
)

// Ask returns the event that begins or resumes a trial. It changes nothing: [Search.Apply] does.
func (s *Search) Ask() (Event, Advice) {
	seen := s.seen()
	next := move{to: begin}
	if scheduler := s.config.Scheduler; scheduler != nil {
		next = scheduler.next(view{trials: seen[len(s.earlier):], limit: s.limit(), seed: s.config.Seed, space: s.config.Space})
	} else if len(s.trials) >= s.limit() {
		next.to = rest
	}
	switch next.to {
	case begin:
		event := Event{Kind: Begin, Trial: len(s.trials), Params: next.params, Until: next.until, Parent: next.parent, Replaces: next.replaces}
		if event.Params == nil {
			event.Params = s.sampler().Sample(History{Space: s.config.Space, Trials: seen, Number: len(s.trials), Seed: s.config.Seed})
		}
		return event, Work
	case resume:
		return Event{Kind: Resume, Trial: next.trial, Until: next.until}, Work
	}
	if slices.ContainsFunc(s.trials, func(t Trial) bool { return t.State == Running }) {
		return Event{}, Wait
	}
	return Event{}, Done
}

func (s *Search) sampler() Sampler {
	if s.config.Sampler == nil {
		return TPE{}
	}
	return s.config.Sampler
}

// limit is how many trials are begun.
func (s *Search) limit() int {
	if s.config.Scheduler != nil {
		if plan := s.config.Scheduler.Plan(); plan > 0 {
			return plan
		}
	}
	return s.config.Trials
}

// seen returns all trials so that less is better.
func (s *Search) seen() []Trial {
	seen := slices.Concat(s.earlier, s.trials)
	if s.config.Maximize {
		for i, t := range seen {
			seen[i] = t.flipped()
		}
	}
	return seen
}

// Verdict says whether a trial that has just reported goes on: [Running], [Paused] or [Stopped].
func (s *Search) Verdict(number int) State {
	trial := s.trials[number]
	if trial.Until > 0 && trial.resource() >= trial.Until {
		return Paused
	}
	if s.config.Scheduler != nil && s.config.Scheduler.stop(s.seen()[len(s.earlier):], number) {
		return Stopped
	}
	return Running
}

// The kinds of events.
const (
	Begin  = "begin"
	Resume = "resume"
	Told   = "report"
	Pause  = "pause"
	Stop   = "stop"
	Finish = "finish"
	Fail   = "fail"
)

// Event is something that happened to a trial.
type Event struct {
	Kind  string `json:"event"`
	Trial int    `json:"trial"`
	// Params of a trial that begins, and in a population the trials from whose state it goes on and whose place it takes.
	Params   Params `json:"params,omitempty"`
	Parent   *int   `json:"parent,omitempty"`
	Replaces *int   `json:"replaces,omitempty"`
	// Until is where a trial that begins or is resumed pauses.
	Until int `json:"until,omitempty"`
	// Resource and Value of a report, Value of a trial that finished.
	Resource int      `json:"resource,omitempty"`
	Value    *float64 `json:"value,omitempty"`
	// Error of a trial that failed.
	Error string `json:"error,omitempty"`
}

// Apply takes note of an event. It returns an error if that cannot happen to its trial.
func (s *Search) Apply(e Event) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("event %q of trial %d: %s", e.Kind, e.Trial, fmt.Sprintf(format, args...))
	}
	if e.Kind == Begin {
		if e.Trial != len(s.trials) {
			return fail("want trial %d", len(s.trials))
		}
		params, err := s.config.Space.Check(e.Params)
		if err != nil {
			return fail("%v", err)
		}
		for _, other := range []*int{e.Parent, e.Replaces} {
			if other != nil && (*other < 0 || *other >= len(s.trials)) {
				return fail("there is no trial %d", *other)
			}
		}
		if e.Replaces != nil {
			s.trials[*e.Replaces].State = Stopped
		}
		s.trials = append(s.trials, Trial{Number: e.Trial, Params: params, State: Running, Until: e.Until, Parent: e.Parent})
		return nil
	}
	if e.Trial < 0 || e.Trial >= len(s.trials) {
		return fail("there is no such trial")
	}
	trial := &s.trials[e.Trial]
	want := Running
	if e.Kind == Resume {
		want = Paused
	}
	if trial.State != want {
		return fail("it is %s, want %s", trial.State, want)
	}
	if (e.Kind == Told || e.Kind == Finish) && (e.Value == nil || math.IsNaN(*e.Value) || math.IsInf(*e.Value, 0)) {
		return fail("want a finite value")
	}
	switch e.Kind {
	case Resume:
		trial.State, trial.Until = Running, e.Until
	case Told:
		// A trial that was taken up again from an earlier point says some things twice.
		trial.Reports = slices.DeleteFunc(slices.Clone(trial.Reports), func(r Report) bool { return r.Resource >= e.Resource })
		trial.Reports = append(trial.Reports, Report{e.Resource, *e.Value})
	case Pause:
		trial.State = Paused
	case Stop:
		trial.State = Stopped
	case Finish:
		trial.State, trial.Value = Finished, *e.Value
	case Fail:
		trial.State, trial.Error = Failed, e.Error
	default:
		return fail("is unknown")
	}
	return nil
}
