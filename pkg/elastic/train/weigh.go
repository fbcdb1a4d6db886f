package train

import (
	"errors"
	"fmt"
	"strings"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
)

// Weighed is a [Task] whose loss has terms that the loop may weigh while it trains: each update trains
// the model with the weights as they are, and the weights with it, in the same compiled step.
type Weighed interface {
	Task
	// Weighing says how, names the terms, and lists the variables that all of them read last, for
	// [loss.GradNorm]. With the zero value nothing is weighed, and Terms is not called.
	Weighing() (how loss.Weighing, names []string, shared []elastic.Variable)
	// Terms is Loss in parts, float32 scalars: the summed losses of the terms in the order of their
	// names, then what is not weighed.
	Terms(w elastic.Weights, inputs, labels []*Node, drop *dropout.Source) (terms []*Node, count *Node)
}

// Term is what an update did about one term of a loss whose terms are weighed.
type Term struct {
	Name   string  `json:"name"`
	Loss   float64 `json:"loss"`   // mean over the update's targets
	Weight float64 `json:"weight"` // of that mean, in the update
}

// weigher learns the weights of a loss's terms.
type weigher struct {
	task      Weighed
	how       loss.Weighing
	names     []string
	shared    []elastic.Variable // none unless GradNorm wants their gradients
	optimizer *optim.Optimizer   // of what is learned
}

// termScope is where, below [SlotsScope], is what is learned about terms, and what that takes.
const termScope = "/terms"

// weigh finds out whether and how the task's loss has terms to be weighed.
func (t *Trainer) weigh() error {
	task, ok := t.task.(Weighed)
	if !ok {
		return nil
	}
	how, names, shared := task.Weighing()
	if how.Kind == "" {
		return how.Validate()
	}
	if err := how.Validate(); err != nil {
		return err
	}
	w := &weigher{task: task, how: how.WithDefaults(), names: names}
	if how.Kind == loss.ByGradNorm {
		if w.shared = shared; len(shared) == 0 {
			return errors.New("weigh: GradNorm needs variables that all terms of the loss read, and the task names none")
		}
		for _, v := range shared {
			if t.task.Store().GetVariable(v.Path) == nil {
				return fmt.Errorf("weigh: the model has no variable %s", v.Path)
			}
		}
	}
	var err error
	if w.optimizer, err = optim.New(optim.Config{Rule: optim.Adam{}}, []elastic.Variable{w.learned()}); err != nil {
		return fmt.Errorf("weigh: %w", err)
	}
	t.weigher = w
	return nil
}

// learned is the variable that is: log-variances, or weights.
func (w *weigher) learned() elastic.Variable {
	if w.how.Kind == loss.ByUncertainty {
		return elastic.Variable{Path: termScope + "/log_variances", Shape: []int{len(w.names)}}
	}
	return elastic.Variable{Path: termScope + "/weights", Shape: []int{len(w.names)}, Init: elastic.Init{Value: 1}}
}

// kept lists what a checkpoint holds: what is learned, the losses that GradNorm saw first, 0 before,
// and the optimizer's slots.
func (w *weigher) kept() []elastic.Variable {
	if w == nil {
		return nil
	}
	list := []elastic.Variable{w.learned()}
	if w.how.Kind == loss.ByGradNorm {
		list = append(list, elastic.Variable{Path: termScope + "/initial", Shape: []int{len(w.names)}})
	}
	for _, slot := range w.optimizer.Slots() {
		list = append(list, slot.Variable)
	}
	return elastic.Under(SlotsScope, list)
}

// sums lists what gathers the terms and their gradients over micro-batches, in the order of [terms.all].
func (w *weigher) sums() []elastic.Variable {
	if w == nil {
		return nil
	}
	var list []elastic.Variable
	for i := range w.names {
		scope := fmt.Sprintf("%s%s/term_%d", SlotsScope, termScope, i)
		list = append(list, elastic.Variable{Path: scope + "/loss"})
		for _, v := range w.shared {
			list = append(list, elastic.Variable{Path: scope + "/gradient" + v.Path, Shape: v.Shape})
		}
	}
	return list
}

// terms are the summed losses of terms over targets, and their gradients with respect to the shared
// variables, if those are wanted.
type terms struct {
	losses    []*Node
	gradients [][]*Node
}

// all lists the nodes, as [weigher.sums] lists their variables.
func (t terms) all() []*Node {
	var list []*Node
	for i, l := range t.losses {
		list = append(append(list, l), t.gradients[i]...)
	}
	return list
}

// share returns the losses of terms with their gradients.
func (w *weigher) share(store *model.Store, losses []*Node) (t terms) {
	if w == nil {
		return t
	}
	t = terms{losses, make([][]*Node, len(losses))}
	if len(w.shared) == 0 {
		return t
	}
	shared := make([]*Node, len(w.shared))
	for i, v := range w.shared {
		shared[i] = store.GetVariable(v.Path).NodeValue(losses[0].Graph())
	}
	for i, l := range losses {
		t.gradients[i] = Gradient(l, shared...)
	}
	return t
}

// of is the inverse of [terms.all].
func (w *weigher) of(all []*Node) (t terms) {
	each := 1 + len(w.shared)
	for i := range w.names {
		t.losses = append(t.losses, all[i*each])
		t.gradients = append(t.gradients, all[i*each+1:(i+1)*each])
	}
	return t
}

// total joins terms with their weights, and what is not weighed, to the summed loss.
func (w *weigher) total(store *model.Store, losses, rest []*Node, count *Node) *Node {
	learned := store.GetVariable(w.kept()[0].Path).NodeValue(count.Graph())
	var sum *Node
	if w.how.Kind == loss.ByUncertainty { // ½·s is a part of the mean loss
		sum = Mul(loss.Uncertainty(scaled(losses, perTarget(count)), learned, make([]bool, len(losses))), count)
	} else {
		sum = ReduceAllSum(Mul(learned, Stack(losses, 0)))
	}
	return loss.Total(append([]*Node{sum}, rest...))
}

// scaled multiplies nodes by a scalar.
func scaled(nodes []*Node, factor *Node) []*Node {
	list := make([]*Node, len(nodes))
	for i, n := range nodes {
		list[i] = Mul(n, factor)
	}
	return list
}

// update learns from the terms of an update, whose number is a float64 scalar. It returns the values of what is kept before and after, and of each term the mean loss and
// the weight that it had.
func (w *weigher) update(store *model.Store, number, count *Node, t terms) (before, after, told []*Node) {
	g, factor := count.Graph(), perTarget(count)
	for _, v := range w.kept() {
		before = append(before, store.GetVariable(v.Path).NodeValue(g))
	}
	learned, slots := before[0], before[1:]
	means := scaled(t.losses, factor)
	weights := learned
	var gradient *Node
	if w.how.Kind == loss.ByUncertainty {
		weights = Exp(Neg(learned))
		gradient = Gradient(loss.Uncertainty(means, learned, make([]bool, len(means))), learned)[0]
	} else {
		initial := slots[0]
		slots = slots[1:]
		initial = Where(GreaterThan(initial, ZerosLike(initial)), initial, Stack(means, 0))
		shares := make([][]*Node, len(means))
		for i, list := range t.gradients {
			shares[i] = scaled(list, factor)
		}
		gradient = loss.GradNorm(means, shares, learned, initial, w.how.Exponent).Gradient
		after = append(after, initial)
	}
	rate := Scalar(g, dtypes.Float64, w.how.Rate)
	values, newSlots, _ := w.optimizer.Update(optim.Input{Values: []*Node{learned}, Gradients: []*Node{gradient}, Slots: slots, Number: number, Rate: rate})
	if w.how.Kind == loss.ByGradNorm {
		values[0] = loss.Renormalize(values[0])
	}
	after = append(append(values, after...), newSlots...)
	// Nothing is learned from an update without targets, nor where a loss is 0 from the start: GradNorm
	// compares losses with those.
	tells := LogicalAnd(GreaterThan(count, ZerosLike(count)), LessThan(ReduceAllSum(Abs(gradient)), Infinity(g, gradient.DType(), 1)))
	keepUnless(tells, after, before)
	for i, mean := range means {
		told = append(told, mean, Reshape(Slice(weights, AxisElem(i))))
	}
	return before, after, told
}

// read makes terms of what [weigher.update] told.
func (w *weigher) read(told []float64) []Term {
	if w == nil {
		return nil
	}
	list := make([]Term, len(w.names))
	for i, name := range w.names {
		list[i] = Term{Name: name, Loss: told[2*i], Weight: told[2*i+1]}
	}
	return list
}

// numbers is how many numbers an update tells.
func (w *weigher) numbers() int {
	if w == nil {
		return 0
	}
	return 2 * len(w.names)
}

// String says how terms are weighed.
func (w *weigher) String() string {
	text := fmt.Sprintf("loss of %s weighed by %s", strings.Join(w.names, " and "), w.how.Kind)
	if w.how.Kind == loss.ByGradNorm {
		text += fmt.Sprintf(" (exponent %g) on %s", w.how.Exponent, w.shared[0].Path)
	}
	return fmt.Sprintf("%s, at a rate of %g", text, w.how.Rate)
}
