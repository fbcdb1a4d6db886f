package run

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/track"
	"github.com/elastic-attention/workbench/pkg/track/usage"
)

// Journal records a training in its run folder, as package track reads it: at each update
// train/loss, train/rate, train/gradient_norm and train/tokens_per_second, and where terms of the loss are weighed
// train/loss_labels, train/weight_labels and so for each; and the scores that a task logs; every few seconds and at the end also what the process uses, as package usage names it. Its methods do
// nothing on nil, which records nothing.
type Journal struct {
	journal *track.Journal
	dir     string
	update  atomic.Int64 // the last one
	meter   *usage.Meter
	stop    func() // ends the watch
}

// NewJournal writes the record of a run into its folder and opens the journal for a process that
// continues after an update, 0 for a fresh run.
func NewJournal(dir string, record any, update int) (*Journal, error) {
	if err := WriteJSON(filepath.Join(dir, RecordFile), record); err != nil {
		return nil, err
	}
	_, err := os.Stat(filepath.Join(dir, track.JournalFile))
	first := update == 0 || errors.Is(err, fs.ErrNotExist) // a run that was forked begins later
	journal, err := track.Begin(dir, update)
	if err != nil {
		return nil, err
	}
	if diff := uncommitted().diff; first && len(diff) > 0 {
		err := atomicfile.WriteFile(filepath.Join(dir, DiffFile), diff)
		if err == nil {
			err = journal.Artefact(DiffFile)
		}
		if err != nil {
			return nil, errors.Join(err, journal.Close(err))
		}
	}
	j := &Journal{journal: journal, dir: dir, meter: usage.New(dir)}
	j.update.Store(int64(update))
	j.watch()
	return j, nil
}

// watch logs what the process uses until the journal ends.
func (j *Journal) watch() {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(usage.Interval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				j.use()
			case <-end:
				return
			}
		}
	}()
	j.stop = sync.OnceFunc(func() {
		close(end)
		<-ended
		j.use() // the peak, however short the run was
	})
}

func (j *Journal) use() { j.journal.Log(int(j.update.Load()), j.meter.Read().Metrics()) }

// Step logs an update.
func (j *Journal) Step(s train.Step) {
	if j == nil {
		return
	}
	j.update.Store(int64(s.Update))
	values := map[string]float64{"train/loss": s.Loss, "train/rate": s.Rate, "train/gradient_norm": s.GradientNorm}
	if rate := float64(s.Positions) / s.Elapsed.Seconds(); !math.IsInf(rate, 0) && !math.IsNaN(rate) {
		values["train/tokens_per_second"] = rate
	}
	for _, term := range s.Terms {
		values["train/loss_"+term.Name], values["train/weight_"+term.Name] = term.Loss, term.Weight
	}
	j.journal.Log(s.Update, values)
}

// Scores logs scores of the model as the last update left it, below a name: "dev".
func (j *Journal) Scores(name string, scores map[string]float64) {
	if j == nil {
		return
	}
	values := make(map[string]float64, len(scores))
	for score, value := range scores {
		values[name+"/"+score] = value
	}
	j.journal.Log(int(j.update.Load()), values)
}

// sync brings what was logged to the disk, before a checkpoint is put in place.
func (j *Journal) sync() error {
	if j == nil {
		return nil
	}
	return j.journal.Sync()
}

// Report writes the report of a run, result as JSON, and notes it as what the run made. A [Course] in it is what
// [ReadCourse] finds.
func (j *Journal) Report(result any) error {
	if err := WriteJSON(filepath.Join(j.dir, ReportFile), result); err != nil {
		return err
	}
	return j.journal.Artefact(ReportFile)
}

// Finish writes the reports of a run, result as JSON, and as text, and notes them and the model
// as what the run made.
func (j *Journal) Finish(result any, text string) error {
	if err := j.Report(result); err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(j.dir, TextFile), func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	}); err != nil {
		return err
	}
	for _, path := range []string{ModelDir, TextFile} {
		if err := j.journal.Artefact(path); err != nil {
			return err
		}
	}
	return nil
}

// End ends the run with what it came to, and returns that, or why the journal could not be written.
func (j *Journal) End(cause error) error {
	if j == nil {
		return cause
	}
	j.stop()
	if err := j.journal.Close(cause); err != nil && cause == nil {
		return fmt.Errorf("ending the run: %w", err)
	}
	return cause
}
