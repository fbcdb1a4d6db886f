package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"unicode/utf8"
)

const (
	// Schema is the version of the folder layout and the manifest that this package
	// writes, and the newest that it reads.
	Schema = 1

	// ManifestName is the file in each checkpoint that lists the others.
	ManifestName = "manifest.json"

	// manifestLimit keeps a wrong file from being read into memory.
	manifestLimit = 16 << 20
)

var (
	// ErrDamaged is wrapped by errors for a checkpoint that is not as it was written:
	// a file is missing or differs from what the manifest says, or the manifest itself.
	ErrDamaged = errors.New("damaged checkpoint")

	// ErrNewerSchema is wrapped by errors for a checkpoint of a later version of this program.
	ErrNewerSchema = errors.New("checkpoint of a newer version")
)

// Manifest is the content of manifest.json, without its own checksum.
type Manifest struct {
	Schema   int               `json:"schema"`
	Step     int               `json:"step"`
	Versions map[string]string `json:"versions"` // of the programs that wrote it: "go", module paths, and what the caller adds
	Files    []Record          `json:"files"`    // by name
}

// Record is one file of a checkpoint.
type Record struct {
	Name   string `json:"name"` // slash-separated, relative to the folder
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // hexadecimal, lower case
}

// The last field of a manifest is the SHA-256 of all bytes before its digits.
// That way of checking is the same in all schemas.
const (
	checksumField = ",\n \"checksum\": \""
	checksumEnd   = "\"\n}\n"
)

// encode returns the bytes of manifest.json.
func (m Manifest) encode() ([]byte, error) {
	text, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return nil, err
	}
	text = append(bytes.TrimSuffix(text, []byte("\n}")), checksumField...)
	sum := sha256.Sum256(text)
	text = hex.AppendEncode(text, sum[:])
	return append(text, checksumEnd...), nil
}

// decodeManifest checks the bytes of manifest.json and reads them.
func decodeManifest(text []byte) (Manifest, error) {
	at := len(text) - len(checksumEnd) - 2*sha256.Size
	if at < 0 || !bytes.HasSuffix(text[:at], []byte(checksumField)) || string(text[len(text)-len(checksumEnd):]) != checksumEnd {
		return Manifest{}, fmt.Errorf("it does not end with its checksum: %w", ErrDamaged)
	}
	sum := sha256.Sum256(text[:at])
	if got, want := string(text[at:at+2*sha256.Size]), hex.EncodeToString(sum[:]); got != want {
		return Manifest{}, fmt.Errorf("its SHA-256 is %s, want %s (was it edited?): %w", want, got, ErrDamaged)
	}
	var version struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(text, &version); err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	switch {
	case version.Schema > Schema:
		return Manifest{}, newer(version.Schema)
	case version.Schema < 1:
		return Manifest{}, fmt.Errorf("its schema is %d, want at least 1: %w", version.Schema, ErrDamaged)
	}
	var m struct {
		Manifest
		Checksum string `json:"checksum"`
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&m); err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	seen := map[string]bool{}
	for _, record := range m.Files {
		if err := checkName(record.Name, seen); err != nil {
			return Manifest{}, fmt.Errorf("%w: %w", err, ErrDamaged)
		}
	}
	return m.Manifest, nil
}

func newer(schema int) error {
	return fmt.Errorf("its schema is %d, this program knows up to %d, use the version that wrote it or a later one: %w", schema, Schema, ErrNewerSchema)
}

// checkName wants a name that stays inside of the folder, on every system, and
// that seen has not. It adds the name to seen.
func checkName(name string, seen map[string]bool) error {
	lower := strings.ToLower(name) // some file systems take A and a for the same
	switch {
	case !utf8.ValidString(name) || !fs.ValidPath(name) || name == "." || !filepath.IsLocal(filepath.FromSlash(name)) || strings.ContainsAny(name, "\\:\x00"):
		return fmt.Errorf("file name %q: want a path inside of the folder, with slashes", name)
	case lower == ManifestName:
		return fmt.Errorf("file name %q is reserved", name)
	case seen[lower]:
		return fmt.Errorf("file name %q occurs twice", name)
	}
	seen[lower] = true
	return nil
}

// versions says what wrote a checkpoint: the Go release, this module and those
// that compute, and what the caller adds.
func versions(more map[string]string) map[string]string {
	all := map[string]string{"go": runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Path != "" {
			all[info.Main.Path] = info.Main.Version
		}
		for _, module := range info.Deps {
			switch module.Path {
			case "github.com/gomlx/gomlx", "github.com/gomlx/compute", "github.com/gomlx/go-xla":
				all[module.Path] = module.Version
			}
		}
	}
	maps.Copy(all, more)
	return all
}
