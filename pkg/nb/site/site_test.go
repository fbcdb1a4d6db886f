package site_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/nb"
	"github.com/elastic-attention/workbench/pkg/nb/site"
)

func house(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("../../../notebooks/*.ipynb")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no notebooks: %v", err)
	}
	return paths
}

// elements calls f with each element of a page.
func elements(t *testing.T, name string, page []byte, f func(xml.StartElement)) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		if e, ok := token.(xml.StartElement); ok {
			f(e)
		}
	}
}

// TestNothingIsLoaded: pages of the house's notebooks load nothing but their stylesheet, which loads nothing.
func TestNothingIsLoaded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "site")
	for range 2 { // a site is replaced
		if err := site.Build(dir, house(t), site.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != len(house(t))+2 {
		t.Errorf("%d files, error %v", len(entries), err)
	}
	inStyle := regexp.MustCompile(`url\(\s*["']?(?:https?:|//)|@import`)
	for _, entry := range entries {
		page, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if found := inStyle.Find(page); found != nil {
			t.Errorf("%s has %s", entry.Name(), found)
		}
		if filepath.Ext(entry.Name()) != ".html" {
			continue
		}
		ids, maths := map[string]bool{}, 0
		elements(t, entry.Name(), page, func(e xml.StartElement) {
			if e.Name.Local == "script" || e.Name.Local == "iframe" || e.Name.Local == "base" {
				t.Errorf("%s has a %s", entry.Name(), e.Name.Local)
			}
			if e.Name.Local == "math" {
				maths++
			}
			for _, a := range e.Attr {
				loads := a.Name.Local != "href" || e.Name.Local != "a" // a link loads nothing
				if loads && (strings.HasPrefix(a.Value, "http:") || strings.HasPrefix(a.Value, "https:") || strings.HasPrefix(a.Value, "//")) && a.Name.Local != "xmlns" && a.Name.Space != "xmlns" {
					t.Errorf("%s: <%s %s=%q>", entry.Name(), e.Name.Local, a.Name.Local, a.Value)
				}
				if e.Name.Local == "link" && a.Name.Local == "href" && a.Value != "site.css" {
					t.Errorf("%s loads %s", entry.Name(), a.Value)
				}
				if a.Name.Local == "id" && (strings.HasPrefix(a.Value, "section-") || strings.HasPrefix(a.Value, "cell-")) {
					if ids[a.Value] {
						t.Errorf("%s: two elements have the id %q", entry.Name(), a.Value)
					}
					ids[a.Value] = true
				}
			}
		})
		if strings.HasPrefix(entry.Name(), "02-") && maths < 20 {
			t.Errorf("%s has only %d formulas", entry.Name(), maths)
		}
	}
}

// write writes a notebook with a title and the given cells, and returns its page.
func write(t *testing.T, o site.Options, cells ...*nb.Cell) (string, error) {
	t.Helper()
	dir := t.TempDir()
	n := nb.New("a.ipynb", "A <title>")
	n.Cells = append(n.Cells, cells...)
	path := filepath.Join(dir, "notebooks", "a.ipynb")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "notebooks", "dot.svg"), []byte("<svg></svg>"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := n.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	if err := site.Build(filepath.Join(dir, "site"), []string{path}, o); err != nil {
		return "", err
	}
	page, err := os.ReadFile(filepath.Join(dir, "site", "a.html"))
	if err != nil {
		t.Fatal(err)
	}
	return string(page), nil
}

func markdown(source string) *nb.Cell { return &nb.Cell{Kind: nb.Markdown, ID: "m", Source: source} }

func shows(mime, text string) *nb.Cell {
	return &nb.Cell{Kind: nb.Code, ID: "o", Source: "%%", Outputs: []*nb.Output{{Kind: nb.Display, Data: map[string]any{mime: text, "text/plain": "plain"}}}}
}

func TestPage(t *testing.T) {
	page, err := write(t, site.Options{Source: "https://example.com/files"},
		markdown("[doc](../docs/x.md#y) [other](https://example.org) [self](a.ipynb#title)\n\n![dot](dot.svg)\n\n| $|x|$ | |\n|---|---|\n| 1 | 2 |\n\n`$code$` *x*"),
		shows("text/html", "<b>bold</b>"), shows("text/markdown", "**strong** $\\pi$"), shows("image/png", "aGk=\n"), shows("application/x-unknown", "?"),
		&nb.Cell{Kind: nb.Code, ID: "e", Source: "f(\"<\")", Outputs: []*nb.Output{{Kind: nb.Stream, Name: "stdout", Text: "\x1b[31ma<b\x1b[0m"}, {Kind: nb.Error, Name: "E", Text: "v"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"<title>A &lt;title&gt; · Notebooks</title>", `href="https://example.com/files/docs/x.md#y"`, `href="https://example.org"`, `href="a.html#title"`,
		`src="data:image/svg+xml;base64,PHN2Zz48L3N2Zz4="`, "<mo stretchy=\"false\">|</mo><mi>x</mi>", "<code>$code$</code>", `<div class="table" tabindex="0"><table>`, "<td></td>",
		"<b>bold</b>", "<strong>strong</strong>", "<mi>π</mi>", "data:image/png;base64,aGk=\"", ">plain</pre>", ">a&lt;b</pre>", ">E: v\n</pre>",
		`<li><a href="#section-2">1. The module</a></li>`, "<code>DRAWS</code>", "<td>error</td><td>not saved</td>", "&#34;&lt;&#34;",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if t.Failed() {
		t.Log(page)
	}
	page, err = write(t, site.Options{}, markdown("[doc *x*](../docs/x.md)"))
	if err != nil || strings.Contains(page, "docs/x.md") || !strings.Contains(page, "doc <em>x</em>") {
		t.Errorf("a link to nowhere: error %v", err)
	}
}

func TestRefused(t *testing.T) {
	for _, test := range []struct {
		cell *nb.Cell
		want string
	}{
		{markdown(`$\foo$`), `a.ipynb: cell 10: formula "\\foo": at byte 0: \foo is not known`},
		{markdown("![x](https://example.com/x.png)"), "is elsewhere"},
		{markdown("![x](none.png)"), "no such file"},
		{markdown("![x](attachment:a.png)"), "is not attached"},
		{markdown(`<img src="https://example.com/x.png">`), "the text has src="},
		{markdown(`<script>1</script>`), "the text has <script"},
		{shows("text/html", "<style>@import 'x'</style>"), "an output has @import"},
		{shows("image/svg+xml", "<svg><style>a{background:url(https://x)}</style></svg>"), "an output has url("},
	} {
		if _, err := write(t, site.Options{}, test.cell); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error %v, want %q", test.cell, err, test.want)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := site.Build(dir, house(t), site.Options{}); err == nil || !strings.Contains(err.Error(), "is no site, and would be replaced") {
		t.Errorf("error %v", err)
	}
	if err := site.Build(filepath.Join(t.TempDir(), "s"), append(house(t)[:1:1], house(t)[0]), site.Options{}); err == nil || !strings.Contains(err.Error(), "the same name") {
		t.Errorf("error %v", err)
	}
}

func ExampleBuild() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if err := site.Build(filepath.Join(dir, "site"), []string{"../../../notebooks/02-attention-pooling.ipynb"}, site.Options{}); err != nil {
		panic(err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "site"))
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		fmt.Println(e.Name())
	}
	// Output:
	// 02-attention-pooling.html
	// index.html
	// site.css
}

// TestAttachments: attached pictures are in the page, also those whose names a link cannot hold as they are, and always in the same
// of their representations.
func TestAttachments(t *testing.T) {
	dir := t.TempDir()
	notebook := filepath.Join(dir, "a.ipynb")
	content := `{"cells": [{"cell_type": "markdown", "metadata": {}, "source": "![one](attachment:one.png) ![two](attachment:my%20two.png)",
		"attachments": {"one.png": {"text/plain": "words", "image/png": "b25l", "image/gif": "b25l"}, "my two.png": {"image/png": "dHdv\n"}}}],
		"metadata": {}, "nbformat": 4, "nbformat_minor": 4}`
	if err := os.WriteFile(notebook, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := site.Build(filepath.Join(dir, "site"), []string{notebook}, site.Options{}); err != nil {
			t.Fatal(err)
		}
		page, err := os.ReadFile(filepath.Join(dir, "site", "a.html"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`<img src="data:image/gif;base64,b25l" alt="one">`, `<img src="data:image/png;base64,dHdv" alt="two">`} {
			if !strings.Contains(string(page), want) {
				t.Fatalf("the page has no %s", want)
			}
		}
	}
}
