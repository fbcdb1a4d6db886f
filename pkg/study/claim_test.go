package study_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/eval"
	"github.com/elastic-attention/workbench/pkg/study"
)

// TestClaimSaysWhatItsResultsSay: the tables of docs/claim.md are those of the results beside it,
// which are those of the studies that come with the program.
func TestClaimSaysWhatItsResultsSay(t *testing.T) {
	docs := filepath.Join("..", "..", "docs")
	page, err := os.ReadFile(filepath.Join(docs, "claim.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ner", "classify", "adapt-ner", "adapt-classify"} {
		folder, err := study.Open(filepath.Join(docs, "claim", name))
		if err != nil {
			t.Fatal(err)
		}
		if want := len(folder.Config.Variants) * len(folder.Config.Seeds); len(folder.Results) != want || folder.Config.Name != "claim-"+name {
			t.Errorf("%s has %d results, want %d", folder.Config.Name, len(folder.Results), want)
		}
		tables := []func(eval.Bootstrap) (study.Table, error){folder.Adaptations}
		if want := len(folder.Config.Variants); want > 1 {
			tables = append(tables, folder.Variants)
		}
		for _, compare := range tables {
			table, err := compare(eval.Bootstrap{Resamples: 10000, Seed: 1})
			if err != nil {
				t.Fatal(err)
			}
			if text := "#" + table.Markdown(); !strings.Contains(string(page), text) {
				t.Errorf("claim.md does not have the table %q of %s as elastic study show writes it", table.Title, name)
			}
		}
	}
}
