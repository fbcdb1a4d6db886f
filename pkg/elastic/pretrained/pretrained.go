// Package pretrained reads and writes checkpoints of published families (BERT, RoBERTa,
// DistilBERT, GPT-2, BART) in the layout of Hugging Face: a folder with config.json and
// model.safetensors (or its shards).
//
// A family is one table that maps our variable paths to its tensor names
// (family.go). [Load] accounts for every variable and every tensor: a variable that
// the checkpoint does not have is an error unless it belongs to a head that the
// caller asked for anew, a tensor that the model does not know is an error, and every
// shape is compared before anything is copied. So no weight is ever random by
// accident. What [Files] writes, transformers loads, with the same logits.
//
// A model whose attention, structure or pooling is not its family's is written with a model_type
// that begins with "elastic-", so that no other program takes it for what it is not; its
// config.json holds the attention spec, the structure and the pooling, and the variables of their
// parts are tensors named "elastic.…".
package pretrained

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/pkg/elastic"
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
	// Depth takes the place of the checkpoint's; nil keeps it. Its variables begin fresh unless
	// the checkpoint has them.
	Depth *transformer.Depth
	// Experts takes the place of the checkpoint's; nil keeps it. Experts of a checkpoint that
	// has none all begin as its feed-forward part, so that the model computes what it did; only
	// the router is fresh. That needs weights that add up to 1, so not Experts.Switch.
	//
	// Source: Komatsuzaki et al. 2023, "Sparse upcycling".
	Experts *transformer.Experts
	// Seed of the fresh variables of a new head, attention or structure.
	Seed uint64
}

// changes tells whether parts that are the checkpoint's own are replaced.
func (o Options) changes() bool { return o.Attention != nil || o.Depth != nil || o.Experts != nil }

// Report says where a model's variables came from.
type Report struct {
	Family string   // model_type
	Loaded int      // variables read from the checkpoint
	Fresh  []string // paths of the variables of a new head and of new parts
	Unused []string // names of tensors of the checkpoint that the model does not use
}

// Load reads a model from a folder. A bare encoder (BertModel) that was saved without its
// pooler has no head. Errors name the file, and the tensors and
// shapes that disagree.
func Load(dir string, options Options) (*transformer.Model, Report, error) {
	if err := checkpoint.CheckSchema(dir); err != nil {
		return nil, Report{}, err
	}
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
	}
	if options.Depth != nil {
		config.Depth = options.Depth
	}
	if options.Experts != nil {
		config.Experts = options.Experts
	}
	if options.changes() {
		if err := config.Validate(); err != nil {
			return nil, Report{}, fmt.Errorf("new parts for %s: %w", configPath, err)
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
	if err := onlyZeros(source, fam); err != nil {
		return nil, Report{}, fmt.Errorf("weights in %s: %w", dir, err)
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
		if err != nil && options.Experts != nil {
			if at, err = dense(fam, v, at, bare); err != nil {
				return nil, err
			}
			if info, err = source.Info(at.name); at.copies > 0 && options.Experts.Switch {
				return nil, errors.New("experts.switch weighs an expert by its probability, so that experts which begin as the dense part would not compute what it does; want experts without switch")
			}
			places[i] = at
		}
		inHead := strings.HasPrefix(v.Path, "/head/") || strings.HasPrefix(v.Path, "/depth/exit_")
		if newHead && inHead && (err != nil || !strings.HasPrefix(v.Path, "/head/pooler/")) {
			report.Fresh = append(report.Fresh, v.Path)
			continue
		}
		if err != nil && at.elastic && options.changes() {
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
		ignored := slices.Contains(fam.zeros, name) || slices.ContainsFunc(fam.ignored, func(pattern string) bool {
			matched, _ := path.Match(pattern, short)
			return matched || strings.HasPrefix(short, pattern)
		})
		headOnly := strings.Contains(name, "pooler.") || !strings.HasPrefix(name, fam.prefix) && !bare
		switch {
		case ignored, known[name] && (newHead || headOnly), options.changes() && strings.HasPrefix(name, elasticPrefix):
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

// dense returns, for a variable of an expert, the place of the dense part that it is to be a
// copy of, and at for any other.
func dense(fam family, v elastic.Variable, at place, bare bool) (place, error) {
	before, after, ok := strings.Cut(v.Path, "/experts/")
	if !ok {
		return at, nil
	}
	at, err := fam.place(before+"/"+after, bare)
	at.copies = v.Shape[0]
	return at, err
}

// onlyZeros refuses tensors that our model does not have, unless they add nothing.
func onlyZeros(source safetensors.Source, fam family) error {
	for _, name := range fam.zeros {
		if !slices.Contains(source.Names(), name) {
			continue
		}
		value, err := readTensor(source, place{name: name})
		if err != nil {
			return err
		}
		if slices.ContainsFunc(tensors.MustCopyFlatData[float32](value), func(x float32) bool { return x != 0 }) {
			return fmt.Errorf("tensor %s is not 0, which is not supported", name)
		}
	}
	return nil
}

// shape returns the shape that the tensor of a variable has in the checkpoint.
func (p place) shape(ours []int) []int {
	shape := slices.Clone(ours)
	if p.copies > 0 {
		shape = shape[1:]
	}
	if p.transposed {
		shape[0], shape[1] = shape[1], shape[0]
	}
	if p.parts > 0 {
		shape[len(shape)-1] *= p.parts
	}
	return shape
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
	if t.DType() == dtypes.Float32 && !at.transposed && at.parts == 0 && at.copies == 0 {
		return t, nil
	}
	read, ok := readers[t.DType()]
	if !ok {
		return nil, fmt.Errorf("tensor %s has type %s, want F32, F16 or BF16", at.name, t.DType())
	}
	data, dims := read(t), slices.Clone(t.Shape().Dimensions)
	if at.transposed {
		data = transpose(data, dims[0], dims[1])
		dims = []int{dims[1], dims[0]}
	}
	if at.parts > 0 {
		last := len(dims) - 1
		whole := dims[last]
		dims[last] /= at.parts
		var own []float32
		for row := at.part * dims[last]; row < len(data); row += whole {
			own = append(own, data[row:row+dims[last]]...)
		}
		data = own
	}
	if at.copies > 0 {
		data, dims = slices.Repeat(data, at.copies), slices.Insert(dims, 0, at.copies)
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
	var list []safetensors.Named
	joined := map[string][]*tensors.Tensor{} // parts of a tensor so far
	for _, v := range m.Config.Variables() {
		at, err := fam.place(v.Path, isBare(m.Config))
		if err != nil {
			return err
		}
		one, err := export(m, v.Path, at)
		if err != nil {
			return err
		}
		if at.parts > 0 { // they come in their order
			joined[at.name] = append(joined[at.name], one.Tensor)
			if len(joined[at.name]) < at.parts {
				continue
			}
			if one.Tensor, err = join(joined[at.name]); err != nil {
				return fmt.Errorf("tensor %s: %w", at.name, err)
			}
		}
		list = append(list, one)
	}
	return safetensors.Write(w, list, map[string]string{"format": "pt"})
}

// join puts tensors of one shape side by side along the last axis.
func join(parts []*tensors.Tensor) (*tensors.Tensor, error) {
	dims := slices.Clone(parts[0].Shape().Dimensions)
	last := len(dims) - 1
	width := dims[last]
	var flat [][]float32
	for _, part := range parts {
		if !slices.Equal(part.Shape().Dimensions, dims) {
			return nil, fmt.Errorf("parts are %s and %s, want equal shapes", parts[0].Shape(), part.Shape())
		}
		data, err := tensors.CopyFlatData[float32](part)
		if err != nil {
			return nil, err
		}
		flat = append(flat, data)
	}
	var data []float32
	for row := 0; row < len(flat[0]); row += width {
		for _, part := range flat {
			data = append(data, part[row:row+width]...)
		}
	}
	dims[last] *= len(parts)
	return tensors.FromFlatDataAndDimensions(data, dims...), nil
}

// Export returns a variable of a model as a checkpoint has it, under its name there and turned
// as there.
func Export(m *transformer.Model, path string) (safetensors.Named, error) {
	at, err := placeOf(m, path)
	if err != nil {
		return safetensors.Named{}, err
	}
	return export(m, path, at)
}

// placeOf returns where a variable is in a checkpoint, by itself.
func placeOf(m *transformer.Model, path string) (place, error) {
	at, err := families[familyOf(m.Config)].place(path, isBare(m.Config))
	if err == nil && at.parts > 0 {
		err = fmt.Errorf("variable %s is part of the tensor %s", path, at.name)
	}
	return at, err
}

func export(m *transformer.Model, path string, at place) (safetensors.Named, error) {
	value, err := m.Store.GetVariable(path).Value()
	if err == nil && at.transposed {
		dims := value.Shape().Dimensions
		var turned []float32
		err = tensors.ConstFlatData(value, func(flat []float32) { turned = transpose(flat, dims[0], dims[1]) })
		value = tensors.FromFlatDataAndDimensions(turned, dims[1], dims[0])
	}
	if err != nil {
		return safetensors.Named{}, fmt.Errorf("reading %s: %w", path, err)
	}
	return safetensors.Named{Name: at.name, Tensor: value}, nil
}

// Import sets a variable of a model from the file that has it as [Export] gives it.
func Import(m *transformer.Model, path string, source safetensors.Source, name string) error {
	at, err := placeOf(m, path)
	if err != nil {
		return err
	}
	variable := m.Store.GetVariable(path)
	info, err := source.Info(name)
	if err != nil {
		return err
	}
	if want := at.shape(variable.Shape().Dimensions); !slices.Equal(info.Shape, want) {
		return fmt.Errorf("tensor %s has shape %v, want %v", name, info.Shape, want)
	}
	if _, ok := readers[info.DType]; !ok {
		return fmt.Errorf("tensor %s has type %s, want F32, F16 or BF16", name, info.Format)
	}
	at.name = name
	value, err := readTensor(source, at)
	if err != nil {
		return err
	}
	return variable.SetValue(value)
}

// ReadConfig reads the config.json of a folder.
func ReadConfig(dir string) (transformer.Config, error) {
	if err := checkpoint.CheckSchema(dir); err != nil {
		return transformer.Config{}, err
	}
	path := filepath.Join(dir, ConfigFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return transformer.Config{}, fmt.Errorf("reading model config: %w", err)
	}
	config, _, err := readConfig(data)
	if err != nil {
		return transformer.Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return config, nil
}

// ReadHead returns the head that a checkpoint's config describes: what the model is for, its
// labels, and the dropout rate that a new head would have. It reads no weights.
func ReadHead(dir string) (transformer.Head, error) {
	config, err := ReadConfig(dir)
	return config.Head, err
}
