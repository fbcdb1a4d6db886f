package ner_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
	"github.com/elastic-attention/workbench/pkg/ner"
)

// TestAdaptive: the first batch is predicted as the tagger does, later ones are not, a
// reset gives the first state back, and the tagger itself never changes.
func TestAdaptive(t *testing.T) {
	tagger := loadTrained(t)
	corpus := synth.Entities(11, 200)
	words := make([][]string, len(corpus))
	for i, s := range corpus {
		words[i] = s.Words
	}
	plain, err := tagger.Tag(t.Context(), words, nil)
	if err != nil {
		t.Fatal(err)
	}
	adaptive, err := tagger.Adapt(testtime.Config{Rate: 0.01, Guard: testtime.Guard{Off: true}})
	if err != nil {
		t.Fatal(err)
	}
	first, err := adaptive.Tag(t.Context(), words, nil)
	if err != nil {
		t.Fatal(err)
	}
	events := adaptive.Events()
	if len(events) < 3 || events[0].Moved == 0 || events[0].Kept == 0 {
		t.Fatalf("events are %+v", events)
	}
	if reflect.DeepEqual(first, plain) {
		t.Error("adaptation changes nothing")
	}
	if err := adaptive.Reset(); err != nil {
		t.Fatal(err)
	}
	if len(adaptive.Events()) > 0 {
		t.Error("a reset keeps the events")
	}
	again, err := adaptive.Tag(t.Context(), words, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(first, again) {
		t.Error("after a reset the same texts are tagged differently")
	}
	after, err := tagger.Tag(t.Context(), words, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(plain, after) {
		t.Error("the tagger itself has changed")
	}
	report, err := adaptive.Evaluate(t.Context(), corpus, ner.Options{}, nil)
	if err != nil || report.Sentences != len(corpus) {
		t.Errorf("report %+v, error %v", report, err)
	}
	for _, method := range []string{"pseudo_label", "masked"} {
		adaptive, err := tagger.Adapt(testtime.Config{Method: method, Rate: 0.01, Guard: testtime.Guard{Off: true}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := adaptive.Tag(t.Context(), words, nil); err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		if events := adaptive.Events(); !(events[0].Moved > 0 && events[0].Loss > 0) {
			t.Errorf("%s: the first event is %+v", method, events[0])
		}
	}
	if _, err := tagger.Adapt(testtime.Config{Method: "labels"}); err == nil || !strings.Contains(err.Error(), "true labels") {
		t.Errorf("labels: %v", err)
	}
	if _, err := tagger.Adapt(testtime.Config{Method: "memo"}); err == nil || !strings.Contains(err.Error(), "augmentations") {
		t.Errorf("memo: %v", err)
	}
	if _, err := tagger.Adapt(testtime.Config{Variables: []string{"*/temperature/*"}}); err == nil || !strings.Contains(err.Error(), "matches no variable") {
		t.Errorf("a pattern that matches nothing: %v", err)
	}
}
