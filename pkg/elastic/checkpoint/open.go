package checkpoint

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/elastic-attention/workbench/internal/atomicfile"
)

// Folder is a checkpoint on the disk.
type Folder struct {
	Dir      string
	Manifest Manifest

	// Skipped is set by [Run.Latest]: an error for each newer checkpoint that is
	// damaged and was passed over. Tell the user.
	Skipped []error
}

// Options say how a checkpoint is opened. The zero value checks everything.
type Options struct {
	// SkipAbove, if not 0, is the size in bytes above which files are only checked
	// for their size. [Folder.Verify] can check them later.
	SkipAbove int64
}

// Open opens a checkpoint and checks all of its files. The error names the file
// that is damaged and wraps [ErrDamaged]; for the checkpoint of a later version
// it wraps [ErrNewerSchema], and if there is no folder, [fs.ErrNotExist]. Files in the
// folder that the manifest does not list are not part of the checkpoint.
func Open(dir string) (*Folder, error) { return Options{}.Open(dir) }

// Open is the function [Open] with these options.
func (o Options) Open(dir string) (*Folder, error) {
	f, err := o.open(dir)
	if err != nil {
		return nil, fmt.Errorf("opening checkpoint %s: %w", dir, err)
	}
	return f, nil
}

func (o Options) open(dir string) (*Folder, error) {
	if err := atomicfile.Recover(dir); err != nil {
		return nil, err
	}
	if stat, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !stat.IsDir() {
		return nil, fmt.Errorf("it is no folder (%s)", stat.Mode())
	}
	text, err := readManifest(filepath.Join(dir, ManifestName))
	if err != nil {
		return nil, err
	}
	f := &Folder{Dir: dir}
	if f.Manifest, err = decodeManifest(text); err != nil {
		return nil, fmt.Errorf("file %s: %w", ManifestName, err)
	}
	limit := int64(math.MaxInt64)
	if o.SkipAbove != 0 {
		limit = o.SkipAbove
	}
	for _, record := range f.Manifest.Files {
		if err := f.verify(record, record.Size <= limit); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func readManifest(path string) ([]byte, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("file %s is missing, so this is no checkpoint, or what is left of one: %w", ManifestName, ErrDamaged)
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, manifestLimit+1))
	if err != nil {
		return nil, err
	}
	if len(text) > manifestLimit {
		return nil, fmt.Errorf("file %s has more than %d bytes: %w", ManifestName, manifestLimit, ErrDamaged)
	}
	return text, nil
}

// CheckSchema refuses a folder whose manifest a later version of this program wrote, by an error
// that wraps [ErrNewerSchema]. A folder without a manifest of ours, as other programs write models,
// is none; whether its files are whole is for [Open] to say.
func CheckSchema(dir string) error {
	path := filepath.Join(dir, ManifestName)
	text, err := readManifest(path)
	if errors.Is(err, ErrDamaged) { // none, or too large to be ours
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	var version struct {
		Schema int `json:"schema"`
	}
	if json.Unmarshal(text, &version) == nil && version.Schema > Schema {
		return fmt.Errorf("%s: %w", path, newer(version.Schema))
	}
	return nil
}

// Path returns where a file of the checkpoint lies.
func (f *Folder) Path(name string) (string, error) {
	record, err := f.record(name)
	if err != nil {
		return "", err
	}
	return f.path(record), nil
}

func (f *Folder) path(record Record) string {
	return filepath.Join(f.Dir, filepath.FromSlash(record.Name))
}

func (f *Folder) record(name string) (Record, error) {
	i := slices.IndexFunc(f.Manifest.Files, func(r Record) bool { return r.Name == name })
	if i < 0 {
		return Record{}, fmt.Errorf("checkpoint %s has no file %q: %w", f.Dir, name, fs.ErrNotExist)
	}
	return f.Manifest.Files[i], nil
}

// ReadFile returns the content of a file, checked again while it is read.
func (f *Folder) ReadFile(name string) ([]byte, error) {
	record, err := f.record(name)
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(f.path(record))
	if err != nil {
		return nil, fmt.Errorf("reading checkpoint %s: %w", f.Dir, err)
	}
	got := digest{hash: sha256.New()}
	_, _ = got.Write(content)
	if err := record.compare(got); err != nil {
		return nil, fmt.Errorf("reading checkpoint %s: %w", f.Dir, err)
	}
	return content, nil
}

// Verify checks one file, for those that [Options.SkipAbove] left out.
func (f *Folder) Verify(name string) error {
	record, err := f.record(name)
	if err != nil {
		return err
	}
	if err := f.verify(record, true); err != nil {
		return fmt.Errorf("checking checkpoint %s: %w", f.Dir, err)
	}
	return nil
}

// verify checks the size of a file and, if wanted, its content.
func (f *Folder) verify(record Record, content bool) error {
	path := f.path(record)
	stat, err := os.Stat(path) // first: opening a pipe would wait for a writer
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("file %s is missing: %w", record.Name, ErrDamaged)
	case err != nil:
		return err
	case !stat.Mode().IsRegular():
		return fmt.Errorf("file %s is no regular file (%s): %w", record.Name, stat.Mode(), ErrDamaged)
	case stat.Size() != record.Size:
		return fmt.Errorf("file %s has %d bytes, want %d: %w", record.Name, stat.Size(), record.Size, ErrDamaged)
	case !content:
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	got := digest{hash: sha256.New()}
	if _, err := io.Copy(&got, file); err != nil {
		return fmt.Errorf("file %s: %w", record.Name, err)
	}
	return record.compare(got)
}

func (r Record) compare(got digest) error {
	switch {
	case got.size != r.Size:
		return fmt.Errorf("file %s has %d bytes, want %d: %w", r.Name, got.size, r.Size, ErrDamaged)
	case got.text() != r.SHA256:
		return fmt.Errorf("file %s has SHA-256 %s, want %s: %w", r.Name, got.text(), r.SHA256, ErrDamaged)
	}
	return nil
}
