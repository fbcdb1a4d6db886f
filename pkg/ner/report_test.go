package ner_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/ner"
)

func tags(sentences ...string) [][]string {
	var out [][]string
	for _, s := range sentences {
		out = append(out, strings.Fields(s))
	}
	return out
}

func TestEvaluateErrors(t *testing.T) {
	for _, test := range []struct {
		name            string
		gold, predicted [][]string
		options         ner.Options
		want            string
	}{
		{"sentences", tags("O", "O"), tags("O"), ner.Options{}, "1 sentences of predicted tags, want 2"},
		{"words", tags("O", "O O"), tags("O", "O"), ner.Options{}, "sentence 1: 1 predicted tags, want 2"},
		{"empty tag", [][]string{{"O", ""}}, tags("O O"), ner.Options{}, "gold tags: sentence 0, word 1: empty tag"},
		{"prefix", tags("O", "O B-PER"), tags("O", "O U-PER"), ner.Options{Strict: true}, `predicted tags: sentence 1, word 1: tag "U-PER" begins with "U"`},
		{"scheme", tags("O"), tags("O"), ner.Options{Strict: true, Scheme: "BIO"}, `scheme "BIO"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := ner.Evaluate(test.gold, test.predicted, test.options)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
	_, err := ner.Evaluate(tags("X-PER"), tags("O"), ner.Options{Strict: true})
	if !errors.Is(err, ner.ErrPrefix) {
		t.Errorf("got %v, want ErrPrefix", err)
	}
}

// seqeval fails on these; we report zeros.
func TestEvaluateWithoutEntities(t *testing.T) {
	const want = `              precision    recall  f1-score   support

   micro avg     0.0000    0.0000    0.0000         0
   macro avg     0.0000    0.0000    0.0000         0
weighted avg     0.0000    0.0000    0.0000         0
`
	for _, corpus := range [][][]string{nil, {{}}, tags("O O", "O")} {
		got, err := ner.Evaluate(corpus, corpus, ner.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.String()); diff != "" {
			t.Errorf("report (-want +got):\n%s", diff)
		}
		raw, err := json.Marshal(got)
		if err != nil || !strings.Contains(string(raw), `"types":[]`) {
			t.Errorf("JSON %s, %v, want an empty list of types", raw, err)
		}
	}
}

// An entity counts once, whatever the strictness; the two modes differ for ill-formed tags only.
func TestModes(t *testing.T) {
	gold, predicted := tags("B-PER I-PER O B-LOC"), tags("I-PER I-PER O B-LOC")
	for _, test := range []struct {
		options ner.Options
		want    float64
	}{{ner.Options{}, 1}, {ner.Options{Strict: true}, 2. / 3}} {
		got, err := ner.Evaluate(gold, predicted, test.options)
		if err != nil || math.Abs(got.Micro.F1-test.want) > 1e-15 {
			t.Errorf("%+v: F1 %v, %v, want %v", test.options, got.Micro.F1, err, test.want)
		}
	}
}

// A perfect prediction scores 1 throughout; exchanging gold and predicted exchanges precision and recall.
func TestReportProperties(t *testing.T) {
	gold := tags("B-A I-A O B-B", "B-C O O", "I-A B-B I-B")
	predicted := tags("B-A O O B-B", "B-B O O", "I-A B-B I-B")
	same, err := ner.Evaluate(gold, gold, ner.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if one := (ner.Score{Precision: 1, Recall: 1, F1: 1, Support: 5}); same.Micro != one || same.Macro != one || same.Weighted != one || same.Accuracy != 1 {
		t.Errorf("scores of gold against itself: %+v", same)
	}
	there, err1 := ner.Evaluate(gold, predicted, ner.Options{})
	back, err2 := ner.Evaluate(predicted, gold, ner.Options{})
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if there.Micro.Precision != back.Micro.Recall || there.Micro.Recall != back.Micro.Precision || there.Micro.F1 != back.Micro.F1 {
		t.Errorf("there %+v, back %+v", there.Micro, back.Micro)
	}
}

// More than eight and more than 128 types: the averages are added up as numpy does.
func TestManyTypes(t *testing.T) {
	for _, n := range []int{7, 8, 9, 130, 400} {
		var gold, predicted [][]string
		want := 0.0
		for i := range n {
			gold = append(gold, tags(fmt.Sprintf("B-T%03d O", i))[0])
			predicted = append(predicted, tags(fmt.Sprintf("B-T%03d %s", i, []string{"O", fmt.Sprintf("B-T%03d", i)}[i%2]))[0])
			want += []float64{1, 0.5}[i%2] / float64(n)
		}
		got, err := ner.Evaluate(gold, predicted, ner.Options{})
		if err != nil || math.Abs(got.Macro.Precision-want) > 1e-12 || len(got.Types) != n {
			t.Errorf("%d types: macro precision %v, %v, want %v", n, got.Macro.Precision, err, want)
		}
	}
}

func TestReportJSON(t *testing.T) {
	report, err := ner.Evaluate(tags("B-LOC O"), tags("B-LOC B-LOC"), ner.Options{})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"types":[{"type":"LOC","precision":0.5,"recall":1,"f1":0.6666666666666666,"support":1,"predicted":2,"correct":1}],` +
		`"micro":{"precision":0.5,"recall":1,"f1":0.6666666666666666,"support":1},` +
		`"macro":{"precision":0.5,"recall":1,"f1":0.6666666666666666,"support":1},` +
		`"weighted":{"precision":0.5,"recall":1,"f1":0.6666666666666666,"support":1},` +
		`"accuracy":0.5,"words":{"true_positives":1,"false_positives":1,"false_negatives":0,"true_negatives":0},"sentences":1,"options":{}}`
	if diff := cmp.Diff(want, string(raw)); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
}

func ExampleEvaluate() {
	gold := [][]string{{"B-PER", "I-PER", "O", "B-LOC"}, {"B-LOC", "O"}}
	predicted := [][]string{{"B-PER", "I-PER", "O", "O"}, {"B-LOC", "O"}}
	report, err := ner.Evaluate(gold, predicted, ner.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(report.Text(2))
	// Output:
	//               precision    recall  f1-score   support
	//
	//          LOC       1.00      0.50      0.67         2
	//          PER       1.00      1.00      1.00         1
	//
	//    micro avg       1.00      0.67      0.80         3
	//    macro avg       1.00      0.75      0.83         3
	// weighted avg       1.00      0.67      0.78         3
}

// Columns are as wide as the longest name has code points, not bytes. The
// expected text was printed by seqeval 1.2.2.
func TestWideNames(t *testing.T) {
	got, err := ner.Evaluate(tags("B-Организация B-Географический-объект"), tags("O B-Географический-объект"), ner.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const want = `                       precision    recall  f1-score   support

Географический-объект      1.000     1.000     1.000         1
          Организация      0.000     0.000     0.000         1

            micro avg      1.000     0.500     0.667         2
            macro avg      0.500     0.500     0.500         2
         weighted avg      0.500     0.500     0.500         2
`
	if diff := cmp.Diff(want, got.Text(3)); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}
