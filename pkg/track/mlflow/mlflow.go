// Package mlflow sends runs to an MLflow tracking server over its REST interface.
//
//	result, err := mlflow.Client{URL: "http://127.0.0.1:5000"}.Export(ctx, "elastic", run)
//
// Configs become parameters, curves metrics, and notes, versions and checksums tags. An export can be killed at any
// moment and made again, also while the run goes on: it continues where the server is, and doubles nothing. [Client.Upload]
// sends the files that the run has noted. How:
//
//   - The run is found again by a tag that it was created with.
//   - Points are sent in the order in which they were logged. Each batch sets a tag, after its points, that says how many
//     are there. A batch of which this is not known is sent again: to the server, points with the same key, time, step and
//     value are one.
//   - Points that were sent and then lost their place, because the run was resumed from before them, cannot be taken
//     back: that MLflow run is deleted (it can be restored there), and made anew.
//   - A file is sent whole, and then a tag set with its checksum. One whose tag is not so is sent again, over what is there.
//
// Limits of the server are kept: 1000 metrics, 100 parameters and 100 tags a batch, 1000 of all, lengths of names and
// values. Names that it does not allow are changed, and end in a checksum then. It knows infinities as the greatest
// finite numbers.
//
// Source: MLflow 3.17.2, REST API reference, mlflow/utils/validation.py for the limits, and
// mlflow/store/artifact/http_artifact_repo.py for files.
package mlflow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/elastic-attention/workbench/pkg/track"
)

// The limits of the server.
const (
	maxBatch  = 1000 // metrics, and all of a batch together
	maxParams = 100
	maxTags   = 100
	maxName   = 250
	maxParam  = 6000
	maxTag    = 8000
)

// The tags of ours.
const (
	tagRun      = "elastic.run"      // which run it is
	tagExported = "elastic.exported" // how far the export is: times rewound, points sent
	tagFile     = "elastic.file."    // and the name of a file: the checksum with which it was sent
)

// Client talks to a tracking server.
type Client struct {
	// URL is the server's, as in MLFLOW_TRACKING_URI. A user and a password in it are sent as such.
	URL string
	// Token, if set, is sent as a bearer token.
	Token string
	// HTTP is nil for the default.
	HTTP *http.Client
	// Pause is the time before the first repetition of a request that failed for a reason that may pass; it doubles each
	// time. 0 means half a second.
	Pause time.Duration
}

// Error is what a server answers when it refuses something.
type Error struct {
	Status  int    `json:"-"`
	Code    string `json:"error_code"` // RESOURCE_DOES_NOT_EXIST
	Message string `json:"message"`
}

func (e *Error) Error() string {
	return fmt.Sprintf("MLflow answers %d %s: %s", e.Status, e.Code, e.Message)
}

// Result is what an export did.
type Result struct {
	ExperimentID, RunID string
	// Points is how many the server has now, Sent how many of them this export sent.
	Points, Sent int
	// Anew says that an MLflow run of before was deleted, because the run has been rewound.
	Anew bool
}

// Export sends a run to the experiment with a name, which is made if there is none.
func (c Client) Export(ctx context.Context, experiment string, run track.Run) (Result, error) {
	result, err := c.export(ctx, experiment, run)
	if err != nil {
		return result, fmt.Errorf("exporting %s to %s: %w", run.ID, redacted(c.URL), err)
	}
	return result, nil
}

func (c Client) export(ctx context.Context, experiment string, run track.Run) (r Result, err error) {
	history, err := track.ReadHistory(run.Dir)
	if err != nil {
		return r, err
	}
	if r.ExperimentID, err = c.experiment(ctx, experiment); err != nil {
		return r, err
	}
	remote, found, err := c.find(ctx, r.ExperimentID, run)
	if err != nil {
		return r, err
	}
	rewound, exported := 0, 0
	if found {
		if _, err := fmt.Sscanf(remote.tag(tagExported), "%d %d", &rewound, &exported); err != nil {
			return r, fmt.Errorf("tag %s of run %s is %q, want two numbers: %w", tagExported, remote.Info.RunID, remote.tag(tagExported), err)
		}
	}
	values := track.Ordered(history.Series())
	if found && (rewound != history.Rewound || exported > len(values)) {
		if err := c.call(ctx, "POST", "runs/delete", map[string]any{"run_id": remote.Info.RunID}, nil); err != nil {
			return r, err
		}
		found, exported, r.Anew = false, 0, true
	}
	if !found {
		if remote, err = c.create(ctx, r.ExperimentID, run, history.Rewound); err != nil {
			return r, err
		}
	}
	r.RunID, r.Points = remote.Info.RunID, exported
	if err := c.describe(ctx, remote, run); err != nil {
		return r, err
	}
	for r.Points < len(values) {
		n := min(maxBatch-1, len(values)-r.Points) // and one tag
		next := r.Points + n
		metrics := make([]metric, n)
		for i, v := range values[r.Points:next] {
			metrics[i] = metric{Key: name(v.Name), Value: number(v.Value), Timestamp: v.Time.UnixMilli(), Step: v.Step}
		}
		if err := c.batch(ctx, r.RunID, metrics, nil, []pair{{tagExported, fmt.Sprint(history.Rewound, next)}}); err != nil {
			return r, err
		}
		r.Points, r.Sent = next, r.Sent+n
	}
	update := map[string]any{"run_id": r.RunID, "status": status(run.Status)}
	if run.Status != track.Running {
		update["end_time"] = last(run, values).UnixMilli()
	}
	return r, c.call(ctx, "POST", "runs/update", update, nil)
}

// last is when a run ended or, if its process died, was seen last.
func last(run track.Run, values []track.Value) time.Time {
	if run.Ended.IsZero() && len(values) > 0 {
		return values[len(values)-1].Time
	}
	if run.Ended.IsZero() {
		return run.Started
	}
	return run.Ended
}

func status(s track.Status) string {
	switch s {
	case track.Running:
		return "RUNNING"
	case track.Finished:
		return "FINISHED"
	case track.Interrupted, track.Killed:
		return "KILLED"
	}
	return "FAILED"
}

// The messages of the server, as far as we use them.
type (
	pair struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	metric struct {
		Key       string `json:"key"`
		Value     number `json:"value"`
		Timestamp int64  `json:"timestamp"`
		Step      int    `json:"step"`
	}
	remoteRun struct {
		Info struct {
			RunID     string `json:"run_id"`
			Artifacts string `json:"artifact_uri"`
		} `json:"info"`
		Data struct {
			Params []pair `json:"params"`
			Tags   []pair `json:"tags"`
		} `json:"data"`
	}
)

func (r remoteRun) tag(key string) string { return value(r.Data.Tags, key) }

// value returns that of a key, "" if there is none.
func value(list []pair, key string) string {
	at := slices.IndexFunc(list, func(p pair) bool { return p.Key == key })
	if at < 0 {
		return ""
	}
	return list[at].Value
}

// number is a float64 as the JSON of protocol buffers has it.
type number float64

func (n number) MarshalJSON() ([]byte, error) {
	switch v := float64(n); {
	case math.IsNaN(v):
		return []byte(`"NaN"`), nil
	case math.IsInf(v, 1):
		return []byte(`"Infinity"`), nil
	case math.IsInf(v, -1):
		return []byte(`"-Infinity"`), nil
	default:
		return strconv.AppendFloat(nil, v, 'g', -1, 64), nil
	}
}

// experiment returns the ID of the experiment with a name.
func (c Client) experiment(ctx context.Context, name string) (string, error) {
	get := func() (string, error) {
		var got struct {
			Experiment struct {
				ID string `json:"experiment_id"`
			} `json:"experiment"`
		}
		err := c.call(ctx, "GET", "experiments/get-by-name?experiment_name="+url.QueryEscape(name), nil, &got)
		return got.Experiment.ID, err
	}
	id, err := get()
	if !isCode(err, "RESOURCE_DOES_NOT_EXIST") {
		return id, err
	}
	var made struct {
		ID string `json:"experiment_id"`
	}
	err = c.call(ctx, "POST", "experiments/create", map[string]any{"name": name}, &made)
	if isCode(err, "RESOURCE_ALREADY_EXISTS") { // by another export, meanwhile
		return get()
	}
	return made.ID, err
}

// unquoted replaces what cannot be searched for: the server takes what stands between quotes as it is.
var unquoted = strings.NewReplacer(`'`, "%27", `"`, "%22", `\`, "%5C")

// key tells a run from others of its name, on other machines or before it.
func key(run track.Run) string {
	return fmt.Sprintf("%s@%d", unquoted.Replace(cut(run.ID, 400)), run.Started.UnixMilli())
}

func (c Client) find(ctx context.Context, experiment string, run track.Run) (remoteRun, bool, error) {
	var got struct {
		Runs []remoteRun `json:"runs"`
	}
	err := c.call(ctx, "POST", "runs/search", map[string]any{
		"experiment_ids": []string{experiment}, "filter": fmt.Sprintf("tags.`%s` = '%s'", tagRun, key(run)), "run_view_type": "ACTIVE_ONLY", "max_results": 1,
	}, &got)
	if err != nil || len(got.Runs) == 0 {
		return remoteRun{}, false, err
	}
	return got.Runs[0], true, nil
}

func (c Client) create(ctx context.Context, experiment string, run track.Run, rewound int) (remoteRun, error) {
	var made struct {
		Run remoteRun `json:"run"`
	}
	err := c.call(ctx, "POST", "runs/create", map[string]any{
		"experiment_id": experiment, "run_name": cut(run.ID, maxName), "start_time": run.Started.UnixMilli(),
		"tags": []pair{{tagRun, key(run)}, {tagExported, fmt.Sprint(rewound, 0)}},
	}, &made)
	return made.Run, err
}

// describe sends the config as parameters and what else is known as tags, where the server has them not so already.
func (c Client) describe(ctx context.Context, remote remoteRun, run track.Run) error {
	var params, tags []pair
	for path, value := range run.Fields() {
		params = append(params, pair{name(path), cut(value, maxParam)})
	}
	if value(params, "seed") == "" { // the server takes a name once
		params = append(params, pair{"seed", run.Field("seed")})
	}
	add := func(key, value string) { tags = append(tags, pair{cut(key, maxName), cut(value, maxTag)}) }
	add("mlflow.note.content", run.Notes.Text)
	add("mlflow.source.git.commit", run.Versions["vcs.revision"])
	add("elastic.task", run.Task)
	add("elastic.status", string(run.Status))
	add("elastic.error", run.Error)
	add("elastic.tags", strings.Join(run.Notes.Tags, ","))
	add("elastic.host", run.Field("host"))
	for prefix, list := range map[string]map[string]string{"version": run.Versions, "data": run.Data, "model": run.Model} {
		for key, value := range list {
			add("elastic."+prefix+"."+name(key), value)
		}
	}
	for _, a := range run.Artefacts {
		add("elastic.sha256."+name(a.Path), a.SHA256)
	}
	missing := func(list, has []pair) []pair {
		list = slices.DeleteFunc(list, func(p pair) bool { return value(has, p.Key) == p.Value })
		slices.SortFunc(list, func(a, b pair) int { return strings.Compare(a.Key, b.Key) })
		return list
	}
	for part := range slices.Chunk(missing(params, remote.Data.Params), maxParams) {
		if err := c.batch(ctx, remote.Info.RunID, nil, part, nil); err != nil {
			return err
		}
	}
	for part := range slices.Chunk(missing(tags, remote.Data.Tags), maxTags) {
		if err := c.batch(ctx, remote.Info.RunID, nil, nil, part); err != nil {
			return err
		}
	}
	return nil
}

func (c Client) batch(ctx context.Context, run string, metrics []metric, params, tags []pair) error {
	return c.call(ctx, "POST", "runs/log-batch", struct { // the server fails at a list that is null
		Run     string   `json:"run_id"`
		Metrics []metric `json:"metrics,omitempty"`
		Params  []pair   `json:"params,omitempty"`
		Tags    []pair   `json:"tags,omitempty"`
	}{run, metrics, params, tags}, nil)
}

var forbidden = regexp.MustCompile(`[^/\p{L}\p{N}_.\- :]`)

// name makes a name that the server allows. One that it has to change ends in a checksum, so that two stay two.
func name(s string) string {
	allowed := forbidden.ReplaceAllString(s, "_")
	if clean := path.Clean(allowed); clean != allowed || clean == "." || strings.HasPrefix(clean, "..") || strings.HasPrefix(clean, "/") {
		allowed = strings.Trim(strings.ReplaceAll("/"+clean, "/..", "/_"), "/.")
	}
	if allowed == s && s != "" && len(s) <= maxName {
		return s
	}
	if allowed == "" {
		allowed = "_"
	}
	sum := fmt.Sprintf("-%08x", crc32.ChecksumIEEE([]byte(s)))
	return cut(allowed, maxName-len(sum)) + sum
}

// cut shortens a text to so many bytes, which are at least as many as its letters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

func isCode(err error, code string) bool {
	var answer *Error
	return errors.As(err, &answer) && answer.Code == code
}

// tries is how often a request is made.
const tries = 5

// repeat makes a request, again if the reason of a failure may pass. All our requests but that which makes a run may be made
// twice.
func (c Client) repeat(ctx context.Context, once func() (again bool, err error)) error {
	pause := c.Pause
	if pause == 0 {
		pause = time.Second / 2
	}
	for try := 1; ; try++ {
		again, err := once()
		if err == nil || !again || try == tries {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
			pause *= 2
		}
	}
}

// call asks for something that is in JSON, as is the answer.
func (c Client) call(ctx context.Context, method, endpoint string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	return c.repeat(ctx, func() (again bool, err error) {
		short, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		request, err := c.request(short, method, "mlflow/"+endpoint, bytes.NewReader(body))
		if err != nil {
			return false, err
		}
		request.Header.Set("Content-Type", "application/json")
		again, err = c.do(ctx, request, out)
		return again && endpoint != "runs/create", err
	})
}

// request makes a request to a place of the server's interface, which may have a query.
func (c Client) request(ctx context.Context, method, place string, body io.Reader) (*http.Request, error) {
	base, err := url.Parse(c.URL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("the server's address is %q, want one as http://127.0.0.1:5000", redacted(c.URL))
	}
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(base.String(), "/")+"/api/2.0/"+place, body)
	if err == nil && c.Token != "" {
		request.Header.Set("Authorization", "Bearer "+c.Token)
	}
	return request, err
}

// do sends a request and reads the answer. What fails may be tried again unless ctx is cancelled, which is not the time that
// the request has.
func (c Client) do(ctx context.Context, request *http.Request, out any) (again bool, err error) {
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	response, err := client.Do(request)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) { // without the address, which may hold a password
			err = wrapped.Err
		}
		return ctx.Err() == nil, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, 64<<20))
	if err != nil {
		return ctx.Err() == nil, err
	}
	if response.StatusCode != http.StatusOK {
		answer := &Error{Status: response.StatusCode}
		if json.Unmarshal(content, answer) != nil || answer.Message == "" {
			answer.Message = cut(strings.TrimSpace(string(content)), 300)
		}
		return response.StatusCode == http.StatusTooManyRequests || response.StatusCode >= 500, answer
	}
	if out == nil {
		return false, nil
	}
	if err := json.Unmarshal(content, out); err != nil {
		return false, fmt.Errorf("the answer to %s is not that of MLflow: %w", request.URL.Path, err)
	}
	return false, nil
}

// redacted is an address without its password.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that cannot be read"
	}
	return u.Redacted()
}
