// Package preset finds configs by name: those that come with a package, and files of a user's.
package preset

import (
	"bytes"
	"embed"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/internal/strictjson"
)

// Recipes are configs that a program makes, by name.
type Recipes[C any] map[string]func() C

// Get returns the config with a name.
func (r Recipes[C]) Get(name string) (config C, err error) {
	make, ok := r[name]
	if !ok {
		return config, fmt.Errorf("preset %q is unknown; known: %s", name, strings.Join(r.Names(), ", "))
	}
	return make(), nil
}

// Names lists the names, sorted.
func (r Recipes[C]) Names() []string { return slices.Sorted(maps.Keys(r)) }

// Files are configs in JSON that come with a package, in the folder presets.
type Files[C interface{ Validate() error }] struct {
	What string // "study"
	FS   embed.FS
}

// Names lists the names, sorted.
func (f Files[C]) Names() []string {
	entries, err := f.FS.ReadDir("presets")
	if err != nil {
		return nil // cannot be: they are part of the program
	}
	var names []string
	for _, entry := range entries {
		names = append(names, strings.TrimSuffix(entry.Name(), ".json"))
	}
	return names
}

// Get returns the config with a name.
func (f Files[C]) Get(name string) (config C, err error) {
	content, err := f.FS.ReadFile(path.Join("presets", name+".json"))
	if err != nil {
		if info, err := os.Stat(name); err == nil && info.IsDir() {
			return config, fmt.Errorf("%s is a folder, want a %s that comes with the program (%s), or a file that holds one, such as %[2]s.json in the folder of one that has run", name, f.What, strings.Join(f.Names(), ", "))
		}
		return config, fmt.Errorf("no %s %q and no such file; known: %s", f.What, name, strings.Join(f.Names(), ", "))
	}
	return f.parse(name, content)
}

// Read reads a config from a file. Unknown fields are errors.
func (f Files[C]) Read(file string) (config C, err error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return config, fmt.Errorf("reading a %s: %w", f.What, err)
	}
	return f.parse(file, content)
}

func (f Files[C]) parse(name string, content []byte) (config C, err error) {
	if len(bytes.TrimSpace(content)) == 0 {
		return config, fmt.Errorf("%s is empty, want a %s in JSON", name, f.What)
	}
	if err := strictjson.Decode(content, &config); err != nil {
		return config, fmt.Errorf("%s: %w; it should be a %[3]s in JSON, such as %[3]s.json in the folder of one that has run", name, err, f.What)
	}
	if err := config.Validate(); err != nil {
		return config, fmt.Errorf("%s: %w", name, err)
	}
	return config, nil
}
