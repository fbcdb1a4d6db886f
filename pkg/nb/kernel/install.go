package kernel

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/elastic-attention/workbench/internal/atomicfile"
)

// Name is the name of the Go kernel, GoNB.
const Name = "gonb"

// Paths of the programs that [Install] builds, with the module tools/go.mod pinning their versions.
const (
	gonbPath      = "github.com/janpfeifer/gonb"
	goimportsPath = "golang.org/x/tools/cmd/goimports"
	goplsPath     = "golang.org/x/tools/gopls"
)

// modulePath is the module whose checkout the cells see.
const modulePath = "github.com/elastic-attention/workbench"

// InstallOptions say what is installed where. The zero value installs for the user's own Jupyter.
type InstallOptions struct {
	Module  string    // checkout whose packages the cells see; "" is the one around the working folder
	DataDir string    // Jupyter's data folder; "" is [UserDataDir]
	Gopls   bool      // build gopls too: completion and inspection in JupyterLab
	Log     io.Writer // what the go command says; nil throws it away
}

// Installed says what [Install] has installed.
type Installed struct {
	Spec    string `json:"spec"`    // folder of the kernelspec
	Program string `json:"program"` // the kernel
	Version string `json:"version"` // of its module
	Module  string `json:"module"`  // the checkout that the cells see
}

// Install builds the Go kernel with the versions of the checkout's tools/go.mod into its .cache/bin, and writes a kernelspec.
// It makes a few changes to GoNB, for what it wins by them see docs/benchmarks.md.
//
// The spec is our own, not that of "gonb --install", because the kernel must work from a server that has neither go nor
// goimports in its PATH, and must build cells against this module without asking the network:
//
//	PATH         begins with the folders of these programs, by their absolute names
//	-go_work     every cell sees the checkout and the versions of its go.mod; with %noautoget nothing is downloaded
//	-raw_error   errors as text: runners and diffs can read them
//	-ldflags=-s  no symbol table: a cell with GoMLX links in about half the time
func Install(ctx context.Context, o InstallOptions) (Installed, error) {
	module, err := findModule(o.Module)
	if err != nil {
		return Installed{}, err
	}
	goProgram, err := exec.LookPath("go")
	if err == nil {
		goProgram, err = filepath.Abs(goProgram)
	}
	if err != nil {
		return Installed{}, fmt.Errorf("the kernel is built by the go command, which is not in PATH: %w", err)
	}
	dataDir := o.DataDir
	if dataDir == "" {
		if dataDir, err = UserDataDir(); err != nil {
			return Installed{}, err
		}
	}
	if dataDir, err = filepath.Abs(dataDir); err != nil {
		return Installed{}, err
	}
	bin := filepath.Join(module, ".cache", "bin")
	tools := []string{goimportsPath}
	if o.Gopls {
		tools = append(tools, goplsPath)
	}
	run := func(dir string, out io.Writer, args ...string) error {
		command := exec.CommandContext(ctx, goProgram, args...)
		command.Dir = dir
		command.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=", "GOWORK=")
		var said bytes.Buffer
		command.Stdout, command.Stderr = out, &said
		if o.Log != nil {
			command.Stderr = io.MultiWriter(&said, o.Log)
		}
		if err := command.Run(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, bytes.TrimSpace(said.Bytes()))
		}
		return nil
	}
	copied, err := os.MkdirTemp("", "gonb-")
	if err != nil {
		return Installed{}, fmt.Errorf("building the kernel: %w", err)
	}
	defer os.RemoveAll(copied)
	modfile, err := changed(filepath.Join(module, "tools"), copied, run)
	if err != nil {
		return Installed{}, fmt.Errorf("building the kernel: %w", err)
	}
	// Without the path of the copy, what is built can be used again.
	if err := run(filepath.Join(module, "tools"), nil, "install", "-trimpath", "-modfile="+modfile, gonbPath); err != nil {
		return Installed{}, fmt.Errorf("building the kernel: %w", err)
	}
	if err := run(filepath.Join(module, "tools"), nil, append([]string{"install"}, tools...)...); err != nil {
		return Installed{}, fmt.Errorf("building the kernel's tools: %w", err)
	}
	// Fetched now, so that cells need no network: what notebooks import beyond the packages, which deps.go pins, and the
	// go.mod of everything that the module could need, which go reads because a cell builds in a workspace. It is
	// a workspace of its own that asks for them, since the module's go.sum would be written otherwise.
	if err := run(module, nil, "list", "-deps", "-test", "-tags", "notebooks", "./..."); err != nil {
		return Installed{}, fmt.Errorf("fetching what notebooks import: %w", err)
	}
	cell, err := os.MkdirTemp("", "cell-")
	if err != nil {
		return Installed{}, fmt.Errorf("making a folder like a cell's: %w", err)
	}
	defer os.RemoveAll(cell)
	if err := os.WriteFile(filepath.Join(cell, "go.mod"), []byte("module cell\n"), 0o644); err != nil {
		return Installed{}, fmt.Errorf("making a module like a cell's: %w", err)
	}
	for _, args := range [][]string{{"work", "init", ".", module}, {"mod", "graph"}} {
		if err := run(cell, nil, args...); err != nil {
			return Installed{}, fmt.Errorf("fetching what notebooks import: %w", err)
		}
	}
	done := Installed{Spec: filepath.Join(dataDir, "kernels", Name), Program: filepath.Join(bin, Name), Module: module}
	info, err := buildinfo.ReadFile(done.Program)
	if err != nil {
		return Installed{}, fmt.Errorf("reading the kernel that was built: %w", err)
	}
	done.Version = info.Main.Version
	spec := goSpec(done.Program, module, filepath.Dir(goProgram))
	content, err := json.MarshalIndent(spec, "", " ")
	if err != nil {
		return Installed{}, err
	}
	if err := os.MkdirAll(done.Spec, 0o755); err != nil {
		return Installed{}, fmt.Errorf("writing the kernelspec: %w", err)
	}
	if err := atomicfile.WriteFile(filepath.Join(done.Spec, specFile), append(content, '\n')); err != nil {
		return Installed{}, fmt.Errorf("writing the kernelspec: %w", err)
	}
	return done, nil
}

// changed makes a copy of GoNB with our [changes] in a folder, and returns a go.mod file that takes the place of that of tools
// and builds the copy.
func changed(tools, dir string, run func(dir string, out io.Writer, args ...string) error) (modfile string, err error) {
	var said bytes.Buffer
	if err := run(tools, &said, "mod", "download", "-json", gonbPath); err != nil {
		return "", err
	}
	var source struct{ Dir string }
	if err := json.Unmarshal(said.Bytes(), &source); err != nil {
		return "", fmt.Errorf("finding the source of GoNB: %w", err)
	}
	copied := filepath.Join(dir, "source")
	if err := os.CopyFS(copied, os.DirFS(source.Dir)); err != nil {
		return "", fmt.Errorf("copying GoNB: %w", err)
	}
	if err := apply(copied, changes); err != nil {
		return "", err
	}
	modfile = filepath.Join(dir, "tools.mod")
	for _, file := range []struct{ from, to, more string }{
		{"go.mod", modfile, fmt.Sprintf("\nreplace %s => %s\n", gonbPath, strconv.Quote(copied))},
		{"go.sum", filepath.Join(dir, "tools.sum"), ""},
	} {
		content, err := os.ReadFile(filepath.Join(tools, file.from))
		if err == nil {
			err = os.WriteFile(file.to, append(content, file.more...), 0o644)
		}
		if err != nil {
			return "", fmt.Errorf("naming the copy of GoNB to the go command: %w", err)
		}
	}
	return modfile, nil
}

func goSpec(program, module, goDir string) Spec {
	path := []string{filepath.Dir(program), goDir, "${PATH}"} // Jupyter puts the server's value there
	return Spec{
		Argv:        []string{program, "--kernel", "{connection_file}", "-raw_error=true", "-go_work=" + module},
		DisplayName: "Go (gonb)", Language: "go", InterruptMode: "message",
		Env: map[string]string{
			"PATH": strings.Join(path, string(os.PathListSeparator)), "GOFLAGS": "-ldflags=-s", "GOEXPERIMENT": "simd",
			"GOMLX_NO_AUTO_INSTALL": "1", "NB_MODULE": module,
		},
	}
}

// findModule returns the absolute path of the checkout: dir, or the folder around the working folder that has its go.mod.
func findModule(dir string) (string, error) {
	up := dir == ""
	at, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for {
		content, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil && isModule(content) {
			return at, nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("looking for the checkout: %w", err)
		}
		parent := filepath.Dir(at)
		if !up || parent == at {
			break
		}
		at = parent
	}
	if up {
		return "", fmt.Errorf("the working folder is in no checkout of %s, whose packages cells are to see: go there, or name one (`elastic nb kernel install --module DIR`)", modulePath)
	}
	return "", fmt.Errorf("%s is no checkout of %s", dir, modulePath)
}

func isModule(gomod []byte) bool {
	for line := range strings.Lines(string(gomod)) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "module" {
			return fields[1] == modulePath
		}
	}
	return false
}
