//go:build !linux

package atomicfile

import (
	"errors"
	"os"
	"time"
)

// exchange is not at hand: folders are replaced in two steps.
func exchange(_, _ string) error { return errors.ErrUnsupported }

// staleAfter is the age from which a temporary file counts as left behind.
const staleAfter = 24 * time.Hour

// hold does nothing: age stands in for a lock.
func hold(*os.File) bool { return true }

// held reports whether the file was touched within a day.
func held(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && time.Since(info.ModTime()) < staleAfter
}
