// Package site makes pages of notebooks: static HTML that loads nothing from elsewhere. Formulas are MathML, pictures are in
// the pages, code is coloured when the pages are made, light and dark follow the reader's system, and there are no scripts.
//
//	err := site.Build("site", []string{"notebooks/01-first-run.ipynb", "notebooks/02-attention-pooling.ipynb"}, site.Options{})
package site

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alecthomas/chroma/v2/formatters/html"
	"github.com/alecthomas/chroma/v2/styles"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/pkg/nb"
)

// Options say what pages look like.
type Options struct {
	Title  string // of the index; "" is "Notebooks"
	Source string // address of the repository's files, to which relative links lead; "" makes such links plain text
}

// page is what the template of a notebook sees.
type page struct {
	Site, File, Name string
	Title, Sub       string
	Question         template.HTML
	Sections         []section
	Cells            []template.HTML
	Numbers          []number
	Seconds          float64
	Backend          string
	Cores            int
	Previous, Next   *page
	Params           []nb.Param
}

type section struct{ ID, Title string }

type number struct {
	Name            string
	Got             string
	Want, Tolerance float64
}

//go:embed site.css
var css string

//go:embed page.html
var pageText string

//go:embed index.html
var indexText string

var (
	pageTemplate  = template.Must(template.New("page").Parse(pageText))
	indexTemplate = template.Must(template.New("index").Parse(indexText))
)

// Build writes a folder with a page for each notebook, in the order given, and an index. The folder appears complete or not
// at all; one that is there is replaced, if it was made by Build. Errors name notebook and cell: formulas that are not
// known, things that a page would load from elsewhere.
func Build(dir string, notebooks []string, o Options) error {
	if o.Title == "" {
		o.Title = "Notebooks"
	}
	if err := ours(dir); err != nil {
		return err
	}
	var pages []*page
	var errs []error
	for _, path := range notebooks {
		p, err := newPage(path, notebooks, o)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
			continue
		}
		for _, other := range pages {
			if other.File == p.File {
				errs = append(errs, fmt.Errorf("%s: another notebook has the same name", path))
			}
		}
		pages = append(pages, p)
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for i, p := range pages {
		if i > 0 {
			p.Previous, pages[i-1].Next = pages[i-1], p
		}
	}
	style, err := stylesheet()
	if err != nil {
		return err
	}
	return atomicfile.WriteDir(dir, func(temp string) error {
		write := func(name string, t *template.Template, data any) error {
			var b bytes.Buffer
			if err := t.Execute(&b, data); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(temp, name), b.Bytes(), 0o644)
		}
		for _, p := range pages {
			if err := write(p.File, pageTemplate, p); err != nil {
				return err
			}
		}
		if err := write("index.html", indexTemplate, map[string]any{"Title": o.Title, "Pages": pages}); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(temp, "site.css"), style, 0o644)
	})
}

// ours refuses a folder that holds something else than a site: it would be lost.
func ours(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("writing the site: %w", err)
	}
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
		if ext := filepath.Ext(e.Name()); ext != ".html" && ext != ".css" {
			return fmt.Errorf("writing the site: %s holds %s, so it is no site, and would be replaced: name another folder", dir, e.Name())
		}
	}
	if len(entries) > 0 && !(names["index.html"] && names["site.css"]) {
		return fmt.Errorf("writing the site: %s is no site, and would be replaced: name another folder", dir)
	}
	return nil
}

// stylesheet returns our style and those of code, light and dark.
func stylesheet() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(css)
	formatter := html.New(html.WithClasses(true))
	for _, in := range [][2]string{{"light", "github"}, {"dark", "github-dark"}} {
		fmt.Fprintf(&b, "@media (prefers-color-scheme: %s) {\n", in[0])
		if err := formatter.WriteCSS(&b, styles.Get(in[1])); err != nil {
			return nil, err
		}
		b.WriteString("}\n")
	}
	// What is not plain Go, the lines for the kernel, is no error of the reader's.
	b.WriteString(".chroma, .chroma .err { background: none; color: inherit }\n")
	return b.Bytes(), nil
}

// fileOf returns the name of a notebook's page.
func fileOf(path string) string {
	return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)) + ".html"
}

func newPage(path string, all []string, o Options) (*page, error) {
	n, err := nb.ReadFile(path)
	if err != nil {
		return nil, err
	}
	plan, err := n.Plan()
	if err != nil {
		return nil, err
	}
	params, err := n.Params()
	if err != nil {
		return nil, err
	}
	p := &page{Site: o.Title, File: fileOf(path), Name: filepath.Base(path), Params: params}
	r := newRenderer(path, all, o)
	var errs []error
	for i, cell := range n.Cells {
		markup, err := r.cell(i, cell)
		if err != nil {
			errs = append(errs, fmt.Errorf("cell %d: %w", i, err))
		}
		if markup != "" {
			p.Cells = append(p.Cells, markup)
		}
	}
	p.Title, p.Sub = titles(n, p.Name)
	if p.Question, err = r.question(n); err != nil {
		errs = append(errs, err)
	}
	p.Sections = r.sections
	results := n.Results()
	for _, name := range slices.Sorted(maps.Keys(plan.Expect)) {
		got := "not saved"
		if value, ok := results[name]; ok {
			got = fmt.Sprintf("%g", value)
		}
		p.Numbers = append(p.Numbers, number{name, got, plan.Expect[name][0], plan.Expect[name][1]})
	}
	if plan.Measured != nil {
		p.Seconds, p.Backend, p.Cores = plan.Measured.Seconds, plan.Measured.Backend, plan.Measured.Cores
	}
	return p, errors.Join(errs...)
}

// titles returns the heading of the first cell, and the line in italics below it.
func titles(n *nb.Notebook, name string) (title, sub string) {
	title = name
	if len(n.Cells) == 0 || n.Cells[0].Kind != nb.Markdown {
		return title, ""
	}
	lines := strings.SplitN(n.Cells[0].Source, "\n", 3)
	if text, ok := strings.CutPrefix(lines[0], "# "); ok {
		title = strings.TrimSpace(text)
	}
	if len(lines) > 1 {
		if line := strings.TrimSpace(lines[1]); len(line) > 2 && line[0] == '*' && line[1] != '*' && line[len(line)-1] == '*' {
			sub = line[1 : len(line)-1]
		}
	}
	return title, sub
}
