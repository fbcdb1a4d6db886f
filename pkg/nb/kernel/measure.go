package kernel

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Timing is how long the kernel takes for something.
type Timing struct {
	What string  `json:"what"`
	Goal float64 `json:"goal_s,omitempty"` // for the median, on two cores with nothing else to do; 0 means none
	// First is the first time in a new kernel, Median that of the times after it, in seconds.
	First  float64 `json:"first_s"`
	Median float64 `json:"median_s"`
	// CPU is the median of the processor time of the kernel and all that it starts, which other programs on the machine
	// change little. Linux only; 0 elsewhere.
	CPU   float64 `json:"cpu_s,omitempty"`
	Times int     `json:"times"` // how many the medians are of
}

// MeasureOptions say how [Measure] measures.
type MeasureOptions struct {
	Dir   string // working folder of the kernel
	Times int    // that each thing is done after the first; 0 is 5
	Done  func(Timing)
}

// Cells of [Measure]. The number differs each time, so that neither the compiler nor the language server knows the answer.
const (
	// declarations keep the imports of a whole notebook in every program that follows, as those of earlier cells do.
	declarations = `import (
	"context"
	"fmt"
	"sync"

	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/viz"
	"github.com/elastic-attention/workbench/pkg/viz/nb"
	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/janpfeifer/must"
)

var engine = sync.OnceValue(func() compute.Backend {
	b, _, err := backend.Open(context.Background(), backend.Options{})
	must.M(err)
	return b
})

var encoder = transformer.Config{Hidden: 48, Layers: 2, FeedForward: 96, Attention: attention.Spec{Heads: 4}, MaxPositions: 64, TypeVocab: 2,
	Activation: "gelu", NormEpsilon: 1e-12, InitStd: 0.1}

func learn(dir string) {
	tagger := must.M1(ner.NewTaggerFromScratch(engine(), dir, encoder, must.M1(ner.LabelsOfTypes("LOC", "ORG", "PER")), ner.Config{}, 1))
	result := must.M1(tagger.Train(context.Background(), synth.Entities(1, 600), nil, ner.TrainConfig{}, ner.TrainOptions{}))
	nb.SVG(must.M1(viz.Curves("t", "x", "y", viz.Series{X: []float64{0, float64(result.State.Update)}})))
}

// fit goes down the gradient of the squared error of a line.
func fit(steps int) []float64 {
	x, y := [][]float64{{1, 0}, {1, 1}, {1, 2}, {1, 3}}, []float64{1, 3, 5, 7}
	exec := must.M1(graph.NewExec(engine(), func(w, x, y *graph.Node) *graph.Node {
		loss := graph.ReduceAllMean(graph.Square(graph.Sub(graph.Einsum("nd,d->n", x, w), y)))
		return graph.Sub(w, graph.MulScalar(graph.Gradient(loss, w)[0], 0.1))
	}))
	w := tensors.FromFlatDataAndDimensions([]float64{0, 0}, 2)
	for range steps {
		w = must.M1(exec.Call(w, x, y))[0]
	}
	return must.M1(tensors.CopyFlatData[float64](w))
}
`
	empty    = "%%%%\n_ = %d"
	training = "%%%%\nfmt.Println(fit(300 + %d))"
	same     = "%%\nfmt.Println(fit(300))"
	complete = "%%%%\nx%d := attention.Sp|"
	inspect  = "%%%%\nvar x%d attention.Sp|ec\n_ = x%[1]d"
)

// Measure measures the kernel of a spec: its start, cells, completion and inspection. It takes about a minute.
func Measure(ctx context.Context, spec Spec, o MeasureOptions) ([]Timing, error) {
	times := o.Times
	if times == 0 {
		times = 5
	}
	var all []Timing
	var k *Kernel
	defer func() {
		if k != nil {
			k.Close()
		}
	}()
	measure := func(t Timing, do func(i int) error) error {
		var seconds, cpu []float64
		for i := range times + 1 {
			before, used := k, time.Duration(0)
			if k != nil {
				used = cpuTime(k.command.Process.Pid)
			}
			began := time.Now()
			if err := do(i); err != nil {
				return fmt.Errorf("measuring: %s: %w", t.What, err)
			}
			seconds = append(seconds, time.Since(began).Seconds())
			if k != before { // a new process, which has used nothing yet
				used = 0
			}
			cpu = append(cpu, (cpuTime(k.command.Process.Pid) - used).Seconds())
		}
		t.First, t.Median, t.CPU, t.Times = seconds[0], median(seconds[1:]), median(cpu[1:]), times
		all = append(all, t)
		if o.Done != nil {
			o.Done(t)
		}
		return nil
	}
	cell := func(code string) func(int) error {
		return func(i int) error { return o.execute(ctx, k, fmt.Sprintf(code, i)) }
	}
	start := func(int) error {
		if k != nil {
			k.Close()
			k = nil
		}
		var err error
		k, err = Start(ctx, spec, Options{Dir: o.Dir})
		return err
	}
	if err := measure(Timing{What: "kernel start", Goal: 1}, start); err != nil {
		return all, err
	}
	if err := o.execute(ctx, k, "%noautoget"); err != nil {
		return all, err
	}
	for _, m := range []struct {
		before string
		Timing
		do func(int) error
	}{
		{"", Timing{What: "cell that does nothing"}, cell(empty)},
		{declarations, Timing{What: "completion", Goal: 0.5}, func(i int) error {
			code, cursor := at(complete, i)
			reply, err := k.Complete(ctx, code, cursor)
			if err == nil && !slices.Contains(reply.Matches, "Spec") {
				err = fmt.Errorf("%q brings %q, want Spec among them", code, reply.Matches)
			}
			return err
		}},
		{"", Timing{What: "inspection", Goal: 0.5}, func(i int) error {
			code, cursor := at(inspect, i)
			reply, err := k.Inspect(ctx, code, cursor)
			if err == nil && !strings.Contains(reply.Text(), "type Spec struct") {
				err = fmt.Errorf("%q brings %q, want the type Spec", code, reply.Text())
			}
			return err
		}},
		{"", Timing{What: "cell that trains with GoMLX", Goal: 2.5}, cell(training)},
		{"", Timing{What: "the same cell again"}, func(int) error { return o.execute(ctx, k, same) }},
	} {
		if m.before != "" {
			if err := o.execute(ctx, k, m.before); err != nil {
				return all, fmt.Errorf("measuring: %s: %w", m.What, err)
			}
		}
		if err := measure(m.Timing, m.do); err != nil {
			return all, err
		}
	}
	return all, nil
}

// execute executes a cell, which must not fail.
func (o MeasureOptions) execute(ctx context.Context, k *Kernel, code string) error {
	var said strings.Builder
	reply, err := k.Execute(ctx, Request{Code: code, Output: func(m Message) {
		var stream struct{ Text string }
		if m.Header.Type == "stream" && json.Unmarshal(m.Content, &stream) == nil {
			said.WriteString(stream.Text)
		}
	}})
	if err == nil && reply.Status != "ok" {
		err = fmt.Errorf("a cell failed: %s\n%s", reply.Value, said.String())
	}
	return err
}

// at returns the code with a number, and where its cursor, a bar, is.
func at(code string, i int) (string, int) {
	before, after, _ := strings.Cut(fmt.Sprintf(code, i), "|")
	return before + after, len(before) // ASCII
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	return (values[n/2] + values[(n-1)/2]) / 2
}
