package ner_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/pkg/ner"
)

// tolerance of scores against seqeval: both compute in float64.
const tolerance = 1e-12

// cases reads a file of one JSON object a line.
func cases[T any](t *testing.T, kind string) []T {
	t.Helper()
	file, err := os.Open(filepath.Join(golden.Dir(t, kind), "cases.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []T
	for dec := json.NewDecoder(bufio.NewReader(file)); dec.More(); {
		var c T
		if err := dec.Decode(&c); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		t.Fatalf("no cases of %s", kind)
	}
	return all
}

type average struct{ Micro, Macro, Weighted float64 }

type outcome struct {
	Error, Message        string
	Precision, Recall, F1 average
	Report                map[string]struct {
		Precision, Recall float64
		F1                float64 `json:"f1-score"`
		Support           int
	}
	Text  string `json:"report_text"`
	Text2 string `json:"report_text_d2"`
}

type seqevalCase struct {
	ID                 int
	Kind               string
	Scheme             ner.Scheme
	Gold               [][]string `json:"y_true"`
	Predicted          [][]string `json:"y_pred"`
	Out                struct{ Default, Strict outcome }
	Entities           [][][3]any      `json:"entities_pred"`
	EntitiesStrict     json.RawMessage `json:"entities_pred_strict"`
	Accuracy           float64
	PerformanceMeasure struct{ TP, FP, FN, TN int } `json:"performance_measure"`
}

func TestGoldenSeqeval(t *testing.T) {
	for _, c := range cases[seqevalCase](t, "seqeval") {
		t.Run(fmt.Sprintf("%d %s %s", c.ID, c.Kind, c.Scheme), func(t *testing.T) {
			checkReport(t, c, ner.Options{}, c.Out.Default)
			checkReport(t, c, ner.Options{Strict: true, Scheme: c.Scheme}, c.Out.Strict)
			for i, tags := range c.Predicted {
				if diff := cmp.Diff(spans(c.Entities[i], 1), ner.FromTags(tags)); diff != "" {
					t.Errorf("entities of sentence %d (-want +got):\n%s", i, diff)
				}
			}
			checkStrictEntities(t, c)
		})
	}
}

// spans converts [type, start, end] triples.
func spans(triples [][3]any, toEnd int) []ner.Span {
	var out []ner.Span
	for _, x := range triples {
		out = append(out, ner.Span{Type: x[0].(string), Start: int(x[1].(float64)), End: int(x[2].(float64)) + toEnd})
	}
	return out
}

func checkStrictEntities(t *testing.T, c seqevalCase) {
	t.Helper()
	var refused struct{ Error string }
	if json.Unmarshal(c.EntitiesStrict, &refused) == nil && refused.Error != "" {
		failed := false
		for _, tags := range c.Predicted {
			_, err := ner.FromTagsStrict(tags, c.Scheme)
			failed = failed || errors.Is(err, ner.ErrPrefix)
		}
		if !failed {
			t.Errorf("strict entities: no error, want one for %s", c.EntitiesStrict)
		}
		return
	}
	var want [][][3]any
	if err := json.Unmarshal(c.EntitiesStrict, &want); err != nil {
		t.Fatal(err)
	}
	for i, tags := range c.Predicted {
		got, err := ner.FromTagsStrict(tags, c.Scheme)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(spans(want[i], 0), got); diff != "" {
			t.Errorf("strict entities of sentence %d (-want +got):\n%s", i, diff)
		}
	}
}

// noEntity is how seqeval's report fails when no sentence has an entity.
const noEntity = "max() arg is an empty sequence"

func checkReport(t *testing.T, c seqevalCase, options ner.Options, want outcome) {
	t.Helper()
	got, err := ner.Evaluate(c.Gold, c.Predicted, options)
	switch {
	case want.Error != "" && want.Message != noEntity:
		if !errors.Is(err, ner.ErrPrefix) {
			t.Errorf("%+v: got error %v, want one for: %s", options, err, want.Message)
		}
		return
	case err != nil:
		t.Errorf("%+v: %v", options, err)
		return
	case want.Error != "":
		if len(got.Types) != 0 || got.Micro != (ner.Score{}) || got.Macro != (ner.Score{}) || got.Weighted != (ner.Score{}) {
			t.Errorf("%+v: scores without any entity: %+v", options, got)
		}
	default:
		checkScores(t, got, want)
	}
	compare(t, "accuracy", got.Accuracy, c.Accuracy)
	p := c.PerformanceMeasure
	if diff := cmp.Diff(ner.TagCounts{TruePositives: p.TP, FalsePositives: p.FP, FalseNegatives: p.FN, TrueNegatives: p.TN}, got.Words); diff != "" {
		t.Errorf("words (-want +got):\n%s", diff)
	}
}

func checkScores(t *testing.T, got ner.Report, want outcome) {
	t.Helper()
	rows := map[string]ner.Score{"micro avg": got.Micro, "macro avg": got.Macro, "weighted avg": got.Weighted}
	for _, row := range got.Types {
		rows[row.Type] = row.Score
	}
	if len(rows) != len(want.Report) {
		t.Errorf("%d rows, want %d", len(rows), len(want.Report))
	}
	for name, w := range want.Report {
		g, ok := rows[name]
		if !ok {
			t.Errorf("no row %s", name)
			continue
		}
		compare(t, name+" precision", g.Precision, w.Precision)
		compare(t, name+" recall", g.Recall, w.Recall)
		compare(t, name+" f1", g.F1, w.F1)
		if g.Support != w.Support {
			t.Errorf("%s support %d, want %d", name, g.Support, w.Support)
		}
	}
	for name, pair := range map[string][2]average{
		"precision": {{got.Micro.Precision, got.Macro.Precision, got.Weighted.Precision}, want.Precision},
		"recall":    {{got.Micro.Recall, got.Macro.Recall, got.Weighted.Recall}, want.Recall},
		"f1":        {{got.Micro.F1, got.Macro.F1, got.Weighted.F1}, want.F1},
	} {
		compare(t, "micro "+name, pair[0].Micro, pair[1].Micro)
		compare(t, "macro "+name, pair[0].Macro, pair[1].Macro)
		compare(t, "weighted "+name, pair[0].Weighted, pair[1].Weighted)
	}
	if diff := cmp.Diff(want.Text, got.Text(4)); diff != "" {
		t.Errorf("report with 4 digits (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want.Text2, got.Text(2)); diff != "" {
		t.Errorf("report with 2 digits (-want +got):\n%s", diff)
	}
}

func compare(t *testing.T, name string, got, want float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) { // also fails for NaN
		t.Errorf("%s is %v, want %v", name, got, want)
	}
}

type schemeCase struct {
	ID         int
	N          int
	Spans      [][3]any `json:"spans_end_exclusive"`
	Tags       map[ner.Scheme][]string
	Illformed  []string `json:"illformed_iob2"`
	Conlleval  []string `json:"repair_conlleval(I starts entity)"`
	StrictOnly []string `json:"repair_drop(strict IOB2 entities only)"`
}

func TestGoldenSchemes(t *testing.T) {
	for _, c := range cases[schemeCase](t, "schemes") {
		t.Run(fmt.Sprint(c.ID), func(t *testing.T) {
			var want []ner.Span
			for _, x := range c.Spans {
				want = append(want, ner.Span{Start: int(x[0].(float64)), End: int(x[1].(float64)), Type: x[2].(string)})
			}
			for scheme, tags := range c.Tags {
				got, err := ner.ToTags(want, c.N, scheme)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tags, got); diff != "" {
					t.Errorf("%s tags (-want +got):\n%s", scheme, diff)
				}
				if scheme == ner.IOE1 {
					continue // seqeval's own rules cannot read all of it back
				}
				back, err := ner.FromTagsStrict(tags, scheme)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, back); diff != "" {
					t.Errorf("%s spans (-want +got):\n%s", scheme, diff)
				}
			}
			strict, err := ner.FromTagsStrict(c.Illformed, ner.IOB2)
			if err != nil {
				t.Fatal(err)
			}
			for _, repair := range []struct {
				name  string
				spans []ner.Span
				want  []string
			}{{"conlleval", ner.FromTags(c.Illformed), c.Conlleval}, {"strict", strict, c.StrictOnly}} {
				got, err := ner.ToTags(repair.spans, len(c.Illformed), ner.IOB2)
				if err != nil || !slices.Equal(got, repair.want) {
					t.Errorf("%s repair of %v: %v, %v, want %v", repair.name, c.Illformed, got, err, repair.want)
				}
			}
		})
	}
}
