package testtime

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
)

// Task is a model as an adapter sees it.
type Task interface {
	// Store holds the model's variables. The adapter changes those that adapt, and keeps its own
	// below "/testtime".
	Store() *model.Store
	// Variables lists the model's variables.
	Variables() []elastic.Variable
	// Classes is the number of logits a row.
	Classes() int
	// Logits builds the logits [rows, classes] and which rows count, boolean [rows]; nil
	// means all. Padding does not count.
	Logits(w elastic.Weights, inputs []*Node) (logits, counts *Node)
}

// Event says what an adapter did with one batch.
type Event struct {
	Batch      int     `json:"batch"`      // from 1
	Loss       float64 `json:"loss"`       // the objective, before the step
	Entropy    float64 `json:"entropy"`    // mean over the rows that count, before the step
	Kept       int     `json:"kept"`       // rows that the objective used
	Divergence float64 `json:"divergence"` // see [Guard.MaxDivergence]; 0 when it was not looked at
	Moved      float64 `json:"moved"`      // Euclidean length of the step over all variables that adapt
	// Reset is why the variables were put back, empty if they were not.
	Reset string `json:"reset,omitempty"`
	// Stopped says that the guard has given up and the model no longer adapts.
	Stopped bool `json:"stopped,omitempty"`
}

// Adapter adapts one model. It is not safe for concurrent use.
type Adapter struct {
	task      Task
	config    Config
	variables []elastic.Variable
	start     map[string]*tensors.Tensor // host copies, by path
	adam      optim.AdamW
	steps     map[bool]*model.Exec // with and without a look at the divergence

	batches, updates, resets int
	entropy, reference       float64 // running means: adapted, and of the first batches
	stopped                  bool
}

// scope is where the adapter's own variables are.
const scope = "/testtime"

// New checks the config and returns an adapter whose model is as it was.
func New(backend compute.Backend, task Task, config Config) (*Adapter, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("test-time adaptation: %w", err)
	}
	config = config.WithDefaults()
	variables, err := Select(task.Variables(), config.Variables)
	if err != nil {
		return nil, fmt.Errorf("test-time adaptation: variables: %w", err)
	}
	a := &Adapter{task: task, config: config, variables: variables, start: map[string]*tensors.Tensor{}, steps: map[bool]*model.Exec{}}
	for _, v := range variables {
		value, err := task.Store().GetVariable(v.Path).Value()
		if err == nil {
			a.start[v.Path], err = value.LocalClone()
		}
		if err != nil {
			return nil, fmt.Errorf("test-time adaptation: reading %s: %w", v.Path, err)
		}
		for _, own := range a.slots(v) {
			a.start[own.Path] = own.Tensor(0)
		}
	}
	a.start[scope+"/mean"] = elastic.Variable{Shape: []int{task.Classes()}}.Tensor(0)
	a.start[scope+"/seen"] = elastic.Variable{}.Tensor(0)
	for path, value := range a.start {
		if task.Store().GetVariable(path) == nil {
			if err := a.create(path, value); err != nil {
				return nil, err
			}
		}
	}
	for _, v := range variables { // what the guard compares with
		if err := a.create(scope+"/start"+v.Path, a.start[v.Path]); err != nil {
			return nil, err
		}
	}
	for _, look := range []bool{false, true} {
		if a.steps[look], err = model.NewExec(backend, task.Store(), func(s *model.Scope, in []*Node) []*Node {
			return a.graph(s.Store(), in, look)
		}); err != nil {
			return nil, fmt.Errorf("test-time adaptation: %w", err)
		}
		a.steps[look].SetMaxCache(-1)
	}
	return a, nil
}

func (a *Adapter) create(path string, value *tensors.Tensor) error {
	if a.task.Store().GetVariable(path) != nil {
		if err := a.task.Store().DeleteVariable(path); err != nil {
			return fmt.Errorf("test-time adaptation: replacing %s: %w", path, err)
		}
	}
	clone, err := value.LocalClone()
	if err == nil {
		_, err = a.task.Store().CreateVariable(path, clone)
	}
	if err != nil {
		return fmt.Errorf("test-time adaptation: creating %s: %w", path, err)
	}
	return nil
}

// slots lists the optimizer's state for a variable.
func (a *Adapter) slots(v elastic.Variable) []elastic.Variable {
	names := []string{"velocity"}
	if a.config.Optimizer == "adam" {
		names = a.adam.Slots()
	}
	list := make([]elastic.Variable, len(names))
	for i, name := range names {
		list[i] = elastic.Variable{Path: scope + "/" + name + v.Path, Shape: v.Shape}
	}
	return list
}

// Variables lists the variables that adapt.
func (a *Adapter) Variables() []elastic.Variable { return a.variables }

// Reset puts everything back to where it began, to the last bit.
func (a *Adapter) Reset() error {
	for path, value := range a.start {
		clone, err := value.LocalClone()
		if err == nil {
			err = a.task.Store().GetVariable(path).SetValue(clone)
		}
		if err != nil {
			return fmt.Errorf("resetting %s: %w", path, err)
		}
	}
	a.updates = 0
	return nil
}

// Step predicts a batch and then adapts to it. It returns the logits, flat [rows, classes],
// from before the adaptation; with [Config].Episodic those from after it, which would be of
// no use otherwise. After a step whose event says that the variables were put back, or that
// the guard has given up, the logits are those of the model as it began.
func (a *Adapter) Step(ctx context.Context, inputs ...any) ([]float32, Event, error) {
	if ctx.Err() != nil {
		return nil, Event{}, fmt.Errorf("test-time adaptation stopped after %d batches: %w", a.batches, context.Cause(ctx))
	}
	if a.config.Episodic && a.batches > 0 {
		if err := a.Reset(); err != nil {
			return nil, Event{}, err
		}
	}
	a.batches++
	look := !a.config.Guard.Off && !a.stopped && a.batches%a.config.Guard.Every == 0
	logits, event, err := a.call(look, !a.stopped, inputs)
	if err != nil {
		return nil, Event{}, err
	}
	if a.stopped {
		event.Stopped = true
		return logits, event, nil
	}
	event.Reset = a.judge(event)
	if event.Reset == "" {
		if a.config.Episodic { // what was learned from this batch serves this batch only
			logits, _, err = a.call(false, false, inputs)
		}
		return logits, event, err
	}
	a.resets++
	a.entropy = a.reference
	a.stopped = a.resets >= a.config.Guard.MaxResets
	event.Stopped = a.stopped
	if err := a.Reset(); err != nil {
		return nil, Event{}, err
	}
	// The batch that showed the collapse was predicted by the collapsed model: once more.
	logits, _, err = a.call(false, false, inputs)
	return logits, event, err
}

// call runs one step; with move false nothing changes.
func (a *Adapter) call(look, move bool, inputs []any) ([]float32, Event, error) {
	rate := 0.0
	if move {
		rate = a.config.Rate
	}
	args := append([]any{append(a.adam.Scalars(a.updates, rate), float32(rate))}, inputs...)
	out, err := a.steps[look].Call(args...)
	if err != nil {
		return nil, Event{}, fmt.Errorf("test-time adaptation, batch %d: %w", a.batches, err)
	}
	logits, err := tensors.CopyFlatData[float32](out[0])
	if err != nil {
		return nil, Event{}, fmt.Errorf("test-time adaptation, batch %d: %w", a.batches, err)
	}
	numbers := make([]float64, len(out)-1)
	for i, t := range out[1:] {
		numbers[i] = float64(tensors.ToScalar[float32](t))
	}
	if move {
		a.updates++
	}
	return logits, Event{Batch: a.batches, Loss: numbers[0], Entropy: numbers[1], Kept: int(numbers[2]), Moved: numbers[3], Divergence: numbers[4]}, nil
}

// memory of the running means of entropy, in batches.
const memory = 8

// judge says why the variables must be put back, or "".
func (a *Adapter) judge(e Event) string {
	if sum := e.Loss + e.Entropy + e.Moved + e.Divergence; math.IsNaN(sum) || math.IsInf(sum, 0) {
		return "values are not finite"
	}
	guard := a.config.Guard
	if guard.Off {
		return ""
	}
	if a.batches == 1 {
		a.entropy, a.reference = e.Entropy, e.Entropy
	}
	a.entropy += (e.Entropy - a.entropy) / memory
	if a.entropy < guard.MinEntropy*a.reference {
		return fmt.Sprintf("mean entropy fell to %.3g, below %g of %.3g", a.entropy, guard.MinEntropy, a.reference)
	}
	if e.Divergence > guard.MaxDivergence {
		return fmt.Sprintf("predictions diverged by %.3g nats, more than %g", e.Divergence, guard.MaxDivergence)
	}
	return ""
}

// Finalize frees the compiled steps and the adapter's own variables. The model stays as it
// is: [Adapter.Reset] first, to have it as it was.
func (a *Adapter) Finalize() error {
	for _, exec := range a.steps {
		exec.Finalize()
	}
	var problems []error
	for path := range a.start {
		if path[:min(len(path), len(scope))] == scope {
			problems = append(problems, a.task.Store().DeleteVariable(path))
		}
	}
	for _, v := range a.variables {
		problems = append(problems, a.task.Store().DeleteVariable(scope+"/start"+v.Path))
	}
	return errors.Join(problems...)
}
