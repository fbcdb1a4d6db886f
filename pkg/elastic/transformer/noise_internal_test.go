package transformer

import (
	"math"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
)

func TestPathRatesGrowWithDepth(t *testing.T) {
	c := Config{Noise: &Noise{DropPath: 0.3}}
	for i, want := range []float64{0, 0.1, 0.2, 0.3} {
		if got := c.path(i, 4, nil, nil).rate; math.Abs(got-want) > 1e-15 {
			t.Errorf("block %d of 4 has rate %g, want %g", i, got, want)
		}
	}
	if got := c.path(0, 1, nil, nil).rate; got != 0 { // torch.linspace(0, p, 1) is [0]
		t.Errorf("the only block has rate %g, want 0", got)
	}
	if got := (Config{}).path(3, 4, nil, nil).rate; got != 0 {
		t.Errorf("without noise a block has rate %g", got)
	}
}

// TestPathsAreOfTexts drops parts of texts that share rows: all tokens of a text, or none.
func TestPathsAreOfTexts(t *testing.T) {
	const rows, length, rate = 400, 10, 0.25
	texts := make([][]int32, rows) // 1 1 1 2 2 3 3 3 3 and padding
	x := make([][][]float32, rows)
	for i := range texts {
		texts[i] = []int32{1, 1, 1, 2, 2, 3, 3, 3, 3, 0}
		for range length {
			x[i] = append(x[i], []float32{1, 2})
		}
	}
	out, err := CallOnceN(gxtest.Backend(t), func(key, x, texts *Node) (*Node, *Node) {
		y := path{drop: dropout.NewSource(key), rate: rate, texts: texts}.apply(x)
		return y, Gradient(ReduceAllSum(y), x)[0]
	}, dropout.Key(3, 1), x, texts)
	if err != nil {
		t.Fatal(err)
	}
	y, gradient := tensors.MustCopyFlatData[float32](out[0]), tensors.MustCopyFlatData[float32](out[1])
	dropped, both := 0, 0
	for row := range rows {
		first := map[int32]float32{}
		for token := range length {
			at := (row*length + token) * 2
			scale := y[at]
			if scale != 0 && math.Abs(float64(scale)-1/(1-rate)) > 1e-6 || y[at+1] != 2*scale || gradient[at] != scale || gradient[at+1] != scale {
				t.Fatalf("row %d, token %d: %v of [1 2], gradient %v; want nothing, or all of it divided by %g", row, token, y[at:at+2], gradient[at:at+2], 1-rate)
			}
			text := texts[row][token]
			if before, ok := first[text]; ok && before != scale {
				t.Fatalf("row %d: a token of text %d has factor %g, another one %g", row, text, before, scale)
			}
			first[text] = scale
		}
		for _, text := range []int32{1, 2, 3} {
			if first[text] == 0 {
				dropped++
			}
		}
		if first[1] == 0 && first[2] == 0 {
			both++
		}
	}
	within := func(what string, count, of int, want float64) {
		t.Helper()
		if share := float64(count) / float64(of); math.Abs(share-want) > 5*math.Sqrt(want*(1-want)/float64(of)) {
			t.Errorf("%s: share %.4f of %d, want %.4f", what, share, of, want)
		}
	}
	within("texts dropped", dropped, 3*rows, rate)
	within("two neighbours dropped", both, rows, rate*rate)
}

func TestWordsAreDropped(t *testing.T) {
	const rows, length, rate = 50, 80, 0.2
	ids := make([][]int32, rows)
	for i := range ids {
		ids[i] = make([]int32, length)
		for j := range ids[i] {
			ids[i][j] = int32(j % 8) // 0 is padding, 1 special, 7 what takes their place
		}
	}
	c := Config{VocabSize: 8, PadID: 0, Noise: &Noise{WordDropout: rate, Unknown: 7, Keep: []int{1}}}
	out, err := CallOnceN(gxtest.Backend(t), func(key, ids *Node) (*Node, *Node) {
		same := c.withNoise(Inputs{IDs: ids}, nil).IDs
		if same != ids {
			t.Error("words are dropped in evaluation")
		}
		source := dropout.NewSource(key)
		return c.withNoise(Inputs{IDs: ids}, source).IDs, c.withNoise(Inputs{IDs: ids}, source).IDs
	}, dropout.Key(5, 2), ids)
	if err != nil {
		t.Fatal(err)
	}
	one, two := tensors.MustCopyFlatData[int32](out[0]), tensors.MustCopyFlatData[int32](out[1])
	dropped, both, of := 0, 0, 0
	for i, id := range one {
		was := int32(i % length % 8)
		switch {
		case id != was && (id != 7 || was <= 1):
			t.Fatalf("id %d became %d", was, id)
		case was > 1 && was < 7:
			of++
			if id == 7 {
				dropped++
				if two[i] == 7 {
					both++
				}
			}
		}
	}
	for _, share := range []struct {
		what  string
		count int
		want  float64
	}{{"dropped", dropped, rate}, {"dropped in two passes", both, rate * rate}} {
		if got := float64(share.count) / float64(of); math.Abs(got-share.want) > 5*math.Sqrt(share.want*(1-share.want)/float64(of)) {
			t.Errorf("%s: %.4f of %d words, want %.4f", share.what, got, of, share.want)
		}
	}
}
