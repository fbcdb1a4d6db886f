package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/explain"
	"github.com/elastic-attention/workbench/pkg/viz"
)

type explainCmd struct {
	Model string   `arg:"" help:"Run: its folder, a part of its name, or latest; or a model folder in Hugging Face layout." predictor:"path"`
	Text  []string `arg:"" optional:"" help:"Texts."`

	Method string `help:"One of ${methods}." default:"${defaultMethod}"`
	Steps  int    `help:"Points on the way from no text to the text; more are more exact (integrated_gradients)." default:"64"`
	Words  int    `help:"Print only so many words an entity or class, those that matter most; 0 prints all." default:"8"`

	Attention    bool `help:"Draw what each head of each layer attends to in a text." xor:"what"`
	Faithfulness bool `help:"Test the method: its completeness, and removing and adding words against random orders, over data." xor:"what"`
	Heads        bool `help:"Judge all attention heads over labelled data." xor:"what"`
	Sanity       bool `help:"Explain a text while the model forgets what it has learned, layer by layer: how like do explanations stay?" xor:"what"`
	Scalars      bool `help:"Show what each head learned about itself while a run trained: span, alpha, temperature, gate." xor:"what"`

	corpusFlags
	Limit   int    `help:"Take only so many of the data: the first sentences, or texts evenly spread over it, since files are often sorted by class; 0 takes all." default:"100"`
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
A classifier explains the class of each text, whose evidence is its logit less the mean of all classes'.
Without a text, it explains those of the data that --data, --file and --split name. A language model has
--scalars only.

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
  elastic explain runs/intents --file mine.csv --limit 20 --plot why.svg   a classifier
  elastic explain runs/intents --faithfulness --split dev                  which also takes all of the above`
}

// Run explains.
func (c explainCmd) Run(a *app) error {
	switch {
	case c.Steps < 1:
		return usageError{fmt.Errorf("--steps is %d, want 1 or more", c.Steps)}
	case c.Words < 0:
		return usageError{fmt.Errorf("--words is %d, want 0 or more", c.Words)}
	case c.Limit < 0:
		return usageError{fmt.Errorf("--limit is %d, want 0 or more", c.Limit)}
	}
	config := explain.Config{Method: c.Method, Steps: c.Steps}
	if err := config.Validate(); err != nil {
		return usageError{fmt.Errorf("--%w", err)}
	}
	if err := c.checkPlot(); err != nil {
		return usageError{err}
	}
	var err error
	lacks := noModel
	if c.Scalars { // a run that still goes on has them
		lacks = noCheckpoint
	}
	if c.Model, err = a.named(c.Model, lacks); err != nil {
		return err
	}
	task, overData := taskOf(c.Model), c.Faithfulness || c.Heads || c.Scalars
	switch {
	case overData && len(c.Text) > 0:
		return usageError{errors.New("--faithfulness, --heads and --scalars explain no text: leave it out")}
	case !overData && len(c.Text) == 0 && task != hub.TaskClassify:
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
	if c.Scalars {
		return c.scalars(a)
	}
	var model explained
	switch task {
	case hub.TaskLM:
		return usageError{fmt.Errorf("%s is a language model, which is not explained: --scalars shows what its heads learned about themselves, if it is a run, \"%s eval\" scores it, and \"%[2]s generate\" lets it write", c.Model, program())}
	case hub.TaskClassify:
		model, err = c.classifier(a)
	default:
		model, err = c.tagger(a)
	}
	if err != nil {
		return err
	}
	switch {
	case c.Faithfulness:
		return c.faithfulness(a, model, config)
	case c.Heads:
		return c.heads(a, model)
	case c.Attention:
		return c.attention(a, model)
	case c.Sanity:
		return c.sanity(a, model, config)
	}
	return model.explain(a, c, config)
}

// attends is a model that tells what the tokens of a text attend to.
type attends interface {
	Attention(ctx context.Context, text string) (interpret.AttentionMap, error)
}

// explained is a model of a task, together with the data that the command names.
type explained interface {
	attends
	Sanity(ctx context.Context, text string, config explain.Config, seed uint64) ([]interpret.Similarity, error)
	// heads judges heads over the data.
	heads(a *app, removal bool) ([]explain.Head, error)
	// faithfulness tests explanations over the data.
	faithfulness(a *app, config explain.Config) (tested, error)
	// explain explains texts, or the data, and prints it as the task does.
	explain(a *app, c explainCmd, config explain.Config) error
}

// tested is how a test of explanations came out.
type tested struct {
	interpret.Faithfulness
	whole   any // with what the task adds, for JSON
	method  string
	counted string // what was explained, in words
	of      string // the same as a plural
}

// tagger reads the one that the command names, and its data if that is asked for.
func (c explainCmd) tagger(a *app) (m explainedTagger, err error) {
	if c.Faithfulness || c.Heads {
		if m.sentences, _, err = c.sentences(a, c.Model); err != nil {
			return m, err
		}
		m.sentences = first(c.Limit, m.sentences)
	}
	m.Tagger, err = load(a, c.Model, ner.Load)
	return m, err
}

// first returns as many of a list as there are at the most, or all for 0.
func first[E any](most int, list []E) []E {
	if most == 0 {
		return list
	}
	return list[:min(most, len(list))]
}

// explainedTagger is a tagger with its data.
type explainedTagger struct {
	*ner.Tagger
	sentences []data.Sentence
}

func (m explainedTagger) heads(a *app, removal bool) ([]explain.Head, error) {
	return m.Heads(a.ctx, m.sentences, removal, evaluation(a.stderr))
}

func (m explainedTagger) faithfulness(a *app, config explain.Config) (tested, error) {
	f, err := m.Faithfulness(a.ctx, m.sentences, config, 1, evaluation(a.stderr))
	return tested{f.Faithfulness, f, f.Method, fmt.Sprintf("%d entities in %d of %d sentences", f.Entities, f.Sentences, len(m.sentences)), "entities"}, err
}

// explain explains the entities of texts.
func (m explainedTagger) explain(a *app, c explainCmd, config explain.Config) error {
	picture := viz.Tokens{Title: "Which words speak for it? " + c.Method}
	encoder := json.NewEncoder(a.stdout)
	for _, text := range c.Text {
		explanations, err := m.Explain(a.ctx, text, config)
		if err != nil {
			return err
		}
		for _, e := range explanations {
			picture.Rows = append(picture.Rows, tokenRow(e.Entity.Type+" "+e.Entity.Text, e.Words))
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
			c.print(a, e.Entity.Type+" "+e.Entity.Text, e.Evidence, e.Without, e.Error, e.Words)
		}
	}
	return c.plot(a, picture.Title, picture.SVG)
}

// tokenRow draws what words contribute to something.
func tokenRow(name string, words []explain.Contribution) viz.TokenRow {
	row := viz.TokenRow{Name: name}
	for _, w := range words {
		row.Words, row.Values = append(row.Words, w.Text), append(row.Values, w.Value)
	}
	return row
}

// print writes what is explained, its evidence, and the words that matter most, with bars.
func (c explainCmd) print(a *app, what string, evidence, without, open float64, words []explain.Contribution) {
	fmt.Fprintf(a.stdout, "%s: evidence %.2f", what, evidence)
	if without != 0 || open != 0 {
		fmt.Fprintf(a.stdout, ", without the text %.2f, left open %.3f", without, math.Round(open*1000)/1000+0) // + 0 so that there is no -0.000
	}
	fmt.Fprintln(a.stdout)
	words = slices.SortedStableFunc(slices.Values(words), func(x, y explain.Contribution) int { return cmp.Compare(math.Abs(y.Value), math.Abs(x.Value)) })
	words = first(c.Words, words)
	const width = 20
	for _, w := range words {
		bar := 0
		if most := math.Abs(words[0].Value); most > 0 {
			bar = int(math.Round(width * math.Abs(w.Value) / most))
		}
		sign := "█"
		if w.Value < 0 {
			sign = "░"
		}
		fmt.Fprintf(a.stdout, "  %+8.2f  %-*s  %s\n", w.Value, width, strings.Repeat(sign, bar), w.Text)
	}
}
