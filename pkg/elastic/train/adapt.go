package train

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
)

// Experienced is a [Task] that knows the results of earlier runs, which priors name.
type Experienced interface {
	Task
	// Experience returns the values that an earlier run ended with, and if prior.Fisher is not 0
	// the diagonal of their Fisher information, by path. Variables that it does not have are absent.
	Experience(prior adapt.Prior) (values, fisher map[string]*tensors.Tensor, err error)
}

// Aimed is a [Task] whose loss has the objectives of a strategy in it.
type Aimed interface {
	Task
	Objectives() []adapt.Objective
}

// adaptation is what a strategy adds to a trainer.
type adaptation struct {
	factors  map[string]float64 // of the learning rate, by path
	groups   []string           // of variables, see adapt.Group
	pulls    []pull
	restored bool
}

// pull is a prior with the variables that it is about.
type pull struct {
	prior     adapt.Prior
	name      string // scope of its anchors; empty when it only gives initial values
	variables []elastic.Variable
}

// anchorScope is where the values are that a strategy refers to.
const anchorScope = "/adapt"

// plan works out which variables are trained and what pulls at them.
func (t *Trainer) plan() error {
	all, s := t.task.Variables(), t.config.Adapt
	var err error
	if t.factors, err = s.Factors(all); err != nil {
		return fmt.Errorf("adapt: %w", err)
	}
	t.variables = slices.DeleteFunc(slices.Clone(all), func(v elastic.Variable) bool { return t.factors[v.Path] == 0 })
	if len(t.variables) == 0 {
		return errors.New("adapt.gradient freezes all variables, so that there is nothing to train")
	}
	if s.IsZero() {
		return nil
	}
	if aimed, ok := t.task.(Aimed); len(s.Objective) > 0 && (!ok || !slices.Equal(aimed.Objectives(), s.Objective)) {
		return errors.New("adapt.objective: the task's loss does not have these objectives")
	}
	for _, v := range t.variables {
		if group := adapt.Group(v.Path); !slices.Contains(t.groups, group) {
			t.groups = append(t.groups, group)
		}
	}
	for i, p := range s.Experience {
		among := all
		if !p.Initial {
			among = t.variables // a frozen variable cannot be pulled
		}
		chosen, err := adapt.Select(among, p.Patterns())
		if err != nil {
			return fmt.Errorf("adapt: experience[%d].variables: %w", i, err)
		}
		if _, ok := t.task.(Experienced); p.FromRun != "" && !ok {
			return fmt.Errorf("adapt: experience[%d].from_run: the task knows no earlier runs", i)
		}
		t.pulls = append(t.pulls, pull{p, fmt.Sprintf("%s/prior_%d", anchorScope, i), chosen})
	}
	return nil
}

// anchors lists the variables below [anchorScope]: where each trained variable began, and per
// prior its values and, if it has one, its Fisher information.
func (t *Trainer) anchors() []elastic.Variable {
	if t.config.Adapt.IsZero() {
		return nil
	}
	list := slices.Clone(elastic.Under(anchorScope+"/start", t.variables))
	for _, p := range t.pulls {
		list = append(list, elastic.Under(p.name+"/value", p.variables)...)
		if p.prior.Fisher > 0 {
			list = append(list, elastic.Under(p.name+"/fisher", p.variables)...)
		}
	}
	for i := range list {
		list[i].Init = elastic.Init{}
	}
	return list
}

// begin gives the anchors their values and sets initial ones, in a run that is not resumed.
func (t *Trainer) begin() error {
	if t.config.Adapt.IsZero() || t.restored {
		return nil
	}
	store := t.task.Store()
	set := func(path string, value *tensors.Tensor) error {
		clone, err := value.LocalClone()
		if err == nil {
			err = store.GetVariable(path).SetValue(clone)
		}
		if err != nil {
			return fmt.Errorf("setting %s: %w", path, err)
		}
		return nil
	}
	event := adapt.Event{Why: "begin", Adapts: map[string]int{}, Frozen: map[string]int{}}
	for i, p := range t.pulls {
		values, fisher, err := t.known(p)
		if err != nil {
			return fmt.Errorf("adapt: experience[%d]: %w", i, err)
		}
		for _, v := range p.variables {
			if err := set(p.name+"/value"+v.Path, values[v.Path]); err != nil {
				return err
			}
			if p.prior.Fisher > 0 {
				if err := set(p.name+"/fisher"+v.Path, fisher[v.Path]); err != nil {
					return err
				}
			}
			if p.prior.Initial {
				if err := set(v.Path, values[v.Path]); err != nil {
					return err
				}
			}
		}
		event.Priors = append(event.Priors, fmt.Sprintf("%d variables: %s", len(p.variables), p.prior))
	}
	for _, v := range t.variables {
		value, err := store.GetVariable(v.Path).Value()
		if err != nil {
			return fmt.Errorf("reading %s: %w", v.Path, err)
		}
		if err := set(anchorScope+"/start"+v.Path, value); err != nil {
			return err
		}
	}
	for _, v := range t.task.Variables() {
		if t.factors[v.Path] == 0 {
			event.Frozen[adapt.Group(v.Path)] += v.Size()
		} else {
			event.Adapts[adapt.Group(v.Path)] += v.Size()
		}
	}
	t.state.Adaptation = append(t.state.Adaptation, event)
	return nil
}

// known returns what a prior knows of its variables.
func (t *Trainer) known(p pull) (values, fisher map[string]*tensors.Tensor, err error) {
	switch {
	case p.prior.FromRun != "":
		if values, fisher, err = t.task.(Experienced).Experience(p.prior); err != nil {
			return nil, nil, err
		}
	case p.prior.Value != nil:
		values = map[string]*tensors.Tensor{}
		for _, v := range p.variables {
			v.Init = elastic.Init{Value: *p.prior.Value}
			values[v.Path] = v.Tensor(0)
		}
	default:
		values = map[string]*tensors.Tensor{}
		for _, v := range p.variables {
			if values[v.Path], err = t.task.Store().GetVariable(v.Path).Value(); err != nil {
				return nil, nil, fmt.Errorf("reading %s: %w", v.Path, err)
			}
		}
	}
	check := func(what string, known map[string]*tensors.Tensor) error {
		for _, v := range p.variables {
			value, ok := known[v.Path]
			if !ok {
				return fmt.Errorf("%s has no %s of %s: leave it out by variables", p.prior.FromRun, what, v.Path)
			}
			if got := value.Shape().Dimensions; !slices.Equal(got, v.Shape) && len(got)+len(v.Shape) > 0 {
				return fmt.Errorf("%s has %s of shape %v for %s, want %v: leave it out by variables", p.prior.FromRun, what, got, v.Path, v.Shape)
			}
		}
		return nil
	}
	err = check("value", values)
	if err == nil && p.prior.Fisher > 0 {
		err = check("Fisher information", fisher)
	}
	return values, fisher, err
}

// pulled returns the gradients of the mean loss and of the priors.
func (t *Trainer) pulled(store *model.Store, gradients []*Node, factor *Node) []*Node {
	g := factor.Graph()
	sum := make([]*Node, len(gradients))
	index := map[string]int{}
	for i, v := range t.variables {
		sum[i] = Mul(gradients[i], factor)
		index[v.Path] = i
	}
	for _, p := range t.pulls {
		if p.prior.Weight == 0 {
			continue
		}
		for _, v := range p.variables {
			i, ok := index[v.Path]
			if !ok {
				continue
			}
			away := Sub(store.GetVariable(v.Path).NodeValue(g), store.GetVariable(p.name+"/value"+v.Path).NodeValue(g))
			if p.prior.Fisher > 0 {
				away = Mul(away, store.GetVariable(p.name+"/fisher"+v.Path).NodeValue(g))
			}
			sum[i] = Add(sum[i], MulScalar(away, p.prior.Weight))
		}
	}
	return sum
}

// scales returns the factor of the learning rate of each variable that is trained.
func (t *Trainer) scales() []float64 {
	list := make([]float64, len(t.variables))
	for i, v := range t.variables {
		list[i] = t.factors[v.Path]
	}
	return list
}

// measure returns ‖Δw‖², ‖w‖² and per group ‖w − start‖² for the new values.
func (t *Trainer) measure(store *model.Store, values []*Node) []*Node {
	if t.config.Adapt.IsZero() {
		return nil
	}
	var step, size *Node
	distances := make([]*Node, len(t.groups))
	for i, v := range t.variables {
		square := func(other *Node) *Node { return elastic.SumAll(Square(Sub(values[i], other))) }
		g := values[i].Graph()
		group := slices.Index(t.groups, adapt.Group(v.Path))
		step = elastic.AddIf(step, square(store.GetVariable(v.Path).NodeValue(g)))
		size = elastic.AddIf(size, elastic.SumAll(Square(values[i])))
		distances[group] = elastic.AddIf(distances[group], square(store.GetVariable(anchorScope+"/start"+v.Path).NodeValue(g)))
	}
	return append([]*Node{step, size}, distances...)
}

// note counts calm updates, keeps an event when one is due, and ends the run if the strategy
// says so. An update whose numbers are not finite was not made.
func (t *Trainer) note(loss float64, finite bool, elapsed time.Duration, measures []float64, last bool) {
	s := t.config.Adapt
	if s.IsZero() {
		return
	}
	event := adapt.Event{Update: t.state.Update, Why: "step", Loss: loss, Moved: map[string]float64{}}
	event.Change = math.Sqrt(measures[0] / math.Max(measures[1], math.SmallestNonzeroFloat32))
	total := 0.0
	for i, group := range t.groups {
		event.Moved[group] = math.Sqrt(measures[2+i])
		total += measures[2+i]
	}
	event.Distance = math.Sqrt(total)
	switch {
	case !finite: // nothing was changed, which is no calm
		event.Loss = 0 // JSON has no NaN
	case event.Change < s.Converge.Below:
		t.state.Calm++
	default:
		t.state.Calm = 0
	}
	if s.Budget.Seconds > 0 { // else it would make states differ that are the same
		t.state.Seconds += elapsed.Seconds()
	}
	if t.state.Ended == "" { // else a controller ended it
		t.state.Ended = s.End(t.state.Update, t.state.Calm, t.state.Seconds, event.Distance)
	}
	if t.state.Ended != "" {
		event.Why = t.state.Ended
	}
	if t.state.Ended != "" || last || t.state.Update == 1 || t.state.Update%s.LogEvery == 0 {
		t.state.Adaptation = append(t.state.Adaptation, event)
	}
}
