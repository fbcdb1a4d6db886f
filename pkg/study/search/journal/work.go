package journal

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/pkg/study/search"
)

// Trial is one that this process works on.
type Trial struct {
	search.Trial
	// Dir is its folder, the same whenever it is taken up again.
	Dir string
	// Again says that it was begun before: it was paused, or left behind by a process that died.
	Again bool

	study *Study
	lock  *flock.Flock
	ended bool // it is paused, stopped, finished or failed
}

// TrialDir returns the folder of a trial of the search in dir.
func TrialDir(dir string, number int) string {
	return filepath.Join(dir, TrialsDir, fmt.Sprintf("%04d", number))
}

// ErrEnded is what an objective may return when [Trial.Report] told it to end.
var ErrEnded = errors.New("the scheduler has ended the trial")

// Take finds something to work on. The trial is nil if the advice is not [search.Work]; else it must be given back by
// Finish, Fail or Release, unless a report has ended it.
func (s *Study) Take() (trial *Trial, advice search.Advice, err error) {
	err = s.alone(func() error {
		for _, t := range s.search.Trials() {
			if t.State != search.Running {
				continue
			}
			if trial, err = s.claim(t); trial != nil {
				trial.Again = true
			}
			if trial != nil || err != nil {
				return err
			}
		}
		event, next := s.search.Ask()
		if advice = next; advice != search.Work {
			return nil
		}
		if trial, err = s.claim(search.Trial{Number: event.Trial}); err != nil {
			return err
		}
		if trial == nil { // a worker has ended the trial, but not yet let it go
			advice = search.Wait
			return nil
		}
		if err := s.write(event); err != nil {
			return errors.Join(err, trial.Release())
		}
		trial.Trial = s.search.Trials()[event.Trial]
		trial.Again = event.Kind == search.Resume
		return nil
	})
	if err != nil {
		return nil, search.Wait, err
	}
	return trial, advice, nil
}

// claim locks a trial, or returns nil if somebody else works on it.
func (s *Study) claim(t search.Trial) (*Trial, error) {
	dir := TrialDir(s.Dir, t.Number)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of a trial: %w", atomicfile.Explain(err, dir))
	}
	lock := flock.New(filepath.Join(dir, lockFile))
	ours, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking trial %d: %w", t.Number, err)
	}
	if !ours {
		return nil, lock.Close()
	}
	return &Trial{Trial: t, Dir: dir, study: s, lock: lock}, nil
}

// Report tells what the trial has reached after so much of its resource, and returns whether it goes on. One that does
// not has been paused or stopped. A value that is not finite fails the trial.
func (t *Trial) Report(resource int, value float64) (goOn bool, err error) {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return false, t.Fail(fmt.Errorf("it diverged: the value is %v after %d", value, resource))
	}
	err = t.study.alone(func() error {
		if err := t.study.write(search.Event{Kind: search.Told, Trial: t.Number, Resource: resource, Value: &value}); err != nil {
			return err
		}
		switch t.study.search.Verdict(t.Number) {
		case search.Paused:
			return t.end(search.Event{Kind: search.Pause, Trial: t.Number})
		case search.Stopped:
			return t.end(search.Event{Kind: search.Stop, Trial: t.Number})
		}
		return nil
	})
	return err == nil && !t.ended, err
}

// Finish gives the trial its value. One that is not finite fails it.
func (t *Trial) Finish(value float64) error {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return t.Fail(fmt.Errorf("the value is %v", value))
	}
	return t.study.alone(func() error { return t.end(search.Event{Kind: search.Finish, Trial: t.Number, Value: &value}) })
}

// Fail ends the trial by an error.
func (t *Trial) Fail(reason error) error {
	return t.study.alone(func() error {
		return t.end(search.Event{Kind: search.Fail, Trial: t.Number, Error: reason.Error()})
	})
}

func (t *Trial) end(event search.Event) error {
	if err := t.study.write(event); err != nil {
		return err
	}
	t.ended = true
	return nil
}

// Release lets go of the trial. One that has not ended can be taken up again by anybody.
func (t *Trial) Release() error { return t.lock.Close() }

// poll is how often a worker looks whether others have left it something to do.
const poll = 200 * time.Millisecond

// Work takes trial after trial until nothing is left, or ctx is cancelled: then the trial that is under way stays
// to be taken up again, and the error wraps the cause. An error of the objective fails its trial, and the search goes on.
func (s *Study) Work(ctx context.Context, objective func(context.Context, *Trial) (float64, error), done func(search.Trial)) error {
	for {
		if ctx.Err() != nil {
			return fmt.Errorf("the search was interrupted: %w", context.Cause(ctx))
		}
		trial, advice, err := s.Take()
		if err != nil {
			return err
		}
		switch advice {
		case search.Done:
			return nil
		case search.Wait:
			select {
			case <-ctx.Done():
			case <-time.After(poll):
			}
			continue
		}
		if err := s.one(ctx, trial, objective); err != nil {
			return err
		}
		if done != nil && trial.ended {
			done(trial.Trial)
		}
	}
}

func (s *Study) one(ctx context.Context, trial *Trial, objective func(context.Context, *Trial) (float64, error)) (err error) {
	defer func() { err = errors.Join(err, trial.Release()) }()
	value, failed := objective(ctx, trial)
	switch {
	case trial.ended:
	case failed != nil && ctx.Err() != nil:
		return nil // the loop says why it ends
	case failed != nil:
		err = trial.Fail(failed)
	default:
		err = trial.Finish(value)
	}
	if err != nil {
		return err
	}
	return s.alone(func() error {
		trial.Trial = s.search.Trials()[trial.Number]
		return nil
	})
}
