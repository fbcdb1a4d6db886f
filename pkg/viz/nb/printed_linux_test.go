package nb

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

func TestAwaitRead(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	awaitRead(int(w.Fd())) // nothing to wait for
	for range 20 {
		if _, err := w.WriteString("printed"); err != nil {
			t.Fatal(err)
		}
		var begun atomic.Bool
		go func() {
			time.Sleep(2 * time.Millisecond) // a reader that is late
			begun.Store(true)
			_, _ = r.Read(make([]byte, 64))
		}()
		if awaitRead(int(w.Fd())); !begun.Load() {
			t.Error("did not wait for the reader")
		}
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	awaitRead(int(file.Fd())) // no pipe
}
