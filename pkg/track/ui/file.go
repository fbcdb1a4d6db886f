package ui

import (
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/pkg/track"
)

// kinds are the files of runs that a page shows, by how their names end.
var kinds = map[string]string{".svg": "image/svg+xml", ".png": "image/png", ".html": "text/html; charset=utf-8"}

// kept is a picture that a run has noted.
type kept struct {
	Path, URL string
	Text      string // what it shows, in words
	Page      bool   // shown in a frame
}

// pictures lists those of a run.
func pictures(run track.Run) (list []kept) {
	for _, a := range run.Artefacts {
		ext := strings.ToLower(path.Ext(a.Path))
		if kinds[ext] == "" {
			continue
		}
		k := kept{Path: a.Path, Text: a.Path, Page: ext == ".html", URL: (&url.URL{Path: "/file", RawQuery: url.Values{"run": {run.ID}, "path": {a.Path}}.Encode()}).String()}
		if ext == ".svg" {
			k.Text = description(run.Dir, a.Path)
		}
		list = append(list, k)
	}
	return list
}

// description is the title and the description of an SVG, or its name if it has none.
func description(dir, name string) string {
	file, err := open(dir, name)
	if err != nil {
		return name
	}
	defer file.Close()
	const most = 64 << 10 // they stand at the beginning
	decoder := xml.NewDecoder(io.LimitReader(file, most))
	var words []string
	for {
		token, err := decoder.Token()
		start, ok := token.(xml.StartElement)
		switch {
		case err != nil || ok && start.Name.Local == "g" || len(words) == 2:
			if len(words) == 0 {
				return name
			}
			return strings.Join(words, ": ")
		case ok && (start.Name.Local == "title" || start.Name.Local == "desc"):
			var text string
			if decoder.DecodeElement(&text, &start) == nil && strings.TrimSpace(text) != "" {
				words = append(words, strings.TrimSpace(text))
			}
		}
	}
}

// open opens a file of a run folder, and none outside of it.
func open(dir, name string) (*os.File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.Open(filepath.FromSlash(name))
}

// file sends a picture that a run has noted. What is in it can run no script and load nothing, also if it is opened on its own.
func (p *page) file(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("path")
	found, err := p.find(r.Context(), []string{r.URL.Query().Get("run")})
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	kind := kinds[strings.ToLower(path.Ext(name))]
	if kind == "" || !slices.ContainsFunc(found[0].Artefacts, func(a track.Artefact) bool { return a.Path == name }) {
		http.Error(w, "the run has noted no such picture", http.StatusNotFound)
		return
	}
	file, err := open(found[0].Dir, name)
	if err != nil {
		http.Error(w, "the picture is gone", http.StatusNotFound)
		return
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		http.Error(w, "the picture is gone", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; base-uri 'none'; form-action 'none'; frame-ancestors 'self'")
	http.ServeContent(w, r, name, info.ModTime(), file)
}
