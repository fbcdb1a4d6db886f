package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/elastic-attention/workbench/pkg/track"
	"github.com/elastic-attention/workbench/pkg/track/mlflow"
	"github.com/elastic-attention/workbench/pkg/track/tensorboard"
)

type runsExportCmd struct {
	TensorBoard exportTensorBoardCmd `cmd:"" name:"tensorboard" help:"Write event files for TensorBoard."`
	MLflow      exportMLflowCmd      `cmd:"" name:"mlflow" help:"Send runs to an MLflow tracking server."`
	Points      exportPointsCmd      `cmd:"" help:"Print all points as a table: run, metric, step, time, value."`
}

type exportTensorBoardCmd struct {
	choice
	To string `help:"Folder for the event files, one folder below it for each run." default:"runs/tensorboard" predictor:"path"`
}

// Help is shown below the usage.
func (exportTensorBoardCmd) Help() string {
	return `Examples:
  elastic runs export tensorboard ner-quick --to logs
  elastic runs export tensorboard --where status=finished --to logs
  tensorboard --logdir logs

A second export writes the files anew. Configs are shown by the page HPARAMS.`
}

// Run writes event files.
func (c exportTensorBoardCmd) Run(a *app) error {
	runs, err := c.find(a)
	if err != nil {
		return err
	}
	for _, r := range runs {
		path, err := tensorboard.Export(c.To, r)
		if err != nil {
			return err
		}
		fmt.Fprintln(a.stdout, path)
	}
	return nil
}

type exportMLflowCmd struct {
	choice
	To         string `help:"Address of the server. Default: MLFLOW_TRACKING_URI." env:"MLFLOW_TRACKING_URI" placeholder:"URL"`
	Experiment string `help:"Experiment on the server; it is made if there is none." default:"elastic"`
	Artefacts  bool   `help:"Send the files of runs too: model, reports, pictures."`
}

// Help is shown below the usage.
func (exportMLflowCmd) Help() string {
	return `Examples:
  elastic runs export mlflow latest --to http://127.0.0.1:5000
  elastic runs export mlflow latest --to http://127.0.0.1:5000 --artefacts
  MLFLOW_TRACKING_URI=https://mlflow.example MLFLOW_TRACKING_TOKEN=… elastic runs export mlflow --where tag=good

An export that was stopped, or of a run that goes on, is continued by the same command; nothing is there twice.
Without --artefacts only the checksums of files are sent.`
}

// Run sends runs.
func (c exportMLflowCmd) Run(a *app) error {
	if c.To == "" {
		return usageError{errors.New("where to? give the server's address by --to, or in MLFLOW_TRACKING_URI")}
	}
	runs, err := c.find(a)
	if err != nil {
		return err
	}
	client := mlflow.Client{URL: c.To, Token: os.Getenv("MLFLOW_TRACKING_TOKEN")}
	for _, r := range runs {
		result, err := client.Export(a.ctx, c.Experiment, r)
		if err != nil {
			return err
		}
		if result.Anew {
			fmt.Fprintf(a.stderr, "%s was resumed from before what the server had: that MLflow run is deleted, and made anew\n", r.ID)
		}
		fmt.Fprintf(a.stdout, "%s: %d points sent, %d in all, MLflow run %s\n", r.ID, result.Sent, result.Points, result.RunID)
		if !c.Artefacts {
			continue
		}
		files, err := client.Upload(a.ctx, r, result)
		if err != nil {
			return err
		}
		for _, why := range files.Left {
			fmt.Fprintf(a.stderr, "%s: not sent: %s\n", r.ID, why)
		}
		fmt.Fprintf(a.stdout, "%s: %d files sent (%d bytes), %d there already\n", r.ID, files.Files, files.Bytes, files.Kept)
	}
	return nil
}

type exportPointsCmd struct{ choice }

// Run prints points.
func (c exportPointsCmd) Run(a *app) error {
	runs, err := c.find(a)
	if err != nil {
		return err
	}
	w := csv.NewWriter(a.stdout)
	if err := w.Write([]string{"run", "metric", "step", "time", "value"}); err != nil {
		return err
	}
	for _, r := range runs {
		series, err := r.Series()
		if err != nil {
			return err
		}
		for _, v := range track.Ordered(series) {
			if err := w.Write([]string{r.ID, v.Name, strconv.Itoa(v.Step), v.Time.Format(time.RFC3339Nano), strconv.FormatFloat(v.Value, 'g', -1, 64)}); err != nil {
				return err
			}
		}
	}
	w.Flush()
	return w.Error()
}
