// Package atomicfile writes files and folders that are either complete or absent.
//
// The way is always the same: write a sibling under a temporary name, bring its
// bytes to the disk, rename it to the final name, bring the folder's entry to
// the disk. A reader that opens the final name sees the old content or the new
// one, whatever kills the writer:
//
//	err := atomicfile.Write("run/state.json", func(w io.Writer) error {
//		return json.NewEncoder(w).Encode(state)
//	})
//
// [WriteDir] does the same for a folder. Where the system can exchange two
// folders in one step (Linux), replacing is atomic. Elsewhere there is a moment
// in which the old folder lies aside and the new one is not yet in place;
// [Recover], called before the folder is opened, repairs what a crash in that
// moment left. Recover also removes temporary files and folders of writers that
// died, and leaves those of living writers alone.
package atomicfile

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

const bufferBytes = 1 << 16

// Write gives path the content that write produces, or leaves path as it was.
//
// The writer is buffered. The folder must exist. An existing file is replaced,
// and so is a symbolic link (not the file that it points to). An error of write
// is returned wrapped; nothing is left behind then.
func Write(path string, write func(io.Writer) error) error {
	temp, file, err := create(path, func(name string) (*os.File, error) {
		return os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	})
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, Explain(err, filepath.Dir(path)))
	}
	buffer := bufio.NewWriterSize(file, bufferBytes)
	if err = write(buffer); err == nil {
		err = buffer.Flush()
	}
	if err == nil {
		err = file.Sync()
	}
	if runtime.GOOS == "windows" {
		_ = file.Close() // an open file cannot be renamed there
	}
	if err == nil {
		err = replaceFile(temp, path)
	}
	// Elsewhere it is closed only now: the open file holds the lock that keeps Recover away.
	// Sync has already reported what Close could.
	_ = file.Close()
	if err == nil {
		err = SyncDir(filepath.Dir(path))
	} else {
		_ = os.Remove(temp)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, Explain(err, filepath.Dir(path)))
	}
	return nil
}

// WriteFile is [Write] for content that is at hand.
func WriteFile(path string, content []byte) error {
	return Write(path, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// WriteDir gives path the folder that fill produces in the empty folder temp, or
// leaves path as it was. All files below temp are brought to the disk before temp
// takes the final name; fill need not do that, but must close its files.
//
// An existing folder is replaced as a whole: files that it had and the new one
// has not are gone. If path is something other than a folder, WriteDir refuses.
func WriteDir(path string, fill func(temp string) error) error {
	path = filepath.Clean(path)
	parent := filepath.Dir(path)
	if err := writeDir(path, parent, fill); err != nil {
		return fmt.Errorf("writing folder %s: %w", path, Explain(err, parent))
	}
	return nil
}

func writeDir(path, parent string, fill func(temp string) error) error {
	if err := Recover(path); err != nil {
		return err
	}
	if _, err := existsAsDir(path); err != nil {
		return err
	}
	temp, lock, err := create(path, func(name string) (*os.File, error) {
		if err := os.Mkdir(name, 0o777); err != nil {
			return nil, err
		}
		return os.Open(name)
	})
	if err != nil {
		return err
	}
	defer lock.Close()
	err = fill(temp)
	if err == nil {
		err = syncTree(temp)
	}
	if runtime.GOOS == "windows" {
		_ = lock.Close()
	}
	if err == nil {
		err = replaceDir(temp, path)
	}
	if err != nil {
		_ = os.RemoveAll(temp)
		return err
	}
	return SyncDir(parent)
}

// replaceDir moves temp to path and removes what was there.
func replaceDir(temp, path string) error {
	exists, err := existsAsDir(path)
	if err != nil {
		return err
	}
	if !exists {
		return os.Rename(temp, path)
	}
	switch err := exchange(temp, path); {
	case err == nil: // temp is the old folder now
		if err := SyncDir(filepath.Dir(path)); err != nil {
			return err
		}
		return os.RemoveAll(temp)
	case !errors.Is(err, errors.ErrUnsupported):
		return err
	}
	return replaceDirInTwoSteps(temp, path)
}

// replaceDirInTwoSteps is for systems without exchange. After a crash between
// the renames only the old folder exists, under the name that Recover knows.
func replaceDirInTwoSteps(temp, path string) error {
	old := oldName(path)
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Rename(path, old); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Rename(old, path))
	}
	if err := SyncDir(filepath.Dir(path)); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

// Recover repairs and tidies what a writer of path that was killed has left:
// if path is absent and the old folder lies aside, it gets its name back; stale
// temporary files and folders are removed. Call it before opening a folder that
// [WriteDir] writes. With nothing to do, in a folder that does not exist, or
// while another process is writing path, it does nothing. In a folder that
// cannot be written it only fails if path is absent and should be there.
func Recover(path string) error {
	path = filepath.Clean(path)
	parent := filepath.Dir(path)
	entries, err := os.ReadDir(parent)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("looking for leftovers of %s: %w", path, err)
	}
	var stale []string
	aside := false
	for _, entry := range entries {
		switch name := filepath.Join(parent, entry.Name()); {
		case name == oldName(path):
			aside = true
		case isTempOf(path, entry.Name()):
			if isLive(name) {
				return nil
			}
			stale = append(stale, name)
		}
	}
	if aside {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			if err := os.Rename(oldName(path), path); err != nil {
				return fmt.Errorf("bringing back %s from %s: %w", path, oldName(path), Explain(err, parent))
			}
			if err := SyncDir(parent); err != nil {
				return err
			}
		} else {
			stale = append(stale, oldName(path))
		}
	}
	for _, name := range stale {
		_ = os.RemoveAll(name) // only tidying: a read-only folder must still be readable
	}
	return nil
}

// Commit brings the bytes of the file temp to the disk and gives it the name
// path, for a file that was written in several sittings. Both must lie on the
// same file system.
func Commit(temp, path string) error {
	file, err := os.OpenFile(temp, os.O_RDWR, 0)
	if err == nil {
		err = file.Sync()
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
	}
	if err == nil {
		err = replaceFile(temp, path)
	}
	if err == nil {
		err = SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, Explain(err, filepath.Dir(path)))
	}
	return nil
}

// Explain wraps an error that has a plain cause (no space left, read-only, no
// permission, no folder) with what the cause is and what to do; other errors come back as they are.
func Explain(err error, dir string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("no space left on the disk of %s, free some or choose another folder: %w", dir, err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s is on a read-only file system, choose another folder: %w", dir, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be written by this user, change its permissions or choose another folder: %w", dir, err)
	case errors.Is(err, fs.ErrNotExist):
		if _, missing := os.Stat(dir); errors.Is(missing, fs.ErrNotExist) {
			return fmt.Errorf("there is no folder %s, make it or choose another: %w", dir, err)
		}
	}
	return err
}

// SyncDir brings the entries of a folder to the disk, where the system can do that.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer file.Close()
	err = file.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil // some network file systems cannot sync a folder
	}
	return err
}

func replaceFile(temp, path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a folder, want a file or nothing", path)
	}
	return os.Rename(temp, path)
}

// create makes a temporary sibling of path and locks it, so that Recover in
// another process knows that its writer lives.
func create(path string, open func(name string) (*os.File, error)) (string, *os.File, error) {
	for {
		name := tempName(path)
		file, err := open(name)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", nil, err
		}
		// A Recover elsewhere may have come between making and locking; then take another name.
		if hold(file) && stillThere(name, file) {
			return name, file, nil
		}
		_ = file.Close()
	}
}

func stillThere(name string, file *os.File) bool {
	byName, err := os.Lstat(name)
	if err != nil {
		return false
	}
	byFile, err := file.Stat()
	return err == nil && os.SameFile(byName, byFile)
}

// isLive reports whether the writer of the temporary file or folder is still at work.
func isLive(name string) bool {
	file, err := os.Open(name)
	if err != nil {
		return false
	}
	defer file.Close()
	return held(file)
}

// syncTree brings all files and folders below root to the disk.
func syncTree(root string) error {
	return filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return SyncDir(name)
		case !entry.Type().IsRegular():
			return nil
		}
		flag := os.O_RDONLY
		if runtime.GOOS == "windows" {
			flag = os.O_RDWR // FlushFileBuffers needs it
		}
		file, err := os.OpenFile(name, flag, 0)
		if err != nil {
			return err
		}
		defer file.Close()
		return file.Sync()
	})
}

// existsAsDir reports whether path is there; something else than a folder is an error.
func existsAsDir(path string) (bool, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !info.IsDir():
		return false, fmt.Errorf("%s is there and is not a folder (%s): move it away or choose another name", path, info.Mode().Type())
	}
	return true, nil
}

const tempMark = ".tmp-"

func tempName(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+tempMark+rand.Text()[:12])
}

func isTempOf(path, name string) bool {
	rest, ok := strings.CutPrefix(name, "."+filepath.Base(path)+tempMark)
	return ok && len(rest) == 12
}

func oldName(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".old")
}
