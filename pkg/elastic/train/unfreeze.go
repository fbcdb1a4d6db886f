package train

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/control"
)

// Unfreeze says when variables begin to train; before, nothing about them changes, neither by weight
// decay nor by momentum, they do not count in the gradient's norm, and the optimizer's slots for them
// stay as they are. Either layer by layer from the top,
//
//	{"every_epochs": 1}
//
// in the order of [optim.Config].LayerDecay: all that lies in no layer, the head, from the start, the
// last layer after one epoch, and so on down to the embeddings; or by patterns,
//
//	{"stages": [{"variables": ["/layer_*"], "after_epochs": 1}, {"variables": ["/embeddings/*"], "after_updates": 500}]}
//
// where what no pattern matches trains from the start. Nothing is compiled again at a stage, and so the
// gradients of what is frozen are computed: it saves no time.
//
// Source: Howard, Ruder 2018, "Universal language model fine-tuning for text classification", section 3.3.
type Unfreeze struct {
	// EveryEpochs or EveryUpdates is the time between two layers.
	EveryEpochs  int `json:"every_epochs,omitempty"`
	EveryUpdates int `json:"every_updates,omitempty"`
	// Stages are those of a run by patterns. Of several that match a variable the first counts.
	Stages []Stage `json:"stages,omitempty"`
}

// Stage says when some variables begin to train.
type Stage struct {
	// Variables are patterns of paths, in which * stands for any text.
	Variables []string `json:"variables"`
	// AfterEpochs and AfterUpdates are what is trained before, together.
	AfterEpochs  int `json:"after_epochs,omitempty"`
	AfterUpdates int `json:"after_updates,omitempty"`
}

// IsZero reports whether everything trains from the start.
func (u Unfreeze) IsZero() bool {
	return u.EveryEpochs == 0 && u.EveryUpdates == 0 && len(u.Stages) == 0
}

// Validate reports all that is wrong with u, apart from what only variables show.
func (u Unfreeze) Validate() error {
	var problems []error
	if u.EveryEpochs < 0 || u.EveryUpdates < 0 {
		problems = append(problems, fmt.Errorf("unfreeze.every_epochs is %d and every_updates %d, want 0 or more", u.EveryEpochs, u.EveryUpdates))
	}
	given := 0
	for _, is := range []bool{u.EveryEpochs != 0, u.EveryUpdates != 0, len(u.Stages) > 0} {
		if is {
			given++
		}
	}
	if given > 1 {
		problems = append(problems, errors.New("unfreeze has more than one of every_epochs, every_updates and stages, want one"))
	}
	for i, s := range u.Stages {
		path := fmt.Sprintf("unfreeze.stages[%d]", i)
		if len(s.Variables) == 0 {
			problems = append(problems, fmt.Errorf("%s.variables is empty, want patterns of paths", path))
		}
		if s.AfterEpochs < 0 || s.AfterUpdates < 0 || s.AfterEpochs+s.AfterUpdates == 0 {
			problems = append(problems, fmt.Errorf("%s begins after %d epochs and %d updates, want 0 or more, and not both 0", path, s.AfterEpochs, s.AfterUpdates))
		}
	}
	return errors.Join(problems...)
}

// stages returns the stages by patterns, for layers one for each depth.
func (u Unfreeze) stages(variables []elastic.Variable) ([]Stage, error) {
	if u.EveryEpochs == 0 && u.EveryUpdates == 0 {
		return u.Stages, nil
	}
	var stages []Stage
	for i, depth := range optim.Depths(variables) {
		for len(stages) < depth {
			n := len(stages) + 1
			stages = append(stages, Stage{AfterEpochs: n * u.EveryEpochs, AfterUpdates: n * u.EveryUpdates})
		}
		if depth > 0 {
			stages[depth-1].Variables = append(stages[depth-1].Variables, variables[i].Path)
		}
	}
	if len(stages) == 0 {
		return nil, errors.New("unfreeze: no variable that is trained lies in a layer: want stages with patterns")
	}
	// A depth of which nothing is trained takes no time of its own.
	stages = slices.DeleteFunc(stages, func(s Stage) bool { return len(s.Variables) == 0 })
	for i := range stages {
		stages[i].AfterEpochs, stages[i].AfterUpdates = (i+1)*u.EveryEpochs, (i+1)*u.EveryUpdates
	}
	return stages, nil
}

// unfreezing is what the stages of an [Unfreeze] are for the variables of a trainer.
type unfreezing struct {
	stages []Stage
	of     []int // stage of each variable, −1 for one that trains from the start
	opens  []int // after how many updates each stage begins; known when a run begins
}

// unfreeze finds the stages of the variables that are trained.
func (t *Trainer) unfreeze() error {
	if t.config.Unfreeze.IsZero() {
		return nil
	}
	var err error
	if t.stages, err = t.config.Unfreeze.stages(t.variables); err != nil {
		return err
	}
	t.of = slices.Repeat([]int{-1}, len(t.variables))
	index := map[string]int{}
	for i, v := range t.variables {
		index[v.Path] = i
	}
	var problems []error
	for k, s := range t.stages {
		chosen, err := adapt.Select(t.variables, s.Variables)
		if err != nil {
			problems = append(problems, fmt.Errorf("unfreeze.stages[%d].variables: %w", k, err))
			continue
		}
		taken := true
		for _, v := range chosen {
			if i := index[v.Path]; t.of[i] < 0 {
				t.of[i], taken = k, false
			}
		}
		if taken {
			problems = append(problems, fmt.Errorf("unfreeze.stages[%d]: all that %s match is in stages before it", k, strings.Join(s.Variables, ", ")))
		}
	}
	return errors.Join(problems...)
}

// planStages says after how many updates the stages begin, and notes those that never do in a run of total
// updates.
func (t *Trainer) planStages(updatesPerEpoch, total int) {
	t.opens = make([]int, len(t.stages))
	for k, s := range t.stages {
		t.opens[k] = s.AfterEpochs*updatesPerEpoch + s.AfterUpdates
		if t.opens[k] >= total && t.state.Update == 0 && !t.restored {
			t.noteStage(k, "keep frozen", fmt.Sprintf("would train after %d updates, the run has %d", t.opens[k], total))
		}
	}
}

// openStages notes the stages that begin after the update that was just made.
func (t *Trainer) openStages() {
	for k, after := range t.opens {
		if after == t.state.Update {
			t.noteStage(k, "unfreeze", "trains from here on")
		}
	}
}

func (t *Trainer) noteStage(k int, action, reason string) {
	t.event(control.Event{
		Update: t.state.Update, Controller: "unfreeze", Signal: "update", Action: action, Factor: t.control.Scale(),
		Reason: t.describeStage(k) + " " + reason,
	})
}

// describeStage says what a stage has.
func (t *Trainer) describeStage(k int) string {
	tensors, size, first := 0, 0, ""
	for i, v := range t.variables {
		if t.of[i] == k {
			if tensors == 0 {
				first = v.Path
			}
			tensors++
			size += v.Size()
		}
	}
	return fmt.Sprintf("%d variables of %d numbers (%s, …)", tensors, size, first)
}

// since returns for each variable the scalar that says after how many updates it trains; nil if all
// train from the start. The scalars are those of an update, see [Trainer.update].
func (t *Trainer) since(scalars *Node) []*Node {
	if t.stages == nil {
		return nil
	}
	stages := make([]*Node, len(t.stages))
	for k := range stages {
		stages[k] = scalarAt(scalars, ownScalars+k)
	}
	list := make([]*Node, len(t.variables))
	for i, k := range t.of {
		if k >= 0 {
			list[i] = stages[k]
		}
	}
	return list
}

// unlessFrozen returns the nodes, one a variable, with others for variables that do not train yet.
func (t *Trainer) unlessFrozen(scalars *Node, nodes []*Node, other func(i int) *Node) []*Node {
	since := t.since(scalars)
	if since == nil {
		return nodes
	}
	number := scalarAt(scalars, 0)
	kept := slices.Clone(nodes)
	for i, after := range since {
		if after != nil {
			kept[i] = Where(GreaterThan(number, after), nodes[i], other(i))
		}
	}
	return kept
}
