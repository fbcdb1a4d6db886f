package format_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/format"
)

func TestCSV(t *testing.T) {
	const table = "\ufeffid,text,label\r\n1,\"Where, please, is my\ncard?\",card_arrival\r\n\r\n2,\"a \"\"new\"\" one\",reverted?\r\n"
	want := []data.Text{
		{Text: "Where, please, is my\ncard?", Label: "card_arrival", File: "x.csv", Line: 2},
		{Text: `a "new" one`, Label: "reverted?", File: "x.csv", Line: 5},
	}
	var zipped bytes.Buffer
	zip := gzip.NewWriter(&zipped)
	if _, err := zip.Write([]byte(table)); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"plain": table, "gzip": zipped.String()} {
		got, err := data.CollectTexts(format.CSV("x.csv", strings.NewReader(content), format.CSVOptions{}))
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
	got, err := data.CollectTexts(format.CSV("x.tsv", strings.NewReader("query\tn\n\"quoted\"\t1\n"), format.CSVOptions{Text: "query", Unlabelled: true, Separator: "\t"}))
	if err != nil || len(got) != 1 || got[0].Text != "quoted" || got[0].Label != "" {
		t.Errorf("tabs: %+v, %v", got, err)
	}
}

func TestCSVErrors(t *testing.T) {
	for _, test := range []struct {
		name, content string
		options       format.CSVOptions
		want          string
	}{
		{"nothing", "", format.CSVOptions{}, "x.csv: no records, not even a header"},
		{"header only", "text,label\n", format.CSVOptions{}, "x.csv: no records behind the header"},
		{"no column", "text,category\na,b\n", format.CSVOptions{}, `x.csv:1: no column "label"; the header has ["text" "category"]`},
		{"column twice", "text,text,label\na,b,c\n", format.CSVOptions{}, `x.csv:1: two columns are called "text"`},
		{"fields", "text,label\na,b\n\"c\nd\"\n", format.CSVOptions{}, "x.csv:3: 1 fields, want 2 as in the header"},
		{"quote", "text,label\na,b\n\"c,d\n", format.CSVOptions{}, "x.csv:3: "},
		{"bare quote", "text,label\na \"b\" c,d\n", format.CSVOptions{}, "x.csv:2: "},
		{"empty text", "text,label\n \t,b\n", format.CSVOptions{}, "x.csv:2: the text is empty"},
		{"empty label", "text,label\na,\n", format.CSVOptions{}, "x.csv:2: the label is empty"},
		{"encoding", "text,label\na,b\n\"c\nAndr\xe9\",b\n", format.CSVOptions{}, "x.csv:3:1: the field is not UTF-8"},
		{"NUL", "text,label\na,b\x00\n", format.CSVOptions{}, "x.csv:2:3: NUL byte"},
		{"UTF-16", "\xff\xfet\x00", format.CSVOptions{}, "x.csv: the text is UTF-16"},
		{"cut off", "\x1f\x8b\x08\x00", format.CSVOptions{}, "x.csv: "},
		{"separator", "text,label\na,b\n", format.CSVOptions{Separator: "||"}, `separator "||": want one character`},
	} {
		all, err := data.CollectTexts(format.CSV("x.csv", strings.NewReader(test.content), test.options))
		var located *format.ParseError
		if err == nil || !strings.HasPrefix(err.Error(), strings.TrimSuffix(test.want, "…")) && !strings.Contains(err.Error(), test.want) || !errors.As(err, &located) {
			t.Errorf("%s: %d texts, %v; want %q", test.name, len(all), err, test.want)
		}
	}
	if _, err := data.CollectTexts(format.CSVFile(filepath.Join(t.TempDir(), "none.csv"), format.CSVOptions{})); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

const clinc = `{
  "val": [["one", "a"]],
  "train": [
    ["what is the weather", "weather"],
    [
      "play some \"jazz\"",
      "play_music"
    ]
  ],
  "other": {"x": [1, 2]}
}
`

func TestCLINC(t *testing.T) {
	got, err := data.CollectTexts(format.CLINC("x.json", strings.NewReader(clinc), "train"))
	want := []data.Text{
		{Text: "what is the weather", Label: "weather", File: "x.json", Line: 4},
		{Text: `play some "jazz"`, Label: "play_music", File: "x.json", Line: 5},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for text, err := range format.CLINC("x.json", strings.NewReader(clinc), "train") {
		if err != nil || text.Label != "weather" {
			t.Errorf("%+v, %v", text, err)
		}
		break // ends the reading
	}
	for _, test := range []struct{ name, content, part, want string }{
		{"no part", clinc, "test", `no part "test"`},
		{"no object", "[]", "train", "x.json:1: got [, want an object of parts"},
		{"no pair", "{\"train\": [\n[\"a\", \"b\"],\n[\"a\"]]}", "train", "x.json:3: 1 strings, want a pair"},
		{"number", "{\"train\": [\n[\"a\", 1]]}", "train", "x.json:2: want a pair [text, label], got JSON number"},
		{"empty text", "{\"train\": [\n[\" \", \"b\"]]}", "train", "x.json:2: the text is empty"},
		{"empty label", "{\"train\": [\n[\"a\", \"\"]]}", "train", "x.json:2: the label is empty"},
		{"empty part", "{\"train\": []}", "train", `part "train" is empty`},
		{"twice", "{\"train\": [[\"a\", \"b\"]], \"train\": []}", "train", `part "train" is there twice`},
		{"cut off", "{\"train\": [[\"a\", \"b\"],\n", "train", "x.json:2: the file ends before its JSON does"},
		{"more", clinc + "{}", "train", "something behind the object"},
		{"syntax", "{\"train\": [\n[\"a\" \"b\"]]}", "train", "x.json:2: invalid character"},
		{"encoding", "{\"train\": [\n[\"Andr\xe9\", \"b\"]]}", "train", "x.json:2: the pair is not UTF-8"},
		{"nothing", "", "train", "x.json:1: the file ends before its JSON does"},
	} {
		if all, err := data.CollectTexts(format.CLINC("x.json", strings.NewReader(test.content), test.part)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %d texts, %v; want %q", test.name, len(all), err, test.want)
		}
	}
}

// roundTrip writes texts and reads them again.
func roundTrip(texts []data.Text, options format.CSVOptions) ([]data.Text, error) {
	var b bytes.Buffer
	if err := format.WriteCSV(&b, slices.Values(texts), options); err != nil {
		return nil, err
	}
	return data.CollectTexts(format.CSV("x.csv", &b, options))
}

func TestCSVRoundTrip(t *testing.T) {
	texts := []data.Text{
		{Text: "plain", Label: "a"}, {Text: " space, comma ", Label: `quote"d`}, {Text: "two\nlines", Label: "\ttab"}, {Text: `\.`, Label: "x\r"},
		{Text: "\ufeffmark", Label: "öß"},
	}
	for _, options := range []format.CSVOptions{{}, {Text: "query", Label: "intent, or so", Separator: "\t"}} {
		got, err := roundTrip(texts, options)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range texts {
			if got[i].Text != want.Text || got[i].Label != want.Label {
				t.Errorf("%q, %q came back as %q, %q", want.Text, want.Label, got[i].Text, got[i].Label)
			}
		}
	}
	for _, bad := range []data.Text{{Text: "", Label: "a"}, {Text: "a"}, {Text: "a\r\nb", Label: "a"}, {Text: "a\xff", Label: "a"}, {Text: "a\x00", Label: "a"}} {
		if err := format.WriteCSV(&bytes.Buffer{}, slices.Values([]data.Text{bad}), format.CSVOptions{}); err == nil || !strings.Contains(err.Error(), "text 1") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// FuzzCSV wants that whatever can be read is read alike after it was written, or that the
// writer refuses it.
func FuzzCSV(f *testing.F) {
	f.Add("text,label\na,b\n\"c, \"\"d\"\"\",e\n")
	f.Add("label,text\r\n\"x\r\ny\",\" z\"\r\n")
	f.Add("\ufefftext,label\n\\.,\"\n\"\n")
	f.Add("label,text\r\n\"xxt\r\r\ny\",\" z\"")
	f.Fuzz(func(t *testing.T, content string) {
		texts, err := data.CollectTexts(format.CSV("x", strings.NewReader(content), format.CSVOptions{}))
		if err != nil {
			return
		}
		got, err := roundTrip(texts, format.CSVOptions{})
		if err != nil {
			t.Fatalf("%q was read as %+v but cannot be written: %v", content, texts, err)
		}
		for i, want := range texts {
			if got[i].Text != want.Text || got[i].Label != want.Label {
				t.Fatalf("%+v came back as %+v", want, got[i])
			}
		}
	})
}

func FuzzCLINC(f *testing.F) {
	f.Add(clinc)
	f.Add(`{"train": [["a", "b"], ["c"]]}`)
	f.Fuzz(func(t *testing.T, content string) {
		lines := 1 + strings.Count(content, "\n")
		for text, err := range format.CLINC("x", strings.NewReader(content), "train") {
			if err == nil && (text.Text == "" || text.Label == "" || text.Line < 1 || text.Line > lines) {
				t.Fatalf("%q gives %+v", content, text)
			}
		}
	})
}

func ExampleCSV() {
	table := strings.NewReader("text,intent\nWhere is my card?,card_arrival\n\"How much, please?\",fee\n")
	texts := format.CSV("questions.csv", table, format.CSVOptions{Label: "intent"})
	for text, err := range texts {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s: %s (%s)\n", text.Place(), text.Text, text.Label)
	}
	// Output:
	// questions.csv:2: Where is my card? (card_arrival)
	// questions.csv:3: How much, please? (fee)
}
