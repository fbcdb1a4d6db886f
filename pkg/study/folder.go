package study

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/internal/strictjson"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/eval"
	"github.com/elastic-attention/workbench/pkg/run"
)

// The files of a study folder. Results may be compressed too, with the ending .gz, to be read only.
const (
	ConfigFile  = "study.json"
	RecordFile  = "record.json"
	ResultsFile = "results.jsonl"
	// RunsDir holds a run folder for each result, with its curves; see package track.
	RunsDir = "runs"
)

// Record says what the results of a study depend on beside its config.
type Record struct {
	Started  time.Time         `json:"started"`
	Model    map[string]string `json:"model_sha256"`
	Data     map[string]string `json:"data_sha256"` // by data set and split
	Examples map[string]int    `json:"examples"`    // by set
	Versions map[string]string `json:"versions"`
	Backend  any               `json:"backend,omitempty"`
}

// Result is one run: a variant, trained under a seed and scored.
type Result struct {
	Variant string `json:"variant"`
	Seed    uint64 `json:"seed"`
	// Spec is the attention, and Parts the names of the variants that a combination is made of.
	Spec  attention.Spec `json:"spec"`
	Parts []string       `json:"parts,omitempty"`
	// Parameters is the number of weights, Updates of updates, TrialUpdates of those that trials of the rate made and
	// undid; Loss is the last one recorded.
	Parameters   int       `json:"parameters"`
	Updates      int       `json:"updates"`
	TrialUpdates int       `json:"trial_updates,omitempty"`
	Loss         float64   `json:"loss"`
	Rate         float64   `json:"rate,omitempty"` // the peak of the schedule
	Seconds      float64   `json:"seconds"`        // wall time of training and scoring
	Finished     time.Time `json:"finished"`
	Scores       []Score   `json:"scores"`
}

// Score is how a trained model did on a set.
type Score struct {
	Set string `json:"set"`
	// Adaptation is the name of one, or empty for none.
	Adaptation string        `json:"adaptation,omitempty"`
	Outcomes   eval.Outcomes `json:"outcomes"`
	// CPUSeconds is what the program's threads used while it was scored, compilation included
	// where there was any.
	CPUSeconds float64 `json:"cpu_seconds"`
	// Resets is how often the guard of an adaptation put the model back, and Stopped whether it gave up.
	Resets  int  `json:"resets,omitempty"`
	Stopped bool `json:"stopped,omitempty"`
}

// guarded notes what the guard of an adaptation did.
func (s *Score) guarded(events []testtime.Event) {
	for _, event := range events {
		if event.Reset != "" {
			s.Resets++
		}
		s.Stopped = s.Stopped || event.Stopped
	}
}

func (r Result) score(set, adaptation string) (Score, bool) {
	at := slices.IndexFunc(r.Scores, func(s Score) bool { return s.Set == set && s.Adaptation == adaptation })
	if at < 0 {
		return Score{}, false
	}
	return r.Scores[at], true
}

func find(results []Result, variant string, seed uint64) (Result, bool) {
	at := slices.IndexFunc(results, func(r Result) bool { return r.Variant == variant && r.Seed == seed })
	if at < 0 {
		return Result{}, false
	}
	return results[at], true
}

// Folder is what a study folder holds.
type Folder struct {
	Dir     string
	Config  Config
	Record  Record
	Results []Result
}

// Open reads a study folder. A last line of results that was not written to its end is left out;
// any other that cannot be read is an error that names it.
func Open(dir string) (*Folder, error) {
	f := &Folder{Dir: dir}
	var err error
	f.Config, err = ReadConfig(filepath.Join(dir, ConfigFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s holds no study, it has no %s: want a folder that a study has run in: %w", dir, ConfigFile, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(filepath.Join(dir, RecordFile))
	if err != nil {
		return nil, fmt.Errorf("reading study record: %w", err)
	}
	if err := strictjson.DecodeKnown(content, &f.Record); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, RecordFile), err)
	}
	f.Results, _, err = readResults(dir)
	return f, err
}

// readResults returns the results of a folder and the length of the file that holds them whole.
func readResults(dir string) ([]Result, int64, error) {
	path := filepath.Join(dir, ResultsFile)
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if file, err = os.Open(path + ".gz"); errors.Is(err, fs.ErrNotExist) {
			return nil, 0, nil
		}
		path += ".gz"
	}
	if err != nil {
		return nil, 0, fmt.Errorf("reading results: %w", err)
	}
	defer file.Close()
	var source io.Reader = file
	if filepath.Ext(path) == ".gz" {
		if source, err = gzip.NewReader(file); err != nil {
			return nil, 0, fmt.Errorf("%s: %w", path, err)
		}
	}
	var results []Result
	length := int64(0)
	for lines, number := bufio.NewReader(source), 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF { // what stands behind the last line end was not finished
			return results, length, nil
		}
		if err != nil {
			return results, length, fmt.Errorf("%s: %w", path, err)
		}
		var result Result
		if err := json.Unmarshal(line, &result); err != nil {
			return results, length, fmt.Errorf("%s:%d: %w", path, number, err)
		}
		for _, score := range result.Scores {
			if err := score.Outcomes.Validate(); err != nil {
				return results, length, fmt.Errorf("%s:%d: set %q: %w", path, number, score.Set, err)
			}
		}
		results = append(results, result)
		length += int64(len(line))
	}
}

// begin makes the folder or takes it up again. What decides the results must be as it was; only
// variants, seeds and adaptations may have been added, behind those of before.
func begin(dir string, config Config, record Record) (*Folder, error) {
	f := &Folder{Dir: dir, Config: config, Record: record}
	before, err := Open(dir)
	switch {
	case err == nil:
		if err := before.allows(config, record); err != nil {
			return nil, fmt.Errorf("%s holds a study that does not fit: %w; name another folder", dir, err)
		}
		f.Record.Started = before.Record.Started
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case exists(filepath.Join(dir, run.RecordFile)):
		return nil, fmt.Errorf("%s is the folder of a run: name another one for the study", dir)
	}
	results, length, err := readResults(dir)
	if err != nil {
		return nil, err
	}
	f.Results = results
	if path := filepath.Join(dir, ResultsFile); len(results) > 0 || exists(path) {
		if err := os.Truncate(path, length); err != nil {
			return nil, fmt.Errorf("taking up results: %w", err)
		}
	}
	for name, value := range map[string]any{ConfigFile: config, RecordFile: f.Record} {
		content, err := json.MarshalIndent(value, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("writing %s: %w", name, err)
		}
		if err := atomicfile.WriteFile(filepath.Join(dir, name), append(content, '\n')); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// allows says why the study of f cannot go on as config.
func (f *Folder) allows(config Config, record Record) error {
	for what, pair := range map[string][2]map[string]string{"model": {f.Record.Model, record.Model}, "data": {f.Record.Data, record.Data}} {
		for name, sum := range pair[1] {
			if before, ok := pair[0][name]; ok && before != sum {
				return fmt.Errorf("the checksum of the %s, %s, was %s and is %s", what, name, before, sum)
			}
		}
	}
	was, is := f.Config, config
	if len(is.Variants) < len(was.Variants) || len(is.Seeds) < len(was.Seeds) || len(is.Adaptations) != len(was.Adaptations) {
		return errors.New("variants, seeds or adaptations are missing")
	}
	is.Variants, is.Seeds = is.Variants[:len(was.Variants)], is.Seeds[:len(was.Seeds)]
	a, errA := json.Marshal(was)
	b, errB := json.Marshal(is)
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	if !bytes.Equal(a, b) {
		return fmt.Errorf("its %s differs", ConfigFile)
	}
	return nil
}

// add writes a result to the disk, whole or, if the program dies meanwhile, as a last line
// without an end, which the next start cuts off.
func (f *Folder) add(result Result) (err error) {
	line, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("writing a result: %w", err)
	}
	path := filepath.Join(f.Dir, ResultsFile)
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("writing a result: %w", atomicfile.Explain(err, f.Dir))
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err = file.Write(append(line, '\n')); err == nil {
		err = file.Sync()
	}
	if err != nil {
		return fmt.Errorf("writing a result: %w", atomicfile.Explain(err, f.Dir))
	}
	f.Results = append(f.Results, result)
	return nil
}
