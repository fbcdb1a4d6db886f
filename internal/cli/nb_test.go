package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/internal/fakekernel"
	"github.com/elastic-attention/workbench/pkg/nb"
)

// fakeNotebook writes a notebook in the language of package fakekernel, whose kernel becomes the only one.
func fakeNotebook(t *testing.T, cells ...string) string {
	t.Helper()
	data := t.TempDir()
	t.Setenv("JUPYTER_PATH", "")
	t.Setenv("JUPYTER_DATA_DIR", data)
	if err := fakekernel.Install(data, "fake"); err != nil {
		t.Fatal(err)
	}
	n := &nb.Notebook{Minor: 5, Metadata: map[string]any{"kernelspec": map[string]any{"name": "fake", "language": "fake", "display_name": "fake"}}}
	for _, source := range cells {
		n.Cells = append(n.Cells, &nb.Cell{Kind: nb.Code, ID: "c", Source: source})
	}
	path := filepath.Join(t.TempDir(), "case.ipynb")
	if err := n.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNbRun(t *testing.T) {
	good, dir := fakeNotebook(t, "print result: x=1", "env NB_A"), t.TempDir()
	out := run(t, "", "nb", "run", good, "-o", dir, "-p", "A=b,c")
	if out.code != 0 || !strings.Contains(out.stdout, "ok     case.ipynb") || !strings.Contains(out.stdout, "x=1") || !strings.Contains(out.stderr, "1 of 1") {
		t.Errorf("code %d\n%s\n%s", out.code, out.stdout, out.stderr)
	}
	n, err := nb.ReadFile(filepath.Join(dir, "case.ipynb"))
	if err != nil || n.Cells[1].Text("stdout") != "b,c\n" {
		t.Errorf("the executed copy: %v, %+v", err, n)
	}
	t.Setenv("GOMLX_BACKEND", "go")
	out = run(t, "", "nb", "run", "--write", "--json", good, "nowhere.ipynb")
	lines := strings.Split(strings.TrimSpace(out.stdout), "\n")
	if out.code != 1 || len(lines) != 2 || !strings.Contains(lines[0], `"ok":true`) || !strings.Contains(lines[1], "nowhere.ipynb: no such file") || !json.Valid([]byte(lines[1])) {
		t.Errorf("code %d\n%s\n%s", out.code, out.stdout, out.stderr)
	}
	if n, err = nb.ReadFile(good); err != nil || n.Cells[0].Text("stdout") != "result: x=1\n" {
		t.Errorf("--write left %+v, %v", n, err)
	}
	if plan, err := n.Plan(); err != nil || plan.Measured == nil || plan.Measured.Backend != "go" {
		t.Errorf("--write measured %+v, %v", plan, err)
	}
	bad := fakeNotebook(t, "print words\nexit 3")
	out = run(t, "", "nb", "run", bad, "--write")
	if out.code != 1 || !strings.Contains(out.stdout, "FAILED case.ipynb") || !strings.Contains(out.stdout, "cell 0: exit status 3\n") {
		t.Errorf("code %d\n%s", out.code, out.stdout)
	}
	if n, err := nb.ReadFile(bad); err != nil || len(n.Cells[0].Outputs) > 0 {
		t.Errorf("a notebook that failed was written: %v", err)
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"nb", "run", good, "-p", "A"}, "want NAME=VALUE"},
		{[]string{"nb", "run", good, "--cell-timeout=-5s"}, "--cell-timeout is -5s, want more than 0"},
		{[]string{"nb", "sweep", good, "-p", "A=1", "--cell-timeout=0s"}, "--cell-timeout is 0s, want more than 0"},
		{[]string{"nb", "run", good, filepath.Join("other", filepath.Base(good)), "-o", dir}, "has the name of another notebook"},
		{[]string{"nb", "sweep", good, "-p", "A=1,"}, "has an empty value"},
		{[]string{"nb", "run", good, "-p", "A=1", "-p", "A=2"}, "gives A twice"},
		{[]string{"nb", "run", good, "-p", "A=1", "--write"}, "exclude each other"},
		{[]string{"nb", "sweep", good}, "--param"},
		{[]string{"nb", "sweep", good, "-p", "A=1,1"}, "twice"},
		{[]string{"nb", "new", good}, "is there already"},
		{[]string{"nb", "new", t.TempDir() + "/"}, "names no notebook"},
	} {
		if out := run(t, "", test.args...); out.code != 2 || !strings.Contains(out.stderr, test.want) {
			t.Errorf("%v: code %d, errors %q; want 2 and %q", test.args, out.code, out.stderr, test.want)
		}
	}
}

func TestNbSweep(t *testing.T) {
	path, dir := fakeNotebook(t, "print result: x=1\nenv NB_A\nenv NB_B"), filepath.Join(t.TempDir(), "sweep")
	out := run(t, "", "nb", "sweep", path, "-p", "A=1,2", "-p", "B=x/y,x:y", "-o", dir)
	if out.code != 0 || strings.Count(out.stdout, "\n") != 6 || !strings.Contains(out.stdout, "| 2 | x/y | 1 |") {
		t.Errorf("code %d\n%s\n%s", out.code, out.stdout, out.stderr)
	}
	n, err := nb.ReadFile(filepath.Join(dir, "case,A=2,B=x_y,4.ipynb")) // the name of another point is the same
	if err != nil || n.Cells[0].Text("stdout") != "result: x=1\n2\nx:y\n" {
		t.Errorf("the executed notebook: %v", err)
	}
	if table, err := os.ReadFile(filepath.Join(dir, "table.md")); err != nil || string(table) != out.stdout {
		t.Errorf("table.md holds %q, %v", table, err)
	}
	if out := run(t, "", "nb", "sweep", fakeNotebook(t, "exit 1"), "-p", "A=1,2", "-o", dir, "--json"); out.code != 1 || !json.Valid([]byte(out.stdout)) {
		t.Errorf("code %d\n%s", out.code, out.stdout)
	}
}

// TestNbNew goes from a new notebook to all that needs no kernel.
func TestNbNew(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module github.com/elastic-attention/workbench\nrequire github.com/janpfeifer/must v0.2.0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "pkg", "viz", "nb"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "21-a-question.ipynb")
	if out := run(t, "", "nb", "new", path); out.code != 0 || !strings.Contains(out.stdout, "nb run --write "+path) {
		t.Fatalf("new: code %d, %s%s", out.code, out.stdout, out.stderr)
	}
	n, err := nb.ReadFile(path)
	if err != nil || !strings.HasPrefix(n.Cells[0].Source, "# A question\n") {
		t.Errorf("title: %v", err)
	}
	if out := run(t, "", "nb", "check", path); out.code != 0 {
		t.Errorf("check: code %d, %s", out.code, out.stdout)
	}
	if out := run(t, "", "nb", "export", path); out.code != 0 || !strings.Contains(out.stdout, `flag.IntVar(&p.draws, "draws", 10000, "random points")`) {
		t.Errorf("export: code %d, %s%s", out.code, out.stdout, out.stderr)
	}
	if out := run(t, "", "nb", "site", path, "-o", filepath.Join(dir, "site")); out.code != 0 || !strings.Contains(out.stdout, "index.html") {
		t.Errorf("site: code %d, %s%s", out.code, out.stdout, out.stderr)
	}
	umlaut := filepath.Join(dir, "22-übung.ipynb")
	ok(t, "nb", "new", umlaut)
	if n, err := nb.ReadFile(umlaut); err != nil || !strings.HasPrefix(n.Cells[0].Source, "# Übung\n") {
		t.Errorf("title that begins with two bytes: %v", err)
	}
	other := filepath.Join(dir, "other.ipynb")
	if out := run(t, "", "nb", "new", other, "--title", "Other"); out.code != 0 {
		t.Fatalf("new: code %d, %s", out.code, out.stderr)
	}
	if err := os.Mkdir(filepath.Join(dir, "notebooks"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	if out := run(t, "", "nb", "new", "a bare name"); out.code != 0 || !strings.Contains(out.stdout, "nb run --write 'notebooks/a bare name.ipynb'\n") {
		t.Errorf("new, a bare name: code %d, %s%s", out.code, out.stdout, out.stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "notebooks", "a bare name.ipynb")); err != nil {
		t.Error(err)
	}
	if out := run(t, "", "nb", "diff", path, path); out.code != 0 || out.stdout != "" {
		t.Errorf("diff: code %d, %s", out.code, out.stdout)
	}
	if out := run(t, "", "nb", "diff", path, other); out.code != 1 || !strings.Contains(out.stdout, "\n-# A question\n+# Other\n") {
		t.Errorf("diff: code %d, %s", out.code, out.stdout)
	}
	if out := run(t, "", "nb", "diff", path, other, "--json"); out.code != 1 || !json.Valid([]byte(out.stdout)) {
		t.Errorf("diff: code %d, %s", out.code, out.stdout)
	}
	n.Cells[0].Source = "no title"
	if err := n.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "", "nb", "check", path, "--json"); out.code != 1 || !strings.Contains(out.stdout, "cell 0: is no text") || !json.Valid([]byte(out.stdout)) {
		t.Errorf("check: code %d, %s", out.code, out.stdout)
	}
}

func TestNbKernelBenchRefuses(t *testing.T) {
	fakeNotebook(t)
	if out := run(t, "", "nb", "kernel", "bench"); out.code != 1 || !strings.Contains(out.stderr, "elastic nb kernel install") {
		t.Errorf("without a Go kernel: code %d\n%s", out.code, out.stderr)
	}
	if out := run(t, "", "nb", "kernel", "bench", "--times", "0"); out.code != 2 || !strings.Contains(out.stderr, "want at least 1") {
		t.Errorf("--times 0: code %d\n%s", out.code, out.stderr)
	}
}

func TestNbKernelBench(t *testing.T) {
	fakeNotebook(t)
	if err := fakekernel.Install(os.Getenv("JUPYTER_DATA_DIR"), "gonb"); err != nil {
		t.Fatal(err)
	}
	out := run(t, "", "nb", "kernel", "bench", "--times", "1")
	if out.code != 1 || !strings.Contains(out.stdout, "kernel start") || !strings.Contains(out.stderr, "measuring: completion") {
		t.Errorf("code %d\n%s\n%s", out.code, out.stdout, out.stderr)
	}
}
