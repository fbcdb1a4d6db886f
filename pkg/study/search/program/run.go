package program

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/pkg/study/search"
	"github.com/elastic-attention/workbench/pkg/study/search/journal"
)

// Options is what a search needs beside its spec.
type Options struct {
	// Dir is its folder.
	Dir string
	// Elastic is the path that {elastic} stands for in commands; empty means the program itself.
	Elastic string
	// Workers is how many trials this process works on at once; 0 means 1.
	Workers int
	// Done is told of each trial that was paused or ended here; it may be nil, and is called by one worker at a time.
	Done func(search.Trial)
	// Warn is told of what was repaired; it may be nil.
	Warn func(message string)
}

// OutputFile is what the program of a trial has written to its two outputs, in the trial's folder.
const OutputFile = "output.txt"

// Tail returns the last lines, n at most and without empty ones, that the program of a trial wrote when it ran last. The
// error wraps [fs.ErrNotExist] if it never ran.
func Tail(dir string, trial, n int) ([]string, error) {
	file, err := os.Open(OutputPath(dir, trial))
	if err != nil {
		return nil, fmt.Errorf("reading the output of a trial: %w", err)
	}
	defer file.Close()
	const most = 64 << 10 // enough for some lines; an output may be long
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading the output of a trial: %w", err)
	}
	content, err := io.ReadAll(io.NewSectionReader(file, max(info.Size()-most, 0), most))
	if err != nil {
		return nil, fmt.Errorf("reading the output of a trial: %w", err)
	}
	var last []string
	each := lines{each: func(line []byte) {
		if bytes.HasPrefix(line, []byte(started)) {
			last = nil
			return
		}
		last = append(last, strings.ToValidUTF8(string(line), "\uFFFD"))
	}}
	_, _ = each.Write(content) // cannot fail
	each.flush()
	return last[max(len(last)-n, 0):], nil
}

// OutputPath returns the [OutputFile] of a trial of the search in dir.
func OutputPath(dir string, trial int) string {
	return filepath.Join(journal.TrialDir(dir, trial), OutputFile)
}

// Run works on a search until nothing is left to do in it. Other processes may do so in the same folder. When
// ctx is cancelled, programs are interrupted, and the same call goes on later.
func Run(ctx context.Context, spec Spec, options Options) error {
	if err := spec.Validate(); err != nil {
		return fmt.Errorf("search: %w", err)
	}
	if options.Elastic == "" {
		var err error
		if options.Elastic, err = os.Executable(); err != nil {
			return fmt.Errorf("search: %w", err)
		}
	}
	if err := spec.same(options.Dir); err != nil {
		return err
	}
	earlier, err := spec.earlier()
	if err != nil {
		return err
	}
	study, err := journal.Open(options.Dir, spec.Search, earlier)
	if err != nil {
		return err
	}
	study.Warn = options.Warn
	content, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return fmt.Errorf("writing %s: %w", SpecFile, err)
	}
	if err := atomicfile.WriteFile(filepath.Join(options.Dir, SpecFile), append(content, '\n')); err != nil {
		return err
	}
	var telling sync.Mutex
	done := func(t search.Trial) {
		if options.Done != nil {
			telling.Lock()
			defer telling.Unlock()
			options.Done(t)
		}
	}
	workers := max(options.Workers, 1)
	results := make(chan error, workers)
	for range workers {
		go func() {
			results <- study.Work(ctx, func(ctx context.Context, trial *journal.Trial) (float64, error) {
				return spec.start(ctx, options, trial)
			}, done)
		}()
	}
	for range workers {
		if ended := <-results; err == nil { // one is enough to say
			err = ended
		}
	}
	return err
}

// started begins the line of an output that says what was started.
const started = "$ "

// patience is how long an interrupted program may take to save and end.
const patience = 2 * time.Minute

// start runs the program of a trial. Its error says where all that the program wrote is.
func (s Spec) start(ctx context.Context, options Options, trial *journal.Trial) (value float64, err error) {
	defer func() {
		if err != nil && !errors.Is(err, journal.ErrEnded) {
			err = fmt.Errorf("%w (its output: %s)", err, path.Join(journal.TrialsDir, filepath.Base(trial.Dir), OutputFile))
		}
	}()
	// A program must end with the process that started it, lest two work on the trial when it is taken up again. On Linux
	// it is the end of the thread that counts.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	log, err := os.OpenFile(OutputPath(options.Dir, trial.Number), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, fmt.Errorf("opening the output of a trial: %w", atomicfile.Explain(err, trial.Dir))
	}
	defer log.Close()
	ctx, end := context.WithCancel(ctx)
	defer end()
	words := s.words(options.Elastic, options.Dir, trial)
	fmt.Fprintf(log, "%s%q\n", started, words)
	command := exec.CommandContext(ctx, words[0], words[1:]...)
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = patience
	detach(command)
	told := &reports{trial: trial, end: end}
	if s.Reports != "" {
		told.pattern = regexp.MustCompile(s.Reports)
	}
	var result bytes.Buffer
	out, complaints := &lines{each: told.line}, &lines{each: told.line}
	command.Stdout, command.Stderr = io.MultiWriter(&result, out, log), io.MultiWriter(complaints, log)
	err = command.Run()
	out.flush()
	complaints.flush()
	switch {
	case told.err != nil:
		return 0, told.err
	case told.ended:
		return 0, journal.ErrEnded
	case err != nil && len(complaints.last) > 0:
		return 0, fmt.Errorf("%s: %w: %s", filepath.Base(words[0]), err, complaints.last)
	case err != nil:
		return 0, fmt.Errorf("%s: %w", filepath.Base(words[0]), err)
	}
	return s.value(result.Bytes())
}

// reports passes on what a program reports by lines of its outputs.
type reports struct {
	pattern *regexp.Regexp
	trial   *journal.Trial
	end     func()

	mutex sync.Mutex // both outputs are read at once
	ended bool
	err   error
}

func (r *reports) line(line []byte) {
	if r.pattern == nil {
		return
	}
	found := r.pattern.FindSubmatch(line)
	if found == nil {
		return
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.ended || r.err != nil {
		return
	}
	resource, err1 := strconv.Atoi(string(found[1]))
	value, err2 := strconv.ParseFloat(string(found[2]), 64)
	if err := errors.Join(err1, err2); err != nil {
		r.err = fmt.Errorf("reports finds no numbers in the line %.200q: %w", line, err)
	} else if goOn, err := r.trial.Report(resource, value); err != nil {
		r.err = err
	} else {
		r.ended = !goOn
	}
	if r.ended || r.err != nil {
		r.end()
	}
}

// lines calls each for each line that is written, without its end. A carriage return ends one too: progress bars go back.
type lines struct {
	each func([]byte)
	rest []byte
	last []byte // the last line that is not empty
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		at := bytes.IndexAny(l.rest, "\r\n")
		if at < 0 {
			return len(p), nil
		}
		l.take(l.rest[:at])
		l.rest = l.rest[at+1:]
	}
}

func (l *lines) take(line []byte) {
	if line = bytes.TrimSpace(line); len(line) > 0 {
		l.last = bytes.Clone(line)
		l.each(line)
	}
}

func (l *lines) flush() {
	l.take(l.rest)
	l.rest = nil
}
