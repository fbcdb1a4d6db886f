// Package workbench_test checks rules that hold for the whole module.
package workbench_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const module = "github.com/elastic-attention/workbench/"

// mayImport lists, for each part of the module, the other parts that it may import; "*" stands for all.
// A package belongs to the part with the longest matching prefix.
var mayImport = map[string][]string{
	"internal/":           {},
	"internal/gxtest":     {"internal/", "pkg/backend"}, // runs the graphs of tests
	"internal/golden":     {"internal/", "pkg/data"},    // finds what tests compare with
	"internal/fakekernel": {"internal/", "pkg/nb"},      // a Jupyter kernel for tests
	"internal/cli":        {"*"},
	"internal/bench":      {"*"}, // measures what the others make
	"pkg/backend":         {"internal/"},
	"pkg/data":            {"internal/"},
	"pkg/elastic":         {"internal/"},
	"pkg/ner":             {"internal/", "pkg/data", "pkg/elastic", "pkg/run", "pkg/task"},
	"pkg/run":             {"internal/", "pkg/data", "pkg/elastic", "pkg/track", "pkg/track/usage"},
	"pkg/eval":            {"internal/"},
	"pkg/task":            {"internal/", "pkg/data", "pkg/elastic", "pkg/run"}, // what tasks share knows none of them
	"pkg/task/classify":   {"internal/", "pkg/data", "pkg/elastic", "pkg/eval", "pkg/run", "pkg/task"},
	"pkg/task/lm":         {"internal/", "pkg/data", "pkg/elastic", "pkg/run", "pkg/task"},
	"pkg/study":           {"internal/", "pkg/data", "pkg/elastic", "pkg/eval", "pkg/ner", "pkg/run", "pkg/task", "pkg/task/classify", "pkg/task/lm", "pkg/track"},
	"pkg/track":           {"internal/"},
	"pkg/track/usage":     {"internal/"},
	"pkg/track/ui":        {"internal/", "pkg/track", "pkg/viz"},
	"pkg/memo":            {"internal/"},
	"pkg/nb":              {"internal/"},
	"pkg/notify":          {"internal/"},
	"pkg/viz":             {"internal/", "pkg/memo", "pkg/nb", "pkg/track/usage"},
	"cmd/":                {"internal/cli"},
}

// reserved says which packages of others only some of our packages may import. The longest matching prefix counts.
var reserved = map[string][]string{
	// A program chooses its backend when it runs, so a library must not bring one along.
	"github.com/gomlx/go-xla":                 {"pkg/backend"},
	"github.com/gomlx/compute/gobackend":      {"pkg/backend"},
	"github.com/gomlx/gomlx/backends":         {},
	"github.com/gomlx/gomlx":                  {"pkg/backend", "pkg/data/batch", "pkg/elastic", "pkg/ner", "pkg/run", "pkg/task", "internal/gxtest", "internal/bench"},
	"github.com/gomlx/compute":                {"pkg/backend", "pkg/data/batch", "pkg/elastic", "pkg/ner", "pkg/run", "pkg/study", "pkg/task", "internal/gxtest", "internal/bench", "internal/cli"},
	"github.com/janpfeifer/gonb":              {"pkg/viz/nb"},
	"github.com/janpfeifer/must":              {"cmd/"}, // and tests and notebooks, which are not looked at here
	"github.com/go-zeromq/zmq4":               {"pkg/nb/kernel", "internal/fakekernel"},
	"github.com/yuin/goldmark":                {"pkg/nb/site"},
	"github.com/alecthomas/chroma":            {"pkg/nb/site"},
	"golang.org/x/tools":                      {"pkg/nb/export"},
	"golang.org/x/mod":                        {"pkg/memo", "pkg/nb", "pkg/run"},
	"github.com/alecthomas/kong":              {"internal/cli"},
	"gonum.org/v1/plot":                       {"pkg/viz"},
	"github.com/mattn/go-sixel":               {"pkg/viz", "internal/cli"}, // the latter asks the terminal
	"github.com/shirou/gopsutil":              {"pkg/track/usage"},
	"modernc.org/sqlite":                      {"pkg/track"},
	"log":                                     {}, // packages return errors; commands use log/slog
	"github.com/google/go-cmp":                {},
	"github.com/stretchr/testify":             {},
	"github.com/gomlx/gomlx/support/testutil": {}, // downloads a plugin by itself
}

type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p listed
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		if from, ok := strings.CutPrefix(p.ImportPath, module); ok { // not the module root
			p.ImportPath = from
			all = append(all, p)
		}
	}
	return all
}

func TestImportsPointOneWay(t *testing.T) {
	checked := 0
	for _, p := range packages(t) {
		from := part(p.ImportPath)
		if from == "" {
			t.Errorf("%s is in no part of the module; add one to mayImport", p.ImportPath)
			continue
		}
		for _, to := range p.Imports {
			to, ok := strings.CutPrefix(to, module)
			if !ok || part(to) == from {
				continue
			}
			checked++
			if allowed := mayImport[from]; !slices.Contains(allowed, part(to)) && !slices.Contains(allowed, "*") {
				t.Errorf("%s imports %s; %s may import only %q", p.ImportPath, to, from, allowed)
			}
		}
		for _, to := range slices.Concat(p.TestImports, p.XTestImports) {
			if strings.HasPrefix(to, module+"internal/cli") && from != "internal/cli" && from != "cmd/" {
				t.Errorf("a test of %s imports %s; commands are tested through the binary or in their own package", p.ImportPath, to)
			}
		}
	}
	t.Logf("%d imports between parts", checked)
}

func TestReservedImports(t *testing.T) {
	for _, p := range packages(t) {
		for _, to := range p.Imports {
			rule := ""
			for prefix := range reserved {
				if within(to, prefix) && len(prefix) > len(rule) {
					rule = prefix
				}
			}
			if rule == "" {
				continue
			}
			if !slices.ContainsFunc(reserved[rule], func(who string) bool { return within(p.ImportPath, who) }) {
				t.Errorf("%s imports %s; only %q may (and tests)", p.ImportPath, to, reserved[rule])
			}
		}
	}
}

func part(path string) (best string) {
	for p := range mayImport {
		if within(path, p) && len(p) > len(best) {
			best = p
		}
	}
	return best
}

// within reports whether a path is that of a package or of one below it.
func within(path, root string) bool {
	return path == root || strings.HasPrefix(path, strings.TrimSuffix(root, "/")+"/")
}

// files calls f with each text file of the checkout that is tracked or could be.
func files(t *testing.T, f func(name string, text []byte)) {
	t.Helper()
	var names []string
	if out, err := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output(); err == nil {
		names = strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
	} else { // an archive without history
		err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && name != "." && (name == "bin" || name == "runs" || name == ".cache" || name == ".git"):
				return filepath.SkipDir
			case d.Type().IsRegular():
				names = append(names, filepath.ToSlash(name))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	dirs := map[string]bool{}
	for _, name := range names {
		// Reading the folder tells the go command's test cache to look there for new files.
		if dir := path.Dir(name); !dirs[dir] {
			dirs[dir] = true
			_, _ = os.ReadDir(dir) // gone if all its files were deleted
		}
		info, err := os.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			continue // deleted, a link
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(text[:min(len(text), 8000)], 0) < 0 && utf8.Valid(text[:min(len(text), 4)]) {
			f(name, text)
		}
	}
}

// TestNoPrivatePlaces finds paths of somebody's machine and the addresses of package registries: a checkout must work
// anywhere, and which registry or mirror serves packages is the affair of each machine's configuration.
func TestNoPrivatePlaces(t *testing.T) {
	// Put together here, so that this file does not hold them.
	var places []string
	for _, dir := range []string{"work", "root", "home", "tmp", "Users"} {
		places = append(places, "/"+dir+"/")
	}
	paths := regexp.MustCompile(`(?:^|[^\w./\-$})])(?:` + strings.Join(places, "|") + `)\w`)
	var hosts []string
	for _, host := range [][]string{
		{"pypi", "org"}, {"pythonhosted", "org"}, {"proxy", "golang", "org"}, {"sum", "golang", "org"}, {"goproxy", "io"}, {"goproxy", "cn"},
		{"registry", "npmjs", "org"}, {"registry-1", "docker", "io"}, {"index", "docker", "io"}, {"deb", "debian", "org"}, {"crates", "io"},
	} {
		hosts = append(hosts, regexp.QuoteMeta(strings.Join(host, ".")))
	}
	registries := regexp.MustCompile(`\b(?:` + strings.Join(hosts, "|") + `)\b`)
	files(t, func(name string, text []byte) {
		for _, re := range []*regexp.Regexp{paths, registries} {
			if at := re.FindIndex(text); at != nil {
				line := 1 + bytes.Count(text[:at[0]], []byte("\n"))
				t.Errorf("%s:%d: %q is a place on somebody's machine or a registry", name, line, text[at[0]:at[1]])
			}
		}
	})
}

// TestExportedNamesAreDocumented looks at the packages that others import.
func TestExportedNamesAreDocumented(t *testing.T) {
	files(t, func(name string, text []byte) {
		if !strings.HasPrefix(name, "pkg/") || path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") || strings.Contains(name, "/testdata/") {
			return
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			return
		}
		for _, d := range file.Decls {
			for pos, what := range undocumented(d) {
				t.Errorf("%s: %s has no comment", fset.Position(pos), what)
			}
		}
	})
}

func undocumented(d ast.Decl) map[token.Pos]string {
	found := map[token.Pos]string{}
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && (d.Recv == nil || exportedReceiver(d.Recv.List[0].Type)) && !obvious(d) {
			found[d.Pos()] = "func " + d.Name.Name
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
					found[s.Pos()] = "type " + s.Name.Name
				}
			case *ast.ValueSpec:
				for _, n := range s.Names {
					if n.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
						found[n.Pos()] = fmt.Sprint(d.Tok, " ", n.Name)
					}
				}
			}
		}
	}
	return found
}

// obvious reports whether a method only satisfies an interface that everybody knows.
func obvious(d *ast.FuncDecl) bool {
	return d.Recv != nil && slices.Contains([]string{"Error", "String", "Unwrap", "Is", "Len", "Less", "Swap", "Close"}, d.Name.Name)
}

func exportedReceiver(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.StarExpr:
		return exportedReceiver(e.X)
	case *ast.IndexExpr:
		return exportedReceiver(e.X)
	case *ast.IndexListExpr:
		return exportedReceiver(e.X)
	case *ast.Ident:
		return e.IsExported()
	}
	return false
}

// TestEnvironmentIsDocumented checks that docs/runs.md names each environment variable that programs read. Those of tests and
// of tools/golden are the business of developers.
func TestEnvironmentIsDocumented(t *testing.T) {
	docs := read(t, "docs/runs.md")
	found := 0
	files(t, func(name string, text []byte) {
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "internal/golden/") {
			return
		}
		for _, variable := range regexp.MustCompile(`"ELASTIC_[A-Z_]+"`).FindAllString(string(text), -1) {
			found++
			if variable = strings.Trim(variable, `"`); !strings.Contains(docs, "| `"+variable+"` |") {
				t.Errorf("%s reads %s, which the table of docs/runs.md does not name", name, variable)
			}
		}
	})
	if found < 5 {
		t.Errorf("only %d variables found: is the pattern still right?", found)
	}
}
