// Package program runs searches whose trials are programs: "elastic train ner", or any other that takes its parameters
// as arguments, prints what it reaches, and can be resumed.
//
//	spec, err := program.Preset("ner-rate")
//	err = program.Run(ctx, spec, program.Options{Dir: "runs/search-ner-rate"})
//	config, trials, err := journal.Read("runs/search-ner-rate")
//
// Several processes may run the same spec in the same folder.
package program

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/elastic-attention/workbench/internal/preset"
	"github.com/elastic-attention/workbench/pkg/study/search"
	"github.com/elastic-attention/workbench/pkg/study/search/journal"
)

// Spec is a search over the arguments of a program.
type Spec struct {
	Name   string        `json:"name"`
	Search search.Config `json:"search"`
	// Command is the program and its arguments, without a shell. In each word {name} stands for the value of a parameter,
	// and further
	//
	//	{elastic}   for this program
	//	{dir}       for the folder of the trial, the same each time that it is taken up
	//	{trial}     for its number
	//	{until}     for the resource at which it will pause, 0 for never
	//	{parent}    for the folder of the trial from whose state it goes on, in a population
	//
	// A word that names a parameter which the trial does not have, or a parent where there is none, is left out: so write
	// "--beta2={beta2}". A program that a scheduler pauses is interrupted (SIGINT) and started anew when the trial goes on,
	// as is one that was left behind by a process that died; it should go on from what it saved.
	Command []string `json:"command"`
	// Result is where the value is in the JSON that the program prints on standard output, as "dev.micro avg.f1". Empty takes
	// the last line of it, which must be a number.
	Result string `json:"result,omitempty"`
	// Reports is a regular expression with two groups for lines of either output: the resource used so far, a whole number,
	// and the value reached. Schedulers need it.
	Reports string `json:"reports,omitempty"`
	// Earlier are folders of searches over the same space, whose trials teach the sampler of this one.
	Earlier []string `json:"earlier,omitempty"`
}

var placeholder = regexp.MustCompile(`\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// Validate reports all that is wrong with s.
func (s Spec) Validate() error {
	problems := []error{}
	if s.Name == "" || strings.ContainsAny(s.Name, `/\`) {
		problems = append(problems, fmt.Errorf("name is %q, want one that a folder can have", s.Name))
	}
	if err := s.Search.Validate(); err != nil {
		problems = append(problems, fmt.Errorf("search: %w", err))
	}
	if len(s.Command) == 0 {
		problems = append(problems, errors.New("command is empty, want the program and its arguments"))
	}
	used := map[string]bool{}
	for i, word := range s.Command {
		for _, found := range placeholder.FindAllStringSubmatch(word, -1) {
			name := found[1]
			used[name] = true
			if !search.Reserved(name) && !slices.ContainsFunc(s.Search.Space, func(p search.Parameter) bool { return p.Name == name }) {
				problems = append(problems, fmt.Errorf("command.%d: {%s} is no parameter of the space", i, name))
			}
		}
	}
	for i, p := range s.Search.Space {
		if !used[p.Name] {
			problems = append(problems, fmt.Errorf("search.space.%d: the command never says {%s}, so it would be of no effect", i, p.Name))
		}
	}
	if pattern, err := regexp.Compile(s.Reports); err != nil {
		problems = append(problems, fmt.Errorf("reports: %w", err))
	} else if s.Reports != "" && pattern.NumSubexp() != 2 {
		problems = append(problems, fmt.Errorf("reports has %d groups, want 2: the resource and the value", pattern.NumSubexp()))
	}
	if s.Search.Scheduler != nil && s.Reports == "" {
		problems = append(problems, errors.New("reports is empty, but a scheduler needs what trials report"))
	}
	return errors.Join(problems...)
}

// words fills in the command for a trial.
func (s Spec) words(elastic, dir string, trial *journal.Trial) []string {
	values := map[string]string{"elastic": elastic, "dir": trial.Dir, "trial": strconv.Itoa(trial.Number), "until": strconv.Itoa(trial.Until)}
	if trial.Parent != nil {
		values["parent"] = journal.TrialDir(dir, *trial.Parent)
	}
	for name, value := range trial.Params {
		values[name] = fmt.Sprint(value)
	}
	var words []string
	for _, word := range s.Command {
		whole := true
		word = placeholder.ReplaceAllStringFunc(word, func(found string) string {
			value, ok := values[found[1:len(found)-1]]
			whole = whole && ok
			return value
		})
		if whole {
			words = append(words, word)
		}
	}
	return words
}

// value finds the result in what a program printed on standard output.
func (s Spec) value(output []byte) (float64, error) {
	output = bytes.TrimSpace(output)
	last := output[bytes.LastIndexByte(output, '\n')+1:]
	if s.Result == "" {
		value, err := strconv.ParseFloat(string(bytes.TrimSpace(last)), 64)
		if err != nil {
			return 0, fmt.Errorf("the last line of its output is %.100q, want a number", last)
		}
		return value, nil
	}
	var tree any
	if json.Unmarshal(output, &tree) != nil && json.Unmarshal(last, &tree) != nil {
		return 0, fmt.Errorf("neither its output nor the last line of it is JSON: %.100q", last)
	}
	so := ""
	for _, step := range strings.Split(s.Result, ".") {
		so = strings.TrimPrefix(so+"."+step, ".")
		switch node := tree.(type) {
		case map[string]any:
			tree = node[step]
		case []any:
			at, err := strconv.Atoi(step)
			if err != nil || at < 0 || at >= len(node) {
				return 0, fmt.Errorf("result: %s is not in its output, where there is a list of %d", so, len(node))
			}
			tree = node[at]
		default:
			tree = nil
		}
		if tree == nil {
			return 0, fmt.Errorf("result: its output has no %s", so)
		}
	}
	value, ok := tree.(float64)
	if !ok {
		return 0, fmt.Errorf("result: %s is %v, want a number", s.Result, tree)
	}
	return value, nil
}

// earlier reads the trials that teach the sampler.
func (s Spec) earlier() ([]search.Trial, error) {
	var all []search.Trial
	for _, dir := range s.Earlier {
		config, trials, err := journal.Read(dir)
		if err != nil {
			return nil, fmt.Errorf("earlier: %w", err)
		}
		if config.Maximize != s.Search.Maximize {
			return nil, fmt.Errorf("earlier: maximize is %v in %s, and %v here", config.Maximize, dir, s.Search.Maximize)
		}
		for _, t := range trials {
			if t.State == search.Finished {
				all = append(all, t)
			}
		}
	}
	return all, nil
}

//go:embed presets/*.json
var files embed.FS

var presets = preset.Files[Spec]{What: "search", FS: files}

// Presets lists the searches that come with the package, sorted.
func Presets() []string { return presets.Names() }

// Preset returns a search that comes with the package.
func Preset(name string) (Spec, error) { return presets.Get(name) }

// ReadSpec reads a search from a file. Unknown fields are errors.
func ReadSpec(file string) (Spec, error) { return presets.Read(file) }

// SpecFile is the spec in the folder of its search.
const SpecFile = "program.json"

// same refuses a folder in which another program was searched for.
func (s Spec) same(dir string) error {
	before, err := ReadSpec(filepath.Join(dir, SpecFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !slices.Equal(before.Command, s.Command) || before.Result != s.Result || before.Reports != s.Reports {
		return fmt.Errorf("%s holds a search with another command: its %s differs; name another folder", dir, SpecFile)
	}
	return nil
}
