package peft

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/strictjson"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// file is what of adapter_config.json decides what an adapter computes.
type file struct {
	Type       string          `json:"peft_type"`
	Base       string          `json:"base_model_name_or_path"`
	Rank       int             `json:"r"`
	Alpha      *float64        `json:"lora_alpha"`
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

// changesBase are the beginnings of names of initialisations after which the base model is another.
var changesBase = []string{"pissa", "olora", "corda", "loftq", "lora_ga"}

func readFile(dir string) (file, error) {
	path := filepath.Join(dir, ConfigFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return file{}, fmt.Errorf("reading adapter config: %w", err)
	}
	var f file
	var all map[string]json.RawMessage
	if err := errors.Join(strictjson.DecodeKnown(text, &f), strictjson.DecodeKnown(text, &all)); err != nil {
		return file{}, fmt.Errorf("%s: %w", path, err)
	}
	var problems []error
	for _, name := range notOurs {
		if value := string(all[name]); !slices.Contains([]string{"", "null", "false", "{}", "[]"}, value) {
			problems = append(problems, fmt.Errorf("%s is %s, which is not supported", name, value))
		}
	}
	var start string // true and false are no strings, and change no weights of the base
	if json.Unmarshal(all["init_lora_weights"], &start) == nil && slices.ContainsFunc(changesBase, func(name string) bool { return strings.HasPrefix(start, name) }) {
		problems = append(problems, fmt.Errorf("init_lora_weights is %q, which changes the weights of the base model; save the adapter converted to plain LoRA", start))
	}
	if f.Alpha == nil {
		f.Alpha = new(float64)
		*f.Alpha = 8 // peft's default
	} else if *f.Alpha == 0 {
		problems = append(problems, errors.New("lora_alpha is 0, by which the adapter does nothing"))
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
		c := Config{Kind: "lora", Rank: f.Rank, Alpha: *f.Alpha, Dropout: f.Dropout}
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
		return Config{Kind: "adalora", Rank: f.StartRank, Alpha: *f.Alpha, Dropout: f.Dropout, Budget: &Budget{
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
