package testtime

import (
	"fmt"
	"strings"
)

// Restart takes the model's present variables as the start, as [New] does, and forgets what was
// counted; what is compiled stays. It is for a model whose variables were set from outside.
func (a *Adapter) Restart() error {
	for _, v := range a.variables {
		value, err := a.task.Store().GetVariable(v.Path).Value()
		if err == nil {
			a.start[v.Path], err = value.LocalClone()
		}
		if err != nil {
			return fmt.Errorf("test-time adaptation: reading %s: %w", v.Path, err)
		}
	}
	for path, value := range a.start {
		own := path
		if !strings.HasPrefix(path, scope+"/") {
			own = scope + "/start" + path // what the guard compares with
		}
		clone, err := value.LocalClone()
		if err == nil {
			err = a.task.Store().GetVariable(own).SetValue(clone)
		}
		if err != nil {
			return fmt.Errorf("test-time adaptation: setting %s: %w", own, err)
		}
	}
	a.batches, a.updates, a.resets = 0, 0, 0
	a.watch, a.lastRows, a.stopped = watch{}, 0, false
	a.online.begin()
	return nil
}
