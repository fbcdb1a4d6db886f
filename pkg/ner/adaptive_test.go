package ner_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/data"
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
	if _, err := adaptive.TagThenLearn(t.Context(), corpus, nil); err == nil || !strings.Contains(err.Error(), "method labels") {
		t.Errorf("learning tags by tent: %v", err)
	}
	if _, err := tagger.Adapt(testtime.Config{Method: "memo"}); err == nil || !strings.Contains(err.Error(), "augmentations") {
		t.Errorf("memo: %v", err)
	}
	if _, err := tagger.Adapt(testtime.Config{Variables: []string{"*/temperature/*"}}); err == nil || !strings.Contains(err.Error(), "matches no variable") {
		t.Errorf("a pattern that matches nothing: %v", err)
	}
}

// TestTagThenLearn: no tag has any influence on what is predicted for its word, not by the windows of a long
// sentence either, but tags do on what comes later; without tags nothing is learned.
func TestTagThenLearn(t *testing.T) {
	corpus := synth.Entities(11, 8)
	long := data.Sentence{}
	for _, s := range corpus {
		long.Words, long.Tags = append(long.Words, s.Words...), append(long.Tags, s.Tags...)
	}
	long.Words, long.Tags = long.Words[:60], long.Tags[:60]
	sentences := append([]data.Sentence{long}, corpus[:2]...)
	labels, err := ner.LabelsOf(corpus)
	if err != nil {
		t.Fatal(err)
	}
	tagger, err := ner.NewTaggerFromScratch(gxtest.Backend(t), tokenizerDir(t), encoder(), labels, ner.Config{MaxLength: 48, Lengths: []int{24}, Overlap: 12, BatchSize: 1}, 3)
	if err != nil {
		t.Fatal(err)
	}
	adaptive, err := tagger.Adapt(testtime.Config{Method: "labels", Variables: []string{"/head/*"}, Rate: 5, FullRows: 1, Guard: testtime.Guard{Off: true}})
	if err != nil {
		t.Fatal(err)
	}
	tag := func(sentences []data.Sentence) []ner.Tagged {
		t.Helper()
		if err := adaptive.Reset(); err != nil {
			t.Fatal(err)
		}
		tagged, err := adaptive.TagThenLearn(t.Context(), sentences, nil)
		if err != nil {
			t.Fatal(err)
		}
		return tagged
	}
	truth := tag(sentences)
	if events := adaptive.Events(); len(events) < 6 || events[0].Moved == 0 {
		t.Fatalf("events are %+v", events)
	}
	later := false
	for word := range long.Words {
		told := data.Sentence{Words: long.Words, Tags: slices.Clone(long.Tags)}
		told.Tags[word] = "O"
		if long.Tags[word] == "O" {
			told.Tags[word] = labels.Tags()[1]
		}
		got := tag([]data.Sentence{told, sentences[1], sentences[2]})
		if got[0].Tags[word] != truth[0].Tags[word] || got[0].Scores[word] != truth[0].Scores[word] {
			t.Errorf("word %d was predicted with %g as %s, and with %g as %s when its tag was another", word, truth[0].Scores[word], truth[0].Tags[word], got[0].Scores[word], got[0].Tags[word])
		}
		later = later || !reflect.DeepEqual(got, truth)
	}
	if !later {
		t.Error("tags have no influence on later predictions")
	}

	plain, err := tagger.Tag(t.Context(), [][]string{long.Words}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := adaptive.Reset(); err != nil {
		t.Fatal(err)
	}
	if got, err := adaptive.Tag(t.Context(), [][]string{long.Words}, nil); err != nil || !reflect.DeepEqual(got, plain) {
		t.Errorf("without tags it predicts otherwise than the tagger: %v", err)
	}
	report, err := adaptive.Evaluate(t.Context(), sentences, ner.Options{}, nil)
	if err != nil || report.Sentences != 3 || len(adaptive.Events()) < 8 {
		t.Errorf("report %+v, %d events, error %v", report, len(adaptive.Events()), err)
	}
	if _, err := adaptive.TagThenLearn(t.Context(), []data.Sentence{{Words: []string{"Ada"}, File: "x", Line: 3}}, nil); err == nil || !strings.Contains(err.Error(), "x:3") {
		t.Errorf("a sentence without tags: %v", err)
	}
}
