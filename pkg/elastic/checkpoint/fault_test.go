package checkpoint_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
)

// faulty lets the call of one index fail, of all that make, write and close files.
type faulty struct {
	calls, failAt int
	err           error // nil: write half and say so, but give no reason
}

func (f *faulty) fails() bool {
	f.calls++
	return f.calls-1 == f.failAt
}

func (f *faulty) create(path string) (io.WriteCloser, error) {
	if f.fails() && f.err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: f.err}
	}
	file, err := checkpoint.CreateFile(path)
	return &faultyFile{f, file}, err
}

type faultyFile struct {
	*faulty
	file io.WriteCloser
}

func (f *faultyFile) Write(p []byte) (int, error) {
	if f.fails() {
		n, err := f.file.Write(p[:len(p)/2])
		return n, errors.Join(f.err, err)
	}
	return f.file.Write(p)
}

func (f *faultyFile) Close() error {
	err := f.file.Close()
	if f.fails() && f.err != nil {
		return f.err
	}
	return err
}

// TestFaultAtEveryCall lets each call of a save fail in turn, over a checkpoint that is there and as a new one.
func TestFaultAtEveryCall(t *testing.T) {
	counter := &faulty{failAt: -1}
	if err := checkpoint.SaveThrough(counter.create, filepath.Join(t.TempDir(), "x"), sample(1)); err != nil {
		t.Fatal(err)
	}
	if counter.calls < 15 {
		t.Fatalf("got %d calls, want a sample that makes more", counter.calls)
	}
	for name, fault := range map[string]error{"no space": syscall.ENOSPC, "input/output": syscall.EIO, "read-only": syscall.EROFS, "short write": nil} {
		failed := 0
		for i := range counter.calls {
			run := checkpoint.Run{Dir: t.TempDir()}
			if _, err := run.Save(sample(1)); err != nil {
				t.Fatal(err)
			}
			for _, step := range []int{1, 2} {
				next := sample(2)
				err := checkpoint.SaveThrough((&faulty{failAt: i, err: fault}).create, run.Path(step), next)
				switch {
				case err == nil && fault != nil:
					t.Errorf("%s at call %d: no error", name, i)
				case err == nil: // a short write at a call that does not write
					continue
				case fault != nil && !errors.Is(err, fault), fault == nil && !errors.Is(err, io.ErrShortWrite):
					t.Errorf("%s at call %d: got %v", name, i, err)
				case !strings.Contains(err.Error(), run.Path(step)):
					t.Errorf("%s at call %d: %v does not name the folder", name, i, err)
				case fault == syscall.ENOSPC && !strings.Contains(err.Error(), "no space left on the disk"):
					t.Errorf("%s at call %d: %v does not say what to do", name, i, err)
				case fault == syscall.EROFS && !strings.Contains(err.Error(), "choose another folder"):
					t.Errorf("%s at call %d: %v does not say what to do", name, i, err)
				}
				failed++
				f, err := run.Latest()
				if err != nil {
					t.Fatalf("%s at call %d: %v", name, i, err)
				}
				checkSample(t, f, 1)
				if diff := cmp.Diff([]string{"step-000001"}, entries(t, filepath.Dir(f.Dir))); diff != "" {
					t.Errorf("%s at call %d: files (-want +got):\n%s", name, i, diff)
				}
			}
			if t.Failed() {
				return
			}
		}
		t.Logf("%s: %d of %d saves failed, as they should", name, failed, 2*counter.calls)
	}
}

func TestErrorOfAWriterIsReported(t *testing.T) {
	reason := errors.New("the device is gone")
	dir := filepath.Join(t.TempDir(), "x")
	err := checkpoint.Save(dir, checkpoint.Checkpoint{Files: []checkpoint.File{
		{Name: "model.safetensors", Write: func(io.Writer) error { return reason }},
	}})
	if !errors.Is(err, reason) || !strings.Contains(err.Error(), "file model.safetensors: the device is gone") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is there: %v", err)
	}
}

// TestFileInTheWay works for every user, also for one whom permissions do not bind.
func TestFileInTheWay(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "checkpoint"), filepath.Join(file, "a", "b")} {
		err := checkpoint.Save(path, sample(1))
		if err == nil || !strings.Contains(err.Error(), file+" is there and is not a folder") {
			t.Errorf("%s: got %v, want an error that says that %s is not a folder", path, err, file)
		}
	}
	if _, err := (checkpoint.Run{Dir: file}).Save(sample(1)); err == nil || !strings.Contains(err.Error(), "is not a folder") {
		t.Errorf("got %v", err)
	}
}
