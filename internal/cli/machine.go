package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/willabides/kongplete"
	"golang.org/x/term"

	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/nb/kernel"
	"github.com/elastic-attention/workbench/pkg/run"
)

func isTerminalInput(r io.Reader) bool {
	file, ok := r.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

type backendCmd struct {
	Show    backendShowCmd    `cmd:"" default:"1" help:"Say which backend would be used, and why."`
	Install backendInstallCmd `cmd:"" help:"Install the XLA plugin into your cache folder (no administrator's rights needed)."`
	Path    backendPathCmd    `cmd:"" help:"Print the installed XLA backend as GOMLX_BACKEND takes it; exit code 1 if there is none."`
}

type backendShowCmd struct {
	JSON bool `help:"Print as JSON."`
}

// Run shows the choice.
func (c backendShowCmd) Run(a *app) error {
	engine, choice, err := backend.Open(a.ctx, backend.Options{})
	if err != nil {
		return err
	}
	defer engine.Finalize()
	if c.JSON {
		return a.printJSON(choice)
	}
	fmt.Fprintln(a.stdout, choice)
	return nil
}

type backendInstallCmd struct {
	Device    string `help:"cpu, or cuda for NVIDIA." enum:"cpu,cuda" default:"cpu"`
	IfMissing bool   `help:"Do nothing, quickly, when a good plugin is installed."`
	Force     bool   `help:"Install again even if a good plugin is there."`
	PinnedPip bool   `name:"pip" help:"Take the pinned wheel by pip at once, without trying GoMLX's own installer first."`
	JSON      bool   `help:"Print as JSON."`
}

// Help is shown below the usage.
func (backendInstallCmd) Help() string {
	return `GoMLX's own installer is tried first, then a pinned Python wheel by pip. The library's SHA-256
is checked before it is ever loaded.`
}

// Run installs.
func (c backendInstallCmd) Run(a *app) error {
	var b *bar
	stage := ""
	installed, err := backend.Install(a.ctx, backend.InstallOptions{
		Device: c.Device, Force: c.Force && !c.IfMissing, NoGoMLX: c.PinnedPip,
		Progress: func(name string, done, total int64) {
			if total <= 0 {
				return
			}
			if name != stage {
				b.finish()
				b, stage = newBar(a.stderr, name, total, true), name
			}
			b.set(done, total, "")
		},
	})
	b.finish()
	if err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(installed)
	}
	if installed.Already {
		if !c.IfMissing {
			fmt.Fprintf(a.stdout, "already installed: %s (%s)\n", installed.Plugin, installed.Version)
		}
		return nil
	}
	fmt.Fprintf(a.stdout, "installed %s\n  version %s, from %s\n  SHA-256 %s\n", installed.Plugin, installed.Version, installed.Source, installed.SHA256)
	for _, note := range installed.Notes {
		fmt.Fprintf(a.stdout, "  %s\n", note)
	}
	return nil
}

type backendPathCmd struct {
	JSON bool `help:"Print as JSON, with version and reason."`
}

// Run prints the plugin's path.
func (c backendPathCmd) Run(a *app) error {
	if os.Getenv(backend.ConfigEnv) != "" { // the question is what is installed, not what is asked for
		if err := os.Unsetenv(backend.ConfigEnv); err != nil {
			return err
		}
	}
	engine, choice, err := backend.Open(a.ctx, backend.Options{})
	if err != nil {
		return err
	}
	defer engine.Finalize()
	if choice.Plugin == "" {
		fmt.Fprintf(a.stderr, "no XLA plugin is installed: %s backend install\n", program())
		return errSilent
	}
	if c.JSON {
		return a.printJSON(choice)
	}
	fmt.Fprintln(a.stdout, choice.Config)
	return nil
}

type doctorCmd struct {
	JSON bool `help:"Print as JSON."`
}

// health is what doctor finds.
type health struct {
	backend.Report
	Notebooks kernel.Health `json:"notebooks"`
}

// Run examines.
func (c doctorCmd) Run(a *app) error {
	found := health{Report: backend.Probe(a.ctx, backend.Options{}), Notebooks: kernel.Examine(a.ctx)}
	if c.JSON {
		return a.printJSON(found)
	}
	for _, p := range found.Notebooks.Problems {
		found.Findings = append(found.Findings, backend.Finding{What: p.What, Do: p.Do})
	}
	return found.WriteText(a.stdout, found.Notebooks.Rows()...)
}

type fetchCmd struct {
	Names []string `arg:"" optional:"" help:"Names from the catalogue, or owner/name of a model on the Hugging Face hub." predictor:"resource"`
	All   bool     `help:"Fetch the whole catalogue."`
	JSON  bool     `help:"Print as JSON."`
}

// Help is shown below the usage.
func (fetchCmd) Help() string {
	return `Without names, the catalogue is listed.

Examples:
  elastic fetch                                list
  elastic fetch minilm-l6 uner-en-ewt          what "train ner" needs
  elastic fetch google-bert/bert-base-cased    any model of the hub

ELASTIC_CACHE_DIR names the cache, ELASTIC_DATA_DIR a folder that has data sets already,
ELASTIC_OFFLINE=1 forbids requests, HF_ENDPOINT names another hub.`
}

type fetched struct {
	Name    string      `json:"name"`
	Dir     string      `json:"dir"`
	Licence hub.Licence `json:"licence"`
}

// Run fetches, or lists.
func (c fetchCmd) Run(a *app) error {
	client := &hub.Client{Progress: fetching(a.stderr)}
	if c.All {
		c.Names = hub.Names()
	}
	if len(c.Names) == 0 {
		return c.list(a, client)
	}
	var list []fetched
	for _, name := range c.Names {
		resource, err := hub.Lookup(name)
		if err != nil {
			if !strings.Contains(name, "/") {
				return &run.NameError{What: "resource", Name: name, Known: append(hub.Names(), "owner/name of a model of the Hugging Face hub")}
			}
			resource = hub.HuggingFace(name, "")
		}
		dir, err := client.Fetch(a.ctx, resource)
		if err != nil {
			return err
		}
		list = append(list, fetched{Name: name, Dir: dir, Licence: resource.Licence})
		if !c.JSON {
			licence := resource.Licence.ID
			if licence == "" {
				licence = "unknown; see the model's page"
			}
			fmt.Fprintf(a.stdout, "%s: %s (licence %s)\n", name, dir, licence)
		}
	}
	if c.JSON {
		return a.printJSON(list)
	}
	return nil
}

func (c fetchCmd) list(a *app, client *hub.Client) error {
	var list []hub.Resource
	for _, name := range hub.Names() {
		resource, err := hub.Lookup(name)
		if err != nil {
			return err
		}
		list = append(list, resource)
	}
	if c.JSON {
		return a.printJSON(list)
	}
	for _, r := range list {
		state := "not fetched"
		if client.Cached(r) {
			state = "fetched"
		}
		fmt.Fprintf(a.stdout, "%-16s %6.1f MB  %-14s %-12s %s\n", r.Name, float64(r.Size())/1e6, r.Licence.ID, state, r.Kind)
	}
	return nil
}

type completionCmd struct{}

// Help is shown below the usage.
func (completionCmd) Help() string {
	return `The line is for the shell that you log in with: bash, zsh or fish. Put it into the file that your shell
reads when it starts, or for bash try it at once: eval "$(elastic completion)"`
}

// Run prints the line. Kongplete's own command prints it as a hook, so even after its --help.
func (completionCmd) Run(parsed *kong.Context) error {
	return new(kongplete.InstallCompletions).BeforeApply(parsed)
}

type versionCmd struct {
	JSON bool `help:"Print as JSON."`
}

// Run prints versions.
func (c versionCmd) Run(a *app) error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return errors.New("this program was built without module information")
	}
	versions := map[string]string{"elastic": info.Main.Version, "go": runtime.Version()}
	for _, module := range info.Deps {
		if strings.HasPrefix(module.Path, "github.com/gomlx/") {
			versions[module.Path] = module.Version
		}
	}
	if c.JSON {
		return a.printJSON(versions)
	}
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		fmt.Fprintf(a.stdout, "%-32s %s\n", name, versions[name])
	}
	return nil
}
