package backend_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/elastic-attention/workbench/pkg/backend"
)

// fakeWheel is a wheel that holds one library, and the pin that fits it.
func fakeWheel(t *testing.T, library []byte) (backend.Wheel, []byte) {
	t.Helper()
	sum := sha256.Sum256(library)
	pin := backend.Wheel{
		Device: "cpu", Platform: runtime.GOOS + "/" + runtime.GOARCH, Package: "elastic-fake-plugin", Version: "1.2.3",
		Library: "elastic_fake_plugin/libpjrt_cpu.so", SHA256: hex.EncodeToString(sum[:]), Size: int64(len(library)), Licence: "none",
	}
	content := zipOf(t, map[string]string{
		pin.Library: string(library),
		"elastic_fake_plugin-1.2.3.dist-info/METADATA": "Metadata-Version: 2.1\nName: elastic-fake-plugin\nVersion: 1.2.3\n",
		"elastic_fake_plugin-1.2.3.dist-info/WHEEL":    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		"elastic_fake_plugin-1.2.3.dist-info/RECORD":   "",
		"../../outside.so":                             "must never be written",
	})
	pin.Download = int64(len(content))
	return pin, content
}

func zipOf(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range files {
		entry, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := entry.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// damaged changes a byte in the middle of one file of an archive.
func damaged(t *testing.T, content []byte, name string) []byte {
	t.Helper()
	archive, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range archive.File {
		if entry.Name == name {
			at, err := entry.DataOffset()
			if err != nil {
				t.Fatal(err)
			}
			changed := bytes.Clone(content)
			changed[at+int64(entry.CompressedSize64)/2] ^= 0x55
			return changed
		}
	}
	t.Fatalf("no %s in the archive", name)
	return nil
}

// fetching delivers a wheel's content as pip would.
func fetching(content []byte) backend.Fetcher {
	return func(_ context.Context, w backend.Wheel, dir string, _ func(done, total int64)) (string, error) {
		path := filepath.Join(dir, w.Package+".whl")
		return path, os.WriteFile(path, content, 0o666)
	}
}

// files lists all files below a folder.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !entry.IsDir() {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestInstall(t *testing.T) {
	cache := bare(t)
	pin, content := fakeWheel(t, goodLibrary(t).bytes(t))
	stages := map[string]int64{}
	opts := backend.InstallOptions{NoGoMLX: true, Wheel: &pin, Fetch: fetching(content), Progress: func(stage string, done, total int64) {
		if done < stages[stage] || (total > 0 && done > total) {
			t.Errorf("%s: %d of %d after %d", stage, done, total, stages[stage])
		}
		stages[stage] = done
	}}
	got, err := backend.Install(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cache, "pjrt", "cpu", "pjrt_c_api_cpu_plugin.so")
	if got.Plugin != path || got.Version != "1.2.3" || got.SHA256 != pin.SHA256 || got.Already || got.Source != "elastic-fake-plugin==1.2.3" {
		t.Errorf("got %+v", got)
	}
	if stages["unpack"] != pin.Size {
		t.Errorf("progress is %v, want unpack %d", stages, pin.Size)
	}
	if list := files(t, filepath.Dir(cache)); len(list) != 2 || list[0] != path || list[1] != path+".json" {
		t.Errorf("files are %v, want the plugin and its record", list)
	}

	// Open finds it now. It cannot be loaded, so the error names it.
	if _, _, err := backend.Open(t.Context(), backend.Options{}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error is %v, want one about %s", err, path)
	}

	opts.Fetch = func(context.Context, backend.Wheel, string, func(done, total int64)) (string, error) {
		t.Error("fetched again")
		return "", errors.New("not needed")
	}
	if got, err = backend.Install(t.Context(), opts); err != nil || !got.Already || got.SHA256 != pin.SHA256 {
		t.Errorf("second time: %+v, %v; want Already", got, err)
	}

	// A changed file is noticed, and replaced.
	replaced := bytes.Clone(goodLibrary(t).bytes(t))
	replaced[200] ^= 1
	if err := os.WriteFile(path, replaced, 0o666); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(path, later, later); err != nil {
		t.Fatal(err)
	}
	opts.Fetch = fetching(content)
	if got, err = backend.Install(t.Context(), opts); err != nil || got.Already {
		t.Errorf("after a change: %+v, %v; want it installed anew", got, err)
	}
}

// A plugin that is not the one that was installed is not loaded.
func TestInstalledPluginChanged(t *testing.T) {
	cache := bare(t)
	plugin := goodLibrary(t).bytes(t)
	pin, content := fakeWheel(t, plugin)
	path := filepath.Join(cache, "pjrt", "cpu", "pjrt_c_api_cpu_plugin.so")
	later := time.Now().Add(time.Hour)
	for _, test := range []struct {
		name   string
		change func() error
		want   string
	}{
		{"touched", func() error { return os.Chtimes(path, later, later) }, ""},
		{"longer", func() error { return os.WriteFile(path, append(bytes.Clone(plugin), 0), 0o666) }, "is not the file that was installed"},
		{"other content", func() error {
			other := bytes.Clone(plugin)
			other[bytes.Index(other, []byte(".dynsym"))] = '!' // the name of a section, which no check looks at
			return errors.Join(os.WriteFile(path, other, 0o666), os.Chtimes(path, later, later))
		}, "is not the file that was installed: SHA-256"},
		{"record damaged", func() error { return os.WriteFile(path+".json", []byte("{"), 0o666) }, "is damaged"},
		{"record gone", func() error { return os.Remove(path + ".json") }, ""}, // then it is anybody's plugin
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := backend.Install(t.Context(), backend.InstallOptions{NoGoMLX: true, Force: true, Wheel: &pin, Fetch: fetching(content)}); err != nil {
				t.Fatal(err)
			}
			if err := test.change(); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time a checksum may come from the record
				plugins := backend.Probe(t.Context(), backend.Options{Config: "none"}).Plugins
				if len(plugins) != 1 {
					t.Fatalf("plugins are %+v, want one", plugins)
				}
				if problem := plugins[0].Problem; (test.want == "") != (problem == "") || !strings.Contains(problem, test.want) {
					t.Errorf("problem is %q, want %q", problem, test.want)
				}
			}
		})
	}
}

func TestInstallRefuses(t *testing.T) {
	good := goodLibrary(t).bytes(t)
	pin, wheel := fakeWheel(t, good)
	change := func(f func(*backend.Wheel)) *backend.Wheel {
		w := pin
		f(&w)
		return &w
	}
	notPlugin := goodLibrary(t)
	notPlugin.symbol = "main"
	otherPin, otherWheel := fakeWheel(t, notPlugin.bytes(t))
	corrupt := damaged(t, wheel, pin.Library)
	link := func() []byte {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		header := &zip.FileHeader{Name: pin.Library}
		header.SetMode(fs.ModeSymlink | 0o777)
		entry, err := w.CreateHeader(header)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = entry.Write([]byte("/etc/passwd"))
		_ = w.Close()
		return b.Bytes()
	}()
	for _, test := range []struct {
		name  string
		pin   *backend.Wheel
		wheel []byte
		want  string
	}{
		{"wrong checksum", change(func(w *backend.Wheel) { w.SHA256 = strings.Repeat("0", 64) }), wheel, "has SHA-256 " + pin.SHA256 + ", want 0000"},
		{"wrong size", change(func(w *backend.Wheel) { w.Size-- }), wheel, "refusing it"},
		{"truncated archive", &pin, wheel[:len(wheel)/2], "it may be truncated"},
		{"no archive", &pin, []byte("<html>"), "reading wheel"},
		{"empty", &pin, nil, "reading wheel"},
		{"damaged archive", &pin, corrupt, "wheel"},
		{"library missing", change(func(w *backend.Wheel) { w.Library = "x/y.so" }), wheel, "has no x/y.so"},
		{"library is a link", &pin, link, "is not a file"},
		{"not a plugin", &otherPin, otherWheel, "does not export GetPjrtApi"},
	} {
		for _, existing := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/existing=%v", test.name, existing), func(t *testing.T) {
				cache := bare(t)
				want := 0
				if existing { // a good plugin stays when a new one is refused
					if _, err := backend.Install(t.Context(), backend.InstallOptions{NoGoMLX: true, Wheel: &pin, Fetch: fetching(wheel)}); err != nil {
						t.Fatal(err)
					}
					want = 2
				}
				_, err := backend.Install(t.Context(), backend.InstallOptions{NoGoMLX: true, Force: true, Wheel: test.pin, Fetch: fetching(test.wheel)})
				if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "installing the XLA plugin for cpu: ") {
					t.Errorf("error is %v, want %q", err, test.want)
				}
				if list := files(t, filepath.Dir(cache)); len(list) != want {
					t.Errorf("files are %v, want %d", list, want)
				}
			})
		}
	}
}

func TestInstallOptions(t *testing.T) {
	bare(t)
	if _, err := backend.Install(t.Context(), backend.InstallOptions{Device: "abacus"}); err == nil || !strings.Contains(err.Error(), `"abacus" is known; there are cpu and cuda`) {
		t.Errorf("error is %v", err)
	}
	for _, wheel := range backend.Wheels() {
		if len(wheel.SHA256) != 64 || wheel.Size == 0 || wheel.Version == "" || wheel.Licence == "" {
			t.Errorf("wheel %+v is not pinned", wheel)
		}
	}
}

// The plugin for NVIDIA gets its own folder and notes about the libraries that it needs.
func TestInstallCUDA(t *testing.T) {
	cache := bare(t)
	pin, content := fakeWheel(t, goodLibrary(t).bytes(t))
	got, err := backend.Install(t.Context(), backend.InstallOptions{Device: "cuda", NoGoMLX: true, Wheel: &pin, Fetch: fetching(content)})
	if err != nil {
		t.Fatal(err)
	}
	if got.Plugin != filepath.Join(cache, "pjrt", "cuda", "pjrt_c_api_cuda_plugin.so") || len(got.Notes) != 2 || !strings.Contains(got.Notes[0], filepath.Join(cache, "pjrt", "nvidia")) {
		t.Errorf("got %+v", got)
	}
	if err := os.MkdirAll(filepath.Join(cache, "pjrt", "nvidia", "cu13", "lib"), 0o777); err != nil {
		t.Fatal(err)
	}
	if got, err = backend.Install(t.Context(), backend.InstallOptions{Device: "cuda", NoGoMLX: true}); err != nil || !got.Already || len(got.Notes) != 0 {
		t.Errorf("got %+v, %v; want no notes when the libraries are there", got, err)
	}
}

func TestInstallIntoUnwritableCache(t *testing.T) {
	pin, content := fakeWheel(t, goodLibrary(t).bytes(t))
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	readOnly := filepath.Join(dir, "read-only")
	if err := os.Mkdir(readOnly, 0o555); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, cache string }{
		{"a file is in the way", file},
		{"kernel's file system", "/proc/elastic-cache"}, // nobody can write there, not even root
		{"read-only folder", filepath.Join(readOnly, "cache")},
	} {
		t.Run(test.name, func(t *testing.T) {
			if strings.HasPrefix(test.name, "read-only") && os.Geteuid() == 0 {
				t.Skip("root writes everywhere")
			}
			bare(t)
			t.Setenv(backend.CacheEnv, test.cache)
			_, err := backend.Install(t.Context(), backend.InstallOptions{NoGoMLX: true, Wheel: &pin, Fetch: fetching(content)})
			if err == nil || !strings.Contains(err.Error(), test.cache) || !strings.Contains(err.Error(), "set ELASTIC_CACHE_DIR to a folder that can be written") {
				t.Errorf("error is %v, want the folder and what to do", err)
			}
			report := backend.Probe(t.Context(), backend.Options{Config: "none"})
			if !contains(report.Findings, "cache folder cannot be written") {
				t.Errorf("findings are %+v", report.Findings)
			}
		})
	}
}

func contains(list []backend.Finding, text string) bool {
	for _, f := range list {
		if strings.Contains(f.What, text) && f.Do != "" {
			return true
		}
	}
	return false
}

func TestInstallCancelled(t *testing.T) {
	pin, content := fakeWheel(t, append(goodLibrary(t).bytes(t), make([]byte, 1<<20)...))
	for _, stage := range []string{"before", "download", "unpack"} {
		t.Run(stage, func(t *testing.T) {
			cache := bare(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			opts := backend.InstallOptions{NoGoMLX: true, Wheel: &pin}
			opts.Fetch = func(ctx context.Context, w backend.Wheel, dir string, progress func(done, total int64)) (string, error) {
				switch stage {
				case "download": // as when the user presses Ctrl-C while pip runs
					cancel()
					<-ctx.Done()
					return "", ctx.Err()
				case "unpack":
					cancel()
				}
				return fetching(content)(ctx, w, dir, progress)
			}
			if stage == "before" {
				cancel()
			}
			if _, err := backend.Install(ctx, opts); !errors.Is(err, context.Canceled) {
				t.Errorf("error is %v, want context.Canceled", err)
			}
			if list := files(t, filepath.Dir(cache)); len(list) != 0 {
				t.Errorf("left behind: %v", list)
			}
		})
	}
}

// The parts of this test: a process that installs, is killed while it unpacks, and what a later one finds.
func TestInstallKilled(t *testing.T) {
	const marker = "ELASTIC_TEST_INSTALL_KILLED"
	if os.Getenv(marker) != "" { // the process that will be killed
		pin, content := fakeWheel(t, goodLibrary(t).bytes(t))
		_, _ = backend.Install(t.Context(), backend.InstallOptions{NoGoMLX: true, Wheel: &pin, Fetch: fetching(content), Progress: func(stage string, _, _ int64) {
			if stage == "unpack" {
				fmt.Println("unpacking")
				time.Sleep(time.Minute)
			}
		}})
		return
	}
	cache := bare(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestInstallKilled$", "-test.v")
	cmd.Env = append(os.Environ(), marker+"=1", "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var seen []byte
	buffer := make([]byte, 1024)
	for !bytes.Contains(seen, []byte("unpacking")) {
		n, err := out.Read(buffer)
		seen = append(seen, buffer[:n]...)
		if err != nil {
			t.Fatalf("the installing process ended early: %s", seen)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()

	if _, err := os.Stat(filepath.Join(cache, "pjrt", "cpu")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder of the plugin exists (%v)", err)
	}
	engine, choice, err := backend.Open(t.Context(), backend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	engine.Finalize()
	if choice.Name != "go" {
		t.Errorf("choice is %+v, want pure Go", choice)
	}
	pin, content := fakeWheel(t, goodLibrary(t).bytes(t))
	if _, err := backend.Install(t.Context(), backend.InstallOptions{NoGoMLX: true, Wheel: &pin, Fetch: fetching(content)}); err != nil {
		t.Fatal(err)
	}
	if list := files(t, cache); len(list) != 2 {
		t.Errorf("files are %v, want the plugin and its record only", list)
	}
}

// The real pip, with its own configuration pointing at a folder with a fake wheel.
func TestInstallWithPip(t *testing.T) {
	pin, content := fakeWheel(t, goodLibrary(t).bytes(t))
	if err := exec.Command("python3", "-m", "pip", "--version").Run(); err != nil {
		t.Skipf("needs python3 with pip: %v", err)
	}
	cache := bare(t)
	index := t.TempDir()
	name := filepath.Join(index, "elastic_fake_plugin-1.2.3-py3-none-any.whl")
	// Names that leave the archive are for other tests: pip must be able to read this one.
	plain := zipOf(t, map[string]string{
		pin.Library: string(goodLibrary(t).bytes(t)),
		"elastic_fake_plugin-1.2.3.dist-info/METADATA": "Metadata-Version: 2.1\nName: elastic-fake-plugin\nVersion: 1.2.3\n",
		"elastic_fake_plugin-1.2.3.dist-info/WHEEL":    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		"elastic_fake_plugin-1.2.3.dist-info/RECORD":   "",
	})
	if err := os.WriteFile(name, plain, 0o666); err != nil {
		t.Fatal(err)
	}
	_ = content
	t.Setenv("PIP_NO_INDEX", "1")
	t.Setenv("PIP_FIND_LINKS", index)
	got, err := backend.Install(t.Context(), backend.InstallOptions{NoGoMLX: true, Wheel: &pin})
	if err != nil {
		t.Fatal(err)
	}
	if got.SHA256 != pin.SHA256 || len(files(t, cache)) != 2 {
		t.Errorf("got %+v and files %v", got, files(t, cache))
	}
	t.Run("not in the index", func(t *testing.T) {
		pin.Version = "9.9.9"
		_, err := backend.Install(t.Context(), backend.InstallOptions{NoGoMLX: true, Force: true, Wheel: &pin})
		if err == nil || !strings.Contains(err.Error(), "fetching elastic-fake-plugin==9.9.9: pip: ") || !strings.Contains(err.Error(), "No matching distribution") {
			t.Errorf("error is %v, want pip's reason", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel) // while pip starts
		if _, err := backend.Install(ctx, backend.InstallOptions{NoGoMLX: true, Force: true, Wheel: &pin}); !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v, want context.Canceled", err)
		}
	})
}

func TestInstallWithoutPython(t *testing.T) {
	pin, _ := fakeWheel(t, goodLibrary(t).bytes(t))
	bare(t)
	t.Setenv("PATH", t.TempDir())
	_, err := backend.Install(t.Context(), backend.InstallOptions{NoGoMLX: true, Wheel: &pin})
	if err == nil || !strings.Contains(err.Error(), "python3 is not installed") || !strings.Contains(err.Error(), "install python3 with pip") {
		t.Errorf("error is %v, want that python3 is missing", err)
	}
}

// Without its server, GoMLX's installer is passed over quickly, and the result says so.
func TestInstallFallsThrough(t *testing.T) {
	pin, content := fakeWheel(t, goodLibrary(t).bytes(t))
	closed := httptest.NewServer(nil)
	closed.Close()
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }))
	defer broken.Close()
	for _, test := range []struct{ name, address, want string }{
		{"no server", closed.URL, "GoMLX's installer: its server does not answer"},
		{"refusing server", broken.URL, "GoMLX's installer: its server answers 403 Forbidden"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cache := bare(t)
			defer backend.SetGoMLXServer(test.address)()
			got, err := backend.Install(t.Context(), backend.InstallOptions{Wheel: &pin, Fetch: fetching(content)})
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Notes) != 1 || !strings.HasPrefix(got.Notes[0], test.want) {
				t.Errorf("notes are %q, want %q", got.Notes, test.want)
			}
			_, err = backend.Install(t.Context(), backend.InstallOptions{Force: true, Wheel: &pin, Fetch: fetching(nil)})
			if err == nil || !strings.Contains(err.Error(), "(before that, "+test.want) {
				t.Errorf("error is %v, want both reasons", err)
			}
			if list := files(t, cache); len(list) != 2 {
				t.Errorf("files are %v, want the plugin and its record", list)
			}
		})
	}
}
