package nb

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Tags of cells that mean something here.
const (
	ParametersTag = "parameters"       // the cell declares the notebook's parameters
	RaisesTag     = "raises-exception" // the cell must fail
)

// Param is a parameter of a notebook: a variable that its parameters cell reads by nb.Param of package viz/nb, as in
// "steps = must.M1(nb.Param("STEPS", 160)) // updates of 16 sentences each".
type Param struct {
	Name     string `json:"name"`              // STEPS; the environment variable is NB_STEPS
	Variable string `json:"variable"`          // steps
	Type     string `json:"type"`              // int, as Go spells it; "" if it cannot be told without compiling
	Default  string `json:"default"`           // 160, as Go spells it
	Comment  string `json:"comment,omitempty"` // updates of 16 sentences each

	Value ast.Expr `json:"-"` // what the variable is initialised by
}

// ParamEnv returns the name of the environment variable that sets a parameter.
func ParamEnv(name string) string { return "NB_" + name }

// Params returns the parameters that the notebook declares in its cell with the tag "parameters"; none if it has no such
// cell.
func (n *Notebook) Params() ([]Param, error) {
	var params []Param
	for i, c := range n.Cells {
		if c.Kind != Code || !c.Tagged(ParametersTag) {
			continue
		}
		program, err := c.Program()
		if err != nil {
			return nil, fmt.Errorf("cell %d: %w", i, err)
		}
		for _, d := range program.Decls {
			params = append(params, d.Params()...)
		}
	}
	return params, nil
}

// Params returns the parameters that the declaration reads.
func (d Decl) Params() []Param {
	general, ok := d.Node.(*ast.GenDecl)
	if !ok || general.Tok != token.VAR {
		return nil
	}
	var params []Param
	for _, s := range general.Specs {
		spec := s.(*ast.ValueSpec)
		for i, value := range spec.Values {
			call := paramCall(value)
			if call == nil || i >= len(spec.Names) {
				continue
			}
			p := Param{Variable: spec.Names[i].Name, Value: value}
			p.Name, _ = strconv.Unquote(call.Args[0].(*ast.BasicLit).Value)
			p.Type, p.Default = literal(call.Args[1])
			comment := spec.Comment
			if comment == nil && len(general.Specs) == 1 {
				comment = spec.Doc
			}
			p.Comment = strings.TrimSpace(comment.Text())
			params = append(params, p)
		}
	}
	return params
}

// paramCall finds the call nb.Param("NAME", default) in an expression.
func paramCall(e ast.Expr) (found *ast.CallExpr) {
	ast.Inspect(e, func(node ast.Node) bool {
		call, ok := node.(*ast.CallExpr)
		if !ok || len(call.Args) != 2 {
			return true
		}
		fun := call.Fun
		if index, ok := fun.(*ast.IndexExpr); ok { // nb.Param[float64]
			fun = index.X
		}
		selector, ok := fun.(*ast.SelectorExpr)
		name, isLiteral := call.Args[0].(*ast.BasicLit)
		if ok && selector.Sel.Name == "Param" && isLiteral && name.Kind == token.STRING {
			found = call
		}
		return found == nil
	})
	return found
}

// literal returns type and text of a constant, as far as they can be told.
func literal(e ast.Expr) (kind, text string) {
	switch e := e.(type) {
	case *ast.BasicLit:
		return map[token.Token]string{token.INT: "int", token.FLOAT: "float64", token.STRING: "string"}[e.Kind], e.Value
	case *ast.UnaryExpr:
		kind, text = literal(e.X)
		return kind, e.Op.String() + text
	case *ast.Ident:
		if e.Name == "true" || e.Name == "false" {
			return "bool", e.Name
		}
	case *ast.CallExpr: // a conversion
		if to, ok := e.Fun.(*ast.Ident); ok && len(e.Args) == 1 && values[to.Name] != nil {
			if _, text = literal(e.Args[0]); text != "" {
				return to.Name, text
			}
		}
	}
	return "", ""
}

// values has a place for a value of each type that can be told from a literal.
var values = map[string]func() any{
	"int": func() any { return new(int) }, "int32": func() any { return new(int32) }, "int64": func() any { return new(int64) },
	"uint": func() any { return new(uint) }, "uint32": func() any { return new(uint32) }, "uint64": func() any { return new(uint64) },
	"float32": func() any { return new(float32) }, "float64": func() any { return new(float64) },
	"bool": func() any { return new(bool) }, "string": nil,
}

// Check returns an error if the parameter cannot have a value, which is read as viz/nb reads it: as JSON, but a string as it
// stands; "" is the default.
func (p Param) Check(value string) error {
	make, ok := values[p.Type]
	if !ok || make == nil || value == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(value), make()); err != nil {
		return fmt.Errorf("parameter %s is %q, want a value like %s (%s)", p.Name, value, p.Default, p.Type)
	}
	return nil
}

// CheckParams returns an error for each parameter that the notebook has not, and each value that does not fit. Only those
// of Go notebooks are known.
func (n *Notebook) CheckParams(values map[string]string) error {
	spec, _ := n.Metadata["kernelspec"].(map[string]any)
	if len(values) == 0 || spec["language"] != "go" {
		return nil
	}
	params, err := n.Params()
	if err != nil {
		return err
	}
	var known []string
	for _, p := range params {
		known = append(known, p.Name)
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(values)) {
		i := slices.Index(known, name)
		switch {
		case i >= 0:
			errs = append(errs, params[i].Check(values[name]))
		case len(known) == 0:
			errs = append(errs, fmt.Errorf("no parameter %s: there is no cell with the tag %q that reads one by nb.Param", name, ParametersTag))
		default:
			errs = append(errs, fmt.Errorf("no parameter %s; there are %s", name, strings.Join(known, ", ")))
		}
	}
	return errors.Join(errs...)
}
