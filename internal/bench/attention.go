package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
)

// headDim is the width of a head of the workloads attn and memory.
const headDim = 64

// parseSpec reads the spec of an attention workload.
func parseSpec(text string) (attention.Spec, error) {
	var spec attention.Spec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return spec, err
	}
	if spec.Heads == 0 {
		spec.Heads = 8
	}
	return spec, spec.Validate(spec.Heads * headDim)
}

// timeAttention times attention over one text of o.seq tokens; a call ends when the output, or with
// o.train the gradients of its sum, is on the host.
func timeAttention(engine compute.Backend, text string, o options) (result, error) {
	spec, err := parseSpec(text)
	if err != nil {
		return result{}, err
	}
	sizes := spec.Sizes(spec.Heads * headDim)
	store, err := elastic.NewStore(elastic.Under("", spec.Variables(sizes.Hidden, 0.02)), 1)
	if err != nil {
		return result{}, err
	}
	exec, err := model.NewExec(engine, store, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		q, k, v := in[0], in[1], in[2]
		x := graph.Reshape(q, 1, o.seq, sizes.Heads*headDim)
		y := attention.Attend(spec, elastic.WeightsOf(scope.Store(), q.Graph()), q, k, v, attention.Inputs{X: x}).Output
		if !o.train {
			return []*graph.Node{y}
		}
		return graph.Gradient(graph.ReduceAllSum(y), q, k, v)
	})
	if err != nil {
		return result{}, err
	}
	defer exec.Finalize()
	q := hashed(1, o.seq, sizes.Heads)
	k, v := hashed(2, o.seq, sizes.KVHeads), hashed(3, o.seq, sizes.KVHeads)
	r := result{Workload: fmt.Sprintf("attn-l%d", o.seq), Shape: fmt.Sprintf("L%d", o.seq)}
	if o.train {
		r.Workload += "-train"
	}
	watch := stopwatch{warm: o.warm}
	for range 1 + o.warm + o.n {
		watch.start()
		outputs, _, err := exec.CallWithGraph(q, k, v)
		if err != nil {
			return result{}, err
		}
		r.Check = 0
		for _, output := range outputs {
			flat, err := tensors.CopyFlatData[float32](output)
			if err != nil {
				return result{}, err
			}
			output.MustFinalizeAll()
			watch.pause()
			for _, x := range flat {
				r.Check += math.Abs(float64(x))
			}
			watch.resume()
		}
		watch.stop()
	}
	watch.fill(&r)
	return r, nil
}

// hashed returns [1, length, heads, 64] in [−1, 1): those of the peers, which are [1, heads, length, 64].
func hashed(salt uint32, length, heads int) *tensors.Tensor {
	flat := make([]float32, length*heads*headDim)
	for h := range heads {
		for l := range length {
			for d := range headDim {
				x := uint32((h*length+l)*headDim+d)*2654435761 + salt*2246822519
				x ^= x >> 15
				x *= 2246822519
				x ^= x >> 13
				flat[(l*heads+h)*headDim+d] = float32(int32(x)) / 2147483648
			}
		}
	}
	return tensors.FromFlatDataAndDimensions(flat, 1, length, heads, headDim)
}

// memoryResult is the JSON line of the workload memory.
type memoryResult struct {
	Spec  string  `json:"spec"`
	Seq   int     `json:"seq"`
	MiB   float64 `json:"mib"`     // what XLA reserves for the gradient's program, inputs and outputs included
	First float64 `json:"first_s"` // its first call, with compilation
}

// reportMemory runs the workload attn with --train in a process of its own, in which XLA writes down
// what it reserves.
func reportMemory(ctx context.Context, text string, o options) error {
	if _, err := parseSpec(text); err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "elastic-memory-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, self, "attn", text, "--train", "--seq", strconv.Itoa(o.seq), "--n", "1", "--warm", "0", "--backend", o.backend)
	command.Env = append(os.Environ(), "XLA_FLAGS="+strings.TrimSpace(os.Getenv("XLA_FLAGS")+" --xla_dump_to="+folder))
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		return fmt.Errorf("running %q: %w", command.Args, err)
	}
	var timed result
	if err := json.Unmarshal(output, &timed); err != nil {
		return fmt.Errorf("reading %s: %w", output, err)
	}
	bytes, err := reserved(folder)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(memoryResult{Spec: text, Seq: o.seq, MiB: bytes / (1 << 20), First: timed.First})
}

// reserved returns the greatest "Total bytes" of the memory reports in a folder.
func reserved(folder string) (float64, error) {
	reports, err := filepath.Glob(filepath.Join(folder, "*memory-usage-report*"))
	if err != nil {
		return 0, err
	}
	greatest := 0.0
	for _, name := range reports {
		file, err := os.Open(name)
		if err != nil {
			return 0, err
		}
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if _, after, ok := strings.Cut(lines.Text(), "Total bytes"); ok {
				number, _, _ := strings.Cut(strings.Trim(after, " :"), " ")
				bytes, err := strconv.ParseFloat(strings.ReplaceAll(number, ",", ""), 64)
				if err != nil {
					return 0, errors.Join(err, file.Close())
				}
				greatest = max(greatest, bytes)
				break
			}
		}
		if err := file.Close(); err != nil {
			return 0, err
		}
	}
	if greatest == 0 {
		return 0, errors.New("XLA wrote no memory report; the workload memory needs the XLA backend")
	}
	return greatest, nil
}
