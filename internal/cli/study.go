package cli

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/study"
)

type studyCmd struct {
	Run  studyRunCmd  `cmd:"" help:"Train and score the variants of a study, or go on with it."`
	Show studyShowCmd `cmd:"" help:"Compare what the runs of a study found."`
	Data studyDataCmd `cmd:"" help:"Write what a study trains and scores on as files."`
}

// studyArg names a study.
type studyArg struct {
	Study string `arg:"" help:"Study that comes with the program (${studies}), or a JSON file that holds one." predictor:"path"`
}

// config reads the study.
func (c studyArg) config() (study.Config, error) {
	if info, err := os.Stat(c.Study); err == nil && info.Mode().IsRegular() {
		return study.ReadConfig(c.Study)
	}
	return study.Preset(c.Study)
}

type studyRunCmd struct {
	studyArg
	Folder string `name:"run" help:"Study folder. Default: runs/study-NAME. A folder that holds a part of the study goes on." placeholder:"DIR" predictor:"path"`
	notifyFlag
}

// Help is shown below the usage.
func (studyRunCmd) Help() string {
	return `Examples:
  elastic study run claim-ner-quick          some minutes: what a study is
  elastic study run mine.json --run runs/mine
  elastic study show runs/mine

A study can be stopped in any way: the same command goes on with the runs that are missing.`
}

// Run makes the runs of a study.
func (c studyRunCmd) Run(a *app) error {
	config, err := c.config()
	if err != nil {
		return usageError{err}
	}
	dir := c.Folder
	if dir == "" {
		dir = filepath.Join("runs", "study-"+config.Name)
	}
	a.ending.run = dir
	engine, choice, err := a.open()
	if err != nil {
		return err
	}
	_, err = study.Run(a.ctx, engine, config, study.Options{
		Dir: dir, Client: &hub.Client{Progress: fetching(a.stderr)}, Backend: choice,
		Done: func(p study.Progress) {
			a.ending.results = map[string]float64{"runs": float64(p.Done), "of": float64(p.Total)}
			if p.Before {
				return
			}
			r := p.Result
			fmt.Fprintf(a.stderr, "%d/%d  %s, seed %d: loss %.3f", p.Done, p.Total, r.Variant, r.Seed, r.Loss)
			for _, score := range r.Scores {
				if score.Adaptation == "" {
					fmt.Fprintf(a.stderr, "  %s %.3f", score.Set, score.Outcomes.F1())
				}
			}
			fmt.Fprintf(a.stderr, "  (%.0f s)\n", r.Seconds)
		},
	})
	if err == nil {
		fmt.Fprintf(a.stdout, "Study folder: %s\nTry next:\n  %s study show %s\n", dir, program(), quoted(dir))
	}
	return err
}
