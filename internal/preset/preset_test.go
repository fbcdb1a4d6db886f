package preset_test

import (
	"embed"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/internal/preset"
)

type config struct {
	Size int `json:"size"`
}

func (c config) Validate() error {
	if c.Size < 1 {
		return errors.New("size is too small")
	}
	return nil
}

//go:embed presets/*.json
var files embed.FS

func TestFiles(t *testing.T) {
	all := preset.Files[config]{What: "thing", FS: files}
	if got := all.Names(); !slices.Equal(got, []string{"small", "wrong"}) {
		t.Errorf("names %q", got)
	}
	if c, err := all.Get("small"); err != nil || c.Size != 3 {
		t.Errorf("%+v, %v", c, err)
	}
	path := filepath.Join(t.TempDir(), "mine.json")
	write := func(content string) error {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := all.Read(path)
		return err
	}
	if err := write(`{"size": 1}`); err != nil {
		t.Error(err)
	}
	_, wrong := all.Get("wrong")
	_, unknown := all.Get("large")
	_, folder := all.Get(t.TempDir())
	_, missing := all.Read(path + "x")
	for want, err := range map[string]error{
		"wrong: size is too small": wrong,
		"is a folder, want a thing that comes with the program (small, wrong), or a file that holds one, such as thing.json in": folder,
		`no thing "large" and no such file; known: small, wrong`:                                                                unknown,
		"reading a thing: open":                  missing,
		path + " is empty, want a thing in JSON": write(" \n"),
		path + `: unknown field "sise", want size; it should be a thing in JSON, such as thing.json in`: write(`{"sise": 1}`),
		path + ": line 1: invalid character 'a'":                                                        write("a,b\n1,2\n"),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

func TestRecipes(t *testing.T) {
	all := preset.Recipes[config]{"b": func() config { return config{2} }, "a": func() config { return config{1} }}
	if c, err := all.Get("b"); err != nil || c.Size != 2 || !slices.Equal(all.Names(), []string{"a", "b"}) {
		t.Errorf("%+v, %v, %q", c, err, all.Names())
	}
	if _, err := all.Get("c"); err == nil || err.Error() != `preset "c" is unknown; known: a, b` {
		t.Errorf("error %v", err)
	}
}
