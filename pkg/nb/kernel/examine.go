package kernel

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Health says whether notebooks can be executed here.
type Health struct {
	Jupyter  string    `json:"jupyter,omitempty"` // path of the command; only the browser needs it
	Spec     string    `json:"spec,omitempty"`    // folder of the Go kernel's spec
	Program  string    `json:"program,omitempty"` // that the spec starts
	Version  string    `json:"version,omitempty"` // of its module
	Tools    []Tool    `json:"tools,omitempty"`   // that the kernel needs
	Module   string    `json:"module,omitempty"`  // checkout that the cells see
	Start    float64   `json:"start_s,omitempty"` // seconds until it answered
	Problems []Problem `json:"problems,omitempty"`
}

// Tool is a program that the kernel calls.
type Tool struct {
	Name string `json:"name"`
	Path string `json:"path,omitempty"` // as the kernel would find it; "" if it would not
}

// Problem is something that is wrong or missing, and what to do about it.
type Problem struct {
	What string `json:"what"`
	Do   string `json:"do"`
}

const reinstall = "run `elastic nb kernel install` in a checkout, or `make lab`"

// Examine looks at the Go kernel as Jupyter and [Start] would find it, and starts it once.
func Examine(ctx context.Context) Health {
	var h Health
	problem := func(do, format string, args ...any) {
		h.Problems = append(h.Problems, Problem{fmt.Sprintf(format, args...), do})
	}
	if path, err := exec.LookPath("jupyter"); err == nil {
		h.Jupyter = path
	} else {
		problem("run `make lab`, or `python3 -m pip install jupyterlab`", "jupyter is not in PATH (needed only for notebooks in the browser; `make lab` brings its own)")
	}
	spec, err := Find(Name, DataDirs())
	if err != nil {
		if errors.Is(err, ErrNoKernel) {
			problem(reinstall, "the notebook kernel GoNB is not installed (needed only for the notebooks)")
		} else {
			problem(reinstall, "the notebook kernel GoNB does not work: %v", err)
		}
		return h
	}
	h.Spec, h.Program = spec.Dir, spec.Argv[0]
	path := filepath.SplitList(spec.Lookup("PATH"))
	found, err := lookPath(h.Program, path)
	if err != nil {
		problem(reinstall, "the notebook kernel GoNB does not work: its program does not start: %v", err)
		return h
	}
	if info, err := buildinfo.ReadFile(found); err == nil {
		h.Version = info.Main.Version
		if info.Path == gonbPath && info.Main.Replace == nil {
			problem(reinstall, "the notebook kernel is GoNB as it is published, without the changes for it: completion waits, and a training that is interrupted is killed")
		}
	}
	if !filepath.IsAbs(h.Program) || spec.Env["PATH"] == "" {
		problem(reinstall, "the notebook kernel GoNB depends on the PATH of the server that starts it")
	}
	for name, lack := range map[string]string{"go": "no cell can be compiled", "goimports": "every cell fails"} {
		if _, err := lookPath(name, path); err != nil {
			problem(reinstall, "the notebook kernel GoNB finds no %s: %s", name, lack)
		}
	}
	for _, name := range []string{"go", "goimports", "gopls"} {
		at, _ := lookPath(name, path)
		h.Tools = append(h.Tools, Tool{name, at})
	}
	if h.Tools[2].Path == "" {
		problem("run `elastic nb kernel install --gopls` in a checkout, or `make lab`", "the notebook kernel GoNB finds no gopls: no completion and inspection in the browser")
	}
	for _, arg := range spec.Argv {
		if module, ok := strings.CutPrefix(arg, "-go_work="); ok {
			h.Module = module
			if _, err := findModule(module); err != nil {
				problem(reinstall, "cells do not see the packages of this project: %v", err)
			}
		}
	}
	if h.Module == "" {
		problem(reinstall, "the notebook kernel GoNB is not tied to a checkout: cells do not see the packages of this project")
	}
	var log bytes.Buffer
	began := time.Now()
	k, err := Start(ctx, spec, Options{Log: &log})
	if err != nil {
		problem(reinstall, "%v: %s", err, lastLine(log.String()))
		return h
	}
	h.Start = time.Since(began).Seconds()
	k.Close()
	return h
}

// lookPath is exec.LookPath for a PATH that is not that of this process.
func lookPath(name string, path []string) (string, error) {
	if strings.ContainsRune(name, filepath.Separator) {
		return exec.LookPath(name)
	}
	for _, dir := range path {
		if found, err := exec.LookPath(filepath.Join(dir, name)); err == nil && filepath.IsAbs(found) {
			return found, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, os.ErrNotExist)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// Rows returns what is found as names and texts, for a table.
func (h Health) Rows() [][2]string {
	or := func(text string) string {
		if text == "" {
			return "none"
		}
		return text
	}
	rows := [][2]string{{"jupyter", or(h.Jupyter)}, {"gonb kernel", or(h.Spec)}}
	if h.Program != "" {
		text := "starts " + h.Program
		if h.Version != "" {
			text += ", version " + h.Version
		}
		if h.Start > 0 {
			text += fmt.Sprintf(", answers after %.2f s", h.Start)
		}
		rows = append(rows, [2]string{"", text})
	}
	for _, tool := range h.Tools {
		rows = append(rows, [2]string{"", "finds " + tool.Name + ": " + or(tool.Path)})
	}
	if h.Module != "" {
		rows = append(rows, [2]string{"", "cells see " + h.Module})
	}
	return rows
}
