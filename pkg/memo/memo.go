// Package memo keeps what took long to compute, so that it is computed once: by the cells of a notebook, which are
// programs of their own and share no values, and by programs that are run again.
//
//	cache := &memo.Cache{Tell: func(line string) { fmt.Fprintln(os.Stderr, line) }}
//	scores, err := memo.Of(ctx, cache, "scores", params, func() ([]float64, error) { return score(params) })
//	dir, err := cache.Folder(ctx, "model", params, func(dir string) error { return train(params).Save(dir) })
//
// A value is known by a name, by its parameters as JSON, and by the code that computes it: the function, the
// declarations of its package that it reaches by name, the packages of local modules that these import, the versions that
// go.mod files require of all other modules, and that of Go. See [Cache] for what that does not see. A change of any of these computes the value
// again, and [Cache.Tell] says which. A value that comes from the disk was checked against its checksum; one that is
// damaged is computed again. Errors are not kept.
//
// In a notebook, package viz/nb has the cache that fits.
package memo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/internal/cachedir"
)

// DefaultMaxBytes is how much a cache keeps that does not say.
const DefaultMaxBytes = 4 << 30

// Cache is a folder of values. The zero value is one below the user's cache folder. Processes may share a folder: of
// several that want the same value one computes it, and the others wait.
//
// What is not part of a value's identity, and so belongs into its parameters: the values of variables, those that the
// function captures included; the backend; files that it reads and answers that it gets; headers that the C
// of a package includes from other folders.
type Cache struct {
	// Dir is the folder, which is made. Empty means "memo" in $ELASTIC_CACHE_DIR, or in the folder "elastic" of the
	// user's cache folder.
	Dir string
	// MaxBytes bounds what is kept: when a value is added, those that were not used for longest go. 0 means
	// [DefaultMaxBytes].
	MaxBytes int64
	// Tell is told in a line where a value came from: why it is computed, or when it was. Nil tells nobody.
	Tell func(line string)
}

// Of returns the value of a name and parameters: one that was kept, or what compute returns.
//
// Values travel as [encoding/gob] does it. T must hold nothing that gob leaves out, such as fields that are not
// exported; that is an error before anything is computed. What the first caller gets has travelled too: so an empty slice is nil for all. A value
// that could not be written is returned all the same, and told.
func Of[T any](ctx context.Context, c *Cache, name string, params any, compute func() (T, error)) (T, error) {
	var zero T
	typ := reflect.TypeFor[T]()
	if err := keepable(typ, nil); err != nil {
		return zero, fmt.Errorf("memo %s: %w; keep it by Folder, or a part of it", name, err)
	}
	key, err := newKey(name, params, typ.String(), compute)
	if err != nil {
		return zero, err
	}
	var value, fresh T
	var computed, failed bool
	err = c.entry(ctx, key, func(dir string) error {
		value = zero
		return decode(filepath.Join(dir, valueFile), &value)
	}, func(dir string) (err error) {
		if fresh, err = compute(); err != nil {
			failed = true
			return err
		}
		computed = true
		return encode(filepath.Join(dir, valueFile), &fresh)
	})
	switch {
	case failed: // its own error, as it is
		return zero, err
	case err != nil && computed:
		c.tell(name, "it is not kept: %v", err)
		return fresh, nil
	case err != nil:
		return zero, fmt.Errorf("memo %s: %w", name, err)
	}
	return value, nil
}

const (
	recordFile = "memo.json"
	valueFile  = "value.gob"
	filesDir   = "files"
)

// Folder returns a folder of a name and parameters: one that was kept, or what fill puts into an empty one, which gets
// its lasting place when fill returns without an error. The content is not to be changed. It is for models and tensors,
// by their own formats.
func (c *Cache) Folder(ctx context.Context, name string, params any, fill func(dir string) error) (string, error) {
	key, err := newKey(name, params, filesDir, fill)
	if err != nil {
		return "", err
	}
	place, failed := "", false
	err = c.entry(ctx, key, func(dir string) error {
		place = filepath.Join(dir, filesDir)
		return nil
	}, func(dir string) error {
		files := filepath.Join(dir, filesDir)
		if err := os.Mkdir(files, 0o777); err != nil {
			return err
		}
		err := fill(files)
		failed = err != nil
		return err
	})
	if err != nil && !failed {
		err = fmt.Errorf("memo %s: %w", name, err)
	}
	return place, err
}

// Entry is a value that is kept.
type Entry struct {
	Name   string          `json:"name"`
	Params json.RawMessage `json:"params"`
	// Type is the Go type of the value, or "files".
	Type string `json:"type"`
	// Code has the parts of the code that made it, each with its hash or version.
	Code map[string]string `json:"code"`
	// Made is when it was computed, in Seconds.
	Made    time.Time `json:"made"`
	Seconds float64   `json:"seconds"`
	// Sums are the SHA-256 of its files.
	Sums map[string]string `json:"sha256"`

	// Dir is where it lies, Bytes how much it takes, and Used when it was last asked for.
	Dir   string    `json:"-"`
	Bytes int64     `json:"-"`
	Used  time.Time `json:"-"`
}

type key struct {
	Entry
	id string
}

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

func newKey(name string, params any, typ string, function any) (key, error) {
	if !validName.MatchString(name) {
		return key{}, fmt.Errorf("memo %q: want a name of letters, digits, dots, dashes and underscores", name)
	}
	if err := visible(reflect.ValueOf(params), "params"); err != nil {
		return key{}, fmt.Errorf("memo %s: %w", name, err)
	}
	text, err := json.Marshal(params)
	if err != nil {
		return key{}, fmt.Errorf("memo %s: parameters as JSON: %w", name, err)
	}
	code, err := identify(function)
	if err != nil {
		return key{}, fmt.Errorf("memo %s: telling the code that computes it: %w", name, err)
	}
	k := key{Entry: Entry{Name: name, Params: text, Type: typ, Code: code}}
	whole, err := json.Marshal(struct { // maps are written sorted
		Name, Type string
		Params     json.RawMessage
		Code       map[string]string
	}{name, typ, text, code})
	if err != nil {
		return key{}, fmt.Errorf("memo %s: %w", name, err)
	}
	sum := sha256.Sum256(whole)
	k.id = hex.EncodeToString(sum[:16])
	return k, nil
}

func (c *Cache) tell(name, format string, args ...any) {
	if c.Tell != nil {
		c.Tell("memo " + name + ": " + fmt.Sprintf(format, args...))
	}
}

func (c *Cache) dir() (string, error) {
	if c.Dir != "" {
		return c.Dir, nil
	}
	home, err := cachedir.Home()
	return filepath.Join(home, "memo"), err
}

// entry reads what is kept of a key or, if there is nothing, lets fill make it.
func (c *Cache) entry(ctx context.Context, k key, read func(dir string) error, fill func(dir string) error) error {
	root, err := c.dir()
	if err != nil {
		return err
	}
	dir := filepath.Join(root, k.Name, k.id)
	if e, _ := c.open(dir, read); e != nil {
		c.taken(e)
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return atomicfile.Explain(err, root)
	}
	unlock, err := c.lock(ctx, k, dir)
	if err != nil {
		return err
	}
	defer unlock()
	e, err := c.open(dir, read)
	switch {
	case e != nil: // another process made it while we waited
		c.taken(e)
		return nil
	case err != nil:
		c.tell(k.Name, "computing again: what is kept is damaged: %v", err)
	default:
		c.tell(k.Name, "computing: %s", c.why(root, k))
	}
	begin := time.Now()
	if err := atomicfile.WriteDir(dir, func(temp string) (err error) {
		if err := fill(temp); err != nil {
			return &fillError{err}
		}
		k.Made, k.Seconds = begin.UTC(), time.Since(begin).Seconds()
		if k.Sums, err = sums(temp); err != nil {
			return err
		}
		text, err := json.MarshalIndent(k.Entry, "", "  ")
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(temp, recordFile), append(text, '\n'), 0o666)
	}); err != nil {
		var filling *fillError
		if errors.As(err, &filling) {
			return filling.error
		}
		return err
	}
	if _, err := c.open(dir, read); err != nil {
		return err
	}
	c.tell(k.Name, "computed in %.1f s", k.Seconds)
	if err := c.trim(root, dir); err != nil {
		c.tell(k.Name, "%v", err)
	}
	return nil
}

type fillError struct{ error }

func (c *Cache) taken(e *Entry) {
	c.tell(e.Name, "as of %s, %.1f s saved", e.Made.Local().Format(time.DateTime), e.Seconds)
}

// open reads an entry; nil if there is none. The error says what is wrong with one that is there.
func (c *Cache) open(dir string, read func(dir string) error) (*Entry, error) {
	if err := atomicfile.Recover(dir); err != nil {
		return nil, err
	}
	e, err := readEntry(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(dir); err == nil {
			return nil, errors.New("it has no " + recordFile)
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	got, err := sums(dir)
	if err != nil {
		return nil, err
	}
	for name, sum := range e.Sums {
		if got[name] != sum {
			return nil, fmt.Errorf("%s is not as it was written", name)
		}
	}
	if err := read(dir); err != nil {
		return nil, err
	}
	now := time.Now()
	_ = os.Chtimes(filepath.Join(dir, recordFile), now, now) // only for what is dropped first
	return &e, nil
}

// lockPoll is the time between two looks whether another process is done.
const lockPoll = 100 * time.Millisecond

// lock waits until no other process makes the entry.
func (c *Cache) lock(ctx context.Context, k key, dir string) (func(), error) {
	held := flock.New(filepath.Join(filepath.Dir(dir), "."+k.id+".lock"))
	ours, err := held.TryLock()
	if err == nil && !ours {
		c.tell(k.Name, "waiting for another process that computes it")
		ours, err = held.TryLockContext(ctx, lockPoll)
	}
	if !ours {
		return nil, fmt.Errorf("waiting for another process: %w", err)
	}
	return func() {
		_ = os.Remove(held.Path()) // one that opened it before computes too, at worst
		_ = held.Close()
	}, nil
}

// why says what distinguishes a key from what is kept under its name.
func (c *Cache) why(root string, k key) string {
	entries, _ := list(filepath.Join(root, k.Name)) // what cannot be read is no help
	if len(entries) == 0 {
		return "for the first time"
	}
	slices.SortFunc(entries, func(a, b Entry) int { return b.Made.Compare(a.Made) })
	for _, e := range entries {
		if bytes.Equal(e.Params, k.Params) && e.Type == k.Type {
			return "code has changed: " + differing(e.Code, k.Code)
		}
	}
	for _, e := range entries {
		if e.Type != k.Type {
			return "its type was " + e.Type
		}
	}
	return fmt.Sprintf("not yet for %s", k.Params)
}

// differing names the parts in which two codes differ.
func differing(was, is map[string]string) string {
	var names []string
	for name, sum := range is {
		if old, ok := was[name]; !ok {
			names = append(names, name+" (new)")
		} else if old != sum {
			names = append(names, name)
		}
	}
	for name := range was {
		if _, ok := is[name]; !ok {
			names = append(names, name+" (gone)")
		}
	}
	slices.Sort(names)
	const most = 4
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("and %d more", len(names)-most))
	}
	return strings.Join(names, ", ")
}

// Entries lists what is kept, by name and time.
func (c *Cache) Entries() ([]Entry, error) {
	root, err := c.dir()
	if err != nil {
		return nil, err
	}
	names, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the cache: %w", err)
	}
	var all []Entry
	for _, name := range names {
		if !name.IsDir() {
			continue // such as what file managers leave in folders
		}
		entries, err := list(filepath.Join(root, name.Name()))
		if err != nil {
			return nil, fmt.Errorf("reading the cache: %w", err)
		}
		all = append(all, entries...)
	}
	return all, nil
}

// Clear removes the values of names, or all if there are none, and what killed processes have left of them. Nobody
// should be using them.
func (c *Cache) Clear(names ...string) error {
	root, err := c.dir()
	if err != nil {
		return err
	}
	folders, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the cache: %w", err)
	}
	var known []string
	for _, folder := range folders {
		known = append(known, folder.Name())
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return fmt.Errorf("nothing named %q is kept in %s", name, root)
		}
	}
	if len(names) == 0 {
		names = known
	}
	for _, name := range names {
		if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
			return fmt.Errorf("clearing the cache: %w", err)
		}
	}
	return nil
}

// trim removes what was not used for longest, but not keep, until the rest fits.
func (c *Cache) trim(root, keep string) error {
	limit := c.MaxBytes
	if limit == 0 {
		limit = DefaultMaxBytes
	}
	entries, err := c.Entries()
	if err != nil {
		return err
	}
	var total int64
	for _, e := range entries {
		total += e.Bytes
	}
	slices.SortFunc(entries, func(a, b Entry) int { return a.Used.Compare(b.Used) })
	for _, e := range entries {
		if total <= limit {
			return nil
		}
		if e.Dir == keep {
			continue
		}
		if err := os.RemoveAll(e.Dir); err != nil {
			return fmt.Errorf("making room in %s: %w", root, err)
		}
		total -= e.Bytes
		c.tell(e.Name, "the value of %s is dropped: more than %d MB are kept", e.Made.Local().Format(time.DateTime), limit>>20)
	}
	return nil
}

// list reads the entries in a folder; those that are damaged have their place and size only.
func list(dir string) ([]Entry, error) {
	folders, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	var entries []Entry
	for _, folder := range folders {
		if !folder.IsDir() || strings.HasPrefix(folder.Name(), ".") {
			continue
		}
		path := filepath.Join(dir, folder.Name())
		e, err := readEntry(path)
		if errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Stat(path); err != nil {
				continue // removed meanwhile
			}
		}
		if err != nil {
			e = Entry{Name: filepath.Base(dir)}
		}
		e.Dir = path
		err = filepath.WalkDir(path, func(_ string, file fs.DirEntry, err error) error {
			if err != nil || !file.Type().IsRegular() {
				return err
			}
			info, err := file.Info()
			if err == nil {
				e.Bytes += info.Size()
				if file.Name() == recordFile {
					e.Used = info.ModTime()
				}
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		entries = append(entries, e)
	}
	slices.SortStableFunc(entries, func(a, b Entry) int { return a.Made.Compare(b.Made) })
	return entries, nil
}

func readEntry(dir string) (Entry, error) {
	var e Entry
	text, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return e, fmt.Errorf("%s: %w", recordFile, err)
	}
	if len(e.Sums) == 0 && e.Type != filesDir {
		return e, fmt.Errorf("%s names no files", recordFile)
	}
	var params bytes.Buffer // without the record's layout
	err = json.Compact(&params, e.Params)
	e.Params = params.Bytes()
	return e, err
}

// sums hashes the files below a folder but for the record.
func sums(dir string) (map[string]string, error) {
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || name == recordFile {
			return err
		}
		all[filepath.ToSlash(name)], err = hashFile(path)
		return err
	})
	return all, err
}

func hashFile(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	_, err = io.Copy(hash, file)
	return hex.EncodeToString(hash.Sum(nil)), err
}

func encode(path string, value any) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	err = gob.NewEncoder(file).Encode(value)
	return errors.Join(err, file.Close())
}

func decode(path string, into any) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return gob.NewDecoder(file).Decode(into)
}
