package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/elastic-attention/workbench/internal/strictjson"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/control"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
)

// Course is how a run went: part of its report.
type Course struct {
	History []train.Point  `json:"history,omitempty"`
	Metrics []train.Metric `json:"metrics,omitempty"`
	// Control holds what was done to the run while it trained, and why: by controllers, by unfreezing, for
	// numbers that were not finite.
	Control []control.Event `json:"control,omitempty"`
}

// CourseOf returns the course that a state of training tells.
func CourseOf(state train.State) Course {
	return Course{History: state.History, Metrics: state.Metrics, Control: state.Control}
}

// ReadCourse reads the course of the run in a folder: from its report or, while there is none, from its
// last checkpoint.
func ReadCourse(dir string) (Course, error) {
	path := filepath.Join(dir, ReportFile)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		latest, err := checkpoint.Run{Dir: dir}.Latest()
		if errors.Is(err, fs.ErrNotExist) {
			return Course{}, fmt.Errorf("%s has neither %s nor a checkpoint, so it is no run, or one that has saved nothing yet: %w", dir, ReportFile, fs.ErrNotExist)
		}
		if err != nil {
			return Course{}, fmt.Errorf("%s has neither %s nor a checkpoint: %w", dir, ReportFile, err)
		}
		state, err := train.ReadState(latest.Dir)
		return CourseOf(state), err
	}
	if err != nil {
		return Course{}, fmt.Errorf("reading the report of a run: %w", err)
	}
	var course Course
	if err := strictjson.DecodeKnown(content, &course); err != nil {
		return Course{}, fmt.Errorf("%s is not the report of a run: %w", path, err)
	}
	return course, nil
}
