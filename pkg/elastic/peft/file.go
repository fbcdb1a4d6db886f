package peft

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
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

func (a *Adapter) writeBudget(out map[string]any, kept map[string][]bool) {
	b := a.config.Budget
	warmup, final, updates := b.Warmup, b.Final, b.Warmup+b.Final+1 // before any training
	if a.updates > 0 {
		var settled int
		warmup, settled = a.phases()
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

// file is what of adapter_config.json decides what an adapter computes.
type file struct {
	Type       string          `json:"peft_type"`
	Base       string          `json:"base_model_name_or_path"`
	Rank       int             `json:"r"`
	Alpha      float64         `json:"lora_alpha"`
	Dropout    float64         `json:"lora_dropout"`
	Stabilised bool            `json:"use_rslora"`
	Decomposed bool            `json:"use_dora"`
	Ranks      json.RawMessage `json:"rank_pattern"`
	Bias       string          `json:"bias"`

	StartRank     int     `json:"init_r"`
	Target        int     `json:"target_r"`
	Warmup        int     `json:"tinit"`
	Final         int     `json:"tfinal"`
	Every         int     `json:"deltaT"`
	Updates       int     `json:"total_step"`
	Beta1         float64 `json:"beta1"`
	Beta2         float64 `json:"beta2"`
	Orthogonality float64 `json:"orth_reg_weight"`

	Length     int `json:"num_virtual_tokens"`
	Submodules int `json:"num_transformer_submodules"`

	Kind  string `json:"kind"`
	Width int    `json:"width"`
}

// notOurs are the fields of adapter_config.json that change what an adapter computes in ways
// that are not supported, unless they are null, false or empty.
var notOurs = []string{
	"alora_invocation_tokens", "alpha_pattern", "arrow_config", "fan_in_fan_out", "kasa_config", "layer_replication", "lora_bias", "monteclora_config",
	"prefix_projection", "target_parameters", "trainable_token_indices", "use_bdlora", "use_qalora", "velora_config",
}

func readFile(dir string) (file, error) {
	path := filepath.Join(dir, ConfigFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return file{}, fmt.Errorf("reading adapter config: %w", err)
	}
	var f file
	var all map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(text, &f), json.Unmarshal(text, &all)); err != nil {
		return file{}, fmt.Errorf("%s: %w", path, err)
	}
	var problems []error
	for _, name := range notOurs {
		if value := string(all[name]); !slices.Contains([]string{"", "null", "false", "{}", "[]"}, value) {
			problems = append(problems, fmt.Errorf("%s is %s, which is not supported", name, value))
		}
	}
	if f.Bias != "" && f.Bias != "none" {
		problems = append(problems, fmt.Errorf("bias is %q, want \"none\"", f.Bias))
	}
	if err := errors.Join(problems...); err != nil {
		return file{}, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// Base returns the base model that the adapter in a folder names.
func Base(dir string) (string, error) {
	f, err := readFile(dir)
	if err == nil && f.Base == "" {
		err = fmt.Errorf("%s has no base_model_name_or_path", filepath.Join(dir, ConfigFile))
	}
	return f.Base, err
}

// config returns the config that a file describes, without targets.
func (f file) config() (Config, error) {
	switch f.Type {
	case "LORA":
		c := Config{Kind: "lora", Rank: f.Rank, Alpha: f.Alpha, Dropout: f.Dropout}
		switch {
		case f.Stabilised && f.Decomposed:
			return c, errors.New("use_rslora and use_dora together are not supported")
		case f.Stabilised:
			c.Kind = "rslora"
		case f.Decomposed:
			c.Kind = "dora"
		}
		return c, nil
	case "ADALORA":
		orthogonality := f.Orthogonality
		if orthogonality == 0 {
			orthogonality = -1
		}
		return Config{Kind: "adalora", Rank: f.StartRank, Alpha: f.Alpha, Dropout: f.Dropout, Budget: &Budget{
			Target: f.Target, Warmup: f.Warmup, Final: f.Final, Every: f.Every, Beta1: f.Beta1, Beta2: f.Beta2, Orthogonality: orthogonality,
		}}, nil
	case "IA3":
		return Config{Kind: "ia3"}, nil
	case "PREFIX_TUNING", "PROMPT_TUNING":
		if f.Submodules > 1 {
			return Config{}, fmt.Errorf("num_transformer_submodules is %d, want 1", f.Submodules)
		}
		if f.Type == "PREFIX_TUNING" {
			return Config{Kind: "prefix", Length: f.Length}, nil
		}
		return Config{Kind: "prompt", Length: f.Length}, nil
	case "BOTTLENECK":
		return Config{Kind: f.Kind, Width: f.Width}, nil
	}
	return Config{}, fmt.Errorf("peft_type %q is not supported; supported: LORA, ADALORA, IA3, PREFIX_TUNING, PROMPT_TUNING", f.Type)
}

// Load reads an adapter in peft's layout from a folder into a model: its tensors, in place of
// those of another adapter, and the variables of the model that were trained beside. Which
// layers are adapted is what the tensors say. Every tensor must have its place in the model,
// with the right shape.
func Load(dir string, m *transformer.Model) (*Adapter, error) {
	a, err := load(dir, m)
	if err != nil {
		return nil, fmt.Errorf("loading adapter %s: %w", dir, err)
	}
	return a, nil
}

func load(dir string, m *transformer.Model) (*Adapter, error) {
	f, err := readFile(dir)
	if err != nil {
		return nil, err
	}
	config, err := f.config()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ConfigFile, err)
	}
	source, err := safetensors.Open(filepath.Join(dir, WeightsFile))
	if err != nil {
		return nil, err
	}
	defer source.Close()
	a, places, err := match(config, f, m.Config, source)
	if err != nil {
		return nil, err
	}
	if err := a.Create(m.Store, 0); err != nil {
		return nil, err
	}
	for _, v := range a.Variables() {
		if a.virtual != nil {
			break
		}
		value, err := source.Tensor(places[v.Path])
		if err != nil {
			return nil, err
		}
		if err := m.Store.GetVariable(v.Path).SetValue(value); err != nil {
			return nil, fmt.Errorf("setting %s: %w", v.Path, err)
		}
	}
	if a.virtual != nil {
		if err := a.split(source, m); err != nil {
			return nil, err
		}
	}
	for _, v := range a.beside {
		if err := pretrained.Import(m, v.Path, source, places[v.Path]); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// match finds the layers that a file adapts and the variables that it replaces. It returns the
// adapter and the tensor of each variable.
func match(config Config, f file, model transformer.Config, source *safetensors.File) (*Adapter, map[string]string, error) {
	names := source.Names()
	unused := map[string]bool{}
	for _, name := range names {
		unused[name] = true
	}
	base := model.Variables()
	prefix := layerPrefix
	if config.Kind == "prefix" || config.Kind == "prompt" {
		prefix = virtualPrefix
		delete(unused, promptTensor)
	}
	modules := map[string]string{} // by path
	config.Targets, config.Train = []string{}, []string{}
	for _, v := range denseMatrices(base) {
		name, err := moduleName(model, layerPath(v))
		if err != nil {
			return nil, nil, err
		}
		for _, suffix := range suffixes[config.Kind] {
			if slices.Contains(names, prefix+name+"."+suffix) {
				modules[layerPath(v)] = name
				config.Targets = append(config.Targets, v.Path)
				break
			}
		}
		if info, err := source.Info(prefix + name + ".ia3_l"); err == nil && len(info.Shape) == 2 && info.Shape[0] == 1 {
			config.Inputs = append(config.Inputs, v.Path)
		}
	}
	if config.Kind == "prefix" || config.Kind == "prompt" {
		config.Targets = nil
	} else if len(config.Targets) == 0 {
		return nil, nil, fmt.Errorf("%s has no tensor of kind %q for any layer of the model", WeightsFile, config.Kind)
	}
	places := map[string]string{}
	for _, v := range base {
		name, err := pretrained.TensorName(model, v.Path)
		if err != nil {
			return nil, nil, err
		}
		if name = prefix + name; unused[name] {
			config.Train = append(config.Train, v.Path)
			places[v.Path] = name
			delete(unused, name)
		}
	}
	a, err := newAdapter(config, base)
	if err != nil {
		return nil, nil, err
	}
	a.updates = f.Updates
	kept, err := f.kept()
	if err != nil {
		return nil, nil, err
	}
	var problems []error
	for i := range a.layers {
		l := &a.layers[i]
		module := modules[l.path]
		if info, err := source.Info(prefix + module + "." + suffixes[config.Kind]["lora_A"]); err == nil && len(info.Shape) == 2 {
			l.rank = info.Shape[0]
		}
		if pattern, ok := kept[module+".lora_E"]; ok {
			l.kept = pattern
		}
		for _, v := range methods[config.Kind].layer.variables(config.WithDefaults(), *l) {
			name := prefix + module + "." + suffixes[config.Kind][v.Path]
			delete(unused, name)
			places[Scope+l.path+"/"+v.Path] = name
			info, err := source.Info(name)
			if err != nil {
				problems = append(problems, fmt.Errorf("tensor %s is missing, want shape %v", name, v.Shape))
			} else if !slices.Equal(info.Shape, v.Shape) {
				problems = append(problems, fmt.Errorf("tensor %s has shape %v, want %v", name, info.Shape, v.Shape))
			} else if info.DType != dtypes.Float32 {
				problems = append(problems, fmt.Errorf("tensor %s has type %s, want F32", name, info.Format))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(unused)) {
		if info, _ := source.Info(name); slices.Contains(info.Shape, 0) {
			continue // of a layer whose rank is 0
		}
		problems = append(problems, fmt.Errorf("tensor %s belongs to no variable of the model or of kind %q", name, config.Kind))
	}
	return a, places, errors.Join(problems...)
}

// kept returns adalora's patterns of ranks, by the name of E.
func (f file) kept() (map[string][]bool, error) {
	if f.Type != "ADALORA" || len(f.Ranks) == 0 || string(f.Ranks) == "null" {
		return nil, nil
	}
	var kept map[string][]bool
	if err := json.Unmarshal(f.Ranks, &kept); err != nil {
		return nil, fmt.Errorf("rank_pattern: %w", err)
	}
	return kept, nil
}

// split takes the vectors of virtual tokens apart.
func (a *Adapter) split(source *safetensors.File, m *transformer.Model) error {
	tensor, err := source.Tensor(promptTensor)
	if err != nil {
		return err
	}
	widths := map[string]int{}
	total := 0
	for _, v := range a.virtual {
		widths[v.Path] = v.Shape[1]
		total += v.Shape[1]
	}
	if want := []int{a.config.Length, total}; !slices.Equal(tensor.Shape().Dimensions, want) {
		return fmt.Errorf("tensor %s has shape %v, want %v", promptTensor, tensor.Shape().Dimensions, want)
	}
	flat, err := tensors.CopyFlatData[float32](tensor)
	if err != nil {
		return err
	}
	from := 0
	for _, path := range a.virtualOrder(m.Config) {
		width := widths[path]
		part := make([]float32, 0, a.config.Length*width)
		for r := range a.config.Length {
			part = append(part, flat[r*total+from:r*total+from+width]...)
		}
		from += width
		if err := m.Store.GetVariable(Scope + path).SetValue(tensors.FromFlatDataAndDimensions(part, a.config.Length, width)); err != nil {
			return fmt.Errorf("setting %s: %w", path, err)
		}
	}
	return nil
}
