package memo

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
)

// executable is the part of a code that stands for all of it.
const executable = "executable"

// errNoSource says that the sources of a program are not to be had, or are others by now.
var errNoSource = errors.New("no source")

// identify returns the parts of the code that a function is made of, each with a hash or version. Where sources are
// not to be had it is the whole program.
func identify(function any) (map[string]string, error) {
	f := runtime.FuncForPC(reflect.ValueOf(function).Pointer())
	if f == nil {
		return nil, errors.New("want a function, not nil")
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(program)
	if err != nil {
		return nil, err
	}
	file, line := f.FileLine(f.Entry())
	s := &source{parts: map[string]string{"go": runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH}, built: info.ModTime(), seen: map[string]bool{}}
	err = s.function(file, line)
	if errors.Is(err, errNoSource) || errors.Is(err, fs.ErrNotExist) {
		sum, err := hashFile(program)
		return map[string]string{executable: sum}, err
	}
	return s.parts, err
}

// source gathers the parts of a code.
type source struct {
	parts   map[string]string
	built   time.Time // when the program was
	modules []localModule
	seen    map[string]bool // packages
}

// localModule is a module whose sources lie where they can be edited, so that its version says nothing.
type localModule struct {
	path, dir string
	requires  []string // paths with versions
}

// declaration is one of a package, by its text without comments and layout.
type declaration struct {
	name    string // "func train"
	text    string
	node    ast.Node
	imports []importSpec
}

type importSpec struct{ name, path string }

// function gathers what a function needs that begins on a line of a file.
func (s *source) function(file string, line int) error {
	text, err := s.read(file)
	if err != nil {
		return err
	}
	if s.modules, err = modules(filepath.Dir(file)); err != nil {
		return err
	}
	// The versions of all other modules follow from what these require.
	var requires []string
	for _, m := range s.modules {
		requires = append(requires, m.requires...)
	}
	slices.Sort(requires)
	s.parts["go.mod"] = hash(slices.Compact(requires)...)
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, file, text, parser.SkipObjectResolution)
	if err != nil {
		return errNoSource
	}
	// All declarations of the package, tests only for tests.
	all := map[string][]declaration{}
	names, err := glob(filepath.Dir(file), "*.go")
	if err != nil {
		return err
	}
	for _, name := range names {
		other, content := parsed, text
		if name != file {
			if strings.HasSuffix(name, "_test.go") && !strings.HasSuffix(file, "_test.go") {
				continue
			}
			if content, err = s.read(name); err != nil {
				return err
			}
			if other, err = parser.ParseFile(fset, name, content, parser.SkipObjectResolution); err != nil || other.Name.Name != parsed.Name.Name {
				continue
			}
		}
		declare(fset, other, content, all)
	}
	var todo []declaration
	ast.Inspect(parsed, func(n ast.Node) bool {
		if n == nil || fset.Position(n.Pos()).Line != line {
			return n != nil
		}
		switch n := n.(type) {
		case *ast.FuncDecl:
			todo = append(todo, all[n.Name.Name]...)
		case *ast.FuncLit:
			todo = append(todo, declaration{"function literal", normal(text[offset(fset, n.Pos()):offset(fset, n.End())]), n, imports(parsed)})
		}
		return true
	})
	if len(todo) == 0 {
		return errNoSource
	}
	texts := map[string][]string{}
	reached := map[string]bool{}
	for len(todo) > 0 {
		d := todo[0]
		todo = todo[1:]
		texts[d.name] = append(texts[d.name], d.text)
		used := map[string]bool{}
		ast.Inspect(d.node, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && !used[id.Name] {
				used[id.Name] = true
				if !reached[id.Name] {
					reached[id.Name] = true
					todo = append(todo, all[id.Name]...)
				}
			}
			return true
		})
		for _, i := range d.imports {
			if i.used(used) {
				if err := s.imported(i.path); err != nil {
					return err
				}
			}
		}
	}
	if others, err := s.foreign(filepath.Dir(file)); err != nil {
		return err
	} else if len(others) > 0 {
		s.parts["sources that are not in Go"] = hash(others...)
	}
	for name, list := range texts {
		slices.Sort(list)
		s.parts[name] = hash(slices.Compact(list)...)
	}
	return nil
}

// foreign are the endings of what the go command builds into a package beside Go, or includes there.
var foreign = []string{".c", ".cc", ".cpp", ".cxx", ".f", ".F", ".for", ".f90", ".h", ".hh", ".hpp", ".hxx", ".m", ".s", ".S", ".sx", ".swig", ".swigcxx", ".syso"}

// foreign returns names and texts of the sources of the package in a folder that are not in Go. What these include from other
// folders is not seen.
func (s *source) foreign(dir string) (content []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() || !slices.Contains(foreign, filepath.Ext(entry.Name())) {
			continue
		}
		text, err := s.read(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		content = append(content, entry.Name(), string(text))
	}
	return content, nil
}

// read reads a source file, which must not be newer than the program.
func (s *source) read(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.ModTime().After(s.built) {
		return nil, errNoSource
	}
	return os.ReadFile(name)
}

// declare adds the declarations of a file, by the name that they are reached by.
func declare(fset *token.FileSet, file *ast.File, text []byte, all map[string][]declaration) {
	list := imports(file)
	add := func(name, what string, n ast.Node) {
		all[name] = append(all[name], declaration{what, normal(text[offset(fset, n.Pos()):offset(fset, n.End())]), n, list})
	}
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			name, what := d.Name.Name, "func "+d.Name.Name
			if d.Recv != nil && len(d.Recv.List) > 0 {
				receiver := receiver(d.Recv.List[0].Type)
				what = "func " + receiver + "." + name
				add(receiver, what, d) // a type brings its methods
			}
			add(name, what, d)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					add(spec.Name.Name, "type "+spec.Name.Name, spec)
				case *ast.ValueSpec:
					for _, id := range spec.Names {
						node := ast.Node(spec)
						if d.Tok == token.CONST {
							node = d // an iota counts from the first
						}
						add(id.Name, d.Tok.String()+" "+id.Name, node)
					}
				}
			}
		}
	}
}

func receiver(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.StarExpr:
		return receiver(t.X)
	case *ast.IndexExpr:
		return receiver(t.X)
	case *ast.IndexListExpr:
		return receiver(t.X)
	case *ast.Ident:
		return t.Name
	}
	return ""
}

func imports(file *ast.File) []importSpec {
	var list []importSpec
	for _, i := range file.Imports {
		spec := importSpec{}
		spec.path, _ = strconv.Unquote(i.Path.Value)
		if i.Name != nil {
			spec.name = i.Name.Name
		}
		list = append(list, spec)
	}
	return list
}

var notLetters = regexp.MustCompile(`[^\pL\d_]+`)

// used reports whether code with these identifiers may use an import. Without a name of its own, an import has the
// last part of its path, or a part of that, but for a version.
func (i importSpec) used(identifiers map[string]bool) bool {
	if i.name == "." || i.name == "_" {
		return true
	}
	if i.name != "" {
		return identifiers[i.name]
	}
	dir, base := path.Split(i.path)
	if regexp.MustCompile(`^v\d+$`).MatchString(base) {
		base = path.Base(dir)
	}
	return slices.ContainsFunc(append(notLetters.Split(base, -1), base), func(name string) bool { return identifiers[name] })
}

// imported adds a package of a local module, and what it imports itself.
func (s *source) imported(importPath string) error {
	if s.seen[importPath] {
		return nil
	}
	s.seen[importPath] = true
	for _, m := range s.modules {
		if rest, ok := strings.CutPrefix(importPath+"/", m.path+"/"); ok {
			return s.local(importPath, filepath.Join(m.dir, filepath.FromSlash(rest)))
		}
	}
	return nil
}

var embedded = regexp.MustCompile(`(?m)^//go:embed[ \t]+(.+)$`)

// local adds a package of a local module by the content of its files.
func (s *source) local(importPath, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	content, err := s.foreign(dir)
	if err != nil {
		return err
	}
	add := func(name string) error {
		text, err := s.read(name)
		rel, _ := filepath.Rel(dir, name)
		content = append(content, filepath.ToSlash(rel), string(text))
		return err
	}
	for _, entry := range entries {
		name := filepath.Join(dir, entry.Name())
		if !entry.Type().IsRegular() || strings.HasSuffix(name, "_test.go") || filepath.Ext(name) != ".go" {
			continue
		}
		if err := add(name); err != nil {
			return err
		}
		text := content[len(content)-1]
		for _, match := range embedded.FindAllStringSubmatch(text, -1) {
			for _, pattern := range strings.Fields(match[1]) {
				files, err := glob(dir, strings.Trim(strings.TrimPrefix(pattern, "all:"), "\"`"))
				if err != nil {
					return err
				}
				for _, file := range files {
					if err := filepath.WalkDir(file, func(name string, d fs.DirEntry, err error) error {
						if err != nil || !d.Type().IsRegular() {
							return err
						}
						return add(name)
					}); err != nil {
						return err
					}
				}
			}
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ImportsOnly)
		if err != nil {
			return errNoSource
		}
		for _, i := range imports(file) {
			if err := s.imported(i.path); err != nil {
				return err
			}
		}
	}
	s.parts["package "+importPath] = hash(content...)
	return nil
}

// modules finds the local modules that code in a folder sees: its own, those of a workspace, and replacements.
func modules(dir string) ([]localModule, error) {
	var found []localModule
	add := func(dir string) (*modfile.File, error) {
		name := filepath.Join(dir, "go.mod")
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		file, err := modfile.Parse(name, text, nil)
		if err != nil || file.Module == nil {
			return nil, errNoSource
		}
		m := localModule{path: file.Module.Mod.Path, dir: dir}
		for _, r := range file.Require {
			m.requires = append(m.requires, r.Mod.String())
		}
		found = append(found, m)
		return file, nil
	}
	replaced := func(dir string, list []*modfile.Replace) {
		for _, r := range list {
			if r.New.Version != "" {
				if len(found) > 0 {
					found[0].requires = append(found[0].requires, r.Old.String()+" => "+r.New.String())
				}
			} else { // a folder
				if _, err := add(under(dir, r.New.Path)); err == nil {
					found[len(found)-1].path = r.Old.Path
				}
			}
		}
	}
	if root := above(dir, "go.mod"); root != "" {
		file, err := add(root)
		if err != nil {
			return nil, err
		}
		replaced(root, file.Replace)
	}
	work := os.Getenv("GOWORK")
	if work == "" {
		if root := above(dir, "go.work"); root != "" {
			work = filepath.Join(root, "go.work")
		}
	}
	if work != "" && work != "off" {
		text, err := os.ReadFile(work)
		if err != nil {
			return nil, err
		}
		file, err := modfile.ParseWork(work, text, nil)
		if err != nil {
			return nil, errNoSource
		}
		root := filepath.Dir(work)
		for _, use := range file.Use {
			other, err := add(under(root, use.Path))
			if err != nil {
				return nil, err
			}
			replaced(under(root, use.Path), other.Replace)
		}
		replaced(root, file.Replace)
	}
	if len(found) == 0 {
		return nil, errNoSource
	}
	// The longest path first: a module may lie within another.
	slices.SortStableFunc(found, func(a, b localModule) int { return len(b.path) - len(a.path) })
	return found, nil
}

func under(dir, name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(dir, name)
}

// above returns the folder that has a file, dir or one above it, or "".
func above(dir, name string) string {
	for {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

func offset(fset *token.FileSet, pos token.Pos) int { return fset.Position(pos).Offset }

// normal returns code as its tokens: comments and layout do not count.
func normal(code []byte) string {
	var sc scanner.Scanner
	fset := token.NewFileSet()
	sc.Init(fset.AddFile("", -1, len(code)), code, nil, 0)
	var b strings.Builder
	for {
		_, tok, literal := sc.Scan()
		switch {
		case tok == token.EOF:
			return b.String()
		case tok == token.SEMICOLON:
			literal = ";"
		case literal == "":
			literal = tok.String()
		}
		b.WriteString(literal)
		b.WriteByte(' ')
	}
}

func hash(texts ...string) string {
	h := sha256.New()
	for _, text := range texts {
		fmt.Fprintf(h, "%d:%s", len(text), text)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// glob returns the files of a folder that a pattern names, whatever characters the folder's own name has.
func glob(dir, pattern string) ([]string, error) {
	names, err := fs.Glob(os.DirFS(dir), pattern)
	for i, name := range names {
		names[i] = filepath.Join(dir, filepath.FromSlash(name))
	}
	return names, err
}
