package train

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/elastic-attention/workbench/internal/strictjson"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/control"
)

// The files that a training run adds to a checkpoint.
const (
	// StateFile holds the [State].
	StateFile = "trainer_state.json"
	// SlotsFile holds the optimizer's slots.
	SlotsFile = "optimizer.safetensors"
)

const stateVersion = 1

// State is what decides the rest of a run, beside variables and optimizer slots.
type State struct {
	Version int    `json:"version"`
	Seed    uint64 `json:"seed"`
	// Update counts the updates made, Epoch the epochs finished, Batch the micro-batches
	// used of the current epoch.
	Update int `json:"update"`
	Epoch  int `json:"epoch"`
	Batch  int `json:"batch"`
	// Trained says that the last epoch's training is done and its evaluation is to come.
	Trained bool `json:"trained,omitempty"`
	// Finished says that nothing is left to do.
	Finished bool `json:"finished,omitempty"`
	// Best is the best evaluation so far, and Stale the number of evaluations since.
	Best  Best `json:"best"`
	Stale int  `json:"stale"`
	// Metrics holds the metric of each evaluation.
	Metrics []Metric `json:"metrics,omitempty"`
	// Adaptation holds the events of a strategy, Calm counts the last updates that changed
	// little, Seconds those that count for a budget, and Ended is why the strategy ended the run.
	Adaptation []adapt.Event `json:"adaptation,omitempty"`
	Calm       int           `json:"calm,omitempty"`
	Seconds    float64       `json:"seconds,omitempty"`
	Ended      string        `json:"ended,omitempty"`
	// Control holds what controllers did, Controllers their state, and Skipped counts the updates
	// that were not made because their gradients were not finite.
	Control     []control.Event `json:"control,omitempty"`
	Controllers json.RawMessage `json:"controllers,omitempty"`
	Skipped     int             `json:"skipped,omitempty"`
	// TrialUpdates counts the updates that trials of the rate made and undid, beside those of the run.
	TrialUpdates int `json:"trial_updates,omitempty"`
	// History holds a point for every LogEvery-th update and the first.
	History []Point `json:"history,omitempty"`
}

// Best is the best evaluation of a run; its Epoch is -1 before the first. Update is
// that of the checkpoint that was saved with it.
type Best struct {
	Epoch  int     `json:"epoch"`
	Update int     `json:"update,omitempty"`
	Metric float64 `json:"metric"`
}

// Metric is the outcome of one evaluation, after an epoch (counted from 1) or after the
// part of it that MaxUpdates left.
type Metric struct {
	Epoch  int     `json:"epoch"`
	Update int     `json:"update"`
	Value  float64 `json:"value"`
}

// Point is one point of a run's history.
type Point struct {
	Update       int     `json:"update"`
	Loss         float64 `json:"loss"`
	Rate         float64 `json:"rate"`
	GradientNorm float64 `json:"gradient_norm"`
	// Terms are those of the loss, where they are weighed; see [Weighed].
	Terms []Term `json:"terms,omitempty"`
	// Scalars has the values, after the update, of the variables that a [Watcher] names, by
	// their paths.
	Scalars map[string][]float32 `json:"scalars,omitempty"`
}

// due tells whether the update just made is to be recorded.
func (s *State) due(every int) bool { return s.Update == 1 || s.Update%every == 0 }

// begun counts the epochs that training has begun: more than Epoch when the last update
// of the run was in the middle of one.
func (s *State) begun() int {
	if s.Batch > 0 {
		return s.Epoch + 1
	}
	return s.Epoch
}

// judge notes a metric and reports whether it is the best so far. A metric that is
// not a finite number never is.
func (s *State) judge(metric float64) bool {
	finite := !math.IsNaN(metric) && !math.IsInf(metric, 0) // JSON has neither
	if finite {
		s.Metrics = append(s.Metrics, Metric{Epoch: s.begun(), Update: s.Update, Value: metric})
	}
	if finite && (s.Best.Epoch < 0 || metric > s.Best.Metric) {
		s.Best = Best{Epoch: s.begun(), Update: s.Update, Metric: metric}
		s.Stale = 0
		return true
	}
	s.Stale++
	return false
}

// Files returns the files that hold the trainer's state, for a checkpoint that can be
// resumed. The trainer must not run until they are written.
func (t *Trainer) Files() []checkpoint.File {
	return []checkpoint.File{
		{Name: StateFile, Write: func(w io.Writer) error {
			state, err := t.described()
			if err != nil {
				return err
			}
			encoder := json.NewEncoder(w)
			encoder.SetIndent("", " ")
			return encoder.Encode(state)
		}},
		{Name: SlotsFile, Write: func(w io.Writer) error {
			var list []safetensors.Named
			for _, slot := range t.kept() {
				value, err := t.task.Store().GetVariable(slot.Path).Value()
				if err != nil {
					return fmt.Errorf("reading %s: %w", slot.Path, err)
				}
				list = append(list, safetensors.Named{Name: slot.Path, Tensor: value})
			}
			return safetensors.Write(w, list, nil)
		}},
	}
}

// described returns the state with that of the controllers.
func (t *Trainer) described() (State, error) {
	state := t.state
	if len(t.config.Control) > 0 {
		var err error
		if state.Controllers, err = json.Marshal(t.control); err != nil {
			return State{}, fmt.Errorf("state of controllers: %w", err)
		}
	}
	return state, nil
}

// Restore sets the trainer's state from a checkpoint's folder. The model's variables
// are not touched: load the model from the same folder.
func (t *Trainer) Restore(dir string) error {
	state, err := ReadState(dir)
	if err != nil {
		return err
	}
	if state.Seed != t.config.Seed {
		return fmt.Errorf("%s: the run has seed %d, the config %d: data order and dropout would not continue", filepath.Join(dir, StateFile), state.Seed, t.config.Seed)
	}
	path := filepath.Join(dir, SlotsFile)
	file, err := safetensors.Open(path)
	if err != nil {
		return fmt.Errorf("opening optimizer state: %w", err)
	}
	defer file.Close()
	slots := t.kept()
	if got, want := len(file.Names()), len(slots); got != want {
		return fmt.Errorf("%s: has %d tensors, want %d: it belongs to another model or optimizer", path, got, want)
	}
	for _, slot := range slots {
		info, err := file.Info(slot.Path)
		if err != nil {
			return fmt.Errorf("%s: %w: it belongs to another model or optimizer", path, err)
		}
		if !slices.Equal(info.Shape, slot.Shape) && len(info.Shape)+len(slot.Shape) > 0 {
			return fmt.Errorf("%s: %s has shape %v, want %v", path, slot.Path, info.Shape, slot.Shape)
		}
		value, err := file.Tensor(slot.Path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := t.task.Store().GetVariable(slot.Path).SetValue(value); err != nil {
			return fmt.Errorf("setting %s: %w", slot.Path, err)
		}
	}
	if len(t.config.Control) > 0 {
		if err := json.Unmarshal(state.Controllers, t.control); err != nil {
			return fmt.Errorf("%s: %w: was the run begun with other controllers?", filepath.Join(dir, StateFile), err)
		}
	}
	t.state, t.restored = state, true
	t.averaged = t.optimizer.Averages() // so the model's file was written
	return t.trained()
}

// ReadState reads the state of a run from a checkpoint's folder.
func ReadState(dir string) (State, error) {
	path := filepath.Join(dir, StateFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return State{}, fmt.Errorf("reading training state: %w", err)
	}
	var state State
	if err := strictjson.DecodeKnown(data, &state); err != nil {
		return State{}, fmt.Errorf("%s: %w", path, err)
	}
	if state.Version != stateVersion {
		return State{}, fmt.Errorf("%s: version is %d, this program reads %d", path, state.Version, stateVersion)
	}
	return state, nil
}
