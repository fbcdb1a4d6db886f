package adapt_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
)

const rows, classes = 5, 3

var (
	labels = []int32{2, 0, -100, 1, 1}
	counts = []float64{1, 1, 0, 1, 1}
)

// softmax returns the probabilities of one row.
func softmax(z []float64) []float64 {
	p, sum := make([]float64, len(z)), 0.0
	for i := range z {
		p[i] = math.Exp(z[i])
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}

func entropy(p []float64) float64 {
	h := 0.0
	for _, x := range p {
		if x > 0 {
			h -= x * math.Log(x)
		}
	}
	return h
}

func argmax(z []float64) int {
	best := 0
	for i := range z {
		if z[i] > z[best] {
			best = i
		}
	}
	return best
}

// formulas computes the objectives of logits by themselves, in plain Go.
var formulas = map[string]func(z [][]float64) float64{
	"entropy": func(z [][]float64) float64 {
		return overRows(z, func(_ int, z []float64) float64 { return entropy(softmax(z)) })
	},
	"margin": func(z [][]float64) float64 {
		return overRows(z, func(y int, z []float64) float64 {
			rival := math.Inf(-1)
			for c := range z {
				if c != y {
					rival = max(rival, z[c])
				}
			}
			return max(0, 1.5+rival-z[y])
		})
	},
	"calibration": func(z [][]float64) float64 {
		gap := overRows(z, func(y int, z []float64) float64 {
			best, right := argmax(z), 0.0
			if best == y {
				right = 1
			}
			return softmax(z)[best] - right
		})
		return gap * gap
	},
	"mutual_information": func(z [][]float64) float64 {
		q := make([]float64, classes)
		for c := range q {
			q[c] = overRows(z, func(_ int, z []float64) float64 { return softmax(z)[c] })
		}
		return overRows(z, func(_ int, z []float64) float64 { return entropy(softmax(z)) }) - entropy(q)
	},
}

// overRows is a mean over the rows that count.
func overRows(z [][]float64, f func(label int, z []float64) float64) float64 {
	sum, n := 0.0, 0.0
	for i := range z {
		if counts[i] > 0 {
			sum += f(int(labels[i]), z[i])
			n++
		}
	}
	return sum / n
}

func logits(seed uint64) [][]float64 {
	random := rand.New(rand.NewPCG(seed, 1))
	z := make([][]float64, rows)
	for i := range z {
		z[i] = make([]float64, classes)
		for j := range z[i] {
			z[i][j] = 2 * random.NormFloat64()
		}
	}
	return z
}

// differences is the gradient of f by central differences.
func differences(f func([][]float64) float64, z [][]float64) [][]float64 {
	const h = 1e-6
	gradient := make([][]float64, len(z))
	for i := range z {
		gradient[i] = make([]float64, len(z[i]))
		for j := range z[i] {
			at := z[i][j]
			z[i][j] = at + h
			up := f(z)
			z[i][j] = at - h
			gradient[i][j] = (up - f(z)) / (2 * h)
			z[i][j] = at
		}
	}
	return gradient
}

// TestObjectivesOfLogits holds value and gradient of each objective against its formula in plain
// Go and that formula's differences.
func TestObjectivesOfLogits(t *testing.T) {
	for kind, formula := range formulas {
		s := adapt.Strategy{Objective: []adapt.Objective{{Kind: kind, Weight: 0.7}}}
		if kind == "margin" {
			s.Objective[0].Margin = 1.5
		}
		if err := s.Validate(); err != nil {
			t.Fatal(err)
		}
		z := logits(4)
		out, err := CallOnceN(gxtest.Backend(t), func(z *Node) (*Node, *Node) {
			g := z.Graph()
			total := s.Total(adapt.Signals{Logits: z, Labels: Const(g, labels), Counts: Const(g, counts)}, nil)
			return total, Gradient(total, z)[0]
		}, z)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		weighted := func(z [][]float64) float64 { return 0.7 * formula(z) }
		gxtest.Close(t, out[0], weighted(z), 1e-9)
		gradient := differences(weighted, z)
		gxtest.Close(t, out[1], gradient, 1e-7)
		size := 0.0
		for _, row := range gradient {
			for _, x := range row {
				size += math.Abs(x)
			}
		}
		if size < 1e-3 {
			t.Errorf("%s: the case has gradient %g and shows nothing", kind, size)
		}
	}
}

// TestMarginOfTies: of rivals that are equal, as at the beginning of a training, one has the gradient, so that a row's gradients
// add up to 0.
func TestMarginOfTies(t *testing.T) {
	s := adapt.Strategy{Objective: []adapt.Objective{{Kind: "margin", Weight: 1}}}
	out, err := CallOnce(gxtest.Backend(t), func(z *Node) *Node {
		total := s.Total(adapt.Signals{Logits: z, Labels: Const(z.Graph(), []int32{2}), Counts: Const(z.Graph(), []float64{1})}, nil)
		return Gradient(total, z)[0]
	}, [][]float64{{0, 0, 0, 0}})
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, out, [][]float64{{1, 0, -1, 0}}, 0)
}

// TestNegativeAttention: of the weights of differential attention sizes count.
func TestNegativeAttention(t *testing.T) {
	s := adapt.Strategy{Objective: []adapt.Objective{{Kind: "attention_entropy", Weight: 1}}}
	out, err := CallOnce(gxtest.Backend(t), func(a *Node) *Node {
		return s.Total(adapt.Signals{Attentions: []*Node{a}, Queries: Const(a.Graph(), [][]float64{{1}})}, nil)
	}, [][][][]float64{{{{0.6, -0.25}}}})
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, out, entropy([]float64{0.6, 0.25}), 1e-9)
}

// TestObjectivesOfAttention: entropy over heads and queries that count, also where weights are 0,
// and mean span.
func TestObjectivesOfAttention(t *testing.T) {
	a := [][][][]float64{{{{0.2, 0.8}, {0.5, 0.5}}, {{1, 0}, {0.3, 0.7}}}} // [1, 2 heads, 2 queries, 2 keys]
	queries := [][]float64{{1, 0}}
	formula := func(a [][]float64) float64 { return 0.5 * (entropy(a[0]) + entropy(a[1])) }
	out, err := CallOnceN(gxtest.Backend(t), func(a *Node) (*Node, *Node) {
		g := a.Graph()
		s := adapt.Strategy{Objective: []adapt.Objective{{Kind: "attention_entropy", Weight: 1}}}
		total := s.Total(adapt.Signals{Attentions: []*Node{a, a}, Queries: Const(g, queries)}, nil)
		return total, Gradient(total, a)[0]
	}, a)
	if err != nil {
		t.Fatal(err)
	}
	own := [][]float64{a[0][0][0], a[0][1][0]}
	gxtest.Close(t, out[0], formula(own), 1e-9)
	d := differences(formula, [][]float64{{0.2, 0.8}, {0.5, 0.5}})
	gradient := out[1].Value().([][][][]float64)[0]
	gxtest.Close(t, gradient[0][0], d[0], 1e-6)
	gxtest.Close(t, gradient[0][1], []float64{0, 0}, 0) // a query that does not count
	if math.IsNaN(gradient[1][0][1]) || math.IsInf(gradient[1][0][1], 0) {
		t.Errorf("the gradient at a weight of 0 is %g", gradient[1][0][1])
	}

	out, err = CallOnceN(gxtest.Backend(t), func(x *Node) (*Node, *Node) {
		s := adapt.Strategy{Objective: []adapt.Objective{{Kind: "span", Weight: -2}, {Kind: "custom", Weight: 10}}}
		total := s.Total(adapt.Signals{Losses: []map[string]*Node{{"span": x}, {"span": MulScalar(x, 3)}}}, func(s adapt.Signals) *Node { return Square(s.Losses[0]["span"]) })
		return total, Gradient(total, x)[0]
	}, 5.0)
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, out[0], -2*10+10*25.0, 1e-9)
	gxtest.Close(t, out[1], -2*2+10*10.0, 1e-9)
	_, err = CallOnce(gxtest.Backend(t), func(x *Node) *Node {
		return adapt.Strategy{Objective: []adapt.Objective{{Kind: "span", Weight: 1}}}.Total(adapt.Signals{Losses: []map[string]*Node{{}}}, nil)
	}, 5.0)
	if err == nil || !strings.Contains(err.Error(), "has no span") {
		t.Errorf("attention without a span: %v", err)
	}
}

// TestEntropyCollapses is a failure that is known: descent on entropy alone makes everything
// one class and forgets the input; mutual information does not.
func TestEntropyCollapses(t *testing.T) {
	spread := func(kind string) int {
		w := [][]float64{{0.3, 0, 0.5}, {0, 0.6, 0}}
		x := [][]float64{{1, 0.2}, {1, 0.3}, {1, 0.25}, {1, 0.4}, {1, 0.9}} // the last is of another class
		all := []float64{1, 1, 1, 1, 1}
		exec, err := NewExec(gxtest.Backend(t), func(w *Node) []*Node {
			z := MatMul(Const(w.Graph(), x), w)
			s := adapt.Strategy{Objective: []adapt.Objective{{Kind: kind, Weight: 1}}}
			f := s.Total(adapt.Signals{Logits: z, Counts: Const(w.Graph(), all)}, nil)
			return []*Node{Sub(w, MulScalar(Gradient(f, w)[0], 2)), z}
		})
		if err != nil {
			t.Fatal(err)
		}
		seen := map[int]bool{}
		for step := range 200 {
			out, err := exec.Call(w)
			if err != nil {
				t.Fatal(err)
			}
			w = out[0].Value().([][]float64)
			if step == 199 {
				for _, z := range out[1].Value().([][]float64) {
					seen[argmax(z)] = true
				}
			}
		}
		return len(seen)
	}
	if got := spread("entropy"); got != 1 {
		t.Errorf("entropy ends with %d classes; the documented failure is gone", got)
	}
	if got := spread("mutual_information"); got < 2 {
		t.Errorf("mutual information ends with %d class, want 2 or more", got)
	}
}

func TestValidateNamesFields(t *testing.T) {
	nan := math.NaN()
	bad := adapt.Strategy{
		Gradient:   []adapt.Rate{{Factor: -1}},
		Objective:  []adapt.Objective{{Kind: "hope", Weight: 1}, {Kind: "entropy"}, {Kind: "span", Weight: 1, Margin: 2}},
		Experience: []adapt.Prior{{}, {Initial: true}, {FromRun: "a", Value: &nan, Weight: 1}, {Fisher: 3, Weight: 1}},
		Budget:     adapt.Budget{Updates: -1, Seconds: -2, Distance: nan}, Converge: adapt.Converge{Below: -1, Steps: -1}, LogEvery: -3,
	}
	err := bad.Validate()
	for _, want := range []string{
		"gradient[0].variables is empty", "gradient[0].factor is -1", `objective[0].kind "hope" is unknown; known: attention_entropy`, "objective[1].weight is 0", "objective[2].margin is 2",
		"experience[0] does nothing", "experience[1].initial needs", "experience[2] has both", "experience[2].value is NaN", "experience[3].fisher is 3",
		"budget.updates is -1", "budget.seconds is -2", "budget.distance is NaN", "converge.below is -1", "converge.steps is -1", "log_every is -3",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q:\n%v", want, err)
		}
	}
	custom := adapt.Strategy{Objective: []adapt.Objective{{Kind: "custom", Weight: 1}}}
	f := func(adapt.Signals) *Node { return nil }
	if custom.Check(nil) == nil || custom.Check(f) != nil || (adapt.Strategy{}).Check(f) == nil || (adapt.Strategy{}).Check(nil) != nil {
		t.Error("a custom objective and its function must come together")
	}
}

func TestFactors(t *testing.T) {
	variables := []elastic.Variable{{Path: "/a/x"}, {Path: "/a/y"}, {Path: "/b/x"}}
	s := adapt.Strategy{Gradient: []adapt.Rate{{Variables: []string{"/a/x"}, Factor: 0}, {Variables: []string{"/a/*"}, Factor: 0.1}}}
	got, err := s.Factors(variables)
	if err != nil || got["/a/x"] != 0 || got["/a/y"] != 0.1 || got["/b/x"] != 1 {
		t.Errorf("factors are %v, error %v", got, err)
	}
	s.Gradient = append(s.Gradient, adapt.Rate{Variables: []string{"/c/*"}})
	if _, err := s.Factors(variables); err == nil || !strings.Contains(err.Error(), `gradient[2].variables: pattern "/c/*"`) {
		t.Errorf("error is %v", err)
	}
}

func ExampleStrategy() {
	var s adapt.Strategy
	err := json.Unmarshal([]byte(`{
		"gradient": [{"variables": ["/embeddings/*"], "factor": 0}],
		"objective": [{"kind": "attention_entropy", "weight": 0.01}],
		"experience": [{"from_run": "runs/first", "weight": 0.1}],
		"converge": {"below": 1e-5}
	}`), &s)
	if err != nil {
		panic(err)
	}
	fmt.Println(s.Validate(), s.Experience[0])
	fmt.Println(s.End(120, 5, 60, 3.2))
	// Output:
	// <nil> runs/first, pulled to with weight 0.1
	// converged: relative change below 1e-05 for 5 updates
}
