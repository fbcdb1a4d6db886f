package track

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/elastic-attention/workbench/internal/atomicfile"
)

// Run is a run as the index has it.
type Run struct {
	// ID is the path of the folder below the store's, with slashes.
	ID  string `json:"id"`
	Dir string `json:"-"`
	Record
	Status Status `json:"status"`
	// Error is why a run failed or was cancelled.
	Error string `json:"error,omitempty"`
	// Ended is zero while it runs or if its process died.
	Ended time.Time `json:"ended,omitzero"`
	// PausedSeconds are those between an interruption and the resuming, when no process was at work.
	PausedSeconds float64 `json:"paused_seconds,omitempty"`

	Machines  []Machine  `json:"machines,omitempty"`
	Metrics   []Metric   `json:"metrics,omitempty"`
	Artefacts []Artefact `json:"artefacts,omitempty"`
	Damaged   int        `json:"damaged_lines,omitempty"`
	Notes     Notes      `json:"notes,omitzero"`
}

// Metric returns a metric of the run by name.
func (r Run) Metric(name string) (Metric, bool) {
	at := slices.IndexFunc(r.Metrics, func(m Metric) bool { return m.Name == name })
	if at < 0 {
		return Metric{}, false
	}
	return r.Metrics[at], true
}

// Took is how long processes were at work on a run that has ended, else 0. It is 0 too where the clock was put back meanwhile.
func (r Run) Took() time.Duration {
	if r.Ended.IsZero() || r.Started.IsZero() {
		return 0
	}
	return max(0, r.Ended.Sub(r.Started)-time.Duration(r.PausedSeconds*float64(time.Second)))
}

// Series reads the run's curves from its journal.
func (r Run) Series() ([]Series, error) {
	h, err := ReadHistory(r.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return h.Series(), nil
}

// ReadRun reads a run folder without an index. The error wraps [fs.ErrNotExist] if the folder holds no run.
func ReadRun(dir string) (Run, error) {
	r := Run{ID: filepath.Base(dir), Dir: dir}
	content, err := os.ReadFile(filepath.Join(dir, RecordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("%s holds no run, it has no %s: %w", dir, RecordFile, fs.ErrNotExist)
	}
	if err != nil {
		return r, fmt.Errorf("reading a run: %w", err)
	}
	if err := json.Unmarshal(content, &r.Record); err != nil {
		return r, fmt.Errorf("%s is not the record of a run: %w", filepath.Join(dir, RecordFile), err)
	}
	h, err := ReadHistory(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.Status = Unknown
	case err != nil:
		return r, err
	default:
		r.Status, r.Error, r.Ended, r.Machines = h.Status, h.Error, h.Ended, h.Machines
		r.Metrics, r.Artefacts, r.Damaged = h.Metrics(), h.Artefacts, h.Damaged
		if r.Started.IsZero() {
			r.Started = h.Begun
		}
		r.PausedSeconds = h.Paused(r.Started).Seconds()
	}
	if r.Notes, err = ReadNotes(dir); err != nil {
		return r, err
	}
	return r.judged(), nil
}

// judged looks whether a run that has not ended still has a process.
func (r Run) judged() Run {
	if r.Status == Running && !alive(r.Dir) {
		r.Status, r.Error = Killed, "its process died"
	}
	return r
}

// IndexFile is the index of the runs below a folder. It may be deleted at any time.
const IndexFile = ".index.db"

// TrashDir is where [Store.Remove] moves runs.
const TrashDir = ".trash"

// schemaVersion changes whenever an index of before cannot be used.
const schemaVersion = 4

const schema = `
CREATE TABLE runs (
	id TEXT PRIMARY KEY,
	print TEXT NOT NULL,      -- sizes and times of the files that were read
	task TEXT, status TEXT, started TEXT, ended TEXT, host TEXT, seed INTEGER, error TEXT, notes TEXT,
	config TEXT,              -- JSON
	run TEXT NOT NULL         -- JSON of all but the metrics
);
CREATE TABLE metrics (
	run TEXT NOT NULL REFERENCES runs ON DELETE CASCADE,
	name TEXT NOT NULL,
	count INTEGER NOT NULL, step INTEGER NOT NULL,
	last REAL, min REAL, max REAL,   -- NULL is NaN
	PRIMARY KEY (run, name)
) WITHOUT ROWID;
CREATE INDEX metrics_by_name ON metrics (name, last);
CREATE TABLE tags (run TEXT NOT NULL REFERENCES runs ON DELETE CASCADE, tag TEXT NOT NULL, PRIMARY KEY (run, tag)) WITHOUT ROWID;
`

// Store is the index over the runs below a folder. Its methods may be called concurrently, also by several processes.
type Store struct {
	dir string
	db  *sql.DB
}

// Open opens the index of a folder, makes it if there is none or it is of no use, and brings it up to date. Where the
// folder cannot be written, the index is in memory.
func Open(ctx context.Context, dir string) (*Store, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("opening runs: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("opening runs: %s is a file, want a folder of runs", dir)
	}
	s := &Store{dir: dir}
	path, err := filepath.Abs(filepath.Join(dir, IndexFile))
	if err != nil {
		return nil, fmt.Errorf("opening runs: %w", err)
	}
	for _, try := range []func() error{
		func() error { return s.open(ctx, path) },
		func() error { // damaged, or of another version
			var refused *sqlite.Error
			if errors.As(err, &refused) && slices.Contains([]int{sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}, refused.Code()&0xff) {
				return err // others are at it, for long
			}
			for _, suffix := range []string{"", "-journal"} {
				if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			return s.open(ctx, path)
		},
		func() error { return s.open(ctx, ":memory:") },
	} {
		if err = try(); err == nil {
			return s, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("opening the index of %s: %w", dir, err)
}

func (s *Store) open(ctx context.Context, path string) (err error) {
	source := "file::memory:"
	if path != ":memory:" {
		source = (&url.URL{Scheme: "file", Path: filepath.ToSlash(path)}).String()
	}
	if s.db, err = sql.Open("sqlite", source+"?_pragma=busy_timeout(10000)&_pragma=foreign_keys(1)&_txlock=immediate"); err != nil {
		return err
	}
	s.db.SetMaxOpenConns(1) // one connection: that of memory has its own database, and a lock is taken once
	if err = s.prepare(ctx); err == nil {
		err = s.Update(ctx)
	}
	if err != nil {
		_ = s.db.Close()
	}
	return err
}

func (s *Store) prepare(ctx context.Context) error {
	return s.transact(ctx, func(tx *sql.Tx) error {
		var version int
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
			return err
		}
		switch version {
		case schemaVersion:
			return nil
		case 0:
			_, err := tx.ExecContext(ctx, schema+fmt.Sprintf("PRAGMA user_version = %d", schemaVersion))
			return err
		}
		return fmt.Errorf("the index has version %d, want %d", version, schemaVersion)
	})
}

func (s *Store) transact(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

// Close closes the index.
func (s *Store) Close() error { return s.db.Close() }

// Dir is the folder that the store is about.
func (s *Store) Dir() string { return s.dir }

// Update brings the index up to date: it finds runs that are new, reads anew those whose files have changed, and
// forgets those that are gone. A run that cannot be read is in the index with its error.
func (s *Store) Update(ctx context.Context) error {
	found, err := s.scan()
	if err != nil {
		return err
	}
	return s.transact(ctx, func(tx *sql.Tx) error {
		known, err := prints(ctx, tx)
		if err != nil {
			return err
		}
		for id := range known {
			if _, ok := found[id]; !ok {
				if _, err := tx.ExecContext(ctx, "DELETE FROM runs WHERE id = ?", id); err != nil {
					return err
				}
			}
		}
		for _, id := range slices.Sorted(maps.Keys(found)) {
			if known[id] == found[id] {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := s.put(ctx, tx, id, found[id]); err != nil {
				return fmt.Errorf("indexing run %s: %w", id, err)
			}
		}
		return nil
	})
}

func prints(ctx context.Context, tx *sql.Tx) (map[string]string, error) {
	rows, err := tx.QueryContext(ctx, "SELECT id, print FROM runs")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	known := map[string]string{}
	for rows.Next() {
		var id, print string
		if err := rows.Scan(&id, &print); err != nil {
			return nil, err
		}
		known[id] = print
	}
	return known, rows.Err()
}

// Version changes when the runs have: call it after [Store.Update] to know whether there is anything new.
func (s *Store) Version(ctx context.Context) (string, error) {
	hash := fnv.New64a()
	err := s.transact(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, "SELECT id, print, status FROM runs ORDER BY id")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id, print, status string
			if err := rows.Scan(&id, &print, &status); err != nil {
				return err
			}
			lives := Status(status) == Running && alive(s.path(id))
			fmt.Fprintf(hash, "%q %q %t\n", id, print, lives)
		}
		return rows.Err()
	})
	if err != nil {
		return "", fmt.Errorf("reading the index of %s: %w", s.dir, err)
	}
	return fmt.Sprintf("%016x", hash.Sum64()), nil
}

// deepest is how many folders lie above a run at most: a study's runs lie in its own folder.
const deepest = 4

// scan finds the run folders, with what tells whether their files have changed.
func (s *Store) scan() (map[string]string, error) {
	found := map[string]string{}
	var walk func(id string, depth int) error
	walk = func(id string, depth int) error {
		entries, err := os.ReadDir(filepath.Join(s.dir, filepath.FromSlash(id)))
		if errors.Is(err, fs.ErrNotExist) || err != nil && id != "" {
			return nil // removed meanwhile, or not ours to read
		}
		if err != nil {
			return fmt.Errorf("looking for runs: %w", err)
		}
		print, isRun := "", false
		for _, entry := range entries {
			switch name := entry.Name(); name {
			case RecordFile, JournalFile, NotesFile:
				if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
					print += fmt.Sprintf("%s %d %d\n", name, info.Size(), info.ModTime().UnixNano())
					isRun = isRun || name == RecordFile // searches have journals too, of their own kind
				}
			}
		}
		if isRun && id != "" {
			found[id] = print
			return nil
		}
		for _, entry := range entries {
			if entry.IsDir() && !strings.HasPrefix(entry.Name(), ".") && depth < deepest {
				if err := walk(strings.TrimPrefix(id+"/"+entry.Name(), "/"), depth+1); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return found, walk("", 0)
}

func (s *Store) path(id string) string { return filepath.Join(s.dir, filepath.FromSlash(id)) }

// put reads a run and replaces what the index has of it.
func (s *Store) put(ctx context.Context, tx *sql.Tx, id, print string) error {
	r, err := ReadRun(s.path(id))
	if err != nil {
		r.Status, r.Error = Unknown, err.Error()
	}
	r.ID = id
	if r.Status == Killed {
		r.Status, r.Error = Running, "" // what its files say; whether it lives is looked at when it is asked for
	}
	config, err := json.Marshal(r.Config)
	if err != nil {
		return err
	}
	metrics := r.Metrics
	r.Metrics = nil
	content, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM runs WHERE id = ?", id); err != nil {
		return err
	}
	host := ""
	if n := len(r.Machines); n > 0 {
		host = r.Machines[n-1].Host
	}
	ended := ""
	if !r.Ended.IsZero() {
		ended = r.Ended.Format(time.RFC3339)
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO runs (id, print, task, status, started, ended, host, seed, error, notes, config, run) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		id, print, r.Task, string(r.Status), r.Started.Format(time.RFC3339), ended, host, int64(r.Seed), r.Error, r.Notes.Text, string(config), string(content)); err != nil {
		return err
	}
	for _, m := range metrics {
		if _, err := tx.ExecContext(ctx, "INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?, ?)", id, m.Name, m.Count, m.Step, nullable(m.Last), nullable(m.Min), nullable(m.Max)); err != nil {
			return err
		}
	}
	for _, tag := range slices.Compact(slices.Sorted(slices.Values(r.Notes.Tags))) {
		if _, err := tx.ExecContext(ctx, "INSERT INTO tags VALUES (?, ?)", id, tag); err != nil {
			return err
		}
	}
	return nil
}

// nullable is a value for SQLite, which has no NaN.
func nullable(v float64) any {
	if math.IsNaN(v) {
		return nil
	}
	return v
}

func orNaN(v sql.NullFloat64) float64 {
	if !v.Valid {
		return math.NaN()
	}
	return v.Float64
}

// all returns the runs of the index, by ID.
func (s *Store) all(ctx context.Context) ([]Run, error) {
	metrics := map[string][]Metric{}
	var runs []Run
	err := s.transact(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, "SELECT run, name, count, step, last, min, max FROM metrics ORDER BY run, name")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id string
			var m Metric
			var last, low, high sql.NullFloat64
			if err := rows.Scan(&id, &m.Name, &m.Count, &m.Step, &last, &low, &high); err != nil {
				return err
			}
			m.Last, m.Min, m.Max = orNaN(last), orNaN(low), orNaN(high)
			metrics[id] = append(metrics[id], m)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		list, err := tx.QueryContext(ctx, "SELECT run FROM runs ORDER BY id")
		if err != nil {
			return err
		}
		defer list.Close()
		for list.Next() {
			var content []byte
			var r Run
			if err := list.Scan(&content); err != nil {
				return err
			}
			if err := json.Unmarshal(content, &r); err != nil {
				return err
			}
			r.Dir, r.Metrics = s.path(r.ID), metrics[r.ID]
			runs = append(runs, r.judged())
		}
		return list.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("reading the index of %s: %w", s.dir, err)
	}
	return runs, nil
}

// Find returns the one run that a name means: its ID, a part of its ID that only one run has, or "latest".
func (s *Store) Find(ctx context.Context, name string) (Run, error) {
	runs, err := s.all(ctx)
	if err != nil {
		return Run{}, err
	}
	if len(runs) == 0 {
		return Run{}, fmt.Errorf("%s holds no run", s.dir)
	}
	if name == "latest" {
		return slices.MaxFunc(runs, func(a, b Run) int { return a.Started.Compare(b.Started) }), nil
	}
	var fits []Run
	for _, r := range runs {
		if r.ID == name || filepath.Clean(r.Dir) == filepath.Clean(name) {
			return r, nil
		}
		if name != "" && strings.Contains(r.ID, name) {
			fits = append(fits, r)
		}
	}
	switch len(fits) {
	case 0:
		return Run{}, fmt.Errorf("no run below %s has %q in its name", s.dir, name)
	case 1:
		return fits[0], nil
	}
	ids := make([]string, len(fits))
	for i, r := range fits {
		ids[i] = r.ID
	}
	return Run{}, fmt.Errorf("%q means %d runs below %s: %s", name, len(fits), s.dir, strings.Join(ids[:min(len(ids), 8)], ", "))
}

// ErrRunning is returned for what cannot be done to a run that goes on.
var ErrRunning = errors.New("the run goes on")

// Remove moves the folder of a run into the trash of the store and returns where it lies now. The error wraps
// [ErrRunning] if its process lives.
func (s *Store) Remove(ctx context.Context, id string) (trash string, err error) {
	r, err := s.Find(ctx, id)
	if err != nil {
		return "", err
	}
	if r.Status == Running {
		return "", fmt.Errorf("removing %s: %w: stop it first", r.ID, ErrRunning)
	}
	trash = filepath.Join(s.dir, TrashDir, filepath.FromSlash(r.ID))
	if _, err := os.Lstat(trash); err == nil { // one of that name lies there already
		trash += "-" + rand.Text()[:6]
	}
	if err = os.MkdirAll(filepath.Dir(trash), 0o755); err == nil {
		err = os.Rename(r.Dir, trash)
	}
	if err != nil {
		return "", fmt.Errorf("removing %s: %w", r.ID, atomicfile.Explain(err, s.dir))
	}
	return trash, s.Update(ctx)
}
