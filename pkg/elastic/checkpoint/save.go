package checkpoint

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/internal/atomicfile"
)

// Checkpoint is what is to be saved.
type Checkpoint struct {
	// Step is the number of finished steps of the run.
	Step int

	// Files are written in this order.
	Files []File

	// Versions is recorded in the manifest, beside those of Go and of the modules
	// that compute, which are recorded anyway.
	Versions map[string]string
}

// File is one file of a checkpoint.
type File struct {
	// Name is a path inside of the folder, with slashes. "manifest.json" is taken.
	Name string

	// Write writes the content. The writer is buffered.
	Write func(io.Writer) error
}

// FromBytes returns a file with the given content.
func FromBytes(name string, content []byte) File {
	return File{Name: name, Write: func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	}}
}

func (c Checkpoint) validate() error {
	var errs []error
	if c.Step < 0 {
		errs = append(errs, fmt.Errorf("step is %d, want 0 or more", c.Step))
	}
	seen := map[string]bool{}
	for _, file := range c.Files {
		errs = append(errs, checkName(file.Name, seen))
		if file.Write == nil {
			errs = append(errs, fmt.Errorf("file %q has no Write", file.Name))
		}
	}
	return errors.Join(errs...)
}

// Save writes a checkpoint as the folder dir, and its parents where they are
// missing. A checkpoint that is there already is replaced as a whole. After an
// error, or after the process was killed, dir is as it was before.
func Save(dir string, c Checkpoint) error {
	return saver{create: createFile}.save(dir, c)
}

// saver makes files by a function, so that tests can let it fail.
type saver struct {
	create func(path string) (io.WriteCloser, error)
}

func createFile(path string) (io.WriteCloser, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
}

func (s saver) save(dir string, c Checkpoint) error {
	if err := c.validate(); err != nil {
		return fmt.Errorf("saving checkpoint %s: %w", dir, err)
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if err := makeFolders(parent); err != nil {
		return fmt.Errorf("saving checkpoint %s: %w", dir, atomicfile.Explain(err, parent))
	}
	err := atomicfile.WriteDir(dir, func(temp string) error { return s.fill(temp, c) })
	if err != nil {
		return fmt.Errorf("saving checkpoint: %w", err)
	}
	return nil
}

// makeFolders makes a folder and its parents, and brings their entries to the disk.
func makeFolders(dir string) error {
	if stat, err := os.Stat(dir); err == nil {
		if !stat.IsDir() {
			return fmt.Errorf("%s is there and is not a folder: move it away or choose another name", dir)
		}
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeFolders(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return atomicfile.SyncDir(parent)
}

// fill writes all files and then the manifest.
func (s saver) fill(temp string, c Checkpoint) error {
	m := Manifest{Schema: Schema, Step: c.Step, Versions: versions(c.Versions), Files: []Record{}}
	for _, file := range c.Files {
		record, err := s.write(temp, file)
		if err != nil {
			return fmt.Errorf("file %s: %w", file.Name, err)
		}
		m.Files = append(m.Files, record)
	}
	slices.SortFunc(m.Files, func(a, b Record) int { return strings.Compare(a.Name, b.Name) })
	text, err := m.encode()
	if err == nil {
		_, err = s.write(temp, FromBytes(ManifestName, text))
	}
	if err != nil {
		return fmt.Errorf("file %s: %w", ManifestName, err)
	}
	return nil
}

// write writes one file and says what it wrote.
func (s saver) write(temp string, file File) (Record, error) {
	path := filepath.Join(temp, filepath.FromSlash(file.Name))
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return Record{}, err
	}
	to, err := s.create(path)
	if err != nil {
		return Record{}, err
	}
	sum := digest{hash: sha256.New()}
	buffer := bufio.NewWriterSize(io.MultiWriter(to, &sum), 1<<16)
	err = file.Write(buffer)
	if err == nil {
		err = buffer.Flush()
	}
	if closeErr := to.Close(); err == nil {
		err = closeErr
	}
	return Record{Name: file.Name, Size: sum.size, SHA256: sum.text()}, err
}

// digest counts and hashes what is written to it.
type digest struct {
	hash hash.Hash
	size int64
}

func (d *digest) Write(p []byte) (int, error) {
	d.size += int64(len(p))
	return d.hash.Write(p)
}

func (d *digest) text() string { return hex.EncodeToString(d.hash.Sum(nil)) }
