package testtime

import (
	"context"
	"errors"
	"fmt"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
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

// Masker is a [Task] that can hide a part of its inputs, which the method "masked" needs.
type Masker interface {
	Task
	// Masked returns the inputs with about a share of what they hold hidden, as noise says.
	Masked(inputs []*Node, share float64, noise *dropout.Source) []*Node
}

// Event says what an adapter did with one batch.
type Event struct {
	Batch   int     `json:"batch"`   // from 1
	Loss    float64 `json:"loss"`    // the objective, before the step
	Entropy float64 `json:"entropy"` // mean over the rows that count, before the step
	Kept    int     `json:"kept"`    // rows that the objective used
	// Divergence and Changed compare with what the unadapted model predicts for the batch; both
	// are 0 when the guard did not look. See [Guard].
	Divergence float64 `json:"divergence"`
	Changed    int     `json:"changed,omitempty"` // rows whose class is another
	Moved      float64 `json:"moved"`             // Euclidean length of the step over all variables that adapt; 0 for no step
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
	optimizer *optim.Optimizer
	predict   *model.Exec          // logits and which rows count
	steps     map[bool]*model.Exec // with and without a look at the unadapted model

	batches, updates, resets int
	watch                    watch
	lastRows                 float64 // that counted in the last batch
	stopped                  bool
	online                   online
}

// scope is where the adapter's own variables are.
const scope = "/testtime"

// New checks the config and returns an adapter whose model is as it was.
func New(backend compute.Backend, task Task, config Config) (*Adapter, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("test-time adaptation: %w", err)
	}
	config = config.WithDefaults()
	variables, err := config.choose(task.Variables())
	if err != nil {
		return nil, fmt.Errorf("test-time adaptation: variables: %w", err)
	}
	if _, ok := task.(Masker); config.Method == "masked" && !ok {
		return nil, errors.New("test-time adaptation: method masked needs a task that can hide a part of its inputs, a Masker")
	}
	a := &Adapter{task: task, config: config, variables: variables, start: map[string]*tensors.Tensor{}, steps: map[bool]*model.Exec{}}
	a.online.begin()
	var rule optim.Rule = optim.SGD{Momentum: config.Momentum}
	if config.Optimizer == "adam" {
		rule = optim.Adam{}
	}
	if a.optimizer, err = optim.New(optim.Config{Rule: rule}, variables); err != nil {
		return nil, fmt.Errorf("test-time adaptation: %w", err)
	}
	for _, v := range variables {
		value, err := task.Store().GetVariable(v.Path).Value()
		if err == nil {
			a.start[v.Path], err = value.LocalClone()
		}
		if err != nil {
			return nil, fmt.Errorf("test-time adaptation: reading %s: %w", v.Path, err)
		}
	}
	for _, slot := range a.optimizer.Slots() {
		a.start[slotPath(slot)] = slot.Tensor(0)
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
		if a.steps[look], err = a.compile(backend, func(store *model.Store, in []*Node) []*Node { return a.graph(store, in, look) }); err != nil {
			return nil, err
		}
	}
	a.predict, err = a.compile(backend, func(store *model.Store, in []*Node) []*Node {
		rows := a.rows(elastic.WeightsOf(store, in[0].Graph()), in)
		return []*Node{rows.logits, rows.weight}
	})
	return a, err
}

func (a *Adapter) compile(backend compute.Backend, graph func(*model.Store, []*Node) []*Node) (*model.Exec, error) {
	exec, err := model.NewExec(backend, a.task.Store(), func(s *model.Scope, in []*Node) []*Node { return graph(s.Store(), in) })
	if err != nil {
		return nil, fmt.Errorf("test-time adaptation: %w", err)
	}
	exec.SetMaxCache(-1) // one graph per batch shape, and there are few
	return exec, nil
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

// slotPath is where a slot of the optimizer is.
func slotPath(slot optim.SlotVariable) string { return scope + "/" + slot.Path }

// Variables lists the variables that adapt.
func (a *Adapter) Variables() []elastic.Variable { return a.variables }

// Reset puts everything back to where it began, to the last bit, and voids tickets and score of
// [Adapter.Predict]. A guard that has given up stays so.
func (a *Adapter) Reset() error {
	a.online.begin()
	return a.restore()
}

// restore puts variables and optimizer back.
func (a *Adapter) restore() error {
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
	a.watch = watch{}
	return nil
}

// Step predicts a batch and then adapts to it. It returns the logits, flat [rows, classes],
// from before the adaptation; with [Config].Episodic those from after it, which would be of
// no use otherwise. After a step whose event says that the variables were put back, or that
// the guard has given up, the logits are those of the model as it began. The method "labels"
// has no steps: see [Adapter.Predict].
func (a *Adapter) Step(ctx context.Context, inputs ...any) ([]float32, Event, error) {
	if a.config.Method == "labels" {
		return nil, Event{}, errors.New("test-time adaptation: method labels predicts by Predict and adapts by Learn, not by Step")
	}
	if err := a.interrupted(ctx); err != nil {
		return nil, Event{}, err
	}
	if a.config.Episodic && a.updates > 0 {
		if err := a.Reset(); err != nil {
			return nil, Event{}, err
		}
	}
	a.batches++
	if a.stopped || (a.batches-1)%a.config.Every != 0 {
		event := Event{Batch: a.batches, Stopped: a.stopped}
		logits, _, err := a.sound(&event, inputs)
		return logits, event, err
	}
	logits, _, event, err := a.call(inputs)
	if err != nil {
		return nil, Event{}, err
	}
	if event.Reset != "" { // the batch that showed the collapse was predicted by the collapsed model: once more
		if err := a.retreat(&event); err != nil {
			return nil, Event{}, err
		}
		logits, _, err = a.forward(inputs)
	} else if a.config.Episodic { // what was learned from this batch serves this batch only
		logits, _, err = a.sound(&event, inputs)
	}
	return logits, event, err
}

// sound predicts like forward, and puts the variables back if a step before has left logits of rows that count that are not finite;
// then it predicts once more, and the event says so.
func (a *Adapter) sound(event *Event, inputs []any) (logits, weight []float32, err error) {
	logits, weight, err = a.forward(inputs)
	if err != nil || a.updates == 0 || finite(logits, weight) {
		return logits, weight, err
	}
	event.Reset = notFinite
	if err := a.retreat(event); err != nil {
		return nil, nil, err
	}
	return a.forward(inputs)
}

// finite tells whether all logits of rows that count are.
func finite(logits, weight []float32) bool {
	for i, x := range logits {
		if x-x != 0 && weight[i*len(weight)/len(logits)] != 0 {
			return false
		}
	}
	return true
}

func (a *Adapter) interrupted(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("test-time adaptation stopped after %d batches: %w", a.batches, context.Cause(ctx))
}

// retreat puts the variables back and gives up if that was once too often.
func (a *Adapter) retreat(event *Event) error {
	a.resets++
	a.stopped = a.resets >= a.config.Guard.MaxResets
	event.Stopped = a.stopped
	return a.restore()
}

// forward predicts and changes nothing: logits, flat [rows, classes], and the weight of each row.
func (a *Adapter) forward(inputs []any) (logits, weight []float32, err error) {
	out, err := a.predict.Call(inputs...)
	if err != nil {
		return nil, nil, fmt.Errorf("test-time adaptation, batch %d: %w", a.batches, err)
	}
	read, err := a.read(out)
	if err != nil {
		return nil, nil, err
	}
	return read[0], read[1], nil
}

// read copies what was computed.
func (a *Adapter) read(out []*tensors.Tensor) ([][]float32, error) {
	list := make([][]float32, len(out))
	for i, tensor := range out {
		var err error
		if list[i], err = tensors.CopyFlatData[float32](tensor); err != nil {
			return nil, fmt.Errorf("test-time adaptation, batch %d: %w", a.batches, err)
		}
	}
	return list, nil
}

// call predicts, like forward, adapts, and says in the event what the guard thinks of it. The prediction is from before the
// adaptation: it depends on the inputs and on the variables as they were, not on labels.
func (a *Adapter) call(inputs []any) (logits, weight []float32, event Event, err error) {
	look := a.config.Guard.due(a.updates+1, a.lastRows/float64(a.config.FullRows), a.watch)
	args := []any{[]float64{float64(a.updates + 1), a.config.Rate}}
	if a.config.Method == "masked" {
		args = append(args, dropout.Key(a.config.Seed, uint64(a.updates)))
	}
	out, err := a.steps[look].Call(append(args, inputs...)...)
	if err != nil {
		return nil, nil, Event{}, fmt.Errorf("test-time adaptation, batch %d: %w", a.batches, err)
	}
	read, err := a.read(out)
	if err != nil {
		return nil, nil, Event{}, err
	}
	n := read[2]
	a.updates++
	a.lastRows = float64(n[4])
	event = Event{Batch: a.batches, Loss: float64(n[0]), Entropy: float64(n[1]), Kept: int(n[2]), Moved: float64(n[3])}
	var seen sight
	if look {
		seen = sight{rows: float64(n[4]), entropy: float64(n[1]), unadapted: float64(n[5]), damage: float64(n[8]), classes: n[9:]}
		event.Divergence, event.Changed = float64(n[6]), int(n[7])
	}
	event.Reset = a.judge(event, look, seen)
	return read[0], read[1], event, nil
}

// Finalize frees the compiled steps and the adapter's own variables. The model stays as it
// is: [Adapter.Reset] first, to have it as it was.
func (a *Adapter) Finalize() error {
	for _, exec := range []*model.Exec{a.predict, a.steps[false], a.steps[true]} {
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
