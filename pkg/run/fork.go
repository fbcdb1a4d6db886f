package run

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/track"
)

// free are the fields of a recipe that may differ from the parent's: what they say of later updates does not rest on earlier
// ones. The optimizer's rule may not, since its state is the parent's; a change of it that leaves the kind is refused when
// that is read.
var free = []string{"epochs", "max_updates", "patience", "clip_norm", "optimizer", "schedule", "loss", "noise", "skip_non_finite", "precision", "checkpoint_blocks", "save_every", "log_every", "seed"}

// Fork makes, in a folder that does not exist, a run that goes on from another one with another recipe, as population-based
// training does: weights, optimizer state, and the place in data and schedule are those of the parent. Only some fields of the
// recipe may differ from the parent's: rates and schedule, loss and noise, lengths. The run is to be continued as one that was
// interrupted; it has its own journal, which begins at that update, and its own best epoch.
//
// It goes on from the parent's last whole epoch, as it was scored, also while the parent goes on; a parent whose last
// whole epoch is not kept is an error, as is one that has no epoch left by the new recipe.
func Fork[C any](dir, parent, task string, config C) error {
	if err := fork(dir, parent, task, config); err != nil {
		return fmt.Errorf("going on from the run in %s: %w", parent, err)
	}
	return nil
}

func fork[C any](dir, parent, task string, config C) error {
	if _, err := os.Lstat(filepath.Join(dir, RecordFile)); err == nil {
		return fmt.Errorf("%s holds a run already: name another folder", dir)
	}
	record, err := readRecordOf[C](parent, task)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is none: want the folder of a run, with its %s and checkpoints", RecordFile)
	}
	if err != nil {
		return err
	}
	for _, d := range differences(record.Config, config) {
		if d.field == "train.optimizer.kind" && d.was != nil && d.is != nil {
			return fmt.Errorf("%s: another rule cannot go on with the optimizer's state; take that of before", d)
		}
		top, rest, _ := strings.Cut(d.field, ".")
		field, _, _ := strings.Cut(rest, ".")
		if top != "preset" && top != "rate_from" && !(top == "train" && slices.Contains(free, field)) {
			return fmt.Errorf("%s; of the settings only these of train may differ: %s", d, strings.Join(free, ", "))
		}
	}
	var recipe struct {
		Train struct {
			Epochs int    `json:"epochs"`
			Seed   uint64 `json:"seed"`
		} `json:"train"`
	}
	content, err := json.Marshal(config)
	if err == nil {
		err = json.Unmarshal(content, &recipe)
	}
	if err != nil {
		return fmt.Errorf("reading the recipe: %w", err)
	}
	record.Config, record.Seed, record.Started, record.Resumed = config, recipe.Train.Seed, time.Now().UTC(), nil
	record.Versions = Versions()

	// The folder comes into being whole: a run without its checkpoint would begin anew.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("making the run folder: %w", atomicfile.Explain(err, dir))
	}
	aside := filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".fork-"+rand.Text()[:12])
	defer os.RemoveAll(aside) // nothing, once it is in place
	if err := os.Mkdir(aside, 0o755); err != nil {
		return fmt.Errorf("making the run folder: %w", atomicfile.Explain(err, dir))
	}
	const tries = 3
	update := 0
	for try := 1; ; try++ { // a parent that goes on may remove what is being copied as too old
		update, err = take(aside, parent, max(recipe.Train.Epochs, 1), recipe.Train.Seed, record.Versions)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || try == tries {
			return err
		}
	}
	record.Parent = &track.Parent{Run: parent, Update: update}
	if err := WriteJSON(filepath.Join(aside, RecordFile), record); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) { // an empty one may be there
		return fmt.Errorf("%s is there already: %w; name another folder", dir, err)
	}
	if err := os.Rename(aside, dir); err != nil {
		return fmt.Errorf("making the run folder: %w", atomicfile.Explain(err, dir))
	}
	return nil
}

// take copies the parent's last whole epoch into the folder of a run that has epochs and a seed, and returns its update.
func take(dir, parent string, epochs int, seed uint64, versions map[string]string) (update int, err error) {
	folder, state, err := wholeEpoch(parent)
	if err != nil {
		return 0, err
	}
	if state.Epoch >= epochs {
		return 0, fmt.Errorf("it has gone through the data %d times, and epochs is %d: nothing is left to do", state.Epoch, epochs)
	}
	state.Seed, state.Finished, state.Ended, state.Stale, state.Best = seed, false, "", 0, train.Best{Epoch: -1}
	files, err := copied(folder, state)
	if err != nil {
		return 0, err
	}
	_, err = (checkpoint.Run{Dir: dir}).Save(checkpoint.Checkpoint{Step: state.Update, Files: files, Versions: versions})
	return state.Update, err
}

// wholeEpoch returns the newest checkpoint of a run that was saved at the end of an epoch, also if the run was interrupted just
// before that was scored: then the one that goes on scores it. It changes nothing in the folder.
func wholeEpoch(dir string) (*checkpoint.Folder, train.State, error) {
	checkpoints := checkpoint.Run{Dir: dir}
	steps, err := checkpoints.Steps()
	if err != nil {
		return nil, train.State{}, err
	}
	for _, step := range slices.Backward(steps) {
		state, err := train.ReadState(checkpoints.Path(step))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile as too old
		}
		if err != nil {
			return nil, state, err
		}
		if state.Batch == 0 && state.Epoch > 0 {
			folder, err := checkpoint.Open(checkpoints.Path(step))
			return folder, state, err
		}
	}
	return nil, train.State{}, errors.New("it has no checkpoint of a whole epoch: let it finish one, or save less often within epochs")
}

// copied lists the files of a checkpoint with another state.
func copied(folder *checkpoint.Folder, state train.State) ([]checkpoint.File, error) {
	content, err := json.MarshalIndent(state, "", " ")
	if err != nil {
		return nil, fmt.Errorf("writing the state: %w", err)
	}
	var files []checkpoint.File
	for _, f := range folder.Manifest.Files {
		if f.Name == train.StateFile {
			files = append(files, checkpoint.FromBytes(f.Name, append(content, '\n')))
			continue
		}
		files = append(files, checkpoint.File{Name: f.Name, Write: func(w io.Writer) error {
			file, err := os.Open(filepath.Join(folder.Dir, filepath.FromSlash(f.Name)))
			if err != nil {
				return err
			}
			defer file.Close()
			_, err = io.Copy(w, file)
			return err
		}})
	}
	return files, nil
}
