package atomicfile_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/google/go-cmp/cmp"
)

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, entry := range entries {
		all = append(all, entry.Name())
	}
	return all
}

func filler(content string) func(string) error {
	return func(temp string) error {
		return os.WriteFile(filepath.Join(temp, "weights"), []byte(content), 0o644)
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	for _, content := range []string{"one", strings.Repeat("two", 100_000), ""} {
		if err := atomicfile.WriteFile(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got := read(t, path); got != content {
			t.Errorf("got %d bytes, want %d", len(got), len(content))
		}
	}
	if diff := cmp.Diff([]string{"state.json"}, names(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestWriteFails(t *testing.T) {
	boom := errors.New("boom")
	tests := []struct {
		name  string
		write func(io.Writer) error
		is    error
		text  string
	}{
		{"own error", func(w io.Writer) error { fmt.Fprint(w, "half"); return boom }, boom, "boom"},
		{"disk full", func(w io.Writer) error {
			return &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
		}, syscall.ENOSPC, "no space left on the disk"},
		{"read-only", func(w io.Writer) error {
			return &fs.PathError{Op: "write", Path: "x", Err: syscall.EROFS}
		}, syscall.EROFS, "read-only file system"},
		{"permission", func(w io.Writer) error {
			return &fs.PathError{Op: "write", Path: "x", Err: syscall.EACCES}
		}, fs.ErrPermission, "permissions"},
	}
	for _, test := range tests {
		for _, before := range []string{"", "old"} {
			t.Run(test.name+"/"+before, func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "state")
				var want []string
				if before != "" {
					if err := os.WriteFile(path, []byte(before), 0o644); err != nil {
						t.Fatal(err)
					}
					want = []string{"state"}
				}
				err := atomicfile.Write(path, test.write)
				if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.text) || !strings.Contains(err.Error(), path) {
					t.Errorf("got error %v, want one with %q and the path", err, test.text)
				}
				if diff := cmp.Diff(want, names(t, dir)); diff != "" {
					t.Errorf("files (-want +got):\n%s", diff)
				}
				if before != "" && read(t, path) != before {
					t.Error("the old content is lost")
				}
				err = atomicfile.WriteDir(filepath.Join(dir, "folder"), func(temp string) error {
					if err := filler("half")(temp); err != nil {
						return err
					}
					return test.write(io.Discard)
				})
				if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.text) {
					t.Errorf("WriteDir: got error %v, want one with %q", err, test.text)
				}
				if diff := cmp.Diff(want, names(t, dir)); diff != "" {
					t.Errorf("files after WriteDir (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func TestWriteWhereNothingCanBe(t *testing.T) {
	dir := t.TempDir()
	if err := atomicfile.WriteFile(filepath.Join(dir, "absent", "x"), nil); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "there is no folder "+filepath.Join(dir, "absent")) {
		t.Errorf("no folder: got %v, want fs.ErrNotExist that names it", err)
	}
	if err := atomicfile.WriteFile(dir, nil); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("folder in the way: got %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.WriteDir(file, filler("x")); err == nil || !strings.Contains(err.Error(), "not a folder") {
		t.Errorf("file in the way: got %v", err)
	}
	if read(t, file) != "mine" {
		t.Error("the file in the way is gone")
	}
}

// TestReadOnlyFolder needs a user whom permissions bind; root is told so by the kernel only for read-only mounts.
func TestReadOnlyFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o755)
	if os.Geteuid() == 0 {
		// /proc is a folder in which not even root can make a file.
		dir = "/proc"
		if _, err := os.Stat(dir); err != nil {
			t.Skip("runs as root on a system without /proc: nothing refuses to be written")
		}
	}
	if err := atomicfile.WriteFile(filepath.Join(dir, "elastic"), []byte("x")); err == nil {
		t.Error("got no error")
	}
	if err := atomicfile.WriteDir(filepath.Join(dir, "elastic"), filler("x")); err == nil {
		t.Error("got no error for a folder")
	}
}

func TestWriteDirReplaces(t *testing.T) {
	ways := map[string]func(path, content string) error{
		"exchange": func(path, content string) error { return atomicfile.WriteDir(path, filler(content)) },
		"two steps": func(path, content string) error {
			temp := path + "-next"
			if err := errors.Join(os.Mkdir(temp, 0o755), filler(content)(temp)); err != nil {
				return err
			}
			return atomicfile.ReplaceDirInTwoSteps(temp, path)
		},
	}
	for name, replace := range ways {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "best")
			if err := atomicfile.WriteDir(path, func(temp string) error {
				return errors.Join(filler("0")(temp), os.Mkdir(filepath.Join(temp, "sub"), 0o755),
					os.WriteFile(filepath.Join(temp, "sub", "only-in-the-first"), nil, 0o644))
			}); err != nil {
				t.Fatal(err)
			}
			for _, content := range []string{"1", "2"} {
				if err := replace(path, content); err != nil {
					t.Fatal(err)
				}
				if got := read(t, filepath.Join(path, "weights")); got != content {
					t.Errorf("got %q, want %q", got, content)
				}
			}
			if diff := cmp.Diff([]string{"weights"}, names(t, path)); diff != "" {
				t.Errorf("the new folder has parts of the old one (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{"best"}, names(t, dir)); diff != "" {
				t.Errorf("leftovers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRecover(t *testing.T) {
	tests := []struct {
		name string
		make []string // folders, each with a file that holds the folder's name
		want map[string]string
	}{
		{"nothing", nil, nil},
		{"only the folder", []string{"best"}, map[string]string{"best": "best"}},
		{"crash between the renames", []string{".best.old", ".best.tmp-ABCDEFGHIJKL"}, map[string]string{"best": ".best.old"}},
		{"crash before removing the old", []string{"best", ".best.old"}, map[string]string{"best": "best"}},
		{"crash while filling", []string{"best", ".best.tmp-ABCDEFGHIJKL"}, map[string]string{"best": "best"}},
		{"names of others", []string{".best.tmp-short", ".besten.old", ".other.tmp-ABCDEFGHIJKL"},
			map[string]string{".best.tmp-short": ".best.tmp-short", ".besten.old": ".besten.old", ".other.tmp-ABCDEFGHIJKL": ".other.tmp-ABCDEFGHIJKL"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range test.make {
				if err := errors.Join(os.Mkdir(filepath.Join(dir, name), 0o755), filler(name)(filepath.Join(dir, name))); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // the second time there is nothing to do
				if err := atomicfile.Recover(filepath.Join(dir, "best")); err != nil {
					t.Fatal(err)
				}
			}
			var got map[string]string
			for _, name := range names(t, dir) {
				if got == nil {
					got = map[string]string{}
				}
				got[name] = read(t, filepath.Join(dir, name, "weights"))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("folders (-want +got):\n%s", diff)
			}
		})
	}
	if err := atomicfile.Recover(filepath.Join(t.TempDir(), "absent", "best")); err != nil {
		t.Errorf("no parent folder: %v", err)
	}
}

func TestRecoverLeavesLivingWritersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "best")
	err := atomicfile.WriteDir(path, func(temp string) error {
		if err := atomicfile.Recover(path); err != nil {
			return err
		}
		return filler("kept")(temp) // fails if Recover has removed temp
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(path, "weights")); got != "kept" {
		t.Errorf("got %q", got)
	}
}

// TestKilledWriter kills a process that replaces a folder all the time, and looks at what is left.
func TestKilledWriter(t *testing.T) {
	if path := os.Getenv("ATOMICFILE_TEST_PATH"); path != "" {
		for i := 0; ; i++ {
			err := atomicfile.WriteDir(path, func(temp string) error {
				content := fmt.Sprint(i)
				return errors.Join(filler(content)(temp), os.WriteFile(filepath.Join(temp, "copy"), []byte(content), 0o644))
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	path := filepath.Join(t.TempDir(), "best")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for round := range 8 {
		command := exec.Command(self, "-test.run=^TestKilledWriter$")
		command.Env = append(os.Environ(), "ATOMICFILE_TEST_PATH="+path)
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		for { // until it has begun to write
			if _, err := os.Stat(path); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(5+7*round) * time.Millisecond)
		_ = command.Process.Kill()
		_ = command.Wait()
		if err := atomicfile.Recover(path); err != nil {
			t.Fatal(err)
		}
		if a, b := read(t, filepath.Join(path, "weights")), read(t, filepath.Join(path, "copy")); a != b {
			t.Fatalf("round %d: the folder is a mix of %s and %s", round, a, b)
		}
		if diff := cmp.Diff([]string{"best"}, names(t, filepath.Dir(path))); diff != "" {
			t.Fatalf("round %d: leftovers (-want +got):\n%s", round, diff)
		}
	}
}

func TestConcurrentWriters(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range 20 {
				if err := atomicfile.WriteFile(path, []byte(strings.Repeat(fmt.Sprint(i), 5000))); err != nil {
					t.Error(err)
				}
				if content, err := os.ReadFile(path); err != nil || len(content) != 5000 || strings.Trim(string(content), string(content[:1])) != "" {
					t.Errorf("a reader sees a mixed file: %d bytes, %v", len(content), err)
				}
			}
		})
	}
	group.Wait()
	if diff := cmp.Diff([]string{"state"}, names(t, dir)); diff != "" {
		t.Errorf("leftovers (-want +got):\n%s", diff)
	}
}

func TestCommit(t *testing.T) {
	dir := t.TempDir()
	part, path := filepath.Join(dir, "model.part"), filepath.Join(dir, "model")
	if err := os.WriteFile(part, []byte("all"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Commit(part, path); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got != "all" {
		t.Errorf("got %q", got)
	}
	if err := atomicfile.Commit(part, path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}

func ExampleWrite() {
	dir, _ := os.MkdirTemp("", "example")
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "notes.txt")

	err := atomicfile.Write(path, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, "first version")
		return err
	})
	fmt.Println(err)

	// The second version fails half-way, so the first one stays.
	err = atomicfile.Write(path, func(w io.Writer) error {
		fmt.Fprint(w, "second ver")
		return errors.New("out of ideas")
	})
	fmt.Println(strings.HasSuffix(err.Error(), "out of ideas"))
	content, _ := os.ReadFile(path)
	fmt.Print(string(content))
	// Output:
	// <nil>
	// true
	// first version
}
