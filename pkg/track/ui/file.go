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
	Title     string
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
		k := kept{Path: a.Path, Title: a.Path, Page: ext == ".html", URL: (&url.URL{Path: "/file", RawQuery: url.Values{"run": {run.ID}, "path": {a.Path}}.Encode()}).String()}
		if ext == ".svg" {
			k.describe(run.Dir)
		}
		list = append(list, k)
	}
	return list
}

// describe takes title and description from an SVG, as far as it has them.
func (k *kept) describe(dir string) {
	file, err := open(dir, k.Path)
	if err != nil {
		return
	}
	defer file.Close()
	const most, longest = 64 << 10, 1000 // they stand at the beginning
	decoder := xml.NewDecoder(io.LimitReader(file, most))
	for {
		token, err := decoder.Token()
		if err != nil {
			return
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		var into *string
		switch start.Name.Local {
		case "title":
			into = &k.Title
		case "desc":
			into = &k.Text
		case "g": // what follows is about parts of it
			return
		default:
			continue
		}
		var text string
		if decoder.DecodeElement(&text, &start) == nil && strings.TrimSpace(text) != "" {
			*into = strings.ToValidUTF8(text[:min(len(text), longest)], "")
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
