package study

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// firstLayers writes a model that has only the first layers of the one in dir: embeddings and
// layers as they are, and the tokenizer.
func firstLayers(dir string, layers int, into string) error {
	whole, _, err := pretrained.Load(dir, pretrained.Options{Head: &transformer.Head{}})
	if err != nil {
		return fmt.Errorf("loading pretrained model: %w", err)
	}
	if layers > whole.Config.Layers {
		return fmt.Errorf("layers is %d, but the model has %d", layers, whole.Config.Layers)
	}
	config := whole.Config
	config.Layers = layers
	part, err := transformer.New(config, 0)
	if err != nil {
		return err
	}
	for _, v := range config.Variables() {
		value, err := whole.Store.GetVariable(v.Path).Value()
		if err == nil {
			err = part.Store.GetVariable(v.Path).SetValue(value)
		}
		if err != nil {
			return fmt.Errorf("taking %s: %w", v.Path, err)
		}
	}
	files := pretrained.Files(part)
	for _, name := range []string{"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		switch {
		case err == nil:
			files = append(files, checkpoint.FromBytes(name, content))
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("reading tokenizer: %w", err)
		}
	}
	return checkpoint.Save(into, checkpoint.Checkpoint{Files: files})
}
