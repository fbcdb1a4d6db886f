package classify

import (
	"context"
	"fmt"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/run"
)

// Repeat prepares as many runs of a recipe on labelled texts, each from the pretrained model in
// dir, of which the classifier was made. After each the classifier has its weights.
func (c *Classifier) Repeat(dir string, texts []data.Text, config TrainConfig, runs int) (*run.Repeated, error) {
	task, dataset, err := c.pack(context.Background(), texts, config, runs)
	if err != nil {
		return nil, err
	}
	return run.NewRepeated(c.backend, task, c.Model, run.Pretrained(c.Model, dir), dataset, config.Config)
}

// Restart begins anew with the present weights of a classifier of the same model, as
// [Classifier.Adapt] would, without compiling anything again.
func (a *Adaptive) Restart(from *Classifier) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := run.Copy(a.Model, from.Model); err != nil {
		return fmt.Errorf("adapting anew: %w", err)
	}
	a.events = nil
	return a.adapter.Restart()
}
