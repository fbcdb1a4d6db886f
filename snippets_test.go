package workbench_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/doc/comment"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestSnippets type-checks the Go in comments and documents. Snippets are fragments: what they do not declare, such as ctx, may be
// anything, and "…" stands for what is left out; but packages, functions, fields and types that they name must be there, and fit.
func TestSnippets(t *testing.T) {
	library := exported(t)
	checked := 0
	check := func(name string, text []byte, own, snippet string) {
		first, _, _ := strings.Cut(strings.TrimSpace(snippet), "\n")
		line := 1 + bytes.Count(text[:max(bytes.Index(text, []byte(first)), 0)], []byte("\n"))
		parsed, err := parseSnippet(snippet)
		if parsed == nil {
			if strings.Contains(snippet, ":=") {
				t.Errorf("%s:%d: this is no Go: %v\n%s", name, line, err, snippet)
			}
			return // prose, JSON, formulas
		}
		checked++
		for _, err := range library.check(own, parsed) {
			t.Errorf("%s:%d: %v\n%s", name, line, err, snippet)
		}
	}
	files(t, func(name string, text []byte) {
		switch {
		case path.Ext(name) == ".md":
			for _, block := range regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllSubmatch(text, -1) {
				check(name, text, "", string(block[1]))
			}
		case path.Ext(name) == ".go" && !strings.HasSuffix(name, "_test.go") && !strings.Contains(name, "/testdata/"):
			for _, doc := range docs(t, name, text) {
				for _, block := range new(comment.Parser).Parse(doc).Content {
					if code, ok := block.(*comment.Code); ok {
						check(name, text, module+path.Dir(name), code.Text)
					}
				}
			}
		}
	})
	t.Logf("%d snippets", checked)
	if checked < 40 {
		t.Errorf("only %d snippets found: are they still where this test looks?", checked)
	}
}

// docs returns the doc comments of a file.
func docs(t *testing.T, name string, text []byte) (list []string) {
	file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Error(err)
		return nil
	}
	for _, group := range file.Comments {
		list = append(list, group.Text())
	}
	return list
}

var (
	leftOutLine = regexp.MustCompile(`(?m)^[ \t]*(…|\.\.\.|%%|%main)([ \t]*//.*|[ \t]*)$`)
	leftOut     = regexp.MustCompile(`\{ *(…|\.\.\.) *\}`)
)

// snippet is Go from a comment or document.
type snippet struct {
	fset *token.FileSet
	file *ast.File
}

// parseSnippet reads statements or declarations.
func parseSnippet(text string) (*snippet, error) {
	text = leftOut.ReplaceAllString(leftOutLine.ReplaceAllString(text, ""), "{}")
	s := &snippet{fset: token.NewFileSet()}
	var errs []error
	for _, form := range []string{"package p\n%s", "package p\nfunc _() error {\n%s\n}"} {
		var err error
		if s.file, err = parser.ParseFile(s.fset, "snippet", fmt.Sprintf(form, text), parser.SkipObjectResolution); err == nil && len(s.file.Decls) > 0 {
			return s, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// library is the packages that snippets may name.
type library struct {
	importer types.Importer
	packages map[string]exportedPackage
}

type exportedPackage struct {
	ImportPath, Name, Export string
	Imports                  []string
	Module                   *struct{ Main bool }
}

// exported lists the packages of the module and all that they need, with the files of their types.
func exported(t *testing.T) library {
	t.Helper()
	cmd := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Name,Export,Imports,Module", "./...", "crypto/rand", "github.com/janpfeifer/must")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	l := library{packages: map[string]exportedPackage{}}
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p exportedPackage
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		l.packages[p.ImportPath] = p
	}
	l.importer = importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(l.packages[path].Export)
	})
	return l
}

// check returns what is wrong with a snippet in the package with a path, or in none.
func (l library) check(own string, s *snippet) (problems []error) {
	used, declared := map[string][]string{}, map[string]bool{} // what of packages, and variables
	imported := map[string]bool{}
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			imported[path.Base(strings.Trim(n.Path.Value, `"`))] = true
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && n.Sel.IsExported() {
				used[x.Name] = append(used[x.Name], n.Sel.Name)
			}
		case *ast.AssignStmt:
			for _, left := range n.Lhs {
				if id, ok := left.(*ast.Ident); ok && n.Tok == token.DEFINE {
					declared[id.Name] = true
				}
			}
		case *ast.Field:
			for _, id := range n.Names {
				declared[id.Name] = true
			}
		}
		return true
	})
	var imports []ast.Spec
	for _, name := range slices.Sorted(maps.Keys(used)) {
		if declared[name] || imported[name] {
			continue
		}
		if from := l.find(own, name, used[name]); from != "" {
			imports = append(imports, &ast.ImportSpec{Name: ast.NewIdent(name), Path: &ast.BasicLit{Kind: token.STRING, Value: fmt.Sprintf("%q", from)}})
		}
	}
	s.file.Decls = append([]ast.Decl{&ast.GenDecl{Tok: token.IMPORT, Specs: imports}}, s.file.Decls...)
	config := types.Config{Importer: l.importer, Error: func(err error) {
		var e types.Error
		if errors.As(err, &e) && !fragment.MatchString(e.Msg) {
			problems = append(problems, errors.New(e.Msg))
		}
	}}
	_, _ = config.Check("p", s.fset, []*ast.File{s.file}, nil) // its errors are told above
	return problems
}

// fragment matches what may be wrong with a program that is a part only.
var fragment = regexp.MustCompile(`^(declared and not used: |undefined: [\pL\pN_]+$|missing return|.* is not used$|too many return values)`)

// find returns the path of the package that a name means: among the package of a comment, what that imports, and all others it is
// the first that has what is used of it, else the first.
func (l library) find(own, name string, used []string) string {
	near := append([]string{own}, l.packages[own].Imports...)
	var named []string
	for importPath, p := range l.packages {
		if p.Name == name && (slices.Contains(near, importPath) || !strings.Contains(importPath, "internal/") && !strings.HasPrefix(importPath, "vendor/")) {
			named = append(named, importPath)
		}
	}
	slices.SortFunc(named, func(a, b string) int {
		rank := func(importPath string) int {
			at := slices.Index(near, importPath)
			switch p := l.packages[importPath]; {
			case at >= 0:
				return at
			case p.Module != nil && p.Module.Main:
				return len(near)
			}
			return len(near) + 1
		}
		return cmp.Or(rank(a)-rank(b), len(a)-len(b), strings.Compare(a, b))
	})
	for _, importPath := range named {
		p, err := l.importer.Import(importPath)
		if err == nil && !slices.ContainsFunc(used, func(name string) bool { return p.Scope().Lookup(name) == nil }) {
			return importPath
		}
	}
	if len(named) == 0 {
		return ""
	}
	return named[0]
}
