package task_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	mltrain "github.com/gomlx/gomlx/ml/train"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task"
)

// This file is a fourth task, whole: the slope of a line through points (x, y).

type point [2]float32

type config struct {
	Slope float32      `json:"slope"` // of the data
	Train train.Config `json:"train"`
}

func (c config) Validate() error      { return c.Train.Validate() }
func (c config) Base() string         { return run.Scratch }
func (c config) Recipe() train.Config { return c.Train }

func (c config) corpus(context.Context, *hub.Client) (task.Corpus[point], error) {
	line := func(xs ...float32) (points []point) {
		for _, x := range xs {
			points = append(points, point{x, c.Slope * x})
		}
		return points
	}
	return task.Corpus[point]{Train: line(-2, -1, 1, 2), Dev: line(3), Test: line(4, 5), Checksums: map[string]string{"points": fmt.Sprint(c.Slope)}}, nil
}

func (c config) experiment(engine compute.Backend, result *result) task.Experiment[config, point, score] {
	return task.Experiment[config, point, score]{
		Task: "line", Config: c, Corpus: c.corpus,
		New: func(context.Context, *hub.Client, task.Corpus[point]) (task.Model[point, score], map[string]string, error) {
			store, err := elastic.NewStore(line{}.Variables(), c.Train.Seed)
			return line{store, engine, c, result}, nil, err
		},
		Load: func(dir string) (task.Model[point, score], error) {
			store, err := elastic.NewStore(line{}.Variables(), 0)
			if err != nil {
				return nil, err
			}
			m := line{store, engine, c, result}
			return m, m.load(dir)
		},
	}
}

// score is the error of a prediction, in the mean.
type score struct {
	Error float64 `json:"error"`
}

func (s score) Scores() map[string]float64 { return map[string]float64{"error": s.Error} }

type result struct {
	task.Result[score]
	Slope float32 `json:"slope"`
}

func (r result) Text() string {
	return r.Describe(func(name string, s score) string { return fmt.Sprintf("%s: error %.2f\n", name, s.Error) })
}

// line is y = slope·x.
type line struct {
	store  *model.Store
	engine compute.Backend
	config config
	result *result
}

func (m line) Store() *model.Store { return m.store }

func (line) Variables() []elastic.Variable {
	return []elastic.Variable{{Path: "/slope", Shape: []int{1}}}
}

func (line) Loss(w elastic.Weights, inputs, labels []*Node, _ *dropout.Source) (sum, count *Node) {
	errors := Square(Sub(Mul(w.At("slope"), inputs[0]), labels[0]))
	return ReduceAllSum(errors), Scalar(errors.Graph(), errors.DType(), errors.Shape().Size())
}

func (m line) slope() float32 {
	return tensors.MustCopyFlatData[float32](m.store.GetVariable("/slope").MustValue())[0]
}

func (m line) load(dir string) error {
	content, err := os.ReadFile(filepath.Join(dir, "slope.json"))
	if err != nil {
		return err
	}
	var slope float32
	if err := json.Unmarshal(content, &slope); err != nil {
		return err
	}
	return m.store.GetVariable("/slope").SetValue(tensors.FromValue([]float32{slope}))
}

func (m line) files() []checkpoint.File {
	return []checkpoint.File{{Name: "slope.json", Write: func(w io.Writer) error { return json.NewEncoder(w).Encode(m.slope()) }}}
}

func (line) Size() (parameters, trained int) { return 1, 0 }

func (m line) Train(ctx context.Context, list, dev []point, options run.TrainOptions[score]) (train.Result, error) {
	options.Plan(batch.Stats{Batches: len(list), Shapes: 1})
	return run.Fit(ctx, m.engine, m, points(list), m.config.Train, run.Fitting[point, score]{
		TrainOptions: options, Files: m.files, Load: m.load, Dev: dev, Evaluate: m.Evaluate, Rank: func(s score) float64 { return -s.Error },
	})
}

func (m line) Evaluate(_ context.Context, part []point, _ func(done, total int)) (s score, err error) {
	for _, p := range part {
		s.Error += float64(max(m.slope()*p[0]-p[1], p[1]-m.slope()*p[0])) / float64(len(part))
	}
	return s, nil
}

func (m line) Finish(context.Context, task.Corpus[point]) error {
	m.result.Slope = m.slope()
	return nil
}

func (m line) Save(dir string) error {
	return checkpoint.Save(dir, checkpoint.Checkpoint{Files: m.files()})
}

func (m line) RangeTest(ctx context.Context, list []point, r train.RateRange) (train.RateCurve, error) {
	return train.RangeTest(ctx, m.engine, m, points(list), m.config.Train, r)
}

func (m line) Explain() (string, error) { return run.Explain(m.engine, m, m.config.Train) }

// points are batches of one.
type points []point

func (p points) Steps() int { return len(p) }

func (p points) Batches(_, skip int) iter.Seq2[mltrain.Batch, error] {
	return func(yield func(mltrain.Batch, error) bool) {
		for _, at := range p[skip:] {
			one := func(x float32) []*tensors.Tensor { return []*tensors.Tensor{tensors.FromValue([]float32{x})} }
			if !yield(mltrain.Batch{Inputs: one(at[0]), Labels: one(at[1])}, nil) {
				return
			}
		}
	}
}

func quick() config {
	return config{Slope: 2, Train: train.Config{Epochs: 5, Schedule: schedule.Config{Kind: "constant", Peak: 0.05}, Optimizer: optim.Config{Rule: optim.SGD{}}, Seed: 1}}
}

func ExampleExperiment() {
	ctx := context.Background()
	engine, _, err := backend.Open(ctx, backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	dir, err := os.MkdirTemp("", "line-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	var found result
	if err := quick().experiment(engine, &found).Run(ctx, task.Options[score]{Dir: filepath.Join(dir, "run")}, &found); err != nil {
		panic(err)
	}
	fmt.Printf("%d updates, slope %.1f\n", found.Updates, found.Slope)
	record, err := run.ReadRecord[config](filepath.Join(dir, "run"))
	fmt.Println(record.Task, record.Config.Slope, record.Sentences, err)
	// Output:
	// 20 updates, slope 2.0
	// line 2 [4 1 2] <nil>
}

// TestFourthTask is stopped and goes on: whatever the task, a run ends as if it had been let be.
func TestFourthTask(t *testing.T) {
	engine, parent := gxtest.Backend(t), t.TempDir()
	begin := func(ctx context.Context, c config, options task.Options[score]) (found result, err error) {
		err = c.experiment(engine, &found).Run(ctx, options, &found)
		return found, err
	}
	whole, err := begin(t.Context(), quick(), task.Options[score]{Dir: filepath.Join(parent, "whole")})
	if err != nil || whole.Dev == nil || whole.Test == nil || whole.BestEpoch < 1 || whole.Compilations != 0 || len(whole.Metrics) != 5 {
		t.Fatalf("%+v, %v", whole, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	torn := task.Options[score]{Dir: filepath.Join(parent, "torn"), Step: func(s train.Step) {
		if s.Update == 7 {
			cancel()
		}
	}}
	if _, err := begin(ctx, quick(), torn); !errors.Is(err, train.ErrInterrupted) {
		t.Fatalf("interrupted: %v", err)
	}
	var loaded run.Loaded
	epochs := 0
	torn.Resume, torn.Step = true, nil
	torn.Loaded, torn.Epoch = func(l run.Loaded) { loaded = l }, func(int, score) { epochs++ }
	again, err := begin(t.Context(), quick(), torn)
	if err != nil || again.Slope != whole.Slope || loaded.ResumedAt != 7 || loaded.Train != 4 || epochs != 4 {
		t.Errorf("resumed at %d, with %d epochs: slope %v, want %v; %v", loaded.ResumedAt, epochs, again.Slope, whole.Slope, err)
	}
	text, err := os.ReadFile(filepath.Join(parent, "torn", run.TextFile))
	if err != nil || string(text) != whole.Text() || !strings.Contains(string(text), "test: error 0.") {
		t.Errorf("report %q, %v", text, err)
	}
	other := quick()
	other.Slope = 3
	if _, err := begin(t.Context(), other, torn); err == nil || !strings.Contains(err.Error(), "slope was 2 and is 3") {
		t.Errorf("another config: %v", err)
	}
	other.Train.Epochs = -1
	if _, err := begin(t.Context(), other, task.Options[score]{Dir: filepath.Join(parent, "wrong")}); err == nil || !strings.Contains(err.Error(), "experiment config: ") {
		t.Errorf("a config that is wrong: %v", err)
	}
	if _, err := begin(t.Context(), quick(), task.Options[score]{}); err == nil || !strings.Contains(err.Error(), "needs a run folder") {
		t.Errorf("no folder: %v", err)
	}
	x := quick().experiment(engine, new(result))
	if table, err := x.Explain(t.Context(), task.Options[score]{}); err != nil || !strings.Contains(table, "/slope") {
		t.Errorf("explained: %v\n%s", err, table)
	}
	curve, err := x.RangeTest(t.Context(), task.Options[score]{}, train.RateRange{From: 1e-3, To: 1, Updates: 20})
	if err != nil || len(curve.Points) == 0 {
		t.Errorf("range test: %+v, %v", curve, err)
	}
}

func TestReadCorpus(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.txt")
	if err := os.WriteFile(file, []byte("abc"), 0o644); err != nil {
		t.Fatal(err)
	}
	read := func(_ data.Split, path string) ([]byte, error) { return os.ReadFile(path) }
	corpus, err := task.ReadCorpus(t.Context(), map[data.Split]string{data.Train: file, data.Test: file}, read)
	if err != nil || string(corpus.Part(data.Test)) != "abc" || corpus.Dev != nil || len(corpus.Checksums) != 2 || corpus.Checksums["train"][:8] != "ba7816bf" {
		t.Errorf("%+v, %v", corpus, err)
	}
	corpus.Say("first")
	if corpus.Say("second"); corpus.Note != "first; second" || corpus.Part("other") != nil {
		t.Errorf("note %q", corpus.Note)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("Ctrl-C"))
	for want, err := range map[string]error{
		"reading dev data: " + dir + " is a folder": second(task.ReadCorpus(t.Context(), map[data.Split]string{data.Dev: dir}, read)),
		"reading train data: open ":                 second(task.ReadCorpus(t.Context(), map[data.Split]string{data.Train: file + "x"}, read)),
		"reading train data: Ctrl-C":                second(task.ReadCorpus(ctx, map[data.Split]string{data.Train: file}, read)),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestChecks(t *testing.T) {
	for want, problems := range map[string][]error{
		"":                           slices.Concat(task.CheckData(hub.TaskNER, task.Synthetic, ""), task.CheckData(hub.TaskNER, "", "x"), task.CheckModel(run.Scratch, task.Synthetic)),
		"either a name or a":         task.CheckData(hub.TaskNER, task.Synthetic, "x"),
		`data "banking77" is unkn`:   task.CheckData(hub.TaskNER, hub.Banking77, ""),
		"model is empty, want a":     task.CheckModel("", ""),
		`vocabulary of the "synthe`:  task.CheckModel(run.Scratch, hub.UNEREnglishEWT),
		"data needs either a name o": task.CheckData(hub.TaskLM, "", ""),
	} {
		if err := errors.Join(problems...); (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("problems %v, want %q", err, want)
		}
	}
}

// TestStart: what was begun from scratch begins again as a pretrained model does, from its run's folder.
func TestStart(t *testing.T) {
	name := func(kind string) func(dir string) (string, error) {
		return func(dir string) (string, error) {
			files, err := filepath.Glob(filepath.Join(dir, "*"))
			for i := range files {
				files[i] = filepath.Base(files[i])
			}
			return kind + fmt.Sprint(files), err
		}
	}
	m, sums, err := task.Start(t.Context(), nil, run.Scratch, name("pretrained"), name("fresh"))
	if err != nil || m != "fresh[tokenizer.json]" || sums["model"] != "fresh weights" {
		t.Errorf("%q, %v, %v", m, sums, err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if m, sums, err = task.Start(t.Context(), nil, dir, name("pretrained"), name("fresh")); err != nil || m != "pretrained[config.json]" || len(sums["config.json"]) != 64 {
		t.Errorf("%q, %v, %v", m, sums, err)
	}
	if _, _, err := task.Start(t.Context(), nil, "nowhere", name("pretrained"), name("fresh")); !errors.As(err, new(*run.NameError)) {
		t.Errorf("an unknown name: %v", err)
	}
}
