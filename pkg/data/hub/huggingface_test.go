package hub_test

import (
	"bytes"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/google/go-cmp/cmp"
)

// fakeHub is a server that behaves like the Hugging Face hub: large files lie on another host.
type fakeHub struct {
	*server
	store  *server
	mutex  sync.Mutex
	tokens map[string]string // "hub" and "store": the last Authorization header
}

func newFakeHub(t *testing.T, weights []byte, told string) *fakeHub {
	h := &fakeHub{tokens: map[string]string{}}
	note := func(where string, r *http.Request) {
		h.mutex.Lock()
		defer h.mutex.Unlock()
		h.tokens[where] = r.Header.Get("Authorization")
	}
	h.store = serve(t, func(w http.ResponseWriter, r *http.Request) {
		note("store", r)
		if r.URL.Query().Get("X-Signature") != "secret" {
			http.Error(w, "no signature", http.StatusForbidden)
			return
		}
		whole(weights)(w, r)
	})
	h.server = serve(t, func(w http.ResponseWriter, r *http.Request) {
		note("hub", r)
		w.Header().Set("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
		switch strings.TrimPrefix(r.URL.EscapedPath(), "/some-org/some-model/resolve/refs%2Fpr%2F1/") {
		case "config.json":
			w.Header().Set("ETag", `"1111111111111111111111111111111111111111"`) // a git object, no SHA-256
			_, _ = w.Write([]byte(`{"hidden_size": 4}`))
		case "model.safetensors":
			w.Header().Set("X-Linked-Etag", `"`+told+`"`)
			http.Redirect(w, r, h.store.URL+"/blob?X-Signature=secret", http.StatusFound)
		case "private.bin":
			http.Error(w, "Access to model is restricted", http.StatusUnauthorized)
		default:
			http.Error(w, "Entry not found", http.StatusNotFound)
		}
	})
	t.Setenv("HF_ENDPOINT", h.URL+"/")
	t.Setenv("HF_TOKEN", "hf_topsecret")
	return h
}

func TestHuggingFace(t *testing.T) {
	weights := content(200_000)
	h := newFakeHub(t, weights, sum(weights))
	c := newClient(t)
	r := hub.HuggingFace("some-org/some-model", "refs/pr/1")
	dir := fetch(t, c, r)
	if want := filepath.Join("hub", "some-org--some-model", "refs--pr--1"); !strings.HasSuffix(dir, want) {
		t.Errorf("folder %s, want …%s", dir, want)
	}
	if !bytes.Equal(mustRead(t, filepath.Join(dir, "model.safetensors")), weights) {
		t.Error("the weights differ")
	}
	if diff := cmp.Diff(map[string]string{"hub": "Bearer hf_topsecret", "store": ""}, h.tokens); diff != "" {
		t.Errorf("who saw the token (-want +got):\n%s", diff)
	}
	record, err := hub.ReadRecord(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"}, record.Absent); diff != "" {
		t.Errorf("absent (-want +got):\n%s", diff)
	}
	file := record.Files[1]
	if file.Path != "model.safetensors" || file.SHA256 != sum(weights) || file.ETag != `"`+sum(weights)+`"` || file.Commit != "0123456789abcdef0123456789abcdef01234567" {
		t.Errorf("record %+v", file)
	}
	if text := string(mustRead(t, filepath.Join(dir, hub.RecordFile))); strings.Contains(text, "secret") {
		t.Errorf("the record has a secret: %s", text)
	}
	before := h.requests.Load()
	fetch(t, c, r)
	if h.requests.Load() != before {
		t.Error("a complete model is asked for again")
	}
}

func TestHuggingFaceWrongContent(t *testing.T) {
	weights := content(1000)
	newFakeHub(t, weights, sum([]byte("something else")))
	_, err := newClient(t).Fetch(t.Context(), hub.HuggingFace("some-org/some-model", "refs/pr/1", "model.safetensors"))
	wantError(t, err, "model.safetensors has SHA-256 "+sum(weights), "want "+sum([]byte("something else")))
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error has a secret: %v", err)
	}
}

func TestHuggingFaceRefuses(t *testing.T) {
	h := newFakeHub(t, nil, "")
	_, err := newClient(t).Fetch(t.Context(), hub.HuggingFace("some-org/some-model", "refs/pr/1", "private.bin"))
	wantError(t, err, `401 Unauthorized`, "HF_TOKEN gives access")
	_, err = newClient(t).Fetch(t.Context(), hub.HuggingFace("some-org/other-model", ""))
	wantError(t, err, "config.json", h.URL+"/some-org/other-model/resolve/main/config.json", `404 Not Found`)
	// The store does not answer: the error must not show the signed address.
	h.store.Close()
	c := newClient(t)
	_, err = c.Fetch(t.Context(), hub.HuggingFace("some-org/some-model", "refs/pr/1", "model.safetensors"))
	wantError(t, err, "connection refused")
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error has a secret: %v", err)
	}
}

// TestTokenStaysHome sends the token neither to other servers nor along a redirect to another port of the same machine.
func TestTokenStaysHome(t *testing.T) {
	h := newFakeHub(t, nil, "")
	body := content(10)
	var seen string
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen += r.Header.Get("Authorization")
		whole(body)(w, r)
	})
	fetch(t, newClient(t), one("model.bin", body, other.URL))
	if seen != "" || h.requests.Load() != 0 {
		t.Errorf("another server saw %q", seen)
	}
}

func TestRedirects(t *testing.T) {
	loop := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) })
	_, err := newClient(t).Fetch(t.Context(), one("model.bin", content(10), loop.URL+"/x"))
	wantError(t, err, "more than 10 redirects")
	if n := loop.requests.Load(); n > 11 {
		t.Errorf("%d requests", n)
	}
}

func ExampleHuggingFace() {
	r := hub.HuggingFace("google-bert/bert-base-cased", "main", "config.json", "vocab.txt")
	for _, file := range r.Files {
		fmt.Println(file.URLs[0])
	}
	// Output:
	// https://huggingface.co/google-bert/bert-base-cased/resolve/main/config.json
	// https://huggingface.co/google-bert/bert-base-cased/resolve/main/vocab.txt
}
