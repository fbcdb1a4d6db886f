package run

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestWorkingTree: two trees of one commit have the same sum only if they are the same.
func TestWorkingTree(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	root := t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		command := exec.Command("git", append([]string{"-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"}, args...)...)
		command.Dir = root
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	look := func() code {
		t.Helper()
		c, err := workingTree(t.Context(), root)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if _, err := workingTree(t.Context(), root); err == nil {
		t.Error("a folder without a repository is one")
	}
	git("init", "-q")
	write("go.mod", "module example.org/x\n")
	write("a.go", "package x\n")
	write(".gitignore", "ignored.go\n")
	git("add", ".")
	git("commit", "-qm", "first")
	write("ignored.go", "package y\n")
	write("notes.txt", "not code")
	clean := look()
	if clean.revision != git("rev-parse", "HEAD") || clean.sum != "" || clean.diff != nil {
		t.Errorf("clean: %+v", clean)
	}
	seen := map[string]string{}
	for _, change := range []func(){
		func() { write("a.go", "package x // changed\n") },
		func() { git("add", "a.go") }, // the same tree
		func() { write("new file.go", "package x\n") },
		func() { write("new file.go", "package x // changed\n") },
		func() { write("empty.go", "") },
	} {
		change()
		c := look()
		sum := sha256.Sum256(c.diff)
		if c.sum != hex.EncodeToString(sum[:]) {
			t.Errorf("the sum is not that of the diff:\n%s", c.diff)
		}
		seen[c.sum] = string(c.diff)
	}
	if len(seen) != 4 {
		t.Errorf("%d different trees, want 4: %q", len(seen), seen)
	}
	if last := string(look().diff); !strings.Contains(last, "+package x // changed") || !strings.Contains(last, "new file.go") || strings.Contains(last, "ignored") {
		t.Errorf("diff %s", last)
	}
	write("a.go", strings.Repeat("// long\n", mostDiff/8))
	if c := look(); len(c.diff) > mostDiff+100 || !strings.HasSuffix(string(c.diff), "more bytes are left out.\n") {
		t.Errorf("a long diff is kept with %d bytes", len(c.diff))
	}
	t.Chdir(root)
	if moduleRoot("example.org/x") == "" || moduleRoot("example.org/y") != "" {
		t.Errorf("the source is found in %q, that of another module in %q", moduleRoot("example.org/x"), moduleRoot("example.org/y"))
	}
}
