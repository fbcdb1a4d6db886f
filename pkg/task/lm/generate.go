package lm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// Sampling says how text is written.
type Sampling struct {
	// Bytes is how many are written; 0 means 256.
	Bytes int `json:"bytes,omitempty"`
	// Temperature divides logits; 0 takes the most probable byte always.
	Temperature float64 `json:"temperature"`
	// TopK keeps the most probable bytes only; 0 keeps all.
	TopK int `json:"top_k,omitempty"`
	// TopP keeps the fewest bytes whose probabilities sum to at least that; 0 keeps all.
	// Source: Holtzman et al. 2020, "The curious case of neural text degeneration".
	TopP float64 `json:"top_p,omitempty"`
	// Seed of the draws: the same seed writes the same text.
	Seed uint64 `json:"seed"`
}

// Validate reports all that is wrong with s.
func (s Sampling) Validate() error {
	var problems []error
	if s.Bytes < 0 {
		problems = append(problems, fmt.Errorf("bytes is %d, want 0 or more", s.Bytes))
	}
	if !(s.Temperature >= 0) || math.IsInf(s.Temperature, 0) {
		problems = append(problems, fmt.Errorf("temperature is %g, want 0 or more", s.Temperature))
	}
	if s.TopK < 0 {
		problems = append(problems, fmt.Errorf("top_k is %d, want 0 or more", s.TopK))
	}
	if !(s.TopP >= 0 && s.TopP <= 1) {
		problems = append(problems, fmt.Errorf("top_p is %g, want 0 ≤ p ≤ 1", s.TopP))
	}
	return errors.Join(problems...)
}

// Generate writes on from a prompt, which it does not return. Each byte is one step with a cache of
// keys and values; when the model's context is full, the later half of it is read anew. Piece, if not nil, is
// given the text as it comes, in whole characters; U+FFFD takes the place of what is no UTF-8.
func (m *Model) Generate(ctx context.Context, prompt string, sampling Sampling, piece func(string)) (string, error) {
	if err := sampling.Validate(); err != nil {
		return "", fmt.Errorf("sampling: %w", err)
	}
	if prompt == "" {
		prompt = "\n" // a text begins after one
	}
	size := cmp.Or(sampling.Bytes, 256)
	m.mu.Lock()
	defer m.mu.Unlock()
	g, err := m.generator()
	if err != nil {
		return "", err
	}
	defer g.forget()
	text, read := []byte(prompt), max(0, len(prompt)-m.Context())
	begin := read // of what is in the cache
	random := rand.New(rand.NewPCG(sampling.Seed, 0))
	var written strings.Builder
	told := len(text)
	tell := func(all bool) {
		for told < len(text) && (all || utf8.FullRune(text[told:])) {
			r, width := utf8.DecodeRune(text[told:])
			told += width
			written.WriteRune(r)
			if piece != nil {
				piece(string(r))
			}
		}
	}
	var logits []float32
	for range size {
		if ctx.Err() != nil {
			tell(true)
			return written.String(), fmt.Errorf("writing stopped after %d of %d bytes: %w", len(text)-len(prompt), size, context.Cause(ctx))
		}
		if len(text)-begin > m.Context() {
			begin = len(text) - (m.Context()+1)/2
			read = begin
			g.forget()
		}
		for ; read < len(text); read++ {
			if logits, err = g.next(text[read], read-begin); err != nil {
				return written.String(), err
			}
		}
		text = append(text, sampling.choose(logits, random))
		tell(false)
	}
	tell(true)
	return written.String(), nil
}

// choose draws a byte.
func (s Sampling) choose(logits []float32, random *rand.Rand) byte {
	order := make([]int, len(logits))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(logits[b], logits[a]) })
	if s.Temperature == 0 {
		return byte(order[0])
	}
	if s.TopK > 0 {
		order = order[:min(s.TopK, len(order))]
	}
	p, sum := make([]float64, len(order)), 0.0
	for i, id := range order {
		p[i] = math.Exp(float64(logits[id]-logits[order[0]]) / s.Temperature)
		sum += p[i]
	}
	if s.TopP > 0 {
		kept := 0.0
		for i := range p {
			if kept += p[i]; kept >= s.TopP*sum {
				p, sum = p[:i+1], kept
				break
			}
		}
	}
	x := random.Float64() * sum
	for i := range p {
		if x -= p[i]; x < 0 {
			return byte(order[i])
		}
	}
	return byte(order[len(p)-1])
}

// generator computes a model step by step.
type generator struct {
	start, step *model.Exec
	state       []*tensors.Tensor
}

func (m *Model) generator() (*generator, error) {
	if m.steps != nil {
		return m.steps, nil
	}
	config := m.Transformer.Config
	slots, err := config.Slots(m.Context(), 1)
	if err != nil {
		return nil, err
	}
	g := &generator{}
	g.start, err = model.NewExec(m.backend, m.Transformer.Store, func(_ *model.Scope, in []*Node) []*Node {
		return flatten(config.NewCaches(in[0].Graph(), dtypes.Float32, 1, slots))
	})
	if err == nil {
		g.step, err = model.NewExec(m.backend, m.Transformer.Store, func(scope *model.Scope, in []*Node) []*Node {
			w := elastic.WeightsOf(scope.Store(), in[0].Graph())
			hidden, caches := config.Step(w, in[0], in[1], unflatten(in[2:]), transformer.Memory{})
			return append([]*Node{config.HeadLogits(w, hidden, nil)}, flatten(caches)...)
		})
	}
	if err != nil {
		return nil, fmt.Errorf("preparing to write: %w", err)
	}
	m.steps = g
	return g, nil
}

func flatten(caches []attention.Cache) []*Node {
	var nodes []*Node
	for _, c := range caches {
		nodes = append(nodes, c.Keys, c.Values, c.Positions)
	}
	return nodes
}

func unflatten(nodes []*Node) []attention.Cache {
	var caches []attention.Cache
	for c := range slices.Chunk(nodes, 3) {
		caches = append(caches, attention.Cache{Keys: c[0], Values: c[1], Positions: c[2]})
	}
	return caches
}

// next reads a byte at a position and returns the logits of the one behind it.
func (g *generator) next(b byte, position int) (logits []float32, err error) {
	var failure error
	err = exceptions.TryCatch[error](func() {
		if g.state == nil {
			if g.state, failure = g.start.Call(int32(0)); failure != nil {
				return
			}
		}
		args := []any{[][]int32{{int32(b)}}, int32(position)}
		for _, tensor := range g.state {
			args = append(args, tensor)
		}
		outputs, err := g.step.Call(args...)
		if err != nil {
			failure = err
			return
		}
		g.forget()
		logits, g.state = tensors.MustCopyFlatData[float32](outputs[0]), outputs[1:]
		outputs[0].MustFinalizeAll()
	})
	if err = errors.Join(err, failure); err != nil {
		return nil, fmt.Errorf("writing a byte: %w", err)
	}
	for _, v := range logits {
		if math.IsNaN(float64(v)) {
			return nil, errors.New("writing a byte: the model computes NaN: its weights are damaged, or its training diverged")
		}
	}
	return logits, nil
}

// forget empties the cache.
func (g *generator) forget() {
	for _, tensor := range g.state {
		tensor.MustFinalizeAll()
	}
	g.state = nil
}

func (g *generator) finalize() {
	g.forget()
	g.start.Finalize()
	g.step.Finalize()
}
