package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/memo"
)

func TestNbCache(t *testing.T) {
	home := t.TempDir()
	t.Setenv("ELASTIC_CACHE_DIR", home)
	if out := run(t, "", "nb", "cache"); out.code != 0 || out.stdout != "" || !strings.Contains(out.stderr, "nothing is kept") {
		t.Errorf("%+v", out)
	}
	for _, name := range []string{"one", "two"} {
		if _, err := memo.Of(t.Context(), &memo.Cache{}, name, map[string]int{"steps": 3}, func() (int, error) { return 1, nil }); err != nil {
			t.Fatal(err)
		}
	}
	out := run(t, "", "nb", "cache", "two")
	if out.code != 0 || strings.Contains(out.stdout, "one") || !strings.Contains(out.stdout, `{"steps":3}`) {
		t.Errorf("%+v", out)
	}
	if out = run(t, "", "nb", "cache", "three"); out.code != 1 || !strings.Contains(out.stderr, `nothing named "three"`) {
		t.Errorf("%+v", out)
	}
	if out = run(t, "", "nb", "cache", "--clear", "--json"); out.code != 2 {
		t.Errorf("%+v", out)
	}
	var entries []memo.Entry
	if out = run(t, "", "nb", "cache", "--json"); json.Unmarshal([]byte(out.stdout), &entries) != nil || len(entries) != 2 || entries[0].Code["go"] == "" && entries[0].Code["executable"] == "" {
		t.Errorf("%+v", out)
	}
	if out = run(t, "", "nb", "cache", "--clear", "three"); out.code != 1 || !strings.Contains(out.stderr, `nothing named "three"`) {
		t.Errorf("%+v", out)
	}
	if err := os.MkdirAll(filepath.Join(home, "memo", "torn", "0"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out = ok(t, "nb", "cache", "torn"); !strings.Contains(out.stdout, "damaged") || strings.Contains(out.stdout, "0001-01-01") {
		t.Errorf("%+v", out)
	}
	if out = run(t, "", "nb", "cache", "--clear", "one"); out.code != 0 {
		t.Errorf("%+v", out)
	}
	if out = run(t, "", "nb", "cache"); strings.Contains(out.stdout, "one") || !strings.Contains(out.stdout, "two") {
		t.Errorf("%+v", out)
	}
}
