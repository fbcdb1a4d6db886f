package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestApply(t *testing.T) {
	write := func(content string) (dir string) {
		dir = t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "a.go"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	twice := []change{{"it is fast", "a.go", "slow", "fast", 2}}
	dir := write("slow, slow")
	if err := apply(dir, twice); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "a.go")); err != nil || string(got) != "fast, fast" {
		t.Errorf("content %q, error %v", got, err)
	}
	for _, content := range []string{"slow", "slow, slow, slow", ""} {
		if err := apply(write(content), twice); err == nil || !strings.Contains(err.Error(), "so that it is fast: a.go has the text \"slow\"") {
			t.Errorf("content %q: error %v", content, err)
		}
	}
	if err := apply(t.TempDir(), twice); err == nil {
		t.Error("a file that is not there is changed")
	}
}
