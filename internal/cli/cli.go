// Package cli is the command line of elastic: it parses arguments, shows progress and
// prints results. What the commands do lies in the packages below pkg.
package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/alecthomas/kong"
	"github.com/gomlx/compute"
	"github.com/posener/complete"
	"github.com/willabides/kongplete"

	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/peft"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/ner/experiment"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/study"
	trials "github.com/elastic-attention/workbench/pkg/study/search/program"
	classify "github.com/elastic-attention/workbench/pkg/task/classify/experiment"
	lm "github.com/elastic-attention/workbench/pkg/task/lm/experiment"
	"github.com/elastic-attention/workbench/pkg/track"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// commands is the grammar.
type commands struct {
	Train    trainCmd    `cmd:"" help:"Train a model."`
	Eval     evalCmd     `cmd:"" help:"Score a trained model on labelled data."`
	Predict  predictCmd  `cmd:"" help:"Find named entities in texts, or tell their classes."`
	Plot     plotCmd     `cmd:"" help:"Draw how a run trained: loss, learning rate, and what was done to it."`
	Generate generateCmd `cmd:"" help:"Write text with a language model."`
	Explain  explainCmd  `cmd:"" help:"Say which words speak for what is predicted."`
	Study    studyCmd    `cmd:"" help:"Compare variants of a model: many runs, paired seeds, intervals."`
	Search   searchCmd   `cmd:"" help:"Search for good values of parameters: many trials of a command."`
	Nb       nbCmd       `cmd:"" help:"Notebooks: execute, compare, check, export."`
	Runs     runsCmd     `cmd:"" help:"Find, show, compare and hand on the runs of this folder."`
	UI       uiCmd       `cmd:"" name:"ui" help:"Show runs in a browser: lists, live curves, comparisons."`
	Fetch    fetchCmd    `cmd:"" help:"Download models and data sets, with checksums and licence."`
	Backend  backendCmd  `cmd:"" help:"Show, install or name the backend that computes."`
	Doctor   doctorCmd   `cmd:"" help:"Say what this machine has, and what to do about what is missing."`
	Version  versionCmd  `cmd:"" help:"Print versions."`

	Completion completionCmd `cmd:"" help:"Print the line that switches on completion in your shell."`
}

// app is what commands work with.
type app struct {
	ctx    context.Context
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer

	ending ending
}

// Run executes one command line and returns the exit code: 0 when all went well, 1
// when the command failed, 2 when the arguments make no sense.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var grammar commands
	code := -1
	out := &output{Writer: stdout}
	parser, err := kong.New(&grammar,
		kong.Name("elastic"),
		kong.Description("Train, evaluate and run models with elastic attention.\n\nStart with \"elastic train ner\" (named entities), \"elastic train classify\" (classes of texts) or \"elastic train lm\" (texts to write on): it fetches what it needs, trains, and prints a report. Every command has --help."),
		kong.Writers(out, stderr),
		kong.Exit(func(c int) { code = c }),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Vars{
			"adapters":      strings.Join(peft.Kinds(), ", "),
			"depths":        strings.Join(transformer.DepthKinds(), " or "),
			"presets":       strings.Join(experiment.Presets(), ","),
			"defaultPreset": experiment.DefaultPreset,
			"searches":      strings.Join(trials.Presets(), ", "),
			"studies":       strings.Join(study.Presets(), ", "),
			"models":        strings.Join(hub.Models(), ", "),
			"methods":       strings.Join(ner.ExplainMethods(), ", "),
			"defaultMethod": ner.ExplainMethods()[0],
			"corpora":       strings.Join(hub.Corpora(hub.TaskNER), ", "),

			"classifyPresets":       strings.Join(classify.Presets(), ","),
			"defaultClassifyPreset": classify.DefaultPreset,
			"classifyCorpora":       strings.Join(hub.Corpora(hub.TaskClassify), ", "),

			"lmPresets":       strings.Join(lm.Presets(), ","),
			"defaultLMPreset": lm.DefaultPreset,
			"lmCorpora":       strings.Join(hub.Corpora(hub.TaskLM), ", "),
		},
	)
	if err != nil {
		fmt.Fprintf(stderr, "elastic: %v\n", err)
		return exitFailed
	}
	kongplete.Complete(parser, kongplete.WithPredictor("resource", complete.PredictSet(hub.Names()...)), kongplete.WithPredictor("path", complete.PredictFiles("*")))
	if len(args) == 0 || len(args) == 1 && args[0] == "help" {
		args = []string{"--help"}
	} else if len(args) == 1 && args[0] == "--version" {
		args = []string{"version"}
	} else if args[0] == "help" {
		args = append(args[1:], "--help")
	}
	for i, arg := range args {
		if !utf8.ValidString(arg) { // the parser would put replacement characters in its place
			fmt.Fprintf(stderr, "elastic: argument %d (%q) is not UTF-8\n", i+1, arg)
			return exitUsage
		}
	}
	parsed, err := parser.Parse(args)
	if code >= 0 { // --help
		return code
	}
	if err != nil {
		fmt.Fprintf(stderr, "elastic: %v\n", err)
		var parseError *kong.ParseError
		if errors.As(err, &parseError) {
			hint := program() + " --help"
			if command := parseError.Context.Selected(); command != nil {
				hint = program() + " " + command.Path() + " --help"
			}
			fmt.Fprintf(stderr, "See: %s\n", hint)
		}
		return exitUsage
	}
	err = (&app{ctx: ctx, stdin: stdin, stdout: out, stderr: stderr}).notifying(parsed)
	if code >= 0 {
		return code
	}
	if err == nil && out.err != nil {
		err = fmt.Errorf("writing the output: %w", out.err)
	}
	var usage usageError
	var unknown *run.NameError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage), errors.As(err, &unknown):
		fmt.Fprintf(stderr, "elastic: %v\n", err)
		return exitUsage
	case errors.Is(err, errSilent):
	default:
		fmt.Fprintf(stderr, "elastic: %v\n", err)
		if errors.Is(err, train.ErrInterrupted) {
			fmt.Fprintln(stderr, "The run is saved. The same command with --resume continues it.")
		}
	}
	return exitFailed
}

// program is what the user calls this program by, so that a command that is printed can be
// copied: "elastic", or with its path where it is not in PATH.
func program() string {
	if name := os.Args[0]; filepath.Base(name) == "elastic" {
		return name
	}
	return "elastic"
}

// quoted is a word as a shell takes it.
func quoted(word string) string {
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("/._-+:,@%=", r)
	}) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// output is standard output. It keeps its first error, so that commands need not look
// at each of their lines: a full disk must not look like success.
type output struct {
	io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// usageError is about arguments that parse but make no sense.
type usageError struct{ error }

// errSilent ends a command with exit code 1 and without a message.
var errSilent = errors.New("failed")

// open opens the backend and says which on standard error.
func (a *app) open() (compute.Backend, backend.Choice, error) {
	engine, choice, err := backend.Open(a.ctx, backend.Options{})
	if err != nil {
		return nil, choice, err
	}
	fmt.Fprintln(a.stderr, choice)
	return engine, choice, nil
}

// printJSON writes a value to standard output.
func (a *app) printJSON(value any) error {
	encoder := json.NewEncoder(a.stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// named returns the folder of a run or model that an argument means: the argument itself if there is such a file, else the run below runs/
// that it names: by its name, by a part of it that no other run has, or as "latest". What a folder lacks of what is wanted is told by an
// error of lacks; the latest run is that of those that lack nothing.
func (a *app) named(name string, lacks func(dir string) error) (string, error) {
	if _, err := os.Stat(name); err == nil || name == "" || strings.ContainsRune(name, filepath.Separator) {
		return name, lacks(name)
	}
	store, err := track.Open(a.ctx, "runs")
	if errors.Is(err, fs.ErrNotExist) {
		if name == "latest" {
			return "", usageError{errors.New("latest: there is no folder runs here: train something first, or go to where it lies")}
		}
		return name, lacks(name)
	}
	if err != nil {
		return "", err
	}
	defer store.Close()
	if name == "latest" {
		return a.latest(store, lacks)
	}
	r, err := store.Find(a.ctx, name)
	if err != nil {
		return "", usageError{fmt.Errorf("%s is no folder, nor the name of a run: %w", name, err)}
	}
	fmt.Fprintf(a.stderr, "run %s\n", r.Dir)
	return r.Dir, lacks(r.Dir)
}

// meant returns the folder of a run that a flag names as [app.named] says. An empty value and a path stay as they are: whoever reads
// the folder says what it lacks.
func (a *app) meant(flag, name string, lacks func(dir string) error) (string, error) {
	if _, err := os.Stat(name); err == nil || name == "" || strings.ContainsRune(name, filepath.Separator) {
		return name, nil
	}
	dir, err := a.named(name, lacks)
	if err != nil {
		return "", usageError{fmt.Errorf("%s: %w", flag, err)}
	}
	return dir, nil
}

// latest returns the folder of the latest run that lacks nothing.
func (a *app) latest(store *track.Store, lacks func(dir string) error) (string, error) {
	runs, err := store.Runs(a.ctx, track.Query{})
	if err != nil {
		return "", err
	}
	slices.SortStableFunc(runs, func(a, b track.Run) int { return b.Started.Compare(a.Started) }) // a query knows seconds only
	var why error                                                                                 // the latest will not do
	for _, r := range runs {
		err := lacks(r.Dir)
		if err == nil {
			fmt.Fprintf(a.stderr, "run %s\n", r.Dir)
			if why != nil {
				fmt.Fprintf(a.stderr, "passed over: %v\n", why)
			}
			return r.Dir, nil
		}
		why = cmp.Or(why, err)
	}
	if why == nil {
		return "", usageError{fmt.Errorf("latest: %s holds no run: train something first", store.Dir())}
	}
	return "", usageError{fmt.Errorf("none of %d runs below %s will do; the latest: %w", len(runs), store.Dir(), why)}
}

// noFolder says of a path that is no folder what may be given.
func noFolder(path string) error {
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return fmt.Errorf("%s is no folder: want that of a run, a part of the name of a run below runs, or latest", quoted(path))
	}
	return nil
}

// noModel says of a path that leads to no model what it is.
func noModel(path string) error {
	if err := noFolder(path); err != nil {
		return fmt.Errorf("%w; or the folder of a model, with config.json, model.safetensors and tokenizer.json", err)
	}
	dir, err := run.ModelFolder(path)
	if err != nil {
		return err
	}
	for _, name := range []string{"config.json", peft.ConfigFile} { // the latter alone is an adapter of another program
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return fmt.Errorf("%s holds neither a run nor a model: want the folder of a run, or one with config.json, model.safetensors and tokenizer.json", path)
}
