package backend

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/distributed"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/go-xla/compute/xla"
	"github.com/gomlx/go-xla/stablehlo"
)

// XLA may write a result over an input only if the program says, when it is
// compiled, that this input may be given away. GoMLX says so when it runs the
// program, which is too late: every training step then holds old and new values
// of all variables. go-xla has no function to say it earlier, so this file
// builds on two of its parts: stablehlo.Value.Attributes, which is exported, and
// the field "value" of xla.Node, which is not and is read by reflection.
// docs/design/0014-buffer-donation.md has the measurements and what we would
// ask go-xla for.

const (
	// donorAttribute is how StableHLO programs mark such an input.
	donorAttribute = "jax.buffer_donor"

	// variablePrefix begins the names of parameters that are a model's variables.
	variablePrefix = "/"

	// minDonation leaves scalars and the like alone: they save nothing.
	minDonation = 1 << 12
)

// withDonation wraps an XLA backend so that programs that replace variables may
// do it in place. It fails, and explains why, if go-xla is not built as expected.
func withDonation(engine *xla.Backend) (compute.Backend, error) {
	field, ok := reflect.TypeFor[xla.Node]().FieldByName("value")
	if want := reflect.TypeFor[*stablehlo.Value](); !ok || field.Type != want {
		return nil, fmt.Errorf("this version of go-xla hides what is needed (xla.Node has no field value of type %v)", want)
	}
	return &donatingBackend{Backend: engine}, nil
}

// inputValue returns the StableHLO value behind an input.
func inputValue(v compute.Value) (*stablehlo.Value, bool) {
	node, ok := v.(*xla.Node)
	if !ok || node == nil {
		return nil, false
	}
	value := (*stablehlo.Value)(reflect.ValueOf(node).Elem().FieldByName("value").UnsafePointer())
	return value, value != nil && value.OpName() == stablehlo.InputParameterName
}

// donatingBackend is XLA with programs that may overwrite the variables they replace.
// Its buffers name it as their backend, since GoMLX compares backends.
type donatingBackend struct{ *xla.Backend }

func (b *donatingBackend) Builder(name string) compute.Builder {
	builder, ok := b.Backend.Builder(name).(*xla.Builder)
	if !ok || builder == nil {
		return nil // as GoMLX's own does for a closed backend
	}
	return &donatingBuilder{Builder: builder, backend: b}
}

func (b *donatingBackend) BufferFromFlatData(device compute.DeviceNum, flat any, shape shapes.Shape) (compute.Buffer, error) {
	raw, err := b.Backend.BufferFromFlatData(device, flat, shape)
	return b.wrap(raw, err)
}

func (b *donatingBackend) NewSharedBuffer(device compute.DeviceNum, shape shapes.Shape) (compute.Buffer, any, error) {
	raw, flat, err := b.Backend.NewSharedBuffer(device, shape)
	buffer, err := b.wrap(raw, err)
	return buffer, flat, err
}

func (b *donatingBackend) wrap(raw compute.Buffer, err error) (compute.Buffer, error) {
	if err != nil {
		return nil, err
	}
	return &donatingBuffer{Buffer: raw, backend: b}, nil
}

type donatingBuffer struct {
	compute.Buffer
	backend *donatingBackend
}

func (b *donatingBuffer) Backend() compute.Backend { return b.backend }

func (b *donatingBuffer) CopyToDevice(device compute.DeviceNum) (compute.Buffer, error) {
	raw, err := b.Buffer.CopyToDevice(device)
	return b.backend.wrap(raw, err)
}

type donatingBuilder struct {
	*xla.Builder
	backend     *donatingBackend
	main        *donatingFunction
	distributed distributed.Strategy
}

func (b *donatingBuilder) Main() compute.Function {
	if b.main == nil {
		b.main = &donatingFunction{Function: b.Builder.Main(), builder: b}
	}
	return b.main
}

func (b *donatingBuilder) DistributedSPMD(devices int) error {
	b.distributed = distributed.SPMD
	return b.Builder.DistributedSPMD(devices)
}

func (b *donatingBuilder) DistributedAutoSharding(meshes ...compute.Mesh) error {
	b.distributed = distributed.AutoSharding
	return b.Builder.DistributedAutoSharding(meshes...)
}

// donatingFunction is the main function of a program; all others stay as they are.
type donatingFunction struct {
	compute.Function
	builder *donatingBuilder
	params  []param
	outputs []shapes.Shape
}

// param is an input of the program.
type param struct {
	value    compute.Value
	name     string
	shape    shapes.Shape
	variable bool // large enough to matter
	returned bool // as it is
}

func (f *donatingFunction) Builder() compute.Builder { return f.builder }

func (f *donatingFunction) Parameter(name string, shape shapes.Shape, sharding *compute.ShardingSpec) (compute.Value, error) {
	value, err := f.Function.Parameter(name, shape, sharding)
	if err != nil {
		return nil, err
	}
	f.params = append(f.params, param{
		value: value, name: name, shape: shape,
		variable: strings.HasPrefix(name, variablePrefix) && shape.Ok() && shape.ByteSize() >= minDonation,
	})
	return value, nil
}

func (f *donatingFunction) Return(outputs []compute.Value, shardings []*compute.ShardingSpec) error {
	for _, output := range outputs {
		shape, err := f.Function.Shape(output)
		if err != nil {
			return err
		}
		f.outputs = append(f.outputs, shape)
		for i := range f.params {
			f.params[i].returned = f.params[i].returned || f.params[i].value == output
		}
	}
	return f.Function.Return(outputs, shardings)
}

// expected guesses from shapes which variables the program replaces: GoMLX returns
// the new value of each as an output. It is sure only if for each shape there are at least as many
// outputs as variables, or none.
func (f *donatingFunction) expected() (donate []bool, sure bool) {
	donate, sure = make([]bool, len(f.params)), true
	for i, p := range f.params {
		if !p.variable {
			continue
		}
		variables, results := 0, 0
		for _, q := range f.params {
			if q.variable && q.shape.Equal(p.shape) {
				variables++
			}
		}
		for _, output := range f.outputs {
			if output.Equal(p.shape) {
				results++
			}
		}
		donate[i] = results > 0
		sure = sure && (results == 0 || results >= variables)
	}
	return donate, sure
}

// compile compiles the program with exactly these inputs marked.
func (b *donatingBuilder) compile(donate []bool) (compute.Executable, []bool, error) {
	marked := make([]bool, len(b.main.params))
	for i, p := range b.main.params {
		value, ok := inputValue(p.value)
		if !ok {
			continue
		}
		delete(value.Attributes, donorAttribute)
		if donate[i] && p.variable && !p.returned {
			if value.Attributes == nil {
				value.Attributes = make(map[string]any)
			}
			value.Attributes[donorAttribute] = true
			marked[i] = true
		}
	}
	exec, err := b.Builder.Compile()
	return exec, marked, err
}

// Compile compiles at once if it is plain which variables the program replaces. If
// not, the first execution, which says it, compiles.
func (b *donatingBuilder) Compile() (compute.Executable, error) {
	e := &donatingExecutable{backend: b.backend, builder: b}
	if b.main == nil || b.distributed != distributed.None {
		raw, err := b.Builder.Compile()
		if err != nil {
			return nil, err
		}
		e.raw, e.builder = raw, nil
		return e, nil
	}
	donate, sure := b.main.expected()
	if !sure {
		return e, nil
	}
	if err := e.compile(donate); err != nil {
		return nil, err
	}
	return e, nil
}

// donatingExecutable keeps the promise of the marks: a marked input is always given away.
type donatingExecutable struct {
	backend *donatingBackend

	mu      sync.Mutex
	raw     compute.Executable
	old     []compute.Executable // replaced by raw
	marked  []bool
	builder *donatingBuilder // to compile again; nil if nothing is marked
}

func (e *donatingExecutable) compile(donate []bool) error {
	raw, marked, err := e.builder.compile(donate)
	if err != nil {
		return err
	}
	if e.raw != nil {
		e.old = append(e.old, e.raw) // somebody may be executing it right now
	}
	e.raw, e.marked = raw, marked
	if !slices.Contains(marked, true) {
		e.builder = nil
	}
	return nil
}

func (e *donatingExecutable) Finalize() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, exec := range append(e.old, e.raw) {
		if exec != nil {
			exec.Finalize()
		}
	}
	e.raw, e.old, e.builder = nil, nil, nil
}

func (e *donatingExecutable) Inputs() (names []string, inputs []shapes.Shape) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.raw != nil || e.builder == nil {
		return e.raw.Inputs()
	}
	for _, p := range e.builder.main.params {
		names, inputs = append(names, stablehlo.NormalizeIdentifier(p.name)), append(inputs, p.shape)
	}
	return names, inputs
}

func (e *donatingExecutable) Outputs() []shapes.Shape {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.raw != nil || e.builder == nil {
		return e.raw.Outputs()
	}
	return slices.Clone(e.builder.main.outputs)
}

func (e *donatingExecutable) Execute(inputs []compute.Buffer, donate []bool, device compute.DeviceNum) ([]compute.Buffer, error) {
	raw, err := e.ready(len(inputs), donate)
	if err != nil {
		return nil, err
	}
	unwrapped := make([]compute.Buffer, len(inputs))
	for i, input := range inputs {
		unwrapped[i] = input
		if wrapped, ok := input.(*donatingBuffer); ok {
			unwrapped[i] = wrapped.Buffer
		}
	}
	outputs, err := raw.Execute(unwrapped, donate, device)
	if err != nil {
		return nil, err
	}
	for i, output := range outputs {
		outputs[i] = &donatingBuffer{Buffer: output, backend: e.backend}
	}
	return outputs, nil
}

// ready returns a program in which no input is marked that this execution keeps.
func (e *donatingExecutable) ready(inputs int, donate []bool) (compute.Executable, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.builder == nil && e.raw == nil:
		return nil, fmt.Errorf("executable is already finalized")
	case e.builder == nil:
		return e.raw, nil
	}
	given := make([]bool, len(e.builder.main.params))
	if len(donate) == len(given) && inputs == len(given) {
		copy(given, donate)
	}
	compile := e.raw == nil
	for i, marked := range e.marked {
		compile = compile || (marked && !given[i])
	}
	if compile {
		for i := range given { // once kept, never marked again: two kinds of callers must not compile in turns
			given[i] = given[i] && (e.raw == nil || e.marked[i])
		}
		if err := e.compile(given); err != nil {
			return nil, err
		}
	}
	return e.raw, nil
}
