package run

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/modfile"
)

// DiffFile is written into the folder of a run whose program was built from changes that were not committed: in what the
// working tree differed from the commit that the record names, in git's format.
const DiffFile = "code.diff"

// mostDiff is how many bytes of a diff are kept. Its checksum is over all of it.
const mostDiff = 1 << 20

// code is what tells a program from others of the same commit, and of none.
type code struct {
	executable string // SHA-256 of the program's file
	revision   string // of the working tree
	sum        string // SHA-256 of the diff; empty if there is none
	diff       []byte // the first bytes of it
}

// uncommitted looks at the program and at the source in the working directory, unless the program says that it was built
// from a commit as it is; nothing is known of tests. It looks once, when the first run begins: what is changed later is not
// what the program was built from. The diff may still be newer than the program, which the checksum of its file then tells.
var uncommitted = sync.OnceValue(func() (c code) {
	info, ok := debug.ReadBuildInfo()
	if !ok || setting(info, "vcs.modified") == "false" || strings.HasSuffix(info.Path, ".test") {
		return c
	}
	if path, err := os.Executable(); err == nil {
		c.executable, _ = Checksum(path) // a program that is gone by now has none
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if root := moduleRoot(info.Main.Path); root != "" {
		if seen, err := workingTree(ctx, root); err == nil { // without git, or with a repository that cannot be read, nothing is known
			c.revision, c.sum, c.diff = seen.revision, seen.sum, seen.diff
		}
	}
	return c
})

func setting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

// moduleRoot returns the folder of a module's source if the working directory is in it.
func moduleRoot(module string) string {
	dir, err := os.Getwd()
	for err == nil && module != "" {
		if content, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil {
			if modfile.ModulePath(content) != module {
				return ""
			}
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
	return ""
}

// workingTree returns the last commit of a module's source, and in what the source differs from it: files that git knows, and
// Go files that it does not know.
func workingTree(ctx context.Context, root string) (c code, err error) {
	git := func(out io.Writer, args ...string) error {
		command := exec.CommandContext(ctx, "git", args...)
		command.Dir, command.Stdout = root, out
		command.Env = append(os.Environ(), "GIT_OPTIONAL_LOCKS=0", "LC_ALL=C")
		if err := command.Run(); err != nil {
			return fmt.Errorf("git %s in %s: %w", args[0], root, err)
		}
		return nil
	}
	var revision, unknown bytes.Buffer
	all := &bounded{hash: sha256.New()}
	plain := []string{"diff", "--no-color", "--no-ext-diff", "--no-textconv", "--binary"}
	if err := git(&revision, "rev-parse", "HEAD"); err != nil {
		return c, err
	}
	if err := git(all, append(plain, "HEAD", "--", ".")...); err != nil {
		return c, err
	}
	if err := git(&unknown, "ls-files", "-z", "--others", "--exclude-standard", "--", "*.go", "go.mod", "go.sum"); err != nil {
		return c, err
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(unknown.String(), "\x00"), "\x00") {
		if name == "" {
			break
		}
		var exit *exec.ExitError
		if err := git(all, append(plain, "--no-index", "--", os.DevNull, name)...); err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) { // 1 says that they differ
			return c, err
		}
	}
	c.revision = strings.TrimSpace(revision.String())
	if all.n > 0 {
		c.sum, c.diff = hex.EncodeToString(all.hash.Sum(nil)), all.kept
	}
	if all.n > mostDiff {
		c.diff = fmt.Appendf(c.diff, "\n%d more bytes are left out.\n", all.n-mostDiff)
	}
	return c, nil
}

// bounded hashes what is written, and keeps its beginning.
type bounded struct {
	hash hash.Hash
	n    int
	kept []byte
}

func (b *bounded) Write(p []byte) (int, error) {
	b.kept = append(b.kept, p[:min(len(p), max(mostDiff-b.n, 0))]...)
	b.n += len(p)
	return b.hash.Write(p)
}
