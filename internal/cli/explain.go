package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/viz"
)

type explainCmd struct {
	Model string   `arg:"" help:"Run folder, or model folder in Hugging Face layout." predictor:"path"`
	Text  []string `arg:"" optional:"" help:"Texts."`

	Method string `help:"One of ${methods}." default:"${defaultMethod}"`
	Steps  int    `help:"Points on the way from no text to the text; more are more exact (integrated_gradients)." default:"64"`
	Words  int    `help:"Print only so many words an entity or class, those that matter most; 0 prints all." default:"8"`

	Attention    bool `help:"Draw what each head of each layer attends to in a text." xor:"what"`
	Faithfulness bool `help:"Test the method: its completeness, and removing and adding words against random orders, over labelled data." xor:"what"`
	Heads        bool `help:"Judge all attention heads over labelled data." xor:"what"`
	Sanity       bool `help:"Explain a text while the model forgets what it has learned, layer by layer: how like do explanations stay?" xor:"what"`
	Scalars      bool `help:"Show what each head learned about itself while a run trained: span, alpha, temperature, gate." xor:"what"`

	corpusFlags
	Limit   int    `help:"Take only the first sentences or texts of the data; 0 takes all." default:"100"`
	Removal bool   `help:"With --heads, also remove each head in turn: slow."`
	Plot    string `help:"Write a picture: FILE.svg, or FILE.html." placeholder:"FILE" predictor:"path"`
	Keep    bool   `help:"Keep the picture in the run folder, where \"elastic ui\" shows it."`
	JSON    bool   `help:"Print JSON: one array a text, else one object."`
}

// Help is shown below the usage.
func (explainCmd) Help() string {
	return `For each entity that is found, what every word of the text contributes to its evidence, the sum
over the entity's words of logit(tag) − logit(O). Negative words speak against it. The methods
relevance, rollout and flow follow attention instead and know no negative words.
A classifier explains the class of each text, whose evidence is its logit less the mean of all classes',
by integrated gradients. Without a text, it explains those of the data that --data, --file and --split name.

Examples:
  elastic explain runs/first "Angela Merkel met Tim Cook of Apple in Berlin."
  elastic explain runs/first --json "Apple opened a shop." | jq
  elastic explain runs/first --method relevance --plot why.svg "Apple opened a shop."
  elastic explain runs/first --attention --plot heads.html "Apple opened a shop."
  elastic explain runs/first --attention --keep "Apple opened a shop."   then: elastic ui
  elastic explain runs/first --faithfulness --limit 200 --plot curves.svg
  elastic explain runs/first --heads --removal --split dev --plot heads.html
  elastic explain runs/first --sanity "Angela Merkel met Tim Cook of Apple in Berlin."
  elastic explain runs/first --scalars --plot scalars.html
  elastic explain runs/intents --file mine.csv --limit 20 --plot why.svg   a classifier`
}

// Run explains.
func (c explainCmd) Run(a *app) error {
	if c.Steps < 1 || c.Words < 0 || c.Limit < 0 {
		return usageError{fmt.Errorf("--steps is %d, --words %d and --limit %d, want at least 1, 0 and 0", c.Steps, c.Words, c.Limit)}
	}
	config := ner.ExplainConfig{Method: c.Method, Steps: c.Steps}
	if err := config.Validate(); err != nil {
		return usageError{fmt.Errorf("--%w", err)}
	}
	if err := c.checkPlot(); err != nil {
		return usageError{err}
	}
	task, data := taskOf(c.Model), c.Faithfulness || c.Heads || c.Scalars
	switch {
	case data && len(c.Text) > 0:
		return usageError{errors.New("--faithfulness, --heads and --scalars explain no text: leave it out")}
	case !data && len(c.Text) == 0 && task != hub.TaskClassify:
		return usageError{errors.New("want a text to explain, or --faithfulness, --heads or --scalars")}
	case len(c.Text) > 0 && (c.Data != "" || c.File != ""):
		return usageError{errors.New("a text and --data or --file exclude each other")}
	case c.Removal && !c.Heads:
		return usageError{errors.New("--removal goes with --heads")}
	case (c.Attention || c.Sanity) && len(c.Text) != 1:
		return usageError{fmt.Errorf("--attention and --sanity take one text, not %d", len(c.Text))}
	case c.Attention && c.Plot == "" && !c.JSON && !c.Keep:
		return usageError{errors.New("--attention wants --plot FILE or --json, or --keep for a run")}
	}
	if c.Keep {
		if _, err := os.Stat(filepath.Join(c.Model, run.RecordFile)); err != nil {
			return usageError{fmt.Errorf("--keep: %s is no run folder, it has no %s", c.Model, run.RecordFile)}
		}
	}
	switch task {
	case hub.TaskClassify:
		return c.classify(a)
	case hub.TaskLM:
		return usageError{fmt.Errorf("%s is a language model: only taggers and classifiers are explained", c.Model)}
	}
	switch {
	case c.Faithfulness:
		return c.faithfulness(a, config)
	case c.Heads:
		return c.heads(a)
	case c.Scalars:
		return c.scalars(a)
	case c.Attention:
		tagger, err := load(a, c.Model, ner.Load)
		if err != nil {
			return err
		}
		return c.attention(a, tagger)
	case c.Sanity:
		return c.sanity(a, config)
	}
	return c.entities(a, config)
}

// entities explains those of texts.
func (c explainCmd) entities(a *app, config ner.ExplainConfig) error {
	tagger, err := load(a, c.Model, ner.Load)
	if err != nil {
		return err
	}
	picture := viz.Tokens{Title: "Which words speak for it? " + c.Method}
	encoder := json.NewEncoder(a.stdout)
	for _, text := range c.Text {
		explanations, err := tagger.Explain(a.ctx, text, config)
		if err != nil {
			return err
		}
		for _, e := range explanations {
			row := viz.TokenRow{Name: e.Entity.Type + " " + e.Entity.Text}
			for _, w := range e.Words {
				row.Words, row.Values = append(row.Words, w.Text), append(row.Values, w.Value)
			}
			picture.Rows = append(picture.Rows, row)
		}
		if c.JSON {
			if explanations == nil {
				explanations = []ner.Explanation{}
			}
			if err := encoder.Encode(explanations); err != nil {
				return err
			}
			continue
		}
		if len(explanations) == 0 {
			fmt.Fprintf(a.stdout, "no entity in %q\n", text)
		}
		for _, e := range explanations {
			c.print(a, e)
		}
	}
	return c.plot(a, picture.Title, picture.SVG)
}

// print writes the words that matter most, with bars.
func (c explainCmd) print(a *app, e ner.Explanation) {
	fmt.Fprintf(a.stdout, "%s %s: evidence %.2f", e.Entity.Type, e.Entity.Text, e.Evidence)
	if e.Without != 0 || e.Error != 0 {
		fmt.Fprintf(a.stdout, ", without the text %.2f, left open %.3f", e.Without, e.Error)
	}
	fmt.Fprintln(a.stdout)
	words := make([]weighed, len(e.Words))
	for i, w := range e.Words {
		words[i] = weighed{w.Text, w.Value}
	}
	c.bars(a, words)
}

// weighed is a word and what it contributes.
type weighed struct {
	text  string
	value float64
}

// bars writes the words that matter most.
func (c explainCmd) bars(a *app, words []weighed) {
	slices.SortStableFunc(words, func(x, y weighed) int { return cmp.Compare(math.Abs(y.value), math.Abs(x.value)) })
	if c.Words > 0 && len(words) > c.Words {
		words = words[:c.Words]
	}
	const width = 20
	for _, w := range words {
		bar := 0
		if most := math.Abs(words[0].value); most > 0 {
			bar = int(math.Round(width * math.Abs(w.value) / most))
		}
		sign := "█"
		if w.value < 0 {
			sign = "░"
		}
		fmt.Fprintf(a.stdout, "  %+8.2f  %-*s  %s\n", w.value, width, strings.Repeat(sign, bar), w.text)
	}
}
