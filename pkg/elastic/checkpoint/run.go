package checkpoint

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/elastic-attention/workbench/internal/atomicfile"
)

const (
	// DefaultKeep is how many checkpoints a [Run] keeps by default.
	DefaultKeep = 3

	folderName = "checkpoints"
	bestName   = "best"
	stepPrefix = "step-"
)

// Run is the folder of one training. Its checkpoints lie like this:
//
//	<Dir>/checkpoints/step-000100/
//	<Dir>/checkpoints/step-000200/
//	<Dir>/checkpoints/best/
//
// One process at a time may save; others may read meanwhile, but a checkpoint
// that they read may be removed as too old.
type Run struct {
	Dir string

	// Keep is how many checkpoints are kept, the last ones, beside the best.
	// 0 means DefaultKeep, less than 0 means all.
	Keep int
}

func (r Run) folder() string { return filepath.Join(r.Dir, folderName) }

// Path returns the folder of the checkpoint of a step.
func (r Run) Path(step int) string { return filepath.Join(r.folder(), stepName(step)) }

func stepName(step int) string { return fmt.Sprintf("%s%06d", stepPrefix, step) }

// Save saves a checkpoint under its step and then removes the oldest ones. It
// also removes what a process that was killed while saving has left. The path is
// empty if nothing was saved, so a path beside an error means that the checkpoint
// is safe and only the removing failed.
func (r Run) Save(c Checkpoint) (path string, err error) {
	path = r.Path(c.Step)
	if err := Save(path, c); err != nil {
		return "", err
	}
	if err := r.tidy(c.Step); err != nil {
		return path, fmt.Errorf("removing old checkpoints: %w", err)
	}
	return path, nil
}

// tidy removes leftovers, and old checkpoints but for the one just saved.
func (r Run) tidy(saved int) error {
	if err := r.recoverAll(); err != nil {
		return err
	}
	keep := r.Keep
	switch {
	case keep < 0:
		return nil
	case keep == 0:
		keep = DefaultKeep
	}
	steps, err := r.Steps()
	if err != nil {
		return err
	}
	for _, step := range steps[:max(0, len(steps)-keep)] {
		if step == saved {
			continue
		}
		if err := removeFolder(r.Path(step)); err != nil {
			return err
		}
	}
	return nil
}

// removeFolder removes a folder so that it is never half there under its name.
// Meanwhile it is called like a temporary folder, so that atomicfile.Recover
// finishes the work if we are killed.
func removeFolder(path string) error {
	aside := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp-"+rand.Text()[:12])
	if err := os.Rename(path, aside); err != nil {
		return err
	}
	return os.RemoveAll(aside)
}

// recoverAll repairs and removes what killed processes have left in the folder.
func (r Run) recoverAll() error {
	entries, err := os.ReadDir(r.folder())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if rest, hidden := strings.CutPrefix(entry.Name(), "."); hidden {
			name, _, _ := strings.Cut(rest, ".") // all leftovers of a folder are called ".<name>.<something>"
			if _, isStep := parseStep(name); isStep || name == bestName {
				if err := atomicfile.Recover(filepath.Join(r.folder(), name)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func parseStep(name string) (int, bool) {
	digits, ok := strings.CutPrefix(name, stepPrefix)
	step, err := strconv.Atoi(digits)
	return step, ok && err == nil && step >= 0 && stepName(step) == name
}

// Steps returns the steps of which there are checkpoints, in rising order. It
// does not look into them.
func (r Run) Steps() ([]int, error) {
	entries, err := os.ReadDir(r.folder())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing checkpoints: %w", err)
	}
	var steps []int
	for _, entry := range entries {
		if step, ok := parseStep(entry.Name()); ok && entry.IsDir() {
			steps = append(steps, step)
		}
	}
	slices.Sort(steps)
	return steps, nil
}

// Latest opens the newest checkpoint that is not damaged, and checks all of it.
// Damaged ones that are newer are listed in [Folder.Skipped]. What an
// interrupted process has left is ignored and tidied up. If there is no
// checkpoint, the error wraps [fs.ErrNotExist]; if all are damaged, [ErrDamaged].
// One of a later version is an error and not passed over: [ErrNewerSchema].
func (r Run) Latest() (*Folder, error) {
	if err := r.recoverAll(); err != nil {
		return nil, fmt.Errorf("looking for the latest checkpoint in %s: %w", r.folder(), err)
	}
	steps, err := r.Steps()
	if err != nil {
		return nil, err
	}
	var skipped []error
	for _, step := range slices.Backward(steps) {
		f, err := Open(r.Path(step))
		switch {
		case err == nil:
			f.Skipped = skipped
			return f, nil
		case !errors.Is(err, ErrDamaged):
			return nil, err
		}
		skipped = append(skipped, err)
	}
	if len(skipped) > 0 {
		return nil, fmt.Errorf("all %d checkpoints in %s are damaged: %w", len(skipped), r.folder(), errors.Join(skipped...))
	}
	return nil, fmt.Errorf("there is no checkpoint in %s: %w", r.folder(), fs.ErrNotExist)
}

// MarkBest makes the checkpoint of a step the best one, which is kept until
// another takes its place. The files are linked where the file system can do
// that, so that they take no space twice; else they are copied.
func (r Run) MarkBest(step int) error {
	from, err := Options{SkipAbove: 1}.Open(r.Path(step)) // sizes only: it was just saved, and Best checks all
	if err != nil {
		return fmt.Errorf("marking step %d as the best: %w", step, err)
	}
	err = atomicfile.WriteDir(filepath.Join(r.folder(), bestName), func(temp string) error {
		for _, record := range append(from.Manifest.Files, Record{Name: ManifestName}) {
			to := filepath.Join(temp, filepath.FromSlash(record.Name))
			if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
				return err
			}
			if err := linkOrCopy(from.path(record), to); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("marking step %d as the best: %w", step, err)
	}
	return nil
}

func linkOrCopy(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	file, err := createFile(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, source)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	return err
}

// Best opens the checkpoint that [Run.MarkBest] marked last, and checks all of
// it. If there is none, the error wraps [fs.ErrNotExist].
func (r Run) Best() (*Folder, error) { return Open(filepath.Join(r.folder(), bestName)) }
