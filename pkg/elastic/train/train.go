// Package train runs the training loop.
//
// A [Task] is a model as the loop sees it: variables and a loss. [New] compiles
// nothing yet; [Trainer.Run] takes micro-batches from a [Data], and per update
//
//	g = Σ ∇(summed loss) / Σ targets     over Accumulate micro-batches
//	g ← g · min(1, ClipNorm / ‖g‖)       one norm over all gradients
//	θ ← AdamW(θ, g, rate of this update)
//
// With one micro-batch per update all of it is one compiled step per batch shape.
// Learning rate, bias corrections and dropout keys are inputs of that step, so none of
// them causes a compilation.
//
// Everything that decides the next update is in [State] and the variables: the data
// order follows from seed and epoch, dropout from seed and step. A run that is killed
// and resumed from its last checkpoint therefore ends with the same weights, bit by
// bit, as one that was not, on the same backend.
package train

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"runtime/debug"
	"slices"
	"time"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	mltrain "github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
)

// Task is a model as the training loop sees it.
type Task interface {
	// Store holds the model's variables.
	Store() *model.Store
	// Variables lists those that are trained.
	Variables() []elastic.Variable
	// Loss builds the summed loss over a micro-batch's targets and their number, both
	// float32 scalars. It must use drop at every dropout.
	Loss(w elastic.Weights, inputs, labels []*Node, drop *dropout.Source) (sum, count *Node)
}

// Follower is a [Task] that does something of its own after each update, in the same compiled
// step, so that no caller can forget it: AdaLoRA's allocation of ranks, for one.
type Follower interface {
	Task
	// FollowSlots lists what it remembers between updates, 0 at first. It lies below
	// [SlotsScope], and checkpoints hold it. Without any, Follow is not called.
	FollowSlots() []elastic.Variable
	// FollowScalars returns the numbers that Follow takes for an update, counted from 0, of a
	// run of total updates: always as many.
	FollowScalars(update, total int) []float32
	// Follow takes the values of the task's variables after the update, the gradients that led
	// to it, clipped, and the slots. It returns the values and slots to keep.
	Follow(scalars *Node, values, gradients, slots []*Node) (newValues, newSlots []*Node)
}

// Watcher is a [Task] that names some of its variables, small ones, whose values the run's
// history shall keep: what heads learn about themselves.
type Watcher interface {
	Watched() []string
}

// Data gives the micro-batches of a run. The same epoch must give the same batches
// at every call and in every process.
type Data interface {
	// Steps returns the number of micro-batches in an epoch.
	Steps() int
	// Batches returns the micro-batches of an epoch, without the first skip ones. The
	// loop takes ownership of their tensors.
	Batches(epoch, skip int) iter.Seq2[mltrain.Batch, error]
}

// Hooks are called by the loop. Any may be nil.
type Hooks struct {
	// Step is called after each update.
	Step func(Step)
	// Evaluate is called after each epoch and returns the number that decides about the
	// best model and about stopping early: greater is better.
	Evaluate func(ctx context.Context, epoch int) (metric float64, err error)
	// Save is called when a checkpoint is due: after SaveEvery updates, after each epoch,
	// and when the run is interrupted. State is that of the moment; best says that the
	// epoch that just ended has the best metric so far.
	Save func(state State, best bool) error
}

// Step is what one update did.
type Step struct {
	Update       int           // updates made so far, this one included
	Total        int           // updates of the whole run
	Epoch        int           // current epoch, from 0
	Loss         float64       // mean loss over the update's targets
	Rate         float64       // learning rate that was used
	GradientNorm float64       // before clipping
	Targets      int           // labelled positions in the update
	Positions    int           // positions computed in the update, padding included
	Elapsed      time.Duration // wall time of the update
	Compilations int           // step graphs compiled so far
}

// Result is what a run did.
type Result struct {
	State State
	// Compilations is the number of step graphs that were compiled.
	Compilations int
	// Stopped says that the run ended early because the metric did not improve, or as
	// State.Ended says.
	Stopped bool
}

// ErrInterrupted is wrapped by the error of a run whose context was cancelled and
// whose state was saved: it can be resumed.
var ErrInterrupted = errors.New("training interrupted")

// Trainer runs one task under one config.
type Trainer struct {
	backend   compute.Backend
	task      Task
	config    Config
	variables []elastic.Variable
	follower  Follower // nil if the task is none
	state     State
	adaptation

	step, accumulate, apply *model.Exec
	compiled                map[GraphId]bool
}

// New checks the config and creates the optimizer's slots, as zeros, in the task's
// store below [SlotsScope].
func New(backend compute.Backend, task Task, config Config) (*Trainer, error) {
	config = config.withDefaults()
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("training config: %w", err)
	}
	t := &Trainer{backend: backend, task: task, config: config, compiled: map[GraphId]bool{}}
	if err := t.plan(); err != nil {
		return nil, fmt.Errorf("training config: %w", err)
	}
	t.state = State{Version: stateVersion, Seed: config.Seed, Best: Best{Epoch: -1}}
	t.follower, _ = task.(Follower)
	store := task.Store()
	for _, slot := range append(t.kept(), t.sums()...) {
		if v := store.GetVariable(slot.Path); v != nil {
			if err := store.DeleteVariable(slot.Path); err != nil {
				return nil, fmt.Errorf("replacing %s: %w", slot.Path, err)
			}
		}
		v, err := store.CreateVariable(slot.Path, slot.Tensor(0))
		if err != nil {
			return nil, fmt.Errorf("creating %s: %w", slot.Path, err)
		}
		v.SetTrainable(false)
	}
	var err error
	if config.Accumulate == 1 {
		t.step, err = model.NewExec(backend, store, t.stepGraph)
	} else {
		t.accumulate, err = model.NewExec(backend, store, t.accumulateGraph)
		if err == nil {
			t.apply, err = model.NewExec(backend, store, t.applyGraph)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("preparing the training step: %w", err)
	}
	for _, exec := range []*model.Exec{t.step, t.accumulate, t.apply} {
		if exec != nil {
			exec.SetMaxCache(-1) // one graph per batch shape, and there are few
		}
	}
	return t, nil
}

// State returns the current state.
func (t *Trainer) State() State { return t.state }

// SlotsScope is the scope below which a task's store holds the optimizer's slots.
const SlotsScope = "/optimizer"

func slotPath(slot, path string) string { return SlotsScope + "/" + slot + path }

// kept lists what a checkpoint holds beside the model: the slots of the optimizer and the follower,
// and what a strategy refers to.
func (t *Trainer) kept() []elastic.Variable {
	return slices.Concat(t.moments(), t.followed(), t.anchors())
}

// followed lists the follower's slots.
func (t *Trainer) followed() []elastic.Variable {
	if t.follower == nil {
		return nil
	}
	return elastic.Under(SlotsScope, t.follower.FollowSlots())
}

// moments lists the optimizer's slots.
func (t *Trainer) moments() []elastic.Variable {
	var list []elastic.Variable
	for _, name := range t.config.Optimizer.Slots() {
		list = append(list, t.slotVariables(name)...)
	}
	return list
}

// sums lists the variables that gather gradients over micro-batches. They are zero
// between updates, so no checkpoint holds them.
func (t *Trainer) sums() []elastic.Variable {
	if t.config.Accumulate == 1 {
		return nil
	}
	return append(t.slotVariables("gradient"), elastic.Variable{Path: SlotsScope + "/targets"})
}

func (t *Trainer) slotVariables(slot string) []elastic.Variable {
	list := make([]elastic.Variable, len(t.variables))
	for i, v := range t.variables {
		list[i] = elastic.Variable{Path: slotPath(slot, v.Path), Shape: v.Shape}
	}
	return list
}

// lossGradients builds the summed loss, the number of targets, and the gradients of the sum.
func (t *Trainer) lossGradients(store *model.Store, key *Node, rest []*Node) (sum, count *Node, gradients []*Node) {
	g := key.Graph()
	parameters := make([]*Node, len(t.variables))
	for i, v := range t.variables {
		parameters[i] = store.GetVariable(v.Path).NodeValue(g)
	}
	labels := rest[len(rest)-1:]
	sum, count = t.task.Loss(elastic.WeightsOf(store, g), rest[:len(rest)-1], labels, dropout.NewSource(key))
	return sum, count, Gradient(sum, parameters...)
}

// update sets all variables and slots from summed gradients. It returns the gradient norm, and
// what a strategy measures.
func (t *Trainer) update(store *model.Store, scalars, count *Node, gradients []*Node) []*Node {
	g := scalars.Graph()
	factor := Reciprocal(MaxScalar(count, 1))
	if len(t.pulls) > 0 { // priors pull at the mean loss
		gradients = t.pulled(store, gradients, factor)
		factor = OnesLike(factor)
	}
	norm := Mul(optim.GlobalNorm(gradients), factor)
	limit := t.config.ClipNorm
	if limit == 0 {
		// A factor of 1, but one that is known only when all gradients are: so no weight is
		// updated before the backward pass has read it last, and XLA need not copy it.
		limit = math.MaxFloat32
	}
	factor = Mul(factor, optim.ClipFactor(norm, limit))
	// XLA writes new values over old ones of the same shape in the order in which the
	// graph reads variables and the store lists them. Reading the slots in any other
	// order than that of moments makes it copy nearly all of them first.
	moments := t.moments()
	slots := make([]*Node, len(moments))
	for i, slot := range moments {
		slots[i] = store.GetVariable(slot.Path).NodeValue(g)
	}
	values := make([]*Node, len(t.variables))
	for i, v := range t.variables {
		gradients[i] = Mul(gradients[i], factor)
		var own []*Node
		for j := i; j < len(slots); j += len(t.variables) {
			own = append(own, slots[j])
		}
		before := store.GetVariable(v.Path).NodeValue(g)
		values[i], own = t.config.Optimizer.Update(before, gradients[i], own, scalars, v.Decay)
		values[i] = t.scaled(v, before, values[i])
		for j, slot := range own {
			store.GetVariable(moments[i+j*len(t.variables)].Path).SetNodeValue(slot)
		}
	}
	values = t.follow(store, scalars, values, gradients)
	measures := t.measure(store, values)
	for i, v := range t.variables {
		store.GetVariable(v.Path).SetNodeValue(values[i])
	}
	return append([]*Node{norm}, measures...)
}

// follow lets a follower that remembers something have the last word on the new values. Its
// scalars stand behind the optimizer's.
func (t *Trainer) follow(store *model.Store, scalars *Node, values, gradients []*Node) []*Node {
	followed := t.followed()
	if len(followed) == 0 {
		return values
	}
	slots := make([]*Node, len(followed))
	for i, slot := range followed {
		slots[i] = store.GetVariable(slot.Path).NodeValue(scalars.Graph())
	}
	own := len(t.config.Optimizer.Scalars(0, 0))
	values, slots = t.follower.Follow(Slice(scalars, AxisRange(own)), values, gradients, slots)
	for i, slot := range followed {
		store.GetVariable(slot.Path).SetNodeValue(slots[i])
	}
	return values
}

// stepGraph is a whole update on one micro-batch: inputs are the optimizer's scalars,
// the dropout key, the batch's inputs and its labels.
func (t *Trainer) stepGraph(scope *model.Scope, in []*Node) []*Node {
	store := scope.Store()
	sum, count, gradients := t.lossGradients(store, in[1], in[2:])
	return append([]*Node{sum, count}, t.update(store, in[0], count, gradients)...)
}

// accumulateGraph adds the gradients of one micro-batch: inputs are the dropout key,
// the batch's inputs and its labels.
func (t *Trainer) accumulateGraph(scope *model.Scope, in []*Node) []*Node {
	store, g := scope.Store(), in[0].Graph()
	sum, count, gradients := t.lossGradients(store, in[0], in[1:])
	for i, v := range t.variables {
		total := store.GetVariable(slotPath("gradient", v.Path))
		total.SetNodeValue(Add(total.NodeValue(g), gradients[i]))
	}
	targets := store.GetVariable(SlotsScope + "/targets")
	targets.SetNodeValue(Add(targets.NodeValue(g), count))
	return []*Node{sum, count}
}

// applyGraph updates from the accumulated gradients and clears them; its input is the
// optimizer's scalars.
func (t *Trainer) applyGraph(scope *model.Scope, in []*Node) []*Node {
	store, g := scope.Store(), in[0].Graph()
	gradients := make([]*Node, len(t.variables))
	for i, v := range t.variables {
		gradients[i] = store.GetVariable(slotPath("gradient", v.Path)).NodeValue(g)
	}
	targets := store.GetVariable(SlotsScope + "/targets")
	out := t.update(store, in[0], targets.NodeValue(g), gradients)
	for i, v := range t.variables {
		store.GetVariable(slotPath("gradient", v.Path)).SetNodeValue(ZerosLike(gradients[i]))
	}
	targets.SetNodeValue(ZerosLike(targets.NodeValue(g)))
	return out
}

// call runs a graph, counts its compilation, and returns its outputs as numbers.
func (t *Trainer) call(exec *model.Exec, args ...any) ([]float64, error) {
	var numbers []float64
	var failure error
	err := exceptions.TryCatch[error](func() {
		outputs, g, err := exec.CallWithGraph(args...)
		if err != nil {
			failure = err
			return
		}
		t.compiled[g.GraphId()] = true
		for _, output := range outputs {
			numbers = append(numbers, float64(tensors.ToScalar[float32](output)))
			output.MustFinalizeAll()
		}
	})
	return numbers, errors.Join(err, failure)
}

// Run trains until the configured number of epochs or updates is reached, the metric
// stops improving, or ctx is cancelled; then it saves and returns an error that wraps
// [ErrInterrupted] and the context's. It continues from the state that [Trainer.Restore]
// set.
func (t *Trainer) Run(ctx context.Context, data Data, hooks Hooks) (Result, error) {
	perEpoch := data.Steps()
	if perEpoch == 0 {
		return Result{}, errors.New("training data has no batches")
	}
	updatesPerEpoch := (perEpoch + t.config.Accumulate - 1) / t.config.Accumulate
	total := updatesPerEpoch * t.config.Epochs
	if t.config.MaxUpdates > 0 {
		total = min(total, t.config.MaxUpdates)
	}
	save := func(best bool) error {
		if hooks.Save == nil {
			return nil
		}
		if err := hooks.Save(t.state, best); err != nil {
			return fmt.Errorf("saving the checkpoint of update %d: %w", t.state.Update, err)
		}
		return nil
	}
	result := func(stopped bool) Result {
		return Result{State: t.state, Compilations: len(t.compiled), Stopped: stopped || t.state.Ended != ""}
	}

	interrupted := func() (Result, error) {
		if err := save(false); err != nil {
			return result(false), err
		}
		return result(false), fmt.Errorf("%w after update %d of %d: %w", ErrInterrupted, t.state.Update, total, context.Cause(ctx))
	}

	if err := t.begin(); err != nil {
		return result(false), err
	}
	if err := t.toDevice(); err != nil {
		return result(false), err
	}
	for !t.state.Finished {
		if !t.state.Trained {
			if err := t.epoch(ctx, data, hooks, total, save); err != nil {
				return result(false), err
			}
			if ctx.Err() != nil {
				return interrupted()
			}
			t.state.Trained = true
		}
		best := false
		if hooks.Evaluate != nil {
			metric, err := hooks.Evaluate(ctx, t.state.begun())
			if ctx.Err() != nil { // evaluated again after resuming
				return interrupted()
			}
			if err != nil {
				return result(false), fmt.Errorf("evaluating after epoch %d: %w", t.state.begun(), err)
			}
			best = t.state.judge(metric)
		}
		t.state.Trained = false
		t.state.Finished = t.state.Epoch >= t.config.Epochs || t.state.Update >= total || t.state.Ended != ""
		stopped := t.config.Patience > 0 && t.state.Stale >= t.config.Patience && !t.state.Finished
		t.state.Finished = t.state.Finished || stopped
		if err := save(best); err != nil {
			return result(false), err
		}
		if stopped {
			return result(true), nil
		}
	}
	return result(false), nil
}

// toDevice moves all variables into the backend's memory. Their copies in Go's memory are
// given back to the system at once: they would stay resident through the first updates,
// when memory is needed most.
func (t *Trainer) toDevice() error {
	for _, list := range [][]elastic.Variable{t.variables, t.kept(), t.sums()} {
		for _, v := range list {
			value, err := t.task.Store().GetVariable(v.Path).Value()
			if err == nil {
				err = value.MaterializeOnDevice(t.backend, false, 0)
			}
			if err != nil {
				return fmt.Errorf("moving %s to the backend: %w", v.Path, err)
			}
			value.FinalizeLocal()
		}
	}
	debug.FreeOSMemory()
	return nil
}

// epoch trains on the rest of the current epoch.
func (t *Trainer) epoch(ctx context.Context, data Data, hooks Hooks, total int, save func(best bool) error) error {
	perEpoch := data.Steps()
	schedule := t.config.Schedule.Schedule(total)
	// micro counts the batches of this update, sum and targets their losses.
	micro, sum, targets, positions := 0, 0.0, 0.0, 0
	begin := time.Now()
	for batch, err := range data.Batches(t.state.Epoch, t.state.Batch) {
		if err != nil {
			return fmt.Errorf("reading batch %d of epoch %d: %w", t.state.Batch+micro, t.state.Epoch+1, err)
		}
		if len(batch.Labels) != 1 {
			return fmt.Errorf("batch %d of epoch %d has %d label tensors, want 1", t.state.Batch+micro, t.state.Epoch+1, len(batch.Labels))
		}
		if ctx.Err() != nil {
			break // before the batch is used; an update that is under way is made again
		}
		positions += batch.Inputs[0].Size()
		micro++
		rate := schedule.At(t.state.Update)
		scalars := t.config.Optimizer.Scalars(t.state.Update, rate)
		if t.follower != nil {
			scalars = append(scalars, t.follower.FollowScalars(t.state.Update, total)...)
		}
		key := dropout.Key(t.config.Seed, uint64(t.state.Update)*uint64(t.config.Accumulate)+uint64(micro-1))
		args := []any{key}
		for _, input := range batch.Inputs {
			args = append(args, input)
		}
		args = append(args, batch.Labels[0])

		var out, measures []float64
		var norm float64
		last := micro == t.config.Accumulate || t.state.Batch+micro == perEpoch
		if t.step != nil {
			if out, err = t.call(t.step, append([]any{scalars}, args...)...); err == nil {
				norm, measures = out[2], out[3:]
			}
		} else {
			out, err = t.call(t.accumulate, args...)
			if err == nil && last {
				var applied []float64
				if applied, err = t.call(t.apply, scalars); err == nil {
					norm, measures = applied[0], applied[1:]
				}
			}
		}
		if err != nil {
			return fmt.Errorf("update %d: %w", t.state.Update+1, err)
		}
		sum, targets = sum+out[0], targets+out[1]
		for _, input := range append(batch.Inputs, batch.Labels...) {
			input.MustFinalizeAll()
		}
		if !last {
			continue
		}

		t.state.Update++
		t.state.Batch += micro
		loss := sum / math.Max(targets, 1)
		if math.IsNaN(loss) || math.IsInf(loss, 0) || math.IsNaN(norm) || math.IsInf(norm, 0) {
			return fmt.Errorf("update %d: loss is %g and gradient norm %g; the last checkpoint is from before it: lower the learning rate (%g) or clip more tightly", t.state.Update, loss, norm, rate)
		}
		if t.state.due(t.config.LogEvery) {
			scalars, err := t.scalars()
			if err != nil {
				return fmt.Errorf("update %d: %w", t.state.Update, err)
			}
			t.state.History = append(t.state.History, Point{Update: t.state.Update, Loss: loss, Rate: rate, GradientNorm: norm, Scalars: scalars})
		}
		if hooks.Step != nil {
			hooks.Step(Step{
				Update: t.state.Update, Total: total, Epoch: t.state.Epoch, Loss: loss, Rate: rate, GradientNorm: norm,
				Targets: int(targets), Positions: positions, Elapsed: time.Since(begin), Compilations: len(t.compiled),
			})
		}
		micro, sum, targets, positions = 0, 0, 0, 0
		t.note(loss, time.Since(begin), measures, t.state.Update == total)
		if t.state.Update == total || t.state.Ended != "" {
			break
		}
		if t.config.SaveEvery > 0 && t.state.Update%t.config.SaveEvery == 0 && t.state.Batch < perEpoch {
			if err := save(false); err != nil {
				return err
			}
		}
		begin = time.Now()
	}
	if ctx.Err() != nil {
		return t.clearSums()
	}
	if t.state.Batch >= perEpoch {
		t.state.Epoch++
		t.state.Batch = 0
	}
	return nil
}

// scalars reads the variables that the task wants to be watched; nil if it wants none.
func (t *Trainer) scalars() (map[string][]float32, error) {
	watcher, ok := t.task.(Watcher)
	if !ok {
		return nil, nil
	}
	var values map[string][]float32
	for _, path := range watcher.Watched() {
		value, err := t.task.Store().GetVariable(path).Value()
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		if values == nil {
			values = map[string][]float32{}
		}
		if values[path], err = tensors.CopyFlatData[float32](value); err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
	}
	return values, nil
}

// clearSums forgets the gradients of an update that was not finished.
func (t *Trainer) clearSums() error {
	for _, sum := range t.sums() {
		if err := t.task.Store().GetVariable(sum.Path).SetValue(sum.Tensor(0)); err != nil {
			return fmt.Errorf("clearing %s: %w", sum.Path, err)
		}
	}
	return nil
}

// Finalize frees the compiled steps and the optimizer's slots. The model stays.
func (t *Trainer) Finalize() error {
	for _, exec := range []*model.Exec{t.step, t.accumulate, t.apply} {
		if exec != nil {
			exec.Finalize()
		}
	}
	for _, slot := range append(t.kept(), t.sums()...) {
		if err := t.task.Store().DeleteVariable(slot.Path); err != nil {
			return fmt.Errorf("freeing %s: %w", slot.Path, err)
		}
	}
	return nil
}
