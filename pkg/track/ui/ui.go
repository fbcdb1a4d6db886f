// Package ui shows the runs of a store in a browser: a list that can be filtered and sorted, curves that grow while a run goes
// on, runs side by side, parallel coordinates.
//
//	server := &ui.Server{Store: store, Token: rand.Text()}
//	err := server.Serve(ctx, listener)
//
// Pages are made here, with pictures of package viz; the browser needs no script but for following runs that go on and for the
// values of curves under a pointer or a slider. Nothing is loaded from elsewhere, and nothing can be changed. Pictures that a run
// has noted as artefacts are shown so that they can run nothing. Who asks must know the token, and ask for a host that is named: else a
// page of somebody else's could read runs by way of the reader's own browser.
package ui

import (
	"context"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/elastic-attention/workbench/pkg/track"
	"github.com/elastic-attention/workbench/pkg/viz"
)

//go:embed static
var static embed.FS

//go:embed pages.html
var pages string

// Server shows the runs of a store.
type Server struct {
	// Store has the runs.
	Store *track.Store
	// Token is what who asks must know; the address with ?token=… sets a cookie. An empty one is an error.
	Token string
	// Hosts are further names by which the server may be asked for, beside localhost and addresses of loopback.
	Hosts []string
	// Learned, if set, returns further charts of a run: what its attention learned about itself. None is no error.
	Learned func(track.Run) ([]viz.Chart, error)
	// Every is how often runs are looked at for those who follow; 0 means a second.
	Every time.Duration
}

// Serve answers at a listener until ctx is cancelled.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	handler, err := s.Handler()
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stopped := context.AfterFunc(ctx, func() {
		short, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(short) != nil {
			_ = server.Close()
		}
	})
	defer stopped()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("showing runs: %w", err)
	}
	return nil
}

// Handler returns the pages, guarded.
func (s *Server) Handler() (http.Handler, error) {
	if s.Token == "" {
		return nil, errors.New("showing runs: no token")
	}
	templates, err := template.New("").Funcs(functions).Parse(pages)
	if err != nil {
		return nil, fmt.Errorf("showing runs: %w", err)
	}
	p := &page{Server: s, templates: templates}
	files, err := fs.Sub(static, "static")
	if err != nil {
		return nil, fmt.Errorf("showing runs: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.list)
	mux.HandleFunc("GET /run/{id...}", p.run)
	mux.HandleFunc("GET /compare", p.compare)
	mux.HandleFunc("GET /file", p.file)
	mux.HandleFunc("GET /events", p.events)
	mux.Handle("GET /static/", http.StripPrefix("/static/", http.FileServerFS(files)))
	return s.guard(mux), nil
}

const cookie = "elastic_runs"

// guard lets in who asks for a host of ours and knows the token.
func (s *Server) guard(next http.Handler) http.Handler {
	knows := func(token string) bool { return subtle.ConstantTimeCompare([]byte(token), []byte(s.Token)) == 1 }
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		if !s.ours(r.Host) {
			http.Error(w, "this host is not ours", http.StatusMisdirectedRequest)
			return
		}
		if token := r.URL.Query().Get("token"); token != "" && knows(token) {
			http.SetCookie(w, &http.Cookie{Name: cookie, Value: s.Token, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
			query := r.URL.Query()
			query.Del("token")
			http.Redirect(w, r, (&url.URL{Path: r.URL.Path, RawQuery: query.Encode()}).String(), http.StatusSeeOther)
			return
		}
		if c, err := r.Cookie(cookie); err != nil || !knows(c.Value) {
			http.Error(w, "open the address that \"elastic ui\" has printed: it has a token that lets you in", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ours reports whether a host is loopback or one of ours.
func (s *Server) ours(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	if ip := net.ParseIP(name); ip != nil && ip.IsLoopback() {
		return true
	}
	return strings.EqualFold(name, "localhost") || slices.ContainsFunc(s.Hosts, func(ours string) bool { return strings.EqualFold(ours, name) })
}

// page makes the pages.
type page struct {
	*Server
	templates *template.Template
}

// frame is what every page has.
type frame struct {
	Title   string
	Dir     string
	Running bool // something on it goes on
	Problem string
	Body    any
}

func (p *page) show(w http.ResponseWriter, name string, f frame) {
	f.Dir = p.Store.Dir()
	var b strings.Builder
	if err := p.templates.ExecuteTemplate(&b, name, f); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if f.Problem != "" {
		w.WriteHeader(http.StatusBadRequest)
	}
	_, _ = w.Write([]byte(b.String())) // a reader that is gone
}

func fail(w http.ResponseWriter, err error) {
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

// column is one of a list.
type column struct {
	Field, Title string
	Sort         string // what the list is sorted by when its head is chosen
	Order        string // ascending, descending or none
	Number       bool
}

type list struct {
	Where    string
	Sort     string
	Columns  []column
	Runs     []track.Run
	Parallel template.HTML
}

// list shows the runs that fit.
func (p *page) list(w http.ResponseWriter, r *http.Request) {
	if err := p.Store.Update(r.Context()); err != nil {
		fail(w, err)
		return
	}
	l := list{Where: strings.TrimSpace(r.URL.Query().Get("where")), Sort: r.URL.Query().Get("sort")}
	query := track.Query{Sort: l.Sort}
	for condition := range strings.SplitSeq(l.Where, ";") {
		if condition = strings.TrimSpace(condition); condition != "" {
			query.Where = append(query.Where, condition)
		}
	}
	f := frame{Title: "Runs"}
	var err error
	if l.Runs, err = p.Store.Runs(r.Context(), query); err != nil {
		f.Problem = err.Error()
	}
	for _, run := range l.Runs {
		f.Running = f.Running || run.Status == track.Running
	}
	columns := []column{{Field: "id", Title: "run"}, {Field: "status"}, {Field: "started"}, {Field: "seconds", Title: "time", Number: true}}
	for _, name := range track.Headlines(l.Runs...) {
		columns = append(columns, column{Field: name, Number: true})
	}
	sorted := l.Sort
	if sorted == "" {
		sorted = "-started"
	}
	for _, c := range append(columns, column{Field: "tag", Title: "tags"}) {
		if c.Title == "" {
			c.Title = c.Field
		}
		c.Sort, c.Order = c.Field, "none"
		if c.Number || c.Field == "started" {
			c.Sort = "-" + c.Field
		}
		switch sorted {
		case c.Field:
			c.Order, c.Sort = "ascending", "-"+c.Field
		case "-" + c.Field:
			c.Order, c.Sort = "descending", c.Field
		}
		l.Columns = append(l.Columns, c)
	}
	if l.Parallel, err = parallel(l.Runs); err != nil {
		fail(w, err)
		return
	}
	f.Body = l
	p.show(w, "list", f)
}

// parallel draws what differs in runs, and their headlines; nothing if there is nothing to compare.
func parallel(runs []track.Run) (template.HTML, error) {
	const most = 8
	c := track.Compare(runs...)
	picture := viz.Parallel{Title: "settings that differ, and what came of them"}
	values := func(row track.Row) int { // how many different ones
		return len(slices.Compact(slices.Sorted(slices.Values(slices.DeleteFunc(slices.Clone(row.Values), func(v string) bool { return v == "" })))))
	}
	settings := slices.DeleteFunc(c.Differing, func(row track.Row) bool { return !strings.HasPrefix(row.Name, "config.") || values(row) < 2 })
	slices.SortStableFunc(settings, func(a, b track.Row) int { return values(b) - values(a) })
	settings = settings[:min(len(settings), most/2)]
	outcomes := track.Headlines(runs...)
	slices.Reverse(outcomes) // what matters most comes last, and gives the shade
	if n := len(outcomes); n > 1 && outcomes[n-1] == "train/loss" {
		outcomes[n-1], outcomes[n-2] = outcomes[n-2], outcomes[n-1]
	}
	var axes []string
	for _, row := range settings {
		axes = append(axes, row.Name)
	}
	axes = append(axes, outcomes...)
	if len(runs) < 2 || len(settings) == 0 || len(outcomes) == 0 {
		return "", nil
	}
	for _, name := range axes {
		picture.Axes = append(picture.Axes, strings.TrimPrefix(name, "config."))
	}
	for _, r := range runs {
		row := viz.ParallelRow{Name: r.ID}
		for _, name := range axes {
			row.Values = append(row.Values, r.Field(name))
		}
		picture.Rows = append(picture.Rows, row)
	}
	svg, err := picture.SVG()
	return template.HTML(svg), err // viz escapes what it is given
}

// curves are pictures of metrics, with the controls that chose them.
type curves struct {
	Metrics  []choice
	Smooth   float64
	Log      bool
	Pictures []picture
}

type picture struct {
	Name   string
	SVG    template.HTML
	Points string // JSON, for the script that tells values
}

// mostPoints is how many points of a curve a page can tell the values of.
const mostPoints = 1000

// newPicture draws a chart. Names are those of its series, where the chart has none.
func newPicture(chart viz.Chart, names ...string) (picture, error) {
	svg, area, err := chart.Draw()
	if err != nil {
		return picture{}, err
	}
	type curve struct {
		Name string     `json:"name"`
		X    []float64  `json:"x"`
		Y    []*float64 `json:"y"` // null where there is no number
	}
	all := struct {
		Area   viz.Area `json:"area"`
		Series []curve  `json:"series"`
	}{Area: area}
	for i, s := range chart.Series {
		c := curve{Name: s.Name, X: []float64{}}
		if c.Name == "" && i < len(names) {
			c.Name = names[i]
		}
		every := (len(s.X) + mostPoints - 1) / mostPoints
		for j := range s.X {
			if j%every != 0 && j != len(s.X)-1 {
				continue
			}
			c.X, c.Y = append(c.X, s.X[j]), append(c.Y, nil)
			if y := s.Y[j]; !math.IsNaN(y) && !math.IsInf(y, 0) {
				c.Y[len(c.Y)-1] = &y
			}
		}
		all.Series = append(all.Series, c)
	}
	points, err := json.Marshal(all)
	return picture{chart.Title, template.HTML(svg), string(points)}, err // viz escapes what it is given
}

type choice struct {
	Name   string
	Chosen bool
}

// draw draws the curves of runs as a query wants them.
func draw(runs []track.Run, query url.Values) (curves, error) {
	var c curves
	c.Log = query.Get("log") != ""
	if v, err := strconv.ParseFloat(query.Get("smooth"), 64); err == nil && v >= 0 && v < 1 {
		c.Smooth = v
	}
	chosen := query["metric"]
	if len(chosen) == 0 {
		chosen = track.Curves(runs...)
	}
	names := map[string]bool{}
	drawn := map[string][]viz.Series{}
	for _, r := range runs {
		series, err := r.Series()
		if err != nil {
			return c, err
		}
		for _, name := range chosen { // a run that has none keeps its colour in the other pictures
			if !slices.ContainsFunc(series, func(s track.Series) bool { return s.Name == name }) {
				drawn[name] = append(drawn[name], viz.Series{Name: r.ID})
			}
		}
		for _, s := range series {
			names[s.Name] = true
			if !slices.Contains(chosen, s.Name) {
				continue
			}
			line := viz.Series{Name: r.ID, Smooth: c.Smooth, X: make([]float64, len(s.Points)), Y: make([]float64, len(s.Points))}
			for i, point := range s.Points {
				line.X[i], line.Y[i] = float64(point.Step), point.Value
			}
			drawn[s.Name] = append(drawn[s.Name], line)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		c.Metrics = append(c.Metrics, choice{name, slices.Contains(chosen, name)})
	}
	for _, name := range chosen {
		if !names[name] {
			continue
		}
		lines := drawn[name]
		if len(runs) == 1 {
			lines[0].Name = ""
		}
		drawn, err := newPicture(viz.Chart{Title: name, XLabel: "step", YLabel: name, LogY: c.Log, Series: lines}, runs[0].ID)
		if err != nil {
			return c, err
		}
		c.Pictures = append(c.Pictures, drawn)
	}
	return c, nil
}

type field struct{ Name, Value string }

type one struct {
	Run       track.Run
	About     []field
	Config    []field
	Curves    curves
	Learned   []picture
	Files     []kept
	Confusion template.HTML
}

// run shows one run.
func (p *page) run(w http.ResponseWriter, r *http.Request) {
	found, err := p.find(r.Context(), []string{r.PathValue("id")})
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	run := found[0]
	o := one{Run: run}
	for _, name := range []string{"status", "error", "task", "seed", "started", "ended", "from", "code", "host", "tag", "note"} {
		if value := run.Field(name); value != "" {
			o.About = append(o.About, field{name, value})
		}
	}
	fields := run.Fields()
	for _, path := range slices.Sorted(maps.Keys(fields)) {
		o.Config = append(o.Config, field{path, fields[path]})
	}
	if o.Curves, err = draw(found, r.URL.Query()); err == nil {
		o.Confusion, err = confusion(run.Dir)
	}
	if err == nil && p.Learned != nil {
		var charts []viz.Chart
		charts, err = p.Learned(run)
		for _, chart := range charts {
			drawn, failed := newPicture(chart)
			o.Learned, err = append(o.Learned, drawn), errors.Join(err, failed)
		}
	}
	o.Files = pictures(run)
	if err != nil {
		fail(w, err)
		return
	}
	p.show(w, "run", frame{Title: run.ID, Running: run.Status == track.Running, Body: o})
}

// manyClasses is the number of classes above which a confusion matrix is no picture.
const manyClasses = 40

// confusion draws the confusion matrix on the test data of a report that has one.
func confusion(dir string) (template.HTML, error) {
	var report struct {
		Test *struct {
			Labels    []string `json:"labels"`
			Confusion [][3]int `json:"confusion"` // gold, predicted, count
		} `json:"test"`
	}
	content, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if json.Unmarshal(content, &report) != nil || report.Test == nil || len(report.Test.Confusion) == 0 || len(report.Test.Labels) > manyClasses {
		return "", nil // a report of another kind
	}
	values := make([][]float64, len(report.Test.Labels))
	for i := range values {
		values[i] = make([]float64, len(values))
	}
	for _, cell := range report.Test.Confusion {
		if cell[0] < 0 || cell[1] < 0 || max(cell[0], cell[1]) >= len(values) {
			return "", nil
		}
		values[cell[0]][cell[1]] = float64(cell[2])
	}
	html, err := viz.Heat("test data: class (rows) and prediction (columns)", report.Test.Labels, report.Test.Labels, values)
	return template.HTML(html), err // viz escapes what it is given
}

// find returns the runs with some IDs.
func (p *page) find(ctx context.Context, ids []string) ([]track.Run, error) {
	if err := p.Store.Update(ctx); err != nil {
		return nil, err
	}
	all, err := p.Store.Runs(ctx, track.Query{Sort: "id"})
	if err != nil {
		return nil, err
	}
	var found []track.Run
	for _, id := range ids {
		at := slices.IndexFunc(all, func(r track.Run) bool { return r.ID == id })
		if at < 0 {
			return nil, fmt.Errorf("there is no run %q", id)
		}
		found = append(found, all[at])
	}
	return found, nil
}

type comparison struct {
	track.Comparison
	Curves   curves
	Parallel template.HTML
}

// compare shows runs side by side.
func (p *page) compare(w http.ResponseWriter, r *http.Request) {
	ids := r.URL.Query()["run"]
	if len(ids) < 2 {
		p.show(w, "compare", frame{Title: "Compare", Problem: "Choose two runs or more in the list.", Body: comparison{}})
		return
	}
	runs, err := p.find(r.Context(), ids)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	c := comparison{Comparison: track.Compare(runs...)}
	if c.Curves, err = draw(runs, r.URL.Query()); err == nil {
		c.Parallel, err = parallel(runs)
	}
	if err != nil {
		fail(w, err)
		return
	}
	f := frame{Title: "Compare", Body: c}
	for _, run := range runs {
		f.Running = f.Running || run.Status == track.Running
	}
	p.show(w, "compare", f)
}

// events tells a page, as server-sent events, each time when runs have changed.
func (p *page) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	controller := http.NewResponseController(w)
	every := p.Every
	if every == 0 {
		every = time.Second
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for last := ""; ; {
		if err := p.Store.Update(r.Context()); err != nil {
			return
		}
		version, err := p.Store.Version(r.Context())
		if err != nil {
			return
		}
		line := ": nothing new\n\n" // which also finds out whether anybody reads
		if version != last {
			line = "event: version\ndata: " + version + "\n\n"
		}
		last = version
		if _, err := w.Write([]byte(line)); err != nil {
			return
		}
		if controller.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-ticker.C:
		}
	}
}

// functions are those of the templates.
var functions = template.FuncMap{
	"number": func(v float64) string { return strconv.FormatFloat(v, 'g', 5, 64) },
	"cell": func(r track.Run, field string) string {
		text := r.Field(field)
		switch field {
		case "started":
			if text == "" {
				return ""
			}
			return r.Started.Local().Format("2006-01-02 15:04")
		case "seconds":
			if !r.Ended.IsZero() {
				return r.Took().Round(time.Second).String()
			}
			return ""
		case "id", "status", "tag":
			return text
		}
		return short(text)
	},
	"short":  short,
	"has":    func(list []int, i int) bool { return slices.Contains(list, i) },
	"at":     func(runs []track.Run, i int) string { return runs[i].ID },
	"runURL": func(id string) string { return (&url.URL{Path: "/run/" + id}).String() },
	"listURL": func(where, sort string) string {
		query := url.Values{"sort": {sort}}
		if where != "" {
			query.Set("where", where)
		}
		return "/?" + query.Encode()
	},
}

// short is a number with five digits where it has more.
func short(text string) string {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || len(text) <= 7 || v == float64(int64(v)) {
		return text
	}
	return strconv.FormatFloat(v, 'g', 5, 64)
}
