package cachedir

import (
	"os"
	"path/filepath"
	"testing"
)

func TestHome(t *testing.T) {
	t.Setenv(Env, "here")
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if dir, err := Home(); err != nil || dir != filepath.Join(here, "here") {
		t.Errorf("with %s: %q, %v", Env, dir, err)
	}
	t.Setenv(Env, "")
	user, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if dir, err := Home(); err != nil || dir != filepath.Join(user, "elastic") {
		t.Errorf("without %s: %q, %v", Env, dir, err)
	}
}
