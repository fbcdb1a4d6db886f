package backend_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/google/go-cmp/cmp"
)

func TestProbe(t *testing.T) {
	cache := bare(t)
	if err := os.MkdirAll(filepath.Join(cache, "hub"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cache, "hub", "weights"), make([]byte, 3000), 0o666); err != nil {
		t.Fatal(err)
	}
	report := backend.Probe(t.Context(), backend.Options{})
	if report.Error != "" || report.Backend == nil || report.Backend.Name != "go" {
		t.Fatalf("backend is %+v, error %q", report.Backend, report.Error)
	}
	if report.Speed == nil || report.Speed.GFLOPS <= 0 || report.Speed.Runs < 2 {
		t.Errorf("speed is %+v", report.Speed)
	}
	if report.Machine.Cores != runtime.NumCPU() || report.Machine.OS != runtime.GOOS+"/"+runtime.GOARCH || report.Build.Go != runtime.Version() {
		t.Errorf("machine is %+v, build %+v", report.Machine, report.Build)
	}
	if runtime.GOOS == "linux" && (report.Machine.Memory == 0 || report.Machine.Kernel == "" || report.Machine.Libc == "") {
		t.Errorf("machine is %+v, want memory, kernel and libc", report.Machine)
	}
	wantCaches := []backend.Cache{{What: "ours", Path: cache, Bytes: 3000}, {What: "ours/hub", Path: filepath.Join(cache, "hub"), Bytes: 3000}}
	if diff := cmp.Diff(wantCaches, report.Caches[:2]); diff != "" {
		t.Error(diff)
	}
	if !contains(report.Findings, "no XLA plugin is installed") {
		t.Errorf("findings are %+v", report.Findings)
	}

	content, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	var again backend.Report
	if err := json.Unmarshal(content, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(report, again); diff != "" {
		t.Errorf("JSON round trip: %s", diff)
	}

	var text bytes.Buffer
	if err := report.WriteText(&text, [2]string{"jupyter", "none"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"machine ", "cpu ", "memory ", "GFLOP/s", "backend ", "jupyter ", "cache ours/hub  3 kB", "what to do:\n1. ", "\n   -> "} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("text has no %q:\n%s", want, text.String())
		}
	}
}

// A broken backend is reported; it does not end the process.
func TestProbeOfBrokenBackend(t *testing.T) {
	bare(t)
	path := filepath.Join(t.TempDir(), "plugin.so")
	if err := os.WriteFile(path, goodLibrary(t).bytes(t)[:100], 0o666); err != nil {
		t.Fatal(err)
	}
	t.Setenv(backend.ConfigEnv, "xla:"+path)
	report := backend.Probe(t.Context(), backend.Options{})
	if report.Backend != nil || report.Speed != nil || !strings.Contains(report.Error, path) {
		t.Errorf("report is %+v, want an error that names %s", report, path)
	}
	if !contains(report.Findings, "the backend does not work: ") {
		t.Errorf("findings are %+v", report.Findings)
	}
	var text bytes.Buffer
	if err := report.WriteText(&text); err != nil || !strings.Contains(text.String(), "none: opening backend") {
		t.Errorf("text is %s (%v)", text.String(), err)
	}
}

// Every plugin is listed with what is wrong with it, while a good choice is used.
func TestProbeListsPlugins(t *testing.T) {
	bare(t)
	dir := os.Getenv("PJRT_PLUGIN_LIBRARY_PATH")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	plugin := goodLibrary(t).bytes(t)
	for name, content := range map[string][]byte{
		"pjrt_c_api_cpu_plugin.so":       plugin,
		"pjrt-plugin-cpu_old.so":         plugin[:70],
		"libother.so":                    plugin, // not named like a plugin
		"pjrt_c_api_cpu_plugin.so.bak":   plugin,
		"pjrt_c_api_cpu_v2_plugin.so.gz": nil,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	link(t, "pjrt_c_api_cpu_plugin.so", filepath.Join(dir, "pjrt_c_api_cpu_v1_plugin.so")) // the same file twice
	report := backend.Probe(t.Context(), backend.Options{Config: "go"})
	var got []string
	for _, p := range report.Plugins {
		got = append(got, filepath.Base(p.Path)+" "+p.Device)
		if broken := strings.Contains(p.Path, "old"); broken != (p.Problem != "") {
			t.Errorf("plugin %s: problem %q", p.Path, p.Problem)
		}
	}
	if diff := cmp.Diff([]string{"pjrt-plugin-cpu_old.so cpu", "pjrt_c_api_cpu_plugin.so cpu"}, got); diff != "" {
		t.Error(diff)
	}
	if !contains(report.Findings, "is truncated") || contains(report.Findings, "no XLA plugin") {
		t.Errorf("findings are %+v", report.Findings)
	}
}
