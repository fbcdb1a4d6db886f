package kernel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Spec says how a kernel is started: the content of kernel.json.
type Spec struct {
	Argv          []string          `json:"argv"` // {connection_file} stands for the connection file
	DisplayName   string            `json:"display_name"`
	Language      string            `json:"language"`
	InterruptMode string            `json:"interrupt_mode,omitempty"` // "message"; else by signal
	Env           map[string]string `json:"env,omitempty"`            // ${NAME} stands for a variable of the starting process

	Name string `json:"-"` // name of the folder
	Dir  string `json:"-"` // folder of kernel.json
}

// specFile is the file that makes a folder a kernelspec.
const specFile = "kernel.json"

// ErrNoKernel is returned when no kernelspec has the wanted name.
var ErrNoKernel = errors.New("no such kernel is installed")

// DataDirs returns the folders that Jupyter looks for data in, the first found counting: those of JUPYTER_PATH, the user's
// own (JUPYTER_DATA_DIR, if set), that of the installation whose jupyter is in PATH, and the system's.
func DataDirs() []string {
	dirs := filepath.SplitList(os.Getenv("JUPYTER_PATH"))
	if user, err := UserDataDir(); err == nil {
		dirs = append(dirs, user)
	}
	if command, err := exec.LookPath("jupyter"); err == nil {
		if real, err := filepath.EvalSymlinks(command); err == nil {
			command = real
		}
		dirs = append(dirs, filepath.Join(filepath.Dir(filepath.Dir(command)), "share", "jupyter"))
	}
	dirs = append(dirs, "/usr/local/share/jupyter", "/usr/share/jupyter")
	return slices.DeleteFunc(dirs, func(dir string) bool { return dir == "" })
}

// UserDataDir returns the user's own folder of Jupyter.
func UserDataDir() (string, error) {
	if dir := os.Getenv("JUPYTER_DATA_DIR"); dir != "" {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding Jupyter's data folder: %w", err)
	}
	if runtime.GOOS == "darwin" {
		return filepath.Join(home, "Library", "Jupyter"), nil
	}
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "jupyter"), nil
	}
	return filepath.Join(home, ".local", "share", "jupyter"), nil
}

// Find returns the kernelspec with a name from the first of the folders that has it; see [DataDirs]. The error is
// [ErrNoKernel] if none has.
func Find(name string, dirs []string) (Spec, error) {
	for _, dir := range dirs {
		spec, err := ReadSpec(filepath.Join(dir, "kernels", name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return spec, err
	}
	return Spec{}, fmt.Errorf("kernel %q: %w (looked in %s); \"elastic nb kernel install\" installs the Go kernel", name, ErrNoKernel, strings.Join(dirs, ", "))
}

// ReadSpec reads the kernelspec in a folder.
func ReadSpec(dir string) (Spec, error) {
	path := filepath.Join(dir, specFile)
	content, err := os.ReadFile(path)
	if err != nil {
		return Spec{}, fmt.Errorf("reading a kernelspec: %w", err)
	}
	spec := Spec{Name: filepath.Base(dir), Dir: dir}
	if err := json.Unmarshal(content, &spec); err != nil {
		return spec, fmt.Errorf("reading kernelspec %s: %w", path, err)
	}
	if len(spec.Argv) == 0 {
		return spec, fmt.Errorf("reading kernelspec %s: argv is empty", path)
	}
	return spec, nil
}

// Environ returns the environment of the kernel: that of this process, the spec's on top, and extra last.
func (s Spec) Environ(extra map[string]string) []string {
	env := os.Environ()
	for name, value := range s.Env {
		env = append(env, name+"="+expand(value))
	}
	for name, value := range extra {
		env = append(env, name+"="+value)
	}
	return env
}

// Lookup returns a variable as the kernel would see it.
func (s Spec) Lookup(name string) string {
	if value, ok := s.Env[name]; ok {
		return expand(value)
	}
	return os.Getenv(name)
}

// expand replaces ${NAME} by the environment's value. As in Jupyter, a variable that is not set stays as it is.
func expand(text string) string {
	return os.Expand(text, func(name string) string {
		if value, ok := os.LookupEnv(name); ok {
			return value
		}
		return "${" + name + "}"
	})
}
