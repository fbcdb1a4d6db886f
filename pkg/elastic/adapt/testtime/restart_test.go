package testtime_test

import (
	"slices"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
)

// TestRestartIsANewAdapter: after Restart with other weights an adapter does what a new one does on
// a model with these weights: logits, and events with all that the guard says. Before, the guard
// had given up.
func TestRestartIsANewAdapter(t *testing.T) {
	for _, optimizer := range []string{"sgd", "adam"} {
		config := testtime.Config{Rate: 2, Optimizer: optimizer, Guard: testtime.Guard{Every: 2, MaxResets: 2}}
		used, fresh := testNet(t), testNet(t)
		a, err := testtime.New(gxtest.Backend(t), used, config)
		if err != nil {
			t.Fatal(err)
		}
		stopped := false
		for step := range 40 {
			_, event, err := a.Step(t.Context(), batch(uint64(step)))
			if err != nil {
				t.Fatal(err)
			}
			stopped = stopped || event.Stopped
		}
		if !stopped {
			t.Error("the guard did not give up, so that this test says little")
		}
		for _, n := range []net{used, fresh} { // other weights than those of before
			scale := n.value(t, "/norm/scale")
			for i := range scale {
				scale[i] = 1 + 0.1*float32(i)
			}
			if err := n.store.GetVariable("/norm/scale").SetValue(tensors.FromFlatDataAndDimensions(scale, len(scale))); err != nil {
				t.Fatal(err)
			}
			bias := n.value(t, "/norm/bias")
			clear(bias)
			if err := n.store.GetVariable("/norm/bias").SetValue(tensors.FromFlatDataAndDimensions(bias, len(bias))); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Restart(); err != nil {
			t.Fatal(err)
		}
		b, err := testtime.New(gxtest.Backend(t), fresh, config)
		if err != nil {
			t.Fatal(err)
		}
		for step := range 12 {
			got, gotEvent, err := a.Step(t.Context(), batch(uint64(100+step)))
			if err != nil {
				t.Fatal(err)
			}
			want, wantEvent, err := b.Step(t.Context(), batch(uint64(100+step)))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) || gotEvent != wantEvent {
				t.Fatalf("%s: step %d after Restart: %+v, want %+v", optimizer, step, gotEvent, wantEvent)
			}
		}
	}
}
