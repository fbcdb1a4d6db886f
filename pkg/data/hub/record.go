package hub

import (
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
	"github.com/elastic-attention/workbench/pkg/data"
)

// RecordFile is the name of the record that lies beside the files of a resource.
const RecordFile = "SOURCE.json"

// Record says what lies in a folder, where it came from, and under which licence.
type Record struct {
	Name     string       `json:"name"`
	Version  string       `json:"version"`
	Licence  Licence      `json:"licence"`
	Citation string       `json:"citation,omitempty"`
	Files    []FileRecord `json:"files"`
	// Absent are optional files that the source does not have.
	Absent []string `json:"absent,omitempty"`
}

// FileRecord says where one file came from.
type FileRecord struct {
	Path string `json:"path"`
	// Source is the address, or "folder:…" below the folder of data sets, or
	// "pypi:package==version/…" in a wheel.
	Source  string    `json:"source"`
	SHA256  string    `json:"sha256"`
	Size    int64     `json:"size"`
	ETag    string    `json:"etag,omitempty"`
	Commit  string    `json:"commit,omitempty"`
	Fetched time.Time `json:"fetched"`
}

// ReadRecord reads the record of a folder that [Client.Fetch] returned.
func ReadRecord(dir string) (Record, error) {
	var record Record
	content, err := os.ReadFile(filepath.Join(dir, RecordFile))
	if err != nil {
		return record, fmt.Errorf("reading record: %w", err)
	}
	if err := json.Unmarshal(content, &record); err != nil {
		return record, fmt.Errorf("reading record %s: %w", filepath.Join(dir, RecordFile), err)
	}
	return record, nil
}

// Sources returns where each file came from, for the record of a run.
func (r Record) Sources() []data.Source {
	all := make([]data.Source, len(r.Files))
	for i, file := range r.Files {
		all[i] = data.Source{
			Name: r.Name + "/" + file.Path, URL: file.Source, Licence: r.Licence.ID, Citation: r.Citation, SHA256: file.SHA256,
		}
	}
	return all
}

// readRecord gives an empty record where there is none, or one that cannot be
// read: what it was to prove is then fetched again.
func readRecord(dir string, r Resource) (Record, error) {
	record, err := ReadRecord(dir)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.As(err, &syntax) && !errors.As(err, &kind) {
		return record, err
	}
	if err != nil {
		record = Record{}
	}
	record.Name, record.Version, record.Licence, record.Citation = r.Name, r.Version, r.Licence, r.Citation
	return record, nil
}

func (r *Record) file(path string) (FileRecord, bool) {
	i := slices.IndexFunc(r.Files, func(f FileRecord) bool { return f.Path == path })
	if i < 0 {
		return FileRecord{}, false
	}
	return r.Files[i], true
}

func (r *Record) add(file FileRecord) {
	r.Absent = slices.DeleteFunc(r.Absent, func(path string) bool { return path == file.Path })
	r.Files = slices.DeleteFunc(r.Files, func(f FileRecord) bool { return f.Path == file.Path })
	r.Files = append(r.Files, file)
	slices.SortFunc(r.Files, func(a, b FileRecord) int { return strings.Compare(a.Path, b.Path) })
}

func (r *Record) addAbsent(path string) {
	if !slices.Contains(r.Absent, path) {
		r.Absent = append(r.Absent, path)
		slices.Sort(r.Absent)
	}
}

func (r *Record) write(dir string) error {
	return atomicfile.Write(filepath.Join(dir, RecordFile), func(w io.Writer) error {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	})
}
