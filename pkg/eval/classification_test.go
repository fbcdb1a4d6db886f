package eval_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/pkg/eval"
)

// TestClassifyEqualsScikitLearn holds every number and the text of the report against those
// that tools/golden/classification.py wrote.
func TestClassifyEqualsScikitLearn(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(golden.Dir(t, "classification"), "cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []struct {
			Name            string
			Labels          []string
			Gold, Predicted []int
			Confidence      []float64
			Accuracy, ECE   float64
			Macro, Weighted eval.ClassScore
			Classes         []eval.ClassScore
			Confusion       [][]int
			Report          string
		}
	}
	if err := json.Unmarshal(content, &file); err != nil || len(file.Cases) == 0 {
		t.Fatalf("%d cases, %v", len(file.Cases), err)
	}
	for _, want := range file.Cases {
		got, err := eval.Classify(want.Labels, want.Gold, want.Predicted, want.Confidence)
		if err != nil {
			t.Errorf("%s: %v", want.Name, err)
			continue
		}
		near := func(name string, got, want float64) {
			if !(math.Abs(got-want) <= 1e-12) {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		scores := func(name string, got, want eval.ClassScore) {
			near(name+" precision", got.Precision, want.Precision)
			near(name+" recall", got.Recall, want.Recall)
			near(name+" F1", got.F1, want.F1)
		}
		near(want.Name+": accuracy", got.Accuracy, want.Accuracy)
		near(want.Name+": ECE", got.ECE, want.ECE)
		scores(want.Name+": macro", got.Macro, want.Macro)
		scores(want.Name+": weighted", got.Weighted, want.Weighted)
		for i, class := range want.Classes {
			scores(want.Name+": "+want.Labels[i], got.Classes[i], class)
			if got.Classes[i].Support != class.Support {
				t.Errorf("%s: support of %s is %d, want %d", want.Name, want.Labels[i], got.Classes[i].Support, class.Support)
			}
		}
		if diff := cmp.Diff(want.Confusion, [][]int(got.Confusion)); diff != "" {
			t.Errorf("%s: confusion (-want +got):\n%s", want.Name, diff)
		}
		if diff := cmp.Diff(want.Report, got.Text(4)); want.Report != "" && diff != "" {
			t.Errorf("%s: report (-want +got):\n%s", want.Name, diff)
		}
	}
}

func TestWorstPairs(t *testing.T) {
	c, err := eval.Classify([]string{"a", "b", "c"}, []int{0, 0, 0, 1, 2, 2, 2}, []int{1, 1, 0, 2, 0, 0, 2}, slices.Repeat([]float64{0.5}, 7))
	if err != nil {
		t.Fatal(err)
	}
	want := []eval.Confused{{Gold: "a", Predicted: "b", Count: 2}, {Gold: "c", Predicted: "a", Count: 2}, {Gold: "b", Predicted: "c", Count: 1}}
	if diff := cmp.Diff(want, c.WorstPairs(5)); diff != "" {
		t.Errorf("worst pairs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want[:1], c.WorstPairs(1)); diff != "" {
		t.Errorf("worst pair (-want +got):\n%s", diff)
	}
	if got, err := json.Marshal(c.Confusion); err != nil || string(got) != "[[0,0,1],[0,1,2],[1,2,1],[2,0,2],[2,2,1]]" {
		t.Errorf("confusion in JSON: %s, %v", got, err)
	}
}

func TestClassifyRefuses(t *testing.T) {
	half := []float64{0.5}
	for _, test := range []struct {
		name            string
		gold, predicted []int
		confidence      []float64
		want            string
	}{
		{"nothing", nil, nil, nil, "nothing to score"},
		{"lengths", []int{0}, []int{0, 0}, half, "2 predictions"},
		{"class", []int{2}, []int{0}, half, "class 2, want 0 to 1"},
		{"negative class", []int{0}, []int{-1}, half, "class -1"},
		{"NaN", []int{0}, []int{0}, []float64{math.NaN()}, "confidence NaN"},
		{"no probability", []int{0}, []int{0}, []float64{1.1}, "confidence 1.1"},
	} {
		if _, err := eval.Classify([]string{"a", "b"}, test.gold, test.predicted, test.confidence); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

func ExampleClassify() {
	c, err := eval.Classify([]string{"spam", "ham"}, []int{0, 0, 1, 1}, []int{0, 1, 1, 1}, []float64{0.9, 0.6, 0.8, 0.9})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(c.Summary())
	// Output:
	// accuracy 0.7500  macro F1 0.7333  confidence 0.8000  ECE 0.2500
	// confused most (gold, taken for, times)
	//   spam  ham  1
}
