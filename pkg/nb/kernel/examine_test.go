package kernel_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/internal/fakekernel"
	"github.com/elastic-attention/workbench/pkg/nb/kernel"
)

// alone makes a data folder the only one that has a kernel, with the given content of kernel.json.
func alone(t *testing.T, content string) (dir string) {
	t.Helper()
	data := t.TempDir()
	t.Setenv("JUPYTER_PATH", "")
	t.Setenv("JUPYTER_DATA_DIR", data)
	dir = filepath.Join(data, "kernels", "gonb")
	if content == "" {
		return dir
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kernel.json"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestExamine(t *testing.T) {
	bin := t.TempDir()
	for _, name := range []string{"go", "goimports", "gopls"} {
		if err := os.WriteFile(filepath.Join(bin, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	spec := func(change func(*kernel.Spec)) string {
		s := fakekernel.Spec()
		s.Argv = append(s.Argv, "-go_work="+root)
		s.Env["PATH"] = bin
		change(&s)
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for _, test := range []struct{ name, content, problem string }{
		{"good", spec(func(*kernel.Spec) {}), ""},
		{"none", "", "is not installed"},
		{"damaged", `{"argv":`, "unexpected end"},
		{"no program", `{"argv":[]}`, "argv is empty"},
		{"program gone", `{"argv":["/no/such/gonb"]}`, "its program does not start"},
		{"luck", spec(func(s *kernel.Spec) { delete(s.Env, "PATH") }), "depends on the PATH"},
		{"no goimports", spec(func(s *kernel.Spec) { s.Env["PATH"] = t.TempDir() }), "finds no goimports: every cell fails"},
		{"no checkout", spec(func(s *kernel.Spec) { s.Argv[2] = "-go_work=" + bin }), "is no checkout"},
		{"not tied", spec(func(s *kernel.Spec) { s.Argv = s.Argv[:2] }), "not tied to a checkout"},
		{"ends", spec(func(s *kernel.Spec) { s.Argv[1] = "none.json" }), "the kernel died: fakekernel: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := alone(t, test.content)
			health := kernel.Examine(t.Context())
			var kernelProblems []string
			for _, p := range health.Problems {
				if p.Do == "" {
					t.Errorf("nothing to do about %q", p.What)
				}
				if !strings.HasPrefix(p.What, "jupyter ") {
					kernelProblems = append(kernelProblems, p.What)
				}
			}
			all := strings.Join(kernelProblems, "\n")
			if (test.problem == "") != (all == "") || !strings.Contains(all, test.problem) {
				t.Errorf("problems %q, want %q", all, test.problem)
			}
			if test.problem == "" && (health.Spec != dir || health.Start == 0 || health.Module != root || len(health.Rows()) < 6) {
				t.Errorf("health %+v", health)
			}
		})
	}
}

// TestInstall needs the modules of tools/go.mod, which the tests may not fetch, so it only sees what is refused.
func TestInstallRefuses(t *testing.T) {
	if _, err := kernel.Install(t.Context(), kernel.InstallOptions{Module: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "is no checkout of github.com/") {
		t.Errorf("error %v", err)
	}
	t.Chdir(t.TempDir())
	if _, err := kernel.Install(t.Context(), kernel.InstallOptions{}); err == nil || !strings.Contains(err.Error(), "the working folder is in no checkout") {
		t.Errorf("error %v", err)
	}
}
