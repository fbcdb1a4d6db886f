package optim_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
)

type goldenRun struct {
	ID     string           `json:"id"`
	Opt    string           `json:"opt"`
	Kw     map[string]any   `json:"kw"`
	Groups []map[string]any `json:"groups"` // parts of Kw that differ for some parameters
	Clip   *struct {
		Kind  string  `json:"kind"`
		Value float64 `json:"value"`
	} `json:"clip"`
	Wrap         any    `json:"wrap"`
	Compare      string `json:"compare"`
	ToleranceF32 struct {
		RelToMax *float64 `json:"rel_to_max"`
	} `json:"tol_f32"`
}

// option returns a setting of a parameter: its group's if that has one, else the run's.
func (r goldenRun) option(parameter, name string) any {
	for _, group := range r.Groups {
		if members, _ := group["params"].([]any); slices.Contains(members, any(parameter)) {
			if value, ok := group[name]; ok {
				return value
			}
		}
	}
	return r.Kw[name]
}

// adamW returns the optimizer of a parameter and its rate before any schedule, with
// torch's defaults.
func (r goldenRun) adamW(parameter string) (optim.AdamW, float64) {
	number := func(name string, missing float64) float64 {
		if v, ok := r.option(parameter, name).(float64); ok {
			return v
		}
		return missing
	}
	adam := optim.AdamW{Epsilon: number("eps", 1e-8), WeightDecay: number("weight_decay", 0.01)}
	if betas, ok := r.option(parameter, "betas").([]any); ok {
		adam.Beta1, adam.Beta2 = betas[0].(float64), betas[1].(float64)
	}
	return adam, number("lr", 1e-3)
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
	for _, options := range append([]map[string]any{run.Kw}, run.Groups...) {
		for name, value := range options {
			switch name {
			case "params", "lr", "weight_decay", "foreach", "fused": // the last two say how, not what, torch computes
			case "betas", "eps":
				if list, ok := value.([]any); value == 0.0 || ok && slices.Contains(list, any(0.0)) {
					return "0 in " + name + ", which means the default here"
				}
			default:
				if value != nil && value != false {
					return "option " + name
				}
			}
		}
	}
	switch {
	case run.Wrap != nil:
		return "wrapped in another optimizer"
	case run.Clip != nil && run.Clip.Kind != "global_norm":
		return "clipping by " + run.Clip.Kind
	case run.ToleranceF32.RelToMax == nil || run.Compare != "elementwise":
		return "not to be compared in float32"
	}
	return ""
}

func replay(t *testing.T, file *safetensors.File, run goldenRun) {
	var names []string
	want, gradients := map[string][]float64{}, map[string][]float64{}
	dims := map[string][]int{}
	var adams []optim.AdamW
	var base []float64 // rates before the schedule
	for _, name := range file.Names() {
		if short, ok := strings.CutPrefix(name, run.ID+"/p/"); ok {
			names = append(names, short)
			want[short], dims[short] = values(t, file, name)
			gradients[short], _ = values(t, file, run.ID+"/g/"+short)
			adam, rate := run.adamW(short)
			adams, base = append(adams, adam), append(base, rate)
		}
	}
	if len(names) == 0 {
		t.Fatal("no parameters")
	}
	steps := dims[names[0]][0] - 1
	factors := slices.Repeat([]float64{1}, steps) // of the schedule, the same for all groups
	if slices.Contains(file.Names(), run.ID+"/lr") {
		rates, _ := values(t, file, run.ID+"/lr") // of the first group
		_, first := run.adamW(names[0])
		if len(run.Groups) > 0 {
			_, first = run.adamW(run.Groups[0]["params"].([]any)[0].(string))
		}
		for step, rate := range rates {
			factors[step] = rate / first
		}
	}
	tolerance := *run.ToleranceF32.RelToMax

	exec, err := graph.NewExec(gxtest.Backend(t), func(in []*graph.Node) []*graph.Node {
		n := len(names)
		scalars, in := in[:n], in[n:]
		clipped := slices.Clone(in[n : 2*n])
		if run.Clip != nil {
			factor := optim.ClipFactor(optim.GlobalNorm(clipped), run.Clip.Value)
			for i := range clipped {
				clipped[i] = graph.Mul(clipped[i], factor)
			}
		}
		out := make([]*graph.Node, 3*n)
		for i, adam := range adams {
			parameter, slots := adam.Update(in[i], clipped[i], []*graph.Node{in[2*n+i], in[3*n+i]}, scalars[i], adam.WeightDecay != 0)
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
		var args []any
		for i, adam := range adams {
			args = append(args, adam.Scalars(step, base[i]*factors[step]))
		}
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
				if !(deviation <= tolerance) {
					t.Fatalf("step %d: %s[%d] is %g, want %g: off by %.2g of the largest, tolerance %.2g", step, name, j, v, expected, deviation, tolerance)
				}
			}
		}
	}
	t.Logf("%d steps, largest deviation %.2g of %.2g", steps, worst, tolerance)
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
