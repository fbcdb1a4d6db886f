package testtime_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/pooling"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// pooled is a model that pools by one variable, "/pooling/w".
type pooled struct {
	store    *model.Store
	variable elastic.Variable
	classes  int
	logits   func(w *Node, in []*Node) *Node
}

func newPooled(t *testing.T, w *tensors.Tensor, classes int, logits func(w *Node, in []*Node) *Node) pooled {
	t.Helper()
	p := pooled{model.NewStore(), elastic.Variable{Path: "/pooling/w", Shape: w.Shape().Dimensions}, classes, logits}
	if _, err := p.store.CreateVariable(p.variable.Path, w); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p pooled) Store() *model.Store           { return p.store }
func (p pooled) Variables() []elastic.Variable { return []elastic.Variable{p.variable} }
func (p pooled) Classes() int                  { return p.classes }
func (p pooled) Logits(w elastic.Weights, in []*Node) (logits, counts *Node) {
	return p.logits(w.In("pooling").At("w"), in), nil
}

// TestGoldenPooling adapts pooling weights as the theory has it: without labels by tent with an
// anchor, and with labels, each batch predicted first.
func TestGoldenPooling(t *testing.T) {
	config := testtime.Config{Variables: []string{"/pooling/*"}, FullRows: 1, Guard: testtime.Guard{Off: true}}
	follow := func(t *testing.T, p pooled, atol float64, value func(string) *tensors.Tensor, step func() float64) {
		losses, want := tensors.MustCopyFlatData[float32](value("traj.F")), tensors.MustCopyFlatData[float32](value("traj.w"))
		size := len(want) / len(losses)
		for i, loss := range losses {
			gxtest.Close(t, step(), loss, atol)
			w, err := p.store.GetVariable("/pooling/w").Value()
			if err != nil {
				t.Fatal(err)
			}
			gxtest.Close(t, w, want[i*size:(i+1)*size], atol)
		}
	}
	cases(t, []string{"seed_tta_pooling"}, func(t *testing.T, _ string, _ map[string]float64, atol float64, value func(string) *tensors.Tensor) {
		constants := tensors.MustCopyFlatData[float32](value("const.mu_lr_tol"))
		p := newPooled(t, value("in.w0"), value("in.head").Shape().Dimensions[1], func(w *Node, in []*Node) *Node {
			y, _ := pooling.ByTokens(w, in[0], nil)
			return Einsum("nf,fc->nc", y, in[1])
		})
		config := config
		config.Anchor, config.Rate = float64(constants[0]), float64(constants[1])
		a, err := testtime.New(gxtest.Backend(t), p, config)
		if err != nil {
			t.Fatal(err)
		}
		follow(t, p, atol, value, func() float64 {
			_, event, err := a.Step(t.Context(), value("in.u"), value("in.head"))
			if err != nil {
				t.Fatal(err)
			}
			return event.Loss
		})
	})
	cases(t, []string{"seed_supervised_rows"}, func(t *testing.T, _ string, _ map[string]float64, atol float64, value func(string) *tensors.Tensor) {
		p := newPooled(t, value("in.w0"), 2, func(w *Node, in []*Node) *Node {
			y, _ := pooling.ByRows(w, in[0])
			return Stack([]*Node{ZerosLike(y), y}, -1) // σ(y) is a softmax over 0 and y
		})
		config := config
		config.Method, config.Rate = "labels", 0.5
		a, err := testtime.New(gxtest.Backend(t), p, config)
		if err != nil {
			t.Fatal(err)
		}
		var labels []int32
		for _, label := range tensors.MustCopyFlatData[float32](value("const.labels")) {
			labels = append(labels, int32(label))
		}
		follow(t, p, atol, value, func() float64 {
			_, ticket, err := a.Predict(t.Context(), value("in.u"))
			if err != nil {
				t.Fatal(err)
			}
			event, err := a.Learn(t.Context(), ticket, labels)
			if err != nil {
				t.Fatal(err)
			}
			return event.Loss
		})
		// Ten predictions of one batch are one score, that of the first.
		score := a.Score()
		first := tensors.MustCopyFlatData[float32](value("traj.F"))[0]
		if score.Rows != len(labels) || math.Abs(score.LogLoss-float64(first)) > atol {
			t.Errorf("score is %+v, want %d rows with log loss %g", score, len(labels), first)
		}
	})
}

// TestGoldenLinear compares the layer that learns while it reads with its steps made one by one.
func TestGoldenLinear(t *testing.T) {
	cases(t, []string{"ttt_linear"}, func(t *testing.T, _ string, _ map[string]float64, atol float64, value func(string) *tensors.Tensor) {
		names := []string{"x", "wq", "wk", "wv", "w0"}
		var in []any
		for _, name := range names {
			in = append(in, value("in."+name))
		}
		eta := tensors.MustCopyFlatData[float32](value("const.eta"))[0]
		out, err := CallOnceN(gxtest.Backend(t), func(in []*Node) []*Node {
			x, ct := in[0], in[len(in)-1]
			y, last := testtime.Linear(MatMul(x, in[1]), MatMul(x, in[2]), MatMul(x, in[3]), in[4], Scalar(x.Graph(), x.DType(), eta))
			return append([]*Node{y, last}, Gradient(ReduceAllSum(Mul(y, ct)), in[:5]...)...)
		}, append(in, value("ct.y"))...)
		if err != nil {
			t.Fatal(err)
		}
		gxtest.Close(t, out[0], value("out.y"), atol)
		gxtest.Close(t, out[1], value("out.w_last"), atol)
		for i, name := range names {
			gxtest.Close(t, out[2+i], value("grad."+name), atol)
		}
	})
}

// softmax returns the probabilities of each row of three logits.
func softmax(logits []float32) [][3]float64 {
	list := make([][3]float64, len(logits)/3)
	for i := range list {
		sum := 0.0
		for c := range 3 {
			list[i][c] = math.Exp(float64(logits[3*i+c]))
			sum += list[i][c]
		}
		for c := range 3 {
			list[i][c] /= sum
		}
	}
	return list
}

// TestGradientOfTheBias: the gradient of the output bias follows from the probabilities by
// hand: a mean of p − y over the rows that count, with y the pseudo or true class.
func TestGradientOfTheBias(t *testing.T) {
	const rate = 0.5
	for _, method := range []string{"pseudo_label", "labels"} {
		n := testNet(t)
		a, err := testtime.New(gxtest.Backend(t), n, testtime.Config{Method: method, Confidence: 0.6, Rate: rate, FullRows: 40, Variables: []string{"/b2"}}) // 20 rows: half a step
		if err != nil {
			t.Fatal(err)
		}
		before := n.value(t, "/b2")
		logits, err := makeStep(t, a, method, batch(5))
		if err != nil {
			t.Fatal(err)
		}
		var want [3]float64
		kept := 0.0
		for i, p := range softmax(logits) {
			truth := i % 3
			if method == "pseudo_label" {
				if truth = slices.Index(p[:], max(p[0], p[1], p[2])); p[truth] < 0.6 {
					continue
				}
			}
			kept++
			for c := range p {
				want[c] += p[c]
			}
			want[truth]--
		}
		if kept == 0 || method == "pseudo_label" && kept == 20 {
			t.Fatalf("%s: the case keeps %g of 20 rows and shows nothing", method, kept)
		}
		var expected []float32
		for c := range want {
			expected = append(expected, before[c]-float32(rate/2*want[c]/kept))
		}
		gxtest.Close(t, n.value(t, "/b2"), expected, 1e-6)
	}
}

// TestMasked: the step makes the prediction for the hidden input more like that for the whole,
// whose gradient does not count; and the same seed hides the same.
func TestMasked(t *testing.T) {
	run := func(seed uint64) ([]float64, []float32) {
		n := testNet(t)
		a, err := testtime.New(gxtest.Backend(t), n, testtime.Config{Method: "masked", Rate: 0.2, FullRows: 1, MaskShare: 0.5, Seed: seed, Guard: testtime.Guard{Off: true}})
		if err != nil {
			t.Fatal(err)
		}
		var losses []float64
		for range 30 {
			_, event, err := a.Step(t.Context(), batch(5))
			if err != nil {
				t.Fatal(err)
			}
			losses = append(losses, event.Loss)
		}
		return losses, n.value(t, "/norm/scale")
	}
	losses, scale := run(1)
	if first, last := losses[0]+losses[1]+losses[2], losses[27]+losses[28]+losses[29]; !(first > 0 && last < 0.8*first) {
		t.Errorf("the divergence went from %g to %g over three steps each", first, last)
	}
	if _, again := run(1); !slices.Equal(scale, again) {
		t.Error("the same seed hides something else")
	}
	if _, other := run(2); slices.Equal(scale, other) {
		t.Error("another seed hides the same")
	}
	if _, err := testtime.New(gxtest.Backend(t), newPooled(t, tensors.FromValue([]float32{1}), 2, nil), testtime.Config{Method: "masked", Variables: []string{"*"}}); err == nil || !strings.Contains(err.Error(), "Masker") {
		t.Errorf("a task without Masked: %v", err)
	}
}

// TestLearnRefuses: nothing can be learned that was not predicted before, or twice, and a
// refused call changes nothing.
func TestLearnRefuses(t *testing.T) {
	n := testNet(t)
	a, err := testtime.New(gxtest.Backend(t), n, testtime.Config{Method: "labels", Rate: 0.1})
	if err != nil {
		t.Fatal(err)
	}
	labels := make([]int32, 20)
	labels[3] = testtime.NoLabel
	before := n.value(t, "/norm/scale")
	refused := func(ticket *testtime.Ticket, labels []int32, want string) {
		t.Helper()
		if _, err := a.Learn(t.Context(), ticket, labels); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q", err, want)
		}
	}
	refused(nil, labels, "ticket")
	refused(&testtime.Ticket{}, labels, "ticket")
	_, ticket, err := a.Predict(t.Context(), batch(1))
	if err != nil {
		t.Fatal(err)
	}
	refused(ticket, labels[1:], "19 labels for 20 rows")
	refused(ticket, append([]int32{3}, labels[1:]...), "label 0 is 3, want 0 to 2")
	if !slices.Equal(n.value(t, "/norm/scale"), before) || a.Score().Rows != 0 {
		t.Error("a refused call changed something")
	}
	if _, err := a.Learn(t.Context(), ticket, labels); err != nil {
		t.Fatal(err)
	}
	if got := a.Score(); got.Rows != 19 {
		t.Errorf("score is %+v, want 19 rows", got)
	}
	if slices.Equal(n.value(t, "/norm/scale"), before) {
		t.Error("nothing was learned")
	}
	refused(ticket, labels, "ticket is used")

	// After learning, the same batch is predicted better, which must not count.
	score := a.Score()
	_, again, err := a.Predict(t.Context(), batch(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Learn(t.Context(), again, labels); err != nil {
		t.Fatal(err)
	}
	if a.Score() != score {
		t.Errorf("a batch that was learned before changed the score from %+v to %+v", score, a.Score())
	}
	_, stale, err := a.Predict(t.Context(), batch(2))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Reset(); err != nil {
		t.Fatal(err)
	}
	refused(stale, labels, "before a reset")
	if !slices.Equal(n.value(t, "/norm/scale"), before) || a.Score() != (testtime.Score{}) {
		t.Error("a reset keeps something")
	}
	if _, _, err := a.Step(t.Context(), batch(1)); err == nil || !strings.Contains(err.Error(), "Predict") {
		t.Errorf("a step without labels: %v", err)
	}
	tent, err := testtime.New(gxtest.Backend(t), testNet(t), testtime.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tent.Predict(t.Context(), batch(1)); err == nil || !strings.Contains(err.Error(), "method labels, not tent") {
		t.Errorf("tent: %v", err)
	}
}

// TestBrokenModelIsPutBack: a step that leaves a model without finite logits is undone before anybody sees them, also by batches
// from which nothing is learned; and a guard that has given up lets nothing more be learned from labels.
func TestBrokenModelIsPutBack(t *testing.T) {
	x := [][]float32{{1, 2}, {3, 1}, {-1, 2}}
	task := func() pooled {
		return newPooled(t, tensors.FromValue([]float32{1, 1}), 2, func(w *Node, in []*Node) *Node {
			return Square(Square(Mul(in[0], InsertAxes(w, 0)))) // a step of 1e12 is finite, its fourth power not
		})
	}
	want := []float32{1, 16, 81, 1, 1, 16}
	for name, config := range map[string]testtime.Config{"episodic": {Episodic: true}, "every": {Every: 2}, "labels": {Method: "labels"}} {
		t.Run(name, func(t *testing.T) {
			p := task()
			config.Rate, config.Variables, config.Guard = 1e15, []string{"*"}, testtime.Guard{MaxResets: 1}
			a, err := testtime.New(gxtest.Backend(t), p, config)
			if err != nil {
				t.Fatal(err)
			}
			var last testtime.Event
			for range 2 {
				var logits []float32
				if config.Method == "labels" {
					var ticket *testtime.Ticket
					if logits, ticket, err = a.Predict(t.Context(), x); err == nil {
						last, err = a.Learn(t.Context(), ticket, []int32{1, 1, 0})
					}
				} else {
					logits, last, err = a.Step(t.Context(), x)
				}
				if err != nil {
					t.Fatal(err)
				}
				gxtest.Close(t, logits, want, 0)
			}
			if !last.Stopped || config.Method == "labels" && last.Reset != "values are not finite" {
				t.Errorf("last event %+v", last)
			}
			gxtest.Close(t, tensors.MustCopyFlatData[float32](p.store.GetVariable(p.variable.Path).MustValue()), []float32{1, 1}, 0)
			if name == "labels" && math.IsNaN(a.Score().LogLoss) {
				t.Errorf("score %+v", a.Score())
			}
		})
	}
}

// TestLearnGuard: of labels the guard lets all be learned that makes more decisions right, however many
// change, and puts back what makes them wrong, until it gives up. Then nothing is learned any more.
func TestLearnGuard(t *testing.T) {
	config := testtime.Config{Method: "labels", Variables: []string{"*"}, Rate: 0.3, FullRows: 1, Guard: testtime.Guard{Every: 2}}
	plain, err := testtime.New(gxtest.Backend(t), testNet(t), config)
	if err != nil {
		t.Fatal(err)
	}
	// teach has a model learn labels that are made of the class that it was put in before it learned anything.
	teach := func(steps int, label func(step int, class int32) int32) (resets int, last testtime.Event, score testtime.Score, moved bool) {
		n := testNet(t)
		a, err := testtime.New(gxtest.Backend(t), n, config)
		if err != nil {
			t.Fatal(err)
		}
		for step := range steps {
			x := batch(uint64(step + 1))
			_, ticket, err := a.Predict(t.Context(), x)
			if err != nil {
				t.Fatal(err)
			}
			logits, _, err := plain.Predict(t.Context(), x)
			if err != nil {
				t.Fatal(err)
			}
			labels := make([]int32, 20)
			for row := range labels {
				l := logits[3*row : 3*row+3]
				labels[row] = label(step, int32(slices.Index(l, slices.Max(l))))
			}
			before := n.value(t, "/norm/scale")
			if last, err = a.Learn(t.Context(), ticket, labels); err != nil {
				t.Fatal(err)
			}
			if last.Batch != step+1 {
				t.Errorf("the event of batch %d says %d", step+1, last.Batch)
			}
			moved = !slices.Equal(before, n.value(t, "/norm/scale"))
			if last.Reset != "" {
				resets++
				if !strings.Contains(last.Reset, "became wrong") {
					t.Errorf("put back because %s", last.Reset)
				}
			}
		}
		return resets, last, a.Score(), moved
	}
	// One class only: nearly all decisions change, and entropy falls to next to nothing.
	resets, last, score, _ := teach(120, func(int, int32) int32 { return 2 })
	if resets != 0 || last.Changed < 8 || last.Entropy > 0.1 || float64(score.Right) < 0.8*float64(score.Rows) {
		t.Errorf("one class: %d resets, last %+v, score %+v", resets, last, score)
	}
	// Every other batch is taught wrong, and the others show what harm that did.
	resets, last, _, moved := teach(60, func(step int, class int32) int32 { return (class + 1 - int32(step%2)) % 3 })
	if resets != 3 || !last.Stopped || moved || last.Moved != 0 {
		t.Errorf("lies: %d resets, last %+v, moved %v", resets, last, moved)
	}
	if err := (testtime.Config{Method: "labels", Episodic: true}).Validate(); err == nil || !strings.Contains(err.Error(), "episodic") {
		t.Errorf("episodic: %v", err)
	}
}

// TestPredictThenLearn: together they do what they do one after the other, and refuse the same.
func TestPredictThenLearn(t *testing.T) {
	config := testtime.Config{Method: "labels", Rate: 0.3, FullRows: 1}
	apart, together := testNet(t), testNet(t)
	a, err := testtime.New(gxtest.Backend(t), apart, config)
	if err != nil {
		t.Fatal(err)
	}
	b, err := testtime.New(gxtest.Backend(t), together, config)
	if err != nil {
		t.Fatal(err)
	}
	labels := make([]int32, 20)
	for i := range labels {
		labels[i] = int32(i % 3)
	}
	labels[4] = testtime.NoLabel
	for step := range 5 {
		x := batch(uint64(step % 4)) // the last was seen, and does not count
		want, ticket, err := a.Predict(t.Context(), x)
		if err != nil {
			t.Fatal(err)
		}
		event, err := a.Learn(t.Context(), ticket, labels)
		if err != nil {
			t.Fatal(err)
		}
		got, other, err := b.PredictThenLearn(t.Context(), labels, x)
		if err != nil {
			t.Fatal(err)
		}
		if !near(got, want) || other.Batch != event.Batch || other.Kept != event.Kept || math.Abs(other.Loss-event.Loss) > 1e-5 {
			t.Errorf("batch %d: logits %v and %+v together, %v and %+v apart", step+1, got[:3], other, want[:3], event)
		}
	}
	if !near(together.value(t, "/norm/scale"), apart.value(t, "/norm/scale")) || !near(together.value(t, "/norm/bias"), apart.value(t, "/norm/bias")) {
		t.Error("they learn something else together")
	}
	if x, y := a.Score(), b.Score(); x.Rows != 4*19 || x.Rows != y.Rows || x.Right != y.Right || math.Abs(x.LogLoss-y.LogLoss) > 1e-5 {
		t.Errorf("score %+v together, %+v apart", y, x)
	}
	before := together.value(t, "/norm/scale")
	for want, bad := range map[string][]int32{"19 labels for 20 rows": labels[1:], "label 0 is 3": append([]int32{3}, labels[1:]...)} {
		if _, _, err := b.PredictThenLearn(t.Context(), bad, batch(8)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q", err, want)
		}
	}
	if !slices.Equal(before, together.value(t, "/norm/scale")) {
		t.Error("a refused call changed something")
	}
	tent, err := testtime.New(gxtest.Backend(t), testNet(t), testtime.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tent.PredictThenLearn(t.Context(), labels, batch(1)); err == nil || !strings.Contains(err.Error(), "method labels, not tent") {
		t.Errorf("tent: %v", err)
	}
	if _, event, err := tent.PredictThenLearn(t.Context(), nil, batch(1)); err != nil || !(event.Moved > 0) {
		t.Errorf("tent without labels makes no step: %+v, %v", event, err)
	}

	// Far too fast: what is not finite is predicted once more, and nobody sees it.
	wild := testNet(t)
	config.Rate, config.Variables, config.Guard.MaxResets = 1e38, []string{"*"}, 100
	if a, err = testtime.New(gxtest.Backend(t), wild, config); err != nil {
		t.Fatal(err)
	}
	resets := 0
	for step := range 6 {
		got, event, err := a.PredictThenLearn(t.Context(), labels, batch(uint64(step)))
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range got {
			if x-x != 0 {
				t.Fatalf("batch %d: logits %v", step+1, got)
			}
		}
		if event.Reset != "" {
			resets++
		}
	}
	if resets == 0 || math.IsNaN(a.Score().LogLoss) {
		t.Errorf("%d resets, score %+v", resets, a.Score())
	}
}

func near(x, y []float32) bool {
	return slices.EqualFunc(x, y, func(a, b float32) bool { return math.Abs(float64(a-b)) < 1e-5 })
}

// TestLearnEvery: labels of the batches in between are scored and not learned.
func TestLearnEvery(t *testing.T) {
	n := testNet(t)
	a, err := testtime.New(gxtest.Backend(t), n, testtime.Config{Method: "labels", Rate: 0.1, Every: 3})
	if err != nil {
		t.Fatal(err)
	}
	for step := range 7 {
		before := n.value(t, "/norm/scale")
		if _, _, err := a.PredictThenLearn(t.Context(), make([]int32, 20), batch(uint64(step))); err != nil {
			t.Fatal(err)
		}
		if learned := step%3 == 0; learned == slices.Equal(before, n.value(t, "/norm/scale")) {
			t.Errorf("batch %d: learned is %v", step+1, !learned)
		}
	}
	if _, event, err := a.PredictThenLearn(t.Context(), nil, batch(9)); err != nil || event.Moved != 0 {
		t.Errorf("without labels: %+v, %v", event, err)
	}
	if got := a.Score().Rows; got != 7*20 {
		t.Errorf("%d rows are scored", got)
	}
}

// TestEvery: the batches in between are predicted by what was learned, and teach nothing.
func TestEvery(t *testing.T) {
	n := testNet(t)
	a, err := testtime.New(gxtest.Backend(t), n, testtime.Config{Rate: 0.1, Every: 3})
	if err != nil {
		t.Fatal(err)
	}
	for step := range 7 {
		before := n.value(t, "/norm/scale")
		_, event, err := a.Step(t.Context(), batch(uint64(step)))
		if err != nil {
			t.Fatal(err)
		}
		if learned := step%3 == 0; learned == slices.Equal(before, n.value(t, "/norm/scale")) || learned != (event.Moved > 0) {
			t.Errorf("batch %d: moved %g", step+1, event.Moved)
		}
	}
}

// TestElasticParts: every named part of attention adapts, and so does each kind of norm.
func TestElasticParts(t *testing.T) {
	config := transformer.Config{
		VocabSize: 20, Hidden: 8, Layers: 1, FeedForward: 8, MaxPositions: 8, Activation: "gelu", NormEpsilon: 1e-5, InitStd: 0.5,
		Head: transformer.Head{Kind: transformer.Tokens, Labels: []string{"O", "A", "B"}},
		Attention: attention.Spec{
			Heads: 2, Normalizer: attention.Entmax{Learned: true}, QKNorm: &attention.QKNorm{Norm: "rms"},
			Scores: []attention.Score{attention.Temperature{Learned: true}}, Span: &attention.Span{Max: 8, Ramp: 4, Init: 0.2},
			Gates: []attention.Gate{attention.HeadGate{}},
		},
	}
	for _, pattern := range []string{"*/temperature/*", "*/span/*", "*/head_gate/*", "*/entmax/*", "*/qk_norm/*", "*/norm/*"} {
		m, err := transformer.New(config, 3)
		if err != nil {
			t.Fatal(err)
		}
		a, err := testtime.New(gxtest.Backend(t), tokens{m}, testtime.Config{Rate: 0.1, Variables: []string{pattern}, Guard: testtime.Guard{Off: true}})
		if err != nil {
			t.Fatal(err)
		}
		var entropies []float64
		for range 4 {
			_, event, err := a.Step(t.Context(), [][]int32{{3, 5, 7, 2, 9, 1}, {4, 4, 8, 11, 13, 2}})
			if err != nil {
				t.Fatal(err)
			}
			entropies = append(entropies, event.Entropy)
			if event.Moved == 0 {
				t.Errorf("%s: nothing moves", pattern)
			}
		}
		if !(entropies[3] < entropies[0]) {
			t.Errorf("%s: entropies are %v, want them to fall", pattern, entropies)
		}
	}
}

type tokens struct{ m *transformer.Model }

func (k tokens) Store() *model.Store           { return k.m.Store }
func (k tokens) Variables() []elastic.Variable { return k.m.Config.Variables() }
func (k tokens) Classes() int                  { return len(k.m.Config.Head.Labels) }
func (k tokens) Logits(w elastic.Weights, in []*Node) (logits, counts *Node) {
	return Reshape(k.m.Config.Logits(w, transformer.Inputs{IDs: in[0]}, nil), -1, k.Classes()), nil
}

func (k tokens) Masked(in []*Node, share float64, noise *dropout.Source) []*Node {
	hidden := LessThan(noise.Uniform(shapes.Make(dtypes.Float32, in[0].Shape().Dimensions...)), Scalar(in[0].Graph(), dtypes.Float32, share))
	return append([]*Node{Where(hidden, ZerosLike(in[0]), in[0])}, in[1:]...)
}
