package study_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/eval"
	"github.com/elastic-attention/workbench/pkg/study"
)

// TestClaimSaysWhatItsResultsSay: the tables of docs/claim.md and docs/claim-rates.md are those of the
// results beside them.
func TestClaimSaysWhatItsResultsSay(t *testing.T) {
	docs := filepath.Join("..", "..", "docs")
	for name, file := range map[string]string{
		"ner": "claim.md", "classify": "claim.md", "adapt-ner": "claim.md", "adapt-classify": "claim.md",
		"upper-ner": "claim.md", "upper-classify": "claim.md", "labels-ner": "claim.md", "labels-classify": "claim.md",
		"rates-lm": "claim-rates.md", "rates-ner": "claim-rates.md", "rates-ner-1600": "claim-rates.md",
	} {
		page, err := os.ReadFile(filepath.Join(docs, file))
		if err != nil {
			t.Fatal(err)
		}
		folder, err := study.Open(filepath.Join(docs, "claim", name))
		if err != nil {
			t.Fatal(err)
		}
		if want := len(folder.Config.Variants) * len(folder.Config.Seeds); len(folder.Results) != want || folder.Config.Name != "claim-"+name {
			t.Errorf("%s has %d results, want %d", folder.Config.Name, len(folder.Results), want)
		}
		var tables []func(eval.Bootstrap) (study.Table, error)
		if len(folder.Config.Adaptations) > 0 {
			tables = append(tables, folder.Adaptations)
		}
		if want := len(folder.Config.Variants); want > 1 {
			tables = append(tables, folder.Variants)
		}
		for _, compare := range tables {
			table, err := compare(eval.Bootstrap{Resamples: 10000, Seed: 1})
			if err != nil {
				t.Fatal(err)
			}
			if text := "#" + table.Markdown(); !strings.Contains(string(page), text) {
				t.Errorf("%s does not have the table %q of %s as elastic study show writes it", file, table.Title, name)
			}
		}
	}
}
