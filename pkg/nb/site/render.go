package site

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html"
	"html/template"
	"maps"
	"mime"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/chroma/v2"
	chromahtml "github.com/alecthomas/chroma/v2/formatters/html"
	"github.com/alecthomas/chroma/v2/lexers"
	"github.com/alecthomas/chroma/v2/styles"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	goldhtml "github.com/yuin/goldmark/renderer/html"
	"github.com/yuin/goldmark/text"

	"github.com/elastic-attention/workbench/pkg/nb"
	"github.com/elastic-attention/workbench/pkg/nb/mathml"
)

// renderer makes markup of the cells of one notebook.
type renderer struct {
	dir      string          // folder of the notebook
	pages    map[string]bool // absolute paths of the notebooks that have a page
	source   string
	markdown goldmark.Markdown
	sections []section
	headed   int  // headings so far
	titled   bool // one of them is the title
}

func newRenderer(file string, all []string, o Options) *renderer {
	r := &renderer{dir: filepath.Dir(file), pages: map[string]bool{}, source: o.Source}
	for _, other := range all {
		if absolute, err := filepath.Abs(other); err == nil {
			r.pages[absolute] = true
		}
	}
	r.markdown = goldmark.New(goldmark.WithExtensions(extension.GFM), goldmark.WithParserOptions(parser.WithAutoHeadingID()),
		goldmark.WithRendererOptions(goldhtml.WithUnsafe())) // a notebook is its author's own HTML; what it loads is looked at below
	return r
}

// cell returns a cell with its outputs.
func (r *renderer) cell(index int, c *nb.Cell) (template.HTML, error) {
	if strings.TrimSpace(c.Source) == "" && len(c.Outputs) == 0 {
		return "", nil
	}
	var b strings.Builder
	switch c.Kind {
	case nb.Markdown:
		markup, err := r.text(c, true)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "<div class=\"text\">%s</div>", markup)
	case nb.Raw:
		return "", nil
	case nb.Code:
		code, err := highlighted(c.Source)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "<div class=\"code\" id=\"cell-%d\">%s", index, code)
		for _, o := range c.Outputs {
			markup, err := r.output(o)
			if err != nil {
				return "", err
			}
			b.WriteString(markup)
		}
		b.WriteString("</div>")
	}
	return template.HTML(b.String()), nil
}

// highlighted returns Go code in colours.
func highlighted(source string) (string, error) {
	tokens, err := chroma.Coalesce(lexers.Get("go")).Tokenise(nil, source)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = chromahtml.New(chromahtml.WithClasses(true), chromahtml.PreventSurroundingPre(true)).Format(&b, styles.Get("github"), tokens)
	// A box that scrolls must be reachable by the keyboard.
	return `<pre class="chroma" tabindex="0"><code>` + b.String() + "</code></pre>", err
}

var ansi = regexp.MustCompile(`\x1b\[[0-9;]*[A-Za-z]`)

// order is which representation of an output is shown.
var order = []string{"text/html", "image/svg+xml", "text/markdown", "text/latex", "image/png", "image/jpeg", "text/plain"}

func (r *renderer) output(o *nb.Output) (string, error) {
	plain := func(class, text string) string {
		return fmt.Sprintf("<pre class=\"output %s\" tabindex=\"0\">%s</pre>", class, html.EscapeString(ansi.ReplaceAllString(text, "")))
	}
	switch o.Kind {
	case nb.Stream:
		return plain(o.Name, o.Text), nil
	case nb.Error:
		return plain("stderr", o.Name+": "+o.Text+"\n"+strings.Join(o.Traceback, "\n")), nil
	}
	for _, kind := range order {
		value, ok := o.Data[kind].(string)
		if !ok {
			continue
		}
		switch kind {
		case "text/markdown":
			markup, err := r.text(&nb.Cell{Source: value}, false)
			return `<div class="output text">` + markup + "</div>", err
		case "text/latex":
			markup, err := r.text(&nb.Cell{Source: value}, false)
			return `<div class="output">` + markup + "</div>", err
		case "image/png", "image/jpeg":
			return fmt.Sprintf(`<div class="output"><img alt="" src="data:%s;base64,%s"></div>`, kind, strings.Join(strings.Fields(value), "")), nil
		case "text/plain":
			return plain("stdout", value), nil
		}
		if load := nb.Loads(value); load != "" {
			return "", fmt.Errorf("an output has %s: a page of the site loads nothing", load)
		}
		return `<div class="output" tabindex="0">` + value + "</div>", nil
	}
	return "", nil
}

// holder stands for a formula while markdown is read: characters of private use, which no notebook has.
const (
	holderOpen  = "\ue000"
	holderClose = "\ue001"
)

var holder = regexp.MustCompile(holderOpen + `(\d+)` + holderClose)

// text returns markdown with formulas as markup. Headings of cells become sections of the page.
func (r *renderer) text(c *nb.Cell, headings bool) (string, error) {
	var plain strings.Builder
	var formulas []string
	for _, part := range mathml.Split(c.Source) {
		if !part.Formula {
			plain.WriteString(part.Text)
			continue
		}
		markup, err := mathml.Convert(part.Text, part.Display)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&plain, "%s%d%s", holderOpen, len(formulas), holderClose)
		formulas = append(formulas, strings.Replace(markup, `<math display="block">`, `<math display="block" tabindex="0">`, 1))
	}
	source := []byte(plain.String())
	tree := r.markdown.Parser().Parse(text.NewReader(source))
	if err := r.links(tree, c, source); err != nil {
		return "", err
	}
	filled := func(s string) string {
		return holder.ReplaceAllStringFunc(s, func(h string) string {
			i, err := strconv.Atoi(strings.Trim(h, holderOpen+holderClose))
			if err != nil || i >= len(formulas) {
				return h
			}
			return formulas[i]
		})
	}
	if headings {
		r.headings(tree, source)
	}
	var b bytes.Buffer
	if err := r.markdown.Renderer().Render(&b, source, tree); err != nil {
		return "", err
	}
	if load := nb.Loads(b.String()); load != "" {
		return "", fmt.Errorf("the text has %s: a page of the site loads nothing", load)
	}
	// Boxes that scroll must be reachable by the keyboard, and an empty corner of a table is no heading.
	markup := strings.NewReplacer("<table>", `<div class="table" tabindex="0"><table>`, "</table>", "</table></div>", "<th></th>", "<td></td>").Replace(b.String())
	return filled(markup), nil
}

// headings gives the headings of a cell identifiers that differ in the whole page, and notes those of the second level.
func (r *renderer) headings(tree ast.Node, source []byte) {
	for node := tree.FirstChild(); node != nil; node = node.NextSibling() {
		h, ok := node.(*ast.Heading)
		if !ok {
			continue
		}
		r.headed++
		id := fmt.Sprintf("section-%d", r.headed)
		if h.Level == 1 && !r.titled {
			id, r.titled = "title", true
		}
		h.SetAttributeString("id", []byte(id))
		if h.Level == 2 {
			title := holder.ReplaceAllString(string(lines(h, source)), "…")
			r.sections = append(r.sections, section{id, title})
		}
	}
}

// lines returns the text of a node without its markup.
func lines(n ast.Node, source []byte) []byte {
	var b []byte
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if t, ok := n.(*ast.Text); ok && entering {
			b = append(b, t.Segment.Value(source)...)
		}
		return ast.WalkContinue, nil
	})
	return b
}

// links leads links to where they lead from a page, and puts pictures into it.
func (r *renderer) links(tree ast.Node, c *nb.Cell, source []byte) error {
	var loose []*ast.Link
	err := ast.Walk(tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Link:
			to, ok := r.link(string(n.Destination))
			if !ok {
				loose = append(loose, n)
			}
			n.Destination = []byte(to)
		case *ast.Image:
			data, err := r.picture(string(n.Destination), c)
			if err != nil {
				return ast.WalkStop, err
			}
			n.Destination = data
		}
		return ast.WalkContinue, nil
	})
	for _, n := range loose { // its text stays
		parent := n.Parent()
		for child := n.FirstChild(); child != nil; {
			next := child.NextSibling()
			parent.InsertBefore(parent, n, child)
			child = next
		}
		parent.RemoveChild(parent, n)
	}
	return err
}

// link returns where a link leads, and whether there is anything.
func (r *renderer) link(to string) (string, bool) {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "" || u.Host != "" || u.Path == "" {
		return to, err == nil
	}
	file := filepath.Join(r.dir, filepath.FromSlash(u.Path))
	if absolute, err := filepath.Abs(file); err == nil && r.pages[absolute] {
		u.Path = fileOf(u.Path)
		return u.String(), true
	}
	if r.source == "" {
		return "", false
	}
	u.Path = path.Clean(path.Join(filepath.Base(r.dir), u.Path))
	return strings.TrimSuffix(r.source, "/") + "/" + u.String(), true
}

// picture returns a picture of the notebook as data.
func (r *renderer) picture(from string, c *nb.Cell) ([]byte, error) {
	if name, ok := strings.CutPrefix(from, "attachment:"); ok {
		files := c.Attachment(name)
		if plain, err := url.PathUnescape(name); files == nil && err == nil {
			files = c.Attachment(plain)
		}
		for _, kind := range slices.Sorted(maps.Keys(files)) {
			if text, ok := files[kind].(string); ok && strings.HasPrefix(kind, "image/") {
				return []byte("data:" + kind + ";base64," + strings.Join(strings.Fields(text), "")), nil
			}
		}
		return nil, fmt.Errorf("the picture %s is not attached", name)
	}
	u, err := url.Parse(from)
	if err != nil || u.Scheme == "data" {
		return []byte(from), err
	}
	if u.Scheme != "" || u.Host != "" {
		return nil, fmt.Errorf("the picture %s is elsewhere: a page of the site loads nothing", from)
	}
	content, err := os.ReadFile(filepath.Join(r.dir, filepath.FromSlash(u.Path)))
	if err != nil {
		return nil, fmt.Errorf("a picture: %w", err)
	}
	kind := mime.TypeByExtension(filepath.Ext(u.Path))
	return []byte("data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(content)), nil
}

// question returns the paragraph that a notebook's first cell marks as its question.
func (r *renderer) question(n *nb.Notebook) (template.HTML, error) {
	if len(n.Cells) == 0 {
		return "", nil
	}
	for paragraph := range strings.SplitSeq(n.Cells[0].Source, "\n\n") {
		if text, ok := strings.CutPrefix(strings.TrimSpace(paragraph), "**Question.**"); ok {
			markup, err := r.text(&nb.Cell{Source: strings.TrimSpace(text)}, false)
			return template.HTML(markup), err
		}
	}
	return "", nil
}
