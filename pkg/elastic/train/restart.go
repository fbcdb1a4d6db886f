package train

import (
	"fmt"

	"github.com/elastic-attention/workbench/pkg/elastic/optim/control"
)

// Restart begins a new run with another seed: state and optimizer slots are as [New] made them.
// The model's variables are the caller's to set; the compiled steps stay, so that runs which
// differ in seed and data order only are compiled once.
func (t *Trainer) Restart(seed uint64) error {
	for _, slot := range append(t.kept(), t.sums()...) {
		if err := t.task.Store().GetVariable(slot.Path).SetValue(slot.Tensor(0)); err != nil {
			return fmt.Errorf("clearing %s: %w", slot.Path, err)
		}
	}
	var err error
	if t.control, err = control.New(t.config.Control); err != nil {
		return err
	}
	t.config.Seed, t.averaged = seed, false
	t.state = State{Version: stateVersion, Seed: seed, Best: Best{Epoch: -1}}
	return nil
}
