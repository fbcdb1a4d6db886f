package track

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/elastic-attention/workbench/internal/atomicfile"
)

// The files of a run folder that this package reads and writes.
const (
	RecordFile  = "run.json"
	JournalFile = "journal.jsonl"
	NotesFile   = "notes.json"
)

// lockFile is held while a process writes the journal beside it. The system lets it go when the process ends, in
// whatever way: so a run whose process died is told from one that runs.
const lockFile = ".journal.lock"

// Record is the content of run.json: what a run is. Its process need not be known to this package: what it does not
// name is left alone.
type Record struct {
	// Task is what the run's model is for.
	Task string `json:"task,omitempty"`
	// Config is any plain data; what is compared are its fields.
	Config any    `json:"config,omitempty"`
	Seed   uint64 `json:"seed"`
	// Data and Model are SHA-256 sums by name.
	Data  map[string]string `json:"data_sha256,omitempty"`
	Model map[string]string `json:"model_sha256,omitempty"`
	// Versions are those of modules and of the code (vcs.revision), as the function of that name in package run has them.
	Versions map[string]string `json:"versions,omitempty"`
	Backend  any               `json:"backend,omitempty"`
	Started  time.Time         `json:"started"`
	// Parent is the run from whose state this one went on, if any.
	Parent *Parent `json:"parent,omitempty"`
}

// Parent is a run from which another one went on.
type Parent struct {
	Run    string `json:"run"`    // its folder
	Update int    `json:"update"` // the update after which the two part
}

// event is one line of a journal.
type event struct {
	Event string `json:"event"`
	Time  int64  `json:"time_ms"` // since 1970
	Step  int    `json:"step,omitempty"`
	// Of "begin": who writes.
	Machine *Machine `json:"machine,omitempty"`
	// Of "metrics".
	Values map[string]number `json:"values,omitempty"`
	// Of "artefact".
	Artefact *Artefact `json:"artefact,omitempty"`
	// Of "end".
	Status Status `json:"status,omitempty"`
	Error  string `json:"error,omitempty"`
}

const (
	eventBegin    = "begin"
	eventMetrics  = "metrics"
	eventArtefact = "artefact"
	eventEnd      = "end"
)

// Machine is where a process of a run ran.
type Machine struct {
	Host     string `json:"host"`
	Platform string `json:"platform"`
	CPUs     int    `json:"cpus"`
	PID      int    `json:"pid"`
}

// Artefact is a file that a run made.
type Artefact struct {
	Path   string `json:"path"` // relative to the run folder, with slashes
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
}

// Status is how a run stands.
type Status string

// The statuses.
const (
	Running     Status = "running"
	Finished    Status = "finished"
	Failed      Status = "failed"
	Interrupted Status = "interrupted" // its context was cancelled, as by Ctrl-C: it has saved what it was asked to and can be resumed
	Killed      Status = "killed"      // its process died
	Unknown     Status = "unknown"     // a run folder without a journal
)

var statuses = []string{string(Running), string(Finished), string(Failed), string(Interrupted), string(Killed), string(Unknown)}

// Journal writes what happens in a run. Its methods may be called concurrently. An error of writing is kept, stops all
// further writing, and is returned by Sync and Close: a training need not look at each step.
type Journal struct {
	dir  string
	lock *flock.Flock

	mu   sync.Mutex
	file *os.File
	line []byte
	keys []string
	err  error
}

// Start makes a run folder and its record, and begins its journal. It refuses a folder that holds a run. Started is set
// if it is zero.
func Start(dir string, record Record) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the run folder: %w", atomicfile.Explain(err, dir))
	}
	for _, name := range []string{RecordFile, JournalFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return nil, fmt.Errorf("%s holds a run already: name another folder", dir)
		}
	}
	if record.Started.IsZero() {
		record.Started = time.Now().UTC()
	}
	content, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing %s: %w", filepath.Join(dir, RecordFile), err)
	}
	if err := atomicfile.WriteFile(filepath.Join(dir, RecordFile), append(content, '\n')); err != nil {
		return nil, err
	}
	return Begin(dir, 0)
}

// Begin opens the journal of a folder that exists for a process that continues after a step: what was logged for later
// steps counts no longer, since they are made again. A fresh run begins after step 0, and then nothing that stood there
// counts. One process at a time may write.
func Begin(dir string, step int) (*Journal, error) {
	j, err := openJournal(dir, os.O_CREATE)
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname() // empty if the system does not tell
	j.write(event{Event: eventBegin, Step: step, Machine: &Machine{Host: host, Platform: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(), PID: os.Getpid()}})
	if err := j.Sync(); err != nil {
		j.release()
		return nil, err
	}
	return j, nil
}

// AddArtefact notes a file of a run that has ended, or each file of a folder in it: what was made of the run later. How the run
// ended stays as it is. The error wraps [fs.ErrNotExist] if there is no journal; a run that goes on is an error too.
func AddArtefact(dir, path string) error {
	if _, err := os.Stat(filepath.Join(dir, JournalFile)); err != nil {
		return fmt.Errorf("noting an artefact: %w", err)
	}
	j, err := openJournal(dir, 0)
	if err != nil {
		return err
	}
	err = j.Artefact(path)
	err = errors.Join(err, j.Sync())
	j.release()
	return err
}

// openJournal takes the lock of a run folder and opens its journal.
func openJournal(dir string, flags int) (*Journal, error) {
	path := filepath.Join(dir, JournalFile)
	j := &Journal{dir: dir, lock: flock.New(filepath.Join(dir, lockFile))}
	// A reader that asks whether anybody writes holds the lock for a moment.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	ours, err := j.lock.TryLockContext(ctx, 5*time.Millisecond)
	if !ours {
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, fmt.Errorf("another process is writing %s: wait for it or name another folder", path)
		}
		return nil, fmt.Errorf("locking %s: %w", path, atomicfile.Explain(err, dir))
	}
	if j.file, err = os.OpenFile(path, os.O_RDWR|os.O_APPEND|flags, 0o644); err == nil {
		err = cutTail(j.file)
	}
	if err != nil {
		j.release()
		return nil, fmt.Errorf("opening %s: %w", path, atomicfile.Explain(err, dir))
	}
	return j, nil
}

// cutTail cuts off what a writer that died has left behind the last line's end.
func cutTail(file *os.File) error {
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for end := size; end > 0; {
		n := min(int64(len(buf)), end)
		if _, err := file.ReadAt(buf[:n], end-n); err != nil {
			return err
		}
		if at := bytes.LastIndexByte(buf[:n], '\n'); at >= 0 {
			size, end = end-n+int64(at)+1, 0
		} else if end -= n; end == 0 {
			size = 0
		}
	}
	return file.Truncate(size)
}

// Log notes values of a step, by name: "train/loss". NaN and infinities are kept. Steps count from 1, as updates do; 0
// is before the first.
func (j *Journal) Log(step int, values map[string]float64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(values) == 0 {
		return
	}
	// Written by hand: it is called at every step.
	b := append(j.line[:0], `{"event":"metrics","time_ms":`...)
	b = appendInt(b, time.Now().UnixMilli())
	b = append(b, `,"step":`...)
	b = appendInt(b, int64(step))
	b = append(b, `,"values":{`...)
	j.keys = slices.AppendSeq(j.keys[:0], maps.Keys(values))
	slices.Sort(j.keys)
	for i, key := range j.keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, key), ':')
		b = appendNumber(b, values[key])
	}
	j.append(append(b, "}}"...))
}

// Artefact notes a file of the run folder, or each file of a folder in it, with its checksum. The path is relative to the
// run folder.
func (j *Journal) Artefact(path string) error {
	return filepath.WalkDir(filepath.Join(j.dir, path), func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("noting an artefact: %w", err)
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		a, err := artefact(j.dir, name)
		if err != nil {
			return fmt.Errorf("noting an artefact: %w", err)
		}
		j.write(event{Event: eventArtefact, Artefact: &a})
		return nil
	})
}

func artefact(dir, name string) (Artefact, error) {
	path, err := filepath.Rel(dir, name)
	if err != nil {
		return Artefact{}, err
	}
	file, err := os.Open(name)
	if err != nil {
		return Artefact{}, err
	}
	defer file.Close()
	hash := sha256.New()
	n, err := io.Copy(hash, file)
	return Artefact{Path: filepath.ToSlash(path), SHA256: hex.EncodeToString(hash.Sum(nil)), Bytes: n}, err
}

// Sync brings what was logged to the disk, which only a crash of the whole machine makes necessary. Call it before a
// checkpoint is put in place.
func (j *Journal) Sync() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil && j.file != nil {
		j.fail(j.file.Sync())
	}
	return j.err
}

// Close ends the run: finished if cause is nil, interrupted if its context was cancelled, else failed. It returns an error of
// writing the journal, not cause. A journal that is not closed is that of a run that was killed.
func (j *Journal) Close(cause error) error {
	end := event{Event: eventEnd, Status: Finished}
	if cause != nil {
		end.Status, end.Error = Failed, cause.Error()
		if errors.Is(cause, context.Canceled) || errors.Is(cause, context.DeadlineExceeded) {
			end.Status = Interrupted
		}
	}
	j.write(end)
	err := j.Sync()
	j.release()
	return err
}

func (j *Journal) release() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file != nil {
		_ = j.file.Close() // Sync has said what Close could
		j.file = nil
	}
	_ = j.lock.Close()
}

func (j *Journal) write(e event) {
	e.Time = time.Now().UnixMilli()
	line, err := json.Marshal(e)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		j.fail(err)
		return
	}
	j.append(append(j.line[:0], line...))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	sumBefore = `,"crc32c":"`
	sumAfter  = `"}`
	sumBytes  = len(sumBefore) + 8 + len(sumAfter)
)

// append writes a JSON object as a line, with the checksum of the line up to there as its last field, in one call.
func (j *Journal) append(line []byte) {
	line = line[:len(line)-1] // the bracket
	line = append(appendSum(line, line), '\n')
	j.line = line
	if j.err != nil {
		return
	}
	if j.file == nil {
		j.fail(fs.ErrClosed)
		return
	}
	_, err := j.file.Write(line)
	j.fail(err)
}

// appendSum writes the last field of a line that has been written up to there.
func appendSum(b, line []byte) []byte {
	return fmt.Appendf(b, "%s%08x%s", sumBefore, crc32.Checksum(line, castagnoli), sumAfter)
}

func (j *Journal) fail(err error) {
	if err != nil && j.err == nil {
		j.err = fmt.Errorf("writing %s: %w", filepath.Join(j.dir, JournalFile), atomicfile.Explain(err, j.dir))
	}
}

// whole reports whether a line, without its end, is as it was written.
func whole(line []byte) bool {
	at := len(line) - sumBytes
	return at >= 0 && bytes.Equal(line[at:], appendSum(nil, line[:at]))
}
