package backend_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/google/go-cmp/cmp"
)

// bare is a machine on which nothing is installed, whatever this one has. It returns the cache folder.
func bare(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv(backend.ConfigEnv, "")
	t.Setenv(backend.CacheEnv, filepath.Join(dir, "cache"))
	t.Setenv("PJRT_PLUGIN_LIBRARY_PATH", filepath.Join(dir, "plugins"))
	return filepath.Join(dir, "cache")
}

func TestOpenOrder(t *testing.T) {
	for _, test := range []struct {
		name, env, option string
		config, line      string
	}{
		{
			"nothing installed", "", "", "go:ops_sequential,creation_order",
			"because no XLA plugin is installed: run `elastic backend install`)",
		},
		{
			"plain go is made safe", "go", "", "go:ops_sequential,creation_order",
			"because GOMLX_BACKEND asks for it; ops_sequential added, since the engine's default mode can deadlock, and creation_order, since it is faster)",
		},
		{"with a colon", "go:", "", "go:ops_sequential,creation_order", "ops_sequential added"},
		{"as written", "go:ops_sequential", "", "go:ops_sequential", "because GOMLX_BACKEND asks for it)"},
		{"surrounded by spaces", " go:ops_sequential\n", "", "go:ops_sequential", "because GOMLX_BACKEND asks for it)"},
		{"risky, but explicit", "go:dependency_order", "", "go:dependency_order", "careful: without ops_sequential the engine can deadlock"},
		{"the caller wins", "xla:/no/such/file.so", "go:ops_sequential", "go:ops_sequential", "because the caller asks for it)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bare(t)
			t.Setenv(backend.ConfigEnv, test.env)
			engine, choice, err := backend.Open(t.Context(), backend.Options{Config: test.option})
			if err != nil {
				t.Fatal(err)
			}
			defer engine.Finalize()
			if choice.Name != "go" || choice.Config != test.config || len(choice.Devices) != 1 || choice.Donation != "" {
				t.Errorf("choice is %+v", choice)
			}
			line := choice.String()
			if !strings.HasPrefix(line, "backend go (pure Go, ") || !strings.HasSuffix(line, ")") || !strings.Contains(line, test.line) {
				t.Errorf("line is %q, want %q in it", line, test.line)
			}
			if strings.Contains(line, "\n") {
				t.Errorf("line has a line break: %q", line)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, test := range []struct{ name, env, want string }{
		{"unknown backend", "tpu9", `opening backend "tpu9" (GOMLX_BACKEND asks for it): no backend is called "tpu9"; there are go, `},
		{"unknown option", "go:faster", `"faster"`},
		{"no plugin", "xla", "no XLA plugin is installed: run `elastic backend install`"},
		{"no plugin of that name", "xla:cuda", "no XLA plugin is installed"},
		{"missing file", "xla:/no/such/plugin.so", "plugin /no/such/plugin.so does not exist"},
		{"help of the engine", "go:help", "help"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bare(t)
			t.Setenv(backend.ConfigEnv, test.env)
			engine, _, err := backend.Open(t.Context(), backend.Options{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want %q", err, test.want)
			}
			if engine != nil {
				t.Error("a backend comes with the error")
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		bare(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := backend.Open(ctx, backend.Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v, want context.Canceled", err)
		}
	})
}

// A plugin that is installed but broken is not passed over in silence.
func TestBrokenInstalledPlugin(t *testing.T) {
	bare(t)
	dir := os.Getenv("PJRT_PLUGIN_LIBRARY_PATH")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	plugin := goodLibrary(t).bytes(t)
	path := filepath.Join(dir, "pjrt_c_api_cpu_v1_plugin.so")
	if err := os.WriteFile(path, plugin[:len(plugin)-9], 0o666); err != nil {
		t.Fatal(err)
	}
	_, _, err := backend.Open(t.Context(), backend.Options{})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{path, "is truncated", "elastic backend install --force", "GOMLX_BACKEND=go to work without it"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q in it", err, want)
		}
	}
	t.Run("by name", func(t *testing.T) { // a version may be left out
		_, _, err := backend.Open(t.Context(), backend.Options{Config: "xla:cpu"})
		if err == nil || !strings.Contains(err.Error(), path+" is truncated") {
			t.Errorf("error is %v, want the truncated file named", err)
		}
	})
	t.Run("other name", func(t *testing.T) {
		_, _, err := backend.Open(t.Context(), backend.Options{Config: "xla:rocm"})
		if err == nil || !strings.Contains(err.Error(), `no XLA plugin "rocm" is installed, only cpu_v1`) {
			t.Errorf("error is %v, want the names that there are", err)
		}
	})
	t.Run("not for this hardware", func(t *testing.T) {
		if err := os.Rename(path, filepath.Join(dir, "pjrt_c_api_tpu_plugin.so")); err != nil {
			t.Fatal(err)
		}
		engine, choice, err := backend.Open(t.Context(), backend.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer engine.Finalize()
		if choice.Name != "go" {
			t.Errorf("choice is %+v, want pure Go: there is no TPU", choice)
		}
	})
}

func TestChoiceString(t *testing.T) {
	choice := backend.Choice{Name: "xla:cpu", Plugin: "/p/plugin.so", Version: "2026.6.23", Reason: "it is installed"}
	got := []string{choice.String()}
	choice.Version = ""
	got = append(got, choice.String(), backend.Choice{Name: "go", SIMD: true, Reason: "so"}.String(), backend.Choice{Name: "go", Reason: "so"}.String())
	want := []string{
		"backend xla:cpu (plugin /p/plugin.so, version 2026.6.23; because it is installed)",
		"backend xla:cpu (plugin /p/plugin.so; because it is installed)",
		"backend go (pure Go, simd; because so)",
		"backend go (pure Go, no simd; because so)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestChoiceIsPlainData(t *testing.T) {
	choice := backend.Choice{Name: "xla:cpu", Config: "xla:/p", Plugin: "/p", Version: "1", PJRT: "0.1", Reason: "r", Devices: []string{"d"}, Donation: "on"}
	content, err := json.Marshal(choice)
	if err != nil {
		t.Fatal(err)
	}
	var again backend.Choice
	if err := json.Unmarshal(content, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(choice, again); diff != "" {
		t.Error(diff)
	}
}

func TestCacheDir(t *testing.T) {
	t.Setenv(backend.CacheEnv, "relative")
	dir, err := backend.CacheDir()
	if err != nil || !filepath.IsAbs(dir) || filepath.Base(dir) != "relative" {
		t.Errorf("got %q (%v), want an absolute path", dir, err)
	}
	t.Setenv(backend.CacheEnv, "")
	t.Setenv("XDG_CACHE_HOME", "/somewhere")
	if dir, err := backend.CacheDir(); err != nil || filepath.Base(dir) != "elastic" {
		t.Errorf("got %q (%v), want the user's cache", dir, err)
	}
}
