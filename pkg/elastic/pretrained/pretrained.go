// Package pretrained reads and writes checkpoints of published encoder families in
// the layout of Hugging Face: a folder with config.json and model.safetensors (or
// its shards).
//
// A family is one table that maps our variable paths to its tensor names
// (family.go). [Load] accounts for every variable and every tensor: a variable that
// the checkpoint does not have is an error unless it belongs to a head that the
// caller asked for anew, a tensor that the model does not know is an error, and every
// shape is compared before anything is copied. So no weight is ever random by
// accident. What [Files] writes, transformers loads, with the same logits.
//
// A model whose attention or pooling is not BERT's is written with a model_type that begins
// with "elastic-", so that no other program takes it for what it is not; its config.json holds
// the attention spec or the pooling, and the variables of its parts are tensors named
// "elastic.…".
package pretrained

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// The files of a checkpoint in Hugging Face layout.
const (
	ConfigFile  = "config.json"
	WeightsFile = "model.safetensors"
)

// Options says how a checkpoint is loaded.
type Options struct {
	// Head replaces the checkpoint's head; nil keeps it. The new head's variables begin
	// fresh, except a pooler's, which is read if the checkpoint has it.
	Head *transformer.Head
	// Attention takes the place of the checkpoint's attention; nil keeps it. Its Heads and
	// Dropout, if 0, are the checkpoint's. Variables of parts that the checkpoint does not have
	// begin fresh; projections must have the checkpoint's shapes.
	Attention *attention.Spec
	// Seed of the fresh variables of a new head or attention.
	Seed uint64
}

// Report says where a model's variables came from.
type Report struct {
	Family string   // model_type
	Loaded int      // variables read from the checkpoint
	Fresh  []string // paths of the variables of a new head and of new parts of attention
	Unused []string // names of tensors of the checkpoint that the model does not use
}

// Load reads a model from a folder. A bare encoder (BertModel) that was saved without its
// pooler has no head. Errors name the file, and the tensors and
// shapes that disagree.
func Load(dir string, options Options) (*transformer.Model, Report, error) {
	configPath := filepath.Join(dir, ConfigFile)
	data, err := os.ReadFile(configPath)
	if err != nil {
		return nil, Report{}, fmt.Errorf("reading model config: %w", err)
	}
	config, fam, err := readConfig(data)
	if err != nil {
		return nil, Report{}, fmt.Errorf("%s: %w", configPath, err)
	}
	report := Report{Family: familyOf(config)}
	original := config
	if options.Head != nil {
		if options.Head.Kind == transformer.Sequence && report.Family != "bert" {
			return nil, Report{}, fmt.Errorf("%s: a new head of kind %q is not supported for model_type %q, whose own head differs from BERT's", configPath, transformer.Sequence, report.Family)
		}
		config.Head = *options.Head
	}
	if options.Attention != nil {
		config.Attention = options.Attention.Over(original.Attention)
		if err := config.Validate(); err != nil {
			return nil, Report{}, fmt.Errorf("new attention for %s: %w", configPath, err)
		}
	}

	source, err := safetensors.OpenSharded(dir)
	if err != nil {
		return nil, Report{}, fmt.Errorf("opening weights: %w", err)
	}
	defer source.Close()
	if isPooler := func(name string) bool { return strings.Contains(name, "pooler.") }; options.Head == nil &&
		config.Head.Kind == transformer.Pooled && !slices.ContainsFunc(source.Names(), isPooler) {
		config.Head = transformer.Head{} // the same class, saved without its pooler
		original = config
	}
	places, err := account(source, fam, original, config, options, &report)
	if err != nil {
		return nil, Report{}, fmt.Errorf("weights in %s do not fit %s: %w", dir, ConfigFile, err)
	}
	model, err := transformer.New(config, options.Seed)
	if err != nil {
		return nil, Report{}, fmt.Errorf("%s: %w", configPath, err)
	}
	for i, v := range config.Variables() {
		if slices.Contains(report.Fresh, v.Path) {
			continue
		}
		value, err := readTensor(source, places[i])
		if err != nil {
			return nil, Report{}, fmt.Errorf("%s: %w", dir, err)
		}
		if err := model.Store.GetVariable(v.Path).SetValue(value); err != nil {
			return nil, Report{}, fmt.Errorf("setting %s: %w", v.Path, err)
		}
	}
	return model, report, nil
}

// resolve returns the place of each variable of a config, and whether the checkpoint
// is a bare encoder, without the family's prefix.
func resolve(source safetensors.Source, fam family, config transformer.Config) ([]place, bool, error) {
	bare := !slices.ContainsFunc(source.Names(), func(name string) bool { return strings.HasPrefix(name, fam.prefix) })
	variables := config.Variables()
	places := make([]place, len(variables))
	for i, v := range variables {
		at, err := fam.place(v.Path, bare)
		if err != nil {
			return nil, false, err
		}
		if _, err := source.Info(at.name); err != nil {
			at.name = oldName(source, at.name)
		}
		places[i] = at
	}
	return places, bare, nil
}

// oldName returns the name that TensorFlow's conversion gave to a normalisation's
// weights (gamma, beta) if the checkpoint has that, else the name itself.
func oldName(source safetensors.Source, name string) string {
	old := strings.Replace(strings.Replace(name, "LayerNorm.weight", "LayerNorm.gamma", 1), "LayerNorm.bias", "LayerNorm.beta", 1)
	if _, err := source.Info(old); err != nil {
		return name
	}
	return old
}

// account holds the checkpoint against the model, both ways, and fills the report. It
// reads no data. It returns the place of each variable.
func account(source safetensors.Source, fam family, original, config transformer.Config, options Options, report *Report) ([]place, error) {
	newHead := options.Head != nil
	places, bare, err := resolve(source, fam, config)
	if err != nil {
		return nil, err
	}
	var problems []error
	used := map[string]bool{}
	for i, v := range config.Variables() {
		at := places[i]
		info, err := source.Info(at.name)
		inHead := strings.HasPrefix(v.Path, "/head/")
		if newHead && inHead && (err != nil || !strings.HasPrefix(v.Path, "/head/pooler/")) {
			report.Fresh = append(report.Fresh, v.Path)
			continue
		}
		if err != nil && at.elastic && options.Attention != nil {
			report.Fresh = append(report.Fresh, v.Path)
			continue
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("tensor %s is missing, want shape %v", at.name, at.shape(v.Shape)))
			continue
		}
		used[at.name] = true
		if want := at.shape(v.Shape); !slices.Equal(info.Shape, want) {
			problems = append(problems, fmt.Errorf("tensor %s has shape %v, want %v", at.name, info.Shape, want))
		}
		if _, ok := readers[info.DType]; !ok {
			problems = append(problems, fmt.Errorf("tensor %s has type %s, want F32, F16 or BF16", at.name, info.Format))
		}
		report.Loaded++
	}
	// What the checkpoint's own head would use is known, though a new head does not need it.
	known := map[string]bool{}
	for _, kind := range []string{original.Head.Kind, transformer.Pooled} {
		head := original
		head.Head.Kind = kind
		if kind == transformer.Pooled && fam.names["head/pooler"] == "" {
			continue
		}
		ownPlaces, _, err := resolve(source, fam, head)
		if err != nil {
			return nil, err
		}
		for _, at := range ownPlaces {
			known[at.name] = true
		}
	}
	for _, name := range source.Names() {
		if used[name] {
			continue
		}
		short := name
		if !bare {
			short = strings.TrimPrefix(name, fam.prefix)
		}
		ignored := slices.ContainsFunc(fam.ignored, func(prefix string) bool { return strings.HasPrefix(short, prefix) })
		headOnly := strings.Contains(name, "pooler.") || !strings.HasPrefix(name, fam.prefix) && !bare
		switch {
		case ignored, known[name] && (newHead || headOnly), options.Attention != nil && strings.HasPrefix(name, elasticPrefix):
			report.Unused = append(report.Unused, name)
		default:
			problems = append(problems, fmt.Errorf("tensor %s is not part of the model that the config describes", name))
		}
	}
	const most = 8
	if len(problems) > most {
		problems = append(problems[:most], fmt.Errorf("and %d more", len(problems)-most))
	}
	return places, errors.Join(problems...)
}

// shape returns the shape that a variable has in the checkpoint.
func (p place) shape(ours []int) []int {
	if p.transposed {
		return []int{ours[1], ours[0]}
	}
	return ours
}

// readers turn the bytes of a tensor into float32, by type.
var readers = map[dtypes.DType]func(*tensors.Tensor) []float32{
	dtypes.Float32: func(t *tensors.Tensor) []float32 { return tensors.MustCopyFlatData[float32](t) },
	dtypes.Float16: func(t *tensors.Tensor) (out []float32) {
		tensors.MustConstFlatData(t, func(flat []float16.Float16) {
			out = make([]float32, len(flat))
			for i, v := range flat {
				out[i] = v.Float32()
			}
		})
		return out
	},
	dtypes.BFloat16: func(t *tensors.Tensor) (out []float32) {
		tensors.MustConstFlatData(t, func(flat []bfloat16.BFloat16) {
			out = make([]float32, len(flat))
			for i, v := range flat {
				out[i] = v.Float32()
			}
		})
		return out
	},
}

func readTensor(source safetensors.Source, at place) (*tensors.Tensor, error) {
	t, err := source.Tensor(at.name)
	if err != nil {
		return nil, err
	}
	if t.DType() == dtypes.Float32 && !at.transposed {
		return t, nil
	}
	data, dims := readers[t.DType()](t), t.Shape().Dimensions
	if at.transposed {
		data = transpose(data, dims[0], dims[1])
		dims = []int{dims[1], dims[0]}
	}
	return tensors.FromFlatDataAndDimensions(data, dims...), nil
}

// transpose turns rows×columns into columns×rows. It goes by small blocks, which stay in the cache.
func transpose(data []float32, rows, columns int) []float32 {
	const block = 32
	out := make([]float32, len(data))
	for r0 := 0; r0 < rows; r0 += block {
		for c0 := 0; c0 < columns; c0 += block {
			for r := r0; r < min(r0+block, rows); r++ {
				for c := c0; c < min(c0+block, columns); c++ {
					out[c*rows+r] = data[r*columns+c]
				}
			}
		}
	}
	return out
}

// TensorName returns the name under which [Files] writes the variable with a path.
func TensorName(c transformer.Config, path string) (string, error) {
	at, err := families[familyOf(c)].place(path, isBare(c))
	return at.name, err
}

// isBare reports whether a config is written as an encoder without a task head, whose
// tensors have no prefix.
func isBare(c transformer.Config) bool {
	return c.Head.Kind == transformer.NoHead || c.Head.Kind == transformer.Pooled
}

// Files returns the files of a model in Hugging Face layout: config.json and
// model.safetensors in float32. The model must not change until they are written.
func Files(m *transformer.Model) []checkpoint.File {
	return []checkpoint.File{
		{Name: ConfigFile, Write: func(w io.Writer) error {
			data, err := writeConfig(m.Config)
			if err == nil {
				_, err = w.Write(data)
			}
			return err
		}},
		{Name: WeightsFile, Write: func(w io.Writer) error { return writeWeights(w, m) }},
	}
}

func writeWeights(w io.Writer, m *transformer.Model) error {
	fam := families[familyOf(m.Config)]
	variables := m.Config.Variables()
	list := make([]safetensors.Named, len(variables))
	for i, v := range variables {
		at, err := fam.place(v.Path, isBare(m.Config))
		if err != nil {
			return err
		}
		value, err := m.Store.GetVariable(v.Path).Value()
		if err != nil {
			return fmt.Errorf("reading %s: %w", v.Path, err)
		}
		if at.transposed {
			var turned []float32
			err := tensors.ConstFlatData(value, func(flat []float32) { turned = transpose(flat, v.Shape[0], v.Shape[1]) })
			if err != nil {
				return fmt.Errorf("reading %s: %w", v.Path, err)
			}
			value = tensors.FromFlatDataAndDimensions(turned, v.Shape[1], v.Shape[0])
		}
		list[i] = safetensors.Named{Name: at.name, Tensor: value}
	}
	return safetensors.Write(w, list, map[string]string{"format": "pt"})
}

// ReadHead returns the head that a checkpoint's config describes: what the model is for, its
// labels, and the dropout rate that a new head would have. It reads no weights.
func ReadHead(dir string) (transformer.Head, error) {
	path := filepath.Join(dir, ConfigFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return transformer.Head{}, fmt.Errorf("reading model config: %w", err)
	}
	config, _, err := readConfig(data)
	if err != nil {
		return transformer.Head{}, fmt.Errorf("%s: %w", path, err)
	}
	return config.Head, nil
}
