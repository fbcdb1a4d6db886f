package train_test

import (
	"context"
	"errors"
	"iter"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	mltrain "github.com/gomlx/gomlx/ml/train"
	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
)

// squares is a task of two terms that share W [2, 2], with h = x·W: the squares of a·h − y and of b·h − 3·y. Beside
// them a and b cost their squares. The first row of each batch has no target.
type squares struct {
	store *model.Store
	how   loss.Weighing
}

const squaresPenalty = 0.1

func (squares) Variables() []elastic.Variable {
	return []elastic.Variable{{Path: "/w", Shape: []int{2, 2}, Init: elastic.Init{Normal: 1}}, {Path: "/a", Shape: []int{2}, Init: elastic.Init{Normal: 1}}, {Path: "/b", Shape: []int{2}, Init: elastic.Init{Normal: 1}}}
}

func (s squares) Store() *model.Store { return s.store }

func (s squares) Loss(w elastic.Weights, inputs, labels []*graph.Node, drop *dropout.Source) (sum, count *graph.Node) {
	terms, count := s.Terms(w, inputs, labels, drop)
	return loss.Total(terms), count
}

func (s squares) Weighing() (loss.Weighing, []string, []elastic.Variable) {
	return s.how, []string{"one", "three"}, s.Variables()[:1]
}

func (s squares) Terms(w elastic.Weights, inputs, labels []*graph.Node, _ *dropout.Source) (terms []*graph.Node, count *graph.Node) {
	h := graph.MatMul(inputs[0], w.At("w"))
	there := graph.ConvertDType(graph.GreaterOrEqual(labels[0], graph.ZerosLike(labels[0])), h.DType())
	y := graph.ConvertDType(labels[0], h.DType())
	square := func(name string, factor float64) *graph.Node {
		out := graph.ReduceSum(graph.Mul(h, graph.ExpandLeftToRank(w.At(name), 2)), -1)
		return graph.ReduceAllSum(graph.Mul(there, graph.Square(graph.Sub(out, graph.MulScalar(y, factor)))))
	}
	count = graph.ReduceAllSum(there)
	cost := graph.MulScalar(graph.Add(graph.ReduceAllSum(graph.Square(w.At("a"))), graph.ReduceAllSum(graph.Square(w.At("b")))), squaresPenalty)
	return []*graph.Node{square("a", 1), square("b", 3), graph.Mul(cost, count)}, count
}

// pairs are the data of squares: batches of these sizes.
type pairs []int

func (p pairs) Steps() int { return len(p) }

func (p pairs) rows(epoch, b int) (x [][2]float64, y []int32) {
	first := 0
	for _, size := range p[:b] {
		first += size
	}
	for i := range p[b] {
		phase := float64((first+i)*5 + epoch*3)
		x = append(x, [2]float64{float64(float32(math.Sin(phase))), float64(float32(math.Cos(2 * phase)))})
		y = append(y, int32(first+i)%3)
	}
	y[0] = loss.Ignored
	return x, y
}

func (p pairs) Batches(epoch, skip int) iter.Seq2[mltrain.Batch, error] {
	return func(yield func(mltrain.Batch, error) bool) {
		for b := skip; b < len(p); b++ {
			x, y := p.rows(epoch, b)
			var flat []float32
			for _, row := range x {
				flat = append(flat, float32(row[0]), float32(row[1]))
			}
			if !yield(mltrain.Batch{Inputs: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(flat, len(x), 2)}, Labels: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(y, len(y))}}, nil) {
				return
			}
		}
	}
}

// byHand trains squares by the formulas, in float64, and returns the terms of each update, its loss, and W, a and b.
func (p pairs) byHand(start []float64, how loss.Weighing, accumulate, epochs int, rate float64) (steps [][]train.Term, losses, end []float64) {
	w := slices.Clone(start) // W by rows, a, b
	learned, m, v := []float64{1, 1}, []float64{0, 0}, []float64{0, 0}
	if how.Kind == loss.ByUncertainty {
		learned = []float64{0, 0}
	}
	var initial []float64
	names, update := []string{"one", "three"}, 0
	for epoch := range epochs {
		for first := 0; first < len(p); first += accumulate {
			update++
			count, mean := 0.0, [2]float64{}
			var gradients [2][8]float64
			for b := first; b < min(first+accumulate, len(p)); b++ {
				x, y := p.rows(epoch, b)
				for i := range x {
					if y[i] < 0 {
						continue
					}
					count++
					h := [2]float64{x[i][0]*w[0] + x[i][1]*w[2], x[i][0]*w[1] + x[i][1]*w[3]}
					for task, factor := range []float64{1, 3} {
						head := w[4+2*task:][:2]
						e := head[0]*h[0] + head[1]*h[1] - factor*float64(y[i])
						mean[task] += e * e
						for j := range 2 {
							gradients[task][4+2*task+j] += 2 * e * h[j]
							for k := range 2 {
								gradients[task][2*k+j] += 2 * e * head[j] * x[i][k]
							}
						}
					}
				}
			}
			weights, gradient := slices.Clone(learned), []float64{0, 0}
			total := 0.0
			var norms [2]float64
			for task := range 2 {
				mean[task] /= count
				for j := range gradients[task] {
					gradients[task][j] /= count
					if j < 4 {
						norms[task] += gradients[task][j] * gradients[task][j]
					}
				}
				norms[task] = math.Sqrt(norms[task])
				if how.Kind == loss.ByUncertainty {
					weights[task] = math.Exp(-learned[task])
					gradient[task] = 0.5 - weights[task]*mean[task]
					total += learned[task] / 2
				}
				total += weights[task] * mean[task]
			}
			if how.Kind == loss.ByGradNorm {
				if initial == nil {
					initial = slices.Clone(mean[:])
				}
				ratios := []float64{mean[0] / initial[0], mean[1] / initial[1]}
				for task := range 2 {
					target := (weights[0]*norms[0] + weights[1]*norms[1]) / 2 * math.Pow(2*ratios[task]/(ratios[0]+ratios[1]), how.Exponent)
					gradient[task] = norms[task]
					if weights[task]*norms[task] < target {
						gradient[task] = -norms[task]
					}
				}
			}
			var told []train.Term
			for task, name := range names {
				told = append(told, train.Term{Name: name, Loss: mean[task], Weight: weights[task]})
			}
			for j := range w[4:] {
				total += squaresPenalty * w[4+j] * w[4+j]
			}
			steps, losses = append(steps, told), append(losses, total)
			for j := range w {
				g := weights[0]*gradients[0][j] + weights[1]*gradients[1][j]
				if j >= 4 {
					g += 2 * squaresPenalty * w[j]
				}
				w[j] -= rate * g
			}
			for task, g := range gradient { // Adam
				m[task], v[task] = 0.9*m[task]+0.1*g, 0.999*v[task]+0.001*g*g
				learned[task] -= how.Rate * m[task] / (1 - math.Pow(0.9, float64(update))) / (math.Sqrt(v[task]/(1-math.Pow(0.999, float64(update)))) + 1e-8)
			}
			if how.Kind == loss.ByGradNorm {
				sum := learned[0] + learned[1]
				learned[0], learned[1] = 2*learned[0]/sum, 2*learned[1]/sum
			}
		}
	}
	return steps, losses, w
}

// TestWeighedByHand: terms, weights and the model go as the papers' formulas say, written down once more; micro-batches of
// any size are one batch; and there is one compilation for each graph.
func TestWeighedByHand(t *testing.T) {
	for accumulate, list := range map[int][]loss.Weighing{
		1: {{Kind: loss.ByUncertainty}, {Kind: loss.ByGradNorm}},
		3: {{Kind: loss.ByUncertainty, Rate: 0.05}, {Kind: loss.ByGradNorm, Exponent: 0.7, Rate: 0.05}},
	} {
		for _, how := range list {
			store, err := elastic.NewStore(squares{}.Variables(), 4)
			if err != nil {
				t.Fatal(err)
			}
			flat := func() (list []float64) {
				for _, v := range (squares{}).Variables() {
					for _, x := range tensors.MustCopyFlatData[float32](store.GetVariable(v.Path).MustValue()) {
						list = append(list, float64(x))
					}
				}
				return list
			}
			const rate, epochs = 0.02, 3
			data := pairs{4, 9, 6, 4, 4}
			if accumulate == 1 {
				data = pairs{7, 7, 7, 7}
			}
			steps, losses, end := data.byHand(flat(), how.WithDefaults(), accumulate, epochs, rate)
			trainer, err := train.New(gxtest.Backend(t), squares{store, how}, train.Config{
				Epochs: epochs, Accumulate: accumulate, LogEvery: 1, Optimizer: optim.Config{Rule: optim.SGD{}}, Schedule: schedule.Config{Kind: "constant", Peak: rate},
			})
			if err != nil {
				t.Fatal(err)
			}
			var got []train.Step
			result, err := trainer.Run(t.Context(), data, train.Hooks{Step: func(s train.Step) { got = append(got, s) }})
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(steps) {
				t.Fatalf("%+v: %d updates, want %d", how, len(got), len(steps))
			}
			near := func(got, want float64) bool { return math.Abs(got-want) <= 2e-4*max(1, math.Abs(want)) }
			for i, s := range got {
				if !near(s.Loss, losses[i]) {
					t.Errorf("%+v: the loss of update %d is %g, want %g", how, i+1, s.Loss, losses[i])
				}
				for k, term := range s.Terms {
					if want := steps[i][k]; term.Name != want.Name || !near(term.Loss, want.Loss) || !near(term.Weight, want.Weight) {
						t.Errorf("%+v, accumulate %d: update %d has the term %+v, want %+v", how, accumulate, i+1, term, want)
					}
				}
				if !cmp.Equal(s.Terms, result.State.History[i].Terms) {
					t.Errorf("the history has the terms %+v, want %+v", result.State.History[i].Terms, s.Terms)
				}
			}
			for i, x := range flat() {
				if !near(x, end[i]) {
					t.Errorf("%+v: weight %d ends as %g, want %g", how, i, x, end[i])
				}
			}
			if accumulate == 1 && result.Compilations != 1 {
				t.Errorf("%d compilations, want 1", result.Compilations)
			}
		}
	}
}

// pupil is a classifier that follows a teacher, who says of each row its first three features.
type pupil struct {
	classifier
	how loss.Weighing
}

func (p pupil) Loss(w elastic.Weights, inputs, labels []*graph.Node, drop *dropout.Source) (sum, count *graph.Node) {
	terms, count := p.Terms(w, inputs, labels, drop)
	return loss.Total(terms), count
}

func (p pupil) Weighing() (loss.Weighing, []string, []elastic.Variable) {
	return p.how, loss.Criterion{}.TermNames(), p.Variables()[:1]
}

func (p pupil) Terms(w elastic.Weights, inputs, labels []*graph.Node, drop *dropout.Source) (terms []*graph.Node, count *graph.Node) {
	x := graph.Tanh(elastic.Dense(w.In("inner"), inputs[0]))
	x = elastic.LayerNorm(w.In("norm"), drop.Apply(x, dropRate), 1e-5)
	teacher := graph.Slice(inputs[0], graph.AxisRange(), graph.AxisRange(0, 3))
	return loss.Criterion{Apart: true, Temperature: 2}.Terms(loss.Targets{Labels: labels[0], Teacher: teacher}, elastic.Dense(w.In("outer"), x))
}

// TestWeighedResumeIsExact interrupts a weighed run at its begin, and near its end: it ends with the same weights, of the model
// and of terms, to the last bit, whatever trains the model.
func TestWeighedResumeIsExact(t *testing.T) {
	data := rows{batches: 5, size: 8}
	for accumulate, list := range map[int][]loss.Weighing{1: {{Kind: loss.ByUncertainty}, {Kind: loss.ByGradNorm, Exponent: 0.5}}, 2: {{Kind: loss.ByGradNorm}}} {
		for _, how := range list {
			cfg := config()
			cfg.Epochs, cfg.Accumulate, cfg.LogEvery = 2, accumulate, 1
			if how.Kind == loss.ByUncertainty {
				cfg.Optimizer = optim.Config{Rule: optim.Chain{optim.SAM{}, optim.AdamW{}, optim.EMA{Beta: 0.9}}} // a second pass, and other weights in checkpoints
			}
			fresh := func(c classifier) *train.Trainer {
				t.Helper()
				trainer, err := train.New(gxtest.Backend(t), pupil{c, how}, cfg)
				if err != nil {
					t.Fatal(err)
				}
				return trainer
			}
			whole := newClassifier(t)
			want, err := fresh(whole).Run(t.Context(), data, train.Hooks{})
			if err != nil {
				t.Fatal(err)
			}
			first, last := want.State.History[0].Terms, want.State.History[want.State.Update-1].Terms
			if first[0].Weight != 1 || first[1].Weight != 1 || last[0].Weight == 1 || last[1].Weight == 1 {
				t.Fatalf("%s: weights went from %+v to %+v", how.Kind, first, last)
			}
			for _, stop := range []int{1, want.State.Update - 1} {
				dir := t.TempDir()
				ctx, cancel := context.WithCancel(t.Context())
				first := newClassifier(t)
				trainer := fresh(first)
				_, err := trainer.Run(ctx, data, train.Hooks{
					Step: func(s train.Step) {
						if s.Update == stop {
							cancel()
						}
					},
					Save: func(train.State, bool) error { return save(dir, first, trainer) },
				})
				cancel()
				if !errors.Is(err, train.ErrInterrupted) {
					t.Fatalf("stopping after update %d: error is %v", stop, err)
				}
				second := load(t, dir)
				trainer = fresh(second)
				if err := trainer.Restore(dir); err != nil {
					t.Fatal(err)
				}
				got, err := trainer.Run(t.Context(), data, train.Hooks{})
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(weights(t, second), weights(t, whole)) || !cmp.Equal(got.State.History, want.State.History) {
					t.Fatalf("%s, accumulate %d: resumed after update %d, the run differs", how.Kind, accumulate, stop)
				}
			}
		}
	}
}

// untold has a batch in the middle without any target.
type untold struct{ rows }

func (u untold) Batches(epoch, skip int) iter.Seq2[mltrain.Batch, error] {
	return func(yield func(mltrain.Batch, error) bool) {
		i := skip
		for batch, err := range u.rows.Batches(epoch, skip) {
			if i == 1 {
				size := batch.Labels[0].Shape().Dimensions[0]
				batch.Labels[0] = tensors.FromFlatDataAndDimensions(slices.Repeat([]int32{loss.Ignored}, size), size)
			}
			i++
			if !yield(batch, err) {
				return
			}
		}
	}
}

// TestUpdateWithoutTargetsWeighsNothing: terms keep their weights over it, and GradNorm the losses that it saw first.
func TestUpdateWithoutTargetsWeighsNothing(t *testing.T) {
	for _, kind := range loss.Weighings() {
		cfg := config()
		cfg.Epochs = 1
		trainer, err := train.New(gxtest.Backend(t), pupil{newClassifier(t), loss.Weighing{Kind: kind}}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		var weights [][2]float64 // of each update
		if _, err := trainer.Run(t.Context(), untold{rows{batches: 4, size: 8}}, train.Hooks{Step: func(s train.Step) {
			weights = append(weights, [2]float64{s.Terms[0].Weight, s.Terms[1].Weight})
		}}); err != nil {
			t.Fatal(err)
		}
		if weights[0] == weights[1] || weights[1] != weights[2] || weights[2] == weights[3] {
			t.Errorf("%s: weights of updates %v, want those of the third as of the second", kind, weights)
		}
	}
}

// TestWeighingIsRefused where it is none, or has nothing to work on.
func TestWeighingIsRefused(t *testing.T) {
	for want, how := range map[string]loss.Weighing{
		`weigh.kind "best" is unknown; known: gradnorm, uncertainty`: {Kind: "best"},
		`weigh.exponent is for weigh.kind "gradnorm" only`:           {Kind: loss.ByUncertainty, Exponent: 1},
		"weigh.rate is -1, want more than 0":                         {Kind: loss.ByGradNorm, Rate: -1},
		`weigh.kind "" is unknown`:                                   {Rate: 0.1},
		"weigh.exponent is NaN":                                      {Kind: loss.ByGradNorm, Exponent: math.NaN()},
	} {
		if _, err := train.New(gxtest.Backend(t), pupil{newClassifier(t), how}, config()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", how, err, want)
		}
	}
	if _, err := train.New(gxtest.Backend(t), lonely{pupil{newClassifier(t), loss.Weighing{Kind: loss.ByGradNorm}}}, config()); err == nil || !strings.Contains(err.Error(), "the task names none") {
		t.Errorf("nothing shared: error %v", err)
	}
	trainer, err := train.New(gxtest.Backend(t), pupil{newClassifier(t), loss.Weighing{Kind: loss.ByGradNorm}}, config())
	if want := "loss of labels and teacher weighed by gradnorm (exponent 1.5) on /inner/weights, at a rate of 0.025"; err != nil || !strings.Contains(trainer.Explain(), want) {
		t.Errorf("%v, explained as %q, want %q", err, trainer.Explain(), want)
	}
}

// lonely has terms that share nothing.
type lonely struct{ pupil }

func (l lonely) Weighing() (loss.Weighing, []string, []elastic.Variable) {
	how, names, _ := l.pupil.Weighing()
	return how, names, nil
}
