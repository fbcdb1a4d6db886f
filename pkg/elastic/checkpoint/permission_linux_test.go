package checkpoint_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
)

// asNobody runs f as a user whom permissions bind, also if we are root.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0); errno != 0 {
			t.Error(errno)
			return
		}
		f()
	}()
	<-done
}

func TestReadOnlyFolder(t *testing.T) {
	run := checkpoint.Run{Dir: t.TempDir()}
	if _, err := run.Save(sample(1)); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(run.Path(1)); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o555); err != nil {
			break // not ours
		}
		t.Cleanup(func() { _ = os.Chmod(dir, 0o755) })
	}
	asNobody(t, func() {
		for _, path := range []string{run.Path(1), run.Path(2), filepath.Join(run.Dir, "new", "checkpoint")} {
			err := checkpoint.Save(path, sample(2))
			if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "may not be written by this user") || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: got %v, want a permission error that says what to do", path, err)
			}
		}
		f, err := run.Latest()
		if err != nil {
			t.Errorf("what can be read is not read: %v", err)
			return
		}
		checkSample(t, f, 1)
	})
}
