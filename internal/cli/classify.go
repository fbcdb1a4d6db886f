package cli

import (
	"encoding/json"
	"fmt"

	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
	"github.com/elastic-attention/workbench/pkg/eval"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/task/classify"
	"github.com/elastic-attention/workbench/pkg/task/classify/experiment"
)

// classify scores a classifier.
func (c evalCmd) classify(a *app) error {
	if c.Strict || c.Types != "" || c.Threshold != nil {
		return usageError{fmt.Errorf("--strict, --types and --threshold are for taggers, and %s is a classifier", c.Model)}
	}
	config, err := evalConfig[experiment.Config](c)
	if err != nil {
		return err
	}
	corpus := config.Data
	switch {
	case c.File != "":
		corpus = experiment.Data{TestFile: c.File, TextColumn: corpus.TextColumn, LabelColumn: corpus.LabelColumn}
		if c.TextColumn != "" {
			corpus.TextColumn = c.TextColumn
		}
		if c.LabelColumn != "" {
			corpus.LabelColumn = c.LabelColumn
		}
	case c.TextColumn != "" || c.LabelColumn != "":
		return usageError{fmt.Errorf("--text-column and --label-column need --file")}
	case c.Data != "":
		corpus = experiment.Data{Name: c.Data}
	}
	texts, err := part(a, c.corpusFlags, corpus.Load)
	if err != nil {
		return err
	}
	classifier, err := load(a, c.Model, classify.Load)
	if err != nil {
		return err
	}
	evaluate := classifier.Evaluate
	var adaptive *classify.Adaptive
	if c.Adapt != "" {
		config, err := adaptation(c.Adapt)
		if err == nil {
			adaptive, err = classifier.Adapt(config)
		}
		if err != nil {
			return usageError{err}
		}
		evaluate = adaptive.Evaluate
	}
	report, err := evaluate(a.ctx, texts, evaluation(a.stderr))
	if err != nil {
		return err
	}
	var events []testtime.Event
	if adaptive != nil {
		events = adaptive.Events()
		a.tellEvents(events)
	}
	if c.JSON {
		return a.printJSON(struct {
			eval.Classification
			Adaptation []testtime.Event `json:"adaptation,omitempty"`
		}{report, events})
	}
	fmt.Fprintf(a.stdout, "%s\n%s", report.Text(c.Digits), report.Summary())
	return nil
}

// classify tells the classes of texts.
func (c predictCmd) classify(a *app, encoder *json.Encoder, classifier *classify.Classifier, texts []string) error {
	if c.Logits {
		rows, err := classifier.Logits(a.ctx, texts, nil)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if err := encoder.Encode(row); err != nil {
				return err
			}
		}
		return nil
	}
	predictions, err := classifier.Predict(a.ctx, texts...)
	if err != nil {
		return err
	}
	for _, p := range predictions {
		if c.JSON {
			if err := encoder.Encode(p); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintln(a.stdout, predictionLine(p))
	}
	return nil
}

// predictionLine is a prediction as text: class, probability, the text itself.
func predictionLine(p classify.Prediction) string {
	return fmt.Sprintf("%s %.2f  %s", p.Label, p.Score, p.Text)
}

// classify explains classes of texts.
func (c explainCmd) classify(a *app) error {
	if len(c.Text) == 0 || c.Attention || c.Sanity || c.Plot != "" || c.Types != "" || c.Method != ner.IntegratedGradients {
		return usageError{fmt.Errorf("%s is a classifier, which explains texts by %s: --steps, --words and --json go with it, and other flags are for taggers", c.Model, ner.IntegratedGradients)}
	}
	classifier, err := load(a, c.Model, classify.Load)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(a.stdout)
	for _, text := range c.Text {
		e, err := classifier.Explain(a.ctx, text, c.Steps)
		if err != nil {
			return err
		}
		if c.JSON {
			if err := encoder.Encode(e); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(a.stdout, "%s %.2f: evidence %.2f, without the text %.2f, left open %.3f\n", e.Label, e.Score, e.Evidence, e.Without, e.Error)
		words := make([]weighed, len(e.Words))
		for i, w := range e.Words {
			words[i] = weighed{w.Text, w.Value}
		}
		c.bars(a, words)
	}
	return nil
}
