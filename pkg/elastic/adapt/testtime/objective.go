package testtime

import (
	"math"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
)

// graph builds one step: inputs are the number of the update and the rate, float64,
// for the method "masked" the key of its noise, and the batch; for "labels" the last input
// is the labels. Outputs are the logits, the weights of rows, and as one vector loss, mean entropy, rows kept, length
// of the step and rows that count; with a look also the unadapted model's mean entropy,
// divergence, rows with another class, what counts as damage of these, and how often the unadapted model
// predicts each class.
func (a *Adapter) graph(store *model.Store, in []*Node, look bool) []*Node {
	g, w := in[0].Graph(), elastic.WeightsOf(store, in[0].Graph())
	scalars, inputs := in[0], in[1:]
	parameters, began := make([]*Node, len(a.variables)), map[string]*Node{}
	for i, v := range a.variables {
		parameters[i] = store.GetVariable(v.Path).NodeValue(g)
		if look || a.config.Anchor > 0 {
			began[v.Path] = store.GetVariable(scope + "/start" + v.Path).NodeValue(g)
		}
	}
	var objective objective
	var rows rows
	switch a.config.Method {
	case "masked":
		noise := dropout.NewSource(inputs[0])
		inputs = inputs[1:]
		rows = a.rows(w, inputs)
		hidden := a.rows(w, a.task.(Masker).Masked(inputs, a.config.MaskShare, noise))
		objective = a.consistency(rows, hidden)
	case "labels":
		labels := inputs[len(inputs)-1]
		inputs = inputs[:len(inputs)-1]
		rows = a.rows(w, inputs)
		objective = a.supervised(rows, labels)
	default:
		rows = a.rows(w, inputs)
		objective = a.objective(store, rows)
	}
	gradients := Gradient(objective.loss, parameters...)
	if a.config.Method == "sar" {
		gradients = a.sharp(w, inputs, objective.kept, parameters, gradients)
	}
	if mu := a.config.Anchor; mu > 0 {
		for i, v := range a.variables {
			away := Sub(parameters[i], began[v.Path])
			gradients[i] = Add(gradients[i], MulScalar(away, 2*mu))
			objective.loss = Add(objective.loss, MulScalar(elastic.SumAll(Square(away)), mu))
		}
	}
	share := MinScalar(MulScalar(ReduceAllSum(rows.weight), 1/float64(a.config.FullRows)), 1)
	var moved *Node
	values := a.update(store, parameters, gradients, scalars, objective.loss)
	for i, v := range a.variables {
		value := values[i]
		if a.config.FullRows > 1 {
			value = Add(parameters[i], Mul(share, Sub(value, parameters[i])))
		}
		moved = elastic.AddIf(moved, elastic.SumAll(Square(Sub(value, parameters[i]))))
		store.GetVariable(v.Path).SetNodeValue(value)
	}
	count := ReduceAllSum(rows.weight)
	numbers := []*Node{objective.loss, rows.average(rows.entropy), ReduceAllSum(objective.kept), Sqrt(moved), count}
	if look {
		unadapted := a.rows(w.With(began), inputs)
		before, after := unadapted.mean(), rows.mean()
		classes, changed := unadapted.decisions(), rows.decisions()
		same := ReduceAllSum(Mul(classes, changed))
		damage := Sub(count, same)
		if truth := objective.truth; truth != nil {
			damage = Sub(ReduceAllSum(Mul(truth, classes)), ReduceAllSum(Mul(truth, changed)))
		}
		numbers = append(numbers, rows.average(unadapted.entropy), ReduceAllSum(Mul(before, Sub(logOf(before), logOf(after)))),
			Sub(count, same), damage, ReduceSum(classes, 0))
	}
	for i, n := range numbers {
		numbers[i] = Reshape(n, -1)
	}
	return []*Node{rows.logits, rows.weight, Concatenate(numbers, 0)}
}

// update returns the variables after one step of the optimizer, and sets its slots.
func (a *Adapter) update(store *model.Store, parameters, gradients []*Node, scalars, loss *Node) []*Node {
	slots := make([]*Node, len(a.optimizer.Slots()))
	for i, slot := range a.optimizer.Slots() {
		slots[i] = store.GetVariable(slotPath(slot)).NodeValue(scalars.Graph())
	}
	scalar := func(i int) *Node { return Reshape(Slice(scalars, AxisElem(i))) }
	values, slots, _ := a.optimizer.Update(optim.Input{
		Values: parameters, Gradients: gradients, Slots: slots, Number: scalar(0), Rate: scalar(1), Loss: loss,
	})
	for i, slot := range a.optimizer.Slots() {
		store.GetVariable(slotPath(slot)).SetNodeValue(slots[i])
	}
	return values
}

// rows are the predictions of a batch.
type rows struct {
	logits  *Node // [n, classes]
	weight  *Node // 1 for rows that count, 0 for others: [n]
	entropy *Node // [n]
	p       *Node // [n, classes]
	logP    *Node // [n, classes]
}

func (a *Adapter) rows(w elastic.Weights, inputs []*Node) rows {
	logits, counts := a.task.Logits(w, inputs)
	shifted := Sub(logits, StopGradient(ReduceAndKeep(logits, ReduceMax, -1)))
	logP := Sub(shifted, Log(ReduceAndKeep(Exp(shifted), ReduceSum, -1)))
	p := Exp(logP)
	r := rows{logits: logits, p: p, logP: logP, entropy: Neg(ReduceSum(Mul(p, logP), -1))}
	if counts == nil {
		r.weight = OnesLike(r.entropy)
	} else {
		r.weight = ConvertDType(counts, r.entropy.DType())
	}
	return r
}

// average is the mean of one number a row over the rows that count.
func (r rows) average(n *Node) *Node { return mean(n, r.weight) }

// mean is the mean prediction over the rows that count, [classes].
func (r rows) mean() *Node {
	total := ReduceSum(Mul(r.p, InsertAxes(r.weight, -1)), 0)
	return Mul(total, Reciprocal(MaxScalar(ReduceAllSum(r.weight), 1)))
}

// decisions has a 1 for the class that each row that counts is put in, [n, classes].
func (r rows) decisions() *Node {
	classes := r.p.Shape().Dimensions[1]
	return Mul(OneHot(ArgMax(StopGradient(r.logits), -1), classes, r.p.DType()), InsertAxes(r.weight, -1))
}

// mean is Σ weight·n / Σ weight, 0 where no row has weight.
func mean(n, weight *Node) *Node {
	return Mul(ReduceAllSum(Mul(n, weight)), Reciprocal(MaxScalar(ReduceAllSum(weight), 1)))
}

func logOf(p *Node) *Node { return Log(MaxScalar(p, 1e-12)) }

// objective is what is made small, the rows that it uses, 1 or 0 each, and of these the true classes,
// [n, classes], nil where they are not known.
type objective struct{ loss, kept, truth *Node }

func (a *Adapter) objective(store *model.Store, r rows) objective {
	threshold := a.config.Threshold * math.Log(float64(a.task.Classes()))
	reliable := func() *Node {
		below := LessThan(StopGradient(r.entropy), Scalar(r.entropy.Graph(), r.entropy.DType(), threshold))
		return Mul(ConvertDType(below, r.weight.DType()), r.weight)
	}
	switch a.config.Method {
	case "memo":
		p := r.mean()
		return objective{loss: Neg(ReduceAllSum(Mul(p, logOf(p)))), kept: r.weight}
	case "sar":
		kept := reliable()
		return objective{loss: mean(r.entropy, kept), kept: kept}
	case "eata":
		kept := Mul(reliable(), a.novel(store, r))
		weight := Mul(Exp(AddScalar(Neg(StopGradient(r.entropy)), threshold)), kept)
		loss := Mul(ReduceAllSum(Mul(weight, r.entropy)), Reciprocal(MaxScalar(ReduceAllSum(kept), 1)))
		a.remember(store, r, kept)
		return objective{loss: loss, kept: kept}
	case "pseudo_label":
		sure := GreaterOrEqual(StopGradient(ReduceMax(r.p, -1)), Scalar(r.p.Graph(), r.p.DType(), a.config.Confidence))
		kept := Mul(ConvertDType(sure, r.weight.DType()), r.weight)
		return objective{loss: mean(Neg(ReduceSum(Mul(r.decisions(), r.logP), -1)), kept), kept: kept}
	}
	return objective{loss: r.average(r.entropy), kept: r.weight}
}

// consistency is the objective of masked: the mean of KL(p ‖ p′) over the rows that count.
func (a *Adapter) consistency(r, hidden rows) objective {
	p, logP := StopGradient(r.p), StopGradient(r.logP)
	return objective{loss: r.average(ReduceSum(Mul(p, Sub(logP, hidden.logP)), -1)), kept: r.weight}
}

// supervised is the mean of −ln p of the true classes, labels int32 [n], over the rows that count
// and have one.
func (a *Adapter) supervised(r rows, labels *Node) objective {
	if n, m := labels.Shape().Size(), r.weight.Shape().Size(); n != m {
		exceptions.Panicf("%d labels for %d rows", n, m)
	}
	has := GreaterOrEqual(labels, ZerosLike(labels))
	kept := Mul(ConvertDType(has, r.weight.DType()), r.weight)
	truth := OneHot(Where(has, labels, ZerosLike(labels)), a.task.Classes(), r.p.DType())
	return objective{mean(Neg(ReduceSum(Mul(truth, r.logP), -1)), kept), kept, Mul(truth, InsertAxes(kept, -1))}
}

// novel tells which rows of eata are not redundant: all, before anything was seen.
func (a *Adapter) novel(store *model.Store, r rows) *Node {
	g, p := r.p.Graph(), StopGradient(r.p)
	seen, m := store.GetVariable(scope+"/seen").NodeValue(g), store.GetVariable(scope+"/mean").NodeValue(g)
	length := func(n *Node, axes ...int) *Node { return MaxScalar(Sqrt(ReduceSum(Square(n), axes...)), 1e-8) }
	cosine := Mul(Einsum("nc,c->n", p, m), Reciprocal(Mul(length(p, 1), length(m))))
	novel := LessThan(Abs(cosine), Scalar(g, p.DType(), a.config.Redundancy))
	first := BroadcastToDims(Equal(seen, ZerosLike(seen)), novel.Shape().Dimensions...)
	return ConvertDType(LogicalOr(novel, first), p.DType())
}

// remember moves the running mean of predictions by those that were kept.
func (a *Adapter) remember(store *model.Store, r rows, kept *Node) {
	g, p := r.p.Graph(), StopGradient(r.p)
	seen, m := store.GetVariable(scope+"/seen"), store.GetVariable(scope+"/mean")
	number := ReduceAllSum(kept)
	fresh := Mul(ReduceSum(Mul(p, InsertAxes(kept, -1)), 0), Reciprocal(MaxScalar(number, 1)))
	old := m.NodeValue(g)
	dims := old.Shape().Dimensions
	first := BroadcastToDims(Equal(seen.NodeValue(g), ZerosLike(number)), dims...)
	moved := Where(first, fresh, Add(MulScalar(old, 0.9), MulScalar(fresh, 0.1)))
	anything := GreaterThan(number, ZerosLike(number))
	m.SetNodeValue(Where(BroadcastToDims(anything, dims...), moved, old))
	seen.SetNodeValue(Where(anything, OnesLike(number), seen.NodeValue(g)))
}

// sharp returns the gradients of sar: at the point ρ away in the direction of the first
// gradients, over the rows that are reliable at both.
func (a *Adapter) sharp(w elastic.Weights, inputs []*Node, kept *Node, parameters, gradients []*Node) []*Node {
	var square *Node
	for _, gradient := range gradients {
		square = elastic.AddIf(square, elastic.SumAll(Square(gradient)))
	}
	factor := MulScalar(Reciprocal(AddScalar(Sqrt(square), 1e-12)), a.config.Radius)
	moved, there := map[string]*Node{}, make([]*Node, len(parameters))
	for i, v := range a.variables {
		there[i] = Add(parameters[i], Mul(gradients[i], factor))
		moved[v.Path] = there[i]
	}
	r := a.rows(w.With(moved), inputs)
	threshold := a.config.Threshold * math.Log(float64(a.task.Classes()))
	below := LessThan(StopGradient(r.entropy), Scalar(kept.Graph(), kept.DType(), threshold))
	both := Mul(ConvertDType(below, kept.DType()), kept)
	return Gradient(mean(r.entropy, both), there...)
}
