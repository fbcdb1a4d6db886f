// Package golden finds reference vectors that other programs computed.
//
// A test asks for a folder by the name that it has in the collection of golden
// vectors ("seqeval", "checkpoints/bert"). The environment variable
// ELASTIC_GOLDEN_DIR names another collection of the same layout, made with
// other seeds and shapes; tests must pass on it unchanged.
package golden

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// DirEnv names another collection of golden vectors.
const DirEnv = "ELASTIC_GOLDEN_DIR"

// Dir returns the folder of one kind of golden vectors: below ELASTIC_GOLDEN_DIR
// if that is set, else below testdata/golden of the package under test, else
// below shared/golden in one of the parent folders. The test fails if there is none,
// and is skipped if a collection that the variable names has none of this kind.
func Dir(tb testing.TB, name string) string {
	tb.Helper()
	if root := os.Getenv(DirEnv); root != "" {
		dir := filepath.Join(root, filepath.FromSlash(name))
		if !isDir(root) {
			tb.Fatalf("%s=%s is no folder", DirEnv, root)
		}
		if !isDir(dir) { // a collection need not have every kind
			tb.Skipf("%s=%s has no folder %s", DirEnv, root, name)
		}
		return dir
	}
	if dir := filepath.Join("testdata", "golden", filepath.FromSlash(name)); isDir(dir) {
		return dir
	}
	if dir := shared("golden/" + name); dir != "" {
		return dir
	}
	tb.Fatalf("no golden vectors %q: neither in testdata/golden nor in a shared folder beside the checkout; set %s", name, DirEnv)
	return ""
}

// Cases returns what the manifest of a folder lists, each case decoded into a C. The test fails if
// there is none.
func Cases[C any](tb testing.TB, dir string) []C {
	tb.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		tb.Fatal(err)
	}
	var manifest struct {
		Cases []C `json:"cases"`
	}
	if err := json.Unmarshal(content, &manifest); err != nil {
		tb.Fatalf("%s: %v", dir, err)
	}
	if len(manifest.Cases) == 0 {
		tb.Fatalf("the manifest of %s lists no case", dir)
	}
	return manifest.Cases
}

// Shared returns a path below the shared folder that lies beside the checkout.
// What lies there may not be copied into the repository, so the test is skipped
// where the folder is absent. Paths below "golden/" follow ELASTIC_GOLDEN_DIR.
func Shared(tb testing.TB, name string) string {
	tb.Helper()
	if rest, ok := cutGolden(name); ok && os.Getenv(DirEnv) != "" {
		return Dir(tb, rest)
	}
	path := shared(name)
	if path == "" {
		tb.Skipf("needs %s in the shared folder beside the checkout", name)
	}
	return path
}

func cutGolden(name string) (string, bool) {
	const prefix = "golden/"
	if len(name) > len(prefix) && name[:len(prefix)] == prefix {
		return name[len(prefix):], true
	}
	return "", false
}

// shared walks up from the working directory, which is the package's folder in a test.
func shared(name string) string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	for {
		path := filepath.Join(dir, "shared", filepath.FromSlash(name))
		if _, err := os.Stat(path); err == nil {
			return path
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
