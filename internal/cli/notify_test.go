package cli_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/internal/cli"
	"github.com/elastic-attention/workbench/pkg/notify"
)

func TestNotify(t *testing.T) {
	var got []notify.Message
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var m notify.Message
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &m)
		}
		if err != nil {
			t.Error(err)
		}
		got = append(got, m)
		if r.URL.Path == "/bad" {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer server.Close()
	last := func(n int) notify.Message {
		t.Helper()
		if len(got) != n {
			t.Fatalf("%d messages, want %d: %+v", len(got), n, got)
		}
		return got[n-1]
	}

	dir := filepath.Join(t.TempDir(), "run")
	out := run(t, "", quickly(dir, "--notify", server.URL, "--notify", "bell")...)
	m := last(1)
	if out.code != 0 || m.Command != "train ner" || m.Run != dir || m.Status != notify.Finished || m.Error != "" || m.Seconds <= 0 || !strings.Contains(out.stderr, "\a") {
		t.Errorf("code %d, %+v\n%s", out.code, m, out.stderr)
	}
	if _, ok := m.Results["train/loss"]; !ok || len(m.Results) < 2 {
		t.Errorf("results %v, want the loss and the scores", m.Results)
	}

	out = run(t, "", quickly(dir, "--notify", server.URL)...) // the folder is taken
	if m = last(2); out.code != 1 || m.Status != notify.Failed || !strings.Contains(m.Error, "holds a run already") {
		t.Errorf("code %d, %+v", out.code, m)
	}

	notebook := fakeNotebook(t, "print result: x=1", "env ELASTIC_NOTIFY")
	t.Setenv("ELASTIC_NOTIFY", server.URL)
	copies := t.TempDir()
	out = run(t, "", "nb", "run", notebook, "-o", copies)
	if m = last(3); out.code != 0 || m.Command != "nb run" || m.Run != notebook || m.Results["passed"] != 1 || m.Results["of"] != 1 {
		t.Errorf("code %d, %+v", out.code, m)
	}
	if text, err := os.ReadFile(filepath.Join(copies, "case.ipynb")); err != nil || strings.Contains(string(text), server.URL) {
		t.Errorf("the programs of cells see where to notify: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var quiet strings.Builder
	if code := cli.Run(ctx, []string{"nb", "run", notebook, "--notify", server.URL}, strings.NewReader(""), &quiet, &quiet); code != 1 || last(4).Status != notify.Interrupted {
		t.Errorf("code %d, %+v", code, got)
	}

	t.Setenv("ELASTIC_NOTIFY", server.URL+"/bad")
	out = run(t, "", "nb", "run", notebook)
	if last(5); out.code != 0 || !strings.Contains(out.stderr, "elastic: notifying 127.0.0.1:") || !strings.Contains(out.stderr, "it answers 403") {
		t.Errorf("code %d, errors %q: want success, and what went wrong told", out.code, out.stderr)
	}

	t.Setenv("ELASTIC_NOTIFY", "https://")
	if out = run(t, "", "nb", "run", notebook); out.code != 2 || !strings.Contains(out.stderr, "--notify") {
		t.Errorf("code %d, errors %q", out.code, out.stderr)
	}
	t.Setenv("ELASTIC_NOTIFY", server.URL) // a command without the flag does not look at it
	if out = run(t, "", "version"); out.code != 0 || len(got) != 5 {
		t.Errorf("code %d, %d messages", out.code, len(got))
	}
	if out = run(t, "", "train", "ner", "--lr=-1"); out.code != 2 || len(got) != 5 {
		t.Errorf("code %d, %d messages: nothing was begun", out.code, len(got))
	}
}
