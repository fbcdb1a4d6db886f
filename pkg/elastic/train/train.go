// Package train runs the training loop.
//
// A [Task] is a model as the loop sees it: variables and a loss. [New] compiles
// nothing yet; [Trainer.Run] takes micro-batches from a [Data], and per update
//
//	g = Σ ∇(summed loss) / Σ targets     over Accumulate micro-batches
//	g ← g · min(1, ClipNorm / ‖g‖)       one norm over all gradients
//	θ ← rule(θ, g, rate of this update)
//
// With one micro-batch per update all of it is one compiled step per batch shape.
// Learning rate, number of the update and dropout keys are inputs of that step, so neither
// schedules nor controllers cause a compilation.
//
// Where the optimizer averages weights (EMA, schedule-free, …), the loop itself puts the averages in
// place for evaluations and checkpoints, and the trained weights back after; a run that ends leaves
// the averages in the model.
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
	"reflect"
	"runtime/debug"
	"slices"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	mltrain "github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/control"
)

// Task is a model as the training loop sees it.
type Task interface {
	// Store holds the model's variables.
	Store() *model.Store
	// Variables lists those that are trained.
	Variables() []elastic.Variable
	// Loss builds the summed loss over a micro-batch's targets and their number, both
	// float32 scalars; where targets have weights, the sum of those. It must use drop at every
	// dropout.
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

// Measured is a [Task] whose loss follows a config.
type Measured interface {
	Task
	LossConfig() loss.Config
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
	// Event is called for what a controller, the unfreezing of variables, or an update whose numbers are
	// not finite does to the run; all are in State.Control.
	Event func(control.Event)
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
	Targets      int           // labelled positions in the update; where they have weights, the sum of those
	Positions    int           // positions computed in the update, padding included
	Terms        []Term        // of the loss, where they are weighed; see [Weighed]
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
	weigher   *weigher // nil if the loss has no terms to be weighed
	optimizer *optim.Optimizer
	control   *control.Set
	rates     rates // in place of the config's, if not nil
	state     State
	adaptation
	unfreezing
	trying *float64            // scale of the rate in place of the controllers', in a trial
	tell   func(control.Event) // of a run; may be nil

	step, accumulate, apply *model.Exec
	toAverages, toTrained   *model.Exec // nil if the optimizer does not average
	averaged                bool        // the model has the averages now
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
	if err := errors.Join(t.plan(), t.unfreeze()); err != nil {
		return nil, fmt.Errorf("training config: %w", err)
	}
	if err := errors.Join(t.checkLoss(), t.weigh()); err != nil {
		return nil, fmt.Errorf("training config: %w", err)
	}
	var err error
	if t.optimizer, err = optim.New(config.Optimizer, t.variables); err != nil {
		return nil, fmt.Errorf("training config: %w", err)
	}
	t.optimizer.Scale(t.scales())
	if t.control, err = control.New(config.Control); err != nil {
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
	if config.Accumulate == 1 {
		t.step, err = model.NewExec(backend, store, t.stepGraph)
	} else {
		t.accumulate, err = model.NewExec(backend, store, t.accumulateGraph)
		if err == nil {
			t.apply, err = model.NewExec(backend, store, t.applyGraph)
		}
	}
	if err == nil && t.optimizer.Averages() {
		if t.toAverages, err = model.NewExec(backend, store, t.averageGraph); err == nil {
			t.toTrained, err = model.NewExec(backend, store, t.trainedGraph)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("preparing the training step: %w", err)
	}
	for _, exec := range t.execs() {
		if exec != nil {
			exec.SetMaxCache(-1) // one graph per batch shape, and there are few
		}
	}
	return t, nil
}

// checkLoss refuses a loss that the task does not compute.
func (t *Trainer) checkLoss() error {
	if t.config.Loss.IsZero() {
		return nil
	}
	if measured, ok := t.task.(Measured); !ok || !reflect.DeepEqual(measured.LossConfig(), t.config.Loss) {
		return errors.New("loss: the task does not compute this loss")
	}
	return t.config.Loss.Check(t.variables)
}

func (t *Trainer) execs() []*model.Exec {
	return []*model.Exec{t.step, t.accumulate, t.apply, t.toAverages, t.toTrained}
}

// Explain returns a table of the optimizer's parameter groups, and when what is frozen begins to train.
func (t *Trainer) Explain() string {
	text := t.optimizer.Explain()
	if t.weigher != nil {
		text += t.weigher.String() + "\n"
	}
	for k, s := range t.stages {
		text += fmt.Sprintf("unfrozen after %d epochs and %d updates: %s\n", s.AfterEpochs, s.AfterUpdates, t.describeStage(k))
	}
	return text
}

// State returns the current state.
func (t *Trainer) State() State { return t.state }

// SlotsScope is the scope below which a task's store holds the optimizer's slots.
const SlotsScope = "/optimizer"

// noiseStream, added to the seed, gives the optimizer's noise other keys than dropout has.
const noiseStream = 0x6e6f697365

func slotPath(slot, path string) string { return SlotsScope + "/" + slot + path }

// kept lists what a checkpoint holds beside the model: the slots of the optimizer and the follower,
// what a strategy refers to, and what is known about the terms of the loss.
func (t *Trainer) kept() []elastic.Variable {
	kept := slices.Concat(t.moments(), t.followed(), t.anchors(), t.weigher.kept())
	if t.optimizer.Averages() {
		kept = append(kept, t.slotVariables("trained")...)
	}
	return kept
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
	slots := t.optimizer.Slots()
	list := make([]elastic.Variable, len(slots))
	for i, s := range slots {
		list[i] = s.Variable
		list[i].Path = slotPath(s.Path, "")
	}
	return list
}

// sums lists the variables that gather gradients over micro-batches. They are zero
// between updates, so no checkpoint holds them.
func (t *Trainer) sums() []elastic.Variable {
	if t.config.Accumulate == 1 {
		return nil
	}
	return slices.Concat(t.slotVariables("gradient"), []elastic.Variable{{Path: SlotsScope + "/targets"}, {Path: SlotsScope + "/loss"}}, t.weigher.sums())
}

func (t *Trainer) slotVariables(slot string) []elastic.Variable {
	list := make([]elastic.Variable, len(t.variables))
	for i, v := range t.variables {
		list[i] = elastic.Variable{Path: slotPath(slot, v.Path), Shape: v.Shape}
	}
	return list
}

// sums are what an update needs of its targets, over those of a micro-batch or of all.
type sums struct {
	loss, count *Node
	gradients   []*Node // of the loss, one a variable
	terms       terms   // of the loss, where they are weighed
}

// lossGradients builds the sums of a micro-batch. Inputs are the scalars of the update, see
// [Trainer.update], the dropout key, the batch's inputs and its labels.
func (t *Trainer) lossGradients(store *model.Store, in []*Node) sums {
	scalars, key, inputs, labels := in[0], in[1], in[2:len(in)-1], in[len(in)-1:]
	g := key.Graph()
	parameters := t.values(store, g)
	weights := elastic.WeightsOf(store, g)
	if t.config.Precision == BF16 {
		weights = weights.Computing(dtypes.BFloat16)
	}
	if t.config.CheckpointBlocks {
		weights = weights.Checkpointing()
	}
	build := func(weights elastic.Weights) (sum, count *Node, terms []*Node) {
		drop := dropout.NewSource(key) // from the same key for all passes: they drop the same elements
		if t.weigher == nil {
			sum, count = t.task.Loss(weights, inputs, labels, drop)
			return sum, count, nil
		}
		all, count := t.weigher.task.Terms(weights, inputs, labels, drop)
		n := len(t.weigher.names)
		return t.weigher.total(store, all[:n], all[n:], count), count, all[:n]
	}
	sum, count, losses := build(weights)
	gradients := Gradient(sum, parameters...)
	terms := t.weigher.share(store, losses)
	if t.optimizer.Perturbs() {
		moved := t.optimizer.Perturb(optim.Input{Values: parameters, Gradients: t.open(scalars, gradients)})
		replaced := make(map[string]*Node, len(moved))
		for i, v := range t.variables {
			replaced[v.Path] = moved[i]
		}
		there, _, _ := build(weights.With(replaced))
		gradients = Gradient(there, moved...)
	}
	return sums{sum, count, gradients, terms}
}

// values returns the variables that are trained.
func (t *Trainer) values(store *model.Store, g *Graph) []*Node {
	values := make([]*Node, len(t.variables))
	for i, v := range t.variables {
		values[i] = store.GetVariable(v.Path).NodeValue(g)
	}
	return values
}

// ownScalars is how many scalars of an update stand before those of stages.
const ownScalars = 4

// scalarAt returns one of the scalars of an update.
func scalarAt(scalars *Node, i int) *Node { return Reshape(Slice(scalars, AxisElem(i))) }

// update sets all variables and slots from the sums of an update. It returns the gradient norm, the
// learning rate that was used, the squared norm if a controller wants it, what is told about terms of the
// loss, and what a strategy measures. The scalars, float64, are the number of the update, its rate, the
// two words of its key, after how many updates each stage begins, and the follower's.
func (t *Trainer) update(store *model.Store, scalars *Node, of sums) []*Node {
	g, count, gradients := scalars.Graph(), of.count, of.gradients
	factor := perTarget(count)
	loss := Mul(of.loss, factor)
	var measured []*Node
	if t.config.measuresNoise() {
		measured = append(measured, t.squaredNorm(scalars, count, gradients))
	}
	if len(t.pulls) > 0 { // priors pull at the mean loss
		gradients = t.pulled(store, gradients, factor)
		factor = OnesLike(factor)
	}
	gradients = t.open(scalars, gradients)
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
	for i := range gradients {
		gradients[i] = Mul(gradients[i], factor)
	}
	before := t.values(store, g)
	values, newSlots, used := t.optimizer.Update(optim.Input{
		Values: before, Gradients: gradients, Slots: slots, Number: scalarAt(scalars, 0), Rate: scalarAt(scalars, 1), Loss: loss,
		Key:   ConvertDType(Slice(scalars, AxisRange(2, 4)), dtypes.Uint32),
		Since: t.since(scalars),
	})
	followed := t.followed()
	oldFollowed := make([]*Node, len(followed))
	for i, slot := range followed {
		oldFollowed[i] = store.GetVariable(slot.Path).NodeValue(g)
	}
	var newFollowed []*Node
	if len(followed) > 0 { // a follower has the last word; its scalars stand behind ours
		own := ConvertDType(Slice(scalars, AxisRange(ownScalars+len(t.stages))), dtypes.Float32)
		values, newFollowed = t.follower.Follow(own, values, gradients, oldFollowed)
	}
	var weighed, newWeighed []*Node
	if t.weigher != nil {
		var told []*Node
		weighed, newWeighed, told = t.weigher.update(store, scalarAt(scalars, 0), count, of.terms)
		measured = append(measured, told...)
	}
	values = t.unlessFrozen(scalars, values, func(i int) *Node { return before[i] })
	if t.config.SkipNonFinite {
		infinite := Infinity(g, norm.DType(), 1) // greater than what is finite, not than NaN
		finite := LogicalAnd(LessThan(norm, infinite), LessThan(Abs(loss), infinite))
		keepUnless(finite, values, before)
		keepUnless(finite, newSlots, slots)
		keepUnless(finite, newFollowed, oldFollowed)
		keepUnless(finite, newWeighed, weighed)
	}
	measures := t.measure(store, values)
	for i, slot := range moments {
		store.GetVariable(slot.Path).SetNodeValue(newSlots[i])
	}
	for i, slot := range followed {
		store.GetVariable(slot.Path).SetNodeValue(newFollowed[i])
	}
	for i, slot := range t.weigher.kept() {
		store.GetVariable(slot.Path).SetNodeValue(newWeighed[i])
	}
	for i, v := range t.variables {
		store.GetVariable(v.Path).SetNodeValue(values[i])
	}
	return slices.Concat([]*Node{norm, used}, measured, measures)
}

// squaredNorm returns the squared norm of the mean gradient, priors not counted.
func (t *Trainer) squaredNorm(scalars, count *Node, gradients []*Node) *Node {
	return Square(Mul(optim.GlobalNorm(t.open(scalars, gradients)), perTarget(count)))
}

// perTarget returns 1/count, and 1 if there is no target; weights of targets may add up to less than 1.
func perTarget(count *Node) *Node {
	return Reciprocal(Where(GreaterThan(count, ZerosLike(count)), count, OnesLike(count)))
}

// open returns the gradients with zeros for variables that do not train yet.
func (t *Trainer) open(scalars *Node, gradients []*Node) []*Node {
	return t.unlessFrozen(scalars, gradients, func(i int) *Node { return ZerosLike(gradients[i]) })
}

// keepUnless puts before in place of after unless a condition holds.
func keepUnless(condition *Node, after, before []*Node) {
	for i := range after {
		after[i] = Where(condition, after[i], before[i])
	}
}

// averageGraph keeps the trained weights in slots and puts the averages in their place; its input is
// the number of the last update.
func (t *Trainer) averageGraph(scope *model.Scope, in []*Node) []*Node {
	store, g := scope.Store(), in[0].Graph()
	values := t.values(store, g)
	var slots []*Node
	for _, slot := range t.moments() {
		slots = append(slots, store.GetVariable(slot.Path).NodeValue(g))
	}
	averages := t.optimizer.Average(optim.Input{Values: values, Slots: slots, Number: in[0]})
	for i, v := range t.variables {
		store.GetVariable(slotPath("trained", v.Path)).SetNodeValue(values[i])
		store.GetVariable(v.Path).SetNodeValue(averages[i])
	}
	return []*Node{OneMinus(in[0])}
}

// trainedGraph puts the trained weights back. Its output is of no use, as that of averageGraph, but the
// pure-Go backend wants one that is no input.
func (t *Trainer) trainedGraph(scope *model.Scope, in []*Node) []*Node {
	store, g := scope.Store(), in[0].Graph()
	for _, v := range t.variables {
		store.GetVariable(v.Path).SetNodeValue(store.GetVariable(slotPath("trained", v.Path)).NodeValue(g))
	}
	return []*Node{OneMinus(in[0])}
}

// averages puts the weights in place with which models are evaluated, if they are others than those
// that are trained.
func (t *Trainer) averages() error { return t.swap(t.toAverages, true) }

// trained puts the weights back that are trained.
func (t *Trainer) trained() error { return t.swap(t.toTrained, false) }

func (t *Trainer) swap(exec *model.Exec, averaged bool) error {
	if exec == nil || t.averaged == averaged {
		return nil
	}
	if _, err := t.call(exec, float64(t.state.Update)); err != nil {
		return fmt.Errorf("exchanging weights for their averages: %w", err)
	}
	t.averaged = averaged
	return nil
}

// stepGraph is a whole update on one micro-batch: inputs are the optimizer's scalars,
// the dropout key, the batch's inputs and its labels.
func (t *Trainer) stepGraph(scope *model.Scope, in []*Node) []*Node {
	store := scope.Store()
	all := t.lossGradients(store, in)
	return append([]*Node{all.loss, all.count}, t.update(store, in[0], all)...)
}

// accumulateGraph adds the gradients of one micro-batch: inputs are as of stepGraph.
func (t *Trainer) accumulateGraph(scope *model.Scope, in []*Node) []*Node {
	store, g := scope.Store(), in[0].Graph()
	some := t.lossGradients(store, in)
	add := func(path string, x *Node) {
		total := store.GetVariable(path)
		total.SetNodeValue(Add(total.NodeValue(g), x))
	}
	for i, v := range t.variables {
		add(slotPath("gradient", v.Path), some.gradients[i])
	}
	add(SlotsScope+"/targets", some.count)
	add(SlotsScope+"/loss", some.loss)
	terms := some.terms.all()
	for i, v := range t.weigher.sums() {
		add(v.Path, terms[i])
	}
	if t.config.measuresNoise() {
		return []*Node{some.loss, some.count, t.squaredNorm(in[0], some.count, some.gradients)}
	}
	return []*Node{some.loss, some.count}
}

// applyGraph updates from the accumulated gradients and clears them; its input is the
// optimizer's scalars.
func (t *Trainer) applyGraph(scope *model.Scope, in []*Node) []*Node {
	store, g := scope.Store(), in[0].Graph()
	read := func(list []elastic.Variable) []*Node {
		nodes := make([]*Node, len(list))
		for i, v := range list {
			nodes[i] = store.GetVariable(v.Path).NodeValue(g)
		}
		return nodes
	}
	all := sums{gradients: read(t.slotVariables("gradient"))}
	loss, targets := store.GetVariable(SlotsScope+"/loss"), store.GetVariable(SlotsScope+"/targets")
	all.loss, all.count = loss.NodeValue(g), targets.NodeValue(g)
	if t.weigher != nil {
		all.terms = t.weigher.of(read(t.weigher.sums()))
	}
	out := t.update(store, in[0], all)
	for _, v := range t.sums() {
		sum := store.GetVariable(v.Path)
		sum.SetNodeValue(ZerosLike(sum.NodeValue(g)))
	}
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
			if output.DType() == dtypes.Float64 {
				numbers = append(numbers, tensors.ToScalar[float64](output))
			} else {
				numbers = append(numbers, float64(tensors.ToScalar[float32](output)))
			}
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
	save := func(best bool) (failure error) {
		if hooks.Save == nil {
			return nil
		}
		if !t.averaged {
			if err := t.averages(); err != nil {
				return err
			}
			defer func() { failure = errors.Join(failure, t.trained()) }()
		}
		state, err := t.described()
		if err != nil {
			return err
		}
		if err := hooks.Save(state, best); err != nil {
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

	t.tell = hooks.Event
	if err := t.begin(); err != nil {
		return result(false), err
	}
	t.planStages(updatesPerEpoch, total)
	if err := t.copySlots(); err != nil {
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
		if err := t.averages(); err != nil {
			return result(false), err
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
			t.observe(control.Signals{Update: t.state.Update, Metric: &metric})
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
		if !t.state.Finished {
			if err := t.trained(); err != nil {
				return result(false), err
			}
		}
	}
	return result(false), t.averages()
}

// observe shows signals to the controllers.
func (t *Trainer) observe(signals control.Signals) {
	if t.trying != nil {
		return
	}
	for _, event := range t.control.Observe(signals) {
		t.event(event)
	}
	if t.state.Ended == "" {
		t.state.Ended = t.control.Stop()
	}
}

// event notes what was done to the run, and why.
func (t *Trainer) event(e control.Event) {
	if t.trying != nil {
		return
	}
	t.state.Control = append(t.state.Control, e)
	if t.tell != nil {
		t.tell(e)
	}
}

// copySlots gives slots that begin as copies of variables their values, in a run that is not resumed.
func (t *Trainer) copySlots() error {
	if t.state.Update > 0 {
		return nil
	}
	for i, s := range t.optimizer.Slots() {
		if !s.Copy {
			continue
		}
		value, err := t.task.Store().GetVariable(t.variables[s.Of].Path).Value()
		if err == nil {
			value, err = value.LocalClone()
		}
		if err == nil {
			err = t.task.Store().GetVariable(t.moments()[i].Path).SetValue(value)
		}
		if err != nil {
			return fmt.Errorf("setting slot %s: %w", s.Path, err)
		}
	}
	return nil
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
	rates := t.rates
	if rates == nil {
		rates = t.config.Schedule.Schedule(total)
	}
	if err := t.train(ctx, data, hooks, rates, total, total, save); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return t.clearSums()
	}
	t.endEpoch(data)
	return nil
}

// endEpoch begins the next epoch if all batches of the current one are used.
func (t *Trainer) endEpoch(data Data) {
	if t.state.Batch >= data.Steps() {
		t.state.Epoch++
		t.state.Batch = 0
	}
}

// rates give the learning rate of each update, counted from 0.
type rates interface{ At(update int) float64 }

// train makes updates until the end of the epoch, or until so many are made in all, of a run of total updates.
func (t *Trainer) train(ctx context.Context, data Data, hooks Hooks, rates rates, until, total int, save func(best bool) error) error {
	perEpoch := data.Steps()
	// micro counts the batches of this update, sum and targets their losses.
	micro, sum, targets, positions := 0, 0.0, 0.0, 0
	var small smallNorms
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
		if micro == 0 {
			tried, err := t.tryRates(ctx, data, rates, total)
			if err != nil {
				return err
			}
			if ctx.Err() != nil {
				break
			}
			if tried { // what trials take is no part of the update's time
				begin = time.Now()
			}
		}
		positions += batch.Inputs[0].Size()
		micro++
		rate := rates.At(t.state.Update) * t.scale()
		noise := dropout.Key(t.config.Seed+noiseStream, uint64(t.state.Update))
		scalars := []float64{float64(t.state.Update + 1), rate, float64(noise[0]), float64(noise[1])}
		for _, after := range t.opens {
			scalars = append(scalars, float64(after))
		}
		if t.follower != nil {
			for _, x := range t.follower.FollowScalars(t.state.Update, total) {
				scalars = append(scalars, float64(x))
			}
		}
		key := dropout.Key(t.config.Seed, uint64(t.state.Update)*uint64(t.config.Accumulate)+uint64(micro-1))
		args := []any{scalars, key}
		for _, input := range batch.Inputs {
			args = append(args, input)
		}
		args = append(args, batch.Labels[0])

		var out, measures []float64
		var big control.SquaredNorm
		var norm float64
		last := micro == t.config.Accumulate || t.state.Batch+micro == perEpoch
		if t.step != nil {
			if out, err = t.call(t.step, args...); err == nil {
				norm, rate, measures = out[2], out[3], out[4:]
			}
		} else {
			out, err = t.call(t.accumulate, args...)
			if err == nil && last {
				var applied []float64
				if applied, err = t.call(t.apply, scalars); err == nil {
					norm, rate, measures = applied[0], applied[1], applied[2:]
				}
			}
			if err == nil && t.config.measuresNoise() {
				if out[1] > 0 {
					small.add(out[2], out[1])
				}
				if last {
					big = control.SquaredNorm{Value: measures[0], Examples: int(targets + out[1])}
					measures = measures[1:]
				}
			}
		}
		if err != nil {
			return fmt.Errorf("update %d: %w", t.state.Update+1, err)
		}
		var weighed []Term
		if last {
			n := t.weigher.numbers()
			weighed, measures = t.weigher.read(measures[:n]), measures[n:]
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
		loss := sum
		if targets > 0 {
			loss /= targets
		}
		finite := !math.IsNaN(loss) && !math.IsInf(loss, 0) && !math.IsNaN(norm) && !math.IsInf(norm, 0)
		switch {
		case finite || t.trying != nil:
			t.observe(control.Signals{Update: t.state.Update, Loss: loss, Small: small.mean(), Big: big})
		case t.config.SkipNonFinite:
			t.state.Skipped++
			t.nonFinite("skip", fmt.Sprintf("loss is %g and gradient norm %g: nothing is changed; %d updates skipped so far", loss, norm, t.state.Skipped))
		default:
			t.nonFinite("stop", fmt.Sprintf("loss is %g and gradient norm %g", loss, norm))
			return fmt.Errorf("update %d: loss is %g and gradient norm %g; the last checkpoint is from before it: lower the learning rate (%g), clip more tightly, or set skip_non_finite", t.state.Update, loss, norm, rate)
		}
		t.openStages()
		if finite && t.state.due(t.config.LogEvery) { // JSON has no NaN
			scalars, err := t.scalars()
			if err != nil {
				return fmt.Errorf("update %d: %w", t.state.Update, err)
			}
			t.state.History = append(t.state.History, Point{Update: t.state.Update, Loss: loss, Rate: rate, GradientNorm: norm, Terms: weighed, Scalars: scalars})
		}
		if hooks.Step != nil {
			hooks.Step(Step{
				Update: t.state.Update, Total: total, Epoch: t.state.Epoch, Loss: loss, Rate: rate, GradientNorm: norm,
				Targets: int(targets), Positions: positions, Elapsed: time.Since(begin), Compilations: len(t.compiled), Terms: weighed,
			})
		}
		micro, sum, targets, positions, small = 0, 0, 0, 0, smallNorms{}
		t.note(loss, finite, time.Since(begin), measures, t.state.Update == total)
		if t.state.Update == until || t.state.Ended != "" {
			break
		}
		if save != nil && t.config.SaveEvery > 0 && t.state.Update%t.config.SaveEvery == 0 && t.state.Batch < perEpoch {
			if err := save(false); err != nil {
				return err
			}
		}
		begin = time.Now()
	}
	return nil
}

// nonFinite notes what was done about an update whose numbers are not finite.
func (t *Trainer) nonFinite(action, reason string) {
	t.event(control.Event{Update: t.state.Update, Controller: "non_finite", Signal: "loss", Action: action, Factor: t.control.Scale(), Reason: reason})
}

// smallNorms gathers the squared norms of micro-batches' gradients.
type smallNorms struct{ squares, inverses, batches float64 }

func (s *smallNorms) add(square, targets float64) {
	s.squares, s.inverses, s.batches = s.squares+square, s.inverses+1/targets, s.batches+1
}

// mean returns the mean square, whose noise is that of the harmonic mean of the targets.
func (s *smallNorms) mean() control.SquaredNorm {
	if s.batches == 0 {
		return control.SquaredNorm{}
	}
	return control.SquaredNorm{Value: s.squares / s.batches, Examples: int(math.Round(s.batches / s.inverses))}
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
	for _, exec := range t.execs() {
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
