package optim_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
)

type goldenRun struct {
	ID     string         `json:"id"`
	Opt    string         `json:"opt"`
	Kw     map[string]any `json:"kw"`
	Groups []struct {
		Params      []string `json:"params"`
		Rate        float64  `json:"lr"`
		WeightDecay float64  `json:"weight_decay"`
	} `json:"groups"`
	Clip *struct {
		Kind  string  `json:"kind"`
		Value float64 `json:"value"`
	} `json:"clip"`
	Wrap         any    `json:"wrap"`
	Centralise   any    `json:"centralise"`
	Compare      string `json:"compare"`
	ToleranceF32 *struct {
		RelToMax float64 `json:"rel_to_max"`
	} `json:"tol_f32"`
}

// TestGoldenAdamW replays every recorded trajectory of PyTorch's AdamW that this
// package has the means for, from its gradients. The others are listed with the reason.
func TestGoldenAdamW(t *testing.T) {
	dir := golden.Dir(t, "optim")
	content, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		Runs []goldenRun `json:"runs"`
	}
	if err := json.Unmarshal(content, &manifest); err != nil {
		t.Fatal(err)
	}
	file, err := safetensors.Open(filepath.Join(dir, "trajectories.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	tested := 0
	for _, run := range manifest.Runs {
		if run.Opt != "torch:AdamW" {
			continue
		}
		if reason := unsupported(run); reason != "" {
			t.Logf("%s: not replayed: %s", run.ID, reason)
			continue
		}
		tested++
		t.Run(run.ID, func(t *testing.T) { replay(t, file, run) })
	}
	if tested == 0 {
		t.Fatal("no trajectory of AdamW")
	}
}

func unsupported(run goldenRun) string {
	for name := range run.Kw {
		if !slices.Contains([]string{"lr", "betas", "eps", "weight_decay"}, name) {
			return "option " + name
		}
	}
	decay := 0.0
	for _, group := range run.Groups {
		if group.Rate != run.Groups[0].Rate {
			return "several learning rates"
		}
		if group.WeightDecay != 0 && decay != 0 && group.WeightDecay != decay {
			return "several weight decays"
		}
		decay = max(decay, group.WeightDecay)
	}
	switch {
	case run.Wrap != nil:
		return "wrapped in another optimizer"
	case run.Centralise != nil:
		return "centralised gradients"
	case run.Clip != nil && run.Clip.Kind != "global_norm":
		return "clipping by " + run.Clip.Kind
	case run.ToleranceF32 == nil || run.Compare != "elementwise":
		return "not to be compared in float32"
	}
	return ""
}

func replay(t *testing.T, file *safetensors.File, run goldenRun) {
	number := func(name string, missing float64) float64 {
		if v, ok := run.Kw[name].(float64); ok {
			return v
		}
		return missing
	}
	adam := optim.AdamW{Epsilon: number("eps", 0), WeightDecay: number("weight_decay", 0.01)} // torch's default
	if betas, ok := run.Kw["betas"].([]any); ok {
		adam.Beta1, adam.Beta2 = betas[0].(float64), betas[1].(float64)
	}
	decays := map[string]bool{}
	for _, group := range run.Groups {
		for _, name := range group.Params {
			decays[name] = group.WeightDecay != 0
		}
	}
	for _, group := range run.Groups {
		if group.WeightDecay != 0 {
			adam.WeightDecay = group.WeightDecay
		}
	}

	var names []string
	want, gradients := map[string][]float64{}, map[string][]float64{}
	dims := map[string][]int{}
	prefix := run.ID + "/p/"
	for _, name := range file.Names() {
		if len(name) > len(prefix) && name[:len(prefix)] == prefix {
			short := name[len(prefix):]
			names = append(names, short)
			want[short], dims[short] = values(t, file, name)
			gradients[short], _ = values(t, file, run.ID+"/g/"+short)
		}
	}
	var rates []float64
	if slices.Contains(file.Names(), run.ID+"/lr") {
		rates, _ = values(t, file, run.ID+"/lr")
	}
	steps := dims[names[0]][0] - 1

	exec, err := graph.NewExec(gxtest.Backend(t), func(in []*graph.Node) []*graph.Node {
		scalars, in := in[0], in[1:]
		n := len(names)
		clipped := slices.Clone(in[n : 2*n])
		if run.Clip != nil {
			factor := optim.ClipFactor(optim.GlobalNorm(clipped), run.Clip.Value)
			for i := range clipped {
				clipped[i] = graph.Mul(clipped[i], factor)
			}
		}
		out := make([]*graph.Node, 3*n)
		for i, name := range names {
			decay, grouped := decays[name]
			parameter, slots := adam.Update(in[i], clipped[i], []*graph.Node{in[2*n+i], in[3*n+i]}, scalars, decay || !grouped)
			out[i], out[n+i], out[2*n+i] = parameter, slots[0], slots[1]
		}
		return out
	})
	if err != nil {
		t.Fatal(err)
	}
	state := make([]any, 3*len(names)) // parameters, m, v
	for i, name := range names {
		state[i] = row(want[name], dims[name], 0)
		zeros := tensors.FromShape(state[i].(*tensors.Tensor).Shape())
		state[len(names)+i], state[2*len(names)+i] = zeros, zeros
	}
	worst := 0.0
	for step := range steps {
		rate := number("lr", 0)
		if rates != nil {
			rate = rates[step]
		}
		args := []any{adam.Scalars(step, rate)}
		args = append(args, state[:len(names)]...)
		for _, name := range names {
			args = append(args, row(gradients[name], dims[name], step))
		}
		args = append(args, state[len(names):]...)
		out, err := exec.Call(args...)
		if err != nil {
			t.Fatal(err)
		}
		for i := range state {
			state[i] = out[i]
		}
		for i, name := range names {
			largest := 0.0
			for _, v := range want[name] {
				largest = max(largest, math.Abs(v))
			}
			got := tensors.MustCopyFlatData[float32](out[i])
			for j, v := range got {
				expected := want[name][(step+1)*len(got)+j]
				deviation := math.Abs(float64(v)-expected) / largest
				worst = max(worst, deviation)
				if !(deviation <= run.ToleranceF32.RelToMax) {
					t.Fatalf("step %d: %s[%d] is %g, want %g: off by %.2g of the largest, tolerance %.2g", step, name, j, v, expected, deviation, run.ToleranceF32.RelToMax)
				}
			}
		}
	}
	t.Logf("%d steps, largest deviation %.2g of %.2g", steps, worst, run.ToleranceF32.RelToMax)
}

func values(t *testing.T, file *safetensors.File, name string) ([]float64, []int) {
	t.Helper()
	value, err := file.Tensor(name)
	if err != nil {
		t.Fatal(err)
	}
	return tensors.MustCopyFlatData[float64](value), value.Shape().Dimensions
}

// row returns entry i of a stack of tensors, in float32.
func row(stack []float64, dims []int, i int) *tensors.Tensor {
	size := 1
	for _, d := range dims[1:] {
		size *= d
	}
	data := make([]float32, size)
	for j := range data {
		data[j] = float32(stack[i*size+j])
	}
	return tensors.FromFlatDataAndDimensions(data, dims[1:]...)
}

func TestWeightDecayIsOnlyWhereItBelongs(t *testing.T) {
	adam := optim.AdamW{WeightDecay: 0.5}
	out, err := graph.CallOnceN(gxtest.Backend(t), func(p, scalars *graph.Node) (*graph.Node, *graph.Node) {
		zero := graph.ZerosLike(p)
		with, _ := adam.Update(p, zero, []*graph.Node{zero, zero}, scalars, true)
		without, _ := adam.Update(p, zero, []*graph.Node{zero, zero}, scalars, false)
		return with, without
	}, []float32{2, -4}, adam.Scalars(0, 0.1))
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, out[0], []float32{1.9, -3.8}, 1e-6) // 1 − 0.1·0.5 of it is left
	gxtest.Close(t, out[1], []float32{2, -4}, 0)
}

func TestClipFactor(t *testing.T) {
	out, err := graph.CallOnceN(gxtest.Backend(t), func(a, b *graph.Node) (*graph.Node, *graph.Node, *graph.Node) {
		norm := optim.GlobalNorm([]*graph.Node{a, b})
		return norm, optim.ClipFactor(norm, 1), optim.ClipFactor(norm, 100)
	}, []float32{3, 0}, [][]float32{{0, 4}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []float32{5, 0.2, 1} {
		gxtest.Close(t, out[i], want, 1e-6)
	}
}

func ExampleAdamW_Scalars() {
	adam := optim.AdamW{WeightDecay: 0.01}
	fmt.Println(adam.Scalars(0, 1e-3)) // rate/(1−β₁), 1/√(1−β₂), 1 − rate·decay
	// Output: [0.01 31.622776 0.99999]
}
