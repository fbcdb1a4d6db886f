// Package export turns a notebook into one Go program.
//
// The program is the notebook's cells in their order: text becomes comments, declarations stay, what a cell executes becomes
// a function that main calls, parameters become flags, and cells with %test are tests that run at the end. What it prints
// are the notebook's results:
//
//	program, err := export.Program(notebook, "02-attention-pooling.ipynb")
//	err = os.WriteFile("main.go", program, 0o644)
//
// One thing differs: a cell is a process of its own, in which package-level variables begin anew; in the program they are
// shared. A cell that changes such a variable changes it for the cells below.
package export

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/format"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/tools/imports"

	"github.com/elastic-attention/workbench/pkg/nb"
)

// dropped are commands to the kernel that mean nothing to a program.
var dropped = []string{"%noautoget", "%autoget", "%goflags", "%test", "%version", "%help", "%ls", "%list", "%track", "%untrack", "%goworkfix"}

// flags has, for each type that a flag can have, the function of package flag that makes one.
var flags = map[string]string{
	"int": "IntVar", "int64": "Int64Var", "uint": "UintVar", "uint64": "Uint64Var", "float64": "Float64Var", "bool": "BoolVar", "string": "StringVar",
}

// Program returns the notebook as the text of a Go program, formatted and with all imports. File is the notebook's path: its
// name stands in the program, and its folder decides, by the go.mod around it, what packages are called. Errors say which
// cell cannot be part of a program, and why.
func Program(n *nb.Notebook, file string) ([]byte, error) {
	e := &exporter{declared: map[string]declaration{}}
	var errs []error
	programs := make([]*nb.Program, len(n.Cells))
	for i, cell := range n.Cells {
		if cell.Kind != nb.Code {
			continue
		}
		var err error
		if programs[i], err = cell.Program(); err == nil {
			err = e.admit(i, programs[i])
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("cell %d: %w", i, err))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	for i, cell := range n.Cells {
		switch {
		case cell.Kind == nb.Markdown:
			e.comment(cell.Source)
		case cell.Kind == nb.Code && cell.Tagged(nb.RaisesTag):
			e.comment("(A cell that fails on purpose is left out.)")
		case cell.Kind == nb.Code:
			if err := e.cell(i, programs[i]); err != nil {
				return nil, fmt.Errorf("cell %d: %w", i, err)
			}
		}
	}
	return e.assemble(file)
}

type declaration struct {
	cell int
	text string
}

type exporter struct {
	declared map[string]declaration // by name
	imports  []string               // as they are written
	fields   []field                // of the parameters
	tests    []string
	calls    []string // of the functions of cells, in main
	body     bytes.Buffer
}

type field struct {
	nb.Param
	flag string
}

// admit notes what a cell declares, and refuses what no program can do.
func (e *exporter) admit(index int, p *nb.Program) error {
	if p.Magic != "" {
		return fmt.Errorf("%s is for another program", p.Magic)
	}
	if p.Args != "" {
		return fmt.Errorf("its main part has arguments (%s)", p.Args)
	}
	for _, c := range p.Commands {
		name, _, _ := strings.Cut(c.Text, " ")
		if !strings.HasPrefix(name, "!") && !slices.Contains(dropped, name) {
			return fmt.Errorf("%s is a command to the kernel that a program cannot follow", name)
		}
	}
	for _, d := range p.Decls {
		for _, name := range d.Names {
			if name == "_" || isInit(name) {
				continue
			}
			if before, ok := e.declared[name]; ok && before.text != d.Text {
				return fmt.Errorf("declares %s again, which cell %d declares differently: a program has one of each name", name, before.cell)
			} else if !ok {
				e.declared[name] = declaration{index, d.Text}
			}
		}
	}
	return nil
}

// isInit says which functions GoNB makes init functions of.
func isInit(name string) bool { return name == "init" || strings.HasPrefix(name, "init_") }

// name returns a name like the wanted one that the notebook does not declare.
func (e *exporter) name(wanted string) string {
	for {
		if _, taken := e.declared[wanted]; !taken {
			return wanted
		}
		wanted += "_"
	}
}

// comment writes a text as comment that belongs to no declaration, so that it is not formatted.
func (e *exporter) comment(text string) {
	for line := range strings.Lines(strings.TrimSpace(text) + "\n") {
		e.body.WriteString(strings.TrimRight("// "+line, " \n") + "\n")
	}
	e.body.WriteString("\n")
}

func (e *exporter) cell(index int, p *nb.Program) error {
	for _, i := range p.Imports {
		e.imports = append(e.imports, strings.TrimSpace(fmt.Sprintf("%s %q", i.Name, i.Path)))
	}
	for _, d := range p.Decls {
		if len(d.Names) > 0 {
			if first, ok := e.declared[d.Names[0]]; ok && first.cell != index {
				continue // the same once more
			}
		}
		params := d.Params()
		slices.Reverse(params) // so that the places of those before stay right
		for _, param := range params {
			if flags[param.Type] == "" {
				return fmt.Errorf("parameter %s has a default that is no plain number, text, true or false, so its type is not known", param.Name)
			}
			d = d.Replace(param.Value, e.name("parameters")+"."+param.Variable)
			e.fields = append(e.fields, field{param, strings.ReplaceAll(strings.ToLower(param.Name), "_", "-")})
		}
		text := d.Text
		if f, ok := d.Node.(*ast.FuncDecl); ok && f.Recv == nil {
			if isInit(f.Name.Name) {
				text = strings.Replace(text, "func "+f.Name.Name+"(", "func init(", 1)
			} else if p.Test && strings.HasPrefix(f.Name.Name, "Test") {
				e.tests = append(e.tests, f.Name.Name)
			}
		}
		e.body.WriteString(text + "\n\n")
	}
	if p.Main != nil && strings.TrimSpace(*p.Main) != "" {
		name := e.name(fmt.Sprintf("cell%02d", index))
		e.calls = append(e.calls, name+"()")
		fmt.Fprintf(&e.body, "func %s() {\n%s\n}\n\n", name, *p.Main)
	}
	return nil
}

// assemble puts the parts together.
func (e *exporter) assemble(file string) ([]byte, error) {
	var b bytes.Buffer
	base := filepath.Base(file)
	name := strings.TrimLeftFunc(strings.TrimSuffix(base, filepath.Ext(base)), func(r rune) bool { return !unicode.IsLetter(r) })
	fmt.Fprintf(&b, "// Command %s is the notebook %s as a program: its cells in their order, its parameters as flags.\n", name, base)
	b.WriteString("// Run it in the notebook's folder, where it finds what the notebook finds. Made by \"elastic nb export\".\npackage main\n\nimport (\n")
	if len(e.fields) > 0 {
		e.imports = append(e.imports, `"flag"`)
	}
	if len(e.tests) > 0 {
		e.imports = append(e.imports, `"testing"`)
	}
	slices.Sort(e.imports)
	for _, i := range slices.Compact(e.imports) {
		b.WriteString(i + "\n")
	}
	b.WriteString(")\n\n")
	if len(e.fields) > 0 {
		slices.SortStableFunc(e.fields, func(a, b field) int { return int(a.Value.Pos() - b.Value.Pos()) })
		fmt.Fprintf(&b, "// %[1]s are what the command line says. They are read before any other variable that needs them.\nvar %[1]s = func() (p struct {\n", e.name("parameters"))
		for _, f := range e.fields {
			fmt.Fprintf(&b, "%s %s\n", f.Variable, f.Type)
		}
		b.WriteString("}) {\n")
		for _, f := range e.fields {
			fmt.Fprintf(&b, "flag.%s(&p.%s, %q, %s, %q)\n", flags[f.Type], f.Variable, f.flag, f.Default, f.Comment)
		}
		b.WriteString("flag.Parse()\nreturn p\n}()\n\n")
	}
	b.Write(e.body.Bytes())
	b.WriteString("func main() {\n" + strings.Join(e.calls, "\n"))
	if len(e.tests) > 0 {
		b.WriteString("\n// Ends the program.\ntesting.Main(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{\n")
		for _, test := range e.tests {
			fmt.Fprintf(&b, "{Name: %q, F: %s},\n", test, test)
		}
		b.WriteString("}, nil, nil)")
	}
	b.WriteString("\n}\n")
	program, err := imports.Process(filepath.Join(filepath.Dir(file), "main.go"), b.Bytes(), nil)
	if err != nil {
		return nil, fmt.Errorf("putting the cells together: %w", err)
	}
	return format.Source(program)
}
