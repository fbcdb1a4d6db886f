package transformer

import (
	"fmt"

	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Model is a config together with its weights.
type Model struct {
	Config Config
	// Store holds exactly the variables that Config.Variables lists, and what a
	// training loop adds below "/optimizer".
	Store *model.Store
}

// New returns a model with fresh weights. The weights depend on the config and the
// seed only.
func New(config Config, seed uint64) (*Model, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("transformer config: %w", err)
	}
	store, err := elastic.NewStore(config.Variables(), seed)
	if err != nil {
		return nil, fmt.Errorf("transformer: %w", err)
	}
	return &Model{Config: config, Store: store}, nil
}

// Parameters returns the number of elements in all weights.
func (m *Model) Parameters() int {
	total := 0
	for _, v := range m.Config.Variables() {
		total += v.Size()
	}
	return total
}
