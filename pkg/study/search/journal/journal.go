// Package journal keeps a search in a folder that several processes may work on at once, and that survives the death of
// any of them at any moment.
//
//	study, err := journal.Open(dir, config, earlier)
//	err = study.Work(ctx, func(ctx context.Context, trial *journal.Trial) (float64, error) {
//		return objective(trial.Params), nil
//	}, nil)
//
// The folder holds
//
//	search.json       the config, and what earlier searches taught
//	journal.jsonl     a [search.Event] a line: what happened, in order
//	trials/0007/      whatever trial 7 leaves
//
// Each event is written and brought to the disk under a lock on the folder, and decided on after all events of other
// processes have been read: a trial begins once and has one result. Who works on a trial holds a lock on its folder too,
// which the system lets go of when the process ends, in whatever way. A trial that runs without a lock was left behind: the
// next process that is free takes it up again, in the same folder and with the same parameters. A last line that was not
// written to its end belongs to a process that died; it is cut off, and what it told happens again.
//
// Locks are those of the operating system; on a network file system they are as good as it is.
package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"

	"github.com/gofrs/flock"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/internal/strictjson"
	"github.com/elastic-attention/workbench/pkg/study/search"
)

// The files of a folder.
const (
	ConfigFile  = "search.json"
	JournalFile = "journal.jsonl"
	TrialsDir   = "trials"
	lockFile    = ".lock"
)

// stored is the content of search.json.
type stored struct {
	Search  search.Config  `json:"search"`
	Earlier []search.Trial `json:"earlier,omitempty"`
}

// Study is a search in a folder. Its methods may be called by several goroutines.
type Study struct {
	Dir    string
	Config search.Config
	// Warn is told of what was repaired; nil drops it. It must be set before work begins.
	Warn func(message string)

	turn   chan struct{} // holds a token while nobody is at work on what follows
	lock   *flock.Flock
	search *search.Search
	read   int64 // bytes of the journal that search knows
	lines  int
	broken error // the event that could not be written, so that search knows more than the journal
}

// Open makes a folder for a search, or opens the one that is there, which must be of the same config; only the number
// of trials may have changed. Earlier trials teach the sampler of a new one; one that has begun keeps those that it has.
func Open(dir string, config search.Config, earlier []search.Trial) (*Study, error) {
	if err := free(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, TrialsDir), 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of a search: %w", atomicfile.Explain(err, dir))
	}
	lock := flock.New(filepath.Join(dir, lockFile))
	if err := lock.Lock(); err != nil {
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	s, err := open(dir, config, earlier)
	if err = errors.Join(err, lock.Unlock()); err != nil {
		return nil, err
	}
	s.lock = lock
	return s, nil
}

// free refuses a folder, before anything is written there, whose journal was never a search's: runs have one of that name.
func free(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, ConfigFile)); err == nil {
		return nil
	}
	file, err := os.Open(filepath.Join(dir, JournalFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the journal: %w", err)
	}
	defer file.Close()
	first, err := bufio.NewReader(file).ReadBytes('\n')
	if err != nil { // no whole line
		return nil
	}
	var event search.Event
	if err := strictjson.Decode(first, &event); err != nil {
		return fmt.Errorf("%s has a %s that is no search's (%w), and no %s: name another folder", dir, JournalFile, err, ConfigFile)
	}
	return nil
}

func open(dir string, config search.Config, earlier []search.Trial) (*Study, error) {
	before, err := readConfig(dir)
	switch {
	case err == nil:
		was, is := before.Search, config
		was.Trials = is.Trials
		if !reflect.DeepEqual(was, is) {
			return nil, fmt.Errorf("%s holds a search with another config; only trials may change: name another folder", dir)
		}
		earlier = before.Earlier
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	s, err := begin(dir, config, earlier)
	if err != nil {
		return nil, err
	}
	content, err := json.MarshalIndent(stored{config, earlier}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing %s: %w", ConfigFile, err)
	}
	return s, atomicfile.WriteFile(filepath.Join(dir, ConfigFile), append(content, '\n'))
}

func begin(dir string, config search.Config, earlier []search.Trial) (*Study, error) {
	state, err := search.New(config, earlier...)
	if err != nil {
		return nil, err
	}
	s := &Study{Dir: dir, Config: config, search: state, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s, nil
}

// Read returns the config of a search and its trials as they are now. It waits for nobody, and works while others do.
func Read(dir string) (search.Config, []search.Trial, error) {
	before, err := readConfig(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return before.Search, nil, fmt.Errorf("%s holds no search, it has no %s: want a folder that a search has run in: %w", dir, ConfigFile, fs.ErrNotExist)
	}
	if err != nil {
		return before.Search, nil, err
	}
	s, err := begin(dir, before.Search, before.Earlier)
	if err != nil {
		return before.Search, nil, err
	}
	if _, err := s.catchUp(); err != nil {
		return before.Search, nil, err
	}
	return before.Search, s.search.Trials(), nil
}

func readConfig(dir string) (stored, error) {
	var c stored
	path := filepath.Join(dir, ConfigFile)
	content, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("reading a search: %w", err)
	}
	if err := strictjson.Decode(content, &c); err != nil {
		return c, fmt.Errorf("%s: %w; if it is damaged, move it away and start the search again with its spec: the trials are in %s", path, err, JournalFile)
	}
	return c, nil
}

// catchUp reads the events that others have written since, and returns what stands behind the last whole line.
func (s *Study) catchUp() (torn []byte, err error) {
	path := filepath.Join(s.Dir, JournalFile)
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	defer file.Close()
	if _, err := file.Seek(s.read, io.SeekStart); err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	rest, err := io.ReadAll(file)
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	for {
		line, behind, whole := bytes.Cut(rest, []byte("\n"))
		if !whole {
			return rest, nil
		}
		s.lines++
		var event search.Event
		err := strictjson.Decode(line, &event)
		if err == nil {
			err = s.search.Apply(event)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w: the journal is damaged; keep a copy, then cut it off before that line (head -n %d), and what the lost lines told is tried again", path, s.lines, err, s.lines-1)
		}
		s.read += int64(len(line)) + 1
		rest = behind
	}
}

// alone calls f while no other goroutine or process changes the journal, and all that they wrote is known.
func (s *Study) alone(f func() error) (err error) {
	<-s.turn
	defer func() { s.turn <- struct{}{} }()
	if s.broken != nil {
		return s.broken
	}
	if err := s.lock.Lock(); err != nil {
		return fmt.Errorf("locking %s: %w", s.Dir, err)
	}
	defer func() { err = errors.Join(err, s.lock.Unlock()) }()
	torn, err := s.catchUp()
	if err != nil {
		return err
	}
	if len(torn) > 0 { // nobody else writes now, so whoever began this line is dead
		if err := os.Truncate(filepath.Join(s.Dir, JournalFile), s.read); err != nil {
			return fmt.Errorf("cutting off a torn line: %w", err)
		}
		if s.Warn != nil {
			s.Warn(fmt.Sprintf("%s:%d was not written to its end and is dropped: a process died; what it did is done again", filepath.Join(s.Dir, JournalFile), s.lines+1))
		}
	}
	return f()
}

// write puts an event into effect and on the disk. It must be called alone.
func (s *Study) write(event search.Event) (err error) {
	line, err := json.Marshal(event)
	if err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	if err := s.search.Apply(event); err != nil { // before it reaches the file, which must hold only what can be
		return err
	}
	defer func() { s.broken = err }()
	file, err := os.OpenFile(filepath.Join(s.Dir, JournalFile), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("writing the journal: %w", atomicfile.Explain(err, s.Dir))
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err = file.Write(append(line, '\n')); err == nil {
		err = file.Sync()
	}
	if err != nil {
		return fmt.Errorf("writing the journal: %w", atomicfile.Explain(err, s.Dir))
	}
	s.read += int64(len(line)) + 1
	s.lines++
	return nil
}

// Trials returns what is known by now.
func (s *Study) Trials() ([]search.Trial, error) {
	var trials []search.Trial
	err := s.alone(func() error {
		trials = s.search.Trials()
		return nil
	})
	return trials, err
}
