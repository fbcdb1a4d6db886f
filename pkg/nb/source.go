package nb

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"regexp"
	"strconv"
	"strings"
)

// Program is a code cell of a GoNB notebook, taken apart: lines for the kernel, declarations that stay for later cells,
// and what is executed now.
type Program struct {
	Commands []Command // lines that begin with % or !, in order, without the one that begins the main part
	Magic    string    // such as "%%bash": the cell is for another program; all else is empty
	Imports  []Import
	Decls    []Decl  // without imports and the main function
	Main     *string // statements of the main function; nil if the cell executes nothing
	MainLine int     // line of the cell on which they begin, from 1
	Args     string  // arguments of the main function's program, behind %%
	Test     bool    // the cell's own tests are executed: %test
}

// Command is a line for the kernel.
type Command struct {
	Line int // from 1
	Text string
}

// Import is an import of a cell.
type Import struct {
	Line       int
	Name, Path string // Name is "" unless one is given
}

// Decl is a declaration of a cell: its text with its comments, and the names that it declares. A method's name has its
// type's before it: T.Method.
type Decl struct {
	Line  int
	Names []string
	Text  string
	Node  ast.Decl

	start int // offset of the text in the file that was parsed
}

// Replace returns the text of the declaration with one of its expressions replaced.
func (d Decl) Replace(e ast.Expr, by string) Decl {
	// A file set of one file begins at 1.
	from, to := int(e.Pos())-1-d.start, int(e.End())-1-d.start
	d.Text = d.Text[:from] + by + d.Text[to:]
	return d
}

// cellMagic is a first line that hands a whole cell to another program; %% alone begins the main part.
var cellMagic = regexp.MustCompile(`^%%\w+`)

// Program takes the cell's source apart. The error lists what is no Go, by lines and columns of the cell.
func (c *Cell) Program() (*Program, error) {
	p := &Program{}
	lines := strings.Split(c.Source, "\n")
	if first := strings.TrimPrefix(lines[0], "//gonb:"); cellMagic.MatchString(first) {
		p.Magic = first
		return p, nil
	}
	const before = "package main; " // on the first line, so that the lines are those of the cell
	inMain, continued := false, false
	for i, line := range lines {
		text := strings.TrimPrefix(line, "//gonb:")
		command, args, _ := strings.Cut(strings.TrimRight(text, " \t\r"), " ")
		switch {
		case continued:
			last := &p.Commands[len(p.Commands)-1]
			last.Text = strings.TrimSuffix(last.Text, `\`) + " " + text
			lines[i] = ""
		case !inMain && (command == "%%" || command == "%main"):
			inMain, lines[i], p.MainLine, p.Args = true, "func main() {", i+2, args
		case strings.HasPrefix(text, "%") || strings.HasPrefix(text, "!"):
			p.Commands = append(p.Commands, Command{i + 1, text})
			p.Test = p.Test || command == "%test"
			lines[i] = ""
		default:
			continue
		}
		continued = strings.HasSuffix(text, `\`)
	}
	text := before + strings.Join(lines, "\n")
	if inMain {
		text += "\n}"
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "", text, parser.ParseComments|parser.SkipObjectResolution|parser.AllErrors)
	if err != nil {
		return nil, cellError(err, len(before))
	}
	line := func(pos token.Pos) int { return fset.Position(pos).Line }
	for _, spec := range file.Imports {
		i := Import{Line: line(spec.Pos())}
		i.Path, _ = strconv.Unquote(spec.Path.Value) // the parser has checked it
		if spec.Name != nil {
			i.Name = spec.Name.Name
		}
		p.Imports = append(p.Imports, i)
	}
	start := len(before) // of the text that no declaration has taken yet
	if n := len(file.Imports); n > 0 {
		start = fset.Position(lastImport(file).End()).Offset
	}
	for _, d := range file.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.IMPORT {
			continue
		}
		end := fset.Position(d.End()).Offset
		for end < len(text) && text[end] != '\n' { // with the comment behind it
			end++
		}
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "main" {
			body := text[fset.Position(f.Body.Lbrace).Offset+1 : fset.Position(f.Body.Rbrace).Offset]
			body = strings.Trim(body, "\n")
			p.Main, p.MainLine = &body, line(f.Body.Lbrace)+1
		} else {
			for start < end && strings.ContainsRune(" \t\r\n;", rune(text[start])) {
				start++
			}
			p.Decls = append(p.Decls, Decl{Line: line(d.Pos()), Names: names(d), Text: strings.TrimRight(text[start:end], " \t\r"), Node: d, start: start})
		}
		start = end
	}
	return p, nil
}

func lastImport(file *ast.File) (last ast.Decl) {
	for _, d := range file.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.IMPORT {
			last = d
		}
	}
	return last
}

// cellError gives the errors of the parser the columns of the cell.
func cellError(err error, before int) error {
	var list scanner.ErrorList
	if !errors.As(err, &list) {
		return err
	}
	var errs []error
	for _, e := range list {
		column := e.Pos.Column
		if e.Pos.Line == 1 {
			column = max(1, column-before)
		}
		errs = append(errs, fmt.Errorf("line %d:%d: %s", e.Pos.Line, column, e.Msg))
	}
	return errors.Join(errs...)
}

// names returns what a declaration declares. Each init and each _ is its own.
func names(d ast.Decl) []string {
	var list []string
	switch d := d.(type) {
	case *ast.FuncDecl:
		name := d.Name.Name
		if d.Recv != nil && len(d.Recv.List) == 1 {
			name = receiver(d.Recv.List[0].Type) + "." + name
		}
		list = append(list, name)
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				list = append(list, spec.Name.Name)
			case *ast.ValueSpec:
				for _, n := range spec.Names {
					list = append(list, n.Name)
				}
			}
		}
	}
	return list
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}
