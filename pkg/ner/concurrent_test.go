package ner_test

import (
	"fmt"
	"reflect"
	"sync"
	"testing"
)

// TestConcurrentPredictions: a tagger serves several goroutines at a time, each with the
// answers that it gets alone. "make check" runs it under the race detector.
func TestConcurrentPredictions(t *testing.T) {
	tagger := newTagger(t, 3)
	texts := []string{"Ann Lee lives in Rome .", "Rome", "", "Ford sold a car to Ann in Rome and then went home again ."}
	want, err := tagger.Predict(t.Context(), texts...)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	failures := make(chan error, 8)
	for worker := range 8 {
		group.Go(func() {
			for round := range 3 {
				at := (worker + round) % len(texts)
				got, err := tagger.Predict(t.Context(), texts[at])
				switch {
				case err != nil:
					failures <- err
					return
				case got[0].Text != want[at].Text || len(got[0].Entities) != len(want[at].Entities):
					failures <- fmt.Errorf("%q: found %v, alone %v", texts[at], got[0].Entities, want[at].Entities)
					return
				}
				for i, e := range got[0].Entities {
					e.Score = want[at].Entities[i].Score // a batch of one may round differently
					if !reflect.DeepEqual(e, want[at].Entities[i]) {
						failures <- fmt.Errorf("%q: found %v, alone %v", texts[at], e, want[at].Entities[i])
						return
					}
				}
			}
		})
	}
	group.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
}
