package ui_test

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/elastic-attention/workbench/pkg/track"
	"github.com/elastic-attention/workbench/pkg/track/ui"
	"github.com/elastic-attention/workbench/pkg/viz"
)

const token = "the token"

// runs makes a folder of two finished runs, of which one is in a study, and one that goes on.
func runs(t *testing.T) (root string, live *track.Journal) {
	t.Helper()
	root = t.TempDir()
	for i, id := range []string{"one <b>", "study-x/runs/two-2", "live"} {
		journal, err := track.Start(filepath.Join(root, filepath.FromSlash(id)), track.Record{Task: "toy", Config: map[string]any{"lr": float64(i+1) / 10, "rule": "adamw"}})
		if err != nil {
			t.Fatal(err)
		}
		for step := 1; step <= 3; step++ {
			journal.Log(step, map[string]float64{"train/loss": float64(i+1) / float64(step), "dev/f1": float64(step) / 10, "odd": math.NaN()})
		}
		if id == "one <b>" {
			for name, content := range map[string]string{
				"a.svg":  `<svg xmlns="http://www.w3.org/2000/svg"><title>heads &lt;1&gt;</title><desc>two words</desc><script>alert(1)</script></svg>`,
				"b.HTML": "<script>alert(1)</script>", "c.png": "png", "d.txt": "text",
			} {
				if err := errors.Join(os.WriteFile(filepath.Join(root, id, name), []byte(content), 0o644), journal.Artefact(name)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(root, id, "unnoted.svg"), []byte("<svg/>"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if id == "live" {
			t.Cleanup(func() { _ = journal.Close(nil) })
			return root, journal
		}
		if err := journal.Close(nil); err != nil {
			t.Fatal(err)
		}
	}
	return root, nil
}

// browser is a client of a server that shows a folder, which knows the token.
func browser(t *testing.T, root string) (*httptest.Server, *http.Client) {
	t.Helper()
	store, err := track.Open(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	handler, err := (&ui.Server{Store: store, Token: token, Every: time.Millisecond, Learned: func(r track.Run) ([]viz.Chart, error) {
		if r.ID == "live" {
			return []viz.Chart{{Title: "span by layer", Series: []viz.Series{{Name: "layer 0", X: []float64{1, 2}, Y: []float64{0.5, 0.25}}}}}, nil
		}
		return nil, nil
	}}).Handler()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		_ = store.Close()
	})
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar}
	if status, _ := get(t, client, server.URL+"/?token="+url.QueryEscape(token)); status != http.StatusOK {
		t.Fatalf("with the token: %d", status)
	}
	return server, client
}

func get(t *testing.T, client *http.Client, address string) (status int, body string) {
	t.Helper()
	response, err := client.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

var (
	outside = regexp.MustCompile(`(?:src|href|action)="(?:[a-z]+:)?//`)
	ids     = regexp.MustCompile(` id="([^"]*)"`)
	svgs    = regexp.MustCompile(`(?s)<svg.*?</svg>`)
)

// TestPages looks at each page for what it must show and must not load.
func TestPages(t *testing.T) {
	root, _ := runs(t)
	server, client := browser(t, root)
	if err := track.WriteNotes(filepath.Join(root, "live"), track.Notes{Tags: []string{"good"}, Text: "a <script> note"}); err != nil {
		t.Fatal(err)
	}
	report := `{"test": {"labels": ["a", "b"], "confusion": [[0, 0, 5], [1, 0, 7]]}}`
	if err := os.WriteFile(filepath.Join(root, "live", "report.json"), []byte(report), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path   string
		status int
		want   []string
	}{
		{"/", 200, []string{`value="one &lt;b&gt;"`, `href="/run/one%20%3Cb%3E"`, `href="/run/study-x/runs/two-2"`, "running", "Parallel coordinates", `aria-sort="descending"`, ">good</td>"}},
		{"/?where=status%3Dfinished;train/loss%3C0.5", 200, []string{"one &lt;b&gt;"}},
		{"/?sort=-dev/f1", 200, []string{`aria-sort="descending"`, `href="/?sort=dev%2Ff1"`}},
		{"/?where=nonsense", 400, []string{`role="alert"`, "is none: want a field"}},
		{"/?where=seed%3D99", 200, []string{"No run fits."}},
		{"/run/one%20%3Cb%3E", 200, []string{"<h1>one &lt;b&gt;</h1>", "<title>train/loss</title>", "<title>dev/f1</title>", "NaN", "3 points from (1, 1) to (3, 0.3333)",
			`alt="heads &lt;1&gt;"`, `<span class="soft">two words</span>`, `<iframe src="/file?path=b.HTML&amp;run=one&#43;%3Cb%3E" title="b.HTML" sandbox`, `alt="c.png"`}},
		{"/run/live", 200, []string{"a &lt;script&gt; note", "running", "Confusion", ">7</td>", "What attention learned about itself", "<title>span by layer</title>"}},
		{"/run/live?metric=odd&log=1&smooth=0.5", 200, []string{"<title>odd</title>", "3 not drawn", `value="odd" checked`}},
		{"/run/study-x/runs/two-2", 200, []string{"finished"}},
		{"/run/none", 404, []string{"there is no run"}},
		{"/run/../../etc/passwd", 404, nil},
		{"/compare?run=live&run=study-x/runs/two-2", 200, []string{"config.lr", "<span>best</span>", "live: 3 points from (1, 3) to (3, 1)", "Parallel coordinates"}},
		{"/compare?run=live", 400, []string{"two runs or more"}},
		{"/compare?run=live&run=none", 404, nil},
		{"/static/live.js", 200, []string{"EventSource"}},
		{"/static/style.css", 200, []string{"prefers-color-scheme: dark"}},
		{"/static/curves.js", 200, []string{"pointermove"}},
		{"/elsewhere", 404, nil},
	} {
		status, body := get(t, client, server.URL+test.path)
		if status != test.status {
			t.Errorf("%s: %d, want %d\n%s", test.path, status, test.status, body)
		}
		for _, want := range test.want {
			if !strings.Contains(body, want) {
				t.Errorf("%s: no %q in\n%.3000s", test.path, want, body)
			}
		}
		if at := outside.FindString(body); at != "" || strings.Contains(body, "<script>") || strings.Contains(body, " onclick") {
			t.Errorf("%s loads or runs something: %q", test.path, at)
		}
		seen := map[string]bool{}
		for _, id := range ids.FindAllStringSubmatch(svgs.ReplaceAllString(body, ""), -1) {
			if seen[id[1]] {
				t.Errorf("%s has two elements with id %q", test.path, id[1])
			}
			seen[id[1]] = true
		}
		for _, svg := range svgs.FindAllString(body, -1) {
			if err := xml.Unmarshal([]byte(svg), new(struct{})); err != nil || !strings.Contains(svg, `role="img"`) || !strings.Contains(svg, "<desc>") {
				t.Errorf("%s has a picture without words, or that is not well-formed: %v", test.path, err)
			}
		}
	}
	if _, body := get(t, client, server.URL+"/?where=train/loss%3C0.5"); strings.Contains(body, "two-2") || strings.Contains(body, `value="live"`) {
		t.Error("the filter lets others through")
	}
}

// TestFiles: only pictures that a run has noted are sent, so that they can run and load nothing.
func TestFiles(t *testing.T) {
	root, _ := runs(t)
	secret := filepath.Join(t.TempDir(), "secret.svg")
	link := filepath.Join(root, "one <b>", "c.png")
	if err := errors.Join(os.WriteFile(secret, []byte("secret"), 0o644), os.Remove(link), os.Symlink(secret, link)); err != nil {
		t.Fatal(err)
	}
	server, client := browser(t, root)
	for path, want := range map[string]string{"a.svg": "image/svg+xml", "b.HTML": "text/html; charset=utf-8", "c.png": "", "d.txt": "", "unnoted.svg": "", "../one <b>/a.svg": "", "/etc/passwd": "", "": ""} {
		response, err := client.Get(server.URL + "/file?" + url.Values{"run": {"one <b>"}, "path": {path}}.Encode())
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		policy := response.Header.Get("Content-Security-Policy")
		switch {
		case err != nil || strings.Contains(string(content), "secret"):
			t.Errorf("%s: %s, %v", path, content, err)
		case want == "" && response.StatusCode != http.StatusNotFound:
			t.Errorf("%s: %d", path, response.StatusCode)
		case want != "" && (response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != want || response.Header.Get("X-Content-Type-Options") != "nosniff"):
			t.Errorf("%s: %d, %v", path, response.StatusCode, response.Header)
		case want != "" && (!strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "; sandbox;") || strings.Contains(policy, "script")):
			t.Errorf("%s: policy %q", path, policy)
		}
	}
	if status, _ := get(t, client, server.URL+"/file?run=none&path=a.svg"); status != http.StatusNotFound {
		t.Errorf("a run that is not there: %d", status)
	}
}

var points = regexp.MustCompile(`data-points="([^"]*)"`)

// TestPoints: the values that a page tells are those that were logged.
func TestPoints(t *testing.T) {
	root, live := runs(t)
	for step := 4; step <= 5000; step++ {
		live.Log(step, map[string]float64{"train/loss": float64(step)})
	}
	server, client := browser(t, root)
	_, body := get(t, client, server.URL+"/compare?run=live&run=one+%3Cb%3E&metric=train/loss&metric=odd")
	found := points.FindAllStringSubmatch(body, -1)
	if len(found) != 2 {
		t.Fatalf("%d pictures with points", len(found))
	}
	for i, name := range []string{"train/loss", "odd"} {
		var all struct {
			Area   viz.Area
			Series []struct {
				Name string
				X    []float64
				Y    []*float64
			}
		}
		if err := json.Unmarshal([]byte(html.UnescapeString(found[i][1])), &all); err != nil {
			t.Fatal(err)
		}
		longest := all.Series[0]
		n := len(longest.X)
		if len(all.Series) != 2 || longest.Name != "live" || all.Series[1].Name != "one <b>" || n != len(longest.Y) || n > 1001 || n == 0 {
			t.Fatalf("%s: %.300s", name, found[i][1])
		}
		if name == "odd" {
			if longest.Y[0] != nil {
				t.Error("NaN is told as a number")
			}
		} else if longest.X[n-1] != 5000 || *longest.Y[n-1] != 5000 || all.Area.X != [2]float64{1, 5000} || *all.Series[1].Y[2] != 1.0/3 {
			t.Errorf("%s: %.300s", name, found[i][1])
		}
	}
}

// TestGuard says who is let in.
func TestGuard(t *testing.T) {
	root, _ := runs(t)
	server, known := browser(t, root)
	stranger := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, path := range []string{"/", "/run/live", "/events", "/static/live.js", "/?token=wrong", "/?token="} {
		if status, body := get(t, stranger, server.URL+path); status != http.StatusUnauthorized || strings.Contains(body, "live") {
			t.Errorf("%s without the token: %d %s", path, status, body)
		}
	}
	for host, want := range map[string]int{"localhost:99": 200, "127.0.0.2": 200, "[::1]:7": 200, "evil.example": 421, "127.0.0.1.evil.example": 421, "10.0.0.1": 421, "": 200} {
		request, err := http.NewRequestWithContext(t.Context(), "GET", server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = host
		request.AddCookie(&http.Cookie{Name: "elastic_runs", Value: token})
		response, err := stranger.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("host %q: %d, want %d", host, response.StatusCode, want)
		}
		if policy := response.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") {
			t.Errorf("policy %q", policy)
		}
	}
	response, err := stranger.Get(server.URL + "/run/live?metric=odd&token=" + url.QueryEscape(token))
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if c := response.Cookies(); response.Header.Get("Location") != "/run/live?metric=odd" || len(c) != 1 || !c[0].HttpOnly || c[0].SameSite != http.SameSiteStrictMode {
		t.Errorf("the token leads to %q with cookies %v", response.Header.Get("Location"), c)
	}
	if response, err = known.Post(server.URL, "text/plain", nil); err != nil || response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %v, %v", response, err)
	}
	if _, err := (&ui.Server{}).Handler(); err == nil {
		t.Error("no token is needed")
	}
}

// TestEvents follows a run that goes on.
func TestEvents(t *testing.T) {
	root, live := runs(t)
	server, client := browser(t, root)
	response, err := client.Get(server.URL + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if kind := response.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("content type %q", kind)
	}
	lines := bufio.NewScanner(response.Body)
	next := func() string {
		for lines.Scan() {
			if version, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				return version
			}
		}
		t.Fatalf("the events ended: %v", lines.Err())
		return ""
	}
	before := next()
	live.Log(4, map[string]float64{"train/loss": 0.25})
	if after := next(); after == before {
		t.Error("the same version again")
	}
	if _, body := get(t, client, server.URL+"/run/live"); !strings.Contains(body, "4 points") {
		t.Error("the fourth point is not drawn")
	}
	if err := live.Close(nil); err != nil {
		t.Fatal(err)
	}
	next()
	if _, body := get(t, client, server.URL+"/run/live"); !strings.Contains(body, ">finished<") {
		t.Error("the run has not ended")
	}
}

// TestServe stops when it is told to, also while somebody follows.
func TestServe(t *testing.T) {
	root, _ := runs(t)
	store, err := track.Open(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- (&ui.Server{Store: store, Token: "x"}).Serve(ctx, listener) }()
	request, err := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("http://%s/events", listener.Addr()), nil)
	if err != nil {
		t.Fatal(err)
	}
	request.AddCookie(&http.Cookie{Name: "elastic_runs", Value: "x"})
	response, err := http.DefaultClient.Do(request)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", response, err)
	}
	defer response.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := http.Get(fmt.Sprintf("http://%s/", listener.Addr())); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("it answers still: %v", err)
	}
}

func ExampleServer() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	store, err := track.Open(context.Background(), dir)
	if err != nil {
		panic(err)
	}
	defer store.Close()
	handler, err := (&ui.Server{Store: store, Token: "secret"}).Handler()
	if err != nil {
		panic(err)
	}
	for _, path := range []string{"/", "/?token=secret"} {
		answer := httptest.NewRecorder()
		request := httptest.NewRequest("GET", path, nil)
		request.Host = "localhost:7007"
		handler.ServeHTTP(answer, request)
		fmt.Println(answer.Code)
	}
	// Output:
	// 401
	// 303
}
