package cli

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
	"github.com/elastic-attention/workbench/pkg/eval"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/task/classify"
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

// classify explains classes of texts: those given, else those of labelled data.
func (c explainCmd) classify(a *app) error {
	if c.Faithfulness || c.Heads || c.Sanity || c.Scalars || c.Types != "" || c.Method != ner.IntegratedGradients {
		return usageError{fmt.Errorf("%s is a classifier, which explains texts by %s: --faithfulness, --heads, --sanity, --scalars, --types and other methods are for taggers", c.Model, ner.IntegratedGradients)}
	}
	var texts []data.Text
	for _, text := range c.Text {
		texts = append(texts, data.Text{Text: text})
	}
	if len(texts) == 0 {
		var err error
		if texts, err = c.texts(a, c.Model); err != nil {
			return err
		}
		if c.Limit > 0 {
			texts = texts[:min(c.Limit, len(texts))]
		}
	}
	classifier, err := load(a, c.Model, classify.Load)
	if err != nil {
		return err
	}
	if c.Attention {
		return c.attention(a, classifier)
	}
	for _, text := range texts {
		if text.Label != "" && !slices.Contains(classifier.Labels(), text.Label) {
			return fmt.Errorf("%s: label %q is none of the model's %d, such as %q", text.Place(), text.Label, len(classifier.Labels()), classifier.Labels()[0])
		}
	}
	picture := viz.Tokens{Title: "Which words speak for it?"}
	encoder := json.NewEncoder(a.stdout)
	for _, text := range texts {
		e, err := classifier.Explain(a.ctx, text.Text, c.Steps)
		if err != nil {
			return err
		}
		row := viz.TokenRow{Name: e.Label}
		words := make([]weighed, len(e.Words))
		for i, w := range e.Words {
			words[i] = weighed{w.Text, w.Value}
			row.Words, row.Values = append(row.Words, w.Text), append(row.Values, w.Value)
		}
		gold := ""
		if text.Label != "" {
			gold = fmt.Sprintf(" (gold: %s)", text.Label)
		}
		row.Name += gold
		picture.Rows = append(picture.Rows, row)
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
		fmt.Fprintf(a.stdout, "%s %.2f%s: evidence %.2f, without the text %.2f, left open %.3f\n", e.Label, e.Score, gold, e.Evidence, e.Without, e.Error)
		c.bars(a, words)
	}
	return c.plot(a, picture.Title, picture.SVG)
}
