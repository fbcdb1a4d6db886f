package run

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/compute"

	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/track"
)

// Scratch names a small transformer with fresh weights in place of a pretrained model.
const Scratch = "scratch"

// NameError is about a name that is neither in the catalogue nor anything else that
// could be meant.
type NameError struct {
	What  string   // "model" or "data"
	Name  string   // what was given
	Known []string // what could be given, in words
}

// Error lists what could be given.
func (e *NameError) Error() string {
	return fmt.Sprintf("%s %q is unknown, want %s", e.What, e.Name, strings.Join(e.Known, ", or "))
}

// FindModel returns the folder of a pretrained model, or the resource that it has to be
// fetched as: name is that of a run folder, a folder in Hugging Face layout, a model of the
// catalogue, or owner/name on the Hugging Face hub. An unknown name is a [*NameError].
func FindModel(name string) (dir string, resource hub.Resource, err error) {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		dir, err = ModelFolder(name)
		return dir, resource, err
	}
	if slices.Contains(hub.Models(), name) {
		resource, err = hub.Lookup(name)
		return "", resource, err
	}
	if owner, model, ok := strings.Cut(name, "/"); ok && owner != "" && model != "" && !strings.Contains(model, "/") && !strings.HasPrefix(name, ".") {
		return "", hub.HuggingFace(name, ""), nil
	}
	return "", resource, &NameError{What: "model", Name: name, Known: append(hub.Models(), Scratch, "owner/name of a model of the Hugging Face hub", "a folder that exists")}
}

// CheckBackend refuses to compute a model on nothing.
func CheckBackend(backend compute.Backend) error {
	if backend == nil {
		return errors.New("the backend is nil: open one, as by backend.Open of this module's pkg/backend")
	}
	return nil
}

// ModelFolder returns the folder of the model that a folder means: of a run folder its model, else the folder itself. A run without a
// model is an error that says why it has none: it goes on, was interrupted, or is one of a study, of which only the scores stay.
func ModelFolder(dir string) (string, error) {
	if _, err := os.Stat(filepath.Join(dir, RecordFile)); err != nil {
		return dir, nil
	}
	model := filepath.Join(dir, ModelDir)
	if _, err := os.Stat(model); err != nil {
		r, err := track.ReadRun(dir)
		switch {
		case err != nil:
			return "", err
		case r.Status == track.Finished:
			return "", fmt.Errorf("the run in %s is finished and kept no model, as those of a study do: train one by itself", dir)
		case r.Status == track.Running:
			return "", fmt.Errorf("the run in %s has no model yet: it goes on, so wait for its end", dir)
		}
		return "", fmt.Errorf("the run in %s has no model: it did not finish (%s); go on with it by the command that began it, with --resume --run %[1]s if that was a training", dir, r.Status)
	}
	return model, nil
}

// FetchModel brings in a pretrained model and returns its folder and the checksums of its
// files. See [FindModel] for the name.
func FetchModel(ctx context.Context, client *hub.Client, name string) (dir string, sums map[string]string, err error) {
	dir, resource, err := FindModel(name)
	if err != nil {
		return "", nil, err
	}
	if dir == "" {
		if dir, err = client.Fetch(ctx, resource); err != nil {
			return "", nil, fmt.Errorf("fetching model %s: %w", name, err)
		}
	}
	sums, err = checksums(dir)
	return dir, sums, err
}

// checksums returns those of the files of a model.
func checksums(dir string) (map[string]string, error) {
	sums := map[string]string{}
	for _, file := range []string{"config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json", "vocab.txt"} {
		sum, err := Checksum(filepath.Join(dir, file))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		sums[file] = sum
	}
	return sums, nil
}

// Checksum returns the SHA-256 of a file.
func Checksum(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("checking %s: %w", filepath.Base(path), err)
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", fmt.Errorf("checking %s: %w", path, err)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
