package peft

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// The files of an adapter in the layout of Python's peft.
const (
	ConfigFile  = "adapter_config.json"
	WeightsFile = "adapter_model.safetensors"
)

// Prefixes of tensor names: peft wraps models twice for adapted layers, once for virtual tokens.
const (
	layerPrefix   = "base_model.model."
	virtualPrefix = "base_model."
	promptTensor  = "prompt_embeddings"
)

// suffixes are the names of a layer's tensors in peft, by ours.
var suffixes = map[string]map[string]string{
	"lora":    {"lora_A": "lora_A.weight", "lora_B": "lora_B.weight"},
	"rslora":  {"lora_A": "lora_A.weight", "lora_B": "lora_B.weight"},
	"dora":    {"lora_A": "lora_A.weight", "lora_B": "lora_B.weight", "lora_magnitude_vector": "lora_magnitude_vector"},
	"adalora": {"lora_A": "lora_A", "lora_E": "lora_E", "lora_B": "lora_B"},
	"ia3":     {"ia3_l": "ia3_l"},
	// Peft has no bottlenecks; the names are ours.
	"houlsby":  bottleneckSuffixes,
	"pfeiffer": bottleneckSuffixes,
}

var bottleneckSuffixes = map[string]string{
	"norm/scale": "bottleneck.norm.scale", "norm/bias": "bottleneck.norm.bias",
	"down/weights": "bottleneck.down.weights", "down/bias": "bottleneck.down.bias",
	"up/weights": "bottleneck.up.weights", "up/bias": "bottleneck.up.bias",
}

// Files returns the adapter of a model in peft's layout, which Python's peft loads: the
// adapter's tensors, and the variables of the model that were trained beside. Base names the
// model without them, a folder or an id on the Hugging Face hub. Bottlenecks, which peft does
// not have, are written with a peft_type that it refuses. The model must not change until the
// files are written.
func Files(m *transformer.Model, a *Adapter, base string) []checkpoint.File {
	return []checkpoint.File{
		{Name: ConfigFile, Write: func(w io.Writer) error {
			fields, err := a.fields(m.Config, base)
			if err != nil {
				return err
			}
			text, err := json.MarshalIndent(fields, "", "  ")
			if err != nil {
				return err
			}
			_, err = w.Write(append(text, '\n'))
			return err
		}},
		{Name: WeightsFile, Write: func(w io.Writer) error {
			list, err := a.tensors(m)
			if err != nil {
				return err
			}
			return safetensors.Write(w, list, map[string]string{"format": "pt"})
		}},
	}
}

// moduleName returns peft's name of the layer at a path.
func moduleName(c transformer.Config, path string) (string, error) {
	name, err := pretrained.TensorName(c, path+"/weights")
	return strings.TrimSuffix(name, ".weight"), err
}

// prefix returns what stands before all names but that of virtual tokens.
func (a *Adapter) prefix() string {
	if a.virtual != nil {
		return virtualPrefix
	}
	return layerPrefix
}

// tensors returns all that the file holds.
func (a *Adapter) tensors(m *transformer.Model) ([]safetensors.Named, error) {
	value := func(path string) (*tensors.Tensor, error) {
		v := m.Store.GetVariable(path)
		if v == nil {
			return nil, fmt.Errorf("the model has no variable %s: create the adapter first", path)
		}
		return v.Value()
	}
	var list []safetensors.Named
	for _, l := range a.layers {
		module, err := moduleName(m.Config, l.path)
		if err != nil {
			return nil, err
		}
		if l.rank == 0 && a.config.Kind == "adalora" { // peft has tensors without elements there
			for name, dims := range map[string][]int{"lora_A": {0, l.inputs}, "lora_E": {0, 1}, "lora_B": {l.outputs, 0}} {
				list = append(list, safetensors.Named{Name: layerPrefix + module + "." + name, Tensor: tensors.FromShape(shapes.Make(dtypes.Float32, dims...))})
			}
		}
		for _, v := range methods[a.config.Kind].layer.variables(a.config, l) {
			tensor, err := value(Scope + l.path + "/" + v.Path)
			if err != nil {
				return nil, err
			}
			list = append(list, safetensors.Named{Name: layerPrefix + module + "." + suffixes[a.config.Kind][v.Path], Tensor: tensor})
		}
	}
	if a.virtual != nil {
		var parts [][]float32
		for _, path := range a.virtualOrder(m.Config) {
			tensor, err := value(Scope + path)
			if err != nil {
				return nil, err
			}
			flat, err := tensors.CopyFlatData[float32](tensor)
			if err != nil {
				return nil, err
			}
			parts = append(parts, flat)
		}
		list = append(list, safetensors.Named{Name: promptTensor, Tensor: join(parts, a.config.Length)})
	}
	for _, v := range a.beside {
		named, err := pretrained.Export(m, v.Path)
		if err != nil {
			return nil, err
		}
		named.Name = a.prefix() + named.Name
		list = append(list, named)
	}
	return list, nil
}

// virtualOrder lists the paths whose vectors stand side by side in a row of peft's tensor: the
// prompt, or keys and values of each layer.
func (a *Adapter) virtualOrder(c transformer.Config) []string {
	if a.config.Kind == "prompt" {
		return []string{promptPath}
	}
	var paths []string
	for i := range c.Layers {
		attention := fmt.Sprintf("/layer_%d/attention", i)
		paths = append(paths, attention+prefixKeys, attention+prefixVals)
	}
	return paths
}

// join puts matrices of the same number of rows side by side.
func join(parts [][]float32, rows int) *tensors.Tensor {
	var out []float32
	for r := range rows {
		for _, part := range parts {
			width := len(part) / rows
			out = append(out, part[r*width:(r+1)*width]...)
		}
	}
	return tensors.FromFlatDataAndDimensions(out, rows, len(out)/rows)
}

// taskTypes are peft's names of what heads are for.
var taskTypes = map[string]string{transformer.Tokens: "TOKEN_CLS", transformer.Sequence: "SEQ_CLS"}

// fields returns the content of adapter_config.json.
func (a *Adapter) fields(c transformer.Config, base string) (map[string]any, error) {
	out := map[string]any{"base_model_name_or_path": base, "inference_mode": true, "task_type": nil, "modules_to_save": nil}
	if task, ok := taskTypes[c.Head.Kind]; ok {
		out["task_type"] = task
	}
	var saved, targets, inputs []string
	for _, v := range a.beside {
		name, err := pretrained.TensorName(c, v.Path)
		if err != nil {
			return nil, err
		}
		if name = name[:max(0, strings.LastIndexByte(name, '.'))]; !slices.Contains(saved, name) {
			saved = append(saved, name)
		}
	}
	if saved != nil {
		out["modules_to_save"] = saved
	}
	ranks, kept := map[string]int{}, map[string][]bool{}
	for _, l := range a.layers {
		name, err := moduleName(c, l.path)
		if err != nil {
			return nil, err
		}
		targets = append(targets, name)
		if l.scalesInput {
			inputs = append(inputs, name)
		}
		if l.kept != nil {
			kept[name+".lora_E"] = l.kept
		} else if l.rank != a.config.Rank {
			ranks[name] = l.rank
		}
	}
	switch a.config.Kind {
	case "prefix":
		if len(a.virtual) != 2*c.Layers {
			return nil, errors.New("a prefix of only some layers has no place in peft's file")
		}
		out["peft_type"], out["prefix_projection"] = "PREFIX_TUNING", false
	case "prompt":
		out["peft_type"], out["prompt_tuning_init"] = "PROMPT_TUNING", "RANDOM"
	case "ia3":
		out["peft_type"], out["target_modules"], out["feedforward_modules"] = "IA3", targets, slices.Concat([]string{}, inputs)
	case "houlsby", "pfeiffer":
		out["peft_type"], out["target_modules"], out["kind"], out["width"] = "BOTTLENECK", targets, a.config.Kind, a.config.Width
	default:
		out["peft_type"], out["target_modules"], out["bias"] = "LORA", targets, "none"
		out["lora_alpha"], out["lora_dropout"] = a.config.Alpha, a.config.Dropout
		if a.config.Kind == "adalora" {
			a.writeBudget(out, kept)
			break
		}
		out["r"], out["rank_pattern"] = a.config.Rank, ranks
		out["use_rslora"], out["use_dora"] = a.config.Kind == "rslora", a.config.Kind == "dora"
	}
	if a.virtual != nil {
		out["num_virtual_tokens"], out["token_dim"], out["num_layers"] = a.config.Length, c.Hidden, c.Layers
		out["num_attention_heads"], out["num_transformer_submodules"] = c.Attention.Heads, 1
		out["encoder_hidden_size"] = c.Hidden
		if a.config.Kind == "prompt" {
			delete(out, "encoder_hidden_size")
		}
	}
	return out, nil
}

// Writable says whether peft's files have a place for the adapter on a model, so that nobody
// learns of it after the training.
func (a *Adapter) Writable(c transformer.Config) error {
	_, err := a.fields(c, "")
	return err
}

func (a *Adapter) writeBudget(out map[string]any, kept map[string][]bool) {
	b := a.config.Budget
	warmup, final, updates := b.Warmup, b.Final, b.Warmup+b.Final+1 // before any training
	if a.updates > 0 {
		var settled int
		warmup, settled = a.phases()
		settled = min(settled, a.updates)
		warmup, final, updates = min(warmup, settled-1), a.updates-settled, a.updates
	}
	out["peft_type"], out["init_r"], out["target_r"] = "ADALORA", a.config.Rank, b.Target
	out["tinit"], out["tfinal"], out["deltaT"], out["total_step"] = warmup, final, b.Every, updates
	out["beta1"], out["beta2"], out["orth_reg_weight"] = b.Beta1, b.Beta2, max(0, b.Orthogonality)
	out["rank_pattern"] = nil
	if len(kept) > 0 {
		out["rank_pattern"] = kept
	}
}
