// Package backend chooses, opens, installs and examines the engine that runs computation graphs.
//
// GoMLX runs a graph on any [compute.Backend] that a program brings along. This
// is the one package of the module that registers such backends: XLA, through a
// plugin (a shared library) that is loaded while the program runs, and GoMLX's
// engine in pure Go, which is always there. Libraries take a compute.Backend as
// an argument and never import this package; commands, notebooks and tests do:
//
//	engine, choice, err := backend.Open(ctx, backend.Options{})
//	fmt.Fprintln(os.Stderr, choice) // backend xla:cpu (…, because …)
//
// The order is: what GOMLX_BACKEND says; else an installed XLA plugin, from our
// cache folder or from the folders that GoMLX searches; else pure Go. Nothing is
// ever downloaded by opening. [Install] gets a plugin, [Probe] explains what
// there is and what is missing.
//
// Two rules keep opening safe. Pure Go means [PureGo]: in its default mode the
// engine can wait for itself forever. And no file is handed to the system's
// loader before it has been looked at: a plugin that is truncated, made for
// another machine, not a plugin at all, or not what was installed, is an error
// that names the file, what is wrong with it and what to do.
package backend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	_ "github.com/gomlx/compute/gobackend" // registers "go"
	"github.com/gomlx/go-xla/compute/xla"  // registers "xla" and its aliases
	"github.com/gomlx/go-xla/pjrt"

	"github.com/elastic-attention/workbench/internal/cachedir"
)

const (
	// ConfigEnv is GoMLX's own variable, which names a backend: "go", "xla:cpu", "xla:/path/of/plugin.so".
	ConfigEnv = compute.ConfigEnvVar

	// CacheEnv names the folder for everything that can be fetched or made again.
	CacheEnv = cachedir.Env

	// PureGo is the configuration of the engine that needs nothing installed. In the order of creation a
	// training step takes a fifth less time than in the engine's default order, which begins with what is
	// farthest from a result: that goes through all parameters once for each operation of an update rule,
	// and finds none in the caches of the processor.
	PureGo = "go:ops_sequential,creation_order"
)

// Options say what to open. The zero value follows the environment.
type Options struct {
	// Config, if set, is used instead of the environment variable GOMLX_BACKEND.
	Config string `json:"config,omitempty"`

	// CacheDir is the folder that [Install] writes to; see [CacheDir] for the default.
	CacheDir string `json:"cache_dir,omitempty"`

	// NoDonation leaves GoMLX's XLA backend as it is. Otherwise a training step
	// may write updated variables over their old values; see [Choice].Donation.
	NoDonation bool `json:"no_donation,omitempty"`
}

// Choice says which backend was opened and why. It is plain data.
type Choice struct {
	Name    string   `json:"name"`              // "go", or "xla:cpu", "xla:cuda", …
	Config  string   `json:"config"`            // what was given to GoMLX
	Plugin  string   `json:"plugin,omitempty"`  // path of the XLA plugin
	Version string   `json:"version,omitempty"` // version of the plugin, as recorded when it was installed
	PJRT    string   `json:"pjrt,omitempty"`    // version of the interface that the plugin speaks
	Reason  string   `json:"reason"`            // completes "because …"
	SIMD    bool     `json:"simd"`              // pure Go only: built with GOEXPERIMENT=simd, on a CPU that has AVX2
	Devices []string `json:"devices"`           // one description each

	// Donation says whether a step may overwrite the variables that it replaces,
	// and if not, why: "on", "off: …". Empty for pure Go, which needs none.
	Donation string `json:"donation,omitempty"`
}

// String is one line: which backend, and why.
func (c Choice) String() string {
	var what string
	switch {
	case c.Plugin != "" && c.Version != "":
		what = fmt.Sprintf("plugin %s, version %s; ", c.Plugin, c.Version)
	case c.Plugin != "":
		what = fmt.Sprintf("plugin %s; ", c.Plugin)
	case c.Name == "go" && c.SIMD:
		what = "pure Go, simd; "
	case c.Name == "go":
		what = "pure Go, no simd; "
	}
	return fmt.Sprintf("backend %s (%sbecause %s)", c.Name, what, c.Reason)
}

// Open opens the backend that options and environment ask for, or the best one
// that is installed. It never downloads anything.
//
// A backend that was asked for and cannot be opened is an error; so is an
// installed plugin that cannot be used when there is no other: falling back
// silently to an engine several times slower would help nobody.
func Open(ctx context.Context, opts Options) (compute.Backend, Choice, error) {
	if err := ctx.Err(); err != nil {
		return nil, Choice{}, fmt.Errorf("opening a backend: %w", err)
	}
	config, origin := opts.Config, "the caller asks for it"
	if config == "" {
		config, origin = strings.TrimSpace(os.Getenv(ConfigEnv)), ConfigEnv+" asks for it"
	}
	engine, choice, err := open(ctx, config, origin, opts)
	if err != nil {
		if config == "" {
			return nil, choice, fmt.Errorf("opening a backend: %w", err)
		}
		return nil, choice, fmt.Errorf("opening backend %q (%s): %w", config, origin, err)
	}
	return engine, choice, nil
}

func open(ctx context.Context, config, origin string, opts Options) (compute.Backend, Choice, error) {
	if config == "" {
		return openBest(ctx, opts)
	}
	name, rest, _ := strings.Cut(config, ":")
	switch name {
	case "go":
		return openGo(config, rest, origin)
	case "xla", "stablehlo", "shlo", "hlo":
		return openXLA(ctx, rest, origin, opts)
	}
	known := compute.List()
	slices.Sort(known)
	if !slices.Contains(known, name) {
		return nil, Choice{}, fmt.Errorf("no backend is called %q; there are %s", name, strings.Join(known, ", "))
	}
	engine, err := guard(func() (compute.Backend, error) { return compute.NewWithConfig(config) })
	if err != nil {
		return nil, Choice{}, err
	}
	return engine, Choice{Name: name, Config: config, Reason: origin, Devices: devices(engine)}, nil
}

// openBest takes an installed plugin, or pure Go where there is none.
func openBest(ctx context.Context, opts Options) (compute.Backend, Choice, error) {
	found, err := findPlugins(opts.CacheDir)
	if err != nil {
		return nil, Choice{}, err
	}
	found = slices.DeleteFunc(found, func(f pluginFile) bool { return !deviceLooksPresent(f.Device) })
	slices.SortStableFunc(found, func(a, b pluginFile) int { return cmp.Compare(a.rank(), b.rank()) })
	if len(found) == 0 {
		return openGo(PureGo, strings.TrimPrefix(PureGo, "go:"), "no XLA plugin is installed: run `elastic backend install`")
	}
	var problems []error
	for _, file := range found {
		engine, choice, err := openPlugin(ctx, file, "", "it is installed", opts)
		if err == nil {
			if len(problems) > 0 {
				choice.Reason += fmt.Sprintf("; passed over: %v", oneLine(problems))
			}
			return engine, choice, nil
		}
		problems = append(problems, err)
	}
	return nil, Choice{}, fmt.Errorf("%w; or set %s=go to work without it", oneLine(problems), ConfigEnv)
}

func openGo(config, options, origin string) (compute.Backend, Choice, error) {
	reason := origin
	if options == "" {
		config = PureGo
		if origin != "" {
			reason = origin + "; ops_sequential added, since the engine's default mode can deadlock, and creation_order, since it is faster"
		}
	} else if !strings.Contains(options, "ops_sequential") {
		reason += "; careful: without ops_sequential the engine can deadlock"
	}
	engine, err := guard(func() (compute.Backend, error) { return compute.NewWithConfig(config) })
	if err != nil {
		return nil, Choice{}, err
	}
	return engine, Choice{Name: "go", Config: config, Reason: reason, SIMD: simdInUse(), Devices: devices(engine)}, nil
}

// openXLA opens what follows "xla:": a path or a plugin's name, and options.
func openXLA(ctx context.Context, config, origin string, opts Options) (compute.Backend, Choice, error) {
	name, options, _ := strings.Cut(config, ",")
	if strings.ContainsRune(name, filepath.Separator) || strings.HasSuffix(name, ".so") || strings.HasSuffix(name, ".dylib") {
		path, err := filepath.Abs(name)
		if err != nil {
			return nil, Choice{}, err
		}
		return openPlugin(ctx, pluginFile{Path: path, Device: deviceOf(path)}, options, origin, opts)
	}
	found, err := findPlugins(opts.CacheDir)
	if err != nil {
		return nil, Choice{}, err
	}
	slices.SortStableFunc(found, func(a, b pluginFile) int { return cmp.Compare(a.rank(), b.rank()) })
	var names []string
	var problems []error
	for _, file := range found {
		names = append(names, file.Name)
		if name == "" && !deviceLooksPresent(file.Device) {
			continue
		}
		if name != "" && file.Name != name && !strings.HasPrefix(file.Name, name+"_") {
			continue
		}
		engine, choice, err := openPlugin(ctx, file, options, origin, opts)
		if err == nil {
			return engine, choice, nil
		}
		problems = append(problems, err)
	}
	if len(problems) > 0 {
		return nil, Choice{}, oneLine(problems)
	}
	if len(names) > 0 {
		return nil, Choice{}, fmt.Errorf("no XLA plugin %q is installed, only %s: run `elastic backend install`", name, strings.Join(names, ", "))
	}
	return nil, Choice{}, errors.New("no XLA plugin is installed: run `elastic backend install`, give a path as in " +
		ConfigEnv + "=xla:/path/of/plugin.so, or set " + ConfigEnv + "=go")
}

// openPlugin checks one plugin and loads it.
func openPlugin(ctx context.Context, file pluginFile, options, origin string, opts Options) (compute.Backend, Choice, error) {
	if err := ctx.Err(); err != nil {
		return nil, Choice{}, err
	}
	record, err := checkPlugin(ctx, file.Path)
	if err != nil {
		return nil, Choice{}, err
	}
	config := file.Path
	if options != "" {
		config += "," + options
	}
	engine, err := guard(func() (*xla.Backend, error) { return xla.NewWithOptions(config, nil) })
	if err != nil {
		return nil, Choice{}, fmt.Errorf("plugin %s does not load on this machine (%w); reinstall it with `elastic backend install --force`", file.Path, err)
	}
	choice := Choice{
		Name: "xla:" + file.Device, Config: "xla:" + config, Plugin: file.Path, Version: record.Version,
		Reason: origin, Devices: devices(engine),
	}
	if plugin, err := pjrt.GetPlugin(file.Path); err == nil { // loaded above, so this only looks it up
		major, minor := plugin.Version()
		choice.PJRT = fmt.Sprintf("%d.%d", major, minor)
	}
	if opts.NoDonation {
		choice.Donation = "off: the caller does not want it"
		return engine, choice, nil
	}
	donating, err := withDonation(engine)
	if err != nil {
		choice.Donation = "off: " + err.Error()
		return engine, choice, nil
	}
	choice.Donation = "on"
	return donating, choice, nil
}

// CacheDir is the folder for everything that can be fetched or made again:
// ELASTIC_CACHE_DIR, else "elastic" in the user's cache folder.
func CacheDir() (string, error) { return cachedir.Home() }

// guard turns a panic of the code below into an error.
func guard[T any](f func() (T, error)) (result T, err error) {
	defer func() {
		if r := recover(); r != nil {
			if cause, ok := r.(error); ok {
				err = fmt.Errorf("panic: %w", cause)
			} else {
				err = fmt.Errorf("panic: %v", r)
			}
		}
	}()
	return f()
}

// oneLine joins errors like errors.Join, without line breaks.
func oneLine(list []error) error {
	joined := list[0]
	for _, err := range list[1:] {
		joined = fmt.Errorf("%w; %w", joined, err)
	}
	return joined
}

func devices(engine compute.Backend) []string {
	list := make([]string, engine.NumDevices())
	for i := range list {
		list[i] = engine.DeviceDescription(compute.DeviceNum(i))
	}
	return list
}

// platform names the machine as Go and GoMLX do: "linux/amd64".
func platform() string { return runtime.GOOS + "/" + runtime.GOARCH }
