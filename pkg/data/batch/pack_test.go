package batch_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/pkg/data/batch"
)

// texts makes n labelled examples of 1 to longest tokens, each with ids of its own.
func texts(n, longest int) []batch.Example {
	random := rand.New(rand.NewPCG(1, 2))
	examples := make([]batch.Example, n)
	next := int32(1)
	for i := range examples {
		length := 1 + int(float64(longest)*random.Float64()*random.Float64())
		e := batch.Example{IDs: make([]int32, length), TypeIDs: make([]int32, length), Labels: make([]int32, length)}
		for j := range e.IDs {
			e.IDs[j], e.TypeIDs[j], e.Labels[j] = next, next%2, next%5
			next++
		}
		e.Labels[0] = batch.Ignore
		examples[i] = e
	}
	return examples
}

// unpack takes the examples out of a packed batch and checks what surrounds them.
func unpack(t *testing.T, b batch.PackedBatch, pad int32) []batch.Example {
	t.Helper()
	var found []batch.Example
	tokens, targets := 0, 0
	for at := range b.IDs {
		if b.Documents[at] == 0 {
			if b.IDs[at] != pad || b.Labels[at] != batch.Ignore || b.Positions[at] != 0 || b.TypeIDs[at] != 0 {
				t.Fatalf("padding at %d is id %d, label %d, position %d", at, b.IDs[at], b.Labels[at], b.Positions[at])
			}
			continue
		}
		if b.Positions[at] == 0 {
			found = append(found, batch.Example{})
		} else if at%b.Length == 0 || b.Documents[at] != b.Documents[at-1] || b.Positions[at] != b.Positions[at-1]+1 {
			t.Fatalf("example is torn at %d", at)
		}
		e := &found[len(found)-1]
		e.IDs, e.TypeIDs, e.Labels = append(e.IDs, b.IDs[at]), append(e.TypeIDs, b.TypeIDs[at]), append(e.Labels, b.Labels[at])
		tokens++
		if b.Labels[at] != batch.Ignore {
			targets++
		}
	}
	if tokens != b.Tokens || targets != b.Targets {
		t.Fatalf("batch says %d tokens and %d targets, has %d and %d", b.Tokens, b.Targets, tokens, targets)
	}
	return found
}

func TestPackVisitsEachExampleOnceAnEpoch(t *testing.T) {
	examples := texts(203, 30)
	d, err := batch.Pack("x", examples, batch.PackConfig{Size: 8, Length: 30, Epochs: 3, Seed: 5, PadID: 7})
	if err != nil {
		t.Fatal(err)
	}
	if d.Steps() != 26 {
		t.Fatalf("%d steps, want 26", d.Steps())
	}
	shapes := map[int]bool{}
	var firsts [3][]int32
	for epoch := range 3 {
		seen, step := map[int32]bool{}, 0
		for b := range d.EpochFrom(epoch, 0) {
			if b.Step != step || len(b.IDs) != b.Rows*b.Length || b.Length != 30 {
				t.Fatalf("batch %d has step %d and shape %d×%d", step, b.Step, b.Rows, b.Length)
			}
			step++
			shapes[b.Rows] = true
			found := unpack(t, b, 7)
			if want := min(8, 203-8*b.Step); len(found) != want {
				t.Fatalf("batch %d has %d examples, want %d", b.Step, len(found), want)
			}
			for _, e := range found {
				if b.Step == 0 {
					firsts[epoch] = append(firsts[epoch], e.IDs[0])
				}
				at := slices.IndexFunc(examples, func(x batch.Example) bool { return x.IDs[0] == e.IDs[0] })
				if at < 0 || !slices.Equal(e.IDs, examples[at].IDs) || !slices.Equal(e.Labels, examples[at].Labels) || !slices.Equal(e.TypeIDs, examples[at].TypeIDs) || seen[e.IDs[0]] {
					t.Fatalf("example %v is changed or comes twice", e.IDs)
				}
				seen[e.IDs[0]] = true
			}
		}
		if len(seen) != len(examples) {
			t.Fatalf("epoch %d has %d examples, want %d", epoch, len(seen), len(examples))
		}
	}
	if len(shapes) > batch.DefaultMaxShapes {
		t.Errorf("%d shapes, want at most %d", len(shapes), batch.DefaultMaxShapes)
	}
	if slices.Equal(firsts[0], firsts[1]) {
		t.Error("two epochs begin with the same batch")
	}
}

func TestPackResumesAnywhere(t *testing.T) {
	config := batch.PackConfig{Size: 4, Length: 20, Epochs: 2, Seed: 5}
	d, err := batch.Pack("x", texts(50, 20), config)
	if err != nil {
		t.Fatal(err)
	}
	again, err := batch.Pack("x", texts(50, 20), config)
	if err != nil {
		t.Fatal(err)
	}
	var whole [][]int32
	for b := range d.EpochFrom(1, 0) {
		whole = append(whole, b.IDs)
	}
	for skip := range len(whole) + 1 {
		at := skip
		for b := range again.EpochFrom(1, skip) {
			if !slices.Equal(b.IDs, whole[at]) || b.Step != at {
				t.Fatalf("after %d batches, batch %d differs", skip, at)
			}
			at++
		}
		if at != len(whole) {
			t.Fatalf("after %d batches, %d come, want %d", skip, at-skip, len(whole)-skip)
		}
	}
}

// TestPackedBatchIsARandomDraw: the mean length of the examples of a batch must not
// follow the batch, as it does when they are grouped by length.
func TestPackedBatchIsARandomDraw(t *testing.T) {
	examples := texts(4000, 100)
	d, err := batch.Pack("x", examples, batch.PackConfig{Size: 16, Length: 100, Epochs: 1, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	mean, square := 0.0, 0.0
	for _, e := range examples {
		mean += float64(len(e.IDs)) / float64(len(examples))
	}
	for _, e := range examples {
		square += (float64(len(e.IDs)) - mean) * (float64(len(e.IDs)) - mean) / float64(len(examples))
	}
	between := 0.0
	for b := range d.EpochFrom(0, 0) {
		deviation := float64(b.Tokens)/16 - mean
		between += deviation * deviation / float64(d.Steps())
	}
	if want := square / 16; between < 0.7*want || between > 1.4*want {
		t.Errorf("variance between batches is %g, want about %g, as of random draws", between, want)
	}
	if s := d.Stats(); s.Padding > 0.25 || s.Examples != 4000 || s.Batches != 250 {
		t.Errorf("stats are %+v", s)
	}
}

func TestPackExplainsBadInput(t *testing.T) {
	good := texts(3, 5)
	for name, test := range map[string]struct {
		examples []batch.Example
		config   batch.PackConfig
		want     string
	}{
		"config":     {good, batch.PackConfig{Size: -1}, "size: got -1"},
		"length":     {good, batch.PackConfig{Epochs: 1}, "length: got 0"},
		"empty":      {nil, batch.PackConfig{Length: 9, Epochs: 1}, "no examples"},
		"too long":   {[]batch.Example{good[0], {IDs: make([]int32, 10), Labels: make([]int32, 10)}}, batch.PackConfig{Length: 9, Epochs: 1}, "example 1 has 10 tokens, want at most 9"},
		"unlabelled": {[]batch.Example{{IDs: []int32{1}}}, batch.PackConfig{Length: 9, Epochs: 1}, "example 0 has no labels"},
		"mismatch":   {[]batch.Example{{IDs: []int32{1}, Labels: []int32{1, 2}}}, batch.PackConfig{Length: 9, Epochs: 1}, "2 labels for 1 tokens"},
	} {
		if _, err := batch.Pack("x", test.examples, test.config); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error is %v, want %q", name, err, test.want)
		}
	}
}

func ExamplePack() {
	examples := []batch.Example{
		{IDs: []int32{11, 12, 13}, Labels: []int32{0, 1, 0}},
		{IDs: []int32{21, 22}, Labels: []int32{0, 0}},
		{IDs: []int32{31, 32, 33, 34}, Labels: []int32{0, 0, 0, 2}},
	}
	d, err := batch.Pack("train", examples, batch.PackConfig{Size: 3, Length: 6, Epochs: 1})
	if err != nil {
		panic(err)
	}
	for b := range d.EpochFrom(0, 0) {
		for row := range b.Rows {
			fmt.Println(b.IDs[row*b.Length:(row+1)*b.Length], b.Documents[row*b.Length:(row+1)*b.Length])
		}
	}
	// Output:
	// [31 32 33 34 21 22] [1 1 1 1 2 2]
	// [11 12 13 0 0 0] [1 1 1 0 0 0]
}

// TestTexts: starts and lengths lead to the tokens of each example, and the target is that of
// its first token; the last batch has fewer.
func TestTexts(t *testing.T) {
	examples := texts(21, 12)
	for i := range examples {
		examples[i].Labels[0] = int32(i)
	}
	d, err := batch.Pack("train", examples, batch.PackConfig{Size: 8, Length: 16, Epochs: 1, Seed: 3, PadID: 0})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int32]bool{}
	for b := range d.EpochFrom(0, 0) {
		out := b.Texts()
		if len(out.Inputs) != 6 || len(out.Labels) != 1 {
			t.Fatalf("%d inputs and %d labels", len(out.Inputs), len(out.Labels))
		}
		flat := func(tensor *tensors.Tensor) []int32 { return tensors.MustCopyFlatData[int32](tensor) }
		ids, starts, lengths, targets := flat(out.Inputs[0]), flat(out.Inputs[4]), flat(out.Inputs[5]), flat(out.Labels[0])
		for i, target := range targets {
			if lengths[i] == 0 {
				if target != batch.Ignore || starts[i] != 0 {
					t.Errorf("a text that is not there starts at %d with target %d", starts[i], target)
				}
				continue
			}
			if got := ids[starts[i] : starts[i]+lengths[i]]; !slices.Equal(got, examples[target].IDs) {
				t.Errorf("text %d has tokens %v, want %v", target, got, examples[target].IDs)
			}
			seen[target] = true
		}
	}
	if len(seen) != len(examples) {
		t.Errorf("%d of %d texts", len(seen), len(examples))
	}
}
