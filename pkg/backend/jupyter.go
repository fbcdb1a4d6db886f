package backend

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Jupyter says whether notebooks can run here.
type Jupyter struct {
	Command string `json:"command,omitempty"` // path of jupyter
	Kernel  string `json:"kernel,omitempty"`  // folder of the GoNB kernel's description
	Program string `json:"program,omitempty"` // what the description starts
	Problem string `json:"problem,omitempty"` // with the kernel
}

// jupyter looks for the jupyter command and for the kernel "gonb" in the folders that Jupyter searches.
func jupyter() Jupyter {
	var j Jupyter
	if path, err := exec.LookPath("jupyter"); err == nil {
		j.Command = path
	}
	for _, dir := range jupyterDirs(j.Command) {
		spec := filepath.Join(dir, "kernels", "gonb", "kernel.json")
		content, err := os.ReadFile(spec)
		if err != nil {
			continue
		}
		j.Kernel = filepath.Dir(spec)
		var description struct {
			Argv []string `json:"argv"`
		}
		switch err := json.Unmarshal(content, &description); {
		case err != nil:
			j.Problem = "its description " + spec + " is damaged: " + err.Error()
		case len(description.Argv) == 0:
			j.Problem = "its description " + spec + " names no program"
		default:
			j.Program = description.Argv[0]
			if _, err := exec.LookPath(j.Program); err != nil {
				j.Problem = "its program does not start: " + err.Error()
			}
		}
		return j // the first one found is the one that Jupyter takes
	}
	return j
}

func jupyterDirs(command string) []string {
	dirs := filepath.SplitList(os.Getenv("JUPYTER_PATH"))
	if dir := os.Getenv("JUPYTER_DATA_DIR"); dir != "" {
		dirs = append(dirs, dir)
	} else if home, err := os.UserHomeDir(); err == nil {
		switch {
		case runtime.GOOS == "darwin":
			dirs = append(dirs, filepath.Join(home, "Library", "Jupyter"))
		case os.Getenv("XDG_DATA_HOME") != "":
			dirs = append(dirs, filepath.Join(os.Getenv("XDG_DATA_HOME"), "jupyter"))
		default:
			dirs = append(dirs, filepath.Join(home, ".local", "share", "jupyter"))
		}
	}
	if command != "" { // bin/jupyter beside share/jupyter, as in a virtual environment
		if real, err := filepath.EvalSymlinks(command); err == nil {
			command = real
		}
		dirs = append(dirs, filepath.Join(filepath.Dir(filepath.Dir(command)), "share", "jupyter"))
	}
	return append(dirs, "/usr/local/share/jupyter", "/usr/share/jupyter")
}

func (j Jupyter) findings() []Finding {
	var list []Finding
	if j.Command == "" {
		list = append(list, Finding{"jupyter is not in PATH (needed only for the notebooks; `make lab` brings its own)", "run `make lab`, or `python3 -m pip install jupyterlab`"})
	}
	switch {
	case j.Kernel == "":
		list = append(list, Finding{"the notebook kernel GoNB is not installed (needed only for the notebooks)", "run `make lab`"})
	case j.Problem != "":
		list = append(list, Finding{"the notebook kernel GoNB does not work: " + j.Problem, "run `make lab` to install it again"})
	}
	return list
}
