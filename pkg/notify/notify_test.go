package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

var message = Message{Command: "train ner", Run: "runs/a", Status: Failed, Error: "no \"space\"", Seconds: 723.4,
	Results: map[string]float64{"f1": 0.83125, "loss": math.NaN()}, Host: "h"}

func TestText(t *testing.T) {
	if got, want := message.Text(), `train ner failed after 12m3s: f1 0.8313, loss NaN: no "space" (runs/a)`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := (Message{Command: "study run", Status: Finished, Seconds: 2}).Text(), "study run finished after 2s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// send tells a target, with short waits.
func send(t *testing.T, target string, m Message) (bell string, err error) {
	t.Helper()
	to, err := Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	to.wait = time.Millisecond
	var out bytes.Buffer
	err = to.Send(t.Context(), m, &out)
	return out.String(), err
}

func TestNobody(t *testing.T) {
	if err := new(Target).Send(t.Context(), message, io.Discard); err == nil || !strings.Contains(err.Error(), "make it by Parse") {
		t.Errorf("a target that was never parsed: %v", err)
	}
}

func TestWebhook(t *testing.T) {
	statuses := []int{503, 200}
	var bodies []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || r.URL.Path != "/secret" {
			t.Errorf("%s %s %v, %v", r.Method, r.URL, r.Header, err)
		}
		status := statuses[min(len(bodies), len(statuses)-1)]
		bodies = append(bodies, string(body))
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "no_service")
	}))
	defer server.Close()
	if _, err := send(t, server.URL+"/secret", message); err != nil || len(bodies) != 2 || bodies[0] != bodies[1] {
		t.Errorf("%v, %d tries", err, len(bodies))
	}
	var got struct {
		Text, Command, Run, Status, Error, Host string
		Seconds                                 float64
		Results                                 map[string]float64
	}
	if err := json.Unmarshal([]byte(bodies[0]), &got); err != nil {
		t.Fatal(err)
	}
	if got.Text != message.Text() || got.Command != "train ner" || got.Run != "runs/a" || got.Status != "failed" || got.Error != message.Error ||
		got.Seconds != 723.4 || len(got.Results) != 1 || got.Results["f1"] != 0.83125 || got.Host != "h" {
		t.Errorf("%+v", got)
	}
	bodies, statuses = nil, []int{404}
	if _, err := send(t, server.URL+"/secret", message); err == nil || len(bodies) != 1 || !strings.Contains(err.Error(), "404 Not Found: no_service") {
		t.Errorf("%v, %d tries", err, len(bodies))
	}
	bodies, statuses = nil, []int{500}
	if _, err := send(t, server.URL+"/secret", message); err == nil || len(bodies) != tries {
		t.Errorf("%v, %d tries", err, len(bodies))
	}
	server.Close()
	if _, err := send(t, server.URL+"/secret", message); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody there: %v", err)
	}
}

// TestRedirect: a redirect that makes a GET of the POST would lose the message, though what is there answers well.
func TestRedirect(t *testing.T) {
	got := map[string]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved/secret":
			http.Redirect(w, r, "/secret", http.StatusMovedPermanently)
		case "/kept/secret":
			http.Redirect(w, r, "/secret", http.StatusPermanentRedirect)
		default:
			body, _ := io.ReadAll(r.Body)
			got[r.Method] = string(body)
		}
	}))
	defer server.Close()
	if _, err := send(t, server.URL+"/moved/secret", message); err == nil || len(got) > 0 || !strings.Contains(err.Error(), "leads elsewhere") || strings.Contains(err.Error(), "secret") {
		t.Errorf("moved: %v; got %q", err, got)
	}
	if _, err := send(t, server.URL+"/kept/secret", message); err != nil || !json.Valid([]byte(got[http.MethodPost])) {
		t.Errorf("kept: %v; got %q", err, got)
	}
}

func TestHangingServer(t *testing.T) {
	leave := make(chan bool)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-leave }))
	defer server.Close()
	defer close(leave)
	to, err := Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := to.Send(ctx, message, io.Discard); err == nil {
		t.Error("no error")
	}
}

func TestBell(t *testing.T) {
	if bell, err := send(t, "bell", message); bell != "\a" || err != nil {
		t.Errorf("%q, %v", bell, err)
	}
}

func TestCommand(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the commands of this test are for sh")
	}
	file := filepath.Join(t.TempDir(), "out")
	t.Setenv("OUT", file)
	if _, err := send(t, `{ cat; echo; echo "$NOTIFY_STATUS|$NOTIFY_RUN|$NOTIFY_TEXT"; } > "$OUT"`, message); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	content, line, _ := strings.Cut(string(text), "\n")
	if !json.Valid([]byte(content)) || strings.TrimSpace(line) != "failed|runs/a|"+message.Text() {
		t.Errorf("%q", text)
	}
	if _, err := send(t, "echo words; exit 3", message); err == nil || !strings.Contains(err.Error(), "exit status 3: words") {
		t.Errorf("%v", err)
	}
	if _, err := send(t, "no-such-program-here", message); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("%v", err)
	}
	if _, err := send(t, "sleep 5 &", message); err != nil { // it holds the output
		t.Errorf("a command that leaves another one: %v", err)
	}
}

func TestParse(t *testing.T) {
	for _, bad := range []string{"", "  ", "https://", "http://[::1", "https:///path"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%q is no target", bad)
		}
	}
	if to, err := Parse("https://example.org/secret?token=3"); err != nil || to.String() != "example.org" {
		t.Errorf("%v, %v", to, err)
	}
}
