package ner_test

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/ner"
)

var (
	renderText     = "Zoë saw <Li & Co> in 北京."
	renderEntities = []ner.Entity{
		{Type: "LOC", Start: 21, End: 23, Score: 0.91234},
		{Type: "PER", Start: 0, End: 3},
		{Type: "ORG", Start: 9, End: 16},
	}
)

func TestMark(t *testing.T) {
	for _, test := range []struct {
		name, text string
		entities   []ner.Entity
		colour     bool
		want       string
	}{
		{"plain", renderText, renderEntities, false, "[Zoë PER] saw <[Li & Co ORG]> in [北京 LOC]."},
		{"colour", "in Rome", []ner.Entity{{Type: "LOC", Start: 3, End: 7}}, true, "in \x1b[30;48;5;36m Rome \x1b[1mLOC \x1b[0m"},
		{"nothing", "in Rome", nil, true, "in Rome"},
		{"empty", "", nil, false, ""},
		{"overlap", "New York", []ner.Entity{{Type: "A", Start: 4, End: 8}, {Type: "B", Start: 0, End: 8}, {Type: "C", Start: 0, End: 3}}, false, "[New York B]"},
		{"outside the text", "ab", []ner.Entity{{Type: "A", Start: 1, End: 3}, {Type: "A", Start: -1, End: 1}, {Type: "A", Start: 1, End: 1}}, false, "ab"},
		{"control characters", "a\x1b[31mb\r\x7f\u009b\u202e\n", nil, false, "a␛[31mb␍␡��\n"},
		{"control characters in an entity", "\x1b", []ner.Entity{{Type: "\x07", End: 1}}, true, "\x1b[30;48;5;"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := ner.Mark(test.text, test.entities, test.colour)
			if test.name == "control characters in an entity" {
				if !strings.HasPrefix(got, test.want) || !strings.Contains(got, " ␛ ") || !strings.Contains(got, "␇") {
					t.Errorf("got %q", got)
				}
				return
			}
			if got != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestHTML(t *testing.T) {
	got := ner.HTML(renderText, renderEntities)
	for _, want := range []string{
		`aria-label="Text with 3 named entities: Zoë (PER), Li &amp; Co (ORG), 北京 (LOC)"`,
		`&lt;<mark title="ORG" `, `title="LOC, score 0.912"`, `</mark>&gt; in `,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	// Well-formed, and the text is all there, with the types between.
	if text := textOf(t, got); text != "Zoë PER saw <Li & Co ORG> in 北京 LOC." {
		t.Errorf("text %q", text)
	}
	if got := ner.HTML("a", nil); !strings.Contains(got, `aria-label="Text without named entities"`) {
		t.Errorf("no entities: %s", got)
	}
	if got := ner.HTML("Rome", []ner.Entity{{Type: "LOC", End: 4}}); !strings.Contains(got, `"Text with 1 named entity: Rome (LOC)"`) {
		t.Errorf("one entity: %s", got)
	}
}

func TestHTMLEscapesEverything(t *testing.T) {
	hostile := `"><script>alert('x')</script>`
	got := ner.HTML(hostile, []ner.Entity{{Type: hostile, End: len(hostile), Score: 1}})
	if strings.Contains(got, "<script") || strings.Contains(got, `""`) {
		t.Errorf("markup gets through: %s", got)
	}
	if text := textOf(t, got); text != hostile+" "+hostile {
		t.Errorf("text %q", text)
	}
}

func textOf(t *testing.T, element string) string {
	t.Helper()
	var text strings.Builder
	for dec := xml.NewDecoder(strings.NewReader(element)); ; {
		token, err := dec.Token()
		if err == io.EOF {
			return text.String()
		}
		if err != nil {
			t.Fatalf("%v in %s", err, element)
		}
		if data, ok := token.(xml.CharData); ok {
			text.Write(data)
		}
	}
}

// Black letters on every colour have a contrast of at least 4.5 (WCAG 2.2, 1.4.3).
func TestContrast(t *testing.T) {
	background := regexp.MustCompile(`background:#(..)(..)(..);color:#000`)
	seen := map[string]bool{}
	for i := range 100 {
		typ := fmt.Sprintf("T%d", i)
		m := background.FindStringSubmatch(ner.HTML("x", []ner.Entity{{Type: typ, End: 1}}))
		if m == nil {
			t.Fatal("no background")
		}
		luminance := 0.0
		for j, weight := range []float64{0.2126, 0.7152, 0.0722} {
			v, err := strconv.ParseUint(m[j+1], 16, 8)
			if err != nil {
				t.Fatal(err)
			}
			c := float64(v) / 255
			if c <= 0.04045 {
				c /= 12.92
			} else {
				c = math.Pow((c+0.055)/1.055, 2.4)
			}
			luminance += weight * c
		}
		if contrast := (luminance + 0.05) / 0.05; contrast < 4.5 {
			t.Errorf("%s: contrast %.1f", m[0], contrast)
		}
		seen[m[0]] = true
	}
	if len(seen) != 6 {
		t.Errorf("%d colours are used, want 6", len(seen))
	}
}

func ExampleMark() {
	entities := []ner.Entity{{Type: "PER", Start: 0, End: 12}, {Type: "LOC", Start: 22, End: 28}}
	fmt.Println(ner.Mark("Ada Lovelace lived in London.", entities, false))
	// Output: [Ada Lovelace PER] lived in [London LOC].
}
