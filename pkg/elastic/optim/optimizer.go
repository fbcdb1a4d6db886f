package optim

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Optimizer is a config together with the parameters that it trains.
type Optimizer struct {
	config     Config
	parameters []elastic.Variable
	settings   []setting // of the parameters
	chains     []*chain
	slots      []SlotVariable
}

// chain is a rule with the parameters that it moves.
type chain struct {
	rule    Rule
	links   []Transform
	members []int  // of Optimizer.parameters
	shared  string // end of the names of shared slots
	groups  []int  // of the members: index of Config.Groups, −1 for none
}

// SlotVariable is a slot that an optimizer keeps.
type SlotVariable struct {
	// Variable has as path the slot's name and the parameter's path, and its initial value.
	elastic.Variable
	// Of is the index of the parameter that the slot belongs to, −1 if it is shared.
	Of int
	// Copy says that the slot begins as a copy of the parameter.
	Copy bool
}

// New checks a config against the parameters. A group that matches no parameter is an error, and so
// is a weight decay that a rule has no use for.
func New(config Config, parameters []elastic.Variable) (*Optimizer, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	o := &Optimizer{config: config, parameters: parameters, settings: make([]setting, len(parameters))}
	var problems []error
	groups, err := o.match()
	problems = append(problems, err)
	o.layerDecay()
	for i := range o.parameters {
		own, rule, shared := &o.settings[i], config.rule(), ""
		if groups[i] >= 0 {
			g := config.Groups[groups[i]]
			own.rate *= or(g.Rate, 1)
			own.decay = g.WeightDecay
			if g.Rule != nil {
				rule, shared = g.Rule, "/group_"+strconv.Itoa(groups[i])
			}
		}
		at := slices.IndexFunc(o.chains, func(c *chain) bool { return c.shared == shared })
		if at < 0 {
			at = len(o.chains)
			o.chains = append(o.chains, &chain{rule: rule, shared: shared})
		}
		o.chains[at].members = append(o.chains[at].members, i)
		o.chains[at].groups = append(o.chains[at].groups, groups[i])
	}
	for _, c := range o.chains {
		problems = append(problems, o.link(c))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return o, nil
}

// match returns the group of each parameter, −1 for none.
func (o *Optimizer) match() ([]int, error) {
	groups := make([]int, len(o.parameters))
	used := make([]bool, len(o.config.Groups))
	for i, p := range o.parameters {
		groups[i] = -1
		for j, g := range o.config.Groups {
			if g.matches(p) {
				used[j] = true
				if groups[i] < 0 {
					groups[i] = j
				}
			}
		}
	}
	var problems []error
	for j, g := range o.config.Groups {
		if !used[j] {
			problems = append(problems, fmt.Errorf("optimizer.groups[%d]: %s match no parameter that is trained; those are %s", j, strings.Join(g.Variables, ", "), strings.Join(elastic.Patterns(o.parameters), " ")))
		} else if !slices.Contains(groups, j) {
			problems = append(problems, fmt.Errorf("optimizer.groups[%d]: all that %s match is in groups before it", j, strings.Join(g.Variables, ", ")))
		}
	}
	return groups, errors.Join(problems...)
}

func (g Group) matches(p elastic.Variable) bool {
	if g.Rank != nil && *g.Rank != len(p.Shape) {
		return false
	}
	return anyMatches(g.Variables, p.Path)
}

// anyMatches reports whether a path fits one of the patterns.
func anyMatches(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return elastic.Matcher(pattern)(path) })
}

var layerName = regexp.MustCompile(`/layer_(\d+)/`)

// Depths returns how many layers lie above each parameter. All that is in no layer, the head, has none
// above it, and embeddings lie below layer 0.
func Depths(parameters []elastic.Variable) []int {
	layer := func(path string) int {
		if name := layerName.FindStringSubmatch(path); name != nil {
			n, _ := strconv.Atoi(name[1])
			return n
		}
		if strings.Contains(path, "embeddings") {
			return -1
		}
		return math.MaxInt
	}
	top := -1
	for _, p := range parameters {
		if l := layer(p.Path); l < math.MaxInt {
			top = max(top, l)
		}
	}
	depths := make([]int, len(parameters))
	for i, p := range parameters {
		depths[i] = max(0, top+1-min(layer(p.Path), top+1))
	}
	return depths
}

// layerDecay sets the rates of parameters to those of their layers.
func (o *Optimizer) layerDecay() {
	for i, above := range Depths(o.parameters) {
		o.settings[i].rate = math.Pow(or(o.config.LayerDecay, 1), float64(above))
	}
}

// decaying is a transform that has weight decay.
type decaying interface{ decays() }

// link takes a chain's rule apart and lists its slots.
func (o *Optimizer) link(c *chain) error {
	var err error
	if c.links, err = transforms(c.rule); err != nil {
		return err
	}
	var problems []error
	for i, j := range c.members {
		if g := c.groups[i]; o.settings[j].decay != nil && *o.settings[j].decay != 0 && !slices.ContainsFunc(c.links, func(t Transform) bool { _, ok := t.(decaying); return ok }) {
			problems = append(problems, fmt.Errorf("optimizer.groups[%d].weight_decay: rule %q has no weight decay", g, c.rule.Kind()))
			break
		}
	}
	known := map[string]string{}
	own := func(t Transform, name string) {
		if other, taken := known[name]; taken {
			problems = append(problems, fmt.Errorf("optimizer: %q and %q in one chain keep the same state %q", other, t.Kind(), name))
		}
		known[name] = t.Kind()
	}
	for _, t := range c.links {
		// Slot by slot, each for all parameters: see train.Trainer on the order in which XLA
		// writes new values over old ones.
		var names []string
		byName := map[string][]SlotVariable{}
		for _, j := range c.members {
			p := o.parameters[j]
			for _, s := range t.Slots(p) {
				v := newSlot(s, p.Path, j)
				if s.Shape == nil {
					v.Shape = p.Shape
				}
				if byName[s.Name] == nil {
					names = append(names, s.Name)
					own(t, s.Name)
				}
				byName[s.Name] = append(byName[s.Name], v)
			}
		}
		for _, name := range names {
			o.slots = append(o.slots, byName[name]...)
		}
		if sharer, ok := t.(Sharer); ok {
			for _, s := range sharer.Shared() {
				own(t, s.Name)
				o.slots = append(o.slots, newSlot(s, c.shared, -1))
			}
		}
	}
	return errors.Join(problems...)
}

func newSlot(s Slot, path string, of int) SlotVariable {
	variable := elastic.Variable{Path: slotKey(s.Name, path), Shape: s.Shape, Init: elastic.Init{Value: s.Start}}
	return SlotVariable{Variable: variable, Of: of, Copy: s.Copy}
}

// Scale multiplies the learning rates of the parameters, one factor each, beside what groups say. It is for
// before the first update.
func (o *Optimizer) Scale(factors []float64) {
	for i, factor := range factors {
		o.settings[i].rate *= factor
	}
}

// Slots lists the optimizer's state, in the order in which [Optimizer.Update] takes it. Slots have
// the type of the parameters.
func (o *Optimizer) Slots() []SlotVariable { return o.slots }

// Input is what an update needs. Values and Gradients have a node a parameter.
type Input struct {
	Values, Gradients []*Node
	Slots             []*Node
	Number, Rate      *Node // number of the update from 1, and learning rate: float64 scalars
	Loss              *Node // mean loss at Values, scalar
	Key               *Node // of the update, for rules with noise: uint32[2], as of dropout.Key; may be nil without
	// Since has for each parameter after how many updates it begins to change, a float64 scalar, nil for
	// one that changes from the start; a nil list means so for all. Until then the parameter and its
	// slots stay as they are, to the last bit, and its gradient must be 0. From then on its own updates
	// count, from 1, for bias corrections and the like, save in rules with state that all parameters
	// share, which count those of the run.
	Since []*Node
}

// steps returns the step of each chain.
func (o *Optimizer) steps(in Input) []*Step {
	slots := map[string]*Node{}
	if in.Slots != nil {
		for i, s := range o.slots {
			slots[s.Path] = in.Slots[i]
		}
	}
	steps := make([]*Step, len(o.chains))
	for i, c := range o.chains {
		s := &Step{Number: in.Number, Rate: in.Rate, Used: in.Rate, Loss: in.Loss, Key: in.Key, slots: slots, shared: c.shared}
		for _, j := range c.members {
			s.Parameters = append(s.Parameters, o.parameters[j])
			s.settings = append(s.settings, o.settings[j])
			s.Values = append(s.Values, in.Values[j])
			if in.Since != nil {
				s.since = append(s.since, in.Since[j])
			}
			if in.Gradients != nil {
				s.Gradients = append(s.Gradients, in.Gradients[j])
			}
		}
		s.Updates = slices.Clone(s.Gradients)
		steps[i] = s
	}
	return steps
}

// Update builds one update. It returns the new values and slots, and the learning rate that was
// used, that of the first parameter's rule, a float64 scalar.
func (o *Optimizer) Update(in Input) (values, slots []*Node, used *Node) {
	if n, m := len(o.parameters), len(o.slots); len(in.Values) != n || len(in.Gradients) != n || len(in.Slots) != m || in.Number == nil || in.Rate == nil {
		exceptions.Panicf("an update of %d parameters with %d slots needs so many nodes, a number and a rate, got %d values, %d gradients, %d slots, number %v, rate %v",
			n, m, len(in.Values), len(in.Gradients), len(in.Slots), in.Number, in.Rate)
	}
	values = make([]*Node, len(in.Values))
	slots = make([]*Node, len(in.Slots))
	steps := o.steps(in)
	for i, s := range steps {
		c := o.chains[i]
		for _, t := range c.links {
			s.apply(t)
		}
		for k, v := range s.next() {
			values[c.members[k]] = v
		}
	}
	for k, slot := range o.slots {
		slots[k] = steps[0].find(slot.Path) // all steps have the same map
	}
	if in.Since != nil {
		for j, since := range in.Since {
			values[j] = keptUntil(in.Number, since, values[j], in.Values[j])
		}
		for k, slot := range o.slots {
			if slot.Of >= 0 {
				slots[k] = keptUntil(in.Number, in.Since[slot.Of], slots[k], in.Slots[k])
			}
		}
	}
	return values, slots, steps[0].Used
}

// Averages reports whether models are evaluated with other weights than those that are trained.
func (o *Optimizer) Averages() bool {
	return slices.ContainsFunc(o.chains, func(c *chain) bool { return c.averager() != nil })
}

func (c *chain) averager() Averager {
	for _, t := range slices.Backward(c.links) {
		if a, ok := t.(Averager); ok {
			return a
		}
	}
	return nil
}

// Average returns the weights that models are evaluated with, from values and slots after an
// update; Number is that of this update. The input needs no gradients, rate or loss.
func (o *Optimizer) Average(in Input) []*Node {
	values := slices.Clone(in.Values)
	for i, s := range o.steps(in) {
		if a := o.chains[i].averager(); a != nil {
			for k, v := range a.Average(s) {
				values[o.chains[i].members[k]] = v
			}
		}
	}
	return values
}

// Perturbs reports whether gradients are to be taken at other weights than those that are trained.
func (o *Optimizer) Perturbs() bool {
	return slices.ContainsFunc(o.chains, func(c *chain) bool { return c.perturber() != nil })
}

func (c *chain) perturber() Perturber {
	for _, t := range c.links {
		if p, ok := t.(Perturber); ok {
			return p
		}
	}
	return nil
}

// Perturb returns the weights at which the gradients are to be taken that [Optimizer.Update] gets,
// from values and the gradients there; the input needs nothing else.
func (o *Optimizer) Perturb(in Input) []*Node {
	values := slices.Clone(in.Values)
	for i, s := range o.steps(in) {
		if p := o.chains[i].perturber(); p != nil {
			for k, v := range p.Perturb(s) {
				values[o.chains[i].members[k]] = v
			}
		}
	}
	return values
}

// partly is a rule that moves some parameters by another: of which kind, at which factor of the rate and with
// which decay; an empty kind means by itself.
type partly interface {
	other(p elastic.Variable) (kind string, rate, decay float64)
}

// Explain returns a table of what holds for which parameters: group, rule, factor of the learning
// rate, weight decay, and how many parameters and bytes of state.
func (o *Optimizer) Explain() string {
	type row struct {
		group, rule string
		rate, decay float64
	}
	var order []row
	type count struct {
		tensors, elements, state int
		first                    string
	}
	counts := map[row]*count{}
	state := make([]int, len(o.parameters))
	for _, s := range o.slots {
		if s.Of >= 0 {
			state[s.Of] += 4 * s.Size() // float32
		}
	}
	for _, c := range o.chains {
		lambda := 0.0
		for _, t := range c.links {
			if d, ok := t.(interface{ lambda() float64 }); ok {
				lambda = d.lambda()
			}
		}
		s := &Step{}
		for i, j := range c.members {
			p := o.parameters[j]
			s.Parameters, s.settings = append(s.Parameters, p), append(s.settings, o.settings[j])
			r := row{group: "rest", rule: c.rule.Kind(), rate: o.settings[j].rate, decay: s.decay(i, lambda)}
			for _, t := range c.links {
				if split, ok := t.(partly); ok {
					if kind, rate, decay := split.other(p); kind != "" {
						r.rule, r.rate, r.decay = r.rule+": "+kind, r.rate*rate, s.decay(i, decay)
					}
				}
			}
			if g := c.groups[i]; g >= 0 {
				r.group = strings.Join(o.config.Groups[g].Variables, " ")
			}
			if counts[r] == nil {
				order = append(order, r)
				counts[r] = &count{first: p.Path}
			}
			counts[r].tensors++
			counts[r].elements += p.Size()
			counts[r].state += state[j]
		}
	}
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "group\trule\trate ×\tdecay\ttensors\tparameters\tstate bytes\tfirst")
	for _, r := range order {
		n := counts[r]
		fmt.Fprintf(table, "%s\t%s\t%.4g\t%.4g\t%d\t%d\t%d\t%s\n", r.group, r.rule, r.rate, r.decay, n.tensors, n.elements, n.state, n.first)
	}
	table.Flush()
	return text.String()
}
