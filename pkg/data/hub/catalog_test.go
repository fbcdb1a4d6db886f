package hub_test

import (
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"testing"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/format"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/google/go-cmp/cmp"
)

func TestCatalogue(t *testing.T) {
	if diff := cmp.Diff([]string{"banking77", "clinc150", "minilm-l6", "tinyshakespeare", "uner-en-ewt", "wnut-17"}, hub.Names()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	for _, name := range hub.Names() {
		r, err := hub.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Validate(); err != nil {
			t.Error(err)
		}
		if r.Name != name || r.Kind == "" || r.Licence.ID == "" || r.Licence.URL == "" || r.Licence.Evidence == "" || r.Citation == "" {
			t.Errorf("%s is not described in full: %+v", name, r)
		}
		for _, file := range r.Files {
			if file.SHA256 == "" || file.Size == 0 || len(file.URLs) == 0 {
				t.Errorf("%s: %s is not pinned in full", name, file.Path)
			}
		}
	}
	_, err := hub.Lookup("bert")
	wantError(t, err, `no resource "bert", want one of banking77, clinc150, minilm-l6, tinyshakespeare, uner-en-ewt, wnut-17`)
}

func TestKinds(t *testing.T) {
	models, entities, classes := hub.Models(), hub.Corpora(hub.TaskNER), hub.Corpora(hub.TaskClassify)
	if !slices.Contains(models, hub.MiniLML6) || !slices.Contains(entities, hub.UNEREnglishEWT) || !slices.Contains(classes, hub.Banking77) {
		t.Errorf("models %v, entities %v, classes %v", models, entities, classes)
	}
	if all := slices.Sorted(slices.Values(slices.Concat(models, entities, classes, hub.Corpora(hub.TaskLM)))); !slices.Equal(all, hub.Names()) {
		t.Errorf("both are %v, want %v, each once", all, hub.Names())
	}
}

// TestUNER fetches the real corpus from a folder of data sets, and reads it.
func TestUNER(t *testing.T) {
	t.Setenv(hub.DataDirEnv, filepath.Dir(golden.Shared(t, "data/ner_uner_en_ewt")))
	r, err := hub.Lookup(hub.UNEREnglishEWT)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t)
	c.Offline = true
	dir := fetch(t, c, r)
	for split, want := range map[data.Split]int{data.Train: 12543, data.Dev: 2001, data.Test: 2077} {
		path, ok := r.SplitFile(split)
		if !ok {
			t.Fatalf("no file for %s", split)
		}
		all, err := data.Collect(format.CoNLLFile(filepath.Join(dir, path), format.CoNLLOptions{Types: []string{"PER", "ORG", "LOC"}}))
		if err != nil || len(all) != want {
			t.Errorf("%s: got %d sentences, %v, want %d", split, len(all), err, want)
		}
	}
	if _, ok := r.SplitFile(""); ok {
		t.Error("a file without a split was found as one")
	}
	if got, want := r.Size(), int64(3963291+620415+623751+20014); got != want {
		t.Errorf("size %d, want %d", got, want)
	}
}

// TestTexts does the same with the corpora of classified texts.
func TestTexts(t *testing.T) {
	t.Setenv(hub.DataDirEnv, filepath.Dir(golden.Shared(t, "data/cls_banking77")))
	c := newClient(t)
	c.Offline = true
	folder := func(name string) string {
		r, err := hub.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		return fetch(t, c, r)
	}
	banking, clinc := folder(hub.Banking77), filepath.Join(folder(hub.CLINC150), "data_full.json")
	columns := format.CSVOptions{Label: "category"}
	for _, test := range []struct {
		name           string
		texts          iter.Seq2[data.Text, error]
		count, classes int
	}{
		{"banking77 train", format.CSVFile(filepath.Join(banking, "train.csv"), columns), 10003, 77},
		{"banking77 test", format.CSVFile(filepath.Join(banking, "test.csv"), columns), 3080, 77},
		{"clinc150 train", format.CLINCFile(clinc, "train"), 15000, 150},
		{"clinc150 oos_test", format.CLINCFile(clinc, "oos_test"), 1000, 1},
	} {
		all, err := data.CollectTexts(test.texts)
		classes := map[string]bool{}
		for _, text := range all {
			classes[text.Label] = true
		}
		if err != nil || len(all) != test.count || len(classes) != test.classes {
			t.Errorf("%s: got %d texts in %d classes, %v, want %d in %d", test.name, len(all), len(classes), err, test.count, test.classes)
		}
	}
}

func ExampleLookup() {
	r, err := hub.Lookup("minilm-l6")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s: %s, %d files, %.1f MB\n", r.Name, r.Licence.ID, len(r.Files), float64(r.Size())/1e6)
	// Output:
	// minilm-l6: Apache-2.0, 6 files, 91.6 MB
}
