package ner

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/peft"
	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// net is a tagger's model together with its adapter, if it has one.
type net struct {
	*transformer.Model
	adapter *peft.Adapter // nil for none
	base    string        // the folder of the model that the adapter is for
}

// weights are the model's as seen through the adapter.
func (n net) weights(w elastic.Weights, drop *dropout.Source) elastic.Weights {
	if n.adapter == nil {
		return w
	}
	return n.adapter.Weights(w, drop)
}

// logits computes those of a batch in evaluation, [batch, length, labels].
func (n net) logits(w elastic.Weights, in transformer.Inputs) *graph.Node {
	return n.Config.Logits(n.weights(w, nil), in, nil)
}

// variables lists all that the net computes with.
func (n net) variables() []elastic.Variable {
	list := n.Config.Variables()
	if n.adapter != nil {
		list = append(list, n.adapter.Variables()...)
	}
	return list
}

// trained lists what training changes.
func (n net) trained() []elastic.Variable {
	if n.adapter == nil {
		return n.Config.Variables()
	}
	return n.adapter.Trained()
}

// maxLength is the greatest number of tokens of a text.
func (n net) maxLength() int {
	if n.adapter == nil {
		return n.Config.MaxLength()
	}
	return n.Config.MaxLength() - n.adapter.VirtualTokens()
}

// copied returns a net with variables of its own.
func (n net) copied() (net, error) {
	store := model.NewStore()
	for _, v := range n.variables() {
		value, err := n.Store.GetVariable(v.Path).Value()
		if err == nil {
			value, err = value.LocalClone()
		}
		if err == nil {
			_, err = store.CreateVariable(v.Path, value)
		}
		if err != nil {
			return net{}, fmt.Errorf("copying %s: %w", v.Path, err)
		}
	}
	n.Model = &transformer.Model{Config: n.Config, Store: store}
	return n, nil
}

// adapt gives the net a fresh adapter. Fresh are paths of variables that the base does not
// have, which are trained and saved with the adapter.
func (n *net) adapt(config peft.Config, base string, fresh []string, seed uint64) error {
	config.Train = append(slices.Clone(config.Train), fresh...)
	adapter, err := peft.New(config, n.Config.Variables())
	if err != nil {
		return err
	}
	if err := adapter.Writable(n.Config); err != nil {
		return fmt.Errorf("adapter: %w", err)
	}
	if n.base, err = filepath.Abs(base); err != nil {
		return fmt.Errorf("finding the base of the adapter: %w", err)
	}
	n.adapter = adapter
	return adapter.Create(n.Store, seed)
}

// loadNet reads a net from a folder that holds a whole model, or an adapter that names the
// folder of its base.
func loadNet(dir string) (net, error) {
	if _, err := os.Stat(filepath.Join(dir, peft.ConfigFile)); errors.Is(err, os.ErrNotExist) {
		m, _, err := pretrained.Load(dir, pretrained.Options{})
		return net{Model: m}, err
	}
	base, err := peft.Base(dir)
	if err != nil {
		return net{}, err
	}
	if info, err := os.Stat(base); err != nil || !info.IsDir() {
		return net{}, fmt.Errorf("%s: base_model_name_or_path is %q, which is no folder: bring the base model there, or write where it is", filepath.Join(dir, peft.ConfigFile), base)
	}
	var options pretrained.Options
	if _, err := os.Stat(filepath.Join(dir, pretrained.ConfigFile)); err == nil {
		config, err := pretrained.ReadConfig(dir)
		if err != nil {
			return net{}, err
		}
		options.Head = &config.Head
		if !config.Attention.Plain() {
			options.Attention = &config.Attention
		}
	}
	m, report, err := pretrained.Load(base, options)
	if err != nil {
		return net{}, fmt.Errorf("loading the base of adapter %s: %w", dir, err)
	}
	n := net{Model: m, base: base}
	if n.adapter, err = peft.Load(dir, m); err != nil {
		return net{}, err
	}
	for _, path := range report.Fresh {
		if !slices.ContainsFunc(n.adapter.Beside(), func(v elastic.Variable) bool { return v.Path == path }) {
			return net{}, fmt.Errorf("%s has no tensor for %s, and neither has its base %s", filepath.Join(dir, peft.WeightsFile), path, base)
		}
	}
	return n, nil
}

// take gives the net the weights of a checkpoint of it.
func (n net) take(dir string) error {
	best, err := loadNet(dir)
	if err != nil {
		return err
	}
	for _, v := range n.variables() {
		value, err := best.Store.GetVariable(v.Path).Value()
		if err == nil {
			err = n.Store.GetVariable(v.Path).SetValue(value)
		}
		if err != nil {
			return fmt.Errorf("taking %s: %w", v.Path, err)
		}
	}
	return nil
}
