package testtime_test

import (
	"testing"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
)

func decide(logits []float32) []int {
	list := make([]int, len(logits)/3)
	for i := range list {
		for c := range 3 {
			if logits[3*i+c] > logits[3*i+list[i]] {
				list[i] = c
			}
		}
	}
	return list
}

// TestGuardBoundsTheDamage: whatever the rate and the size of batches, a stream of one class and
// then of all is decided nearly as by the unadapted model; without the guard it is not. The stream
// is long enough for the guard to see what it needs, three times (see [testtime.Guard]).
func TestGuardBoundsTheDamage(t *testing.T) {
	const features = 6
	plain, err := testtime.New(gxtest.Backend(t), testNet(t), testtime.Config{Rate: 1e-12, Guard: testtime.Guard{Off: true}})
	if err != nil {
		t.Fatal(err)
	}
	all := tensors.MustCopyFlatData[float32](elastic.Variable{Path: "x", Shape: []int{1200, features}, Init: elastic.Init{Normal: 1}}.Tensor(8))
	logits, _, err := plain.Step(t.Context(), tensors.FromFlatDataAndDimensions(all, 1200, features))
	if err != nil {
		t.Fatal(err)
	}
	var stream []float32
	var want []int
	add := func(i, class int) {
		stream, want = append(stream, all[i*features:(i+1)*features]...), append(want, class)
	}
	for i, class := range decide(logits) {
		if class == 0 && len(want) < 240 {
			add(i, class)
		}
	}
	for i, class := range decide(logits)[:240] {
		add(i, class)
	}
	const telling = 240 // of the decisions, at least: those of the first part are one class, and that is not the most frequent
	changed := func(size int, rate float64, guard testtime.Guard) float64 {
		a, err := testtime.New(gxtest.Backend(t), testNet(t), testtime.Config{Rate: rate, Guard: guard})
		if err != nil {
			t.Fatal(err)
		}
		wrong := 0
		for at := 0; at+size <= len(want); at += size {
			logits, _, err := a.Step(t.Context(), tensors.FromFlatDataAndDimensions(stream[at*features:(at+size)*features], size, features))
			if err != nil {
				t.Fatal(err)
			}
			for i, class := range decide(logits) {
				if class != want[at+i] {
					wrong++
				}
			}
		}
		return float64(wrong) / telling
	}
	for _, size := range []int{1, 24} {
		for _, rate := range []float64{0.3, 3} {
			with, without := changed(size, rate, testtime.Guard{}), changed(size, rate, testtime.Guard{Off: true})
			t.Logf("batches of %d, rate %g: %.3f changed with the guard, %.3f without", size, rate, with, without)
			if with > 0.1 {
				t.Errorf("batches of %d, rate %g: a share of %.3f is decided otherwise", size, rate, with)
			}
			if rate == 3 && without < 2*with {
				t.Errorf("batches of %d, rate %g: %.3f without the guard and %.3f with it: the case shows nothing", size, rate, without, with)
			}
		}
	}
}
