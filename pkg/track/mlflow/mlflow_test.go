package mlflow_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/elastic-attention/workbench/pkg/track"
	"github.com/elastic-attention/workbench/pkg/track/mlflow"
)

type pair struct{ Key, Value string }

// stored is a run of the fake server.
type stored struct {
	id, experiment, name, status string
	end                          int64
	deleted                      bool
	params, tags                 map[string]string
	points                       map[string]int // how often each was sent
	order                        []string
	files                        map[string]string
}

// server is a tracking server with the documented limits of the real one, which refuses and fails as it is told to.
type server struct {
	t *testing.T
	*httptest.Server
	mu          sync.Mutex
	experiments []string
	runs        []*stored
	requests    int
	elsewhere   bool // files are not the server's
	// fail is asked at each request: "before" refuses it, "after" does it and then lets the connection drop.
	fail func(n int, endpoint string) string
}

func newServer(t *testing.T) *server {
	s := &server{t: t}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	endpoint, ok := strings.CutPrefix(r.URL.Path, "/api/2.0/mlflow/")
	if file, isFile := strings.CutPrefix(r.URL.Path, "/api/2.0/mlflow-artifacts/artifacts/"); isFile && r.Method == http.MethodPut {
		endpoint, ok = file, true
	}
	if !ok {
		http.NotFound(w, r)
		return
	}
	s.requests++
	mode := ""
	if s.fail != nil {
		mode = s.fail(s.requests, endpoint)
	}
	if mode == "before" {
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return
	}
	code, answer := s.answer(endpoint, r)
	if mode == "after" {
		panic(http.ErrAbortHandler)
	}
	if code != "" {
		status := http.StatusBadRequest
		if code == "RESOURCE_DOES_NOT_EXIST" {
			status = http.StatusNotFound
		}
		w.WriteHeader(status)
		answer = map[string]any{"error_code": code, "message": fmt.Sprint(answer)}
	}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		s.t.Error(err)
	}
}

var allowed = regexp.MustCompile(`^[/\p{L}\p{N}_.\- :]*$`)

// badName says why a name is refused, as mlflow/utils/validation.py does.
func badName(name string) string {
	clean := path.Clean(name)
	switch {
	case name == "" || len([]rune(name)) > 250:
		return "length of name"
	case !allowed.MatchString(name):
		return "letters of name"
	case clean != name || clean == "." || strings.HasPrefix(clean, "..") || strings.HasPrefix(clean, "/"):
		return "path of name"
	}
	return ""
}

func (s *server) answer(endpoint string, r *http.Request) (code string, answer any) {
	var in struct {
		Name          string
		ExperimentID  string   `json:"experiment_id"`
		ExperimentIDs []string `json:"experiment_ids"`
		Filter        string
		RunName       string `json:"run_name"`
		RunID         string `json:"run_id"`
		Status        string
		EndTime       int64 `json:"end_time"`
		Metrics       []struct {
			Key       string
			Value     json.RawMessage
			Timestamp int64
			Step      int
		}
		Params, Tags []pair
	}
	if r.Method == http.MethodPut { // a file
		parts := strings.SplitN(endpoint, "/", 4) // experiment, run, artifacts, path
		at := slices.IndexFunc(s.runs, func(run *stored) bool { return run.id == parts[1] && !run.deleted })
		content, err := io.ReadAll(r.Body)
		if len(parts) != 4 || at < 0 || parts[2] != "artifacts" || err != nil || int64(len(content)) != r.ContentLength {
			return "BAD_REQUEST", fmt.Sprintf("file %q of %d bytes, %v", endpoint, len(content), err)
		}
		s.runs[at].files[parts[3]] += string(content) // twice, if it is sent twice
		return "", map[string]any{}
	}
	if r.Method == http.MethodPost {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &in)
		}
		if err != nil || len(body) > 1e6 || bytes.Contains(body, []byte(":null")) { // at which the real one fails
			return "BAD_REQUEST", fmt.Sprintf("%d bytes, %v", len(body), err)
		}
	}
	const invalid = "INVALID_PARAMETER_VALUE"
	find := func() *stored {
		at := slices.IndexFunc(s.runs, func(run *stored) bool { return run.id == in.RunID && !run.deleted })
		if at < 0 {
			return nil
		}
		return s.runs[at]
	}
	describe := func(run *stored) any {
		list := func(m map[string]string) (pairs []map[string]string) {
			for key, value := range m {
				pairs = append(pairs, map[string]string{"key": key, "value": value})
			}
			return pairs
		}
		root := "mlflow-artifacts:/" + run.experiment + "/" + run.id + "/artifacts"
		if s.elsewhere {
			root = "s3://bucket/" + run.id
		}
		return map[string]any{"info": map[string]any{"run_id": run.id, "artifact_uri": root}, "data": map[string]any{"params": list(run.params), "tags": list(run.tags)}}
	}
	switch endpoint {
	case "experiments/get-by-name":
		at := slices.Index(s.experiments, r.URL.Query().Get("experiment_name"))
		if at < 0 {
			return "RESOURCE_DOES_NOT_EXIST", "no experiment"
		}
		return "", map[string]any{"experiment": map[string]any{"experiment_id": fmt.Sprint(at + 1)}}
	case "experiments/create":
		if slices.Contains(s.experiments, in.Name) {
			return "RESOURCE_ALREADY_EXISTS", in.Name
		}
		s.experiments = append(s.experiments, in.Name)
		return "", map[string]any{"experiment_id": fmt.Sprint(len(s.experiments))}
	case "runs/search":
		var runs []any
		for _, run := range s.runs {
			if !run.deleted && run.experiment == in.ExperimentIDs[0] && in.Filter == fmt.Sprintf("tags.`elastic.run` = '%s'", run.tags["elastic.run"]) {
				runs = append(runs, describe(run))
			}
		}
		return "", map[string]any{"runs": runs}
	case "runs/get":
		at := slices.IndexFunc(s.runs, func(run *stored) bool { return run.id == r.URL.Query().Get("run_id") })
		if at >= 0 {
			return "", map[string]any{"run": describe(s.runs[at])}
		}
	case "runs/create":
		run := &stored{id: fmt.Sprint("r", len(s.runs)), experiment: in.ExperimentID, name: in.RunName, status: "RUNNING", params: map[string]string{}, tags: map[string]string{}, points: map[string]int{}, files: map[string]string{}}
		for _, tag := range in.Tags {
			run.tags[tag.Key] = tag.Value
		}
		s.runs = append(s.runs, run)
		return "", map[string]any{"run": describe(run)}
	case "runs/delete":
		if run := find(); run != nil {
			run.deleted = true
			return "", map[string]any{}
		}
	case "runs/update":
		if run := find(); run != nil {
			run.status, run.end = in.Status, in.EndTime
			return "", map[string]any{}
		}
	case "runs/log-batch":
		run := find()
		if run == nil {
			break
		}
		if len(in.Metrics) > 1000 || len(in.Params) > 100 || len(in.Tags) > 100 || len(in.Metrics)+len(in.Params)+len(in.Tags) > 1000 {
			return invalid, fmt.Sprintf("a batch of %d metrics, %d params, %d tags", len(in.Metrics), len(in.Params), len(in.Tags))
		}
		keys := map[string]bool{}
		for _, p := range in.Params {
			if keys[p.Key] {
				return invalid, "Duplicate parameter keys have been submitted: " + p.Key
			}
			keys[p.Key] = true
			if problem := badName(p.Key); problem != "" || len([]rune(p.Value)) > 6000 {
				return invalid, problem + " of param " + p.Key
			}
			if was, ok := run.params[p.Key]; ok && was != p.Value {
				return invalid, "changing param " + p.Key
			}
			run.params[p.Key] = p.Value
		}
		for _, m := range in.Metrics {
			if problem := badName(m.Key); problem != "" || m.Timestamp == 0 {
				return invalid, problem + " of metric " + m.Key
			}
			// The primary key of the real server.
			point := fmt.Sprintf("%s %d %d %s", m.Key, m.Step, m.Timestamp, m.Value)
			if run.points[point]++; run.points[point] == 1 {
				run.order = append(run.order, point)
			}
		}
		for _, tag := range in.Tags {
			if problem := badName(tag.Key); problem != "" || len([]rune(tag.Value)) > 8000 {
				return invalid, problem + " of tag " + tag.Key
			}
			run.tags[tag.Key] = tag.Value
		}
		return "", map[string]any{}
	}
	return "RESOURCE_DOES_NOT_EXIST", endpoint
}

func (s *server) active(t *testing.T) *stored {
	t.Helper()
	var found []*stored
	for _, run := range s.runs {
		if !run.deleted {
			found = append(found, run)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d runs, want 1", len(found))
	}
	return found[0]
}

// awkward are names and values that the server refuses as they are.
var awkward = map[string]string{
	"/embeddings/*": "x", "a//b": "x", "..": "x", "../up": "y", "a?b": "x", "a*b": "x", "größe": "x", "long": strings.Repeat("ä", 7000), strings.Repeat("k", 300): "x", "empty": "",
}

// sample is a run of n steps with two metrics, that goes on.
func sample(t *testing.T, n int) (*track.Journal, string) {
	t.Helper()
	config := map[string]any{"lr": 0.1, "odd": awkward}
	for i := range 250 {
		config[fmt.Sprintf("p%03d", i)] = i
	}
	dir := filepath.Join(t.TempDir(), "run")
	versions := map[string]string{"vcs.revision": "abc"}
	for i := range 150 {
		versions[fmt.Sprintf("github.com/x/y%d", i)] = "v1"
	}
	journal, err := track.Start(dir, track.Record{Task: "toy", Config: config, Versions: versions})
	if err != nil {
		t.Fatal(err)
	}
	logSteps(journal, 1, n)
	return journal, dir
}

func logSteps(journal *track.Journal, from, to int) {
	for step := from; step <= to; step++ {
		journal.Log(step, map[string]float64{"train/loss": 1 / float64(step), "layers/*?": math.NaN()})
	}
}

func export(t *testing.T, s *server, dir string) (mlflow.Result, error) {
	t.Helper()
	run, err := track.ReadRun(dir)
	if err != nil {
		t.Fatal(err)
	}
	return mlflow.Client{URL: s.URL, Pause: time.Microsecond}.Export(t.Context(), "tests", run)
}

// check wants the steps 1 to n of both metrics, each once.
func check(t *testing.T, run *stored, n int) {
	t.Helper()
	if len(run.order) != 2*n {
		t.Fatalf("%d points, want %d", len(run.order), 2*n)
	}
	for i := range n { // metrics of a step by name
		for _, want := range []string{fmt.Sprintf(`^layers/__-[0-9a-f]{8} %d \d+ "NaN"$`, i+1), fmt.Sprintf(`^train/loss %d \d+ [0-9.e-]+$`, i+1)} {
			if !slices.ContainsFunc(run.order[2*i:2*i+2], func(point string) bool { return regexp.MustCompile(want).MatchString(point) }) {
				t.Fatalf("step %d is %q, want %s", i+1, run.order[2*i:2*i+2], want)
			}
		}
	}
}

// TestExport follows a run that goes on and ends.
func TestExport(t *testing.T) {
	s := newServer(t)
	journal, dir := sample(t, 700)
	r, err := export(t, s, dir)
	if err != nil || r.Points != 1400 || r.Sent != 1400 || r.Anew {
		t.Fatalf("%+v, %v", r, err)
	}
	run := s.active(t)
	check(t, run, 700)
	if run.status != "RUNNING" || run.end != 0 || run.name != "run" || run.tags["mlflow.source.git.commit"] != "abc" || run.params["p249"] != "249" || run.params["lr"] != "0.1" {
		t.Errorf("run %+v", run)
	}
	// lr, 250 p…, seed, and the awkward ones but that which is empty
	if want := 1 + 250 + 1 + len(awkward) - 1; len(run.params) != want {
		t.Errorf("%d params, want %d", len(run.params), want)
	}
	logSteps(journal, 701, 800)
	if err := errors.Join(journal.Close(errors.New("boom")), track.WriteNotes(dir, track.Notes{Tags: []string{"good"}, Text: "a note"})); err != nil {
		t.Fatal(err)
	}
	if r, err = export(t, s, dir); err != nil || r.Points != 1600 || r.Sent != 200 {
		t.Fatalf("%+v, %v", r, err)
	}
	if run = s.active(t); run.status != "FAILED" || run.end == 0 || run.tags["elastic.error"] != "boom" || run.tags["mlflow.note.content"] != "a note" || run.tags["elastic.tags"] != "good" {
		t.Errorf("run %+v", run)
	}
	check(t, run, 800)
	before := s.requests
	if r, err = export(t, s, dir); err != nil || r.Sent != 0 || s.requests-before != 3 { // find both, set the status
		t.Errorf("a third time: %+v, %d requests, %v", r, s.requests-before, err)
	}
	for point, times := range run.points {
		if times != 1 {
			t.Errorf("%s was sent %d times", point, times)
		}
	}
}

// TestKilledExport breaks an export off at each of its requests, before and after the server has done what it asks for,
// and makes it again: always the same run comes out.
func TestKilledExport(t *testing.T) {
	journal, dir := sample(t, 1100)
	if err := journal.Close(nil); err != nil {
		t.Fatal(err)
	}
	whole := newServer(t)
	if _, err := export(t, whole, dir); err != nil {
		t.Fatal(err)
	}
	want, total := whole.active(t), whole.requests
	if total < 8 {
		t.Fatalf("%d requests only", total)
	}
	run, err := track.ReadRun(dir)
	if err != nil {
		t.Fatal(err)
	}
	for at := 1; at <= total; at++ {
		s := newServer(t)
		ctx, kill := context.WithCancel(t.Context())
		s.fail = func(n int, endpoint string) string {
			if n == at {
				kill()
				return "after"
			}
			return ""
		}
		if _, err := (mlflow.Client{URL: s.URL}).Export(ctx, "tests", run); err == nil {
			t.Errorf("killed at request %d: no error", at)
		}
		s.fail = nil
		if r, err := export(t, s, dir); err != nil || r.Points != 2200 || r.Anew {
			t.Fatalf("killed at request %d, and again: %+v, %v", at, r, err)
		}
		got := s.active(t)
		if !slices.Equal(got.order, want.order) || got.status != want.status || len(got.params) != len(want.params) || len(got.tags) != len(want.tags) {
			t.Errorf("killed at request %d: %d points, %s, %d params, %d tags", at, len(got.order), got.status, len(got.params), len(got.tags))
		}
	}
}

// TestRewound exports a run that then was resumed from before its last points.
func TestRewound(t *testing.T) {
	s := newServer(t)
	journal, dir := sample(t, 30)
	if _, err := export(t, s, dir); err != nil {
		t.Fatal(err)
	}
	if err := journal.Close(nil); err != nil {
		t.Fatal(err)
	}
	journal, err := track.Begin(dir, 20)
	if err != nil {
		t.Fatal(err)
	}
	logSteps(journal, 21, 40)
	if r, err := export(t, s, dir); err != nil || !r.Anew || r.Sent != 80 {
		t.Fatalf("%+v, %v", r, err)
	}
	check(t, s.active(t), 40)
	if r, err := export(t, s, dir); err != nil || r.Anew || r.Sent != 0 {
		t.Errorf("again: %+v, %v", r, err)
	}
	if err := journal.Close(nil); err != nil {
		t.Fatal(err)
	}
}

// TestOwnSeed: a config may have a field that is called as our parameter is; the server takes no name twice.
func TestOwnSeed(t *testing.T) {
	s := newServer(t)
	dir := filepath.Join(t.TempDir(), "run")
	journal, err := track.Start(dir, track.Record{Seed: 3, Config: map[string]any{"seed": 7, "lr": 0.1}})
	if err == nil {
		journal.Log(1, map[string]float64{"": 1}) // nor none
		err = journal.Close(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := export(t, s, dir); err != nil || s.active(t).params["seed"] != "7" {
		t.Errorf("params %v, %v", s.active(t).params, err)
	}
}

// TestQuotes: the server takes what stands between quotes as it is, so a run whose name has some must be found in another way.
func TestQuotes(t *testing.T) {
	s := newServer(t)
	journal, dir := sample(t, 10)
	if err := journal.Close(nil); err != nil {
		t.Fatal(err)
	}
	run, err := track.ReadRun(dir)
	if err != nil {
		t.Fatal(err)
	}
	run.ID = `it's "b" \c`
	for _, sent := range []int{20, 0} {
		if r, err := (mlflow.Client{URL: s.URL}).Export(t.Context(), "tests", run); err != nil || r.Sent != sent {
			t.Errorf("%+v, %v; want %d points sent", r, err, sent)
		}
	}
	if got := s.active(t).name; got != run.ID {
		t.Errorf("the run is called %q", got)
	}
}

// TestNoLonger: what was said of a run and is no longer so is not left on the server.
func TestNoLonger(t *testing.T) {
	s := newServer(t)
	journal, dir := sample(t, 10)
	if err := errors.Join(journal.Close(errors.New("boom")), track.WriteNotes(dir, track.Notes{Tags: []string{"bad"}, Text: "a note"})); err != nil {
		t.Fatal(err)
	}
	if _, err := export(t, s, dir); err != nil {
		t.Fatal(err)
	}
	journal, err := track.Begin(dir, 10)
	if err == nil {
		logSteps(journal, 11, 12)
		err = errors.Join(journal.Close(nil), track.WriteNotes(dir, track.Notes{}))
	}
	if err != nil {
		t.Fatal(err)
	}
	if r, err := export(t, s, dir); err != nil || r.Anew {
		t.Fatalf("%+v, %v", r, err)
	}
	run := s.active(t)
	for _, name := range []string{"elastic.error", "elastic.tags", "mlflow.note.content"} {
		if run.tags[name] != "" {
			t.Errorf("tag %s is still %q", name, run.tags[name])
		}
	}
	before := s.requests
	if _, err := export(t, s, dir); err != nil || s.requests-before != 3 {
		t.Errorf("once more: %d requests, %v", s.requests-before, err)
	}
}

// TestUpload breaks an upload off at each of its requests, before and after the server has done what it asks for: the next one
// sends what is missing, and no more.
func TestUpload(t *testing.T) {
	journal, dir := sample(t, 1)
	want := map[string]string{"model/weights & more?.bin": "\x00\x01", "report.json": "{}", "größe.svg": "<svg/>"}
	for name, content := range want {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644), journal.Artefact(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := journal.Close(nil); err != nil {
		t.Fatal(err)
	}
	run, err := track.ReadRun(dir)
	if err != nil {
		t.Fatal(err)
	}
	const requests = 1 + 2*3 // the run, and each file with its tag
	for at := 0; at <= requests; at++ {
		for _, mode := range []string{"before", "after"} {
			s := newServer(t)
			result, err := export(t, s, dir)
			if err != nil {
				t.Fatal(err)
			}
			ctx, kill := context.WithCancel(t.Context())
			begun := s.requests
			s.fail = func(n int, endpoint string) string {
				if n == begun+at {
					kill()
					return mode
				}
				return ""
			}
			first, err := mlflow.Client{URL: s.URL, Pause: time.Hour}.Upload(ctx, run, result)
			if (err == nil) != (at == 0) {
				t.Errorf("%s request %d: %v", mode, at, err)
			}
			s.fail = nil
			second, err := mlflow.Client{URL: s.URL}.Upload(t.Context(), run, result)
			if err != nil || second.Kept+second.Files != 3 || second.Kept < first.Files {
				t.Errorf("%s request %d, and again: %+v after %+v, %v", mode, at, second, first, err)
			}
			for name, content := range want {
				if got := s.active(t).files[name]; got != content && got != content+content || at == 0 && got != content {
					t.Errorf("%s request %d: %s is %q, want %q", mode, at, name, got, content)
				}
			}
			kill()
		}
	}

	s := newServer(t)
	result, err := export(t, s, dir)
	if err == nil {
		err = errors.Join(os.Remove(filepath.Join(dir, "report.json")), os.WriteFile(filepath.Join(dir, "größe.svg"), nil, 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	u, err := mlflow.Client{URL: s.URL}.Upload(t.Context(), run, result)
	if slices.Sort(u.Left); err != nil || u.Files != 1 || !slices.Equal(u.Left, []string{"größe.svg has changed since the run noted it", "report.json is gone"}) {
		t.Errorf("%+v, %v", u, err)
	}
	s.elsewhere = true
	if _, err := (mlflow.Client{URL: s.URL}).Upload(t.Context(), run, result); err == nil || !strings.Contains(err.Error(), `leaves files to "s3://bucket/`) {
		t.Errorf("a server that takes no files: %v", err)
	}
	run.Artefacts = []track.Artefact{{Path: "../secret"}}
	s.elsewhere = false
	if _, err := (mlflow.Client{URL: s.URL}).Upload(t.Context(), run, result); err == nil || !strings.Contains(err.Error(), "outside of its folder") {
		t.Errorf("a file elsewhere: %v", err)
	}
}

// TestFailures says what is tried again and what is told.
func TestFailures(t *testing.T) {
	journal, dir := sample(t, 10)
	if err := journal.Close(nil); err != nil {
		t.Fatal(err)
	}
	s := newServer(t)
	s.fail = func(n int, endpoint string) string {
		if n%3 != 0 && endpoint != "runs/create" { // two of three
			return "before"
		}
		return ""
	}
	if _, err := export(t, s, dir); err != nil {
		t.Errorf("a server that is busy at times: %v", err)
	}
	s.fail = func(int, string) string { return "before" }
	var answer *mlflow.Error
	if _, err := export(t, s, dir); !errors.As(err, &answer) || answer.Status != 503 || !strings.Contains(err.Error(), "busy") {
		t.Errorf("a server that is always busy: %v", err)
	}
	run, err := track.ReadRun(dir)
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"127.0.0.1:5000": "want one as http://", "": "want one as http://", "http://user:secret@127.0.0.1:1/": "exporting run to http://user:xxxxx@127.0.0.1:1/",
		s.URL + "/else": "404",
	} {
		_, err := mlflow.Client{URL: address, Pause: time.Microsecond}.Export(t.Context(), "tests", run)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func ExampleClient_Export() {
	run, err := track.ReadRun("runs/first")
	if err != nil {
		fmt.Println("nothing to export")
		return
	}
	result, err := mlflow.Client{URL: "http://127.0.0.1:5000"}.Export(context.Background(), "elastic", run)
	if err != nil {
		panic(err)
	}
	fmt.Println(result.Sent, "points sent")
	// Output: nothing to export
}
