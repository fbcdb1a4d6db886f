package cli

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
	"github.com/elastic-attention/workbench/pkg/eval"
	"github.com/elastic-attention/workbench/pkg/task/classify"
	"github.com/elastic-attention/workbench/pkg/task/explain"
	"github.com/elastic-attention/workbench/pkg/viz"
)

// classify scores a classifier.
func (c evalCmd) classify(a *app) error {
	if c.Strict || c.Types != "" || c.Threshold != nil {
		return usageError{fmt.Errorf("--strict, --types and --threshold are for taggers, and %s is a classifier", c.Model)}
	}
	texts, err := c.texts(a, c.Model)
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
	return fmt.Sprintf("%s %.2f  %s", data.Printable(p.Label), p.Score, data.Printable(p.Text))
}

// classifier reads the one that the command names, and its data if no text is to be explained.
func (c explainCmd) classifier(a *app) (m explainedClassifier, err error) {
	if c.Types != "" {
		return m, usageError{fmt.Errorf("--types is for taggers, and %s is a classifier", c.Model)}
	}
	for _, text := range c.Text {
		m.texts = append(m.texts, data.Text{Text: text})
	}
	if len(c.Text) == 0 {
		if m.texts, err = c.texts(a, c.Model); err != nil {
			return m, err
		}
		m.texts = data.Spread(m.texts, c.Limit)
	}
	m.Classifier, err = load(a, c.Model, classify.Load)
	return m, err
}

// explainedClassifier is a classifier with its data, or texts of no label.
type explainedClassifier struct {
	*classify.Classifier
	texts []data.Text
}

func (m explainedClassifier) heads(a *app, removal bool) ([]explain.Head, error) {
	return m.Heads(a.ctx, m.texts, removal, evaluation(a.stderr))
}

func (m explainedClassifier) faithfulness(a *app, config explain.Config) (tested, error) {
	f, err := m.Faithfulness(a.ctx, m.texts, config, 1, evaluation(a.stderr))
	return tested{f.Faithfulness, f, f.Method, fmt.Sprintf("%d of %d texts", f.Texts, len(m.texts)), "texts"}, err
}

// explain explains classes of texts: those given, else those of labelled data.
func (m explainedClassifier) explain(a *app, c explainCmd, config explain.Config) error {
	for _, text := range m.texts {
		if text.Label != "" && !slices.Contains(m.Labels(), text.Label) {
			return fmt.Errorf("%s: label %q is none of the model's %d, such as %q", text.Place(), text.Label, len(m.Labels()), m.Labels()[0])
		}
	}
	picture := viz.Tokens{Title: "Which words speak for it?"}
	encoder := json.NewEncoder(a.stdout)
	for _, text := range m.texts {
		e, err := m.Explain(a.ctx, text.Text, config)
		if err != nil {
			return err
		}
		gold := ""
		if text.Label != "" {
			gold = fmt.Sprintf(" (gold: %s)", text.Label)
		}
		picture.Rows = append(picture.Rows, tokenRow(e.Label+gold, e.Words))
		if c.JSON {
			if err := encoder.Encode(struct {
				classify.Explanation
				Gold string `json:"gold,omitempty"`
			}{e, text.Label}); err != nil {
				return err
			}
			continue
		}
		if len(c.Text) == 0 {
			fmt.Fprintln(a.stdout, text.Text)
		}
		c.print(a, fmt.Sprintf("%s %.2f%s", e.Label, e.Score, gold), e.Evidence, e.Without, e.Error, e.Words)
	}
	return c.plot(a, picture.Title, picture.SVG)
}
