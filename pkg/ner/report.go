package ner

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Options say how tags are read for a report.
type Options struct {
	Strict bool   `json:"strict,omitempty"` // only well-formed entities count, see [FromTagsStrict]; else see [FromTags]
	Scheme Scheme `json:"scheme,omitempty"` // read by Strict only; empty means IOB2
}

// Score is how well entities were found:
//
//	Precision = correct / predicted
//	Recall    = correct / Support
//	F1        = 2 · Precision · Recall / (Precision + Recall)
//
// A fraction without a denominator is 0.
type Score struct {
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
	F1        float64 `json:"f1"`
	Support   int     `json:"support"` // entities in the gold tags
}

// TypeScore is the score of one type of entities.
type TypeScore struct {
	Type string `json:"type"`
	Score
	Predicted int `json:"predicted"` // entities in the predicted tags
	Correct   int `json:"correct"`   // entities in both
}

// TagCounts counts words. A word is wrong by any difference of its two tags, so
// a wrong tag other than O, where gold is not O either, is a false positive and
// no false negative; as in seqeval's performance_measure.
type TagCounts struct {
	TruePositives  int `json:"true_positives"`  // equal, and not O
	FalsePositives int `json:"false_positives"` // different, and not predicted O
	FalseNegatives int `json:"false_negatives"` // predicted O, and not O in gold
	TrueNegatives  int `json:"true_negatives"`  // O in both
}

// Report compares predicted with gold entities.
type Report struct {
	Types    []TypeScore `json:"types"`    // sorted by type; those in the gold or in the predicted tags
	Micro    Score       `json:"micro"`    // of all entities together
	Macro    Score       `json:"macro"`    // mean over the types
	Weighted Score       `json:"weighted"` // mean over the types, weighted by their support

	Accuracy  float64   `json:"accuracy"` // words with the right tag; high where most words are O, however bad the entities
	Words     TagCounts `json:"words"`
	Sentences int       `json:"sentences"`
	Options   Options   `json:"options"`
}

// Scores returns the numbers that a report comes down to, by name.
func (r Report) Scores() map[string]float64 {
	return map[string]float64{"f1": r.Micro.F1, "precision": r.Micro.Precision, "recall": r.Micro.Recall, "macro_f1": r.Macro.F1}
}

// Evaluate compares the predicted tags of sentences with their gold tags. The
// numbers and the text are those of seqeval 1.2.2 with zero_division=0; where
// there is no entity at all, for which seqeval fails, all scores are 0 and
// Types is empty.
//
// It returns an error when gold and predicted tags differ in number, and in
// strict mode when a tag has a prefix of another scheme (wrapping [ErrPrefix]).
//
// Default mode reads all sentences as one stream of tags, with an O behind each
// sentence, which is what seqeval does: see [FromTags]. The two ways differ only
// for untyped tags with a foreign prefix.
func Evaluate(gold, predicted [][]string, options Options) (Report, error) {
	report := Report{Types: []TypeScore{}, Sentences: len(gold), Options: options}
	if len(gold) != len(predicted) {
		return report, fmt.Errorf("%d sentences of predicted tags, want %d as in gold", len(predicted), len(gold))
	}
	words, right := 0, 0
	for i := range gold {
		if len(gold[i]) != len(predicted[i]) {
			return report, fmt.Errorf("sentence %d: %d predicted tags, want %d as in gold (a word without a prediction counts as O)", i, len(predicted[i]), len(gold[i]))
		}
		for j, want := range gold[i] {
			words++
			if want == predicted[i][j] {
				right++
			}
			report.Words.count(want, predicted[i][j])
		}
	}
	report.Accuracy = divide(right, words)

	read := lenientSpans
	if options.Strict {
		read = strictSpans(options.Scheme)
	}
	inGold, err := read(gold)
	if err != nil {
		return report, fmt.Errorf("gold tags: %w", err)
	}
	inPredicted, err := read(predicted)
	if err != nil {
		return report, fmt.Errorf("predicted tags: %w", err)
	}
	report.score(inGold, inPredicted)
	return report, nil
}

func (c *TagCounts) count(want, got string) {
	switch {
	case want == got && want == Outside:
		c.TrueNegatives++
	case want == got:
		c.TruePositives++
	case got == Outside:
		c.FalseNegatives++
	default:
		c.FalsePositives++
	}
}

// placed is an entity of a corpus.
type placed struct {
	sentence int
	span     Span
}

type spanSet map[placed]struct{}

// lenientSpans reads a corpus as one stream.
func lenientSpans(corpus [][]string) (spanSet, error) {
	var c chunker
	for i, tags := range corpus {
		for j, tag := range tags {
			if tag == "" {
				return nil, fmt.Errorf("sentence %d, word %d: empty tag", i, j)
			}
			c.next(tag)
		}
		c.next(Outside)
	}
	set := spanSet{}
	for _, s := range c.spans {
		set[placed{span: s}] = struct{}{}
	}
	return set, nil
}

// strictSpans reads each sentence by itself.
func strictSpans(scheme Scheme) func([][]string) (spanSet, error) {
	return func(corpus [][]string) (spanSet, error) {
		set := spanSet{}
		for i, tags := range corpus {
			spans, err := FromTagsStrict(tags, scheme)
			if err != nil {
				return nil, fmt.Errorf("sentence %d, %w", i, err)
			}
			for _, s := range spans {
				set[placed{i, s}] = struct{}{}
			}
		}
		return set, nil
	}
}

func (r *Report) score(gold, predicted spanSet) {
	byType := map[string]*TypeScore{}
	of := func(typ string) *TypeScore {
		if byType[typ] == nil {
			byType[typ] = &TypeScore{Type: typ}
		}
		return byType[typ]
	}
	for s := range gold {
		of(s.span.Type).Support++
		if _, ok := predicted[s]; ok {
			of(s.span.Type).Correct++
		}
	}
	for s := range predicted {
		of(s.span.Type).Predicted++
	}

	var correct, found, support int
	for _, t := range byType {
		t.Score = score(t.Correct, t.Predicted, t.Support)
		r.Types = append(r.Types, *t)
		correct, found, support = correct+t.Correct, found+t.Predicted, support+t.Support
	}
	slices.SortFunc(r.Types, func(a, b TypeScore) int { return strings.Compare(a.Type, b.Type) })
	r.Micro = score(correct, found, support)
	r.Macro = mean(r.Types, len(r.Types), func(TypeScore) int { return 1 })
	r.Weighted = mean(r.Types, support, func(t TypeScore) int { return t.Support })
	r.Macro.Support, r.Weighted.Support = support, support
}

func score(correct, predicted, support int) Score {
	p, r := divide(correct, predicted), divide(correct, support)
	s := Score{Precision: p, Recall: r, Support: support}
	if p+r > 0 {
		s.F1 = 2 * p * r / (p + r)
	}
	return s
}

func divide(a, b int) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// mean averages the scores of the types.
func mean(types []TypeScore, total int, weight func(TypeScore) int) Score {
	if total == 0 {
		return Score{}
	}
	average := func(value func(Score) float64) float64 {
		terms := make([]float64, len(types))
		for i, t := range types {
			terms[i] = value(t.Score) * float64(weight(t))
		}
		return sum(terms) / float64(total)
	}
	return Score{
		Precision: average(func(s Score) float64 { return s.Precision }),
		Recall:    average(func(s Score) float64 { return s.Recall }),
		F1:        average(func(s Score) float64 { return s.F1 }),
	}
}

// sum adds in the order in which numpy does, so that no last digit differs:
// eight partial sums, and halves where there are more than 128 terms.
func sum(x []float64) float64 {
	n := len(x)
	if n < 8 {
		total := 0.0
		for _, v := range x {
			total += v
		}
		return total
	}
	if n > 128 {
		half := n / 2
		half -= half % 8
		return sum(x[:half]) + sum(x[half:])
	}
	var r [8]float64
	full := n - n%8
	for i := 0; i < full; i += 8 {
		for j := range r {
			r[j] += x[i+j]
		}
	}
	total := ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]))
	for _, v := range x[full:] {
		total += v
	}
	return total
}

// Text writes the report as a table with the given number of decimals, byte for
// byte as seqeval's classification_report: one row a type, then the averages.
func (r Report) Text(digits int) string {
	digits = max(digits, 0)
	width := max(len("weighted avg"), digits)
	for _, t := range r.Types {
		width = max(width, utf8.RuneCountInString(t.Type))
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%*s  %9s %9s %9s %9s\n\n", width, "", "precision", "recall", "f1-score", "support")
	row := func(name string, s Score) {
		fmt.Fprintf(&out, "%*s ", width, name)
		for _, v := range []float64{s.Precision, s.Recall, s.F1} {
			fmt.Fprintf(&out, " %9s", strconv.FormatFloat(v, 'f', digits, 64))
		}
		fmt.Fprintf(&out, " %9d\n", s.Support)
	}
	for _, t := range r.Types {
		row(t.Type, t.Score)
	}
	if len(r.Types) > 0 {
		out.WriteByte('\n')
	}
	row("micro avg", r.Micro)
	row("macro avg", r.Macro)
	row("weighted avg", r.Weighted)
	return out.String()
}

// String is Text with four decimals.
func (r Report) String() string { return r.Text(4) }
