// Package nb reads, writes, checks, compares and makes Jupyter notebooks.
//
// A [Notebook] is a file of nbformat 4. It is written as Jupyter itself writes it (one space of indentation, sorted keys,
// texts split into lines), so that a notebook that was only read and written again stays the same byte for byte, with all
// fields that this package knows nothing about:
//
//	notebook, err := nb.ReadFile("notebooks/02-attention-pooling.ipynb")
//	for i, cell := range notebook.Cells { ... }
//	err = notebook.WriteFile("copy.ipynb")
//
// What the workbench adds to the format is in the notebook's metadata under "workbench" (see [Plan]) and in its cell with
// the tag "parameters" (see [Notebook.Params]). Kernels are reached by package nb/kernel, notebooks executed by
// nb/execute, turned into programs by nb/export and into pages by nb/site.
package nb

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/elastic-attention/workbench/internal/atomicfile"
)

// The kinds of cells.
const (
	Code     = "code"
	Markdown = "markdown"
	Raw      = "raw"
)

// The kinds of outputs.
const (
	Stream  = "stream"         // text that a program wrote
	Display = "display_data"   // something shown, in one or several representations
	Result  = "execute_result" // the value of a cell
	Error   = "error"          // what the kernel refused
)

// Notebook is a notebook of nbformat 4.
type Notebook struct {
	Cells    []*Cell
	Metadata map[string]any // numbers as read are json.Number
	Minor    int            // of the format's version 4.x; 5 has cell IDs

	rest map[string]any
}

// Cell is one cell. Kind is [Code], [Markdown] or [Raw]; outputs and a count belong to code only.
type Cell struct {
	Kind     string
	ID       string // "" before nbformat 4.5
	Metadata map[string]any
	Source   string
	Count    int // execution count; 0 if it has not run
	Outputs  []*Output

	rest map[string]any
}

// Output is one output of a code cell. Which fields it has depends on its kind.
type Output struct {
	Kind      string
	Name      string         // Stream: stdout or stderr. Error: the error's name
	Text      string         // Stream: the text. Error: the error's value
	Traceback []string       // Error
	Data      map[string]any // Display, Result: representations by MIME type, texts as strings
	Metadata  map[string]any // Display, Result
	Count     int            // Result

	rest map[string]any
}

// ReadFile reads a notebook. Errors name the file and the place in it.
func ReadFile(path string) (*Notebook, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, syscall.EISDIR) {
		return nil, fmt.Errorf("reading a notebook: %s is a folder, want a file, such as one of %s", path, filepath.Join(path, "*.ipynb"))
	}
	if err != nil {
		return nil, fmt.Errorf("reading a notebook: %w", err)
	}
	notebook, err := Read(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("reading notebook %s: %w", path, err)
	}
	return notebook, nil
}

// Read reads a notebook of nbformat 4.
func Read(r io.Reader) (*Notebook, error) {
	decoder := json.NewDecoder(r)
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); errors.Is(err, io.EOF) {
		return nil, errors.New("it is empty, want a notebook in JSON (.ipynb)")
	} else if err != nil {
		return nil, fmt.Errorf("it is no notebook in JSON (.ipynb), no JSON object: %w", err)
	}
	tree, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("it is no notebook in JSON (.ipynb), no JSON object")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON object")
	}
	f := &fields{tree: tree}
	if major := f.integer("nbformat"); f.err == nil && major != 4 {
		return nil, fmt.Errorf("nbformat is %d, want 4: open and save it once in JupyterLab", major)
	}
	n := &Notebook{Metadata: f.object("metadata"), Minor: f.integer("nbformat_minor")}
	cells := f.list("cells")
	if f.err != nil {
		return nil, f.err
	}
	n.rest = f.tree
	for i, c := range cells {
		cell, err := readCell(c)
		if err != nil {
			return nil, fmt.Errorf("cells[%d]%w", i, err)
		}
		n.Cells = append(n.Cells, cell)
	}
	return n, nil
}

func readCell(tree any) (*Cell, error) {
	f, err := fieldsOf(tree)
	if err != nil {
		return nil, err
	}
	c := &Cell{Kind: f.text("cell_type"), Metadata: f.object("metadata"), Source: f.lines("source")}
	if _, ok := f.tree["id"]; ok {
		c.ID = f.text("id")
	}
	if c.Kind == Code {
		c.Count = f.count("execution_count")
		for i, o := range f.list("outputs") {
			output, err := readOutput(o)
			if err != nil {
				return nil, fmt.Errorf(".outputs[%d]%w", i, err)
			}
			c.Outputs = append(c.Outputs, output)
		}
	}
	if f.err == nil && !slices.Contains([]string{Code, Markdown, Raw}, c.Kind) {
		f.err = fmt.Errorf("cell_type is %q, want code, markdown or raw", c.Kind)
	}
	if f.err != nil {
		return nil, fmt.Errorf(": %w", f.err)
	}
	c.rest = f.tree
	return c, nil
}

func readOutput(tree any) (*Output, error) {
	f, err := fieldsOf(tree)
	if err != nil {
		return nil, err
	}
	o := &Output{Kind: f.text("output_type")}
	switch o.Kind {
	case Stream:
		o.Name, o.Text = f.text("name"), f.lines("text")
	case Display, Result:
		o.Data, o.Metadata = f.object("data"), f.object("metadata")
		if o.Kind == Result {
			o.Count = f.count("execution_count")
		}
		for mime, value := range o.Data {
			if text, ok := joined(value); ok && !isJSON(mime) {
				o.Data[mime] = text
			}
		}
	case Error:
		o.Name, o.Text = f.text("ename"), f.text("evalue")
		for _, line := range f.list("traceback") {
			text, ok := line.(string)
			if !ok {
				return nil, errors.New(": traceback holds something other than texts")
			}
			o.Traceback = append(o.Traceback, text)
		}
	default:
		if f.err == nil {
			f.err = fmt.Errorf("output_type is %q, want stream, display_data, execute_result or error", o.Kind)
		}
	}
	if f.err != nil {
		return nil, fmt.Errorf(": %w", f.err)
	}
	o.rest = f.tree
	return o, nil
}

// Tagged reports whether the cell has a tag.
func (c *Cell) Tagged(tag string) bool {
	tags, _ := c.Metadata["tags"].([]any)
	return slices.Contains(tags, any(tag))
}

// Text returns what the cell's program wrote to a stream: "stdout" or "stderr".
func (c *Cell) Text(stream string) string {
	var text []byte
	for _, o := range c.Outputs {
		if o.Kind == Stream && o.Name == stream {
			text = append(text, o.Text...)
		}
	}
	return string(text)
}

// Attachment returns the representations, by MIME type, of a file that is attached to the cell; nil if there is none.
func (c *Cell) Attachment(name string) map[string]any {
	attachments, _ := c.rest["attachments"].(map[string]any)
	bundle, _ := attachments[name].(map[string]any)
	return bundle
}

// WriteFile writes the notebook, complete or not at all.
func (n *Notebook) WriteFile(path string) error {
	return atomicfile.Write(path, n.Write)
}

// Clone returns a copy that shares nothing with the notebook.
func (n *Notebook) Clone() (*Notebook, error) {
	var b bytes.Buffer
	if err := n.Write(&b); err != nil {
		return nil, err
	}
	return Read(&b)
}

// Strip removes all outputs and execution counts.
func (n *Notebook) Strip() {
	for _, c := range n.Cells {
		c.Count, c.Outputs = 0, nil
	}
}
