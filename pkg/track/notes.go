package track

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/internal/strictjson"
)

// Notes is what people say about a run, the content of notes.json.
type Notes struct {
	Tags []string `json:"tags,omitempty"` // sorted
	Text string   `json:"text,omitempty"`
}

// ReadNotes returns the notes of a run folder; none are no error.
func ReadNotes(dir string) (Notes, error) {
	var notes Notes
	path := filepath.Join(dir, NotesFile)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return notes, nil
	}
	if err != nil {
		return notes, fmt.Errorf("reading notes: %w", err)
	}
	if err := strictjson.DecodeKnown(content, &notes); err != nil {
		return notes, fmt.Errorf("%s: %w", path, err)
	}
	return notes, nil
}

// WriteNotes replaces the notes of a run folder, also while the run goes on.
func WriteNotes(dir string, notes Notes) error {
	slices.Sort(notes.Tags)
	notes.Tags = slices.Compact(notes.Tags)
	content, err := json.MarshalIndent(notes, "", "  ")
	if err != nil {
		return fmt.Errorf("writing notes: %w", err)
	}
	return atomicfile.WriteFile(filepath.Join(dir, NotesFile), append(content, '\n'))
}
