// Package cachedir names the folder for everything that can be fetched or made again.
package cachedir

import (
	"fmt"
	"os"
	"path/filepath"
)

// Env is the environment variable that names the folder.
const Env = "ELASTIC_CACHE_DIR"

// Home is $ELASTIC_CACHE_DIR, or the folder "elastic" in the user's cache folder. It may not exist yet.
func Home() (string, error) {
	if dir := os.Getenv(Env); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("looking for the cache folder: %w; %s names one", err, Env)
	}
	return filepath.Join(dir, "elastic"), nil
}
