package transformer_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

func pooled(kind string) transformer.Config {
	config := small()
	config.Head = transformer.Head{Kind: transformer.Sequence, Labels: []string{"a", "b", "c"}, Pooling: kind}
	return config
}

// headOf computes a sequence head in float64, as its definition says: pooling of u [length][hidden],
// tanh(W·h+b), classifier.
func headOf(t *testing.T, m *transformer.Model, u [][]float64) []float64 {
	t.Helper()
	weights := func(path string) []float64 {
		value, err := m.Store.GetVariable(path).Value()
		if err != nil {
			t.Fatal(err)
		}
		var wide []float64
		for _, v := range tensors.MustCopyFlatData[float32](value) {
			wide = append(wide, float64(v))
		}
		return wide
	}
	hidden := len(u[0])
	h := slices.Clone(u[0])
	switch m.Config.Head.Pooling {
	case "mean", "attention":
		w := make([]float64, hidden)
		if m.Config.Head.Pooling == "attention" {
			w = weights("/head/pooling/w")
		}
		h = make([]float64, hidden)
		sum := 0.0
		for _, token := range u {
			score := 0.0
			for i := range token {
				score += w[i] * token[i]
			}
			sum += math.Exp(score)
			for i := range token {
				h[i] += math.Exp(score) * token[i]
			}
		}
		for i := range h {
			h[i] /= sum
		}
	}
	dense := func(x []float64, scope string) []float64 {
		matrix, bias := weights(scope+"/weights"), weights(scope+"/bias")
		y := slices.Clone(bias)
		for i := range x {
			for j := range y {
				y[j] += x[i] * matrix[i*len(y)+j]
			}
		}
		return y
	}
	p := dense(h, "/head/pooler")
	for i := range p {
		p[i] = math.Tanh(p[i])
	}
	return dense(p, "/head/classifier")
}

// TestPooling holds each pooling, forward and gradient, against a plain computation: two texts of
// unequal length, packed into one row and unpacked, and padded to one length. The gradient of the
// pooling vector and of the hidden states is held against differences of that computation.
func TestPooling(t *testing.T) {
	for _, kind := range []string{"", "cls", "mean", "attention"} {
		config := pooled(kind)
		m, err := transformer.New(config, 3)
		if err != nil {
			t.Fatal(err)
		}
		hidden := config.Hidden
		if kind == "attention" {
			w := make([]float32, hidden)
			for i := range w {
				w[i] = float32(math.Sin(float64(i + 1)))
			}
			if err := m.Store.GetVariable("/head/pooling/w").SetValue(tensors.FromFlatDataAndDimensions(w, hidden)); err != nil {
				t.Fatal(err)
			}
		}
		const first, second, length = 3, 2, 6 // tokens of the texts, and of their row
		u := make([]float32, length*hidden)
		for i := range u {
			u[i] = float32(math.Cos(float64(3 * i)))
		}
		text := func(from, count int) [][]float64 {
			rows := make([][]float64, count)
			for i := range rows {
				for _, v := range u[(from+i)*hidden : (from+i+1)*hidden] {
					rows[i] = append(rows[i], float64(v))
				}
			}
			return rows
		}
		// The third text is not there.
		out, err := model.CallOnceN(gxtest.Backend(t), m.Store, func(scope *model.Scope, u, starts, lengths *Node) []*Node {
			w := elastic.WeightsOf(scope.Store(), u.Graph())
			tokens, mask := transformer.Unpack(u, starts, lengths)
			logits := config.MaskedHeadLogits(w, tokens, mask, nil)
			there := Slice(logits, AxisRange(0, 2))
			of := []*Node{u}
			if kind == "attention" {
				of = append(of, w.In("head").In("pooling").At("w"))
			}
			return append([]*Node{there}, Gradient(ReduceAllSum(Square(there)), of...)...)
		}, tensors.FromFlatDataAndDimensions(slices.Clone(u), 1, length, hidden), []int32{0, first, 0}, []int32{first, second, 0})
		if err != nil {
			t.Fatal(err)
		}
		compute := func() []float64 {
			return slices.Concat(headOf(t, m, text(0, first)), headOf(t, m, text(first, second)))
		}
		want := compute()
		gxtest.Close(t, tensors.MustCopyFlatData[float32](out[0]), want, 2e-5)

		objective := func() (sum float64) {
			for _, v := range compute() {
				sum += v * v
			}
			return sum
		}
		const step = 1.0 / 256
		difference := func(at *float32) float64 {
			before := *at
			*at = before + step
			up := objective()
			*at = before - step
			down := objective()
			*at = before
			return (up - down) / (2 * step)
		}
		gradient := tensors.MustCopyFlatData[float32](out[1])
		for _, i := range []int{0, 5, hidden + 1, 2*hidden + 7, 3 * hidden, 4*hidden + 9, 5 * hidden} {
			gxtest.Close(t, gradient[i], difference(&u[i]), 2e-3)
		}
		if kind == "attention" {
			got := tensors.MustCopyFlatData[float32](out[2])
			variable := m.Store.GetVariable("/head/pooling/w")
			w := tensors.MustCopyFlatData[float32](variable.MustValue())
			moved := func(i int, by float32) float64 {
				changed := slices.Clone(w)
				changed[i] += by
				if err := variable.SetValue(tensors.FromFlatDataAndDimensions(changed, hidden)); err != nil {
					t.Fatal(err)
				}
				return objective()
			}
			for _, i := range []int{0, 3, hidden - 1} {
				gxtest.Close(t, got[i], (moved(i, step)-moved(i, -step))/(2*step), 2e-3)
			}
		}
	}
}

// TestPoolingIgnoresPadding: a text has the same logits alone and padded, whatever its pooling,
// and a fresh attention pooling is mean pooling.
func TestPoolingIgnoresPadding(t *testing.T) {
	var mean []float32
	for _, kind := range []string{"cls", "mean", "attention"} {
		m, err := transformer.New(pooled(kind), 1)
		if err != nil {
			t.Fatal(err)
		}
		alone, err := logits(t, m, [][]int32{{5, 9, 7}}, [][]int32{{1, 1, 1}})
		if err != nil {
			t.Fatal(err)
		}
		padded, err := logits(t, m, [][]int32{{5, 9, 7, 0, 0}, {0, 0, 0, 0, 0}}, [][]int32{{1, 1, 1, 0, 0}, {0, 0, 0, 0, 0}})
		if err != nil {
			t.Fatal(err)
		}
		gxtest.Close(t, padded[:len(alone)], alone, 1e-5)
		for _, v := range padded {
			if math.IsNaN(float64(v)) {
				t.Errorf("%s: a row of padding gives %v", kind, padded)
			}
		}
		switch kind {
		case "mean":
			mean = alone
		case "attention":
			gxtest.Close(t, alone, mean, 1e-6)
		}
	}
}

func TestPoolingIsChecked(t *testing.T) {
	config := pooled("max")
	if err := config.Validate(); err == nil || !strings.Contains(err.Error(), `head.pooling "max" is unknown; known: attention, cls, mean`) {
		t.Errorf("unknown pooling: %v", err)
	}
	config = small()
	config.Head.Pooling = "mean"
	if err := config.Validate(); err == nil || !strings.Contains(err.Error(), `head.pooling is for head.kind "sequence" only, not "tokens"`) {
		t.Errorf("pooling of tokens: %v", err)
	}
	m, err := transformer.New(pooled("mean"), 1)
	if err != nil {
		t.Fatal(err)
	}
	_, err = model.CallOnce(gxtest.Backend(t), m.Store, func(scope *model.Scope, ids *Node) *Node {
		return m.Config.Logits(elastic.WeightsOf(scope.Store(), ids.Graph()), transformer.Inputs{IDs: ids, Documents: ids, Positions: ids}, nil)
	}, [][]int32{{1, 2}})
	if err == nil || !strings.Contains(err.Error(), "unpacked first") {
		t.Errorf("packed rows: %v", err)
	}
}

// TestPoolingWeights: a head that reads the first token alone, given the weighted sum of all, says
// what the head that pools says.
func TestPoolingWeights(t *testing.T) {
	for _, kind := range transformer.Poolings() {
		config, plain := pooled(kind), pooled("cls")
		m, err := transformer.New(config, 3)
		if err != nil {
			t.Fatal(err)
		}
		const rows, length = 2, 4
		mask := [][]bool{{true, true, true, false}, {true, true, true, true}}
		u := make([]float32, rows*length*config.Hidden)
		for i := range u {
			u[i] = float32(math.Cos(float64(3 * i)))
		}
		if kind == "attention" {
			w := make([]float32, config.Hidden)
			for i := range w {
				w[i] = float32(math.Sin(float64(i + 1)))
			}
			if err := m.Store.GetVariable("/head/pooling/w").SetValue(tensors.FromFlatDataAndDimensions(w, len(w))); err != nil {
				t.Fatal(err)
			}
		}
		out, err := model.CallOnceN(gxtest.Backend(t), m.Store, func(scope *model.Scope, u, mask *Node) []*Node {
			w := elastic.WeightsOf(scope.Store(), u.Graph())
			weights := config.PoolingWeights(w, u, mask)
			mean := InsertAxes(Einsum("bl,blh->bh", weights, u), 1) // [b, 1, h]
			return []*Node{weights, plain.HeadLogits(w, mean, nil), config.MaskedHeadLogits(w, u, mask, nil), config.PoolingWeights(w, u, nil), ReduceSum(weights, -1)}
		}, tensors.FromFlatDataAndDimensions(u, rows, length, config.Hidden), mask)
		if err != nil {
			t.Fatal(err)
		}
		gxtest.Close(t, out[1], out[2], 1e-5)
		gxtest.Close(t, out[4], []float64{1, 1}, 1e-6)
		weights, unmasked := tensors.MustCopyFlatData[float32](out[0]), tensors.MustCopyFlatData[float32](out[3])
		gxtest.Close(t, unmasked[length:], weights[length:], 0)
		if weights[3] != 0 {
			t.Errorf("%s: padding counts %g", kind, weights[3])
		}
	}
}
