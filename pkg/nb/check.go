package nb

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"

	"github.com/elastic-attention/workbench/pkg/nb/mathml"
)

// outputLimit is how many bytes the outputs of one cell may have in a file under version control.
const outputLimit = 256 << 10

var (
	cellID        = regexp.MustCompile(`^[a-zA-Z0-9\-_]{1,64}$`)
	noautoget     = regexp.MustCompile(`(?m)^(?://gonb:)?%noautoget\s*$`)
	absolutePath  = regexp.MustCompile(`(?:^|[^\w./\-$})])((?:/(?:home|root|tmp|work|Users|var|mnt|opt)/|[A-Z]:\\)\w[^\s"'` + "`" + `<>]*)`)
	readPlan      = regexp.MustCompile(`ReadPlan\("([^"]*)"\)`)
	externalLoads = regexp.MustCompile(`(?i)<script|<link\b|<iframe|@import|\b(?:src|srcset|data|poster)\s*=\s*["']?\s*(?:https?:)?//|url\(\s*["']?\s*(?:https?:)?//`)
)

// Check returns what keeps the notebook of a file from being one of the house: that runs anywhere, with the versions of the
// module around it, whose numbers are tested, and which reads well in version control.
//
//	the file      nbformat 4.5 as Jupyter writes it, cells with IDs, a plan that can be read
//	the kernel    gonb, and %noautoget in the first code cell: versions come from go.mod, not from the network
//	the text      a first cell with a title; formulas that pages can show; no absolute paths
//	the code      Go that parses; imports of the standard library, of the module, or pinned by its go.mod
//	parameters    at most one cell with that tag, which reads some
//	the test      the last code cell prints results or runs tests; saved outputs agree with the expected numbers
//	outputs       of one run from top to bottom; no errors, scripts, widgets or things that a browser would load
func Check(path string) []error {
	content, err := os.ReadFile(path)
	if err != nil {
		return []error{err}
	}
	n, err := Read(strings.NewReader(string(content)))
	if err != nil {
		return []error{err}
	}
	c := &checker{notebook: n, base: filepath.Base(path)}
	var again strings.Builder
	if err := n.Write(&again); err != nil || again.String() != string(content) {
		c.add(-1, "the file is not as Jupyter writes it: open and save it there, or run \"elastic nb run --write\"")
	}
	if err := c.findModule(path); err != nil {
		c.add(-1, "%v", err)
	}
	c.form()
	c.code()
	c.outputs()
	return c.errs
}

type checker struct {
	notebook *Notebook
	base     string
	module   string   // path of the module around the notebook
	root     string   // its folder
	required []string // paths of the modules that it requires
	errs     []error
}

// add adds a complaint about a cell, or with a negative index about the notebook.
func (c *checker) add(cell int, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if cell >= 0 {
		text = fmt.Sprintf("cell %d: %s", cell, text)
	}
	c.errs = append(c.errs, errors.New(text))
}

// findModule reads the go.mod around the notebook.
func (c *checker) findModule(path string) error {
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return err
	}
	for {
		name := filepath.Join(dir, "go.mod")
		content, err := os.ReadFile(name)
		if err == nil {
			file, err := modfile.ParseLax(name, content, nil)
			if err != nil {
				return err
			}
			c.module, c.root = file.Module.Mod.Path, dir
			for _, r := range file.Require {
				c.required = append(c.required, r.Mod.Path)
			}
			return nil
		}
		if dir == filepath.Dir(dir) {
			return errors.New("there is no go.mod around it that would pin what it imports")
		}
		dir = filepath.Dir(dir)
	}
}

func (c *checker) form() {
	n := c.notebook
	if n.Minor < 5 {
		c.add(-1, "nbformat is 4.%d, want 4.5 or newer: cells need IDs", n.Minor)
	}
	spec, _ := n.Metadata["kernelspec"].(map[string]any)
	if spec["name"] != "gonb" || spec["language"] != "go" {
		c.add(-1, "kernelspec is %v, want name gonb and language go", spec)
	}
	plan, err := n.Plan()
	if err != nil {
		c.add(-1, "%v", err)
	} else if len(plan.Expect) == 0 {
		c.add(-1, "metadata.workbench.expect declares no number that the notebook must print")
	}
	if len(n.Cells) == 0 || n.Cells[0].Kind != Markdown || !strings.HasPrefix(n.Cells[0].Source, "# ") {
		c.add(0, "is no text that begins with a title (# …)")
	}
	seen := map[string]int{}
	for i, cell := range n.Cells {
		if first, twice := seen[cell.ID]; twice && n.Minor >= 5 {
			c.add(i, "has the ID %q, as cell %d", cell.ID, first)
		} else if n.Minor >= 5 && !cellID.MatchString(cell.ID) {
			c.add(i, "has the ID %q, want 1 to 64 letters, digits, - and _", cell.ID)
		}
		seen[cell.ID] = i
		if m := absolutePath.FindStringSubmatch(cell.Source); m != nil {
			c.add(i, "names %s, a place on one machine", m[1])
		}
		for _, part := range mathml.Split(cell.Source) {
			if cell.Kind != Markdown || !part.Formula {
				continue
			}
			if _, err := mathml.Convert(part.Text, part.Display); err != nil {
				c.add(i, "%v", err)
			}
		}
		for _, m := range readPlan.FindAllStringSubmatch(cell.Source, -1) {
			if m[1] != c.base {
				c.add(i, "reads the plan of %q, but this is %q", m[1], c.base)
			}
		}
	}
}

func (c *checker) code() {
	first, last, tests := true, -1, false
	parameters := 0
	for i, cell := range c.notebook.Cells {
		if cell.Kind != Code {
			continue
		}
		if first && !noautoget.MatchString(cell.Source) {
			c.add(i, "has no line %%noautoget, as the first code cell must: else the kernel asks the network for newer versions")
		}
		first = false
		program, err := cell.Program()
		if err != nil {
			c.add(i, "%v", err)
			continue
		}
		for _, imported := range program.Imports {
			if err := c.pinned(imported.Path); err != nil {
				c.add(i, "%v", err)
			}
		}
		last, tests = i, program.Test || strings.Contains(cell.Source, "result: ")
		if !cell.Tagged(ParametersTag) {
			continue
		}
		parameters++
		some := false
		for _, d := range program.Decls {
			some = some || len(d.Params()) > 0
		}
		if !some {
			c.add(i, "has the tag %q, but reads none by nb.Param", ParametersTag)
		}
	}
	if parameters > 1 {
		c.add(-1, "%d cells have the tag %q, want one", parameters, ParametersTag)
	}
	if last < 0 {
		c.add(-1, "there is no code")
	} else if !tests {
		c.add(last, "is the last code cell, and neither prints \"result: name=number\" nor runs a %%test")
	}
}

// pinned returns an error if a package may be another tomorrow, or is not there.
func (c *checker) pinned(path string) error {
	domain, _, _ := strings.Cut(path, "/")
	switch {
	case !strings.Contains(domain, "."): // of the standard library
		return nil
	case c.module == "": // already complained about
		return nil
	case within(path, c.module):
		if info, err := os.Stat(filepath.Join(c.root, filepath.FromSlash(strings.TrimPrefix(path, c.module)))); err != nil || !info.IsDir() {
			return fmt.Errorf("imports %s, which is no package of this module", path)
		}
		return nil
	case slices.ContainsFunc(c.required, func(module string) bool { return within(path, module) }):
		return nil
	}
	return fmt.Errorf("imports %s, which go.mod does not pin: go get its module at an exact version, and import it in deps.go", path)
}

func within(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

func (c *checker) outputs() {
	executed := 0
	ran := false
	for i, cell := range c.notebook.Cells {
		if cell.Kind != Code {
			continue
		}
		ran = ran || cell.Count > 0
		if executed++; ran && cell.Count != executed && strings.TrimSpace(cell.Source) != "" {
			c.add(i, "has the execution count %d, want %d: its outputs are not those of one run from top to bottom", cell.Count, executed)
			ran = false // once is enough
			break
		}
	}
	for i, cell := range c.notebook.Cells {
		size := 0
		for _, o := range cell.Outputs {
			n, err := checkOutput(o)
			if size += n; err != nil && !cell.Tagged(RaisesTag) {
				c.add(i, "%v", err)
			}
			if m := absolutePath.FindStringSubmatch(o.Text); m != nil {
				c.add(i, "shows %s, a place on one machine", m[1])
			}
		}
		if size > outputLimit {
			c.add(i, "has outputs of %d kB, want at most %d kB", size>>10, outputLimit>>10)
		}
	}
	if plan, err := c.notebook.Plan(); err == nil && ran {
		for _, err := range plan.Compare(c.notebook.Results()) {
			c.add(-1, "saved outputs: %v", err)
		}
	}
}

// Loads returns the first thing in a piece of HTML that would run a script or make a browser load something from elsewhere;
// "" if there is none. Links lead elsewhere without loading.
func Loads(html string) string { return externalLoads.FindString(html) }

// checkOutput returns the size of an output, and an error if it does not belong into a file under version control.
func checkOutput(o *Output) (int, error) {
	if o.Kind == Error {
		return len(o.Text), fmt.Errorf("ended with %s: %s", o.Name, o.Text)
	}
	if o.Kind == Stream && o.Name == "stderr" {
		return len(o.Text), errors.New("wrote to standard error")
	}
	size := len(o.Text)
	for mime, value := range o.Data {
		text, ok := value.(string)
		if !ok {
			text = jsonText(value)
		}
		size += len(text)
		if mime == "application/javascript" || strings.Contains(mime, "jupyter.widget") {
			return size, fmt.Errorf("shows %s, which a page without a kernel cannot", mime)
		}
		if m := Loads(text); m != "" && mime != "text/plain" {
			return size, fmt.Errorf("shows %s with %s: scripts and things from elsewhere are lost in pages and files", mime, m)
		}
	}
	return size, nil
}
