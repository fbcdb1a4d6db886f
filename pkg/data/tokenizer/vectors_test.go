package tokenizer_test

import (
	"encoding/json"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/data/tokenizer"
)

type vectorFile struct {
	Source   string                     `json:"source"`
	Base     map[string]json.RawMessage `json:"base"`
	Variants []struct {
		Name  string                     `json:"name"`
		Patch map[string]json.RawMessage `json:"patch"`
		Rows  []struct {
			goldenRow
			DecAll *string `json:"dec_all"`
		} `json:"rows"`
	} `json:"variants"`
}

func readVectors(t testing.TB) vectorFile {
	t.Helper()
	data, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var f vectorFile
	if err := json.Unmarshal(data, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// patched returns the base tokenizer with other top-level parts; of the model, only the named settings change.
func (f vectorFile) patched(t testing.TB, patch map[string]json.RawMessage) []byte {
	t.Helper()
	file := maps.Clone(f.Base)
	maps.Copy(file, patch)
	if settings, ok := patch["model"]; ok {
		var model map[string]json.RawMessage
		if err := json.Unmarshal(f.Base["model"], &model); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(settings, &model); err != nil {
			t.Fatal(err)
		}
		file["model"], _ = json.Marshal(model)
	}
	data, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestGoldenVariants covers the kinds and options one by one.
func TestGoldenVariants(t *testing.T) {
	f := readVectors(t)
	rows := 0
	for _, v := range f.Variants {
		t.Run(v.Name, func(t *testing.T) {
			tok, err := tokenizer.Parse("vectors.json", f.patched(t, v.Patch))
			if err != nil {
				t.Fatal(err)
			}
			bad := 0
			for i, r := range v.Rows {
				rows++
				kind := r.Kind
				// The kinds of the golden sets, and both for pairs and windows without special tokens.
				r.Kind = strings.NewReplacer("pair_nospecial", "single_nospecial", "trunc_nospecial", "single_nospecial").Replace(kind)
				diff := r.diff(t, tok)
				if r.DecAll != nil {
					diff += cmp.Diff(*r.DecAll, tok.Decode(r.IDs, false))
				}
				if diff != "" {
					bad++
					if bad <= 3 {
						t.Errorf("row %d: %s %+q %+q: (-want +got)\n%s", i, kind, r.Text, r.Words, diff)
					}
				}
			}
			if bad > 0 {
				t.Errorf("%d of %d rows differ", bad, len(v.Rows))
			}
		})
	}
	t.Logf("%s: %d variants, %d rows", f.Source, len(f.Variants), rows)
}
