package nb

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/janpfeifer/gonb/gonbui/protocol"

	ipynb "github.com/elastic-attention/workbench/pkg/nb"
)

// Param returns the parameter with a name: what the environment variable NB_<name> holds, else def. The value is read
// as JSON into the type of def, except that a string stands as it is. The error names the variable, its value and the
// type that is wanted.
//
//	var steps = must.M1(nb.Param("STEPS", 140)) // NB_STEPS=20 in the environment makes it 20
func Param[T any](name string, def T) (T, error) {
	text, ok := os.LookupEnv(ipynb.ParamEnv(name))
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
	dir := filepath.Join(base(), kept, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making a folder for the notebook: %w", err)
	}
	return dir, nil
}

// kept is the folder in base for what cells leave. The underscore hides it from the go command, which builds cells in
// the same place.
const kept = "_kept"

// base is the folder that goes away with the kernel.
func base() string {
	if dir := os.Getenv(protocol.GONB_TMP_DIR_ENV); dir != "" {
		return dir
	}
	return filepath.Join(os.TempDir(), "elastic-notebook")
}

// ReadPlan reads the plan of a notebook file. A relative path counts from the notebook that runs, as does the working
// directory of a cell. For a runner ([HeadlessEnv]), which may save the notebook, it says nothing of the execution that was
// saved before: that is not the one whose outputs will stand there.
func ReadPlan(path string) (ipynb.Plan, error) {
	file, err := ipynb.ReadFile(path)
	if err != nil {
		return ipynb.Plan{}, err
	}
	plan, err := file.Plan()
	if err != nil {
		return plan, fmt.Errorf("reading the plan of notebook %s: %w", path, err)
	}
	if os.Getenv(HeadlessEnv) != "" {
		plan.Measured = nil
	}
	return plan, nil
}
