package nb

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/janpfeifer/gonb/gonbui/protocol"
)

// Param returns the parameter with a name: what the environment variable NB_<name> holds, else def. The value is read
// as JSON into the type of def, except that a string stands as it is. The error names the variable, its value and the
// type that is wanted.
//
//	var steps = must.M1(nb.Param("STEPS", 140)) // NB_STEPS=20 in the environment makes it 20
func Param[T any](name string, def T) (T, error) {
	text, ok := os.LookupEnv("NB_" + name)
	if !ok || text == "" {
		return def, nil
	}
	value := def
	if s, isString := any(&value).(*string); isString {
		*s = text
		return value, nil
	}
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		return def, fmt.Errorf("NB_%s=%q, want a value like %v (%T): %w", name, text, def, def, err)
	}
	return value, nil
}

// Folder returns a folder with a name, made if it is missing, for what one cell leaves to another: cells are programs
// of their own and share no values. In a notebook it goes away with the kernel, so that nothing of an older session is
// taken for new; outside, it lies in the system's folder for temporary files.
func Folder(name string) (string, error) {
	if !filepath.IsLocal(name) {
		return "", fmt.Errorf("folder %q, want a relative path without \"..\"", name)
	}
	base := os.Getenv(protocol.GONB_TMP_DIR_ENV)
	if base == "" {
		base = filepath.Join(os.TempDir(), "elastic-notebook")
	}
	// The underscore hides it from the go command, which builds cells in the same place.
	dir := filepath.Join(base, "_kept", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making a folder for the notebook: %w", err)
	}
	return dir, nil
}

// Plan is what a notebook's metadata says about its execution, under "workbench".
type Plan struct {
	// Expect has, for each number that the notebook must print, its value and the tolerance.
	Expect map[string][2]float64 `json:"expect"`
	// Budget is the longest time that the whole notebook may take, in seconds; 0 is no limit.
	Budget float64 `json:"budget"`
	// Measured describes the execution whose outputs were saved; nil if there was none.
	Measured *Measured `json:"measured"`
}

// Measured describes one execution of a notebook.
type Measured struct {
	Seconds float64 `json:"seconds"`
	Backend string  `json:"backend"`
	Cores   int     `json:"cores"`
}

// ReadPlan reads the plan of a notebook file. A relative path counts from the notebook that runs, as does the working
// directory of a cell.
func ReadPlan(path string) (Plan, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return Plan{}, fmt.Errorf("reading the plan of a notebook: %w", err)
	}
	var file struct {
		Metadata struct {
			Workbench *Plan `json:"workbench"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(content, &file); err != nil {
		return Plan{}, fmt.Errorf("reading the plan of notebook %s: %w", path, err)
	}
	if file.Metadata.Workbench == nil {
		return Plan{}, fmt.Errorf("reading the plan of notebook %s: its metadata has no \"workbench\"", path)
	}
	return *file.Metadata.Workbench, nil
}

// Markdown writes the expected numbers as a table, sorted by name, and the times below it.
func (p Plan) Markdown() string {
	var b strings.Builder
	b.WriteString("| number | expected | tolerance |\n|---|---:|---:|\n")
	for _, name := range slices.Sorted(maps.Keys(p.Expect)) {
		fmt.Fprintf(&b, "| %s | %g | ± %g |\n", name, p.Expect[name][0], p.Expect[name][1])
	}
	b.WriteString("\n")
	if p.Measured != nil {
		fmt.Fprintf(&b, "The last saved execution took %.0f s on %s with %d cores. ", p.Measured.Seconds, p.Measured.Backend, p.Measured.Cores)
	}
	if p.Budget > 0 {
		fmt.Fprintf(&b, "The headless runner stops the notebook after %.0f s.", p.Budget)
	}
	return b.String()
}
