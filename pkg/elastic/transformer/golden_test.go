package transformer_test

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// goldenCase is an entry of a manifest.
type goldenCase struct {
	Name, File string
	// Of the attention folder.
	Formula string
	Atol    json.RawMessage
	// Of the structure folder: a model, and the outputs that were computed with it.
	Config  transformer.Config
	Outputs []string
}

// TestGoldenStructure computes the halting of the attention folder and every model of the
// structure folder (made by tools/golden/structure.py): outputs, and gradients with respect
// to all inputs or weights.
func TestGoldenStructure(t *testing.T) {
	t.Run("act_halting", func(t *testing.T) {
		dir := golden.Dir(t, "attention")
		cases := golden.Cases[goldenCase](t, dir)
		at := slices.IndexFunc(cases, func(c goldenCase) bool { return c.Name == "act_halting" })
		if at < 0 {
			t.Fatalf("%s has no case act_halting", dir)
		}
		halting(t, dir, cases[at])
	})
	t.Run("models", func(t *testing.T) {
		dir := golden.Dir(t, "structure")
		for _, c := range golden.Cases[goldenCase](t, dir) {
			t.Run(c.Name, func(t *testing.T) { wholeModel(t, dir, c) })
		}
	})
}

// values reads all tensors of a case.
func values(t *testing.T, dir string, c goldenCase) map[string]*tensors.Tensor {
	t.Helper()
	file, err := safetensors.Open(filepath.Join(dir, c.File))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	all := map[string]*tensors.Tensor{}
	for _, name := range file.Names() {
		if all[name], err = file.Tensor(name); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func halting(t *testing.T, dir string, c goldenCase) {
	var atol struct{ Out, Grad float64 }
	if err := json.Unmarshal(c.Atol, &atol); err != nil {
		t.Fatal(err)
	}
	v := values(t, dir, c)
	results, err := CallOnceN(gxtest.Backend(t), func(in []*Node) []*Node {
		h, x, ctY, ctPonder := in[0], in[1], in[2], in[3]
		var logits, states []*Node
		for n := range x.Shape().Dimensions[0] {
			logits = append(logits, Squeeze(Slice(h, AxisElem(n)), 0))
			states = append(states, Squeeze(Slice(x, AxisElem(n)), 0))
		}
		r := transformer.Halt(logits, states, 0.01)
		ponder := ReduceAllMean(r.Ponder)
		loss := Add(ReduceAllSum(Mul(r.Mixture, ctY)), ReduceAllSum(Mul(ponder, ctPonder)))
		return append([]*Node{r.Mixture, ponder, r.Steps}, Gradient(loss, h, x)...)
	}, v["in.h"], v["in.x"], v["ct.y"], v["ct.ponder"])
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"out.y", "out.ponder", "out.nsteps"} {
		t.Run(name, func(t *testing.T) { gxtest.Close(t, results[i], v[name], atol.Out) })
	}
	for i, name := range []string{"grad.h", "grad.x"} {
		t.Run(name, func(t *testing.T) { gxtest.Close(t, results[3+i], v[name], atol.Grad) })
	}
}

// store makes a store of a case's weights, which must be those that its config lists.
func store(t *testing.T, c goldenCase, v map[string]*tensors.Tensor) (*model.Store, []string) {
	t.Helper()
	if err := c.Config.Validate(); err != nil {
		t.Fatal(err)
	}
	made := model.NewStore()
	var paths []string
	for _, variable := range c.Config.Variables() {
		value := v["weight."+variable.Path]
		if value == nil || !slices.Equal(value.Shape().Dimensions, variable.Shape) {
			t.Fatalf("variable %s %v is %v in the case", variable.Path, variable.Shape, value)
		}
		if _, err := made.CreateVariable(variable.Path, value); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, variable.Path)
	}
	for name := range v {
		if path, ok := strings.CutPrefix(name, "weight."); ok && !slices.Contains(paths, path) {
			t.Fatalf("the config lists no %s", path)
		}
	}
	return made, paths
}

func wholeModel(t *testing.T, dir string, c goldenCase) {
	var atol float64
	if err := json.Unmarshal(c.Atol, &atol); err != nil {
		t.Fatal(err)
	}
	v := values(t, dir, c)
	weights, paths := store(t, c, v)
	names := []string{"in.ids", "in.mask"}
	for _, name := range []string{"in.decoder_ids", "in.labels"} {
		if v[name] != nil {
			names = append(names, name)
		}
	}
	for _, name := range c.Outputs {
		names = append(names, "ct."+name)
	}
	args := make([]any, len(names))
	for i, name := range names {
		args[i] = v[name]
	}
	exec, err := model.NewExec(gxtest.Backend(t), weights, func(scope *model.Scope, in []*Node) []*Node {
		w := elastic.WeightsOf(scope.Store(), in[0].Graph())
		n := map[string]*Node{}
		for i, name := range names {
			n[name] = in[i]
		}
		out := compute(c.Config, w, n)
		var results, wrt []*Node
		var loss *Node
		for _, name := range c.Outputs {
			results = append(results, out[name])
			loss = elastic.AddIf(loss, ReduceAllSum(Mul(out[name], n["ct."+name])))
		}
		for _, path := range paths {
			wrt = append(wrt, scope.Store().GetVariable(path).NodeValue(in[0].Graph()))
		}
		return append(results, Gradient(loss, wrt...)...)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	results, err := exec.Call(args...)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range c.Outputs {
		t.Run("out."+name, func(t *testing.T) { gxtest.Close(t, results[i], v["out."+name], atol) })
	}
	for i, path := range paths {
		t.Run("grad."+path, func(t *testing.T) { gxtest.Close(t, results[len(c.Outputs)+i], v["grad."+path], atol) })
	}
}

// compute returns the outputs of a model by their names in the cases; those of padding are 0.
func compute(c transformer.Config, w elastic.Weights, n map[string]*Node) map[string]*Node {
	real := InsertAxes(ConvertDType(n["in.mask"], w.In("embeddings").At("word").DType()), -1)
	encoded := c.Encode(w, transformer.Inputs{IDs: n["in.ids"], Mask: n["in.mask"]}, nil)
	out := map[string]*Node{"penalty": encoded.Penalty}
	switch {
	case c.Decoder != nil:
		out["hidden"] = Mul(encoded.Hidden, real)
		decoded := c.Decode(w, transformer.Inputs{IDs: n["in.decoder_ids"]}, c.Remember(w, encoded.Hidden, n["in.mask"]), nil)
		out["logits"] = c.HeadLogits(w, decoded.Hidden, nil)
	case n["in.labels"] != nil:
		for i, logits := range c.Exits(w, encoded, nil) {
			out["exit_"+string(rune('0'+i))] = Mul(logits, real)
		}
		out["loss"], _ = c.Loss(w, loss.Criterion{}, n["in.labels"], nil, encoded)
	default:
		out["logits"] = Mul(c.HeadLogits(w, encoded.Hidden, nil), real)
	}
	return out
}
