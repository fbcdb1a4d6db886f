package peft_test

import (
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	mltrain "github.com/gomlx/gomlx/ml/train"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/peft"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
)

// goldenCase is one recorded case.
type goldenCase struct {
	Name    string             `json:"name"`
	File    string             `json:"file"`
	Atol    float64            `json:"atol"`
	Params  map[string]float64 `json:"params"`
	Tensors map[string]struct {
		Shape []int `json:"shape"`
	} `json:"tensors"`

	t    *testing.T
	file *safetensors.File
}

func (c goldenCase) tensor(name string) *tensors.Tensor {
	c.t.Helper()
	value, err := c.file.Tensor(name)
	if err != nil {
		c.t.Fatal(err)
	}
	return value
}

func (c goldenCase) flat(name string) []float32 {
	return tensors.MustCopyFlatData[float32](c.tensor(name))
}

func (c goldenCase) ints(name string) []int32 {
	return tensors.MustCopyFlatData[int32](c.tensor(name))
}

// turned returns a recorded matrix [outputs, inputs] as ours.
func (c goldenCase) turned(name string) *tensors.Tensor {
	flat, dims := c.flat(name), c.tensor(name).Shape().Dimensions
	out := make([]float32, len(flat))
	for i, x := range flat {
		out[i%dims[1]*dims[0]+i/dims[1]] = x
	}
	return tensors.FromFlatDataAndDimensions(out, dims[1], dims[0])
}

// row returns step t of a recorded trajectory.
func (c goldenCase) row(name string, t int) []float32 {
	flat, steps := c.flat(name), c.Tensors[name].Shape[0]
	size := len(flat) / steps
	return flat[t*size : (t+1)*size]
}

// goldenKinds maps the recorded cases that train to configs. Scales and schedules are those of
// the generator, which the manifest does not have.
var goldenKinds = map[string]peft.Config{
	"lora":    {Kind: "lora", Alpha: 8},
	"rslora":  {Kind: "rslora", Alpha: 8},
	"dora":    {Kind: "dora", Alpha: 8},
	"ia3":     {Kind: "ia3", Inputs: []string{"/q/weights"}},
	"adalora": {Kind: "adalora", Alpha: 8},
}

// TestGoldenAdapters holds every kind against vectors that peft and PyTorch computed: outputs,
// gradients of the first step, all steps of training by our own loop, merged weights.
func TestGoldenAdapters(t *testing.T) {
	dir := golden.Dir(t, "adaptation")
	found := 0
	for _, c := range golden.Cases[goldenCase](t, dir) {
		config, trains := goldenKinds[c.Name]
		if !trains && c.Name != "adapter_bottleneck" && c.Name != "prefix_kv" {
			continue
		}
		found++
		t.Run(c.Name, func(t *testing.T) {
			c.t = t
			var err error
			if c.file, err = safetensors.Open(filepath.Join(dir, c.File)); err != nil {
				t.Fatal(err)
			}
			defer c.file.Close()
			switch {
			case trains:
				follow(c, config)
			case c.Name == "prefix_kv":
				prefixed(c)
			default:
				behind(c)
			}
		})
	}
	if want := len(goldenKinds) + 2; found != want {
		t.Errorf("the collection has %d of %d cases", found, want)
	}
}

// net is the recorded model, o(tanh(v(tanh(q(x))))), seen through an adapter.
type net struct {
	store   *model.Store
	adapter *peft.Adapter
}

func (n net) Store() *model.Store { return n.store }

// Variables decay, all of them, as in the recorded runs.
func (n net) Variables() []elastic.Variable {
	list := n.adapter.Variables()
	for i := range list {
		list[i].Decay = true
	}
	return list
}

func (n net) FollowSlots() []elastic.Variable { return n.adapter.FollowSlots() }
func (n net) FollowScalars(update, total int) []float32 {
	return n.adapter.FollowScalars(update, total)
}
func (n net) Follow(scalars *Node, values, gradients, slots []*Node) (newValues, newSlots []*Node) {
	return n.adapter.Follow(scalars, values, gradients, slots)
}

func logits(w elastic.Weights, x *Node) *Node {
	return elastic.Dense(w.In("o"), Tanh(elastic.Dense(w.In("v"), Tanh(elastic.Dense(w.In("q"), x)))))
}

func (n net) Loss(w elastic.Weights, inputs, labels []*Node, drop *dropout.Source) (sum, count *Node) {
	// Without adalora's penalty: the recorded run called the model in a way that goes past it.
	return loss.CrossEntropy(logits(n.adapter.Weights(w, drop), inputs[0]), labels[0])
}

// once gives the same batch in every epoch.
type once struct{ c goldenCase }

func (once) Steps() int { return 1 }

func (o once) Batches(int, int) iter.Seq2[mltrain.Batch, error] {
	return func(yield func(mltrain.Batch, error) bool) {
		yield(mltrain.Batch{Inputs: []*tensors.Tensor{o.c.tensor("in.x")}, Labels: []*tensors.Tensor{o.c.tensor("in.labels")}}, nil)
	}
}

// recorded returns peft's name of one of our variables.
func recorded(c goldenCase, path string) string {
	name := strings.ReplaceAll(strings.TrimPrefix(path, peft.Scope+"/"), "/", ".")
	if _, ok := c.Tensors["in."+name]; !ok {
		name += ".weight"
	}
	return name
}

func newNet(c goldenCase, config peft.Config) net {
	n := net{store: model.NewStore()}
	var base []elastic.Variable
	for _, layer := range []string{"q", "v", "o"} {
		for name, value := range map[string]*tensors.Tensor{"/weights": c.turned("in.base." + layer + ".weight"), "/bias": c.tensor("in.base." + layer + ".bias")} {
			base = append(base, elastic.Variable{Path: "/" + layer + name, Shape: value.Shape().Dimensions})
			if _, err := n.store.CreateVariable("/"+layer+name, value); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	slices.SortFunc(base, func(a, b elastic.Variable) int { return strings.Compare(b.Path, a.Path) })
	config.Targets = []string{"/q/weights", "/v/weights"}
	for _, name := range []string{"in.q.lora_A.weight", "in.q.lora_A"} {
		if a, ok := c.Tensors[name]; ok {
			config.Rank = a.Shape[0]
		}
	}
	if config.Kind == "adalora" {
		s := c.ints("const.schedule") // rank, target, warm-up, final, every, and updates, which are the steps of the trajectory
		config.Budget = &peft.Budget{
			Target: int(s[1]), Warmup: int(s[2]), Final: int(s[3]), Every: int(s[4]),
			Beta1: 0.85, Beta2: 0.85, Orthogonality: 0.5,
		}
	}
	var err error
	if n.adapter, err = peft.New(config, base); err != nil {
		c.t.Fatal(err)
	}
	if err := n.adapter.Create(n.store, 1); err != nil {
		c.t.Fatal(err)
	}
	for _, v := range n.adapter.Variables() {
		if err := n.store.GetVariable(v.Path).SetValue(c.tensor("in." + recorded(c, v.Path))); err != nil {
			c.t.Fatal(err)
		}
	}
	return n
}

func (n net) value(t *testing.T, path string) []float32 {
	t.Helper()
	v, err := n.store.GetVariable(path).Value()
	if err != nil {
		t.Fatal(err)
	}
	return tensors.MustCopyFlatData[float32](v)
}

// logits computes those of the net as it is, through the adapter or without it.
func (n net) logits(t *testing.T, x *tensors.Tensor, adapted bool) *tensors.Tensor {
	t.Helper()
	exec, err := model.NewExec(gxtest.Backend(t), n.store, func(scope *model.Scope, x *Node) *Node {
		w := elastic.WeightsOf(scope.Store(), x.Graph())
		if adapted {
			w = n.adapter.Weights(w, nil)
		}
		return logits(w, x)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	out, err := exec.Call(x)
	if err != nil {
		t.Fatal(err)
	}
	return out[0]
}

// follow trains as the recorded run did.
func follow(c goldenCase, config peft.Config) {
	t := c.t
	n := newNet(c, config)
	gxtest.Close(t, n.logits(t, c.tensor("in.x"), true), c.flat("out.logits_start"), c.Atol)

	variables := n.adapter.Variables()
	exec, err := model.NewExec(gxtest.Backend(t), n.store, func(scope *model.Scope, in []*Node) []*Node {
		w := elastic.WeightsOf(scope.Store(), in[0].Graph())
		sum, count := n.Loss(w, in[:1], in[1:], nil)
		var parameters []*Node
		for _, v := range variables {
			parameters = append(parameters, w.At(strings.TrimPrefix(v.Path, "/")))
		}
		return Gradient(Div(sum, count), parameters...)
	})
	if err != nil {
		t.Fatal(err)
	}
	gradients, err := exec.Call(c.tensor("in.x"), c.tensor("in.labels"))
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range variables {
		gxtest.Close(t, gradients[i], c.flat("grad."+recorded(c, v.Path)), c.Atol)
	}

	steps := c.Tensors["traj.loss"].Shape[0]
	trainer, err := train.New(gxtest.Backend(t), n, train.Config{
		Epochs: steps, Optimizer: optim.Config{Rule: optim.AdamW{WeightDecay: 0.01}}, Schedule: schedule.Config{Kind: "constant", Peak: 0.02},
	})
	if err != nil {
		t.Fatal(err)
	}
	step := 0
	_, err = trainer.Run(t.Context(), once{c}, train.Hooks{Step: func(s train.Step) {
		gxtest.Close(t, s.Loss, c.row("traj.loss", step)[0], c.Atol)
		for _, v := range variables {
			gxtest.Close(t, n.value(t, v.Path), c.row("traj."+recorded(c, v.Path), step), c.Atol)
		}
		step++
	}})
	if err != nil {
		t.Fatal(err)
	}
	if step != steps {
		t.Fatalf("%d steps, want %d", step, steps)
	}
	gxtest.Close(t, n.logits(t, c.tensor("in.x"), true), c.flat("out.logits_end"), c.Atol)
	if config.Kind == "adalora" {
		settled(c, &n)
	}

	before := n.value(t, "/q/weights")
	merged, err := n.adapter.Merge(gxtest.Backend(t), n.store)
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, n.logits(t, c.tensor("in.x"), false), c.flat("out.logits_merged"), c.Atol)
	for _, layer := range []string{"q", "v"} {
		gxtest.Close(t, n.value(t, "/"+layer+"/weights"), c.turned("out.merged."+layer+".weight"), c.Atol)
	}
	if slices.Equal(before, n.value(t, "/q/weights")) {
		t.Error("merging changed nothing")
	}
	if err := merged.Unmerge(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(before, n.value(t, "/q/weights")) {
		t.Error("the weights are not what they were before merging")
	}
}

// settled makes adalora's tensors small: the ranks are the budget, those that the recorded run
// kept, and the net computes the same.
func settled(c goldenCase, n *net) {
	t := c.t
	want := n.logits(t, c.tensor("in.x"), true)
	size := n.adapter.Parameters()
	var err error
	if n.adapter, err = n.adapter.Finish(n.store); err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, n.logits(t, c.tensor("in.x"), true), want, 1e-6)
	total := 0
	for layer, rank := range n.adapter.Ranks() {
		kept := int32(0)
		steps := c.Tensors["traj.loss"].Shape[0]
		mask := c.ints("traj.mask." + layer[1:])
		for _, m := range mask[len(mask)/steps*(steps-1):] {
			kept += m
		}
		if rank != int(kept) {
			t.Errorf("%s has rank %d, the recorded run kept %d", layer, rank, kept)
		}
		total += rank
	}
	s := c.ints("const.schedule")
	if budget := 2 * int(s[1]); total != budget || n.adapter.Parameters()*3 > size*2 {
		t.Errorf("%d ranks in %d parameters of %d, want %d", total, n.adapter.Parameters(), size, budget)
	}
}

// behind computes a bottleneck behind a layer that changes nothing.
func behind(c goldenCase) {
	t := c.t
	width := c.Tensors["in.x"].Shape[1]
	identity := make([]float32, width*width)
	for i := range width {
		identity[i*width+i] = 1
	}
	base := elastic.Under("/layer", elastic.DenseVariables(width, width, 0))
	adapter, err := peft.New(peft.Config{Kind: "houlsby", Targets: []string{"/layer/weights"}, Width: c.Tensors["in.bd"].Shape[0]}, base)
	if err != nil {
		t.Fatal(err)
	}
	store, err := elastic.NewStore(base, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := adapter.Create(store, 1); err != nil {
		t.Fatal(err)
	}
	names := []string{"x"}
	set := func(path string, value *tensors.Tensor) {
		if err := store.GetVariable(path).SetValue(value); err != nil {
			t.Fatal(err)
		}
	}
	set("/layer/weights", tensors.FromFlatDataAndDimensions(identity, width, width))
	short := map[string]string{"norm/scale": "g", "norm/bias": "b", "down/weights": "wd", "down/bias": "bd", "up/weights": "wu", "up/bias": "bu"}
	for _, v := range adapter.Variables() {
		name := short[strings.TrimPrefix(v.Path, peft.Scope+"/layer/")]
		set(v.Path, c.tensor("in."+name))
		names = append(names, name)
	}
	exec, err := model.NewExec(gxtest.Backend(t), store, func(scope *model.Scope, x, ct *Node) []*Node {
		w := elastic.WeightsOf(scope.Store(), x.Graph())
		y := elastic.Dense(adapter.Weights(w, nil).In("layer"), x)
		inputs := []*Node{x}
		for _, v := range adapter.Variables() {
			inputs = append(inputs, w.At(v.Path[1:]))
		}
		return append([]*Node{y}, Gradient(ReduceAllSum(Mul(y, ct)), inputs...)...)
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Call(c.tensor("in.x"), c.tensor("ct.y"))
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, out[0], c.tensor("out.y"), c.Atol)
	for i, name := range names {
		gxtest.Close(t, out[i+1], c.flat("grad."+name), c.Atol)
	}
}

// prefixed computes causal attention with keys and values before those of the text.
func prefixed(c goldenCase) {
	t := c.t
	names := []string{"q", "k", "v", "pk", "pv"}
	inputs := []any{}
	for _, name := range names {
		inputs = append(inputs, c.tensor("in."+name))
	}
	inputs = append(inputs, c.tensor("ct.y"))
	spec := attention.Spec{Heads: c.Tensors["in.q"].Shape[1], Mask: attention.Causal{}}
	exec, err := NewExec(gxtest.Backend(t), func(in []*Node) []*Node {
		byLength := func(n *Node) *Node { return TransposeAllAxes(n, 0, 2, 1, 3) } // [b, h, l, d] ↔ [b, l, h, d]
		y := byLength(attention.Attend(spec, elastic.Weights{}, byLength(in[0]), byLength(in[1]), byLength(in[2]), attention.Inputs{
			PrefixKeys: TransposeAllAxes(in[3], 1, 0, 2), PrefixValues: TransposeAllAxes(in[4], 1, 0, 2),
		}).Output)
		return append([]*Node{y}, Gradient(ReduceAllSum(Mul(y, in[5])), in[:5]...)...)
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Call(inputs...)
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, out[0], c.tensor("out.y"), c.Atol)
	for i, name := range names {
		gxtest.Close(t, out[i+1], c.tensor("grad."+name), c.Atol)
	}
}
