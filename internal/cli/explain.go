package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/ner"
)

type explainCmd struct {
	Model string   `arg:"" help:"Run folder, or model folder in Hugging Face layout." predictor:"path"`
	Text  []string `arg:"" help:"Texts."`
	Steps int      `help:"Points on the way from no text to the text; more are more exact." default:"64"`
	Words int      `help:"Print only so many words an entity or class, those that matter most; 0 prints all." default:"8"`
	JSON  bool     `help:"Print one JSON array a text."`
}

// Help is shown below the usage.
func (explainCmd) Help() string {
	return `For each entity that is found, what every word of the text contributes to its evidence, the sum
over the entity's words of logit(tag) − logit(O), by integrated gradients. Negative words speak against it.
A classifier explains the class of the text, whose evidence is its logit less the mean of all classes'.

Examples:
  elastic explain runs/first "Angela Merkel met Tim Cook of Apple in Berlin."
  elastic explain runs/first --json "Apple opened a shop." | jq`
}

// Run explains.
func (c explainCmd) Run(a *app) error {
	if c.Steps < 1 || c.Words < 0 {
		return usageError{fmt.Errorf("--steps is %d and --words %d, want at least 1 and 0", c.Steps, c.Words)}
	}
	if taskOf(c.Model) == hub.TaskClassify {
		return c.classify(a)
	}
	tagger, err := load(a, c.Model, ner.Load)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(a.stdout)
	for _, text := range c.Text {
		explanations, err := tagger.Explain(a.ctx, text, c.Steps)
		if err != nil {
			return err
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
	return nil
}

// print writes the words that matter most, with bars.
func (c explainCmd) print(a *app, e ner.Explanation) {
	fmt.Fprintf(a.stdout, "%s %s: evidence %.2f, without the text %.2f, left open %.3f\n", e.Entity.Type, e.Entity.Text, e.Evidence, e.Without, e.Error)
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
